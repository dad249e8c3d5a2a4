"""The runs on text of document 54's second half, at tiny size: what comes back, the same again, and going on."""

import numpy as np
import pandas as pd
import pytest
import torch

from nas_nb.files import Checkpoint
from nas_nb.papers import recurrent_figures as figures
from nas_nb.papers import recurrent_runs as runs
from nas_nb.papers.controller_claims import CLAIMS as OTHERS
from nas_nb.papers.nas_nasnet_enas import PROFILES
from nas_nb.papers.recurrent_claims import CLAIMS
from nas_nb.study import Study
from nas_nb.text import load_text

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
    assert children.accuracy([0] * 10) == 0


@pytest.mark.parametrize("rule", ["REINFORCE", "random"])
def test_a_search_shares_weights(rule, tmp_path):
    found = goes_on(tmp_path, runs.shared_run, 2, rule, "small graphs", **SHARED)
    assert len(found["drawn"]) == 3 and found["evaluated"] == 9
    at = found["perplexity"].index(min(found["perplexity"]))
    assert found["found"] == found["drawn"][at] and found["perplexity"][at] > 1


def test_a_cell_that_diverges_guesses_evenly():
    found = runs.train_run("LSTM", **TRAIN, lr=1e30)
    assert found["losses"] == [] and found["valid"] == found["test"] == runs.Reading(**READING).vocabulary


def test_a_loss_above_that_of_a_guess_counts_as_that(monkeypatch):
    told = []
    monkeypatch.setattr(runs.Controlled, "tell", lambda self, losses: told.append(losses.tolist()))
    method = runs.OnText(runs.GRAPHS["small graphs"])
    method.guess = 5.0
    method.tell(torch.tensor([4.0, 6.0, float("inf"), float("nan")]))
    assert told == [[4, 5, 5, 5]]


def test_a_search_whose_weights_diverge_returns_what_is_drawn_first():
    found = runs.shared_run("REINFORCE", "small graphs", **SHARED, lr=1e30)
    assert found["found"] == found["drawn"][0] and len(found["drawn"]) == 3


def test_a_cell_that_was_not_trained_is_not_judged():
    df = pd.DataFrame(dict(seed=[0, 0], cell=["LSTM", "ENAS"], test=[2.0, 1.0]))
    assert figures.lower(df, "text-plain")["tested"] is False
    assert figures.lower(df, "text-enas-lstm")["differences"] == pytest.approx([100 * np.log(2)])


@pytest.mark.parametrize("gated, says", [(200.0, "no rate that was tried"), (3000.0, "no cell has learned")])
def test_rates_are_blamed_only_where_the_gated_cell_has_learned(gated, says):
    df = pd.DataFrame(dict(seed=[0, 0], cell=["ENAS", "ENAS-plain"], test=[gated, 450.0]))
    told = figures.plain(df, dict(tokens=dict(train=10), vocabulary=5))
    assert told["tested"] is False and says in told["ours"]


class Planned:
    "A study that computes nothing: `run` notes what is asked for, and returns what `answer` says of it."

    def __init__(self, answer):
        self.cfg = Study("54_nas_nasnet_enas", PROFILES, "quick", device="cpu").cfg
        self.asked, self.answer = [], answer

    def run(self, fn, label, seed, data, **config):
        self.asked.append((label, seed, config))
        return dict(seed=seed, config=config, result=self.answer(label, seed, config))


def test_the_first_seed_chooses_a_rate_for_each_cell_and_the_others_judge():
    best = dict(zip(runs.CELLS, (1.0, 5.0, 5.0, 1.0)))
    far = lambda cell, lr: abs(lr - best[cell])  # on test text the other rate would be better
    study = Planned(lambda _, seed, c: dict(valid=far(c["cell"], c["lr"]), test=-far(c["cell"], c["lr"])))
    study.cfg.lm_rates, study.cfg.lm_seeds, study.cfg.lm_cells = (1.0, 5.0), 4, tuple(runs.CELLS)
    found = runs.all_trained(study, "")
    first = study.cfg.first_seed
    for cell, records in found.items():
        assert [r["seed"] for r in records] == [first + 1, first + 2, first + 3]
        assert {r["config"]["lr"] for r in records} == {best[cell]} and records[0]["config"]["cell"] == cell
    assert len(study.asked) == len(runs.CELLS) * (2 + 3)
    assert len({repr(c | dict(cell=0, lr=0)) for _, _, c in study.asked}) == 1  # nothing else differs


def test_what_is_trained_anew_is_the_best_child_or_what_shared_weights_find():
    study = Planned(lambda label, seed, c: c)
    trees = dict(rows=[[1], [2], [3]], accuracy=[0.1, 0.3, 0.2])
    graphs = dict(found=[7], drawn=[[8], [7]], perplexity=[3, 2])
    for of, result, row in (("trees", trees, [2]), ("graphs", graphs, [7])):
        again = runs.all_anew(study, "", of, dict(REINFORCE=[dict(result=result)]))
        config = again["REINFORCE"][0]["config"]
        assert config["row"] == row and config["space"] == getattr(study.cfg, f"{of}_space")


def test_searches_of_a_seed_differ_in_nothing_but_the_rule():
    study = Planned(lambda *_: {})
    for of in ("trees", "graphs"):
        study.asked.clear()
        runs.all_text_searches(study, "", of)
        assert {config.pop("rule") for *_, config in study.asked} == {"REINFORCE", "random"}
        assert all(config == study.asked[0][2] for *_, config in study.asked)
        assert len({seed for _, seed, _ in study.asked}) == study.cfg.search_seeds


def test_the_rate_of_what_was_found_is_chosen_by_validation_text():
    trained = [dict(lr=1.0, valid=100.0, test=50.0), dict(lr=5.0, valid=90.0, test=60.0)]
    assert runs.anew_worth(dict(trained=trained)) == pytest.approx(60)


def test_every_claim_on_recurrent_cells_is_decided_once():
    facts = [
        "lstm-tree",
        "choices",
        "wirings",
        "flexible",
        "loose-ends",
        "arrows",
        "ten-hours",
        "text-cheaper",
    ]
    decided = [*facts, *figures.CELL_CLAIMS, *figures.FOUND_CLAIMS, *figures.BEYOND]
    assert sorted(decided) == sorted(CLAIMS) and not {*CLAIMS} & {*OTHERS}
    for id, claim in CLAIMS.items():
        assert ("rule" in claim) == (id in {**figures.CELL_CLAIMS, **figures.FOUND_CLAIMS}), id


@pytest.mark.parametrize("id, worse, better", [
    ("text-enas-nas", "NASCell", "ENAS"), ("text-enas-lstm", "LSTM", "ENAS"),
    ("text-nas-lstm", "LSTM", "NASCell"), ("text-plain", "ENAS", "ENAS-plain"),
])  # fmt: skip
def test_a_lower_perplexity_is_a_positive_difference(id, worse, better):
    record = lambda cell: dict(
        seed=3, config=dict(lr=1.0),
        result=dict.fromkeys(("width", "parameters", "valid", "seconds"), 1)
        | dict(test=110.0 if cell == worse else 100.0 if cell == better else 1.0),
    )  # fmt: skip
    df = figures.cells_table({cell: [record(cell)] for cell in runs.CELLS})
    found = figures.lower(df, id)
    assert found["differences"].tolist() == [pytest.approx(9.531, abs=1e-3)]
    assert (found["higher"], found["lower"]) == (pytest.approx(110), pytest.approx(100))


def test_facts_of_the_recurrent_half_come_out_as_they_are():
    spaces = figures.spaces_table()
    assert spaces["rows"].tolist() == [8**16 * 225, 15**16 * 225, 4**12 * 39_916_800]
    assert spaces["wirings"].tolist() == [225, 225, 39_916_800]
    assert figures.ten_hours()["gpus"] == 53_760 and figures.learning_arrows(4, 5) == (6, {3})


def test_a_cell_that_is_no_lstm_is_told_from_one(monkeypatch):
    assert figures.lstm_gap() < 1e-5
    monkeypatch.setattr(figures, "LSTM_TREE", figures.LSTM_TREE._replace(inject=("add", "identity")))
    assert figures.lstm_gap() > 1e-2


def test_another_mean_than_that_of_loose_ends_is_told_from_it(monkeypatch):
    assert figures.ends_gap() < 1e-5
    monkeypatch.setattr(figures, "EXAMPLE_DAG", figures.EXAMPLE_DAG._replace(mean="nodes"))
    assert figures.ends_gap() > 1e-2


def test_cpu_redraws_where_the_text_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("NAS_NB_DATA", str(tmp_path))
    study = Study("54_nas_nasnet_enas", PROFILES, "cpu", 0, "cpu", "", threads=1)
    data = study.about(lambda: load_text(study.cfg.text).about, text=study.cfg.text)
    assert {cell: len(rs) for cell, rs in runs.all_trained(study, data).items()} == dict.fromkeys(
        runs.CELLS, 6
    )
    for of in ("trees", "graphs"):
        found = runs.all_text_searches(study, data, of)
        assert [len(rs) for rs in runs.all_anew(study, data, of, found).values()] == [5, 5]
    assert study.counts["computed"] == 0
