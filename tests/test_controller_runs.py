"A search of controllers on children that goes on after a stop, and takes no other checkpoint."

import math

import pytest

from nas_nb.files import Checkpoint, OutOfTime
from nas_nb.papers import controller_runs
from nas_nb.papers.controller_runs import SPACES, ChildSearch


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
