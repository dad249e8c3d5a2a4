"""Runs on a cluster of dask.distributed: a worker that dies, runs that fail, what is left, what is refused."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import slow_runs
import torch
from projects import DRAWS, run, status, write

from nas_nb import cli
from nas_nb import cluster as module
from nas_nb.bits import portable_variables
from nas_nb.cluster import (
    Promise,
    Task,
    check_cluster,
    connect,
    run_folder,
    scheduler_address,
    settle,
    unlike,
)
from nas_nb.files import Checkpoint, Interrupted, OutOfTime, run_lock
from nas_nb.notebooks import Refused
from nas_nb.study import Study

HERE = Path(__file__).resolve().parent
dask = pytest.mark.skipif(
    module.importlib.util.find_spec("distributed") is None,
    reason="dask.distributed is not installed (the extra `cluster`)",
)


def new_study(folder: Path, profile: str = "paper") -> Study:
    study = Study(
        "51_asng_nas", dict(paper=dict(n=3), quick={}, smoke={}), profile=profile, device="cpu", threads=1
    )
    study.cache, study.home = folder / "cache", folder / "figures"
    study.folder = study.home
    return study


@pytest.fixture
def study(tmp_path):
    return new_study(tmp_path)


class Local:
    "A scheduler in this process, and workers in processes of their own."

    def __init__(self, folder: Path):
        from distributed import LocalCluster

        quiet = dict(dashboard_address=":0", silence_logs=50)
        self.cluster = LocalCluster(n_workers=0, host="127.0.0.1", scheduler_port=0, **quiet)
        self.address, self.folder, self.workers = self.cluster.scheduler_address, folder, {}

    def start(self, name: str, *options: str, **env: str) -> subprocess.Popen:
        path = os.pathsep.join([str(HERE), *filter(None, sys.path)])
        set_ = portable_variables("quick") | dict(PYTHONPATH=path, NAS_NB_CHECKPOINT_SECONDS="0.1") | env
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--no-nanny"]
        command += ["--name", name, "--nthreads", "1", "--no-dashboard", *options]
        with open(self.folder / f"{name}.log", "w") as log:
            how = dict(cwd=self.folder, env=os.environ | set_, stdout=log, stderr=log)
            self.workers[name] = subprocess.Popen(command, **how)
        return self.workers[name]

    def end(self, name: str) -> None:
        worker = self.workers.pop(name)
        worker.kill()
        worker.wait()

    def wait_for(self, n: int) -> None:
        end = time.monotonic() + 120
        while len(self.cluster.scheduler.workers) != n:
            assert time.monotonic() < end, f"{len(self.cluster.scheduler.workers)} workers, not {n}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    local = Local(tmp_path_factory.mktemp("workers"))
    yield local
    for name in list(local.workers):
        local.end(name)
    local.cluster.close()


@pytest.fixture
def far(local, monkeypatch):
    "A cluster with one worker at least, to which this process sends its runs."
    if not local.workers:
        local.start("w1")
        local.wait_for(1)
    monkeypatch.setenv("NAS_NB_SCHEDULER", local.address)
    yield local
    for there in module._OPEN.values():
        there.failed.clear()


def at_home(study: Study, tmp_path: Path, monkeypatch) -> Study:
    monkeypatch.delenv("NAS_NB_SCHEDULER")
    return new_study(tmp_path / "home", study.profile)


def is_idle(local: Local) -> bool:
    scheduler = local.cluster.scheduler
    return not scheduler.tasks and not any(w.processing for w in scheduler.workers.values())


def held_by_workers(local: Local) -> int:
    "How many tasks the workers still have."
    there = next(c for c in module._OPEN.values() if c.address == local.address)
    return sum(there.client.run(slow_runs.tasks_held).values())


def until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# -- a worker dies --


@dask
def test_a_worker_is_killed_midway_and_nothing_is_lost(local, study, tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_NB_SCHEDULER", local.address)
    for name in ("w0", "w1"):
        local.workers.get(name) or local.start(name)
    local.wait_for(2)
    steps, seeds = 60, range(6)
    promises = [study.run(slow_runs.walk, "walk", s, steps=steps) for s in seeds]
    assert study.counts["computed"] == 0 and all(isinstance(p, Promise) for p in promises)
    first = promises[0]["result"]["x"]
    until(lambda: any(study.cache.rglob("checkpoint.pt")))
    local.end("w0")
    far = [p["result"] for p in promises]
    assert study.counts == dict(computed=6, reused=0, committed=0)
    home = at_home(study, tmp_path, monkeypatch)
    own = [home.run(slow_runs.walk, "walk", s, steps=steps, pause=0.0)["result"] for s in seeds]
    assert [r["x"] for r in far] == [r["x"] for r in own] and far[0]["x"] == first
    again = [study.run(slow_runs.walk, "walk", s, steps=steps) for s in seeds]
    assert [r["result"] for r in again] == far and study.counts["reused"] == 6
    left = {p.name for p in study.cache.rglob("*") if p.is_file()}
    assert left == {"record.json"}
    until(lambda: is_idle(local))


@dask
def test_a_run_whose_workers_are_taken_away_again_and_again_is_not_blamed(far, study, monkeypatch):
    "dask would give the run up after more than three."
    monkeypatch.setenv("NAS_NB_CHECKPOINT_SECONDS", "1000")
    for name in list(far.workers):
        far.end(name)
    far.wait_for(0)
    promise, deaths = study.run(slow_runs.walk, "preempted", steps=100), 5
    for death in range(deaths):
        far.start(f"p{death}", NAS_NB_CHECKPOINT_SECONDS="1000")
        until(lambda: any(w.processing for w in far.cluster.scheduler.workers.values()), 120)
        far.end(f"p{death}")
        until(lambda: not far.cluster.scheduler.workers)
    assert far.cluster.scheduler.allowed_failures == module.ALLOWED_FAILURES > deaths > 3
    assert max(t.suspicious for t in far.cluster.scheduler.tasks.values()) == deaths
    far.start("w1")
    assert promise["result"] == dict(slow_runs.walk(100, 0, None, Checkpoint(study.cache / "none"), 0.0))


@dask
def test_a_record_from_a_worker_is_that_of_one_process(far, tmp_path, monkeypatch):
    from nas_nb.papers.asng_runs import hitting_times

    small = dict(method="ASNG", delta0=[1.0], eps_x=[0.02], seeds=4, max_updates=300, horizon=300, D=8, K=3)
    study = new_study(tmp_path, "quick")
    there = dict(study.run(hitting_times, "times", **small))
    here = at_home(study, tmp_path, monkeypatch).run(hitting_times, "times", **small)
    assert there["result"] == here["result"]
    assert {k: v for k, v in there["made_by"].items() if k != "isa"} == {
        k: v for k, v in here["made_by"].items() if k != "isa"
    }
    assert there.keys() == here.keys() and list(there["run"]) == list(here["run"])


@dask
def test_runs_that_are_computed_together_travel_together(far, study):
    runs = [dict(label="pair", seed=s) for s in range(3)]
    found = study.run_together(slow_runs.walks, runs, steps=5)
    assert [r["result"]["x"] for r in found] == [5, 10, 15] and found[1]["run"]["together"] == 3
    assert study.counts["computed"] == 3


@dask
def test_a_run_that_is_asked_for_twice_is_computed_once(far, study):
    one, same = (study.run(slow_runs.walk, "twice", 1, steps=20) for _ in range(2))
    assert one["result"] == same["result"] and study.counts["computed"] == 1


@dask
def test_force_computes_again(far, study, monkeypatch):
    study.run(slow_runs.walk, "forced", steps=3)["result"]
    monkeypatch.setenv("NAS_NB_FORCE", str(time.time()))
    study.run(slow_runs.walk, "forced", steps=3)["result"]
    assert study.counts["computed"] == 2


# -- a long run in pieces --


@dask
def test_a_run_of_many_searches_is_cut_and_its_record_is_that_of_one_piece(far, tmp_path, monkeypatch):
    from nas_nb.papers.arena_lookup import lookup_run

    asked = dict(table="digits", counts=[5, 20], judged=[20], searches=20, null=False, settings={})
    study, out = new_study(tmp_path, "quick"), []
    promises = [study.run(lookup_run, "look", 3, method=m, **asked) for m in ("controller", "PNAS", "GA")]
    assert [len(a.tasks) for a in module._OPEN[far.address]._waiting()] == [2, 2, 1]
    there = [dict(p) for p in promises]
    home = at_home(study, tmp_path, monkeypatch)
    for record, method in zip(there, ("controller", "PNAS", "GA")):
        here = home.run(lookup_run, "look", 3, method=method, **asked)
        assert record["result"] == here["result"] and record.keys() == here.keys() and not out
        assert record["config"] == here["config"] and record["made_by"]["code"] == here["made_by"]["code"]
        assert list(record["run"]) == list(here["run"])
    assert {p.name for p in study.cache.rglob("*") if p.is_file()} == {"record.json"}
    until(lambda: is_idle(far))


@dask
def test_pieces_that_have_arrived_are_kept(far, study, monkeypatch):
    asked = dict(parts=4, steps=100)
    promise, pause, seen = study.run(slow_runs.sums, "sums", **asked), module.Cluster._pause, []

    def stop(self):
        pause(self)
        seen[:] = study.cache.rglob("piece.json")
        if seen:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(module.Cluster, "_pause", stop)
    with pytest.raises(Interrupted, match="what had arrived is kept"):
        promise["result"]
    monkeypatch.setattr(module.Cluster, "_pause", pause)
    until(lambda: is_idle(far) and not held_by_workers(far))
    kept = list(study.cache.rglob("piece.json"))
    assert 0 < len(kept) < 4
    before, asks, given = kept[0].read_text(), [], module.Cluster._submit
    monkeypatch.setattr(module.Cluster, "_submit", lambda self, *a: asks.append(1) or given(self, *a))
    altered = before.replace('"x": ', '"x": 1')  # it is computed again
    kept[0].write_text(altered)
    again = study.run(slow_runs.sums, "sums", **asked)
    assert len(asks) == 5 - len(kept) and altered != before
    own = [slow_runs.walk(100, s, None, Checkpoint(study.cache / "none"), 0.0)["x"] for s in range(4)]
    assert again["result"]["x"] == own
    assert {p.name for p in study.cache.rglob("*") if p.is_file()} == {"record.json"}


@dask
def test_the_error_of_one_piece_ends_the_others(far, study, monkeypatch):
    how = module.Cut(lambda seed: [dict(seed=s) for s in range(4)], slow_runs.fail, None)
    monkeypatch.setitem(module._CUTS, slow_runs.fail, how)
    with pytest.raises(RuntimeError, match="^bad, seed 5: ValueError: seed . is unlucky"):
        study.run(slow_runs.fail, "bad", 5)["result"]
    until(lambda: is_idle(far))
    settle()


@dask
def test_a_run_that_ends_before_we_look_is_not_lost(far, study, monkeypatch):
    given = module.Cluster.ask

    def ask(self, asked, *more):  # returns when all has arrived, or the run has failed
        given(self, asked, *more)
        assert asked.done.wait(60)

    monkeypatch.setattr(module.Cluster, "ask", ask)
    with pytest.raises(RuntimeError, match="seed 5 is unlucky"):
        study.run(slow_runs.fail, "bad", 5)["result"]
    assert study.run(slow_runs.walk, "soon", 5, steps=3, pause=0.0)["result"]["begun"] == 0
    settle()


# -- what fails, and what ends it --


@dask
def test_the_error_of_a_run_is_raised_where_its_promise_is_looked_into(far, study):
    promise, good = study.run(slow_runs.fail, "bad", 7), study.run(slow_runs.walk, "good", steps=2)
    with pytest.raises(RuntimeError, match="^bad, seed 7: ValueError: seed 7 is unlucky .on the worker w"):
        promise["result"]
    assert good["result"] and study.counts["computed"] == 1
    settle()


@dask
def test_an_error_that_nobody_looked_at_is_raised_at_the_end(far, study):
    study.run(slow_runs.fail, "bad", 8)
    with pytest.raises(RuntimeError, match="seed 8 is unlucky"):
        study.save_claims()
    study.save_claims()


@dask
def test_what_the_place_may_have_caused_is_tried_again_and_then_raised(far, study):
    says = r"full, seed 0: OSError: .*No space left on device .tried 3 times.$"
    with pytest.raises(RuntimeError, match=says):
        study.run(slow_runs.full, "full")["result"]


@dask
@pytest.mark.parametrize("how", ["interrupt", "time limit"])
def test_what_is_stopped_leaves_the_cluster_clean_and_goes_on_later(far, study, monkeypatch, how):
    promises = [study.run(slow_runs.walk, "long", s, steps=400) for s in range(2)]
    until(lambda: any(study.cache.rglob("checkpoint.pt")))
    if how == "interrupt":
        monkeypatch.setattr(module.Cluster, "_pause", lambda self: signal.raise_signal(signal.SIGINT))
    else:
        monkeypatch.setenv("NAS_NB_DEADLINE", "0")
    with pytest.raises(Interrupted if how == "interrupt" else OutOfTime, match="what had arrived is kept"):
        promises[0]["result"]
    until(lambda: is_idle(far) and not held_by_workers(far))
    lock = run_lock(next(p for p in study.cache.iterdir() if p.is_dir()))
    assert lock.take() and not any(study.cache.rglob("asked"))
    lock.release()
    monkeypatch.undo()
    monkeypatch.setenv("NAS_NB_SCHEDULER", far.address)
    begun = study.run(slow_runs.walk, "long", 0, steps=400)["result"]["begun"]
    assert begun > 0


# -- who may not take part --


@pytest.mark.parametrize(
    "text",
    ["host:8786", "http://host:8786", "tcp://host", "tcp://ho st:1", "tcp://host:70000", "ws://h:1", ""],
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(Refused, match="is no address of a scheduler: write tcp://HOST:8786"):
        scheduler_address(text)


def test_without_dask_a_line_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Refused, match=re.escape("pip install -e '.[cluster]'")):
        connect("tcp://127.0.0.1:1")


@dask
def test_where_no_scheduler_answers_a_line_says_so(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        RuntimeError, match=f"no scheduler of dask answers at tcp://127.0.0.1:{port} "
    ) as told:
        check_cluster(f"tcp://127.0.0.1:{port}", "quick", gpu=False)
    assert "\n" not in str(told.value)


@dask
def test_the_command_line_answers_in_one_line(project):
    write(project, "10_a", DRAWS)
    path = dict(PYTHONPATH=os.pathsep.join(filter(None, [str(HERE.parent), *sys.path])))
    for address, code, says in (
        ("http://h:1", 2, "is no address"),
        ("tcp://127.0.0.1:1", 1, "no scheduler"),
    ):
        done = run(project, "figures", "--scheduler", address, **path)
        assert done.returncode == code and says in done.stderr and "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr


SENDS = """import slow_runs
from nas_nb.study import Study
study = Study("10_a", PROFILES, profile, seeds, device, overrides, threads=1)
found = [study.run(slow_runs.walk, "walk", s, steps=5, pause=0.0) for s in range(3)]
save_fig("loss", "x\\n" + "".join(f"{r['result']['x']}\\n" for r in found))
study.save_claims()
study.report()"""


@dask
def test_the_command_line_sends_the_runs_of_a_notebook(far, project):
    write(project, "10_a", SENDS)
    path = dict(PYTHONPATH=os.pathsep.join([str(HERE.parent), str(HERE), *filter(None, sys.path)]))
    done = run(project, "figures", "--scheduler", far.address, **path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert status(done, "10_a") == "ok" and f"at {far.address}" in done.stdout
    own = [slow_runs.walk(5, s, None, Checkpoint(project / "none"), 0.0)["x"] for s in range(3)]
    drawn = (project / "figures" / "quick" / "10_a" / "loss.csv").read_text().split()
    assert drawn == ["x", *map(str, own)]
    assert len(list((project / "data" / "runs" / "10_a").glob("*/record.json"))) == 3
    until(lambda: is_idle(far))


PRELOADS = {
    "has no nas_nb": "import sys\nsys.modules['nas_nb'] = None",
    "has pillow 1.0 (here ": "import importlib.metadata as m\nm.version = (lambda old: lambda n: '1.0' if n == 'pillow' else old(n))(m.version)",
}


@dask
@pytest.mark.parametrize("says", PRELOADS)
def test_a_worker_that_lacks_something_is_named_before_anything_starts(far, says):
    preload = far.folder / "preload.py"
    preload.write_text(PRELOADS[says])
    far.start("odd", "--preload", str(preload))
    far.wait_for(len(far.workers))
    try:
        with pytest.raises(RuntimeError, match=f"the worker tcp://.* {re.escape(says)}") as told:
            check_cluster(far.address, "paper", gpu=False)
        assert "\n" not in str(told.value)
    finally:
        far.end("odd")
        far.wait_for(len(far.workers))


@dask
def test_a_gpu_that_nobody_offers_is_missed_before_anything_starts(far):
    with pytest.raises(RuntimeError, match="offers a GPU: start those that have one with --resources GPU=1"):
        check_cluster(far.address, "paper", gpu=True)
    assert check_cluster(far.address, "paper", gpu=False) == [f"{len(far.workers)} workers at {far.address}"]


@pytest.mark.parametrize("here", ["cuda", "cpu"])
def test_auto_asks_for_a_gpu_as_a_study_does(here, monkeypatch):
    monkeypatch.setattr("nas_nb.cli.get_device", lambda name: SimpleNamespace(type=here))
    asks = lambda device, profile: cli._wants_gpu(SimpleNamespace(device=device, profile=profile))
    assert asks("auto", "cpu") == (here == "cuda") and asks("cuda:1", "cpu")
    assert not asks("auto", "quick") and not asks("cpu", "cpu")  # `quick` is computed on processors


def test_what_differs_is_named():
    assert unlike(dict(a="1", b="2"), dict(a="1", b="2")) == ""
    assert unlike(dict(a="1"), dict(a="1", b="2")) == "b None (here 2)"


def test_a_folder_is_shared_only_if_it_reads_the_same(tmp_path):
    there = tmp_path / "asker" / "doc" / "walk-1"
    there.mkdir(parents=True)
    task = Task(None, [], "walk", "k", str(there), "abc", "cpu", 1, "paper", {}, "", {})
    own = tmp_path / "own" / "runs" / "doc" / "walk-1"
    assert run_folder(task, tmp_path / "own") == (own, False)
    (there / "asked").write_text("xyz")
    assert run_folder(task, tmp_path / "own") == (own, False)
    (there / "asked").write_text("abc")
    assert run_folder(task, tmp_path / "own") == (there, True)


# -- nas-nb search --

MINE = """from nas_nb.cells import CellSpace
from nas_nb.operations import DARTS_OPS
from nas_nb.search import Distribution

OURS = CellSpace({k: DARTS_OPS[k] for k in ("none", "skip_connect", "sep_conv_3x3")}, nodes=2)


class Mine(Distribution):
    def __init__(self, space, seed):
        super().__init__(space, seed=seed + 1)
"""
OWN = "--method", "mine.py:Mine", "--space", "mine.py:OURS"
TINY = "--channels 2 --cells 1 --steps 40,30,3 --seeds 2".split()


@pytest.fixture
def here(tmp_path, monkeypatch):
    "A folder with one's own method and space, which no worker has."
    (place := tmp_path / "here").mkdir()
    (place / "mine.py").write_text(MINE)
    monkeypatch.chdir(place)
    monkeypatch.setenv("NAS_NB_CHECKPOINT_SECONDS", "0.1")
    return place


def search(*words) -> int:
    return cli.main(["search", "digits", *TINY, *map(str, words)])


def search_at_home(place: Path, *words: str) -> str:
    "In a process with the arithmetic of the workers."
    path = os.pathsep.join([str(HERE.parent), *filter(None, sys.path)])
    env = os.environ | portable_variables("quick") | dict(PYTHONPATH=path, OMP_NUM_THREADS="1")
    command = [sys.executable, "-m", "nas_nb.cli", "search", "digits", *TINY, *words]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    "A search at home."
    (place := tmp_path_factory.mktemp("home")).joinpath("mine.py").write_text(MINE)
    search_at_home(place, *OWN, "--out", "o")
    return place / "o"


def found(folder: Path) -> tuple[dict, dict]:
    return json.loads((folder / "found.json").read_text()), torch.load(folder / "weights.pt")


def alike(one: Path, other: Path) -> bool:
    (about, weights), (about_2, weights_2) = found(one), found(other)
    same = all(torch.equal(weights[k], weights_2[k]) for k in weights)
    return about == about_2 and same and weights.keys() == weights_2.keys()


@dask
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("ends", ["", "a worker is killed", "Ctrl-C", "kill"])
def test_a_search_on_a_cluster_is_that_of_one_process(far, here, home, monkeypatch, capfd, ends):
    for name in ("w1", "w2"):
        far.workers.get(name) or far.start(name)
    far.wait_for(2)
    monkeypatch.delenv("NAS_NB_SCHEDULER")
    pause, at_work = module.Cluster._pause, lambda: any(here.rglob("checkpoint.pt"))

    def disturb(self):
        pause(self)
        if ends and at_work():
            monkeypatch.setattr(module.Cluster, "_pause", pause)
            if ends == "a worker is killed":
                return far.end("w2")
            signal.raise_signal(signal.SIGINT if ends == "Ctrl-C" else signal.SIGTERM)

    monkeypatch.setattr(module.Cluster, "_pause", disturb)
    there = "--scheduler", far.address
    status = search(*OWN, *there, "--out", "far")
    out, err = capfd.readouterr()
    assert ("2 workers at" in out) and ("Traceback" not in out + err)
    until(lambda: is_idle(far) and not held_by_workers(far))
    assert module.Cluster._pause is (pause if ends else disturb)
    if ends in ("Ctrl-C", "kill"):
        assert status == 130 and "what had arrived is kept: run again to go on: nas-nb search" in out
        assert not (here / "far" / "report.html").exists()
        assert "going on in far" in search_at_home(here, *OWN, "--out", "far")
    else:
        assert status == 0 and "8/8 training of the best of them, seed 1: done" in out
    assert alike(here / "far", home)
    assert {p.suffix for p in (here / "far" / "parts").rglob("*") if p.is_file()} <= {".done", ".csv"}
    assert ends or "workers of a cluster" in (here / "far" / "report.html").read_text()


@dask
def test_a_search_that_is_finished_asks_nobody(far, here, capfd):
    words = "--space", "nb201", "--out", "o"
    assert search(*words) == 0 and search(*words, "--scheduler", "tcp://127.0.0.1:1") == 0
    assert "is finished" in capfd.readouterr()[0]


@dask
@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("http://h:1", 2, "is no address of a scheduler: write tcp://HOST:8786"),
        ("", 2, "is no address of a scheduler"),
        ("tcp://127.0.0.1:1", 1, "no scheduler of dask answers at tcp://127.0.0.1:1"),
    ],
)
def test_a_search_is_refused_in_one_line(here, capfd, address, code, says):
    assert search("--scheduler", address) == code
    out, err = capfd.readouterr()
    assert says in err and err.count("\n") == 1 and "Traceback" not in out + err
    assert "measuring" not in out


@dask
def test_a_module_that_workers_lack_is_named(far, here, monkeypatch, capfd):
    monkeypatch.delenv("NAS_NB_SCHEDULER")
    (here / "helper.py").write_text("from nas_nb.search import Uniform\nclass Base(Uniform): pass")
    (here / "theirs.py").write_text("import helper\nclass Mine(helper.Base): pass")
    monkeypatch.syspath_prepend(here)
    words = "--method", "theirs.py:Mine", "--scheduler", far.address
    assert search(*words) == 1
    out, err = capfd.readouterr()
    assert "No module named 'helper'" in err and err.count("\n") == 1 and "Traceback" not in out + err
    until(lambda: is_idle(far))
