"""Whether a module has more of mypy's complaints than tools/types.json allows; --update writes it anew.

Complaints about what `@patch` adds to classes do not count, because mypy cannot follow it. The numbers may
only go down, module by module: a new complaint is a mistake, or worth a better annotation.
"""

import ast
import json
import linecache
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = ROOT / "tools" / "types.json"
SUMMARY = re.compile(r"(?m)^(Success: no issues found in|Found \d+ errors? in .*\(checked) \d+ source files?")


def _made(node: ast.FunctionDef) -> set[str]:
    "The name of a method, and of the attributes that it sets; of `__call__` also its class."
    self = node.args.args[0]
    targets = (n for n in ast.walk(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store))
    found = {node.name} | {n.attr for n in targets if getattr(n.value, "id", "") == self.arg}
    return found | ({ast.unparse(self.annotation)} if node.name == "__call__" and self.annotation else set())


def patched(folder: Path = ROOT / "nas_nb") -> set[str]:
    "What `@patch` adds to classes: methods, attributes that these set, and classes that can be called."
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(
                "patch" in ast.unparse(d) for d in node.decorator_list
            ):
                found |= _made(node)
    return found


def of_patch(
    line: str,  # of mypy
    added: set[str],  # from `patched`
    source: str = "",  # the line that it is about
) -> bool:
    "Whether a complaint is about something that `@patch` adds."
    told = r'has no attribute "(\w+)"|Name "(\w+)" already defined|Cannot determine type of "(\w+)"'
    if m := re.search(told, line):
        return m[m.lastindex] in added
    # a module's attribute that a patched method sets is "Tensor | Module" to mypy
    if m := re.search(r'"(\w+)" not callable', line):
        called = re.findall(r"\.(\w+)(?:\[[^]]*\])?\(", source)
        return m[1] in added or (m[1] == "Tensor" and not added.isdisjoint(called))
    return False


def complaints() -> dict[str, list[str]]:  # module's path → mypy's lines
    "What mypy says of the package, settings from pyproject.toml."
    run = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    if "No module named mypy" in run.stderr:
        pin = re.search(r"(?m)^mypy==.*$", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
        sys.exit(f"Types were not checked, because mypy is not there: pip install {pin[0]}")
    if run.returncode not in (0, 1) or not SUMMARY.search(run.stdout):
        sys.exit(f"Types were not checked, because mypy did not finish: {(run.stderr or run.stdout).strip()}")
    found: dict[str, list[str]] = {}
    added = patched()
    for line in (x for x in run.stdout.splitlines() if ": error: " in x):
        path, number, _ = line.split(":", 2)
        if not of_patch(line, added, linecache.getline(str(ROOT / path), int(number))):
            found.setdefault(path, []).append(line)
    return found


def grown(
    found: dict[str, list[str]],
    allowed: dict[str, int],
) -> list[str]:  # one line for each module with more than are allowed, followed by mypy's lines
    more = {p: lines for p, lines in found.items() if len(lines) > allowed.get(p, 0)}
    return [
        f"{p}: {len(lines)} complaints of mypy, {allowed.get(p, 0)} at most\n  " + "\n  ".join(lines)
        for p, lines in more.items()
    ]


def main(update: bool) -> int:
    found = complaints()
    counts = Counter({p: len(lines) for p, lines in sorted(found.items())})
    if update:
        ALLOWED.write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    allowed = json.loads(ALLOWED.read_text(encoding="utf-8"))
    if problems := grown(found, allowed):
        print(*problems, sep="\n", file=sys.stderr)
        return 1
    print(f"mypy: {counts.total()} complaints, {sum(allowed.values())} at most")
    return 0


if __name__ == "__main__":
    raise SystemExit(main("--update" in sys.argv[1:]))
