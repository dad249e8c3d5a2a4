"""Give readable ids to the cells of the notebooks named, where an editor made random ones.

Ids tell which cell a message, a test or a merge is about. A code cell is named for what it defines, or for
the cell above it; a text cell for the code cell below it.
"""

import ast
import json
import re
import sys
from pathlib import Path

READABLE = re.compile(r"(?![0-9a-f]{8}$)[a-z0-9][a-z0-9-]{1,30}")


def defined(cell: dict) -> str:
    "The first name that a code cell defines, as part of an id."
    name = ""
    try:
        for node in ast.parse("".join(cell["source"])).body:
            target = node.targets[0] if isinstance(node, ast.Assign) else node
            name = name or getattr(target, "name", "") or getattr(target, "id", "")
    except SyntaxError:
        pass
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def give(cell: dict, name: str, end: str, taken: set[str]) -> None:
    "Give a cell an id that no other has."
    wanted = (name[:24].rstrip("-") or "cell") + end
    more = (f"{wanted}-{n}" for n in range(2, 1000))
    fresh = wanted not in taken and len(wanted) > 1
    cell["id"] = wanted if fresh else next(w for w in more if w not in taken)
    taken.add(cell["id"])


def rename(nb: dict) -> list[str]:  # the new ids
    "Rename in place; ids that can be read stay."
    taken, above = {c.get("id") for c in nb["cells"]}, "top"
    places = [n for n, c in enumerate(nb["cells"]) if not READABLE.fullmatch(c.get("id", ""))]
    for n, cell in enumerate(nb["cells"]):
        code = cell["cell_type"] == "code"
        if code and n in places:
            name = defined(cell)
            give(cell, name or above, "" if name else "-check", taken)
        if code or n not in places:
            above = cell["id"].removesuffix("-md").removesuffix("-check")
    for n in places:  # texts, when what they are about has its name
        if nb["cells"][n]["cell_type"] != "code":
            below = (c["id"] for c in nb["cells"][n:] if c["cell_type"] == "code")
            give(nb["cells"][n], next(below, above), "-md", taken)
    return [nb["cells"][n]["id"] for n in places]


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or sys.exit(__doc__)):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if names := rename(notebook):
            text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            path.write_text(text, encoding="utf-8")
            print(f"{path.name}: {', '.join(names)}")
