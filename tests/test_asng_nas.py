"""The artificial function, the trials on it, what is computed from them, and the slider of the notebook."""

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

from nas_nb.asng import Space, make_samples
from nas_nb.core import root
from nas_nb.explore import explore
from nas_nb.papers import asng_nas
from nas_nb.papers.asng_nas import METHODS, Trials, cost, expected, hitting_times, predicted_median, score, trace

PROBLEM = dict(D=6, K=4, horizon=2000)
def test_selective_squared_error():
    "The public code's values and gradient (case asng_selective_squared_error)."
    x = torch.tensor([[0.5, -0.2, 0.1], [-1.0, 0.3, 0.8]], dtype=torch.float64).T[..., None].requires_grad_()
    z = torch.tensor([0.15, -0.3], dtype=torch.float64)[:, None]
    c = make_samples(Space([3, 3]), [[0, 2], [1, 0]], dtype=torch.float64).onehot
    loss = expected(c, (x - z) ** 2 + cost(3, x))[:, 0]
    value = expected(c, x**2 + cost(3, x))[:, 0]
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
        expected(drawn[-2].onehot, (x - z) ** 2 + trials.cost).mean().backward()
        sgd.step()
        cosine.step()
        torch.testing.assert_close(trials.x, x.data)


@pytest.mark.parametrize("method", METHODS)
def test_a_trial_is_the_same_alone_in_a_crowd_and_after_others_have_left(method):
    grid = dict(delta0=[0.5, 0.02], eps_x=[0.05, 0.005], max_updates=900, **PROBLEM)
    crowd = np.array(hitting_times(method, seeds=40, **grid)["updates"])
    assert len(np.unique(crowd[crowd > 0] // asng_nas.EVERY)) > 2  # trials left at different times
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
    assert np.shape(log["delta"]) == (len(log["update"]), 3)
    titles = []

    def draw(axes, i):
        asng_nas.draw_trace(axes, i, log, delta0)
        titles.append(axes[0].get_title(loc="left") or axes[0].get_title())

    view = explore(draw, range(3), "δ⁰", sheet=[0, 2], rows=3, format=lambda i: f"{delta0[i]:.3g}", live=True)
    for i in (1, 2, 0):
        view.slider.value = i
        assert titles[-1] == f"δ⁰ = {delta0[i]:.2g}"
    assert [label for label, _ in view.slider.options] == ["1", "0.1", "0.01"]
    plt.close("all")


def test_ten_thousand_trials_fit_in_two_gigabytes():
    code = (
        "import resource, torch\n"
        "from nas_nb.papers.asng_nas import Trials\n"
        "with torch.inference_mode():\n"
        "    t = Trials('ASNG', range(10_000), 0.1, 0.05, D=30, K=5, horizon=100_000)\n"
        "    for _ in range(5): t.update()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peak = int(subprocess.check_output([sys.executable, "-c", code], text=True)) * (1 if sys.platform == "darwin" else 1024)
    print(f"{peak / 2**20:.0f} MiB with torch and everything")
    assert peak < 2 * 2**30


@pytest.mark.gpu
def test_the_gpu_computes_what_the_cpu_computes():
    runs = []
    for device in ("cpu", "cuda"):
        trials = Trials("ASNG", range(500), 0.1, 0.05, device=device, **PROBLEM)
        for _ in range(10):
            trials.update()
        runs.append((trials.x.cpu(), trials.opt.theta_.cpu(), trials.opt.delta.cpu()))
    for a, b in zip(*runs):
        same = torch.isclose(a, b, rtol=1e-4, atol=1e-5).flatten(0, -2).all(0) if a.ndim > 1 else torch.isclose(a, b, rtol=1e-4)
        assert same.float().mean() > 0.97  # a last bit may turn a comparison, and then that trial goes its own way


def test_the_readme_says_what_the_records_say():
    folder = root() / "figures" / "paper" / "51_asng_nas"
    records = [json.loads(p.read_text()) for p in sorted((folder / "records").glob("figure4-*.json"))]
    assert {r["config"]["method"] for r in records} == set(METHODS)
    rates = pd.read_csv(folder / "figure4.csv").groupby("method")["success_rate"]
    public = pd.read_csv(folder / "public-code.csv")["agrees"]
    none = rates.agg(lambda r: (r == 0).sum())
    assert rates.min()["ASNG"] == 1
    for sentence in (
        f"Computed in {sum(r['run']['seconds'] for r in records) / 60:.1f} minutes on one thread",
        f"SNG has {none['SNG']} settings without a single success, Adam {none['Adam']}",
        f"Of {len(public)} results of the public implementation, {public.sum()} lie where ours predict them",
        f"torch {records[0]['made_by']['torch'].split('+')[0]}",
    ):
        assert sentence in (root() / "README.md").read_text(encoding="utf-8"), sentence
