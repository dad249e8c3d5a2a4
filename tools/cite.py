"""Fill in the numbers that the notebooks' texts cite from committed claims, and the tables of all claims;
--check only says what is old."""

import argparse
import ast
import json
import re
from importlib import import_module
from pathlib import Path

from nas_nb.claims import DECIDED, cite, fill_answer, kind
from nas_nb.overview import count_table, gather, is_own, kinds

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


ALL = re.compile(r"(<!-- all:([\w-]+) -->)(.*?)(<!-- / -->)", re.DOTALL)  # <!-- all:claims -->170<!-- / -->


def of_all() -> dict[str, str]:
    "What a text can cite of all claims together: how many there are of each kind, and a table of them."
    rows, _ = gather()
    count = kinds(rows)
    numbers = {kind.replace(",", "").replace(" ", "-"): n for kind, n in count.items()}
    decided, late = sum(count[kind] for kind in DECIDED), sum("exploratory" in r["verdict"] for r in rows)
    numbers |= dict(claims=len(rows), decided=decided, open=len(rows) - decided, exploratory=late)
    own = kinds([r for r in rows if is_own(r)])["reproduced"]
    numbers |= {"reproduced-own": own, "reproduced-documents": count["reproduced"] - own}
    closed = [r for r in rows if kind(r["verdict"]) in DECIDED]
    by_hand = kinds([r for r in closed if r["criterion"].startswith("arithmetic: ")])  # no run decides these
    numbers |= {"arithmetic": sum(by_hand.values()), "arithmetic-reproduced": by_hand["reproduced"]}
    numbers |= dict(
        construction=sum(bool(re.search(r"(^|\()by construction", r["criterion"])) for r in closed)
    )
    head, lines = count_table(rows)
    lines = [(f"[{name}]({name}.ipynb)" if of else name, of, *rest) for name, of, *rest in lines]
    marks = [":--"] * 2 + ["--:"] * (len(head) - 2)
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in [head, marks, *lines])
    table = table.replace("| reproduced, small", "| small").replace("| not reproduced", "| not")
    return {name: str(n) for name, n in numbers.items()} | dict(table=f"\n\n{table}\n\n")


def fill_all(text: str) -> tuple[str, list[str]]:  # the text, and what has no number
    "Fill in what a text cites of all claims together."
    known = of_all() if ALL.search(text) else {}
    missing = [m[2] for m in ALL.finditer(text) if m[2] not in known]
    filled = ALL.sub(lambda m: m[1] + known.get(m[2], m[3]) + m[4], text)
    return filled, [f"nothing of all claims is called {name} (known: {', '.join(known)})" for name in missing]


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
            filled, more = fill_all(filled)
            missing += more
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
