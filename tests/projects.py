"""Throw-away projects of tiny notebooks, and the command line in them: what the tests of `nas-nb` share."""

import json
import os
import subprocess
import sys
from pathlib import Path

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


def small_site(root: Path, nbs: dict[str, list[dict]]):  # name → cells; one of each band is needed
    "Write the notebooks, and what a site shows beside them."
    for folder in ("nbs", "nas_nb", "data"):
        (root / folder).mkdir()
    for name, cells in nbs.items():
        text = json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5))
        (root / "nbs" / f"{name}.ipynb").write_text(text, encoding="utf-8")
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "data/README.md"):
        start = "../README.md" if "/" in name else "README.md"
        (root / name).write_text(f"# {name}\n\n[start]({start})\n")
    (root / "README.md").touch()
