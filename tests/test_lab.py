"""JupyterLab as `make lab` starts it: opening a notebook changes nothing, nor does saving it."""

import asyncio
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbdev.clean import clean_jupyter
from traitlets.config import Configurable

pytestmark = pytest.mark.filterwarnings("ignore:Overriding existing pre_save_hook")
ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tools"))
import lab  # noqa: E402

SPEC = SimpleNamespace(display_name="Python 3 (ipykernel)", language="python")
OTHER = SimpleNamespace(display_name="R", language="R")
SPECS = SimpleNamespace(
    find_kernel_specs=lambda: dict(python3="", ir=""), get_kernel_spec=dict(python3=SPEC, ir=OTHER).get
)


class Server(Configurable):
    kernel_spec_manager = SPECS


@pytest.fixture
def manager(tmp_path, monkeypatch):
    "Of a folder with a notebook, as it is committed."
    name = "07_streams.ipynb"
    (tmp_path / "settings.ini").write_text((ROOT / "settings.ini").read_text())
    (tmp_path / name).write_text((ROOT / "nbs" / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return lab.Notebooks(root_dir=str(tmp_path), pre_save_hook=clean_jupyter, parent=Server())


def opened(manager, path="07_streams.ipynb", **how):
    return asyncio.run(manager.get(path, **how))


def test_a_notebook_is_opened_as_its_kernel_will_know_it(manager):
    from ipykernel.ipkernel import IPythonKernel

    metadata = opened(manager)["content"]["metadata"]
    known = dict(name="python3", display_name="Python 3 (ipykernel)", language="python")
    assert metadata == dict(kernelspec=known, language_info=IPythonKernel.language_info)
    assert opened(manager, content=False)["content"] is None and opened(manager, "settings.ini")["content"]


def test_what_was_opened_and_saved_is_the_same_file(manager, tmp_path):
    before = (tmp_path / "07_streams.ipynb").read_bytes()
    model = json.loads(json.dumps(opened(manager)["content"]))
    asyncio.run(
        manager.save(
            dict(type="notebook", format="json", content=nbformat.from_dict(model)), "07_streams.ipynb"
        )
    )
    assert (tmp_path / "07_streams.ipynb").read_bytes() == before


@pytest.mark.parametrize("name", ["ir", "gone", None])
def test_what_another_kernel_will_say_is_not_made_up(name):
    metadata = dict(kernelspec=dict(name=name, display_name="x")) if name else {}
    assert lab.with_kernel(metadata, SPECS) == metadata


def test_make_lab_starts_it_so():
    recipe = (ROOT / "Makefile").read_text().partition("\nlab: env\n")[2].partition("\n\n")[0]
    assert "tools/lab.py" in recipe and "jupyter lab" not in recipe
