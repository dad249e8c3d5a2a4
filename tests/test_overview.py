"""All claims in one place: which table counts, what is counted, and the picture of all intervals."""

import random

import pytest

from nas_nb import overview
from nas_nb.claims import check_claims, judged
from nas_nb.inprocess import code_cells
from nas_nb.notebooks import Refused

TEXTS = dict(source="s", document="d", criterion="c")
CASES = {  # claim → rule, smallest, exploratory, mean, deviation, n
    "clearly better": ("better", 0.5, "", 2, 0.1, 10),
    "a little better": ("better", 0.5, "", 0.2, 0.1, 40),
    "no better": ("better", 0.5, "", -0.2, 0.1, 40),
    "open": ("better", 0.5, "Written late.", 0.2, 2, 6),
    "alike": ("alike", 1, "", 0, 0.1, 20),
    "far apart": ("alike", 0.01, "", 30, 0.1, 20),
    "not worse": ("not worse", 1, "", -0.3, 0.1, 20),
    "worse": ("not worse", 0.1, "Written late.", -3, 0.1, 20),
}
VERDICTS = ["reproduced", "reproduced, small", "not reproduced", "inconclusive, exploratory"]
VERDICTS += ["reproduced", "not reproduced", "reproduced", "not reproduced, exploratory"]


def claims_of(document="51_two", cases=CASES):
    "Judged claims as `gather` returns them."
    draw = random.Random(0)
    stated = {
        f"c{i}": dict(claim=claim, rule=rule, smallest=smallest, unit="points", exploratory=late, **TEXTS)
        for i, (claim, (rule, smallest, late, *_)) in enumerate(cases.items())
    } | dict(fact=dict(claim="a fact", **TEXTS))
    check_claims(stated)
    given = {
        f"c{i}": dict(differences=[draw.gauss(mean, deviation) for _ in range(n)])
        for i, (*_, mean, deviation, n) in enumerate(cases.values())
    }
    given["fact"] = dict(holds=True)
    return [
        dict(notebook=document, profile="cpu") | judged(id, stated, "", {}, **how)
        for id, how in given.items()
    ]


@pytest.fixture(scope="module")
def notebook():
    "What the cells of the notebook define, without what they show."
    import matplotlib

    matplotlib.use("Agg")
    wanted = "imports effects look row axis scale lines legend finding plot alt tables".split()
    names = dict(claims=claims_of())
    for cell in code_cells("90_claims"):
        if cell.id in wanted:
            exec(compile(cell.source, cell.id, "exec"), names)
            wanted.remove(cell.id)
    assert not wanted
    names["set_theme"]()
    return names


def test_the_cases_are_what_they_are_called():
    assert [row["verdict"] for row in claims_of()] == [*VERDICTS, "reproduced"]


def test_the_picture_shows_every_interval_whole_in_its_colour_and_counts_them(notebook):
    df = notebook["in_units"](claims_of())
    assert list(df["claim"]) == list(CASES) and not df[["low", "high"]].isna().any(axis=None)
    assert df["low"][0] == pytest.approx(float(claims_of()[0]["low"]) / 0.5)
    fig = notebook["plot_claims"](df)
    (ax,) = fig.axes
    left, right = ax.get_xlim()
    assert left < df["low"].min() and df["high"].max() < right
    lines = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() > 2]
    assert [tuple(line.get_xdata()) for line in lines] == [*zip(df["low"], df["high"])]
    color = {k: notebook["COLOR"][k] for k in df["kind"]}
    assert len(set(color.values())) == 4 and [line.get_color() for line in lines] == [*df["kind"].map(color)]
    hollow = [line.get_markerfacecolor() == "white" for line in ax.lines if line.get_marker() in ">Ds"]
    assert hollow == list(df["exploratory"]) and sum(hollow) == 2
    title = " ".join(fig._suptitle.get_text().split())
    assert title == (
        "7 of 8 intervals decide their claims: 3 reproduced; 1 reproduced, small; 3 not reproduced; "
        "1 inconclusive"
    )
    alt = notebook["described"](df)
    assert all(claim in alt for claim in CASES) and "inconclusive, exploratory" in alt
    fig.canvas.draw()  # nothing is cut off at the figure's edge
    box, renderer = fig.bbox, fig.canvas.get_renderer()
    for text in [*ax.get_yticklabels(), *ax.texts, fig._suptitle]:
        around = text.get_window_extent(renderer)
        assert box.x0 <= around.x0 and around.x1 <= box.x1 and box.y0 <= around.y0 and around.y1 <= box.y1


@pytest.mark.parametrize("case", [*CASES])
def test_one_interval_alone_is_drawn(notebook, case):
    df = notebook["in_units"](claims_of(cases={case: CASES[case]}))
    (ax,) = notebook["plot_claims"](df).axes
    assert len(ax.get_yticks()) == 1 and len(ax.get_xticks()) >= 5


def test_facts_and_claims_without_an_interval_are_left_out_of_the_picture(notebook):
    stated = dict(lone=dict(claim="one seed", rule="better", smallest=1, **TEXTS))
    small = judged("lone", stated, "", {}, differences=[3], small=True)
    untested = judged("lone", stated, "", {}, tested=False)
    rows = [dict(notebook="50_one", profile="quick") | row for row in (small, untested)]
    assert len(notebook["in_units"](rows)) == 0
    assert overview.interval_text(untested | {}) == "" and overview.needs(small) == "more seeds than one"
    assert notebook["shown"](rows, ("it would take", overview.needs)).rows[1][-1] == "not said"


def test_a_claim_links_to_its_figure_if_that_is_there(notebook, project):
    folder = project / "figures" / "cpu" / "50_one"
    (folder / "grid.png").write_bytes(b"")
    row = dict(notebook="50_one", profile="cpu", claim="c", verdict="reproduced")
    rows = [row | dict(figure=figure) for figure in ("grid", "misspelt", "")]
    table = notebook["shown"](rows, notebook["FIGURE"])
    assert [cells[-1] for cells in table.rows] == ["grid", "–", "–"]
    assert "| c | [grid](../figures/cpu/50_one/grid.png) |" in table._repr_markdown_()


def test_an_open_claim_says_what_it_would_take():
    rows = {row["claim"]: row for row in claims_of()}
    assert overview.needs(rows["open"]) == f"n = {int(rows['open']['needed']):,}"
    assert [overview.needs(row) != "" for row in rows.values()] == [
        v.startswith("incon") for v in VERDICTS
    ] + [False]
    assert overview.interval_text(rows["alike"]).endswith(" points; alike, 1")
    equal = rows["alike"] | dict(mean="0.5", low="0.5", high="0.5", n="20")
    assert overview.interval_text(equal) == "+0.5 points, all 20 equal; alike, 1"
    assert overview.interval_text(equal | dict(low="-inf", high="inf", n="3")).startswith(
        "+0.5 points, all 3 equal"
    )


@pytest.mark.parametrize("verdict", ["inconclusive", "not tested"])
@pytest.mark.parametrize("n, met", [(0, "met"), (1, "met"), (2, "not met yet")])
def test_one_in_ten_may_be_open(n, met, verdict):
    rows = [dict(verdict=verdict if i < n else "reproduced", needed="9", n="5") for i in range(10)]
    lines = overview.summed_up(rows)
    assert lines[1] == f"open: {n} of 10 (our aim, at most one in ten, is {met})"
    assert len(lines) == 2


def test_what_a_document_says_and_what_is_ours_are_counted_apart():
    said = [("50", "-", "reproduced"), ("50", "7 times", "reproduced"), ("51", "not compared", "not tested")]
    rows = [dict(notebook=n, profile="cpu", document=d, verdict=v, needed="9", n="5") for n, d, v in said]
    assert overview.count_table(rows)[1] == [
        ("50", "cpu", 2, 2, 0),
        ("51", "cpu", 1, 0, 1),
        ("all", "", 3, 2, 1),
        ("of these a document's or a paper's", "", 1, 1, 0),
        ("of these ours", "", 2, 1, 1),
    ]
    assert overview.count_table(rows[1:] + rows[1:2])[1][-1] == ("of these ours", "", 1, 0, 1)
    assert (
        "2 reproduced, 1 not tested (of the reproduced 1 are a document's, 1 ours)"
        in overview.summed_up(rows)[0]
    )
    assert "of the reproduced" not in overview.summed_up(rows[1:])[0]  # none of ours is


def test_a_verdict_of_an_unknown_kind_is_counted_last():
    rows = [dict(notebook="50", profile="cpu", verdict=v) for v in ("odd", "not tested", "reproduced")]
    assert overview.count_table(rows) == (
        ("notebook", "profile", "claims", "reproduced", "not tested", "odd"),
        [("50", "cpu", 3, 1, 1, 1)],
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(overview, "root", lambda: tmp_path)
    for name, verdict in {
        "quick/50_one": "seen at small scale",
        "cpu/50_one": "reproduced",
        "paper/50_one": "inconclusive",
        "cpu/51_two": "inconclusive",
        "paper/51_two": "not reproduced, exploratory",
        "paper/52_three": "not tested",
        "smoke/53_four": "seen at small scale",
    }.items():
        (tmp_path / "figures" / name).mkdir(parents=True)
        (tmp_path / "figures" / name / "claims.csv").write_text(f'id,verdict\na,"{verdict}"\n')
    return tmp_path


def test_the_largest_profile_that_decides_something_counts(project):
    rows, problems = overview.gather()
    assert not problems
    assert [(row["notebook"], row["profile"], row["verdict"]) for row in rows] == [
        ("50_one", "cpu", "reproduced"),
        ("51_two", "paper", "not reproduced, exploratory"),
    ]
    assert [row["notebook"] for row in overview.gather(profile="smoke")[0]] == ["53_four"]
    assert [row["verdict"] for row in overview.gather(["50"], "paper")[0]] == ["inconclusive"]
    with pytest.raises(
        Refused, match=r"51_two has no claims of profile smoke \(it has .*\): nas-nb figures 51"
    ):
        overview.gather(["51"], "smoke")
    assert [row["notebook"] for row in overview.gather(["53"], "smoke")[0]] == ["53_four"]
    with pytest.raises(Refused, match="unknown document with claims '54'"):
        overview.gather(["54"])
    with pytest.raises(Refused, match="could be any of"):
        overview.gather(["5"])


def test_a_table_that_cannot_be_read_is_named_and_others_are_read(project):
    (project / "figures/paper/51_two/claims.csv").write_bytes(b"id\n\xff")
    rows, problems = overview.gather()
    assert problems == [
        "figures/paper/51_two/claims.csv cannot be read (it is not UTF-8): run nas-nb figures again"
    ]
    assert [(row["notebook"], row["verdict"]) for row in rows] == [
        ("50_one", "reproduced"),
        ("51_two", "inconclusive"),
    ]
    assert set(rows[0]) >= {"low", "needed", "exploratory"}


def test_without_any_figures_there_are_no_claims(tmp_path, monkeypatch):
    monkeypatch.setattr(overview, "root", lambda: tmp_path)
    assert overview.gather() == ([], [])
