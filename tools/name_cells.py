"""Give readable ids to the cells of the notebooks named, where an editor made random ones.

Ids tell which cell a message, a test or a merge is about. A code cell is named for what it defines, any other
for the cell above it.
"""

import ast
import json
import re
import sys
from pathlib import Path

READABLE = re.compile(r"(?![0-9a-f]{8}$)[a-z0-9][a-z0-9-]{1,30}")


def proposal(cell: dict, above: str) -> str:
    "What a cell might be called; `above` is the id of the cell above."
    name = ""
    if cell["cell_type"] == "code":
        try:
            for node in ast.parse("".join(cell["source"])).body:
                target = node.targets[0] if isinstance(node, ast.Assign) else node
                name = name or getattr(target, "name", "") or getattr(target, "id", "")
        except SyntaxError:
            pass
    name = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    end = "" if name else "-md" if cell["cell_type"] == "markdown" else "-check"
    return ((name or above)[:24].rstrip("-") or "cell") + end


def rename(nb: dict) -> list[str]:  # the new ids
    "Rename in place; ids that can be read stay."
    taken, made, above = {c.get("id") for c in nb["cells"]}, [], "top"
    for cell in nb["cells"]:
        if not READABLE.fullmatch(cell.get("id", "")):
            wanted = proposal(cell, above)
            more = (f"{wanted}-{n}" for n in range(2, 1000))
            fresh = wanted not in taken and len(wanted) > 1
            cell["id"] = wanted if fresh else next(w for w in more if w not in taken)
            taken.add(cell["id"])
            made.append(cell["id"])
        above = cell["id"].removesuffix("-md").removesuffix("-check")
    return made


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:] or sys.exit(__doc__)):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if names := rename(notebook):
            text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
            path.write_text(text, encoding="utf-8")
            print(f"{path.name}: {', '.join(names)}")
