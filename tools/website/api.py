"""The library's reference: a page for each module, from signatures, docstrings and docments.

Modules are read, not imported: that takes a second. A docment is the comment beside, or above, the line of a
parameter, a field or the result; methods added with `@patch` stand under their class."""

import ast
import io
import re
import tokenize
from pathlib import Path
from typing import NamedTuple

from website.pages import ROOT, heading, module, notebooks, source, toctree


class Item(NamedTuple):
    "A function, class, method, property or value."

    kind: str  # of Sphinx: function, class, method, property, data
    name: str
    signature: str
    doc: str
    fields: list  # (name, docment)
    returns: str  # docment
    members: list  # of a class
    flags: tuple = ()  # of Sphinx: staticmethod, classmethod


def comments(code: str) -> dict[int, str]:
    "Line -> its comment, but for those that name a cell."
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    said = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    return {line: text for line, text in said.items() if not text.startswith("%%")}


def docment(line: int, said: dict[int, str], taken) -> str:
    "The comment at the end of a line, or those in the lines above that belong to nothing else."
    if line in said:
        return said[line]
    above: list[str] = []
    while (line := line - 1) in said and line not in taken:
        above.insert(0, said[line])
    return " ".join(above)


def public(name: str) -> bool:
    return not name.startswith("_")


def fields(node, said: dict[int, str]) -> tuple[list, str]:
    "The parameters of a function that have a docment, and that of its result; as fastcore reads them."
    a = node.args
    args = [*a.posonlyargs, *a.args, *filter(None, [a.vararg]), *a.kwonlyargs, *filter(None, [a.kwarg])]
    lines = {arg.lineno: arg.arg for arg in args}  # of several on a line the last one is meant
    if node.returns:
        lines[node.returns.lineno] = "return"
    found = {name: docment(line, said, lines) for line, name in lines.items()}
    returns = found.pop("return", "")
    return [(name, text) for name, text in found.items() if text], returns


def signature(node, skip: int = 0) -> str:
    "As Python writes it, without the first `skip` parameters."
    args = ast.parse(f"def f({ast.unparse(node.args)}): 0").body[0].args
    first = args.posonlyargs or args.args
    del first[:skip]
    args.defaults = (
        args.defaults[-len(args.posonlyargs + args.args) :] if args.posonlyargs + args.args else []
    )
    return f"({ast.unparse(args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


class Qualified(ast.NodeTransformer):
    "Annotations with the module of each name that is imported, so that a link leads to the right one."

    def __init__(self, names: dict[str, str]):
        self.names = names

    def visit_Name(self, node):
        return ast.copy_location(ast.Name(self.names.get(node.id, node.id)), node)

    def visit_arg(self, node):
        if node.annotation:
            node.annotation = self.visit(node.annotation)
        return node

    def visit_FunctionDef(self, node):
        a = node.args
        for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]:
            self.visit_arg(arg)
        node.returns = self.visit(node.returns) if node.returns else None
        node.body = [self.visit(n) if isinstance(n, ast.FunctionDef) else n for n in node.body]
        return node

    def visit_AnnAssign(self, node):
        node.annotation = self.visit(node.annotation)
        return node

    def visit_ClassDef(self, node):
        node.body = [self.visit(n) if isinstance(n, ast.FunctionDef) else n for n in node.body]
        return node


def imported(tree: ast.Module, package: str) -> dict[str, str]:
    "Name -> the same with the module of the project that it comes from."
    nodes = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module]
    ours = [n for n in nodes if n.level or n.module.startswith("nas_nb.")]  # long lines stay absolute
    above = {0: "", 1: f"{package}.", 2: "nas_nb."}
    return {a.asname or a.name: f"{above[n.level]}{n.module}.{a.name}" for n in ours for a in n.names}


def decorators(node) -> list[str]:
    return [ast.unparse(d) for d in node.decorator_list]


def function(node, said, owner: bool = False) -> Item:
    marks = decorators(node)
    prop = any(re.search(r"property|as_prop=True", d) for d in marks)
    static = "staticmethod" in marks
    klass = "classmethod" in marks or any("cls_method=True" in d for d in marks)
    kind = "property" if prop else "method" if owner else "function"
    named, returns = fields(node, said)
    named = [(name, text) for name, text in named if name not in ("self", "cls")]
    flags = ("staticmethod",) * static + ("classmethod",) * klass
    shown = "" if prop else signature(node, int(owner and not static))
    return Item(kind, node.name, shown, ast.get_docstring(node) or "", named, returns, [], flags)


def values(node, said, kind: str) -> list[Item]:
    "The names that an assignment gives, with the comment at its first or last line."
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    doc = said.get(node.lineno) or said.get(node.end_lineno, "")
    type = f": {ast.unparse(node.annotation)}" if isinstance(node, ast.AnnAssign) else ""
    return [Item(kind, name, type, doc, [], "", []) for name in names if public(name)]


def klass(node, said) -> Item:
    "A class with its public methods; its parameters are those of `__init__`, or its fields."
    own = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    init = next((n for n in own if n.name in ("__init__", "__new__")), None)
    made = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    record = any("dataclass" in d for d in decorators(node)) or "NamedTuple" in map(ast.unparse, node.bases)
    shown, named = "", []
    if init:
        shown, (named, _) = re.sub(r" -> None$", "", signature(init, 1)), fields(init, said)
    elif record and made:
        given = [ast.unparse(n.target) + (f"={ast.unparse(n.value)}" if n.value else "") for n in made]
        lines = {n.lineno: n.target.id for n in made}
        shown = f"({', '.join(given)})"
        named = [(name, docment(line, said, lines)) for line, name in lines.items()]
    members = [function(n, said, owner=True) for n in own if public(n.name) or n.name == "__call__"]
    doc, bases = ast.get_docstring(node) or "", [ast.unparse(b) for b in node.bases]
    doc += "\n\nBases: " + ", ".join(f"`{b}`" for b in bases) if bases else ""
    return Item("class", node.name, shown, doc.strip(), [f for f in named if f[1]], "", members)


def read_module(code: str, package: str = "nas_nb") -> tuple[str, list[Item]]:
    "The first sentence of a module, and what it has that is public, in its order."
    tree, said, items = ast.parse(code), comments(code), {}
    named = {ast.unparse(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
    exported = ast.literal_eval(named.get("__all__", ast.List([])))
    tree = Qualified(imported(tree, package)).visit(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(d.startswith("patch") for d in decorators(node)):
            owner = ast.unparse(node.args.args[0].annotation) if node.args.args[0].annotation else ""
            owner = owner.rpartition(".")[2]
            if owner in items and public(node.name):
                items[owner].members.append(function(node, said, owner=True))
        elif isinstance(node, ast.FunctionDef):
            items[node.name] = function(node, said)
        elif isinstance(node, ast.ClassDef):
            items[node.name] = klass(node, said)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for item in values(node, said, "data"):
                items.setdefault(item.name, item)
    return ast.get_docstring(tree) or "", [items[n] for n in items if n in exported]


def plain(text: str) -> str:
    "A docment or a docstring as Markdown: outside of code, nothing of it is markup."
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(p if i % 2 else re.sub(r"([\\*<$\[\]_])", r"\\\1", p) for i, p in enumerate(parts))


def directive(item: Item, depth: int = 0) -> str:
    "What Sphinx reads; members lie within."
    within = [directive(member, depth + 1) for member in item.members]
    fence = "`" * (3 + max([len(re.match("`+", w)[0]) - 2 for w in within], default=0))
    value = item.kind == "data"
    lines = [f"{fence}{{py:{item.kind}}} {item.name}{'' if value else item.signature}"]
    lines += [f":{flag}:" for flag in item.flags]
    lines += [f":type: {item.signature[2:]}"] * bool(value and item.signature)
    lines += ["", plain(item.doc), ""]
    lines += [f":param {name}: {plain(text)}" for name, text in item.fields]
    lines += [f":returns: {plain(item.returns)}"] * bool(item.returns)
    return "\n".join([*lines, "", *within, fence])


def sections(nb: dict) -> dict[str, str]:
    "Name that an exported cell defines -> the heading above it."
    found, above = {}, ""
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            heads = re.findall(r"(?m)^#{2,} (.+?)\s*$", source(cell))
            above = heads[-1] if heads else above
        for name in re.findall(r"(?m)^(?:def|class) (\w+)|^(\w+)(?:: .*?)? = ", source(cell)):
            found.setdefault(name[0] or name[1], above)
    return found


def module_page(name: str, code: str, notebook: str, nb: dict) -> str:
    "The page of a module, under the headings of its notebook."
    doc, items = read_module(code, f"nas_nb.{name}".rpartition(".")[0])
    lines = [f"# nas_nb.{name}", "", plain(doc) or heading(nb)[1], ""]
    lines += [f"Written in [{notebook}](../{notebook}.ipynb).", "", f"```{{py:module}} nas_nb.{name}", "```"]
    above, head = sections(nb), ""
    for item in items:
        if above.get(item.name, "") != head:
            head = above.get(item.name, "")
            lines += ["", f"## {head}"] if head else []
        lines += ["", directive(item)]
    return "\n".join(lines) + "\n"


def write_api(folder: Path, root: Path = ROOT) -> int:  # the number of pages
    "A page for each module that a notebook exports, and one that lists them."
    (folder / "api").mkdir(exist_ok=True)
    made = {name: (stem, nb) for stem, nb in notebooks(root).items() if (name := module(nb))}
    lines = [
        "# Library",
        "",
        "What each module of `nas_nb` has. Import it by its name: `from nas_nb.asng import ASNG`.",
        "",
    ]
    for name, (stem, nb) in made.items():
        code = (root / "nas_nb" / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        (folder / "api" / f"nas_nb.{name}.md").write_text(module_page(name, code, stem, nb), encoding="utf-8")
        lines.append(f"- [nas_nb.{name}](nas_nb.{name}.md): {heading(nb)[1]}")
    pages = [f"nas_nb.{name}" for name in made]
    (folder / "api" / "index.md").write_text("\n".join([*lines, "", toctree(pages), ""]), encoding="utf-8")
    return len(made) + 1
