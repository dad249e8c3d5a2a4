"""Runs: computed once, the same after a kill, never taken from what is not theirs."""

import importlib
import json
import linecache
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from nas_nb import asng, records, streams
from nas_nb.core import resolve, root
from nas_nb.papers import asng_nas
from nas_nb.papers.asng_nas import hitting_times
from nas_nb.records import Checkpoint, OutOfTime, Study, code_hash, to_json, write_atomic

SMALL = dict(method="ASNG", delta0=[1.0, 0.02], eps_x=[0.02], seeds=8, max_updates=1500, horizon=1500, D=16, K=5)


def square(n, seed, device, ckpt):
    return dict(value=n * n + seed)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


@pytest.fixture
def study(tmp_path):
    study = Study("51_asng_nas", dict(paper=dict(n=3), quick={}, smoke={}), device="cpu", threads=1)
    study.cache, study.folder = tmp_path / "cache", tmp_path / "figures"
    return study


def without_run(record):
    return {k: v for k, v in record.items() if k != "run"}


KILLED = """
import sys
from pathlib import Path
from nas_nb.records import Study
from nas_nb.papers.asng_nas import hitting_times
study = Study("51_asng_nas", dict(paper={}, quick={}, smoke={}), device="cpu", threads=1)
study.cache, study.folder = Path(sys.argv[1]) / "cache", Path(sys.argv[1]) / "figures"
record = study.run(hitting_times, "small", **%r)
print(study.counts)
""" % (SMALL,)


def test_killed_at_random_moments_it_ends_with_the_same_record(study, tmp_path):
    whole = study.run(hitting_times, "small", **SMALL)
    env = os.environ | dict(NAS_NB_CHECKPOINT_SECONDS="0", IN_TEST="1")
    moments, kills = random.Random(), 0
    moments.seed(seed := random.SystemRandom().randrange(10**6))
    print("seed of the moments", seed)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    for _ in range(3):
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
        began = time.monotonic()
        while not list((tmp_path / "killed" / "cache").glob("*/checkpoint.pt")) and time.monotonic() - began < 60 and process.poll() is None:
            time.sleep(0.01)  # only now does it compute, and only from here on is a kill interesting
        time.sleep(moments.uniform(0, 0.4))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    folders = list((tmp_path / "killed" / "cache").iterdir())
    assert len(folders) == 1 and [p.name for p in folders[0].iterdir() if not p.name.startswith(".")] == ["record.json"]
    assert without_run(json.loads((folders[0] / "record.json").read_text())) == without_run(whole)


def test_a_stopped_run_goes_on_where_it_was(tmp_path, monkeypatch):
    whole = hitting_times(**SMALL)
    left = iter([1.0] * 4)
    monkeypatch.setattr(records, "seconds_left", lambda: next(left, -1.0))
    with pytest.raises(OutOfTime):
        hitting_times(**SMALL, ckpt=Checkpoint(tmp_path / "checkpoint.pt", every=1e9))
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["trials"]["t"] == 500
    monkeypatch.setattr(records, "seconds_left", lambda: 1.0)
    assert hitting_times(**SMALL, ckpt=Checkpoint(tmp_path / "checkpoint.pt")) == whole
    found = sum(whole["updates"][0], [])
    assert 0 < sum(u > 500 for u in found)  # otherwise there was nothing left to go on with


def test_a_run_is_computed_once(study):
    first = study.run(square, "square", n=3)
    assert study.run(square, "square", n=3) == first
    assert study.run(square, "square", n=3, seed=1)["result"] == dict(value=10)
    assert study.counts == dict(computed=2, reused=1, committed=0)


def test_force_computes_again(study, monkeypatch):
    study.profile = "paper"
    study.run(square, "square", n=3)
    for path in [*study.cache.glob("*/record.json"), *(study.folder / "records").iterdir()]:
        path.write_text(path.read_text().replace('"value": 9', '"value": 10'))
    assert study.run(square, "square", n=3)["result"] == dict(value=10)
    monkeypatch.setenv("NAS_NB_FORCE", "1")
    assert study.run(square, "square", n=3)["result"] == dict(value=9)
    (committed,) = (study.folder / "records").iterdir()
    assert json.loads(committed.read_text())["result"] == dict(value=9)  # the committed record follows


def test_other_sizes_than_the_profiles_get_no_verdict_of_its_rank(monkeypatch):
    monkeypatch.delenv("IN_TEST", raising=False)
    profiles = dict(paper=dict(n=3, seeds=100), quick={}, smoke={})
    verdicts = [
        Study("51_asng_nas", profiles, "paper", device="cpu", **changed).claim("c", "s", "d", "o", "k", True)
        for changed in ({}, dict(overrides="n=1"), dict(seeds=2), dict(overrides="n=3"))
    ]
    assert verdicts == ["reproduced", "seen at small scale", "seen at small scale", "reproduced"]


def test_making_a_study_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "root", lambda: tmp_path)
    Study("51_asng_nas", dict(paper={}, quick={}, smoke={}), device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"result": {"value": 7}}', '{"document": "other", "result": {"value": 7}}', '{"result": {}, "run": {}}'])
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
    write_atomic(path, to_json(record))
    for p in study.cache.glob("*/record.json"):
        p.unlink()
    assert study.run(square, "square", n=3)["result"] == dict(value=99)
    assert "made by code 0123456789abcdef" in capsys.readouterr().out
    study.profile = "quick"
    assert study.run(square, "square", n=3)["result"] == dict(value=9)  # quick always computes


def test_a_checkpoint_with_code_in_it_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save(dict(seconds=0.0, x=Bomb()), tmp_path / "checkpoint.pt")
    assert Checkpoint(tmp_path / "checkpoint.pt").load() is None
    assert not (tmp_path / "exploded").exists()
    assert (tmp_path / "checkpoint.unreadable").exists()


def module(tmp_path, monkeypatch, name, source):
    package = tmp_path / "nas_nb_demo"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").touch()
    (package / f"{name}.py").write_text(source)
    linecache.clearcache()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for loaded in [m for m in sys.modules if m.startswith("nas_nb_demo")]:
        del sys.modules[loaded]
    importlib.invalidate_caches()
    return importlib.import_module(f"nas_nb_demo.{name}")


METHOD = """
from functools import wraps
LIMIT = 7
TABLE = dict(a=1)

def twice(f):
    @wraps(f)
    def g(*args):
        return f(*args)
    return g

class Base:
    size = 3
    def step(self):
        return 1

class M(Base):
    def more(self, by=2):
        return by

def deep():
    import math
    return math.pi + LIMIT

def unused():
    return 5
"""
RUN = """
from . import method
from .method import M, TABLE, deep, twice
N = 3

@twice
def inner():
    return [deep() for _ in range(2)]

def run(seed):
    return M().step() + N + TABLE["a"] + inner()[0]
"""


@pytest.mark.parametrize(
    "name, old, new, same",
    [
        ("run", "def run(seed):", 'def run(seed):\n    "Says."', True),
        ("run", "N = 3", "N = 3  # three", True),
        ("run", "N = 3", "N = 3\nN += 1", False),
        ("run", "N = 3", "if True:\n    N = 4", False),
        ("method", "return 1", "return 2", False),
        ("method", "size = 3", "size = 4", False),
        ("method", "by=2", "by=3", False),
        ("method", "LIMIT = 7", "LIMIT = 8", False),
        ("method", "TABLE = dict(a=1)", 'TABLE = dict(a=1)\nTABLE["a"] = 2', False),
        ("method", "math.pi", "math.e", False),
        ("method", "return f(*args)", "return f(*args[::-1])", True),  # what a decorator wraps counts, not the wrapper
        ("method", "return 5", "return 6", True),
        ("method", "def unused", "from fastcore.basics import patch\n\n@patch\ndef late(self: M):\n    return 3\n\ndef unused", False),
        ("run", "M().step()", "method.M().step()", False),
    ],
)
def test_the_code_hash_follows_what_the_run_reaches(tmp_path, monkeypatch, name, old, new, same):
    hashes = []
    for change in (False, True):
        sources = dict(method=METHOD, run=RUN)
        if change:
            assert old in sources[name]
            sources[name] = sources[name].replace(old, new)
        module(tmp_path, monkeypatch, "method", sources["method"])
        hashes.append(code_hash(module(tmp_path, monkeypatch, "run", sources["run"]).run))
    assert (hashes[0] == hashes[1]) is same


def as_notebook(change=lambda source: source):
    "Run the exported cells of notebook 51 as a notebook does, in a module `__main__` whose cells are in the line cache."
    cells = json.loads((root() / "nbs" / "51_asng_nas.ipynb").read_text())["cells"]
    space = dict(__name__="__main__")
    for cell in cells:
        source = change("".join(cell["source"]))
        if cell["cell_type"] == "code" and "#| export" in source:
            name = f"<cell {cell['id']} {hash(source)}>"
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            exec(compile(source, name, "exec"), space)
    return space["hitting_times"]


@pytest.mark.parametrize(
    "old, new", [("self.v.mul_(0.9)", "self.v.mul_(0.5)"), ("1 / trials.K", "99 / trials.K"), ("X_INIT, NOISE = 2, 3", "X_INIT, NOISE = 4, 3")]
)
def test_a_notebook_and_its_module_have_one_hash_and_any_change_another(old, new):
    assert code_hash(as_notebook()) == code_hash(hitting_times)
    changed = []
    run = as_notebook(lambda source: source.replace(old, new) if old in source and not changed.append(old) else source)
    assert changed and code_hash(run) != code_hash(hitting_times)


def test_the_code_hash_reaches_the_optimiser_and_not_the_plots(monkeypatch):
    before = code_hash(hitting_times)
    monkeypatch.setattr(asng.ASNG, "_step", asng.SNG._step)
    assert code_hash(hitting_times) != before
    monkeypatch.undo()
    monkeypatch.setattr(streams, "random_bits", streams.uniform)
    assert code_hash(hitting_times) != before
    monkeypatch.undo()
    monkeypatch.setattr(asng_nas, "plot_figure4", None)
    assert code_hash(hitting_times) == before


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


@pytest.mark.parametrize("kwargs, error", [(dict(profile="big"), "known are"), (dict(seeds=-1), "at least 0"), (dict(device="gpu"), "unknown device")])
def test_a_study_with_wrong_parameters_says_what_is_known(monkeypatch, kwargs, error):
    monkeypatch.delenv("IN_TEST", raising=False)
    with pytest.raises(ValueError, match=error):
        Study("51_asng_nas", dict(paper=dict(seeds=1), quick={}, smoke={}), **kwargs)
