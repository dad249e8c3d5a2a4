"""Controllers and PNAS against numbers of the public code and of hand computations (controllers_cases.json), and
properties: exact gradients, a seed alone and in a crowd, going on, bad input."""

import json
import math
import weakref
from itertools import product
from pathlib import Path

import pytest
import torch

from nas_nb.asng import Space
from nas_nb.controllers import PPO, Controller, Reinforce, adam_step, next_baseline, ppo_loss, reinforce_loss
from nas_nb.decisions import Later, Step, as_steps, attention, layers, lstm, shapes_of, sizes_of, walk
from nas_nb.enas import BIAS, as_cells, as_layers, macro, micro, skip_penalty
from nas_nb.pnas import PNAS, blocks, growth

CASES = json.loads((Path(__file__).parent / "controllers_cases.json").read_text())
RULES = {"REINFORCE": Reinforce, "PPO": PPO}
SPACE = Space([3, 2, 4])

pytestmark = pytest.mark.usefixtures("one_thread")


def f64(x):
    return torch.tensor(x, dtype=torch.float64)


def close(found, expected, rtol=1e-9, atol=1e-12):
    found = found.double() if torch.is_tensor(found) else f64(found)
    torch.testing.assert_close(found, f64(expected), rtol=rtol, atol=atol)


def loss_of(cat):  # any: smaller is better
    return (cat - 1).square().sum(-1) / 10


def run(opt, times, n=4):
    for _ in range(times):
        draws = opt.ask(n)
        opt.tell(draws, loss_of(draws.cat))
    return opt


# --- numbers of the public code -----------------------------------------------------------------------------


def test_lstm_cell():
    case = CASES["enas_lstm_cell"]
    w = (0.6 * (0.7 * torch.arange(32.0).double()).sin()).view(1, 4, 8)
    x, h, c = (f64([[case["input"][k]]]) for k in ("x", "h", "c"))
    h, c = lstm(x, h, c, w)
    close(h.flatten(), case["expected"]["h"], rtol=1e-5)
    close(c.flatten(), case["expected"]["c"], rtol=1e-5)


def with_waves(steps, hidden, bias=None):
    "A controller whose variable number i is 0.6 sin(0.7 k + i), but for the biases."
    opt = Controller(steps, hidden=hidden, bias=bias, dtype=torch.float64)
    for i, (name, w) in enumerate(opt.weights.items()):
        if not name.startswith("bias"):
            w.copy_((0.6 * (0.7 * torch.arange(w.numel()).double() + i).sin()).view_as(w))
    return opt


def norms(opt, draws, loss):
    """Norms of the gradients of all variables. TensorFlow keeps the rows of an embedding's gradient apart, one
    for each use; so here each choice gets an embedding of its own, and their norms are put together."""
    dense = [g.norm().item() for g in opt._gradients(draws, loss)]
    apart = as_steps([s._replace(table=None) for s in opt.steps])
    w = {k: x.clone() for k, x in opt.weights.items() if k[-1] != "0"}
    uses = {s.table for s in apart if s.kind == "choice"}
    w |= {f"{k[:-1]}{t}": x.clone() for k, x in opt.weights.items() if k[-1] == "0" for t in uses}
    rows = [w[f"embed{t}"].requires_grad_() for t in uses]
    found = torch.autograd.grad(
        loss(walk(apart, w, 1, given=draws.picked)).sum(), rows, materialize_grads=True
    )
    dense[list(opt.weights).index("embed0")] = torch.cat(found).norm().item()
    return dense


@pytest.mark.parametrize("which", ["argmax", "argmin"])
def test_enas_micro_controller(which):
    case = CASES[f"enas_micro_controller_{which}"]
    opt = with_waves(micro(nodes=3), 4, BIAS)
    shapes = [list(shape) for _, shape in case["variables_in_order"]]
    assert [math.prod(s) for s in opt.shapes.values()] == [math.prod(s) for s in shapes]
    arc = sum((case[k] for k in ("normal_arc", "reduce_arc")), [])
    cat = sum(([i, j, p, q] for i, p, j, q in zip(*[iter(arc)] * 4)), [])
    draws = opt.of([cat])
    assert sum((list(node) for cell in as_cells(cat) for node in cell), []) == arc
    close(-draws.logp.sum(), case["nll_sum"], rtol=1e-5)
    close(draws.entropy.sum(), case["entropy_sum"], rtol=1e-5)
    found = norms(opt, draws, lambda now: -now.logp.sum((1, 2)))
    close(found, list(case["grad_l2_per_variable"].values()), rtol=1e-4)


@pytest.mark.parametrize("which", ["argmax", "argmin"])
def test_enas_macro_controller(which):
    case = CASES[f"enas_macro_controller_{which}"]
    opt = with_waves(macro(layers=5), 4)
    draws = opt.of([case["arc"]])
    close(-draws.logp.sum(), case["nll_sum"], rtol=1e-5)
    close(-(draws.logp.exp() * draws.logp).sum(), case["entropy_sum"], rtol=1e-5)  # of what was sampled alone
    close(skip_penalty(draws.skips, 4)[0, 0], case["skip_penalty_mean"], rtol=1e-5)
    assert sum(len(inputs) for _, inputs in as_layers(case["arc"])) == case["skip_count"]
    objective = lambda now: -now.logp.sum((1, 2)) + 0.8 * skip_penalty(now.skips, 4)[:, 0]
    close(
        norms(opt, draws, objective),
        list(case["grad_of_nll_plus_0.8pen_l2_per_variable"].values()),
        rtol=1e-4,
    )


@pytest.mark.parametrize(("favoured", "shares"), [(True, (0.3153, 0.1232)), (False, (0.2543, 0.1638))])
def test_enas_starts_with_these_probabilities(favoured, shares):
    cell = micro(nodes=1)
    steps = cell[: cell.index(Step("cell"))] if favoured else cell[cell.index(Step("cell")) + 1 :]
    opt = Controller(steps, hidden=4, bias=BIAS, dtype=torch.float64)
    for name, w in opt.weights.items():
        if not name.startswith("bias"):
            w.zero_()
    p = opt.of([[0, 0, k, 0] for k in range(5)]).logp[0, :, 2].exp()
    close(p, [shares[0]] * 2 + [shares[1]] * 3, rtol=5e-4)


def test_skip_attention():
    case = CASES["nas_rl_skip_attention"]
    given = {k: f64(v) for k, v in case["input"].items()}
    keys, query = given["h_prev"] @ given["W_prev"].T, given["h_i"] @ given["W_curr"].T
    q = attention(keys[None, None], query[None, None], given["v"][None, None])[0, 0]
    close(q.sigmoid(), case["expected"]["P"])
    signs = 2 * given["decision"] - 1
    close((signs * q).sigmoid().log().sum(), case["expected"]["logprob"])


def test_a_walk_decides_on_skips_by_attention():
    steps = as_steps(layers(3, [2]))
    torch.manual_seed(0)
    w = {name: torch.randn(1, *shape).double() for name, shape in shapes_of(steps, 3).items()}
    given = torch.tensor([[[1, 0, 1, 1, 0, 1]]])  # a choice; a choice and a skip; a choice and two skips
    found = walk(steps, w, 1, given=given)
    hidden, x, h, c, j = [], w["start"], *2 * [torch.zeros(1, 1, 3).double()], 0
    for layer, choice in enumerate((1, 0, 1)):
        h, c = lstm(x, h, c, w["lstm"])
        own = steps[2 * layer].table
        close(found.logp[0, 0, j], (h @ w[f"soft{own}"]).log_softmax(-1)[0, 0, choice].item())
        h, c = lstm(w[f"embed{own}"][:, [choice]], h, c, w["lstm"])
        coins = given[0, 0, j + 1 : j + 1 + layer]
        for i, coin in enumerate(coins):
            q = (w["v"] * (hidden[i] @ w["prev"] + h @ w["curr"]).tanh()).sum()
            close(found.logp[0, 0, j + 1 + i], ((2 * coin - 1) * q).sigmoid().log().item())
            p = q.sigmoid()
            close(found.entropy[0, 0, j + 1 + i], -(p * p.log() + (1 - p) * (1 - p).log()).item())
        picked = [hidden[i] for i, coin in enumerate(coins) if coin]
        x = sum(picked) / (1 + len(picked)) if picked else torch.zeros_like(h) if layer else w["start"]
        hidden.append(h)
        j += 1 + layer


def test_reward_baseline():
    case = CASES["nas_rl_reward_baseline"]["expected"]
    b, advantages = torch.zeros(1).double(), []
    for k, reward in enumerate(case["rewards"]):
        advantages.append(reward - b.item())
        b = next_baseline(b, f64([[reward]]), 0.95, first=k == 0)
    close(advantages, case["advantages"])
    close(b.item(), case["final_baseline"])


def test_ppo_clips_each_decision():
    case = CASES["nasnet_ppo_clipped_loss"]
    new, old = (f64([case["input"][k]])[..., None] for k in ("logp_new", "logp_old"))
    new.requires_grad_()
    loss = ppo_loss(new, old, f64([case["input"]["advantage"]]), 0.2)
    loss.sum().backward()
    close(loss.detach()[0], case["expected"]["loss"])
    close(new.grad.flatten(), case["expected"]["grad"])
    two = f64([[[-1.0, -1.0]]]).requires_grad_()  # ratios 1.2214 and 1: the first alone is clipped
    ppo_loss(two, f64([[[-1.2, -1.0]]]), f64([[0.3]])).sum().backward()
    close(two.grad.flatten(), [0.0, -0.3])


def test_adam_is_that_of_tensorflow():
    w, m, v = torch.zeros(3, 2, dtype=torch.float64)
    for t, expected in enumerate(CASES["enas_adam_beta1_0_eps1e-3"]["expected"]):
        adam_step(w, m, v, f64([1, -0.01]), t, lr=0.0035, betas=(0, 0.999), eps=1e-3)
        close(w, expected, rtol=1e-5)


def test_pnas_counts():
    case = CASES["pnas_counts"]["expected"]
    counts = growth([blocks(2 + b, 8) for b in range(5)], 256)
    assert counts[0] == case["B1"] and sum(counts) == case["total"]


# --- learning -----------------------------------------------------------------------------------------------

CODES = list(product(range(3), range(2), range(4)))


def all_of(opt):
    return opt.of([CODES])


@pytest.mark.parametrize("b", [0.0, 0.7])
def test_the_expected_reinforce_gradient_is_that_of_the_expected_reward(b):
    opt = Reinforce(SPACE, 3, hidden=4, start=1.0, bonus=0.0, dtype=torch.float64)
    rewards, draws = -loss_of(torch.tensor([CODES])).double(), all_of(opt)
    p = draws.logp.sum(-1).exp()
    close(p.sum(), 1.0)
    J = opt._gradients(draws, lambda now: (now.logp.sum(-1).exp() * rewards).sum(1))
    weighted = len(CODES) * p * (rewards - b)
    estimate = opt._gradients(draws, lambda now: reinforce_loss(now.logp, weighted))
    for g, e in zip(J, estimate):
        torch.testing.assert_close(-e, g, rtol=1e-9, atol=1e-12)
    assert max(g.abs().max() for g in J) > 1e-3


def test_gradients_are_those_of_autograd_alone():
    "The matrix of the LSTM is multiplied once at the end: the same as step by step."
    opt = Controller(layers(3, [2, 3]), range(2), hidden=5, start=1.0, dtype=torch.float64)
    draws = opt.ask(4)
    leaves = {name: w.detach().clone().requires_grad_() for name, w in opt.weights.items()}
    walk(opt.steps, leaves, 4, given=draws.picked).logp.sum().backward()
    for g, w in zip(opt._gradients(draws, lambda now: now.logp.sum((1, 2))), leaves.values()):
        expected = torch.zeros_like(w) if w.grad is None else w.grad
        torch.testing.assert_close(g, expected, rtol=1e-9, atol=1e-12)


def test_an_update_frees_what_it_computed():
    class Factors(list):
        "A list that can be watched."

    factors, steps = Factors(), as_steps(Space((2, 3)))
    weights = {
        k: torch.full((1, *shape), 0.1, requires_grad=True) for k, shape in shapes_of(steps, 4).items()
    }
    later = Later(weights["lstm"], factors)
    walk(steps, weights | dict(lstm=later), 2, given=torch.zeros(1, 2, 2).long()).logp.sum().backward()
    assert factors
    gone = weakref.ref(factors)
    del later, factors
    assert gone() is None


def test_a_baseline_lowers_the_variance():
    opt = Reinforce(SPACE, 3, hidden=4, start=0.5, bonus=0.0, dtype=torch.float64)
    rewards = 1 - loss_of(torch.tensor(CODES)).double()
    p = all_of(opt).logp[0].sum(-1).exp()

    def variance(b):
        rows = []
        for code, r in zip(CODES, rewards):
            advantage = (r - b).view(1, 1)
            gs = opt._gradients(opt.of([code]), lambda now: reinforce_loss(now.logp, advantage))
            rows.append(torch.cat([g.flatten() for g in gs]))
        rows = torch.stack(rows)
        return (p @ (rows - p @ rows).square().sum(1)).item()

    assert variance(0.0) / variance((p * rewards).sum()) > 5


def test_the_first_pass_of_ppo_is_reinforce():
    settings = dict(hidden=8, start=0.5, dtype=torch.float64)
    one, other = PPO(SPACE, range(3), epochs=1, **settings), Reinforce(SPACE, range(3), **settings)
    for opt in (one, other):
        run(opt, 3)
    torch.testing.assert_close(one.flat, other.flat, rtol=1e-9, atol=1e-12)
    four = run(PPO(SPACE, range(3), epochs=4, **settings), 3)
    assert (four.flat - other.flat).abs().max() > 1e-4


@pytest.mark.parametrize("name", RULES)
def test_a_controller_learns(name):
    opt = RULES[name](Space([4] * 4), range(6), hidden=16, lr=0.01)
    before = loss_of(opt.ask(50).cat).mean()
    run(opt, 40, 10)
    assert loss_of(opt.ask(50).cat).mean() < before / 2
    assert (opt.best().cat == 1).all(-1).sum() >= 4


def test_the_entropy_bonus_keeps_a_controller_undecided():
    with_bonus, without = (run(Reinforce(SPACE, 0, hidden=8, lr=0.02, bonus=b), 40) for b in (1.0, 0.0))
    assert with_bonus.ask(50).entropy.mean() > 1.2 * without.ask(50).entropy.mean()


def test_entropy_in_the_reward_raises_the_reward_of_the_undecided():
    opt = Reinforce(SPACE, 0, hidden=8, bonus=2.0, in_reward=True, dtype=torch.float64)
    draws = opt.ask(5)
    opt.tell(draws, [0.0] * 5)
    close(opt.baseline[0], 2 * draws.entropy.sum(-1).mean().item())


def test_the_baseline_is_that_of_earlier_rewards():
    opt, seen = Reinforce(SPACE, 0, hidden=4, decay=0.9, dtype=torch.float64), []
    opt._learn = lambda draws, advantage: seen.append(advantage[0].tolist())
    for losses in ([1.0, 3.0], [5.0, 7.0], [0.0, 0.0]):
        opt.tell(opt.ask(2), losses)
    close(seen, [[1.0, -1.0], [-3.0, -5.0], [2.4, 2.4]])  # baselines: -2 (its own mean), -2, -2.4


# --- batches, stopping, going on ----------------------------------------------------------------------------

PROGRAMS = {"space": SPACE, "skips": layers(3, [3, 2]), "ENAS": micro(nodes=2)}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", RULES)
def test_a_seed_alone_is_the_same_as_in_a_crowd(name, program):
    make = lambda seeds: RULES[name](PROGRAMS[program], seeds, hidden=24, lr=0.01)
    crowd, alone = run(make(range(5, 9)), 5), run(make([7]), 5)
    assert torch.equal(crowd.flat[[2]], alone.flat)
    assert torch.equal(crowd.ask(3).cat[[2]], alone.ask(3).cat)


@pytest.mark.parametrize("name", RULES)
def test_a_search_that_was_stopped_or_has_left_the_batch_goes_on(name):
    make = lambda seeds: RULES[name](SPACE, seeds, hidden=8, lr=0.01)
    whole, part = run(make(range(4)), 6), run(make(range(4)), 3)
    part.keep([3, 1])
    other = make([0, 0])
    other.load(part.state())
    assert torch.equal(run(other, 3).flat, whole.flat[[3, 1]])
    assert torch.equal(run(part, 3).flat, whole.flat[[3, 1]])


def test_a_single_search_has_no_axis_of_seeds():
    opt = Reinforce(SPACE, 3, hidden=8)
    draws = opt.ask(4)
    assert draws.cat.shape == (4, 3) and opt.best().cat.shape == (1, 3)
    opt.tell(draws, [0.1, 0.2, 0.3, 0.4])
    assert torch.equal(opt.of(draws.cat).cat, draws.cat)


def test_draws_follow_the_probabilities():
    opt = Controller(SPACE, 0, hidden=4, start=2.0)
    p = all_of(opt).logp[0].sum(-1).exp()
    drawn = torch.tensor([CODES.index(tuple(c)) for c in opt.ask(20000).cat.tolist()])
    shares = torch.bincount(drawn, minlength=len(CODES)) / 20000
    assert (shares - p).abs().max() < 0.015


# --- PNAS ---------------------------------------------------------------------------------------------------


def grown(seeds, times, **settings):
    search = PNAS(Space([3, 4, 3, 4]), seeds, beam=9, hidden=16, **settings)
    for _ in range(times):
        search.tell(loss_of(search.ask()))
    return search


def test_pnas_grows_and_then_goes_on_until_there_is_nothing_left():
    search = grown(range(2), 4, base=[2, 0, 0, 0])
    assert [c.shape[1] for c in search.cats] == growth([3, 4, 3, 4], 9)
    assert (search.cats[0][:, :, 1:] == 0).all() and search.cats[1][:, :, 1].unique().tolist() == [0, 1, 2, 3]
    for _ in range(3):
        search.tell(loss_of(search.ask()))
    asked = torch.cat(search.cats[3:], 1)
    assert all(len(row.unique(dim=0)) == 36 for row in asked)  # nine extended by four, each once
    with pytest.raises(ValueError, match="all its candidates"):
        search.ask()


def test_pnas_finds_what_is_good_and_is_the_same_alone():
    many, one = grown(range(4), 5), grown([2], 5)
    assert all(torch.equal(a[[2]], b) for a, b in zip(many.cats, one.cats))
    assert (loss_of(many.best()) <= 0.2).all()


def test_the_surrogate_ranks_architectures_that_it_has_not_seen():
    search = grown(range(8), 4)
    predicted, truth = search.surrogate(search.candidates), loss_of(search.candidates)
    centred = [x - x.mean(1, keepdim=True) for x in (predicted, truth)]
    assert ((centred[0] * centred[1]).sum(1) > 0).sum() >= 6


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("says", "space"),
    [
        ("nothing to search", [Step("choice", 1)]),
        ("needs a Space", []),
        ("needs a Space", [Step("guess", 2)]),
        ("earlier anchor", [Step("index")]),
        ("categorical variables alone", Space([2], reals=[(0, 1)])),
        ("size = 0", [Step("choice", 0)]),
    ],
)
def test_what_decides_nothing_is_refused(says, space):
    with pytest.raises(ValueError, match=says):
        Reinforce(space)


@pytest.mark.parametrize(
    ("says", "settings"),
    [
        ("unknown setting rate", dict(rate=1)),
        ("above 0", dict(lr=0)),
        ("finite", dict(lr=math.nan)),
        ("decay", dict(decay=1.0)),
        ("bonus", dict(bonus=-1)),
        ("hidden = 0", dict(hidden=0)),
        ("start", dict(start=0)),
        ("epochs = 0", dict(epochs=0)),
        ("clip", dict(clip=0)),
        ("bias must be", dict(bias=[1.0, 2.0])),
    ],
)
def test_settings_out_of_range_are_refused(says, settings):
    with pytest.raises(ValueError, match=says):
        PPO(Space([3, 3]), **settings)


@pytest.mark.parametrize(
    ("says", "losses"),
    [
        ("not finite", [[0.0, math.nan]]),
        ("not finite", [[0.0, math.inf]]),
        ("shape", [0.0, 1.0]),
        ("shape", [[0.0, 1.0, 2.0]]),
        ("must be numbers", [["a", "b"]]),
    ],
)
def test_losses_that_do_not_fit_are_refused_and_change_nothing(says, losses):
    opt = Reinforce(SPACE, [0], hidden=8)
    draws, before = opt.ask(2), opt.state()
    with pytest.raises(ValueError, match=says):
        opt.tell(draws, losses)
    assert all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b))
        for a, b in zip(before.values(), opt.state().values())
    )


def test_other_bad_calls():
    opt = Reinforce(SPACE, range(2), hidden=8)
    for says, call in {
        "draws must come from": lambda: opt.tell(Reinforce(Space([2]), hidden=8).ask(2), [0, 0]),
        "must be \\(2, n, 3\\)": lambda: opt.of([[0, 0, 0]]),
        "out of range": lambda: opt.of([[[0, 0, 4]], [[0, 0, 0]]]),
        "n = 0": lambda: opt.ask(0),
        "start must be": lambda: Reinforce(SPACE, start=10**400),
        "finite numbers, not nan": lambda: Reinforce(SPACE, bias=math.nan),
        "which searches": lambda: opt.keep([2]),
        "does not fit": lambda: opt.load(Reinforce(SPACE, range(3), hidden=8).state()),
        "was altered": lambda: opt.load(opt.state() | dict(updates=-1)),
        "a count is out of range": lambda: opt.load(opt.state() | dict(t=2**70)),
        "base must have": lambda: PNAS(SPACE, base=[0, 2, 0]),
        "Space of categorical": lambda: PNAS(Space([2], reals=[(0, 1)])),
        "ask before": lambda: PNAS(SPACE).tell([0.0]),
        "too few skip": lambda: as_layers([0, 1, 0, 2]),
        "no two cells": lambda: as_cells([0, 1, 0]),
    }.items():
        with pytest.raises(ValueError, match=says):
            call()
    search = PNAS(SPACE, hidden=8)
    search.ask()
    for says, losses in {"shape": [0.0], "not finite": [0.0, 1.0, math.nan]}.items():
        with pytest.raises(ValueError, match=says):
            search.tell(losses)


def test_a_controller_searches_a_users_own_space_with_a_users_own_loss():
    from nas_nb.asng import Space
    from nas_nb.controllers import PPO

    def loss(depth, width, kernel):  # whatever a user measures
        return (depth - 2) ** 2 + (width - 1) ** 2 + (kernel - 3) ** 2

    search = PPO(Space([4, 3, 5]), lr=0.01)  # depth, width, kernel
    for _ in range(40):
        asked = search.ask(20)
        search.tell(asked, [loss(*choices) for choices in asked.cat.tolist()])
    assert search.best().cat.tolist() == [[2, 1, 3]]


def test_sizes_of_programs():
    assert sizes_of(layers(3, [4, 3])) == [4, 3, 4, 3, 2, 4, 3, 2, 2]
    assert sizes_of(micro(nodes=2)) == [2, 2, 5, 5, 3, 3, 5, 5] * 2
    assert math.prod(sizes_of(macro())) == 6**12 * 2**66
