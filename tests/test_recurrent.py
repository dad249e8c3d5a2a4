"""Recurrent cells: NAS-RL's trees, ENAS' and DARTS' graphs, the language model around them, their controllers and
pictures: cases of the public codes and of hand computations (recurrent_cases.json), naive counterparts, bad input."""

import json
import math
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from fake_cuda import fake_cuda, moved
from torch import nn

from nas_nb.controlled import Controlled, steps_of
from nas_nb.controllers import Controller, Reinforce
from nas_nb.decisions import sizes_of
from nas_nb.enas import recurrent
from nas_nb.files import Checkpoint
from nas_nb.language import LanguageModel, model_parameters, perplexity, text_recipe, widest_cell
from nas_nb.layers import random_rows
from nas_nb.recurrent import (
    ACTIVATIONS,
    COMBINATIONS,
    DARTS_RNN,
    DARTS_V2_RNN,
    ENAS_LM,
    ENAS_LM_CELL,
    EXAMPLE_DAG,
    EXAMPLE_TREE,
    LSTM_OF_8,
    LSTM_TREE,
    MIXED_OPS,
    NASCELL,
    PUBLISHED_TREES,
    Dag,
    DagCell,
    DagSpace,
    MixedCell,
    Node,
    TreeCell,
    TreeSpace,
    build_cell,
)
from nas_nb.recurrent_pictures import describe_recurrent, draw_recurrent
from nas_nb.relaxations import Weights, one_hot
from nas_nb.search import search
from nas_nb.text import TextBatches
from nas_nb.training import Recipe, fit

CASES = json.loads((Path(__file__).parent / "recurrent_cases.json").read_text())
DAG_SPACES = {
    "article": DagSpace(6),
    "highway": DagSpace(6, highway=True),
    "all nodes": DagSpace(6, mean="nodes"),
    "a matrix a node": DagSpace(6, share="node"),
    "enas_lm": ENAS_LM,
    "DARTS": DARTS_RNN,
}

pytestmark = pytest.mark.usefixtures("one_thread")


def close(found, expected, tol=1e-9):
    found, expected = (torch.as_tensor(v, dtype=torch.float64).detach() for v in (found, expected))
    torch.testing.assert_close(found, expected, rtol=tol, atol=tol)


def wave(*shape, i):
    "The weights of DARTS' cases."
    return (0.3 * (0.37 * torch.arange(math.prod(shape)).double() + i).sin()).view(shape)


def sequence(T=4, B=3, n=3, seed=0):
    return torch.randn(T, B, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def filled(cell, seed=0):
    "In float64, its weights large enough that all activations bend."
    g = torch.Generator().manual_seed(seed)
    for w in cell.double().parameters():
        w.data.copy_(torch.randn(w.shape, generator=g, dtype=torch.float64))
    return cell


# --- the cases -----------------------------------------------------------------------------------------------


def test_the_articles_tree():
    case = CASES["nas_rl_rnn_cell_example"]
    given, wanted = case["input"], case["expected"]
    cell = TreeCell(EXAMPLE_TREE, 1, 1).double()
    cell.x.data.copy_(torch.tensor([given["W1x"], given["W3x"]], dtype=torch.float64).view(2, 1, 1))
    cell.h.data.copy_(torch.tensor([given["W2h"], given["W4h"]], dtype=torch.float64).view(2, 1, 1))
    state = torch.tensor([1.0, given["c_prev"]], dtype=torch.float64).view(2, 1, 1)
    out, (h, c) = cell(torch.ones(1, 1, 1, dtype=torch.float64), state)
    close([out.item(), h.item(), c.item()], [wanted["h"], wanted["h"], wanted["c"]])


def waves_of_darts():
    cell = DagCell(DARTS_V2_RNN, 3, 3).double()
    cell.first.data.copy_(wave(6, 6, i=0))
    for i, w in enumerate(cell.edges.values(), 1):
        w.data.copy_(wave(3, 6, i=i))
    return cell


def test_the_cell_of_darts():
    case = CASES["darts_rnn_cell_forward"]
    assert [(act, j) for act, j in map(tuple, case["genotype"])] == list(DARTS_V2_RNN.nodes)
    assert list(DARTS_V2_RNN.averaged) == case["concat"]
    out, last = waves_of_darts()(wave(2, 2, 3, i=20), wave(1, 2, 3, i=30))
    close(out, case["expected"]["hiddens"])
    close(last[0], case["expected"]["hiddens"][-1])


def test_the_search_cell_of_darts():
    "The case's α is not printed there; this one was found by a fit to its numbers, see 14_recurrent."
    cell, darts = MixedCell(3, 3).double(), waves_of_darts()
    cell.first.data.copy_(darts.first)
    cell.each.data.copy_(torch.stack([*darts.edges.values()]))
    i, k = torch.meshgrid(torch.arange(36.0).double(), torch.arange(5.0).double(), indexing="ij")
    alpha = (1.3 * i + 0.7 * k + 0.3).sin() + 0.4 * (1.1 * i * k + 0.3).cos()
    alpha = (alpha * 1e6).round() / 1e6
    out, _ = cell(wave(2, 4, 3, i=20), wave(1, 4, 3, i=30), Weights(alpha.softmax(-1)))
    close(out, CASES["darts_rnn_search_cell_forward"]["expected"]["hiddens"], 1e-11)


def test_numbers_of_weights():
    twelve = DagSpace(12, first="tanh", highway=True).decode([n for i in range(11) for n in (i, 0)])
    with torch.device("meta"):
        search_net = LanguageModel(MixedCell(300, 300), 10_000)
    found = dict(
        search_300_vocab10000=sum(w.numel() for w in search_net.parameters()),
        eval_850_DARTS_V1=model_parameters(ENAS_LM_CELL, 850, 10_000),  # any cell of eight further nodes
        eval_850_DARTS_V2=model_parameters(DARTS_V2_RNN, 850, 10_000),
        eval_850_ENAS=model_parameters(twelve, 850, 10_000),  # any of eleven
        wt2_700_DARTS_V2_vocab33278=model_parameters(DARTS_V2_RNN, 700, 33_278),
    )
    assert found == CASES["darts_rnn_param_counts"]["expected"]


@pytest.mark.parametrize("which", ["argmax", "argmin", "mix"])
def test_the_controller_of_enas(which):
    case = CASES[f"enas_ptb_controller_{which}"]
    opt = Controller(recurrent(5), hidden=4, dtype=torch.float64)
    assert [list(s) for s in opt.shapes.values()] == [
        s[::-1] if "v" == name[-1] else s for name, s in case["variables_in_order"]
    ]
    for i, w in enumerate(opt.weights.values()):
        w.copy_((0.6 * (0.7 * torch.arange(w.numel()).double() + i).sin()).view_as(w))
    draws = opt.of([case["arc"]])
    close(-draws.logp[0, 0], case["nll_each"], 1e-5)
    close(-(draws.logp * draws.logp.exp()).sum(), case["entropy_sum"], 1e-5)  # of what was sampled alone
    if which != "mix":  # the likeliest of each decision, by what the controller thinks
        best = opt.best().cat[0].tolist()
        assert (best == case["arc"]) == (which == "argmax")


def test_counts():
    expected = CASES["search_space_sizes"]["expected"]
    assert math.prod(DARTS_RNN.sizes) == expected["darts_rnn"]
    behind = DagSpace(13, first="tanh")  # 4^12 · 12!: twelve nodes behind a fixed first one
    close(math.log10(math.prod(behind.sizes)), expected["enas_ptb_12_log10"])
    assert math.prod(DagSpace(12).sizes) == 4**12 * math.factorial(11)
    assert math.prod(PUBLISHED_TREES.sizes) == 8**16 * 15**2  # 6.33e16
    assert math.prod(TreeSpace().sizes) == 15**16 * 15**2


# --- trees ---------------------------------------------------------------------------------------------------


def naive_tree(tree, wx, wh, xs, state):
    "By recursion from the root, a leaf at a time."
    (h, c), outs = state, []
    leaves = [i for i, node in enumerate(tree.nodes) if not node.of]
    for x in xs:
        before = {}

        def value(i, x=x, h=h, c=c, before=before):
            node = tree.nodes[i]
            if node.of:
                both = [value(j) for j in node.of]
            else:
                k = leaves.index(i)
                both = [x @ wx[k], h @ wh[k]]
            before[i] = COMBINATIONS[node.combine](*both)
            out = ACTIVATIONS[node.act](before[i])
            combine, act = tree.inject
            return ACTIVATIONS[act](COMBINATIONS[combine](out, c)) if i == tree.into else out

        h = value(len(tree.nodes) - 1)
        c = before[tree.memory]
        outs.append(h)
    return torch.stack(outs), torch.stack([h, c])


@pytest.mark.parametrize("leaves", [2, 3, 5, 8])
def test_random_trees_compute_what_they_say(leaves):
    space, xs = TreeSpace(leaves), sequence()
    for n, row in enumerate(random_rows(space.sizes, 12, seed=leaves).tolist()):
        cell, state = filled(space.cell(row, 3, 4), n), torch.full((2, 3, 4), 0.3, dtype=torch.float64)
        found, wanted = cell(xs, state), naive_tree(space.decode(row), cell.x, cell.h, xs, state)
        for a, b in zip(found, wanted):
            close(a, b)
        assert space.encode(space.decode(row)) == tuple(row)


@pytest.mark.parametrize(
    ("tree", "leaves", "shares"),
    [(LSTM_TREE, "igfo", [1.0] * 4), (LSTM_OF_8, "igffoooo", [1, 1, 0.3, 0.7, 0.1, 0.2, 0.3, 0.4])],
    ids=["four leaves", "a point of the space"],
)
def test_an_lstm_is_a_tree(tree, leaves, shares):
    theirs, xs = filled(nn.LSTMCell(3, 5, bias=False)), sequence()
    gates = lambda w: dict(zip("ifgo", w.detach().unflatten(0, (4, 5)).transpose(1, 2)))
    own = TreeCell(tree, 3, 5).double()
    for mine, w in ((own.x, theirs.weight_ih), (own.h, theirs.weight_hh)):
        mine.data.copy_(torch.stack([gates(w)[k] * s for k, s in zip(leaves, shares)]))
    state = torch.rand(2, 3, 5, dtype=torch.float64)
    outs, last = own(xs, state)
    h, c = state
    for x, out in zip(xs, outs):
        h, c = theirs(x, (h, c))
        close(out, h)
    close(last, torch.stack([h, c]))


def test_published_trees_are_points_of_the_published_space():
    for tree in (NASCELL, LSTM_OF_8):
        assert PUBLISHED_TREES.decode(PUBLISHED_TREES.encode(tree)) == tree
    with pytest.raises(ValueError, match="no such tree"):
        PUBLISHED_TREES.encode(LSTM_TREE)  # lopsided
    with pytest.raises(ValueError, match="no such tree"):
        PUBLISHED_TREES.encode(TreeSpace().decode([2] * 32 + [0, 0]))  # max


def test_nascell():
    "TensorFlow's NASCell, level by level."
    cell, xs, state = filled(TreeCell(NASCELL, 3, 4)), sequence(), torch.rand(2, 3, 4, dtype=torch.float64)
    outs, last = cell(xs, state)
    (h, c), s, r, t = state, torch.sigmoid, torch.relu, torch.tanh
    for x, out in zip(xs, outs):
        i, m = ([v @ w[k] for k in range(8)] for v, w in ((x, cell.x), (h, cell.h)))
        one = [s(i[0] + m[0]), r(i[1] + m[1]), s(i[2] + m[2]), r(i[3] * m[3])]
        one += [t(i[4] + m[4]), s(i[5] + m[5]), t(i[6] + m[6]), s(i[7] + m[7])]
        two = [t(one[0] * one[1]), t(one[2] + one[3]), t(one[4] * one[5]), s(one[6] + one[7])]
        c = t(two[0] + c) * two[1]
        h = t(c * t(two[2] + two[3]))
        close(out, h)
    close(last, torch.stack([h, c]))
    assert sum(w.numel() for w in cell.parameters()) == 8 * 4 * (3 + 4)


# --- graphs --------------------------------------------------------------------------------------------------


def naive_dag(dag, cell, xs, h):
    "Node by node, as the papers write it."
    outs, n, act = [], cell.hidden, ACTIVATIONS
    step = lambda z, before, f: (
        before + z[:, :n].sigmoid() * (act[f](z[:, n:]) - before) if dag.highway else act[f](z)
    )
    for x in xs:
        nodes = [step(torch.cat([x, h], 1) @ cell.first, h, dag.first)]
        for i, (f, j) in enumerate(dag.nodes, 1):
            nodes.append(step(nodes[j] @ cell.edges[cell._name(i, j)], nodes[j], f))
        ends = [i for i in range(1, len(nodes)) if all(j != i for _, j in dag.nodes)]
        used = ends if dag.mean == "leaves" else range(1, len(nodes))
        h = sum(nodes[i] for i in used) / len(used)
        outs.append(h)
    return torch.stack(outs)


@pytest.mark.parametrize("name", DAG_SPACES)
def test_random_graphs_compute_what_they_say(name):
    space, xs = DAG_SPACES[name], sequence()
    shared, h = filled(space.supernet(3, 4)), torch.full((1, 3, 4), 0.3, dtype=torch.float64)
    for row in random_rows(space.sizes, 10, seed=1).tolist():
        dag = space.decode(row)
        wanted = naive_dag(dag, shared, xs, h[0])
        own = space.cell(row, 3, 4).double().inherit(shared)
        for out, last in (shared(xs, h, one_hot(row)), own(xs, h)):
            close(out, wanted)
            close(last[0], wanted[-1])
        assert space.encode(dag) == tuple(row)


def test_the_articles_graph():
    "Equations as in the article: h_t = (h3 + h4) / 2."
    cell, xs, h = filled(DagCell(EXAMPLE_DAG, 3, 4)), sequence(), torch.zeros(3, 4, dtype=torch.float64)
    Wx, W1 = cell.first[:3], cell.first[3:]
    W21, W32, W41 = (cell.edges[k] for k in ("1_0", "2_1", "3_0"))
    for x, out in zip(xs, cell(xs)[0]):
        h1 = torch.tanh(x @ Wx + h @ W1)
        h2 = torch.relu(h1 @ W21)
        h3 = torch.relu(h2 @ W32)
        h4 = torch.tanh(h1 @ W41)
        h = (h3 + h4) / 2
        close(out, h)


@pytest.mark.parametrize("share", ["edge", "node"])
def test_a_supernet_has_a_matrix_for_each_edge_and_only_what_is_drawn_learns(share):
    net = DagSpace(6, share=share).supernet(3, 4)
    assert len(net.edges) == dict(edge=15, node=5)[share]
    row = [2, 0, 1, 1, 1, 0, 2, 2, 2, 2, 1]
    net(sequence().float(), w=one_hot(row))[0].square().sum().backward()
    learned = [name for name, w in net.edges.items() if w.grad is not None]
    assert learned == (["1_0", "2_1", "3_0", "4_2", "5_2"] if share == "edge" else list("12345"))


def test_the_mixed_cell_is_each_single_cell():
    for row in random_rows(DARTS_RNN.sizes, 5).tolist():
        dag = DARTS_RNN.decode(row)
        own, mixed = filled(DagCell(dag, 3, 4)), MixedCell(3, 4, norm=False).double()
        mixed.first.data.copy_(own.first)
        mixed.each.data.copy_(torch.stack([*own.edges.values()]))
        values = torch.zeros(36, 5, dtype=torch.float64)
        for i, (act, j) in enumerate(dag.nodes, 1):
            values[i * (i - 1) // 2 + j, MIXED_OPS.index(act)] = 1
        close(mixed(sequence(), None, Weights(values))[0], own(sequence())[0])


@pytest.mark.parametrize("of", [NASCELL, EXAMPLE_DAG, ENAS_LM_CELL], ids=["NASCell", "example", "enas_lm"])
def test_a_sequence_in_parts_is_the_sequence(of):
    cell, xs = filled(build_cell(of, 3, 4)), sequence(7)
    whole, last = cell(xs)
    first, state = cell(xs[:3])
    second, state = cell(xs[3:], state)
    close(torch.cat([first, second]), whole)
    close(state, last)


# --- text and the language model -----------------------------------------------------------------------------

TOKENS = torch.randint(40, (501,), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("streams", "length", "n"), [(4, 7, 100), (3, 5, 32), (1, 3, 2), (7, 4, 8)])
def test_batches_go_on_and_follow_the_text(streams, length, n):
    tokens = torch.arange(n)
    batches = TextBatches(tokens, streams, length)
    words = torch.cat([batches(step)[0] for step in range(40)])
    assert words.shape == (40 * length, streams)
    assert ((words[1:] - words[:-1]) % n == 1).all()  # a ring
    assert words[0].tolist() == [b * (n // streams) for b in range(streams)]
    x, y = batches(3)
    assert torch.equal(y.view(length, streams), (x + 1) % n)
    assert torch.equal(batches(10**8)[0], (batches(0)[0] + 10**8 * length) % n)


@pytest.mark.parametrize("of", [LSTM_TREE, EXAMPLE_DAG], ids=["tree", "graph"])
def test_perplexity_is_that_of_one_long_sequence(of):
    torch.manual_seed(0)
    model = LanguageModel(build_cell(of, 6, 6), 40, drop=(0.5, 0.5)).double()
    model.bias.data.normal_()
    words = TOKENS[:500].view(5, 100).T
    with torch.no_grad():
        logits, _ = model.read(words[:-1])
    nats = F.cross_entropy(logits.flatten(0, 1), words[1:].flatten()).item()
    for length in (35, 99, 7):
        close(perplexity(model, TOKENS, 5, length), math.exp(nats), 1e-6)
    assert model.training


def test_a_model_that_knows_nothing_or_everything():
    model = LanguageModel(build_cell(EXAMPLE_DAG, 4, 4), 40)
    model.embedding.data.zero_()
    close(perplexity(model, TOKENS), 40, 1e-5)
    model.bias.data[7] = 100
    close(perplexity(model, torch.full((50,), 7)), 1, 1e-6)
    model.bias.data[7] = 1e4
    assert perplexity(model, torch.full((50,), 3)) == math.inf


@pytest.mark.parametrize("of", [NASCELL, EXAMPLE_DAG], ids=["tree", "graph"])
def test_training_carries_the_state_and_nothing_else_does(of):
    torch.manual_seed(0)
    model = LanguageModel(build_cell(of, 6, 6), 40, streams=3).double()
    short, long = TextBatches(TOKENS, 3, 4), TextBatches(TOKENS, 3, 12)
    whole = model.read(long(0)[0])[0].flatten(0, 1)
    close(torch.cat([model(short(step)[0]) for step in range(3)]), whole)
    carried = model.carried.clone()
    with torch.no_grad():
        close(model(long(0)[0]), whole)  # begins anew
    close(model.eval()(long(0)[0]), whole)
    assert torch.equal(model.carried, carried) and not model.carried.requires_grad


def test_dropout_has_one_mask_for_all_steps():
    model = LanguageModel(build_cell(EXAMPLE_DAG, 50, 50), 40, drop=(0.5, 0.0))
    x = model._dropped(torch.ones(6, 2, 50), 0)
    assert (x == x[:1]).all() and set(x.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(x[0, 0], x[0, 1])
    assert torch.equal(model.eval()._dropped(torch.ones(6, 2, 50), 0), torch.ones(6, 2, 50))


def test_tied_or_not():
    cell = lambda: build_cell(EXAMPLE_DAG, 6, 6)
    tied, own = LanguageModel(cell(), 40), LanguageModel(cell(), 40, tied=False)
    count = lambda model: sum(w.numel() for w in model.parameters())
    assert count(own) - count(tied) == 40 * 6
    own.cell.load_state_dict(tied.cell.state_dict())
    own.embedding.data.copy_(tied.embedding), own.decoder.data.copy_(tied.embedding)
    x = TOKENS[:10].view(5, 2)
    assert torch.equal(own.read(x)[0], tied.read(x)[0])
    assert LanguageModel(build_cell(EXAMPLE_DAG, 4, 6), 40, tied=False).read(x)[0].shape == (5, 2, 40)


def fresh(space=None):
    torch.manual_seed(0)
    cell = space.supernet(6, 6) if space else build_cell(EXAMPLE_DAG, 6, 6)
    return LanguageModel(cell, 40, drop=(0.2, 0.2), streams=4)


def test_training_learns_and_goes_on_to_the_same_bits(tmp_path):
    pattern = torch.arange(12).repeat(40)
    batches = TextBatches(pattern, 4, 10)
    whole, again = fresh(), fresh()
    before = perplexity(whole, pattern)
    rows = fit(whole, batches, text_recipe(60, lr=5.0), every=30)
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] and perplexity(whole, pattern) < before / 3

    def stops(step):
        if step == 31:
            raise KeyboardInterrupt
        return batches(step)

    ckpt = Checkpoint(tmp_path / "run.pt", every=0)
    with pytest.raises(KeyboardInterrupt):
        fit(fresh(), stops, text_recipe(60, lr=5.0), every=30, ckpt=ckpt)
    fit(again, batches, text_recipe(60, lr=5.0), every=30, ckpt=Checkpoint(ckpt.path))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))


def test_widths_within_a_budget():
    for of in (LSTM_TREE, NASCELL, ENAS_LM_CELL):
        width = widest_cell(of, 40, 20_000)
        assert model_parameters(of, width, 40) <= 20_000 < model_parameters(of, width + 1, 40)


# --- controllers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [TreeSpace(2), TreeSpace(), PUBLISHED_TREES, DagSpace(5), DagSpace(), ENAS_LM],
    ids=["base 2", "base 8", "published", "5 nodes", "12 nodes", "fixed first"],
)
def test_a_controller_writes_rows_of_the_space(space):
    steps = steps_of(space)
    assert tuple(sizes_of(steps)) == space.sizes
    for row in Reinforce(steps, hidden=8).ask(5).cat.tolist():
        assert space.encode(space.decode(row)) == tuple(row)
    tables = {s.table for s in Controller(steps, hidden=4).steps if s.kind == "choice"}
    assert len(tables) == (len(space.sizes) if isinstance(space, TreeSpace) else 1)


def test_near_nodes_are_preferred_only_where_it_is_said():
    at = [4 * 0 + i for i, size in enumerate(sizes_of(recurrent(8))) if size == 7]
    mean = lambda near: (
        Reinforce(recurrent(8, near=near), range(40), hidden=8).ask(20).cat[..., at].double().mean()
    )
    assert mean(1 / 6) > 4 and 2.6 < mean(0.0) < 3.4


def test_a_controller_learns_a_wiring():
    space = DagSpace(5)
    opt = Reinforce(recurrent(5, near=0.0), range(10), hidden=16, lr=0.02, bonus=0.0)
    at = [i for i, size in enumerate(space.sizes) if i % 2 and size > 1]
    share = lambda: (opt.ask(20).cat[..., at] == 0).double().mean().item()  # all read the first node
    before = share()
    for _ in range(40):
        draws = opt.ask(10)
        opt.tell(draws, -(draws.cat[..., at] == 0).double().mean(-1))
    assert share() > before + 0.2


def test_shared_weights_in_the_one_search_loop():
    space, batches = DagSpace(4), TextBatches(TOKENS[:400], 4, 5)
    held = TextBatches(TOKENS[400:], 4, 5)
    model, method = fresh(space), Controlled(space)
    recipe = Recipe(3, "sgd", 1.0, momentum=0.0, weight_decay=0.0, clip=0.25, channels_last=False)
    search(model, method, batches, held, recipe, paths=1, samples=2)
    assert method.rule.updates == 3 and space.encode(method.architecture()) == tuple(method.row())
    assert model.carried.abs().sum() > 0


# --- a device ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "of", [NASCELL, EXAMPLE_DAG, ENAS_LM_CELL, DagSpace(5)], ids=["tree", "graph", "gates", "shared"]
)
def test_nothing_waits_for_a_device(of):
    cell = of.supernet(4, 4) if isinstance(of, DagSpace) else build_cell(of, 4, 4)
    model, batches = LanguageModel(cell, 40, drop=(0.1, 0.1), streams=4), TextBatches(TOKENS, 4, 5)
    given = (one_hot([0] * 9),) if isinstance(of, DagSpace) else ()
    with fake_cuda():
        model, batches = moved(model), moved(batches)
        for step in range(2):
            x, y = batches(step)
            F.cross_entropy(model(x, *given), y)


# --- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "arrows"),
    [(EXAMPLE_TREE, 2 + 4 + 1 + 2), (NASCELL, 14 + 16 + 1 + 2), (LSTM_TREE, 6 + 8 + 1 + 2)]
    + [(EXAMPLE_DAG, 3 + 2 + 2), (DARTS_V2_RNN, 8 + 2 + 8)],
    ids=["example tree", "NASCell", "LSTM", "example graph", "DARTS"],
)
def test_a_picture_has_all_nodes_and_arrows(cell, arrows):
    ax = draw_recurrent(cell, "title").axes[0]
    assert sum(t.arrow_patch is not None for t in ax.texts if hasattr(t, "arrow_patch")) == arrows
    count = len(cell.nodes) + isinstance(cell, Dag)
    numbers = [t.get_text() for t in ax.texts if t.get_text().isdigit()]
    assert sorted(map(int, numbers)) == list(range(count))
    assert "title" in (ax.get_title(), ax.get_title(loc="left"))  # the theme, if it was set, has it left
    boxes = [t.get_position() for t in ax.texts if t.get_bbox_patch() is not None]
    assert len(set(boxes)) == count
    ax.figure.canvas.draw()
    inside = ax.get_window_extent()
    for t in ax.texts:
        if t.get_text():
            box = t.get_window_extent()
            assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
    plt.close(ax.figure)


def test_a_cell_in_words():
    says = describe_recurrent(EXAMPLE_TREE)
    assert "node 1: multiply the input and the last output, then relu" in says
    assert "the memory: add to what node 0 puts out, then relu; new memory: node 1" in says
    assert describe_recurrent(EXAMPLE_DAG).endswith("node 3: tanh of node 0; output: mean of 2, 3.")


# --- bad input -----------------------------------------------------------------------------------------------

X = torch.zeros(3, 2, dtype=torch.int64)
BAD = {
    "leaves": (lambda: TreeSpace(1), "leaves"),
    "a combination": (lambda: TreeSpace(combine=("add", "minus")), "add, multiply, max"),
    "twice": (lambda: TreeSpace(acts=("tanh", "tanh")), "different names"),
    "no tuple": (lambda: DagSpace(acts="tanh"), "tuple"),
    "a short row": (lambda: PUBLISHED_TREES.decode([0] * 33), "34 whole numbers"),
    "an index": (lambda: TreeSpace(2).decode([0] * 8 + [3, 0]), "choices 0 to 2"),
    "no tree": (lambda: TreeCell(EXAMPLE_DAG, 3, 4), "Tree"),
    "read twice": (
        lambda: TreeCell(
            EXAMPLE_TREE._replace(nodes=(*EXAMPLE_TREE.nodes[:2], Node("add", "tanh", (0, 0)))), 3, 4
        ),
        "read once",
    ),
    "cell indices": (lambda: TreeCell(EXAMPLE_TREE._replace(memory=-1), 3, 4), "cell indices"),
    "widths": (lambda: TreeCell(EXAMPLE_TREE, 0, 4), "inputs"),
    "a later node": (lambda: DagCell(Dag("tanh", (("relu", 1),)), 3, 4), "nodes 0 to 0"),
    "an activation": (lambda: DagCell(Dag("tanh", (("swish", 0),)), 3, 4), "swish"),
    "mean": (lambda: DagSpace(mean="all"), "leaves or nodes"),
    "share": (lambda: DagSpace(share="all"), "edge or node"),
    "no row": (lambda: DagSpace(4).supernet(3, 4)(torch.zeros(2, 1, 3)), "one_hot"),
    "two choices": (
        lambda: DagSpace(2).supernet(3, 4)(torch.zeros(2, 1, 3), w=Weights(None, ((0,), (0,), (0, 1)))),
        "several choices",
    ),
    "own weights": (lambda: DagCell(EXAMPLE_DAG, 3, 4)(torch.zeros(2, 1, 3), w=one_hot([0])), "no weights"),
    "a sequence": (lambda: DagCell(EXAMPLE_DAG, 3, 4)(torch.zeros(2, 3)), "does not fit"),
    "a state": (lambda: DagCell(EXAMPLE_DAG, 3, 4)(torch.zeros(2, 1, 3), torch.zeros(2, 1, 4)), "state"),
    "another supernet": (
        lambda: DagCell(EXAMPLE_DAG, 3, 4).inherit(DagSpace(5).supernet(3, 4)),
        "no such cell",
    ),
    "alpha": (lambda: MixedCell(3, 4)(torch.zeros(2, 2, 3), None, one_hot([0])), "softmax"),
    "one text": (
        lambda: MixedCell(3, 4)(torch.zeros(2, 1, 3), None, Weights(torch.ones(36, 5))),
        "at least two texts",
    ),
    "tied": (lambda: LanguageModel(build_cell(EXAMPLE_DAG, 3, 4), 40), "tied=False"),
    "drop": (lambda: LanguageModel(build_cell(EXAMPLE_DAG, 4, 4), 40, drop=0.5), "two numbers"),
    "no cell": (lambda: LanguageModel(EXAMPLE_DAG, 40), "needs a cell"),
    "reals": (lambda: fresh().read(X.float()), "int64"),
    "a word": (lambda: fresh().read(X + 40), "0 to 39"),
    "streams": (lambda: fresh()(X), "LanguageModel\\(streams=2\\)"),
    "few words": (lambda: perplexity(fresh(), TOKENS[:10]), "too few"),
    "no words": (lambda: TextBatches(TOKENS[:5], 6), "too few"),
    "real words": (lambda: TextBatches(TOKENS.float()), "int64"),
    "a budget": (lambda: widest_cell(NASCELL, 5000, 1000), "more than the budget"),
    "a picture": (lambda: draw_recurrent(DagSpace()), "Tree or a Dag"),
    "a controller": (lambda: steps_of("tree"), "TreeSpace"),
    "few nodes": (lambda: recurrent(1), "nodes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_answered_in_a_sentence(name):
    wrong, says = BAD[name]
    with pytest.raises(ValueError, match=says) as found:
        wrong()
    assert "\n" not in str(found.value)


def test_every_row_of_small_spaces_is_another_cell():
    for space in (
        TreeSpace(2, ("add", "max"), ("sin",)),
        DagSpace(3, ("tanh", "relu")),
        DagSpace(4, ("tanh",)),
    ):
        cells = [space.decode(row) for row in product(*map(range, space.sizes))]
        assert len(set(cells)) == math.prod(space.sizes)
