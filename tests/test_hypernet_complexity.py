"""Complexity chosen after training: network, penalties, the document's numbers, what is read from runs."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from nas_nb.cells import CellNetwork, Genotype, decode, discretise, parameter_counts
from nas_nb.darts import expected_cost
from nas_nb.datasets import load_images
from nas_nb.images import Images
from nas_nb.judging import random_architecture
from nas_nb.operations import DARTS_OPS
from nas_nb.papers import hypernet_figures as F
from nas_nb.papers import hypernet_runs as R
from nas_nb.papers.hypernet_claims import CLAIMS
from nas_nb.report import _known

CASES = json.loads((Path(__file__).parent / "darts_cases.json").read_text())
SETTINGS = dict(
    source="digits",
    side=0,
    channels=2,
    size=16,
    epochs=2,
    epoch_steps=2,
    held=60,
    lr=0.1,
    lr_alpha=0.02,
    unroll=False,
)


pytestmark = pytest.mark.usefixtures("one_thread")


def images(side=28, n=4):
    return Images(
        torch.zeros(n, 1, side, side, dtype=torch.uint8),
        torch.zeros(n, dtype=torch.int64),
        tuple("0123456789"),
    )


def cell(rows):  # operations by number, for each node and state
    return [c for node in rows for c in node]


def test_sizes_of_the_documents_network():
    case = CASES["hyper_05_parameter_counts"]["mnist_1cell"]
    network = R.network_for(images(), 8)
    counts = parameter_counts(network)
    assert (
        sum(p.numel() for p in network.parameters()) == case["supernet_total"]
        and counts.sum() == case["mixed_operations"]
    )
    assert (
        R.size_of(network, Genotype((), (), (), ()))
        == case["fixed_part"]
        == case["param_free_discrete_network"]
    )
    every_sep5 = decode(R.SPACE, [R.OPS.index("sep_conv_5x5")] * 28)
    assert R.size_of(network, every_sep5) == case["all_sep_conv_5x5"]
    n = CASES["hyper_02_expected_params"]
    assert counts[14].tolist() == n["n_stride2"] and counts[18].tolist() == n["n_stride1"]
    uniform = expected_cost(torch.full((28, 8), 1 / 8), counts)
    assert uniform.item() == pytest.approx(
        n["uniform_alpha_expected_cell_8_stride2_edges_plus_6_stride1_edges"]
    )


def test_published_genotypes_of_the_later_work_have_the_published_sizes():
    "Three cells (normal, reduction, reduction): the fixed part, and a genotype without weights."
    case = CASES["hyper_05_parameter_counts"]
    network = CellNetwork(R.SPACE, (1, 28, 28), channels=16, cells=3)
    kinds = [c.stride for c in network.cells]
    assert (
        kinds == [1, 2, 2]
        and sum(p.numel() for p in network.parameters()) == case["fmnist_3cells"]["supernet_total"]
    )
    counts = parameter_counts(network)
    assert counts.sum() == case["fmnist_3cells"]["mixed_operations"]
    example = case["example_genotype_seed0_lam1"]
    chosen = torch.tensor(cell(example["normal"]) + cell(example["reduce"]))
    rest = case["fmnist_3cells"]["fixed_part"]
    assert rest + counts.gather(1, chosen[:, None]).sum() == example["count"]
    mini = CellNetwork(R.SPACE, (3, 32, 32), channels=16, cells=3)
    assert (
        sum(p.numel() for p in mini.parameters()) - parameter_counts(mini).sum()
        == case["cifar_mini_3cells"]["fixed_part"]
    )


def test_quality():
    table = torch.tensor([[5, 0, 1], [2, 0, 0], [1, 0, 3]])
    found = R.quality(table)
    assert found["accuracy"] == pytest.approx(8 / 12) and found["precision"] == pytest.approx(
        (5 / 8 + 0 + 3 / 4) / 3
    )


def test_confusion():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            assert not self.training
            return x

    model = Fixed().train()
    x, y = torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 1, 2, 2])
    assert (
        R.confusion(model, [(x[:2], y[:2]), (x[2:], y[2:])], 3).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
        and model.training
    )


def test_halves_are_the_documents():
    first, second, watched, test, norm = R.halves("digits", 0, 50)
    everything = load_images("digits")
    assert (
        torch.equal(torch.cat([first.x, second.x]), everything.train.x) and abs(len(first) - len(second)) <= 1
    )
    assert (
        torch.equal(watched.x, second.x[:50])
        and torch.equal(test.x, everything.test.x)
        and norm["mean"] == everything.mean
    )
    assert R.halves("digits", 4, 50)[0].shape == (1, 4, 4) and len(R.halves("digits", 0, 10**6)[2]) == len(
        second
    )


@pytest.mark.parametrize("name", [*R.VARIANTS, *R.BASELINES])
def test_penalties_are_what_the_table_says(name):
    network = R.network_for(images(8), 2)
    method = R.make_method(name, network, 0.5, steps=4, seed=1)
    settings = (R.VARIANTS | R.BASELINES)[name]
    lam, alpha = (
        (0.5, method.alpha) if name in R.BASELINES else (method.draw(2), method.alpha(method.draw(2)))
    )
    counts, softened = parameter_counts(network), alpha.softmax(1)
    norms = torch.zeros(28, 8)
    for e in range(14):
        for k, op in enumerate(R.OPS):
            norms[14 + e, k] = sum(p.norm().item() for p in network.cells[0].own[f"{e}-{k}"].parameters())
    expected = dict(
        none=0.0,
        signed=(alpha * norms).sum(),
        count=(softened * counts).sum(),
        l1=(alpha.abs() * counts).sum(),
    )
    with torch.no_grad():
        assert float(method.penalty(2)) == pytest.approx(float(lam * expected[settings["penalty"]]), rel=1e-4)
    assert method.on_weights == (name == "L1 as published")
    if name in R.VARIANTS:
        assert (
            method.span == R.SPANS[settings["penalty"]] and method.span[0] <= method.draw(5) <= method.span[1]
        )


def searched(seed=0, **own):
    settings = SETTINGS | {k: own.pop(k) for k in list(own) if k in SETTINGS}
    return json.loads(json.dumps(R.search_runs([dict(lam=0.0, lams=[], seed=seed) | own], **settings)[0]))


@pytest.fixture(scope="module")
def runs():
    records = {}
    for name in ("published", "normalised", "DARTS", "L1"):
        lams = dict(published=[1e-4, 1e-1], normalised=[1e-6, 1e-3]).get(name, [])
        records[name] = [
            dict(seed=s, result=searched(s, method=name, lam=0.01 if name == "L1" else 0.0, lams=lams))
            for s in (0, 1)
        ]
    return records


def test_a_run(runs):
    assert (
        searched(method="published", lams=[1e-4, 1e-1])
        == runs["published"][0]["result"]
        != runs["published"][1]["result"]
    )
    result = runs["normalised"][0]["result"]
    assert [e["step"] for e in result["epochs"]] == [2, 4] and [
        r["lam"] for r in result["epochs"][0]["rows"]
    ] == [1e-6, 1e-3]
    assert len(result["discrete"]) == 2 * 41 and np.shape(result["alpha"]) == (2 * 14, 8)
    assert (
        np.shape(runs["DARTS"][0]["result"]["alpha"]) == (14, 8)
        and len(runs["DARTS"][0]["result"]["discrete"]) == 2
    )


def test_searches_side_by_side_are_searches_alone():
    each = [
        dict(method="published", lam=0.0, lams=[1e-4, 1e-1], seed=0),
        dict(method="Gumbel", lam=0.0, lams=[1e-3], seed=1),
        dict(method="printed", lam=0.0, lams=[1e-2], seed=2),
        dict(method="L1", lam=0.01, lams=[], seed=0),
    ]
    settings = SETTINGS | dict(unroll=True, lr_alpha=0.02, epochs=1)
    together = R.search_runs(each, **settings)
    for own, found in zip(each, together):
        alone = R.search_runs([own], **settings)[0]
        assert np.allclose(found["alpha"], alone["alpha"], atol=2e-3)
        at = lambda result, what: [row[what] for epoch in result["epochs"] for row in epoch["rows"]]
        for what, close in dict(lam=0, expected=2.0, accuracy=0.05, own=0.05).items():
            assert np.allclose(at(found, what), at(alone, what), atol=close), (own["method"], what)


def test_architectures_follow_from_the_recorded_parameters(runs):
    result = runs["normalised"][1]["result"]
    b1, b2 = torch.tensor(result["alpha"]).view(2, 14, 8)
    for i, row in enumerate(r for r in result["discrete"] if r["rule"] == "every"):
        alpha = torch.cat([torch.zeros(14, 8), i / 40 * b1 + b2])
        best = discretise(R.SPACE, alpha.softmax(1), None)
        assert (
            best.reduce == Genotype.from_json(row["genotype"]).reduce
            or alpha[14:].topk(2).values.diff().abs().min() < 1e-3
        )  # rounded to 4 digits
        network = R.network_for(images(8), 2)
        assert row["expected"] == pytest.approx(
            expected_cost(alpha.softmax(1)[14:], parameter_counts(network)[14:]).item(), rel=1e-3
        )


def test_tables(runs):
    epochs, ends = F.by_epoch(runs), F.by_architecture(runs)
    assert len(epochs) == 2 * 2 * (2 + 2 + 1 + 1) and set(epochs["epoch"]) == {1, 2}
    assert len(ends) == 2 * 2 * (41 + 41 + 1 + 1) and (ends["inherited"] == ends["correct"] / 60).all()
    assert (ends["parameters"] >= R.size_of(R.network_for(images(8), 2), Genotype((), (), (), ()))).all()
    hyper = ends[ends["method"] == "published"]
    assert F.nearest(hyper, [1e-4, 1e-3, 1e-2, 1e-1])["lam"].unique() == pytest.approx(
        [1e-4, 1e-3, 1e-2, 1e-1]
    )
    shown = F.table(epochs, 2)
    assert (
        shown.loc["hypernetwork, λ = 0.1", "100 %"].endswith("[90.6333]")
        and shown.loc["DARTS + L1, λ = 0.0001", "30 %"] == "[98.5800]"
    )
    assert float(shown.loc["hypernetwork, λ = 0.1", "100 %"].split()[0]) == pytest.approx(
        100
        * epochs[(epochs["method"] == "published") & (epochs["lam"] == 0.1) & (epochs["epoch"] == 2)][
            "accuracy"
        ].mean(),
        abs=0.006,
    )


def test_documents_numbers():
    ours = F.DOCUMENT.pivot_table(index="lam", columns="epoch", values="accuracy")
    assert ours.loc[1e-1, [30, 50, 70, 100]].tolist() == pytest.approx([0.9635, 0.9548, 0.9412, 0.906333])
    assert ours.loc[1e-4, [30, 50, 70, 100]].tolist() == pytest.approx(
        [0.959733, 0.965367, 0.904067, 0.957533]
    )
    text = F.DOCUMENT_L1.pivot_table(index="lam", columns="epoch", values="accuracy")
    assert text.loc[1e-4].tolist() == pytest.approx([0.9858, 0.988867, 0.989467, 0.9924])
    for value in F.DOCUMENT_L1["accuracy"]:  # shares of 30,000 images
        assert abs(value * 30_000 - round(value * 30_000)) < 0.02


def test_the_log_of_the_document_has_all_epochs():
    log = 100 * F.DOCUMENT.pivot_table(index="lam", columns="epoch", values="accuracy").sort_index()
    assert log.shape == (4, 100)  # what follows was worked out from the log, apart from these tables
    assert log.loc[:, 91:].mean(axis=1).tolist() == pytest.approx([95.41, 95.40, 95.17, 90.54], abs=0.006)
    assert log.loc[:, 21:].min(axis=1).tolist() == pytest.approx([84.4, 84.6, 85.5, 84.7], abs=0.07)
    assert log[20].tolist() == pytest.approx([97.61, 97.57, 97.64, 97.51], abs=0.006)
    assert log[80].tolist() == pytest.approx([96.72, 96.78, 96.49, 88.84], abs=0.006)
    title, alt = F.words_of_apart(F.DOCUMENT.assign(seed=0))
    assert "56 of 80 epochs from 9,849 steps on, at all from 38,927;" in title and title in alt


def test_what_shrinks_and_what_changes():
    g = lambda *ops: Genotype(
        ((),), (2,), (tuple((op, j) for j, op in enumerate(ops) if op),), (2,)
    ).to_json()
    rows = pd.DataFrame(
        [
            dict(seed=0, lam=1.0, ops=40, genotype=g("a", "b")),
            dict(seed=0, lam=3.0, ops=10, genotype=g("a", None)),
            dict(seed=0, lam=2.0, ops=99, genotype=g("c", "d")),
            dict(seed=1, lam=1.0, ops=0, genotype=g("a", "b")),
            dict(seed=1, lam=3.0, ops=7, genotype=g("a", "b")),
            dict(seed=2, lam=1.0, ops=5, genotype=g("a", "b")),
            dict(seed=2, lam=3.0, ops=0, genotype=g(None, None)),
        ]
    )
    assert F.shrink(rows, "ops").tolist() == [4.0, 0.0, math.inf] and F.changed(rows).tolist() == [2, 0, 2]


def test_retraining():
    g = random_architecture(R.SPACE, 1, dict(sep_conv_3x3=1.0, avg_pool_3x3=1.0), keep=2).to_json()
    found = R.retrain_run(g, "digits", 0, 2, 32, steps=20, seed=0)
    network = R.network_for(images(8), 2, Genotype.from_json(g))
    assert found["parameters"] == sum(p.numel() for p in network.parameters()) and found["n"] == 449
    assert found == R.retrain_run(g, "digits", 0, 2, 32, steps=20, seed=0)


def test_figures(runs):
    epochs, ends = F.by_epoch(runs), F.by_architecture(runs)
    hyper = ends[ends["method"].isin(R.VARIANTS)]
    asked = {name: rows for name, rows in hyper.groupby("method")}
    front = F.distinct(ends[ends["rule"] == "two"].assign(retrained=0.5))
    one = F.one_network(ends, "normalised")
    for figure in (
        F.plot_apart(epochs[epochs["method"] == "published"], "t"),
        F.plot_control(hyper, asked, 100, "t"),
        F.plot_map(hyper[(hyper["seed"] == 0) & (hyper["rule"] == "every")], "t"),
        F.plot_front(front, "t"),
        F.plot_grid(F.lost(hyper, 100.0).assign(method="log count"), 95, 0.25, "t"),
        F.plot_five(one, pd.DataFrame(dict(lam=one["lam"].iloc[::10], error=[6.0, 7, 8, 9, 20])), "t"),
        F.plot_five(one, None, "t"),
    ):
        assert figure.get_suptitle() == "t" and any(ax.get_xlabel() for ax in figure.axes)
        figure.canvas.draw()
        plt.close(figure)
    assert set(F.SHADES) == set(R.OPS) == set(DARTS_OPS)


def test_nan_and_infinity_are_wrong_answers():
    batches = [(torch.tensor([[0.0, math.nan, 0.0], [9.0, 0.0, 1.0]]), torch.tensor([0, 0]))]
    table = R.confusion(torch.nn.Identity(), batches, 3)
    assert table.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 0]] and R.quality(table)["accuracy"] == 0.5


def test_claims_of_made_up_runs():
    "The document's own numbers confirm what its figure shows."
    made_up = F.DOCUMENT.assign(seed=0, method="published", own=F.DOCUMENT["accuracy"] + 0.02)
    still = dict(result=dict(alpha=[[0.5, -0.5], [1.0, -1.5], [9.0, 0.0], [9.0, 0.0]]))  # b1, then b2
    flat, worse = (
        F.judge_flat(made_up, [still], [1e-4, 1e-2, 1e-1], True),
        F.judge_worse(made_up, tested=True),
    )
    assert flat["most"] == pytest.approx(0.0099 * 2.5) and flat["holds"] and flat["n"] == 1
    assert flat["apart"] == pytest.approx(0.200367, abs=1e-6) and flat["parted"] == "2.50"
    assert not F.judge_flat(made_up, [still], [1e-4, 0.03, 1e-1], True)["holds"]
    assert F.judge_flat(made_up, [still], [1e-4, 1e-2, 1e-1], False)["tested"] is False
    last = [28_726, 28_692, 28_594, 27_190]  # right of 30,000 in the last epoch, λ rising
    assert worse["holds"] and worse["lower"] == pytest.approx((sum(last[:3]) / 3 - last[3]) / 300)
    assert F.judge_falls(made_up, tested=False)["tested"] is False
    assert F.judge_falls(made_up, tested=False)["steps"] == 46_900


def test_what_the_documents_own_table_says():
    flat, worse, falls = F.table_flat(), F.table_worse(), F.table_falls()
    assert flat["holds"] and flat["apart"] == pytest.approx((27_319 - 27_122) / 300) and flat["at"] == 70
    assert not worse["holds"] and worse["listed"] == "+0.42, -1.14, +3.42, -4.94" and worse["worse"] == 2
    assert (worse["late"], worse["looks"], worse["above"]) == (46, 61, 4)  # as counted by hand in the log
    assert (worse["parts"], worse["always"], flat["logged_at"]) == (21, 83, 78)
    assert flat["beyond"] == 1
    assert not falls["holds"] and (falls["rows"], falls["falls"], falls["lower"]) == (1, 6, 4)
    found = F.table_comparable()
    assert not found["holds"] and found["short"] == pytest.approx(99.24 - 28_726 / 300)
    assert found["times"] == pytest.approx((100 - 28_726 / 300) / (100 - 99.24))
    assert F.table_precision()["whole"] == F.table_precision()["values"] == 32


def quality_rows(method, lam, accuracy, own, seeds=(0, 1)):
    first = dict(method=method, lam=lam, epoch=1, accuracy=0.0, own=1.0)
    rows = [first | dict(seed=s) for s in seeds]
    last = zip(seeds, accuracy, own)
    return rows + [first | dict(seed=s, epoch=2, accuracy=a, own=o) for s, a, o in last]


def test_quality_is_compared_seed_by_seed_in_the_last_epoch():
    rows = quality_rows("raw signed", 1e-4, (0.90, 0.80), (0.95, 0.90))
    rows += quality_rows("raw signed", 1e-1, (0.70, 0.60), (0.75, 0.70))
    epochs = pd.DataFrame(rows + quality_rows("DARTS", 0.0, (0.85, 0.85, 0.1), (0.88, 0.90, 0.1), (1, 0, 2)))
    found = F.judge_comparable(epochs, ("raw signed", 1e-4), ("DARTS", 0.0), 1200)
    assert found["differences"].to_dict() == pytest.approx({0: 5.0, 1: -5.0})  # the third has no partner
    assert found["steps"] == "1,200"
    gain = F.judge_batch_norm(epochs, "raw signed", "DARTS")["differences"]
    assert gain.to_dict() == pytest.approx({0: 5 - 5, 1: 10 - 3})
    assert F.judge_comparable(epochs, ("raw signed", 1e-4), ("L1", 0.0), 9) == F.ABSENT
    assert F.judge_batch_norm(epochs, "log count fast", "DARTS fast") == F.ABSENT


def test_control_is_what_is_lost_in_average_cells():
    rows = [
        dict(method=m, seed=s, rule=rule, lam=lam, parameters=n)
        for m, s, sizes in (
            ("log count", 0, (900, 500)),
            ("log count", 1, (700, 700)),
            ("raw count", 1, (1, 201)),
        )
        for rule in R.RULES
        for lam, n in zip((1e-5, 1.0), sizes)
    ]
    table = F.lost(pd.DataFrame(rows), 200.0)
    assert F.judge_control(table, "log count")["differences"].to_dict() == {0: 2.0, 1: 0.0}
    pair = F.judge_pairs(table, {"count": ("log count", "raw count"), "more": ("raw count", "log count")}, 95)
    assert {part: x.to_dict() for part, x in pair["differences"].items()} == dict(
        count={1: 1.0}, more={1: -1.0}
    )
    assert pair["ours"].endswith("none of the settings compared is sure to control the size by itself")
    assert F.judge_pairs(table, {"": ("log signed", "raw signed")}, 95) == F.ABSENT
    sure = pd.DataFrame(dict(method=["a"] * 3 + ["b"] * 3, lost=[1.0, 1.1, 0.9, -1.0, 2.0, 0.1]))
    assert F.surely(sure, 95) == ["a"] and F.surely(sure, 99.9) == []
    told = [F.words_of_grid(sure.assign(seed=[0, 1, 2] * 2), level)[0] for level in (95, 99.9)]
    assert "smaller only with a (n" in told[0] and "smaller with no setting (n" in told[1]
    network = R.network_for(images(8), 4, space=R.SMALL)
    mean = parameter_counts(network)[len(R.SMALL.edges) :].double().mean(1).sum().item()
    assert F.average_cell(network) == pytest.approx(mean)


def test_what_too_few_searches_show_is_not_judged():
    g = random_architecture(R.SPACE, 0).to_json()
    rows = [
        dict(seed=s, rule=rule, lam=lam, parameters=n, genotype=g, expected=1.0)
        for s, sizes in enumerate(((900, 500), (700, 700), (800, 700)))
        for rule in R.RULES
        for lam, n in zip((1e-5, 1.0), sizes)
    ]
    table = pd.DataFrame(dict(method="published", seed=[0, 1, 2], lost=[2.0, 0.0, 0.5]))
    asked = dict(published=pd.DataFrame(rows))
    found = F.judge_variant(table, asked, "published", 100, 0.25, 95)
    assert found["tested"] is False and (found["least"], found["most"], found["n"]) == (0.0, 2.0, 3)
    assert found["needed"].startswith("about ") and "differences" not in found
    same = table.assign(lost=0.0)
    assert F.judge_variant(same, asked, "published", 100, 0.25, 95)["needed"] == "several searches"
    assert F.judge_variant(table, asked, "Gumbel", 100, 0.25, 95) == F.ABSENT
    few = pd.DataFrame(quality_rows("published", 1e-4, (0.9, 0.8), (0.9, 0.8)))
    few = pd.concat([few, few.assign(method="L1", accuracy=few["accuracy"] - 0.01 * few["seed"])])
    shown = F.shown_comparable(few, ("published", 1e-4), ("L1", 1e-4), 1.0, 95)
    assert shown["tested"] is False and shown["mean"] == pytest.approx(0.5) and shown["n"] == 2
    assert F.shown_comparable(few, ("published", 1e-4), ("no", 1e-4), 1.0, 95) == F.ABSENT


def test_a_network_that_was_found_twice_counts_once():
    a, b = (random_architecture(R.SPACE, seed).to_json() for seed in (0, 1))
    front = pd.DataFrame(
        dict(method=["L1", "DARTS", "DARTS"], genotype=[a, a, b], parameters=[700, 700, 900])
    )
    found = F.distinct(front.assign(inherited=[0.2, 0.4, None], retrained=[0.5, 0.7, 0.9]))
    assert found["method"].tolist() == ["L1", "DARTS"] and found["times"].tolist() == [2, 1]
    assert found["retrained"].tolist() == pytest.approx([0.6, 0.9]) and found["inherited"].isna().sum() == 1


def test_what_tells_the_worth_of_a_network():
    worth = pd.DataFrame(
        [dict(seed=s, parameters=i, inherited=(-1) ** s * i, retrained=i) for s in (0, 1) for i in range(4)]
    )
    assert F.taus_of(worth)["inherited"].tolist() == pytest.approx([1, -1])
    assert F.judge_size(worth, 95)["differences"].tolist() == pytest.approx([0, 2])
    assert F.judge_size(worth.iloc[:0], 95) == F.ABSENT


def test_the_larger_and_the_smaller_networks_are_looked_at_alone():
    "Size tells everything below the middle, inheritance everything above it."
    rng, rows = np.random.default_rng(0), []
    for seed in range(6):
        noise = rng.permutation(4)
        rows += [dict(seed=seed, parameters=100 + i, inherited=noise[i], retrained=i) for i in range(4)]
        rows += [dict(seed=seed, parameters=1000 + noise[i], inherited=i, retrained=9 + i) for i in range(4)]
    big, small = (F.of_part(pd.DataFrame(rows), 95, part) for part in ("big", "small"))
    assert big["big_shared"] == "+1.00" and big["big"].startswith("-") and big["big_n"] == "6"
    assert small["small_size"] == "+1.00" and small["small"].startswith("+") and small["small_n"] == "6"
    assert (
        F.of_part(pd.DataFrame(rows[:4]), 95, "small") == F.of_part(pd.DataFrame(rows[:4]), 95, "big") == {}
    )


def test_what_is_lost_between_some_lams_is_not_what_the_whole_span_loses():
    sizes = {1e-5: (900, 90.0), 1e-4: (800, 80.0), 1e-1: (800, 60.0), 1.0: (300, 10.0)}
    looks = [
        dict(lam=lam, rule="every", parameters=n, expected=e, correct=1, n=2) for lam, (n, e) in sizes.items()
    ]
    grid = {name: [dict(seed=3, result=dict(discrete=looks))] for name in R.GRID}
    own, expected = F.grid_more(grid, 100.0, [1e-4, 1e-2, 1e-1])
    assert set(own["lost"]) == {0.0} and set(expected["lost"]) == {0.8} and len(own) == len(R.GRID)
    assert not len(F.grid_more({}, 100.0, [1e-4])[0])


def test_a_search_that_cannot_lose_the_smallest_effect_is_not_judged():
    "Two edges, two operations; b₁ moves the first edge by 1 between λ 0 and 1, where 0.5 would be enough."
    counts = np.array([[100.0, 0.0], [100.0, 0.0]])
    record = dict(result=dict(alpha=[[1.0, 0.0], [0.0, 0.1], [0.5, 0.0], [0.5, 0.0]]))
    most = [F.could_lose([record], counts, [0.0, lam]) for lam in (0.4, 0.6, 6.0)]
    assert most == [0.0, 1.0, 2.0] and F.could_lose([], counts, [0.0, 1.0]) == 0.0
    table = pd.DataFrame(dict(method="raw count", seed=[0, 1, 2], lost=[0.1, 0.0, 0.1]))
    idle, free = (F.judge_own(table, "raw count", x, 0.25) for x in (0.2, 0.25))
    assert idle["tested"] is False and "46,900" in idle["needed"] and "tested" not in free
    assert free["differences"].tolist() == [0.1, 0.0, 0.1] and F.judge_own(table, "no", 1.0, 0.25) == F.ABSENT


def test_counts_and_rest_add_up_to_the_supernet():
    network = R.network_for(images(8), 4, space=R.SMALL)
    counts, rest = F.counts_and_rest(network)
    assert counts.shape == (len(R.SMALL.edges), len(R.SMALL.ops))
    assert counts.mean(1).sum() == pytest.approx(F.average_cell(network))
    assert rest == R.size_of(network, Genotype((), (), (), ()))


def test_the_share_that_is_lost_is_of_what_there_was():
    look = lambda lam, n: dict(lam=lam, rule="every", parameters=n, correct=1, n=2)
    search = lambda seed, a, b: dict(seed=seed, result=dict(discrete=[look(1.0, b), look(0.1, a)]))
    told = F.share_lost([search(0, 30, 20), search(1, 10, 10), search(2, 50, 10)], 10, 20.0)
    assert (told["first"], told["empty"], told["share"]) == ("1.00", "1", "83")
    assert int(told["share_low"]) <= 83 <= int(told["share_high"])
    assert F.share_lost([], 10, 20.0) == {} and "share" not in F.share_lost([search(0, 10, 10)] * 2, 10, 20.0)


def test_power_grows_with_the_effect_and_is_unknown_without_spread():
    few = pd.Series([-1.0, 0.0, 1.0, 0.5, -0.5])
    chances = [int(F.power_of(few, effect, 99)) for effect in (0.25, 1.0, 4.0)]
    assert chances == sorted(chances) and chances[0] < 10 < 90 < chances[-1]
    assert F.power_of(few * 0, 1.0, 95) == "–"


def test_five_sizes_that_fall():
    g = random_architecture(R.SPACE, 0).to_json()
    rows = pd.DataFrame(
        dict(rule="every", seed=[0, 0, 1, 1], lam=[1, 2, 1, 2], parameters=[900, 600, 900, 900])
    )
    more = rows.assign(lam=rows["lam"] + 0.5, parameters=[700, 500, 900, 700])  # of seed 0: 900 700 600 500
    found = F.judge_five(rows, "normalised", pd.concat([more, rows]))
    assert not found["holds"] and (found["falling"], found["n"], found["chain"]) == (1, 2, "2")
    first = lambda df: df[df["seed"] == 0]
    found = F.judge_five(first(rows), "normalised", first(pd.concat([more, rows])))
    assert found["holds"] and found["chain"] == "4"
    both = pd.concat([rows.assign(rule=rule, genotype=g, expected=100.0) for rule in R.RULES])
    assert F.kept(dict(normalised=both), "normalised", 600)["every"] == pytest.approx((0 + 1) / 2)


def test_the_grid():
    cfg = SimpleNamespace(
        grid_seeds=2, grid_fast_seeds=1, signed_lams=[1e-4, 1e-1], grid_side=0, grid_epochs=1, grid_steps=2,
        source="digits",
    )  # fmt: skip
    plan = R.grid_plan(cfg)
    assert [run["seed"] for run in plan] == [10] * 7 + [11] * 7 + [10] * 2
    assert len({(run["label"], run["seed"]) for run in plan}) == len(plan)
    spans = {
        R.make_method(name, R.network_for(images(8), 2, space=R.SMALL), 0.0, 9, 0).span for name in R.GRID
    }
    assert spans == {R.SPANS["signed"]}  # what differs is the scale and the penalty
    own = {k: v for k, v in plan[3].items() if k not in ("label", "fast")}
    (found,) = R.search_runs([own], **R.grid_settings(cfg) | dict(held=50), lr_alpha=0.02)
    assert np.shape(found["alpha"]) == (2 * len(R.SMALL.edges), len(R.SMALL.ops))
    assert len(found["others"]) == 10 and all(row["n"] == 50 for row in found["others"])
    again = R.retrain_run(found["others"][9]["genotype"], "digits", 0, 4, 16, steps=2, seed=0, small=True)
    assert again["n"] == 449


def test_claims_are_written_out():
    judged = {f"control-{name.lower().replace(' ', '-')}" for name in (*R.VARIANTS, *R.GRID)}
    assert judged - {"control-log-none"} <= set(CLAIMS)
    assert all({"claim", "source", "document", "criterion"} <= set(claim) for claim in CLAIMS.values())
    assert len({claim["claim"] for claim in CLAIMS.values()}) == len(CLAIMS)
    fresh = [id for id, claim in CLAIMS.items() if claim.get("rule") and not claim.get("exploratory")]
    said = {id: CLAIMS[id]["criterion"] for id in fresh}  # these are judged by the grid's fresh seeds
    assert all("grid" in text or "that the claims on control are about" in text for text in said.values())


FIGURES = Path(__file__).parent.parent / "figures"


@pytest.mark.parametrize(
    "small", sorted((FIGURES / "quick").glob("*/claims.csv")), ids=lambda path: path.parent.name
)
def test_a_claim_has_one_text_in_all_profiles(small):
    "Verdicts of different profiles are matched by the claim's text without its numbers."
    known = lambda path: {_known(claim) for claim in pd.read_csv(path)["claim"]}
    larger = [
        path
        for path in (FIGURES / profile / small.parent.name / "claims.csv" for profile in ("cpu", "paper"))
        if path.exists()
    ]
    assert larger and all(known(small) <= known(path) for path in larger)


@pytest.mark.parametrize("x, told", [([0.1], {}), ([0.1, 0.1], {}), ([0.0, 0.2], {"a": "+0.10"})])
def test_a_part_without_spread_has_no_interval_to_tell(x, told):
    found = F.other_part(dict(differences=dict(a=np.array(x))), "a", 95)
    assert {k: found[k] for k in found if k == "a"} == told and len(found) == 3 * len(told)
    assert F.other_part(dict(differences=np.array(x)), "a", 95) == F.other_part({}, "a", 95) == {}
