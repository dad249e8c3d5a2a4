"""Keep outputs in the notebooks: a document's are those of its largest profile with committed records.

The others keep those of `nas-nb figures`, or of a run here where they save no figure.
"""

import ast
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

from nas_nb.claims import committed_claims

ROOT = Path(__file__).resolve().parent.parent


def joined(outputs: list[dict]) -> list[dict]:
    "What was printed in one go, in however many pieces it came; without what went to stderr."
    made = []
    for output in (o for o in outputs if o.get("name") != "stderr"):
        if output["output_type"] == "stream" and made and made[-1]["output_type"] == "stream":
            text = "".join([*made[-1]["text"], *output["text"]])
            made[-1] = made[-1] | dict(text=text.splitlines(keepends=True))
        else:
            made.append(output)
    return made


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
        shown = joined(made["outputs"])
        cell |= dict(
            outputs=[o | dict(execution_count=None) if "execution_count" in o else o for o in shown],
            execution_count=None,
        )
    notebook.write_text(
        json.dumps(there, indent=1, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8"
    )
    return ""


def own_profile(notebook: Path) -> str:  # empty for a library notebook
    "The profile that a document's parameter cell names."
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            lines = [
                n
                for n in ast.parse("".join(cell["source"])).body
                if isinstance(n, ast.AnnAssign | ast.Assign)
            ]
            named = {getattr(n, "target", None) or n.targets[0]: n.value for n in lines}
            named = {target.id: value for target, value in named.items()}
            return ast.literal_eval(named["profile"]) if "profile" in named else ""
    return ""


def recorded_profile(name: str) -> str:  # empty if there is none
    "The profile whose claims count, if its records are committed."
    profile = committed_claims(name)[0]
    return profile if any((ROOT / "figures" / profile / name / "records").glob("*.json")) else ""


@contextlib.contextmanager
def environment(**variables: str):
    "Environment variables for the kernels that are started meanwhile."
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def execute(notebook: Path, copy: Path, **parameters) -> None:
    import papermill

    print(f"running {notebook.name} {' '.join(parameters.values())}", flush=True)
    quiet = dict(kernel_name="python3", progress_bar=False, cwd=ROOT / "nbs")
    papermill.execute_notebook(notebook, copy, parameters, **quiet)


def keep_recorded(
    notebook: Path,
    profile: str,  # with committed records
    copy: Path,  # where the executed notebook goes
) -> str:  # what is wrong, "" if nothing
    "Draw a document from committed records, in another profile than its parameter cell names, and keep that."
    # the time limit has passed, so that nothing long is computed; then the notebook stops
    with environment(NAS_NB_FIGURES="committed", NAS_NB_SHOWN=own_profile(notebook), NAS_NB_DEADLINE="0"):
        try:
            execute(notebook, copy, profile=profile)
        except Exception as error:  # of papermill: what a cell has raised
            return (
                f"{notebook.name} cannot be drawn from the records of {profile}: {str(error).strip()[-500:]}"
            )
    report = ROOT / "figures" / profile / notebook.stem / "report.json"
    if computed := json.loads(report.read_text(encoding="utf-8"))["runs"]["computed"]:
        return f"{notebook.name}: {computed} runs of {profile} have no committed record"
    return keep_outputs(notebook, copy)


def keep(notebook: Path, folder: Path) -> str:  # what is wrong, "" if nothing
    "Keep the outputs of one notebook; copies that are executed here go to `folder`."
    document = notebook.name.startswith(("5", "95")) and own_profile(notebook)  # the arena has claims, too
    if document and (profile := recorded_profile(notebook.stem)):
        return keep_recorded(notebook, profile, folder / notebook.name)
    copy = ROOT / "figures" / "quick" / notebook.stem / notebook.name
    if not (copy.is_file() or document):
        execute(notebook, copy := folder / notebook.name)
    return keep_outputs(notebook, copy)


def main(notebooks: list[Path]) -> str:  # what is wrong, "" if nothing
    with tempfile.TemporaryDirectory() as tmp, environment(NAS_NB_BATCH="1"):
        return "\n".join(filter(None, (keep(notebook, Path(tmp)) for notebook in notebooks)))


if __name__ == "__main__":
    chosen = [ROOT / "nbs" / f"{name}.ipynb" for name in sys.argv[1:]]
    if missing := [notebook.stem for notebook in chosen if not notebook.is_file()]:
        sys.exit(
            f"no such notebook: {', '.join(missing)}; usage: tools/keep_outputs.py [51_asng_nas …], none: all"
        )
    sys.exit(main(chosen or sorted((ROOT / "nbs").glob("[0-9]*.ipynb"))) or None)
