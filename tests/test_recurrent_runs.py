"""The runs on text of document 54's second half, at tiny size: what comes back, the same again, and going on."""

import pytest

from nas_nb.files import Checkpoint
from nas_nb.papers import recurrent_runs as runs

READING = dict(text="pydoc", words=3000, held=300, streams=4, length=10)
TRAIN = dict(READING, budget=80_000, steps=4, seed=0)
CHILDREN = dict(READING, budget=50_000, updates=2, batch=2, steps=2, rate=0.01, seed=0)
SHARED = dict(READING, width=8, steps=3, samples=2, drawn=3, rate=0.01, seed=0)

pytestmark = pytest.mark.usefixtures("one_thread")


class Stops(Exception):
    pass


def halted(path, at):
    "A checkpoint that writes at each tick and stops the run at one of them."

    class Halts(Checkpoint):
        ticks = 0

        def tick(self, state):
            super().tick(state)
            self.ticks += 1
            if self.ticks == at:
                raise Stops

    return Halts(path, every=0)


def goes_on(tmp_path, fn, at, *args, **size):
    whole = fn(*args, **size)
    with pytest.raises(Stops):
        fn(*args, **size, ckpt=halted(tmp_path / "run.pt", at))
    assert fn(*args, **size, ckpt=Checkpoint(tmp_path / "run.pt")) == whole
    return whole


@pytest.mark.parametrize("cell", runs.CELLS)
def test_a_cell_is_trained(cell, tmp_path):
    found = goes_on(tmp_path, runs.train_run, 2, cell, **TRAIN, looks=2)
    assert 70_000 < found["parameters"] <= 80_000 and len(found["losses"]) == 2
    assert 1 < found["valid"] < 8000 and 1 < found["test"] < 8000 and found["seconds"] is None
    assert runs.train_run(cell, **TRAIN | dict(seed=1))["valid"] != found["valid"]
    assert runs.train_run(cell, **TRAIN, timed=True)["seconds"] > 0


@pytest.mark.parametrize("rule", ["REINFORCE", "random"])
@pytest.mark.parametrize("space", ["small trees", "small graphs"])
def test_a_search_trains_its_children(rule, space, tmp_path):
    found = goes_on(tmp_path, runs.children_run, 1, rule, space, **CHILDREN)
    decode = runs.SPACES[space].decode
    assert len([decode(row) for row in found["rows"]]) == len(found["accuracy"]) == 4
    assert all(0 <= p < 1 for p in found["accuracy"]) and found["trained"] <= 4
    assert len(found["preferred"]) == (2 if rule == "REINFORCE" else 0)


def test_the_reward_of_a_child_is_80_over_its_squared_perplexity():
    assert runs.TextSearch.reward(1 / 80) == pytest.approx(80 / 80**2)


def test_a_child_that_diverges_has_no_reward():
    on = runs.Reading(**READING)
    children = runs.TextChildren(runs.SPACES["small graphs"], on, 50_000, 3, lr=1e30)
    assert children.accuracy([0] * 11) == 0


@pytest.mark.parametrize("rule", ["REINFORCE", "random"])
def test_a_search_shares_weights(rule, tmp_path):
    found = goes_on(tmp_path, runs.shared_run, 2, rule, "small graphs", **SHARED)
    assert len(found["drawn"]) == 3 and found["evaluated"] == 9
    at = found["perplexity"].index(min(found["perplexity"]))
    assert found["found"] == found["drawn"][at] and found["perplexity"][at] > 1
