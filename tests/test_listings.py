"""`nas-nb list`, `claims` and `runs`: tables of what there is, whole or damaged."""

import json
import os
import platform
import re
from pathlib import Path

import pytest
from projects import DRAWS, write

from nas_nb import cli, notebooks
from nas_nb.files import run_lock


def test_claims_and_runs(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    for profile in ("quick", "paper"):
        folder = project / "figures" / profile / "10_demo"
        folder.mkdir(parents=True)
        (folder / "claims.csv").write_text(
            f"claim,source,document,ours,verdict\nit works,sec. 2,0.5,0.4,seen on {profile}\n"
        )
    assert cli.main(["claims"]) == 0
    out = capsys.readouterr().out
    assert "seen on quick" in out and "seen on paper" not in out  # paper decides nothing yet
    assert cli.main(["claims", "--profile", "paper"]) == 0
    assert "seen on quick" not in (out := capsys.readouterr().out) and "seen on paper" in out
    path = project / "figures" / "paper" / "10_demo" / "claims.csv"
    path.write_text("claim,verdict\nit works,reproduced\n")
    assert cli.main(["claims"]) == 0
    assert "seen on quick" not in (out := capsys.readouterr().out) and "reproduced" in out

    runs = project / "data" / "runs"
    for document, key, file in (
        ("asng", "aa11", "record.json"),
        ("asng", "bb22", "checkpoint.pt"),
        ("tdga", "cc33", "record.json"),
        ("tdga", "dd44", "weights.pt"),
    ):
        (runs / document / key).mkdir(parents=True)
        (runs / document / key / file).write_text(json.dumps(dict(document=document, label="f=0.5", seed=7)))
    assert cli.main(["runs", "list", "--document", "asng"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:5] for line in lines] == [
        ["asng", "aa11", "f=0.5", "7", "done"],
        ["asng", "bb22", "-", "-", "checkpoint"],
    ]
    assert cli.main(["runs", "list", "--document", "tdga"]) == 0
    assert [line.split()[4] for line in capsys.readouterr().out.splitlines()[1:]] == ["done", "weights"]
    assert cli.main(["runs", "rm", "aa"]) == 0
    assert sorted(p.name for p in runs.glob("*/*")) == ["bb22", "cc33", "dd44"]
    assert cli.main(["runs", "rm", "--document", "asng"]) == 0 and cli.main(["runs", "rm", "--all"]) == 0
    assert not list(runs.glob("*/*"))


def test_long_claims_are_wrapped_not_cut(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    claim, ours = "a claim of many words " * 20 + "its end", "1.5 ± 0.5, " * 30 + "n = 3"
    (project / "figures/quick/10_demo").mkdir(parents=True)
    (project / "figures/quick/10_demo/claims.csv").write_text(
        f'claim,source,document,ours,verdict\n{claim},sec. 2,0.5,"{ours}",reproduced\n'
    )
    for width in 80, 132:
        monkeypatch.setenv("COLUMNS", str(width))
        assert cli.main(["claims"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines[: lines.index("")])) <= width and len(lines) > 5
        lines = lines[: lines.index("")]  # the counts come below
        start, end = lines[0].index("claim"), lines[0].index("verdict")
        assert " ".join(line[start:end].strip() for line in lines[1:]).split() == claim.split()
        assert " ".join(line[lines[0].index("ours") :].strip() for line in lines[1:]).split() == ours.split()


RULED = "id,claim,source,document,ours,verdict,criterion,numbers,rule,smallest,unit,exploratory,mean,low,high,n,level,needed,part\n"


@pytest.fixture
def judged(project, monkeypatch):
    "A project with the claims of two documents."
    texts = {
        "cpu/50_one": "id,claim,source,document,ours,verdict,criterion,numbers\n"
        'flat,It is flat,s,d,0.1,reproduced,c,"{}"\n'
        'far,It is far,s,d,0.2,not tested,c,"{}"\n',
        "quick/50_one": "claim,verdict\nIt is flat,seen at small scale\n",
        "cpu/51_two": RULED
        + 'a,A beats B,s,d,+0.1,inconclusive,c,"{}",better,0.05,points,,0.1,-0.109,0.309,4,97.5,1041,\n'
        + 'b,A is B,s,d,+0.1,"reproduced, exploratory",c,"{}",alike,2,,After.,0.1,-1.109,0.309,4,97.5,3,\n'
        + 'c,"A beats C",s,d,+9,"reproduced, small",c,"{}",better,20,,,9,8,10,4,97.5,3,\n'
        + 'd,It runs,s,d,-,not tested,c,"{}",,,,,,,,,,60 epochs,\n',
    }
    for name, text in texts.items():
        (project / "figures" / name).mkdir(parents=True)
        (project / "figures" / name / "claims.csv").write_text(text)
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "250")


def test_claims_show_intervals_what_would_decide_and_how_many_there_are(judged, capsys):
    assert cli.main(["claims"]) == 0
    table, counts, summed = capsys.readouterr().out.rstrip().split("\n\n")
    cells = [re.split("  +", line) for line in table.splitlines()]
    assert cells[0][1:] == [*"profile claim verdict document ours interval".split(), "what would decide it"]
    by_claim = {row[2]: row for row in cells[1:]}
    assert len(by_claim) == 6
    assert by_claim["It is flat"] == ["50", "cpu", "It is flat", "reproduced", "d", "0.1"]
    assert by_claim["It is far"][3:] == ["not tested", "d", "0.2", "not said"]
    wanted = ["inconclusive", "d", "+0.1", "-0.109 to +0.309 points; better, 0.05", "n = 1,041"]
    assert by_claim["A beats B"][3:] == wanted
    assert by_claim["A is B"][3:] == ["reproduced, exploratory", "d", "+0.1", "-1.11 to +0.309; alike, 2"]
    assert by_claim["It runs"][-1] == "60 epochs"
    assert [re.split("  +", line) for line in counts.splitlines()] == [
        "notebook|profile|claims|reproduced|reproduced, small|inconclusive|not tested".split("|"),
        ["50_one", "cpu", "2", "1", "0", "0", "1"],
        ["51_two", "cpu", "4", "1", "1", "1", "1"],
        ["all", "6", "2", "1", "1", "2"],
    ]
    assert summed.splitlines() == [
        "6 claims: 2 reproduced, 1 reproduced, small, 1 inconclusive, 2 not tested; 1 of them exploratory",
        "open: 3 of 6 (our aim, at most one in ten, is not met yet)",
        "open, and it is not said what would decide it: 1",
    ]


def test_claims_of_some_documents(judged, capsys):
    assert cli.main(["claims", "50", "--profile", "quick"]) == 0
    out = capsys.readouterr().out
    assert "seen at small scale" in out and "A beats" not in out and "interval" not in out
    assert "open: 0 of 1 (our aim, at most one in ten, is met)" in out
    assert cli.main(["claims", "51", "50_o"]) == 0
    out = capsys.readouterr().out
    assert "A beats B" in out and "It is flat" in out
    for words, says in ((["5"], "could be any of 50_one, 51_two"), (["53"], "known: 50_one, 51_two")):
        assert cli.main(["claims", *words]) == 2
        out, err = capsys.readouterr()
        assert says in err and err.count("\n") == 1 and out == ""
    assert cli.main(["claims", "51", "--profile", "quick"]) == 2
    err = capsys.readouterr().err
    assert (
        "51_two has no claims of profile quick (it has" in err and "nas-nb figures 51 --profile quick" in err
    )


def test_the_plan_and_the_list_tell_seeds_and_times(project, monkeypatch, capsys):
    write(project, "10_demo", DRAWS)
    write(project, "11_none", DRAWS, profiles="PROFILES = dict(paper=dict(trials=9), quick=dict(trials=8))")
    monkeypatch.chdir(project)

    def plan(*words):
        assert cli.main(["figures", "--dry-run", *words]) == 0
        return [re.split("  +", line)[3:] for line in capsys.readouterr().out.splitlines()[1:]]

    assert plan() == [["5", "auto", "-", "1 min"], ["-", "auto", "-", "1 min"]]
    assert plan("--seeds", "2", "--set", "trials=7") == [
        ["2", "auto", "trials=7", "-"],
        ["-", "auto", "trials=7", "-"],
    ]
    assert plan("--set", "seeds=3") == [["3", "auto", "seeds=3", "-"], ["-", "auto", "-", "1 min"]]
    assert plan("--profile", "paper")[0] == ["5", "auto", "-", "-"]

    path = project / "nbs" / "10_demo.ipynb"
    path.write_text(
        path.read_text().replace("EXPECTED = dict(", "EXPECTED = dict(paper='5 h on a GPU (estimated)', ")
    )
    assert cli.main(["list"]) == 0
    assert "paper (5 h on a GPU (estimated))" in capsys.readouterr().out
    assert plan("--profile", "paper")[0][-1] == "5 h on a GPU (estimated)"


def test_odd_things_among_the_runs(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    runs = project / "data" / "runs"
    for key in ("done", "future", "past", "broken", "folder", "empty", "busy"):
        (runs / "asng" / key).mkdir(parents=True)
    for key in ("done", "future", "past", "busy"):
        (runs / "asng" / key / "record.json").write_text(json.dumps(dict(label=key, seed=7)))
    os.utime(runs / "asng" / "future" / "record.json", (2**33, 2**33))
    for path in (runs / "asng" / "past" / "record.json", runs / "asng" / "past"):
        os.utime(path, (-(2**31), -(2**31)))
    (runs / "asng" / "broken" / "record.json").write_bytes(b"\xff\x00{")
    (runs / "asng" / "folder" / "record.json").mkdir()
    (runs / "file").touch()
    (runs / "asng" / "file").touch()
    (runs / "asng" / "nowhere").symlink_to(runs / "gone")
    (runs / "asng" / "round").symlink_to(runs / "asng" / "round")
    (runs / "asng" / "outside").symlink_to(project / "nbs")
    (runs / "asng" / "done" / "nowhere").symlink_to(runs / "gone")
    assert cli.main(["runs", "list"]) == 0
    out, err = capsys.readouterr()
    rows = {line.split()[1]: line.split() for line in out.splitlines()[1:]}
    assert err == "" and set(rows) == {"done", "future", "past", "broken", "folder", "empty", "busy"}
    assert [rows[k][4] for k in ("done", "broken", "folder", "empty")] == [
        "done",
        "unreadable",
        "unreadable",
        "begun",
    ]
    assert rows["future"][-2:] == ["0", "min"] and rows["past"][-1] == "d" and int(rows["past"][-2]) > 30_000

    lock = run_lock(runs / "asng" / "busy")
    assert lock.take()
    assert cli.main(["runs", "rm", "--all"]) == 1
    assert (
        f"left alone, process {os.getpid()} on {platform.node()} is computing it: asng busy\nremoved 6 runs"
        in capsys.readouterr().out
    )
    lock.release()
    assert (runs / "asng" / "busy" / "record.json").exists() and (project / "nbs").is_dir()
    assert cli.main(["runs", "rm", "busy"]) == 0 and not (runs / "asng" / "busy").exists()
    assert sorted(p.name for p in (runs / "asng").iterdir()) == [
        "file",
        "nowhere",
        "outside",
        "round",
    ]  # not ours


# -- damaged files, odd names, faults of our own --


def test_damaged_tables_of_claims(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    texts = dict(
        good=b"claim,verdict\nseen,reproduced\n",
        latin=b"claim\n\xff\n",
        long=b"claim\n" + b"x" * 200_000 + b"\n",
        torn=b'claim\n"a\rb\x00',
        empty=b"",
    )
    for name, text in texts.items():
        (project / "figures" / "quick" / name).mkdir(parents=True)
        (project / "figures" / "quick" / name / "claims.csv").write_bytes(text)
    (project / "figures" / "quick" / "folder" / "claims.csv").mkdir(parents=True)
    assert cli.main(["claims"]) == 1
    out, err = capsys.readouterr()
    assert "seen" in out and "x" * 200_000 in "".join(out.split())
    assert (
        err.count("\n") == 2
        and "figures/quick/latin/claims.csv cannot be read (it is not UTF-8)" in err
        and "figures/quick/folder/claims.csv" in err
    )


def test_notebooks_that_cannot_be_read_stand_in_the_list(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    write(project, "10_demo", DRAWS)
    (project / "nbs" / "11_folder.ipynb").mkdir()
    (project / "nbs" / "12_round.ipynb").symlink_to("12_round.ipynb")
    os.mkfifo(project / "nbs" / "13_pipe.ipynb")
    write(project, "14_odd", DRAWS, profiles="PROFILES = dict(quick=5)\nEXPECTED = 5")
    write(project, "15_odd", DRAWS, profiles="PROFILES = dict(quick=dict(a=None, b=[1, 'x'], c=dict(d=1)))")
    write(project, "16_\x1b[31mred\udcff", DRAWS)
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert (
        out.count("cannot be read") == 3
        and "each a table" in out
        and "16_\\x1b[31mred\\udcff" in out
        and "\x1b" not in out
    )
    for key in "abc":
        assert cli.main(["figures", "15", "--set", f"{key}=1", "--dry-run"]) == 2
    assert cli.main(["figures", "\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_notebooks_are_read_once(project, monkeypatch):
    monkeypatch.chdir(project)
    for i in range(20):
        write(project, f"{i + 10}_demo", DRAWS)
    read, real = [], notebooks.read_notebook
    monkeypatch.setattr(notebooks, "read_notebook", lambda path: read.append(path) or real(path))
    assert len(notebooks.select([f"{i + 10}" for i in range(20)])) == 20 == len(read)


@pytest.mark.parametrize("words", [["list"], ["figures"], ["claims"], ["runs", "list"]])
def test_a_folder_that_cannot_be_read_is_an_error(project, monkeypatch, capsys, words):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.chdir(project)
    for name in ("figures", "data/runs"):
        (project / name).mkdir(parents=True)
    monkeypatch.setattr(Path, "iterdir", refuse)
    assert cli.main(words) == 1
    assert capsys.readouterr().err.endswith(": Permission denied\n")


def test_a_link_among_the_runs_is_not_followed(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    mine = project / "mine" / "aa11"
    mine.mkdir(parents=True)
    (project / "data" / "runs").mkdir(parents=True)
    (project / "data" / "runs" / "doc").symlink_to(mine.parent)
    assert cli.main(["runs", "rm", "--document", "doc"]) == 2 and cli.main(["runs", "rm", "--all"]) == 0
    assert mine.is_dir()
