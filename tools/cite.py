"""Fill in the numbers that the notebooks' texts cite from committed claims; --check only says what is old."""

import argparse
import ast
import json
from importlib import import_module
from pathlib import Path

from nas_nb.claims import cite, fill_answer

ROOT = Path(__file__).resolve().parent.parent


def imported(name: str, sources: list[str]) -> ast.expr:
    "What a name stands for that the notebook's cells import, if it is a text; else the name."
    for node in (n for source in sources for n in ast.parse(source).body if isinstance(n, ast.ImportFrom)):
        if name in (alias.asname or alias.name for alias in node.names):
            value = getattr(import_module(node.module), name, None)
            return ast.Constant(value) if isinstance(value, str) else ast.Name(name)
    return ast.Name(name)


def answers(
    source: str,  # of a cell
    sources: list[str],  # of the notebook's cells of code, one of which may import the answer
) -> list[tuple[str, str]]:
    "The document's name and the answer of each call of `summary`, which may be a name."
    tree, found = ast.parse(source), []
    texts = {
        n.targets[0].id: n.value
        for n in tree.body
        if isinstance(n, ast.Assign) and "id" in vars(n.targets[0])
    }
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "summary"):
        given = call.args + [k.value for k in call.keywords]
        known = lambda a: texts.get(a.id) or imported(a.id, sources)
        given = [known(a) if isinstance(a, ast.Name) else a for a in given[:2]]
        if len(given) == 2 and all(isinstance(a, ast.Constant) for a in given):
            found.append((given[0].value, given[1].value))
    return found


def refill(
    path: Path,  # a notebook
) -> tuple[str, str, list[str]]:  # its text before and after, and which citations have no number
    "A notebook with its numbers filled in; the answer of a `summary` fills itself in and is only checked."
    before = path.read_text(encoding="utf-8")
    notebook, problems = json.loads(before), []
    sources = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    for cell in notebook["cells"]:
        text, missing = "".join(cell["source"]), []
        if cell["cell_type"] == "markdown":
            filled, missing = cite(text, path.stem)
            if filled != text:
                cell["source"] = filled.splitlines(keepends=True)
        elif "summary(" in text:
            for name, answer in answers(text, sources):
                missing += fill_answer(answer, name)[1]
        problems += [f"{path.name} [{cell['id']}]: {problem}" for problem in missing]
    after = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    return before, after if json.loads(before) != notebook else before, problems


def main(
    check: bool,  # change nothing
    folder: Path = ROOT / "nbs",
) -> int:  # exit status: 1 if a number is old or missing
    problems = []
    for path in sorted(folder.glob("*.ipynb")):
        before, after, missing = refill(path)
        problems += missing
        if before != after and check:
            problems.append(f"{path.name} cites old numbers: run `python tools/cite.py`")
        elif before != after:
            path.write_text(after, encoding="utf-8")
            print(f"filled in {path.name}")
    print("\n".join(problems) or "every citation has its number")
    return 1 if problems else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say which numbers are old or missing")
    raise SystemExit(main(parser.parse_args().check))
