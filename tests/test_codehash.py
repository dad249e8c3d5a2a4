"""The code hash: all that decides a result is in it, and nothing else."""

import importlib
import json
import linecache
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from nas_nb import asng, streams
from nas_nb.codehash import code_hash
from nas_nb.core import root
from nas_nb.papers import asng_nas
from nas_nb.papers.asng_nas import hitting_times


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
        ("method", "return f(*args)", "return f(*args[::-1])", False),  # a decorator counts, too
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


HASHES = """
from nas_nb.codehash import code_hash
from nas_nb.training import train_baseline
space = dict(__name__="nas_nb_demo")
exec("""+ '"""' + """
import numpy as np
ALLOWED = dict(names=[{'a', 'b', 'c', 'd'}, np.array([{'l'}, 10**20], dtype=object)])
class Net:
    kinds = frozenset('efgh')
sourceless = lambda x: x in {'i', 'j', 'k'} and (lambda y: y in ALLOWED or Net)
""" + '"""' + """, space)
print(code_hash(train_baseline), code_hash(space["sourceless"]))
import importlib, inspect, pkgutil
import nas_nb.papers
for info in pkgutil.iter_modules(nas_nb.papers.__path__):
    module = importlib.import_module(f"nas_nb.papers.{info.name}")
    print(*(f"{info.name}.{name}={code_hash(f)}" for name in module.__all__ if inspect.isfunction(f := getattr(module, name))))
"""


def test_the_code_hash_is_the_same_in_every_process():
    "Strings have other hashes, sets another order, objects other addresses; a document must not make a time or a path of its own part of it."
    run = lambda seed: subprocess.run([sys.executable, "-c", HASHES], env=os.environ | dict(PYTHONHASHSEED=seed), capture_output=True, text=True)
    first, second = run("1"), run("2")
    assert first.returncode == 0, first.stderr
    assert first.stdout.split() == second.stdout.split()
    assert {"asng_nas.hitting_times", "hypernet_complexity.search_runs", "tdga_darts_vgg19.tdga_run"} <= {x.split("=")[0] for x in first.stdout.split()}


def middle(x):
    "A value that differs from `x` where its repr shows nothing."
    x = x.clone() if torch.is_tensor(x) else x.copy()
    x[len(x) // 2] = 1
    return x


LARGE = dict(
    tensor=torch.zeros(5000), bf16=torch.zeros(5000, dtype=torch.bfloat16), bits=torch.zeros(5000, dtype=torch.bool), array=np.zeros(5000),
    rows=torch.zeros(2000, 3).T.contiguous().T, objects=np.zeros(5000, dtype=object),
)  # fmt: skip
PLAIN = dict(order=(dict(a=1, b=2), dict(b=2, a=1)), kind=((1, 2), [1, 2]), set=({"a"}, {"b"}), shape=(np.zeros((2, 3)), np.zeros((3, 2))), dtype=(torch.zeros(2), torch.zeros(2, dtype=torch.int32)))


@pytest.mark.parametrize("one, other", [*((x, middle(x)) for x in LARGE.values()), *PLAIN.values()], ids=[*LARGE, *PLAIN])
def test_the_code_hash_sees_all_of_a_value(one, other):
    def hashes(value):
        space = dict(__name__="nas_nb_demo", VALUE=value)
        exec("class Net:\n    value = VALUE", space)
        exec("by_global = lambda: VALUE\nby_class = lambda: Net", space)
        return code_hash(space["by_global"]), code_hash(space["by_class"])

    again = hashes(one.clone() if torch.is_tensor(one) else type(one)(one) if isinstance(one, (dict, set)) else one)
    assert again == hashes(one)
    assert all(a != b for a, b in zip(hashes(one), hashes(other)))


def test_a_function_without_source_is_its_bytecode_names_and_constants():
    def code(source):
        space = dict(__name__="nas_nb_demo")
        exec(source, space)
        return code_hash(space["f"])

    base = "f = lambda x: (x.real, [lambda: 'a'])"
    assert code(base) == code(base)
    assert len({code(base), code(base.replace("real", "imag")), code(base.replace("'a'", "'b'")), code(base.replace("real,", "real +"))}) == 4


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
