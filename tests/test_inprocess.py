"""`make gpu` on the CPU, at the size of a test, with everything unimportable that a bare machine with a GPU
lacks."""

import builtins
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import fastcore
import pytest

from nas_nb import inprocess
from nas_nb.bits import other_surroundings
from nas_nb.codehash import code_hash
from nas_nb.estimate import estimate
from nas_nb.inprocess import SLICES, Cell, code_cells, names, needed, with_runs
from nas_nb.notebooks import Refused, notebooks

ROOT = Path(__file__).resolve().parent.parent
BLOCKED = "IPython ipykernel ipywidgets jupyter_client jupyter_core jupyterlab papermill nbclient nbconvert nbformat nbdev execnb ghapi".split()
BLOCKER = f"""import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A copy of the project, and the environment of a machine without Jupyter; fastcore only as a wheel of
    the bundle."""
    copy = tmp_path_factory.mktemp("bare")
    for folder, pattern in (("nas_nb", "*.py"), ("nbs", "*.ipynb"), ("tests", "*.py"), ("tools", "*.py")):
        for p in (ROOT / folder).rglob(pattern):
            if ".ipynb_checkpoints" not in p.parts:
                (copy / p.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(p, copy / p.relative_to(ROOT))
    for name in ("settings.ini", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, copy)
    (copy / "data/gpu/wheels").mkdir(parents=True)
    package = Path(fastcore.__file__).parent
    with zipfile.ZipFile(copy / "data/gpu/wheels/fastcore-1-py3-none-any.whl", "w") as wheel:
        for p in package.rglob("*.py"):
            wheel.write(p, p.relative_to(package.parent))
    (copy / "blocker").mkdir()
    (copy / "blocker/sitecustomize.py").write_text(BLOCKER)
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NAS_NB_DATA")}
    return copy, env | dict(
        PYTHONPATH=str(copy / "blocker"), OMP_NUM_THREADS="1", NAS_NB_CHECKPOINT_SECONDS="0"
    )


def make(bare, *words, **more):
    copy, env = bare
    return subprocess.run(
        ["make", "gpu", f"PYTHON={sys.executable}", *words],
        cwd=copy,
        env=env | more,
        capture_output=True,
        text=True,
        timeout=600,
    )


def records(copy):
    return {p.parent.name: json.loads(p.read_text()) for p in copy.glob("data/runs/*/*/record.json")}


def test_everything_at_the_size_of_a_test(bare):
    copy, _ = bare
    done = make(bare, "DEVICE=cpu", "PROFILE=smoke", NAS_NB_CHECKPOINT_SECONDS="60")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for part in (
        "tests: done",
        "speed: done",
        *(f"{s.notebook} ({', '.join(s.cells) or 'all runs'}): done" for s in SLICES),
        "all done",
    ):
        assert part in done.stdout
    assert {r["document"] for r in records(copy).values()} == {s.notebook for s in SLICES}
    assert not [*copy.glob("figures/**/*.svg")]  # they are drawn elsewhere
    with tarfile.open(copy / "data/gpu/results.tar.gz") as archive:
        speed = json.load(archive.extractfile("figures/smoke/91_speed/speed.json"))
    assert {"asng-table", "sampled-table", "machine"} <= speed.keys() and "fused optimiser" in speed[
        "asng-table"
    ]["index"]
    before = {p: p.stat().st_mtime_ns for p in copy.glob("data/runs/*/*/record.json")}
    again = make(bare, "DEVICE=cpu", "PROFILE=smoke", "ONLY=runs", "DOCS=50 51")
    assert (
        again.returncode == 0 and {p: p.stat().st_mtime_ns for p in before} == before
    )  # nothing is computed twice


def test_modules_are_really_missing(bare):
    copy, env = bare
    code = f"""import sys
sys.path.insert(0, 'tools')
import gpu, fastcore
print(fastcore.__file__)
for name in {BLOCKED!r}:
    try:
        __import__(name)
    except ModuleNotFoundError as error:
        print(error)
"""
    asked = subprocess.run([sys.executable, "-c", code], cwd=copy, env=env, capture_output=True, text=True)
    assert (
        asked.stdout.count("No module named") == len(BLOCKED)
        and "fastcore-1-py3-none-any.whl" in asked.stdout
    ), asked.stderr


SEARCH = """import sys
from nas_nb.inprocess import execute
execute("55_asng_cifar10", ("runs",), profile="smoke", device="cpu", overrides="steps=6 methods=ASNG,random_search looks=2 factors=0.0 tries=1 random=1")
"""


def search(bare, folder, **more):
    copy, env = bare
    env = (
        env
        | dict(
            PYTHONPATH=os.pathsep.join(
                [env["PYTHONPATH"], str(copy), str(next(copy.glob("data/gpu/wheels/*.whl")))]
            ),
            MPLBACKEND="Agg",
        )
        | more
    )
    shutil.rmtree(copy / "data/runs", ignore_errors=True) if folder == "anew" else None
    return subprocess.Popen(
        [sys.executable, "-c", SEARCH],
        cwd=copy,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_an_interrupt_and_a_time_limit_lose_nothing(bare):
    copy, _ = bare
    whole = search(bare, "anew")
    assert whole.wait(300) == 0, whole.stdout.read()
    wanted = {name: r["result"] for name, r in records(copy).items()}
    first = search(
        bare, "anew", NAS_NB_DEADLINE=str(time.monotonic())
    )  # over before it begins: stops at the first step
    assert first.wait(300) and "OutOfTime" in first.stdout.read()
    assert not records(copy) and len([*copy.glob("data/runs/*/*/checkpoint.pt")]) == 1
    second = search(bare, "")
    end = time.monotonic() + 120
    while time.monotonic() < end and not records(copy):  # the first of several runs is done
        time.sleep(0.02)
    second.send_signal(signal.SIGINT)
    assert second.wait(300) and re.search(
        "KeyboardInterrupt|Interrupted: .* run again to go on", second.stdout.read()
    )  # between two runs, or within one
    third = search(bare, "")
    assert third.wait(300) == 0, third.stdout.read()
    assert {name: r["result"] for name, r in records(copy).items()} == wanted


def test_the_limit_of_the_command(bare):
    copy, _ = bare
    shutil.rmtree(copy / "data/runs", ignore_errors=True)
    late = make(bare, "DEVICE=cpu", "PROFILE=smoke", "ONLY=runs", "DOCS=50", "TIME=0.001s")
    assert "the same command goes on" in late.stdout and "Error 3" in late.stderr
    assert make(bare, "DEVICE=cpu", "PROFILE=smoke", "ONLY=runs", "DOCS=50").returncode == 0
    assert {r["document"] for r in records(copy).values()} == {"50_tdga_darts_vgg19"}


@pytest.mark.parametrize(
    "words, says",
    [
        (["DEVICE=cuda"], "no GPU"),
        (["DOCS=99", "DEVICE=cpu"], "unknown notebook"),
        (["TIME=soon"], "no duration"),
    ],
)
def test_bad_usage(bare, words, says):
    done = make(bare, "PROFILE=smoke", *words, CUDA_VISIBLE_DEVICES="")
    assert done.returncode and says in done.stderr and "Traceback" not in done.stderr


# -- what comes home --

ASKS = """from nas_nb.study import Study
def compute(trials, seed, device, ckpt): return dict(sum=trials + seed)
study = Study("50_demo", PROFILES, profile, seeds, device, overrides)
runs = [study.run(compute, "demo", seed, trials=study.cfg.trials) for seed in range(study.cfg.seeds)]"""
GPU = """import sys, nas_nb.inprocess as i
i.SLICES = (i.Slice("50_demo", (), 1, 1.0, "the only one"),)
sys.exit(i.main(["--device", "cpu", "--only", "runs", *sys.argv[1:]]))"""


def demo(folder: Path) -> Path:
    "A project with one document, of which a run takes no time."
    profiles = (
        "PROFILES = dict(paper=dict(trials=100, seeds=3), cpu=dict(seeds=2), quick=dict(), smoke=dict())"
    )
    parameters = 'profile: str = "quick"\nseeds: int = 0\ndevice: str = "auto"\noverrides: str = ""'
    rest = dict(cell_type="code", metadata={}, outputs=[], execution_count=None)
    sources = (profiles, parameters, ASKS, "save_fig(study)")
    cells = [rest | dict(id=f"c{i}", source=s) for i, s in enumerate(sources)]
    cells[1] = cells[1] | dict(metadata=dict(tags=["parameters"]))
    (folder / "nbs").mkdir(parents=True)
    (folder / "settings.ini").write_text("[DEFAULT]\nlib_name = nas_nb\n")
    nb = dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)
    (folder / "nbs" / "50_demo.ipynb").write_text(json.dumps(nb))
    return folder


def bring(project: Path, profile: str) -> tuple[str, dict]:  # what is said, name → content of the archive
    words = [sys.executable, "-c", GPU, "--profile", profile, "--out", "out"]
    done = subprocess.run(words, cwd=project, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    with tarfile.open(project / "out" / "results.tar.gz") as archive:
        return done.stdout, {m.name: archive.extractfile(m).read() for m in archive.getmembers()}


@pytest.mark.parametrize("profile, seeds", [("cpu", 2), ("paper", 3)])
def test_the_records_of_committed_profiles_are_packed_and_found_at_home(tmp_path, profile, seeds):
    away, home = demo(tmp_path / "away"), demo(tmp_path / "home")
    said, packed = bring(away, profile)
    assert len(packed) == seeds and "all done" in said
    assert {str(Path(name).parent) for name in packed} == {f"figures/{profile}/50_demo/records"}
    assert sorted(json.loads(text)["seed"] for text in packed.values()) == [*range(seeds)]
    with tarfile.open(away / "out" / "results.tar.gz") as archive:
        archive.extractall(home, filter="data")
    again = bring(home, profile)[1]
    told = json.loads((home / "figures" / profile / "50_demo" / "report.json").read_text())
    assert told["runs"] == dict(computed=0, reused=0, committed=seeds)
    assert not again  # nothing new was written
    assert not list(home.glob("data/runs/*/*/record.json"))


# -- what is run --


def counted(notebook):
    """As the study does it: found in the record of the document, which takes a minute to count, as long as
    neither the sizes nor the code that counts have changed; else counted here."""

    def run(count, label, **sizes):
        for path in ROOT.glob(f"figures/cpu/{notebook}/records/{label}-*.json"):
            record = json.loads(path.read_text())
            same = record["config"] == json.loads(json.dumps(sizes))
            if same and record["made_by"]["code"] == code_hash(count):
                return record
        return dict(result=count(0, "cpu", None, **sizes))

    runs = next(p.stem for p in ROOT.glob(f"nbs/{notebook[:2]}a_*.ipynb"))
    work = importlib.import_module(f"nas_nb.papers.{runs.partition('_')[2]}").work
    return estimate(SimpleNamespace(run=run), work, notebooks()[notebook].sizes("paper"))


@pytest.mark.skipif(bool(other_surroundings()), reason="another torch counts other operations")
@pytest.mark.parametrize("notebook", ["50_tdga_darts_vgg19", "52_hypernet_complexity", "55_asng_cifar10"])
def test_the_hours_are_those_that_the_document_estimates(notebook):
    document = importlib.import_module(f"nas_nb.papers.{notebook.partition('_')[2]}")
    estimated = counted(notebook).hours.iloc[-1]
    assert sum(s.hours for s in SLICES if s.notebook == notebook) == pytest.approx(estimated, abs=0.15)
    assert document.EXPECTED["paper"] == f"{estimated:.1f} h on one GPU (estimated)"


@pytest.mark.parametrize(
    "notebook",
    ["50_tdga_darts_vgg19", "52_hypernet_complexity", "53_credit_assignment", "55_asng_cifar10"],
)
def test_the_time_of_cpu_is_that_of_its_records(notebook):
    document = importlib.import_module(f"nas_nb.papers.{notebook.partition('_')[2]}")
    said = {
        unit: int(n) for n, unit in re.findall(r"(\d+) (h|min)", document.EXPECTED["cpu"].partition(",")[0])
    }
    taken = sum(
        json.loads(p.read_text())["run"]["seconds"]
        for p in (ROOT / "figures" / "cpu" / notebook / "records").glob("*.json")
    )
    assert said["h"] + said.get("min", 0) / 60 == pytest.approx(taken / 3600, rel=0.05)


def test_slices_name_documents_and_cells_that_ask_for_runs():
    papers = {name: nb for name, nb in notebooks().items() if "paper" in nb.profiles and name[0] == "5"}
    documents = {name for name, nb in papers.items() if "days" not in nb.expected["paper"]}  # more than one
    assert (
        {s.notebook for s in SLICES} == documents == {s.notebook for s in SLICES if not s.cells}
    )  # at last all runs of each
    rates = [s.claims / s.hours for s in SLICES[:-2]]
    assert rates == sorted(rates, reverse=True) and sum(s.hours for s in SLICES) <= 24
    for s in SLICES:
        assert set(s.cells) <= set(with_runs(code_cells(s.notebook))) and s.why
    assert set(inprocess.SPEED) <= {c.id for c in code_cells("91_speed")}


@pytest.mark.parametrize(
    "source, bound, read",
    [
        ("a = [i for i in b]", "a", "b"),
        ("f(x for x in y)", "", "f y"),
        ("c = {k: v + z for k, v in d.items()}", "c", "d z"),
        ("def g():\n    return [q(i) for i in r]", "g", "q r"),
        ("for i in b:\n    pass", "i", "b"),
    ],
)
def test_names_of_comprehensions_are_their_own(
    source, bound, read
):  # also since Python 3.12, which compiles them into what is around
    assert names(source) == (set(bound.split()), set(read.split()))


def test_what_draws_is_left_out():
    for notebook in {s.notebook for s in SLICES}:
        cells = code_cells(notebook)
        chosen = {c.id for c in needed(cells, with_runs(cells))}
        drawing = {c.id for c in cells if "save_fig(" in c.source}
        judging = {c.id for c in cells if "study.judge(" in c.source}  # CLAIMS are exported, and come along
        assert len(chosen & drawing) <= 2 and not chosen & judging


def test_needed_cells():
    cells = [
        Cell("a", "x = 1"),
        Cell("b", "x = 2"),
        Cell("c", "def f():\n    return x"),
        Cell("d", "f()"),
        Cell("e", "x = 3"),
        Cell("f", "#| export\ny = 0"),
    ]
    assert [c.id for c in needed(cells, ["d"])] == ["b", "c", "d"]
    with pytest.raises(ValueError, match="no cell 'z'"):
        needed(cells, ["z"])


def test_a_run_has_the_same_code_hash_as_in_a_notebook(tmp_path, monkeypatch):
    from nas_nb.codehash import code_hash

    cell = Cell("own", "def double(x):\n    # a comment\n    return 2 * x\n")
    inprocess.run_cell(cell, namespace := dict(__name__="__main__"))
    inprocess.run_cell(
        Cell("other", cell.source.replace("# a comment", "")), other := dict(__name__="__main__")
    )
    inprocess.run_cell(Cell("changed", cell.source.replace("2", "3")), changed := dict(__name__="__main__"))
    assert code_hash(namespace["double"]) == code_hash(other["double"]) != code_hash(changed["double"])


def test_a_bundle(tmp_path, monkeypatch):
    root = tmp_path / "here"
    (root / "MNIST/raw").mkdir(parents=True)
    monkeypatch.setenv("NAS_NB_DATA", str(root))
    with pytest.raises(Refused, match="is not here"):
        inprocess.bundle(tmp_path / "there", ("cifar10",))
    for name in (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    ):
        (root / "MNIST/raw" / name).write_bytes(bytes(100))
    assert inprocess.bundle(tmp_path / "there", ("mnist",)) == 400
    assert (
        sorted(p.name for p in (tmp_path / "there/data/MNIST/raw").iterdir())[0] == "t10k-images-idx3-ubyte"
    )
    with pytest.raises(Refused, match="at most"):
        inprocess.bundle(tmp_path / "there", ("mnist",), most=399)


# -- names of the cells --


def unbound(cells):
    """Names that a cell reads and that neither it nor an earlier one binds, as 'cell: name'; an export may
    read those of later exports, in functions."""
    bound, read = zip(*(names(cell.source) for cell in cells))
    exported = [cell.source.startswith("#| export") for cell in cells]
    module = set().union(*(b for b, e in zip(bound, exported) if e))
    known, found = {*dir(builtins), "__name__", "__file__", "display"}, []
    for n, cell in enumerate(cells):
        known |= bound[n]
        found += [
            f"{cell.id}: {name}" for name in sorted(read[n] - known - (module if exported[n] else set()))
        ]
    return found


def test_unbound_names_are_found():
    good = [
        Cell("a", "import math\nx = 1"),
        Cell("b", "def f(y):\n    return [y + x + math.pi for y in range(3)]"),
        Cell("c", "display(f(x))"),
    ]
    assert unbound(good) == []
    assert unbound(good[1:]) == ["b: math", "b: x", "c: x"]
    assert unbound([good[2], *good[:2]]) == ["c: f", "c: x"]  # bound further down only
    assert unbound([Cell("a", "f = lambda: later"), Cell("b", "#| export\nlater = 1")]) == ["a: later"]
    assert unbound([Cell("a", "#| export\nf = lambda: later"), Cell("b", "#| export\nlater = 1")]) == []
    assert unbound([Cell("a", "#| export\nf = lambda: later"), Cell("b", "later = 1")]) == ["a: later"]


@pytest.mark.parametrize("notebook", sorted(p.stem for p in (ROOT / "nbs").glob("[0-9]*.ipynb")))
def test_every_name_of_a_cell_is_bound_before(notebook):
    assert not unbound(code_cells(notebook))
