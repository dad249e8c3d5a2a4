"""Figures: the same bytes on a repetition, an alternative text for each, and a slider that moves."""

import io
import json
import sys
from base64 import b64decode
from types import SimpleNamespace

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from nas_nb import plots
from nas_nb import study as records
from nas_nb.explore import explore
from nas_nb.plots import Folded


@pytest.fixture
def study(tmp_path):
    study = records.Study("04_plots", dict(paper={}, quick={}, smoke={}), device="cpu")
    study.folder = tmp_path
    yield study
    plt.close("all")


def line(df):
    fig, ax = plt.subplots()
    ax.plot(df["update"], df["delta"], **plots.STYLE["ASNG"])
    ax.set(title="A line falls", xlabel="update", ylabel="δ")
    return fig


# where the looks differ from matplotlib's defaults; seaborn's "paper" makes everything 0.8 times as large
LOOKS = {
    "axes.axisbelow": True,
    "axes.edgecolor": ".8",
    "axes.grid": True,
    "axes.labelcolor": ".15",
    "axes.labelsize": 9,
    "axes.linewidth": 1.0,
    "axes.prop_cycle": plt.cycler(color=plots.COLORS),
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 110,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": ".8",
    "legend.fontsize": 8,
    "legend.title_fontsize": 0.8 * 12,
    "lines.linewidth": 0.8 * 1.5,
    "lines.markersize": 0.8 * 6,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "patch.linewidth": 0.8,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "svg.hashsalt": "nas_nb",
    "text.color": ".15",
    "xtick.bottom": False,
    "xtick.color": ".15",
    "xtick.labelsize": 8,
    "ytick.color": ".15",
    "ytick.labelsize": 8,
    "ytick.left": False,
}
TICKS = {"major.size": 0.8 * 6, "major.width": 1.0, "minor.size": 0.8 * 4, "minor.width": 0.8}


def test_the_looks_are_those_of_the_committed_figures():
    "Whatever seaborn's next version thinks of as beautiful."
    with plt.rc_context():
        plt.rcdefaults()
        plt.rcParams |= LOOKS | {f"{axis}tick.{name}": size for axis in "xy" for name, size in TICKS.items()}
        committed = dict(plt.rcParams)
        plt.rcParams["lines.linewidth"] = 99  # of somebody's matplotlibrc
        plots.set_theme()
        assert dict(plt.rcParams) == committed


def test_the_colours_are_seaborns():
    import seaborn as sns

    assert [to_hex(c) for c in sns.color_palette("colorblind")] == list(plots.COLORS)


DF = pd.DataFrame(dict(update=range(20), delta=[1 / (1 + i) for i in range(20)]))
ALT = "A falling line of the step length against updates."


def record(label, seed=0, seconds=1.0):
    "Of a run, as `Study.run` returns it."
    about = dict(name="digits", hash="d0")
    run = dict(seconds=seconds, device="a processor", started="2026-01-01")
    made = dict(code="0", torch="9.9+cu1")
    return dict(
        document="04_plots",
        label=label,
        seed=seed,
        config=dict(n=3),
        data=about,
        result={},
        made_by=made,
        run=run,
    )


def test_a_repetition_gives_the_same_bytes(study, tmp_path):
    plots.set_theme()
    seen, keep = [], []
    for seconds in (1.0, 2.0):
        keep.append(line(DF))  # an address that is not used again
        plots.save_fig(study, keep[-1], "line", DF, ALT, [record("a", seconds=seconds)])
        seen.append({p.suffix: p.read_bytes() for p in tmp_path.glob("line.*")})
    assert seen[0] == seen[1]
    assert sorted(seen[0]) == [".csv", ".json", ".png", ".svg"]
    about = json.loads(seen[0][".json"])
    assert about["alt"] == ALT and about["rows"] == 20
    assert study.figures == ["line"]


def test_a_sidecar_names_its_records_and_no_time_machine_or_build(study, tmp_path):
    made = [record("a"), record("b", seed=1), record("a")]
    plots.save_fig(study, line(DF), "line", DF, ALT, made)
    text = (tmp_path / "line.json").read_text()
    about = json.loads(text)
    assert about["records"] == [records.record_key(r) for r in made[:2]] and about["data"] == [
        dict(name="digits", hash="d0")
    ]
    assert all(k.startswith(f"{r['label']}-") for k, r in zip(about["records"], made))
    assert not any(word in text for word in ("9.9", "a processor", "2026", "seconds"))


def picture(shown):
    return Image.open(io.BytesIO(b64decode(shown)))


def test_a_notebook_shows_the_saved_picture_sharp_and_small(study, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, **how: shown.append((data, how)))
    plots.set_theme()
    plots.save_fig(study, line(DF), "line", DF, ALT)
    (data, how), saved = shown[0], Image.open(tmp_path / "line.png").convert("RGB")
    sharp = picture(data["image/png"])
    assert sharp.size == saved.size == (1280, 960) and data["text/plain"] == ALT
    assert how == dict(metadata={"image/png": dict(width=576, height=432, alt=ALT)}, raw=True)
    assert len(b64decode(data["image/png"])) < (tmp_path / "line.png").stat().st_size * 0.6
    apart = np.asarray(sharp.convert("RGB"), int) - np.asarray(saved, int)
    assert (abs(apart) > 8).mean() < 0.01
    common = [colour for n, colour in saved.getcolors(10**6) if n > 2000]
    assert (255, 255, 255) in common and len(common) > 2  # paper, grid and line keep their colours
    kept = {colour for _, colour in sharp.convert("RGB").getcolors()}
    assert set(common) <= kept


def test_a_kernel_shows_its_figures_with_twice_the_pixels(monkeypatch):
    import IPython
    from IPython.core.formatters import DisplayFormatter

    events = SimpleNamespace(register=lambda *_: None)  # that matplotlib asks for
    kernel = SimpleNamespace(kernel="some", events=events, display_formatter=DisplayFormatter())
    monkeypatch.setattr(IPython, "get_ipython", lambda: kernel)
    plots.set_theme()
    data, about = kernel.display_formatter.format(line(DF), include={"image/png"})
    looks = about["image/png"]
    assert [side // 2 for side in picture(data["image/png"]).size] == [looks["width"], looks["height"]]
    assert abs(looks["width"] - 640 * 1.1) < 40 and picture(data["image/png"]).mode == "P"
    monkeypatch.delitem(sys.modules, "IPython")  # a script pays nothing
    plots.set_theme()
    assert "IPython" not in sys.modules


def test_ids_in_a_picture_are_counted():
    old = b'<clipPath id="p0123456789"/><g id="figure_1" clip-path="url(#p0123456789)"/>'
    old += b'<use href="#mabcdefabcd"/><path id="mabcdefabcd"/>'
    new = plots._numbered(old)
    assert (
        new == b'<clipPath id="p1"/><g id="figure_1" clip-path="url(#p1)"/><use href="#m2"/><path id="m2"/>'
    )
    assert plots._numbered(old.replace(b"p0123456789", b"pffffffffff")) == new


def test_no_matplotlibrc_changes_a_figure(study, tmp_path):
    "Settings of a reader that would fail, or give other pictures."
    seen = []
    mine = {
        "text.usetex": True,
        "savefig.bbox": "tight",
        "savefig.transparent": True,
        "axes.facecolor": "red",
        "lines.linewidth": 7,
        "svg.fonttype": "path",
    }
    for settings in ({}, mine):
        plt.rcParams.update(settings)
        plots.set_theme()
        plots.save_fig(study, line(DF), "line", DF, ALT)
        seen.append([p.read_bytes() for p in sorted(tmp_path.glob("line.*g"))])
    assert len(seen[0]) == 2 and seen[0] == seen[1] and matplotlib.get_backend().lower() == "agg"


@pytest.mark.parametrize(
    "alt, data, message", [("A line.", DF, "alternative text"), (ALT, DF[:0], "no data")]
)
def test_a_figure_without_text_or_data_is_refused(study, tmp_path, alt, data, message):
    with pytest.raises(ValueError, match=message):
        plots.save_fig(study, line(DF), "line", data, alt)
    assert not list(tmp_path.glob("line.*"))


def test_styles_are_told_apart_without_colour():
    assert len({(s["marker"], str(s["linestyle"])) for s in plots.STYLE.values()}) == len(plots.STYLE)


def test_the_slider_draws_the_value_it_is_moved_to():
    drawn = []

    def draw(axes, value):
        drawn.append(value)
        axes[0].plot([0, value])

    view = explore(draw, [1, 2, 3, 5], "x", sheet=[1, 5], live=True)
    assert drawn == [1, 5, 1]  # the sheet, then where the slider begins
    view.slider.value = 2
    assert drawn[-1] == 3
    assert view.slider.options[2] == ("3", 2)


def test_without_a_live_kernel_there_is_only_the_sheet():
    view = explore(lambda axes, value: axes[0].plot([0, value]), [1, 2, 3], "x")
    assert view.slider is None and len(view.figure.axes) == 3


@pytest.mark.parametrize("width", [3.5, 7.2])
def test_a_headline_stays_inside_the_figure(width):
    plots.set_theme()
    fig, ax = plt.subplots(figsize=(width, 3))
    plots.headline(
        fig, "ASNG succeeds from every δ⁰ tried; SNG and Adam fail outside a band (within 15,000 updates)"
    )
    fig.canvas.draw()
    box = fig._suptitle.get_window_extent()
    assert box.x1 <= fig.bbox.x1 and box.y1 <= fig.bbox.y1 + 1
    plt.close(fig)


def test_a_folded_table_is_one_line_until_it_is_opened():
    folded = Folded(pd.DataFrame(dict(a=[1, 2])), "two <rows>")
    text = folded._repr_html_()
    assert text.startswith("<details><summary>two &lt;rows&gt;</summary>") and text.endswith("</details>")
    assert "<td>2</td>" in text and repr(folded).startswith("two <rows>\n   a")
