"""The project around the notebooks: pins, packaging, README, the set-up by `make`, the gate."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
import zipfile
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import build_readme
import check_sync
import check_types
import name_cells
import pytest
import setup_venv
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from setuptools import find_packages
from test_notebooks import MACHINE_PATH, git

from nas_nb.notebooks import notebooks

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DIRECT = [
    Requirement(r)
    for r in PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
]
BUILT = re.compile(r"(triton|nvidia-.*|cuda-.*)")  # what a build of torch brings


def read_settings():
    config = ConfigParser()
    config.read(ROOT / "settings.ini")
    return config["DEFAULT"]


def pins(
    text: str,
) -> dict:  # canonical name → specifiers, from lines like `numpy==2.4.6`, with or without a list's dash
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    found = [Requirement(line) for line in lines if re.match(r"[A-Za-z][\w.-]*\s*[=<>]=?", line)]
    assert len({r.name for r in found}) == len(found)
    return {canonicalize_name(r.name): r.specifier for r in found}


CONSTRAINTS = pins((ROOT / "constraints.txt").read_text())


# -- the same versions everywhere --


HEAVY = {
    "torch",
    "torch._dynamo",
    "torchvision",
    "triton",
    "sympy",
    "scipy",
    "sklearn",
    "seaborn",
    "pandas",
    "matplotlib",
    "IPython",
    "ipywidgets",
    "papermill",
    "nbclient",
}
DRAWING = {"matplotlib", "pandas"}
MODULES = sorted(
    ".".join(p.relative_to(ROOT).with_suffix("").parts)
    for p in (ROOT / "nas_nb").rglob("*.py")
    if p.stem not in ("__init__", "_modidx")
)
PLAIN = {"nas_nb.core", "nas_nb.study", "nas_nb.files"} | {
    f"nas_nb.{m}" for m in ("claims", "cli", "compare", "jobs", "notebooks", "overview", "report")
}  # what the command line needs


def test_imports_are_cheap():
    """What a module does not need at once is imported where it is used; `torch._dynamo`, scipy.stats and
    seaborn take a second each."""
    code = """
import importlib, os, sys
heavy, plain, others = map(str.split, sys.argv[1:])
for name in [*plain, "torch", *others]:
    if name == "torch":
        import torch  # once for all that come after it
    elif not (child := os.fork()):
        for one in name.split(","):
            importlib.import_module(one)
        print(name, *sorted(set(heavy) & set(sys.modules)), flush=True)
        os._exit(0)
    else:
        os.waitpid(child, 0)
"""
    papers = ",".join(m for m in MODULES if m.startswith("nas_nb.papers."))  # all may draw: at once
    others = {*MODULES} - PLAIN - {*papers.split(",")} | {papers}
    lists = (" ".join(sorted(names)) for names in (HEAVY, PLAIN, others))
    run = subprocess.run([sys.executable, "-c", code, *lists], cwd=ROOT, capture_output=True, text=True)
    found = {name: set(heavy) for name, *heavy in map(str.split, run.stdout.splitlines())}
    assert sorted(m for name in found for m in name.split(",")) == MODULES, run.stderr
    draws = {"draw", "explore", "layer_pictures", "player", "plots", "tdga", "vgg_pictures", "blindspot"}
    draws |= {"edit_cell", "own_report", "own_runs", "own_cluster", "recurrent_pictures"}
    draws |= {"tables", "tiny", "known_tables", "twins", "rule_table", "smash"}  # their tables are pandas'
    draws = {papers, *(f"nas_nb.{m}" for m in draws)}
    for name, heavy in found.items():
        assert heavy <= (set() if name in PLAIN else {"torch"} | DRAWING if name in draws else {"torch"}), (
            name,
            heavy,
        )


def test_the_command_line_answers_without_torch():
    code = "import sys, nas_nb.cli as b; sys.argv = ['nas-nb', *sys.argv[1:]]\ntry: b.main()\nexcept SystemExit: pass\nprint('LOADED', *sys.modules)"
    for args in (["--help"], ["list"], ["figures", "--help"], ["claims"]):
        run = subprocess.run([sys.executable, "-c", code, *args], cwd=ROOT, capture_output=True, text=True)
        said, _, loaded = run.stdout.rpartition("LOADED")
        assert run.returncode == 0 and len(said) > 200, run.stderr
        assert not HEAVY & set(loaded.split()), args


def test_settings_equal_pyproject():
    settings, project = read_settings(), PROJECT["project"]
    assert settings["requirements"].split() == project["dependencies"]
    assert settings["dev_requirements"].split() == project["optional-dependencies"]["dev"]
    assert dict([settings["console_scripts"].split("=", 1)]) == project["scripts"]
    assert settings["description"] == project["description"]
    assert ">=" + settings["min_python"] == project["requires-python"]


def test_pins_that_nbdev_needs():
    assert {"nbdev==2.4.14", "fastcore<2,>=1.12.3", "execnb<0.2", "ghapi<2"} <= set(map(str, DIRECT))
    settings = read_settings()
    assert (
        "tags" in settings["allowed_cell_metadata_keys"].split()
    )  # else nbdev_clean deletes papermill's `parameters`
    assert settings["update_pyproject"] == settings["clear_all"] == "False"


def test_constraints_lie_in_the_ranges():
    for r in DIRECT:
        spec = CONSTRAINTS[canonicalize_name(r.name)]
        assert r.specifier.contains(str(spec).removeprefix("==")), f"{r.name}{spec} is outside {r}"
    assert [n for n, spec in CONSTRAINTS.items() if not re.fullmatch(r"==[\w.]+", str(spec))] == []
    assert [n for n in CONSTRAINTS if BUILT.fullmatch(n) or n == "nas-nb"] == []


def test_the_first_release_of_the_oldest_python_can_install_the_pins():
    "Debian 12 has Python 3.11.2; what a pin asks for is known of those that are installed here."
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=") + ".0"
    here = {canonicalize_name(d.name): d for d in metadata.distributions()}
    pinned = [here[n] for n, spec in CONSTRAINTS.items() if n in here and spec.contains(here[n].version)]
    assert [
        d.name for d in pinned if not SpecifierSet(d.metadata.get("Requires-Python") or "").contains(oldest)
    ] == []


def test_the_oldest_versions_are_the_lower_ends():
    oldest = pins((ROOT / "constraints-oldest.txt").read_text())
    for r in DIRECT:
        spec = oldest[canonicalize_name(r.name)]
        low = [s.version for s in r.specifier if s.operator in (">=", "==")]
        assert not low or Version(str(spec).removeprefix("==")) == Version(low[0]), (
            f"{r.name}: {spec} is not the lower end of {r.specifier}"
        )


def test_environment_equals_constraints():
    text = (ROOT / "environment.yml").read_text()
    listed = pins(text)
    assert listed.pop("python") == SpecifierSet(PROJECT["project"]["requires-python"])
    assert listed == {n: CONSTRAINTS[n] for n in (canonicalize_name(r.name) for r in DIRECT)}
    assert text.index("- -c constraints.txt") < text.index("- -e .[dev]")


def test_every_package_is_in_the_wheel():
    there = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "nas_nb").rglob("*.py")}
    assert there == set(find_packages(str(ROOT), **PROJECT["tool"]["setuptools"]["packages"]["find"]))
    assert f'__version__ = "{read_settings()["version"]}"' in (ROOT / "nas_nb" / "__init__.py").read_text()
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "nas_nb.__version__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "Built from what git knows, as from a source distribution."
    folder = tmp_path_factory.mktemp("wheel")
    listed = "settings.ini", "pyproject.toml", "README.md", "LICENSE"
    (folder / "source").mkdir()
    for name in listed:
        shutil.copy(ROOT / name, folder / "source")
    shutil.copytree(
        ROOT / "nas_nb", folder / "source" / "nas_nb", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*command, "--wheel-dir", folder, folder / "source"], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_all_modules_and_tables_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {Path(name) for name in file.namelist()}
        metadata = file.read(next(n for n in file.namelist() if n.endswith("METADATA"))).decode()
    info = {name for name in names if name.parts[0].endswith(".dist-info")}
    ours = {p.relative_to(ROOT) for p in (ROOT / "nas_nb").rglob("*") if p.suffix in (".py", ".csv")}
    assert names - info == ours and len(ours) > 90
    assert {"LICENSE", "METADATA", "entry_points.txt"} <= {name.name for name in info}
    assert (
        f"\nVersion: {read_settings()['version']}\n" in metadata and "\nRequires-Python: >=3.11" in metadata
    )
    assert {"site", "cluster", "dev"} <= set(re.findall(r"(?m)^Provides-Extra: (\w+)$", metadata))
    assert wheel.stat().st_size < 2_000_000


def test_a_search_runs_from_the_wheel_alone(wheel, tmp_path):
    "Without a checkout around it; `python -I` would hide the unpacked wheel, too."
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    (tmp_path / "here").mkdir()
    env = {k: v for k, v in os.environ.items() if k != "NAS_NB_DATA"} | dict(OMP_NUM_THREADS="1")
    env |= dict(PYTHONPATH=str(tmp_path / "site"), PYTHONSAFEPATH="1")
    words = "search digits --space nb201 --channels 2 --cells 1 --steps 4,4,1".split()
    how = dict(cwd=tmp_path / "here", env=env, capture_output=True, text=True)
    done = subprocess.run([sys.executable, "-m", "nas_nb.cli", *words], **how)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "here" / "nas-search-digits" / "report.html").is_file()
    where = subprocess.run([sys.executable, "-c", "import nas_nb; print(nas_nb.__file__)"], **how)
    assert where.stdout.startswith(str(tmp_path / "site"))


# -- texts --


def test_readme_is_built_from_the_index():
    assert (ROOT / "README.md").read_text(encoding="utf-8") == build_readme.readme(), "run make readme"


@pytest.mark.parametrize("page", ["README.md", "data/README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    path = ROOT / page
    targets = [m[2].partition("#")[0] for m in build_readme.LINK.finditer(path.read_text(encoding="utf-8"))]
    assert [t for t in targets if not (path.parent / t).exists()] == []


CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_contributing_names_what_is_there():
    makefile, tests = (
        (ROOT / "Makefile").read_text(),
        [p.read_text() for p in (ROOT / "tests").glob("*.py")],
    )
    targets = set(re.search(r"(?m)^\.PHONY: (.*)", makefile)[1].split())
    assert set(re.findall(r"(?m)(?:^|`)make (\w+)", CONTRIBUTING)) <= targets
    files = re.findall(r"(?:tools|tests)/\w+\.\w+", CONTRIBUTING)
    assert files and [f for f in files if not (ROOT / f).exists()] == []
    functions = re.findall(r"`(test_\w+)`", CONTRIBUTING)
    assert functions and [f for f in functions if not any(f"def {f}(" in t for t in tests)] == []


def test_the_recipe_for_an_operation_runs(tmp_path, monkeypatch):
    from fastcore import test

    from nas_nb import operations

    recipe = re.search(r"(?ms)^## Add an operation\n(.*?)^## ", CONTRIBUTING)[1]
    cell, *checks = map(textwrap.dedent, re.findall(r"(?ms)^   ```python\n(.*?)^   ```", recipe))
    scripts = [textwrap.dedent(s) for s in re.findall(r"(?ms)<<'END'\n(.*?)^   END", recipe)]
    poolings = re.findall(r"`(Op\(.*?\))`", recipe)
    assert [len(checks), len(scripts), len(poolings)] == [2, 2, 2]
    notebook = json.loads((ROOT / "nbs" / "10_operations.ipynb").read_text(encoding="utf-8"))
    (results,) = (s for c in notebook["cells"] if (s := "".join(c["source"])).startswith("def results("))
    names = vars(test) | vars(operations)
    for source in (results, cell):
        exec(source, names)
    monkeypatch.setattr(operations, "OWN_OPS", dict(names["OWN_OPS"]), raising=False)
    for pooling in poolings:
        names["OWN_OPS"]["max_pool_5x5"] = eval(pooling, names)
        for check in checks:
            exec(check, names)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for script in scripts:
        exec(script, {})
    assert "conv 1×1 3×3" in (tmp_path / "data" / "cell.svg").read_text(encoding="utf-8")


def test_the_citation_names_what_this_is():
    cff = dict(re.findall(r"(?m)^([a-z-]+): *(.*)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8")))
    settings = read_settings()
    assert {"cff-version", "message", "title", "authors"} <= cff.keys() and cff["cff-version"] == "1.2.0"
    assert cff["version"] == settings["version"] and cff["license"] == PROJECT["project"]["license"]
    assert f'- name: "{settings["author"]}"' in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {settings['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def bibtex(text: str) -> dict[str, dict]:
    "Title -> the fields of each entry, without the braces that keep capitals."
    entries = re.findall(r"(?ms)^@(\w+)\{([\w-]+),\n(.*?)\n\}$", text)
    assert len({key for _, key, _ in entries}) == len(entries) == text.count("\n@")
    fields = [dict(re.findall(r"(?m)^  (\w+) = \{(.*)\},?$", body)) for _, _, body in entries]
    return {f["title"].strip("{}"): {k: v.strip("{}") for k, v in f.items()} for f in fields}


def test_the_bibtex_of_the_start_page_says_what_the_citation_says():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    ours = bibtex("\n" + page.split("```bibtex")[1].split("```")[0])

    def written(entry):  # as CITATION.cff has it
        names = (a.get("name") or f"{a['family-names']}, {a['given-names']}" for a in entry["authors"])
        rest = {k: str(entry[k]) for k in ("version", "license", "year") if k in entry}
        return dict(author=" and ".join(names), title=entry["title"]) | rest

    assert ours == {entry["title"]: written(entry) for entry in (cff, *cff["references"])}
    papers = bibtex("\n" + page.split("```bibtex")[2].split("```")[0])
    assert len(papers) > 5 and all({"author", "year"} <= set(fields) for fields in papers.values())


def test_readme_builder(tmp_path):
    cells = [
        ("markdown", "# T\n\n> s"),
        (
            "markdown",
            '![alt](../figures/a.svg) [nb](51_x.ipynb#h) [web](https://a.b/c) [here](#The-t) <img src="../figures/b.png">',
        ),
        ("code", "#| hide\nimport x"),
        ("code", "#| eval: false\nprint(1)"),
    ]
    nb = tmp_path / "index.ipynb"
    nb.write_text(json.dumps(dict(cells=[dict(cell_type=k, source=s.splitlines(True)) for k, s in cells])))
    text = build_readme.readme(nb)
    assert (
        '![alt](figures/a.svg) [nb](nbs/51_x.ipynb#h) [web](https://a.b/c) [here](#the-t) <img src="figures/b.png">'
        in text
    )
    assert text.endswith("\n\n```python\nprint(1)\n```\n") and "import x" not in text


def test_licence():
    text = (ROOT / "LICENSE").read_text()
    assert (
        "Apache License\n                           Version 2.0" in text
        and "END OF TERMS AND CONDITIONS" in text
    )


def test_no_path_of_one_machine():
    listed = git("ls-files", "--cached", "--others", "--exclude-standard")
    if listed is None:
        pytest.skip("not a git checkout")
    for name in listed.splitlines():
        # notebooks and figures change when they are run: theirs are looked for in what was committed
        if (ROOT / name).is_file() and not name.startswith(("nbs/", "figures/")):
            text = (ROOT / name).read_bytes().decode("utf-8", "replace")
            assert not (m := MACHINE_PATH.search(text)), f"{name}: {m[0]!r}"
    found = git("grep", "-nIE", MACHINE_PATH.pattern, "HEAD", "--", ".")
    assert not found, found


def test_ignored_and_kept():
    def ignored(path):
        return subprocess.run(["git", "check-ignore", "-q", "--no-index", path], cwd=ROOT).returncode == 0

    if git("rev-parse") is None:
        pytest.skip("not a git checkout")
    out = [
        "data/runs/a/record.json",
        "data/MNIST/x.gz",
        ".venv/bin/python",
        ".venv.installing",
        ".ci/venv/x",
        "nas_nb.egg-info/x",
    ]
    out += [
        "figures/quick/51_x/.stamp.json",
        "figures/quick/51_x/report.json",
        "figures/quick/51_x/51_x.ipynb",
        "figures/smoke/51_x/a.svg",
        "data/figures/quick/51_x/a.svg",
    ]
    kept = [
        "data/README.md",
        "figures/quick/51_x/a.svg",
        "figures/paper/51_x/records/a.json",
        "nbs/51_x.ipynb",
        ".ci/run",
    ]
    assert [p for p in out if not ignored(p)] == [] and [p for p in kept if ignored(p)] == []


# -- modules in step with the notebooks --


def test_out_of_step_is_noticed(tmp_path):
    (tmp_path / "nbs").mkdir()
    shutil.copy(ROOT / "settings.ini", tmp_path)
    shutil.copy(ROOT / "nbs" / "00_core.ipynb", tmp_path / "nbs")
    shutil.copytree(
        ROOT / "nas_nb", tmp_path / "nas_nb", ignore=lambda folder, names: set(names) - {"__init__.py"}
    )
    subprocess.run([Path(sys.executable).parent / "nbdev_export"], cwd=tmp_path, check=True)
    assert check_sync.out_of_step(tmp_path) == []
    core = tmp_path / "nas_nb" / "core.py"
    (tmp_path / "nas_nb" / "old.py").write_text("")
    core.write_text(core.read_text() + "\n")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert check_sync.out_of_step(tmp_path) == [
        "nas_nb/old.py: no notebook exports it",
        "nas_nb/core.py: differs",
    ]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before
    core.unlink()
    assert "nas_nb/core.py: not there" in check_sync.out_of_step(tmp_path)


def test_cells_get_readable_ids():
    own = [
        ("markdown", "title", "# T"),
        ("markdown", "0b1e88f1", "what it does"),
        ("code", "0b1e88f3", "#| export\ndef _my_op(x):\n    return x"),
        ("code", "6f1c3f0e-6d5c-4f7b-9c1e-1c2d3e4f5a6b", "f(1)"),
        ("markdown", "tables", "kept"),
        ("code", "0b1e88f4", "f(2)"),
        ("markdown", "0b1e88f2", "why"),
        ("code", "Own", "OWN_OPS = {}"),
        ("markdown", "0b1e88f5", "and"),
        ("markdown", "0b1e88f6", "then"),
        ("code", "scale", "x = 1"),
        ("code", "x", "%magic"),
        ("markdown", "0b1e88f7", "the end"),
    ]
    nb = dict(cells=[dict(cell_type=k, id=i, source=[t]) for k, i, t in own])
    made = name_cells.rename(nb)
    names = (
        "title my-op-md my-op my-op-check tables tables-check own-ops-md own-ops scale-md scale-md-2 scale"
    )
    assert [c["id"] for c in nb["cells"]] == [*names.split(), "scale-check", "scale-md-3"]
    assert made == [c["id"] for c, (_, old, _) in zip(nb["cells"], own) if c["id"] != old]
    assert name_cells.rename(nb) == []


def test_a_new_complaint_about_types_is_named():
    found = {"nas_nb/a.py": ["a:1: error: x", "a:2: error: y"], "nas_nb/b.py": ["b:1: error: z"]}
    assert check_types.grown(found, {"nas_nb/a.py": 2, "nas_nb/b.py": 1, "nas_nb/gone.py": 3}) == []
    (only,) = check_types.grown(found, {"nas_nb/a.py": 1, "nas_nb/b.py": 5})
    assert only.startswith("nas_nb/a.py: 2 complaints of mypy, 1 at most") and "a:2: error: y" in only
    assert "b.py: 1 complaints of mypy, 0 at most" in check_types.grown(found, {"nas_nb/a.py": 2})[0]
    methods = {"judge"}
    assert check_types.of_patch('a:1: error: "Study" has no attribute "judge"  [attr-defined]', methods)
    assert check_types.of_patch('a:1: error: Name "judge" already defined on line 3  [no-redef]', methods)
    assert not check_types.of_patch('a:1: error: "Study" has no attribute "jugde"  [attr-defined]', methods)
    assert {"judge", "folder"} <= check_types.patched()
    assert {"Batches", "LookUp"} <= check_types.patched()  # their `__call__` is added
    uncalled = 'a:1: error: "Tensor" not callable  [operator]'
    assert check_types.of_patch(uncalled, {"stem"}, "x = self.stem(x)")
    assert check_types.of_patch(uncalled, {"cells"}, "x = self.cells[i](x)")
    assert not check_types.of_patch(uncalled, {"stem"}, "x = loss(x, self.stem)")
    assert check_types.of_patch('a:1: error: "LookUp" not callable  [operator]', {"LookUp"})
    assert not check_types.of_patch('a:1: error: "Looook" not callable  [operator]', {"LookUp"})
    assert "== 1/4" in (make := (ROOT / "Makefile").read_text()) and "tools/check_types.py" in make


BROKE_OFF = "a.py:1: error: Unclosed  [syntax]\nFound 1 error in 1 file (errors prevented further checking)\n"


@pytest.mark.parametrize("update", [False, True])
@pytest.mark.parametrize(
    "status, out, err, words",
    [
        (1, "", "/bin/python: No module named mypy\n", f"pip install mypy{CONSTRAINTS['mypy']}"),
        (2, BROKE_OFF, "", "did not finish: a.py:1: error: Unclosed"),
        (1, BROKE_OFF, "", "did not finish"),
        (0, "", "", "did not finish"),
    ],
)
def test_types_are_not_counted_if_mypy_did_not_finish(monkeypatch, tmp_path, update, status, out, err, words):
    monkeypatch.setattr(
        check_types.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, status, out, err)
    )
    monkeypatch.setattr(check_types, "ALLOWED", tmp_path / "types.json")
    check_types.ALLOWED.write_text('{"a.py": 3}')
    with pytest.raises(SystemExit, match=re.escape(words)) as stopped:
        check_types.main(update)
    assert check_types.ALLOWED.read_text() == '{"a.py": 3}' and stopped.value.code.startswith(
        "Types were not"
    )


@pytest.mark.parametrize(
    "status, summary",
    [
        (1, "Found 1 error in 1 file (checked 66 source files)"),
        (0, "Success: no issues found in 1 source file"),
    ],
)
def test_types_are_counted_from_what_mypy_says(monkeypatch, tmp_path, status, summary):
    out = "nas_nb/a.py:1: error: x  [misc]\n" * status + summary + "\n"
    monkeypatch.setattr(
        check_types.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, status, out, "")
    )
    monkeypatch.setattr(check_types, "ALLOWED", tmp_path / "types.json")
    assert check_types.main(True) == 0
    assert json.loads(check_types.ALLOWED.read_text()) == ({"nas_nb/a.py": 1} if status else {})


# -- the set-up by make --


@pytest.fixture
def clone(tmp_path):
    "What `make` needs of a clone, without an environment."
    for folder in ("tests", "tools"):
        (tmp_path / folder).mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "tools/setup_venv.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def clean_environment():
    "Without the traces of the `make` that may have started these tests."
    return {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k not in ("MFLAGS", "VENV")}


def make(folder, *args, fake=""):
    "Run make; `fake` is Python that is executed in every Python that make starts."
    (folder / "fake").mkdir(exist_ok=True)
    (folder / "fake" / "sitecustomize.py").write_text(fake)
    env = clean_environment() | dict(PYTHONPATH=str(folder / "fake"))
    run = subprocess.run(
        ["make", *args], cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return run.returncode, [
        line for line in (run.stdout + run.stderr).splitlines() if not line.startswith("make:")
    ]


OLD = "import sys; sys.version_info = (3, 9, 2, 'final', 0)"
NO_VENV = "import sys; sys.modules['ensurepip'] = None"
FULL = "import shutil; shutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**11, 10**11, int(5.9 * 2**30))"


@pytest.mark.parametrize(
    "fake, words",
    [
        (OLD, "3.9. Name another one: make PYTHON=python3.12 figures"),
        (NO_VENV, "apt install python3-venv"),
        (FULL, "there are 5.9 GB"),
    ],
)
@pytest.mark.parametrize("goal", ["figures", "test", "lab"])
def test_a_machine_that_will_not_do(clone, goal, fake, words):
    status, lines = make(clone, goal, f"PYTHON={sys.executable}", fake=fake)
    assert status and len(lines) == 1 and words in lines[0]
    assert not list(clone.glob(".venv*"))


def test_no_python_at_all(clone):
    status, lines = make(clone, "figures", "PYTHON=python9.9")
    assert status and len(lines) == 1 and lines[0].startswith("python9.9 not found")


def test_make_explains_itself(clone):
    status, lines = make(clone)
    assert status == 0
    for goal in ("figures", "test", "lab", "clean"):
        assert any(line.startswith(f"make {goal}") for line in lines)


def test_old_pythons_can_read_the_set_up():
    ast.parse((ROOT / "tools" / "setup_venv.py").read_text(), feature_version=(3, 6))
    assert ">=%d.%d" % setup_venv.OLDEST == PROJECT["project"]["requires-python"]


@pytest.fixture
def setup(clone, monkeypatch):
    "A function that runs the set-up with venv and pip replaced, and returns which of the two were called."
    monkeypatch.chdir(clone)
    calls = []

    def call(args, pip=0):
        calls.append(args[2])
        if args[2] == "venv":
            (Path(args[3]) / "bin").mkdir(parents=True)
            (Path(args[3]) / "bin" / "python").symlink_to(sys.executable)
        elif isinstance(pip, type):
            raise pip
        return pip if args[2] == "pip" else 0

    def run(pip=0):
        calls.clear()
        monkeypatch.setattr(setup_venv.subprocess, "call", lambda args: call(args, pip))
        setup_venv.main(".venv")
        return list(calls)

    return run


def test_set_up_is_done_once_and_again_when_pins_change(setup, clone):
    assert setup() == ["venv", "pip"]
    assert setup() == []
    os.utime(clone / "pyproject.toml", (1, 1))
    (clone / "constraints.txt").touch()  # git touches files, too
    assert setup() == []
    with open("constraints.txt", "a") as f:
        f.write("# changed\n")
    assert setup() == ["pip"]
    assert setup() == []


@pytest.mark.parametrize("pip, stops", [(KeyboardInterrupt, KeyboardInterrupt), (1, SystemExit)])
@pytest.mark.parametrize("after", ["nothing", "a complete one"])
def test_set_up_that_broke_off_is_done_again(setup, pip, stops, after):
    if after == "a complete one":
        setup()
        with open("pyproject.toml", "a") as f:
            f.write("# changed\n")
    with pytest.raises(stops):
        setup(pip)
    left = Path(".venv/half-a-package")
    left.touch()
    assert setup() == ["venv", "pip"] and not left.exists()
    assert setup() == []


def test_an_environment_that_was_moved_is_made_anew(setup, clone, monkeypatch):
    setup()
    moved = clone / "moved"
    moved.mkdir()
    for name in (".venv", "pyproject.toml", "constraints.txt"):
        (clone / name).rename(moved / name)
    monkeypatch.chdir(moved)
    assert setup() == ["venv", "pip"]
    Path(".venv/bin/python").unlink()  # the Python it was made with is gone
    assert setup() == ["venv", "pip"]


def test_an_environment_of_the_user_is_left_alone(setup):
    mine = Path(".venv/lib/mine.py")
    mine.parent.mkdir(parents=True)
    mine.touch()
    with pytest.raises(SystemExit, match="not made by make"):
        setup()
    with pytest.raises(SystemExit, match="lies inside"):
        setup_venv.main("../.venv")
    assert mine.exists()


def test_clean_keeps_data_and_figures(clone):
    kept = ["data/runs/r/record.json", "data/README.md", "nbs/51_x.ipynb"]
    kept += ["figures/quick/51_x/a.svg", "figures/paper/51_x/records/a.json"]
    gone = [
        ".venv/x",
        ".venv.installing",
        "build/x",
        "nas_nb.egg-info/x",
        "nas_nb/__pycache__/x",
        "nbs/.ipynb_checkpoints/x",
    ]
    gone += [
        "figures/quick/51_x/.stamp.json",
        "figures/quick/51_x/report.json",
        "figures/quick/51_x/51_x.ipynb",
        "figures/smoke/51_x/a.svg",
    ]
    for name in kept + gone:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()
    for _ in range(2):  # a second time there is nothing to do
        status, lines = make(clone, "clean")
        assert status == 0 and lines[-1].startswith("kept: data/")
        assert [n for n in kept if not (clone / n).exists()] == [] and [
            n for n in gone if (clone / n).exists()
        ] == []


def test_no_mark_of_a_conflict_is_left():
    git = ["git", "-C", str(ROOT), "grep", "--untracked", "-nE"]
    marks = r'^[ "]*(<<<<<<<|>>>>>>>|\|\|\|\|\|\|\|) '
    found = subprocess.run([*git, marks], capture_output=True, text=True)
    assert found.returncode == 1 and not found.stdout, found.stdout + found.stderr


# -- the gate --


def test_each_notebook_is_executed_by_one_step_of_the_gate():
    make = (ROOT / "Makefile").read_text()
    skipped = re.compile(re.search(r"(?m)^DRAWN = (.*)$", make)[1])
    assert "--skip_file_re '$(DRAWN)'" in make and "nas-nb figures --profile smoke --force" in make
    names = [p.name for p in (ROOT / "nbs").glob("*.ipynb") if p.name[0] not in "_."]
    drawn = {f"{name}.ipynb" for name, about in notebooks().items() if about.figures}
    assert drawn and {name for name in names if skipped.search(name)} == drawn


@pytest.mark.parametrize("status", [0, 3])
def test_the_gate_has_the_status_of_make_test_and_cleans_up(tmp_path, status):
    (tmp_path / ".ci").mkdir()
    gate = Path(shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci"))
    assert os.access(gate, os.X_OK)
    (tmp_path / ".venv").mkdir()  # the developer's: neither used nor removed
    (tmp_path / ".ci" / "venv").mkdir()  # left by a gate that was killed
    steps = ["test ! -e $(VENV)", "mkdir $(VENV)", "! read line", 'test -z "$$PYTHONPATH"', f"exit {status}"]
    (tmp_path / "Makefile").write_text("\n\t".join(["test:", *steps]) + "\n")
    env = clean_environment() | dict(PYTHONPATH="x")
    run = subprocess.run([gate], env=env, input="line\n", capture_output=True, text=True, cwd="/")
    assert (run.returncode == 0) == (status == 0), run.stderr
    assert f"exit {status}" in run.stdout and ".ci/run: make test ended with status" in run.stdout
    assert sorted(p.name for p in (tmp_path / ".ci").iterdir()) == ["run"] and (tmp_path / ".venv").is_dir()
