"""The artificial function, the trials on it, what is computed from them, and the slider of the notebook."""

import io
import json
import math
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from tqdm import tqdm

from nas_nb.asng import Space, make_samples
from nas_nb.claims import check_claims
from nas_nb.core import root
from nas_nb.explore import explore
from nas_nb.files import Checkpoint
from nas_nb.papers import asng_equations, asng_figures, asng_pairs, asng_runs
from nas_nb.papers.asng_claims import CLAIMS
from nas_nb.papers.asng_figures import predicted_median, score
from nas_nb.papers.asng_runs import (
    METHODS,
    Coins,
    Mixed,
    Trials,
    coin_trace,
    divergence,
    expected,
    hitting_times,
    joined,
    mixed,
    parts,
    prices,
    trace,
    watched,
)

PROBLEM = dict(D=6, K=4, horizon=2000)


def test_selective_squared_error():
    "The public code's values and gradient (case asng_selective_squared_error)."
    x = torch.tensor([[0.5, -0.2, 0.1], [-1.0, 0.3, 0.8]], dtype=torch.float64).T[..., None].requires_grad_()
    z = torch.tensor([0.15, -0.3], dtype=torch.float64)[:, None]
    c = make_samples(Space([3, 3]), [[0, 2], [1, 0]], dtype=torch.float64).onehot
    loss = expected(c, (x - z) ** 2 + prices(3, x))[:, 0]
    value = expected(c, x**2 + prices(3, x))[:, 0]
    torch.testing.assert_close(loss.tolist(), [1.999166666666667, 0.9458333333333333])
    torch.testing.assert_close(value.tolist(), [1.5566666666666666, 1.3733333333333333])
    loss.mean().backward()
    torch.testing.assert_close(x.grad[..., 0].T.tolist(), [[0.35, -0.35, 0.0], [-0.7, 0.0, 1.1]])


def test_the_sgd_step_is_torch_sgd_with_momentum_on_the_mean_of_the_samples():
    trials = Trials("ASNG", [5], 0.1, 0.05, **PROBLEM)
    x = torch.nn.Parameter(trials.x.clone())
    sgd = torch.optim.SGD([x], lr=0.05, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, PROBLEM["horizon"])
    ask, drawn = trials.opt.ask, []
    trials.opt.ask = lambda lam: drawn.append(ask(lam)) or drawn[-1]
    for t in range(20):
        z = trials.noise(trials.opt.seeds, t).view(2, PROBLEM["D"], 1)[0] / PROBLEM["K"]
        trials.update()
        sgd.zero_grad()
        expected(drawn[-2].onehot, (x - z) ** 2 + trials.prices).mean().backward()
        sgd.step()
        cosine.step()
        torch.testing.assert_close(trials.x, x.data)


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_is_the_same_alone_in_a_crowd_and_after_others_have_left(method):
    grid = dict(delta0=[0.5, 0.02], eps_x=[0.05, 0.005], max_updates=900, **PROBLEM)
    crowd = np.array(hitting_times(method, seeds=40, **grid)["updates"])
    assert len(np.unique(crowd[crowd > 0] // asng_runs.EVERY)) > 2  # trials left at different times
    for seed in (0, 13, 39):
        alone = np.array(hitting_times(method, seeds=1, seed=seed, **grid)["updates"])
        assert (alone[..., 0] == crowd[..., seed]).all()


def test_success_and_the_step_length_are_recorded_at_the_very_update():
    result = hitting_times("ASNG", [0.5], [0.05], seeds=5, max_updates=900, **PROBLEM)
    for seed, (at, delta) in enumerate(zip(result["updates"][0][0], result["delta"][0][0])):
        trials = Trials("ASNG", [seed], 0.5, 0.05, **PROBLEM)
        best = [float(trials.update()[0]) for _ in range(at or 900)]
        assert delta == pytest.approx(float(trials.opt.delta) if at else 0, rel=1e-3)
        hits = [i + 1 for i, value in enumerate(best) if value <= 1 / PROBLEM["K"]]
        assert hits == ([at] if at else [])


def test_more_theta_samples_give_no_more_chances_of_success():
    trials = Trials("ASNG", range(50), 0.5, 0.05, lam=16, **PROBLEM)
    ask, drawn = trials.opt.ask, []
    trials.opt.ask = lambda lam: drawn.append(ask(lam)) or drawn[-1]
    before = trials.value
    best = trials.update()
    four = torch.cat([expected(drawn[0].onehot, before), expected(drawn[1].onehot[:, :2], trials.value)])
    assert drawn[1].onehot.shape[1] == 16 and torch.equal(best, four.amin(0))


def test_asng_adapts_a_step_that_is_far_too_small_for_sng():
    setting = dict(eps_x=[0.02], seeds=20, max_updates=3000, horizon=3000, D=10, K=4)
    rate = {
        (m, d): np.mean(np.array(hitting_times(m, [d], **setting)["updates"]) > 0)
        for m, d in (("ASNG", 1.0), ("ASNG", 0.001), ("SNG", 0.3), ("SNG", 0.001))
    }
    assert rate["ASNG", 1.0] > 0.8 and rate["ASNG", 0.001] > 0.8
    assert rate["SNG", 0.3] > 0.8 and rate["SNG", 0.001] < 0.2


def test_score_and_interval():
    assert [float(v) for v in score([10, 0, 30, 20])] == [0.75, 20.0, 20 / 0.75]
    assert [float(v) for v in score([4, 1, 3, 2])] == [1.0, 2.5, 2.5]
    assert math.isnan(score([0, 0])[1])
    rng, inside = np.random.default_rng(1), []
    for _ in range(600):  # the interval holds what it promises, for any distribution
        low, high = predicted_median(rng.lognormal(size=30), 5)
        inside.append(low <= np.median(rng.lognormal(size=5)) <= high)
    assert 0.93 < np.mean(inside) <= 1.0


def test_the_slider_of_notebook_51_moves_through_every_step_length():
    delta0 = [1.0, 0.1, 0.01]
    log = trace(delta0, 0.05, updates=60, points=20, **PROBLEM)
    null = coin_trace(delta0, updates=60, points=20, seeds=3, D=6, K=4)
    assert np.shape(log["delta"]) == (len(log["update"]), 3)
    titles = []

    def draw(axes, i):
        asng_figures.draw_trace(axes, i, log, delta0, null)
        titles.append(axes[0].get_title(loc="left") or axes[0].get_title())

    view = explore(draw, range(3), "δ⁰", sheet=[0, 2], rows=4, format=lambda i: f"{delta0[i]:.3g}", live=True)
    for i in (1, 2, 0):
        view.slider.value = i
        assert titles[-1] == f"δ⁰ = {delta0[i]:.2g}"
    assert [label for label, _ in view.slider.options] == ["1", "0.1", "0.01"]
    plt.close("all")


def test_ten_thousand_trials_fit_in_two_gigabytes():
    code = (
        "import resource, torch\n"
        "from nas_nb.papers.asng_runs import Trials\n"
        "with torch.inference_mode():\n"
        "    t = Trials('ASNG', range(10_000), 0.1, 0.05, D=30, K=5, horizon=100_000)\n"
        "    for _ in range(5): t.update()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peak = int(subprocess.check_output([sys.executable, "-c", code], text=True)) * (
        1 if sys.platform == "darwin" else 1024
    )
    print(f"{peak / 2**20:.0f} MiB with torch and everything")
    assert peak < 2 * 2**30


SMALL = dict(eps_x=[0.05], seeds=2, max_updates=100, **PROBLEM)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Trials("REINFORCE", [0], 0.1, 0.05, **PROBLEM), "known are ASNG, SNG, Adam"),
        (lambda: Trials(["ASNG"], [0], 0.1, 0.05, **PROBLEM), "known are ASNG, SNG, Adam"),
        (lambda: Trials("ASNG", "3", 0.1, 0.05, **PROBLEM), "integer"),
        (lambda: Trials("ASNG", [0], 0.1, math.nan, **PROBLEM), "eps_x must be"),
        (lambda: Trials("ASNG", [0], 0.1, 0, **PROBLEM), "eps_x must be"),
        (lambda: Trials("ASNG", [0], 0.1, "a", **PROBLEM), "eps_x must be"),
        (lambda: Trials("ASNG", [0, 1], 0.1, [0.1] * 3, **PROBLEM), "eps_x must be"),
        (lambda: Trials("ASNG", [0], 0.1, 0.05, **PROBLEM | dict(D=0)), "D = .* must be"),
        (lambda: Trials("ASNG", [0], 0.1, 0.05, **PROBLEM | dict(D=2.0)), "D = .* must be"),
        (lambda: Trials("ASNG", [0], 0.1, 0.05, **PROBLEM | dict(K=1)), "K = .* must be"),
        (lambda: Trials("ASNG", [0], 0.1, 0.05, **PROBLEM | dict(horizon=0)), "horizon = .* must be"),
        (lambda: Trials("ASNG", [0], 0.1, 0.05, lam=1, **PROBLEM), "lam = .* must be"),
        (
            lambda: hitting_times("ASNG", [0.1], **SMALL | dict(seeds="3")),
            "seeds = .* must be a whole number",
        ),
        (
            lambda: hitting_times("ASNG", [0.1], **SMALL | dict(seeds=1.5)),
            "seeds = .* must be a whole number",
        ),
        (lambda: hitting_times("ASNG", [0.1], **SMALL | dict(seeds=0)), "seeds = .* must be a whole number"),
        (lambda: hitting_times("ASNG", [0.1], **SMALL, seed=-1), "at least 0"),
        (lambda: hitting_times("ASNG", [0.1], **SMALL, seed=2**31 - 1), "less than"),
        (lambda: hitting_times("ASNG", [0.1], **SMALL | dict(max_updates=0)), "max_updates = .* must be"),
        (lambda: hitting_times("ASNG", 0.1, **SMALL), "non-empty lists"),
        (lambda: hitting_times("ASNG", [], **SMALL), "non-empty lists"),
        (lambda: hitting_times("ASNG", ["a"], **SMALL), "non-empty lists"),
        (lambda: hitting_times("ASNG", [0.1], **SMALL, device="gpu"), "unknown device"),
        (lambda: trace([0.1], 0.05, updates=0, points=20, **PROBLEM), "updates = .* must be"),
        (lambda: trace(0.1, 0.05, updates=10, points=20, **PROBLEM), "delta0 must be"),
        (lambda: Trials("ASNG", range(3), 0.1, 0.05, **PROBLEM).keep([3]), "indices from 0 to 2"),
        (lambda: score([]), "at least one trial"),
        (lambda: score([1, -1]), "at least one trial"),
        (lambda: score([1, math.nan]), "at least one trial"),
        (lambda: score("abc"), "at least one trial"),
        (lambda: score([1j]), "at least one trial"),
        (lambda: asng_figures.with_spread(3.0), "at least one trial"),
        (lambda: asng_figures.median_step(None), "at least one trial"),
        (lambda: predicted_median([1, 2], 1.5), "n = .* must be"),
        (lambda: predicted_median({1, 2}, 3), "at least one trial"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_beyond_the_horizon_the_learning_rate_stays_zero():
    trials = Trials("ASNG", range(5), 0.1, 0.05, D=3, K=3, horizon=20)
    for _ in range(20):
        trials.update()
    x = trials.x.clone()
    for _ in range(15):
        trials.update()
    assert torch.equal(trials.x, x)


def test_a_state_of_other_trials_or_an_altered_one_is_refused():
    trials = Trials("ASNG", range(4), 0.1, 0.05, **PROBLEM)
    for _ in range(3):
        trials.update()
    state = trials.state()
    bad = [
        Trials(*a, **PROBLEM | k).state()
        for a, k in (
            (("SNG", range(4), 0.1, 0.05), {}),
            (("ASNG", range(5), 0.1, 0.05), {}),
            (("ASNG", range(4), 0.1, 0.05), dict(D=7)),
        )
    ]
    bad += [
        state | dict(t=-1),
        state | dict(eps_x=-state["eps_x"]),
        state | dict(x=state["x"][1:]),
        {},
        state | dict(opt=state["opt"] | dict(theta_=state["opt"]["theta_"] * math.nan)),
    ]
    for other in bad:
        with pytest.raises(ValueError, match="the state of th"):
            trials.load(other)


def stopped_and_resumed(tmp_path, change=lambda saved: saved, **settings):
    "The result in one go, and of a run that is stopped when some trials have left, changed, and resumed."
    whole = hitting_times("ASNG", **settings)

    class Stop(Checkpoint):
        def tick(self, state):
            if (saved := state())["trials"]["t"] >= 200:
                self.save(saved)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hitting_times("ASNG", **settings, ckpt=Stop(tmp_path / "a.pt"))
    ckpt = Checkpoint(tmp_path / "a.pt")
    saved = ckpt.load()
    ckpt.save(change({k: v for k, v in saved.items() if k not in ("seconds", "key")}))
    return whole, hitting_times("ASNG", **settings, ckpt=Checkpoint(tmp_path / "a.pt")), saved


def test_trials_that_have_left_stay_away_after_a_stop(tmp_path):
    whole, resumed, saved = stopped_and_resumed(
        tmp_path, delta0=[0.5, 0.02], eps_x=[0.05], seeds=20, max_updates=900, **PROBLEM
    )
    assert 0 < len(saved["alive"]) < 40 and resumed == whole


def test_diverged_weights_can_go_on_too(tmp_path):
    whole, resumed, saved = stopped_and_resumed(
        tmp_path, delta0=[0.5], eps_x=[1e6], seeds=3, max_updates=500, **PROBLEM
    )
    assert not saved["trials"]["x"].isfinite().all() and resumed == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s | dict(alive=s["alive"] + 40),
        lambda s: s | dict(alive=s["alive"][:-1]),
        lambda s: s | dict(found=s["found"][:-1]),
        lambda s: s | dict(delta=s["delta"] * math.nan),
        lambda s: {k: v for k, v in s.items() if k != "alive"},
        lambda s: {k: v for k, v in s.items() if k != "trials"} | dict(trials=None),
    ],
)
def test_an_altered_checkpoint_is_refused(tmp_path, change):
    with pytest.raises(ValueError, match="does not fit"):
        stopped_and_resumed(
            tmp_path, change, delta0=[0.5, 0.02], eps_x=[0.05], seeds=20, max_updates=900, **PROBLEM
        )


def figure4_of(updates: dict, factors=(0.0, 1.0)):
    return asng_figures.table4(
        {m: dict(result=dict(updates=u)) for m, u in updates.items()}, factors, [1.0, 0.1], [0.05]
    )


NEVER, ALWAYS = [[[0, 0], [0, 0]]], [[[10, 12], [11, 11]]]


def test_where_nothing_succeeds_the_figures_are_drawn():
    df = figure4_of(dict.fromkeys(METHODS, NEVER))
    plt.close(asng_figures.plot_figure4(df, 300, "nothing"))
    picks = asng_pairs.chosen(df)
    assert (picks[["slow", "fast"]] == -1).to_numpy().all() and asng_pairs.unsteady(
        picks, {}, [0.05], 300
    ) == {}
    none = dict(updates=np.zeros((1, 1, 2)), delta=np.zeros((1, 1, 2)))
    runs = {("rank", 2): none, ("rank", 4): none}
    assert len(asng_pairs.pairs_table(runs, [0.05], 300, "delta")) == 0
    same = asng_pairs.pairs_table(runs, [0.05], 300).assign(seeds="fresh")
    assert same["factor"].tolist() == [1.0]
    plt.close(asng_pairs.plot_pairs(same, "nothing"))


def test_a_verdict_stands_only_where_other_readings_allow_it():
    claims = dict(x=dict(rule="better", smallest=0.1))
    worse, open_ = {"SNG": [-0.5, -0.4, -0.45]}, {"SNG": [-0.5, 0.6, -0.45]}
    read = lambda mine, *others: asng_pairs.other_readings(
        "x", claims, mine, {f"o{n}": (f"again {n}", x) for n, x in enumerate(others)}
    )
    assert read(worse, worse)[0] and read(worse)[0] and read(open_, worse)[0]
    assert not read(worse, open_)[0] and not read(worse, worse, open_)[0]
    _, said, cited = read(worse, open_)
    assert said.startswith("; again 0: -0.12 (") and said.endswith(", SNG)") and cited["o0"] == "-0.12"
    assert set(cited) == {"o0", "o0_low", "o0_high"}


def test_titles_say_what_the_tables_say():
    right = figure4_of(dict(ASNG=ALWAYS, SNG=[[[10, 12], [0, 0]]], Adam=[[[0, 0], [11, 13]]]))
    wrong = figure4_of(dict.fromkeys(METHODS, NEVER))
    says = "SNG fails from short ones, Adam from long ones"
    assert asng_figures.told4(right, 300, 300)[0].endswith(says)
    assert asng_figures.told4(right, 300, 900)[0].endswith(f"{says} (within 300 updates)")
    assert asng_figures.told4(wrong, 300, 300)[0] == "Updates to success against δ⁰"
    assert "2 of 6, 0 of them ASNG's" in asng_figures.told4(right, 300, 300)[1]
    assert not asng_figures.comparable(pd.DataFrame())
    public = asng_figures.against_public({}, (0.0,), (0.05,), 15_000, dict(horizon=300, D=4, K=3))
    assert not asng_figures.comparable(public)


def test_every_claim_has_its_texts():
    ids = "everywhere tuning eased robust-best step updates updates-rank evaluations line8"
    ids += " line8-search trust trust-floor mixed same-optimum floor"
    assert list(check_claims(CLAIMS)) == f"{ids} mean-free natural".split()


def test_no_claim_holds_by_an_infinity_or_for_want_of_data():
    nothing = figure4_of(dict.fromkeys(METHODS, NEVER))
    empty = figure4_of({}).reindex(columns=["method", "success_rate", "eps_x", "score", "trials"])
    for df in (nothing, empty):
        assert not asng_figures.every_setting(df, "ASNG") and not asng_figures.needs_tuning(df, "SNG")
    assert asng_pairs.ln_updates([0, 10], 300).tolist() == pytest.approx([math.log(300), math.log(10)])


def test_a_start_from_which_one_method_fails_is_neither_slow_nor_fast():
    trials = dict(
        ASNG=[[[10, 10], [40, 40], [20, 20]]],
        SNG=[[[0, 0], [10, 10], [30, 30]]],
        Adam=[[[10, 10], [30, 30], [20, 20]]],
    )
    records = {m: dict(result=dict(updates=u)) for m, u in trials.items()}
    picks = asng_pairs.chosen(asng_figures.table4(records, (0.0, 0.5, 1.0), [1.0, 0.5, 0.1], [0.05]))
    assert picks.loc[(0.05, "ASNG")].tolist() == [0, 1, 2]  # best anywhere, slow and fast without the first
    moved = asng_pairs.unsteady(picks, {m: joined([r]) for m, r in records.items()}, [0.05], 300)
    found = {name: x.tolist() for name, x in asng_pairs.eased(moved).items()}
    assert found["SNG, εₓ = 0.05"] == pytest.approx([math.log(3 / 2)] * 2)
    assert found["Adam, εₓ = 0.05"] == pytest.approx([math.log(1.5 / 2)] * 2)


def test_starts_are_chosen_by_what_is_compared():
    "A start with the best median may have the worse mean logarithm, and the comparison is one of means."
    steady, slips = [50, 50, 50, 50], [40, 40, 40, 900]
    records = {m: dict(result=dict(updates=[[steady, slips]])) for m in METHODS}
    table = asng_figures.table4(records, (0.0, 0.5), [1.0, 0.5], [0.05])
    table = asng_pairs.with_ln(table, records, 1000)
    assert table["ln"].tolist()[:2] == pytest.approx([math.log(50), np.log(slips).mean()])
    assert (asng_pairs.chosen(table)["fast"] == 1).all()
    assert (asng_pairs.chosen(table, by="ln")["fast"] == 0).all()


def test_what_line_8_holds_until_success_is_weighed_by_updates():
    log = dict(update=[1, 10, 100], snr=[[1.0], [2.0], [9.0]], gamma=[[1.0], [1.0], [3.0]])
    assert asng_pairs.until_success(log, [10]) == pytest.approx([(1 + 9 * 2) / 10])
    assert asng_pairs.until_success(log, [0]) == pytest.approx([(1 + 9 * 2 + 90 * 3) / 100])


def test_the_best_theta_of_a_grid_lies_in_a_corner():
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert asng_equations.best_on_grid(torch.tensor(rng.random((3, 3))), 6) == (pytest.approx(0.0), True)
    assert asng_equations.best_on_grid(torch.zeros(3, 3, dtype=torch.float64), 2) == (0.0, False)
    assert len(asng_equations.simplex(5, 4)) == 70


def test_a_paired_interval_sees_what_an_unpaired_one_cannot():
    rng = np.random.default_rng(0)
    luck = rng.lognormal(5, 1.5, 200)
    few, many = luck, 0.9 * luck * rng.lognormal(0, 0.05, 200)
    runs = {("mean", n): dict(updates=u[None, None], delta=u[None, None]) for n, u in ((2, few), (32, many))}
    row = asng_pairs.pairs_table(runs, [0.05], 10**6).iloc[0]
    assert row["high"] < 0.93 and row["low"] > 0.87
    assert asng_pairs.by_panel(runs, "evaluations", ["mean"], 32, [0.05], 10**6, -1)[
        "mean, εₓ = 0.05"
    ].mean() == pytest.approx(-np.log(0.9 * 34 / 4), abs=0.02)


def test_trials_in_parts_are_those_of_one_run():
    grid = dict(delta0=[0.5, 0.02], eps_x=[0.05], max_updates=900, **PROBLEM)
    whole = hitting_times("ASNG", seeds=7, seed=3, **grid)
    pieces = [dict(result=hitting_times("ASNG", seeds=n, seed=s, **grid)) for s, n in parts(3, 7, 3)]
    assert joined(pieces)["updates"].tolist() == whole["updates"]


def test_the_divergence_of_a_short_step_is_half_its_squared_length():
    for delta in (1e-3, 1e-2, 1e-1):
        trials = Trials("ASNG", range(20), delta, 0.05, D=30, K=5, horizon=1000)
        before = trials.opt.theta_.clone()
        trials.update()
        ratio = divergence(before, trials.opt.theta_) / (delta**2 / 2)
        assert (ratio - 1).abs().max() < 0.2 * delta**0.5 + 0.02, (delta, ratio)


def test_on_coin_flips_nothing_is_learned_and_the_step_shrinks():
    told = Coins("ASNG", range(200), 0.5, 0.05, **PROBLEM)
    for _ in range(300):
        told.update()
    right = (told.opt.theta_.argmax(0) == 0).float().mean().item()
    assert 0.18 < right < 0.32 and told.opt.delta.median() < 0.25
    both = [
        np.mean(watched([0.5], [0.05], seeds=30, updates=600, coins=coins, **PROBLEM)["ratio"])
        for coins in (False, True)
    ]
    assert both[0] == pytest.approx(1, abs=0.1) and both[1] == pytest.approx(2 / 3, abs=0.1)


def test_numbers_are_searched_among_categories_and_coin_flips_find_nothing():
    small = dict(seeds=20, updates=3000, D=4, K=3, numbers=2)
    told, flips = (mixed(**small, coins=coins) for coins in (False, True))
    found, blind = asng_pairs.mixed_found(told), asng_pairs.mixed_found(flips)
    assert found["wrong"] > blind["wrong"] + 50 and found["whole"] > blind["whole"] + 30, (found, blind)
    assert np.mean(told["off"]) < np.mean(flips["off"]) / 2 and blind["both"] < 10


def test_a_number_costs_its_distance_from_what_its_category_asks_for():
    trials = Mixed([0], 1.0, 0.05, D=4, K=3, horizon=10, numbers=2)
    at = [[[4, 8, 0.2, 0.5]] * 2]
    c = make_samples(trials.opt.space, [[[0, 1, 0, 1]] * 2], at)
    assert trials._off(c)[:, 0].tolist() == pytest.approx([0.01] * 2)  # the last: 0.5 where 0.4 is asked for


@pytest.mark.parametrize("lam", [2, 3, 5])
def test_the_mean_takes_its_share_of_the_gradient(lam):
    "By drawing, not by enumeration, and without a factor for the other samples' mean."
    rng, losses = np.random.default_rng(lam), np.array([0.3, 1.0, 2.5])
    c = rng.choice(3, size=(200_000, lam), p=[0.2, 0.5, 0.3])
    onehot, f = np.eye(3)[c] - [0.2, 0.5, 0.3], losses[c]
    direction = lambda u: (u[..., None] * onehot).mean((0, 1))
    factor = direction(f.mean(1, keepdims=True) - f) / direction(-f)
    np.testing.assert_allclose(
        factor, asng_equations.mean_factor(losses.tolist(), [0.2, 0.5, 0.3], lam), atol=0.03
    )
    np.testing.assert_allclose(factor, 1 - 1 / lam, atol=0.03)


def test_the_natural_gradient_of_other_parameters_is_not_the_statistic():
    for case in (asng_equations.categorical_case([0.6, 0.3, 0.1]), asng_equations.normal_case(-3.0, 0.5)):
        assert max(asng_equations.off_natural(*case)) < 1e-9
    log_p, theta, T, weights = asng_equations.categorical_case([0.6, 0.3, 0.1])
    assert max(asng_equations.off_natural(2 * log_p, theta, T, weights)) > 0.1


def test_no_theta_goes_beyond_the_bound_that_is_said():
    bound = asng_equations.within_reach(6, 4)
    trials = Trials("ASNG", range(50), 0.5, 0.05, **PROBLEM)
    for _ in range(500):
        trials.update()
    assert bound["top"] - 0.01 < trials.opt.theta_.max().item() <= bound["top"] + 1e-6
    assert bound["gap"] == pytest.approx(6 * (1 + 2 + 3) / 4 / (6 * 3)) and bound["chance"] < 0.4


@pytest.mark.gpu
def test_the_gpu_computes_what_the_cpu_computes():
    runs = []
    for device in ("cpu", "cuda"):
        trials = Trials("ASNG", range(500), 0.1, 0.05, device=device, **PROBLEM)
        for _ in range(10):
            trials.update()
        runs.append((trials.x.cpu(), trials.opt.theta_.cpu(), trials.opt.delta.cpu()))
    for a, b in zip(*runs):
        same = (
            torch.isclose(a, b, rtol=1e-4, atol=1e-5).flatten(0, -2).all(0)
            if a.ndim > 1
            else torch.isclose(a, b, rtol=1e-4)
        )
        assert (
            same.float().mean() > 0.97
        )  # a last bit may turn a comparison, and then that trial goes its own way


def test_the_readme_says_what_the_records_say():
    folder = root() / "figures" / "paper" / "51_asng_nas"
    records = [json.loads(p.read_text()) for p in sorted((folder / "records").glob("figure4-*.json"))]
    assert {r["config"]["method"] for r in records} == set(METHODS)
    rates = pd.read_csv(folder / "figure4.csv").groupby("method")["success_rate"]
    none = rates.agg(lambda r: (r == 0).sum())
    assert rates.min()["ASNG"] == 1
    readme = (root() / "README.md").read_text(encoding="utf-8")
    cited = {"everywhere.lost": none["ASNG"], "tuning.sng": none["SNG"], "tuning.adam": none["Adam"]}
    for key, value in cited.items():  # the others are compared with claims.csv by tools/cite.py
        assert f"<!-- 51:{key} -->{value}<!-- / -->" in readme, key


@pytest.mark.parametrize("max_updates, ends", [(2000, "early"), (100, "at its last update")])
def test_the_progress_bar_is_full_at_the_end(monkeypatch, max_updates, ends):
    "What ends before its total is shown in red: a search that has found everything has not failed."
    seen = []

    class Bar(tqdm):
        def close(self):
            seen.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(asng_runs, "progress", lambda **settings: Bar(**settings, file=io.StringIO()))
    hitting_times("ASNG", [1.0], [0.05], seeds=3, max_updates=max_updates, **PROBLEM)
    n, total = seen[0]
    assert n == total and (n < max_updates) == (ends == "early")
