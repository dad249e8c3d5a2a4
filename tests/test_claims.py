"""Claims as data: what is stated before the runs, what is judged after them, and what prose cites."""

import csv
import importlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from nas_nb import claims, overview
from nas_nb.claims import Verdict, Verdicts, check_claims, cite, cited, committed_claims, fill, fill_answer
from nas_nb.study import Study

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))
import cite as tool  # noqa: E402

FLAT = dict(
    claim="Quality hardly depends on λ | a_b", source="slide 7", document="unchanged", criterion="≤ 1"
)
STATED = dict(flat=FLAT, worse=FLAT | dict(claim="Quality is worse at λ = 10⁻¹"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.delenv("IN_TEST", raising=False)
    profiles = dict(paper=dict(n=3, widths=(1, 2)), cpu=dict(n=2), quick=dict(n=1), smoke={})
    study = Study("52_demo", profiles, "paper", device="cpu", threads=1, claims=STATED)
    study.home = study.folder = tmp_path / "figures" / "paper" / "52_demo"
    return study


def judged(study, holds=True):
    study.judge("worse", "{by:.1f} points", not holds, by=-0.23)
    study.judge("flat", "{apart:.2f} points (n = {n})", holds, apart=0.417, n=3)
    study.save_claims()
    return study.folder / "claims.csv"


@pytest.fixture
def project(study, tmp_path, monkeypatch):
    "A project with the claims of one document, in the profile paper."
    judged(study)
    (tmp_path / "nbs").mkdir()
    monkeypatch.setattr(claims, "root", lambda: tmp_path)
    return tmp_path


def notebook(project, *cells):
    path = project / "nbs" / "52_demo.ipynb"
    found = [
        dict(cell_type=kind, id=f"c{i}", metadata={}, source=[text]) for i, (kind, text) in enumerate(cells)
    ]
    path.write_text(json.dumps(dict(cells=found)))
    return path


# -- judging --


def test_claims_are_saved_in_the_order_in_which_they_are_stated_with_their_numbers(study):
    rows = list(csv.DictReader(judged(study).open(encoding="utf-8")))
    assert list(rows[0]) == ["id", "claim", "source", "document", "ours", "verdict", "criterion", "numbers"]
    assert [(row["id"], row["verdict"]) for row in rows] == [
        ("flat", "reproduced"),
        ("worse", "not reproduced"),
    ]
    assert [json.loads(row["numbers"]) for row in rows] == [dict(apart="0.42", n="3"), dict(by="-0.2")]
    assert [row["ours"] for row in rows] == ["0.42 points (n = 3)", "-0.2 points"]
    assert claims.read_claims(study.folder / "claims.csv") == study.judged | {}


@pytest.mark.parametrize(
    "profile, holds, tested, verdict",
    [
        ("paper", True, True, "reproduced"),
        ("cpu", False, True, "not reproduced"),
        ("cpu", None, True, "inconclusive"),
        ("quick", True, True, "seen at small scale"),
        ("quick", False, True, "inconclusive"),
        ("smoke", True, True, "seen at small scale"),
        ("paper", True, False, "not tested"),
    ],
)
def test_the_verdict_depends_on_the_profile(study, profile, holds, tested, verdict):
    study.profile = profile
    assert study.judge("flat", "nothing", holds, tested=tested) == verdict == study.verdict("flat")


def test_changed_sizes_get_no_verdict_of_the_profiles_rank(study):
    study.own_sizes = True
    assert study.judge("flat", "nothing", True) == "seen at small scale"


def test_a_claim_that_was_not_judged_is_named_and_nothing_is_written(study):
    study.judge("flat", "nothing", True)
    with pytest.raises(ValueError, match="not judged yet: worse; "):
        study.save_claims()
    assert not study.folder.exists()


def test_an_unknown_claim_is_refused_with_those_that_are_known(study):
    with pytest.raises(ValueError, match="unknown claim 'flatt': known are flat, worse"):
        study.judge("flatt", "nothing", True)
    with pytest.raises(ValueError, match="'flat' is not judged yet: judged are none"):
        study.verdict("flat")


@pytest.mark.parametrize(
    "ours, numbers, says",
    [
        ("{apart:.2f} points, {worst}", dict(apart=1), "the number worst of"),
        ("{}", dict(apart="1"), "the number 0 of"),
        ("{apart[1]}", dict(apart=[1]), r"the number apart\[1\] of"),
        ("{apart.mean}", dict(apart=1), "the number apart.mean of"),
        ("{apart:.2f}", dict(apart=None), "the number apart of .* has no value"),
        ("{apart:.2f} {apart:.1f}", dict(apart=1), "apart is written in two ways, 1.00 and 1.0"),
        ("none", dict(apart=1.0), "the number apart is no field of"),
        ("{claim}", dict(claim="x"), "a number cannot be called claim"),
    ],
)
def test_a_number_without_value_or_use_is_named(study, ours, numbers, says):
    with pytest.raises(ValueError, match=says):
        study.judge("flat", ours, True, **numbers)
    assert not study.judged


@settings(deadline=None)
@given(st.floats(allow_nan=True), st.integers(), st.text(), st.integers(0, 9))
def test_a_text_is_what_str_format_makes_of_it(x, n, text, digits):
    ours, numbers = "{x:.{digits}e}, {n:,}, {{}} {text!r:>9} {row[0]}", dict(x=x, n=n, text=text, row=[n])
    filled, written = fill(ours, numbers | dict(digits=digits))
    assert filled == ours.format(**numbers, digits=digits)
    assert written["x"] == f"{x:.{digits}e}" and written["row[0]"] == str(n)


def test_the_figure_that_shows_a_claim_is_kept(study):
    study.stated = dict(flat=FLAT | dict(figure="grid"), worse=STATED["worse"])
    rows = list(csv.DictReader(judged(study).open(encoding="utf-8")))
    assert [row["figure"] for row in rows] == ["grid", ""]
    assert list(rows[0]) == [*claims.COLUMNS, *claims.ADDED] and claims.ADDED[-1] == "figure"
    assert claims.read_claims(study.folder / "claims.csv")["flat"]["figure"] == "grid"


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(flat=dict(claim="x")), "claim flat must have the texts claim, source, document, criterion"),
        (dict(flat=FLAT | dict(more="x")), "and nothing else"),
        (dict(flat=FLAT | dict(document=97.9)), "claim flat must have the texts"),
        (dict(flat=FLAT | dict(figure=4)), "nothing else but .*, figure$"),
        ({"a.b": FLAT}, "the claim's id 'a.b'"),
        ({"": FLAT}, "the claim's id ''"),
    ],
)
def test_claims_that_cannot_be_cited_or_lack_a_text_are_refused_at_once(bad, says):
    with pytest.raises(ValueError, match=says):
        check_claims(bad)
    with pytest.raises(ValueError, match=says):
        Study("52_demo", dict(paper={}, quick={}, smoke={}), claims=bad)


# -- what is shown --


def test_nothing_of_a_claim_is_cut_off_or_read_as_markup(study):
    long = "word " * 300 + "end_of_it <script> $x$ | *y*"
    row = dict(id="x", **FLAT, ours=long, verdict="reproduced", numbers={})
    for shown, columns in ((Verdict(row), (1,)), (Verdicts([row]), (1, 5, 6))):
        text = shown._repr_markdown_().replace("\xa0", " ")
        assert "end\\_of\\_it &lt;script> \\$x\\$ \\| \\*y\\*" in text and "✅ reproduced" in text
        assert all(len(line.replace("\\|", "").split("|")) in columns for line in text.splitlines()), text
        for part in FLAT.values():
            assert claims._safe(part) in text
    plain = repr(Verdicts([row]))
    assert plain == Verdict(row).plain() and max(map(len, plain.splitlines())) <= 100
    assert " ".join(plain.split()).count("word") == 300 and "✅ reproduced: Quality hardly" in plain


def test_of_many_claims_those_left_open_are_folded_and_counted(study):
    row = lambda n, verdict: dict(id=f"x{n}", **FLAT | dict(claim=f"claim {n}"), ours="o", verdict=verdict)
    is_open = [row(n, "inconclusive") for n in (1, 2)]
    is_open += [row(3, "not tested"), row(4, "inconclusive, exploratory")]
    few = Verdicts([row(0, "reproduced"), *is_open])._repr_markdown_()
    assert few.count("<details>") == 1 and "❔\xa0inconclusive, exploratory | claim 4 |" in few
    rows = [row(0, "not reproduced"), *is_open, row(5, "inconclusive"), row(6, "seen at small scale")]
    shown, folded, criteria = Verdicts(rows)._repr_markdown_().split("<details>")
    assert [n for n in range(7) if f"| claim {n} |" in shown] == [0, 6]
    assert folded.startswith("<summary>5 more claims are open: 4 inconclusive, 1 not tested</summary>")
    assert [n for n in range(7) if f"| claim {n} |" in folded] == [1, 2, 3, 4, 5]
    assert all(f"| claim {n} |" in criteria for n in range(7)) and claims._safe(FLAT["source"]) in criteria
    assert "claim 1" in repr(Verdicts(rows))
    alone = Verdicts([*is_open, row(5, "inconclusive")])._repr_markdown_()
    assert alone.startswith("<details><summary>5 claims are open: 4 inconclusive, 1 not tested</summary>")


def test_where_all_differences_are_equal_there_is_no_interval_to_tell_of(study):
    stated = dict(split=dict(FLAT, rule="better", smallest=0.1, unit="points"))
    told = "{mean:+.1f}, {level:.3g} % interval {low:+.1f} to {high:+.1f} (n = {n})"
    row = claims.judged("split", stated, told, {}, differences=[0.5] * 9)
    assert (row["ours"], row["verdict"]) == ("+0.5, all 9 equal", "reproduced")
    few = claims.judged("split", stated, told, {}, differences=[0.5] * 3)
    assert few["ours"] == "+0.5, all 3 equal; n = 6 would decide"
    parts = dict(a=[0.5] * 3, b=[0.4] * 3)  # neither is decided: the smaller mean is shown
    assert claims.judged("split", stated, told, {}, differences=parts)["part"] == "b"
    assert "interval" in claims.judged("split", stated, told, {}, differences=[0.5, 0.6])["ours"]


def test_of_very_many_claims_those_that_come_first_are_in_view_and_the_others_counted():
    row = lambda n, verdict: dict(id=f"x{n}", **FLAT | dict(claim=f"claim {n}"), ours="o", verdict=verdict)
    rows = [row(n, "reproduced" if n % 2 else "not reproduced") for n in range(12)]
    whole = Verdicts(rows, ["x1", "x2"])._repr_markdown_()
    assert whole.count("<details>") == 1  # a dozen is not too many
    rows += [row(12, "reproduced"), row(13, "not tested")]
    shown, folded, criteria = Verdicts(rows, ["x1", "x2", "x13"])._repr_markdown_().split("<details>")
    assert [n for n in range(14) if f"| claim {n} |" in shown] == [1, 2, 13]
    assert folded.startswith("<summary>11 more claims: 6 reproduced, 5 not reproduced</summary>")
    assert all(f"| claim {n} |" in shown + folded and f"| claim {n} |" in criteria for n in range(14))
    assert Verdicts(rows)._repr_markdown_().count("<details>") == 1  # nobody said what comes first


def test_a_study_shows_the_claims_of_a_part(study):
    study.judge("worse", "{by}", True, by=1)
    study.judge("flat", "{apart:.2f}", True, apart=1)
    assert [row["id"] for row in study.verdicts("fl").rows] == ["flat"]
    assert [row["id"] for row in study.verdicts("flat", "worse").rows] == ["worse", "flat"]


def test_a_verdict_shows_its_claim_as_the_last_value_of_a_cell(study):
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(study.judge("flat", "{apart:.2f}", True, apart=1))
    assert shown["text/markdown"].startswith("**✅ reproduced: Quality")
    assert shown["text/plain"].splitlines()[0].startswith("✅ reproduced: Quality hardly depends on λ")
    assert set(shown) == {"text/markdown", "text/plain"}


def test_sizes_are_a_table_with_a_column_for_each_profile(study):
    assert study.sizes().headings == ["value", "paper", "cpu", "quick", "smoke"]
    folded = study.sizes()._repr_markdown_()
    assert folded.startswith("<details><summary>All 2 values, by profile</summary>\n\n| value | paper |")
    assert folded.endswith("|\n\n</details>") and "details" not in repr(study.sizes())
    assert study.sizes().rows == [["n", "3", "2", "1", "1"], ["widths", "1, 2", "1, 2", "1, 2", "1, 2"]]
    study.own_sizes, study.values = True, study.values | dict(n=7)
    assert [study.sizes().headings[-1], study.sizes().rows[0][-1]] == ["here", "7"]


def test_a_link_is_one_in_markdown_and_its_text_elsewhere():
    table = claims.Table(["a|b", "figure"], [["x", claims.Link("a_[b]", "../figures/a.png")], ["y", "–"]])
    shown = table._repr_markdown_().splitlines()
    assert shown == [
        r"| a\|b | figure |",
        "| :-- | :-- |",
        r"| x | [a\_\[b\]](../figures/a.png) |",
        "| y | – |",
    ]
    assert repr(table) == "a|b  figure\nx    a_[b]\ny    –"


# -- what is committed, and cited --


def test_the_largest_profile_that_decides_something_counts(project, study):
    assert committed_claims("52_demo")[0] == "paper"
    study.folder = project / "figures" / "cpu" / "52_demo"
    judged(study)
    study.folder, decided = project / "figures" / "paper" / "52_demo", True
    assert committed_claims("52_demo")[0] == "paper"
    judged(study, holds=None), study.judge("worse", "open", None), study.save_claims()  # paper has begun
    assert committed_claims("52_demo")[0] == "cpu" and decided
    assert committed_claims("53_nothing") == ("", {})


def test_claims_without_ids_are_read_and_a_broken_file_is_named(project, study):
    path = study.folder / "claims.csv"
    path.write_text("claim,source,document,ours,verdict,criterion\nx grows,s,d,o,reproduced,c\n")
    profile, rows = committed_claims("52_demo")
    assert profile == "paper" and rows["x grows"]["numbers"] == {} and rows["x grows"]["id"] == ""
    path.write_text("id,numbers\nflat,{\n")
    with pytest.raises(ValueError, match="claims.csv cannot be read"):
        committed_claims("52_demo")


def test_numbers_are_cited_by_claim_and_name(project):
    assert [cited(key, "52") for key in ("flat.apart", "flat.verdict", "worse.by")] == [
        "0.42",
        "reproduced",
        "-0.2",
    ]
    assert cited("flat.profile", "52_demo") == "paper"
    with pytest.raises(
        LookupError, match=r"52_demo has no number apartt|flat of 52_demo has no number apartt"
    ):
        cited("flat.apartt", "52")
    with pytest.raises(LookupError, match=r"no committed claim flatt \(known: flat, worse\)"):
        cited("flatt.apart", "52")


def test_a_whole_number_is_cited_with_thousands_separators(study, project):
    study.judge("worse", "{by} points", True, by="1727 to 1,800")
    study.judge("flat", "{apart} points", True, apart=1727)
    study.save_claims()
    assert [cited(key, "52") for key in ("flat.apart", "worse.by")] == ["1,727", "1727 to 1,800"]
    assert claims.read_claims(study.folder / "claims.csv")["flat"]["numbers"] == {"apart": "1727"}


def test_a_text_is_filled_and_what_has_no_number_stays(project):
    text = "a <!-- flat.apart -->9<!-- / --> <!-- 52:worse.by -->\n<!-- / --> <!-- flat.no -->7<!-- / -->"
    filled, problems = cite(text, "52_demo")
    assert filled == (
        "a <!-- flat.apart -->0.42<!-- / --> <!-- 52:worse.by -->-0.2<!-- / --> <!-- flat.no -->7<!-- / -->"
    )
    assert len(problems) == 1 and "no number no" in problems[0]
    assert cite(filled, "52_demo")[0] == filled
    code = "```\n<!-- flat.apart -->9<!-- / -->\n```\n"
    assert cite(code, "52_demo") == (code, [])
    assert fill_answer("{flat.apart} $x_{a}$ {flat.no}", "52_demo")[0] == "0.42 $x_{a}$ …"


def test_the_tool_fills_and_checks(project, capsys):
    path = notebook(
        project,
        ("markdown", "It is <!-- flat.apart -->9<!-- / -->."),
        ("code", 'summary("52_demo", "{flat.apart}", "a-figure")'),
        ("code", "# <!-- flat.apart -->9<!-- / -->"),
    )
    before = path.read_text()
    assert tool.main(True, project / "nbs") == 1 and path.read_text() == before
    assert "52_demo.ipynb cites old numbers: run `python tools/cite.py`" in capsys.readouterr().out
    assert tool.main(False, project / "nbs") == 0 == tool.main(True, project / "nbs")
    cells = json.loads(path.read_text())["cells"]
    assert ["".join(c["source"]) for c in cells] == [
        "It is <!-- flat.apart -->0.42<!-- / -->.",
        'summary("52_demo", "{flat.apart}", "a-figure")',
        "# <!-- flat.apart -->9<!-- / -->",
    ]
    notebook(
        project, ("markdown", "<!-- no.n -->1<!-- / -->"), ("code", 'a = "{flat.m}"\nsummary("52_demo", a)')
    )
    assert tool.main(False, project / "nbs") == 1
    out = capsys.readouterr().out
    assert "52_demo.ipynb [c0]: 52_demo has no committed claim no" in out and "[c1]: the claim flat" in out


def test_the_tool_finds_an_answer_that_is_imported(project, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "demo_claims", SimpleNamespace(ANSWER="{flat.m}", OTHER=5))
    imports = "from demo_claims import ANSWER, OTHER as SAID"
    notebook(project, ("code", imports), ("code", 'summary("52_demo", ANSWER)\nsummary("52_demo", SAID)'))
    assert tool.main(True, project / "nbs") == 1
    assert "52_demo.ipynb [c1]: the claim flat of 52_demo has no number m" in capsys.readouterr().out


def test_the_tool_counts_all_claims(project, monkeypatch, capsys):
    monkeypatch.setattr(overview, "root", lambda: project)
    text = "# Demo\n\n<!-- all:open --><!-- / --> of <!-- all:claims -->9<!-- / --><!-- all:table -->old<!-- / -->"
    path = notebook(project, ("markdown", text))
    assert tool.main(True, project / "nbs") == 1 and "old numbers" in capsys.readouterr().out
    assert tool.main(False, project / "nbs") == 0 == tool.main(True, project / "nbs")
    assert "".join(json.loads(path.read_text())["cells"][0]["source"]) == (
        "# Demo\n\n<!-- all:open -->0<!-- / --> of <!-- all:claims -->2<!-- / --><!-- all:table -->\n\n"
        "| notebook | profile | claims | reproduced | not |\n| :-- | :-- | --: | --: | --: |\n"
        "| [52_demo](52_demo.ipynb) | paper | 2 | 1 | 1 |\n\n<!-- / -->"
    )
    notebook(project, ("markdown", "# Demo <!-- all:opened -->1<!-- / -->"))
    assert tool.main(True, project / "nbs") == 1
    assert "52_demo.ipynb [c0]: nothing of all claims is called opened (known: " in capsys.readouterr().out


def test_what_no_run_decides_is_counted_among_the_decided_and_ours_apart(monkeypatch):
    told = [
        ("7 times", "reproduced, exploratory", "arithmetic: days"),
        ("7 times", "inconclusive", "arithmetic: rows"),  # open: not among the decided
        ("7 times", "not reproduced", "arithmetic on what was learned"),  # that takes a run
        ("-", "reproduced", "by construction, checks our program: 50"),
        ("7 times", "not reproduced", "half (circular, in part by construction)"),
    ]
    rows = [dict(notebook="52", profile="cpu", document=d, verdict=v, criterion=c) for d, v, c in told]
    monkeypatch.setattr(tool, "gather", lambda: (rows, []))
    found = tool.of_all()
    names = ("arithmetic", "arithmetic-reproduced", "construction", "reproduced-documents", "reproduced-own")
    assert [found[name] for name in names] == ["1"] * 5


def test_a_summary_shows_answer_figure_and_verdicts(project, study, capsys):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, _ = plt.subplots(figsize=(2, 1))
    fig.savefig(study.folder / "a-figure.png", dpi=100)  # read as one of 200 pixels an inch
    (study.folder / "a-figure.json").write_text(json.dumps(dict(alt="what it shows")))
    shown = []
    with pytest.MonkeyPatch.context() as m:
        m.setattr(
            "IPython.display.display", lambda x, **how: shown.append(x | how if "metadata" in how else x)
        )
        claims.summary("52_demo", "by {flat.apart}", "a-figure")
        assert shown[0] == {"text/markdown": "by 0.42", "text/plain": "by 0.42"}
        assert shown[1]["text/plain"] == "what it shows"
        assert shown[1]["metadata"]["image/png"] == dict(width=90, height=45, alt="what it shows")
        assert "`paper`" in shown[2]["text/plain"] and len(shown[3].rows) == 2
        assert capsys.readouterr().out == ""
        claims.summary("52_demo", "by {flat.no}", "b-figure")
        claims.summary("53_nothing", "no answer yet")
    said = capsys.readouterr().out
    assert "has no number no" in said and "the figure b-figure is not committed yet" in said


def test_every_citation_of_the_notebooks_has_its_number():
    run = subprocess.run(
        [sys.executable, "tools/cite.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


# -- the rule --

RULED = FLAT | dict(rule="better", smallest=0.05, unit="of percentile")
reals = st.floats(-5, 5)
rules = st.sampled_from(claims.RULES)
samples = st.lists(st.integers(-1000, 1000).map(lambda i: i / 200), min_size=2, max_size=12).filter(
    lambda x: len(set(x)) > 1
)


def ruled(study, **claims):
    study.stated = check_claims(claims)
    return study


@pytest.mark.parametrize(
    "rule, low, high, verdict",
    [
        ("better", 0.01, 1.5, "reproduced"),
        ("better", 0.01, 0.9, "reproduced, small"),
        ("better", 1.2, 1.5, "reproduced"),
        ("better", -0.01, 0.9, "not reproduced"),
        ("better", -2, -1, "not reproduced"),
        ("better", -0.01, 1.1, "inconclusive"),
        ("better", 0.0, 1.0, "inconclusive"),
        ("alike", -0.9, 0.9, "reproduced"),
        ("alike", 0.1, 0.9, "reproduced"),
        ("alike", -1.1, 0.9, "inconclusive"),
        ("alike", -0.9, 1.1, "inconclusive"),
        ("alike", 0.9, 1.1, "inconclusive"),
        ("alike", 1.1, 1.2, "not reproduced"),
        ("alike", -1.2, -1.1, "not reproduced"),
        ("alike", -3, 3, "inconclusive"),
        ("not worse", -0.9, 3, "reproduced"),
        ("not worse", 2, 3, "reproduced"),
        ("not worse", -1.1, 3, "inconclusive"),
        ("not worse", -1.1, -0.9, "inconclusive"),
        ("not worse", -1.2, -1.1, "not reproduced"),
    ],
)
def test_an_interval_decides_as_the_table_of_the_rule_says(rule, low, high, verdict):
    assert claims.by_rule(rule, 1, low, high) == verdict


@settings(deadline=None)
@given(rules, st.floats(0.01, 3), reals, reals, st.floats(0, 9), st.floats(0, 9))
def test_widening_an_interval_never_decides_what_was_open_and_never_turns_a_verdict_round(
    rule, smallest, a, b, below, above
):
    low, high = sorted((a, b))
    narrow, wide = (
        claims.by_rule(rule, smallest, *ends) for ends in ((low, high), (low - below, high + above))
    )
    if narrow == "inconclusive":
        assert wide == "inconclusive"
    if narrow == "not reproduced":
        assert wide in ("not reproduced", "inconclusive")
    if wide.startswith("reproduced") and narrow != wide:
        assert narrow.startswith("reproduced") and wide == "reproduced"


@settings(deadline=None)
@given(st.floats(0.01, 3), reals, reals)
def test_a_mirrored_interval_is_alike_as_before_and_never_better_on_both_sides(smallest, a, b):
    low, high = sorted((a, b))
    verdict = lambda rule, *ends: claims.by_rule(rule, smallest, *ends)
    assert verdict("alike", low, high) == verdict("alike", -high, -low)
    better, mirrored = verdict("better", low, high), verdict("better", -high, -low)
    assert not (better.startswith("reproduced") and mirrored.startswith("reproduced"))
    if better.startswith("reproduced"):
        assert mirrored == "not reproduced" and verdict("not worse", low, high) == "reproduced"
    if verdict("alike", low, high) == "reproduced":
        assert verdict("not worse", low, high) == verdict("not worse", -high, -low) == "reproduced"


def test_an_interval_by_hand():
    mean, low, high = claims.interval([1, 2, 3])  # deviation 1; t(2, 0.975) = 4.30265 in every table
    assert (mean, round(low, 4), round(high, 4)) == (2.0, -0.4841, 4.4841)
    mean, low, high = claims.interval([0.1] * 5 + [0.3] * 5, 99)  # t(9, 0.995) = 3.24984
    half = 3.24984 * (0.1 * (10 / 9) ** 0.5) / 10**0.5
    assert (mean, low, high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), rel=1e-5)


@settings(deadline=None)
@given(samples, st.floats(50, 99.99))
def test_an_interval_is_that_of_scipy(x, level):
    wanted = scipy.stats.ttest_1samp(x, 0).confidence_interval(level / 100)
    assert claims.interval(x, level)[1:] == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-9)


@settings(deadline=None)
@given(samples, st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_does_not_count(x, random):
    assert claims.interval(x) == claims.interval(random.sample(x, len(x)))


def test_the_level_depends_on_the_claims_with_a_rule_alone():
    stated = {f"c{i}": RULED for i in range(4)} | dict(fact=FLAT)
    assert claims.level_of(stated) == pytest.approx(98.75) and claims.level_of(dict(fact=FLAT)) == 95


def test_an_n_raised_after_a_look_halves_the_share_of_its_claim():
    stated = {f"c{i}": RULED for i in range(4)} | dict(more=RULED | dict(raised="from 8 to 24 seeds"))
    assert claims.level_of(stated, "more") == pytest.approx(99.5)
    assert claims.level_of(stated, "c0") == claims.level_of(stated) == pytest.approx(99)
    row = claims.judged("more", stated, "{mean:.1f}, {level:.4g} %", {}, differences=[1.0, 2.0, 3.0])
    assert row["level"] == "99.5" or float(row["level"]) == pytest.approx(99.5)
    assert "99.5 %" in row["ours"]
    assert "raised after a look, from 8 to 24 seeds" in claims._said_rule(row)
    stated["more"] |= dict(raised="from 5 to 8 to 24 seeds")  # three looks: a third of the share
    assert claims.level_of(stated, "more") == pytest.approx(100 * (1 - 0.05 / 5 / 3))
    row = claims.judged("more", stated, "{mean:.1f}", {}, differences=[1.0, 2.0, 3.0])
    said = claims._said_rule(row)
    assert "raised after each of 2 looks, from 5 to 8 to 24 seeds: a third of its share of the 5 %" in said
    with pytest.raises(ValueError, match="raised n, but no rule"):
        claims.check_claims(dict(fact=FLAT | dict(raised="from 8 to 24 seeds")))


@pytest.mark.parametrize("rule, power", [("better", 0.8), ("not worse", 0.8), ("alike", 0.9)])
@pytest.mark.parametrize("deviation", [0.5, 1, 3, 20])
@pytest.mark.parametrize("level", [95, 99.5])
def test_the_number_needed_has_the_power_that_it_promises(rule, power, deviation, level):
    x = [-deviation, 0, deviation]  # its standard deviation is `deviation`
    n = claims.needed(rule, 1, x, level)

    def found(n):  # chance that the interval's end clears the line, by the non-central t distribution
        edge = scipy.stats.t.ppf(0.5 + level / 200, n - 1)
        return scipy.stats.nct.sf(edge, n - 1, n**0.5 / deviation)

    assert found(n + 1) >= power - 0.01 and (n < 6 or found(n - 2) < power)


def test_what_is_open_at_the_planned_number_needs_more_than_there_is():
    x = [0.5 + d for d in (-1, 1) * 8]  # planned 11 at 95 %; the interval is −0.05 to 1.05
    assert claims.by_rule("better", 1, *claims.interval(x)[1:]) == "inconclusive"
    assert claims.needed("better", 1, x) == 19  # 2.1009 × 1.0328 / √19 = 0.498 ≤ 0.5; at 18 it is 0.514
    x = [
        0.6 + d for d in (-1.07, 1.07) * 6
    ]  # planned 12; the interval is −0.11 to 1.31, 0.6 to its near side
    assert claims.needed("better", 1, x) == 16  # 2.1314 × 1.1176 / √16 = 0.596 ≤ 0.6; at 15 it is 0.619
    on_the_line = [1 + d for d in (-1, 1) * 40]  # a mean at the margin itself is never decided
    assert claims.needed("alike", 1, on_the_line) == claims.math.inf


@settings(deadline=None)
@given(rules, st.floats(0.05, 3), samples, st.floats(80, 99.9))
def test_an_open_claim_always_needs_more_than_there_is(rule, smallest, x, level):
    found = claims.weigh(rule, smallest, x, level)
    assert found["verdict"] != "inconclusive" or found["needed"] > len(x) == found["n"]


@settings(deadline=None)
@given(rules, st.floats(0.05, 3), st.dictionaries(st.sampled_from("abcd"), samples, min_size=1))
def test_of_several_parts_the_worst_decides(rule, smallest, parts):
    both = claims.weigh(rule, smallest, parts)
    alone = {name: claims.weigh(rule, smallest, x) for name, x in parts.items()}
    order = ["not reproduced", "inconclusive", "reproduced, small", "reproduced"]
    assert order.index(both["verdict"]) == min(order.index(f["verdict"]) for f in alone.values())
    assert both == alone[both["part"]] | dict(part=both["part"])


def test_of_two_open_parts_the_one_further_from_the_claim_is_shown():
    parts = dict(near=[0.5, 1.5, -0.2], far=[-1.5, 0.5, 0.6])
    assert claims.weigh("better", 1, parts)["part"] == "far" == claims.weigh("not worse", 1, parts)["part"]
    parts = dict(
        above=[2, 3.25, 4.5], below=[-1.25, -0.75, -0.25]
    )  # alike: what counts is how far out either end lies
    assert claims.weigh("alike", 1, parts)["part"] == "above"
    assert claims.weigh("alike", 1, {name: [-v for v in x] for name, x in parts.items()})["part"] == "above"


@pytest.mark.parametrize(
    "x, says",
    [
        ([0.1, float("nan"), 0.2], "must be a row of finite numbers, not with one that is not finite"),
        ([0.1, float("inf")], "not with one that is not finite"),
        ([0.1], "one difference has no interval: it takes two seeds at least"),
        ([], r"must be a row of finite numbers, not of shape \(0,\)"),
        (0.3, r"not of shape \(\)"),
        ([[0.1, 0.2], [0.3, 0.4]], r"not of shape \(2, 2\)"),
        ([[0.1], [0.3, 0.4]], "are not numbers"),
        (["a", "b"], "are not numbers"),
        (dict(), "there are no differences"),
        (dict(one=[1, 2], other=[1, float("nan")]), "the differences of other must be"),
    ],
)
def test_differences_that_say_nothing_are_refused_in_one_line(study, x, says):
    ruled(study, split=RULED)
    with pytest.raises(ValueError, match=f"claim split: .*{says}") as caught:
        study.judge("split", "{mean}", differences=x)
    assert "\n" not in str(caught.value) and not study.judged


@pytest.mark.parametrize(
    "more, says",
    [
        (dict(rule="bettter"), "has the rule 'bettter': known are better, alike, not worse"),
        (dict(smallest=0), "has the smallest effect 0: it must be a number above 0"),
        (dict(smallest=-0.1), "it must be a number above 0"),
        (dict(smallest=float("nan")), "it must be a number above 0"),
        (dict(smallest=float("inf")), "it must be a number above 0"),
        (dict(smallest="0.05"), "it must be a number above 0"),
        (dict(smallest=True), "it must be a number above 0"),
        (dict(unit=5), "must have the texts"),
        (dict(exploratory=True), "must have the texts"),
        (dict(margin=1), "and nothing else"),
        (dict(rule=""), "has a smallest effect, a unit or a raised n, but no rule"),
    ],
)
def test_a_rule_that_could_not_decide_is_refused_before_the_runs(more, says):
    with pytest.raises(ValueError, match=says) as caught:
        check_claims(dict(split=RULED | more))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="has the smallest effect None"):
        check_claims(dict(split=FLAT | dict(rule="alike")))


@pytest.mark.parametrize(
    "id, how, says",
    [
        ("split", dict(), "has the rule 'better', so it is decided by differences=: pass them"),
        ("split", dict(holds=True), "decided by differences="),
        ("split", dict(holds=True, differences=[1, 2]), "`holds` has no say in it"),
        ("split", dict(holds=None, differences=[1, 2]), "`holds` has no say in it"),
        ("flat", dict(differences=[1, 2]), "has no rule in CLAIMS, so differences cannot decide it"),
        ("flat", dict(tested=False, differences=[1, 2]), "has no rule in CLAIMS"),
        ("flat", dict(), "has no rule, so say whether its criterion `holds`"),
        ("split", dict(differences=[1, 2], n=3), "n: filled in by the rule"),
    ],
)
def test_a_claim_is_decided_by_what_it_says_that_decides_it(study, id, how, says):
    with pytest.raises(ValueError, match=says) as caught:
        ruled(study, split=RULED, flat=FLAT).judge(id, "nothing", **how)
    assert "\n" not in str(caught.value) and not study.judged


def test_the_numbers_of_the_rule_are_filled_in_and_saved(study):
    ruled(study, split=RULED, other=RULED | dict(rule="alike", smallest=2), flat=FLAT)
    text = "{mean:+.3f} of percentile, {level:.3g} % interval {low:+.3f} to {high:+.3f} (n = {n}), {own}"
    # deviation 0.1, t(3, 0.9875) = 4.17653: half 0.1 × 4.17653 / 2 = 0.20883
    x = [0.1 - 0.15 / 3**0.5 * a for a in (1, 1 / 3, -1 / 3, -1)]
    x = [0.1 + (v - 0.1) * 0.1 / claims._mean_and_deviation(x)[1] for v in x]
    assert study.judge("split", text, differences=x, own=7) == "inconclusive"
    row = study.judged["split"]
    assert row["ours"] == (
        "+0.100 of percentile, 97.5 % interval -0.109 to +0.309 (n = 4), 7; n = 41 would decide"
    )
    assert row["numbers"] == dict(
        mean="+0.100", level="97.5", low="-0.109", high="+0.309", n="4", needed="41", own="7"
    )
    assert study.judge("other", "{low:.1f}", differences=dict(a=x, b=[2.5, 1, 2, 1.5])) == "inconclusive"
    assert study.judged["other"]["numbers"]["part"] == "b"
    study.judge("flat", "nothing", True)
    study.save_claims()
    saved = claims.read_claims(study.folder / "claims.csv")
    assert saved == study.judged
    wanted = dict(rule="better", smallest="0.05", unit="of percentile", level="97.5", n="4", needed="41")
    assert wanted.items() <= saved["split"].items() and saved["flat"]["low"] == ""
    assert float(saved["split"]["low"]) == pytest.approx(0.1 - 0.20883, abs=1e-5)


def test_what_would_decide_stands_once(study):
    ruled(study, split=RULED)
    study.judge("split", "{needed} runs would do", differences=[-1, 1, 0.1])
    assert study.judged["split"]["ours"].endswith("runs would do")
    study.judge("split", "open", differences=[-1e9, 1e9, 0.1])
    assert study.judged["split"]["ours"] == "open; no n up to a million would decide"
    study.judge("split", "clear", differences=[1, 1.1, 0.9])
    assert study.judged["split"]["ours"] == "clear"


@pytest.mark.parametrize(
    "x, paper, quick",
    [
        ([1, 1.1, 0.9], "reproduced", "seen at small scale"),
        ([0.01, 0.011, 0.012], "reproduced, small", "seen at small scale"),
        ([-1, -1.1, -0.9], "not reproduced", "inconclusive"),
        ([-1, 1.1, 0.9], "inconclusive", "inconclusive"),
    ],
)
def test_scale_and_the_order_of_events_temper_a_rules_verdict(study, x, paper, quick):
    ruled(study, split=RULED, seen=RULED | dict(exploratory="The criterion was written afterwards."))
    for study.profile, wanted in ("paper", paper), ("quick", quick):
        assert study.judge("split", "nothing", differences=x) == wanted
        late = study.judge("seen", "nothing", differences=x)
        assert late == wanted + ", exploratory" and claims.kind(late) == wanted
        assert claims.ICONS[wanted] in late.plain() and "afterwards." in late._repr_markdown_()
        assert study.judge("seen", "nothing", tested=False, differences=x) == "not tested"
        assert study.judge("seen", "nothing", None, tested=False) == "not tested"


@pytest.mark.parametrize(
    "holds, tested, ours",
    [
        (None, True, "open; 60 epochs would decide"),
        (True, False, "open; 60 epochs would decide"),
        (True, True, "open"),
        (False, True, "open"),
    ],
)
def test_a_fact_that_is_open_says_in_words_what_would_decide(study, holds, tested, ours):
    ruled(study, flat=FLAT, split=RULED)
    study.judge("flat", "open", holds, tested=tested, needed="60 epochs")
    row = study.judged["flat"]
    assert (row["ours"], row["needed"]) == (ours, "60 epochs")
    study.judge("flat", "{needed} or nothing", None, needed="60 epochs")
    assert study.judged["flat"]["ours"] == "60 epochs or nothing"
    study.judge("split", "too short", tested=False, needed="60 epochs")
    assert study.judged["split"]["ours"] == "too short; 60 epochs would decide"
    study.judge("split", "too short", tested=False, differences=[-1, 1, 0.1])
    assert study.judged["split"]["ours"] == "too short"
    study.save_claims()
    assert claims.read_claims(study.folder / "claims.csv") == study.judged


@pytest.mark.parametrize("x", [[0.3], [0.3, 0.3]])
def test_without_spread_a_small_profile_decides_nothing_and_is_no_error(study, x):
    study.profile = "quick"
    ruled(study, split=RULED)
    assert study.judge("split", "{mean:.1f}, {low:+.2f} to {high:+.2f}", differences=x) == "inconclusive"
    assert study.judged["split"]["ours"].startswith("0.3, -inf to +inf; ")
    study.save_claims()
    assert claims.read_claims(study.folder / "claims.csv") == study.judged


@pytest.mark.parametrize("x", [[0.25] * 5, [0.1 + 0.2, 0.3, 0.3]])
def test_a_few_equal_differences_leave_everything_open(study, x):
    with pytest.raises(
        ValueError, match=f"all {len(x)} differences are .*: without spread there is no interval"
    ):
        claims.interval(x)
    found = claims.weigh("better", 0.1, x)
    assert (found["verdict"], found["low"], found["high"]) == ("inconclusive", -math.inf, math.inf)
    assert found["needed"] == 6  # 2 · 2⁻⁶ = 0.03


@pytest.mark.parametrize(
    "rule, value, verdict",
    [("better", 0.25, "reproduced"), ("better", 0.05, "reproduced, small"), ("better", 0, "not reproduced")]
    + [
        ("alike", 0.05, "reproduced"),
        ("alike", 0.25, "not reproduced"),
        ("not worse", -0.2, "not reproduced"),
    ],
)
def test_enough_equal_differences_decide(rule, value, verdict):
    found = claims.weigh(rule, 0.1, [value] * 6)
    assert found["verdict"] == verdict and [found["low"], found["high"]] == pytest.approx([value] * 2)
    assert claims.weigh(rule, 0.1, [value] * 6, level=99.8)["verdict"] == "inconclusive"
    assert claims.weigh(rule, 0.1, [value] * 10, level=99.8)["verdict"] == verdict


def test_arrays_tensors_and_columns_are_differences(study):
    import numpy as np
    import pandas as pd
    import torch

    x = [0.1, 0.25, 0.3]
    found = [claims.weigh("better", 1, f(x)) for f in (list, np.array, pd.Series, torch.tensor)]
    assert (
        all(f["mean"] == pytest.approx(0.65 / 3, rel=1e-6) for f in found)
        and found[0] == found[1] == found[2]
    )


def test_the_rule_shows_beside_the_criterion_and_a_table_of_facts_has_no_more_columns(study):
    ruled(study, split=RULED, late=FLAT | dict(exploratory="After the fact."))
    plain = study.judge("split", "{mean}", differences=[1, 2]).plain()
    assert "criterion: ≤ 1; better, smallest effect 0.05 of percentile" in plain
    late = study.judge("late", "nothing", True)
    assert late == "reproduced, exploratory" and "≤ 1; exploratory: After the fact." in late.plain()
    head = claims.claims_csv([study.judged["late"] | dict(exploratory="")]).splitlines()[0]
    assert head == ",".join(claims.COLUMNS)
    assert claims.claims_csv(study.judged.values()).splitlines()[0] == ",".join(claims.COLUMNS + claims.ADDED)


def test_scipys_heavy_half_is_not_needed_for_a_verdict():
    code = (
        "import sys; from nas_nb import claims; assert not {'numpy', 'scipy', 'torch'} & set(sys.modules);"
        "claims.weigh('better', 1, [1, 2]); assert 'scipy.stats' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_what_would_decide_a_claim_without_room_is_no_number_of_runs():
    ruled = dict(better=FLAT | dict(rule="better", smallest=1.0, unit="points"))
    judge = lambda **more: claims.judged(
        "better", ruled, "{mean:.1f}", more, differences=[0.1, 0.4], tested=False
    )
    assert judge()["needed"].isdigit() and "would decide" not in judge()["ours"]
    row = judge(needed="a space with more room")
    assert (row["needed"], row["ours"]) == (
        "a space with more room",
        "0.2; a space with more room would decide",
    )


# -- the figures of the documents' claims --

TABLES = {  # document → modules with its claims
    "50_tdga_darts_vgg19": "tdga_claims",
    "51_asng_nas": "asng_claims",
    "52_hypernet_complexity": "hypernet_claims",
    "53_credit_assignment": "credit_claims",
    "54_nas_nasnet_enas": "controller_claims recurrent_claims",
    "55_asng_cifar10": "cifar10_claims",
    "95_arena": "arena_lookup arena_oneshot",
    "95h_last_systems": "last_systems",
}
COMMITTED = sorted((ROOT / "figures").glob("*/*/claims.csv"))


def stated_by(document):
    modules = [importlib.import_module(f"nas_nb.papers.{name}") for name in TABLES[document].split()]
    names = ("CLAIMS", "LOOKUP_CLAIMS", "ONESHOT_CLAIMS")
    tables = [vars(module)[name] for module in modules for name in names if name in vars(module)]
    assert len(tables) == len(modules)
    return {id: claim for table in tables for id, claim in table.items()}


@pytest.mark.parametrize("document", TABLES)
def test_every_number_of_an_answer_has_its_field_in_one_piece(document):
    modules = [importlib.import_module(f"nas_nb.papers.{name}") for name in TABLES[document].split()]
    for answer in (vars(m)["ANSWER"] for m in modules if "ANSWER" in vars(m)):
        fields = re.findall(r"\{.*?\}", answer, re.DOTALL)
        assert fields and all(re.fullmatch(r"\{[\w-]+\.[\w-]+\}", field) for field in fields)


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: "-".join(path.parts[-3:-1]))
def test_committed_claims_are_those_that_are_stated_and_their_figures_are_there(path):
    rows, stated = claims.read_claims(path), stated_by(path.parent.name)
    for key in (*claims.STATED, *claims.RULED, "figure"):
        if key != "smallest":
            assert {id: row[key] for id, row in rows.items()} == {
                id: c.get(key, "") for id, c in stated.items()
            }
    named = {id: row["figure"] for id, row in rows.items() if row["figure"]}
    missing = {id: f for id, f in named.items() if not (path.parent / f"{f}.png").exists()}
    elsewhere = {p.stem for p in path.parents[2].glob(f"*/{path.parent.name}/*.png")}
    assert named and all(
        rows[id]["verdict"] == "not tested" or f in elsewhere for id, f in missing.items()
    ), missing


def test_every_figure_that_the_overview_of_all_claims_names_can_be_opened():
    rows, problems = overview.gather()
    assert not problems and {row["notebook"] for row in rows} == set(TABLES)
    named = [row for row in rows if row["figure"]]
    assert len(named) > len(rows) / 2
    for row in named:
        link = overview.figure_link(row)
        assert link == row["figure"] and (ROOT / "nbs" / link.to).is_file(), row["claim"]
    assert overview.figure_link(named[0] | dict(figure="misspelt")) == "–"
    assert overview.figure_link(named[0] | dict(figure="")) == "–"
