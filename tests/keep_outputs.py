"""Document notebooks are committed with the outputs of the quick profile: copy them from the executed copies under figures/quick/."""
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def keep_outputs(
    notebook: Path,
    executed: Path,  # its executed copy
) -> str:  # what is wrong, "" if nothing
    "Put the outputs of `executed` into `notebook`, cell by cell."
    if not executed.is_file():
        return f"{executed.relative_to(ROOT)} is not there: run nas-nb figures"
    there = json.loads(notebook.read_text(encoding="utf-8"))
    outputs = {c["id"]: c for c in json.loads(executed.read_text(encoding="utf-8"))["cells"]}
    for cell in (c for c in there["cells"] if c["cell_type"] == "code"):
        made = outputs.get(cell["id"])
        if made is None or "".join(made["source"]) != "".join(cell["source"]):
            return f"{notebook.name} [{cell['id']}] has changed since it was executed: run nas-nb figures"
        shown = [o for o in made["outputs"] if o.get("name") != "stderr"]
        cell |= dict(outputs=[o | dict(execution_count=None) if "execution_count" in o else o for o in shown], execution_count=None)
    notebook.write_text(json.dumps(there, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
    return ""


if __name__ == "__main__":
    problems = [keep_outputs(p, ROOT / "figures" / "quick" / p.stem / p.name) for p in sorted((ROOT / "nbs").glob("5*.ipynb"))]
    if any(problems):
        sys.exit("\n".join(filter(None, problems)))
