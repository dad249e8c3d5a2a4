"""The static site: its sources, its reference and its check of pages; and, with the extra `site`, a small site
that is built, searched and moved in a browser."""

import html
import json
import re
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import build_site
import pytest
from fastcore.docments import docments
from projects import small_site
from website import api, pages
from website.check import check

from nas_nb import files

ROOT = Path(__file__).resolve().parent.parent
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NEEDS = pytest.mark.skipif(
    bool(build_site.lacking()), reason="the extra is not installed: pip install -e .[site]"
)
PNG = b64encode(bytes(16) + (20).to_bytes(4) + (10).to_bytes(4)).decode()
ALT = "A line that goes up and down"


def cell(id, source, *outputs, kind="code", **metadata):
    made = dict(cell_type=kind, id=id, source=source, metadata=metadata)
    return made | (dict(outputs=[*outputs], execution_count=None) if kind == "code" else {})


def text(id, source):
    return cell(id, source, kind="markdown")


def shows(data, **metadata):
    return dict(output_type="display_data", data=data, metadata=metadata)


def links(tmp_path):
    return pages.Links(tmp_path, ROOT)


# -- the project's own notebooks --


def test_every_picture_has_an_alternative_text():
    bare = [
        f"{name} [{c['id']}]"
        for name, nb in pages.notebooks().items()
        for c in nb["cells"]
        if c["cell_type"] == "code"
        for _, alt in pages.pictures(c)
        if len(alt.split()) < 6
    ]
    assert not bare, "save_fig takes an alternative text; other cells begin with `#| fig-alt: …`"


def test_every_stated_text_has_its_picture():
    for name, nb in pages.notebooks().items():
        for c in (c for c in nb["cells"] if c["cell_type"] == "code" and pages.alternatives(c)):
            assert len(pages.alternatives(c)) == len(pages.pictures(c)), f"{name} [{c['id']}]"


def test_a_link_to_a_heading_or_a_cell_finds_it():
    "A heading as JupyterLab and the site name it: the words with hyphens between, and nothing left out."
    nbs, lost = pages.notebooks(), []
    texts = {
        name: [pages.source(c) for c in nb["cells"] if c["cell_type"] == "markdown"]
        for name, nb in nbs.items()
    }
    plain = lambda line: re.sub(r"[`*]|<!--.*?-->", "", line)
    heads = {
        name: {pages.anchor(plain(h)) for t in of for h in pages.HEADING.findall(t)}
        | {f"cell-id={cell['id']}" for cell in nbs[name]["cells"]}
        for name, of in texts.items()
    }
    for name, of in texts.items():
        for to, anchor in re.findall(r"\]\((?:(\w+)\.ipynb)?#([^()\s]+)\)", "\n".join(of)):
            if anchor not in heads[to or name]:
                lost.append(f"{name}: {to or name}.ipynb#{anchor}")
    assert not lost


def test_every_notebook_is_listed_once(tmp_path):
    nbs = pages.notebooks()
    family = pages.families([*nbs])
    listed = [n for mother, letters in family.items() for n in (mother, *letters)]
    assert sorted(listed) == sorted(set(nbs) - {"index"})
    assert {n[0] for n in listed} == set(pages.BANDS)
    assert family["52_hypernet_complexity"][:1] == ["52a_hypernet_runs"]


def test_every_public_name_is_in_the_reference():
    n = 0
    for name, (stem, nb) in {
        m: (s, nb) for s, nb in pages.notebooks().items() if (m := pages.module(nb))
    }.items():
        code = (ROOT / "nas_nb" / (name.replace(".", "/") + ".py")).read_text(encoding="utf-8")
        exported = re.search(r"__all__ = (\[.*?\])", code, re.S)
        _, items = api.read_module(code)
        assert {i.name for i in items} == set(eval(exported[1]) if exported else ()), name
        n += sum(i.kind == "function" and bool(i.fields) for i in items)
    assert n > 200


# -- what becomes of a notebook --


def test_a_cell_is_folded_under_what_it_defines(tmp_path):
    code = '#| export\n@patch\ndef grow(self: Tree):\n    "Grow."\n\n\nclass Tree: ...\n'
    shown = pages.code_cell(cell("c", code), "16_draw", links(tmp_path), folded=True)
    assert shown["metadata"]["tags"] == ["hide-input"] and "#|" not in shown["source"]
    assert shown["metadata"]["mystnb"]["code_prompt_show"] == "grow, Tree"
    assert pages.prompt("import a\nfrom b import (\n    c,\n)") == "imports"
    assert pages.prompt("x = 1\ny = 2") == "x = 1" and pages.prompt(90 * "x").endswith("…")
    for unseen in ("#| hide\nassert x", "#| default_exp tree"):
        assert pages.code_cell(cell("c", unseen), "16_draw", links(tmp_path), True) is None


def test_a_picture_takes_its_text_from_its_output_or_its_cell(tmp_path):
    own = shows(
        {"image/png": PNG, "text/plain": "<Figure>"}, **{"image/png": dict(alt=f'{ALT}: "x"', width=704)}
    )
    c = cell("c", f"#| fig-alt: one\n#| fig-alt: {ALT}\nplot()", own, shows({"image/png": PNG}))
    first, second = pages.code_cell(c, "16_draw", links(tmp_path), True)["outputs"]
    assert first["data"] == {
        "text/markdown": f'```{{image}} pictures/16_draw-c-0.png\n:alt: "{ALT}: \\"x\\""\n:width: 704px\n```'
    }
    assert (
        f':alt: "{ALT}"' in second["data"]["text/markdown"] and "width" not in second["data"]["text/markdown"]
    )
    assert (tmp_path / "pictures/16_draw-c-1.png").read_bytes()[16:24] == bytes([0, 0, 0, 20, 0, 0, 0, 10])


@pytest.mark.parametrize(
    "link, to",
    [
        ("52_hypernet_complexity.ipynb#One-network", "52_hypernet_complexity.ipynb#One-network"),
        (
            "52_hypernet_complexity.ipynb#cell-id=five-slider",
            "52_hypernet_complexity.ipynb#One-network,-five-complexities",
        ),
        ("16b_edit_cell.ipynb#cell-id=try-md", "16b_edit_cell.ipynb#Try-it"),
        ("https://x.y", "https://x.y"),
        ("../CONTRIBUTING.md", "contributing.md"),
        ("../data/README.md", "data.md"),
        ("../nbs", "index.ipynb#All-notebooks"),
        ("../nas_nb", "api/index.md"),
        ("../LICENSE", "files/LICENSE"),
    ],
)
def test_where_links_lead(tmp_path, link, to):
    assert links(tmp_path).text(f"a [b]({link}) c", "nbs") == f"a [b]({to}) c"
    assert not to.startswith("files/") or (tmp_path / to).is_file()


def test_a_picture_with_a_width_is_copied(tmp_path):
    text = '<img src="../figures/paper/51_asng_nas/figure4.png" width="500" alt="two panels">'
    name = "files/figures/paper/51_asng_nas/figure4.png"
    assert links(tmp_path).text(text, "nbs") == f'<img src="{name}" width="500" alt="two panels">'
    assert (tmp_path / name).is_file()


def test_a_folder_is_no_page_and_a_listing_stays(tmp_path):
    assert links(tmp_path).text("[`figures/`](../figures) x", "nbs") == "`figures/` x"
    assert links(tmp_path).text("```\n[a](../figures)\n```", "nbs") == "```\n[a](../figures)\n```"


# -- the reference --


def test_docments_are_those_of_fastcore():
    _, items = api.read_module((ROOT / "nas_nb/files.py").read_text(encoding="utf-8"))
    seen = 0
    for item in (i for i in items if i.kind == "function"):
        known = docments(getattr(files, item.name), full=True)
        ours = dict(item.fields) | ({"return": item.returns} if item.returns else {})
        for name, about in known.items():
            assert ours.get(name, "") == " ".join((about.docment or "").split()), (item.name, name)
            seen += bool(about.docment)
    assert seen > 3


MODULE = '''"""About trees"""
__all__ = ["Tree", "LIMIT", "plant"]
LIMIT: int = 3  # of branches, < 4


class Tree(NamedTuple):
    "A tree."

    height: float  # metres, > 0
    name: str = "oak"


@patch(as_prop=True)
def top(self: Tree) -> float:  # metres
    "Where it ends."


@patch
def grow(self: Tree, by: float, _deep=(1, 2)) -> Tree:  # a new one
    "Raises `ValueError` for x_1 < 0 and *args."


def plant(
    trees: list,  # of `Tree`
    *,
    apart: float = 1.0,  # metres
) -> int:  # how many
    "Plant."


def _cut(): ...
'''


def test_a_module_is_read_with_what_was_patched():
    doc, (limit, tree, plant) = api.read_module(MODULE)
    assert doc == "About trees" and limit[:4] == ("data", "LIMIT", ": int", "of branches, < 4")
    assert tree.signature == "(height, name='oak')" and tree.fields == [("height", "metres, > 0")]
    top, grow = tree.members
    assert (top.kind, top.signature, top.returns) == ("property", "", "metres")
    assert (grow.kind, grow.signature) == ("method", "(by: float, _deep=(1, 2)) -> Tree")
    assert grow.returns == "a new one"
    assert plant.signature == "(trees: list, *, apart: float=1.0) -> int" and plant.returns == "how many"
    assert plant.fields == [("trees", "of `Tree`"), ("apart", "metres")]
    text = api.directive(tree)
    assert text.startswith("````{py:class} Tree(") and "```{py:method} grow(by" in text
    assert r"`ValueError` for x\_1 \< 0 and \*args" in text


def test_an_annotation_names_the_module_of_its_class():
    "Two modules have a `Tree`; a long import stays absolute in an exported module."
    code = "from nas_nb.recurrent import (\n    Tree,\n)\nfrom .cells import Cell\n__all__ = ['MODELS']\n"
    _, (models,) = api.read_module(code + "MODELS: dict[Cell, Tree] = {}  # all")
    assert models.signature == ": dict[nas_nb.cells.Cell, nas_nb.recurrent.Tree]"


# -- the check of pages --


def site(tmp_path, **texts):
    for name, body in texts.items():
        (tmp_path / f"{name}.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    return check(tmp_path)


def test_the_check_passes_what_is_right(tmp_path):
    body = f'<a href="b.html#x%20y">b</a> <a href="https://x.y">w</a><img src="data:image/png;base64," alt="{ALT}">'
    assert site(tmp_path, a=body, b='<p id="x y"></p><a href="#x%20y"></a>') == []
    assert check(tmp_path / "none") == [f"{tmp_path / 'none'} has no page"]


@pytest.mark.parametrize(
    "body, says",
    [
        ('<a href="c.html">', "links to c.html, which is not there"),
        ('<a href="#x">', "links to #x, a place that is not there"),
        ('<img src="a.html">', "without alternative text"),
        ('<img src="a.html" alt="_images/0a1b2c3d4e5f60718293.png">', "without alternative text"),
        ('<iframe title="a b c" srcdoc="&lt;img src=a.html&gt;">', "without alternative text"),
        ('<script src="https://cdn.x/y.js"></script>', "loads https://cdn.x/y.js from elsewhere"),
        ('<link rel="stylesheet" href="//x/y.css">', "loads //x/y.css from elsewhere"),
    ],
)
def test_the_check_finds_what_is_wrong(tmp_path, body, says):
    found = site(tmp_path, a=body)
    assert len(found) == 1 and says in found[0]


# -- a small site, built --


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    real = json.loads((ROOT / "nbs/52_hypernet_complexity.ipynb").read_text(encoding="utf-8"))
    data = [
        "".join(o["data"].get("text/html", ""))
        for c in real["cells"]
        for o in c.get("outputs", [])
        if "data" in o
    ]
    player = next(d for d in data if "srcdoc=" in d)
    title = lambda name: text("title", f"# {name}\n\n> About {name}")
    image = shows({"image/png": PNG}, **{"image/png": dict(alt=ALT)})
    table = shows(
        {"text/markdown": "| a | b |\n|--|--|\n| [52_demo](52_demo.ipynb#How-is-it-done?) | $x^2$ |"}
    )
    nbs = {
        "index": [title("start"), text("map", "## All notebooks\n\n[52_demo](52_demo.ipynb), [all](../nbs)")],
        "00_core": [
            title("core"),
            cell("exp", "#| default_exp core"),
            cell("e", "#| export\nLIMIT = 3  # trees"),
        ],
        "16_draw": [title("draw"), text("a", "## 確率的自然勾配法\n\nГиперсеть управляет сложностью.")],
        "20_darts": [title("darts"), cell("a", "plot()", image)],
        "52_demo": [
            title("demo"),
            text("how", "## How is it done?\n\n$$\\frac{a}{b}$$ See [below](#What-else)."),
            cell("player", "play()", shows({"text/html": player, "text/plain": "<HTML>"})),
            text("else", "## What else\n\nzebrafish"),
        ],
        "52a_runs": [
            title("runs"),
            cell("t", "table()", table),
            text("w", "[back](52_demo.ipynb#How-is-it-done?)"),
        ],
        "90_claims": [title("claims")],
    }
    small_site(root, nbs)
    (root / "nas_nb/core.py").write_text('"""core"""\n__all__ = ["LIMIT"]\nLIMIT = 3  # trees\n')
    return root / "_site", build_site.build(root / "_site", root)


def dom(address: str) -> str:
    "A page as the browser has it after its scripts."
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000", "--dump-dom"]
    return subprocess.run([BROWSER, *words, address], capture_output=True, text=True, timeout=120).stdout


@NEEDS
def test_a_site_is_built_without_a_warning_or_a_broken_link(built):
    folder, found = built
    assert found == []
    demo = (folder / "52_demo.html").read_text(encoding="utf-8")
    assert re.search(r'title="next page"[\s\S]*?52a_runs|52a_runs[\s\S]*?title="next page"', demo)
    assert '"#how-is-it-done"' in demo or '"#How-is-it-done?"' in demo
    assert "確率的自然勾配法" in (folder / "16_draw.html").read_text(encoding="utf-8")
    assert f'alt="{ALT}"' in (folder / "20_darts.html").read_text(encoding="utf-8")
    assert "nas_nb.core.LIMIT" in (folder / "api/nas_nb.core.html").read_text(encoding="utf-8")
    assert "trees" in (folder / "api/nas_nb.core.html").read_text(encoding="utf-8")


@NEEDS
@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_a_player_moves_on_a_page_of_the_site(built):
    "From file://, in its sandbox: it tells the page around it what it shows."
    page = built[0] / "52_demo.html"
    inside = """<script>onload = () => {
      const at = document.querySelector("#at"), look = () => document.querySelector("#now").textContent;
      const before = look();
      at.value = at.max;
      at.dispatchEvent(new Event("input"));
      parent.postMessage([before, look(), document.querySelectorAll("svg").length], "*");
    }</script></html>"""
    around = """<script>addEventListener("message", event => {
      if (Array.isArray(event.data)) document.body.innerHTML = "<pre>" + JSON.stringify(event.data) + "</pre>";
    })</script></head>"""
    written = page.read_text(encoding="utf-8")
    assert written.count("&lt;/html&gt;") == 1
    written = written.replace("&lt;/html&gt;", html.escape(inside)).replace("</head>", around)
    moved = page.with_name("moved.html")
    moved.write_text(written, encoding="utf-8")
    before, after, pictures = json.loads(
        html.unescape(re.search(r"<pre>(\[.*?\])</pre>", dom(f"file://{moved}"), re.S)[1])
    )
    moved.unlink()
    assert before != after and pictures >= 2


@NEEDS
@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_search_and_equations_need_no_server(built):
    found = dom(f"file://{built[0]}/search.html?q=zebrafish")
    assert re.search(r'<ul[^>]* class="search">.*?href="52_demo.html', found, re.S)
    assert "<mjx-container" in dom(f"file://{built[0]}/52_demo.html")
