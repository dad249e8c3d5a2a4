"""Notebooks are committed with outputs: documents with those of the quick profile (figures/quick/), the others with those of a run here."""

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def keep_outputs(
    notebook: Path,
    executed: Path,  # its executed copy
) -> str:  # what is wrong, "" if nothing
    "Put the outputs of `executed` into `notebook`, cell by cell."
    if not executed.is_file():
        return f"no executed copy of {notebook.name}: run nas-nb figures"
    there = json.loads(notebook.read_text(encoding="utf-8"))
    outputs = {c["id"]: c for c in json.loads(executed.read_text(encoding="utf-8"))["cells"]}
    for cell in (c for c in there["cells"] if c["cell_type"] == "code"):
        made = outputs.get(cell["id"])
        if made is None or "".join(made["source"]) != "".join(cell["source"]):
            return f"{notebook.name} [{cell['id']}] has changed since it was executed: run nas-nb figures"
        shown = [o for o in made["outputs"] if o.get("name") != "stderr"]
        cell |= dict(
            outputs=[o | dict(execution_count=None) if "execution_count" in o else o for o in shown],
            execution_count=None,
        )
    notebook.write_text(
        json.dumps(there, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
    )
    return ""


def executed(
    notebook: Path,
    folder: Path,  # for the copies that are made here
) -> Path:  # an executed copy
    "The copy that `nas-nb figures` left, or a new one for a notebook that saves no figure."
    import papermill

    copy = ROOT / "figures" / "quick" / notebook.stem / notebook.name
    if copy.is_file() or notebook.name.startswith("5"):
        return copy
    print(f"running {notebook.name}", flush=True)
    papermill.execute_notebook(
        notebook, folder / notebook.name, kernel_name="python3", progress_bar=False, cwd=ROOT / "nbs"
    )
    return folder / notebook.name


if __name__ == "__main__":
    os.environ["NAS_NB_BATCH"] = "1"
    with tempfile.TemporaryDirectory() as tmp:
        problems = [
            keep_outputs(p, executed(p, Path(tmp))) for p in sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))
        ]
    if any(problems):
        sys.exit("\n".join(filter(None, problems)))
