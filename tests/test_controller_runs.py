"A search of controllers on children that goes on after a stop, and takes no other checkpoint."

import math

import pytest
import torch

from nas_nb.files import Checkpoint, OutOfTime
from nas_nb.papers import controller_runs
from nas_nb.papers.controller_runs import SPACES, ChildSearch, Shared, final_run, shared_run


class Told:
    "Children whose accuracies are made up, so that nothing is trained."

    def __init__(self, space):
        self.space, self.known, self.seconds = space, {}, 0.0

    def accuracy(self, row):
        return self.known.setdefault(tuple(row), (sum(row) * 37 % 11) / 11)


def begun(rule="REINFORCE", space="tokens", batch=2, updates=0, ckpt=None):
    one = ChildSearch(rule, Told(SPACES[space]), batch, 0.01, 5)
    one.go(updates, ckpt)
    return one


def stopped(path, rule):
    "The checkpoint after two updates."
    ckpt = Checkpoint(path, every=1e9)
    ckpt.save(begun(rule, updates=2).state())
    return Checkpoint(path, every=1e9)


@pytest.mark.parametrize("rule", ["REINFORCE", "PPO", "random"])
def test_a_search_goes_on_to_the_same_rows(rule, tmp_path):
    whole, part = begun(rule, updates=4), begun(rule, updates=4, ckpt=stopped(tmp_path / "a.pt", rule))
    for name in controller_runs._LISTS:
        assert getattr(part, name) == getattr(whole, name)
    assert part.children.known == whole.children.known


def test_a_search_stops_at_the_time_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("NAS_NB_DEADLINE", "0")
    with pytest.raises(OutOfTime):
        begun(updates=2, ckpt=Checkpoint(tmp_path / "a.pt"))
    assert (tmp_path / "a.pt").is_file()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | dict(rows=3),
        lambda s: s | dict(rows=s["rows"][:1]),
        lambda s: s | dict(rows=s["rows"][:1], accuracies=s["accuracies"][:1]),
        lambda s: s | dict(spent=math.nan),
        lambda s: s | dict(opt={}),
        lambda s: s | dict(opt=s["opt"] | dict(flat=s["opt"]["flat"] * math.nan)),
        lambda s: {k: v for k, v in s.items() if k != "entropy"},
    ],
)
def test_another_checkpoint_is_refused_and_changes_nothing(change, tmp_path):
    ckpt = stopped(tmp_path / "a.pt", "REINFORCE")
    ckpt.save(change(ckpt._state((tmp_path / "a.pt").read_bytes()) | dict(seconds=0.0)))
    one = begun()
    with pytest.raises(ValueError, match="the checkpoint of this search|the state of this"):
        one.go(4, Checkpoint(tmp_path / "a.pt", every=1e9))
    assert one.rows == one.accuracies == [] and one.opt.updates == 0


def test_cells_are_a_space_of_children_whose_steps_are_their_edges():
    space = SPACES["cells"]
    assert [step.size for step in controller_runs.decisions(space)] == list(space.sizes)
    assert space.network([0] * 6)(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("space", ["macro, sum", "cells"])
def test_of_what_the_controller_draws_the_best_with_shared_weights_is_found(space, monkeypatch):
    one, told = Shared(SPACES[space], 3, 0.01), []
    monkeypatch.setattr(Shared, "worth", lambda self, row: told.append(row) or -len(told) % 4)
    assert one.best(5) == told[0] and len(told) == 5
    assert all(len(row) == len(SPACES[space].sizes) for row in told)


def test_a_search_with_shared_weights_repeats_and_takes_seconds_only_if_asked():
    sizes = dict(space="cells", steps=2, samples=2, drawn=2, uniform=1, looks=2, child_steps=2, seed=4)
    first = shared_run(**sizes)
    assert first["seconds"] is None and first["evaluated"] == 6 and len(first["path"]) == 2
    timed = shared_run(**sizes, timed=True)
    assert timed | dict(seconds=None) == first and min(timed["seconds"].values()) > 0


def test_a_child_that_is_trained_anew_has_an_accuracy_for_each_seed():
    row = [0] * len(SPACES["tokens"].sizes)
    two, second = (final_run(row, "tokens", 1, fresh, seed)["accuracy"] for fresh, seed in ((2, 7), (1, 8)))
    assert two[1:] == second
