"""Whether `nas_nb/` is what `nbdev_export` makes of the notebooks; the export goes to a temporary copy and
the tree stays as it is."""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path


def out_of_step(
    root: Path,  # the project's folder
) -> list[str]:  # one line per module that differs, empty when all are in step
    "Export the notebooks of `root` elsewhere and compare."
    with tempfile.TemporaryDirectory() as tmp:
        copy = Path(tmp)
        shutil.copy(root / "settings.ini", copy)
        shutil.copytree(root / "nbs", copy / "nbs", ignore=shutil.ignore_patterns(".*", "_*"))
        (copy / "nas_nb").mkdir()
        # the version line is kept by nbdev in the file that is there
        shutil.copy(root / "nas_nb" / "__init__.py", copy / "nas_nb")
        env = {
            k: v for k, v in os.environ.items() if k != "IN_TEST"
        }  # under IN_TEST nbdev_export does nothing
        run = subprocess.run(
            [Path(sys.executable).parent / "nbdev_export"], cwd=copy, env=env, capture_output=True, text=True
        )
        if run.returncode:
            return [f"nbdev_export failed: {run.stderr.strip().splitlines()[-1]}"]
        made = {p.relative_to(copy) for p in copy.glob("nas_nb/**/*.py")}
        there = {p.relative_to(root) for p in root.glob("nas_nb/**/*.py")}
        lines = [f"{p}: not there" for p in sorted(made - there)] + [
            f"{p}: no notebook exports it" for p in sorted(there - made)
        ]
        return lines + [
            f"{p}: differs"
            for p in sorted(made & there)
            if not filecmp.cmp(copy / p, root / p, shallow=False)
        ]


if __name__ == "__main__":
    if lines := out_of_step(Path(__file__).resolve().parent.parent):
        sys.exit(
            "\n".join(lines)
            + "\nRun nbdev_export, then look at what changed: modules are never edited by hand."
        )
