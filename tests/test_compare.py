"""Figures are compared with those that git has."""

import json
import os
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from projects import DRAWS, OURS, run, write

from nas_nb import compare, jobs, notebooks, report

COMMITTED = dict(
    same="x,y,y_sd\n1,10,0.5\n",
    near="x,y,y_sd\n1,10,0.5\n2,nan,\n",
    far="x,y,y_sd\n1,10,0.5\n",
    exact="x,y\n1,10\n",
    text="method,y\nASNG,10\n",
)
NOW = dict(
    same="x,y,y_sd\n1,10,0.5\n",
    near="x,y,y_sd\n1,10.9,0.1\n2,nan,\n",
    far="x,y,y_sd\n1,11.1,0.5\n",
    exact="x,y\n1,10.1\n",
    text="method,y\nSNG,10\n",
    fresh="x\n1\n",
)


@pytest.mark.parametrize("why", ["", "other torch: 9.9"])
def test_comparison_with_git(project, monkeypatch, why):
    git = lambda *words: subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=n@example.invalid", *words], cwd=project, check=True
    )
    write(
        project,
        "10_demo",
        f"for name, text in {NOW!r}.items(): save_fig(name, text)",
        f"report(*{list(NOW)!r}, computed=1)",
    )
    out = project / "figures/quick/10_demo"
    out.mkdir(parents=True)
    for name, text in COMMITTED.items():
        (out / f"{name}.csv").write_text(text)
    (out / "same.svg").write_text("<svg/>")
    (out / "claims.csv").write_text("claim,verdict\nc1 (n = 3),reproduced\nc2,reproduced\n")
    (project / "figures/cpu/10_demo").mkdir(parents=True)
    (project / "figures/cpu/10_demo/claims.csv").write_text("claim,verdict\nc1 (n = 7.5),not reproduced\n")
    if why:
        (project / "constraints.txt").write_text("torch==0.0\n")
        why = f" (other torch: {version('torch').partition('+')[0]})"
    git("init", "-q"), git("add", "-A"), git("commit", "-qm", "all")
    result = run(project, "figures")
    found = {
        Path(line.split()[0]).name: line.split(maxsplit=1)[1]
        for line in result.stdout.splitlines()
        if line.startswith("figures/")
    }
    near = "within spread" if why else "different"
    assert found == dict(
        same="identical",
        near=near + why,
        far=f"different{why}",
        exact=f"different{why}",
        text=f"different{why}",
        fresh="new",
    )
    lines = [line.split("  ") for line in result.stdout.splitlines() if line.startswith("10  ")]
    assert [[cell.strip() for cell in line if cell.strip()] for line in lines] == [
        ["10", "c1 (n = 3)", "not reproduced (cpu)", "reproduced"],
        ["10", "c2", "reproduced (quick)", "reproduced"],
    ]

    # a claim that changed its verdict makes a figure within the spread a different one; a picture that
    # changed is named
    job = jobs.Job(notebooks.Notebook("10_demo", "", (), True, {}, {}, ""), "quick", {}, status="cached")
    monkeypatch.chdir(project)
    (job.before, _), job.prints = compare.committed(job.folder), compare.fingerprints(job.folder)
    (out / "claims.csv").write_text("claim,verdict\nc1 (n = 3),reproduced\nc2,inconclusive\n")
    (out / "same.svg").write_text("<svg></svg>")
    text = report.report([job])
    assert f"near   different{why}" in text and f"same   same data, other svg{why}" in text
    assert ["10", "c2", "reproduced (quick)", "inconclusive"] in [
        re.split("  +", line) for line in text.splitlines()
    ]

    # without another reason it is the one that the notebook found out about its own arithmetic
    if not why:
        (out / "report.json").write_text(json.dumps(dict(figures=["far"], problem="last digits will differ")))
        assert "far  different (last digits will differ)" in report.report([job])

    # what another profile drew since is not what is committed of it
    (project / "figures/cpu/10_demo/claims.csv").write_text(
        "claim,verdict\nc1 (n = 7.5),reproduced\nc2,reproduced\n"
    )
    (project / "figures/paper/10_demo").mkdir(parents=True)
    (project / "figures/paper/10_demo/claims.csv").write_text("claim,verdict\nc2,reproduced\n")
    assert report.best_verdicts(job) == {"c# (n = #)": "not reproduced (cpu)", "c#": "reproduced (quick)"}
    git("add", "-A"), git("commit", "-qm", "redrawn")
    assert report.best_verdicts(job) == {"c# (n = #)": "reproduced (cpu)", "c#": "reproduced (paper)"}


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ("x,y\n1,inf\n", "x,y\n1,inf\n", "identical"),
        ("x,y\n1,inf\n", "x,y\n1.0,inf\n", "within spread"),
        ("x,y\n1,inf\n", "x,y\n1,5\n", "different"),
        ("x,y,y_sd\n1,inf,inf\n", "x,y,y_sd\n1,5,1\n", "different"),
        ("x,y,y_sd\n1,4,\n", "x,y,y_sd\n1,5,\n", "different"),
        ("x,y,y_sd\n1,4,0.5\n", "x,y,y_sd\n1,5,9\n", "within spread"),
        ("x,y,y_sd\n1,4,0.4\n", "x,y,y_sd\n1,5,9\n", "different"),
        ("x,y\n1,4\n1,6\n", "x,y\n1,7\n1,5\n", "within spread"),  # means 5 and 6, a deviation of 1.4
        ("x,y\n1,4\n1,6\n", "x,y\n1,9\n1,8\n", "different"),
        ("x,y\n1,5\n", "x,y\n1,5.000001\n", "within spread"),
        ("x,y\n1,5\n", "x,y\n1,\n", "different"),
        ("x,y\n1,5\n", "x,z\n1,5\n", "different"),
        ("x,y\na,5\n", "x,y\nb,5\n", "different"),
        ("x\n", "y\n", "different"),
        ("x,y\n1,5\n1,5\n", "x,y\n1,5\n1,5\n1,5\n", "different"),  # another number of rows
        (
            "m,y\nA,30\nB,60\nC,90\n",
            "m,y\nA,90\nB,60\nC,30\n",
            "different",
        ),  # the same numbers, of other methods
        ("m,y\nA,30\nB,60\nC,90\n", "m,y\nA,60\nB,60\nC,60\n", "different"),
        ("step,loss\n1,2\n2,1\n3,0.1\n", "step,loss\n1,2\n2,2\n3,2\n", "different"),
        (
            "m,seed,y\nA,0,30\nA,1,34\n",
            "m,seed,y\nA,0,33\nA,1,36\n",
            "within spread",
        ),  # means 32 and 34.5, a deviation of 2.8 over the seeds
    ],
)
def test_compare(old, new, expected):
    reason = " (other torch: 9)" if expected != "identical" else ""
    assert compare.compare(old, new, why="other torch: 9") == expected + reason
    assert compare.compare(old, new) == ("identical" if expected == "identical" else "different")
    assert compare.compare(old, new, same_verdicts=False, why="other torch: 9") == (
        "identical" if expected == "identical" else "different (other torch: 9)"
    )


# -- what was compared with --


def git(folder, *words):
    return subprocess.run(
        ["git", "-c", "user.name=n", "-c", "user.email=n@example.invalid", *words],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.fixture
def tracked(project, monkeypatch):
    "A project in git with one committed figure, of which another version lies there."
    out = project / "figures" / "quick" / "10_demo"
    out.mkdir(parents=True)
    (out / "größe.csv").write_text("x\n1\n")
    git(project, "init", "-q"), git(project, "add", "-A"), git(project, "commit", "-qm", "all")
    (out / "größe.csv").write_text("x\n2\n")
    monkeypatch.chdir(project)
    return project


HERE, HEAD = {"größe.csv": "x\n2\n"}, {"größe.csv": "x\n1\n"}


def test_what_the_figures_are_compared_with(tracked):
    commit = git(tracked, "rev-parse", "--short", "HEAD").strip()
    assert compare.committed("figures/quick/10_demo") == (HEAD, f"HEAD, {commit}")


def test_variables_of_git_do_not_lead_elsewhere(tracked, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q"), git(other, "commit", "-qm", "empty", "--allow-empty")
    for name, value in dict(
        GIT_DIR=other / ".git",
        GIT_WORK_TREE=other,
        GIT_INDEX_FILE=other / "none",
        GIT_OBJECT_DIRECTORY=other,
        GIT_CEILING_DIRECTORIES=tracked.parent,
    ).items():
        monkeypatch.setenv(name, str(value))
    found, basis = compare.committed("figures/quick/10_demo")
    assert found == HEAD and basis.startswith("HEAD, ")


def test_a_checkout_inside_another_repository(tracked):
    inner = tracked / "inner"
    shutil.copytree(tracked / "figures", inner / "figures")
    (inner / "nbs").mkdir()
    (inner / "settings.ini").write_text(OURS)
    os.chdir(inner)
    found, basis = compare.committed("figures/quick/10_demo")
    assert (
        found == HERE
        and basis == "the files as they lay there (this folder is not tracked by the repository around it)"
    )
    git(tracked, "add", "-A"), git(tracked, "commit", "-qm", "with it")
    (inner / "figures/quick/10_demo/größe.csv").write_text("x\n3\n")
    found, basis = compare.committed("figures/quick/10_demo")
    assert found == HERE and basis.startswith("HEAD, ")


@pytest.mark.parametrize(
    "how, why",
    [
        ("refuses", "dubious ownership"),
        ("none", "not a git repository"),
        ("new", "git: fatal:"),
        ("missing", "git is not installed"),
    ],
)
def test_where_git_does_not_answer(tracked, monkeypatch, how, why):
    if how == "refuses":  # as it does in a folder of another owner
        fake = tracked / "bin" / "git"
        fake.parent.mkdir()
        fake.write_text('#!/bin/sh\necho "fatal: detected dubious ownership in repository" >&2\nexit 128\n')
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    elif how == "missing":
        monkeypatch.setenv("PATH", str(tracked / "nbs"))
    else:
        shutil.rmtree(tracked / ".git")
        if how == "new":
            git(tracked, "init", "-q")
    found, basis = compare.committed("figures/quick/10_demo")
    assert found == HERE and basis.startswith("the files as they lay there (") and why in basis


def test_the_report_says_what_was_compared_with(project):
    write(project, "10_demo", DRAWS)
    result = run(project, "figures")
    assert "\ncompared with the files as they lay there (git: fatal: not a git repository" in result.stdout
