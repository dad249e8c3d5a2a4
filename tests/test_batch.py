"""`nas-nb figures`, driven as a user would: by subprocess, in throw-away projects of tiny notebooks."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import types

import psutil
import pytest
from projects import DRAWS, OURS, command, copy_of, run, status, write

from nas_nb import cli, jobs


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
    words = [sys.executable, "-c", code, "figures", "--force", "--jobs", "2", "--time-limit", "8s"]
    result = subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=300)
    assert result.returncode == 3
    assert [status(result, i) for i in ("10_stops", "11_long", "12_next", "13_last")] == ["incomplete"] * 4
    assert (
        "11_long  incomplete" in result.stdout
        and "did not stop within 1 s after the time limit: cell 5/6 (c3)" in result.stdout
    )
    assert "to go on: nas-nb figures --jobs 2 --time-limit 8s\n" in result.stdout  # --force would start over
    assert (
        "OutOfTime" in copy_of(project, "10_stops")
        and not (project / "figures/quick/13_last/13_last.ipynb").exists()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_kernel_survives(project, number):
    write(project, "10_sleep", DRAWS, 'Path("pid").write_text(str(os.getpid()))', "time.sleep(600)")
    awake = lambda: signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # a test run in the background has it ignored
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    env = os.environ | dict(TMPDIR=str(project))  # a batch killed by SIGKILL cannot remove its scratch folder
    process = subprocess.Popen(command("figures"), cwd=project, env=env, preexec_fn=awake, **pipes)
    pid = wait_for(lambda: (project / "pid").exists() and (project / "pid").read_text())
    kernel = psutil.Process(int(pid))
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    wait_for(lambda: not kernel.is_running() or kernel.status() == psutil.STATUS_ZOMBIE)
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
    result = run(project, "figures", "--jobs", 2, "--notebook-limit", 12)
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
    assert (first.wait(120), second.wait(120)) == (0, 0)
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


def wait_for(condition, seconds=120):
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
    assert living.wait(120) == 0
    assert sorted(p.name for p in temporary.iterdir()) == ["nas-nb-batch-file", "nas-nb-batch-link"]


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
