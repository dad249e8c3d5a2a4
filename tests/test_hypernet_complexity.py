"""Complexity chosen after training: network, penalties, the document's numbers, what is read from runs."""

import json
import math
from pathlib import Path

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
from nas_nb.papers.hypernet_complexity import CLAIMS
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
    settings = SETTINGS | dict(unroll=True, lr_alpha=0.02)
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
    for value in pd.concat([F.DOCUMENT, F.DOCUMENT_L1])[
        "accuracy"
    ]:  # shares of 30,000 images; ten of the logged values have two digits only
        assert abs(value * 30_000 - round(value * 30_000)) < 0.02 or round(100 * value, 2) == pytest.approx(
            100 * value
        )


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
    front = pd.concat([ends[ends["rule"] == "two"]]).assign(retrained=0.5)
    for figure in (
        F.plot_epochs(epochs[epochs["method"] == "published"], "t"),
        F.plot_control(hyper, asked, 100, "t"),
        F.plot_map(hyper[(hyper["seed"] == 0) & (hyper["rule"] == "every")], "t"),
        F.plot_front(front, "t"),
        F.plot_skips(epochs, "t"),
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
    "The document's own numbers confirm the document, and what has not learned is not judged."
    made_up = F.DOCUMENT.assign(seed=0, method="published", own=F.DOCUMENT["accuracy"] + 0.02)
    flat, worse = F.judge_flat(made_up), F.judge_worse(made_up)
    assert flat["holds"] and flat["apart"] == pytest.approx(0.26899)
    assert worse["holds"] and worse["lower"] == pytest.approx((95.7533 + 95.64 + 95.3133) / 3 - 90.6333)
    assert F.judge_flat(made_up.assign(own=0.1))["holds"] is None
    assert F.judge_batch_norm(made_up)["gain"] == pytest.approx(2)
    assert F.judge_falls(made_up, tested=False)["tested"] is False
    assert F.judge_comparable(made_up, [])["holds"] is None  # without the baseline


def test_control_is_judged_in_the_worst_seed_by_the_better_rule():
    g = random_architecture(R.SPACE, 0).to_json()
    sizes = dict(every=[900, 600, 900, 800], two=[1000, 700, 1000, 600])  # two seeds, two λ; 600 is the rest
    rows = pd.concat(
        pd.DataFrame(dict(rule=rule, seed=[0, 0, 1, 1], lam=[1, 2, 1, 2], parameters=n, genotype=g))
        for rule, n in sizes.items()
    ).assign(expected=100.0)
    found = F.judge_control(dict(normalised=rows), "normalised", 600)
    assert found["holds"] and found["most"] == 0.25  # every edge: 0 and 2/3; two edges: 1/4 and 0
    assert found["every"] == pytest.approx(1 / 3) and found["two"] == 0.125 and found["edges"] == 0
    assert F.judge_control({}, "normalised", 600)["tested"] is False
    assert F.judge_five(rows, "normalised")["falling"] == 2


def test_claims_are_written_out():
    assert {f"control-{name.lower()}" for name in R.VARIANTS} <= set(CLAIMS)
    assert all({"claim", "source", "document", "criterion"} == set(claim) for claim in CLAIMS.values())
    assert len({claim["claim"] for claim in CLAIMS.values()}) == len(CLAIMS)


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
