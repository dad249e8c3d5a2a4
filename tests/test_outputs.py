"""The outputs that notebooks keep: a document's are those of its largest profile with committed records."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from nas_nb import claims, study

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "tools"))
import keep_outputs as tool  # noqa: E402

PARAMETERS = 'profile: str = "quick"  # smoke, quick, cpu or paper\nseeds: int = 0'
STUDY = """\
from nas_nb.study import Study
CLAIMS = dict(big=dict(claim="x is big", source="s", document="d", criterion="above 1"))
PROFILES = dict(paper=dict(n=3), cpu=dict(n=2), quick=dict(n=1), smoke={})
study = Study("52_demo", PROFILES, profile, device="cpu", threads=1, claims=CLAIMS)
study"""
RUN = """\
import sys
print("a warning", file=sys.stderr)
def square(n, seed, device, ckpt): return dict(value=n * n)
value = study.run(square, "square", n=study.cfg.n)["result"]["value"]
study.judge("big", "it is {value}", value > 1, value=value)
study.save_claims()
value"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    "A project with one document, whose outputs are kept."
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = nas_nb\n")
    (tmp_path / "nbs").mkdir()
    monkeypatch.setattr(claims, "root", lambda: tmp_path)
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.delenv("IN_TEST", raising=False)
    return tmp_path


def document(project, run=RUN):
    cell = lambda id, source, *tags: dict(
        cell_type="code",
        id=id,
        metadata=dict(tags=[*tags]) if tags else {},
        source=source.splitlines(keepends=True),
        outputs=[],
        execution_count=None,
    )
    cells = [cell("parameters", PARAMETERS, "parameters"), cell("study", STUDY), cell("run", run)]
    path = project / "nbs" / "52_demo.ipynb"
    kernel = dict(kernelspec=dict(name="python3", display_name="python3", language="python"))
    path.write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))
    return path


def kept(path):
    "Each cell's source and what it shows as text."
    cells = json.loads(path.read_text())["cells"]
    said = lambda o: "".join(o["text"] if "text" in o else o["data"]["text/plain"])
    return {c["id"]: ("".join(c["source"]), [said(o) for o in c["outputs"]]) for c in cells}


def compute(project, monkeypatch):
    "The committed records of the profile cpu, as if another machine had made them."
    monkeypatch.setattr(study, "root", lambda: project)
    with tool.environment(NAS_NB_FIGURES="committed"):
        exec(STUDY + "\n" + RUN, dict(profile="cpu", __name__="__main__"))
    shutil.rmtree(project / "data")


def test_a_document_keeps_what_its_committed_records_show(project, monkeypatch):
    path = document(project)
    compute(project, monkeypatch)
    records = list((project / "figures/cpu/52_demo/records").iterdir())
    assert tool.recorded_profile("52_demo") == "cpu" and len(records) == 1
    assert tool.main([path]) == ""
    shown = kept(path)
    assert list(shown) == ["parameters", "study", "run"]  # and no cell that papermill has added
    assert shown["parameters"] == (PARAMETERS, [])
    assert shown["study"][1][0].splitlines()[:2] == [
        "52_demo, profile cpu, on cpu",
        "figures from 1 committed record, profile cpu; running this cell as it stands computes quick",
    ]
    said, value = shown["run"][1]  # no warning, which a reader could not understand
    assert said.startswith("square: from records made by code") and value == "4"
    assert list((project / "figures/cpu/52_demo/records").iterdir()) == records


def test_what_has_no_record_is_named_and_the_notebook_stays(project, monkeypatch):
    path = document(project)
    compute(project, monkeypatch)
    changed = document(project, RUN.replace("n=study.cfg.n", "n=study.cfg.n + 1"))
    before = changed.read_text()
    assert tool.main([changed]) == "52_demo.ipynb: 1 runs of cpu have no committed record"
    assert changed.read_text() == before
    document(
        project, RUN.replace("return dict", "ckpt.tick(lambda: {}); return dict").replace(".n)", ".n + 2)")
    )
    said = tool.main([path])
    assert (
        "cannot be drawn from the records of cpu" in said and "OutOfTime: the time limit has passed" in said
    )


def test_without_committed_records_a_document_keeps_its_quick_run(project):
    path = document(project)
    assert tool.main([path]) == "no executed copy of 52_demo.ipynb: run nas-nb figures"
    copy = project / "figures/quick/52_demo/52_demo.ipynb"
    copy.parent.mkdir(parents=True)
    with tool.environment(NAS_NB_FIGURES="committed", NAS_NB_BATCH="1"):
        tool.execute(path, copy)
    assert tool.main([path]) == ""
    shown = "".join(kept(path)["study"][1])
    assert "profile quick" in shown and "committed record" not in shown


def test_outputs_of_another_source_are_not_kept(project):
    path = document(project)
    other = project / "other.ipynb"
    other.write_text(path.read_text().replace("> 1", "> 2"))
    assert "52_demo.ipynb [run] has changed since it was executed" in tool.keep_outputs(path, other)


def test_what_is_printed_is_one_output_however_it_came():
    say = lambda text, name="stdout": dict(output_type="stream", name=name, text=text)
    shown = dict(output_type="display_data", data={}, metadata={})
    came = [say(["a\n", "b"]), say("a warning", "stderr"), say(["c\n"]), shown, say("d\n"), say("e\n")]
    assert tool.joined(came) == [say(["a\n", "bc\n"]), shown, say(["d\n", "e\n"])]
