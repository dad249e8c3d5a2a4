"Document 50: gates, fitness, the search and its parts."

import copy
import json
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

import nas_nb.papers.tdga_figures as P
import nas_nb.papers.tdga_runs as D
from nas_nb import files, study
from nas_nb.files import Checkpoint, OutOfTime
from nas_nb.papers.tdga_darts_vgg19 import EXPECTED
from nas_nb.relaxations import one_hot

SETTINGS = dict(source="digits", width=0.03125, size=8, steps=2, lr=0.05, lr_alpha=0.5, looks=2)
SMALL = dict(images=12, calibrate=8, test_images=12, settings=SETTINGS)
SEARCH = (
    dict(
        T=0.003,
        move=0.01,
        frozen=True,
        on="fitness",
        start="threshold",
        generations=3,
        individuals=4,
        mutation=0.05,
        batch=2,
    )
    | SMALL
)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def supernet():
    network, method, history, parts, norm = D.trained_supernet("threshold", 0, SETTINGS)
    return network.eval().requires_grad_(False), method, history, parts, norm


def fitness_of(supernet, on="fitness"):
    network, _, _, parts, norm = supernet
    return D.fitness_of(network, parts, norm, on, 12, 8)


# -- gates --


def test_four_parts_are_all_images():
    parts, norm = D.parts_of("digits")
    assert [p.shape for p in parts.values()] == [(1, 32, 32)] * 4 and norm["channels_last"]
    whole = D.load_images("digits")
    assert sum(len(parts[n]) for n in ("weights", "alpha", "fitness")) == len(whole.train) and len(
        parts["test"]
    ) == len(whole.test)


@pytest.mark.parametrize("sampling", D.SAMPLINGS)
def test_gates_have_a_gradient_and_follow_alpha(sampling):
    method = D.Shortcuts(sampling, seed=1)
    with torch.no_grad():
        method.alpha.copy_(3 * torch.randn_like(method.alpha))
    gates = method.gates(step=4)
    assert gates.shape == (105,) and (gates >= 0).all() and (gates <= 1).all()
    assert (
        torch.equal(gates, method.gates(step=4))
        and torch.isfinite(torch.autograd.grad(gates.sum(), method.alpha)[0]).all()
    )
    assert (torch.equal(gates, method.gates(step=5))) == (sampling not in ("Bernoulli", "Gumbel"))
    on = method.alpha[:, 1] - method.alpha[:, 0] if sampling == "off / on" else method.alpha
    if sampling != "sources":
        assert torch.equal(method.bits(), (on > 0).long())
    if sampling in ("threshold", "Bernoulli"):
        assert set(gates.tolist()) <= {0.0, 1.0}


def test_sources_share_one_unit_with_none():
    method = D.Shortcuts("sources")
    with torch.no_grad():
        method.alpha.copy_(torch.randn(105))
    gates = method.gates()
    for j in range(3, 17):
        here = method.target == j
        e = method.alpha[here].exp()
        torch.testing.assert_close(gates[here], e / (1 + e.sum()))
        assert torch.equal(method.bits()[here], (gates[here] > 1 / (1 + here.sum())).long())


def test_an_unknown_sampling_is_refused():
    with pytest.raises(ValueError, match="no sampling 'top': choose among threshold, sigmoid"):
        D.Shortcuts("top")


# -- fitness --


def test_outputs_that_are_no_numbers_are_never_right(supernet):
    fitness = fitness_of((copy.deepcopy(supernet[0]), *supernet[1:]))
    with torch.no_grad():
        next(fitness.network.parameters()).fill_(math.nan)
    loss, accuracy = fitness(torch.ones(2, 105, dtype=torch.int64)).T
    assert not loss.isfinite().any() and accuracy.tolist() == [0, 0]


def test_fitness_is_the_loss_with_statistics_of_its_own(supernet):
    network, fitness = supernet[0], fitness_of(supernet)
    bits = (torch.rand(5, 105) > 0.5).long()
    found = fitness(bits)
    for row, (loss, accuracy) in zip(bits.tolist(), found.tolist()):
        alone = D.new_supernet("threshold", 0, supernet[3]["weights"], SETTINGS["width"])[0]
        alone.load_state_dict(network.state_dict())
        for bn in (m for m in alone.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            bn.momentum = 1.0
        with torch.no_grad():
            alone.train()(fitness.calibrate, one_hot(row))
            logits = alone.eval()(fitness.x, one_hot(row))
        assert loss == pytest.approx(F.cross_entropy(logits, fitness.y).item(), rel=1e-4)
        assert accuracy == pytest.approx((logits.argmax(1) == fitness.y).float().mean().item())


def test_what_was_seen_is_not_computed_again(supernet, monkeypatch):
    fitness, computed = fitness_of(supernet), []
    compute = fitness.compute
    monkeypatch.setattr(fitness, "compute", lambda bits: computed.append(len(bits)) or compute(bits))
    bits = torch.eye(105, dtype=torch.long)[:3]
    first = fitness(bits[[0, 1, 0]])
    assert torch.equal(first[0], first[2]) and torch.equal(fitness(bits)[:2], first[:2])
    assert computed == [2, 1] and fitness.asked == 6 and len(fitness.known) == 3


def refused(ckpt, run, damages):
    "A checkpoint that was changed and summed anew is refused in a sentence; afterwards it is as it was."
    whole = ckpt.load()
    for damage in damages:
        damage(state := copy.deepcopy(whole))
        ckpt.save(state)
        with pytest.raises(ValueError, match="does not fit") as error:
            run()
        assert "\n" not in str(error.value)
    ckpt.save(whole)


# -- the supernet --


def test_the_supernet_is_kept_and_read_again(tmp_path):
    ckpt = Checkpoint(tmp_path / "run" / "checkpoint.pt")
    first = D.trained_supernet("Bernoulli", 3, SETTINGS, ckpt=ckpt)
    (kept,) = tmp_path.rglob("state.pt")
    alpha = {"alpha": torch.ones(7)}
    damages = [
        lambda s: s.pop("history"),
        lambda s: s.update(history={}),
        lambda s: s["method"].update(alpha),
        lambda s: s["method"].clear(),
    ]
    damages += [lambda s: s["network"].popitem(), lambda s: next(iter(s["network"].values())).fill_(math.nan)]
    damages += [lambda s: s["network"].update({next(iter(s["network"])): torch.ones(3)})]
    refused(
        Checkpoint(kept, key=kept.parent.name.rpartition("-")[2]),
        lambda: D.trained_supernet("Bernoulli", 3, SETTINGS, ckpt=ckpt),
        damages,
    )
    written = kept.stat().st_mtime_ns
    second = D.trained_supernet("Bernoulli", 3, SETTINGS, ckpt=ckpt)
    assert [*tmp_path.rglob("*.pt")] == [kept] and kept.stat().st_mtime_ns == written  # not trained again
    assert first[2] == second[2] and [row["step"] for row in first[2]] == [1, 2]
    for part in (0, 1):
        a, b = first[part].state_dict(), second[part].state_dict()
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert len(first[2][-1]["graph"]) == 105 and first[2][-1]["graph"] == D.to_text(first[1].bits())


def test_force_trains_a_supernet_again_that_is_older(tmp_path, monkeypatch):
    ckpt, trained, train = Checkpoint(tmp_path / "run" / "checkpoint.pt"), [], D.train_supernet
    monkeypatch.setattr(D, "train_supernet", lambda *args, **more: trained.append(1) or train(*args, **more))
    monkeypatch.setattr(
        study, "code_hash", lambda fn: "0123456789abcdef"
    )  # the list of calls grows, which makes it another function
    begun = time.time()
    D.trained_supernet("threshold", 3, SETTINGS, ckpt=ckpt)
    (kept,) = tmp_path.rglob("state.pt")
    monkeypatch.setenv("NAS_NB_FORCE", str(begun - 60))  # it was made since
    D.trained_supernet("threshold", 3, SETTINGS, ckpt=ckpt)
    assert len(trained) == 1
    os.utime(kept, (begun - 120, begun - 120))
    D.trained_supernet("threshold", 3, SETTINGS, ckpt=ckpt)
    assert len(trained) == 2 and kept.stat().st_mtime > begun - 60
    D.trained_supernet("threshold", 3, SETTINGS, ckpt=ckpt)  # once for all runs of a command
    assert len(trained) == 2


def test_experiment_1_is_a_function_of_its_seed():
    run = lambda seed: json.loads(json.dumps(D.darts_run("sigmoid", 12, 8, SETTINGS, seed)))
    found = run(0)
    assert found == run(0) != run(1)
    assert set(found["graph"]) <= {"0", "1"} and len(found["graph"]) == len(found["alpha"]) == 105
    assert 0 <= found["mixture"] <= 1 and 0 <= found["accuracy"] <= 1


# -- the search --


def searched(**changes):
    return json.loads(json.dumps(D.tdga_run(**SEARCH | changes, seed=1)))


@pytest.fixture(scope="module")
def found():
    return {
        name: searched(**change)
        for name, change in {"TDGA": {}, "T = 0": dict(T=0.0), "weights trained": dict(frozen=False)}.items()
    }


def test_a_search(found):
    rows = found["TDGA"]["rows"]
    assert [row["generation"] for row in rows] == [0, 1, 2, 3] and searched() == found["TDGA"]
    assert all(b["best"] <= a["best"] for a, b in zip(rows, rows[1:]))  # the elite is never lost
    assert all(row["best"] <= row["mean"] and len(row["population"]) == 4 for row in rows)
    assert rows[-1]["asked"] == 4 + 3 * 9 and rows[-1]["distinct"] <= rows[-1]["asked"]
    assert {"plain", "all", "DARTS", "best 1"} <= set(found["TDGA"]["levels"])
    assert found["TDGA"]["levels"]["best 1"]["loss"] == pytest.approx(rows[-1]["best"], abs=2e-6)
    losses = [
        found["TDGA"]["levels"][f"best {n}"]["loss"]
        for n in (1, 2, 3)
        if f"best {n}" in found["TDGA"]["levels"]
    ]
    assert losses == sorted(losses)


def test_at_temperature_0_nobody_is_selected_twice_from_the_pool(found):
    rows = found["T = 0"]["rows"]
    assert rows[-1]["T"] == 0 and rows[1]["std"] > 0  # with replacement it would be four copies of the best


def test_frozen_weights_do_not_change_and_trained_ones_do(found):
    plain = {name: x["levels"]["plain"]["loss"] for name, x in found.items()}
    assert plain["TDGA"] == plain["T = 0"] != plain["weights trained"]


def test_fitness_on_test_images_is_another_fitness(found):
    assert searched(on="test", generations=0)["rows"][0]["best"] != found["TDGA"]["rows"][0]["best"]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_stopped_search_goes_on_at_its_generation(found, frozen, tmp_path, monkeypatch):
    ckpt, left = lambda: Checkpoint(tmp_path / "run" / "checkpoint.pt", every=1e9), iter([1.0] * 3)
    monkeypatch.setattr(files, "seconds_left", lambda: next(left, -1.0))
    with pytest.raises(OutOfTime):
        D.tdga_run(**SEARCH | dict(frozen=frozen), seed=1, ckpt=ckpt())
    assert ckpt().load()["ga"]["generation"] in (1, 2)
    monkeypatch.setattr(files, "seconds_left", lambda: 1.0)
    shapes = (torch.ones(0), torch.ones(3), torch.ones(2, 105), torch.full((1,), math.nan), "x", None)
    damages = [lambda s, k=k: s.pop(k) for k in ("ga", "rows", "known", "asked", "layers", "eta", "network")]
    damages += [
        lambda s, k=k, x=x: s.update({k: x})
        for k in ("ga", "known", "asked", "layers", "network")
        for x in shapes
    ]
    damages += [lambda s, k=k, x=x: s["known"].update({k: x}) for k in ("bits", "values") for x in shapes]
    damages += [lambda s, x=x: s["ga"].update(population=x) for x in shapes] + [lambda s: s.update(rows={})]
    refused(
        ckpt(),
        lambda: D.tdga_run(**SEARCH | dict(frozen=frozen), seed=1, ckpt=ckpt()),
        damages[:: 1 if frozen else 4],
    )
    again = json.loads(json.dumps(D.tdga_run(**SEARCH | dict(frozen=frozen), seed=1, ckpt=ckpt())))
    assert again == found["TDGA" if frozen else "weights trained"]


def test_the_first_step_has_the_length_that_was_asked_for(supernet):
    network, method, _, parts, norm = supernet
    valid = D.batches_of(parts["alpha"], "digits", 8, 0, norm)
    s = D.TDGASearch(network, method.alpha.detach(), fitness_of(supernet), valid, 4, 0.003, 0.05, 0.02, 1, 5)
    moved = s.eta * s.gradient(s.ga.population[0], 0)
    assert moved.square().mean().sqrt() == pytest.approx(0.02, rel=1e-4)
    assert torch.equal(
        s.ga.population[0, 0], method.alpha.detach()
    )  # the first individual is the α of experiment 1


def test_neighbours_turn_about_a_seventh_of_the_bits():
    alpha = torch.randn(105, generator=torch.Generator().manual_seed(0))
    turned = ((D.near(alpha, range(200), 3) > 0) != (alpha > 0)).float().mean().item()
    assert 0.12 < turned < 0.18  # arctan(1/2) / π = 0.148 for normal α


def searching(supernet, **changes):
    network, method, _, parts, norm = D.trained_supernet("threshold", 0, SETTINGS)
    valid = D.batches_of(parts["alpha"], "digits", 8, 0, norm)
    values = dict(individuals=4, T=0.003, mutation=0.05, move=0.02, every=1, seed=5) | changes
    return D.TDGASearch(
        network, method.alpha.detach(), fitness_of((network, method, None, parts, norm)), valid, **values
    )


def test_a_generation_begins_with_a_step_down_the_gradient(supernet):
    s, seen = searching(supernet), []
    before, ask = s.ga.population[0].clone(), s.ga.ask
    s.ga.ask = lambda: seen.append(s.ga.population[0].clone()) or ask()
    s.advance()
    x, y = s.valid(1)
    down = before - s.eta * D.alpha_gradient(s.network, before, x, y)
    torch.testing.assert_close(seen[0], down)
    assert not torch.equal(before, down)
    still = searching(supernet, move=0.0)
    before, ask = still.ga.population.clone(), still.ga.ask
    still.ga.ask = lambda: seen.append(still.ga.population.clone()) or ask()
    still.advance()
    assert torch.equal(seen[1], before)


def test_after_weights_were_trained_nothing_old_is_believed(supernet):
    s = searching(supernet)
    bits = s.express(s.ga.population[0])
    old = s.fitness(bits)
    train = D.batches_of(supernet[3]["weights"], "digits", 8, 0, supernet[4])
    s.train_weights(train, 0.5, 2)
    fresh = D.Fitness(s.network, s.fitness.x, s.fitness.y, s.fitness.calibrate)
    assert torch.equal(s.fitness(bits), fresh(bits)) and not torch.equal(s.fitness(bits), old)
    assert not s.network.training and not any(p.requires_grad for p in s.network.parameters())


def test_who_sees_which_images(monkeypatch):
    parts, norm = D.parts_of("digits")
    monkeypatch.setattr(D, "parts_of", lambda *args: (parts, norm))
    seen, batches_of, first_images = [], D.batches_of, D.first_images
    name = lambda part: next((n for n, p in parts.items() if p is part), f"{len(part)} others")
    monkeypatch.setattr(
        D, "batches_of", lambda part, *args: seen.append(name(part)) or batches_of(part, *args)
    )
    monkeypatch.setattr(
        D, "first_images", lambda part, n, norm: seen.append((name(part), n)) or first_images(part, n, norm)
    )
    test = len(parts["test"])
    D.tdga_run(**SEARCH | dict(generations=0), seed=0)
    assert seen == [
        "weights",
        "alpha",
        ("fitness", 12),
        ("weights", 8),
        "alpha",
        "weights",
        (f"{test - 12} others", 12),
    ]
    seen.clear()
    D.tdga_run(**SEARCH | dict(generations=0, on="test", images=10**6), seed=0)
    assert (
        seen[2] == ("test", test // 2) and seen[-1][0] == f"{test - test // 2} others"
    )  # what selects is not what reports
    seen.clear()
    D.retrain_run("0" * 105, "digits", 0.03125, 8, 0.05, 1, 0)
    assert seen == [f"{sum(len(parts[n]) for n in ('weights', 'alpha', 'fitness'))} others"]
    seen.clear()
    D.worth_run(["0" * 105], 8, SETTINGS, 0)
    assert seen[2:] == [("test", test), ("weights", 8)]


def test_gain_is_measured_with_the_weights_at_the_end():
    rows = [
        dict(search=n, seed=0, generation=g, best=2.0 - g / 10, entropy=0.1)
        for n in ("long", "short")
        for g in range(5 if n == "long" else 3)
    ]
    levels = [
        dict(search=n, seed=0, architecture=a, loss=x)
        for n in ("long", "short")
        for a, x in (("DARTS", 1.9), ("best 1", 1.0))
    ]
    found = P.gains(pd.DataFrame(rows), pd.DataFrame(levels), 2).set_index("search")["gain"]
    assert found["long"] == pytest.approx(0.1) and found["short"] == pytest.approx(0.9)


BAD_SEARCH = [
    (dict(T=-1.0), "temperature|T "),
    (dict(individuals=1), "at least 2"),
    (dict(mutation=2.0), "mutation"),
    (dict(on="validation"), "no images for 'validation': choose among weights, alpha, fitness, test"),
    (dict(start="top"), "no sampling 'top'"),
    (dict(images=0), "at least 1 image is needed, not 0: look at images"),
    (dict(calibrate=0), "at least 1 image is needed, not 0: .*calibrate"),
    (dict(test_images=-1, generations=0), "at least 1 image is needed, not -1: .*test_images"),
]


@pytest.mark.parametrize("bad, says", BAD_SEARCH)
def test_bad_input_of_a_search(bad, says):
    with pytest.raises(ValueError, match=says) as error:
        D.tdga_run(**SEARCH | bad, seed=0)
    assert "\n" not in str(error.value)


RETRAIN = dict(source="digits", width=0.03125, size=8, lr=0.05, steps=1, seed=0)
BAD = {
    "texts of 0 and 1, at least one, all of the same length": lambda: D.to_bits(["01x"]),
    "all of the same length": lambda: D.to_bits(["01", "011"]),
    "at least one": lambda: D.to_bits([]),
    "texts of 0 and 1": lambda: D.to_bits([1, 0]),
    "architectures are texts of 0 and 1": lambda: D.retrain_run("a" * 105, **RETRAIN),
    r"105 bits, one for each of space.positions; \(104,\)": lambda: D.retrain_run("0" * 104, **RETRAIN),
    "architectures are texts": lambda: D.worth_run(["0" * 105, "1"], 8, SETTINGS, 0),
    "at least 1 image": lambda: D.worth_run(["0" * 105], 0, SETTINGS, 0),
}


@pytest.mark.parametrize("says", BAD)
def test_bad_input_is_refused_in_one_sentence(says):
    with pytest.raises(ValueError, match=says) as error:
        BAD[says]()
    assert "\n" not in str(error.value)


# -- random architectures, training from scratch --


@pytest.mark.parametrize("fair", [True, False])
def test_random_architectures(fair, tmp_path, monkeypatch):
    run = lambda ckpt=None: json.loads(json.dumps(D.random_run(fair, 70, **SMALL, seed=0, ckpt=ckpt)))
    whole = run()
    assert whole["n"] == 70 and whole["levels"]["best"]["loss"] <= whole["mean"]
    ckpt, left = lambda: Checkpoint(tmp_path / "run" / "checkpoint.pt", every=1e9), iter([1.0] * 2)
    monkeypatch.setattr(files, "seconds_left", lambda: next(left, -1.0))
    with pytest.raises(OutOfTime):
        run(ckpt())
    assert len(ckpt().load()["losses"]) == 64
    monkeypatch.setattr(files, "seconds_left", lambda: 1.0)
    damages = [
        lambda s: s.pop("best"),
        lambda s: s.pop("losses"),
        lambda s: s.update(best=3),
        lambda s: s.update(losses={}),
        lambda s: s["losses"].append("x"),
    ]
    refused(
        ckpt(),
        lambda: run(ckpt()),
        damages + [lambda s: s.update(best=torch.ones(2)), lambda s: s.update(losses=torch.ones(2))],
    )
    assert run(ckpt()) == whole


def test_training_from_scratch():
    config = dict(source="digits", width=0.03125, size=8, lr=0.05, steps=3)
    run = lambda graph: D.retrain_run(graph, **config, seed=0)
    assert run("0" * 105) == run("0" * 105) and run("0" * 105)["n"] == len(D.load_images("digits").test)


# -- tables and figures --


def test_tables_and_figures(found):
    rows = [dict(label="x", seed=s, result=r) for s, r in enumerate((found["TDGA"], searched(T=0.01)))]
    runs = {"TDGA": rows, "T = 0": [dict(label="x", seed=0, result=found["T = 0"])]}
    course, ends = P.by_generation(runs), P.by_level(runs)
    assert len(course) == 12 and course["search"].value_counts().to_dict() == {"TDGA": 8, "T = 0": 4}
    gained = P.gains(course, ends, 3)
    first = gained[(gained["search"] == "TDGA") & (gained["seed"] == 0)]["gain"].item()
    assert first == pytest.approx(
        found["TDGA"]["levels"]["DARTS"]["loss"] - found["TDGA"]["rows"][-1]["best"], abs=2e-6
    )
    samples = pd.DataFrame(
        dict(sampling=["a", "a", "b"], seed=[0, 1, 0], mixture=0.5, accuracy=[0.4, 0.5, 0.6])
    ).assign(graph=["1100", "1010", "1111"])
    spread = pd.DataFrame({"differ": [0.2, 0.3], "differ by chance": [0.5, 0.4]}, index=["a", "b"])
    again = pd.DataFrame(dict(architecture=["plain", "best 1"], seed=0, steps=9, accuracy=[0.5, 0.6]))
    records = {name: rows[0] for name, rows in runs.items()}
    main = P.main_course(course, ends)
    figures = [
        P.plot_evaluation(main, ends, "5 to 7", "t"),
        P.plot_entropy(main, dict.fromkeys(P.SEARCHES, [0.3, 0.2]), records, "t"),
    ]
    figures += [
        P.plot_ablations(gained, "t"),
        P.plot_samplings(samples, spread, "t"),
        P.plot_retrained(again, "t"),
    ]
    assert all(isinstance(f, plt.Figure) for f in figures)
    plt.close("all")


def test_entropy_map_is_that_of_the_population(found):
    generations, p = P.loci_of(dict(result=found["TDGA"]))
    assert generations == [0, 1, 2, 3]
    h = -(p * np.log(p.clip(1e-12)) + (1 - p) * np.log((1 - p).clip(1e-12)))
    assert np.allclose(h.mean(1), [row["entropy"] for row in found["TDGA"]["rows"]], atol=1e-5)


def test_apart():
    assert P.apart(["1100", "1100", "0011"]) == pytest.approx((2 / 3, 0.5))
    assert np.isnan(P.apart(["1100"])[0])
    assert P.each_apart(["1100", "1100", "0011"]) == [0, 100, 100]
    assert P.cite_nets([dict(result=dict(graph="1100"))]) == {}
    nets = [dict(result=dict(graph=graph)) for graph in ("1100", "1100", "0011")]
    assert P.cite_nets(nets) == dict(nets="67", nets_chance="50", nets_least="0", nets_most="100")


def test_gates_that_still_turn_are_those_of_the_last_looks():
    looks = ["0000", "1111", "1110", "1100", "1101"]
    records = [dict(result=dict(history=[dict(graph=graph) for graph in looks]))]
    assert P.still_turning(records) == "1 to 4" and P.still_turning(records, gaps=2) == "1 to 1"
    assert P.still_turning([dict(result=dict(history=[dict(graph="0")]))]) == "–"


# -- verdicts --


def test_what_fixed_weights_gain_is_paired_by_seed():
    rows = [("TDGA", (0.2, 0.3), (1.0, 1.1)), ("weights trained", (0.1, 0.4), (1.1, 1.0))]
    gained = pd.DataFrame(
        dict(search=name, seed=s, gain=gain[s], best=best[s]) for name, gain, best in rows for s in range(2)
    )
    ends = pd.DataFrame(dict(search=name, architecture="DARTS", loss=1.0) for name, *_ in rows)
    judged = P.judge_fixed(gained, ends, 60, 1, 95)
    assert judged["differences"] == pytest.approx([0.1, -0.1]) and judged["wins"] == "1"
    assert (judged["fresh"], judged["fresh_n"]) == ("-0.100", "1")  # one alone has no interval
    assert judged["gain_wins"] == "1" and judged["by_gain"][1:].startswith("0.000 (")  # 0.1, -0.1


def test_a_line_of_fixed_against_trained_joins_the_losses_of_one_supernet():
    rows = [
        ("TDGA", (0.2, 0.3), (1.0, 1.1)),
        ("weights trained", (0.1, 0.4), (1.1, 1.05)),
        ("T = 0", (0, 0), (9, 9)),
    ]
    gained = pd.DataFrame(
        dict(search=name, seed=s, gain=gain[s], best=best[s]) for name, gain, best in rows for s in range(2)
    )
    table = P.fixed_table(gained).set_index(["architecture", "weights", "seed"])["loss"]
    assert len(table) == 8 and table["best", "trained", 1] == 1.05 and table["darts", "fixed", 0] == 1.2
    title, alt = P.words_of_fixed(table.reset_index(), 60, 95)
    assert "is +0.025 (" in title and "higher in 1 of 2 supernets" in title and title in alt
    figure = P.plot_fixed(table.reset_index(), title)
    assert all(len(ax.lines) == 3 for ax in figure.axes)  # a line for each supernet, and the means
    plt.close(figure)


def test_the_longer_training_pairs_the_best_of_a_search_with_plain_vgg19():
    record = dict(
        seed=4, result=dict(levels={"best 1": dict(graph="01" * 52 + "1"), "DARTS": dict(graph="1" * 105)})
    )
    plan = P.long_plan([record, record | dict(seed=5)])
    assert plan[["search", "seed"]].to_numpy().tolist() == 3 * [[4, 12]] + 3 * [[5, 15]]
    correct = [50, 55, 61, 52, 60, 60]
    longer = P.with_accuracy(plan, [dict(result=dict(correct=n, n=100)) for n in correct])
    judged = P.judge_long(longer, 7820)
    assert judged["differences"] == pytest.approx([11, 8]) and f"{judged['best']:.1f}" == "60.5 ± 0.7"
    assert judged["over_darts"] == "+3.00"
    assert P.judge_long(longer.iloc[:0], 0) == P.UNTRAINED


def test_the_longer_training_has_a_panel_of_its_own():
    short = pd.DataFrame(dict(architecture=["plain", "all", "best 1"], accuracy=[0.5, 0.6, 0.7]))
    long = pd.DataFrame(dict(architecture=["plain", "best 1"], accuracy=[0.8, 0.9]))
    both = P.with_long(short, 1000, long, 7820)
    assert both["steps"].tolist() == 3 * [1000] + 2 * [7820]
    assert len(P.with_long(short, 1000, long.iloc[:0], 7820)) == 3
    figure = P.plot_retrained(both, "t")
    left, right = figure.axes
    titles = [ax.get_title() or ax.get_title("left") for ax in (left, right)]  # a theme may have moved them
    assert titles == ["1,000 steps", "7,820 steps"]
    drawn = [np.asarray(ax.lines[0].get_xdata(), dtype=float) for ax in (left, right)]
    assert drawn[0][:3] == pytest.approx([50, 60, 70]) and np.isnan(drawn[0][3:]).all()
    assert drawn[1][3:] == pytest.approx([80, 90]) and np.isnan(drawn[1][:3]).all()
    assert [ax.lines[2].get_xdata()[0] for ax in (left, right)] == pytest.approx([50, 80])  # plain VGG19
    plt.close(figure)


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(long=3), "long=3, added=0, pairs=2: trainings take their graphs from the searches"),
        (dict(added=3), "added=3, pairs=2: trainings take their graphs from the searches"),
        (dict(long=1, long_steps=0), "long_steps=0, retrain_steps=5: the longer training stands beside"),
        (dict(long=1, retrain_steps=0), "retrain_steps=0: the longer training stands beside"),
        (dict(trainings=0), "trainings=0: each graph is trained at least once"),
    ],
)
def test_sizes_of_trainings_that_make_no_sense(bad, says):
    good = dict(samplings=("threshold", "sigmoid"), ablation=2, generations=2, T=0.1, individuals=2, pairs=2)
    good |= dict(long=2, added=0, long_steps=9, retrain_steps=5, trainings=1)
    D.check_sizes(SimpleNamespace(**good))
    with pytest.raises(ValueError, match=says):
        D.check_sizes(SimpleNamespace(**good | bad))


def test_what_the_search_adds_is_the_mean_of_the_trainings_of_each_search():
    found = dict(result=dict(levels={"best 1": dict(graph="1" * 105)}))
    other = dict(result=dict(levels=dict(best=dict(graph="0" * 105))))
    plan = P.added_plan(*([r | dict(seed=s) for s in (0, 1)] for r in (found, other)), 2)
    assert plan["seed"].tolist() == [0, 0, 1001, 1001, 3, 3, 1011, 1011]
    correct = [60, 58, 61, 61, 63, 60, 60, 61]
    df = P.with_accuracy(plan, [dict(result=dict(correct=n, n=100)) for n in correct])
    judged = P.judge_added(df, 1, 95)
    assert judged["differences"] == pytest.approx([1, 1])
    assert (judged["wins"], judged["pairs"], judged["fresh"], judged["fresh_n"]) == ("2", "4", "+1.00", "1")
    assert "fresh" not in P.judge_added(df, 2, 95) and P.judge_added(df.iloc[:0], 0, 95) == P.UNTRAINED
    table = P.added_table(df)
    assert sorted(table["lead"]) == pytest.approx([-1, 0, 2, 3])
    title, alt = P.words_of_added(table, 95)
    assert (
        "TDGA's best is +1.0 points from the best" in title
        and "(n = 2, 2 trainings of each)" in title
        and title in alt
    )
    for lead, bars in (table["lead"], 0), ([1.0, 0.0, 2.0, 3.0], 1):  # equal means have no interval
        (ax,) = P.plot_added(table.assign(lead=lead), 95, 0.5, title).axes
        assert [t.get_text() for t in ax.get_yticklabels()] == ["search 0", "search 1", "all"]
        assert len(ax.containers) == bars
    plt.close("all")


def test_neighbours_of_another_graph_are_refused():
    by = dict(device="cpu", isa="AVX2", torch="2.14.1")
    found = dict(seed=3, made_by=by, result=dict(levels={"best 1": dict(graph="1" * 105)}))
    other = dict(seed=3, made_by=by, result=dict(levels=dict(best=dict(graph="0" * 105))))
    assert len(P.added_plan([found], [other], 1)) == 2
    for what in (dict(isa="AVX512"), dict(torch="2.15.0"), dict(device="cuda")):
        elsewhere = other | dict(made_by=by | what)
        for compare in (
            lambda x: P.added_plan([found], [x], 1),
            lambda x: P.by_level(dict(a=[found], b=[x])),
        ):
            with pytest.raises(ValueError, match="seed 3 was computed with .* belong to other graphs"):
                compare(elsewhere)


@pytest.mark.parametrize("n, least, holds", [(3, 0.6, True), (2, 0.6, None), (3, 0.4, False)])
def test_the_best_of_six_in_every_seed_is_no_chance_from_three_seeds_on(n, least, holds):
    ways = "threshold", "a", "b", "c", "d", "e"
    rows = [(way, s, 0.5 + 0.1 * (way == "threshold")) for way in ways for s in range(n)]
    first = pd.DataFrame(rows, columns=["sampling", "seed", "accuracy"])
    first.loc[(first["seed"] == 0) & (first["sampling"] == "threshold"), "accuracy"] = least
    assert P.judge_sampling(first, 320)["holds"] is holds


def test_threshold_sampling_is_compared_with_the_second_best_on_average_and_of_each_seed():
    rows = [("threshold", (0.60, 0.60)), ("a", (0.58, 0.50)), ("b", (0.50, 0.56))]
    rows = [(way, s, x[s]) for way, x in rows for s in range(2)]
    cited = P.judge_sampling(pd.DataFrame(rows, columns=["sampling", "seed", "accuracy"]), 240)
    said = dict(rival="a", ahead="6.0", least="2.0", most="4.0", error="3.2", images="240")
    assert {name: cited[name] for name in said} == said


def test_what_was_not_trained_from_scratch_is_not_tested():
    plan = pd.DataFrame(columns=["architecture", "graph", "search", "seed"])
    judged = P.judge_scratch(P.with_accuracy(plan, []), 0)
    assert judged["tested"] is False and "holds" not in judged


def test_one_seed_says_nothing_about_the_spread():
    spread = P.spread_of(pd.DataFrame(dict(sampling=["threshold"], graph=["0110"])))
    assert P.judge_spread(spread, [{}])["holds"] is None


def test_gates_that_are_set_at_the_first_look_are_counted():
    record = lambda early, late: dict(
        seed=3, result=dict(history=[dict(graph=early), dict(graph="11")], graph=late)
    )
    assert P.set_early([record("0101", "0101"), record("0011", "0101")]) == 0.75
    begin = D.to_text(D.Shortcuts("threshold", 3).bits())
    other = begin[:84] + begin[84:].translate(str.maketrans("01", "10"))  # a fifth of 105 gates
    assert P.left_of_begin([record(other, begin)]) == pytest.approx(0.8)
    spread = P.spread_of(pd.DataFrame(dict(sampling=["threshold"] * 2, graph=[begin, other])))
    judged = P.judge_spread(spread, [record(other, begin), record(begin, begin)])
    assert judged["early"] == pytest.approx(90) and judged["begin"] == pytest.approx(90)


def test_an_evaluation_is_counted_in_operations_of_training():
    sizes = dict(width=1 / 8, images=320, calibrate=64, size=64)
    one, ten = (D.evaluation_share(SimpleNamespace(**sizes, steps=n), (3, 32, 32)) for n in (1, 10))
    # 384 images forward, 64 forward and twice that backward, but for the first convolution's images
    assert one == pytest.approx(10 * ten) and 100 * 384 / (64 * 3) < one < 205


def test_the_title_of_the_ablations_names_the_change_that_is_farthest_from_tdga():
    rows = [
        ("TDGA", (0.1, 0.2)),
        ("near it", (0.104, 0.197)),
        ("far", (0.05, 0.19)),
        ("other weights", (1, 1)),
    ]
    gained = pd.DataFrame(
        dict(search=name, seed=s, gain=x[s], best=1 - x[s] + (name == "other weights"))
        for name, x in rows
        for s in range(2)
    )
    title, alt = P.words_of_ablations(gained, 60)
    assert "far gains 0.010 to 0.050 nats less than TDGA" in title and title in alt
    assert "all other changes of TDGA itself stay within 0.004 nats" in title and "other weights" not in title


def test_the_title_of_the_retrained_has_the_intervals_of_the_claims():
    names = dict(plain=(0.5, 0.52, 0.51), random=(0.66, 0.69, 0.68)) | {"best 1": (0.68, 0.67, 0.69)}
    rows = [dict(architecture=a, search=s, seed=s, accuracy=x[s]) for a, x in names.items() for s in range(3)]
    title, _ = P.words_of_retrained(pd.DataFrame(rows), 95)
    assert "(n = 3)" in title and "three are 17.0 (" in title
    table = P.added_table(pd.DataFrame(rows))
    mean, low, high = P.interval([2, -2, 1], 95)
    assert (
        f"{mean:+.1f} ({low:+.1f} to {high:+.1f}) points from the best of as many"
        in P.words_of_added(table, 95)[0]
    )


def test_the_article_says_how_long_its_profiles_take():
    notebook = json.loads(
        (Path(__file__).parent.parent / "nbs" / "50_tdga_darts_vgg19.ipynb").read_text("utf-8")
    )
    (text,) = ["".join(c["source"]) for c in notebook["cells"] if c["id"] == "how-to-read"]
    assert all(EXPECTED[profile].partition(",")[0] in text for profile in ("quick", "cpu", "paper"))


def test_the_figure_of_retrained_architectures_names_the_searches_that_found_them():
    folder = Path(__file__).parent.parent / "figures" / "cpu" / "50_tdga_darts_vgg19"
    listed = json.loads((folder / "retrained.json").read_text(encoding="utf-8"))["records"]
    assert {key.rpartition("-")[0] for key in listed} == {"retrain", "search-tdga", "random-near"}
    of = {key: json.loads((folder / "records" / f"{key}.json").read_text(encoding="utf-8")) for key in listed}
    known = {level["graph"] for r in of.values() for level in r["result"].get("levels", {}).values()} | {
        "0" * 105,
        "1" * 105,
    }
    assert {r["config"]["graph"] for r in of.values() if r["label"] == "retrain"} <= known


def test_on_random_losses_variety_is_what_the_temperature_keeps():
    first = [["".join(row) for row in np.random.default_rng(s).choice(["0", "1"], (8, 105))] for s in (0, 1)]
    kept = {
        spread: D.flips_run(dict(warm=0.01, cold=0.0), first, spread, 30, 0.01, 2, seed=0)
        for spread in (0.01, 1.0)
    }
    assert kept[0.01]["warm"][-1] > 0.5 > kept[0.01]["cold"][-1]  # at most ln 2
    assert kept[1.0]["warm"][-1] < 0.1  # there the loss of the elite outweighs all variety
    assert kept[1.0]["cold"] == kept[0.01]["cold"]  # without a temperature only the order counts
