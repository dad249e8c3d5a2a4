"""Portable arithmetic: the same bits on x86-64 processors with AVX2, natively and emulated by `qemu-user`."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import portable_ops
import pytest
import torch
from test_notebooks import NOTEBOOKS, calls, cells, exported, load, source

from nas_nb.bits import (
    EXPECTED,
    NUMPY,
    PORTABLE,
    TORCH,
    compute_portably,
    other_surroundings,
    portable_variables,
)

ROOT = Path(__file__).resolve().parent.parent
HASHES = json.loads((ROOT / "tests" / "portable_ops.json").read_text())
OTHER = other_surroundings()
pinned = pytest.mark.skipif(bool(OTHER), reason="; ".join(OTHER))


def environment(**more):
    "This one without what it may already hold, and with `more`."
    drop = (*NUMPY, *TORCH, "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    return {k: v for k, v in os.environ.items() if k not in drop} | more


def python(code, before=(), **variables):
    run = subprocess.run(
        [*before, sys.executable, "-c", code],
        env=environment(**variables),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-800:]
    return run.stdout.strip()


# -- the variables --


def test_only_small_profiles_are_portable():
    assert set(PORTABLE) == {"smoke", "quick"}
    assert portable_variables("quick") == portable_variables("smoke") == NUMPY | TORCH
    assert portable_variables("cpu") == portable_variables("paper") == {}
    before = dict(os.environ)
    assert compute_portably("paper") == compute_portably("cpu") == "" and os.environ == before


@pinned
def test_set_from_outside_all_act():
    assert (
        python("from nas_nb.bits import *; print(compute_portably('quick'))", **portable_variables("quick"))
        == ""
    )


@pinned
def test_torch_can_still_be_told_after_the_imports_of_a_document():
    code = "import nas_nb.papers.cifar10_runs, nas_nb.plots as p; p.set_theme(); from nas_nb.bits import *"
    code += "; print(compute_portably('quick'))"
    assert python(code, **NUMPY) == ""


HAS_AVX512 = "avx512f" in (Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else "")


@pinned
@pytest.mark.parametrize(
    "name, place",
    [
        *(
            (n, i)
            for i, n in enumerate(
                ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "NPY_DISABLE_CPU_FEATURES")
            )
        )
    ],
)
def test_each_variable_that_does_not_act_is_named(name, place):
    if not HAS_AVX512 and name != "MKL_CBWR":
        pytest.skip("without AVX-512 there is nothing to switch off")
    variables = {k: v for k, v in portable_variables("quick").items() if k != name}
    code = "from nas_nb.bits import *; a = arithmetic(); print([k for k in EXPECTED if a[k] != EXPECTED[k]])"
    assert ast.literal_eval(python(code, **variables)) == [list(EXPECTED)[place]]


@pinned
@pytest.mark.skipif(not HAS_AVX512, reason="without AVX-512 the default is the same")
def test_too_late_is_said():
    code = "import torch; torch.ones(3).exp(); from nas_nb.bits import *; print(compute_portably('quick'))"
    said = python(code, **NUMPY)
    assert said.startswith("last digits will differ") and "restart the kernel" in said and "\n" not in said


def test_another_version_is_the_reason(tmp_path, monkeypatch):
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nrepo = nas_nb\nlib_name = nas_nb\n")
    (tmp_path / "nbs").mkdir()
    (tmp_path / "constraints.txt").write_text("torch==1.0.0\nnumpy==0.0\nscipy>=1\n")
    monkeypatch.chdir(tmp_path)
    here = torch.__version__.partition("+")[0]
    assert other_surroundings()[0] == f"other torch: {here}" and not any(
        "scipy" in o for o in other_surroundings()
    )


# -- the operations --


@pinned
def test_operations_here():
    run = subprocess.run(
        [sys.executable, "tests/portable_ops.py"],
        env=environment(**portable_variables("quick")),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert json.loads(run.stdout) == HASHES, run.stderr[-500:]


@pinned
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="no qemu-user here")
@pytest.mark.parametrize("processor", ["Haswell", "EPYC-Rome"])
def test_operations_emulated(processor):
    "Without AVX-512, of both makers. qemu 7.2 breaks on grid_sample."
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    env = environment(**portable_variables("quick"), PYTHONPATH=os.pathsep.join((str(ROOT), packages)))
    command = [
        "qemu-x86_64",
        "-cpu",
        processor,
        os.path.realpath(sys.executable),
        "tests/portable_ops.py",
        "F.grid_sample",
    ]
    run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-500:]
    assert json.loads(run.stdout) == {k: v for k, v in HASHES.items() if k != "F.grid_sample"}


def runs_of_51(folder: Path, before=()) -> dict:
    "The results of document 51 at smoke size, computed in a project of its own; label → result."
    folder.mkdir()
    (folder / "nbs").symlink_to(ROOT / "nbs")
    shutil.copy(ROOT / "settings.ini", folder)
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    env = environment(
        **portable_variables("smoke"), PYTHONPATH=os.pathsep.join((str(ROOT), packages)), MPLBACKEND="Agg"
    )
    cells = "('figure4-run', 'trace-run', 'lambda-run')"
    code = "from nas_nb.inprocess import execute; "
    code += f"execute('51_asng_nas', {cells}, profile='smoke', device='cpu')"
    run = subprocess.run(
        [*before, os.path.realpath(sys.executable), "-c", code],
        env=env,
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-800:]
    assert "last digits will differ" not in run.stdout
    records = [json.loads(p.read_text()) for p in folder.glob("data/runs/51_asng_nas/*/record.json")]
    return {r["label"]: r["result"] for r in records}


@pinned
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="no qemu-user here")
def test_a_document_emulated(tmp_path):
    here = runs_of_51(tmp_path / "here")
    assert len(here) > 3 and runs_of_51(tmp_path / "there", ("qemu-x86_64", "-cpu", "EPYC-Rome")) == here


# -- the lint: every operation of the package is exact, in the table, or forbidden --

ELSEWHERE = {
    "_modidx",
    "__init__",
    "cli",
    "compare",
    "jobs",
    "notebooks",
    "report",
    "plots",
    "explore",
    "player",
    "edit_cell",
    "draw",
    "records",
    "files",
    "codehash",
    "bits",
    "asng_speed",
    "own_data",
    "own_report",
    "own_runs",
    "own_cluster",
}  # compute no results
ROUNDED = {*portable_ops.OPS}
SAME_AS = {  # what computes like an operation of the table, by its name there
    "torch.log": ".log", ".log_": ".log", ".square": "op Pow", ".square_": "op Pow",
    "torch.autograd.grad": ".backward", "nn.BatchNorm2d": "F.batch_norm", "nn.MaxPool2d": "F.max_pool2d",
    "nn.AdaptiveMaxPool2d": "F.max_pool2d",
    "torch.nn.functional.one_hot": "F.one_hot", "torch.vmap": ".backward", "torch.baddbmm": ".baddbmm",
    ".sin_": ".sin", ".cos_": ".cos", ".exp_": ".exp",
    "nn.LSTMCell": ".tanh",  # and .sigmoid, of products
}  # fmt: skip
FORBIDDEN = {
    ".sqrt",
    ".sqrt_",
    "torch.sqrt",
    ".log2",
    "torch.log2",
    ".atan",
    ".acos",
    ".asin",
    "op Pow 0.5",
    ".pow",
}
# One operation of IEEE arithmetic for each number, or none: moving, comparing, choosing, counting, making.
EXACT = """
.abs .absolute .add .add_ .addcmul_ .all .amax .amin .any .argmax .argmin .argsort .as_strided .bitwise_and_
.bool .ceil .chunk .clamp .clamp_ .clip .clone .contiguous .copy_ .cpu .data_ptr .detach .diagonal .diff
.div_ .double .element_size .expand .flatten .flip .float .floor .gather .index_add .index_copy
.index_select .is_complex .is_floating_point .isfinite .isinf .isnan .item .long .masked_fill .max .min
.movedim .mul_ .nan_to_num .nbytes .new_empty .new_ones .new_zeros .nonzero .numel .numpy .permute .put
.relu .relu_ .repeat .repeat_interleave .requires_grad_ .reshape .round .scatter .sub .sub_ .take
.tensor_split .to .tolist .transpose .unbind .unflatten .unique .untyped_storage .view .view_as .where
.median torch.testing.assert_close .new_full .new_tensor .masked_fill_ .lt .gt .ge .le .eq .fill_ .zero_ .squeeze .unsqueeze .narrow .select
.size .dim .stride .type .int .byte .half .bfloat16 .cuda .pin_memory .is_contiguous .expand_as .roll .sort
.minimum .maximum F.one_hot F.pad nn.Flatten nn.Identity nn.ModuleDict nn.ModuleList nn.Parameter
nn.ParameterList nn.ReLU nn.Sequential np.abs np.arange np.argsort np.array np.asarray np.bincount np.clip
np.count_nonzero np.diff np.floor np.frombuffer np.full np.isclose np.isnan np.linspace np.load
np.nan_to_num np.repeat np.savez np.sort np.stack np.take_along_axis np.unique np.where np.isfinite np.sqrt
np.concatenate np.ascontiguousarray np.zeros np.ones np.empty np.random.seed torch.Generator torch.Size
torch._foreach_add torch._foreach_add_ torch._foreach_copy_ torch._foreach_mul torch.addcmul torch.arange
torch.as_tensor torch.autocast torch.bincount torch.cat torch.device torch.empty torch.empty_like
torch.equal torch.from_numpy torch.full torch.func.functional_call torch.func.stack_module_state torch.ge
torch.get_num_threads torch.inference_mode torch.manual_seed torch.mul torch.no_grad torch.ones
torch.ones_like torch.random.fork_rng torch.set_num_threads torch.stack torch.tensor torch.unique
torch.where torch.zeros torch.zeros_like torch.finfo torch.iinfo torch.is_tensor torch.is_autocast_enabled
np.iscomplexobj torch.isfinite torch.full_like torch.is_grad_enabled torch.is_inference_mode_enabled
torch.promote_types torch.get_default_dtype torch.randperm torch.result_type nn.Module.load_state_dict
torch.nn.utils.rnn.pad_sequence np.ndim np.subtract np.append .ravel .new
 np.argmax np.tile np.shape torch.eye np.searchsorted np.maximum.accumulate np.ones_like np.unravel_index
 np.rint np.ravel_multi_index np.prod np.flatnonzero np.moveaxis np.maximum np.minimum np.isin np.lib.format.write_array np.percentile torch.meshgrid
 torch.kron .index_add_ nn.ParameterDict
 np.array_split np.logical_and.reduce np.indices np.sign np.ix_ np.delete np.hstack np.tril_indices .quantile
 torch.allclose torch.isin torch.minimum torch.randint .scatter_ .sign
""".split()
LIBRARIES = ("torch", "F", "nn", "np")
NO_NUMBERS = (
    "torch.cpu",
    "torch.cuda",
    "torch.distributed",
    "torch.backends",
    "torch.optim.swa_utils",
)  # they ask, send, or call what is in the table
TENSOR = (
    set(dir(torch.Tensor)) - set(dir(str)) - set(dir(list)) - set(dir(dict)) - {"log10", "rename"}
)  # math.log10 is the system's; rename is pandas' (tensors of older torch have one, too)


def operations(source: str):
    "(line, name) of the operations of tensors and arrays that a module calls."
    for n in ast.walk(ast.parse(source)):
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute):
            of = ast.unparse(n.func.value)
            if of.startswith(NO_NUMBERS):
                continue
            if n.func.attr == "sort_values" or (of, n.func.attr) == ("np", "argsort"):
                stable = any(k.arg == "kind" and ast.unparse(k.value) == "'stable'" for k in n.keywords)
                yield n.lineno, "a stable sort" if stable else "an unstable sort"
                continue
            if of.partition(".")[0] in LIBRARIES and of.replace(".", "").isidentifier():
                yield n.lineno, f"{of}.{n.func.attr}"
            elif of not in ("math", "os") and n.func.attr in TENSOR:
                yield n.lineno, f".{n.func.attr}"
        elif isinstance(n, ast.BinOp) and isinstance(n.op, ast.Pow):
            yield n.lineno, "op Pow 0.5" if ast.unparse(n.right) in ("0.5", "1 / 2", "-0.5") else "op Pow"
        elif isinstance(n, ast.BinOp) and isinstance(n.op, ast.MatMult):
            yield n.lineno, "op MatMult"


def questions(source: str) -> list[str]:
    found = []
    for line, name in operations(source):
        if name == "an unstable sort":  # numpy has one for each family of processors
            found.append(f'line {line}: equal values may come in any order: kind="stable"')
        elif name == "a stable sort":
            continue
        elif name in FORBIDDEN:
            found.append(
                f"line {line}: {name} is not the same on all processors: "
                "use x * x.rsqrt(), xlogy, or what 08_bits says"
            )
        elif not (name in EXACT or name in ROUNDED or SAME_AS.get(name) in {*ROUNDED, *EXACT}):
            found.append(
                f"line {line}: {name} is not in the table of tests/portable_ops.py: "
                "is it the same on all processors?"
            )
        elif name == "torch.optim.Adam" and "fused=True" not in source:
            found.append(f"line {line}: Adam is not fused")
    return found


@pytest.mark.parametrize(
    "module",
    sorted(
        p.relative_to(ROOT / "nas_nb").as_posix()
        for p in (ROOT / "nas_nb").rglob("*.py")
        if p.stem not in ELSEWHERE
    ),
)
def test_every_operation_is_known(module):
    assert questions((ROOT / "nas_nb" / module).read_text()) == []


# Cells that show or check something, or measure times, compute nothing that lies under figures/.
SHOWS = re.compile("check|demo|try|speed|first-move|slider")
DRAWING = [n for n in NOTEBOOKS if any(calls(c, "save_fig") for c in cells(load(n), "code"))]


def unseen(nb: dict) -> list[str]:
    "What a notebook does itself, beside its module, that is not known to be the same everywhere."
    own = [c for c in cells(nb, "code") if c not in exported(nb) and not SHOWS.search(c["id"])]
    return [f"[{c['id']}] {question}" for c in own for question in questions(source(c))]


@pytest.mark.parametrize("name", DRAWING)
def test_every_operation_of_a_notebook_with_figures_is_known(name):
    assert unseen(load(name)) == []


def test_the_lint_sees_cells_that_are_not_exported():
    code = lambda i, s: dict(cell_type="code", id=i, metadata={}, source=[s])
    nb = dict(
        cells=[code("a", "#| export\nx.sqrt()"), code("b", "y = x.sqrt()"), code("b-check", "x.sqrt()")]
    )
    (only,) = unseen(nb)
    assert only.startswith("[b] line 1: .sqrt is not the same")


@pytest.mark.parametrize(
    "line, words",
    [
        ("x.sqrt()", "not the same"),
        ("torch.sqrt(x)", "not the same"),
        ("x ** 0.5", "not the same"),
        ("F.softshrink(x)", "not in the table"),
    ]
    + [
        ("x.erfinv()", "not in the table"),
        ("torch.linalg.svd(x)", "not in the table"),
        ("torch.optim.Adam(p)", "not fused"),
        ("df.sort_values('lam')", "any order"),
        ("np.argsort(x)", "any order"),
        ("df.sort_values('lam', kind='stable')", None),
        ("np.argsort(x, kind='stable')", None),
        ("x.exp() + x ** 2", None),
    ],
)
def test_the_lint_catches(line, words):
    found = questions(line)
    assert (words in found[0]) if words else found == []
