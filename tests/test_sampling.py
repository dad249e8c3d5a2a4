"""SNAS, DSNAS, ProxylessNAS: the reference numbers, gradients, what is computed, searches that go on after a
kill, bad input."""

import copy
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nas_nb.batches import Batches
from nas_nb.cells import ASNG_CELL, DARTS_CELL, ENAS_CELL, CellNetwork, CellSpace, decode, discretise
from nas_nb.files import Checkpoint
from nas_nb.images import Images
from nas_nb.operations import DARTS_OPS
from nas_nb.relaxations import gumbel, gumbel_softmax, softmax, straight_through, two_path
from nas_nb.sampling import (
    DSNAS,
    ESTIMATORS,
    SNAS,
    Proxyless,
    ProxylessReinforce,
    add_linear,
    annealed,
    draw_two,
    edge_penalty,
    entropy,
    expected_latency,
    log_density,
    log_gates,
    op_cost,
    reinforce_gradient,
    rescale,
    resource_costs,
    resource_penalty,
)
from nas_nb.search import search
from nas_nb.streams import check_seeds, uniform
from nas_nb.training import Recipe

CASES = json.loads((Path(__file__).parent / "sampling_cases.json").read_text())
METHODS = {"SNAS": SNAS, "DSNAS": DSNAS, "Proxyless": Proxyless, "ProxylessReinforce": ProxylessReinforce}
NONE, NAMES = 0, list(DARTS_OPS)

pytestmark = pytest.mark.usefixtures("one_thread")


def leaf(x):
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def constant(x):
    return torch.tensor(x, dtype=torch.float64)


def same(found, expected, tol=1e-10):
    torch.testing.assert_close(found.detach().double(), constant(expected), rtol=1e-6, atol=tol)


def gates_of(method, step):
    return method.gates(step)


# -- SNAS --


@pytest.mark.parametrize("temperature", CASES["snas_concrete_weights"]["expected_by_temperature"])
def test_concrete_weights_and_their_gradient(temperature):
    case, T = CASES["snas_concrete_weights"], float(temperature)
    a, noise = leaf(case["input"]["log_alpha"]), -torch.log(-torch.log(constant(case["input"]["u"])))
    z = gumbel_softmax(a, noise, T).values
    torch.testing.assert_close(
        z.detach(), constant(case["expected_by_temperature"][temperature]), rtol=1e-6, atol=1e-300
    )
    outputs, target = (
        torch.linspace(-1, 2, 12, dtype=torch.float64).view(4, 3).sin(),
        constant([0.3, -0.2, 0.5]),
    )
    node = (z @ outputs).sum(0).detach().requires_grad_()
    (upstream,) = torch.autograd.grad((node - target).pow(2).sum(), node)
    (found,) = torch.autograd.grad(((z @ outputs).sum(0) - target).pow(2).sum(), a)
    c, z = outputs @ upstream, z.detach()  # the loss that each operation's output is held responsible for
    torch.testing.assert_close(found, z * (c - (z * c).sum(1, keepdim=True)) / T)


def test_log_density():
    for temperature, expected in CASES["snas_logp"]["expected_by_temperature"].items():
        a = torch.linspace(-0.3, 0.4, 8, dtype=torch.float64)
        assert log_density(a, (2 * a).log_softmax(0), float(temperature)).item() == pytest.approx(
            expected, rel=1e-9
        )


@pytest.mark.parametrize("T", [0.8, 1.0, 2.0])
def test_the_density_is_one_for_three_operations(T):
    n = 400
    grid = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    x, share = torch.meshgrid(grid, grid, indexing="ij")  # Z = (x, (1 - x)·share, (1 - x)·(1 - share))
    z = torch.stack([x, (1 - x) * share, (1 - x) * (1 - share)], -1)
    p = log_density(constant([0.4, -0.1, 0.2]), z.log(), T).exp()
    assert (p * (1 - x)).mean().item() == pytest.approx(1, abs=0.02)


def test_temperatures():
    for name, expected in CASES["snas_temperature_schedule"]["expected"].items():
        epoch = int(name[1:])
        assert annealed(epoch, 150, ahead=1) == pytest.approx(expected, rel=1e-12)
        assert annealed(epoch + 1, 150) == pytest.approx(expected, rel=1e-12)
    assert (annealed(0, 150), annealed(150, 150), annealed(10**6, 150)) == (1.0, 0.03, 0.03)
    for bad in (dict(last=0.0), dict(first=-1.0), dict(steps=0)):
        with pytest.raises(ValueError, match="above 0"):
            annealed(3, **dict(steps=9) | bad)


def test_entropy():
    found = entropy(constant(CASES["snas_concrete_weights"]["input"]["log_alpha"]))
    assert found.shape == (2,) and found.sum().item() == pytest.approx(
        CASES["snas_arch_entropy"]["expected"], rel=1e-9
    )
    assert entropy(constant([[0.2, -0.1, 0.4]])).item() == pytest.approx(
        CASES["proxyless_entropy"]["expected"], rel=1e-7
    )


@pytest.mark.parametrize("name", CASES["snas_op_costs"]["expected"])
def test_costs_of_operations(name):
    op, stride = name[:-3], int(name[-1])
    assert op_cost(op, 4, 8 // stride, stride)._asdict() == CASES["snas_op_costs"]["expected"][name]


def test_only_operations_of_darts_have_a_cost():
    with pytest.raises(ValueError, match="'sep_conv_7x7': known are none, max_pool_3x3"):
        op_cost("sep_conv_7x7", 4, 8)


def test_penalty_of_an_edge():
    case = CASES["snas_resource_penalty"]
    costs = constant([op_cost(name, 4, 8) for name in NAMES]).T[:, None]
    w = leaf([case["input"]["W"]])
    assert edge_penalty(w, costs).item() == pytest.approx(case["expected"]["linear"], rel=1e-12)
    assert edge_penalty(w, costs, log=True).item() == pytest.approx(case["expected"]["log"], rel=1e-12)
    assert edge_penalty(1e-9 * w, costs, log=True).item() == 0  # below 1 counts as 1


@pytest.mark.parametrize("log", [False, True])
def test_penalty_of_a_network(log):
    costs = resource_costs(CellNetwork(DARTS_CELL, channels=4, cells=8), 32)
    w = torch.randn(28, 8).softmax(1)
    found, expected, channels, side = resource_penalty(w, costs, log), torch.zeros(28), 4, 32
    for n in range(8):
        reduction = n in (2, 5)
        channels, side = (2 * channels, side // 2) if reduction else (channels, side)
        for e, (state, _) in enumerate(DARTS_CELL.edges):
            table = torch.tensor(
                [op_cost(name, channels, side, 2 if reduction and state < 2 else 1) for name in NAMES]
            ).float()
            size, flops, mac = (w[e + 14 * reduction] @ table).tolist()
            one = (
                sum(map(math.log, (size, flops, mac))) / 3
                if log
                else 0.43 * (2 * size + flops / 4000 + mac / 100)
            )
            expected[e + 14 * reduction] += one / (2 if reduction else 6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    single = resource_penalty(
        w, resource_costs(CellNetwork(DARTS_CELL, (1, 28, 28), channels=4, cells=1), 28), log
    )
    assert not single[:14].any() and single[14:].all()  # no normal cell


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators(estimator):
    table = torch.linspace(0, 3, 8)
    method = SNAS(DARTS_CELL, 0.5, lambda w: (w * table).sum(1) ** 2, estimator, seed=2)  # not linear
    found = method.penalty(3)
    (gradient,) = torch.autograd.grad(found, method.alpha)
    w = softmax(method.alpha).values if estimator == "discrete" else method.weights(3).values
    value = (w * table).sum(1) ** 2
    if estimator == "policy_gradient":
        log_z = ((method.alpha + method.noise(3)) / 0.5).log_softmax(1).detach()
        expected = (value.detach() * log_density(method.alpha, log_z, 0.5)).sum()
    else:
        expected = value.sum()
    assert found.item() == pytest.approx(value.sum().item(), rel=1e-5)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, method.alpha)[0], rtol=1e-4, atol=1e-5)
    assert method.penalty(4).item() != found.item() or estimator == "discrete"
    assert SNAS(DARTS_CELL).penalty(3) == 0.0


def test_the_policy_gradient_is_the_gradient_of_the_expectation():
    table, mean = torch.linspace(-1, 1, 8), {}
    for estimator in ("policy_gradient", "reparametrization"):
        method = SNAS(DARTS_CELL, 0.5, lambda w: w @ table, estimator)
        method.alpha.data.copy_(torch.linspace(-0.5, 0.5, 8).expand(28, 8))
        total = sum(method.penalty(step) for step in range(300))
        mean[estimator] = torch.autograd.grad(total, method.alpha)[0].mean(0) / 300
    off, size = (mean["policy_gradient"] - mean["reparametrization"]).norm(), mean["reparametrization"].norm()
    assert off < 0.3 * size


def test_the_sample_of_snas():
    calls = []
    method = SNAS(DARTS_CELL, lambda step: calls.append(step) or 1 / (1 + step), seed=5)
    expected = gumbel_softmax(method.alpha, gumbel((28, 8), 5, 3), 0.25).values
    assert (
        torch.equal(method.weights(3).values, expected)
        and calls[-1] == 3
        and method.weights(3).chosen is None
    )
    assert method.alpha.mean().item() == pytest.approx(
        1, abs=0.01
    ) and method.alpha.std().item() == pytest.approx(0.01, rel=0.2)
    assert not torch.equal(
        SNAS(DARTS_CELL, seed=6).weights(3).values, SNAS(DARTS_CELL, seed=5).weights(3).values
    )


def test_an_exact_zero_among_the_uniform_numbers():
    seed, step = 0, 34420
    assert (uniform(check_seeds(seed), range(step, step + 1), 224) == 0).any()
    method = SNAS(DARTS_CELL, 0.03, lambda w: w[:, 4], seed=seed)
    loss = method.weights(step).values.square().sum() + method.penalty(step)
    assert loss.isfinite() and torch.autograd.grad(loss, method.alpha)[0].isfinite().all()


def test_a_low_temperature_gives_finite_numbers_and_few_gradients():
    table, share = torch.linspace(0, 1, 8), {}
    for T in (1.0, 0.03):
        method, small = SNAS(DARTS_CELL, T, lambda w: w @ table), []
        for step in range(20):
            (g,) = torch.autograd.grad((method.weights(step).values @ table).sum(), method.alpha)
            (p,) = torch.autograd.grad(method.penalty(step), method.alpha)
            assert g.isfinite().all() and p.isfinite().all()
            small.append((g.norm(dim=1) < 1e-3).float().mean().item())
        share[T] = sum(small) / 20
    assert share[0.03] > 0.5 and share[1.0] < 0.02


@pytest.mark.parametrize("name", METHODS)
def test_every_edge_keeps_its_most_likely_operation_none_included(name):
    method = METHODS[name](DARTS_CELL)
    with torch.no_grad():
        method.alpha.zero_()
        method.alpha[range(28), [(0, 4, 7)[v % 3] for v in range(28)]] = 1.0
    found = method.architecture()
    kept = {(j, i): op for i, node in enumerate(found.normal) for op, j in node}
    expected = {
        edge: ("none", "sep_conv_3x3", "dil_conv_5x5")[v % 3] for v, edge in enumerate(DARTS_CELL.edges)
    }
    assert kept == {edge: op for edge, op in expected.items() if op != "none"}
    assert found.normal_concat == (2, 3, 4, 5) and sum(map(len, found.reduce)) == 9


# -- DSNAS --


def test_gradient_of_dsnas():
    a = leaf(CASES["snas_concrete_weights"]["input"]["log_alpha"])
    w, R = log_gates(a, [2, 0]), constant([[9, 9, -0.4, 9], [0.25, 9, 9, 9]])
    assert w.values.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]] and w.chosen == ((2,), (0,))
    same(torch.autograd.grad((w.values * R).sum(), a)[0], CASES["dsnas_alpha_gradient"]["expected"])


def tiny(cells=3):
    torch.manual_seed(0)
    return CellNetwork(DARTS_CELL, (1, 8, 8), 3, 4, cells), torch.randn(6, 1, 8, 8), torch.randint(3, (6,))


def test_dsnas_on_a_network_is_the_gates_own_derivative():
    network, x, y = tiny(2)
    method = DSNAS(DARTS_CELL, seed=1)
    method.alpha.data[:, [NONE, 4]] += 1
    w = method.gates(0)
    assert w.chosen == method.weights(0).chosen and w.values.sum() == 28
    (found,) = torch.autograd.grad(F.cross_entropy(network(x, w), y), method.alpha)
    gates = w.values.detach().requires_grad_()
    (R,) = torch.autograd.grad(F.cross_entropy(network(x, w._replace(values=gates)), y), gates)
    onehot, R = w.values.detach(), (R * w.values.detach()).sum(1, keepdim=True)
    torch.testing.assert_close(found, R * (onehot - method.alpha.softmax(1).detach()), rtol=1e-4, atol=1e-7)
    drawn = torch.tensor(w.chosen)[:, 0]
    assert (drawn == NONE).any() and not found[drawn == NONE].any() and found[drawn == 4].any()


# -- ProxylessNAS: gradients --


@pytest.mark.parametrize("name", ["proxyless_full", "proxyless_full_v2", "proxyless_two_path"])
def test_gates_of_proxyless(name):
    case, expected = CASES[name]["input"], CASES[name]["expected"]
    a, x = leaf([case["alpha"]]), leaf(case["x"])
    paths, target = torch.stack([(k * x).tanh() for k in case["k"]]), constant(case["target"])
    two = "inactive" in case
    gates = (
        two_path(a, [(case["active"], case["inactive"])])
        if two
        else straight_through(softmax(a), [case["active"]])
    )
    output = (gates.values @ paths)[0]
    loss = ((output - target) ** 2).mean()
    of_gates, of_alpha, of_x = torch.autograd.grad(loss, (gates.values, a, x))
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-9)
    computed = torch.tensor([k in gates.of(0, 3) for k in range(3)])
    same(of_gates[0] * computed, expected["dL_dgates"])
    same(of_alpha[0], expected["grad_alpha"])
    if not two:
        same(output, expected["output"])
        same(a.softmax(1)[0], expected["probs"])
        same(of_x, expected["grad_x"])
        return
    before = a.detach().clone()
    optimizer = torch.optim.Adam([a], 1e-3, (0.0, 0.999))
    a.grad = of_alpha
    optimizer.step()
    same(a[0], expected["alpha_after_adam"])
    after = rescale(a.detach(), before, torch.tensor([[1, 2]]))
    same(after[0], expected["alpha_after_rescale"])
    same(after.softmax(1)[0], expected["probs_after"])
    assert after.softmax(1)[0, 0].item() == pytest.approx(expected["prob_of_unsampled_before"], rel=1e-12)


def test_two_paths_are_drawn_without_replacement_and_opened_by_the_softmax_between_them():
    n, a = 40_000, torch.tensor([1.0, 0.0, -0.5])
    p = a.softmax(0)
    drawn = draw_two(a.expand(n, 3), gumbel((2 * n, 3), 0, 0).view(2, n, 3))
    for i in range(3):
        for j in range(3):
            both = p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j]) if i != j else 0.0
            expected = both * p[i] / (p[i] + p[j])
            assert (
                (drawn == torch.tensor([i, j])).all(1).float().mean() - expected
            ).abs() < 0.012  # 5 standard deviations


@pytest.mark.parametrize("method", [SNAS(DARTS_CELL), DSNAS(DARTS_CELL, 3), Proxyless(DARTS_CELL, seed=3)])
def test_choices_are_drawn_by_their_probabilities(method):
    with torch.no_grad():
        method.alpha.copy_(torch.linspace(-1, 1, 8).expand(28, 8))
    drawn = F.one_hot(torch.stack([method.draw(step)[0] for step in range(400)]), 8).float()
    torch.testing.assert_close(drawn.mean((0, 1)), method.alpha[0].softmax(0).detach(), rtol=0, atol=0.02)
    assert drawn.mean(0).std(0).max() < 0.06  # on every edge


def test_a_step_may_move_the_pair_only_against_each_other():
    method = Proxyless(DARTS_CELL, seed=4)
    optimizer, table = (
        torch.optim.Adam(method.parameters(), 0.1, (0.5, 0.999), weight_decay=0.1),
        torch.randn(28, 8),
    )
    for step in range(15):
        before, pairs = method.alpha.detach().clone(), method.pairs(step)
        optimizer.zero_grad()
        (method.gates(step).values * table).sum().backward()
        optimizer.step()
        method.settle(step)
        sampled = torch.zeros(28, 8, dtype=torch.bool).scatter(1, pairs, True) & (pairs[:, :1] != NONE)
        assert torch.equal(method.alpha[~sampled], before[~sampled])
        learns = pairs[:, 0] != NONE
        assert (method.alpha != before)[learns].sum(1).eq(2).all()
        torch.testing.assert_close(
            method.alpha.detach().softmax(1).gather(1, pairs).sum(1),
            before.softmax(1).gather(1, pairs).sum(1),
            rtol=1e-5,
            atol=1e-6,
        )


def test_an_open_none_teaches_nothing():
    network, x, y = tiny()
    method = Proxyless(DARTS_CELL, latency=torch.rand(28, 8), seed=0)
    w, pairs = method.gates(1), method.pairs(1)
    zero = pairs[:, 0] == NONE
    closed = (pairs[:, 1] == NONE).nonzero()[:, 0]
    assert 0 < zero.sum() < 28 and len(closed)
    assert all(
        (w.chosen[v] == (NONE,)) == bool(zero[v]) and len(w.chosen[v]) == 2 - int(zero[v]) for v in range(28)
    )
    for loss in (
        lambda w: F.cross_entropy(network(x, w), y),
        lambda w: (w.values * torch.rand(28, 8)).sum(),
        lambda w: method.penalty(1),
    ):
        (g,) = torch.autograd.grad(loss(method.gates(1)), method.alpha)
        assert not g[zero].any() and g[~zero].any()
    assert g[closed].any(1).all()  # the latency of a closed none counts
    without = Proxyless(CellSpace({k: op for k, op in DARTS_OPS.items() if k != "none"}))
    assert without.live(without.pairs(0)).all()


# -- latency --


@pytest.mark.parametrize("name", ["add#linear_0.1", "add#linear_default"])
def test_latency_losses(name):
    expected = CASES["proxyless_latency_losses"]["expected"][name]
    settings = {"add#linear_0.1": {}, "add#linear_default": dict(strength=0.2)}[name]
    a = leaf([0.2, -0.1, 0.4])
    E = expected_latency(a.softmax(0), constant([10, 30, 50]), fixed=60)
    loss = add_linear(2.0, E, 80.0, **settings)
    assert (E.item(), loss.item()) == pytest.approx((expected["E_latency"], expected["loss"]), rel=1e-9)
    same(torch.autograd.grad(loss, a)[0], expected["grad_alpha"])


def test_the_latency_of_two_paths():
    latency = torch.rand(28, 8)
    method = Proxyless(DARTS_CELL, latency, reference=5.0, fixed=1.5, strength=0.4)
    method.alpha.data.normal_(generator=torch.Generator().manual_seed(0))
    pairs = method.pairs(7)
    p = method.alpha.gather(1, pairs).softmax(1)
    expected = 0.4 * (1.5 + (p * latency.gather(1, pairs)).sum() - 5) / 5
    assert method.penalty(7).item() == pytest.approx(expected.item(), rel=1e-5)
    (g,), (e,) = (torch.autograd.grad(loss, method.alpha) for loss in (method.penalty(7), expected))
    torch.testing.assert_close(g, e * (pairs[:, :1] != NONE))
    assert Proxyless(DARTS_CELL).penalty(7) == 0.0 and "latency" not in method.state_dict()


# -- ProxylessNAS: REINFORCE --


def test_gradient_of_reinforce():
    case = CASES["proxyless_reinforce_batch"]
    a, samples, R = (
        leaf([case["input"]["alpha"]]),
        torch.tensor([[0], [2], [2]]),
        constant([0.70, 0.72, 0.65]),
    )
    for expected in case["expected"].values():
        advantages = R - expected["baseline"]
        found = reinforce_gradient(a.detach(), samples, advantages)
        same(found[0], expected["grad"])
        loss = -(advantages[:, None] * a.log_softmax(1)[0, samples]).mean()
        torch.testing.assert_close(found, torch.autograd.grad(loss, a)[0])


@pytest.mark.parametrize("space", [ENAS_CELL, ASNG_CELL], ids=["ENAS", "ASNG"])
def test_reinforce_serves_variables_with_different_numbers_of_choices(space):
    method = ProxylessReinforce(space, lr=0.05)
    drawn = method.draw(0, 2000)
    assert drawn.amax(0).tolist() == [n - 1 for n in space.sizes] and drawn.amin() == 0
    wanted = torch.tensor([(3 * v) % n for v, n in enumerate(space.sizes)])
    for step in range(300):
        method.ask(step, 4)
        method.tell((method.asked != wanted).sum(1).float())
    assert method.architecture() == decode(space, wanted.tolist())
    assert method.alpha.isfinite().all() and torch.equal(
        method.alpha[method.missing], ProxylessReinforce(space).alpha[method.missing]
    )


def test_the_baseline_is_updated_before_it_is_used():
    expected = CASES["proxyless_reinforce_batch"]["expected"]
    method = ProxylessReinforce(DARTS_CELL)
    for previous, name in ((None, "first_call"), (0.60, "previous_baseline_0.60")):
        if previous:
            method.baseline.fill_(previous)
        samples = torch.tensor([w.chosen for w in method.ask(0, 3)])[:, :, 0]
        square, a = method.square.clone(), method.alpha.detach().clone()
        method.tell(-constant([0.70, 0.72, 0.65]))
        assert method.baseline.item() == pytest.approx(expected[name]["baseline"], rel=1e-12)
        advantages = torch.tensor([0.70, 0.72, 0.65]) - expected[name]["baseline"]
        used = (method.square - 0.999 * square) / 0.001
        torch.testing.assert_close(
            used, reinforce_gradient(a, samples, advantages).square(), rtol=1e-3, atol=1e-8
        )


def test_tell_is_adam_without_momentum():
    method = ProxylessReinforce(DARTS_CELL, lr=0.03, seed=2)
    twin = method.alpha.detach().clone().requires_grad_()
    optimizer, baseline = torch.optim.Adam([twin], 0.03, (0.0, 0.999)), None
    for step in range(5):
        choices = torch.tensor([w.chosen for w in method.ask(step, 4)])[:, :, 0]
        losses = (choices == 3).sum(1).double() + step
        method.tell(losses)
        baseline = (-losses).mean() if baseline is None else baseline + 0.99 * ((-losses).mean() - baseline)
        twin.grad = reinforce_gradient(twin.detach(), choices, (-losses - baseline).float())
        optimizer.step()
        torch.testing.assert_close(method.alpha.detach(), twin.detach(), rtol=1e-4, atol=1e-5)
    assert method.alpha.grad is None


def test_reinforce_finds_what_is_good():
    method = ProxylessReinforce(DARTS_CELL, lr=0.05)
    for step in range(60):
        choices = torch.tensor([w.chosen for w in method.ask(step, 10)])[:, :, 0]
        method.tell(-(choices == 4).sum(1).double())
    assert method.alpha.softmax(1)[:, 4].mean() > 0.35


def test_weight_and_architecture_steps_have_numbers_of_their_own():
    method, equal = Proxyless(DARTS_CELL), []
    for step in range(100):
        here = torch.tensor(method.weights(step).chosen)[:, 0]
        equal.append((here == method.pairs(step)[:, 0]).float().mean().item())
    assert sum(equal) / 100 == pytest.approx(1 / 8, abs=0.035)  # 5 standard deviations


@pytest.mark.parametrize("name", METHODS)
def test_every_seed_and_step_has_numbers_of_its_own(name):
    first, second = METHODS[name](DARTS_CELL, seed=1), METHODS[name](DARTS_CELL, seed=2)
    assert torch.equal(first.draw(5, 20), METHODS[name](DARTS_CELL, seed=1).draw(5, 20))
    for other in (second.draw(5, 20), first.draw(6, 20)):
        assert (first.draw(5, 20) == other).float().mean() < 0.25  # 1/8 by chance


# -- a search --


def learn(method, optimizer, steps, losses):
    for step in steps:
        if hasattr(method, "ask"):
            choices = torch.tensor([w.chosen for w in method.ask(step, 3)])
            method.tell(losses.expand(3, -1, -1).gather(2, choices).sum((1, 2)).double())
            continue
        optimizer.zero_grad()
        ((gates_of(method, step).values * losses).sum() + method.penalty(step)).backward()
        optimizer.step()
        if hasattr(method, "settle"):
            method.settle(step)


@pytest.mark.parametrize("name", METHODS)
def test_resumed_is_uninterrupted(name):
    losses = torch.rand(28, 8, generator=torch.Generator().manual_seed(0))
    extra = dict(SNAS=dict(cost=lambda w: (w * losses).sum(1)), Proxyless=dict(latency=losses)).get(name, {})

    def fresh():
        method = METHODS[name](DARTS_CELL, seed=7, **extra)
        return method, torch.optim.Adam(method.parameters(), 0.05, (0.0, 0.999))

    whole, part, resumed = fresh(), fresh(), fresh()
    learn(*whole, range(6), losses)
    learn(*part, range(3), losses)
    for there, here in zip(resumed, part):
        there.load_state_dict(copy.deepcopy(here.state_dict()))
    learn(*resumed, range(3, 6), losses)
    assert whole[0].state_dict().keys() == resumed[0].state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(whole[0].state_dict().values(), resumed[0].state_dict().values())
    )
    assert not torch.equal(whole[0].alpha, fresh()[0].alpha)


PIXELS = torch.randint(0, 256, (24, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IMAGES = Images(PIXELS, torch.arange(24) % 3, ("a", "b", "c"))


@pytest.mark.parametrize("name", METHODS)
def test_a_search_goes_on_after_a_kill(name, tmp_path):
    train, valid = (Batches(IMAGES, 8, mean=(0.5,), std=(0.3,), seed=n) for n in range(2))
    recipe, settings = (
        Recipe(3, optimizer="momentum", lr=0.05, clip=5.0),
        dict(paths=1) if name == "ProxylessReinforce" else dict(lr=0.05, decay=0.0),
    )

    def fresh():
        torch.manual_seed(0)
        method = METHODS[name](DARTS_CELL, seed=1)
        method.betas = (0.0, 0.999)  # the paper's
        return CellNetwork(DARTS_CELL, IMAGES.shape, 3, 2, 1), method

    def killed(step):
        if step == 2:
            raise KeyboardInterrupt
        return train(step)

    whole, resumed = fresh(), fresh()
    history = search(*whole, train, valid, recipe, **settings)
    with pytest.raises(KeyboardInterrupt):
        search(*fresh(), killed, valid, recipe, ckpt=Checkpoint(tmp_path / "run.pt", every=0), **settings)
    assert search(*resumed, train, valid, recipe, ckpt=Checkpoint(tmp_path / "run.pt"), **settings) == history
    for a, b in zip(whole, resumed):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert not torch.equal(whole[1].alpha, fresh()[1].alpha)


def computed(network):
    "A set into which (kind of cell, edge, operation) goes when it is computed by itself."
    seen = set()
    for cell, kind in zip(network.cells, network.kinds):
        for key, module in cell.own.items():
            edge, op = map(int, key.split("-"))
            module.register_forward_hook(lambda *_, at=(kind, edge, op): seen.add(at))
    return seen


def wanted(w):
    return {
        (("normal", "reduce")[v // 14], v % 14, k) for v, ks in enumerate(w.chosen) for k in ks if k != NONE
    }


@pytest.mark.parametrize("name", METHODS)
def test_three_steps_on_a_network(name):
    (network, x, y), method = tiny(), METHODS[name](DARTS_CELL, seed=3)
    seen, start = computed(network), method.alpha.detach().clone()
    alphas, weights = torch.optim.Adam(method.parameters(), 0.05), torch.optim.SGD(network.parameters(), 0.05)
    for step in range(3):
        if hasattr(method, "ask"):
            losses = []
            for w in method.ask(step, 3):
                seen.clear()
                with torch.no_grad():
                    losses.append(F.cross_entropy(network(x, w), y))
                assert seen == wanted(w) and len(w.chosen) == 28
            method.tell(torch.stack(losses).double())
        else:
            seen.clear()
            w = gates_of(method, step)
            (F.cross_entropy(network(x, w), y) + method.penalty(step)).backward()
            assert name == "SNAS" or seen == wanted(w)
            assert method.alpha.grad.isfinite().all() and method.alpha.grad.any()
            alphas.step()
            if hasattr(method, "settle"):
                method.settle(step)
        seen.clear()
        weights.zero_grad(), alphas.zero_grad()
        with torch.no_grad():
            w = method.weights(step) if hasattr(method, "weights") else method.ask(step + 3, 1)[0]
        F.cross_entropy(network(x, w), y).backward()
        assert name == "SNAS" or (
            seen == wanted(w) and w.values is None and all(len(ks) == 1 for ks in w.chosen)
        )
        trained = {key for key, p in network.cells[0].own.named_parameters() if p.grad is not None}
        assert name == "SNAS" or {tuple(map(int, key.split(".")[0].split("-"))) for key in trained} <= {
            at[1:] for at in wanted(w)
        }
        assert trained and all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
        weights.step()
    assert method.alpha.isfinite().all() and not torch.equal(method.alpha, start)


# -- bad input --


def asked(n=3):
    method = ProxylessReinforce(DARTS_CELL)
    method.ask(0, n)
    return method


@pytest.mark.parametrize("name", [name for name in METHODS if name != "ProxylessReinforce"])
@pytest.mark.parametrize("space", [ENAS_CELL, ASNG_CELL], ids=["ENAS", "ASNG"])
def test_spaces_in_which_nodes_pick_their_inputs(name, space):
    with pytest.raises(ValueError, match="take a space like DARTS_CELL"):
        METHODS[name](space)


BAD = {
    "temperature 0": (lambda: SNAS(DARTS_CELL, 0.0), "step 0 is 0.0: give one above 0"),
    "temperature nan": (lambda: SNAS(DARTS_CELL, math.nan), "give one above 0"),
    "temperature later": (
        lambda: SNAS(DARTS_CELL, lambda step: 1 - step).weights(1),
        "step 1 is 0: give one above 0",
    ),
    "temperature inf": (lambda: SNAS(DARTS_CELL, math.inf), "give one above 0"),
    "estimator": (
        lambda: SNAS(DARTS_CELL, estimator="reinforce"),
        "must be one of policy_gradient, reparametrization, discrete",
    ),
    "seed": (lambda: DSNAS(DARTS_CELL, seed=-1), "seed"),
    "latency shape": (lambda: Proxyless(DARTS_CELL, torch.ones(8)), "28 × 8"),
    "latency negative": (lambda: Proxyless(DARTS_CELL, -torch.ones(28, 8)), "from 0 on"),
    "latency nan": (lambda: Proxyless(DARTS_CELL, torch.full((28, 8), math.nan)), "finite"),
    "latency inf": (lambda: Proxyless(DARTS_CELL, torch.full((28, 8), math.inf)), "finite"),
    "reference": (lambda: Proxyless(DARTS_CELL, torch.ones(28, 8), reference=0.0), "reference be above 0"),
    "one operation": (
        lambda: Proxyless(CellSpace({"skip_connect": DARTS_OPS["skip_connect"]})),
        "need two operations",
    ),
    "settle first": (lambda: Proxyless(DARTS_CELL).settle(0), "call gates first"),
    "rate": (lambda: ProxylessReinforce(DARTS_CELL, lr=0.0), "lr must be above 0"),
    "one sample": (lambda: asked(1).tell(torch.zeros(1)), "ask for two or more"),
    "tell first": (lambda: ProxylessReinforce(DARTS_CELL).tell(torch.zeros(3)), "ask for samples first"),
    "losses too few": (lambda: asked().tell(torch.zeros(2)), "must be 3 finite numbers"),
    "losses shape": (lambda: asked().tell(torch.zeros(3, 1)), "must be 3 finite numbers"),
    "rate nan": (lambda: ProxylessReinforce(DARTS_CELL, lr=math.nan), "lr must be above 0"),
    "rate text": (lambda: ProxylessReinforce(DARTS_CELL, lr="1"), "lr must be above 0"),
    "no space": (lambda: DSNAS("darts"), "no search space"),
    "temperature text": (lambda: SNAS(DARTS_CELL, "hot"), "give one above 0"),
    "latency list": (lambda: Proxyless(DARTS_CELL, [1.0]), "a tensor of 28 × 8"),
    "reference text": (lambda: Proxyless(DARTS_CELL, reference="1"), "reference be above 0"),
    "reference nan": (lambda: Proxyless(DARTS_CELL, reference=math.nan), "reference be above 0"),
    "strength nan": (lambda: Proxyless(DARTS_CELL, strength=math.nan), "strength must be finite"),
    "no samples": (lambda: ProxylessReinforce(DARTS_CELL).ask(0, 0), "n = 0"),
    "step -1": (lambda: DSNAS(DARTS_CELL).weights(-1), "step = -1"),
    "losses text": (lambda: asked().tell(["a"] * 3), "must be 3 finite numbers"),
    "add_linear": (lambda: add_linear(2.0, 91.5, 0.0), "reference = 0.0"),
    "latency broadcast": (
        lambda: expected_latency(torch.ones(2, 3), torch.ones(3)),
        r"\(2, 3\) numbers do not fit \(3,\)",
    ),
    "density temperature": (
        lambda: log_density(torch.ones(2, 3), torch.ones(2, 3), 0.0),
        "temperature = 0.0",
    ),
    "density shape": (lambda: log_density(torch.ones(2, 3), torch.ones(2, 4), 1.0), "does not fit"),
    "density variables": (lambda: log_density(torch.ones(2, 3), torch.ones(4, 3), 1.0), "does not fit"),
    "annealed": (lambda: annealed(-1, 10), "step = -1"),
    "annealed text": (lambda: annealed(0, "10"), "steps = '10'"),
    "annealed inf": (lambda: annealed(0, 10, math.inf), "first = inf"),
    "cost of half a channel": (lambda: op_cost("sep_conv_3x3", 2.5, 8), "channels = 2.5"),
    "cost of an odd channel": (lambda: op_cost("skip_connect", 3, 8, 2), "c_out = 3 must be even"),
    "penalty shape": (lambda: edge_penalty(torch.ones(14, 8), torch.ones(14, 8)), "do not fit"),
    "penalty of one cost": (lambda: edge_penalty(torch.ones(14, 8), torch.ones(1, 14, 8)), "do not fit"),
    "costs with picks": (lambda: resource_costs(CellNetwork(ENAS_CELL, channels=2, cells=1), 8), "no picks"),
    "costs of no side": (lambda: resource_costs(CellNetwork(DARTS_CELL, channels=2, cells=1), 0), "side = 0"),
    "costs of one kind": (
        lambda: resource_penalty(torch.ones(28, 8), dict(normal=torch.ones(1, 3, 14, 8))),
        "both kinds",
    ),
    "gates": (lambda: log_gates(torch.zeros(28, 8), [8] * 28), "from 0 to 7"),
    "gates half": (lambda: log_gates(torch.zeros(28, 8), [0.5] * 28), "from 0 to 7"),
    "gates too few": (lambda: log_gates(torch.zeros(28, 8), [0] * 14), "28 whole numbers"),
    "noise": (lambda: draw_two(torch.zeros(28, 8), torch.zeros(28, 8)), "does not fit"),
    "one choice": (lambda: draw_two(torch.zeros(28, 1), torch.zeros(2, 28, 1)), "at least two choices"),
    "pairs": (
        lambda: rescale(torch.zeros(2, 3), torch.zeros(2, 3), [[0, 1]]),
        "2 × 2 whole numbers from 0 to 2",
    ),
    "pairs beyond": (lambda: rescale(torch.zeros(1, 3), torch.zeros(1, 3), [[0, 3]]), "from 0 to 2"),
    "pairs negative": (lambda: two_path(torch.zeros(1, 3), [[0, -1]]), "from 0 to 2"),
    "pairs half": (lambda: two_path(torch.zeros(1, 3), [[0, 0.5]]), "from 0 to 2"),
    "pairs text": (lambda: two_path(torch.zeros(1, 3), "01"), "from 0 to 2"),
    "pairs alike": (lambda: rescale(torch.zeros(1, 3), torch.zeros(1, 3), [[1, 1]]), "different"),
    "rescale": (lambda: rescale(torch.zeros(1, 3), torch.zeros(3), [[0, 1]]), "do not fit"),
    "advantages": (
        lambda: reinforce_gradient(torch.zeros(2, 3), torch.zeros(4, 2).long(), torch.zeros(3)),
        "do not fit",
    ),
    "theta shape": (lambda: DSNAS(DARTS_CELL).set_theta(torch.full((28, 5), 0.2)), "28 × 8 probabilities"),
    "theta sum": (lambda: DSNAS(DARTS_CELL).set_theta(torch.full((28, 8), 0.2)), "sum 1"),
    "theta 0": (lambda: DSNAS(DARTS_CELL).set_theta(torch.eye(8)[torch.zeros(28).long()]), "above 0"),
    "theta nan": (lambda: DSNAS(DARTS_CELL).set_theta(torch.full((28, 8), math.nan)), "above 0"),
    "theta text": (lambda: DSNAS(DARTS_CELL).set_theta("even"), "above 0"),
    "whole alpha": (
        lambda: entropy(torch.zeros(2, 3).long()),
        "alpha must hold real numbers, not torch.int64",
    ),
    "no alpha": (lambda: entropy([[0.0]]), "alpha must be a tensor"),
    "whole alpha moved": (
        lambda: rescale(torch.zeros(1, 3), torch.zeros(1, 3).long(), [[0, 1]]),
        "old must hold real numbers",
    ),
    "keep with picks": (lambda: ProxylessReinforce(ENAS_CELL).architecture(keep=2), "use `decode`"),
    "keep 0": (lambda: SNAS(DARTS_CELL).architecture(keep=0), "keep = 0"),
    "losses nan": (lambda: asked().tell(torch.tensor([0.0, math.nan, 1.0])), "must be 3 finite numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


SAMPLING = [SNAS, DSNAS, Proxyless, ProxylessReinforce]


@pytest.mark.parametrize("method", SAMPLING)
@pytest.mark.parametrize("space", [DARTS_CELL, ENAS_CELL], ids=["DARTS", "ENAS"])
def test_theta_can_be_read_and_set(method, space):
    if space is ENAS_CELL and method is not ProxylessReinforce:
        return
    m, there = method(space, seed=1), torch.arange(max(space.sizes)) < torch.tensor(space.sizes)[:, None]
    assert torch.equal(m.theta > 0, there) and torch.allclose(m.theta.sum(1), torch.ones(len(space.sizes)))
    wanted = torch.rand(m.theta.shape).add(0.1).where(there, 0)
    wanted /= wanted.sum(1, keepdim=True)
    m.set_theta(wanted.tolist())
    assert torch.allclose(m.theta, wanted, atol=1e-6) and m.alpha.isfinite().all()
    assert m.architecture() == decode(space, wanted.argmax(1).tolist())


def test_probabilities_that_were_set_are_those_of_the_samples():
    m = DSNAS(CellSpace(DARTS_OPS, nodes=1))
    theta = torch.full((4, 8), 0.05)
    theta[:, 3] = 0.65
    m.set_theta(theta)
    share = (m.draw(0, 4000) == 3).double().mean(0)
    assert ((share - 0.65).abs() < 0.04).all()


@pytest.mark.parametrize("method", [SNAS, DSNAS, Proxyless])
def test_the_strongest_edges_alone_may_be_kept(method):
    m = method(DARTS_CELL, seed=3)
    two = m.architecture(keep=2)
    assert (
        two == discretise(DARTS_CELL, m.alpha.detach().softmax(-1), keep=2)
        and [len(node) for node in two.normal] == [2] * 4
    )
    assert m.architecture() == m.architecture(keep=None) == discretise(DARTS_CELL, m.theta, keep=None)


@pytest.mark.parametrize("method", SAMPLING)
def test_nan_wins_nothing(method):
    m = method(DARTS_CELL)
    with torch.no_grad():
        m.alpha[3, 5] = math.nan
    calls = [m.architecture, lambda: m.draw(0)] + (
        [lambda: m.gates(0)] if method in (DSNAS, Proxyless) else []
    )
    for call in calls + ([] if method is ProxylessReinforce else [lambda: m.architecture(keep=2)]):
        with pytest.raises(ValueError, match="NaN.*diverged"):
            call()


@pytest.mark.parametrize("method", SAMPLING)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(method):
    m, other = method(DARTS_CELL, seed=1), method(CellSpace(DARTS_OPS, nodes=1))
    before = {k: v.clone() for k, v in m.state_dict().items()}
    for state in (
        other.state_dict(),
        {},
        None,
        before | dict(alpha=before["alpha"].double()),
        before | dict(alpha=before["alpha"] * math.nan),
        before | dict(more=1),
    ):
        with pytest.raises(ValueError) as error:
            m.load_state_dict(state)
        assert "\n" not in str(error.value) and all(
            torch.equal(v, before[k]) for k, v in m.state_dict().items()
        )
    m.load_state_dict(before | dict(alpha=before["alpha"] + 1))
    assert torch.equal(m.alpha, before["alpha"] + 1)


def test_latencies_and_pairs_come_as_numbers_lists_or_tensors():
    assert add_linear(2.0, 91.5, 80.0) == pytest.approx(
        add_linear(torch.tensor(2.0), torch.tensor(91.5), 80.0).item()
    )
    old, new, pairs = torch.zeros(2, 3), torch.rand(2, 3), [(0, 2), (1, 0)]
    assert torch.equal(rescale(new, old, pairs), rescale(new, old, torch.tensor(pairs)))
    for a, b in zip(two_path(new, pairs), two_path(new, torch.tensor(pairs)), strict=True):
        assert torch.equal(a, b) if torch.is_tensor(a) else a == b


def test_costs_of_odd_sides_are_those_of_what_is_put_out():
    costs = resource_costs(CellNetwork(DARTS_CELL, (3, 15, 15), channels=2, cells=1), 15)
    assert torch.equal(
        costs["reduce"], resource_costs(CellNetwork(DARTS_CELL, channels=2, cells=1), 16)["reduce"]
    )


def test_losses_are_told_once_and_bad_ones_change_nothing():
    method = asked()
    before = {k: v.clone() for k, v in method.state_dict().items()}
    with pytest.raises(ValueError, match="3 finite"):
        method.tell(torch.tensor([0.0, math.inf, 1.0]))
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    method.tell(torch.tensor([0.0, 2.0, 1.0]))
    with pytest.raises(ValueError, match="ask for samples first"):
        method.tell(torch.tensor([0.0, 2.0, 1.0]))
