"""The page on which a cell can be edited: what it says of every cell is what the table says."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from nas_nb.cells import Genotype, decode
from nas_nb.edit_cell import edit_cell, random_best
from nas_nb.known_tables import known_table
from nas_nb.operations import cost
from nas_nb.tables import _live, encodings, terms

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
STATES = {"digits": (8, 4, 4), "cifar16": (8, 8, 8)}  # what an edge is computed on


@pytest.fixture(scope="module")
def view():
    return edit_cell({name: (known_table(name), shape) for name, shape in STATES.items()}).data


def page(data: str) -> str:
    return html.unescape(re.search('srcdoc="(.*?)">', data, re.S)[1])


def test_it_is_small_and_asks_for_nothing_from_elsewhere(view):
    text = page(view)
    assert len(view.encode()) < 200_000
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|import |fetch|src=", text)
    assert 'sandbox="allow-scripts"' in view and text.count("</script>") == 1


def test_who_cannot_run_it_sees_the_first_cell_and_what_it_is_worth(view):
    inside = re.search("<iframe[^>]*>(.*?)</iframe>", view, re.S)[1]
    alt = html.unescape(re.search('<img alt="(.*?)"', inside)[1])
    table = known_table("digits")
    assert "nor_conv_3x3~0" in alt and f"{table.score([2, 2, 1, 2, 1, 1]):.1f} %" in alt
    assert inside.count("<") == 1


def test_what_random_draws_find():
    scores = [1.0, 2.0, 2.0, 5.0]
    pairs = [max(a, b) for a in scores for b in scores]
    assert random_best(scores, 1) == pytest.approx(np.mean(scores))
    assert random_best(scores, 2) == pytest.approx(np.mean(pairs))
    assert random_best(scores, 1000) == pytest.approx(5.0)


@pytest.mark.parametrize(
    "start, says",
    [
        ((1, 1, 1), "6 choices below"),
        ((0, 0, 0, 0, 0, 9), "6 choices below"),
        ((0.5,) * 6, "6 choices below"),
    ],
)
def test_a_first_cell_that_is_not_there(start, says):
    with pytest.raises(ValueError, match=says):
        edit_cell({"digits": (known_table("digits"), (8, 4, 4))}, start=start)


# -- in a browser --


def browsed(tmp_path, view, script: str):
    "What a script in the page returns."
    ends = f'<script>document.body.innerHTML = "<pre>" + JSON.stringify((() => {{{script}}})()) + "</pre>"</script></html>'
    (tmp_path / "page.html").write_text(page(view).replace("</html>", ends))
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=828,700",
        "--virtual-time-budget=20000",
    ]
    address = f"file://{tmp_path}/page.html"
    run = subprocess.run(
        [BROWSER, *words, "--dump-dom", address], capture_output=True, text=True, timeout=300
    )
    return json.loads(html.unescape(re.search("<pre>(.*?)</pre>", run.stdout, re.S)[1]))


EVERY = """
  return tables.map((t, i) => {
    open(i);
    return [...Array(t.size).keys()].map(n => {
      const cell = [5, 4, 3, 2, 1, 0].map(e => Math.floor(n / 4 ** e) % 4), now = known(cell), paid = costs(cell);
      const about = [now.seeds, now.percentile, paid.parameters, paid.multiply_adds];
      return n % 97 ? about : [...about, JSON.stringify(genotype(cell))];
    });
  });
"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_every_cell_of_every_table(view, tmp_path):
    for name, found in zip(STATES, browsed(tmp_path, view, EVERY), strict=True):
        table, space = known_table(name), known_table(name).space
        seeds, percentiles, parameters, multiply_adds, *_ = zip(*(row[:4] for row in found))
        assert np.abs(np.array(seeds) - table.frame[table.columns].to_numpy()).max() < 1e-9
        assert np.array_equal(percentiles, table.ranks)
        codes = encodings(space.sizes).tolist()
        convolutions = np.array([len(_live(*terms(space, c))) for c in codes])
        one = cost(list(space.ops.values())[2].build(8, affine=False), STATES[name])
        assert np.array_equal(parameters, one.parameters * convolutions)
        assert np.array_equal(multiply_adds, one.multiply_adds * convolutions)
        for code, row in list(zip(codes, found))[::97]:
            assert Genotype.from_json(row[4]) == decode(space, code)
            assert json.loads(row[4]) == json.loads(decode(space, code).to_json())


MOVES = """
  const text = id => get(id).textContent, seen = [], hints = () => [...document.querySelectorAll("label small")];
  const look = () => seen.push([text("code"), text("now"), document.querySelectorAll(".halo").length]);
  look();
  const first = document.querySelectorAll("[role=radiogroup]")[2].querySelectorAll("input");
  seen.push(hints()[10].textContent);
  first[2].click(); look();
  get("back").onclick(); look();
  get("best").onclick(); look();
  seen.push(text("words"), hints().filter(small => small.textContent.startsWith("+")).length);
  document.querySelectorAll(".way")[5].dispatchEvent(new Event("click"));
  seen.push(document.activeElement.name, document.querySelectorAll("[role=radiogroup][aria-label]").length);
  get("which").value = 1; get("which").dispatchEvent(new Event("change")); look();
  const json = get("json").getBoundingClientRect();
  seen.push(json.bottom <= 500 && json.height > 50 && json.right <= 828);
  return seen;
"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_it_is_moved(view, tmp_path):
    table = known_table("digits")
    first, hint, changed, back, best, words, better, focus, groups, other, fits = browsed(
        tmp_path, view, MOVES
    )
    told = lambda t, c: f"{t.score(c):.2f} %, percentile {100 * t.percentile(c):.1f}"
    assert first == ["221211", told(table, "221211"), 0]
    assert hint == f"+{table.score('222211') - table.score('221211'):.1f}"
    assert changed == ["222211", told(table, "222211"), 1]  # one way is marked
    assert back[:2] == first[:2]
    assert best[:2] == ["222222", told(table, "222222")] and better == 0 and "no single change helps" in words
    expected = [f"{random_best(table.scores, n):.1f} % of {n}" for n in (10, 100)]
    assert ", ".join(expected) in words and "0 better" in words
    assert focus == "edge 5" and groups == 6  # a click on a way goes to its choices
    assert other[1] == told(known_table("cifar16"), "222222") and fits
