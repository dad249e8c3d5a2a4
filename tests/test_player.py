"""The page that moves without a kernel: in a browser, where there is one, and by its text."""

import html
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest

from nas_nb.cells import Genotype
from nas_nb.player import arcs_panel, cell_panel, lines_panel, map_panel, player

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
ALT = "A cell of one node whose operation changes."
ARCS, ABOVE, BELOW = [(0, 1), (0, 2)], [[1, 4], [2, 2], [4, 0]], [[0, 0], [1, 1], [3, 3]]
OPS = ("sep_conv_3x3", "max_pool_3x3", "skip_connect")


def cells():
    nodes = [[(op, 0), ("skip_connect", 1)] for op in OPS]
    return [Genotype(normal=[n], normal_concat=[2], reduce=None, reduce_concat=None) for n in nodes]


def shown(shows=None, **more):
    sets = [{"p": [0.1, 0.5, 0.9]}, {"p": [0.9, None, 0.1]}]
    panels = [
        cell_panel(cells(), rows=[(0, 2), (1, 2)]),
        lines_panel([1, 10, 100], {"size": [3, 2, 1]}, "parameters", log=(True, False)),
        lines_panel([1, 10, 100], sets, ["edge 0", "edge 1"]),
        map_panel(["a", "b"], [[0, 0, 1], [1, 1, 1]], ["red", "blue"], ["x", "y"], "a map"),
        arcs_panel(
            dict.fromkeys("abc", "white"), ARCS, ABOVE, BELOW, "arcs", names=("up", "down"), label=True
        ),
    ]
    labels = ["λ = 1", "λ = 10", "λ = 100"]
    return player(shows or {"": (labels, panels)}, "λ </script>", plt.figure(), ALT, **more).data


def page(data: str) -> str:
    return html.unescape(re.search('srcdoc="(.*?)">', data, re.S)[1])


def test_who_cannot_run_it_sees_the_picture():
    "JupyterLab takes the frame away from an untrusted notebook, and leaves what stands inside."
    inside = re.search("<iframe[^>]*>(.*?)</iframe>", shown(), re.S)[1]
    assert inside.startswith(f'<img alt="{ALT}" src="data:image/png;base64,') and inside.count("<") == 1


def test_it_asks_for_nothing_from_elsewhere():
    text = page(shown())
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|import |fetch|src=", text)
    assert 'sandbox="allow-scripts"' in shown() and text.count("</script>") == 1


def test_a_map_joins_equal_neighbours():
    assert map_panel(["a"], [[0, 0, 1, 0]], ["red", "blue"])["runs"] == [
        [0, 0, 2, 0],
        [0, 2, 1, 1],
        [0, 3, 1, 0],
    ]


def test_ways_of_a_cell_pass_its_other_states():
    nodes = [[("skip_connect", j) for j in range(2 + i)] for i in range(4)]
    g = Genotype(normal=nodes, normal_concat=[2, 3, 4, 5], reduce=None, reduce_concat=None)
    panel = cell_panel([g])
    at = [(x, y) for x, y, _ in panel["states"]]
    for x0, y0, cx, cy, x1, y1, *_ in panel["ways"] + panel["out"]:
        points = [
            ((1 - t) ** 2 * x0 + 2 * t * (1 - t) * cx + t * t * x1,
             (1 - t) ** 2 * y0 + 2 * t * (1 - t) * cy + t * t * y1)
            for t in (i / 20 for i in range(1, 20))
        ]  # fmt: skip
        others = [p for p in at if p not in ((x0, y0), (x1, y1))]
        assert min(math.dist(p, q) for p in points for q in others) > 15  # the radius of a state
    labels = [(x, y) for *_, x, y in panel["ways"]]
    near = [
        p for i, p in enumerate(labels) for q in labels[:i] if abs(p[0] - q[0]) < 20 and abs(p[1] - q[1]) < 8
    ]
    assert len(near) <= 1, near


def test_a_point_that_is_missing_is_no_line():
    series = lines_panel([0, 1], {"y": [1.0, None]}, "y")["sets"][0][0]
    assert series["y"] == [0.0, None] and series["text"] == ["1", ""]


MOVES = """<script>addEventListener("load", () => {
  const seen = [], text = selector => document.querySelector(selector).textContent;
  const halos = () => document.querySelectorAll(".halo:not([visibility=hidden])").length;
  const look = () => seen.push([text("#now"), text("svg g").replace(/\\s+/g, " "), halos()]);
  const at = document.querySelector("#at");
  look();
  at.value = 2; at.dispatchEvent(new Event("input")); look();
  document.querySelectorAll(".way")[1].dispatchEvent(new Event("click"));
  seen.push([...document.querySelectorAll("figcaption")].map(e => e.textContent), document.querySelector("#row").value);
  const row = document.querySelector("#row");
  row.value = 0; row.dispatchEvent(new Event("change"));
  seen.push([...document.querySelectorAll("figcaption")].map(e => e.textContent));
  seen.push(at.getAttribute("aria-valuetext"), document.querySelectorAll("svg[role=img][aria-label]").length);
  const arcs = [...document.querySelectorAll("svg")].find(e => e.ariaLabel === "arcs");
  seen.push([...arcs.querySelectorAll(".way")].map(g => [g.textContent, +g.children[1].getAttribute("opacity")]));
  seen.push(document.documentElement.scrollHeight <= innerHeight);
  document.body.innerHTML = "<pre>" + JSON.stringify(seen) + "</pre>";
})</script></html>"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_it_moves_in_a_browser(tmp_path):
    (tmp_path / "page.html").write_text(page(shown()).replace("</html>", MOVES))
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    address = f"file://{tmp_path}/page.html"
    run = subprocess.run([BROWSER, *words, address], capture_output=True, text=True, timeout=120)
    found = json.loads(html.unescape(re.search("<pre>(.*?)</pre>", run.stdout, re.S)[1]))
    first, last, captions, row, again, said, pictures, arcs, fits = found
    assert (
        first[0] == "λ = 1" and "sep conv" in first[1] and first[2] == 0
    )  # nothing is new in the first state
    assert (
        last[0] == said == "λ = 100" and "sep conv" not in last[1] and last[2] == 1 + 3
    )  # a way, and arcs that came over 2
    assert arcs == [["a → b: 44", 1], ["a → c: 00", 0.15], ["a → b: 33", 0.7875], ["a → c: 33", 0.7875]]
    assert fits  # slider and pictures on one screen
    assert (
        "edge 1" in captions and row == "1" and "edge 0" in again and pictures == 5
    )  # a click on a way chooses its row


def test_make_lab_trusts_what_equals_the_commit(tmp_path):
    for name, source in (("same", "1"), ("changed", "2")):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        notebook.cells[0].outputs = [nbformat.v4.new_output("display_data", {"text/html": "<b>"})]
        (tmp_path / "nbs").mkdir(exist_ok=True)
        nbformat.write(notebook, tmp_path / f"nbs/{name}.ipynb")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    (tmp_path / "nbs/changed.ipynb").write_text(
        (tmp_path / "nbs/changed.ipynb").read_text().replace('"2"', '"3"')
    )
    env = os.environ | dict(JUPYTER_DATA_DIR=str(tmp_path / "jupyter"), HOME=str(tmp_path))
    tool = Path(__file__).resolve().parent.parent / "tools" / "trust.py"
    said = subprocess.run([sys.executable, tool], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert said.stdout.startswith("1 notebooks"), said.stderr


def test_without_git_nothing_is_trusted(tmp_path):
    tool = Path(__file__).resolve().parent.parent / "tools" / "trust.py"
    env = os.environ | dict(PATH=str(tmp_path), JUPYTER_DATA_DIR=str(tmp_path))
    said = subprocess.run([sys.executable, tool], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert said.returncode == 0 and said.stdout.startswith("0 notebooks") and not said.stderr, said.stderr
