"""Every view is moved as a reader moves it, with keys, mouse and finger: in JupyterLab, as `make lab` opens it, and
on the site. Who does not trust a notebook sees the picture. Needs Chromium and the extra `browser`."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import build_site
import pytest
from projects import small_site

sync = pytest.importorskip("playwright.sync_api", reason="not installed: pip install -e .[browser]")
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium")
ROOT = Path(__file__).resolve().parent.parent


class View(NamedTuple):
    "A page that moves, in a committed notebook."

    notebook: str
    cell: str  # its id
    alt: str  # what the picture in its place shows; its frame has that as title
    data: dict  # what the page holds


def in_cell(name: str, cell: dict) -> list[View]:
    found = []
    for output in cell.get("outputs", []):
        text = "".join(output.get("data", {}).get("text/html", ""))
        if "srcdoc=" in text:
            page = html.unescape(re.search('srcdoc="(.*?)">', text, re.S)[1])
            data = json.JSONDecoder().raw_decode(page.partition("const DATA = ")[2])[0]
            alt = html.unescape(re.search('<img alt="(.*?)"', text)[1])
            found.append(View(name, cell["id"], alt, data))
    return found


NOTEBOOKS = {
    p.stem: json.loads(text)
    for p in sorted((ROOT / "nbs").glob("*.ipynb"))
    if "srcdoc=" in (text := p.read_text(encoding="utf-8"))
}
VIEWS = [view for name, nb in NOTEBOOKS.items() for cell in nb["cells"] for view in in_cell(name, cell)]
EACH = pytest.mark.parametrize("view", VIEWS, ids=[f"{v.notebook}-{v.cell}" for v in VIEWS])


# -- where they stand --


@pytest.fixture(scope="module")
def browser():
    with sync.sync_playwright() as playwright:
        with playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"]) as browser:
            yield browser


@pytest.fixture(scope="module")
def window(browser):
    "With a touch screen; what one test has loaded, the next need not load again."
    with browser.new_context(viewport=dict(width=1280, height=900), has_touch=True) as window:
        yield window


@pytest.fixture
def page(window):
    "After a test nothing in it may have gone wrong."
    page, wrong = window.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: said.type == "error" and wrong.append(f"{said.text} {said.location}"))
    yield page
    page.close()
    assert not wrong


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "A site of these notebooks, each with its title and its views alone."
    if lacking := build_site.lacking():
        pytest.skip(f"{', '.join(lacking)} not installed: pip install -e .[site]")
    root = tmp_path_factory.mktemp("project")
    nbs = {name: [cell for cell in nb["cells"] if in_cell(name, cell)] for name, nb in NOTEBOOKS.items()}
    others = [n for n in ("index", "00_core", "16_draw", "20_darts", "90_claims") if n not in nbs]
    title = lambda name: dict(cell_type="markdown", id="title", metadata={}, source=f"# {name}\n\n> About it")
    small_site(root, {name: [title(name), *nbs.get(name, [])] for name in [*nbs, *others]})
    assert build_site.build(root / "_site", root) == []
    return root / "_site"


def lay_out(root: Path):
    "A commit with the notebooks, and one that differs from it, where a reader finds all views."
    (root / "nbs").mkdir()
    cells = [cell for name, nb in NOTEBOOKS.items() for cell in nb["cells"] if in_cell(name, cell)]
    changed = [cell | dict(source=["# changed\n", *cell["source"]]) for cell in cells]
    other = dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)
    index = json.loads((ROOT / "nbs/index.ipynb").read_text(encoding="utf-8"))
    for figure in re.findall(
        r'src="../(figures/[^"]+)"', "".join(sum((c["source"] for c in index["cells"]), []))
    ):
        (root / figure).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / figure, root / figure)
    for name, nb in [*NOTEBOOKS.items(), ("views", other), ("index", index)]:
        (root / "nbs" / f"{name}.ipynb").write_text(json.dumps(nb), encoding="utf-8")
    shutil.copy(ROOT / "settings.ini", root)
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=root, check=True)
    (root / "nbs/views.ipynb").write_text(json.dumps(other | dict(cells=changed)), encoding="utf-8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "Address of notebooks in a JupyterLab that is started as `make lab` does it."
    root, own = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("own")
    lay_out(root)
    places = dict(CONFIG="config", DATA="data", RUNTIME="runtime")
    env = os.environ | {f"JUPYTER_{k}_DIR": str(own / v) for k, v in places.items()}
    env |= dict(HOME=str(own), IPYTHONDIR=str(own / "ipython"))
    how = dict(cwd=root, env=env)
    subprocess.run([sys.executable, ROOT / "tools/trust.py"], check=True, **how)
    words = ["--no-browser", "--ServerApp.port=0", *["--allow-root"] * (os.getuid() == 0)]
    with open(own / "log", "w") as log:
        command = [sys.executable, ROOT / "tools/lab.py", *words]
        server = subprocess.Popen(command, stdout=log, stderr=log, **how)
    try:
        while not (known := [*own.glob("runtime/jpserver-*.json")]):
            assert server.poll() is None, (own / "log").read_text()
            time.sleep(0.2)
        about = json.loads(known[0].read_text())
        yield f"{about['url']}lab/tree/nbs/%s.ipynb?reset&token={about['token']}"
    finally:
        server.terminate()
        server.wait(60)


# -- how a reader reaches and moves them --

SCROLL = """() => document.querySelector(".jp-WindowedPanel-outer").scrollBy(0, 700)"""


def reach(page, thing):
    "Scroll a notebook down until it is there: JupyterLab makes cells when they come near."
    page.locator(".jp-Notebook .jp-Cell").first.wait_for()
    for _ in range(300):
        if thing.count():
            break
        page.evaluate(SCROLL)
        page.wait_for_timeout(50)
    return middle(thing)


def middle(thing):
    thing.evaluate("e => e.scrollIntoView({block: 'center'})")
    return thing


def look(frame) -> tuple[str, list[str]]:
    "What a view says of its state, and its pictures."
    pictures = frame.locator("svg").evaluate_all("all => all.map(svg => svg.innerHTML)")
    return frame.locator("#now").inner_text(), pictures


def all_differ(before, after) -> bool:  # what `look` returns
    return before[0] != after[0] and all(a != b for a, b in zip(before[1], after[1], strict=True))


def drag(page, from_, to, finger: bool):  # (x, y) in the window
    "Half the way, and when that was looked at (`next`) the rest."
    half = [(a + b) / 2 for a, b in zip(from_, to)]
    if finger:
        touch = page.context.new_cdp_session(page)
        send = lambda kind, *at: touch.send(
            "Input.dispatchTouchEvent", dict(type=f"touch{kind}", touchPoints=[dict(x=x, y=y) for x, y in at])
        )
        send("Start", from_)
        send("Move", half)
        yield
        send("Move", to)
        send("End")
    else:
        page.mouse.move(*from_)
        page.mouse.down()
        page.mouse.move(*half)
        yield
        page.mouse.move(*to)
        page.mouse.up()
    yield


def every_control_has_a_name(frame):
    for control in frame.locator("button, select, input, textarea, svg, [role=radiogroup]").all():
        if control.is_visible():
            sync.expect(control).to_have_accessible_name(re.compile(r"\S"))


def slide(page, frame, labels: list[str]):
    "Keys, a mouse and a finger move the slider from state to state, and every picture with it."
    at, now = frame.get_by_role("slider"), frame.locator("#now")
    at.press("Home")
    first = look(frame)
    at.press("End")
    assert first[0] == labels[0] and now.inner_text() == labels[-1] and all_differ(first, look(frame))
    at.press("ArrowLeft")
    assert now.inner_text() == at.get_attribute("aria-valuetext") == labels[-2]
    box = at.bounding_box()
    assert all(at.press(key) or at.bounding_box() == box for key in ("End", "Home")), "it stays where it is"
    y, left, right = box["y"] + box["height"] / 2, box["x"] + 8, box["x"] + box["width"] - 2
    for finger in (False, True):
        at.press("Home")
        moves = drag(page, (left, y), (right, y), finger)
        next(moves)
        sync.expect(now).to_have_text(re.compile("|".join(map(re.escape, labels[1:-1]))))
        next(moves)
        sync.expect(now).to_have_text(labels[-1])


def play(page, frame, labels):
    frame.get_by_role("slider").press("Home")
    button, now = frame.get_by_role("button"), frame.locator("#now")
    sync.expect(button).to_have_accessible_name("play")
    button.click()
    sync.expect(now).not_to_have_text(labels[0])
    sync.expect(button).to_have_accessible_name("pause")
    button.click()
    paused = now.inner_text()
    page.wait_for_timeout(1000)  # longer than a state is shown
    assert now.inner_text() == paused


def choose_rows(frame):
    "A click on what stands for a row, or a key in the list of rows, changes whose lines are shown."
    row, titles = frame.locator("#row"), lambda: frame.locator("figcaption").all_inner_texts()
    seen = [(row.input_value(), titles())]
    frame.locator(".op").last.click()
    seen.append((row.input_value(), titles()))
    row.press("ArrowUp")
    seen.append((row.input_value(), titles()))
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in zip(seen, seen[1:])), [v for v, _ in seen]


def move_player(page, frame, shows: list[dict]):
    which = frame.locator("#which")
    for i, show in enumerate(shows):
        before = look(frame)[1]
        if i:
            which.press("ArrowDown")
            assert which.input_value() == str(i) and look(frame)[1] != before
        frame.get_by_role("slider").press("Home")
        assert look(frame)[0] == show["labels"][0]
    slide(page, frame, shows[-1]["labels"])
    play(page, frame, shows[-1]["labels"])
    if frame.locator("#row").is_visible():
        choose_rows(frame)


def edit_cell(frame, data: dict):
    "Mouse and keys choose operations; every choice changes the pictures and what the cell is worth."
    code, table = frame.locator("#code"), frame.locator("#which")
    assert code.inner_text() == "".join(map(str, data["start"]))
    edges = frame.get_by_role("radiogroup").all()
    seen = [(code.inner_text(), *look(frame))]

    def changed():
        seen.append((code.inner_text(), *look(frame)))
        (old, *before), (new, *after) = seen[-2:]
        assert old != new and all_differ(before, after)

    edges[0].locator("label").nth(3).click()
    changed()
    edges[1].get_by_role("radio", checked=True).press("ArrowRight")
    changed()
    frame.locator("#back").click()
    assert (code.inner_text(), look(frame)[0]) == seen[-2][:2]
    frame.locator("#best").click()
    changed()
    worth = look(frame)[0]
    table.press("ArrowDown")
    assert table.input_value() == "1" and look(frame)[0] != worth


def move(page, view: View):
    frame = page.get_by_title(view.alt, exact=True).content_frame
    every_control_has_a_name(frame)
    fits = "e => e.scrollHeight <= innerHeight && e.scrollWidth <= innerWidth"
    assert frame.locator("html").evaluate(fits), "control and pictures are on one screen"
    if "shows" in view.data:
        move_player(page, frame, view.data["shows"])
    else:
        edit_cell(frame, view.data)


@EACH
def test_a_view_moves_in_jupyterlab(lab, page, view):
    page.goto(lab % view.notebook)
    reach(page, page.get_by_title(view.alt, exact=True))
    move(page, view)


@pytest.mark.parametrize("name", ["λ of one hypernetwork", "A trial of ASNG", "Choose the operations"])
def test_a_link_of_the_start_page_leads_to_its_view(lab, page, name):
    "JupyterLab finds a cell in a notebook that it opens, a heading only in one that is open."
    page.goto(lab % "index")
    reach(page, page.get_by_role("link", name=name)).click()
    sync.expect(page.locator("iframe[srcdoc]")).to_be_in_viewport(ratio=0.6, timeout=60_000)


@EACH
def test_a_view_moves_on_the_site(site, page, view):
    page.goto(f"file://{site}/{view.notebook}.html")
    middle(page.get_by_title(view.alt, exact=True))
    move(page, view)


def test_who_does_not_trust_a_notebook_sees_pictures(lab, page):
    page.goto(lab % "views")
    for view in VIEWS:
        picture = reach(page, page.get_by_alt_text(view.alt, exact=True))
        assert picture.evaluate("img => img.complete && img.naturalWidth") > 100
        assert picture.bounding_box()["width"] > 100 and not page.locator("iframe").count()
