"""Networks of layers: NAS-RL's tokens, ENAS' whole networks, the controller in the search loop, their pictures and
their runs: cases of the public code and of hand computations (layers_cases.json), equations as written, properties,
bad input."""

import json
import math
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from matplotlib.patches import Arc

from nas_nb.controlled import ENAS, Controlled, SparseReinforce, steps_of
from nas_nb.controllers import PPO, Reinforce, reinforce_loss
from nas_nb.decisions import Step, attention, sizes_of
from nas_nb.enas import as_layers
from nas_nb.files import Checkpoint
from nas_nb.layer_pictures import describe_layers, draw_anchors, draw_layers
from nas_nb.layers import Layer, LayerNetwork, Layers, LayerSpace, concatenate, random_rows
from nas_nb.macro import JOINS, MACRO_OPS, MacroNetwork, MacroSpace, published
from nas_nb.papers import controller_runs as runs
from nas_nb.relaxations import Weights, one_hot
from nas_nb.search import search
from nas_nb.training import Recipe, make_optimizer

CASES = json.loads((Path(__file__).parent / "layers_cases.json").read_text())
FEW = (4, 6, 8, 12)
SPACE_OPTIONS = {
    "stride 1": dict(layers=5),
    "strides": dict(layers=5, downs=(1, 2, 3), rights=(1, 2, 3)),
    "a chain": dict(layers=3, skips=False),
    "more tokens": dict(layers=4, pools=(1, 2), norms=(False, True), rates=(0.1, 0.03), downs=(1, 2)),
    "no padding": dict(layers=2, heights=(1, 3), widths=(1, 3), padding="valid"),
}

pytestmark = pytest.mark.usefixtures("one_thread")


def space_of(name):
    return LayerSpace(**SPACE_OPTIONS[name], counts=FEW)


def close(found, expected, tol=1e-9):
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=tol, atol=tol)


def parameters(network):
    return sum(p.numel() for p in network.parameters())


# --- the cases -----------------------------------------------------------------------------------------------


def test_sizes_of_the_public_networks():
    expected = CASES["enas_network_params"]["expected"]
    wanted = expected["macro_search_L12_F36"]
    space = MacroSpace(12, 36, join="sum")
    with torch.device("meta"):
        assert parameters(space.supernet((3, 32, 32))) == wanted["total"]
    assert list(space.pools) == wanted["pool_layers"]
    wanted = expected["macro_final_L24_F96"]
    final = MacroSpace(24, 96, join="output", final=True, plain=True)
    with torch.device("meta"):
        assert parameters(final.network(published(), (3, 32, 32))) == wanted["total"]
    assert list(final.pools) == wanted["pool_layers"]


def test_operations_differ_as_they_do_not_in_the_public_search():
    assert CASES["enas_macro_lambda_bug"]["expected_all_equal"]
    torch.manual_seed(0)
    layer = MacroSpace(3, 4).supernet((4, 6, 6)).double().eval().layers[0]
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    outs = [layer({0: x}, [(op, None)]) for op in MACRO_OPS]
    assert all((a - b).abs().max() > 1e-3 for i, a in enumerate(outs) for b in outs[:i])


def test_the_reward_is_the_cube():
    close([runs.reward(a) for a in (0.7, 0.8, 0.6)], CASES["nas_rl_reward_baseline"]["expected"]["rewards"])


def test_attention_decides_on_the_inputs_of_a_child():
    "The case's decision, connect 0 and not 1, as the inputs of the third layer of a child."
    case = CASES["nas_rl_skip_attention"]
    given = {k: torch.tensor(v, dtype=torch.float64) for k, v in case["input"].items()}
    keys, query = given["h_prev"] @ given["W_prev"].T, given["W_curr"] @ given["h_i"]
    P = attention(keys[None, None], query[None, None], given["v"][None, None])[0, 0].sigmoid()
    close(P, torch.tensor(case["expected"]["P"], dtype=torch.float64))
    bits = case["input"]["decision"]
    child = LayerSpace(3).decode([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *bits])
    assert child.layers[2].inputs == (0,)
    p = torch.tensor(bits) * P + (1 - torch.tensor(bits)) * (1 - P)
    close(p.log().sum().item(), case["expected"]["logprob"])


def test_number_of_networks():
    assert math.isclose(math.prod(LayerSpace(6).sizes), 64**6 * 2**15)
    assert math.prod(LayerSpace(8).sizes) == 64**8 * 2**28
    assert math.prod(MacroSpace().sizes) == 6**12 * 2**66


# --- NAS-RL's children ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACE_OPTIONS)
def test_rows_and_children(name):
    space = space_of(name)
    rows = random_rows(space.sizes, 40, seed=3)
    assert rows.min() == 0 and (rows < torch.tensor(space.sizes)).all()
    for row in rows.tolist():
        child = space.decode(row)
        assert space.encode(child) == tuple(row)
        assert all(j < i for i, layer in enumerate(child.layers) for j in layer.inputs)
    assert rows.equal(random_rows(space.sizes, 40, seed=3)) and not rows.equal(
        random_rows(space.sizes, 40, seed=4)
    )
    assert tuple(sizes_of(steps_of(space))) == space.sizes  # what a controller decides is a row


@pytest.mark.parametrize("name", SPACE_OPTIONS)
def test_maps_have_the_sizes_that_were_computed(name):
    space, seen = space_of(name), set()
    for row in random_rows(space.sizes, 12, seed=1).tolist():
        network, found = space.network(row, (2, 9, 7), classes=3), []
        for conv in network.convs:
            conv.register_forward_hook(
                lambda module, args, out, found=found: found.append(tuple(out.shape[1:]))
            )
        logits = network(torch.randn(3, 2, 9, 7))
        assert found == network.child.shapes((2, 9, 7)) and logits.shape == (3, 3)
        logits.sum().backward()
        assert all(p.grad is not None for p in network.parameters())  # no layer is in vain
        seen |= {shape[1:] for shape in found}
    assert (len(seen) > 1) == ("downs" in SPACE_OPTIONS[name] or name == "no padding")


def test_a_child_equation_by_equation():
    "Strides differ, so that the third layer and the classifier read padded maps; one layer has no batch norm."
    torch.manual_seed(0)
    child = Layers(
        (Layer(3, 5, 4, 2, 1), Layer(1, 3, 6, 1, 3, norm=False), Layer(3, 3, 5, pool=2, inputs=(0, 1)))
    )
    network = LayerNetwork(child, (2, 8, 8), 3).double().eval()
    x, (c0, c1, c2) = torch.randn(2, 2, 8, 8, dtype=torch.float64), network.convs
    normed = lambda conv, y: F.batch_norm(
        y, conv[1].running_mean, conv[1].running_var, conv[1].weight, conv[1].bias
    )
    h0 = normed(c0, F.conv2d(x, c0[0].weight, None, (2, 1), (1, 2))).relu()
    h1 = F.conv2d(x, c1[0].weight, c1[0].bias, (1, 3), (0, 1)).relu()
    assert h0.shape[2:] == (4, 8) and h1.shape[2:] == (8, 3)
    both = torch.zeros(2, 10, 8, 8, dtype=torch.float64)
    both[:, :4, 2:6], both[:, 4:, :, 2:5] = h0, h1
    h2 = F.max_pool2d(normed(c2, F.conv2d(both, c2[0].weight, None, 1, 1)).relu(), 2)
    close(network(x), network.linear(h2.mean((2, 3))))


def test_layers_that_nobody_reads_are_joined_for_the_classifier():
    child = Layers((Layer(1, 1, 3), Layer(1, 1, 5, 2, 2), Layer(1, 1, 7, inputs=(0,))))
    assert child.leaves == (1, 2)
    network = LayerSpace(3, (1,), (1,), counts=(3,)).network([0] * 3, (1, 4, 4))
    assert network.linear.in_features == 9
    x = concatenate([torch.ones(1, 5, 2, 2), torch.ones(1, 7, 4, 4)])
    close(x.mean((2, 3))[0], torch.tensor([0.25] * 5 + [1.0] * 7))  # zeros count in the average


# --- ENAS' whole networks ------------------------------------------------------------------------------------


def test_rows_mean_what_the_controller_says():
    space = MacroSpace(6)
    for row in random_rows(space.sizes, 20).tolist():
        mine = [(space.ops.index(layer.op), list(layer.skips)) for layer in space.decode(row)]
        assert mine == as_layers(row)


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("join", JOINS)
def test_a_child_is_a_way_through_the_supernet(join, final):
    torch.manual_seed(0)
    space = MacroSpace(6, 4, join=join, final=final)
    supernet, x = space.supernet().double(), torch.randn(8, 1, 8, 8, dtype=torch.float64)
    for row in random_rows(space.sizes, 3, seed=1).tolist():  # so that statistics are not those of the start
        supernet(x, one_hot(row))
    supernet.eval()
    for row in random_rows(space.sizes, 4).tolist():
        child = space.network(row).double().eval().inherit(supernet)
        w = one_hot(row)
        close(child(x), supernet(x, w))
        gates = Weights(
            torch.zeros(len(row), 6).double().scatter_(1, torch.tensor(row)[:, None], 1.0), w.chosen
        )
        close(child(x), supernet(x, gates))
        assert parameters(child) < parameters(supernet)


@pytest.mark.parametrize("join", JOINS)
def test_dense_weights_with_all_mass_on_one_row(join):
    torch.manual_seed(0)
    space = MacroSpace(4, 4, join=join)
    supernet, x = space.supernet().double().eval(), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    row = random_rows(space.sizes, 1, seed=5)[0]
    values = torch.zeros(len(row), 6).double().scatter_(1, row[:, None], 1.0)
    close(supernet(x, Weights(values)), supernet(x, one_hot(row.tolist())))


def test_only_what_was_chosen_learns():
    space = MacroSpace(6, 4)
    supernet, row = space.supernet(), random_rows(space.sizes, 1)[0].tolist()
    supernet(torch.randn(4, 1, 8, 8), one_hot(row)).sum().backward()
    for layer, own in zip(supernet.layers, space.decode(row)):
        for op, branch in layer.ops.items():
            assert all((p.grad is not None) == (op == own.op) for p in branch.parameters())


def by_hand(network, x):
    "A child as the table of joins has it, from its own modules, map by map."
    space, stored = network.space, {0: network.stem(x)}
    for layer, own in enumerate(space.decode([c for (c,) in network.own.chosen])):
        module, branch = network.layers[layer], network.layers[layer].ops[own.op]
        skips = {j: stored[j] for j in own.skips}
        sources = {**skips, layer: stored[layer]} if space.join == "input" else {layer: stored[layer]}
        columns = branch.first.weight.split(next(iter(sources.values())).shape[1], 1)
        before = (lambda h: h.relu()) if space.final else (lambda h: h)
        y = sum(F.conv2d(before(h), w) for h, w in zip(sources.values(), columns))
        out = branch.body(branch.bn(y) if space.final else branch.bn(y).relu())
        if layer and space.join == "sum":
            out = module.bn(out + sum(skips.values()))
        if layer and space.join == "output":
            both = [*skips.values(), out]
            out = module.bn(F.conv2d(torch.cat(both, 1).relu(), module.columns.weight))
        stored[layer + 1] = out
        if layer in space.pools:
            stored = {j: half(h) for half, (j, h) in zip(network.halves[str(layer)], stored.items())}
    return network.linear(stored[space.layers].mean((2, 3)))


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("join", JOINS)
def test_skips_are_joined_as_the_table_says(join, final):
    torch.manual_seed(0)
    space = MacroSpace(5, 4, join=join, final=final)
    x = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    for row in random_rows(space.sizes, 4, seed=2).tolist():
        network = space.network(row).double().eval()
        close(network(x), by_hand(network, x))


def test_the_published_network_loads_is_drawn_and_learns():
    final = MacroSpace(24, 4, join="output", final=True, drop=0.0)
    torch.manual_seed(0)
    network = final.network(published()).train()
    figure = draw_layers(final.decode(published()), (1, 8, 8))
    skips = sum(len(layer.skips) for layer in final.decode(published()))
    near = sum(layer in (own.skips) for layer, own in enumerate(final.decode(published())))
    assert near == 0 and sum(isinstance(p, Arc) for p in figure.axes[0].patches) == skips
    plt.close(figure)
    x, y = torch.randn(32, 1, 8, 8), torch.arange(32) % 10
    optimizer, losses = make_optimizer(network, Recipe(12, "adam", 0.01)), []
    for _ in range(12):
        losses.append(F.cross_entropy(network(x), y))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.3


# --- the controller in the search loop -----------------------------------------------------------------------


def batches(step):
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(step))
    return x, (torch.arange(16) + step) % 10


def searched(steps, path=None, rule=SparseReinforce):
    torch.manual_seed(0)
    space = MacroSpace(4, 4, join="sum")
    network, method = space.supernet(), Controlled(space, rule, **ENAS, lr=0.01)
    ckpt = path and Checkpoint(path, every=0)
    recipe = Recipe(4, "sgd", 0.05, channels_last=False)
    stop = iter(range(steps))

    def train(step):
        if step >= steps:
            raise KeyboardInterrupt
        return batches(next(stop))

    train.about = batches.about = dict(kind="noise")
    try:
        search(network, method, train, batches, recipe, ckpt=ckpt, paths=1, samples=2)
    except KeyboardInterrupt:
        pass
    return network, method


@pytest.mark.parametrize("rule", [SparseReinforce, Reinforce, PPO])
def test_a_controller_searches_a_supernet(rule):
    network, method = searched(4, rule=rule)
    assert method.rule.updates == 4 and len(method.row()) == len(network.space.sizes)
    assert method.architecture() == network.space.decode(method.row())


def test_its_state_is_part_of_a_checkpoint():
    _, method = searched(3)
    other = Controlled(method.space, **ENAS, lr=0.01)
    other.load_state_dict(method.state_dict())
    assert [w.chosen for w in other.ask(9, 3)] == [w.chosen for w in method.ask(9, 3)]


def test_a_wish_for_few_skips_is_learned():
    space = MacroSpace(5, 4)
    with_wish, without = (
        rule(steps_of(space), 0, hidden=16, lr=0.05, bonus=0.0) for rule in (SparseReinforce, Reinforce)
    )
    for opt in (with_wish, without):
        for _ in range(25):
            opt.tell(opt.ask(4), [1.0] * 4)
    rate = lambda opt: opt.best().skips.sigmoid().mean().item()
    assert rate(with_wish) < rate(without)


# --- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACE_OPTIONS)
def test_every_connection_is_drawn_and_said(name):
    space = space_of(name)
    for row in random_rows(space.sizes, 3).tolist():
        child = space.decode(row)
        figure, words = draw_layers(child, (1, 9, 9)), describe_layers(child, (1, 9, 9))
        pairs = {(j, i) for i, layer in enumerate(child.layers) for j in layer.inputs}
        pairs |= {(-1, i) for i, layer in enumerate(child.layers) if not layer.inputs}
        pairs |= {(j, len(child.layers)) for j in child.leaves}
        arcs = sum(isinstance(p, Arc) for p in figure.axes[0].patches)
        assert arcs == sum(i - j > 1 for j, i in pairs) and len(figure.axes[0].lines) == len(pairs) - arcs
        assert words.count("reads") == len(child.layers) + 1 and words.count("image") == sum(
            j < 0 for j, _ in pairs
        )
        plt.close(figure)


def test_a_triangle_of_probabilities_is_drawn():
    figure = draw_anchors(torch.tensor([0.1, 0.2, 0.3]))
    assert [t.get_text() for t in figure.axes[0].texts] == ["0.10", "0.20", "0.30"]
    plt.close(figure)


# --- the runs of the document --------------------------------------------------------------------------------

TINY = dict(updates=3, batch=2, steps=3, last=1, rate=0.05)


@pytest.mark.parametrize("space", runs.SPACES)
@pytest.mark.parametrize("rule", ["REINFORCE", "random"])
def test_a_search_with_children(space, rule):
    result = runs.search_run(rule, space, **TINY | dict(updates=2), seed=0, timed=True)
    assert json.loads(json.dumps(result)) == result
    assert len(result["rows"]) == len(result["accuracy"]) == 4 and len(result["entropy"]) == 2
    assert len(result["preferred"]) == (2 if rule == "REINFORCE" else 0) and result["seconds"] > 0
    assert result["trained"] == len({tuple(row) for row in result["rows"]})
    assert all(0 <= a <= 1 for a in result["accuracy"])


def test_a_search_goes_on_after_a_kill(tmp_path, monkeypatch):
    whole = runs.search_run("REINFORCE", "tokens", **TINY, seed=1)
    ckpt, trained, train = Checkpoint(tmp_path / "a.pt", every=0), [], runs.Children._train

    def killed(self, row):
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append(row)
        return train(self, row)

    monkeypatch.setattr(runs.Children, "_train", killed)
    with pytest.raises(KeyboardInterrupt):
        runs.search_run("REINFORCE", "tokens", **TINY, seed=1, ckpt=ckpt)
    monkeypatch.setattr(runs.Children, "_train", train)
    assert runs.search_run("REINFORCE", "tokens", **TINY, seed=1, ckpt=Checkpoint(tmp_path / "a.pt")) == whole


def test_an_architecture_is_trained_once():
    children = runs.Children(runs.SPACES["tokens"], steps=2, last=1)
    row = random_rows(children.space.sizes, 1)[0].tolist()
    first, spent = children.accuracy(row), children.seconds
    assert children.accuracy(tuple(row)) == first and children.seconds == spent
    assert runs.Children(children.space, steps=2, last=1).accuracy(row) == first


def test_a_child_that_diverges_has_accuracy_zero():
    children = runs.Children(runs.SPACES["tokens"], steps=3, last=1, lr=1e30)
    assert children.accuracy(random_rows(children.space.sizes, 1)[0].tolist()) == 0


def test_the_best_are_different():
    result = dict(rows=[[0], [1], [1], [2]], accuracy=[0.1, 0.9, 0.9, 0.5])
    assert runs.best_rows(result, 2) == [[1], [2]]


def test_scores_give_the_gradient_that_the_controller_follows():
    opt = Reinforce(steps_of(LayerSpace(3)), hidden=8, dtype=torch.float32)
    draws, R = opt.ask(5), torch.rand(5)
    scores = runs.gradients_of(opt, draws.cat)
    mean = (scores * (R - 0.3)[:, None]).mean(0)
    own = opt._gradients(draws, lambda now: -reinforce_loss(now.logp, (R - 0.3)[None]))
    close(mean, torch.cat([g.flatten() for g in own]), tol=1e-5)


def test_a_baseline_near_the_mean_lowers_the_variance():
    opt = Reinforce(steps_of(LayerSpace(3)), hidden=8)
    draws = opt.ask(64)
    R, scores = 0.5 + 0.05 * torch.rand(64), runs.gradients_of(opt, draws.cat)
    with_b, without = (runs.total_variance(scores * (R - b)[:, None]) for b in (0.525, 0.0))
    assert with_b < 0.02 * without


# --- bad input -----------------------------------------------------------------------------------------------

CHILD = Layers((Layer(3, 3, 4, 3, 3), Layer(3, 3, 4, inputs=(0,))), padding="valid")
BAD = {
    "an empty space": (lambda: LayerSpace(1, (3,), (3,), counts=(8,)), "nothing to search"),
    "no values": (lambda: LayerSpace(counts=()), "at least one"),
    "values that are no tuple": (lambda: LayerSpace(counts=[8, 9]), "tuple"),
    "the same value twice": (lambda: LayerSpace(counts=(8, 8)), "different"),
    "an even filter": (lambda: LayerSpace(heights=(2, 3)), "odd"),
    "a stride of 0": (lambda: LayerSpace(downs=(0, 1)), "downs"),
    "no layers": (lambda: LayerSpace(0), "layers"),
    "a rate of 0": (lambda: LayerSpace(rates=(0.0, 0.1)), "rates"),
    "unknown padding": (lambda: LayerSpace(padding="mirror"), "padding"),
    "a short row": (lambda: LayerSpace(2).decode([0]), "7 whole numbers"),
    "a choice that there is not": (lambda: LayerSpace(2).decode([0, 0, 4, 0, 0, 0, 0]), "decision 2"),
    "no numbers": (lambda: LayerSpace(2).decode("abcdefg"), "7 whole numbers"),
    "a ragged row": (lambda: LayerSpace(1).decode([[0], [1, 2], 3]), "3 whole numbers"),
    "real numbers": (lambda: LayerSpace(1).decode([0.0, 1.0, 2.0]), "3 whole numbers"),
    "a child of another space": (lambda: LayerSpace(2).encode(CHILD), "no such child"),
    "no child": (lambda: LayerSpace(2).encode(7), "no such child"),
    "a map that vanishes": (lambda: CHILD.shapes((1, 5, 5)), "layer 1 leaves nothing of a map of 1×1"),
    "no shape": (lambda: CHILD.shapes((1, 5)), "shape"),
    "no rows": (lambda: random_rows((2, 2), 0), "n"),
    "other images": (lambda: LayerSpace(1).network([0, 0, 0])(torch.zeros(1, 2, 8, 8)), "do not fit"),
    "images of bytes": (
        lambda: LayerSpace(1).network([0, 0, 0])(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)),
        "real numbers",
    ),
    "one operation, one layer": (lambda: MacroSpace(1, ops=("conv_3x3",)), "nothing to search"),
    "no operations": (lambda: MacroSpace(ops=()), "ops"),
    "an unknown operation": (lambda: MacroSpace(ops=("conv_9x9",)), "ops"),
    "odd channels": (lambda: MacroSpace(channels=7), "even"),
    "an unknown join": (lambda: MacroSpace(join="cat"), "join"),
    "a drop of 1": (lambda: MacroSpace(drop=1.0), "drop"),
    "a row that is too short": (lambda: MacroSpace(3).decode([0, 0, 0]), "6 whole numbers"),
    "a supernet without weights": (lambda: MacroSpace(3, 4).supernet()(torch.zeros(1, 1, 8, 8)), "one_hot"),
    "weights of another space": (
        lambda: MacroSpace(3, 4).supernet()(torch.zeros(1, 1, 8, 8), one_hot([0, 0])),
        "6 decisions",
    ),
    "a choice too many": (
        lambda: MacroSpace(3, 4).supernet()(torch.zeros(1, 1, 8, 8), one_hot([0, 0, 2, 0, 0, 0])),
        "do not fit",
    ),
    "a child with weights": (
        lambda: MacroSpace(3, 4).network([0] * 6)(torch.zeros(1, 1, 8, 8), one_hot([1] * 6)),
        "own row",
    ),
    "a stranger's supernet": (
        lambda: MacroSpace(3, 4).network([0] * 6).inherit(MacroSpace(3, 6).supernet()),
        "its own space",
    ),
    "steps of no space": (lambda: steps_of([2, 3]), "known"),
    "steps that are no row": (lambda: Controlled(MacroSpace(3, 4), steps=[Step("choice", 3)]), "no row"),
    "a reward that is not finite": (
        lambda: (m := Controlled(MacroSpace(3, 4))).ask(0, 2) and m.tell(torch.tensor([1.0, math.nan])),
        "not finite",
    ),
    "no child to draw": (lambda: draw_layers([1, 2]), "a child is drawn"),
    "no triangle": (lambda: draw_anchors([0.5, 0.5]), "pair of layers"),
    "no probability": (lambda: draw_anchors([1.5]), "0 to 1"),
    "an unknown rule": (lambda: runs.search_run("ES", "tokens", **TINY, seed=0), "rule"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_answered_in_a_sentence(name):
    call, says = BAD[name]
    with pytest.raises(ValueError) as e:
        call()
    assert says in str(e.value) and "\n" not in str(e.value) and len(str(e.value)) < 330
    plt.close("all")


def test_the_network_class_takes_a_row_or_none():
    space = MacroSpace(3, 4)
    assert MacroNetwork(space, (1, 8, 8)).own is None
    assert MacroNetwork(space, (1, 8, 8), row=[0] * 6).own == one_hot([0] * 6)
