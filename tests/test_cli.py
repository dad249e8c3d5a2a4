"""What the command line `nas-nb` says to mistakes, to missing things, and in its help."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from projects import DRAWS, OURS, PARAMETERS, run, write

from nas_nb import cli, notebooks
from nas_nb.core import resolve, root


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    "A project for tests in which nothing is executed."
    project = tmp_path_factory.mktemp("still")
    (project / "settings.ini").write_text(OURS)
    (project / "nbs").mkdir()
    write(project, "10_demo", DRAWS)
    write(project, "11_other", DRAWS, "load_images")  # that data are loaded must not make the answers slow
    write(project, "_scratch", DRAWS)
    write(project, "00_library", "text = 'save_fig(fig)'")  # mentions it, calls nothing
    return project


@pytest.mark.parametrize(
    "words, says",
    [
        ("figures 99", "known: 10_demo, 11_other"),
        ("figures 1", "10_demo, 11_other"),
        ("figures 10_dmeo", "did you mean '10_demo'"),
        ("figures 00", "unknown notebook"),
        ("figures 00_library", "saves no figure"),
        ("figures --profile quik", "did you mean 'quick'"),
        ("figures --device gpu", "known: auto, cpu, cuda, mps"),
        ("figures --jobs 0", "--jobs"),
        ("figures --jobs two", "--jobs"),
        ("figures --seeds 0", "--seeds"),
        ("figures --seeds -1", "--seeds"),
        ("figures --time-limit soon", "9m, 90s, 1h30m"),
        ("figures --time-limit 0", "9m, 90s, 1h30m"),
        ("figures --notebook-limit 3d", "9m, 90s, 1h30m"),
        ("figures --set trials", "key=value"),
        ("figures --set trials=", "key=value"),
        ("figures --set trails=3", "did you mean 'trials'"),
        ("figures --set trials=1.5", "a whole number above 0, such as 8"),
        ("figures --set plain=1", "true or false"),
        ("figures --set f=1;2", "commas"),
        ("figures --frobnicate", "--frobnicate"),
        ("figure", "figures"),
        ("", "figures|list|claims|runs|data|search"),
        ("claims --profile x", "known: smoke, quick, cpu, paper"),
        ("runs", "list|rm"),
        ("runs rm", "--all"),
        ("runs rm nokey", "unknown run"),
        ("runs list --document nodoc", "unknown document"),
    ],
)
def test_mistakes_get_one_line(still, words, says, monkeypatch, capfd):
    monkeypatch.chdir(still)
    assert cli.main(words.split()) == 2
    out, err = capfd.readouterr()
    assert says in err and err.count("\n") == 1 and out == ""
    assert not (still / "figures").exists()


def test_mistakes_and_help_are_cheap(still):
    """What makes an answer slow is an import; through the real process once, for the exit status and the
    missing traceback."""
    code = (
        "import sys, nas_nb.cli as b\n"
        "try: status = b.main(sys.argv[1:])\n"
        "except SystemExit as e: status = e.code\n"
        "print('heavy', {'torch', 'papermill', 'pandas', 'numpy', 'matplotlib', 'tqdm'} & set(sys.modules)); sys.exit(status)"
    )
    for words, expected in (
        ("--help", 0),
        ("figures --help", 0),
        ("search --help", 0),
        ("search flowers --method asgn", 2),
        ("figures 99", 2),
        ("figures --dry-run", 0),
        ("list", 0),
        ("claims", 0),
        ("claims --help", 0),
        ("claims 99", 2),
    ):
        result = subprocess.run(
            [sys.executable, "-c", code, *words.split()], cwd=still, capture_output=True, text=True
        )
        assert result.returncode == expected and "heavy set()" in result.stdout
    real = run(still, "figures", "99")
    assert (real.returncode, real.stdout, real.stderr.count("\n")) == (2, "", 1)
    assert "examples:" in run(still, "--help").stdout


@pytest.mark.parametrize(
    "broken, says",
    [
        (dict(tag="paramters"), "no cells tagged 'parameters'"),
        (dict(parameters=PARAMETERS.replace("seeds: int", "seed: int")), "seeds: int"),
        (dict(parameters=PARAMETERS.replace(": str", "")), "profile: str"),
        (dict(profiles="PROFILES = dict(huge=dict())"), "PROFILES"),
        (dict(profiles="PROFILES = dict(quick=load())"), "literal"),
    ],
)
def test_broken_notebooks_are_refused(project, broken, says, monkeypatch, capsys):
    monkeypatch.chdir(project)
    write(project, "10_demo", DRAWS)
    write(project, "11_broken", DRAWS, **broken)
    write(project, "12_once", DRAWS, profiles="PROFILES = dict(quick=dict(trials=1))")
    assert cli.main(["figures"]) == 2
    err = capsys.readouterr().err
    assert "nbs/11_broken.ipynb" in err and says in err and err.count("\n") == 1
    assert cli.main(["figures", "10", "12", "--seeds", "7", "--dry-run"]) == 0  # the sound ones can be run
    assert [line.split()[4] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "7",
        "-",
    ]  # one knows no seeds
    assert cli.main(["figures", "12", "--seeds", "7"]) == 2
    assert cli.main(["list"]) == 0


def test_a_missing_profile_is_no_failure(still):
    result = run(still, "figures", "10", "--profile", "cpu")
    assert result.returncode == 0 and "no cpu profile" in result.stdout
    listed = run(still, "list").stdout
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in listed.splitlines()}
    assert rows["10_demo"] == "figures Title of 10_demo smoke, quick (1 min), paper"
    assert rows["00_library"].startswith("library ") and "_scratch" not in rows


@pytest.mark.skipif(sys.platform == "darwin", reason="a Mac has an mps device")
def test_a_device_that_is_not_there(still):
    result = run(still, "figures", "--device", "mps")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1) and "no mps device" in result.stderr


def test_figures_folder_that_cannot_be_written(project):
    write(project, "10_demo", DRAWS)
    (project / "figures").write_text("in the way")  # permissions do not stop root
    result = run(project, "figures")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1) and "figures" in result.stderr


def test_outside_a_checkout(tmp_path):
    "As installed from a wheel: the package alone, no notebooks above it."
    package = tmp_path / "site" / "nas_nb"
    package.mkdir(parents=True)
    for name in (
        "__init__.py",
        "core.py",
        "bits.py",
        "cli.py",
        "compare.py",
        "jobs.py",
        "notebooks.py",
        "report.py",
        "search_command.py",
    ):
        shutil.copy(Path(cli.__file__).parent / name, package)
    result = run(tmp_path, "figures", PYTHONPATH=str(package.parent))
    assert (result.returncode, result.stderr.count("\n")) == (
        2,
        1,
    ) and "clone the project's repository" in result.stderr
    assert run(tmp_path, "--help", PYTHONPATH=str(package.parent)).returncode == 0


def test_every_example_of_the_help_is_a_command_that_works(monkeypatch, capsys, tmp_path):
    "On the real project, without executing anything."
    monkeypatch.chdir(root())
    lines = [line.split("  ")[1] for line in cli.EXAMPLES.splitlines() if line.startswith("  nas-nb")]
    assert len(lines) >= 6
    for line in lines:
        words = line.removeprefix("nas-nb").split()
        if words[0] == "figures" and "--dry-run" not in words:
            words.append("--dry-run")
        if words[:2] == ["runs", "rm"]:
            words = ["runs", "list", *words[2:]]  # the same selection, nothing removed
        if words[0] == "search":
            tiny = "--space nb201 --channels 2 --cells 1 --side 4 --steps 2,2,1 --out"
            words = [*words[:2], *tiny.split(), str(tmp_path / "out")]
        status, (_, err) = cli.main(words), capsys.readouterr()
        missing = words[0] == "runs" and "unknown document" in err  # nothing of it was computed here
        assert status == 0 or missing, (line, err)


@pytest.mark.parametrize(
    "pair, says",
    [
        ("trials=0", "a whole number above 0, such as 8"),
        ("trials=-5", "a whole number above 0"),
        ("eps=nan", "a finite number above 0, such as 0.5"),
        ("eps=inf", "a finite number above 0"),
        ("eps=0", "a finite number above 0"),
        ("first=-1", "a whole number of at least 0, such as 0"),
        ("rates=0", r"separated by commas, each a finite number above 0, such as \(0.1, 1\)"),
        ("none=1", "empty in every profile"),
    ],
)
def test_values_out_of_range_are_refused_before_anything_starts(pair, says):
    profiles = dict(paper=dict(trials=8, eps=0.5, first=0, rates=(0.1, 1), none=()), quick=dict(rates=()))
    nb = notebooks.Notebook("10_demo", "Demo", (), True, profiles, {}, "")
    with pytest.raises(notebooks.Refused, match=says):
        notebooks.overrides([pair], [nb], "quick")
    with pytest.raises(ValueError, match=says):
        resolve(profiles, "quick", pair)


def test_the_items_of_an_empty_list_are_like_those_of_a_larger_profile():
    "For the command line and for the notebook."
    profiles = dict(paper=dict(rates=(0.1, 1)), quick=dict(rates=()))
    nb = notebooks.Notebook("10_demo", "Demo", (), True, profiles, {}, "")
    assert notebooks.overrides(["rates=2,0.5"], [nb], "quick") == {"10_demo": "rates=2,0.5"}
    assert (
        resolve(profiles, "quick", "rates=2,0.5")["rates"] == (2.0, 0.5)
        and resolve(profiles, "quick")["rates"] == ()
    )


def test_seeds_given_twice_are_refused():
    run = subprocess.run(
        [sys.executable, "-m", "nas_nb.cli", "figures", "51", "--seeds", "3", "--set", "seeds=4", "--dry-run"],
        cwd=root(), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "give one" in run.stderr


def test_a_folder_that_was_removed_is_named(tmp_path):
    gone = tmp_path / "gone"
    for words in (["list"], ["data", "list"]):
        gone.mkdir()
        code = f"import os, sys, nas_nb.cli as b; os.rmdir({str(gone)!r}); sys.exit(b.main({words}))"
        result = subprocess.run([sys.executable, "-c", code], cwd=gone, capture_output=True, text=True)
        assert (result.returncode, result.stderr) == (
            2,
            "nas-nb: the current folder has been removed: change to one that is there\n",
        )


@pytest.mark.parametrize(
    "error, code",
    [
        (KeyError("x"), 70),
        (RecursionError("deep"), 1),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), 1),
        (OSError(28, "No space", "f"), 1),
        (MemoryError(), 1),
    ],
)
def test_every_error_is_one_line(still, monkeypatch, capsys, error, code, tmp_path):
    def fail(args):
        raise error

    monkeypatch.chdir(still)
    monkeypatch.setattr(cli, "show_list", fail)
    monkeypatch.setattr(cli.tempfile, "tempdir", str(tmp_path))
    assert cli.main(["list"]) == code
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("nas-nb: ") and "Traceback" not in err
    if code == 70:
        [written] = tmp_path.iterdir()
        assert str(written) in err and "KeyError" in err and "Traceback" in written.read_text()


@pytest.mark.parametrize("words", ["list", "figures --dry-run"])
def test_output_that_cannot_be_written(still, words):
    for ending, code in (">/dev/full", 1), (">&-", 0), ("2>&-", 0):
        line = f"{sys.executable} -m nas_nb.cli {words} {ending}"
        result = subprocess.run(line, shell=True, cwd=still, capture_output=True, text=True)
        assert result.returncode == code and result.stderr.count("\n") == (code == 1), (line, result.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ["--jobs", "٣"],
        ["--jobs", "9" * 20],
        ["--time-limit", "٣m"],
        ["--time-limit", "9" * 12 + "h"],
        ["--time-limit", "nan"],
        ["--seeds", "1_0"],
        ["--set", "trials=٣"],
        ["--set", "f=٠.٥"],
        ["--device", "cuda:٠"],
        ["--device", "cuda:"],
    ],
)
def test_odd_numbers_are_refused(still, words, monkeypatch, capfd):
    monkeypatch.chdir(still)
    assert cli.main(["figures", "--dry-run", *words]) == 2
    assert capfd.readouterr().err.count("\n") == 1
