"""The command line `nas-nb`, driven as a user would: by subprocess, in throw-away projects of tiny notebooks."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest

import nas_nb.batch as batch
from nas_nb.core import root

PARAMETERS = 'profile: str = "quick"\nseeds: int = 0\ndevice: str = "auto"\noverrides: str = ""'
PROFILES = "PROFILES = dict(paper=dict(trials=100, rate=0.5, f=(0, 0.5), plain=False, seeds=5), quick=dict(trials=8), smoke=dict(trials=1))"
HEADER = """import json, os, time
from pathlib import Path
out = Path("figures", profile, "{id}")
def save_fig(name, text):
    (out / f"{{name}}.csv").write_text(text)
def report(*figures, computed=0, reused=0):
    (out / "report.json").write_text(json.dumps(dict(runs=dict(computed=computed, reused=reused, committed=0), figures=figures)))"""
DRAWS = 'save_fig("loss", f"seeds,overrides\\n{seeds},{overrides}\\n")\nreport("loss", computed=1)'


def write(project: Path, id: str, *code: str, parameters=PARAMETERS, tag="parameters", profiles=PROFILES):
    "Write a notebook `id` whose last cells are `code`."
    sources = [f"#| export\n{profiles}\nEXPECTED = dict(quick='1 min')", parameters, HEADER.format(id=id), *code]
    cells = [dict(cell_type="markdown", id="title", metadata={}, source=f"# Title of {id}\n\n> About it")]
    cells += [dict(cell_type="code", id=f"c{i}", metadata={}, outputs=[], execution_count=None, source=s) for i, s in enumerate(sources)]
    cells[2]["metadata"] = dict(tags=[tag])
    path = project / "nbs" / f"{id}.ipynb"
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    return path


def command(*words):
    return [sys.executable, "-m", "nas_nb.batch", *map(str, words)]


def run(project: Path, *words, **env):
    return subprocess.run(command(*words), cwd=project, env=os.environ | env, capture_output=True, text=True, timeout=60)


def status(result, id: str) -> str:
    "The second column of the final table."
    rows = [line.split() for line in result.stdout.partition("peak memory")[2].splitlines()]
    return next(row[1] for row in rows if row and row[0] == id)


def copy_of(project: Path, id: str) -> str:
    return (project / "figures" / "quick" / id / f"{id}.ipynb").read_text()


@pytest.fixture
def project(tmp_path):
    (tmp_path / "settings.ini").touch()
    (tmp_path / "nbs").mkdir()
    return tmp_path


def test_ok_then_cached_then_changed(project):
    nb = write(project, "10_demo", DRAWS)
    csv = project / "figures/quick/10_demo/loss.csv"

    spec = project / "jupyter" / "kernels" / "python3" / "kernel.json"  # of another Python: must not be used
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(dict(argv=["/bin/false"], display_name="other", language="python")))
    first = run(project, "figures", "--seeds", 3, "--set", "trials=9", "--set", "f=1,0.5", JUPYTER_PATH=str(spec.parents[2]))
    assert (first.returncode, first.stderr, status(first, "10_demo")) == (0, "", "ok")
    assert csv.read_text() == 'seeds,overrides\n3,trials=9 f=1,0.5\n'
    assert "figures/quick/10_demo/loss  new" in first.stdout
    assert json.loads(copy_of(project, "10_demo"))["cells"][3]["metadata"]["tags"] == ["injected-parameters"]  # after the tagged cell

    cells = json.loads(nb.read_text())
    cells["cells"][0]["source"] = "# Another title"  # text is no reason to run again
    nb.write_text(json.dumps(cells))
    again = run(project, "figures", "--seeds", 3, "--set", "trials=9", "--set", "f=1,0.5")
    assert (again.returncode, status(again, "10_demo")) == (0, "cached")

    other = run(project, "figures", "--seeds", 4)  # a lost tag would give the defaults both times
    assert (status(other, "10_demo"), csv.read_text()) == ("ok", "seeds,overrides\n4,\n")

    plan = lambda *words: run(project, "figures", "--dry-run", "--seeds", 4, *words).stdout
    assert "cached" in plan() and "would run" in plan("--force") and "would run" in plan("--profile", "smoke")
    csv.write_text("tampered")
    assert "would run" in plan()
    assert not (project / "figures/smoke").exists()


def test_one_failure_leaves_the_others_alone(project):
    write(project, "10_bad", 'print("so far")', 'raise ValueError("boom\\nand more")', DRAWS.replace("loss", "never"))
    write(project, "11_dead", DRAWS, "os._exit(9)")
    write(project, "12_found", DRAWS.replace("computed=1", "reused=2"))
    result = run(project, "figures", "--jobs", 2)
    assert result.returncode == 1 and "Traceback" not in result.stdout + result.stderr
    assert [status(result, i) for i in ("10_bad", "11_dead", "12_found")] == ["failed", "failed", "redrawn"]
    assert "failed: 10_bad: ValueError: boom (figures/quick/10_bad/10_bad.ipynb)" in result.stdout
    assert "failed: 11_dead: the kernel died" in result.stdout
    copy = copy_of(project, "10_bad")
    assert "so far" in copy and "ValueError" in copy


def test_time_limit(project):
    "One notebook stops at its checkpoint, one does not stop, one has not begun."
    write(project, "10_stops", "class OutOfTime(Exception): pass", "if 'NAS_NB_DEADLINE' in os.environ: raise OutOfTime()", DRAWS)
    write(project, "11_long", "time.sleep(60)", DRAWS)
    write(project, "12_next", "time.sleep(60)", DRAWS)
    write(project, "13_last", DRAWS)
    code = "import sys, nas_nb.batch as b; b.GRACE = 1; sys.exit(b.main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "figures", "--force", "--jobs", "2", "--time-limit", "4s"]
    result = subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=50)
    assert result.returncode == 3
    assert [status(result, i) for i in ("10_stops", "11_long", "12_next", "13_last")] == ["incomplete"] * 4
    assert "11_long  incomplete" in result.stdout and "did not stop within 1 s" in result.stdout
    assert "to go on: nas-nb figures --jobs 2 --time-limit 4s\n" in result.stdout  # --force would start over
    assert "OutOfTime" in copy_of(project, "10_stops") and not (project / "figures/quick/13_last/13_last.ipynb").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_kernel_survives(project, number):
    write(project, "10_sleep", DRAWS, 'Path("pid").write_text(str(os.getpid()))', "time.sleep(60)")
    awake = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test run in the background has it ignored
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    env = os.environ | dict(TMPDIR=str(project))  # a batch killed by SIGKILL cannot remove its scratch folder
    process = subprocess.Popen(command("figures"), cwd=project, env=env, preexec_fn=awake, **pipes)
    pid = wait_for(lambda: (project / "pid").exists() and (project / "pid").read_text())
    kernel = psutil.Process(int(pid))
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    wait_for(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE, 5)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "to go on: nas-nb figures\n" in output and "Traceback" not in output
        assert "KeyboardInterrupt" in copy_of(project, "10_sleep")


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


def test_a_kernel_that_does_not_start_is_tried_twice(project, monkeypatch):
    attempts = []

    class NotebookError(Exception):
        pass

    def execute(*args, on_cell_execute, **kwargs):
        attempts.append(args)
        if len(attempts) % 2:
            raise RuntimeError("Kernel died before replying to kernel_info")
        if len(attempts) == 4:
            on_cell_execute(cell={}, cell_index=0)
            raise RuntimeError("later")

    monkeypatch.setitem(sys.modules, "papermill", types.SimpleNamespace(execute_notebook=execute, PapermillExecutionError=NotebookError))
    job = dict(notebook=str(write(project, "10_demo", DRAWS)), copy="", parameters={}, cell=str(project / "cell"))
    assert batch._execute(job) == "" and len(attempts) == 2
    assert batch._execute(job) == "RuntimeError: later" and len(attempts) == 4
    assert (project / "cell").read_text() == "cell 1/5"


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    "A project for tests in which nothing is executed."
    project = tmp_path_factory.mktemp("still")
    (project / "settings.ini").touch()
    (project / "nbs").mkdir()
    write(project, "10_demo", DRAWS)
    write(project, "11_other", DRAWS)
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
        ("figures --set trials", "key=value"),
        ("figures --set trials=", "key=value"),
        ("figures --set trails=3", "did you mean 'trials'"),
        ("figures --set trials=1.5", "default 8"),
        ("figures --set plain=1", "true or false"),
        ("figures --set f=1;2", "commas"),
        ("figures --frobnicate", "--frobnicate"),
        ("figure", "figures"),
        ("", "figures|list|claims|runs"),
        ("claims --profile x", "known: smoke, quick, cpu, paper"),
        ("runs", "list|rm"),
        ("runs rm", "--all"),
        ("runs rm nokey", "unknown run"),
        ("runs list --document nodoc", "unknown document"),
    ],
)
def test_mistakes_get_one_line(still, words, says, monkeypatch, capfd):
    monkeypatch.chdir(still)
    assert batch.main(words.split()) == 2
    out, err = capfd.readouterr()
    assert says in err and err.count("\n") == 1 and out == ""
    assert not (still / "figures").exists()


def test_mistakes_and_help_are_cheap(still):
    "What makes an answer slow is an import; through the real process once, for the exit status and the missing traceback."
    code = (
        "import sys, nas_nb.batch as b\n"
        "try: status = b.main(sys.argv[1:])\n"
        "except SystemExit as e: status = e.code\n"
        "print('heavy', {'torch', 'papermill', 'pandas', 'numpy', 'matplotlib', 'tqdm'} & set(sys.modules)); sys.exit(status)"
    )
    for words, expected in ("--help", 0), ("figures --help", 0), ("figures 99", 2), ("figures --dry-run", 0), ("list", 0):
        result = subprocess.run([sys.executable, "-c", code, *words.split()], cwd=still, capture_output=True, text=True)
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
    assert batch.main(["figures"]) == 2
    err = capsys.readouterr().err
    assert "nbs/11_broken.ipynb" in err and says in err and err.count("\n") == 1
    assert batch.main(["figures", "10", "12", "--seeds", "7", "--dry-run"]) == 0  # the sound ones can be run
    assert [line.split()[4] for line in capsys.readouterr().out.splitlines()[1:]] == ["7", "0"]  # one knows no seeds
    assert batch.main(["figures", "12", "--seeds", "7"]) == 2
    assert batch.main(["list"]) == 0


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
    for name in ("__init__.py", "core.py", "batch.py"):
        shutil.copy(Path(batch.__file__).parent / name, package)
    result = run(tmp_path, "figures", PYTHONPATH=str(package.parent))
    assert (result.returncode, result.stderr.count("\n")) == (2, 1) and "clone the project's repository" in result.stderr
    assert run(tmp_path, "--help", PYTHONPATH=str(package.parent)).returncode == 0


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


def test_comparison_with_git(project, monkeypatch):
    git = lambda *words: subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=n@example.invalid", *words], cwd=project, check=True)
    write(project, "10_demo", f"for name, text in {NOW!r}.items(): save_fig(name, text)", f"report(*{list(NOW)!r}, computed=1)")
    out = project / "figures/quick/10_demo"
    out.mkdir(parents=True)
    for name, text in COMMITTED.items():
        (out / f"{name}.csv").write_text(text)
    (out / "claims.csv").write_text("claim,verdict\nc1,reproduced\nc2,reproduced\n")
    git("init", "-q"), git("add", "-A"), git("commit", "-qm", "all")
    result = run(project, "figures")
    found = {Path(line.split()[0]).name: line.split(maxsplit=1)[1] for line in result.stdout.splitlines() if line.startswith("figures/")}
    assert found == dict(same="identical", near="within tolerance", far="different", exact="different", text="different", fresh="new")
    assert "2 reproduced" in result.stdout

    # a claim that changed its verdict makes a figure within tolerance a different one
    job = batch.Job(batch.Notebook("10_demo", "", (), True, {}, {}, ""), "quick", {}, status="cached")
    monkeypatch.chdir(project)
    job.before = batch.committed(job.folder)
    (out / "claims.csv").write_text("claim,verdict\nc1,reproduced\nc2,inconclusive\n")
    text = batch.report([job])
    assert "near   different" in text and "same   identical" in text and "1 reproduced, 1 inconclusive" in text


@pytest.mark.parametrize("old, new, expected", [
    ("x,y\n1,inf\n", "x,y\n1,inf\n", "identical"),
    ("x,y\n1,inf\n", "x,y\n1.0,inf\n", "within tolerance"),
    ("x,y\n1,inf\n", "x,y\n1,5\n", "different"),
    ("x,y,y_sd\n1,inf,inf\n", "x,y,y_sd\n1,5,1\n", "different"),
    ("x,y,y_sd\n1,4,\n", "x,y,y_sd\n1,5,\n", "different"),
    ("x,y\n1,5\n", "x,y\n1,5.000001\n", "within tolerance"),
    ("x,y\n1,5\n", "x,y\n1,\n", "different"),
    ("x,y\n1,5\n", "x,z\n1,5\n", "different"),
    ("x\n", "y\n", "different"),
    ("x,y\n1,5\n", "x,y\n1,5\n2,5\n", "different"),
])
def test_compare(old, new, expected):
    assert batch.compare(old, new) == expected


def test_claims_and_runs(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    for profile in ("quick", "paper"):
        folder = project / "figures" / profile / "10_demo"
        folder.mkdir(parents=True)
        (folder / "claims.csv").write_text(f"claim,source,document,ours,verdict\nit works,sec. 2,0.5,0.4,seen on {profile}\n")
    assert batch.main(["claims"]) == 0
    out = capsys.readouterr().out
    assert "seen on quick" in out and "seen on paper" in out
    assert batch.main(["claims", "--profile", "paper"]) == 0
    assert "seen on quick" not in capsys.readouterr().out

    runs = project / "data" / "runs"
    for document, key, file in ("asng", "aa11", "record.json"), ("asng", "bb22", "checkpoint.pt"), ("tdga", "cc33", "record.json"):
        (runs / document / key).mkdir(parents=True)
        (runs / document / key / file).write_text(json.dumps(dict(document=document, label="f=0.5", seed=7)))
    assert batch.main(["runs", "list", "--document", "asng"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [line[:5] for line in lines] == [["asng", "aa11", "f=0.5", "7", "done"], ["asng", "bb22", "-", "-", "checkpoint"]]
    assert batch.main(["runs", "rm", "aa"]) == 0
    assert sorted(p.name for p in runs.glob("*/*")) == ["bb22", "cc33"]
    assert batch.main(["runs", "rm", "--document", "asng"]) == 0 and batch.main(["runs", "rm", "--all"]) == 0
    assert not list(runs.glob("*/*"))


def test_every_example_of_the_help_is_a_command_that_works():
    "On the real project, without executing anything."
    lines = [line.split("  ")[1] for line in batch.EXAMPLES.splitlines() if line.startswith("  nas-nb")]
    assert len(lines) >= 6
    for line in lines:
        words = line.removeprefix("nas-nb").split()
        if words[0] == "figures" and "--dry-run" not in words:
            words.append("--dry-run")
        if words[:2] == ["runs", "rm"]:
            words = ["runs", "list", *words[2:]]  # the same selection, nothing removed
        run = subprocess.run([sys.executable, "-m", "nas_nb.batch", *words], cwd=root(), capture_output=True, text=True)
        missing = words[0] == "runs" and "unknown document" in run.stderr and "known: none" in run.stderr
        assert run.returncode == 0 or missing, (line, run.stderr)
        assert "Traceback" not in run.stderr


@pytest.mark.parametrize("pair", ["trials=0", "trials=-5", "eps=nan", "eps=inf", "eps=0"])
def test_values_out_of_range_are_refused_before_anything_starts(pair):
    nb = batch.Notebook("10_demo", "Demo", (), True, dict(quick=dict(trials=8, eps=0.5)), {}, "")
    with pytest.raises(batch.Refused, match="type and sign"):
        batch.overrides([pair], [nb], "quick")


def test_seeds_given_twice_are_refused():
    run = subprocess.run(
        [sys.executable, "-m", "nas_nb.batch", "figures", "51", "--seeds", "3", "--set", "seeds=4", "--dry-run"],
        cwd=root(), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2 and run.stderr.count("\n") == 1 and "give one" in run.stderr
