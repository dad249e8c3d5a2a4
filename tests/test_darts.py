"""DARTS, the hypernetwork and the search loop: the reference numbers, exact second derivatives, a search
that goes on after a kill, bad input."""

import copy
import json
import math
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas_nb.batches import Batches, eval_batches
from nas_nb.cells import ASNG_CELL, DARTS_CELL, ENAS_CELL, CellNetwork, discretise, encode, parameter_norms
from nas_nb.darts import (
    DARTS,
    expected_cost,
    first_order,
    l1,
    move,
    run_norms,
    scaled,
    second_order,
    sgd_drift,
    signed,
    zero_one,
)
from nas_nb.files import Checkpoint
from nas_nb.hypernet import Hypernet, basis
from nas_nb.images import Images
from nas_nb.judging import inherited, random_architecture
from nas_nb.methods import GradientMethod
from nas_nb.parallel import Stack, Together, side_by_side_batches
from nas_nb.relaxations import At, gumbel_softmax, raw, sigmoid, softmax
from nas_nb.search import search
from nas_nb.training import Diverged, Recipe, learning_rate

CASES = json.loads((Path(__file__).parent / "darts_cases.json").read_text())


pytestmark = pytest.mark.usefixtures("one_thread")


def leaf(x):
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


# -- gradients --


@pytest.mark.parametrize("case", CASES["darts_bilevel_toy"]["cases"])
def test_the_toy_problem(case):
    a, w = leaf(case["alpha"]), leaf(case["w"])
    train, valid = lambda: w**2 - 2 * a * w + a**2, lambda: a * w - 2 * a + 1
    optimizer = torch.optim.SGD([w], 0.1, momentum=case["momentum"], weight_decay=case["weight_decay"])
    if case["momentum_buffer"] is not None:
        optimizer.state[w]["momentum_buffer"] = torch.tensor(case["momentum_buffer"], dtype=torch.float64)
    found = second_order([a], valid, [w], train, case["xi"], sgd_drift(optimizer))
    assert found.gradients[0].item() == pytest.approx(case["analytic"], abs=1e-9)
    assert found.loss.item() == pytest.approx(case["alpha"] * case["w_prime"] - 2 * case["alpha"] + 1)
    assert first_order([a], valid).gradients[0].item() == pytest.approx(case["first_order_grad"])
    assert w.item() == case["w"] and w.grad is None and a.grad is None


def mixture(w, alpha, x, y):
    x, y = (torch.tensor(v, dtype=torch.float64) for v in (x, y))
    return ((alpha.softmax(0) @ torch.stack([(w[0] * x).tanh(), (w[1] * x).sin(), w[2] * x]) - y) ** 2).mean()


def test_the_nonlinear_case_and_the_exact_product():
    case, expected = (
        CASES["darts_second_order_nonlinear"]["input"],
        CASES["darts_second_order_nonlinear"]["expected"],
    )
    a, w = leaf(case["alpha"]), leaf(case["w"])
    train = lambda: mixture(w, a, case["x_train"], case["y_train"])
    valid = lambda: mixture(w, a, case["x_val"], case["y_val"])
    drift = [
        case["momentum"] * torch.tensor(case["momentum_buffer"], dtype=torch.float64)
        + case["weight_decay"] * w.detach()
    ]
    found = second_order([a], valid, [w], train, case["eta"], drift).gradients[0]
    assert found.tolist() == pytest.approx(expected["reference"], abs=1e-12)
    assert found.tolist() == pytest.approx(expected["exact"], abs=2e-6)
    finer = second_order([a], valid, [w], train, case["eta"], drift, radius=1e-4).gradients[0]
    assert finer.tolist() == pytest.approx(expected["exact"], abs=1e-9)  # the error falls with ε²
    assert first_order([a], valid).gradients[0].tolist() == pytest.approx(expected["first_order"], abs=1e-12)
    assert w.tolist() == case["w"]


def supernet(channels=2, size=8, dtype=torch.float64):
    torch.manual_seed(0)
    network = CellNetwork(DARTS_CELL, (1, size, size), 3, channels, 1).to(dtype)
    x, y = torch.randn(2, 6, 1, size, size, dtype=dtype), torch.randint(3, (2, 6))
    return network, x, y


def test_second_order_on_a_supernet_is_autograds_own():
    network, x, y = supernet()
    alpha = (0.5 * torch.randn(28, 8, dtype=torch.float64)).requires_grad_()
    names, weights = zip(*network.named_parameters())
    loss = lambda n, values=None: F.cross_entropy(
        network(x[n], softmax(alpha))
        if values is None
        else torch.func.functional_call(network, dict(zip(names, values)), (x[n], softmax(alpha))),
        y[n],
    )
    drift = [0.01 * torch.randn_like(w) for w in weights]
    grads = torch.autograd.grad(loss(0), weights, create_graph=True)
    exact = torch.autograd.grad(
        loss(1, [w - 0.1 * (g + d) for w, g, d in zip(weights, grads, drift)]), alpha
    )[0]
    kept = [w.clone() for w in weights]
    found = second_order(
        [alpha], lambda: loss(1), weights, lambda: loss(0), 0.1, drift, radius=1e-7
    ).gradients[0]
    ahead = second_order([alpha], lambda: loss(1), weights, lambda: loss(0), 0.1, drift, radius=1e-7)
    torch.testing.assert_close(found, exact, rtol=1e-3, atol=1e-6)
    one = first_order([alpha], lambda: loss(1)).gradients[0]
    assert (found - exact).norm() < 0.01 * (one - exact).norm()  # and not just near it
    assert all(torch.equal(a, b) for a, b in zip(kept, weights)) and torch.equal(ahead.gradients[0], found)


def test_weights_come_back_even_if_a_loss_fails():
    network, x, y = supernet()
    alpha, weights, calls = (
        torch.zeros(28, 8, dtype=torch.float64, requires_grad=True),
        list(network.parameters()),
        [],
    )
    kept = [w.clone() for w in weights]

    def train():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return F.cross_entropy(network(x[0], softmax(alpha)), y[0])

    with pytest.raises(KeyboardInterrupt):
        second_order(
            [alpha], lambda: F.cross_entropy(network(x[1], softmax(alpha)), y[1]), weights, train, 0.1
        )
    assert all(torch.equal(a, b) for a, b in zip(kept, weights))


def test_a_loss_that_does_not_depend_on_the_weights_gives_the_first_order_gradient():
    a, w = leaf([1.0, 2.0]), leaf([3.0])
    found = second_order([a], lambda: (a**2).sum(), [w], lambda: (w * a.sum()).sum(), 0.1)
    assert found.gradients[0].tolist() == [2.0, 4.0]


def test_only_plain_momentum_can_be_unrolled():
    w = leaf([1.0])
    with pytest.raises(ValueError, match="plain momentum"):
        sgd_drift(torch.optim.SGD([w], 0.1, momentum=0.9, nesterov=True))
    with pytest.raises(ValueError, match="plain momentum"):
        sgd_drift(torch.optim.Adam([w], 0.1))
    optimizer = torch.optim.SGD([w], 0.1, momentum=0.9, weight_decay=0.5)
    assert sgd_drift(optimizer)[0].tolist() == [0.5]  # no buffer before the first step
    w.grad = torch.ones(1, dtype=torch.float64)
    drift, before = None, w.item()
    optimizer.step()
    drift, now = sgd_drift(optimizer), w.item()
    optimizer.step()  # with the same gradient
    assert now - w.item() == pytest.approx(0.1 * (1 + drift[0].item())) and before != now


def test_learning_rate_of_the_search():
    recipe = Recipe(50, lr=0.025, lr_end=0.001)
    for epoch, rate in CASES["darts_search_lr"]["expected"].items():
        assert learning_rate(int(epoch), recipe) == pytest.approx(rate, rel=1e-12)


# -- penalties --


def test_expected_cost():
    case = CASES["hyper_02_expected_params"]
    alpha, n = leaf(case["alpha"]), torch.tensor(case["n_stride2"], dtype=torch.float64)
    found = expected_cost(alpha.softmax(0), n)
    (gradient,) = torch.autograd.grad(case["lam"] * found, alpha)
    assert found.item() == pytest.approx(case["expected"]) and gradient.tolist() == pytest.approx(
        case["penalty_grad"], abs=1e-12
    )


def test_zero_one():
    case = CASES["fair_01_zero_one_loss"]
    alpha = leaf(case["alpha"])
    assert zero_one(alpha).item() == pytest.approx(case["L01"]) and 10 * zero_one(
        alpha
    ).item() == pytest.approx(case["weighted_10"])
    assert torch.autograd.grad(zero_one(alpha), alpha)[0].tolist() == pytest.approx(
        case["grad_L01"], abs=1e-12
    )
    assert 1 / (1 + math.exp(-case["alpha_at_threshold"])) == pytest.approx(case["threshold"])


def test_l1_and_signed():
    alpha, costs = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 5.0]])
    assert l1(alpha, costs).item() == 13 and signed(alpha, costs).item() == -7


def test_methods_refuse_spaces_in_which_a_mixture_has_no_meaning():
    for space in (ENAS_CELL, ASNG_CELL):
        with pytest.raises(ValueError, match="mixture has no meaning"):
            DARTS(space)
        with pytest.raises(ValueError, match="mixture has no meaning"):
            Hypernet(space, (1e-6, 1e-3))


def test_darts():
    method = DARTS(DARTS_CELL, penalty=lambda alpha, w: alpha.sum() + w.sum(), seed=3)
    assert method.alpha.std().item() == pytest.approx(1e-3, rel=0.2) and not torch.equal(
        method.alpha, DARTS(DARTS_CELL, seed=4).alpha
    )
    assert method.penalty().item() == pytest.approx(method.alpha.sum().item() + 28, rel=1e-5)
    assert (
        DARTS(DARTS_CELL, sigmoid, start=0.0).weights().values.unique().tolist() == [0.5]
        and DARTS(DARTS_CELL).penalty() == 0.0
    )
    assert [len(n) for n in method.architecture().normal] == [2] * 4 and sum(
        len(n) for n in method.architecture(keep=None).normal
    ) <= 14


# -- hypernetwork --


def test_linear_alpha_and_where_it_switches():
    case = CASES["hyper_01_linear"]
    net = Hypernet(DARTS_CELL, (1e-5, 1.0), "raw").double()
    with torch.no_grad():
        net.b[0, :2, :3], net.b[1, :2, :3] = (
            torch.tensor(case[k], dtype=torch.float64) for k in ("b1", "b2")
        )
        for row in case["rows"]:
            if row["lam"] > 0:
                alpha = net.alpha(row["lam"])[:2, :3]
                assert alpha.flatten().tolist() == pytest.approx(sum(row["alpha"], []), abs=1e-12)
                assert softmax(alpha).values.flatten().tolist() == pytest.approx(
                    sum(row["softmax"], []), abs=1e-12
                )
        at = case["switch_lambda_edge1"]["0->2"]
        before, after = (net.alpha(at + d)[1, [0, 2]].argmax().item() for d in (-1e-6, 1e-6))
    assert (before, after) == (0, 1)


def test_how_lambda_is_drawn():
    case = CASES["hyper_04_lambda_sampling"]["log_uniform_1e5_1"]
    net = Hypernet(DARTS_CELL, (1e-5, 1.0), "raw", seed=5)
    drawn = torch.tensor([net.draw(t) for t in range(4000)])
    assert drawn.min() >= 1e-5 and drawn.max() <= 1
    assert drawn.mean().item() == pytest.approx(
        case["mean"], abs=0.012
    ) and drawn.median().item() == pytest.approx(case["median"], rel=0.35)
    for bound, key in ((1e-4, "P_lam_lt_1e4"), (1e-2, "P_lam_lt_1e2"), (1e-1, "P_lam_lt_1e1")):
        assert (drawn < bound).float().mean().item() == pytest.approx(case[key], abs=0.03)
    assert net.draw(7) == net.draw(7) != Hypernet(DARTS_CELL, (1e-5, 1.0), "raw", seed=6).draw(7)


@pytest.mark.parametrize("u", [0, 0.1, 0.25, 0.4999, 0.5, 0.7, 0.99, 1])
def test_piecewise_is_numpys_interpolation(u):
    import numpy as np

    knots = [3.0, -1.0, 2.0, 0.5, 7.0]
    found = sum(c * k for c, k in zip(basis(10 ** (-8 + 4 * u), (1e-8, 1e-4), "log", 5), knots))
    assert found == pytest.approx(np.interp(u, np.linspace(0, 1, 5), knots), abs=1e-9)


def test_a_line_is_two_knots_written_differently():
    span = (1e-6, 1e-3)
    line, knots = Hypernet(DARTS_CELL, span), Hypernet(DARTS_CELL, span, knots=2)
    with torch.no_grad():
        knots.b[0], knots.b[1] = line.b[1], line.b[0] + line.b[1]
    for lam in (1e-6, 3e-5, 1e-3):
        torch.testing.assert_close(line.alpha(lam), knots.alpha(lam))


def test_gumbel_softmax_and_its_temperature():
    case = CASES["hyper_07_relaxed_onehot"]
    for tau, sample in case["samples"].items():
        found = gumbel_softmax(
            torch.tensor([case["alpha"]]), torch.tensor([case["gumbel"]]), float(tau)
        ).values[0]
        assert found.tolist() == pytest.approx(sample, abs=1e-6)
    net = Hypernet(DARTS_CELL, (1e-6, 1e-3), relax=None, steps=50)
    with torch.no_grad():
        net.b.zero_()
    largest = [
        torch.stack([net.weights(t + s).values.max(1).values.mean() for s in range(3)]).mean().item()
        for t in (0, 47)
    ]
    assert largest[1] > largest[0] + 0.2  # the samples become almost one-hot
    assert net.at(1e-4).values.unique().tolist() == [0.125]  # what is looked at has no noise
    assert torch.equal(net.weights(3).values, net.weights(3).values) and not torch.equal(
        net.weights(3).values, net.weights(4).values
    )


def test_gradients_of_the_hypernetwork():
    net = Hypernet(DARTS_CELL, (1e-5, 1.0), "raw", penalty=lambda alpha, w: (w * w).sum()).double()
    lam = net.draw(2)
    (gradient,) = torch.autograd.grad(net.penalty(2), net.b)
    torch.testing.assert_close(gradient[0], lam * gradient[1])  # dL/db1 = λ dL/dα
    with torch.no_grad():
        net.b[1, 0, 0] += 1e-6
        up = net.penalty(2).item()
        net.b[1, 0, 0] -= 2e-6
        down = net.penalty(2).item()
    assert gradient[1, 0, 0].item() == pytest.approx((up - down) / 2e-6, rel=1e-4)


def test_raw_weights_and_architecture():
    net = Hypernet(DARTS_CELL, (1e-5, 1.0), "raw", relax=raw)
    assert torch.equal(net.at(0.3).values, net.alpha(0.3)) and net.penalty(0) == 0.0
    every, two = net.architecture(0.3), net.architecture(0.3, keep=2)
    assert sum(map(len, every.reduce)) <= 14 and [len(n) for n in two.reduce] == [2] * 4
    for e, (j, i) in enumerate(DARTS_CELL.edges):
        best = list(DARTS_CELL.ops)[net.alpha(0.3)[14 + e].argmax()]
        assert ((best, j) in every.reduce[i]) == (best != "none")


@pytest.mark.parametrize("lam", [math.nan, math.inf, -math.inf, 0.0, -0.1, "1", None])
def test_lambda_must_be_positive_and_finite(lam):
    for net in (
        Hypernet(DARTS_CELL, (1e-5, 1.0), "raw"),
        Hypernet(DARTS_CELL, (1e-5, 1.0)),
        Hypernet(DARTS_CELL, (1e-5, 1.0), knots=3),
    ):
        for what in (net.alpha, net.at, net.architecture) if net.scale == "log" or lam != 0.0 else ():
            with pytest.raises(ValueError, match="positive, finite"):
                what(lam)


def test_as_published_alpha_without_a_price_is_b2():
    net = Hypernet(DARTS_CELL, (1e-5, 1.0), "raw")
    assert torch.equal(net.alpha(0.0), net.b[1]) and torch.equal(net.at(0).values, softmax(net.b[1]).values)
    assert net.architecture(0) == discretise(DARTS_CELL, net.b[1].softmax(-1), keep=None)


@pytest.mark.parametrize(("function", "says"), [
    ((1.0, (1e-5, 1.0), "sqrt"), "no such function"), ((1.0, (1.0, 1e-5), "log"), "no such function"), ((1.0, (1e-5, 1.0), "log", 1), "no such function"),
    ((1.0, (1e-5, 1.0), "raw", 2), "no such function"), ((1.0, 3, "log"), "no such function"), ((1.0, ("a", "b"), "log"), "no such function"),
    ((1.0, (1e-5, 1.0), "log", 2.5), "no such function"), ((1.0, (math.nan, 1.0), "log"), "no such function"),
])  # fmt: skip
def test_what_is_no_function_of_lambda_is_refused(function, says):
    with pytest.raises(ValueError, match=says) as error:
        basis(*function)
    assert "\n" not in str(error.value)


def test_gumbel_needs_steps_and_stays_warm():
    with pytest.raises(ValueError, match="steps="):
        Hypernet(DARTS_CELL, (1e-6, 1e-3), relax=None)
    net = Hypernet(DARTS_CELL, (1e-6, 1e-3), relax=None, steps=4)
    w, noisy = net.weights(9).values, net.alpha(net.draw(9))
    assert (w > 0).all() and w.sum(1).allclose(torch.ones(28)) and noisy.shape == w.shape


@pytest.mark.parametrize(
    "settings",
    [
        dict(scale="sqrt"),
        dict(knots=1),
        dict(knots=-2),
        dict(scale="raw", knots=4),
        dict(span=(0.0, 1.0)),
        dict(span=(1.0, 0.1)),
        dict(span=(1e-3, math.inf)),
    ],
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(ValueError, match="no such function of λ"):
        Hypernet(DARTS_CELL, **dict(span=(1e-6, 1e-3)) | settings)


# -- the search loop --


def images(n=48, size=8, classes=3):
    generator = torch.Generator().manual_seed(1)
    y = torch.arange(n) % classes
    x = (torch.rand(n, 1, size, size, generator=generator) * 120 + 60 * y[:, None, None, None]).to(
        torch.uint8
    )
    return Images(x, y, tuple(map(str, range(classes))))


NORM = dict(mean=(0.5,), std=(0.3,))
SOME = images()
TRAIN, VALID = Batches(SOME, 12, seed=0, **NORM), Batches(SOME, 12, seed=1, **NORM)


def fresh(method=None, dtype=torch.float32):
    torch.manual_seed(0)
    network = CellNetwork(DARTS_CELL, SOME.shape, 3, 2, 1)
    return network, method(network) if method else DARTS(DARTS_CELL, start=0.1)


METHODS = dict(
    first=(None, {}),
    second=(None, dict(second_order=True)),
    hypernet=(
        lambda network: Hypernet(DARTS_CELL, (1e-6, 1e-3), knots=3, penalty=lambda alpha, w: w[:, 4].sum()),
        {},
    ),
    gumbel=(lambda network: Hypernet(DARTS_CELL, (1e-6, 1e-3), relax=None, steps=6), dict(second_order=True)),
    both=(
        lambda network: DARTS(
            DARTS_CELL,
            penalty=lambda alpha, w: 1e-3 * (alpha.sum() * sum(p.norm() for p in network.parameters())),
            on_weights=True,
        ),
        {},
    ),
)
RECIPE = Recipe(6, optimizer="momentum", lr=0.05, lr_end=0.001, weight_decay=3e-4, clip=5.0)


@pytest.mark.parametrize("name", METHODS)
def test_a_search_that_is_stopped_goes_on_to_the_same_bits(name, tmp_path):
    make, settings = METHODS[name]
    whole, method = fresh(make)
    history = search(
        whole,
        method,
        TRAIN,
        VALID,
        RECIPE,
        lr=0.05,
        every=2,
        measure=lambda: dict(a=method.weights(0).values.sum().item()),
        **settings,
    )

    def stop(step):
        if step == 3:
            raise KeyboardInterrupt
        return TRAIN(step)

    measure = lambda m: lambda: dict(a=m.weights(0).values.sum().item())
    network, again = fresh(make)
    with pytest.raises(KeyboardInterrupt):
        search(
            network,
            again,
            stop,
            VALID,
            RECIPE,
            lr=0.05,
            every=2,
            measure=measure(again),
            ckpt=Checkpoint(tmp_path / "a.pt", every=0),
            **settings,
        )
    network, again = fresh(make)
    rows = search(
        network,
        again,
        TRAIN,
        VALID,
        RECIPE,
        lr=0.05,
        every=2,
        measure=measure(again),
        ckpt=Checkpoint(tmp_path / "a.pt"),
        **settings,
    )
    assert rows == history and [r["step"] for r in rows] == [2, 4, 6]
    for a, b in ((whole, network), (method, again)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert (tmp_path / "a.log.csv").read_text().splitlines()[0] == "step,loss,valid_loss"


@pytest.mark.parametrize("second", [False, True])
def test_a_step_is_what_the_papers_say(second):
    """Two steps by torch's own optimisers and a deep copy of the network for the unrolled step, as in the
    public program."""
    ours, method = fresh()
    theirs, alpha = copy.deepcopy(ours), method.alpha.detach().clone().requires_grad_()
    search(
        ours,
        method,
        TRAIN,
        VALID,
        Recipe(2, optimizer="momentum", lr=0.05, lr_end=0.05, weight_decay=3e-4),
        lr=0.02,
        second_order=second,
    )
    w_opt = torch.optim.SGD(theirs.parameters(), 0.05, momentum=0.9, weight_decay=3e-4)
    a_opt = torch.optim.Adam([alpha], 0.02, (0.5, 0.999), weight_decay=1e-3)
    loss = lambda network, batch: F.cross_entropy(network(batch[0], softmax(alpha)), batch[1])
    for step in range(2):
        seen, held = TRAIN(step), VALID(step)
        if second:
            ahead = copy.deepcopy(theirs)
            grads = torch.autograd.grad(loss(theirs, seen), list(theirs.parameters()))
            with torch.no_grad():
                for p, q, g in zip(ahead.parameters(), theirs.parameters(), grads):
                    buffer = w_opt.state[q].get("momentum_buffer", 0.0) if q in w_opt.state else 0.0
                    p -= 0.05 * (0.9 * buffer + g + 3e-4 * q)
            both = torch.autograd.grad(loss(ahead, held), [alpha, *ahead.parameters()])
            eps, sides = 0.01 / torch.cat([v.flatten() for v in both[1:]]).norm(), []
            for sign in (1, -1):
                moved = copy.deepcopy(theirs)
                with torch.no_grad():
                    for p, v in zip(moved.parameters(), both[1:]):
                        p += sign * eps * v
                sides.append(torch.autograd.grad(loss(moved, seen), alpha)[0])
            alpha.grad = both[0] - 0.05 * (sides[0] - sides[1]) / (2 * eps)
        else:
            (alpha.grad,) = torch.autograd.grad(loss(theirs, held), alpha)
        a_opt.step()
        w_opt.zero_grad()
        loss(theirs, seen).backward()
        w_opt.step()
    torch.testing.assert_close(method.alpha.detach(), alpha.detach(), rtol=1e-3, atol=2e-4)
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_weight_step_leaves_alpha_alone_and_clips_only_the_weights():
    network, method = fresh()
    before = method.alpha.detach().clone()
    search(
        network,
        method,
        TRAIN,
        VALID,
        Recipe(1, optimizer="momentum", clip=1e-9, lr=0.1, weight_decay=0.0),
        lr=1e-30,
        decay=0.0,
    )
    torch.testing.assert_close(method.alpha.detach(), before)


def test_a_penalty_on_both_losses_moves_the_weights():
    grown = {}
    for on_weights in (False, True):
        network, method = fresh(
            lambda network: DARTS(
                DARTS_CELL, penalty=lambda alpha, w: -100 * network.linear.weight.sum(), on_weights=on_weights
            )
        )
        before = network.linear.weight.sum().item()
        search(network, method, TRAIN, VALID, Recipe(1, optimizer="momentum", lr=0.01))
        grown[on_weights] = network.linear.weight.sum().item() - before
    assert grown[True] > 10 > abs(grown[False])


def test_a_checkpoint_of_another_search_is_refused(tmp_path):
    search(
        *fresh(), TRAIN, VALID, Recipe(2, optimizer="momentum"), ckpt=Checkpoint(tmp_path / "a.pt", every=0)
    )
    for other in (dict(lr=1e-2), dict(decay=0.5), dict(second_order=True), dict(seed=1)):
        with pytest.raises(ValueError, match="checkpoint of another"):
            search(
                *fresh(),
                TRAIN,
                VALID,
                Recipe(2, optimizer="momentum"),
                ckpt=Checkpoint(tmp_path / "a.pt"),
                **other,
            )
    with pytest.raises(ValueError, match="checkpoint of another"):
        search(
            *fresh(METHODS["hypernet"][0]),
            TRAIN,
            VALID,
            Recipe(2, optimizer="momentum"),
            ckpt=Checkpoint(tmp_path / "a.pt"),
        )


def test_an_architecture_that_is_not_finite_ends_the_search(tmp_path):
    network, method = fresh(
        lambda network: DARTS(DARTS_CELL, penalty=lambda alpha, w: (alpha * math.nan).sum())
    )
    with pytest.raises(Diverged, match="^the loss is nan at step 1 "):
        search(
            network,
            method,
            TRAIN,
            VALID,
            Recipe(3, optimizer="momentum"),
            ckpt=Checkpoint(tmp_path / "a.pt", every=0),
        )
    assert Checkpoint(tmp_path / "a.pt").load() is None


@pytest.mark.parametrize("bad", [dict(lr=0.0), dict(lr=math.nan), dict(decay=-1.0), dict(every=-1)])
def test_settings_of_the_search(bad):
    with pytest.raises(
        ValueError,
        match="every = -1 must be a whole number"
        if "every" in bad
        else "lr must be above 0, decay at least 0",
    ):
        search(*fresh(), TRAIN, VALID, RECIPE, **bad)


class Mine(GradientMethod):
    "A user's own method with no more than what the notebook asks for."

    def __init__(self, network):
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(28, 8))

    def weights(self, step):
        return softmax(self.alpha)


def test_a_method_of_ones_own():
    network, method = fresh(Mine)
    search(network, method, TRAIN, VALID, RECIPE, lr=0.05)
    assert method.alpha[14:].ne(0).all()


def group(second, make, recipe):
    def one(seed):
        torch.manual_seed(seed)
        network = CellNetwork(DARTS_CELL, SOME.shape, 3, 2, 1)
        return (
            network,
            make(seed),
            Batches(SOME, 12, seed=seed, **NORM),
            Batches(SOME, 12, seed=seed + 9, **NORM),
        )

    alone, several = [one(s) for s in range(3)], [one(s) for s in range(3)]
    histories = [
        search(network, method, train, valid, recipe, lr=0.05, second_order=second)
        for network, method, train, valid in alone
    ]
    networks, methods, trains, valids = zip(*several)
    stack, together = Stack(networks), Together(methods)
    history = search(
        stack,
        together,
        side_by_side_batches(trains),
        side_by_side_batches(valids),
        recipe,
        lr=0.05,
        second_order=second,
    )
    assert history[0]["train_loss"] == pytest.approx(sum(h[0]["train_loss"] for h in histories) / 3, rel=1e-4)
    for run, (network, method, *_) in enumerate(alone):
        (a,), (b,) = together.each[run].parameters(), method.parameters()
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
        for x, y in zip(stack.network(run).state_dict().values(), network.state_dict().values()):
            torch.testing.assert_close(x, y, rtol=1e-2, atol=2e-3)
    return stack, together


@pytest.mark.parametrize("second", [False, True])
def test_runs_side_by_side_are_runs_alone(second):
    recipe = Recipe(3, optimizer="momentum", lr=0.05, weight_decay=3e-4, clip=0.5, channels_last=False)
    penalty = lambda alpha, w: w[:, 4].sum()
    group(second, lambda seed: Hypernet(DARTS_CELL, (1e-3, 1.0), knots=3, penalty=penalty, seed=seed), recipe)


def test_a_run_of_a_stack_can_be_looked_at():
    recipe = Recipe(2, optimizer="momentum", lr=0.05, clip=0.5, channels_last=False)
    stack, together = group(False, lambda seed: DARTS(DARTS_CELL, start=0.1, seed=seed), recipe)
    network = stack.network(1)
    assert inherited(network, together.each[1].weights(), eval_batches(SOME, 20, **NORM)).n == 48
    stack.eval()
    x = SOME.x[:5].float() / 255
    with torch.no_grad():
        both = stack(torch.stack([x] * 3), together.weights(0)).view(3, 5, 3)
        torch.testing.assert_close(
            both[1], network.eval()(x, together.each[1].weights()), rtol=1e-4, atol=1e-4
        )


def test_a_function_of_a_run_sees_its_weights_as_they_are_and_has_gradients():
    stack = Stack([fresh()[0], fresh()[0]])
    with torch.no_grad():
        for k, value in enumerate(stack.values):
            value[1] *= 2 + k
    found = stack.of(1, parameter_norms)
    torch.testing.assert_close(found, parameter_norms(stack.network(1)))
    assert not torch.allclose(found, stack.of(0, parameter_norms))
    gradients = torch.autograd.grad(found.sum(), list(stack.values), allow_unused=True)
    alone = stack.network(1)
    expected = torch.autograd.grad(parameter_norms(alone).sum(), list(alone.parameters()), allow_unused=True)
    for g, e in zip(gradients, expected):
        assert (g is None) == (e is None)
        if g is not None:
            torch.testing.assert_close(g[1], e)
            assert not g[0].any()


def test_what_cannot_go_side_by_side():
    with pytest.raises(ValueError, match="side by side"):
        Together([DARTS(DARTS_CELL, on_weights=True)])
    stack, together = Stack([fresh()[0]]), Together([fresh()[1]])
    with pytest.raises(ValueError, match="channels_last=False"):
        search(stack, together, side_by_side_batches([TRAIN]), side_by_side_batches([VALID]), RECIPE)


def test_second_order_needs_plain_momentum():
    with pytest.raises(ValueError, match="optimizer='momentum', not 'sgd'"):
        search(*fresh(), TRAIN, VALID, Recipe(2), second_order=True)


def test_inherited_leaves_the_network_as_it_was():
    network, method = fresh()
    search(network, method, TRAIN, VALID, RECIPE)
    before, held = (
        {k: v.clone() for k, v in network.state_dict().items()},
        partial(eval_batches, SOME, 20, **NORM),
    )
    gathered = inherited(network, method.weights(), held())
    own = inherited(network, encode(DARTS_CELL, method.architecture()), held(), TRAIN, 4)
    assert network.training and gathered.n == own.n == 48
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    broken = lambda step: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        inherited(network, method.weights(), held(), broken, 4)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items()) and network.training


def test_inherited_uses_statistics_of_this_architecture():
    network, _ = fresh()
    w = encode(DARTS_CELL, random_architecture(DARTS_CELL, 0, dict(sep_conv_3x3=1.0)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(50.0)
    x = TRAIN(0)[0]
    wrong, right = (inherited(network, w, [(x, TRAIN(0)[1])], *more).loss for more in ((), (TRAIN, 4)))
    expected = F.cross_entropy(At(network, w)(x), TRAIN(0)[1]).item()  # statistics of this batch
    assert abs(right - expected) < 0.3 * abs(wrong - expected)


@pytest.mark.parametrize("space", [DARTS_CELL, ENAS_CELL, ASNG_CELL], ids=["DARTS", "ENAS", "ASNG"])
def test_random_architectures(space):
    op = list(space.ops)[4]
    found = [random_architecture(space, seed) for seed in range(30)]
    assert len(set(found)) == 30 and found[3] == random_architecture(space, 3)
    chosen = [random_architecture(space, seed, {op: 1.0}) for seed in range(10)]
    assert {o for g in chosen for node in g.normal + g.reduce for o, _ in node} == {op}
    if space.picks:
        assert {j for g in chosen for _, j in g.normal[3]} == set(
            range(5)
        )  # inputs are not affected by the chances
    encode(space, found[0])
    if not space.picks:
        for share in ({"sep_conv_3x3": 1.0, "none": 0.0}, {"avg_pool_3x3": 1.0}):
            two = random_architecture(space, 3, share, keep=2)
            assert [len(node) for node in two.reduce] == [2] * 4 and {
                o for node in two.normal for o, _ in node
            } == {next(iter(share))}
            assert (
                two
                == random_architecture(space, 3, share, keep=2)
                != random_architecture(space, 4, share, keep=2)
            )
    for bad in (dict(sep_conv_9x9=1.0), {}, {op: 0.0}, {op: -1.0}):
        with pytest.raises(ValueError, match=op):
            random_architecture(space, 0, bad)


# -- what is refused, and what a state must be --

A, W = torch.zeros(2, 3, requires_grad=True), torch.ones(3, requires_grad=True)
LOSS = lambda: (W * A.sum(0)).sum()
REFUSED = {
    "xi = 0": lambda: second_order([A], LOSS, [W], LOSS, 0),
    "xi = -0.1": lambda: second_order([A], LOSS, [W], LOSS, -0.1),
    "xi = nan": lambda: second_order([A], LOSS, [W], LOSS, math.nan),
    "xi = None": lambda: second_order([A], LOSS, [W], LOSS, None),
    "radius = 0": lambda: second_order([A], LOSS, [W], LOSS, 0.1, radius=0),
    "runs = -1": lambda: second_order([A], LOSS, [W], LOSS, 0.1, runs=-1),
    "runs=2": lambda: second_order([A], LOSS, [W], LOSS, 0.1, runs=2),
    "2 tensors of drift": lambda: second_order([A], LOSS, [W], LOSS, 0.1, drift=[W, W]),
    "at least one parameter": lambda: second_order([A], LOSS, [], LOSS, 0.1),
    "at least one  ?parameter": lambda: first_order([], LOSS),
    "requires_grad=True": lambda: first_order([torch.zeros(2)], LOSS),
    "a loss is one number": lambda: first_order([A], lambda: A.sum(0)),
    "a  ?loss is one number": lambda: first_order([A], lambda: torch.zeros(())),
    "a loss  ?is one number": lambda: first_order([A], lambda: 3.0),
    "a loss is  ?one number": lambda: second_order([A], LOSS, [W], lambda: W, 0.1),
    "plain momentum": lambda: sgd_drift(torch.optim.SGD([W], 0.1, momentum=0.9, dampening=0.5)),
    "plain  ?momentum": lambda: sgd_drift(torch.optim.SGD([W], 0.1, momentum=0.9, maximize=True)),
    "plain momentum can": lambda: sgd_drift("sgd"),
    "1 tensors and 2 directions": lambda: move([W], [W, W], 1.0),
    "0 tensors": lambda: run_norms([]),
    "0 tensors  ?and": lambda: scaled([], 2.0),
    r"\(2, 3\) numbers do not fit \(3,\)": lambda: expected_cost(A, W),
    r"\(3,\) numbers do not fit \(2, 3\)": lambda: l1(W, A),
    r"\(2, 3\) numbers do not fit \(1, 3\)": lambda: signed(A, A[:1]),
    "start = -1": lambda: DARTS(DARTS_CELL, start=-1),
    "start = nan": lambda: DARTS(DARTS_CELL, start=math.nan),
    "seed = '0' must be": lambda: DARTS(DARTS_CELL, seed="0"),
    "seed = -1 must be": lambda: DARTS(DARTS_CELL, seed=-1),
    "no search space": lambda: DARTS("darts"),
    "is no search space": lambda: Hypernet(None, (1e-5, 1.0)),
    "seed = 0.5": lambda: Hypernet(DARTS_CELL, (1e-5, 1.0), seed=0.5),
    "steps = 1.5": lambda: Hypernet(DARTS_CELL, (1e-5, 1.0), relax=None, steps=1.5),
}


@pytest.mark.parametrize("says", REFUSED)
def test_a_wrong_call_is_refused_in_one_sentence(says):
    with pytest.raises(ValueError, match=says) as error:
        REFUSED[says]()
    assert "\n" not in str(error.value) and torch.equal(W, torch.ones(3))


def test_a_number_scales_tensors_of_any_shape():
    assert [t.tolist() for t in scaled([torch.ones(2), torch.ones(())], 3)] == [[3, 3], 3]
    assert [t.tolist() for t in scaled([torch.ones(2)], torch.tensor(0.5))] == [[0.5, 0.5]]


@pytest.mark.parametrize(
    "make", [lambda: DARTS(DARTS_CELL), lambda: Hypernet(DARTS_CELL, (1e-5, 1.0), knots=3)]
)
@pytest.mark.parametrize("change", [
    lambda x: x[:2], lambda x: x.double(), lambda x: torch.full_like(x, math.nan), lambda x: x.where(x != x.max(), math.inf), lambda x: None, lambda x: x.tolist(),
])  # fmt: skip
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(make, change):
    method = make()
    ((name, x),) = method.state_dict().items()
    before = x.clone()
    for state in ({name: change(x.clone())}, {}, {name: x, "more": x}, None):
        with pytest.raises(ValueError) as error:
            method.load_state_dict(state)
        assert "\n" not in str(error.value) and torch.equal(dict(method.named_parameters())[name], before)
    method.load_state_dict({name: x + 1})
    assert torch.equal(dict(method.named_parameters())[name], before + 1)


def test_nan_has_no_architecture():
    method = DARTS(DARTS_CELL)
    with torch.no_grad():
        method.alpha[3, 5] = math.nan
    for keep in (1, 2, None):
        with pytest.raises(ValueError, match="NaN: the search diverged"):
            method.architecture(keep)
