"""Every page that moves in a committed notebook: it needs nothing else, all its states can be reached, its numbers
are those of the records."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import moving_picture
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
NAMES = sorted(p.stem for p in (ROOT / "nbs").glob("*.ipynb") if "srcdoc=" in p.read_text(encoding="utf-8"))


def frames(name: str) -> list[str]:
    nb = json.loads((ROOT / "nbs" / f"{name}.ipynb").read_text(encoding="utf-8"))
    shown = [
        "".join(o["data"].get("text/html", ""))
        for c in nb["cells"]
        for o in c.get("outputs", [])
        if "data" in o
    ]
    return [text for text in shown if "srcdoc=" in text]


def page(frame: str) -> str:
    return html.unescape(re.search('srcdoc="(.*?)">', frame, re.S)[1])


def data(frame: str) -> dict:  # what the page holds
    return json.JSONDecoder().raw_decode(page(frame).partition("const DATA = ")[2])[0]


def records(document: str, label: str) -> list[dict]:
    found = sorted((ROOT / "figures/cpu" / document / "records").glob(f"{label}*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in found]


def test_there_are_views():
    assert {"16a_player", "16b_edit_cell", "50_tdga_darts_vgg19", "51_asng_nas"} <= {*NAMES}
    assert {"52_hypernet_complexity", "53_credit_assignment"} <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_page_needs_nothing_else_and_says_what_it_shows(name):
    for frame in frames(name):
        text = page(frame)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|import |fetch|src=", text)
        assert len(text.encode()) < 200_000
        inside = re.search("<iframe[^>]*>(.*?)</iframe>", frame, re.S)[1]
        alt = html.unescape(re.match('<img alt="(.*?)" src="data:image/png;base64,', inside)[1])
        assert len(alt.split()) >= 6 and f'title="{html.escape(alt)}"' in frame


VISIT = """<script>addEventListener("load", () => {
  const seen = DATA.shows.map((show, i) => {
    if (i) { get("which").value = i; get("which").dispatchEvent(new Event("change")); }
    return show.labels.map((label, k) => {
      get("at").value = k;
      get("at").dispatchEvent(new Event("input"));
      const drawn = [...document.querySelectorAll("svg")].map(svg => svg.childElementCount);
      return [get("now").textContent, Math.min(...drawn), [...document.querySelectorAll(".way > title")].map(t => t.textContent)];
    });
  });
  document.body.innerHTML = "<pre></pre>";
  document.querySelector("pre").textContent = JSON.stringify(seen);
})</script></html>"""


def visited(frame: str, folder: Path) -> list:  # show → state → label, fewest parts of a picture, titles
    (folder / "page.html").write_text(page(frame).replace("</html>", VISIT), encoding="utf-8")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom"]
    address = f"file://{folder}/page.html"
    run = subprocess.run([BROWSER, *words, address], capture_output=True, text=True, timeout=300)
    return json.loads(html.unescape(re.search("<pre>(.*?)</pre>", run.stdout, re.S)[1]))


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
@pytest.mark.parametrize("name", [name for name in NAMES if name != "16b_edit_cell"])
def test_every_state_can_be_reached(name, tmp_path):
    for frame in frames(name):
        for show, states in zip(data(frame)["shows"], visited(frame, tmp_path), strict=True):
            assert [label for label, *_ in states] == show["labels"]
            assert min(parts for _, parts, _ in states) > 0


def test_a_click_on_a_way_of_the_cell_chooses_its_own_row():
    (frame,) = frames("52_hypernet_complexity")
    cell, rows, *_ = data(frame)["shows"][0]["panels"]
    short = [name.replace("input", "in").replace("node ", "") for name in cell["names"]]
    assert cell["rows"] == [rows["rows"].index(name) for name in short]


# -- the numbers of 53 and 50 --


def contributions() -> dict:  # space → (supernets, steps, 2 × edges)
    found = {}
    inside = records("53_credit_assignment", "blind-inside")  # of the document's cell, which has no view
    for record in (r for r in records("53_credit_assignment", "blind") if r not in inside):
        sizes = [look["sizes"] for look in record["result"]["looks"]]
        both = [[*size["exact"], *size["backward"]] for size in sizes]
        found.setdefault(record["config"]["ops"], {})[record["seed"]] = both
    return {ops: np.array([runs[seed] for seed in sorted(runs)]) for ops, runs in found.items()}


def test_lambda_makes_a_choice_of_a_distribution():
    frame, _ = frames("53_credit_assignment")
    for show in data(frame)["shows"]:
        lines = show["panels"][0]["sets"][0]
        ends = [[float(line["text"][at]) for line in lines] for at in (0, -1)]
        assert show["labels"][0] == "λ = 0.01" and sorted(ends[0]) == [0, 0, 0, 1]
        assert max(ends[1]) < 0.9 and sum(ends[1]) == pytest.approx(1, abs=0.021)


def test_contributions_are_those_of_the_records():
    _, frame = frames("53_credit_assignment")
    shows = {show["name"]: show["panels"] for show in data(frame)["shows"]}
    for space, known in contributions().items():
        means = shows.pop(f"{space}: mean of {len(known)}")
        assert np.abs(np.array(means[0]["values"]) - known.mean(0)).max() <= 0.00501
        said = [
            [float(t) for t in s["text"]] for s in means[1]["sets"][0][:2]
        ]  # edge 0→1: cut, one backward pass
        assert np.abs(np.array(said) - known.mean(0)[:, [0, 6]].T).max() <= 0.000501
        for n, one in enumerate(known):
            panel = shows.pop(f"{space}: supernet {n + 1}")[0]
            assert np.abs(np.array(panel["values"]) - one).max() <= 0.00501
    assert not shows


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_populations_are_those_of_the_records(tmp_path):
    (frame,) = frames("50_tdga_darts_vgg19")
    labels = {0.0: "search-t-0-", 0.0003: "search-t-0.0003", 0.003: "search-tdga", 0.03: "search-t-0.03"}
    first, *others = visited(frame, tmp_path)
    names = [show["name"] for show in data(frame)["shows"]]
    common = int(names[0].rpartition(" ")[2])
    for k, (T, label) in enumerate(labels.items()):
        (record,) = (r for r in records("50_tdga_darts_vgg19", label) if r["seed"] == 0)
        rows = [row for row in record["result"]["rows"] if "population" in row]
        assert names[1 + k] == f"T = {T:g}: generations move"
        for row, (said, _, titles) in zip(rows, others[k], strict=True):
            assert said == f"generation {row['generation']}"
            counts = [sum(bit == "1" for bit in column) for column in zip(*row["population"])]
            assert [t.partition(": ")[2] for t in titles] == [
                f"{n} of {len(row['population'])}" for n in counts
            ]
            if row["generation"] == common:
                assert first[k] == [f"T = {T:g}", first[k][1], titles]
        panels = data(frame)["shows"][1 + k]["panels"]
        energies = {s["name"]: [float(t) for t in s["text"]] for s in panels[2]["sets"][0]}
        free = [row["mean"] - T * 105 * row["entropy"] for row in rows]
        assert energies["free energy"] == pytest.approx(free, abs=0.00051)
        assert energies["best"] == pytest.approx([row["best"] for row in rows], abs=0.00051)


# -- the moving picture of the README --


def test_the_moving_picture_moves_and_is_small():
    with Image.open(moving_picture.PICTURE) as image:
        assert image.n_frames >= 20 and image.size == moving_picture.SIZE and image.info["loop"] == 0
    assert moving_picture.PICTURE.stat().st_size <= 2**20
    assert "figures/moving.webp" in (ROOT / "README.md").read_text(encoding="utf-8").partition("## ")[0]


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_the_moving_picture_is_what_the_view_shows(tmp_path):
    "Its first and last state, drawn again; fonts differ between machines, and WebP is not exact."
    page = moving_picture.view()
    at = [0, moving_picture.states(page) - 1]
    again = [np.asarray(shot, float) for shot in moving_picture.frames(page, at, tmp_path)]
    with Image.open(moving_picture.PICTURE) as image:
        kept = []
        for n in (0, image.n_frames // 2):
            image.seek(n)
            kept.append(np.asarray(image.convert("RGB"), float))
    apart = [[abs(a - b).mean() for a in again] for b in kept]
    assert apart[0][0] < apart[0][1] / 2 and apart[1][1] < apart[1][0] / 2, apart
