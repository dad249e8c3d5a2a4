"""What every test may count on: no display, and none of the variables by which a surrounding run would
change what is tested."""

import os
import sys

import matplotlib
import pytest

matplotlib.use("Agg")
for name in (
    "IN_TEST",
    "NAS_NB_BATCH",
    "NAS_NB_STATUS",
    "NAS_NB_DEADLINE",
    "NAS_NB_FORCE",
    "NAS_NB_FIGURES",
    "NAS_NB_CHECKPOINT_SECONDS",
    "NAS_NB_SCHEDULER",
):
    os.environ.pop(name, None)


def pytest_collection_modifyitems(items):
    "Tests that are marked `gpu` run where there is one (`make gpu`)."
    if marked := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        for item in marked if not torch.cuda.is_available() else ():
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def threads_stay():
    "A test that changes the number of threads changes it for itself alone."
    torch = sys.modules.get("torch")
    before = torch and torch.get_num_threads()
    yield
    if before:
        torch.set_num_threads(before)


@pytest.fixture(scope="module")
def one_thread():
    "Small operations on one thread: two are many times slower as soon as anything else wants a core."
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def project(tmp_path):
    "An empty project of ours."
    (tmp_path / "settings.ini").write_text("[DEFAULT]\nlib_name = nas_nb\n")
    (tmp_path / "nbs").mkdir()
    return tmp_path


@pytest.fixture
def roots(tmp_path, monkeypatch):
    "Two empty roots instead of the real ones: NAS_NB_DATA, and that of the checkout with the cache."
    (tmp_path / "given").mkdir()
    monkeypatch.setenv("NAS_NB_DATA", str(tmp_path / "given"))
    monkeypatch.setattr("nas_nb.images._own_root", lambda: tmp_path / "own")
    monkeypatch.setenv("IN_TEST", "1")
    return tmp_path / "given", tmp_path / "own"
