"""The rules that every notebook follows, checked without running one; a violation names notebook and cell.

What somebody writes (sources, tags) is checked as it stands in the working tree. What running a notebook
leaves (outputs, metadata) is checked as it was committed: a tree in which notebooks were opened and run in
JupyterLab stays green.
"""

import ast
import copy
import json
import re
import statistics
import subprocess
import symtable
from base64 import b64decode, b64encode
from configparser import ConfigParser
from pathlib import Path

import nbformat
import pytest
from execnb.nbio import dict2nb, nb2str
from nbdev.clean import clean_nb

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted(p.name for p in (ROOT / "nbs").glob("*.ipynb"))
PARAMETERS = ["profile", "seeds", "device", "overrides"]
MACHINE_PATH = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm|root|home|tmp/w)/", re.M)
CLONE_IN_TMP = re.compile(r"(^|[^A-Za-z0-9_.])/tmp/(?!tmp)", re.M)  # in outputs; /tmp/tmp… is of `tempfile`


def load(name: str) -> dict:
    return json.loads((ROOT / "nbs" / name).read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def cells(nb: dict, kind: str | None = None) -> list:
    "The cells that hold something: JupyterLab adds an empty one when the last is run."
    return [c for c in nb["cells"] if source(c).strip() and kind in (None, c["cell_type"])]


def directive(cell: dict, pattern: str) -> re.Match | None:
    return re.search(rf"(?m)^#\|\s*{pattern}\s*$", source(cell)) if cell["cell_type"] == "code" else None


def exported(nb: dict) -> list:
    return [c for c in cells(nb, "code") if directive(c, r"export[si]?(?:\s+\S+)?")]


def module(nb: dict) -> str | None:  # what follows `default_exp`
    return next((m[1] for c in cells(nb, "code") if (m := directive(c, r"default_exp\s+(\S+)"))), None)


def tags(cell: dict) -> list:
    return cell["metadata"].get("tags", [])


def tree(cell: dict) -> ast.Module:
    "The syntax tree; empty for what is not Python, which `plain_python` reports."
    try:
        return ast.parse(source(cell))
    except SyntaxError:
        return ast.parse("")


def document(name: str) -> bool:
    "A document's own notebook; what was split off (`50a_…`) and what documents share (`59_…`) are libraries."
    return re.match(r"5[0-8]_", name) is not None


def lines(cell: dict) -> int:
    return sum(1 for line in source(cell).splitlines() if line.strip())


def calls(cell: dict, function: str) -> bool:
    called = [n.func for n in ast.walk(tree(cell)) if isinstance(n, ast.Call)]
    return any(function in (getattr(f, "id", ""), getattr(f, "attr", "")) for f in called)


# -- rules about what somebody writes: each takes (name, notebook) and yields (cell id, what is wrong) --


def valid(name, nb):
    try:
        nbformat.validate(copy.deepcopy(nb))
    except nbformat.ValidationError as e:
        yield "-", f"is not a valid notebook: {e.message[:100]}"
    if not re.fullmatch(r"\d\d[a-z]?_[a-z0-9_]+\.ipynb|index\.ipynb", name):
        yield "-", "is not named like 51_asng_nas.ipynb"


def opening(name, nb):
    first = nb["cells"][0]
    if first["cell_type"] != "markdown" or not re.fullmatch(
        r"# \S.*\n\n> \S.*(\n\n[\s\S]*)?", source(first).strip()
    ):
        yield first.get("id"), "the first cell must be `# Title`, an empty line and `> one-line subtitle`"


def ids(name, nb):
    all_ids = [c.get("id") for c in nb["cells"]]
    for i in sorted({i for i in all_ids if all_ids.count(i) > 1}):
        yield i, "is the id of several cells"
    for c in cells(nb):
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,30}", c.get("id", "")) or re.fullmatch(
            r"[0-9a-f]{8}", c["id"]
        ):
            yield c.get("id"), "ids are short readable names like asng-update"


def plain_python(name, nb):
    for c in cells(nb, "code"):
        try:
            ast.parse(source(c))
        except SyntaxError as e:
            yield c["id"], f"is not plain Python, line {e.lineno} (no magics, no !commands)"
        if calls(c, "run_line_magic") or calls(c, "run_cell_magic") or "get_ipython().system" in source(c):
            yield c["id"], "calls a magic"


def import_cells(name, nb):
    for c in cells(nb, "code") if name != "index.ipynb" else ():  # the README's snippets stand by themselves
        kinds = {isinstance(n, ast.Import | ast.ImportFrom) for n in tree(c).body}
        if len(kinds) == 2:
            yield c["id"], "mixes imports with other code"


LONGEST, MEDIAN, NINE_OF_TEN = (
    25,
    5,
    15,
)  # lines of a code cell as `ruff format` leaves it, empty ones not counted


def imports_once(name, nb):
    first = {}
    for c in cells(nb, "code") if name != "index.ipynb" else ():
        for n in (n for n in tree(c).body if isinstance(n, ast.Import | ast.ImportFrom)):
            for alias in n.names:
                what = (getattr(n, "module", ""), alias.name, alias.asname)
                if first.setdefault(what, c["id"]) != c["id"]:
                    yield c["id"], f"imports {alias.name} once more: it stands in {first[what]}"


def proportions(name, nb):
    code, text = cells(nb, "code"), cells(nb, "markdown")
    for c in code:
        if lines(c) > LONGEST:
            yield c["id"], f"has {lines(c)} lines, {LONGEST} at most"
    least = 0.9 if document(name) else 0.6
    if len(text) < least * len(code):
        yield "-", f"has {len(text)} text cells for {len(code)} code cells, at least {least} for each"
    if document(name) and len(code) > 5:
        sizes = sorted(map(lines, code))
        if (middle := statistics.median(sizes)) > MEDIAN:
            yield "-", f"has code cells of {middle:g} lines (median), {MEDIAN} at most"
        if (long := sum(n > NINE_OF_TEN for n in sizes)) > max(1, 0.1 * len(code)):
            yield "-", f"has {long} code cells of over {NINE_OF_TEN} lines, one in ten at most"
    hidden = [c["id"] for c in code if directive(c, "hide")]
    if len(hidden) > max(1, 0.1 * len(cells(nb))):
        yield ", ".join(hidden), "are hidden: 10 % of the cells at most"


STEM = r"\d\d[a-z]?_[a-z]\w*"  # a notebook's name without its ending
NAME = re.compile(rf"(?<![\w/.-]){STEM}")
LINK = re.compile(r"\[[^\[\]]*\]\(([^()\s]+)\)")


def targets(nb: dict) -> list[tuple[str, str]]:  # cell, target without #heading
    "What the text links to, but for the web."
    found = [(c["id"], m[1]) for c in cells(nb, "markdown") for m in LINK.finditer(source(c))]
    return [(i, t.partition("#")[0]) for i, t in found if not re.match(r"[a-z]+:|#", t)]


def bare_names(text: str) -> list[str]:
    "Notebooks that a text names without a link; those in commands and paths do not count."
    text = re.sub(r"(?ms)^```.*?^```|<!--.*?-->", "", text)
    spans = re.findall(r"`([^`]*)`", text := LINK.sub("", text))
    alone = [m[1] for s in spans if (m := re.fullmatch(rf"(?:nbs/)?({STEM})(?:\.ipynb)?", s))]
    return alone + NAME.findall(re.sub(r"`[^`]*`", "", text))


def links(name, nb):
    for c in cells(nb, "markdown"):
        for found in bare_names(source(c)):
            yield c["id"], f"names {found} without a link: [{found}]({found}.ipynb)"
    for i, target in targets(nb):
        if not (ROOT / "nbs" / target).exists():
            yield i, f"links to {target}, which is not there"


def neighbours(name: str, names: list[str]) -> set[str]:
    "The notebooks before and after in the same band; of a notebook that is alone there, those of any band."
    band = [n for n in names if n[0] == name[0]]
    band = band if len(band) > 1 else [n for n in names if n[0].isdigit()]
    at = band.index(name)
    return {*band[max(0, at - 1) : at], *band[at + 1 : at + 2]}


def a_way_on(name, nb, names=NOTEBOOKS):
    if name in names and name[0].isdigit():
        wanted = neighbours(name, names)
        if wanted and not wanted & {target for _, target in targets(nb)}:
            yield "-", f"links to none of its neighbours: {', '.join(sorted(wanted))}"


def parameters(name, nb):
    tagged = [c for c in cells(nb, "code") if "parameters" in tags(c)]
    needed = document(name) or any(calls(c, "save_fig") for c in cells(nb, "code") if c not in exported(nb))
    if len(tagged) > 1 or (needed and not tagged):
        yield "-", f"has {len(tagged)} cells tagged parameters, one is needed"
    for c in tagged:
        body = tree(c).body
        if [
            getattr(getattr(n, "target", None), "id", None) for n in body if isinstance(n, ast.AnnAssign)
        ] != PARAMETERS or len(body) != 4:
            yield c["id"], f"must hold exactly the annotated parameters {', '.join(PARAMETERS)}"
        for n in body:
            try:
                ast.literal_eval(getattr(n, "value", None))
            except ValueError:
                yield c["id"], f"line {n.lineno}: a default is a literal"
        for line in source(c).splitlines():
            if line.count("=") > 1 and not line.startswith("#"):
                yield c["id"], f"papermill cannot read a line with two equals signs: {line}"
        if c in exported(nb):
            yield c["id"], "parameters are never exported"
    for c in nb["cells"]:
        if "injected-parameters" in tags(c):
            yield c["id"], "is a cell that papermill injected: this is an executed copy"


def free_names(cell: dict) -> set:
    "The names that a cell reads from outside itself."
    free, todo = set(), [top := symtable.symtable(source(cell), cell["id"], "exec")]
    while todo:
        table = todo.pop()
        todo += table.get_children()
        free |= {
            s.get_name() for s in table.get_symbols() if s.is_referenced() and (table is top or s.is_global())
        }
    return free - {s.get_name() for s in top.get_symbols() if s.is_assigned() or s.is_imported()}


def exports_read_no_parameter(name, nb):
    if not any("parameters" in tags(c) for c in nb["cells"]):
        return
    made = {
        n.id
        for c in exported(nb)
        for n in ast.walk(tree(c))
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    for c in exported(nb):
        if tree(c).body and (read := free_names(c) & set(PARAMETERS) - made):
            yield c["id"], f"is exported and reads the parameter {', '.join(sorted(read))}"


def imported_modules(node: ast.AST) -> list[str]:
    "The modules of the package that an import statement names, without `nas_nb.`."
    if isinstance(node, ast.Import):
        names = [a.name for a in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module == "nas_nb":
        names = [f"nas_nb.{a.name}" for a in node.names]
    else:
        names = [getattr(node, "module", None) or ""]
    return [n.removeprefix("nas_nb.") for n in names if n.startswith("nas_nb.")]


def layers(name, nb, bands):
    own = (module(nb) or "").startswith("papers.")  # the arena has a protocol and runs, as a document has
    if name[0] == "9" and not own and (out := exported(nb)):
        yield out[0]["id"], "9x notebooks export nothing"
    for c in exported(nb):
        for n in ast.walk(tree(c)):
            for target in imported_modules(n) if isinstance(n, ast.Import | ast.ImportFrom) else []:
                if target not in bands:
                    yield c["id"], f"imports nas_nb.{target}, which no notebook exports"
                elif bands[target] > int(name[0]):
                    yield c["id"], f"imports nas_nb.{target} of the higher band {bands[target]}x"


def caches(name, nb):
    "What a module keeps in a container of its own is part of the code hash of all runs that reach it."
    for c in exported(nb) if name[0] not in "0i" else []:
        for n in tree(c).body:
            value = n.value if isinstance(n, ast.Assign | ast.AnnAssign) else None
            if value is not None and ast.unparse(value) in ("{}", "[]", "dict()", "list()", "set()"):
                yield c["id"], "keeps what it has worked out in a container: use functools.cache"


def machine_paths(name, nb):
    for c in cells(nb):
        if m := MACHINE_PATH.search(source(c)):
            yield c["id"], f"holds a path of one machine: {m[0].strip()}"


RULES = [
    valid,
    opening,
    ids,
    plain_python,
    import_cells,
    imports_once,
    proportions,
    links,
    a_way_on,
    parameters,
    exports_read_no_parameter,
    caches,
    machine_paths,
]


def source_violations(name: str, nb: dict, bands: dict) -> list[str]:
    "All of them, one line each; `bands` maps a module to the band of its notebook."
    found = [v for rule in RULES for v in rule(name, nb)] + list(layers(name, nb, bands))
    return [f"{name} [{cell}] {what}" for cell, what in found]


# -- rules about what running a notebook leaves --


def cleaned(text: str) -> str:
    "What `nbdev_clean` would make of a notebook under settings.ini."
    config = ConfigParser()
    config.read(ROOT / "settings.ini")
    nb = dict2nb(json.loads(text))
    clean_nb(
        nb,
        allowed_cell_metadata_keys=config["DEFAULT"]["allowed_cell_metadata_keys"].split(),
        clean_ids=False,
    )
    return nb2str(nb)


def sharp(png: str, metadata: dict, always: bool) -> bool:
    "Whether a picture has nearly two pixels for a dot of the screen; without a width, unless it `always` has one."
    width = metadata.get("image/png", {}).get("width")
    return int.from_bytes(b64decode(png)[16:20]) >= 1.8 * width if width else not always


def output_violations(name: str, text: str) -> list[str]:
    "What must not be committed, one line each."
    nb, found = json.loads(text), []
    if cleaned(text) != text:
        found.append(("-", "is not clean: run nbdev_clean and commit"))
    if len(text.encode()) > 1_500_000:
        found.append(("-", f"has {len(text.encode()) / 1e6:.1f} MB, 1.5 at most"))
    if "widgets" in nb["metadata"]:
        found.append(("-", "stores the state of widgets"))
    if document(name) and not any(c.get("outputs") for c in nb["cells"]):
        found.append(("-", "is a document without outputs: run it and commit what it shows"))
    for c in nb["cells"]:
        if not source(c).strip():
            found.append((c["id"], "is empty"))
        for o in c.get("outputs", []):
            if o["output_type"] == "error":
                found.append((c["id"], f"stores an error: {o['ename']}"))
            if o.get("name") == "stderr":
                found.append((c["id"], "stores what went to stderr"))
            if any("widget-view" in mime for mime in o.get("data", {})):
                found.append((c["id"], "stores a live widget"))
            if (png := o.get("data", {}).get("image/png")) and not sharp(png, o["metadata"], document(name)):
                found.append((c["id"], "shows a soft picture: run tools/keep_outputs.py"))
            shown = json.dumps(o).replace("\\n", "\n")
            if MACHINE_PATH.search(shown) or CLONE_IN_TMP.search(shown):
                found.append((c["id"], "shows a path of one machine"))
    return [f"{name} [{cell}] {what}" for cell, what in found]


def git(*args: str) -> str | None:  # None where git or the answer is missing
    try:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, check=True).stdout.decode(
            "utf-8", "replace"
        )
    except (OSError, subprocess.CalledProcessError):
        return None


def all_bands() -> dict:
    return {m: int(name[0]) for name in NOTEBOOKS if name[0].isdigit() and (m := module(load(name)))}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_sources(name):
    if found := source_violations(name, load(name), all_bands()):
        pytest.fail("\n".join(found), pytrace=False)


def test_papermill_reads_the_parameters_without_a_warning(caplog):
    import papermill

    tagged = [name for name in NOTEBOOKS if any("parameters" in tags(c) for c in load(name)["cells"])]
    assert len(tagged) >= 5
    for name in tagged:
        assert list(papermill.inspect_notebook(str(ROOT / "nbs" / name))) == PARAMETERS, name
    assert not caplog.records


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed(name):
    if (text := git("show", f"HEAD:./nbs/{name}")) is None:
        pytest.skip("not committed")
    if found := output_violations(name, text):
        pytest.fail("\n".join(found), pytrace=False)


# -- each rule catches what it is for --

GOOD = """md title
# Title

> Subtitle
code exp
#| default_exp papers.sample
code imports
#| export
from nas_nb.core import root
code parameters-cell
profile: str = "quick"
seeds: int = 0
device: str = "auto"
overrides: str = ""
code body
#| export
def where(device): return root(), device
code show
save_fig(where(device))"""


def sample() -> dict:
    "A document notebook that follows every rule, as it looks after nbdev_clean."
    kernel = dict(display_name="python3", language="python", name="python3")
    out = []
    for part in re.split(r"(?m)^(?=(?:md|code) \S+$)", GOOD)[1:]:
        head, _, body = part.strip().partition("\n")
        kind, i = head.split()
        c = dict(
            cell_type=dict(md="markdown", code="code")[kind],
            id=i,
            metadata={},
            source=body.splitlines(keepends=True),
        )
        out.append(c | (dict(execution_count=None, outputs=[]) if kind == "code" else {}))
    for n, i in ((2, "text"), (4, "text-2"), (6, "text-3"), (8, "text-4")):
        out.insert(n, dict(cell_type="markdown", id=i, metadata={}, source=["Text"]))
    next(c for c in out if c["id"] == "parameters-cell")["metadata"] = dict(tags=["parameters"])
    out[-1]["outputs"] = [dict(name="stdout", output_type="stream", text=["1\n"])]
    return dict(cells=out, metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)


def at(nb: dict, cell: str) -> dict:
    return next(c for c in nb["cells"] if c["id"] == cell)


def edit(nb: dict, cell: str, old: str, new: str) -> dict:
    c = at(nb, cell)
    assert old in source(c)
    c["source"] = source(c).replace(old, new).splitlines(keepends=True)
    return nb


BANDS = dict(core=0, asng=2) | {"papers.sample": 5}
BAD_SOURCES = {
    "subtitle": ("title", "> Subtitle", "Subtitle", "first cell"),
    "subtitle of two lines": ("title", "> Subtitle", "> a\n> b", "first cell"),
    "magic": ("body", "#| export", "%matplotlib inline", "plain Python"),
    "pip": ("body", "#| export", "!pip install x", "plain Python"),
    "magic in disguise": ("body", "#| export", "get_ipython().run_line_magic('time', '1')", "calls a magic"),
    "command in disguise": ("body", "#| export", "get_ipython().system('ls')", "calls a magic"),
    "import once more": ("body", "#| export", "from nas_nb.core import root", "stands in imports"),
    "mixed imports": ("imports", "import root", "import root\nx = 1", "mixes imports"),
    "cache": ("body", "#| export", "#| export\n_KNOWN: dict[str, int] = {}", "use functools.cache"),
    "long cell": ("body", "#| export", "#| export\n" + "x = 1\n" * 24, "25 at most"),
    "missing parameter": ("parameters-cell", "seeds: int = 0\n", "", "exactly the annotated"),
    "bare parameter": ("parameters-cell", "seeds: int = 0", "seeds = 0", "exactly the annotated"),
    "fifth parameter": (
        "parameters-cell",
        "seeds: int = 0",
        "seeds: int = 0\nn: int = 1",
        "exactly the annotated",
    ),
    "computed parameter": ("parameters-cell", "seeds: int = 0", "seeds: int = len([])", "literal"),
    "two equals signs": (
        "parameters-cell",
        'overrides: str = ""',
        'overrides: str = ""  # "key=value"',
        "papermill cannot read",
    ),
    "parameter without value": ("parameters-cell", "seeds: int = 0", "seeds: int", "literal"),
    "exported parameters": ("parameters-cell", "profile", "#| export\nprofile", "never exported"),
    "reads a parameter": ("body", "where(device)", "where()", "reads the parameter device"),
    "reads one in a default": ("body", "where(device)", "where(device=device)", "reads the parameter device"),
    "import from its own band": (
        "imports",
        "nas_nb.core import root",
        "nas_nb.papers.sample import root",
        None,
    ),
    "import of nothing": ("imports", "nas_nb.core", "nas_nb.cores", "no notebook exports"),
    "machine path": ("text", "Text", "see /ro" + "ot/x", "path of one machine"),
}


def test_lint_accepts_the_good():
    nb = sample()
    assert source_violations("50_sample.ipynb", nb, BANDS) == []
    assert output_violations("50_sample.ipynb", nb2str(nb)) == []
    nb["cells"].append(
        dict(cell_type="code", id="0b1e88f3", metadata={}, source=[], outputs=[], execution_count=3)
    )
    assert source_violations("50_sample.ipynb", nb, BANDS) == []  # JupyterLab's empty last cell


@pytest.mark.parametrize("case", BAD_SOURCES)
def test_lint_catches_a_source(case):
    cell, old, new, message = BAD_SOURCES[case]
    found = source_violations("50_sample.ipynb", edit(sample(), cell, old, new), BANDS)
    assert (message in "\n".join(found) and f"[{cell}]" in "\n".join(found)) if message else found == []


@pytest.mark.filterwarnings("ignore:Non-unique cell id")
def test_lint_catches_the_whole():
    def found(change, name="50_sample.ipynb"):
        change(nb := sample())
        return "\n".join(source_violations(name, nb, BANDS))

    for bad in ("5_sample.ipynb", "50_Sample.ipynb", "50ab_sample.ipynb", "50A_sample.ipynb"):
        assert "not named" in found(lambda nb: None, bad)
    assert found(lambda nb: None, "50a_sample.ipynb") == ""  # what is split off takes a letter
    assert "several cells" in found(lambda nb: nb["cells"][1].update(id="text"))
    assert "not a valid" in found(lambda nb: nb["cells"][1].update(outputs=3))
    for bad in ("0b1e88f3", "Text", "a_b", "x", "a" * 40):
        assert "readable" in found(lambda nb, bad=bad: nb["cells"][1].update(id=bad))
    assert "text cells" in found(lambda nb: nb["cells"].pop(2))
    assert "one is needed" in found(lambda nb: at(nb, "parameters-cell")["metadata"].clear())
    assert "one is needed" in found(
        lambda nb: at(nb, "parameters-cell")["metadata"].clear(), "22_sample.ipynb"
    )  # it saves a figure
    assert "one is needed" in found(lambda nb: at(nb, "body")["metadata"].update(tags=["parameters"]))
    assert "papermill injected" in found(
        lambda nb: at(nb, "body")["metadata"].update(tags=["injected-parameters"])
    )
    elsewhere = lambda nb: [
        c.update(source="".join(c["source"]).replace("default_exp papers.", "default_exp "))
        for c in nb["cells"]
    ]
    assert "9x notebooks export nothing" in found(elsewhere, "90_sample.ipynb")
    for line in (
        "from nas_nb.asng import x",
        "import nas_nb.asng",
        "from nas_nb import asng",
        "def f():\n    from nas_nb.asng import x",
    ):
        assert "higher band 2x" in found(
            lambda nb, line=line: edit(nb, "imports", "from nas_nb.core import root", line), "11_sample.ipynb"
        )
    hide = lambda nb: [at(nb, i).update(source=["#| hide\n", "1"]) for i in ("body", "show")]
    assert "are hidden" in found(hide)
    for library in ("50a_sample.ipynb", "59_sample.ipynb"):  # needs neither parameters nor so much text
        drop = lambda nb: [nb["cells"].remove(at(nb, i)) for i in ("text", "show", "parameters-cell")]
        assert found(drop, library) == "" and "one is needed" in found(drop)
        fewer = lambda nb: [nb["cells"].remove(at(nb, i)) for i in ("text", "text-2", "text-3")]
        assert "at least 0.6" in found(fewer, library) and "at least 0.9" in found(fewer)


def test_lint_catches_long_documents():
    def found(sizes, name="50_sample.ipynb"):
        nb = sample()
        for n, size in enumerate(sizes):
            code = dict(cell_type="code", id=f"more-{n}", metadata={}, outputs=[], execution_count=None)
            nb["cells"] += [code | dict(source="x = 1\n" * size), at(nb, "text") | dict(id=f"why-{n}")]
        return "\n".join(source_violations(name, nb, BANDS))

    assert found([5] * 10) == "" == found([20] * 10, "50a_sample.ipynb")
    assert "of 6 lines (median), 5 at most" in found([6] * 10)
    assert "2 code cells of over 15 lines" in found([16] * 2) and found([16]) == "" == found([15] * 2)


NAMED = {
    "51_asng_nas": True,
    "see `51_asng_nas`.": True,
    "`51_asng_nas.ipynb`": True,
    "`nbs/51_asng_nas.ipynb`": True,
    "(50a_tdga_runs)": True,
    "[51_asng_nas](51_asng_nas.ipynb)": False,
    "[`51_asng_nas`](51_asng_nas.ipynb#speed)": False,
    "[how](51_asng_nas.ipynb)": False,
    "`nas-nb figures 51_asng_nas`": False,
    "`figures/paper/51_asng_nas/figure4.png`": False,
    "<!-- 51_asng_nas -->": False,
    "```sh\nnas-nb figures 51_asng_nas\n```": False,
    "11_000 steps, 2.15_a": False,
}


@pytest.mark.parametrize("text", NAMED)
def test_lint_catches_a_bare_name(text):
    assert bool(bare_names(text)) == NAMED[text]
    found = "\n".join(source_violations("50_sample.ipynb", edit(sample(), "text", "Text", text), BANDS))
    assert ("[text] names" in found) == NAMED[text] and "which is not there" not in found


def test_lint_catches_a_link_that_leads_nowhere_and_a_missing_one():
    found = lambda text, name="50_sample.ipynb": "\n".join(
        source_violations(name, edit(sample(), "text", "Text", text), BANDS)
    )
    assert "[text] links to 51_asgn.ipynb, which is not there" in found("[a](51_asgn.ipynb#x)")
    assert found("[a](https://example.invalid/x) [b](#here) [c](../README.md)") == ""
    names = ["00_a.ipynb", "50_a.ipynb", "51_b.ipynb", "52_c.ipynb", "91_d.ipynb", "index.ipynb"]
    assert [neighbours(n, names) for n in names[:5]] == [
        {"50_a.ipynb"},
        {"51_b.ipynb"},
        {"50_a.ipynb", "52_c.ipynb"},
        {"51_b.ipynb"},
        {"52_c.ipynb"},
    ]
    for text, fine in (("[x](52_c.ipynb)", True), ("[x](50_a.ipynb#y)", True), ("[x](00_a.ipynb)", False)):
        assert (list(a_way_on("51_b.ipynb", edit(sample(), "text", "Text", text), names)) == []) == fine


def test_the_index_leads_to_every_notebook():
    there = {target for _, target in targets(load("index.ipynb"))}
    assert [name for name in NOTEBOOKS if name != "index.ipynb" and name not in there] == []


def test_lint_catches_an_output():
    def found(change):
        change(nb := sample())
        return "\n".join(output_violations("50_sample.ipynb", nb2str(nb)))

    def output(**kwargs):
        return lambda nb: nb["cells"][-1]["outputs"].append(kwargs)

    assert "[show] stores an error: ValueError" in found(
        output(output_type="error", ename="ValueError", evalue="", traceback=[])
    )
    assert "stderr" in found(output(output_type="stream", name="stderr", text=["w"]))
    widget = {"application/vnd.jupyter.widget-view+json": {}}
    assert "live widget" in found(output(output_type="display_data", data=widget, metadata={}))
    for width, is_soft in ((None, True), (200, True), (110, False), (100, False)):
        png = b64encode(bytes(16) + (200).to_bytes(4) + bytes(9)).decode()
        looks = {"image/png": dict(width=width)} if width else {}
        shown = output(output_type="display_data", data={"image/png": png}, metadata=looks)
        assert ("a soft picture" in found(shown)) == is_soft
    assert "path of one" in found(
        output(output_type="stream", name="stdout", text=["\n/ho" + "me/me/x.py\n"])
    )
    for folder, is_wrong in (("/tmp/" + "clone", True), ("/tmp/" + "tmp1b2c", False)):
        text = [f"figures go to {folder}/figures\n"]
        assert ("path of one" in found(output(output_type="stream", name="stdout", text=text))) == is_wrong
    assert "1.5 at most" in found(output(output_type="stream", name="stdout", text=["x" * 1_600_000]))
    assert "without outputs" in found(lambda nb: nb["cells"][-1]["outputs"].clear())
    assert "state of widgets" in found(lambda nb: nb["metadata"].update(widgets={}))
    assert "is empty" in found(lambda nb: nb["cells"][-1].update(source=[]))
    for change in (dict(execution_count=1), dict(metadata=dict(trusted=True))):
        assert "not clean" in found(lambda nb, change=change: nb["cells"][-1].update(change))
    assert "not clean" in found(lambda nb: nb["metadata"].update(language_info={}))
    assert "not clean" not in found(lambda nb: None)
