"""Credit assignment: the reference numbers, contributions, the operation none, variance, the blind spot, the
method in the search loop, several processes, the toy experiment, the recurrent networks, bad input."""

import copy
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from nas_nb.batches import Batches
from nas_nb.blindspot import MendedCredit, blind_groups, contribution_table, normalises, with_gate
from nas_nb.cells import ASNG_CELL, DARTS_CELL, NB201_WIRING, CellNetwork, CellSpace
from nas_nb.credit import (
    Credit,
    ExactCredit,
    approximate_contributions,
    as_it_was,
    chainer_adam,
    credit_gradient,
    decayed_and_clipped,
    exact_contributions,
    moving_average,
    open_gates,
    parsec_gradient,
    without,
    zero_contribution,
)
from nas_nb.credit_toy import TOY_METHODS, Toy, run_toy, toy_noise
from nas_nb.files import Checkpoint
from nas_nb.images import Images
from nas_nb.known_tables import known_table
from nas_nb.methods import settings_of
from nas_nb.operations import DARTS_OPS, NB201_OPS
from nas_nb.papers import credit_ends as ends
from nas_nb.papers import credit_verdicts as verdicts
from nas_nb.papers.arena_oneshot import MAKERS, SAMPLED, halves, one_search, search_cost_run
from nas_nb.papers.cifar10_runs import multiply_adds
from nas_nb.papers.credit_runs import VARIANTS, Writer, rnn_run
from nas_nb.papers.credit_search import equal_tries, table_cost_run
from nas_nb.relaxations import Weights, one_hot, softmax
from nas_nb.sampling import SNAS, ProxylessReinforce, log_gates, reinforce_gradient
from nas_nb.search import search
from nas_nb.tables import TABLE_CELL
from nas_nb.tiny import DATA, TinyNetwork
from nas_nb.training import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = json.loads((Path(__file__).parent / "credit_cases.json").read_text())
ops = {name: DARTS_OPS[name] for name in list(DARTS_OPS)[1:6]}  # five operations, none of them `none`
THREE = CellSpace(ops, nodes=2, output="last", alike=True, wiring=((0, 0), (1, 0), (2, 1)))
CONVS = {k: NB201_OPS[k] for k in ("nor_conv_3x3", "nor_conv_1x1")}
CONV_CELL = CellSpace(CONVS, nodes=3, output="last", alike=True, wiring=NB201_WIRING)


def constant(x):
    return torch.tensor(x, dtype=torch.float64)


def same(found, expected, tol=1e-7):  # the cases were computed in float32
    torch.testing.assert_close(found.detach().double(), constant(expected), rtol=1e-6, atol=tol)


def told(method, choices, slopes):
    "What the loop would tell a method that had drawn `choices` (edges,): its contributions after all charges."
    method.asked, method.cuts = torch.tensor([choices]), []
    found = method.contributions(torch.zeros(1, dtype=torch.float64), constant([slopes]))[0]
    return method.charged(method.asked[0], found)


def of(rows, choices):  # dL/da at the drawn operations
    return [row[c] for row, c in zip(rows, choices)]


# -- the reference cases --

BASIC = CASES["advantage_basic"]["input"]
STEPS = CASES["advantage_adam_three_updates"]["input"]["steps"]


def test_the_gradient():
    slopes = constant(of(BASIC["dL_da"], BASIC["sampled"]))
    theta = constant(BASIC["theta"])
    same(theta.softmax(1), CASES["advantage_basic"]["probs"])
    same(credit_gradient(theta, BASIC["sampled"], -slopes), CASES["advantage_basic"]["expected"])


def test_with_a_baseline_that_is_used_before_it_learns():
    method, theta = Credit(THREE, baseline=True).double(), constant(BASIC["theta"])
    for step, expected in zip(STEPS, CASES["advantage_with_baseline"]["expected"], strict=True):
        found = told(method, step["sampled"], of(step["dL_da"], step["sampled"]))
        same(credit_gradient(theta, step["sampled"], found), expected["grad"])
        same(-method.baselines, expected["ema"])


def test_reinforce():
    case = CASES["reinforce"]["input"]
    found = reinforce_gradient(
        constant(case["theta"]), torch.tensor([case["sampled"]]), constant([-case["reward"]])
    )
    same(found, CASES["reinforce"]["expected"])


def test_moving_average():
    average, found = None, []
    for x in (1.0, 2.0, 4.0):
        found.append((average := moving_average(average, constant(x))).item())
    assert found == pytest.approx(CASES["ema_coef_0.05"]["expected"], rel=1e-12)


def test_three_updates_of_the_whole_method():
    method = Credit(THREE, lr=1e-3, zero="nothing", decay=0.0, clip=1e9).double()
    with torch.no_grad():
        method.alpha.copy_(constant(CASES["advantage_adam_three_updates"]["init"]))
    for step, expected in zip(STEPS, CASES["advantage_adam_three_updates"]["expected"], strict=True):
        method.asked, method.cuts = torch.tensor([step["sampled"]]), []
        method.credit(torch.zeros(1), constant([of(step["dL_da"], step["sampled"])]))
        same(method.alpha, expected, tol=3e-7)


def test_adam_with_decay_and_clipping_as_chainer_does_it():
    theta, rng = np.array([[0.3, -0.2], [1.0, 0.4]]), np.random.default_rng(0)
    found, m, v = constant(theta.tolist()), np.zeros((2, 2)), np.zeros((2, 2))
    mean, square = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, 2, dtype=torch.float64)
    for t in (1, 2, 3):
        g = rng.normal(size=(2, 2)) * (5.0 if t == 2 else 0.1)  # the second is clipped
        gradient = decayed_and_clipped(constant(g.tolist()), found, 0.003, 1.0)
        chainer_adam(found, gradient, mean, square, t, 1e-3)
        g = g + 0.003 * theta  # first the decay, then the clip
        g = g * min(1.0, 1.0 / np.sqrt((g * g).sum()))
        m, v = 0.5 * m + 0.5 * g, 0.999 * v + 0.001 * g * g
        theta = theta - 1e-3 * np.sqrt(1 - 0.999**t) / (1 - 0.5**t) * m / (np.sqrt(v) + 1e-8)
        torch.testing.assert_close(found, constant(theta.tolist()), rtol=1e-9, atol=1e-12)


def test_parsec():
    case = CASES["parsec_8_samples"]["input"]
    args = constant(case["theta"]), torch.tensor(case["samples"]), constant(case["losses"])
    same(parsec_gradient(*args), CASES["parsec_8_samples"]["expected_grad"])
    theta, samples, losses = args  # as published: weights by the likelihood of 3 images, upwards
    weights = np.exp(-3 * np.array(case["losses"]))
    rows = F.one_hot(samples, 5).double() - theta.softmax(1)
    expected = -(constant((weights / weights.sum()).tolist())[:, None, None] * rows).sum(0)
    torch.testing.assert_close(parsec_gradient(*args, images=3), expected)


def test_dsnas_is_the_same_quantity():
    theta = constant([[0.3, -0.2, 0.5, 0.1], [0.0, 1.0, 0.0, 0.3]]).requires_grad_()
    slopes = constant([-0.4, 0.25])
    for choices in itertools.product(range(4), repeat=2):
        (dsnas,) = torch.autograd.grad((log_gates(theta, list(choices)).values.sum(1) * slopes).sum(), theta)
        torch.testing.assert_close(dsnas, credit_gradient(theta.detach(), list(choices), -slopes))
    expected = CASES["dsnas_alpha_gradient"]["expected"]
    R, p = [-0.4, 0.25], [np.array(row) for row in expected]
    # row = R (one-hot - p), so the row sums to 0, and 1 - row / R at the drawn operation is its probability
    assert [abs(row.sum()) < 1e-6 for row in p] == [True, True]
    theta = torch.stack(
        [constant([(k == a) - g / r for k, g in enumerate(row)]) for row, a, r in zip(p, (2, 0), R)]
    ).log()
    same(credit_gradient(theta, [2, 0], -constant(R)), expected)


# -- the operation none --


def slowly(steps, zero, rule):
    "The rule in plain numbers: losses, as in the public code."
    ema, charged = None, []
    for sampled, slopes in steps:
        row = [slopes if k == sampled else (0.0 if ema is None else ema[k]) for k in range(3)]
        ema = row if ema is None else [0.05 * r + 0.95 * e for r, e in zip(row, ema)]
        worst = max(ema if rule == "public" else [e for k, e in enumerate(ema) if k != zero])
        charged.append(worst if sampled == zero else slopes)
    return charged


NONE_CELL = CellSpace(
    {k: NB201_OPS[k] for k in ("nor_conv_3x3", "none", "skip_connect")}, nodes=1, alike=True
)
SEEN = [(0, 0.7), (1, 0.0), (2, -0.3), (0, -0.9), (1, 0.0), (2, -2.0), (1, 0.0)]
HELPED = [(0, -0.7), (2, -0.5), (1, 0.0), (0, -0.2), (1, 0.0)]  # where the two rules differ


@pytest.mark.parametrize("rule", ["public", "domestic"])
@pytest.mark.parametrize("steps", [SEEN, HELPED], ids=["some harm", "all help"])
def test_none_is_charged_the_worst_that_is_known(steps, rule):
    E, method = len(NONE_CELL.sizes), Credit(NONE_CELL, zero=rule).double()
    found = [-told(method, [k] * E, [slope] * E) for k, slope in steps]
    expected = slowly(steps, 1, rule)
    same(torch.stack(found), [[x] * E for x in expected])
    assert (min(expected) < 0) and (steps is SEEN or rule == "public" or expected[2] < 0)


def test_none_charged_by_definition():
    E, method = len(NONE_CELL.sizes), Credit(NONE_CELL, zero="nothing").double()
    told(method, [0] * E, [0.7] * E)
    assert told(method, [1] * E, [0.0] * E).tolist() == [0.0] * E
    average = constant([[0.0, 0.1, 0.3]])
    assert [zero_contribution(average, 0, r).item() for r in ("public", "domestic", "nothing")] == [0, 0.1, 0]


# -- contributions --

COSTS = constant([[1.0, 0.2, 0.5, -0.3, 0.8], [0.3, 0.9, 0.1, 0.0, -0.4], [0.6, -0.1, 0.4, 0.2, 0.7]])


def linear(w):
    values = w.values if w.values is not None else one_hot_values(w)
    return (values * COSTS).sum()


def one_hot_values(w):
    values = torch.zeros_like(COSTS)
    for row, chosen in zip(values, w.chosen):
        row[list(chosen)] = 1
    return values


def test_on_a_linear_loss_first_order_is_exact():
    for choices in ([0, 1, 2], [4, 4, 1]):
        costs = COSTS[range(3), choices]
        for found in (exact_contributions, approximate_contributions):
            torch.testing.assert_close(found(linear, THREE, choices).double(), -costs, atol=1e-7, rtol=1e-6)


def test_contributions_of_a_network_and_none_among_them():
    torch.manual_seed(0)
    network, x, y = (
        TinyNetwork(TABLE_CELL).double().train(),
        torch.randn(16, 1, 8, 8).double(),
        torch.arange(16) % 10,
    )
    calls = []

    def loss(w):
        calls.append(w.chosen)
        return F.cross_entropy(network(x, w), y)

    choices, kept = [2, 1, 0, 3, 2, 2], [b.clone() for b in network.buffers()]
    with as_it_was(network), torch.no_grad():
        exact = exact_contributions(loss, TABLE_CELL, choices)
        without_3 = loss(without(choices, 3)) - loss(one_hot(choices))
    assert (
        len(calls) == 1 + 5 + 2 and exact[2] == 0 and exact[3] == pytest.approx(without_3.item(), abs=1e-12)
    )
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), kept))
    small = open_gates(TABLE_CELL, choices, torch.float64)  # the slope is that of a finite difference
    (slopes,) = torch.autograd.grad(loss(small), small.values, materialize_grads=True)
    for e in (0, 1, 3, 4, 5):
        with torch.no_grad():
            a, b = (loss(gate(choices, e, t)) for t in (1 + 1e-4, 1 - 1e-4))
        assert slopes[e, choices[e]].item() == pytest.approx(((a - b) / 2e-4).item(), abs=1e-5)


def gate(choices, e, t):
    w = open_gates(TABLE_CELL, choices, torch.float64)
    with torch.no_grad():
        w.values[e] *= t
    return w


def architectures(theta):
    for row in itertools.product(range(theta.shape[1]), repeat=len(theta)):
        yield torch.tensor(row), theta.softmax(1)[range(len(theta)), row].prod()


def test_the_expectation_is_the_exact_gradient_and_the_variance_below_reinforce():
    theta, costs = constant([[0.3, -0.2, 0.5], [0.0, 0.4, -0.1]]).requires_grad_(), COSTS[:2, :3]
    (exact,) = torch.autograd.grad((theta.softmax(1) * costs).sum(), theta)
    theta, sums = theta.detach(), {}
    assert sum(p for _, p in architectures(theta)).item() == pytest.approx(1)
    for at, p in architectures(theta):
        own = costs[range(2), at]
        for name, g in {
            "credit": credit_gradient(theta, at, -own),
            "reinforce": reinforce_gradient(theta, at[None], -own.sum()[None]),
        }.items():
            mean, square = sums.get(name, (0, 0))
            sums[name] = mean + p * g, square + p * g**2
    variance = {name: (square - mean**2).sum().item() for name, (mean, square) in sums.items()}
    for mean, _ in sums.values():
        torch.testing.assert_close(mean, exact)
    assert variance["credit"] < variance["reinforce"]


# -- the blind spot --


def test_who_normalises():
    found = dict(zip(DARTS_CELL.ops, normalises(DARTS_CELL)))
    convs = [name for name in DARTS_CELL.ops if "conv" in name]
    assert all(found[name] for name in (*convs, "none")) and not found["skip_connect"]
    state = torch.get_rng_state()
    normalises(TABLE_CELL)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("choices", [[0] * 6, [1] * 6, [0, 1, 1, 0, 1, 0]])
def test_credit_of_a_blind_group_adds_up_to_zero_and_the_exact_does_not(choices):
    torch.manual_seed(1)
    network, x, y = (
        TinyNetwork(CONV_CELL).double().train(),
        torch.randn(32, 1, 8, 8).double(),
        torch.arange(32) % 10,
    )
    loss = lambda w: F.cross_entropy(network(x, w), y)
    groups = blind_groups(CONV_CELL, choices, normalises(CONV_CELL))
    assert groups == [[0], [1, 2]]
    slope, exact = (
        approximate_contributions(loss, CONV_CELL, choices),
        exact_contributions(loss, CONV_CELL, choices),
    )
    for group in groups:
        assert abs(slope[group].sum()) < 1e-4 < 1e-3 < abs(exact[group].sum())
    assert abs(slope[[3, 4, 5]]).min() > 1e-4  # these are seen
    with torch.no_grad():
        losses = [loss(with_gate(CONV_CELL, choices, 0, t)).item() for t in (1, 0.5, 0)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4) and abs(losses[0] - losses[2]) > 1e-3


def test_groups_follow_what_is_chosen():
    blind = normalises(TABLE_CELL)  # none, skip, conv, pool
    groups = lambda *choices: blind_groups(TABLE_CELL, list(choices), blind)
    assert groups(2, 2, 2, 2, 2, 2) == [[0], [1, 2]]
    assert groups(2, 2, 1, 2, 2, 2) == [[1, 2]]  # a skip connection from node 1
    assert groups(2, 0, 2, 2, 2, 2) == [[0], [2]]  # none is in no group
    assert groups(2, 2, 2, 2, 3, 1) == []
    assert blind_groups(DARTS_CELL, [4] * 28, normalises(DARTS_CELL)) == []
    with pytest.raises(ValueError, match="choices must be 6 whole numbers"):
        groups(2, 2, 2)


def test_the_mend_cuts_what_is_blind_and_nothing_else():
    method = MendedCredit(CONV_CELL)
    probes = method.probes(1, 2)
    assert len(probes) == 2 + 2 * 3 and method.cuts == [(s, e) for s in (0, 1) for e in (0, 1, 2)]
    losses, slopes = constant([1.0, 2.0, 1.5, 1.1, 0.9, 2.5, 2.5, 2.5]), torch.full((8, 6), 0.25).double()
    found = method.contributions(losses, slopes)
    same(found, [[0.5, 0.1, -0.1, -0.25, -0.25, -0.25], [0.5, 0.5, 0.5, -0.25, -0.25, -0.25]])


def test_the_table_of_contributions():
    torch.manual_seed(0)
    network, batch = TinyNetwork(CONV_CELL).train(), (torch.randn(16, 1, 8, 8), torch.arange(16) % 10)
    before = [b.clone() for b in network.buffers()]
    df = contribution_table(network, batch, [[0] * 6, [1] * 6])
    assert len(df) == 12 and all(torch.equal(a, b) for a, b in zip(network.buffers(), before))
    blind = df["edge"] < 3
    assert (df["mended"] == df["exact"].where(blind, df["backward"])).all()
    assert (df["backward"][df["edge"] == 0].abs() < 1e-4).all()
    assert (df["exact"][df["edge"] == 0].abs() > 1e-4).all()


# -- in the search loop --

SOME = Images(
    torch.randint(0, 256, (64, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)),
    torch.arange(64) % 3,
    ("a", "b", "c"),
)
TRAIN, VALID = (Batches(SOME, 8, mean=(0.5,), std=(0.5,), seed=s) for s in (1, 2))
RECIPE = Recipe(4, "momentum", 0.05, clip=5.0, channels_last=False)
KINDS = {"one backward pass": Credit, "exact": ExactCredit, "mended": MendedCredit}


def fresh(kind=Credit, space=TABLE_CELL, **settings):
    torch.manual_seed(0)
    return TinyNetwork(space, (1, 8, 8), 3, 4), kind(space, lr=0.05, **settings)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_search_that_is_stopped_goes_on_to_the_same_bits(kind, tmp_path):
    whole, method = fresh(kind, baseline=True)
    history = search(whole, method, TRAIN, VALID, RECIPE, every=2, samples=2)

    def stop(step):
        if step == 3:
            raise KeyboardInterrupt
        return TRAIN(step)

    path = tmp_path / "a.pt"
    with pytest.raises(KeyboardInterrupt):
        search(
            *fresh(kind, baseline=True),
            stop,
            VALID,
            RECIPE,
            every=2,
            samples=2,
            ckpt=Checkpoint(path, every=0),
        )
    network, resumed = fresh(kind, baseline=True)
    again = search(network, resumed, TRAIN, VALID, RECIPE, every=2, samples=2, ckpt=Checkpoint(path))
    assert again == history
    for a, b in ((method, resumed), (whole, network)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))
    assert not torch.equal(method.alpha, fresh(kind)[1].alpha)


@pytest.mark.parametrize("space", [DARTS_CELL, TABLE_CELL, CONV_CELL], ids=["DARTS", "table", "convs"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_it_runs_on_every_space_with_edges(kind, space):
    torch.manual_seed(0)
    network, method = CellNetwork(space, (1, 8, 8), 3, channels=4, cells=1), kind(space)
    search(network, method, TRAIN, VALID, Recipe(2, "momentum", 0.05, channels_last=False))
    assert method.architecture() and method.updates == 2 and method.seen == 2


def test_what_the_loop_tells_is_what_contributions_say():
    network, method = fresh(decay=0.0, zero="nothing", clip=1e9)
    heard = []
    method.credit = lambda losses, slopes: heard.append((losses, slopes))
    search(network, method, TRAIN, VALID, Recipe(1, "momentum", 0.05, channels_last=False))
    other, _ = fresh()
    search(
        other, fresh()[1], TRAIN, VALID, Recipe(1, "momentum", 0.05, channels_last=False)
    )  # the same weights
    x, y = VALID(0)
    loss = lambda w: F.cross_entropy(other(x, w), y)
    expected = approximate_contributions(loss, TABLE_CELL, method.draw(1, 1)[0].tolist())
    (losses, slopes), choices = heard[0], method.draw(1, 1)[0].tolist()
    torch.testing.assert_close(-slopes[0], expected.double(), rtol=1e-4, atol=1e-6)
    assert losses.item() == pytest.approx(loss(one_hot(choices)).item(), rel=1e-4)


def test_the_arena_runs_it_and_counts_what_a_step_costs():
    mine = [name for name in MAKERS if "credit" in name]
    assert {"credit assignment", "credit assignment, mended"} <= set(mine) and set(mine) <= set(SAMPLED)
    for name in mine:
        found = one_search(name, "digits", False, True, 1.0, steps=4, looks=2, rank=False, seed=0)
        assert [len(code) for code in found["path"]] == [6, 6]
    cost = {m: search_cost_run(m, "digits", 12, 2, 0)["multiply_adds"] for m in (mine[0], "DARTS")}
    assert 0 < cost["credit assignment"][1] < cost["DARTS"][1]


def test_the_cost_of_a_search_is_that_of_counting_every_step():
    data = DATA["digits"]
    network, m = TinyNetwork(data.space, data.shape), MAKERS["DARTS"](data.space, 0, 12, 0.1)
    weights, theta, _, _ = halves(data, 0, True)
    recipe = Recipe(12, "momentum", 0.1, clip=5.0, channels_last=False)
    every = multiply_adds(lambda: search(network, m, weights, theta, recipe, seed=0, lr=0.1))
    assert search_cost_run("DARTS", "digits", 12, 3, 0)["multiply_adds"] == [every / 3, every * 2 / 3, every]


def test_what_was_drawn_before_does_not_change_what_is_counted():
    counts = []
    for before in (1, 2):
        torch.manual_seed(before)
        searched = search_cost_run("ASNG", "digits", 21, 1, 0)["multiply_adds"]
        counts.append([searched, table_cost_run(["REINFORCE"], "digits", 2, 12, 0)["multiply_adds"]])
    assert counts[0] == counts[1]


def test_the_cost_of_a_step_does_not_depend_on_the_number_of_operations():
    from torch.utils.flop_counter import FlopCounterMode

    def counted(J, dense):
        space = CellSpace({f"sep {k}": DARTS_OPS["sep_conv_3x3"] for k in range(J)}, nodes=2)
        network = CellNetwork(space, (1, 8, 8), 3, channels=4, cells=1).requires_grad_(False)
        w = softmax(torch.zeros(10, J, requires_grad=True)) if dense else open_gates(space, [0] * 10)
        with FlopCounterMode(display=False) as counter:
            network(torch.randn(2, 1, 8, 8), w).sum().backward()
        return counter.get_total_flops()

    sampled, mixed = ([counted(J, dense) for J in (1, 3, 6)] for dense in (False, True))
    assert len(set(sampled)) == 1 and mixed[0] < mixed[1] < mixed[2]


PROCESS = """
import os, sys, torch
sys.path.insert(0, sys.argv[2])
import test_credit as t
torch.set_num_threads(1)
where = f"file://{sys.argv[1]}/meet"
rank = int(os.environ["RANK"])
torch.distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
network, method = t.fresh(t.MendedCredit, t.CONV_CELL)
history = t.search(network, method, t.TRAIN, t.VALID, t.RECIPE, paths=3, samples=2, every=1)
torch.save(dict(method=method.state_dict(), history=history), f"{sys.argv[1]}/{rank}.out")
torch.distributed.destroy_process_group()
"""


def test_two_processes_give_what_one_gives(tmp_path):
    here, env = os.path.dirname(__file__), os.environ | dict(OMP_NUM_THREADS="1")
    run = lambda rank: subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(tmp_path), here],
        env=env | dict(RANK=str(rank)),
        stderr=subprocess.PIPE,
        text=True,
    )
    for p in [run(0), run(1)]:
        _, err = p.communicate(timeout=240)
        assert p.returncode == 0, err
    network, method = fresh(MendedCredit, CONV_CELL)
    history = search(network, method, TRAIN, VALID, RECIPE, paths=3, samples=2, every=1)
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.out")
        torch.testing.assert_close(found["method"]["alpha"], method.alpha.detach(), rtol=1e-3, atol=1e-3)
        assert [row["step"] for row in found["history"]] == [row["step"] for row in history]
        assert found["history"][-1]["train_loss"] == pytest.approx(history[-1]["train_loss"], rel=1e-4)
    a, b = (torch.load(tmp_path / f"{rank}.out")["method"] for rank in (0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a.values(), b.values()))


# -- bad input, one sentence each --


def ONE(w):
    return torch.tensor(1.0)


def NAN(w):
    return torch.tensor(torch.nan)


def INF_WITHOUT(w):  # not finite where an edge is cut
    return torch.tensor(torch.inf if () in w.chosen else 1.0)


def test_an_architecture_without_operations_has_nothing_to_lose():
    network, (x, y) = TinyNetwork(TABLE_CELL).train(), (torch.randn(16, 1, 8, 8), torch.arange(16) % 10)

    def loss(w):
        return F.cross_entropy(network(x, w), y)

    none = list(TABLE_CELL.ops).index("none")
    for contributions in (exact_contributions, approximate_contributions):
        assert torch.equal(contributions(loss, TABLE_CELL, [none] * 6), torch.zeros(6))
    method = MendedCredit(TABLE_CELL)
    method.set_theta(F.one_hot(torch.full((6,), none), 4).float() * 0.97 + 0.0075)
    assert method.cut([none] * 6) == []


def test_a_loss_that_counts_has_fractions_of_a_contribution():
    loss = lambda w: 1 if all(w.chosen) else 1.75
    assert exact_contributions(loss, TABLE_CELL, [1] * 6).tolist() == [0.75] * 6


STEEP = lambda w: (w.values[0, 1] - 1).abs().sqrt()  # finite at the gate 1, its derivative is not
SAMPLES = torch.tensor([[0, 1], [1, 0]])


def test_bad_input():
    none = CellSpace({"none": DARTS_OPS["none"]})
    bad = {
        "a contribution is that of an edge": lambda: Credit(ASNG_CELL),
        "no search space": lambda: Credit("cell"),
        "nothing to give credit for": lambda: Credit(none),
        "take one of public, domestic, nothing": lambda: Credit(DARTS_CELL, zero="worst"),
        "lr must be a number above 0": lambda: Credit(DARTS_CELL, lr=0),
        "decay must be a number from 0": lambda: Credit(DARTS_CELL, decay=-1),
        "choices must be 6 whole numbers": lambda: open_gates(TABLE_CELL, [0, 1]),
        "from 0 to 3": lambda: open_gates(TABLE_CELL, [4] * 6),
        "there are the edges 0 to 5": lambda: without([0] * 6, 6),
        "do not fit alpha": lambda: credit_gradient(torch.zeros(3, 2), [0, 1], torch.zeros(3)),
        "one for each edge": lambda: credit_gradient(torch.zeros(2, 2), [0, 1], torch.zeros(3)),
        "ask for samples first": lambda: Credit(DARTS_CELL).credit(torch.zeros(1), torch.zeros(1, 28)),
        "its settings are paths, samples": lambda: settings_of(Credit(DARTS_CELL), dict(lr=0.1)),
        "wiring has no edge to node 0": lambda: Credit(CellSpace(DARTS_OPS, nodes=2, wiring=())),
        "6 whole numbers from 0 to 3": lambda: exact_contributions(ONE, TABLE_CELL, [4] * 6),
        "choices must be 28 whole": lambda: approximate_contributions(ONE, DARTS_CELL, [0]),
        "not 'high'": lambda: approximate_contributions(lambda w: "high", TABLE_CELL, [1] * 6),
        "has no gradient": lambda: approximate_contributions(ONE, TABLE_CELL, [1] * 6),
        "the loss is nan": lambda: exact_contributions(NAN, TABLE_CELL, [1] * 6),
        "the loss is inf": lambda: exact_contributions(INF_WITHOUT, TABLE_CELL, [1] * 6),
        "the loss is nan: contributions": lambda: approximate_contributions(NAN, TABLE_CELL, [1] * 6),
        "choices must be 6": lambda: blind_groups(TABLE_CELL, [4] * 6, [False] * 4),
        "of an edge: take": lambda: blind_groups(ASNG_CELL, [0] * 40, [False] * 5),
        "weights_first = -1 must be": lambda: settings_of(Credit(DARTS_CELL), dict(weights_first=-1)),
        "6 whole numbers from 0 to 3, not .1.5": lambda: open_gates(TABLE_CELL, [1.5] * 6),
        "not .True": lambda: exact_contributions(ONE, TABLE_CELL, [True] * 6),
        "not 'none'": lambda: open_gates(TABLE_CELL, "none"),
        "function of the weights": lambda: exact_contributions(1.0, TABLE_CELL, [1] * 6),
        "edge = 0.5": lambda: without([0] * 6, 0.5),
        "for a gate is not finite": lambda: approximate_contributions(STEEP, TABLE_CELL, [1] * 6),
        "whole numbers from 0 to 1, not": lambda: credit_gradient(torch.zeros(2, 2), [0, 2], torch.zeros(2)),
        "one shape": lambda: moving_average(torch.zeros(2), torch.zeros(3)),
        "must have one shape": lambda: decayed_and_clipped(torch.zeros(2), torch.zeros(1)),
        "zero = 9": lambda: zero_contribution(torch.zeros(2, 3), 9),
        "images = -1": lambda: parsec_gradient(torch.zeros(2, 2), SAMPLES, torch.zeros(2), -1),
        "each of the 2 samples": lambda: parsec_gradient(torch.zeros(2, 2), SAMPLES, torch.zeros(1)),
        "baseline = 'no'": lambda: Credit(TABLE_CELL, baseline="no"),
        "step = 0": lambda: chainer_adam(*torch.zeros(4, 2), 0, 0.1),
    }
    for says, f in bad.items():
        with pytest.raises(ValueError, match=says) as error:
            f()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [Credit, MendedCredit, ProxylessReinforce, SNAS])
def test_weights_first(kind):
    "Nothing of the architecture moves while the weights learn alone, and it does afterwards."
    looks = []
    for first in (2, 3):
        torch.manual_seed(0)
        network, method = TinyNetwork(TABLE_CELL, (1, 8, 8), 3, 4), kind(TABLE_CELL, seed=0)
        before = [method.alpha.clone(), *(p.clone() for p in network.parameters())]
        recipe = Recipe(3, "momentum", 0.1, channels_last=False)
        search(network, method, TRAIN, VALID, recipe, weights_first=first)
        now = [method.alpha, *network.parameters()]
        looks.append([torch.equal(a, b) for a, b in zip(before, now)])
    assert not looks[0][0] and looks[1][0] and not all(looks[1][1:])


@pytest.mark.parametrize("where", ["loss", "slope"])
def test_a_loss_that_is_not_finite_is_refused_and_nothing_moves(where):
    method = Credit(TABLE_CELL)
    method.probes(1, 1)
    losses, slopes = torch.ones(1), torch.zeros(1, 6)
    (losses if where == "loss" else slopes[0])[0] = torch.nan
    before = {k: v.clone() for k, v in method.state_dict().items()}
    with pytest.raises(ValueError, match="not finite"):
        method.credit(losses, slopes)
    assert all(torch.equal(v, method.state_dict()[k]) for k, v in before.items())
    with pytest.raises(ValueError, match="1 losses and 1 × 6 slopes"):
        method.credit(torch.ones(2), torch.zeros(2, 6))


# -- the toy experiment --


def test_toy_slopes_are_those_of_autograd():
    toy = Toy(range(2), positions=3, candidates=4, images=5)
    c = toy.channels(toy.patches(0))
    a = torch.rand(2, 3, 4).requires_grad_()
    target = torch.randn(2, 5)
    selected = (a[..., None] * c).sum(2)
    loss, back = toy.slopes(selected, target)
    by_hand = (((selected.tanh().view(2, 3, 5, 16) * toy.second).sum((1, 3)) / 3 - target) ** 2).mean(1)
    torch.testing.assert_close(loss, by_hand)
    (expected,) = torch.autograd.grad(by_hand.sum(), a)
    torch.testing.assert_close((back[:, :, None] * c).sum(3).detach(), expected, rtol=1e-4, atol=1e-6)


def test_toy_channels_are_a_convolution():
    toy = Toy([7], images=2)
    u = toy._uniform(2 * 169, 4, 3).view(2, 1, 13, 13) * 2 - 1
    expected = F.conv2d(u, toy.first[0].view(100, 1, 7, 7), stride=2)  # (2, 100, 4, 4)
    found = toy.channels(toy.patches(3)).view(100, 2, 4, 4).transpose(0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_trial_does_not_depend_on_those_beside_it():
    together = run_toy(Toy([3, 4, 5], images=20), list(TOY_METHODS), 60, 20)
    alone = run_toy(Toy([4], images=20), list(TOY_METHODS), 60, 20)
    first = (Toy([3, 4, 5]).teacher == 0).sum(1)  # everybody begins with candidate 0
    for name in TOY_METHODS:
        assert torch.equal(together[name][:, 1], alone[name][:, 0]), name
        assert together[name].shape == (4, 3) and torch.equal(together[name][0], first)


def test_toy_methods_learn_but_for_the_public_parsec():
    right = run_toy(Toy(range(4)), ["DARTS", "NASP", "credit", "PARSEC (public code)"], 300, 300)
    ends = {name: rows[-1].double().mean().item() for name, rows in right.items()}
    assert ends["DARTS"] > 5 and ends["NASP"] > 5 and ends["credit"] > 4 > ends["PARSEC (public code)"] + 1


def test_toy_two_paths_leave_all_others():
    toy = Toy(range(2), images=10)
    method = TOY_METHODS["ProxylessNAS"](toy, 100)
    for step in range(6):
        before, at = method.theta.log_softmax(2), method.draw(toy_noise(toy, step))
        with torch.no_grad():
            c, target = toy.channels(toy.patches(step), at), torch.zeros(2, 10)
            method.step(step, c, at, toy_noise(toy, step), target)
        moved = (method.theta.log_softmax(2) - before).abs()
        others = torch.ones_like(moved).scatter(2, at, 0).bool()
        assert moved[others].max() < 1e-6 < 1e-5 < moved[~others].max()


# -- the recurrent networks --


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_seed_does_not_depend_on_those_beside_it(variant):
    sizes = dict(variant=variant, optimizer="Adam", steps=20, looks=2, shown=1)
    together, alone = rnn_run(seeds=3, seed=10, **sizes), rnn_run(seeds=1, seed=11, **sizes)
    assert together["outputs"][1] == pytest.approx(alone["outputs"][0], abs=2e-4)


def test_the_recurrence_is_that_of_torch():
    writer = Writer([0, 1], inputs=(1.0, 0.0, 1.0, 0.0))
    raw, _ = writer.write(0, free=True)
    rnn = torch.nn.RNN(1, 16, batch_first=True)
    wx, wh, b, wo, bo = writer.weights
    with torch.no_grad():
        for p, w in zip(rnn.parameters(), (wx[1].T, wh[1].T, b[1, 0], torch.zeros(16))):
            p.copy_(w)
        h, _ = rnn(torch.tensor([[[1.0], [0.0], [1.0], [0.0]]]))
        torch.testing.assert_close(raw[1], (h[0] @ wo[1] + bo[1])[:, 0], rtol=1e-5, atol=1e-6)


def test_the_lstm_is_that_of_torch():
    writer = Writer([0, 1], lstm=True, inputs=(1.0, 0.0, 1.0, 0.0))
    raw, _ = writer.write(0, free=True)
    lstm = torch.nn.LSTM(1, 16, batch_first=True)
    wx, wh, b, wo, bo = writer.weights
    with torch.no_grad():
        for p, w in zip(lstm.parameters(), (wx[1].T, wh[1].T, b[1, 0], torch.zeros(64))):
            p.copy_(w)
        h, _ = lstm(torch.tensor([[[1.0], [0.0], [1.0], [0.0]]]))
        torch.testing.assert_close(raw[1], (h[0] @ wo[1] + bo[1])[:, 0], rtol=1e-5, atol=1e-6)


def test_reinforce_has_the_sign_that_lowers_the_loss():
    writer = Writer(range(20), loss="reinforce")
    raw, bits = writer.write(0)
    losses = writer.losses(raw, bits, torch.full((20,), 0.5))
    wrong = (bits - writer.target).abs().mean(1)
    (slope,) = torch.autograd.grad(losses.sum(), raw)
    step = raw.detach() - 0.1 * slope  # bits of a bad sample get less likely, those of a good one more
    log_p = lambda x: -F.binary_cross_entropy_with_logits(x, bits, reduction="none").sum(1)
    change = log_p(step) - log_p(raw.detach())
    assert (change[wrong > 0.5] < 0).all() and (change[wrong < 0.5] > 0).all()
    assert (wrong > 0.5).any() and (wrong < 0.5).any()


def test_what_learns_and_what_cannot():
    run = lambda variant: rnn_run(variant, "Adam", steps=200, looks=2, seeds=10, shown=1, seed=0)
    for variant in ("input sequence (4.1)", "own output (4.2)", "cross-entropy", "teacher forcing"):
        assert sum(run(variant)["right"]) >= 9, variant
    rounded = run("rounded output in the loss")
    assert rounded["path"][0]["outputs"] == rounded["path"][-1]["outputs"]
    assert any(max(row) <= 0 for row in run("ReLU output")["outputs"])


def test_weights_of_a_network_are_not_touched_by_gates():
    w = open_gates(TABLE_CELL, [2] * 6)
    assert isinstance(w, Weights) and w.values.requires_grad and w.values.sum() == 6


@pytest.mark.parametrize("name", ["seen", "updates", "square"])
def test_a_state_with_a_count_below_zero_is_refused_and_changes_nothing(name):
    method = Credit(CellSpace(DARTS_OPS, nodes=2))
    before = copy.deepcopy(method.state_dict())
    with pytest.raises(ValueError, match="was altered"):
        method.load_state_dict(before | {name: before[name] - 1})
    assert all(torch.equal(x, before[k]) for k, x in method.state_dict().items())
    method.load_state_dict(before)


# -- searches of the document --


def made(method, accuracies, null=False, first=2, seed=1000):
    "A record of the table's space: one search a path."
    found = [
        dict(path=path if method == "random search" else path[-1:], shared=[20.0, 30.0])
        for path in accuracies
    ]
    return dict(
        seed=seed, config=dict(method=method, null=null, first=first, steps=60), result=dict(searches=found)
    )


def test_searches_are_looked_up_by_what_they_are_called():
    table = known_table("digits")
    good, bad = "222222", "000000"
    records = [
        made("credit assignment", [[bad, good]] * 5),
        made("credit assignment", [[bad, good]] * 3, null=True),
        made("credit assignment", [[good, bad]] * 5, first=0),
        made("random search", [[bad, good]] * 5),
    ]
    df = ends.search_table(records, table)
    assert set(df["name"]) == {
        ends.CREDIT, ends.PERMUTED, ends.AT_ONCE, "random search", "random search, 100 tries",
        f"random search, {equal_tries(60, 2)} tries",
    }  # fmt: skip
    top = table.score([[2] * 6]).item() - table.score([[0] * 6]).item()
    assert ends.lead(df, ends.CREDIT, ends.AT_ONCE).tolist() == pytest.approx([top] * 5)
    assert ends.lead(df, ends.CREDIT, ends.PERMUTED).tolist() == [0] * 3
    assert (
        not len(ends.lead(df, ends.CREDIT, "SNAS")) and ends.lead(df, ends.CREDIT, "random search").sum() == 0
    )
    assert df["convolutions"].isin([0, 6]).all()


def test_too_few_pairs_are_no_verdict():
    asked = []
    stated = {"search-learns": dict(rule="better", smallest=1.0)}
    study = SimpleNamespace(judge=lambda id, told, **more: asked.append(more), stated=stated)
    ends.judge_leads(study, "search-learns", {"a": np.ones(9), "b": np.ones(4)})
    ends.judge_leads(study, "search-learns", {"a": np.ones(9)})
    ends.judge_leads(study, "search-learns", {"a": np.ones(9)}, room=0.9)
    assert asked[0] == dict(tested=False, pairs=4, needed="about 20 pairs")
    assert len(asked[1]["differences"]) == 9 and asked[1]["tested"]
    assert asked[2]["tested"] is False and asked[2]["room"] == 0.9  # no room for what would matter


def test_a_distribution_that_has_hardly_moved_is_not_tested():
    inside = pd.DataFrame(dict(dilated=[1, 1, 0, 0, 0], entropy=[0.98] * 5))
    assert verdicts.separable(inside, 40)["tested"] is False
    moved = verdicts.separable(inside.assign(entropy=0.5), 40)
    assert moved["holds"] and "tested" not in moved and moved["free"] == 3
    assert not verdicts.separable(inside.assign(entropy=0.5, dilated=1), 40)["holds"]


def test_parameters_are_not_judged_of_a_distribution_that_has_hardly_moved():
    inside = pd.DataFrame(dict(parameters=[9e9] * 5, entropy=0.98, nones=0, retrained=80.0, running=60.0))
    assert verdicts.small(inside, 5, 2, 3)["tested"] is False
    moved = verdicts.small(inside.assign(entropy=0.5), 5, 2, 3)
    assert "tested" not in moved and (moved["differences"] < 0).all() and moved["gain"] == "+20.0"


@pytest.mark.parametrize(
    "share, holds", [(0.1, False), (0.17, None), (0.25, True), (0.3, None), (0.5, False)]
)
def test_a_share_is_judged_where_both_readings_of_a_step_agree(share, holds):
    found = verdicts.time(dict(result=dict(sampled=[share, share], mixed=1.0, seconds=[])))
    assert found.get("holds") is holds and (found.get("tested") is False) == (holds is None)
    assert found["whole"] == pytest.approx(1.5 * found["share"])


@pytest.mark.parametrize("late, tested", [(1, True), (5, False)])
def test_computing_is_not_compared_where_most_trials_are_there_at_the_first_look(late, tested):
    there = lambda look: np.array([[0]] * look + [[10]] * (4 - look))  # (looks, one trial)
    right = dict(
        credit=np.hstack([there(2)] * 6), DARTS=np.hstack([there(1)] * late + [there(3)] * (6 - late))
    )
    found = verdicts.toy_work(right, 50)
    assert found.get("tested", True) is tested and found["at_once"] == f"{100 * late / 6:.0f}"


@pytest.fixture
def judged():  # what claims of the document are judged by: id → (told, differences, tested, …)
    from nas_nb.papers.credit_claims import CLAIMS

    found = {}
    judge = lambda id, told, **more: found.update({id: dict(told=told) | more})
    return SimpleNamespace(judge=judge, stated=CLAIMS, found=found)


def _ended(**percentiles):  # name → of each seed
    rows = [(name.replace("_", " "), s, p) for name, x in percentiles.items() for s, p in enumerate(x)]
    return pd.DataFrame(rows, columns=["name", "seed", "percentile"])


def test_ranks_are_paired_by_seed_and_other_rates_may_disagree(judged):
    same = dict(credit_assignment=[0.9, 0.95] * 5, DARTS=[0.7] * 10, SNAS=[0.91, 0.94] * 5)
    slow = _ended(**same | {f"{ends.FAST}": [0.2, 0.21] * 5})
    verdicts.judge_ranks(judged, _ended(random_search=[0.5] * 10, SNAS=[0.9] * 10), _ended(**same), slow)
    near, images = judged.found["near-rank"], judged.found["near-images"]
    assert near["differences"]["SNAS"].round(2).tolist() == [-0.01, 0.01] * 5 and near["tested"]
    assert not images["tested"] and "ten times the rate" in images["needed"]


def test_to_be_near_says_nothing_where_random_search_is_as_near(judged):
    same = _ended(credit_assignment=[0.9, 0.95] * 5, DARTS=[0.7] * 10, SNAS=[0.91, 0.94] * 5)
    verdicts.judge_ranks(judged, _ended(random_search=[0.85, 0.87] * 5, SNAS=[0.9] * 10), same, _ended())
    assert not judged.found["near-rank"]["tested"] and "random search" in judged.found["near-rank"]["needed"]


def test_ranks_wait_for_searches(judged):
    verdicts.judge_ranks(judged, _ended(), _ended(), _ended(credit_assignment=[0.9] * 10))
    assert not judged.found["near-rank"]["tested"] and not judged.found["near-images"]["tested"]


def _course(**until):  # name → look from which on each search is among the best tenth; 9: never
    rows = [
        (name.replace("_", " "), s, (4.0 if name == "SNAS" else 1.0) * look, 0.95 if look >= at else 0.1)
        for name, each in until.items()
        for s, at in enumerate(each)
        for look in (1, 2, 4)
    ]
    return pd.DataFrame(rows, columns=["name", "seed", "computing", "percentile"])


@pytest.mark.parametrize("other", [ends.RANDOM, "REINFORCE"])
def test_the_title_of_the_ends_names_the_method_that_was_run(other):
    rows = [(name, s, 80.0 + (name == ends.CREDIT)) for name in (ends.CREDIT, other) for s in (0, 1)]
    df = pd.DataFrame(rows, columns=["name", "seed", "accuracy"])
    title, _ = ends.told_ends({"on digits": (df, known_table("digits"))})
    assert title == f"Credit's lead on {other}: +1.0 points on digits (n = 2)"


def test_a_search_that_does_not_get_there_has_no_advantage():
    course = _course(SNAS=[2, 2, 9], credit_assignment=[2, 9, 1])
    assert ends.sooner(course, 0.9) == pytest.approx([2.0, -1.0, 4.0])


@pytest.mark.parametrize(
    "snas, fast, tested",
    [([2, 4] * 4, [1, 1, 2, 1] * 2, True), ([1] * 8, [1] * 8, False), ([2, 4] * 4, [9] * 8, False)],
)
def test_computing_on_images_is_judged_where_snas_takes_longer(judged, snas, fast, tested):
    verdicts.judge_as_far(judged, _course(SNAS=snas, credit_assignment=[1, 1, 2, 1] * 2, **{ends.FAST: fast}))
    assert judged.found["as-far-images"]["tested"] is tested


def test_nine_of_ten_counts_channels_and_a_trial_that_never_gets_there():
    from nas_nb.papers.credit_figures import CHANNELS, nine_until

    record = lambda credit, darts: dict(
        config=dict(steps=100), result=dict(first=dict(credit=credit, DARTS=darts))
    )
    first = nine_until([record([30, -1], [5, 7]), record([60], [0])], "first")
    assert first["credit"].tolist() == [30 * CHANNELS["credit"], 100 * CHANNELS["credit"], 60]
    assert first["DARTS"].tolist() == [50, 70, 10]


def test_nine_for_good_may_decide_otherwise(judged):
    credit, darts = np.array([100.0, 110] * 10), np.array([50.0, 60] * 10)
    verdicts.judge_toy_half(judged, dict(credit=credit, DARTS=darts), dict(credit=credit, DARTS=8 * darts))
    assert not judged.found["toy-half"]["tested"]
    slow = np.where(np.arange(20) == 3, 9000.0, darts)  # one trial carries the mean
    verdicts.judge_toy_half(judged, dict(credit=credit, DARTS=slow), dict(credit=credit, DARTS=slow))
    assert not judged.found["toy-half"]["tested"] and "mean" in judged.found["toy-half"]["needed"]
    verdicts.judge_toy_half(judged, dict(credit=credit, DARTS=darts), dict(credit=credit, DARTS=darts))
    assert judged.found["toy-half"]["tested"] and judged.found["toy-half"]["differences"].max() < 0


def test_channels_until_nine_are_right_as_time(judged):
    until = dict(credit=np.array([100.0, 200, 600] * 5), DARTS=np.array([50.0, 60, 100] * 5))
    ms = dict(DARTS=0.5)
    verdicts.judge_toy_half(judged, until, until, ms | dict(credit=0.25))
    found, each = judged.found["toy-half"], verdicts.CHANNELS["credit"]
    assert (found["darts_ms_first"], found["darts_mean_ms_stays"]) == ("3.0", "3.5")  # 10 channels a step
    assert found["credit_ms_first"] == f"{0.25 * 200 / each:.1f}"
    verdicts.judge_toy_half(judged, until, until)
    assert "darts_ms_first" not in judged.found["toy-half"]


def test_how_soon_a_way_stays_near_the_best():
    rows = [("GA", "an individual", n, m, m, m, m) for n, m in ((10, 3.0), (20, 0.05), (50, 0.2), (100, 0.1))]
    df = pd.DataFrame(rows, columns=["method", "way", "evaluations", "mean", "q25", "q50", "q75"])
    assert (ends.needed(df, "GA"), ends.needed(df, "GA", 0.06), ends.needed(df, "GA", 5)) == (
        "100",
        "over 100",
        "10",
    )


def test_null_of_the_identity_by_listing_cells():
    share = np.mean([7 > max(row) for row in itertools.product(range(8), repeat=4)])
    assert 1 - share == pytest.approx(ends.NULL_IDENTITY)
    code = lambda **at: ["".join(str(at.get(f"e{e}", 1)) for e in range(28))]
    skip, dil = (
        str(list(DARTS_CELL.ops).index("skip_connect")),
        str(list(DARTS_CELL.ops).index("dil_conv_3x3")),
    )
    result = dict(parameters=10, shared=[1, 2], correct=3, n=4, entropy=[1.0, 0.5])
    runs = [code(e1=skip), code(e0=skip, e15=skip), code(e27=dil)]
    df = ends.cell_table([dict(seed=s, result=result | dict(path=path)) for s, path in enumerate(runs)])
    assert (df["identity"].tolist(), df["dilated"].tolist()) == ([1, 0, 0], [0, 0, 1])
    assert (df["entropy"] == 0.5).all()


def looks_at(space, edges, seeds, **numbers):  # as `blind_table` has them, before and after training
    agreement = {f"agreement, {way}": 0.7 for way in ("backward", "two points", "mended")}
    at = itertools.product(range(edges), (0, 1), range(seeds))
    sizes = dict(exact=1.0, backward=0.5)
    return [dict(space=space, edge=e, step=t, seed=s) | agreement | sizes | numbers for e, t, s in at]


def test_all_edges_at_once_is_judged_in_the_cell_of_the_document():
    small = pd.DataFrame(looks_at("convolutions only", 6, 2) + looks_at("with skips and pooling", 6, 2))
    small.loc[(small["edge"] == 0) & (small["space"] == "convolutions only"), "backward"] = 0.0
    inside = pd.DataFrame(looks_at("inside", 28, 10))
    found = verdicts.at_once(inside, small)
    assert found["holds"] and (found["only"], found["mixed"], found["edges"]) == ("5", "6", 28)
    inside.loc[inside["edge"] == 27, "backward"] = 0.009
    assert not verdicts.at_once(inside, small)["holds"]
    absent = verdicts.at_once(pd.DataFrame(), small)
    assert absent["tested"] is False and "holds" not in absent and absent["mixed"] == "6"


def test_agreement_in_the_cell_of_the_document_needs_five_supernets():
    inside = pd.DataFrame(looks_at("inside", 28, 10))
    inside.loc[inside["step"] == 1, "agreement, backward"] = 0.75
    found = verdicts.inside(inside)
    assert (found["end"], found["start"]) == (pytest.approx(0.75), pytest.approx(0.7))
    assert found["differences"]["inside"] == pytest.approx([-0.05] * 10)
    for few in (pd.DataFrame(), inside[inside["seed"] < 4]):
        assert verdicts.inside(few)["tested"] is False


def test_a_rule_that_was_not_run_has_no_number():
    names = ["ReLU output", "own output (4.2)", "LSTM, ReLU output"]
    table = pd.DataFrame(dict(variant=names, rule="Adam", always_0=[3, 0, 4], right=[7, 10, 6]))
    found = verdicts.rnn_dead(table, 10)
    assert (found["adam"], found["sgd"], found["range_sgd"], found["lstm_sgd"]) == (3, "–", "–", "–")
    assert verdicts.rnn_own(table, 10)["sgd"] == "–"


AFTER = {  # (computing, percentile) at each look
    "credit assignment": [(4.0, 0.2), (8.0, 0.7)],
    "SNAS": [(7.0, 0.5), (14.0, 1.0)],
    "DARTS": [(6.0, 0.1), (8.0, 0.3), (16.0, 0.9)],
}


def test_credit_is_compared_after_the_same_computing(judged):
    rows = [(m, s, *look) for m, looks in AFTER.items() for s in range(6) for look in looks]
    course = pd.DataFrame(rows, columns=["name", "seed", "computing", "percentile"])
    course["accuracy"] = 100 * course["percentile"]
    assert verdicts.at_computing(course, "SNAS", 8.0).tolist() == [0.5] * 6
    assert verdicts.at_computing(course, "SNAS", 8.0, "accuracy").tolist() == [50.0] * 6
    verdicts.judge_equal(judged, course)
    found = judged.found["equal"]
    assert {m: x.round(9).tolist() for m, x in found["differences"].items()} == {
        "DARTS": [0.4] * 6,
        "SNAS": [0.2] * 6,
    }
    assert (found["computing"], found["darts"], found["snas"]) == ("8", "+0.40", "+0.20")
    verdicts.judge_equal(judged, course.iloc[:0])
    assert found is not judged.found["equal"] and judged.found["equal"]["tested"] is False
