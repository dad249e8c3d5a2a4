"""Claims as data: what is stated before the runs, what is judged after them, and what prose cites."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_nb import claims
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


@given(st.floats(allow_nan=True), st.integers(), st.text(), st.integers(0, 9))
def test_a_text_is_what_str_format_makes_of_it(x, n, text, digits):
    ours, numbers = "{x:.{digits}e}, {n:,}, {{}} {text!r:>9} {row[0]}", dict(x=x, n=n, text=text, row=[n])
    filled, written = fill(ours, numbers | dict(digits=digits))
    assert filled == ours.format(**numbers, digits=digits)
    assert written["x"] == f"{x:.{digits}e}" and written["row[0]"] == str(n)


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(flat=dict(claim="x")), "claim flat must have the texts claim, source, document, criterion"),
        (dict(flat=FLAT | dict(more="x")), "and nothing else"),
        (dict(flat=FLAT | dict(document=97.9)), "claim flat must have the texts"),
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
    for shown in (Verdict(row), Verdicts([row])):
        text = shown._repr_markdown_()
        assert "end\\_of\\_it &lt;script> \\$x\\$ \\| \\*y\\*" in text and "✅ reproduced" in text
        assert all(len(line.replace("\\|", "").split("|")) in (4, 6) for line in text.splitlines()), text
        for part in FLAT.values():
            assert claims._safe(part) in text
    plain = repr(Verdicts([row]))
    assert plain == Verdict(row).plain() and max(map(len, plain.splitlines())) <= 100
    assert " ".join(plain.split()).count("word") == 300 and "✅ reproduced: Quality hardly" in plain


def test_a_verdict_shows_its_claim_as_the_last_value_of_a_cell(study):
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(study.judge("flat", "{apart:.2f}", True, apart=1))
    assert shown["text/markdown"].startswith("| ✅ reproduced | Quality")
    assert shown["text/plain"].splitlines()[0].startswith("✅ reproduced: Quality hardly depends on λ")
    assert set(shown) == {"text/markdown", "text/plain"}


def test_sizes_are_a_table_with_a_column_for_each_profile(study):
    assert study.sizes().headings == ["value", "paper", "cpu", "quick", "smoke"]
    assert study.sizes().rows == [["n", "3", "2", "1", "1"], ["widths", "1, 2", "1, 2", "1, 2", "1, 2"]]
    study.own_sizes, study.values = True, study.values | dict(n=7)
    assert [study.sizes().headings[-1], study.sizes().rows[0][-1]] == ["here", "7"]


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


def test_a_summary_shows_answer_figure_and_verdicts(project, study, capsys):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, _ = plt.subplots(figsize=(2, 1))
    fig.savefig(study.folder / "a-figure.png", dpi=100)
    (study.folder / "a-figure.json").write_text(json.dumps(dict(alt="what it shows")))
    shown = []
    with pytest.MonkeyPatch.context() as m:
        m.setattr(
            "IPython.display.display", lambda x, **how: shown.append(x | how if "metadata" in how else x)
        )
        claims.summary("52_demo", "by {flat.apart}", "a-figure")
        assert shown[0] == {"text/markdown": "by 0.42", "text/plain": "by 0.42"}
        assert shown[1]["text/plain"] == "what it shows"
        assert shown[1]["metadata"]["image/png"] == dict(width=100, height=50, alt="what it shows")
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
