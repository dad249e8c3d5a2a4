"""The command line `nas-nb`, driven as a user would: by subprocess, in throw-away projects of tiny
notebooks."""

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from nas_nb import cli, compare, jobs, notebooks, report
from nas_nb.core import resolve, root
from nas_nb.files import run_lock

OURS = "[DEFAULT]\nlib_name = nas_nb\n"  # the `settings.ini` of a project of ours
PARAMETERS = 'profile: str = "quick"\nseeds: int = 0\ndevice: str = "auto"\noverrides: str = ""'
PROFILES = "PROFILES = dict(paper=dict(trials=100, rate=0.5, f=(0, 0.5), plain=False, seeds=5), quick=dict(trials=8), smoke=dict(trials=1))"
HEADER = """import json, os, time
from pathlib import Path
out = Path("" if os.environ.get("NAS_NB_FIGURES") == "committed" else "data", "figures", profile, "{id}")  # as `Study` does
def save_fig(name, text):
    (out / f"{{name}}.csv").write_text(text)
def report(*figures, computed=0, reused=0):
    (out / "report.json").write_text(json.dumps(dict(runs=dict(computed=computed, reused=reused, committed=0), figures=figures)))"""
DRAWS = 'save_fig("loss", f"seeds,overrides\\n{seeds},{overrides}\\n")\nreport("loss", computed=1)'


def write(project: Path, id: str, *code: str, parameters=PARAMETERS, tag="parameters", profiles=PROFILES):
    "Write a notebook `id` whose last cells are `code`."
    sources = [
        f"#| export\n{profiles}\nEXPECTED = dict(quick='1 min')",
        parameters,
        HEADER.format(id=id),
        *code,
    ]
    cells = [dict(cell_type="markdown", id="title", metadata={}, source=f"# Title of {id}\n\n> About it")]
    cells += [
        dict(cell_type="code", id=f"c{i}", metadata={}, outputs=[], execution_count=None, source=s)
        for i, s in enumerate(sources)
    ]
    cells[2]["metadata"] = dict(tags=[tag])
    path = project / "nbs" / f"{id}.ipynb"
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    return path


def command(*words):
    return [sys.executable, "-m", "nas_nb.cli", *map(str, words)]


def run(project: Path, *words, **env):
    return subprocess.run(
        command(*words), cwd=project, env=os.environ | env, capture_output=True, text=True, timeout=300
    )


def status(result, id: str) -> str:
    "The second column of the final table."
    rows = [line.split() for line in result.stdout.partition("peak memory")[2].splitlines()]
    return next(row[1] for row in rows if row and row[0] == id)


def copy_of(project: Path, id: str) -> str:
    return (project / "figures" / "quick" / id / f"{id}.ipynb").read_text()


@pytest.fixture
def project(tmp_path):
    (tmp_path / "settings.ini").write_text(OURS)
    (tmp_path / "nbs").mkdir()
    return tmp_path


def test_ok_then_cached_then_changed(project):
    nb = write(project, "10_demo", DRAWS)
    csv = project / "data/figures/quick/10_demo/loss.csv"

    spec = project / "jupyter" / "kernels" / "python3" / "kernel.json"  # of another Python: must not be used
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps(dict(argv=["/bin/false"], display_name="other", language="python")))
    first = run(
        project,
        "figures",
        "--seeds",
        3,
        "--set",
        "trials=9",
        "--set",
        "f=1,0.5",
        JUPYTER_PATH=str(spec.parents[2]),
    )
    assert (first.returncode, first.stderr, status(first, "10_demo")) == (0, "", "ok")
    assert csv.read_text() == "seeds,overrides\n3,trials=9 f=1,0.5\n"
    assert "data/figures/quick/10_demo/loss  new" in first.stdout and "changed settings" in first.stdout
    assert json.loads(copy_of(project / "data", "10_demo"))["cells"][3]["metadata"]["tags"] == [
        "injected-parameters"
    ]  # after the tagged cell

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


def test_other_data_are_a_reason_to_run_again(project):
    write(project, "10_data", "load_images = len", DRAWS)
    write(project, "11_none", DRAWS)
    raw, elsewhere = project / "data" / "MNIST" / "raw", project / "elsewhere"
    raw.mkdir(parents=True)
    (raw / "images").write_text("one")
    elsewhere.mkdir()
    assert run(project, "figures").returncode == 0

    def planned(**env):
        rows = [
            line.split("  ") for line in run(project, "figures", "--dry-run", **env).stdout.splitlines()[1:]
        ]
        return {row[0]: row[1].strip() for row in rows}

    fresh, stale = {"10_data": "cached", "11_none": "cached"}, {"10_data": "would run", "11_none": "cached"}
    for name in ("cache/x.npz", "runs/x/record.json", "locks/x", ".new.lock", "README.md"):  # not data
        path = project / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (project / "data" / "nowhere").symlink_to("gone")
    assert planned() == fresh
    assert planned(NAS_NB_DATA=str(elsewhere)) == stale  # may hold another set of that name, some day
    before = (raw / "images").stat().st_mtime_ns
    (raw / "images").write_text("two")
    os.utime(raw / "images", ns=(before, before + 1_000_000))
    assert planned() == stale
    (raw / "images").write_text("one")
    os.utime(raw / "images", ns=(before, before))
    assert planned() == fresh
    (project / "data" / "own").mkdir()
    assert planned() == stale
    inside = run(project, "figures", NAS_NB_DATA="elsewhere")
    assert (status(inside, "10_data"), status(inside, "11_none")) == ("ok", "cached")
    assert planned(NAS_NB_DATA="elsewhere") == fresh
    (elsewhere / "own.npz").write_text("one")
    assert planned(NAS_NB_DATA="elsewhere") == stale


def test_one_failure_leaves_the_others_alone(project):
    write(
        project,
        "10_bad",
        'print("so far")',
        'raise ValueError("boom\\nand more")',
        DRAWS.replace("loss", "never"),
    )
    write(project, "11_dead", DRAWS, "os._exit(9)")
    write(project, "12_found", DRAWS.replace("computed=1", "reused=2"))
    result = run(project, "figures", "--jobs", 2)
    assert result.returncode == 1 and "Traceback" not in result.stdout + result.stderr
    assert [status(result, i) for i in ("10_bad", "11_dead", "12_found")] == ["failed", "failed", "redrawn"]
    assert "failed: 10_bad: ValueError: boom (figures/quick/10_bad/10_bad.ipynb)" in result.stdout
    assert "failed: 11_dead: the kernel ended itself with exit status 9, in cell 6/6" in result.stdout
    copy = copy_of(project, "10_bad")
    assert "so far" in copy and "ValueError" in copy


def test_time_limit(project):
    "One notebook stops at its checkpoint, one does not stop, one has not begun."
    write(
        project,
        "10_stops",
        "class OutOfTime(Exception): pass",
        "if 'NAS_NB_DEADLINE' in os.environ: raise OutOfTime()",
        DRAWS,
    )
    write(project, "11_long", "time.sleep(60)", DRAWS)
    write(project, "12_next", "time.sleep(60)", DRAWS)
    write(project, "13_last", DRAWS)
    code = "import sys, nas_nb.cli as b, nas_nb.jobs as j; j.GRACE = 1; sys.exit(b.main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "figures", "--force", "--jobs", "2", "--time-limit", "4s"]
    result = subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=50)
    assert result.returncode == 3
    assert [status(result, i) for i in ("10_stops", "11_long", "12_next", "13_last")] == ["incomplete"] * 4
    assert (
        "11_long  incomplete" in result.stdout
        and "did not stop within 1 s after the time limit: cell 5/6 (c3)" in result.stdout
    )
    assert "to go on: nas-nb figures --jobs 2 --time-limit 4s\n" in result.stdout  # --force would start over
    assert (
        "OutOfTime" in copy_of(project, "10_stops")
        and not (project / "figures/quick/13_last/13_last.ipynb").exists()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_kernel_survives(project, number):
    write(project, "10_sleep", DRAWS, 'Path("pid").write_text(str(os.getpid()))', "time.sleep(60)")
    awake = lambda: signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a test run in the background has it ignored
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


def test_a_notebook_that_hangs_is_ended_and_the_others_run(project):
    "Once in a cell that can be interrupted, once in one that hears no signal."
    hangs = 'print("so", "far", flush=True)\nPath(f"pid-{{os.getpid()}}").touch()\n{}\ntime.sleep(100)'
    write(project, "10_hangs", DRAWS, hangs.format(""))
    write(
        project,
        "11_deaf",
        DRAWS,
        hangs.format(
            "import signal, subprocess; signal.signal(signal.SIGINT, signal.SIG_IGN)\nsubprocess.Popen(['sleep', '101'])"
        ),
    )
    write(project, "12_fine", DRAWS)
    began = time.monotonic()
    result = run(project, "figures", "--jobs", 2, "--notebook-limit", 6)
    assert result.returncode == 1 and time.monotonic() - began < 80
    assert [status(result, i) for i in ("10_hangs", "11_deaf", "12_fine")] == ["failed", "failed", "ok"]
    for id in ("10_hangs", "11_deaf"):
        assert re.search(
            rf"failed: {id}: still in cell 6/6 \(c4\) after \d+ s, .*--notebook-limit.* \(figures/quick/{id}/{id}.ipynb\)",
            result.stdout,
        )
        assert "so far" in copy_of(project, id)
    assert (
        "KeyboardInterrupt" in copy_of(project, "10_hangs")
        and "Traceback" not in result.stdout + result.stderr
    )
    assert len(pids := list(project.glob("pid-*"))) == 2 and not any(
        psutil.pid_exists(int(p.name[4:])) for p in pids
    )
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["sleep", "101"]
    ]  # the child of the deaf one


def test_limits_of_a_notebook():
    args = lambda *words: cli.prepare(cli.parser().parse_args(["figures", "51", *words]))[0].limit
    assert args() == 1800 and args("--profile", "smoke") == 600 and args("--profile", "paper") == float("inf")
    assert args("--notebook-limit", "1m") == args("--profile", "paper", "--notebook-limit", "1m") == 60


DEATHS = dict(
    killed=(
        "data = b'x' * 2**28\nos.kill(os.getpid(), 9)",
        r"the kernel was killed \(signal 9\), probably out of memory after it had held (\d+) MiB: .*--jobs 1",
    ),
    crashed=(
        "import ctypes; ctypes.string_at(0)",
        r"the kernel died of signal 11 \(Segmentation fault\), in cell 6/6 \(c4\)",
    ),
    left=("os._exit(3)", r"the kernel ended itself with exit status 3, in cell 6/6"),
    large=("bytearray(10**15)", r"out of memory \(MemoryError: .*--jobs 1"),
    tensor=(
        "import torch; torch.empty(10**15)",
        r"out of memory \(RuntimeError: .*allocate memory.*--jobs 1",
    ),
)


def test_why_a_kernel_died(project):
    for i, (name, (code, _)) in enumerate(DEATHS.items()):
        write(project, f"1{i}_{name}", DRAWS, code)
    result = run(project, "figures", "--jobs", 2)
    assert result.returncode == 1 and "Traceback" not in result.stdout + result.stderr
    for i, (name, (_, why)) in enumerate(DEATHS.items()):
        assert (match := re.search(f"failed: 1{i}_{name}: {why}", result.stdout)), (name, result.stdout)
        assert name != "killed" or int(match[1]) > 256
        assert (project / f"figures/quick/1{i}_{name}/1{i}_{name}.ipynb").is_file()


COMPUTES = """import torch
from nas_nb.study import Study

def compute(trials, seed, device, ckpt):
    "Two operations whose last bits depend on the number of threads."
    g = torch.Generator().manual_seed(seed)
    v, images = torch.randn(1_000_000, generator=g), torch.randn(16, 8, 16, 16, generator=g)
    kernel = torch.randn(8, 8, 3, 3, generator=g, requires_grad=True)
    loss = torch.nn.functional.conv2d(images, kernel).square().sum()
    return dict(dot=float(v @ v), grad=float(torch.autograd.grad(loss, kernel)[0].sum()))

study = Study("{id}", PROFILES, profile, seeds, device, overrides)
rows = [study.run(compute, "x", seed, trials=study.cfg.trials)["result"] for seed in range(3)]
save_fig("loss", "dot,grad\\n" + "".join(f"{{r['dot']!r}},{{r['grad']!r}}\\n" for r in rows))
study.figures.append("loss")
study.report()"""


def test_the_number_of_jobs_changes_no_bit(tmp_path):
    "Even where the machine suggests other numbers of threads."
    found = []
    for at_once in (1, 2):
        project = tmp_path / str(at_once)
        (project / "nbs").mkdir(parents=True)
        (project / "settings.ini").write_text(OURS)
        for id in ("10_a", "11_b"):
            write(project, id, COMPUTES.format(id=id))
        result = run(project, "figures", "--jobs", at_once, OMP_NUM_THREADS=str(at_once))
        assert result.returncode == 0, result.stdout
        records = [json.loads(p.read_text()) for p in sorted(project.glob("data/runs/*/*/record.json"))]
        assert len(records) == 6 and all(r.pop("run") for r in records)
        found.append((records, [p.read_bytes() for p in sorted(project.glob("figures/quick/*/*.csv"))]))
    assert found[0] == found[1]


def test_sixteen_notebooks_leak_nothing(project):
    """Neither processes nor files nor, in the batch itself, open files: enough notebooks to see a file that
    every fifth leaves open."""
    # the least of several looks: while the batch starts the next process, it holds a pipe to it
    count = (
        "batch = psutil.Process(os.getppid()).parent()\n"
        "seen = [batch.num_fds() for _ in range(10) if time.sleep(0.02) is None]\n"
        'save_fig("fds", str(min(seen)))\nreport("fds")'
    )
    for i in range(16):
        write(project, f"{i:02}_tiny", "import psutil, time", count)
    temporary, home = project / "tmp", project / "home"
    temporary.mkdir(), home.mkdir()
    began, mark, cpu = time.monotonic(), f"sixteen-{os.getpid()}", sum(os.times()[2:4])
    result = run(project, "figures", "--jobs", 2, TMPDIR=str(temporary), HOME=str(home), NAS_NB_MARK=mark)
    seconds, cpu = time.monotonic() - began, sum(os.times()[2:4]) - cpu
    print(f"{seconds / 16:.2f} s for each of sixteen notebooks, two at a time; {cpu / 16:.2f} s of a core")
    assert result.returncode == 0 and result.stdout.count("  ok") == 32  # as it goes, and in the table
    assert not list(temporary.iterdir()) and not list(home.rglob("*.json"))
    assert not list(project.rglob("*.lock")) and not list(project.rglob("*.part"))
    assert not [
        p for p in psutil.process_iter(["environ"]) if (p.info["environ"] or {}).get("NAS_NB_MARK") == mark
    ]
    fds = [int(p.read_text()) for p in sorted(project.glob("figures/quick/*/fds.csv"))]
    assert len(fds) == 16 and max(fds[10:]) <= max(fds[:4])
    assert (
        cpu / 16 < 4
    )  # 2.1 measured, 1.6 of it imports of papermill and the kernel; 4.6 with what the worker leaves out


@pytest.fixture
def start(project):
    "Start a batch of which to see what it says, before it ends."
    started = []

    def start(*words, **env):
        awake = lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        )  # a test run in the background has it ignored
        out = open(project / f"said-{len(started)}", "w+")
        started.append(
            subprocess.Popen(
                command(*words), cwd=project, env=os.environ | env, preexec_fn=awake, stdout=out, stderr=out
            )
        )
        return started[-1], out

    yield start
    for process in started:
        process.terminate()
        process.wait()


def said(out) -> str:
    out.seek(0)
    return out.read()


def test_two_batches_run_a_notebook_once(project, start):
    "The second takes what is free, waits for the rest, and finds it cached."
    write(
        project,
        "10_slow",
        'Path(f"ran-{os.getpid()}").touch()\nwhile not Path("go").exists(): time.sleep(0.05)',
        DRAWS,
    )
    write(project, "11_other", DRAWS)
    first, _ = start("figures", "10")
    wait_for(lambda: list(project.glob("ran-*")))
    second, two = start("figures", "10", "11")
    wait_for(lambda: "11_other  ok" in said(two))
    assert (
        f"10_slow  waits for process {first.pid} on {platform.node()}, which runs it in profile quick\n"
        in said(two)
    )
    assert said(two).count("waits") == 1 and second.poll() is None
    stopped, three = start("figures", "10", "--time-limit", "1h")
    wait_for(lambda: "waits" in said(three))
    stopped.send_signal(signal.SIGINT)
    assert stopped.wait(10) == 130 and "Traceback" not in said(three)
    late = run(project, "figures", "10", "--time-limit", "1")
    assert late.returncode == 3 and status(late, "10_slow") == "incomplete"
    (project / "go").touch()
    assert (first.wait(30), second.wait(30)) == (0, 0)
    assert len(list(project.glob("ran-*"))) == 1
    assert [line.split()[1] for line in said(two).splitlines() if line.startswith("10_slow ")] == [
        "waits",
        "cached",
    ]
    assert not list(project.rglob("*.lock"))


def test_a_batch_that_was_killed_keeps_nobody_waiting(project, start):
    write(
        project,
        "10_slow",
        'Path(f"ran-{os.getpid()}").touch()\nwhile not Path("go").exists(): time.sleep(0.05)',
        DRAWS,
    )
    first, _ = start("figures", "10", TMPDIR=str(project))
    wait_for(lambda: list(project.glob("ran-*")))
    first.kill()
    first.wait()
    (project / "figures/quick/10_slow/.loss.csv.abcd1234.part").touch()
    (project / "go").touch()
    again = run(project, "figures", "10")
    assert (again.returncode, status(again, "10_slow")) == (0, "ok") and "waits" not in again.stdout
    assert not list(project.rglob("*.part")) and not list(project.rglob("*.lock"))


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

    monkeypatch.setitem(
        sys.modules,
        "papermill",
        types.SimpleNamespace(execute_notebook=execute, PapermillExecutionError=NotebookError),
    )
    job = dict(
        notebook=str(write(project, "10_demo", DRAWS)), copy="", parameters={}, cell=str(project / "cell")
    )
    assert jobs._execute(job) == "" and len(attempts) == 2
    assert jobs._execute(job) == "RuntimeError: later" and len(attempts) == 4
    assert (project / "cell").read_text() == "cell 1/5"


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
    ):
        shutil.copy(Path(cli.__file__).parent / name, package)
    result = run(tmp_path, "figures", PYTHONPATH=str(package.parent))
    assert (result.returncode, result.stderr.count("\n")) == (
        2,
        1,
    ) and "clone the project's repository" in result.stderr
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
        "inconclusive: 1 of 6; at most one in ten is aimed at: does not hold",
        "open, and it is not said what would decide it: 1",
    ]


def test_claims_of_some_documents(judged, capsys):
    assert cli.main(["claims", "50", "--profile", "quick"]) == 0
    out = capsys.readouterr().out
    assert "seen at small scale" in out and "A beats" not in out and "interval" not in out
    assert "inconclusive: 0 of 1; at most one in ten is aimed at: holds" in out
    assert cli.main(["claims", "51", "50_o"]) == 0
    out = capsys.readouterr().out
    assert "A beats B" in out and "It is flat" in out
    for words, says in ((["5"], "could be any of 50_one, 51_two"), (["53"], "known: 50_one, 51_two")):
        assert cli.main(["claims", *words]) == 2
        out, err = capsys.readouterr()
        assert says in err and err.count("\n") == 1 and out == ""
    assert cli.main(["claims", "51", "--profile", "quick"]) == 2
    assert "known: 50_one" in capsys.readouterr().err


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


def test_every_example_of_the_help_is_a_command_that_works(monkeypatch, capsys):
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


# -- where results go --


def test_only_the_committed_settings_write_into_figures(project):
    write(project, "10_demo", DRAWS)
    asks = "load_images = None\n" + DRAWS  # what lies in data/figures is no data
    write(project, "11_data", asks)
    env = dict(NAS_NB_FIGURES="committed")  # of a surrounding run: must not reach what is changed
    assert run(project, "figures", "--set", "trials=9", **env).returncode == 0
    assert not (project / "figures").exists()
    drawn = project / "data" / "figures" / "quick" / "10_demo" / "loss.csv"
    assert drawn.read_text() == "seeds,overrides\n0,trials=9\n"
    same = run(
        project, "figures", "--set", "trials=8", "--seeds", "5"
    )  # the profile's own values, written out
    assert (
        project / "figures/quick/10_demo/loss.csv"
    ).read_text() == "seeds,overrides\n5,trials=8\n" and "changed" not in same.stdout
    plain = run(project, "figures")
    assert (
        project / "figures/quick/10_demo/loss.csv"
    ).read_text() == "seeds,overrides\n0,\n" and plain.returncode == 0
    again = run(project, "figures", "--set", "trials=9")
    assert [status(again, i) for i in ("10_demo", "11_data")] == [
        "cached",
        "cached",
    ] and "data/figures/" in again.stdout
    assert (
        run(project, "figures", "--profile", "smoke").returncode == 0
        and (project / "figures/smoke/10_demo/loss.csv").exists()
    )


def test_the_folder_of_another_project_is_not_taken(project):
    write(project, "10_demo", DRAWS)
    inside = project / "src"
    inside.mkdir()
    named = lambda name: f"[DEFAULT]\nrepo = {name}\nlib_name = %(repo)s\n".encode()
    foreign = (
        named("another"),
        b"",
        b"[DEFAULT]\n",
        b"[DEFAULT]\nrepo = nas_nb\n",
        b"[DEFAULT]\nlib_name =\n",
        b"lib_name = nas_nb\n",
        b"\xff",
    )
    for text, ours in ((named("nas_nb"), True), *((text, False) for text in foreign)):
        (project / "settings.ini").write_bytes(text)
        assert ("10_demo" in run(inside, "list").stdout) == ours, text  # else that of the package


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


# -- a user's own configuration --


HOSTILE = """text.usetex: True
savefig.bbox: tight
axes.facecolor: red
"""
DRAWN = """import torch, matplotlib.pyplot as plt, tqdm
fig, ax = plt.subplots()
ax.plot(torch.tensor([0.1, 0.2]).cumsum(0))
fig.savefig(out / "a.png")
save_fig("a", f"{torch.tensor([.1]).dtype},{plt.get_backend()},{tqdm.tqdm([]).disable},{__debug__}")
report("a", computed=1)"""


def test_a_users_configuration_stays_out_of_the_kernels(project, tmp_path_factory):
    "Once without and once with everything that a user may have set up: the same figure, bit by bit."
    home = tmp_path_factory.mktemp("home")
    files = {
        ".config/matplotlib/matplotlibrc": HOSTILE,
        "rc/matplotlibrc": HOSTILE,
        ".ipython/profile_default/startup/00.py": "import torch; torch.set_default_dtype(torch.float64)",
        ".ipython/profile_default/ipython_kernel_config.py": "c.InteractiveShellApp.exec_lines = ['raise SystemExit']",
        "startup.py": "import torch; torch.set_default_dtype(torch.float64)",
        ".jupyter/jupyter_config.py": "raise SystemExit",
    }
    for name, text in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text)
    write(project, "10_demo", DRAWN)
    own = dict(
        HOME=str(home),
        MATPLOTLIBRC=str(home / "rc"),
        PYTHONSTARTUP=str(home / "startup.py"),
        IPYTHONDIR=str(home / ".ipython"),
    )
    own |= dict(
        JUPYTER_CONFIG_DIR=str(home / ".jupyter"),
        MPLBACKEND="TkAgg",
        PYTHONWARNINGS="error",
        PYTHONOPTIMIZE="1",
        TQDM_DISABLE="1",
    )
    seen = []
    for env in {}, own:
        result = run(project, "figures", "--force", **env)
        assert result.returncode == 0, result.stdout + result.stderr
        out = project / "figures" / "quick" / "10_demo"
        seen.append(((out / "a.csv").read_text(), (out / "a.png").read_bytes()))
    assert (
        seen[0] == seen[1]
        and seen[0][0] == "torch.float32,module://matplotlib_inline.backend_inline,False,True"
    )


# -- what is left behind --


def test_what_a_killed_batch_left_is_swept_by_the_next(project, start):
    "And never what a living one has."
    write(
        project,
        "10_slow",
        'Path(f"ran-{os.getpid()}").touch()\nwhile not Path("go").exists(): time.sleep(0.05)',
        DRAWS,
    )
    write(project, "11_other", DRAWS)
    temporary = project / "tmp"
    temporary.mkdir()
    dead, _ = start("figures", "10", TMPDIR=str(temporary))
    wait_for(lambda: list(project.glob("ran-*")))
    dead.kill()
    dead.wait()
    [left] = temporary.iterdir()  # one folder, connection files and all
    living, _ = start("figures", "10", TMPDIR=str(temporary))
    wait_for(lambda: len(list(project.glob("ran-*"))) == 2)
    assert not left.exists() and len(others := list(temporary.iterdir())) == 1
    (temporary / "nas-nb-batch-link").symlink_to(project / "nbs")
    (temporary / "nas-nb-batch-file").touch()
    assert run(project, "figures", "11", TMPDIR=str(temporary)).returncode == 0
    assert others[0].exists() and list((project / "nbs").iterdir())
    (project / "go").touch()
    assert living.wait(30) == 0
    assert sorted(p.name for p in temporary.iterdir()) == ["nas-nb-batch-file", "nas-nb-batch-link"]


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


def test_damaged_figures_do_not_end_a_batch(project):
    write(project, "10_demo", DRAWS)
    out = project / "figures" / "quick" / "10_demo"
    out.mkdir(parents=True)
    (out / "loss.csv").write_bytes(b"x\n\xff\xfe\n")
    (out / "long.csv").write_text("x\n" + "y" * 200_000)
    (out / "claims.csv").mkdir()
    first = run(project, "figures")
    assert (first.returncode, first.stderr, status(first, "10_demo")) == (
        0,
        "",
        "ok",
    ) and "10_demo/loss  different" in first.stdout
    (out / "report.json").write_text('{"figures": 5, "runs": []}')
    again = run(project, "figures")
    assert (again.returncode, status(again, "10_demo")) == (0, "ok")  # not cached
    (out / ".stamp.json").write_text("[" * 100_000)
    assert run(project, "figures").returncode == 0


def test_a_folder_that_is_in_the_way_is_one_failure(project):
    write(project, "10_demo", DRAWS)
    write(project, "11_other", DRAWS)
    (project / "figures/quick/10_demo/report.json").mkdir(parents=True)
    result = run(project, "figures")
    assert (result.returncode, status(result, "10_demo"), status(result, "11_other")) == (1, "failed", "ok")
    assert "failed: 10_demo: " in result.stdout and "report.json" in result.stdout and result.stderr == ""


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
