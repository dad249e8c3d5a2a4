"""ASNG, SNG and Adam against numbers that the public implementation gave (asng_cases.json), and properties
that must hold for any input."""

import contextlib
import inspect
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from nas_nb import asng, streams
from nas_nb.asng import (
    ASNG,
    SNG,
    Adam,
    Space,
    fisher_categorical,
    fisher_gaussian,
    make_samples,
    mean_utility,
    rank_utility,
)
from nas_nb.streams import check_seeds, pairwise_sum, uniform

CASES = json.loads((Path(__file__).parent / "asng_cases.json").read_text())
F64 = dict(dtype=torch.float64)
THREE = CASES["asng_cat_three_steps_delta0.05"]["input"]
SIZES = THREE["K"]


def tensor(x):
    return torch.tensor(x, **F64)


def theta_rows(opt):
    "θ of a single search as a list of rows without padding."
    return [opt.theta_[opt.space.K - k :, d, 0].tolist() for d, k in enumerate(opt.space.categories)]


def s_row(opt):
    "s in the order of the public code: variable by variable, then first moments, then second moments."
    sp = opt.space
    cat = opt.s[: (sp.K - 1) * sp.D, 0].reshape(sp.K - 1, sp.D)
    rows = [cat[sp.K - k :, d].tolist() for d, k in enumerate(sp.categories)]
    return sum(rows, []) + opt.s[(sp.K - 1) * sp.D :, 0].tolist()


def close(got, want, rtol=1e-9):
    if isinstance(want, list) and isinstance(want[0], list):
        assert len(got) == len(want)
        for g, w in zip(got, want):
            close(g, w, rtol)
    else:
        torch.testing.assert_close(tensor(got), tensor(want), rtol=rtol, atol=1e-12)


def tell(opt, step):
    opt.tell(make_samples(opt.space, step.get("cat"), step.get("number"), **F64), tensor(step["losses"]))


def check_state(opt, want, rtol=1e-9):  # the public toy code adds 1e-9 to the norm, ours nothing
    close(theta_rows(opt), want["theta"] if "theta" in want else want["theta_cat"], rtol)
    close(s_row(opt), want["s"], rtol)
    close([opt.gamma.item(), opt.Delta.item()], [want["gamma"], want["Delta"]], rtol)
    if "mean" in want:
        close(opt.mean[:, 0].tolist(), want["mean"], rtol)
        close(opt.params[2][:, 0].tolist(), want["second_moment"], rtol)


@pytest.mark.parametrize(
    "name, rtol", [("asng_cat_three_steps_delta0.05", 1e-9), ("asng_cat_classification_variant", 1e-13)]
)  # the second adds nothing to the norm
def test_three_steps(name, rtol):
    opt = ASNG(Space(SIZES), delta0=0.05, **F64)
    for step, want in zip(THREE["steps"], CASES[name]["expected"], strict=True):
        tell(opt, dict(cat=step["samples"], losses=step["losses"]))
        check_state(opt, want, rtol)


@pytest.mark.parametrize(
    "name, floor", [("asng_cat_single_step", None), ("asng_cat_single_step_norestrict", 0.0)]
)
def test_single_step(name, floor):
    case = CASES[name]
    step = case["input"]
    opt = ASNG(Space(step["K"], floor=floor), delta0=step["delta_init"], **F64)
    tell(opt, dict(cat=step["samples"], losses=step["losses"]))
    check_state(opt, case["expected"])
    close([opt.s_norm2.item()], [case["expected"]["s_norm2"]])


def test_a_variable_without_choice():
    """As recorded, but for the last variable: two choices with a published floor of 1/2 cannot move there,
    and do here."""
    want = dict(CASES["asng_cat_K1_dim"]["expected"])
    opt = ASNG(Space([1, 3, 2]), delta0=0.1, **F64)
    tell(opt, dict(cat=[[0, 0, 1], [0, 2, 0]], losses=[0, 1]))
    free = 0.1 * 0.5 / (0.25 * (3 + 3 + 2 + 2)) ** 0.5
    want["theta"] = [*want["theta"][:2], [0.5 - free, 0.5 + free]]
    check_state(opt, want)


def test_sng_three_steps():
    opt = SNG(Space(SIZES), delta0=0.05, **F64)
    for step, want in zip(THREE["steps"], CASES["sng_three_steps"]["expected_theta"], strict=True):
        tell(opt, dict(cat=step["samples"], losses=step["losses"]))
        close(theta_rows(opt), want)  # the public SNG adds 1e-8 to the norm; ours adds nothing


def test_adam_three_steps():
    "No numbers were recorded for Adam; torch's own Adam, fed with G/‖G‖ by hand, is the reference here."
    sp = Space(SIZES, floor=0.0)
    opt = Adam(sp, delta0=0.01, **F64)
    theta = [torch.full((k,), 1 / k, **F64, requires_grad=True) for k in SIZES]
    torch_adam = torch.optim.Adam(theta, lr=0.01)
    for step in THREE["steps"]:
        (a, b), (fa, fb) = step["samples"], step["losses"]
        sign = 1 if fa < fb else -1
        g = []
        for k, i, j in zip(SIZES, a, b):
            g.append(torch.zeros(k, **F64))
            g[-1][i] += sign / 2
            g[-1][j] -= sign / 2
        norm = math.sqrt(sum(float((x * x / t.detach()).sum()) for x, t in zip(g, theta)))
        for x, t in zip(g, theta):
            t.grad = -x / norm
        torch_adam.step()
        with torch.no_grad():
            for t in theta:
                t /= t.sum()
        tell(opt, dict(cat=step["samples"], losses=step["losses"]))
        close(theta_rows(opt), [t.tolist() for t in theta], rtol=1e-9)


def test_gaussian_three_steps():
    case = CASES["asng_gaussian_three_steps"]
    opt = ASNG(Space([1], integers=case["input"]["ranges"]), delta0=case["input"]["delta_init"], **F64)
    close(
        opt.mean[:, 0].tolist() + opt.params[2][:, 0].tolist(),
        case["init"]["mean"] + case["init"]["second_moment"],
    )
    for step, want in zip(case["input"]["steps"], case["expected"], strict=True):
        tell(opt, dict(cat=[[0], [0]], number=step["samples"], losses=step["losses"]))
        check_state(opt, want, 5e-9)


def test_mixed_first_step():
    """Only the first step of this case has a meaning (θ became NaN in the public code), and there the floor
    of the K = 2 variable is the fault."""
    case = CASES["asng_mixed_pathology_K2_dvalid2"]
    step, want = case["input"]["steps"][0], dict(case["expected"][0])
    cat = case["input"]["cat_samples"][0]
    opt = ASNG(
        Space(case["input"]["K"], integers=case["input"]["ranges"]), delta0=case["input"]["delta_init"], **F64
    )
    tell(opt, dict(cat=cat, number=step["samples"], losses=step["losses"]))
    want["theta_cat"] = [
        [0.5 + want["eps_used"] / 2, 0.5 - want["eps_used"] / 2],
        want["theta_cat"][1],
    ]  # the free step, not the floor
    check_state(opt, want)
    for step, cat in zip(case["input"]["steps"][1:], case["input"]["cat_samples"][1:], strict=True):
        tell(opt, dict(cat=cat, number=step["samples"], losses=step["losses"]))
    assert all(x.isfinite().all() for x in opt.params) and opt.Delta.isfinite()


def test_utilities():
    for name, case in CASES["asng_utility"]["cases"].items():
        want = [0.0, 0.0] if name in ("neg_tie", "zero_tie") else case["utility_per_sample"]
        close(rank_utility(tensor(case["losses"])[:, None])[:, 0].tolist(), want)


def test_fisher_cases():
    case = CASES["fisher_sqrt_categorical"]
    v, q2 = fisher_categorical(tensor(case["input"]["theta"]), tensor(case["input"]["g"]))
    close(v.tolist() + [q2.sum().item()], case["expected"]["v"] + [case["expected"]["gFg"]])
    i = CASES["fisher_gaussian"]["input"]
    v = fisher_gaussian(*tensor([i["m"], i["sigma"] ** 2, i["g"][0], i["g"][1] - 2 * i["m"] * i["g"][0]]))
    close([float(v[0] ** 2 + v[1] ** 2)], [CASES["fisher_gaussian"]["expected"]["gFg"]])


def test_sampling_convention(monkeypatch):
    case = CASES["asng_sampling_convention"]
    opt = SNG(Space([3, 2, 4]), **F64)
    for d, row in enumerate(case["input"]["theta"]):
        opt.theta_[4 - len(row) :, d, 0] = tensor(row)
    u = tensor(case["input"]["u"] * 2)[:, None]
    monkeypatch.setattr("nas_nb.asng.uniform", lambda *a: u[None])
    assert opt.ask().cat.tolist() == [case["expected_indices"]] * 2


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    seed=st.integers(0, 2**31 - 1),
    cls=st.sampled_from([ASNG, SNG, Adam]),
    delta0=st.floats(1e-3, 1.5),
    lam=st.integers(2, 7),
    utility=st.sampled_from(["rank", "mean"]),
)
def test_theta_stays_in_its_simplex(sizes, seed, cls, delta0, lam, utility):
    if max(sizes) == 1:
        sizes = sizes + [2]
    opt = cls(Space(sizes), seed, delta0, utility, **F64)
    for t in range(12):
        opt.tell(
            opt.ask(lam), uniform(check_seeds(seed), range(t, t + 1), lam, 9, torch.float64)[0, :, 0] - 0.5
        )
        for row, floor in zip(theta_rows(opt), opt.space.floor):
            assert abs(sum(row) - 1) < 1e-12 and min(row) >= floor - 1e-12
        assert opt.delta.isfinite().all() and (opt.delta > 0).all()


@pytest.mark.parametrize("sizes", [[3], [2], [2, 2], [2, 3], [1, 4]])
def test_spaces_where_the_published_floor_is_infeasible_still_converge(sizes):
    best = torch.tensor([k - 1 for k in sizes])
    opt = ASNG(Space(sizes), range(20), **F64)
    for _ in range(300):
        c = opt.ask()
        opt.tell(c, (c.cat != best).sum(-1).double())
    for d, k in enumerate(sizes):
        if k > 1:
            assert (opt.theta_[-1, d] > 1 - 1.5 * (k - 1) * opt.space.floor[d]).all()


@pytest.mark.parametrize("cls", [ASNG, SNG, Adam])
@pytest.mark.parametrize("utility", ["rank", "mean"])
def test_ties_change_nothing_and_shifts_and_order_do_not_matter(cls, utility):
    runs = []
    for change in (
        lambda c, f: (c, f),
        lambda c, f: (c, f + 100),
        lambda c, f: (c[:, [1, 0, 2]], f[:, [1, 0, 2]]),
    ):
        opt = cls(Space([3, 4, 2]), range(5), 0.1, utility, **F64)
        for _ in range(10):
            c = opt.ask(3)
            cat, losses = change(c.cat, (c.cat * torch.tensor([1.0, -2.0, 0.5], **F64)).sum(-1))
            opt.tell(make_samples(opt.space, cat, **F64), losses)
        runs.append(opt.theta_.clone())
        before = [x for x in opt.state().values() if torch.is_tensor(x)]
        for tie in (0.0, -3.0, 5.0):
            opt.tell(opt.ask(3), torch.full((5, 3), tie, **F64))
            opt.tell(
                make_samples(opt.space, torch.ones(5, 3, 3, dtype=torch.long), **F64), torch.rand(5, 3, **F64)
            )
        after = [x for x in opt.state().values() if torch.is_tensor(x)]
        for x, y in zip(before, after, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(runs[1], runs[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(runs[2], runs[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("lam", range(2, 41))
def test_all_equal_losses_change_nothing_for_any_number_of_samples(lam):
    opt = ASNG(Space([3, 4, 2]), range(5), 0.1, **F64)
    before = opt.state()
    opt.tell(opt.ask(lam), torch.full((5, lam), 0.7))
    for name in ("Delta", "gamma", "s", "delta"):
        assert torch.equal(before[name], getattr(opt, name))


def test_swapping_the_losses_reverses_the_step_from_the_uniform_theta():
    sp, c, theta = Space([4] * 6, floor=0.0), [[0, 1, 2, 3, 0, 1], [1, 1, 3, 0, 2, 2]], []
    for losses in ([0, 1], [1, 0]):
        opt = SNG(sp, delta0=0.05, **F64)
        tell(opt, dict(cat=c, losses=losses))
        theta.append(opt.theta_ - 1 / 4)
    torch.testing.assert_close(theta[0], -theta[1])
    assert theta[0].abs().max() > 0.005


def test_utilities_differ_only_above_two_samples():
    f = torch.rand(2, 50, **F64)
    ratio = mean_utility(f) / rank_utility(f)
    torch.testing.assert_close(ratio[0], ratio[1])
    f = torch.rand(8, 50, **F64)
    assert not torch.allclose(
        torch.nn.functional.normalize(mean_utility(f), dim=0),
        torch.nn.functional.normalize(rank_utility(f), dim=0),
    )


@pytest.mark.parametrize("cls", [ASNG, SNG, Adam])
def test_a_trial_is_the_same_alone_and_in_a_crowd(cls):
    "Bit for bit, with numbers and categories of unequal sizes."
    sp, target = Space([3, 5, 2], integers=[(1, 9)], reals=[(-1.0, 1.0)]), torch.tensor([2, 0, 1])

    def run(seeds):
        opt = cls(sp, seeds, 0.3)
        for _ in range(60):
            c = opt.ask(4)
            opt.tell(c, (c.cat != target).sum(-1) + (c.values - torch.tensor([7.0, 0.25])).abs().sum(-1))
        return torch.cat([x.flatten(0, -2) for x in (*opt.params, opt.delta[None])])

    crowd = run(range(300))
    for seed in (0, 17, 299):
        assert torch.equal(run([seed])[:, 0], crowd[:, seed])
    torch.set_num_threads(2)
    assert torch.equal(run(range(300)), crowd)
    torch.set_num_threads(1)
    assert torch.equal(run(range(300)), crowd)


def test_integers_and_reals_are_found():
    opt = ASNG(Space(integers=[(1, 64)], reals=[(0.0, 1.0)]), range(30), **F64)
    for _ in range(2000):
        c = opt.ask(4)
        opt.tell(c, ((c.values - tensor([20.0, 0.3])) / tensor([64.0, 1.0])).square().sum(-1))
    assert (opt.mean[0] - 20).abs().max() < 1.5 and (opt.mean[1] - 0.3).abs().max() < 0.05


@pytest.mark.parametrize("cls", [ASNG, SNG, Adam])
@pytest.mark.parametrize("low, high", [(1, 4096), (1900, 2025), (-3, 3), (10**6, 10**6 + 50)])
def test_numbers_far_from_zero_stay_numbers_in_single_precision(cls, low, high):
    width = 1.0 if high < 10**6 else 1000.0  # fractions beside a million do not fit float32 and are refused
    opt = cls(Space(integers=[(low, high)], reals=[(float(low), low + width)]), range(20), 0.3)
    for _ in range(800):
        c = opt.ask(4)
        opt.tell(c, ((c.values - low) / torch.tensor([high - low, width]) - 0.3).abs().sum(-1))
    for x in (opt.mean, opt.var, opt.delta):
        assert x.isfinite().all()
    if cls is ASNG:
        assert ((opt.mean[0] - low) / (high - low) - 0.3).abs().median() < 0.1


def test_where_the_mean_is_clipped_the_second_moment_stays():
    """As the public code does it: a mean pushed over the border leaves a wide distribution behind, not the
    narrowest."""
    opt = SNG(Space(integers=[(1, 3)]), delta0=1.5, **F64)
    tell(opt, dict(number=[[4.0], [1.0]], losses=[0.0, 1.0]))
    free = SNG(Space(integers=[(-(10**6), 10**6)]), delta0=1.5, **F64)
    free.mean[:], free.var[:] = 2.0, 1.0
    tell(free, dict(number=[[4.0], [1.0]], losses=[0.0, 1.0]))
    second = free.params[2][0, 0].item()
    assert free.mean[0, 0] > 3 and opt.mean[0, 0] == 3
    assert opt.var[0, 0].item() == pytest.approx(min(max(second - 9, 1 / 16), 1.0))


def test_a_saved_state_is_a_copy():
    opt = ASNG(Space([3, 4]), range(4), **F64)

    def go(n):
        for _ in range(n):
            c = opt.ask()
            opt.tell(c, c.cat.sum(-1))
        return opt.theta

    log = [go(3), go(3)]
    assert not torch.equal(*log)
    saved = opt.state()
    first = go(5)
    opt.load(saved)
    opt.load(saved)
    assert torch.equal(go(5), first)


def test_losses_that_need_a_gradient_do_not_grow_a_graph():
    opt = ASNG(Space([3, 4]), range(4), utility="mean")
    weight = torch.ones((), requires_grad=True)
    opt.tell(opt.ask(), weight * torch.rand(4, 2))
    assert not opt.theta_.requires_grad


def test_numbers_given_as_a_list_keep_their_precision():
    x = 0.1234567890123456
    assert make_samples(Space(reals=[(0, 1)]), None, [[x], [0.5]], **F64).number[0, 0, 0].item() == x
    assert (
        make_samples(Space(reals=[(0, 1)]), None, np.array([[x], [0.5]]), **F64).number[0, 0, 0].item() == x
    )


def test_sizes_may_be_numpy_integers():
    assert Space(np.array([3, 4]), integers=np.array([[1, 5]])).n_theta == 7


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Space([]), "nothing to search"),
        (lambda: Space([0]), "at least 1 choice"),
        (lambda: Space([2.5]), "whole numbers"),
        (lambda: Space([3], integers=[(3, 3)]), "lowest < highest"),
        (lambda: Space([3], floor=0.5), "floor"),
        (lambda: ASNG(Space([3]), seeds=-1), "at least 0"),
        (lambda: ASNG(Space([3]), seeds=[]), "non-empty"),
        (lambda: ASNG(Space([3]), seeds=1.5), "integer"),
        (lambda: ASNG(Space([3]), delta0=0), "positive"),
        (lambda: ASNG(Space([3]), alpha=0), "alpha must be"),
        (lambda: ASNG(Space([3]), utility="best"), "rank, mean"),
        (lambda: SNG(Space([3])).ask(1), "at least two"),
        (lambda: make_samples(Space([3]), [[3], [0]]), "out of range"),
        (lambda: (o := SNG(Space([3]), range(4))).tell(o.ask(), torch.zeros(2)), "shape"),
        (lambda: (o := SNG(Space([3]))).tell(o.ask(), torch.zeros(3)), "shape"),
        (
            lambda: SNG(Space([3]), range(5)).tell(SNG(Space([3]), [0]).ask(), torch.zeros(5, 2)),
            "another space or batch",
        ),
        (lambda: SNG(Space([3])).tell(SNG(Space([4])).ask(), torch.zeros(2)), "another space or batch"),
        (lambda: Space(7), "whole numbers"),
        (lambda: Space(integers=[5]), "lowest < highest"),
        (lambda: Space(integers=[(0.6, 2.4)]), "whole numbers"),
        (lambda: Space(reals=[(0, math.inf)]), "finite"),
        (lambda: ASNG(Space([3]), delta0=math.inf), "finite"),
        (lambda: ASNG(Space([3]), range(3), delta0=[0.1, 0.2]), "one for each of 3"),
        (lambda: ASNG(Space([3]), seeds=None), "integer"),
        (lambda: ASNG(Space([3]), seeds="a"), "integer"),
        (lambda: Adam(Space([3]), betas=(2, 3)), "betas"),
        (lambda: make_samples(Space([3])), "fit the space"),
        (lambda: Space([True, 3]), "whole numbers"),
        (lambda: Space([torch.tensor(True), 3]), "whole numbers"),
        (lambda: Space({2, 3}), "whole numbers"),
        (lambda: Space("34"), "whole numbers"),
        (lambda: Space([math.nan]), "whole numbers"),
        (lambda: Space([2**21]), "at most 1,048,576"),
        (lambda: Space(integers=5), "list of"),
        (lambda: Space(integers=[(False, True)]), "lowest < highest"),
        (lambda: Space(integers=[{1, 5}]), "lowest < highest"),
        (lambda: Space(integers=[("a", "b")]), "lowest < highest"),
        (lambda: Space(integers=[(1, 10**400)]), "lowest < highest"),
        (lambda: Space(reals=[(math.nan, 1)]), "finite"),
        (lambda: Space(reals=[{"low": 0, "high": 1}]), "lowest < highest"),
        (lambda: Space(reals=[(0, 1, 2)]), "lowest < highest"),
        (lambda: Space(integers=[(1, 3)], floor=2), "floor"),
        (lambda: Space([3], floor="0"), "floor"),
        (lambda: Space([3], floor=math.nan), "floor"),
        (lambda: SNG(Space(reals=[(1e9, 1e9 + 1)])), "shift or scale"),
        (lambda: SNG(Space(integers=[(2**24, 2**24 + 100)])), "shift or scale"),
        (lambda: SNG(Space(reals=[(0, 1e-30)])), "shift or scale"),
        (lambda: SNG(Space(reals=[(-1e30, 1e30)])), "shift or scale"),
        (lambda: SNG(Space(reals=[(-1e308, 1e308)]), **F64), "shift or scale"),
        (lambda: SNG(Space(integers=[(2**60, 2**60 + 100)]), **F64), "shift or scale"),
        (lambda: SNG(Space([3]), dtype=torch.float16), "float32 or torch.float64"),
        (lambda: SNG(Space([3]), dtype=torch.int64), "float32 or torch.float64"),
        (lambda: SNG([3]), "must be a Space"),
        (lambda: SNG(Space([3]), device="gpu"), "unknown device"),
        (lambda: SNG(Space([3]), utility=["rank"]), "rank, mean"),
        (lambda: SNG(Space([3]), delta0="1"), "positive"),
        (lambda: SNG(Space([3]), delta0=[[1.0]]), "one number"),
        (lambda: SNG(Space([3]), delta0=10**400), "one number"),
        (lambda: SNG(Space([3]), delta0=np.array(1 + 0j)), "one number"),
        (lambda: SNG(Space([3])).ask(10**30), "at least two"),
        (lambda: Space(reals=torch.tensor(1)), "list of"),
        (lambda: ASNG(Space([3]), alpha=0.9), "alpha must be"),
        (lambda: ASNG(Space([3]), alpha=math.nan), "alpha must be"),
        (lambda: Adam(Space([3]), betas=(0.9,)), "betas"),
        (lambda: Adam(Space([3]), betas=0.9), "betas"),
        (lambda: Adam(Space([3]), eps=math.inf), "eps"),
        (lambda: SNG(Space([3])).ask(2.0), "at least two"),
        (lambda: SNG(Space([3])).ask("2"), "at least two"),
        (lambda: (o := SNG(Space([3]))).tell(o.ask(), 3.0), "shape"),
        (lambda: (o := SNG(Space([3]))).tell(o.ask(), ["a", "b"]), "real numbers"),
        (lambda: (o := SNG(Space([3]))).tell(o.ask(), torch.ones(2, dtype=torch.complex64)), "real numbers"),
        (lambda: (o := SNG(Space([3]))).tell(o.ask().cat, [0, 1]), "ask or make_samples"),
        (lambda: (o := SNG(Space([3]))).tell(o.best(), [0]), "at least two"),
        (lambda: SNG(Space([2, 4])).tell(SNG(Space([4, 2])).ask(), [0, 1]), "another space"),
        (
            lambda: SNG(Space([3]), **F64).tell(make_samples(Space([3]), [[0], [1]]), [0, 1]),
            "make_samples takes both",
        ),
        (lambda: make_samples(Space([3]), [[0.7], [1.0]]), "whole numbers"),
        (lambda: make_samples(Space([3]), [[True], [False]]), "whole numbers"),
        (lambda: make_samples(Space([3]), [[0], [1, 2]]), "one length"),
        (lambda: make_samples(Space([3]), "ab"), "one length"),
        (lambda: make_samples(Space([3]), 1), "lam"),
        (lambda: make_samples(Space([3, 3]), [[0], [1]]), "lam, 2"),
        (lambda: make_samples(Space([3], reals=[(0, 1)]), [[0], [1]], [[0.5]]), "lam, 1"),
        (lambda: make_samples(Space(reals=[(0, 1)]), None, [[math.nan], [0.5]]), "finite"),
        (lambda: make_samples(Space(reals=[(0, 1)]), None, [[1e30], [0.5]]), "ten widths"),
        (lambda: make_samples([3], [[0], [1]]), "fit the space"),
        (lambda: SNG(Space([3]), range(4)).keep([4]), "indices from 0 to 3"),
        (lambda: SNG(Space([3]), range(4)).keep([-1]), "indices"),
        (lambda: SNG(Space([3]), range(4)).keep([True, False]), "4 truth values"),
        (lambda: SNG(Space([3]), range(4)).keep([0.5]), "indices"),
        (lambda: SNG(Space([3]), range(4)).keep("a"), "indices"),
        (lambda: SNG(Space([3])).keep([0, 0]), "single search"),
        (lambda: SNG(Space([3])).keep([False]), "single search"),
        (lambda: rank_utility([1.0, 2.0]), "floats"),
        (lambda: rank_utility(torch.zeros(0, 3)), "floats"),
        (lambda: rank_utility(torch.rand(4, 3), rho=0), "rho"),
        (lambda: mean_utility(torch.ones(3)), "floats"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_pairwise_sum_does_not_depend_on_the_batch():
    x = torch.randn(151, 300)
    assert torch.equal(pairwise_sum(x[:, :1]), pairwise_sum(x)[:1])
    torch.testing.assert_close(pairwise_sum(x), x.double().sum(0).float(), rtol=1e-5, atol=1e-5)


def test_theta_is_numbered_like_the_choices_and_has_its_zeros_behind():
    opt = ASNG(Space([2, 4, 1, 3]), range(50), **F64)
    for _ in range(30):
        c = opt.ask()
        opt.tell(c, c.cat.sum(-1))
    theta, best = opt.theta, opt.best().cat[:, 0]
    assert theta.shape == (50, 4, 4)
    assert torch.equal(theta.argmax(-1), best)
    for d, k in enumerate([2, 4, 1, 3]):
        assert (theta[:, d, k:] == 0).all() and (theta[:, d, :k] > 0).all()
        torch.testing.assert_close(theta[:, d].sum(-1), torch.ones(50, **F64))
        assert torch.equal(theta[:, d, :k], opt.theta_[4 - k :, d].T)
    draws = torch.stack([opt.ask(2).cat for _ in range(500)])  # what is drawn is what theta says
    for d, k in enumerate([2, 4, 1, 3]):
        share = torch.stack([(draws[..., d] == c).double().mean((0, 1, 2)) for c in range(k)])
        torch.testing.assert_close(share, theta[:, d, :k].mean(0), rtol=0, atol=0.02)
    assert torch.equal(ASNG(Space([2, 4])).theta, tensor([[0.5, 0.5, 0, 0], [0.25] * 4]).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_utilities_of_ranks_sum_to_zero_in_their_own_precision(dtype):
    torch.manual_seed(0)
    for lam in range(2, 41):
        u = rank_utility((2 * torch.randn(lam, 200)).round().to(dtype))
        assert u.dtype == dtype and u.sum(0).abs().max() <= 4 * torch.finfo(dtype).eps
    assert (
        rank_utility(
            torch.tensor([[0.0], [0.0], [0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]], dtype=dtype)
        )[0].item()
        == torch.tensor(1 / 3, dtype=dtype).item()
    )


def test_the_mean_utility_of_a_search_does_not_depend_on_the_others():
    f = torch.rand(32, 300)
    alone = torch.cat([mean_utility(f[:, i : i + 1].clone()) for i in range(300)], 1)
    assert torch.equal(mean_utility(f), alone)
    assert (mean_utility(torch.tensor([[1e38, math.inf, math.nan], [-3e38, 0, 0]])) == 0).all()


STATES = dict(space=Space([3, 2], reals=[(0.0, 1.0)]), seeds=range(4), delta0=0.2)


def altered(opt, key, change):
    state = opt.state()
    state[key] = change(state[key])
    return state


IMPOSSIBLE = dict(
    m=[lambda m: m + 1e30, lambda m: m - 2, lambda m: m - 0.1, lambda m: 20 * m],
    v=[lambda v: -v - 1, lambda v: v + 1e30, lambda v: v * 1e-6],
    updates=[lambda n: n + 1, lambda n: n - 0.5, lambda n: n - 9],
    gamma=[lambda g: g + 1, lambda g: -g],
    s=[lambda s: s + 10],
    Delta=[lambda d: d * 2],
)


@pytest.mark.parametrize("cls", [ASNG, SNG, Adam])
def test_a_state_of_another_search_or_an_altered_one_is_refused_and_changes_nothing(cls):
    opt = cls(**STATES)
    for _ in range(5):
        opt.tell(opt.ask(), torch.rand(4, 2))
    before = opt.state()
    others = [
        cls(Space([3, 4], reals=[(0.0, 1.0)]), range(4)),
        cls(Space([3, 2]), range(4)),
        cls(STATES["space"], range(5)),
        cls(**STATES, dtype=torch.float64),
    ]
    others += [other(**STATES) for other in (ASNG, SNG, Adam) if other is not cls]
    bad = [o.state() for o in others] + [{}, None, dict(t=3), before | dict(more=1)]
    bad += [altered(opt, key, lambda x: x * math.nan) for key in cls.STATE if key != "seeds"]
    bad += [
        altered(opt, "seeds", lambda x: -1 - x),
        altered(opt, "t", lambda t: -t),
        altered(opt, "t", lambda t: 2**70),
        altered(opt, "t", float),
        altered(opt, "delta", torch.zeros_like),
    ]
    bad += [
        altered(opt, "var", lambda x: -x),
        altered(opt, "theta_", lambda x: 1 - x),
        altered(opt, "theta_", lambda x: x * 2),
        altered(opt, "theta_", lambda x: x[:, :1].expand(x.shape)),
    ]
    bad += [altered(opt, "mean", lambda x: x + 2)]
    for key, changes in IMPOSSIBLE.items():
        bad += [altered(opt, key, change) for change in changes if key in cls.STATE]
    for state in bad:
        with pytest.raises(ValueError, match="the state of this"):
            opt.load(state)
    after = opt.state()
    assert after["t"] == before["t"] and all(torch.equal(after[k], before[k]) for k in cls.STATE)
    opt.load(before)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_accepted_leaves_theta_a_distribution(seed):
    "Adam's means altered at random, those that a step may leave among them."
    draw = torch.Generator().manual_seed(seed)
    space = Space([3, 2, 4], reals=[(0.0, 1.0)]) if seed % 2 else Space([3, 2, 4])
    opt = Adam(space, seeds=range(6), delta0=1.0)
    for _ in range(seed % 4):
        opt.tell(opt.ask(), torch.rand(6, 2, generator=draw))
    state = opt.state()
    size = 10.0 ** torch.randint(-12, 40, (), generator=draw)
    state["m"] = state["m"] - torch.rand(state["m"].shape, generator=draw) * size
    with contextlib.suppress(ValueError):
        opt.load(state)
    for _ in range(3):
        opt.tell(opt.ask(), torch.rand(6, 2, generator=draw))
        assert opt._is_theta(opt.theta_) and opt.mean.isfinite().all() and opt.var.isfinite().all()


def test_a_step_that_leaves_no_choice_is_not_taken():
    opt = Adam(Space([3, 2]), seeds=range(2))
    opt.tell(opt.ask(), torch.rand(2, 2))
    opt.m[:, 1], before = -1.0, opt.theta[1].clone()
    opt.tell(opt.ask(), torch.rand(2, 2))
    assert torch.equal(opt.theta[1], before) and opt._is_theta(opt.theta_)


def test_what_a_narrow_precision_cannot_hold_a_wide_one_finds():
    "Integers above 2²⁴ and a range of width 1 at 10⁹: refused in float32 (see below), found in float64."
    low = 2**24
    opt = ASNG(Space(integers=[(low, low + 100)], reals=[(1e9, 1e9 + 1)]), range(20), **F64)
    for _ in range(1500):
        c = opt.ask(4)
        opt.tell(c, ((c.values - tensor([low + 31, 1e9 + 0.3])) / tensor([100.0, 1.0])).square().sum(-1))
    found = opt.best().values[:, 0]
    assert ((found[:, 0] - low - 31).abs() <= 2).all() and ((found[:, 1] - 1e9 - 0.3).abs() < 0.1).all()


@pytest.mark.parametrize("reals", [(0.0, 1e-6), (0.0, 1e9), (-1e9, 1e9), (5e5, 5e5 + 100)])
@pytest.mark.parametrize("cls", [ASNG, SNG, Adam])
def test_ranges_of_any_size_that_fit_stay_numbers(cls, reals):
    opt, (low, high) = cls(Space([3], reals=[reals]), range(20), 0.3), reals
    for _ in range(300):
        c = opt.ask(4)
        opt.tell(c, ((c.values[..., 0] - low) / (high - low) - 0.3).abs())
        assert all(x.isfinite().all() for x in (*opt.params, opt.delta))
    if cls is ASNG and low >= 0:
        assert ((opt.mean[0] - low) / (high - low) - 0.3).abs().median() < 0.1


@pytest.mark.parametrize("cls", [ASNG, SNG, Adam])
def test_without_a_floor_a_choice_may_vanish_and_all_stays_finite(cls):
    opt = cls(Space([4, 2], floor=0.0), range(20), 0.5)
    for _ in range(300):
        c = opt.ask(3)
        opt.tell(c, c.cat.sum(-1))
    assert all(x.isfinite().all() for x in opt.state().values() if torch.is_tensor(x))
    torch.testing.assert_close(opt.theta.sum(-1), torch.ones(20, 2))
    assert (opt.theta == 0).any() and (cls is Adam or (opt.best().cat == 0).all())


def test_a_search_begins_where_one_puts_it():
    space = Space([2, 4], integers=[(1, 9)], floor=0.01)
    rows = [[0.7, 0.3], [0.4, 0.2, 0.1, 0.3]]
    one = ASNG(space, **F64)
    one.set_theta(rows, mean=[4], std=[0.5])
    torch.testing.assert_close(one.theta, tensor([[0.7, 0.3, 0, 0], rows[1]]), rtol=1e-12, atol=0)
    assert one.mean.tolist() == [[4.0]] and one.var.tolist() == [[0.25]]
    many = ASNG(space, range(3), **F64)
    many.set_theta(one.theta)  # all alike
    torch.testing.assert_close(many.theta, one.theta.expand(3, 2, 4))
    theta = many.theta
    theta[1, 1] = tensor([0, 1.0, 0, 0])  # one by one; an architecture is lifted off the floor
    many.set_theta(theta, mean=[[2], [3], [4]])
    low = space.floor[1]
    torch.testing.assert_close(many.theta[1, 1], tensor([low, 1 - 3 * low, low, low]))
    torch.testing.assert_close(many.theta[0], one.theta)
    assert many.mean.tolist() == [[2.0, 3.0, 4.0]] and many.best().cat[1, 0].tolist() == [0, 1]
    many.tell(many.ask(), torch.rand(3, 2))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(theta=[[0.5, 0.5]]), "2 rows"),
        (dict(theta=[[0.5, 0.6], [0.25] * 4]), "sum to 1"),
        (dict(theta=[[1.5, -0.5], [0.25] * 4]), "sum to 1"),
        (dict(theta=[[0.5, 0.25, 0.25], [0.25] * 4]), "beyond its last choice"),
        (dict(theta=[[math.nan, 0.5], [0.25] * 4]), "sum to 1"),
        (dict(theta=[["a", "b"], [0.25] * 4]), "2 rows"),
        (dict(theta=0.5), "2 rows"),
        (dict(theta=torch.ones(5, 2, 4)), "2 rows"),
        (dict(mean=[10]), "within the ranges"),
        (dict(mean=[math.nan]), "within the ranges"),
        (dict(mean=[1, 2]), "numbers"),
        (dict(std=[0]), "positive"),
        (dict(std=[-1]), "positive"),
        (dict(mean=[10**400]), "numbers"),
        (dict(std=[math.inf]), "positive"),
        (dict(std="a"), "numbers"),
    ],
)
def test_no_beginning_that_is_none(settings, message):
    opt = ASNG(Space([2, 4], integers=[(1, 9)]), range(3))
    before = opt.state()
    with pytest.raises(ValueError, match=message):
        opt.set_theta(**settings)
    assert all(torch.equal(before[k], opt.state()[k]) for k in opt.STATE)


def to_gpu(x):
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="cuda") if torch.is_tensor(x) else x


class NoCopy(torch.overrides.TorchFunctionMode):
    "Refuses tensors made of host values, which wait for the device."

    def __torch_function__(self, f, types, args=(), kwargs=None):
        assert f is not torch.tensor and f not in (torch.Tensor.cpu, torch.Tensor.nonzero), f
        return f(*args, **(kwargs or {}))


@pytest.mark.parametrize("cls", [ASNG, SNG, Adam])
@pytest.mark.parametrize("utility", ["rank", "mean"])
@pytest.mark.parametrize(
    "space", [Space([3, 3]), Space([3, 2], integers=[(1, 5)], reals=[(0.0, 1.0)]), Space(reals=[(0.0, 1.0)])]
)
def test_no_step_waits_for_the_device(cls, utility, space):
    "In fake mode a tensor of a GPU has no values, and asking for one raises an error."
    opt = cls(space, range(5), utility=utility)
    with FakeTensorMode():
        for name, x in vars(opt).items():
            setattr(opt, name, type(x)(*map(to_gpu, x)) if isinstance(x, tuple) else to_gpu(x))
        with NoCopy():
            for _ in range(2):
                c = opt.ask(4)
                assert c.cat.device.type == c.values.device.type == opt.theta.device.type == "cuda"
                opt.tell(c, c.onehot.sum((0, 2)).T if space.D else c.values.sum(-1))
            assert opt.best().cat.shape == (5, 1, space.D)


def test_help_shows_the_shapes():
    silent = []
    for module in (asng, streams):
        for name in module.__all__:
            x = getattr(module, name)
            members = (
                [(f"{name}.{k}", v) for k, v in vars(x).items() if not k.startswith("_")]
                if inspect.isclass(x)
                else [(name, x)]
            )
            for what, f in members:
                f = f.fget if isinstance(f, property) else f
                if (
                    callable(f)
                    and "Tensor" in str(inspect.signature(f))
                    and not re.search(
                        r"\((N|n|\.\.\.|steps|\[N,\]|lam|K|G)\b.*\)|\(\.\.\.\)", f.__doc__ or ""
                    )
                ):
                    silent.append(what)
    assert not silent
    assert "(K - 1)·D + 2·G" in ASNG.__doc__
