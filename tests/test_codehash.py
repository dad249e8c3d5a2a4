"""The code hash: all that decides a result is in it, and nothing else."""

import ast
import contextlib
import copy
import importlib
import itertools
import json
import linecache
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import warnings
import weakref
from string import Template
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nas_nb import asng, codehash, estimate, streams
from nas_nb.codehash import code_hash
from nas_nb.core import root
from nas_nb.papers import asng_figures
from nas_nb.papers.asng_runs import hitting_times


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
        (
            "method",
            "def unused",
            "from fastcore.basics import patch\n\n@patch\ndef late(self: M):\n    return 3\n\ndef unused",
            False,
        ),
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
    "Run the exported cells of 51a as a notebook does: in a module `__main__`, with cells in the line cache."
    cells = json.loads((root() / "nbs" / "51a_asng_runs.ipynb").read_text())["cells"]
    space = dict(__name__="__main__")
    for cell in cells:
        source = change("".join(cell["source"]))
        if cell["cell_type"] == "code" and "#| export" in source:
            name = f"<cell {cell['id']} {hash(source)}>"
            linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
            exec(compile(source, name, "exec"), space)
    return space["hitting_times"]


@pytest.mark.parametrize(
    "old, new",
    [
        ("self.v.mul_(0.9)", "self.v.mul_(0.5)"),
        ("1 / trials.K", "99 / trials.K"),
        ("X_INIT, NOISE = 2, 3", "X_INIT, NOISE = 4, 3"),
    ],
)
def test_a_notebook_and_its_module_have_one_hash_and_any_change_another(old, new):
    assert code_hash(as_notebook()) == code_hash(hitting_times)
    changed = []
    run = as_notebook(
        lambda source: source.replace(old, new) if old in source and not changed.append(old) else source
    )
    assert changed and code_hash(run) != code_hash(hitting_times)


HASHES = (
    """
from nas_nb.codehash import code_hash
from nas_nb.training import train_baseline
space = dict(__name__="nas_nb_demo")
exec("""
    + '"""'
    + """
import numpy as np
ALLOWED = dict(names=[{'a', 'b', 'c', 'd'}, np.array([{'l'}, 10**20], dtype=object)])
class Net:
    kinds = frozenset('efgh')
sourceless = lambda x: x in {'i', 'j', 'k'} and (lambda y: y in ALLOWED or Net)
"""
    + '"""'
    + """, space)
print(code_hash(train_baseline), code_hash(space["sourceless"]))
import importlib, inspect, pkgutil
import nas_nb.papers
for info in pkgutil.iter_modules(nas_nb.papers.__path__):
    module = importlib.import_module(f"nas_nb.papers.{info.name}")
    functions = {name: f for name in module.__all__ if inspect.isfunction(f := getattr(module, name))}
    runs = {name: f for name, f in functions.items() if "device" in inspect.signature(f).parameters}
    print(*(f"{info.name}.{name}={code_hash(f)}" for name, f in runs.items()))
"""
)


def test_the_code_hash_is_the_same_in_every_process():
    "Strings have other hashes, sets another order, objects other addresses; no time or path is part of it."
    run = lambda seed: subprocess.run(
        [sys.executable, "-c", HASHES],
        env=os.environ | dict(PYTHONHASHSEED=seed),
        capture_output=True,
        text=True,
    )
    first, second = run("1"), run("2")
    assert first.returncode == 0, first.stderr
    assert first.stdout.split() == second.stdout.split()
    assert {"asng_runs.hitting_times", "hypernet_runs.search_runs", "tdga_runs.tdga_run"} <= {
        x.split("=")[0] for x in first.stdout.split()
    }


def middle(x):
    "A value that differs from `x` where its repr shows nothing."
    x = x.clone() if torch.is_tensor(x) else x.copy()
    x[len(x) // 2] = 1
    return x


LARGE = dict(
    tensor=torch.zeros(5000),
    bf16=torch.zeros(5000, dtype=torch.bfloat16),
    bits=torch.zeros(5000, dtype=torch.bool),
    array=np.zeros(5000),
    rows=torch.zeros(2000, 3).T.contiguous().T,
    objects=np.zeros(5000, dtype=object),
)
PLAIN = dict(
    order=(dict(a=1, b=2), dict(b=2, a=1)),
    kind=((1, 2), [1, 2]),
    set=({"a"}, {"b"}),
    shape=(np.zeros((2, 3)), np.zeros((3, 2))),
    dtype=(torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
)


@pytest.mark.parametrize(
    "one, other", [*((x, middle(x)) for x in LARGE.values()), *PLAIN.values()], ids=[*LARGE, *PLAIN]
)
def test_the_code_hash_sees_all_of_a_value(one, other):
    def hashes(value):
        space = dict(__name__="nas_nb_demo", VALUE=value)
        exec("class Net:\n    value = VALUE", space)
        exec("by_global = lambda: VALUE\nby_class = lambda: Net", space)
        return code_hash(space["by_global"]), code_hash(space["by_class"])

    again = hashes(
        one.clone() if torch.is_tensor(one) else type(one)(one) if isinstance(one, (dict, set)) else one
    )
    assert again == hashes(one)
    assert all(a != b for a, b in zip(hashes(one), hashes(other)))


TENSORS = {  # how to make one of a tensor of two rows and two columns
    "sparse": torch.Tensor.to_sparse,
    "sparse, not coalesced": lambda x: torch.sparse_coo_tensor([[0, 0], [1, 1]], x[1]),
    "rows": torch.Tensor.to_sparse_csr,
    "columns": torch.Tensor.to_sparse_csc,
    "blocks of rows": lambda x: x.to_sparse_bsr((1, 1)),
    "blocks of columns": lambda x: x.to_sparse_bsc((1, 1)),
    "parameter": lambda x: torch.nn.Parameter(x.to_sparse()),
    "of sizes": lambda x: torch.zeros(int(x.sum()), 9).to_sparse(),
    "conjugated": lambda x: (1j * x).conj(),
    "negated": lambda x: (1j * x).conj().imag,
    "of one number": lambda x: x[1, ::2],
    "form of meta": lambda x: torch.zeros(int(x.sum()), device="meta"),
}


@pytest.mark.filterwarnings("ignore:.*Sparse")
@pytest.mark.parametrize("make", TENSORS.values(), ids=TENSORS)
def test_the_code_hash_sees_the_values_of_every_kind_of_tensor(make):
    one, same, other = (make(torch.tensor([[0, 1.0], [last, 2]])) for last in (2, 2, 3))
    with warnings.catch_warnings(record=True) as warned:
        hashes = [code_hash(lambda x=x: x) for x in (one, same, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert not [w for w in warned if "code hash" in str(w.message)]


@pytest.mark.filterwarnings("ignore:.*(quantize|nested tensors)")
@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda x: torch.quantize_per_tensor(x, 0.5, 0, torch.quint8), "quantized"),
        (lambda x: torch.quantize_per_channel(x, x[0] + 0.5, x[1].long(), 0, torch.qint8), "quantized"),
        (torch.Tensor.to_mkldnn, "MKL-DNN"),
        (lambda x: torch.nested.nested_tensor([x[0], x[1, :1]]), "nested"),
        (lambda x: torch.nested.nested_tensor([x[0], x[1, :1]], layout=torch.jagged), "nested"),
    ],
)
def test_a_tensor_that_is_not_followed_is_refused(make, kind):
    weight = make(torch.tensor([[0, 1.0], [0, 2]]))

    def run():
        return weight

    with pytest.raises(ValueError, match=rf"run.<closure> is a {kind} tensor, which is not followed"):
        code_hash(run)


def test_a_tensor_that_shows_no_values_is_named():
    codehash._say.cache_clear()
    for x, kind in (
        (torch.nn.LazyLinear(3).weight, "UninitializedParameter"),
        (torch._subclasses.FakeTensorMode().from_tensor(torch.ones(2)), "FakeTensor"),
    ):
        with pytest.warns(UserWarning, match=f"is a {kind}: what it holds is not part of the code hash"):
            assert code_hash(lambda: x) == code_hash(lambda: x)


def test_a_function_without_source_is_its_bytecode_names_and_constants():
    def code(source):
        space = dict(__name__="nas_nb_demo")
        exec(source, space)
        return code_hash(space["f"])

    base = "f = lambda x: (x.real, [lambda: 'a'])"
    assert code(base) == code(base)
    assert (
        len(
            {
                code(base),
                code(base.replace("real", "imag")),
                code(base.replace("'a'", "'b'")),
                code(base.replace("real,", "real +")),
            }
        )
        == 4
    )


def test_the_code_hash_reaches_the_optimiser_and_not_the_plots(monkeypatch):
    before = code_hash(hitting_times)
    monkeypatch.setattr(asng.ASNG, "_step", asng.SNG._step)
    assert code_hash(hitting_times) != before
    monkeypatch.undo()
    monkeypatch.setattr(streams, "random_bits", streams.uniform)
    assert code_hash(hitting_times) != before
    monkeypatch.undo()
    monkeypatch.setattr(asng_figures, "plot_figure4", None)
    assert code_hash(hitting_times) == before


# -- made-up programs: a value is handed from carrier to carrier, and `run` gets it back out of the last --

PRELUDE = """
import contextlib, collections, dataclasses, enum, functools, operator, types, typing
import numpy as np, torch
from torch import nn
torch.manual_seed(0)
"""
CARRIERS = {  # definitions, how the value $x is put in, how it is taken out of x
    "closure": ("def make$i(v):\n    def f():\n        return v\n    return f", "make$i($x)", "x()"),
    "lambda of a factory": ("make$i = lambda v: lambda: v", "make$i($x)", "x()"),
    "default": ("def make$i(v):\n    def f(k=v):\n        return k\n    return f", "make$i($x)", "x()"),
    "keyword default": (
        "def make$i(v):\n    def f(*, k=v):\n        return k\n    return f",
        "make$i($x)",
        "x()",
    ),
    "partial": ("def take$i(*a):\n    return a[0]", "functools.partial(take$i, $x)", "x()"),
    "keyword of a partial": ("def take$i(k):\n    return k", "functools.partial(take$i, k=$x)", "x()"),
    "list": ("", "[0, $x]", "x[1]"),
    "tuple": ("", "($x, 0)", "x[0]"),
    "dict": ("", "dict(k=$x)", "x['k']"),
    "deque": ("", "collections.deque([$x])", "x[0]"),
    "ordered dict": ("", "collections.OrderedDict(k=$x)", "x['k']"),
    "default dict": ("", "collections.defaultdict(list, k=$x)", "x['k']"),
    "read-only dict": ("", "types.MappingProxyType(dict(k=$x))", "x['k']"),
    "namespace": ("", "types.SimpleNamespace(k=$x)", "x.k"),
    "instance": ("class A$i:\n    def __init__(self, k):\n        self.k = k", "A$i($x)", "x.k"),
    "slots": (
        "class A$i:\n    __slots__ = ('k', 'other')\n    def __init__(self, k):\n        self.k = k",
        "A$i($x)",
        "x.k",
    ),
    "callable instance": (
        (
            "class A$i:\n"
            "    def __init__(self, k):\n"
            "        self.k = k\n"
            "    def __call__(self):\n"
            "        return self.k"
        ),
        "A$i($x)",
        "x()",
    ),
    "bound method": (
        (
            "class A$i:\n"
            "    def __init__(self, k):\n"
            "        self.k = k\n"
            "    def get(self):\n"
            "        return self.k"
        ),
        "A$i($x).get",
        "x()",
    ),
    "attribute that is missing": (
        (
            "class A$i:\n"
            "    def __getattr__(self, name):\n"
            "        if name != 'k':\n"
            "            raise AttributeError(name)\n"
            "        return vars(self)['at-k']\n"
            "def make$i(v):\n"
            "    a = A$i()\n"
            "    vars(a)['at-k'] = v\n"
            "    return a"
        ),
        "make$i($x)",
        "x.k",
    ),
    "in itself": (
        "class A$i:\n    def __init__(self, k):\n        self.me, self.k = self, k",
        "A$i($x)",
        "x.me.k",
    ),
    "list in itself": ("def make$i(v):\n    a = [v]\n    a.append(a)\n    return a", "make$i($x)", "x[1][0]"),
    "own state": (
        (
            "class A$i:\n"
            "    def __init__(self, k):\n"
            "        self.k = k\n"
            "    def __getstate__(self):\n"
            "        return [self.k]"
        ),
        "A$i($x)",
        "x.k",
    ),
    "no state": (
        (
            "class A$i:\n"
            "    def __init__(self, k):\n"
            "        self.k = k\n"
            "    def __reduce_ex__(self, p):\n"
            "        raise TypeError"
        ),
        "A$i($x)",
        "x.k",
    ),
    "data class": ("@dataclasses.dataclass\nclass A$i:\n    k: object", "A$i($x)", "x.k"),
    "frozen data class": (
        "@dataclasses.dataclass(frozen=True, slots=True)\nclass A$i:\n    k: object",
        "A$i($x)",
        "x.k",
    ),
    "default factory": (
        (
            "def make$i(v):\n"
            "    @dataclasses.dataclass\n"
            "    class A:\n"
            "        k: object = dataclasses.field(default_factory=lambda: v)\n"
            "    return A"
        ),
        "make$i($x)",
        "x().k",
    ),
    "class attribute": ("def make$i(v):\n    class A:\n        k = v\n    return A", "make$i($x)", "x.k"),
    "inherited": (
        "def make$i(v):\n    class A:\n        k = v\n    class B(A):\n        pass\n    return B",
        "make$i($x)",
        "x().k",
    ),
    "type": ("", "type('A', (), dict(k=$x))", "x.k"),
    "metaclass": (
        (
            "def make$i(v):\n"
            "    class M(type):\n"
            "        k = v\n"
            "    class A(metaclass=M):\n"
            "        pass\n"
            "    return A"
        ),
        "make$i($x)",
        "x.k",
    ),
    "static method": (
        (
            "def make$i(v):\n"
            "    class A:\n"
            "        @staticmethod\n"
            "        def get():\n"
            "            return v\n"
            "    return A"
        ),
        "make$i($x)",
        "x.get()",
    ),
    "class method": (
        (
            "def make$i(v):\n"
            "    class A:\n"
            "        @classmethod\n"
            "        def get(cls):\n"
            "            return v\n"
            "    return A.get"
        ),
        "make$i($x)",
        "x()",
    ),
    "property": (
        "def make$i(v):\n    class A:\n        k = property(lambda self: v)\n    return A()",
        "make$i($x)",
        "x.k",
    ),
    "cached property": (
        (
            "def make$i(v):\n"
            "    class A:\n"
            "        @functools.cached_property\n"
            "        def k(self):\n"
            "            return v\n"
            "    return A()"
        ),
        "make$i($x)",
        "x.k",
    ),
    "descriptor": (
        (
            "class D$i:\n"
            "    def __init__(self, k):\n"
            "        self.k = k\n"
            "    def __get__(self, a, kind=None):\n"
            "        return self.k\n"
            "def make$i(v):\n"
            "    class A:\n"
            "        k = D$i(v)\n"
            "    return A()"
        ),
        "make$i($x)",
        "x.k",
    ),
    "late method": (
        "def make$i(v):\n    class A:\n        pass\n    A.get = lambda self: v\n    return A()",
        "make$i($x)",
        "x.get()",
    ),
    "named tuple": ("N$i = collections.namedtuple('N$i', 'j k')", "N$i(0, $x)", "x.k"),
    "typed tuple": ("class N$i(typing.NamedTuple):\n    k: object", "N$i($x)", "x.k"),
    "enumeration": ("", "enum.Enum('E', dict(k=$x))", "x.k.value"),
    "member": ("", "enum.Enum('E', dict(k=$x)).k", "x.value"),
    "cache": (
        "def make$i(v):\n    @functools.cache\n    def f():\n        return v\n    return f",
        "make$i($x)",
        "x()",
    ),
    "wrapper": (
        (
            "def make$i(v):\n"
            "    def f():\n"
            "        return 0\n"
            "    @functools.wraps(f)\n"
            "    def g():\n"
            "        return v\n"
            "    return g"
        ),
        "make$i($x)",
        "x()",
    ),
    "torch's decorator": (
        "def make$i(v):\n    @torch.no_grad()\n    def f():\n        return v\n    return f",
        "make$i($x)",
        "x()",
    ),
    "context": (
        "def make$i(v):\n    @contextlib.contextmanager\n    def f():\n        yield v\n    return f",
        "make$i($x)",
        "x().__enter__()",
    ),
    "dispatch": (
        (
            "def make$i(v):\n"
            "    @functools.singledispatch\n"
            "    def f(a):\n"
            "        return 0\n"
            "    f.register(int)(lambda a: v)\n"
            "    return f"
        ),
        "make$i($x)",
        "x(1)",
    ),
    "attribute of a function": (
        "def make$i(v):\n    def f():\n        return f.k\n    f.k = v\n    return f",
        "make$i($x)",
        "x()",
    ),
    "generator function": (
        "def make$i(v):\n    def f():\n        yield v\n    return f",
        "make$i($x)",
        "next(x())",
    ),
    "text that is run": (
        "def make$i(v):\n    space = dict(v=v)\n    exec('f = lambda: v', space)\n    return space['f']",
        "make$i($x)",
        "x()",
    ),
    "network": (
        "class A$i(nn.Module):\n    def __init__(self, k):\n        super().__init__()\n        self.k = k",
        "A$i($x)",
        "x.k",
    ),
    "array of objects": (
        "def make$i(v):\n    a = np.empty(1, dtype=object)\n    a[0] = v\n    return a",
        "make$i($x)",
        "x[0]",
    ),
    "hook": (
        "def make$i(v):\n    m = nn.Identity()\n    m.register_forward_hook(lambda m, a, b: v)\n    return m",
        "make$i($x)",
        "x(0)",
    ),
    "global name": ("def f$i():\n    return o$before", "f$i", "x()"),
    "name of a module": ("def f$i():\n    return $module.o$before", "f$i", "x()"),
    "import within": ("def f$i():\n    from $module import o$before\n    return o$before", "f$i", "x()"),
    "import of a module within": (
        "def f$i():\n    import $module\n    return $module.o$before",
        "f$i",
        "x()",
    ),
    "module as a value": (
        "import $module\ndef f$i():\n    return getattr($module, 'o' + '$before')",
        "f$i",
        "x()",
    ),
    "class body": ("def f$i():\n    class A:\n        k = o$before\n    return A.k", "f$i", "x()"),
    "comprehension": ("def f$i():\n    return [o$before for _ in range(1)]", "f$i", "x()[0]"),
}
LEAVES = [  # what is changed into what
    ("1", "2"),
    ("1", "1.0"),
    ("1", "True"),
    ("0.0", "-0.0"),
    ("0.1", "0.1000001"),
    ("'a'", "'b'"),
    ("'1'", "1"),
    ("b'a'", "b'b'"),
    ("None", "0"),
    ("...", "None"),
    ("1j", "2j"),
    ("[1, 2]", "(1, 2)"),
    ("{1, 2}", "frozenset({1, 2})"),
    ("{'a', 'b'}", "{'a', 'c'}"),
    ("dict(a=1, b=2)", "dict(b=2, a=1)"),
    ("bytearray(b'a')", "bytearray(b'b')"),
    ("range(3)", "range(4)"),
    ("slice(1)", "slice(2)"),
    ("int", "float"),
    ("len", "max"),
    ("str.upper", "str.lower"),
    ("torch.relu", "torch.tanh"),
    ("np.sin", "np.cos"),
    ("operator.itemgetter(0)", "operator.itemgetter(1)"),
    ("lambda x: x + 1", "lambda x: x + 2"),
    ("lambda x: x + 1", "lambda x: x - 1"),
    ("lambda x, y: x - y", "lambda y, x: x - y"),
    ("[lambda: 1, lambda: 2][0]", "[lambda: 1, lambda: 2][1]"),
    ("torch.zeros(3)", "torch.tensor([0, 0, 1.0])"),
    ("torch.zeros(3)", "torch.zeros(3, dtype=torch.float64)"),
    ("torch.zeros(2, 3)", "torch.zeros(3, 2)"),
    ("torch.zeros(3)", "torch.zeros(3, requires_grad=True)"),
    ("torch.zeros(3)", "nn.Parameter(torch.zeros(3))"),
    ("torch.zeros(2).bfloat16()", "torch.ones(2).bfloat16()"),
    ("torch.float32", "torch.float64"),
    ("torch.device('cpu')", "torch.device('meta')"),
    ("np.zeros(3)", "np.array([0, 0, 1.0])"),
    ("np.float32(1)", "np.float64(1)"),
    ("np.dtype('f4')", "np.dtype('f8')"),
    ("nn.ReLU()", "nn.Tanh()"),
    ("nn.Conv2d(1, 1, 3, stride=1)", "nn.Conv2d(1, 1, 3, stride=2)"),
    ("nn.Dropout(0.1)", "nn.Dropout(0.2)"),
    ("nn.Identity()", "nn.Identity().eval()"),
    ("nn.Sequential(nn.ReLU(), nn.Tanh())", "nn.Sequential(nn.Tanh(), nn.ReLU())"),
    ("nn.BatchNorm1d(2)", "nn.BatchNorm1d(2, eps=0.1)"),
    ("torch.optim.SGD", "torch.optim.Adam"),
    ("[nn.Identity()] * 2", "[nn.Identity(), nn.Identity()]"),
    ("np.random.default_rng(1)", "np.random.default_rng(2)"),
    ("torch.Generator().manual_seed(1)", "torch.Generator().manual_seed(2)"),
    ("__import__('re').compile('a')", "__import__('re').compile('a', 2)"),
    ("__import__('fractions').Fraction(1, 3)", "__import__('fractions').Fraction(2, 3)"),
    ("__import__('pathlib').PurePosixPath('a')", "__import__('pathlib').PurePosixPath('b')"),
    ("__import__('datetime').date(2026, 1, 1)", "__import__('datetime').date(2026, 1, 2)"),
    ("__import__('random').Random(1)", "__import__('random').Random(2)"),
    ("int | str", "int | None"),
    ("list[int]", "list[str]"),
    ("ValueError('a')", "ValueError('b')"),
    ("iter([1, 2])", "iter([2, 1])"),
]
READS_MODULE = [
    name for name, (text, _, _) in CARRIERS.items() if "$module" in text
]  # the module before: it begins a new one


def program(leaf: str, carriers: list, cuts: set, rng=None) -> dict:  # module -> source
    "Carriers around a value; at the places in `cuts` a new module begins. `rng` shuffles definitions."
    modules, defs, objects = {}, [], [f"o0 = {leaf}"]

    def module():
        if rng:
            rng.shuffle(defs)
        before = f"m{len(modules) - 1}"
        imports = f"import {before}\nfrom {before} import *\n" if modules else ""
        return PRELUDE + imports + "\n\n".join([*defs, *objects]) + "\n"

    for i, name in enumerate(carriers):
        if i in cuts or name in READS_MODULE:
            modules[f"m{len(modules)}"] = module()
            defs, objects = [], []
        fill = dict(i=i, x=f"o{i}", before=i, module=f"m{len(modules) - 1}")
        text, put, _ = (Template(part).substitute(fill) for part in CARRIERS[name])
        defs += [text] * bool(text)
        objects.append(f"o{i + 1} = {put}")
    got = "".join(f"    x = {CARRIERS[name][2]}\n" for name in reversed(carriers))
    objects.append(f"def run(seed):\n    x = o{len(carriers)}\n{got}    return x")
    modules["main"] = module()
    return modules


def load(folder, modules: dict, notebook=False):
    "The function `run` of a program that is written to `folder`; with `notebook`, its last module is a cell."
    folder.mkdir(parents=True)
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    for name in [m for m in sys.modules if re.fullmatch(r"m\d+|main", m)]:
        del sys.modules[name]
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        if not notebook:
            return importlib.import_module("main").run
        name, source = f"<cell {folder.name}>", modules["main"]
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        exec(compile(source, name, "exec"), space := dict(__name__="__main__"))
        return space["run"]
    finally:
        sys.path.remove(str(folder))


def hashed(tmp_path, modules, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".* uses exec: ")  # of a module that is reached as a whole
        return code_hash(load(tmp_path / f"p{next(NUMBER)}", modules, **how))


NUMBER = itertools.count()


def documented(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.body.insert(0, ast.Expr(ast.Constant(f"What {node.name} is for.")))
    return ast.unparse(ast.fix_missing_locations(tree))


NEUTRAL = dict(
    comments=lambda source: (
        "# first\n\n" + "".join(f"{line}  # note\n" if line.strip() else "\n" for line in source.splitlines())
    ),
    docstrings=documented,
    format=lambda source: ast.unparse(ast.parse(source)),
    unrelated=lambda source: (
        "OTHER = [0]\n\n\ndef other():\n    return OTHER\n\n\n" + source + "\n\nclass Other:\n    k = other\n"
    ),
)
chains = st.lists(st.sampled_from(sorted(CARRIERS)), max_size=4)
fast = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fast
@given(
    st.sampled_from(LEAVES),
    chains,
    st.sets(st.integers(0, 3)),
    st.sampled_from(sorted(NEUTRAL)),
    st.randoms(use_true_random=False),
)
def test_one_change_changes_the_hash_and_what_decides_nothing_does_not(
    tmp_path, leaf, carriers, cuts, neutral, rng
):
    before = hashed(tmp_path, program(leaf[0], carriers, cuts))
    assert hashed(tmp_path, program(leaf[1], carriers, cuts)) != before
    assume(
        neutral != "unrelated" or not {"module as a value", "import of a module within"} & {*carriers}
    )  # these reach the whole module
    same = {name: NEUTRAL[neutral](source) for name, source in program(leaf[0], carriers, cuts, rng).items()}
    assert hashed(tmp_path, same) == before, neutral
    assert hashed(tmp_path, same, notebook=True) == before


@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_value_counts_whatever_carries_it(tmp_path, carrier):
    found = [
        (code_hash(run), run(0))
        for leaf in "12"
        for run in [load(tmp_path / leaf, program(leaf, [carrier], set()))]
    ]
    assert found[0][0] != found[1][0] and [got for _, got in found] == [1, 2]
    assert hashed(tmp_path, program("1", [carrier], {0})) == hashed(
        tmp_path, program("1", [carrier], {0}), notebook=True
    )


@pytest.mark.parametrize("leaf", LEAVES, ids=" ".join)
def test_values_are_told_apart(tmp_path, leaf):
    one, other, again = (hashed(tmp_path, program(v, ["global name"], set())) for v in (*leaf, leaf[0]))
    assert one == again != other


def test_a_program_has_one_hash_in_every_process(tmp_path):
    "Other hashes of strings, another order of imports, other addresses."
    rng, here = random.Random(0), {}
    for i, name in enumerate([*CARRIERS] * 2):
        modules = program(
            rng.choice(LEAVES)[0], [name, *rng.choices([*CARRIERS], k=rng.randrange(3))], {rng.randrange(3)}
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".* uses exec: ")
            here[str(i)] = code_hash(load(tmp_path / str(i), modules))
    body = """
import importlib, json, sys
from pathlib import Path
from nas_nb.codehash import code_hash
found, folders = {}, sorted(Path(sys.argv[1]).iterdir(), key=lambda p: p.name[::-1])
for folder in folders if sys.argv[2] == "1" else folders[::-1]:
    sys.path[0] = str(folder)
    for name in [m for m in sys.modules if (folder / f"{m}.py").exists()]: del sys.modules[name]
    importlib.invalidate_caches()
    found[folder.name] = code_hash(importlib.import_module("main").run)
print(json.dumps(found))
"""
    for seed in "12":
        env = os.environ | dict(PYTHONHASHSEED=seed, PYTHONDONTWRITEBYTECODE="1")
        done = subprocess.run(
            [sys.executable, "-c", body, str(tmp_path), seed], env=env, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert {i for i in here if found[i] != here[i]} == set()


# -- what is refused, and what is named --


def of(source, **names):
    "The function `f` of a source without a file."
    exec(source, space := dict(__name__="__main__", **names))
    return space["f"]


def test_what_is_used_up_is_refused():
    with pytest.raises(
        ValueError, match=r"^f\.V\.k is a generator, which gives something else each time that it is read: "
    ) as error:
        code_hash(of("def f():\n    return V", V=SimpleNamespace(k=(n for n in range(3)))))
    assert "\n" not in str(error.value)


def test_what_cannot_be_called_has_no_hash():
    with pytest.raises(ValueError, match="not of int: pass the run's function"):
        code_hash(3)


@pytest.mark.parametrize(
    "source, says",
    [
        ("f = lambda: V[0]", "f.V is a memoryview: what it holds"),
        ("f = lambda: eval('V')", "f uses eval: what it looks up by a text"),
        ("f = lambda: globals()['V']", "f uses globals: what it looks up by a text"),
        (
            "import importlib\nf = lambda: importlib.import_module('x')",
            "f uses importlib.import_module: what it looks up by a text",
        ),
        (
            "def f():\n    import importlib\n    return (lambda: importlib.import_module('x'))()",
            "f uses importlib.import_module: what it looks up by a text",
        ),
        (
            "def f():\n    from importlib import import_module\n    return import_module('x')",
            "f uses importlib.import_module: what it looks up by a text",
        ),
        (
            "def g():\n    import no_such_module\nf = lambda: g()",
            "f.g imports no_such_module, which fails here (ModuleNotFoundError): what is in it",
        ),
    ],
)
def test_what_cannot_be_followed_is_named_once_in_one_line(source, says):
    codehash._say.cache_clear()
    f = of(source, V=memoryview(b"abc"))
    f.__qualname__ = "f"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert code_hash(f) == code_hash(f)
    assert [str(w.message) for w in said] == [f"{says} is not part of the code hash"]


def test_a_list_of_what_cannot_be_followed_is_named_once():
    codehash._say.cache_clear()
    with pytest.warns(UserWarning) as said:
        code_hash(of("def f():\n    return V", V=[memoryview(b"abc") for _ in range(100)]))
    assert len(said) == 1


def test_what_decides_nothing_is_not_named():
    kept = dict(
        lock=threading.Lock(),
        again=threading.RLock(),
        log=logging.getLogger("x"),
        seen=weakref.WeakKeyDictionary(),
        env=os.environ,
        rand=np.random.rand,
        shuffle=random.shuffle,
    )
    f = of("def f():\n    return V", V=kept)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = code_hash(f)
        random.random(), np.random.rand(), os.environ.update(A_VARIABLE="1")
        kept["seen"][f] = 1
        assert code_hash(f) == before
    os.environ.pop("A_VARIABLE")


def test_using_what_is_reached_changes_no_hash(tmp_path):
    "Caches fill, Python keeps things in classes, methods are bound anew."
    carriers = [c for c in CARRIERS if c not in ("default dict",)]
    for carrier in carriers:
        run = load(tmp_path / carrier.replace(" ", "-").replace("'", ""), program("[1]", [carrier], set()))
        before = code_hash(run)
        assert run(0) == [1] and run(1) == [1]
        with contextlib.suppress(Exception):
            copy.deepcopy(sys.modules["main"].o1)
        assert code_hash(run) == before, carrier


# -- whose code is followed --


def test_a_module_that_is_edited_while_the_old_code_runs_keeps_the_hash_of_the_old(tmp_path):
    sources = [program(leaf, [], set()) | dict(main=f"def run(seed):\n    return {leaf}\n") for leaf in "12"]
    first = load(tmp_path / "a", sources[0])
    before = code_hash(first)
    second = load(tmp_path / "b", sources[0])
    (tmp_path / "b" / "main.py").write_text(sources[1]["main"])  # before anybody asks for its hash
    assert second(0) == 1 and code_hash(load(tmp_path / "c", sources[1])) not in (before, code_hash(second))
    (tmp_path / "a" / "main.py").write_text(sources[1]["main"])
    assert first(0) == 1 and code_hash(first) == before


def test_another_version_of_a_package_counts(monkeypatch):
    f = of("import torch\ndef f(x):\n    return torch.relu(x)")
    before = code_hash(f)
    monkeypatch.setattr(codehash, "_origin", lambda module: "torch 9.9" if module == "torch" else None)
    assert code_hash(f) != before


def test_a_package_in_site_packages_is_its_name_and_version(tmp_path, monkeypatch):
    def found(body, version):
        for name in [m for m in sys.modules if m == "somebodys"]:
            del sys.modules[name]
        folder = tmp_path / f"{body}-{version}" / "site-packages"
        (folder / "somebodys").mkdir(parents=True)
        (folder / "somebodys" / "__init__.py").write_text(f"def f():\n    return {body}")
        info = folder / f"any_name-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: any-name\nVersion: {version}\n")
        (info / "RECORD").write_text("somebodys/__init__.py,,\n")
        with monkeypatch.context() as m:
            m.syspath_prepend(folder)
            codehash._origin.cache_clear(), codehash._version.cache_clear()
            return code_hash(of("from somebodys import f as g\ndef f():\n    return g()")), code_hash(
                of("def f():\n    import somebodys")
            )

    first, other, newer = found("1", "1.0"), found("2", "1.0"), found("1", "1.1")
    assert first == other and not set(first) & set(newer)
    codehash._origin.cache_clear(), codehash._version.cache_clear()


# -- the runs of the documents --

PAPERS = """
import json, sys, warnings
sys.path.insert(0, sys.argv[1])
warnings.simplefilter("error", UserWarning)
from nas_nb.codehash import code_hash
from nas_nb.papers import asng_runs, cifar10_runs, hypernet_runs, tdga_runs
runs = {
    tdga_runs: ("darts_run", "tdga_run", "random_run", "retrain_run", "worth_run"),
    asng_runs: ("hitting_times", "run_until_found"),
    hypernet_runs: ("search_runs",),
    cifar10_runs: ("search_run", "cost_run"),
}
found = {name: code_hash(getattr(module, name)) for module, names in runs.items() for name in names}
found |= dict(retrain_52=code_hash(hypernet_runs.retrain_run), retrain_55=code_hash(cifar10_runs.retrain_run))
print(json.dumps(found))
"""
IN_CELLS = {"search_runs", "retrain_52", "search_run", "retrain_55", "cost_run"}
ON_VGG = {"darts_run", "tdga_run", "random_run", "retrain_run", "worth_run"}


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    def papers(*edits):
        "The hashes of all runs in a copy of the package in which something is changed."
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(root() / "nas_nb", folder / "nas_nb", ignore=shutil.ignore_patterns("__pycache__"))
        for file, old, new in edits:
            source = (folder / "nas_nb" / file).read_text()
            assert old in source
            (folder / "nas_nb" / file).write_text(source.replace(old, new))
        done = subprocess.run(
            [sys.executable, "-c", PAPERS, str(folder)],
            env=os.environ,
            capture_output=True,
            text=True,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    papers.original = papers()
    return papers


@pytest.mark.parametrize(
    "edits, changed",
    [
        # within the separable convolution
        ([("operations.py", "again = [nn.ReLU(),", "again = [nn.Tanh(),")], IN_CELLS),
        (
            [
                ("operations.py", "nn.MaxPool2d(k, stride, k // 2)", "nn.AvgPool2d(k, stride, k // 2)"),
                (
                    "vgg.py",
                    "def _pooled(x, level):",
                    "# another comment\n\n\ndef _pooled(x,\n            level):",
                ),
                ("core.py", "THREADS = 2", "UNRELATED = THREADS = 2  # two"),
            ],
            IN_CELLS,
        ),
        (
            [
                ("vgg.py", "F.max_pool2d(x.", "F.avg_pool2d(x."),
                (
                    "papers/asng_runs.py",
                    "METHODS = dict(ASNG=ASNG, SNG=SNG,",
                    "METHODS = dict(ASNG=ASNG, SNG=ASNG,",
                ),
            ],
            ON_VGG | {"hitting_times"},
        ),
    ],
    ids=["relu", "pool", "vgg and methods"],
)
def test_a_changed_operation_changes_the_runs_that_use_it_and_no_other(papers, edits, changed):
    found = papers(*edits)
    assert {name for name in found if found[name] != papers.original[name]} == changed


def test_asking_again_is_cheap(monkeypatch):
    "Documents ask a hundred times: what was read once is not parsed again."
    from nas_nb.papers.cifar10_runs import search_run

    first, asked = code_hash(search_run), []
    monkeypatch.setattr(codehash.ast, "parse", lambda *args, **kwargs: asked.append(args))
    assert code_hash(search_run) == first and not asked


DECORATED = """
import contextlib

@contextlib.contextmanager
def guard(limit):
    yield LEVEL

LEVEL = 1

@guard(3)
def run(n, seed, device, ckpt):
    return dict(value=n)
"""


def test_a_context_manager_as_a_decorator(tmp_path, monkeypatch):
    "Its generator is made anew at each call; the function, its arguments and what it reads decide."
    sources = [
        DECORATED,
        DECORATED,
        *(
            DECORATED.replace(*change)
            for change in (
                ("guard(3)", "guard(4)"),
                ("LEVEL = 1", "LEVEL = 2"),
                ("yield LEVEL", "yield 2 * LEVEL"),
            )
        ),
    ]
    hashes = [
        code_hash(module(tmp_path, monkeypatch, f"run{n}", source).run) for n, source in enumerate(sources)
    ]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 4


RUNS_THAT_REMEMBER = {  # what has run before must not count: each looks something up that is worked out once
    "one-shot": ("arena_oneshot", "oneshot_run", dict(
        method="random search", table="digits", null=False, apart=True, delta0=1.0, steps=2, looks=1, rank=True,
        block=1, seed=0)),
    "credit": ("credit_search", "table_run", dict(
        method="random search", table="digits", null=False, first=1, steps=2, looks=1, block=1, seed=0)),
    "look-up": ("arena_lookup", "lookup_run", dict(
        table="digits", method="random search", counts=[2], judged=[2], searches=2, null=False, settings={},
        seed=0)),
    "children": ("controller_runs", "final_run", dict(
        space="macro, sum", row=[0, 0, 0, 0, 0, 0] + [0] * 15, steps=1, fresh=1, seed=0)),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS_THAT_REMEMBER)
def test_a_run_has_the_same_hash_after_it_has_run(name):
    module, function, sizes = RUNS_THAT_REMEMBER[name]
    fn = getattr(importlib.import_module(f"nas_nb.papers.{module}"), function)
    before = code_hash(fn)
    fn(**sizes)
    assert code_hash(fn) == before


def test_counting_operations_changes_no_hash():
    "At its first use torch keeps what it has made of a dispatch mode's method in that method."
    kept = vars(estimate._Count.__torch_dispatch__.__wrapped__)
    kept.pop("__dynamo_disable", None)
    before = code_hash(estimate.passes)
    with estimate._Count():
        torch.ones(2) + 1
    assert kept and code_hash(estimate.passes) == before
