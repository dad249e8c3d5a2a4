"""Runs: computed once, the same after a kill, never taken from what is not theirs."""

import errno
import fcntl
import hashlib
import io
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nas_nb import files
from nas_nb import study as records
from nas_nb.core import resolve, root
from nas_nb.files import (
    Checkpoint,
    Lock,
    OutOfTime,
    remove_locks,
    remove_parts,
    run_lock,
    set_aside,
    to_json,
    write_atomic,
)
from nas_nb.images import DataError
from nas_nb.papers.asng_runs import hitting_times
from nas_nb.study import Study, read_record, seal

SMALL = dict(
    method="ASNG", delta0=[1.0, 0.02], eps_x=[0.02], seeds=8, max_updates=1500, horizon=1500, D=16, K=5
)


def square(n, seed, device, ckpt):
    return dict(value=n * n + seed)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def study(tmp_path):
    study = Study("51_asng_nas", dict(paper=dict(n=3), quick={}, smoke={}), device="cpu", threads=1)
    study.cache, study.home = tmp_path / "cache", tmp_path / "figures"
    study.folder = study.home
    return study


def test_the_report_tells_the_command_line_what_keeps_bits_from_being_equal(tmp_path, monkeypatch):
    monkeypatch.setattr("nas_nb.study.compute_portably", lambda profile: "last digits will differ")
    study = Study("51_asng_nas", dict(paper=dict(n=3), quick={}, smoke={}), device="cpu", threads=1)
    study.folder = tmp_path
    study.report()
    assert json.loads((tmp_path / "report.json").read_text())["problem"] == "last digits will differ"


# -- what only happens to processes: a fresh one forks those that are killed, wait or run out of disk --

WARM = """
import contextlib, io, json, os, random, shutil, signal, sys, time, traceback
from pathlib import Path
import torch
torch.set_num_threads(1)
from nas_nb import study as records
from nas_nb.files import OutOfTime, write_atomic
from nas_nb.study import Study

folder, marks = Path(sys.argv[1]), Path(sys.argv[1]) / "marks"

def mark(text):
    with open(marks, "a") as f: f.write(text)

def walk(n, seed, device, ckpt):
    saved = ckpt.load()
    mark("R" if saved else "B")
    i, x = (saved["i"], saved["x"]) if saved else (0, torch.zeros(WIDTH, dtype=torch.float64))
    for i in range(i, n):
        generator = torch.Generator().manual_seed(1000 * seed + i)
        x = torch.sin(1.7 * x + torch.randn(WIDTH, generator=generator, dtype=torch.float64))
        mark(".")
        time.sleep(PACE)
        ckpt.tick(lambda: dict(i=i + 1, x=x))
    return dict(x=x.tolist())

def study(where=folder):
    s = Study("51_asng_nas", dict(paper={}, quick={}, smoke={}), device="cpu", threads=1)
    s.cache, s.home = where / "cache", where / "figures"
    s.folder = s.home
    return s

def fork(body):
    "Run `body` in a process of its own, whose output goes to the file `said`."
    if pid := os.fork(): return pid
    with open(folder / "said", "a") as out, contextlib.redirect_stdout(out):
        try: body(); status = 0
        except BaseException: traceback.print_exc(); status = 1
    os._exit(status)

def ended(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)

def content(record): return {k: v for k, v in record.items() if k != "run"}

PACE, WIDTH = 0.001, 64
"""


def warm(tmp_path, body, **env):
    "What `body` prints, a JSON object a line, and what its forks said."
    env = os.environ | dict(IN_TEST="1") | env
    done = subprocess.run(
        [sys.executable, "-c", WARM + body, str(tmp_path)],
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    said = tmp_path / "said"
    return [
        json.loads(line) for line in done.stdout.splitlines() if line[0] == "{"
    ], said.read_text() if said.exists() else ""


KILLED = """
from nas_nb.papers.asng_runs import hitting_times
seed = random.SystemRandom().randrange(10**6)
moments = random.Random(seed)
small = %r
phases, marked, hit = {}, {}, lambda: all(phases.get(p, 0) for p in ("early", "between", "write"))
for number in range(100):
    if number >= 20 and hit(): break  # chance decides where a kill falls, so go on until it fell everywhere
    fn, config = walk, dict(n=40, seed=number)
    if number == 13: fn, config = hitting_times, small | dict(seed=number)
    began = time.monotonic()
    whole = study(folder / "whole").run(fn, "x", **config)
    takes, where = time.monotonic() - began, folder / f"killed-{number}"
    os.environ["NAS_NB_CHECKPOINT_SECONDS"] = str(moments.choice([0, 0.01, 0.03]))
    slow = moments.choice([0, 0, 0.004])
    os.fsync = lambda fd: time.sleep(slow)  # a kill, unlike a power cut, spares what is not on the disk yet
    before = len(marks.read_text())
    for kill in [True] * moments.choice([1, 2, 3]) + [False]:
        pid = fork(lambda: study(where).run(fn, "x", **config))
        if kill:
            time.sleep(moments.uniform(0, takes))
            os.kill(pid, signal.SIGKILL)
        status = ended(pid)
        assert status == (-9 if kill else 0) or (kill and status == 0), status
        left = [p.name for p in where.glob("cache/x-*/*")]
        writes = any(p.startswith(".") for p in left)
        phase = "early" if not left else "late" if "record.json" in left else "write" if writes else "between"
        phases[phase] = phases.get(phase, 0) + (status == -9)
    (path,) = where.rglob("record.json")
    assert content(json.loads(path.read_text())) == content(whole), (seed, number)
    assert [p.name for p in path.parent.iterdir()] == ["record.json"], (seed, number)
    assert len(list((where / "cache").glob("[!.]*"))) == 1, (seed, number)  # one folder: always the same run
    for c in marks.read_text()[before:]: marked[c] = marked.get(c, 0) + 1
print(json.dumps(dict(seed=seed, runs=number, phases=phases, marked=marked)))
""" % (SMALL | dict(max_updates=800, horizon=800, seeds=4),)


def test_twenty_runs_killed_at_random_moments_end_with_the_same_record(tmp_path):
    ((found,), said) = warm(tmp_path, KILLED)
    print(found)
    phases, marked = found["phases"], found["marked"]
    assert all(phases.get(p, 0) > 0 for p in ("early", "between", "write")), found
    assert marked["R"] > 3  # went on from a checkpoint
    walks = found["runs"] - 1  # all but the one of another kind
    assert (
        walks * 40 < marked["."] < (marked["R"] + marked["B"]) * 40
    )  # some steps twice, but not all of them
    assert "not used" not in said and "Traceback" not in said


def test_two_processes_on_one_run_compute_it_once(tmp_path):
    body = """
PACE = 0.01
first = fork(lambda: study().run(walk, "x", n=300))
wait_for(lambda: list(folder.glob("cache/x-*/checkpoint.pt")))
for p in folder.glob("cache/x-*"): shutil.rmtree(p, ignore_errors=True)  # whatever is removed: the lock holds
def second():
    s = study()
    s.run(walk, "x", n=300)
    print(s.counts)
second = fork(second)
print(json.dumps(dict(first=first, status=[ended(first), ended(second)], marks=marks.read_text())))
"""
    ((found,), said) = warm(tmp_path, body, NAS_NB_CHECKPOINT_SECONDS="0")
    assert found["status"] == [0, 0] and found["marks"] == "B" + "." * 300
    assert f"x: process {found['first']} on {platform.node()} is at this already; waiting for it\n" in said
    assert "'computed': 0, 'reused': 1" in said
    assert [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [
        "record.json"
    ]  # no lock, no checkpoint


def test_a_killed_process_frees_its_run_and_who_waits_goes_on_from_its_checkpoint(tmp_path):
    body = """
PACE = 0.01
first = fork(lambda: study().run(walk, "x", n=300))
wait_for(lambda: marks.exists() and marks.read_text().count(".") > 20)
second = fork(lambda: study().run(walk, "x", n=300))
wait_for(lambda: "waiting" in (folder / "said").read_text())
os.kill(first, signal.SIGKILL)
ended(first)
print(json.dumps(dict(status=ended(second), marks=marks.read_text())))
"""
    ((found,), _) = warm(tmp_path, body, NAS_NB_CHECKPOINT_SECONDS="0")
    assert found["status"] == 0 and found["marks"].count("R") == 1 and 300 <= found["marks"].count(".") < 305


def test_the_time_limit_and_ctrl_c_are_heard_while_waiting(tmp_path):
    body = """
PACE = 0.05
first = fork(lambda: study().run(walk, "x", n=400))
wait_for(lambda: marks.exists() and marks.read_text())
def waits():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try: study().run(walk, "x", n=400)
    except (OutOfTime, KeyboardInterrupt) as e: print(type(e).__name__)
os.environ["NAS_NB_DEADLINE"] = str(time.monotonic() + 0.5)
late = fork(waits)
del os.environ["NAS_NB_DEADLINE"]
statuses = [ended(late)]
stopped = fork(waits)
wait_for(lambda: (folder / "said").read_text().count("waiting") == 2)
os.kill(stopped, signal.SIGINT)
statuses.append(ended(stopped))
os.kill(first, signal.SIGKILL)
print(json.dumps(dict(status=statuses, begun=marks.read_text().count("B"))))
"""
    ((found,), said) = warm(tmp_path, body)
    assert found == dict(status=[0, 0], begun=1)
    assert [x for x in said.split() if x in ("OutOfTime", "KeyboardInterrupt")] == [
        "OutOfTime",
        "KeyboardInterrupt",
    ]


def test_a_lock_left_by_a_dead_process_or_removed_by_somebody_is_no_obstacle(tmp_path):
    path = tmp_path / "lock"
    path.write_text("process 1 on nowhere")  # of a process that never held it, or was killed
    first, second, third = (Lock(path) for _ in range(3))
    assert (
        first.take()
        and not second.take()
        and second.holder() == f"process {os.getpid()} on {platform.node()}"
    )
    path.unlink()
    assert second.take() and not third.take()
    first.release()  # must not remove what is another's now
    assert path.exists() and not third.take()
    second.release()
    assert not path.exists() and third.take()
    third.release()


def test_a_lock_that_is_removed_between_opening_and_locking_it_does_not_count(tmp_path, monkeypatch):
    first, second, flock = Lock(tmp_path / "lock"), Lock(tmp_path / "lock"), fcntl.flock

    def meanwhile(file, how):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.path.unlink()
        assert second.take()
        return flock(file, how)

    monkeypatch.setattr(fcntl, "flock", meanwhile)
    assert not first.take()
    second.release()
    assert first.take()
    first.release()


@pytest.mark.parametrize(
    "number",
    [
        errno.ENOSYS,
        errno.ENOLCK,
        errno.EOPNOTSUPP,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.EINVAL,
        errno.ESTALE,
    ],
)
def test_where_nobody_can_lock_nothing_is_computed_and_a_sentence_says_why(study, monkeypatch, number):
    def refuses(file, how):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(
        OSError,
        match=rf"{re.escape(os.strerror(number))} \(only one process at a time.*on a disk of this machine",
    ) as error:
        study.run(lambda **_: pytest.fail("computed"), "x")
    assert (
        error.value.errno == number
        and str(error.value.filename).endswith(".lock")
        and "\n" not in str(error.value)
    )


def test_what_is_recorded_is_read_without_a_lock(study, monkeypatch):
    study.profile = "paper"
    record = study.run(square, "square", n=3)
    monkeypatch.setattr(fcntl, "flock", lambda *_: pytest.fail("locked"))
    assert study.run(square, "square", n=3) == record
    shutil.rmtree(study.cache)
    assert study.run(square, "square", n=3) == record and study.counts == dict(
        computed=1, reused=1, committed=1
    )
    assert not study.cache.exists()


READ_ONLY = """
mount --bind "$1/cache" "$1/cache" && mount -o remount,ro,bind "$1/cache" || exit 77
exec "$2" -c "$3" "$1"
"""


def test_records_are_read_in_a_folder_that_is_read_only(tmp_path):
    body = """
s = study()
s.profile = "paper"
found = [s.run(walk, "x", n=3, seed=seed)["result"]["x"][0] for seed in (0, 1)]
try: s.run(walk, "x", n=3, seed=2); error = ""
except OSError as e: error = str(e)
print(json.dumps(dict(found=found, counts=s.counts, error=error)))
"""
    made = """
s = study()
s.profile = "paper"
found = [s.run(walk, "x", n=3, seed=seed)["result"]["x"][0] for seed in (0, 1)]
shutil.rmtree(next(p.parent for p in s.cache.glob("*/record.json") if '"seed": 1' in p.read_text()))
print(json.dumps(dict(found=found)))
"""
    ((before,), _) = warm(tmp_path, made)
    command = ["unshare", "-rm", "bash", "-c", READ_ONLY, "-", str(tmp_path), sys.executable, WARM + body]
    if (
        not shutil.which("unshare")
        or (done := subprocess.run(command, capture_output=True, text=True)).returncode == 77
        or done.stderr.startswith("unshare")
    ):
        pytest.skip("cannot mount a folder read-only here")
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (json.loads(line) for line in done.stdout.splitlines() if line[0] == "{")
    assert found["found"] == before["found"] and found["counts"] == dict(computed=0, reused=1, committed=1)
    assert (
        "Read-only file system (only one process at a time" in found["error"] and "\n" not in found["error"]
    )


def test_a_lock_has_no_place_in_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="only one process at a time"):
        Lock(tmp_path / "file" / "x.lock").take()


def test_what_lies_at_a_locks_place_and_is_no_lock_is_left_alone(tmp_path):
    precious, at = tmp_path / "precious", tmp_path / ".x.lock"
    precious.write_text("years of work")
    at.symlink_to(precious)
    with pytest.raises(OSError, match="only one process at a time"):
        Lock(at).take()
    remove_locks(tmp_path)
    assert precious.read_text() == "years of work" and at.is_symlink()
    at.unlink()
    os.link(precious, at)
    lock, other = Lock(at), Lock(at)
    assert lock.take() and not other.take() and other.holder() == "another process"
    lock.release()
    remove_locks(tmp_path)
    assert precious.read_text() == at.read_text() == "years of work"


def test_who_holds_a_lock_is_never_a_text_of_somebody_else(tmp_path):
    lock = Lock(tmp_path / "lock")
    for text in ("", "process x on y", "process 4711 on \x1b[2J", "process 1 on a\n", "\xff" * 100):
        lock.path.write_bytes(text.encode("latin-1"))
        assert lock.holder() == "another process"


def test_the_files_of_killed_processes_are_swept_by_the_next_run_and_held_locks_are_not(study):
    study.cache.mkdir(parents=True)
    for name in (".old-0123.lock", ".held-0123.lock"):
        (study.cache / name).write_text("process 1 on nowhere")
    (study.cache / ".mine.lock").write_text("not ours")
    assert (held := Lock(study.cache / ".held-0123.lock")).take()
    study.run(square, "square", n=3)
    assert (
        sorted(p.name for p in study.cache.glob(".*")) == [".held-0123.lock", ".mine.lock"]
        and not Lock(held.path).take()
    )
    held.release()


def test_a_forked_child_has_no_part_in_its_parents_lock(tmp_path):
    body = """
from nas_nb.files import Lock
lock, stay = Lock(folder / "lock"), folder / "stay"
assert lock.take()
child = fork(lambda: wait_for(stay.exists))
lock.release()
assert Lock(lock.path).take()  # though the child still has all of its parent's files open
stay.touch()
print(json.dumps(dict(status=ended(child))))
"""
    ((found,), _) = warm(tmp_path, body)
    assert found == dict(status=0)


INTERRUPTED = """
from nas_nb.training import Recipe, fit
moments = random.Random(5)
signal.signal(signal.SIGINT, signal.default_int_handler)

def half(n, seed, device, ckpt):
    "In the middle of a step its state is of no use: `x` is new and `i` is old."
    state = ckpt.load() or dict(i=0, x=torch.zeros(WIDTH, dtype=torch.float64))
    while state["i"] < n:
        generator = torch.Generator().manual_seed(1000 * seed + state["i"])
        noise = torch.randn(WIDTH, generator=generator, dtype=torch.float64)
        state["x"] += noise
        mark(".")
        time.sleep(0.001)
        state["x"].sin_()
        state["i"] += 1
        ckpt.tick(lambda: state)
    return dict(x=state["x"].tolist())

def trained(n, seed, device, ckpt):
    torch.manual_seed(seed)
    nn = torch.nn
    net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 3))
    def batches(step):
        mark(".")
        time.sleep(0.002)
        g = torch.Generator().manual_seed(step)
        return torch.randn(12, 8, generator=g), torch.randint(3, (12,), generator=g)
    rows = fit(net, batches, Recipe(steps=n, lr=0.1), ckpt=ckpt, seed=seed)
    return dict(rows=rows, weights=torch.cat([p.detach().flatten() for p in net.parameters()]).tolist())

found, times = [], 0
for number in range(8):
    fn, config = (half, trained)[number % 2], dict(n=40, seed=number)
    began = time.monotonic()
    whole, where = study(folder / "whole").run(fn, "x", **config), folder / f"stopped-{number}"
    takes = time.monotonic() - began
    def run():
        try: study(where).run(fn, "x", **config)
        except KeyboardInterrupt as e: print(type(e).__name__, e, flush=True); os._exit(9)
    for _ in range(moments.choice([1, 2, 3])):
        before, ready = len(marks.read_text()), moments.randrange(1, 15)
        pid = fork(run)
        has_ended = lambda: os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        wait_for(lambda: len(marks.read_text()) >= before + ready or has_ended())
        os.kill(pid, signal.SIGINT)
        status = ended(pid)
        assert status in (0, 9), status
        times += status == 9
        assert status == 0 or list(where.rglob("checkpoint.pt")) or list(where.rglob("record.json"))
    assert ended(fork(run)) == 0
    (path,) = where.rglob("record.json")
    assert content(json.loads(path.read_text())) == content(whole), number
print(json.dumps(dict(times=times)))
"""


def test_an_interrupt_keeps_the_state_of_the_next_step_and_the_result_is_the_same(tmp_path):
    "No checkpoint is written by time: all that goes on was saved by an interrupt."
    ((found,), said) = warm(tmp_path, INTERRUPTED, NAS_NB_CHECKPOINT_SECONDS="1e9")
    assert found["times"] >= 8 and "Traceback" not in said and "not used" not in said
    assert said.count("Interrupted stopped") == said.count("run again to go on\n") == found["times"]
    assert (
        said.count("stopping at the next step, with a checkpoint (interrupt again to stop at once)\n")
        == found["times"]
    )


def test_the_second_interrupt_stops_at_once_and_the_last_checkpoint_counts(tmp_path):
    body = """
def slow(n, seed, device, ckpt):
    if saved := ckpt.load(): return saved
    ckpt.save(dict(i=3))
    mark("B")
    time.sleep(60)
def stopped():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pid = fork(lambda: study().run(slow, "x", n=100))
    before = marks.read_text() if marks.exists() else ""
    wait_for(lambda: marks.exists() and marks.read_text() != before)
    began = time.monotonic()
    os.kill(pid, signal.SIGINT)
    wait_for(lambda: "interrupt again" in (folder / "said").read_text())
    os.kill(pid, signal.SIGINT)
    return ended(pid), time.monotonic() - began
status, takes = stopped()
print(json.dumps(dict(status=status, takes=takes, then=study().run(slow, "x", n=100)["result"])))
"""
    ((found,), _) = warm(tmp_path, body)
    assert found["status"] == 1 and found["takes"] < 10 and found["then"] == dict(i=3)


def test_an_interrupt_in_a_run_without_ticks_loses_nothing_and_is_heard(study, monkeypatch):
    def fn(seed, device, ckpt):
        os.kill(os.getpid(), signal.SIGINT)
        return dict(value=3)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(files.Interrupted, match="run again to go on"):
            study.run(fn, "x")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert study.run(fn, "x")["result"] == dict(value=3)
        assert study.counts == dict(computed=0, reused=1, committed=0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_interrupt_while_the_disk_is_full_does_not_lose_the_run(study, monkeypatch, capsys):
    steps = []

    def fn(seed, device, ckpt):
        for i in range(4):
            steps.append(i)
            if i == 1:
                os.kill(os.getpid(), signal.SIGINT)
            monkeypatch.setattr(files, "write_atomic", write if i > 2 else full)
            ckpt.tick(lambda: dict(i=i + 1))
        return {}

    def full(path, data):
        raise OSError(28, "No space left (free some)", str(path))

    write, before = files.write_atomic, signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(files.Interrupted, match="with a checkpoint"):
            study.run(fn, "x")
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == [0, 1, 2, 3] and capsys.readouterr().out.count("computing goes on") == 1
    assert list(study.cache.rglob("checkpoint.pt"))


def test_elsewhere_an_interrupt_is_what_it_always_was(study):
    "In another thread, and where somebody else handles it."

    def fn(seed, device, ckpt):
        seen.append(signal.getsignal(signal.SIGINT))
        return {}

    seen, mine = [], lambda *_: None
    before = signal.signal(signal.SIGINT, mine)
    try:
        study.run(fn, "a")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        (thread := threading.Thread(target=lambda: study.run(fn, "b"))).start()
        thread.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [mine, signal.default_int_handler]


CELL = """
import time
from nas_nb.study import Study
study = Study("51_asng_nas", dict(paper={}, quick={}, smoke={}), device="cpu", threads=1)
study.cache, study.folder = __import__("pathlib").Path("cache"), __import__("pathlib").Path("figures")
def count(n, seed, device, ckpt):
    i = (ckpt.load() or dict(i=0))["i"]
    while i < n:
        i += 1
        time.sleep(0.01)
        if i % 50 == 3: print("at", i, flush=True)
        ckpt.tick(lambda: dict(i=i))
    return dict(i=i)
"""


def told(outputs) -> list[int]:
    "The steps that `CELL` has said."
    text = "".join(m["content"].get("text", "") for m in outputs if m["msg_type"] == "stream")
    return [int(n) for n in re.findall(r"at (\d+)\n", text)]


def test_who_interrupts_a_notebook_sees_one_line_and_goes_on(tmp_path):
    "In a kernel, as JupyterLab interrupts it."
    from jupyter_client.manager import start_new_kernel

    env = os.environ | dict(IN_TEST="1", NAS_NB_CHECKPOINT_SECONDS="1e9", PYTHONPATH=str(root()))
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(tmp_path), env=env, startup_timeout=120)
    try:
        client.execute_interactive(CELL, timeout=60)
        outputs, sent = [], []

        def seen(message):
            outputs.append(message)
            if told(outputs) and not sent:
                sent.append(manager.interrupt_kernel())

        reply = client.execute_interactive(
            'study.run(count, "x", n=1000)["result"]', output_hook=seen, timeout=300
        )
        (error,) = (m["content"] for m in outputs if m["msg_type"] == "error")
        assert reply["content"]["status"] == "error" and error["traceback"] == [
            "stopped, with a checkpoint: run again to go on"
        ]
        (saved,) = tmp_path.rglob("checkpoint.pt")
        last = told(outputs)[-1]  # the interrupt may arrive some steps later than it was sent
        outputs.clear()
        client.execute_interactive(
            'study.run(count, "x", n=1000)["result"]', output_hook=outputs.append, timeout=300
        )
        assert 3 <= last < 953 and told(outputs) == list(range(last + 50, 1000, 50))
        (result,) = (m["content"]["data"]["text/plain"] for m in outputs if m["msg_type"] == "execute_result")
        assert result == "{'i': 1000}" and not saved.exists()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


FULL = """
import resource
limited = resource.getrlimit(resource.RLIMIT_FSIZE)
def full(size): resource.setrlimit(resource.RLIMIT_FSIZE, (size, limited[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
os.environ["NAS_NB_CHECKPOINT_SECONDS"], WIDTH = "0", 512
def attempt(body):
    "What comes of it while no file may have more than 2500 bytes."
    (folder / "said").write_text("")
    out = io.StringIO()
    full(2500)
    try:
        with contextlib.redirect_stdout(out): body()
        error = ""
    except Exception as e: error = f"{type(e).__name__}: {e}"
    full(limited[0])
    left = sorted(p.name for p in folder.glob("cache/*/*"))
    print(json.dumps(dict(error=error, said=out.getvalue(), left=left, marks=marks.read_text())))
    marks.write_text("")
"""


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(tmp_path):
    "The record (1 kB) has room, the checkpoints (6 kB) have none."
    body = (
        FULL
        + """
short = lambda *args, **kwargs: dict(n=len(walk(*args, **kwargs)["x"]))
attempt(lambda: study().run(short, "x", n=20))
os.environ["NAS_NB_DEADLINE"] = "0"
attempt(lambda: study().run(short, "x", n=21))
"""
    )
    ((done, late), _) = warm(tmp_path, body)
    assert done["error"] == "" and done["left"] == ["record.json"] and done["marks"] == "B" + "." * 20
    assert done["said"].count("no checkpoint for now, computing goes on") == done["said"].count("\n") == 1
    assert "checkpoint.pt" in done["said"] and "free some space" in done["said"]
    assert (
        late["error"].startswith("OSError")
        and "free some space" in late["error"]
        and late["left"] == ["record.json"]
    )


def test_a_record_that_cannot_be_written_is_an_error_and_the_same_command_goes_on(tmp_path):
    "The checkpoints are written while there is room; the record finds none."
    body = (
        FULL
        + """
def long(n, seed, device, ckpt):
    result = walk(n, seed, device, ckpt)
    full(2500)
    return result | dict(long=[0.5] * 500)
def unlimited(): full(limited[0]); study().run(long, "x", n=20)
attempt(unlimited)
attempt(lambda: (full(limited[0]), study().run(long, "x", n=20)))
"""
    )
    ((first, again), _) = warm(tmp_path, body)
    for found in (first, again):
        assert (
            found["error"].startswith("OSError")
            and "record.json" in found["error"]
            and "free some space" in found["error"]
        )
        assert "\n" not in found["error"] and found["left"] == ["checkpoint.pt"]
    assert first["marks"] == "B" + "." * 20 and again["marks"] == "R"


def test_a_write_beyond_the_limit_keeps_the_old_file(tmp_path):
    body = (
        FULL
        + """
path = write_atomic(folder / "x.json", "old")
attempt(lambda: write_atomic(path, "new" * 1000))
print(json.dumps(dict(text=path.read_text(), left=sorted(p.name for p in folder.iterdir()))))
"""
    )
    (tmp_path / "marks").touch()
    ((first, after), _) = warm(tmp_path, body)
    assert "x.json" in first["error"] and "the same command then goes on" in first["error"]
    assert after == dict(text="old", left=["marks", "said", "x.json"])


def test_the_wall_clock_does_not_matter(tmp_path):
    "Time zones, and a clock that jumps by years at every look, in both directions."
    body = """
import datetime
from nas_nb.papers.asng_runs import hitting_times
small = %r
def jump(): return random.choice([-1e9, 0.0, 1.0, 1.7e9, 4e9, 2e10])
class Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz=None): return datetime.datetime.fromtimestamp(jump(), tz)
def run(name):
    began = time.monotonic()
    record = study(folder / name).run(hitting_times, "x", **small)
    assert 0 <= record["run"]["seconds"] <= time.monotonic() - began + 0.1, record["run"]
def jumping():
    time.time, records.datetime = jump, Datetime
    run("jumping")
os.environ["NAS_NB_STATUS"] = str(folder / "status")  # with a progress bar
statuses = [ended(fork(lambda: run("plain"))), ended(fork(jumping))]
for name, zone in ("east", "Pacific/Kiritimati"), ("west", "Etc/GMT+12"), ("none", "nonsense"):
    os.environ["TZ"] = zone
    time.tzset()
    statuses.append(ended(fork(lambda: run(name))))
paths = sorted(folder.rglob("record.json"))
found = {(p.parent.name, json.dumps(content(json.loads(p.read_text())))) for p in paths}
print(json.dumps(dict(statuses=statuses, records=len(paths), different=len(found))))
""" % (SMALL | dict(max_updates=800, horizon=800, seeds=4),)
    ((found,), said) = warm(tmp_path, body)
    assert found == dict(statuses=[0] * 5, records=5, different=1), said


# -- in one process --


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = hitting_times(**SMALL)
    left = iter([1.0] * 4)
    monkeypatch.setattr(files, "seconds_left", lambda: next(left, -1.0))
    with pytest.raises(OutOfTime):
        hitting_times(**SMALL, ckpt=Checkpoint(tmp_path / "checkpoint.pt", every=1e9))
    assert Checkpoint(tmp_path / "checkpoint.pt").load()["trials"]["t"] == 500
    monkeypatch.setattr(files, "seconds_left", lambda: 1.0)
    assert hitting_times(**SMALL, ckpt=Checkpoint(tmp_path / "checkpoint.pt")) == whole
    found = sum(whole["updates"][0], [])
    assert 0 < sum(u > 500 for u in found)  # otherwise there was nothing left to go on with


def test_a_run_is_computed_once(study):
    first = study.run(square, "square", n=3)
    assert study.run(square, "square", n=3) == first
    assert study.run(square, "square", n=3, seed=1)["result"] == dict(value=10)
    assert study.counts == dict(computed=2, reused=1, committed=0)


@pytest.fixture
def notes_calls(monkeypatch):
    "For a function that notes its calls in a list: what the list holds would make it another function."
    monkeypatch.setattr(records, "code_hash", lambda fn: "0123456789abcdef")


def square_all(runs, n, device, ckpt):
    return [dict(value=n * n + run["seed"]) for run in runs]


@pytest.mark.usefixtures("notes_calls")
def test_runs_together_are_records_alone(study):
    study.profile = "paper"
    study.run(square, "square", n=3, seed=1)
    runs = [dict(label="square", seed=seed) for seed in (0, 1, 2)]
    calls = []

    def square_all(runs, n, device, ckpt):
        calls.append([run["seed"] for run in runs])
        return [dict(value=n * n + run["seed"]) for run in runs]

    found = study.run_together(square_all, runs, n=3)
    assert [r["result"]["value"] for r in found] == [9, 10, 11] and calls == [[0, 2]]
    assert [r["run"].get("together") for r in found] == [2, None, 2] and [r["config"] for r in found] == 3 * [
        dict(n=3)
    ]
    assert study.counts == dict(computed=3, reused=1, committed=0)
    shutil.rmtree(study.cache)
    assert study.run(square, "square", n=3, seed=2) == found[2] and study.counts["committed"] == 1
    assert study.run_together(square_all, runs, n=3) == found and len(calls) == 1


def test_together_each_has_values_of_its_own(study):
    power = lambda runs, device, ckpt: [dict(value=run["n"] ** run["seed"]) for run in runs]
    runs = [dict(label="a", seed=2, n=3), dict(label="b", seed=3, n=2)]
    first, second = study.run_together(power, runs)
    assert (first["result"], second["result"]) == (dict(value=9), dict(value=8))
    assert (first["label"], first["seed"], first["config"]) == ("a", 2, dict(n=3))


@pytest.mark.usefixtures("notes_calls")
def test_a_group_that_is_stopped_goes_on(study, monkeypatch):
    steps = []

    def slow(runs, device, ckpt):
        state = ckpt.load() or dict(i=0)
        for i in range(state["i"], 4):
            steps.append(i)
            ckpt.tick(lambda: dict(i=i + 1))
        return [dict(seed=run["seed"]) for run in runs]

    runs = [dict(label="slow", seed=seed) for seed in (0, 1)]
    left = iter([1.0, 1.0])
    monkeypatch.setattr(files, "seconds_left", lambda: next(left, -1.0))
    with pytest.raises(OutOfTime):
        study.run_together(slow, runs)
    monkeypatch.setattr(files, "seconds_left", lambda: 1.0)
    assert [r["result"] for r in study.run_together(slow, runs)] == [dict(seed=0), dict(seed=1)]
    assert steps == [0, 1, 2, 3] and not [*study.cache.rglob("checkpoint.pt")]
    assert not [*study.cache.glob("together-*")]  # which `nas-nb runs list` would show as begun


def slow_group(steps):
    def slow(runs, device, ckpt):
        state = ckpt.load() or dict(i=0)
        for i in range(state["i"], 4):
            steps.append((i, *(run["seed"] for run in runs)))
            ckpt.tick(lambda: dict(i=i + 1))
        return [dict(seed=run["seed"]) for run in runs]

    return slow


def stopped(study, monkeypatch, slow, runs, ticks=2):
    left = iter([1.0] * ticks)
    with monkeypatch.context() as m, pytest.raises(OutOfTime):
        m.setattr(files, "seconds_left", lambda: next(left, -1.0))
        study.run_together(slow, runs)


@pytest.mark.usefixtures("notes_calls")
def test_a_forced_group_that_is_stopped_goes_on_without_force(study, monkeypatch):
    study.profile, steps = "paper", []
    runs = [dict(label="slow", seed=seed) for seed in (0, 1)]
    study.run_together(lambda runs, device, ckpt: [dict(old=1) for _ in runs], runs)
    monkeypatch.setenv("NAS_NB_FORCE", "1")
    stopped(study, monkeypatch, slow_group(steps), runs)
    monkeypatch.delenv("NAS_NB_FORCE")
    assert [r["result"] for r in study.run_together(slow_group(steps), runs)] == [
        dict(seed=0),
        dict(seed=1),
    ]  # not the committed ones
    assert [i for i, *_ in steps] == [0, 1, 2, 3]


@pytest.mark.usefixtures("notes_calls")
def test_a_stopped_group_goes_on_as_it_was_when_more_is_asked_for(study, monkeypatch):
    steps, runs = [], [dict(label="slow", seed=seed) for seed in (0, 1, 2)]
    stopped(study, monkeypatch, slow_group(steps), runs[:2])
    assert [r["result"]["seed"] for r in study.run_together(slow_group(steps), runs)] == [0, 1, 2]
    assert steps == [(0, 0, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1), (0, 2), (1, 2), (2, 2), (3, 2)]
    assert not [*study.cache.rglob("checkpoint.pt"), *study.cache.rglob("together")]


@pytest.mark.usefixtures("notes_calls")
def test_a_part_of_a_stopped_group_begins_anew(study, monkeypatch):
    steps, runs = [], [dict(label="slow", seed=seed) for seed in (0, 1, 2)]
    stopped(study, monkeypatch, slow_group(steps), runs)
    steps.clear()
    assert [r["result"]["seed"] for r in study.run_together(slow_group(steps), runs[:2])] == [0, 1]
    assert steps == [(i, 0, 1) for i in range(4)]


@pytest.mark.usefixtures("notes_calls")
def test_a_group_whose_records_were_written_in_part_is_finished(study, monkeypatch):
    steps, runs = [], [dict(label="slow", seed=seed) for seed in (0, 1)]
    stopped(study, monkeypatch, slow_group(steps), runs)
    write = records.write_atomic

    def full(path, data):
        if path.name == "record.json" and '"seed": 1' in data:
            raise OSError(28, "No space left", str(path))
        return write(path, data)

    with monkeypatch.context() as m, pytest.raises(OSError):
        m.setattr(records, "write_atomic", full)
        study.run_together(slow_group(steps), runs)
    steps.clear()
    assert [r["result"]["seed"] for r in study.run_together(slow_group(steps), runs)] == [0, 1]
    assert steps == [(3, 0, 1)]  # from the group's checkpoint


def test_locks_of_a_group_are_always_taken_in_the_same_order(study, monkeypatch):
    taken, alone = [], records.alone
    monkeypatch.setattr(
        records, "alone", lambda lock, what: taken.append(lock.path.name) or alone(lock, what)
    )
    runs = [dict(label="x", seed=seed) for seed in range(4)]
    run = lambda runs, device, ckpt: [dict(a=1) for _ in runs]
    study.run_together(run, runs)
    shutil.rmtree(study.cache)
    study.run_together(run, runs[::-1])
    assert len(taken) == 8 and taken[:4] == taken[4:]


def test_what_cannot_be_computed_together_is_refused(study):
    runs = [dict(label="x", seed=0)]
    with pytest.raises(ValueError, match="two of the runs are the same"):
        study.run_together(square_all, runs + runs, n=3)
    with pytest.raises(TypeError, match="a dict that JSON can hold for each run"):
        study.run_together(lambda runs, device, ckpt: [], runs)
    with pytest.raises(TypeError, match="for each run, not int"):
        study.run_together(lambda runs, device, ckpt: [3], runs)
    assert not [*study.cache.rglob("record.json")]


def test_force_computes_again(study, monkeypatch):
    study.profile = "paper"
    study.run(square, "square", n=3)
    for path in [*study.cache.glob("*/record.json"), *(study.folder / "records").iterdir()]:
        write_atomic(path, to_json(seal(json.loads(path.read_text()) | dict(result=dict(value=10)))))
    assert study.run(square, "square", n=3)["result"] == dict(value=10)
    monkeypatch.setenv("NAS_NB_FORCE", "1")
    assert study.run(square, "square", n=3)["result"] == dict(value=9)
    (committed,) = (study.folder / "records").iterdir()
    assert json.loads(committed.read_text())["result"] == dict(value=9)  # the committed record follows


def test_other_sizes_than_the_profiles_get_no_verdict_of_its_rank(monkeypatch):
    monkeypatch.delenv("IN_TEST", raising=False)
    profiles = dict(paper=dict(n=3, seeds=100), quick={}, smoke={})
    settings = dict(device="cpu", claims=dict(c=dict(claim="c", source="s", document="d", criterion="k")))
    verdicts = [
        Study("51_asng_nas", profiles, "paper", **settings, **changed).judge("c", "o", True)
        for changed in ({}, dict(overrides="n=1"), dict(seeds=2), dict(overrides="n=3"))
    ]
    assert verdicts == ["reproduced", "seen at small scale", "seen at small scale", "reproduced"]


@pytest.mark.parametrize(
    "name",
    [
        "../../../w/escape",
        "/tmp/x",
        "a/b",
        "a\\b",
        "..",
        ".hidden",
        "",
        "x" * 300,
        "a\0",
        "a\n",
        "\x1b[2J",
        None,
        51,
        Path("x"),
    ],
    ids=repr,
)
def test_a_study_whose_name_is_no_file_name_is_refused(name):
    with pytest.raises(ValueError, match="the study's name .* is no file name") as error:
        Study(name, dict(paper={}, quick={}, smoke={}), device="cpu")
    assert "\n" not in str(error.value)


def test_making_a_study_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "root", lambda: tmp_path)
    Study("51_asng_nas", dict(paper={}, quick={}, smoke={}), device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"result": {"value": 7}}',
        '{"document": "other", "result": {"value": 7}}',
        '{"result": {}, "run": {}}',
    ],
)
def test_a_broken_or_foreign_record_is_set_aside_and_computed_anew(study, content, capsys):
    study.run(square, "square", n=3)
    (path,) = study.cache.glob("*/record.json")
    path.write_text(content)
    assert study.run(square, "square", n=3)["result"] == dict(value=9)
    assert study.counts["computed"] == 2 and "not used" in capsys.readouterr().out
    assert path.with_suffix(".unreadable").read_text() == content


def test_a_committed_record_is_found_whatever_code_made_it_and_says_so(study, capsys):
    study.profile = "paper"
    record = study.run(square, "square", n=3)
    (path,) = (study.folder / "records").iterdir()
    record["made_by"]["code"] = "0123456789abcdef"
    record["result"]["value"] = 99
    write_atomic(path, to_json(seal(record)))
    for p in study.cache.glob("*/record.json"):
        p.unlink()
    assert study.run(square, "square", n=3)["result"] == dict(value=99)
    assert "made by code 0123456789abcdef" in capsys.readouterr().out
    study.profile = "quick"
    assert study.run(square, "square", n=3)["result"] == dict(value=9)  # quick always computes


@pytest.mark.parametrize("field", ["code", "data", "device"])
def test_a_run_of_ones_own_leaves_the_committed_record_of_the_same_code_as_it_is(study, field, capsys):
    study.profile = "cpu"
    record = study.run(square, "square", n=3, data="d1")
    (path,) = (study.folder / "records").iterdir()
    record["run"]["started"] = "2020-01-01T00:00:00+00:00"  # made elsewhere, or earlier
    record["result"]["value"] = 99
    write_atomic(path, committed := to_json(seal(record)))
    capsys.readouterr()
    assert study.run(square, "square", n=3, data="d1")["result"] == dict(value=99)
    assert path.read_text() == committed and study.counts == dict(computed=1, reused=0, committed=1)
    assert "made by code" in capsys.readouterr().out
    record["made_by"][field] = "another"  # then the run of one's own counts
    write_atomic(path, to_json(seal(record)))
    assert study.run(square, "square", n=3, data="d1")["result"] == dict(value=9)
    assert json.loads(path.read_text())["result"] == dict(value=9)


def test_a_redraw_from_committed_records_hashes_no_code(study, monkeypatch):
    study.profile = "cpu"
    study.run(square, "square", n=3)
    shutil.rmtree(study.cache)
    hashed = []
    monkeypatch.setattr("nas_nb.study.code_hash", lambda fn: hashed.append(fn) or "0123456789abcdef")
    assert study.run(square, "square", n=3)["result"] == dict(value=9) and not hashed
    (study.cache / "square-of-another-configuration").mkdir(parents=True)  # then its name has to be known
    assert study.run(square, "square", n=3)["result"] == dict(value=9) and hashed
    assert study.counts == dict(computed=1, reused=0, committed=2)


def test_whose_records_are_used_is_said_once(study, capsys):
    study.profile = "cpu"
    for seed in range(3):
        study.run(square, "square", seed, n=3)
    shutil.rmtree(study.cache)
    assert study.run(square, "square", 0, n=3) and study.run(square, "square", 1, n=3)
    said = capsys.readouterr().out
    assert said.count("from records made by code") == 1 and said.startswith("square: from records")
    (path,) = (p for p in (study.folder / "records").iterdir() if json.loads(p.read_text())["seed"] == 2)
    record = json.loads(path.read_text())
    record["made_by"]["code"] = "0123456789abcdef"
    write_atomic(path, to_json(seal(record)))
    study.run(square, "square", 2, n=3)
    assert not capsys.readouterr().out  # the same machine: each record names its code
    record["run"]["device"] = "another machine"
    write_atomic(path, to_json(seal(record)))
    study.run(square, "square", 2, n=3)
    assert "made by code 0123456789abcdef on another machine" in capsys.readouterr().out


def test_the_first_output_says_where_the_figures_come_from(study, monkeypatch):
    study.profile = "cpu"
    monkeypatch.setenv("NAS_NB_SHOWN", "quick")
    assert "figures from" not in repr(study)  # nothing is committed
    study.run(square, "square", 1, n=3)
    study.run(square, "square", 2, n=3)
    says = "figures from 2 committed records, profile cpu"
    assert f"{says}; running this cell as it stands computes quick\n" in repr(study)
    monkeypatch.setenv("NAS_NB_SHOWN", "cpu")
    assert f"{says}\n" in repr(study)
    monkeypatch.delenv("NAS_NB_SHOWN")  # by hand: whoever runs it has written the profile there
    assert f"{says}\n" in repr(study)
    monkeypatch.setenv("NAS_NB_FORCE", "1")
    assert "figures from" not in repr(study)
    monkeypatch.delenv("NAS_NB_FORCE")
    study.own_sizes = True
    assert "figures from" not in repr(study)
    study.own_sizes, study.profile = False, "quick"  # always computes
    assert "figures from" not in repr(study)


# -- a state that several runs need --


def trained(n, ckpt, add=0):
    with open(os.environ["TRAINED"], "a") as f:
        f.write(f"{n} ")
    return dict(weights=torch.arange(n) + add, steps=n)


def from_there(seed, n, device, ckpt):
    state = records.needed_state(ckpt, trained, "trained", n=n)
    return dict(total=seed + int(state["weights"].sum()), steps=state["steps"])


@pytest.fixture
def times(tmp_path, monkeypatch):
    "How often the state was computed."
    monkeypatch.setenv("TRAINED", str(tmp_path / "trained"))
    return lambda: len((tmp_path / "trained").read_text().split())


def test_a_state_that_several_runs_need_is_computed_once(study, times):
    totals = [study.run(from_there, "from-there", seed, n=4)["result"]["total"] for seed in range(3)]
    assert totals == [6, 7, 8] and times() == 1
    assert study.run(from_there, "from-there", 0, n=5)["result"] == dict(total=10, steps=5) and times() == 2
    assert from_there(0, 4, "cpu", None) == dict(total=6, steps=4) and times() == 3  # nothing is kept
    assert len(list(study.cache.glob("trained-*/state.pt"))) == 2
    assert not list(study.cache.glob("trained-*/checkpoint.pt"))


def test_a_needed_state_is_not_computed_where_the_record_is_there(study, times):
    study.profile = "cpu"
    record = study.run(from_there, "from-there", 1, n=4)
    shutil.rmtree(study.cache)
    assert study.run(from_there, "from-there", 1, n=4) == record and times() == 1


def test_code_and_data_decide_whether_a_needed_state_is_the_same(study, times, tmp_path, monkeypatch):
    ckpt = Checkpoint(tmp_path / "cache" / "run" / "checkpoint.pt")
    state = records.needed_state(ckpt, trained, "trained", n=3)
    assert torch.equal(records.needed_state(ckpt, trained, "trained", n=3)["weights"], state["weights"])
    assert times() == 1
    records.needed_state(ckpt, trained, "trained", data="other", n=3)
    assert times() == 2
    monkeypatch.setattr(records, "code_hash", lambda fn: "0123456789abcdef")
    records.needed_state(ckpt, trained, "trained", n=3)
    assert times() == 3


def test_force_computes_a_needed_state_again_but_once(study, times, tmp_path, monkeypatch):
    ckpt = Checkpoint(tmp_path / "cache" / "run" / "checkpoint.pt")
    records.needed_state(ckpt, trained, "trained", n=3)
    monkeypatch.setenv("NAS_NB_FORCE", str(time.time() + 60))
    records.needed_state(ckpt, trained, "trained", n=3)
    assert times() == 2
    monkeypatch.setenv("NAS_NB_FORCE", str(time.time() - 60))  # the batch began before
    records.needed_state(ckpt, trained, "trained", n=3)
    assert times() == 2


def test_a_damaged_needed_state_is_set_aside_and_computed_anew(study, times, tmp_path, capsys):
    ckpt = Checkpoint(tmp_path / "cache" / "run" / "checkpoint.pt")
    records.needed_state(ckpt, trained, "trained", n=3)
    (path,) = (tmp_path / "cache").glob("trained-*/state.pt")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert records.needed_state(ckpt, trained, "trained", n=3)["steps"] == 3 and times() == 2
    assert "it is damaged" in capsys.readouterr().out


def test_a_record_in_which_any_bit_has_changed_gives_no_other_result(study, tmp_path):
    study.run(square, "square", n=3, data=DIGITS)
    (path,) = study.cache.glob("*/record.json")
    whole, used = path.read_bytes(), 0
    record = json.loads(whole)
    identity = {k: record[k] for k in ("document", "label", "seed", "config")}
    assert read_record(path, identity) == record
    for at in range(len(whole)):
        copy = tmp_path / "copy.json"
        copy.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        found = read_record(copy, identity)
        (tmp_path / "copy.unreadable").unlink(missing_ok=True)
        if found:  # the name of the checksum itself was hit, or 1e5 became 1E5
            used += 1
            assert {k: v for k, v in found.items() if k != "run"} == {
                k: v for k, v in record.items() if k != "run"
            }
            assert found["run"].items() >= {k: v for k, v in record["run"].items() if k != "sha256"}.items()
    assert used < 10


def test_every_committed_record_carries_its_checksum_and_is_read():
    paths = sorted((root() / "figures").glob("*/*/records/*.json"))
    assert len(paths) > 300
    for path in paths:
        record = json.loads(path.read_text(encoding="utf-8"))
        assert read_record(path, {k: record[k] for k in ("document", "label", "seed", "config")}) == record


@pytest.mark.parametrize("where", ["cache/*/record.json", "figures/records/*.json"])
@pytest.mark.parametrize("checksum", [None, "", 7, "f" * 64], ids=str)
def test_a_record_without_its_checksum_is_not_trusted(study, where, checksum, tmp_path, capsys):
    study.profile = "paper"
    study.run(square, "square", n=3)
    (path,) = tmp_path.glob(where)
    record = json.loads(path.read_text())
    record["result"], record["run"] = (
        dict(value=10),
        {k: v for k, v in record["run"].items() if k != "sha256"}
        | (dict(sha256=checksum) if checksum is not None else {}),
    )
    path.write_text(to_json(record))
    (shutil.rmtree(study.cache) if "figures" in where else shutil.rmtree(study.folder))
    assert study.run(square, "square", n=3)["result"] == dict(value=9)
    assert study.counts["computed"] == 2 and "is not used" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["cache/*/record.json", "figures/records/*.json"])
def test_a_record_that_is_mended_while_we_look_is_not_set_aside(study, where, tmp_path, monkeypatch):
    "Another process computes the run after we have found its record broken, and before we have the lock."
    study.profile, alone = "paper", records.alone
    whole = study.run(square, "square", n=3)
    if "figures" in where:
        shutil.rmtree(study.cache)
    (path,) = tmp_path.glob(where)
    text = path.read_text()
    path.write_text("{")
    if "cache" in where:
        shutil.rmtree(study.folder / "records")

    def mended(*args):
        path.write_text(text)
        return alone(*args)

    monkeypatch.setattr(records, "alone", mended)
    assert study.run(square, "square", n=3) == whole and study.counts["computed"] == 1
    assert not list(tmp_path.rglob("*.unreadable"))


def test_a_run_begun_with_force_goes_on_without_it(study, monkeypatch):
    study.profile = "paper"
    study.run(square, "square", n=3)

    def late(n, seed, device, ckpt):
        i = (ckpt.load() or dict(i=0))["i"]
        ckpt.tick(lambda: dict(i=i + 1))
        return dict(value=i)

    monkeypatch.setattr(records, "code_hash", lambda fn: "0123456789abcdef")
    monkeypatch.setenv("NAS_NB_FORCE", "1")
    monkeypatch.setenv("NAS_NB_DEADLINE", "0")
    with pytest.raises(OutOfTime):
        study.run(late, "square", n=3)
    monkeypatch.delenv("NAS_NB_FORCE"), monkeypatch.delenv("NAS_NB_DEADLINE")
    assert study.run(late, "square", n=3)["result"] == dict(value=1)
    assert study.counts == dict(computed=2, reused=0, committed=0)
    (committed,) = (study.folder / "records").iterdir()
    assert json.loads(committed.read_text())["result"] == dict(value=1)


NAN, DATA = float("nan"), SimpleNamespace(about=dict(name="digits", hash="d0"))


@pytest.mark.parametrize(
    "unfit, says",
    [
        (dict(data=DATA), "SimpleNamespace: pass .* `.about`"),
        (dict(data=None), "`.about`"),
        (dict(data=dict(name="digits", hash=7)), "`name` and `hash`"),
        (dict(data=dict(name="digits", hash="d0", where=Path("x"))), "not what JSON can hold.*Path"),
        (dict(lr=NAN), "configuration's lr "),
        (dict(lr=[0.1, dict(end=-math.inf)]), "configuration's lr "),
        (dict(net=torch.ones(2)), "configuration's net .*Tensor"),
        (dict(seed=NAN), "configuration's seed "),
        *(
            (dict(label=label), "the label .* no file name")
            for label in ("", ".x", "a/b", "../x", "a b", "ü", "x\n", "a\\b", "a:b")
        ),
    ],
)
def test_what_no_record_could_hold_is_refused_before_anything_is_computed(study, unfit, says, tmp_path):
    fn = lambda **_: pytest.fail("computed")
    with pytest.raises(ValueError, match=says) as error:
        study.run(fn, **dict(label="x") | unfit)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", ["figure4-asng", "lambda-rank-16", "f=0.5,eps+_1", "-x", "3"])
def test_labels_that_name_a_folder(study, label):
    study.run(square, label, n=3)
    assert study.run(square, label, n=3)["label"] == label and study.counts["reused"] == 1


@pytest.mark.parametrize("result", [None, [1], 3, torch.ones(2), dict(x=torch.ones(2)), {(1, 2): 3}])
def test_a_function_that_returns_no_dict_of_json_is_named_and_nothing_is_recorded(study, result, tmp_path):
    def poor(seed, device, ckpt):
        return result

    study.profile = "paper"
    with pytest.raises((TypeError, ValueError), match="poor"):
        study.run(poor, "x")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


@pytest.mark.usefixtures("notes_calls")
def test_a_nan_in_a_result_is_recorded_and_used_again(study):
    calls = []

    def diverges(seed, device, ckpt):
        return dict(loss=[1.0, NAN], top=math.inf, run=calls.append(1))

    study.profile = "paper"
    for _ in range(2):
        result = study.run(diverges, "x")["result"]
        assert math.isnan(result["loss"][1]) and result["top"] == math.inf
    shutil.rmtree(study.cache)
    assert math.isnan(study.run(diverges, "x")["result"]["loss"][1])
    assert len(calls) == 1 and study.counts == dict(computed=1, reused=1, committed=1)


DIGITS = dict(name="CIFAR-10 (JPEG)", hash="0123", images=1797)


def test_the_data_set_is_recorded_but_does_not_make_it_another_run(study, capsys):
    study.profile = "paper"
    record = study.run(square, "square", n=3, data=DIGITS)
    assert record["data"] == DIGITS and record["made_by"]["data"] == "0123"
    assert study.run(square, "square", n=3, data="0123") == record  # the hash is what counts
    (committed,) = (study.folder / "records").iterdir()
    assert json.loads(committed.read_text()) == record
    other = study.run(square, "square", n=3, data=dict(name="CIFAR-10", hash="4567"))
    assert other == record and "with CIFAR-10 (JPEG); --force" in capsys.readouterr().out
    assert study.counts == dict(computed=1, reused=1, committed=1)
    assert "data" not in study.run(square, "plain", n=3, data="89")
    with pytest.raises(ValueError, match="must have `name` and `hash`"):
        study.run(square, "square", n=3, data=dict(name="digits"))


def checkpoint(path, state):
    "Write a checkpoint whose checksum is right, whatever is in it."
    torch.save(state, buffer := io.BytesIO())
    path.write_bytes(buffer.getvalue() + hashlib.sha256(buffer.getvalue()).hexdigest().encode())


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    checkpoint(tmp_path / "checkpoint.pt", dict(seconds=0.0, key="", x=Bomb()))
    assert Checkpoint(tmp_path / "checkpoint.pt").load() is None
    assert not (tmp_path / "exploded").exists()
    assert (tmp_path / "checkpoint.unreadable").exists()


def test_a_checkpoint_of_another_run_or_program_is_set_aside(tmp_path, capsys):
    ckpt = Checkpoint(tmp_path / "checkpoint.pt", key="mine")
    ckpt.save(dict(step=3))
    assert Checkpoint(ckpt.path, key="mine").load() == dict(step=3)
    assert Checkpoint(ckpt.path, key="other").load() is None
    assert "another run" in capsys.readouterr().out
    for content in (dict(step=3), [1, 2], torch.ones(2)):
        checkpoint(ckpt.path, content)
        assert ckpt.load() is None
        torch.save(content, ckpt.path)
        assert ckpt.load() is None
    assert capsys.readouterr().out.count("\n") == 6


def test_a_damaged_checkpoint_is_never_loaded(tmp_path, capsys):
    ckpt = Checkpoint(tmp_path / "checkpoint.pt")
    ckpt.save(dict(theta=torch.ones(100)))
    whole, aside = ckpt.path.read_bytes(), tmp_path / "checkpoint.unreadable"
    flipped = [whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :] for at in range(len(whole))]
    for content in [*flipped, b"", whole[:10], whole[:-1], whole[:-64], whole + b"x", b"x" * 64]:
        ckpt.path.write_bytes(content)
        assert ckpt.load() is None and aside.read_bytes() == content and not ckpt.path.exists()
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "checkpoint.pt" in said and "damaged" in said
        aside.unlink()


def test_what_is_set_aside_overwrites_nothing(tmp_path, capsys):
    for content in "abca":
        (tmp_path / "record.json").write_text(content)
        set_aside(tmp_path / "record.json", "so")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "record.unreadable": "a",
        "record.unreadable-2": "b",
        "record.unreadable-3": "c",
    }
    set_aside(tmp_path / "record.json", "gone meanwhile")


@pytest.mark.usefixtures("notes_calls")
def test_a_damaged_checkpoint_begins_the_run_anew(study, capsys):
    calls = []

    def fn(n, seed, device, ckpt):
        calls.append(ckpt.load())
        ckpt.save(dict(half=n))
        if len(calls) < 4:
            raise KeyboardInterrupt
        return dict(value=n)

    def run(n=3):
        with pytest.raises(KeyboardInterrupt):
            study.run(fn, "x", n=n)

    run(), run()
    (path,) = study.cache.glob("*/checkpoint.pt")
    path.write_bytes(path.read_bytes()[:500])
    run()
    assert calls == [None, dict(half=3), None] and "damaged" in capsys.readouterr().out
    foreign = path.read_bytes()
    assert study.run(fn, "x", n=3)["result"] == dict(value=3) and calls[3] == dict(half=3)
    calls.clear()
    run(4)
    (path,) = study.cache.glob("*/checkpoint.pt")
    path.write_bytes(foreign)
    run(4)
    assert calls == [None, None] and "another run" in capsys.readouterr().out


def test_what_a_kill_left_half_written_is_removed_by_the_next_run(study, tmp_path):
    study.run(square, "square", n=3)
    (path,) = study.cache.glob("*/record.json")
    path.unlink()
    (path.parent / ".checkpoint.pt.abcd1234.part").touch()
    study.run(square, "square", n=3)
    (path.parent / "checkpoint.pt").touch()  # killed between its record and the end
    study.run(square, "square", n=3)
    assert [p.name for p in path.parent.iterdir()] == ["record.json"]
    remove_parts(tmp_path / "nowhere")


@pytest.mark.parametrize("every", [NAN, -1, -math.inf, "x", "", [], "nan"], ids=str)
def test_the_time_between_checkpoints_is_a_number(tmp_path, monkeypatch, every):
    with pytest.raises(ValueError, match="seconds between two checkpoints") as error:
        Checkpoint(tmp_path / "a.pt", every=every)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("NAS_NB_CHECKPOINT_SECONDS", str(every))
    with pytest.raises(ValueError, match="seconds between two checkpoints"):
        Checkpoint(tmp_path / "a.pt")
    assert [Checkpoint(tmp_path / "a.pt", every=e).every for e in (0, 1.5, math.inf)] == [0, 1.5, math.inf]


@pytest.mark.parametrize("seconds", [NAN, math.inf, -1.0, "x", None, torch.ones(1)], ids=str)
def test_a_checkpoint_with_another_time_than_a_number_is_set_aside(tmp_path, capsys, seconds):
    checkpoint(tmp_path / "a.pt", dict(step=3, key="", seconds=seconds))
    assert Checkpoint(tmp_path / "a.pt").load() is None and "was altered" in capsys.readouterr().out


def test_what_a_kill_left_of_a_checkpoint_outside_a_study_is_swept_by_who_comes_next(tmp_path):
    for name in (".a.pt.k1ll3d__.part", ".b.pt.k1ll3d__.part", ".a.pt.x.part.keep"):
        (tmp_path / name).touch()
    assert Checkpoint(tmp_path / "a.pt").load() is None
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.pt.x.part.keep", ".b.pt.k1ll3d__.part"]
    Checkpoint(tmp_path / "none" / "a.pt").load()


def test_a_checkpoint_that_cannot_be_read_now_is_not_thrown_away(tmp_path, monkeypatch):
    ckpt = Checkpoint(tmp_path / "a.pt")
    ckpt.save(dict(step=3))
    with monkeypatch.context() as m, pytest.raises(OSError, match="Stale file handle"):
        m.setattr(
            Path,
            "read_bytes",
            lambda self: (_ for _ in ()).throw(OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self))),
        )
        ckpt.load()
    assert ckpt.load() == dict(step=3)


POINTERS = [
    b"\xff\xfe",
    b"",
    b"together",
    b"together-x-0123456789abcdef",
    b"together-2-../../..",
    b"../../x",
    b"a\0b",
    b"x" * 5000,
    b"together-2-0123456789abcdef\n",
    None,
]


@pytest.mark.usefixtures("notes_calls")
@pytest.mark.parametrize("content", POINTERS, ids=lambda c: repr(c)[:30])
def test_a_pointer_to_a_group_that_is_none_is_no_obstacle(study, monkeypatch, content):
    steps, runs = [], [dict(label="slow", seed=seed) for seed in (0, 1)]
    stopped(study, monkeypatch, slow_group(steps), runs)
    pointers = list(study.cache.glob("*/together"))
    assert len(pointers) == 2
    for path in pointers:
        path.unlink()
        path.write_bytes(content) if content is not None else None
    assert [
        r["result"]["seed"]
        for r in study.run_together(slow_group(steps), runs[:1])
        + study.run_together(slow_group(steps), runs[1:])
    ] == [0, 1]
    assert not list(study.cache.rglob("together"))


def test_what_lies_in_the_way_as_a_folder_is_named_or_moved(study, capsys):
    study.run(square, "square", n=3)
    (path,) = study.cache.glob("*/record.json")
    path.unlink()
    for _ in range(2):
        path.mkdir()
        assert study.run(square, "square", n=3)["result"] == dict(value=9)
        path.unlink()
    assert capsys.readouterr().out.count("set aside as record.unreadable") == 2
    (path.parent / "together").mkdir()
    assert study.run(square, "square", n=3)["result"] == dict(value=9)
    shutil.rmtree(path.parent)
    path.parent.touch()  # a file where the run's folder should be
    with pytest.raises(OSError) as error:
        study.run(square, "square", n=3)
    assert "\n" not in str(error.value) and error.value.filename


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(study):
    study.run(square, "square", n=3)
    (path,) = study.cache.glob("*/record.json")
    path.unlink()
    for pipe in (
        path,
        path.with_name("together"),
        path.with_name("checkpoint.pt"),
        study.cache / ".x.lock",
        run_lock(path.parent).path,
    ):
        os.mkfifo(pipe)
    assert study.run(square, "square", n=3)["result"] == dict(value=9)
    assert path.is_file() and run_lock(path.parent).holder() == "another process"


def test_a_file_that_can_neither_be_used_nor_moved_is_named(tmp_path, monkeypatch):
    (tmp_path / "record.json").write_text("{")
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EROFS, os.strerror(errno.EROFS)))
    )
    with pytest.raises(
        OSError, match="Read-only file system .it cannot be used: so; nor can it be moved.*record.json"
    ):
        set_aside(tmp_path / "record.json", "so")


def test_a_result_that_would_lose_an_entry_or_nests_without_end_is_refused(study):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for result, says in (
        (dict(x={1: "a", "1": "b"}), "two keys are the same as text"),
        (dict(x=deep), "not what JSON can hold"),
    ):
        with pytest.raises(ValueError, match=says):
            study.run(lambda seed, device, ckpt: result, "x")
    with pytest.raises(ValueError, match="two keys are the same"):
        study.run(square, "x", n={1: 2, "1": 3})
    assert not list(study.cache.rglob("record.json"))


@pytest.mark.parametrize(
    "change",
    [
        dict(data=[]),
        dict(data=dict(name=7, hash="x")),
        dict(data=dict(name="\x1b[2J", hash="x")),
        dict(data=dict(name="\ud800", hash="x")),
        dict(made_by=dict(code=[])),
    ],
    ids=str,
)
def test_a_record_whose_origin_cannot_be_told_is_not_used(study, change, capsys):
    study.profile = "paper"
    record = study.run(square, "square", n=3)
    shutil.rmtree(study.cache)
    (path,) = (study.folder / "records").iterdir()
    path.write_text(to_json(seal(record | change)))
    assert study.run(square, "square", n=3)["result"] == dict(value=9) and study.counts["computed"] == 2
    assert "it is not whole" in capsys.readouterr().out


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_atomic(tmp_path / "x.json", "old")
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_atomic(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("overrides", ["m=1", "n", "n=x", "n=1.5", "=3"])
def test_overrides_that_do_not_fit_are_refused_in_one_line(overrides):
    with pytest.raises(ValueError, match="cannot set") as error:
        resolve(dict(paper=dict(n=3, eps=(0.5, 1.0))), "paper", overrides)
    assert "\n" not in str(error.value)


def test_in_a_test_the_profile_is_smoke(monkeypatch):
    profiles = dict(paper=dict(n=3), smoke=dict(n=1))
    monkeypatch.setenv("IN_TEST", "1")
    assert Study("51_asng_nas", profiles, "paper", device="cpu").cfg.n == 1


@pytest.mark.parametrize(
    "kwargs, error",
    [
        (dict(profile="big"), "known are"),
        (dict(seeds=-1), "must be a whole number"),
        (dict(device="gpu"), "unknown device"),
    ],
)
def test_a_study_with_wrong_parameters_says_what_is_known(monkeypatch, kwargs, error):
    monkeypatch.delenv("IN_TEST", raising=False)
    with pytest.raises(ValueError, match=error):
        Study("51_asng_nas", dict(paper=dict(seeds=1), quick={}, smoke={}), **kwargs)


@pytest.mark.parametrize("seeds", ["3", 1.5, None, True, -1, [3]])
def test_seeds_of_a_study_are_a_whole_number(seeds):
    with pytest.raises(ValueError, match="must be a whole number from 1 on"):
        Study("51_asng_nas", dict(smoke=dict(seeds=2)), "smoke", seeds)


# -- what is known of data that are not here, and where results go --


def test_a_redraw_needs_no_data_set(study, capsys):
    study.profile = "cpu"
    about = dict(name="MNIST", hash="m0", source="mnist", shape=[1, 28, 28])

    def missing():
        raise DataError("mnist is not here")

    with pytest.raises(DataError):
        study.about(missing, source="mnist")
    study.run(lambda source, seed, device, ckpt: {}, "x", data=about, source="mnist")
    assert study.about(lambda: "at hand", source="mnist") == "at hand"
    assert study.about(missing, source="mnist") == about and "MNIST is not at hand" in capsys.readouterr().out
    with pytest.raises(DataError):
        study.about(missing, source="cifar10")
    with pytest.raises(KeyError):  # a fault is no missing data set
        study.about(lambda: {}["x"], source="mnist")
    study.run(lambda source, seed, device, ckpt: {}, "y", data=about | dict(hash="m1"), source="mnist")
    with pytest.raises(DataError):  # two data sets of one name
        study.about(missing, source="mnist")


SIZES = dict(paper=dict(n=3, seeds=2), cpu={}, quick={}, smoke={})


@pytest.mark.parametrize(
    "profile, env, settings, commits",
    [(p, "committed", {}, True) for p in ("paper", "cpu", "quick")]
    + [(p, "", {}, False) for p in ("paper", "cpu", "quick")]
    + [
        ("cpu", "committed", dict(overrides="n=4"), False),
        ("quick", "committed", dict(seeds=1), False),
        ("cpu", "committed", dict(overrides="n=3", seeds=2), True),
    ],
)
def test_only_the_batch_with_the_profiles_own_sizes_writes_where_git_looks(
    monkeypatch, profile, env, settings, commits
):
    monkeypatch.delenv("IN_TEST", raising=False)
    monkeypatch.setenv("NAS_NB_FIGURES", env)
    s = Study("51_asng_nas", SIZES, profile, device="cpu", **settings)
    where = f"figures/{profile}/51_asng_nas"
    assert s.folder == root() / ("" if commits else "data") / where and s.home == root() / where
    assert (f"figures go to {where}\n" in repr(s)) == commits and (
        f"data/{where} (git ignores it" in repr(s)
    ) != commits


def test_runs_of_quick_are_not_those_of_cpu(study, tmp_path):
    "Both may have the same configuration, but not the same arithmetic."
    quick = Study("51_asng_nas", SIZES, "quick", device="cpu")
    quick.cache = study.cache
    quick.home = quick.folder = tmp_path / "quick"
    quick.run(square, "square", n=3)
    study.profile, study.portable = "cpu", False
    study.run(square, "square", n=3)
    assert (quick.counts["computed"], study.counts["computed"], study.counts["reused"]) == (1, 1, 0)
