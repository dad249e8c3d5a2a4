"""Operations, cells and relaxations: the papers' numbers, one code path for every kind of weights, and the
way to a genotype and back."""

import json
import math
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from torch import nn

from nas_nb.cells import (
    ASNG_CELL,
    DARTS_CELL,
    ENAS_CELL,
    NASNET_A,
    NASNET_CELL,
    CellNetwork,
    CellSpace,
    Genotype,
    auxiliary_head,
    darts_names,
    decode,
    discretise,
    encode,
    genotype_routes,
    load_darts,
    loose,
    parameter_counts,
    parameter_norms,
    routes,
    weighted_sums,
    widest,
)
from nas_nb.core import check_whole
from nas_nb.draw import describe, draw_cell, op_label, op_legend, op_look
from nas_nb.operations import (
    ASNG_OPS,
    DARTS_OPS,
    ENAS_OPS,
    NASNET_OPS,
    Cost,
    Depthwise,
    Op,
    Reduce,
    check_shape,
    cost,
    factorized_reduce,
    relu_conv_bn,
    side_by_side,
)
from nas_nb.relaxations import Weights, one_hot, sigmoid, softmax, straight_through, threshold, two_path

CASES = json.loads((Path(__file__).parent / "cells_cases.json").read_text())
ALL_OPS = DARTS_OPS | {"sep_conv_7x7": NASNET_OPS["sep_conv_7x7"], "conv_7x1_1x7": NASNET_OPS["conv_1x7_7x1"]}


pytestmark = pytest.mark.usefixtures("one_thread")


def count(network, skip="aux"):
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith(skip))


def genotype(normal, reduce, normal_concat=range(2, 6), reduce_concat=range(2, 6)):
    """From the flat lists in which the public genotypes are written: two (operation, state) pairs for each
    node."""
    pairs = lambda flat: tuple(tuple(flat[n : n + 2]) for n in range(0, len(flat), 2))
    return Genotype(pairs(normal), tuple(normal_concat), pairs(reduce), tuple(reduce_concat))


def ops(text):
    short = dict(
        sep3="sep_conv_3x3",
        sep5="sep_conv_5x5",
        sep7="sep_conv_7x7",
        dil3="dil_conv_3x3",
        skip="skip_connect",
        max="max_pool_3x3",
    )
    short |= dict(avg="avg_pool_3x3", conv7="conv_7x1_1x7")
    return [(short[w[:-1]], int(w[-1])) for w in text.split()]


MAX_SKIP = "max0 max1 skip2 max0 max0 skip2 skip2 avg0"
PUBLIC = dict(
    DARTS_V1=genotype(ops("sep31 sep30 skip0 sep31 skip0 sep31 sep30 skip2"), ops(MAX_SKIP)),
    DARTS_V2=genotype(ops("sep30 sep31 sep30 sep31 sep31 skip0 skip0 dil32"), ops("max0 max1 skip2 max1 max0 skip2 skip2 max1")),
    NASNet=genotype(
        ops("sep51 sep30 sep50 sep30 avg1 skip0 avg0 avg0 sep31 skip1"),
        ops("sep51 sep70 max1 sep70 avg1 sep50 skip3 avg2 sep32 max1"), range(2, 7), (4, 5, 6),
    ),
    AmoebaNet=genotype(
        ops("avg0 max1 sep30 sep52 sep30 avg3 sep31 skip1 skip0 avg1"),
        ops("avg0 sep31 max0 sep72 sep70 avg1 max0 max1 conv70 sep35"), (4, 5, 6), (3, 4, 6),
    ),
)  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_public_genotypes_have_the_published_sizes(name):
    g, expected = PUBLIC[name], CASES["darts_param_counts"]["expected"]
    network = CellNetwork(
        CellSpace(ALL_OPS, nodes=len(g.normal)), channels=36, cells=20, genotype=g, aux=True
    )
    assert count(network) == expected[f"cifar_{name}_C36_L20"]
    assert count(network, skip="none") == expected[f"cifar_{name}_C36_L20_with_aux"]


def test_supernets_have_the_published_sizes():
    expected = CASES["darts_param_counts"]["expected"]
    assert count(CellNetwork(DARTS_CELL)) == expected["search_C16_L8"]
    assert count(CellNetwork(DARTS_CELL, classes=100)) == expected["search_C16_L8_100cls"]
    assert (
        count(CellNetwork(DARTS_CELL, channels=16, cells=8, genotype=PUBLIC["DARTS_V2"]))
        == expected["cifar_DARTS_V2_C16_L8"]
    )
    asng = CASES["asng_cifar_network"]["expected"]
    assert count(CellNetwork(ASNG_CELL)) == asng["search_supernet_C16_8cells_params"]["without_aux"]
    assert ASNG_CELL.sizes == asng["K"] and math.log10(ASNG_CELL.count() ** 2) == pytest.approx(
        asng["log10_architectures"]
    )
    assert sum(n - 1 for n in ASNG_CELL.sizes) == asng["n_theta"]


@pytest.mark.parametrize("name", ["all_zero", "chain_sep3", "random_seed0"])
@pytest.mark.parametrize("channels", [16, 24, 36])
def test_asng_networks_have_the_published_sizes(name, channels):
    case = CASES["asng_cifar_network"]["expected"]["architectures"][name]
    network = CellNetwork(ASNG_CELL, channels=channels, cells=20, genotype=decode(ASNG_CELL, case["arch"]))
    assert count(network) == case[f"params_20cells_affine_C{channels}"]


@pytest.mark.parametrize("name", ["all_zero", "chain_sep3", "random_seed0"])
def test_widest_is_what_the_public_program_finds(name):
    case = CASES["asng_cifar_network"]["expected"]["architectures"][name]
    genotype = decode(ASNG_CELL, case["arch"])
    assert widest(ASNG_CELL, genotype, 4_000_000) == case["channels_init_for_4.0M"]
    assert (
        count(CellNetwork(ASNG_CELL, channels=case["channels_init_for_4.0M"], cells=20, genotype=genotype))
        == case["params_at_that_width"]
    )
    assert (
        widest(ASNG_CELL, genotype, case["params_at_that_width"])
        == widest(ASNG_CELL, genotype, case["params_at_that_width"] - 1) + 1
    )
    assert widest(ASNG_CELL, genotype, 10**9, cells=3, most=5) == 5
    with pytest.raises(ValueError, match="more than the budget of 99"):
        widest(ASNG_CELL, genotype, 99)


def test_multiply_adds():
    network = CellNetwork(DARTS_CELL, channels=36, cells=20, genotype=PUBLIC["DARTS_V2"])
    assert (
        cost(network, (3, 32, 32)).multiply_adds
        == CASES["darts_macs"]["expected"]["cifar_DARTS_V2_C36_L20_32px"]
    )


def test_spaces_have_the_published_numbers_of_cells():
    expected = CASES["search_space_sizes"]["expected"]
    assert DARTS_CELL.count() == expected["darts_one_cell"]
    assert math.log10(DARTS_CELL.count() ** 2) == pytest.approx(expected["darts_two_cells_log10"])


@pytest.mark.parametrize("case", CASES["darts_op_shapes_params"]["expected"])
def test_operations_have_the_published_shapes_and_sizes(case):
    name, stride = case[:-3], int(case[-1])
    op = ALL_OPS[name].build(8, stride, affine=True)
    expected = CASES["darts_op_shapes_params"]["expected"][case]
    assert list(op(torch.randn(2, 8, 16, 16)).shape) == expected["out_shape"]
    assert sum(p.numel() for p in op.parameters()) == expected["params"]


def test_pooling_and_the_factorised_reduction():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    for ops, paper in (DARTS_OPS, "darts"), (ASNG_OPS, "asng"):
        torch.testing.assert_close(
            ops["avg_pool_3x3"].build(1)(x)[0, 0], torch.tensor(CASES["avgpool_count_include_pad"][paper])
        )
    layer = factorized_reduce(1, 2, True)
    for conv in (layer[1].even, layer[1].odd):
        torch.nn.init.ones_(conv.weight)
    layer[1].bn = torch.nn.Identity()
    assert (
        layer(torch.arange(16.0).view(1, 1, 4, 4) - 5)[0].tolist()
        == CASES["factorized_reduce_sampling"]["expected"]
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "k, stride, size", [(3, 1, 8), (5, 1, 8), (5, 1, 4), (3, 2, 8), (5, 2, 7), (5, 1, 7), (5, 2, 4)]
)
def test_dilation_on_subgrids_is_dilation(k, stride, size, layout):
    conv = Depthwise(6, k, stride, 2)
    x = torch.randn(2, 6, size, size).contiguous(memory_format=layout).requires_grad_()
    ours, torchs = conv(x), F.conv2d(x, conv.weight, None, stride, 2 * (k // 2), 2, 6)
    torch.testing.assert_close(ours, torchs)
    upstream = torch.randn_like(torchs)
    for a, b in zip(*(torch.autograd.grad(y, (x, conv.weight), upstream) for y in (ours, torchs))):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# -- weights --


def plain_mixture(network, x, w):
    "A DARTS supernet as its equation reads: every operation of every edge, one after the other."
    older = newer = network.stem(x)
    half, kinds = len(network.space.edges), list(network.space.ops.values())
    for cell, kind in zip(network.cells, network.kinds):
        states, rows = [cell.first(older), cell.second(newer)], w[half:] if kind == "reduce" else w[:half]
        for i in range(network.space.nodes):
            total = 0
            for e, (j, to) in enumerate(network.space.edges):
                for k, op in enumerate(kinds) if to == i else []:
                    total = total + rows[e, k] * cell.own[f"{e}-{k}"](
                        cell.shared[f"{j}-{cell.kinds[op.shared]}"](states[j])
                    )
            states.append(total)
        older, newer = newer, torch.cat(states[2:], 1)
    return network.linear(newer.mean((2, 3)))


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return CellNetwork(DARTS_CELL, channels=4, cells=3).double()


def some(n=3):
    return torch.randn(n, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("relax", [softmax, sigmoid])
def test_the_supernet_computes_its_equation_with_all_gradients(supernet, relax):
    alpha = torch.randn(
        28, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True
    )
    results = []
    for forward in (supernet, lambda x, w: plain_mixture(supernet, x, w.values)):
        logits = forward(some(), relax(alpha))
        results.append([logits, *torch.autograd.grad(logits.square().sum(), [alpha, *supernet.parameters()])])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_chosen_architecture_is_the_mixture_with_zeros_and_ones(supernet):
    g = discretise(DARTS_CELL, torch.rand(28, 8, generator=torch.Generator().manual_seed(3)))
    chosen, dense = encode(DARTS_CELL, g), torch.zeros(28, 8, dtype=torch.float64)
    for v, ks in enumerate(chosen.chosen):
        dense[v, list(ks)] = 1
    torch.testing.assert_close(supernet(some(), chosen), plain_mixture(supernet, some(), dense))


def test_what_is_not_chosen_is_not_computed(supernet):
    computed = []
    hooks = [
        m.register_forward_hook(lambda m, i, o, name=name: computed.append(name))
        for name, m in supernet.cells[0].own.items()
    ]
    supernet(some(), one_hot([4] + [0] * 27))  # sep_conv_3x3 on the first edge, none elsewhere
    assert computed == ["0-4"]
    computed.clear()
    supernet(some(), two_path(torch.zeros(28, 8, dtype=torch.float64), [(4, 1)] + [(4, 0)] * 27))
    assert sorted(computed) == sorted(["0-4", "0-1"] + [f"{e}-4" for e in range(1, 14)])
    [hook.remove() for hook in hooks]


def test_a_gate_gets_the_gradient_of_its_path(supernet):
    gates = torch.zeros(28, 8, dtype=torch.float64)
    gates[:, 3] = 1  # skip everywhere
    gates.requires_grad_()
    loss = lambda w: supernet(some(), w).square().sum()
    (grad,) = torch.autograd.grad(loss(Weights(gates, ((3, 4),) * 28)), gates)
    step = torch.zeros_like(gates)
    step[5, 4] = 1e-6
    numeric = (loss(Weights(gates + step)) - loss(Weights(gates - step))) / 2e-6
    assert grad[5, 4].item() == pytest.approx(numeric.item(), rel=1e-5)
    soft = softmax(torch.randn(28, 8, dtype=torch.float64))
    hard = straight_through(soft, [3] * 28)
    torch.testing.assert_close(loss(hard), loss(Weights(gates.detach())))


def test_closed_gates_give_nothing(supernet):
    closed = threshold(torch.full((28, 8), -1.0))
    logits = supernet(some(), closed)
    torch.testing.assert_close(logits, supernet.linear.bias.expand(3, -1))


def test_pooling_and_relu_are_computed_once_a_state(supernet):
    calls = []
    hooks = [
        m.register_forward_hook(lambda *a, key=key: calls.append(key))
        for key, m in supernet.cells[0].shared.items()
    ]
    supernet(some(), softmax(torch.zeros(28, 8, dtype=torch.float64)))
    assert len(calls) == len(set(calls)) == 5 * 4  # five states are read; nothing, max, mean, ReLU
    [hook.remove() for hook in hooks]


# -- genotypes --


def test_genotypes_are_read_off_as_the_public_code_does():
    case = CASES["darts_genotype_parse"]
    assert case["primitives"] == list(DARTS_OPS)
    alpha = torch.tensor(case["alphas_normal"] + case["alphas_reduce"])
    found = discretise(DARTS_CELL, softmax(alpha).values)
    flat = lambda nodes: [list(edge) for node in nodes for edge in node]
    assert (
        flat(found.normal) == case["expected"]["normal"] and flat(found.reduce) == case["expected"]["reduce"]
    )
    assert list(found.normal_concat) == case["expected"]["normal_concat"]


def test_softmax_and_none_decide_which_edges_are_kept():
    alpha = torch.zeros(28, 8)
    alpha[2, 4], alpha[2, 0] = 2.0, 4.0  # the largest raw value of the node's edges, and mostly none
    alpha[3, 4] = alpha[4, 5] = 1.0
    assert discretise(DARTS_CELL, softmax(alpha).values).normal[1] == (
        ("sep_conv_3x3", 1),
        ("sep_conv_5x5", 2),
    )
    assert discretise(DARTS_CELL, alpha).normal[1][0] == (
        "sep_conv_3x3",
        0,
    )  # what ranking raw values would give
    everything = discretise(DARTS_CELL, softmax(alpha).values, keep=None)
    assert everything.normal[1] == (
        ("sep_conv_3x3", 1),
        ("sep_conv_5x5", 2),
    )  # none is the strongest elsewhere


@pytest.mark.parametrize("space", [DARTS_CELL, ASNG_CELL, ENAS_CELL], ids=["DARTS", "ASNG", "ENAS"])
def test_choices_to_genotype_to_text_to_weights_and_back(space):
    random = torch.Generator().manual_seed(4)
    for _ in range(20):
        choices = [int(torch.randint(n, (1,), generator=random)) for n in space.sizes]
        g = Genotype.from_json(decode(space, choices).to_json())
        again = encode(space, g)
        none = list(space.ops).index("none") if "none" in space.ops else -1
        assert again.chosen == tuple(() if not space.picks and c == none else (c,) for c in choices)
        assert (
            discretise(space, F.one_hot(torch.tensor(choices), 8).float(), keep=None) == g
            if not space.picks
            else decode(space, [c for (c,) in again.chosen]) == g
        )


def test_the_final_network_is_the_supernet_restricted_to_its_genotype():
    "Same weights, same function: with the supernet's kind of batch norm the two agree."
    torch.manual_seed(0)
    g = decode(
        ASNG_CELL, [1, 0, 3, 4, 0, 0, 3, 3, 2, 1, 1, 2, 0, 4, 0, 3, 3, 1, 2, 0] * 2
    )  # node 1 takes one operation twice
    network, final = (
        CellNetwork(ASNG_CELL, channels=4, cells=3),
        CellNetwork(ASNG_CELL, channels=4, cells=3, genotype=g),
    )
    own = network.state_dict()
    for name, value in final.state_dict().items():
        if name in own and own[name].shape == value.shape:
            value.copy_(own[name])
    for small, large in zip(final.merges, network.merges):
        small.conv.weight.data = torch.cat([large.conv.weight[:, large.at[s]] for s in small.at], 1)
    x = some().float()
    torch.testing.assert_close(final.train()(x), network.train()(x, encode(ASNG_CELL, g)))


def test_drop_path_and_auxiliary_head_of_a_final_network():
    network = CellNetwork(DARTS_CELL, channels=4, cells=3, genotype=PUBLIC["DARTS_V2"], aux=True).train()
    logits, aux = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == aux.shape == (2, 10)
    dropped = []
    for cell in network.cells:
        cell.drop.p = 0.5
        cell.drop.register_forward_hook(lambda m, i, o: dropped.append(o is not i[0]))
    network(torch.randn(2, 3, 32, 32))
    skips = [("skip_connect", j) for j in range(6)]
    identities = sum(edge in skips for node in PUBLIC["DARTS_V2"].normal for edge in node)
    reduced = sum(edge in skips and edge[1] > 1 for node in PUBLIC["DARTS_V2"].reduce for edge in node)
    assert len(dropped) == 3 * 8 - identities - 2 * reduced
    assert network.eval()(torch.randn(2, 3, 32, 32)).shape == (2, 10)


# -- one's own space, and what is refused --


def test_a_space_of_ones_own():
    mine = CellSpace(
        ops={
            "none": DARTS_OPS["none"],
            "skip": DARTS_OPS["skip_connect"],
            "conv": Op(DARTS_OPS["sep_conv_3x3"].shared, NASNET_OPS["conv_3x3"].own),
        },
        nodes=2,
        wiring=((0, 0), (1, 0), (1, 1), (2, 1)),
    )
    alpha = torch.randn(len(mine.sizes), 3, requires_grad=True)
    network = CellNetwork(mine, shape=(1, 8, 8), channels=4, cells=3)
    network(torch.randn(2, 1, 8, 8), softmax(alpha)).sum().backward()
    assert alpha.grad.abs().sum() > 0
    found = discretise(mine, softmax(alpha).values)
    final = CellNetwork(mine, (1, 8, 8), channels=4, cells=3, genotype=found)
    assert final(torch.randn(2, 1, 8, 8)).shape == (2, 10) and mine.count() == 2**4


def test_what_is_refused_in_one_sentence(supernet):
    dense = Weights(torch.rand(40, 6))
    for call, says in (
        (
            lambda: CellNetwork(ASNG_CELL, channels=4, cells=1)(some().float(), dense),
            "outputs only its unused nodes",
        ),
        (lambda: supernet(some()), "needs weights"),
        (lambda: supernet(some(), softmax(torch.zeros(14, 8))), "14 variables do not fit"),
        (
            lambda: CellNetwork(DARTS_CELL, channels=4, cells=1, genotype=PUBLIC["DARTS_V1"])(
                some().float(), one_hot([0] * 28)
            ),
            "takes no weights",
        ),
        (lambda: CellNetwork(DARTS_CELL, genotype=PUBLIC["NASNet"]), "14 edges"),
        (lambda: discretise(ASNG_CELL, torch.rand(40, 6)), "choices"),
        (lambda: decode(ASNG_CELL, [9] * 40), "choices must be"),
        (lambda: Genotype.from_json('{"normal": 3}'), "not a genotype"),
        (lambda: two_path(torch.zeros(1, 3), [(1, 1)]), "different"),
    ):
        with pytest.raises(ValueError, match=says) as error:
            call()
        assert "\n" not in str(error.value)


def test_routes_skip_none():
    assert {r.op for node in routes(DARTS_CELL, softmax(torch.zeros(28, 8)), "normal") for r in node} == set(
        range(1, 8)
    )


# -- pictures --


def random_choices(space, seed):
    random = torch.Generator().manual_seed(seed)
    return decode(space, [int(torch.randint(n, (1,), generator=random)) for n in space.sizes])


DEAD = Genotype(  # node 1 has no input, node 2 only what is nothing
    ((("sep_conv_3x3", 0),), (), (("skip_connect", 3), ("none", 0)), (("max_pool_3x3", 0), ("skip_connect", 2))), (2, 3, 4, 5), ((), (), (), ()), (2,)
)  # fmt: skip
CHAIN = [1, 0, 3, 4, 2, 1, 3, 4, 3, 2, 3, 4, 4, 3, 3, 4, 5, 4, 3, 4] * 2
DRAWN = PUBLIC | dict(
    NASNet_A=NASNET_A, dead=DEAD, chain=decode(ASNG_CELL, CHAIN), star=decode(ASNG_CELL, [0] * 40)
)
DRAWN |= {
    name: random_choices(space, 0)
    for name, space in (("edges", DARTS_CELL), ("asng", ASNG_CELL), ("nasnet", NASNET_CELL))
}
DRAWN["every edge"] = discretise(
    DARTS_CELL, torch.rand(28, 8, generator=torch.Generator().manual_seed(5)), keep=None
)


@pytest.fixture
def drawn():
    """Draws a cell, every warning an error; gives arrows with the states they should join, boxes of nodes,
    and texts."""

    def draw(g, kind="normal", **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ax = draw_cell(g, kind, **kwargs)
            ax.figure.canvas.draw()
        nodes, concat = getattr(g, kind), getattr(g, f"{kind}_concat")
        ends = [(j, 2 + i, op) for i, node in enumerate(nodes) for op, j in node] + [
            (s, 2 + len(nodes), None) for s in concat
        ]
        arrows = [p for p in ax.patches if isinstance(p, FancyArrowPatch)]
        boxes = [p for p in ax.patches if isinstance(p, FancyBboxPatch)]
        assert len(arrows) == len(ends) and len(boxes) == len(nodes)
        return ax, list(zip(ends, arrows)), boxes, ax.texts

    yield draw
    plt.close("all")


@pytest.mark.parametrize("kind", ["normal", "reduce"])
@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_has_an_arrow_and_a_label_for_each_operation_and_nothing_overlaps(drawn, name, kind):
    ax, arrows, boxes, texts = drawn(DRAWN[name], kind)
    labels, centre = (
        [t for t in texts if t.get_bbox_patch()],
        lambda s: boxes[s - 2].get_bbox().get_points().mean(0),
    )
    named = [(b, op, arrow) for (_, b, op), arrow in arrows if op]
    assert [t.get_text() for t in labels] == [op_label(op) for _, op, _ in named]
    for label, (b, _, arrow) in zip(labels, named):  # on its own arrow, in the gap before its node
        x, y = label.get_position()
        assert np.isclose(arrow._path_original.vertices, (x, y)).all(1).any() and x == pytest.approx(
            centre(b)[0] - centre(2)[0] / 2
        )
    extents = [t.get_window_extent() for t in labels]
    assert not any(a.overlaps(b) for n, a in enumerate(extents) for b in extents[:n])
    shapes = [box.get_window_extent() for box in boxes]
    assert not any(a.overlaps(b) for a in extents for b in shapes)
    for (a, b, op), arrow in arrows:
        assert arrow.get_label() == (op or "")
        path = arrow._path_original.interpolated(1)
        line = np.concatenate(list(path.to_polygons(closed_only=False)))
        for i, box in enumerate(boxes):
            inside = box.get_bbox()
            hit = ((line > inside.min) & (line < inside.max)).all(1).any()
            assert not hit, f"the arrow {a} -> {b} runs through node {i}"


def test_arrows_join_what_they_say_from_left_to_right(drawn):
    ax, arrows, boxes, _ = drawn(PUBLIC["DARTS_V2"])
    for (a, b, _), arrow in arrows:
        (x0, y0), (x1, y1) = arrow._path_original.vertices[[0, -1]]
        assert x0 < x1 and (x0 == 0) == (a < 2) and (x1 == 1) == (b == 6)
        for s, x, y in ((a, x0, y0), (b, x1, y1)):
            if 1 < s < 6:
                box = boxes[s - 2].get_bbox()
                assert box.x0 - 1e-9 <= x <= box.x1 + 1e-9 and box.y0 < y < box.y1
    older, newer = (
        next(arrow._path_original.vertices[0, 1] for (a, _, _), arrow in arrows if a == s) for s in (0, 1)
    )
    assert older > newer


def test_one_operation_twice_from_one_state_is_two_arrows(drawn):
    g = decode(ASNG_CELL, [0, 0, 3, 3] + CHAIN[4:])
    _, arrows, _, _ = drawn(g)
    first, second = (arrow._path_original for (a, b, op), arrow in arrows if b == 2)
    assert abs(first.vertices[1:-1, 1] - second.vertices[1:-1, 1]).max() > 0.05


def test_what_does_not_reach_the_output_is_grey(drawn):
    _, arrows, boxes, texts = drawn(DEAD)
    grey = plt.matplotlib.colors.to_rgba("0.85")
    assert [ends[:2] for ends, arrow in arrows if arrow.get_edgecolor() == grey] == [
        (3, 4),
        (0, 4),
        (3, 6),
        (4, 6),
    ]
    assert [box.get_edgecolor()[0] for box in boxes] == [0.1, 0.7, 0.7, 0.1]
    idle = DEAD._replace(normal_concat=(2,))  # node 3 is fed, but nobody reads it
    assert [box.get_edgecolor()[0] for box in drawn(idle)[2]] == [0.1, 0.7, 0.7, 0.7]


def test_an_operation_looks_the_same_everywhere():
    looks = {}
    for g in DRAWN.values():
        for arrow in draw_cell(g).patches:
            if arrow.get_label() and arrow.get_edgecolor()[:3] != (0.85,) * 3:
                looks.setdefault(arrow.get_label(), set()).add(
                    (arrow.get_edgecolor(), arrow.get_linestyle(), arrow.get_linewidth())
                )
    plt.close("all")
    assert len(looks) > 8 and all(len(found) == 1 for found in looks.values())
    families = {op.split("_")[0]: op_look(op)["color"] for op in looks}
    assert families.pop("skip") == families["identity"] and len(set(families.values())) == len(families) == 6
    assert (
        op_look("sep_conv_3x3")["linewidth"]
        < op_look("sep_conv_5x5")["linewidth"]
        < op_look("conv_1x7_7x1")["linewidth"]
    )


@pytest.mark.parametrize(
    "ops", [DARTS_OPS, ASNG_OPS, ENAS_OPS, NASNET_OPS], ids=["DARTS", "ASNG", "ENAS", "NASNet"]
)
def test_operations_without_weights_are_dashed_and_short_names_differ(ops):
    for name, op in ops.items():
        free = not list(op.build(4, 1, True).parameters())
        assert (op_look(name)["linestyle"] != "-") == free, name
        assert op_look(name)["color"] != op_look("something_else")["color"], name
    assert len({op_label(name, short=True) for name in ops}) == len(ops)


def test_small_panels_share_a_legend_and_their_limits(drawn):
    figure, axes = plt.subplots(1, 5, figsize=(13, 2.4), sharex=True, sharey=True)
    for ax, name in zip(axes, ("DARTS_V1", "DARTS_V2", "chain", "star", "dead")):
        _, arrows, _, texts = drawn(DRAWN[name], ax=ax, title=name, short=True)
        assert (
            "sep conv 3×3" not in [t.get_text() for t in texts]
            and ax.get_xlim() == (-0.01, 1.01) == axes[0].get_xlim()
        )
        assert all(arrow.get_linewidth() < op_look(op)["linewidth"] for (_, _, op), arrow in arrows if op)
    op_legend(figure)
    (legend,) = figure.legends
    ops = {
        op
        for name in ("DARTS_V1", "DARTS_V2", "chain", "star", "dead")
        for node in DRAWN[name].normal
        for op, _ in node
    } - {"none"}
    assert sorted(t.get_text() for t in legend.get_texts()) == sorted(map(op_label, ops))
    for line, text in zip(legend.get_lines(), legend.get_texts()):
        assert line.get_color() == op_look(text.get_text().replace(" ", "_"))["color"]


def test_a_cell_in_words():
    said = describe(DEAD)
    assert said.startswith(
        "node 0 = sep conv 3×3 of input k-2; node 1 = nothing; node 2 = skip connect of node 1 + none of input k-2; node 3 ="
    )
    assert said.endswith("output: node 0, node 1, node 2, node 3.")


# -- what operations weigh --

STRIDE_1, STRIDE_2 = [0, 0, 0, 800, 1312, 400, 656, 0], [0, 0, 256, 800, 1312, 400, 656, 0]
DOCUMENT_OPS = {name: DARTS_OPS[name] for name in [*list(DARTS_OPS)[1:], "none"]}


def test_the_documents_network_has_the_documents_numbers_of_weights():
    network = CellNetwork(CellSpace(DOCUMENT_OPS), (1, 28, 28), channels=8, cells=1)
    n = parameter_counts(network)
    assert not n[:14].any() and n.dtype == torch.int64
    assert n[14:].tolist() == [STRIDE_2 if j < 2 else STRIDE_1 for j, _ in DARTS_CELL.edges]
    expected = (softmax(torch.zeros(28, 8)).values * n).sum().item()
    assert expected == pytest.approx(5_800) and n.sum().item() == 46_400


def test_weights_are_counted_over_all_cells_of_a_kind():
    network = CellNetwork(DARTS_CELL, channels=4, cells=4)  # normal, reduction, reduction, normal
    n, own = parameter_counts(network), lambda cell: sum(p.numel() for p in cell.own.parameters())
    normal, reduce = (
        [cell for cell, k in zip(network.cells, network.kinds) if k == kind] for kind in ("normal", "reduce")
    )
    assert len(normal) == len(reduce) == 2
    assert [n[:14].sum().item(), n[14:].sum().item()] == [sum(map(own, normal)), sum(map(own, reduce))]
    g = discretise(DARTS_CELL, torch.rand(28, 8, generator=torch.Generator().manual_seed(0)))
    chosen = sum(n[v, k].item() for v, ks in enumerate(encode(DARTS_CELL, g).chosen) for k in ks)
    final = CellNetwork(DARTS_CELL, channels=4, cells=4, genotype=g)
    affine = sum(
        m.weight.numel() * 2
        for cell in final.cells
        for m in cell.own.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
    )
    assert sum(map(own, final.cells)) - affine == chosen


def test_norms_are_sums_of_norms_with_gradients():
    torch.manual_seed(0)
    network = CellNetwork(DARTS_CELL, channels=4, cells=4).double()
    norms, n = parameter_norms(network), parameter_counts(network)
    assert norms.shape == n.shape == (28, 8) and (norms.eq(0) == n.eq(0)).all()
    cells = [cell for cell, kind in zip(network.cells, network.kinds) if kind == "reduce"]
    separate = [p for cell in cells for p in cell.own["3-4"].parameters()]
    assert len(separate) == 2 * 4 and norms[14 + 3, 4].item() == pytest.approx(
        sum(p.square().sum().sqrt().item() for p in separate)
    )
    w = torch.rand(28, 8, dtype=torch.float64)
    (w * norms).sum().backward()
    for p in separate:
        torch.testing.assert_close(p.grad, w[14 + 3, 4] * p.detach() / p.detach().norm())
    assert network.linear.weight.grad is None and network.stem[0].weight.grad is None


# -- NASNet, and other numbers of the papers --


def test_nasnet():
    assert (
        NASNET_CELL.sizes[:20] == [n for i in range(5) for n in (2 + i, 2 + i, 13, 13)]
        and len(NASNET_CELL.sizes) == 40
    )
    assert (
        loose(NASNET_A.normal) == PUBLIC["NASNet"].normal_concat
        and loose(NASNET_A.reduce) == PUBLIC["NASNet"].reduce_concat
    )
    as_darts = lambda nodes: tuple(
        tuple((op.replace("identity", "skip_connect"), j) for op, j in node) for node in nodes
    )
    slots = lambda nodes: [sorted(node) for node in nodes]
    assert slots(as_darts(NASNET_A.normal)) == slots(PUBLIC["NASNet"].normal) and slots(
        as_darts(NASNET_A.reduce)
    ) == slots(PUBLIC["NASNet"].reduce)
    final = CellNetwork(NASNET_CELL, channels=32, cells=20, genotype=NASNET_A)
    assert round(count(final) / 1e6, 1) == 3.3  # NASNet-A (6 @ 768)
    small = CellNetwork(NASNET_CELL, channels=4, cells=3, genotype=NASNET_A)
    supernet = CellNetwork(NASNET_CELL, channels=4, cells=3)
    for logits in (small(some().float()), supernet(some().float(), encode(NASNET_CELL, NASNET_A))):
        assert logits.shape == (3, 10) and logits.isfinite().all()
    assert [merge is None for merge in small.merges + supernet.merges] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    "normal, before", [(int(n), at) for n, at in CASES["nasnet_reduction_layers"]["expected"].items()]
)
def test_reduction_cells_stand_where_nasnet_inserts_them(normal, before):
    kinds = CellNetwork(
        CellSpace({"skip": DARTS_OPS["skip_connect"]}, nodes=1), channels=1, cells=normal + 2
    ).kinds
    found = [kinds[:n].count("normal") for n, kind in enumerate(kinds) if kind == "reduce"]
    assert found == (before if normal != 20 else [7, 13])  # the notebook says so


def test_a_space_with_wiring_counts_like_nasbench201():
    five = {name: DARTS_OPS[name] for name in list(DARTS_OPS)[:5]}
    space = CellSpace(five, nodes=3, wiring=((0, 0), (0, 1), (2, 1), (0, 2), (2, 2), (3, 2)))
    assert space.count(keep=None) == CASES["search_space_sizes"]["expected"]["nasbench201"]
    assert space.count(keep=1) == (1 * 4) * (2 * 4) * (3 * 4)


def test_the_notebooks_space_of_ones_own():
    "The notebook's code as it stands, with nothing but its own imports."
    nb = json.loads((Path(__file__).parent.parent / "nbs" / "16_draw.ipynb").read_text(encoding="utf-8"))
    source = {c["id"]: "".join(c["source"]) for c in nb["cells"]}
    names = {}
    exec(source["test-imports"] + "\nfrom nas_nb.draw import draw_cell\n" + source["own-run"], names)
    plt.close("all")
    g, mine, network = names["genotype"], names["mine"], names["supernet"]
    assert [len(node) <= 1 for node in g.normal + g.reduce] == [True] * 6 and mine.count(keep=1) == 4**3
    assert names["alpha"].grad[:, 1:].ne(0).all() and not names["alpha"].grad.isnan().any()
    assert names["final"](torch.randn(2, 1, 8, 8)).shape == (2, 10)
    assert parameter_counts(network)[0].tolist() == [0, 0, 4 * 4 * 9]


def test_a_supernet_that_was_looked_at_first_can_be_trained():
    network = CellNetwork(DARTS_CELL, channels=4, cells=1)
    alpha = torch.zeros(28, 8, requires_grad=True)
    with torch.inference_mode():
        network(some().float(), softmax(alpha))
    network(some().float(), softmax(alpha)).sum().backward()
    assert alpha.grad[14:].ne(0).any()


def test_a_chosen_architecture_is_planned_once():
    network, w = CellNetwork(DARTS_CELL, channels=4, cells=3), encode(DARTS_CELL, PUBLIC["DARTS_V1"])
    network(some().float(), w)
    plans = dict(network.plans)
    network(some().float(), w)
    assert len(plans) == 2 and all(network.plans[k] is plan for k, plan in plans.items())


@pytest.mark.parametrize(
    "weights", [torch.rand(14, 8), torch.rand(28, 5), torch.rand(40, 8), torch.full((28, 8), math.nan)]
)
def test_weights_that_do_not_fit_are_not_discretised(weights):
    with pytest.raises(ValueError, match="28 × 8 numbers"):
        discretise(DARTS_CELL, weights)
    with pytest.raises(ValueError, match="keep"):
        discretise(DARTS_CELL, torch.rand(28, 8), keep=0)


def test_what_a_module_costs_leaves_it_as_it_was():
    module = DARTS_OPS["sep_conv_3x3"].build(4)
    module[1][2].eval()
    modes = [m.training for m in module.modules()]
    cost(module, (4, 8, 8))
    assert [m.training for m in module.modules()] == modes and not all(modes)


def test_straight_through_is_exactly_one_hot():
    soft = softmax(torch.randn(1000, 8, generator=torch.Generator().manual_seed(0)))
    hard = straight_through(soft, [3] * 1000).values
    assert torch.equal(hard, F.one_hot(torch.full((1000,), 3), 8).float())


# -- the same operation on several edges as one --


def several(op, stride, momentum=0.1):
    torch.manual_seed(0)
    modules = [op.own(6, stride, False).double() for _ in range(3)]
    for n, module in enumerate(modules):
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.momentum, norm.num_batches_tracked = momentum, norm.num_batches_tracked + n
    return (
        modules,
        torch.randn(4, 6, 8, 8, dtype=torch.float64),
        torch.rand(3, dtype=torch.float64, requires_grad=True),
    )


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("name", [name for name in DARTS_OPS | NASNET_OPS if name != "none"])
def test_side_by_side_is_one_by_one(name, momentum):
    op, found = (DARTS_OPS | NASNET_OPS)[name], []
    for together in (True, False):
        modules, x, w = several(op, 2, momentum)
        for module in modules:
            for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
                norm.eps = 1e-3
        y = side_by_side(modules, x, w) if together else torch.cat([f * m(x) for f, m in zip(w, modules)], 1)
        both = nn.ModuleList(modules)
        trained = [y, *torch.autograd.grad(y.sin().sum(), [w, *both.parameters()]), *both.buffers()]
        both.eval()
        found.append(
            trained + [side_by_side(modules, x) if together else torch.cat([m(x) for m in modules], 1)]
        )
    for a, b in zip(*found):
        torch.testing.assert_close(a, b)


def test_unknown_layers_are_computed_one_by_one():
    modules = [nn.Sequential(nn.Conv2d(6, 2, 1), nn.Dropout(0.0)) for _ in range(2)]  # a bias
    x, w = torch.randn(3, 6, 4, 4), torch.tensor([0.5, -2.0])
    torch.testing.assert_close(
        side_by_side(modules, x, w), torch.cat([f * m(x) for f, m in zip(w, modules)], 1)
    )


# -- what is refused --

OWN = dict(ops={"skip": DARTS_OPS["skip_connect"]}, nodes=2)


@pytest.mark.parametrize(
    "change, says",
    [
        (dict(wiring=((0, 0), (0, 2))), r"\(0, 2\)"),  # a node that does not exist
        (dict(wiring=((0, 0), (3, 1))), r"\(3, 1\)"),  # its own state
        (dict(wiring=((2, 0), (0, 1))), r"\(2, 0\)"),
        (dict(wiring=((-1, 0), (0, 1))), r"\(-1, 0\)"),
        (dict(wiring=((0, 0), (0, 1), (0, 1))), r"\(0, 1\).*twice"),
        (dict(wiring=([0, 0], [0, 1])), r"\[0, 0\]"),
        (dict(wiring=(0, 1)), "has 0, not a pair"),
        (dict(wiring=((0, 0),)), "no edge to node 1"),
        (dict(wiring=()), "no edge to node 0"),
        (dict(wiring=((0, 0), (0, 1)), picks=True), "leave wiring out"),
        (dict(nodes=0), "nodes = 0"),
        (dict(nodes=2.0), "nodes = 2.0"),
        (dict(nodes=True), "nodes = True"),
        (dict(ops={}), "ops"),
        (dict(ops=["skip"]), "ops"),
        (dict(ops={"skip": F.relu}), "ops"),
        (dict(output="first"), "output = 'first' must be one of all, loose, last"),
        (dict(project="sometimes"), "project = 'sometimes' must be one of never"),
        (dict(alike=1), "alike = 1 must be True or False"),
        (dict(output="loose"), "output='loose' needs"),
        (dict(output="loose", picks=True), "output='loose' needs"),
        (dict(output="loose", project="always"), "output='loose' needs"),
    ],
)
def test_what_makes_no_space_is_refused_by_name(change, says):
    with pytest.raises(ValueError, match=says) as error:
        CellSpace(**OWN | change)
    assert "\n" not in str(error.value) and str(error.value).startswith("CellSpace: ")


V2, SMALL = PUBLIC["DARTS_V2"], dict(shape=(3, 16, 16), channels=4, cells=1)
REFUSED = {
    "kind to draw": (lambda: draw_cell(V2, "reduction"), "kind = 'reduction'"),
    "kind to describe": (lambda: describe(V2, "Normal"), "kind = 'Normal'"),
    "kind of routes": (lambda: routes(DARTS_CELL, one_hot([0] * 28), "both"), "kind = 'both'"),
    "late state": (lambda: draw_cell(V2._replace(normal=((("sep_conv_3x3", 2),),))), "node 0 reads state 2"),
    "negative state": (
        lambda: draw_cell(V2._replace(normal=((("sep_conv_3x3", -1),),))),
        "node 0 reads state -1",
    ),
    "late state in a network": (
        lambda: CellNetwork(DARTS_CELL, **SMALL, genotype=V2._replace(reduce_concat=(2, 9))),
        "output reads state 9",
    ),
    "no output": (
        lambda: CellNetwork(DARTS_CELL, **SMALL, genotype=V2._replace(reduce_concat=())),
        "its output is empty",
    ),
    "late state in a text": (
        lambda: Genotype.from_json(V2._replace(normal_concat=(6,)).to_json()),
        "not a genotype.*output reads state 6",
    ),
    "unknown operation": (
        lambda: encode(DARTS_CELL, V2._replace(normal=((("conv_9x9", 0),),) * 4)),
        "'conv_9x9'",
    ),
    "operation of another space": (lambda: CellNetwork(ASNG_CELL, **SMALL, genotype=V2), "skip_connect"),
    "too few nodes": (
        lambda: encode(DARTS_CELL, V2._replace(normal=V2.normal[:3])),
        "3 nodes do not fit a space that has 4",
    ),
    "one input": (
        lambda: encode(ASNG_CELL, DRAWN["chain"]._replace(normal=(DRAWN["chain"].normal[0][:1],) * 5)),
        "5 with two inputs each",
    ),
    "dense on ENAS": (
        lambda: CellNetwork(ENAS_CELL, **SMALL)(some().float(), Weights(torch.rand(40, 6))),
        "outputs only its unused nodes",
    ),
    "two choices on ENAS": (
        lambda: CellNetwork(ENAS_CELL, **SMALL)(some().float(), Weights(None, ((0, 1),) * 40)),
        "choose one",
    ),
    "discretise on ENAS": (lambda: discretise(ENAS_CELL, torch.rand(40, 6)), "use `decode`"),
    "a choice too high": (
        lambda: CellNetwork(DARTS_CELL, **SMALL)(some().float(), one_hot([8] * 28)),
        r"variable 0 has the choices 0 to 7, not \(8,\)",
    ),
    "a negative choice": (
        lambda: CellNetwork(ENAS_CELL, **SMALL)(some().float(), one_hot([-1] * 40)),
        "variable 0 has the choices 0 to 1",
    ),
    "weights too narrow": (
        lambda: CellNetwork(DARTS_CELL, **SMALL)(some().float(), softmax(torch.zeros(28, 5))),
        "5 choices do not fit",
    ),
    "counts with picks": (lambda: parameter_counts(CellNetwork(ENAS_CELL, **SMALL)), "no picks"),
    "norms with picks": (lambda: parameter_norms(CellNetwork(ASNG_CELL, **SMALL)), "no picks"),
    "counts of a final network": (
        lambda: parameter_counts(CellNetwork(DARTS_CELL, **SMALL, genotype=V2)),
        "takes a supernet",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(case):
    call, says = REFUSED[case]
    with pytest.raises(ValueError, match=says) as error:
        call()
    assert "\n" not in str(error.value)
    plt.close("all")


# -- images of every size --

SIDES = [(15, 15), (17, 31), (7, 7), (2, 2), (1, 3), (28, 28)]
SPACES = dict(darts=DARTS_CELL, asng=ASNG_CELL, enas=ENAS_CELL, nasnet=NASNET_CELL)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("table", [DARTS_OPS, ASNG_OPS, ENAS_OPS, NASNET_OPS])
@pytest.mark.parametrize("affine", [False, True])
def test_an_operation_of_stride_2_rounds_half_a_side_up(sides, table, affine):
    x, half = torch.randn(2, 4, *sides), tuple(math.ceil(n / 2) for n in sides)
    for name, op in table.items():
        assert op.build(4, 1, affine).eval()(x).shape[2:] == sides, name
        assert op.build(4, 2, affine).eval()(x).shape[2:] == half, name


@pytest.mark.parametrize("sides", SIDES)
def test_the_factorised_reduction_of_odd_sides_is_that_of_the_image_with_a_row_of_zeros_more(sides):
    layer, x = Reduce(3, 4, True).double(), torch.randn(2, 3, *sides, dtype=torch.float64)
    further = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    with torch.no_grad():
        expected = layer.bn(torch.cat([layer.even(x), layer.odd(further)], 1))
    layer.bn.reset_running_stats()
    assert torch.allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["skip_connect", "sep_conv_3x3", "dil_conv_5x5"])
def test_odd_sides_side_by_side_are_each_alone(name):
    many, x = (
        [DARTS_OPS[name].own(4, 2, False).double() for _ in range(3)],
        torch.randn(2, 4, 7, 5, dtype=torch.float64),
    )
    alone = torch.cat([one(x) for one in many], 1)
    assert torch.allclose(side_by_side(many, x), alone, atol=1e-12)


@pytest.mark.parametrize("sides", SIDES)
@pytest.mark.parametrize("name", SPACES)
def test_whatever_the_architecture_every_size_fits(name, sides):
    space = SPACES[name]
    supernet, x = CellNetwork(space, (3, *sides), channels=2, cells=3), torch.randn(2, 3, *sides)
    for seed in range(4):
        g = random_choices(space, seed)
        assert CellNetwork(space, (3, *sides), channels=2, cells=3, genotype=g)(x).shape == (2, 10)
        assert supernet(x, encode(space, g)).shape == (2, 10)
    if not space.picks:
        supernet(x, softmax(torch.zeros(28, 8))).sum().backward()


@pytest.mark.parametrize(("sides", "cells", "fits"), [
    ((32, 32), 8, True), ((29, 40), 3, True), ((28, 28), 8, False), ((32, 41), 8, False), ((16, 16), 1, True), ((32, 32), 1, False), ((2, 2), 2, False),
])  # fmt: skip
def test_whether_an_auxiliary_head_fits_is_known_when_it_is_built(sides, cells, fits):
    form = dict(shape=(3, *sides), channels=2, cells=cells, aux=True)
    for space in (DARTS_CELL, ASNG_CELL):  # the supernet, too, and whatever the architecture
        for g in (None, random_choices(space, 0), random_choices(space, 1)):
            if not fits:
                with pytest.raises(
                    ValueError, match=r"auxiliary head .* data.resize, or leave it out \(aux=False\)"
                ) as error:
                    CellNetwork(space, **form, genotype=g)
                assert "\n" not in str(error.value)
            elif g:
                logits, aux = CellNetwork(space, **form, genotype=g)(torch.randn(2, 3, *sides))
                assert logits.shape == aux.shape == (2, 10)


def test_a_network_is_left_as_it_was_even_if_it_cannot_be_counted():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(5, 2)).train()
    with pytest.raises(RuntimeError):
        cost(network, (3, 8, 8))
    assert network.training and network[0].training
    assert cost(nn.Conv2d(3, 4, 3), (3, 8, 8)) == Cost(112, 3888)


# -- published genotypes and networks --

DARTS_TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), "
    "('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
    "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


def test_the_text_of_a_published_genotype_is_read_and_written():
    g = Genotype.from_darts(DARTS_TEXT)
    assert g == PUBLIC["DARTS_V2"] and Genotype.from_darts(f"\nDARTS_V2 = {DARTS_TEXT}\n") == g
    assert (
        Genotype.from_darts(
            DARTS_TEXT.replace("Genotype(normal=", "genotypes.Genotype(").replace(
                "reduce_concat=", "reduce_concat = "
            )
        )
        == g
    )
    for known in PUBLIC.values():
        assert Genotype.from_darts(known.to_darts()) == known
    assert g.to_darts() == DARTS_TEXT.replace("range(2, 6)", "[2, 3, 4, 5]")


@pytest.mark.parametrize("text", [
    "", "3", "Genotype", "Genotype()", "[1, 2", "\0", "x = y = Genotype()", "import os", "Genotype(normal=[('a', 0)])", "(" * 5000, "-" * 60_000 + "1",
    DARTS_TEXT + "; 3", DARTS_TEXT.replace("normal_concat=range(2, 6), ", ""), DARTS_TEXT.replace("range(2, 6)", "range(2, 10**9)"),
    DARTS_TEXT.replace("range(2, 6)", f"range(2, {10**12})"), DARTS_TEXT.replace("range(2, 6)", "range(2, 6, 0)"),
    DARTS_TEXT.replace("range(2, 6)", "list(2, 6)"), DARTS_TEXT.replace("range(2, 6)", "'2345'"), DARTS_TEXT.replace("range(2, 6)", "[2, 2]"),
    DARTS_TEXT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 0.9)"), DARTS_TEXT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 1e400)"),
    DARTS_TEXT.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', True)"), DARTS_TEXT.replace("('dil_conv_3x3', 2)", "(3, 2)"),
    DARTS_TEXT.replace(", ('dil_conv_3x3', 2)", ""), DARTS_TEXT.replace("('dil_conv_3x3', 2)", "__import__('os').system('true')"),
    DARTS_TEXT.replace("Genotype(", "Genotype([], "), DARTS_TEXT.replace("Genotype(", "dict("), None, 3, b"Genotype()",
])  # fmt: skip
def test_a_text_that_is_no_published_genotype_is_refused(text):
    with pytest.raises(ValueError, match="not a genotype as DARTS writes it") as error:
        Genotype.from_darts(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("old", "new"), [
    ('["skip_connect", 0]', '["skip_connect", 0.9]'), ('["skip_connect", 0]', '["skip_connect", 1e400]'), ('["skip_connect", 0]', '["skip_connect", true]'),
    ('["skip_connect", 0]', '["skip_connect", "0"]'), ('["skip_connect", 0]', '[7, 0]'), ('["skip_connect", 0]', '["skip_connect"]'),
    ('"normal_concat": [2, 3, 4, 5]', '"normal_concat": "2345"'), ('"normal_concat": [2, 3, 4, 5]', '"normal_concat": 2'),
    ('"normal_concat": [2, 3, 4, 5]', '"normal_concat": [2, NaN]'), ('"normal_concat": [2, 3, 4, 5]', '"normal_concat": [2, 2]'),
    ('"reduce_concat": [2, 3, 4, 5]', '"reduce_concat": [0, 2, 3]'), ('"normal": [', '"normal": [' + "[" * 100_000), ('{', '[{'),
])  # fmt: skip
def test_json_that_is_no_genotype_is_refused(old, new):
    text = PUBLIC["DARTS_V2"].to_json()
    assert old in text
    with pytest.raises(ValueError, match="not a genotype") as error:
        Genotype.from_json(text.replace(old, new, 1))
    assert "\n" not in str(error.value)


def test_only_two_inputs_a_node_can_be_written_as_darts_does():
    with pytest.raises(ValueError, match="use to_json"):
        DEAD.to_darts()


def there(kind, c_in, c_out, k=3, stride=1, dilation=1):
    "A block of the public program: the same names and order, from its description."
    m, pad = nn.Module(), dilation * (k // 2)
    depthwise = lambda s: [nn.ReLU(), nn.Conv2d(c_in, c_in, k, s, pad, dilation, c_in, bias=False)]
    pointwise = lambda: [nn.Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out)]
    if kind == "preprocess":
        m.op = nn.Sequential(nn.ReLU(), *pointwise())
    elif kind == "reduce":
        m.conv_1, m.conv_2 = (nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False) for _ in range(2))
        m.bn = nn.BatchNorm2d(c_out)
        m.forward = lambda x: m.bn(torch.cat([m.conv_1(x.relu()), m.conv_2(x.relu()[:, :, 1:, 1:])], 1))
        return m
    elif kind == "sep_conv":
        m.op = nn.Sequential(*depthwise(stride), *pointwise(), *depthwise(1), *pointwise())
    elif kind == "dil_conv":
        m.op = nn.Sequential(*depthwise(stride), *pointwise())
    m.forward = m.op.forward
    return m


def op_there(name, C, stride):
    if "pool" in name:
        return (
            nn.MaxPool2d(3, stride, 1)
            if "max" in name
            else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        )
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else there("reduce", C, C)
    kind, size = name[:8], int(name[-1])
    return there(kind, C, C, size, stride, 2 if kind == "dil_conv" else 1)


class PublicDARTS(nn.Module):
    "The network of the public program for CIFAR-10, from its description."

    def __init__(self, g, C, classes, layers, aux):
        super().__init__()
        self.stem, self.cells, self.wired = (
            nn.Sequential(nn.Conv2d(3, 3 * C, 3, padding=1, bias=False), nn.BatchNorm2d(3 * C)),
            nn.ModuleList(),
            [],
        )
        older, newer, halved = 3 * C, 3 * C, False
        for n in range(layers):
            half = n in (layers // 3, 2 * layers // 3)
            C *= 1 + half
            nodes, concat = g.cell("reduce" if half else "normal")
            cell, flat = nn.Module(), [pair for node in nodes for pair in node]
            cell.preprocess0, cell.preprocess1 = (
                there("reduce" if halved else "preprocess", older, C),
                there("preprocess", newer, C),
            )
            cell._ops = nn.ModuleList(op_there(op, C, 2 if half and j < 2 else 1) for op, j in flat)
            self.cells.append(cell), self.wired.append(([j for _, j in flat], concat))
            older, newer, halved = newer, C * len(concat), half
            if aux and n == 2 * layers // 3:
                self.auxiliary_head = nn.Module()
                tail = [
                    nn.BatchNorm2d(128),
                    nn.ReLU(),
                    nn.Conv2d(128, 768, 2, bias=False),
                    nn.BatchNorm2d(768),
                    nn.ReLU(),
                ]
                self.auxiliary_head.features = nn.Sequential(
                    nn.ReLU(), nn.AvgPool2d(5, 3), nn.Conv2d(newer, 128, 1, bias=False), *tail
                )
                self.auxiliary_head.classifier = nn.Linear(768, classes)
        self.classifier = nn.Linear(newer, classes)

    def forward(self, x):
        a = b = self.stem(x)
        for n, (cell, (read, concat)) in enumerate(zip(self.cells, self.wired)):
            states = [cell.preprocess0(a), cell.preprocess1(b)]
            for m in range(0, len(read), 2):
                states.append(cell._ops[m](states[read[m]]) + cell._ops[m + 1](states[read[m + 1]]))
            a, b = b, torch.cat([states[s] for s in concat], 1)
            if hasattr(self, "auxiliary_head") and n == 2 * len(self.cells) // 3:
                head = self.auxiliary_head
                self.auxiliary = head.classifier(head.features(b).flatten(1))
        return self.classifier(b.mean((2, 3)))


def published(g, aux=True, seed=0):
    torch.manual_seed(seed)
    network = PublicDARTS(g, 4, 10, 4, aux)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t, low in (
                (m.running_mean, -0.5),
                (m.running_var, 0.5),
                (m.weight.data, 0.5),
                (m.bias.data, -0.5),
            ):
                t.copy_(low + torch.rand_like(t))
    return network.eval()


ALL_KINDS = genotype(  # every operation, with and without stride
    ops("sep30 sep51 dil30 skip2 avg1 max0 sep34 skip0"), [*ops("skip0 sep31 sep50 dil31 avg0 max1 skip2"), ("dil_conv_5x5", 0)],
)  # fmt: skip


@pytest.mark.parametrize("g", [PUBLIC["DARTS_V1"], PUBLIC["DARTS_V2"], ALL_KINDS])
@pytest.mark.parametrize("aux", [True, False])
def test_a_published_checkpoint_gives_the_same_outputs(g, aux, tmp_path):
    public, mine = published(g), CellNetwork(DARTS_CELL, channels=4, cells=4, genotype=g, aux=aux)
    torch.save(public.state_dict(), tmp_path / "cifar10_model.pt")
    load_darts(mine, torch.load(tmp_path / "cifar10_model.pt", weights_only=True))
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(mine.eval()(x), public(x), atol=1e-6)
        if aux:
            features = []
            mine.aux.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
            for m in mine.modules():
                m.training = m is mine  # statistics as they are, but both outputs
            assert torch.allclose(mine(x)[1], public.auxiliary, atol=1e-6)


def test_a_checkpoint_of_torch_0_3_counts_no_batches():
    public, mine = published(ALL_KINDS), CellNetwork(DARTS_CELL, channels=4, cells=4, genotype=ALL_KINDS)
    load_darts(mine, {k: v for k, v in public.state_dict().items() if not k.endswith("num_batches_tracked")})
    x = torch.randn(3, 3, 32, 32)
    assert torch.allclose(mine.eval()(x), public(x), atol=1e-6)


@pytest.mark.parametrize("change", [
    lambda state: state.pop("cells.0._ops.0.op.1.weight"), lambda state: state.update(more=torch.zeros(2)), lambda state: state.clear(),
    lambda state: state.update({"stem.0.weight": torch.zeros(12, 3, 3, 5)}), lambda state: state.update({"stem.0.weight": state["stem.0.weight"].long()}),
    lambda state: state["classifier.bias"].fill_(math.nan), lambda state: state.update({"stem.0.weight": None}),
])  # fmt: skip
def test_another_checkpoint_is_refused_and_changes_nothing(change):
    state, mine = (
        published(ALL_KINDS).state_dict(),
        CellNetwork(DARTS_CELL, channels=4, cells=4, genotype=ALL_KINDS),
    )
    before = {k: v.clone() for k, v in mine.state_dict().items()}
    change(state)
    with pytest.raises(ValueError) as error:
        load_darts(mine, state)
    assert "\n" not in str(error.value) and all(
        torch.equal(v, before[k]) for k, v in mine.state_dict().items()
    )


def test_only_the_network_of_a_darts_genotype_has_public_names():
    twice = PUBLIC["DARTS_V2"]._replace(normal=((("sep_conv_3x3", 0),) * 2,) * 4)
    nasnet = CellNetwork(NASNET_CELL, channels=4, cells=3, genotype=NASNET_A)
    for network in (
        CellNetwork(DARTS_CELL, channels=2, cells=1),
        CellNetwork(DARTS_CELL, channels=2, cells=3, genotype=twice),
        nn.Linear(2, 2),
        nasnet,
    ):
        try:
            names = darts_names(network)
        except ValueError as error:
            assert "\n" not in str(error)
        else:  # NASNet-A consists of operations that DARTS writes alike
            assert network is nasnet and len(set(names)) == len(network.state_dict())


# -- what cannot be built --

WRONG_NETWORKS = {
    "cells = 0": dict(cells=0), "cells = -1": dict(cells=-1), "cells = 2.5": dict(cells=2.5), "cells = True": dict(cells=True),
    "cells = nan": dict(cells=math.nan), "classes = 0": dict(classes=0), "classes = None": dict(classes=None), "channels = 0": dict(channels=0),
    "channels = '4'": dict(channels="4"), "shape = 32": dict(shape=32), "shape = .3, 32.": dict(shape=(3, 32)), "height of shape = 0": dict(shape=(3, 0, 32)),
    "width of shape = 2.0": dict(shape=(3, 2, 2.0)), "channels of shape = -1": dict(shape=(-1, 8, 8)), "space = 'darts'": dict(space="darts"),
    "genotype = ": dict(genotype=tuple(V2)), "genotype = '": dict(genotype=V2.to_json()), "conv_9x9": dict(genotype=V2._replace(normal=((("conv_9x9", 0),),) * 4)),
    "an input": dict(genotype=V2._replace(reduce_concat=(0, 2))), "twice": dict(genotype=V2._replace(reduce_concat=(2, 2))),
    "0.0 is no state": dict(genotype=V2._replace(normal=((("sep_conv_3x3", 0.0),) * 2,) * 4)), "pairs": dict(genotype=V2._replace(normal=3)),
}  # fmt: skip


@pytest.mark.parametrize("says", WRONG_NETWORKS)
def test_what_cannot_be_built_is_refused_when_it_is_built(says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")) as error:
        CellNetwork(**dict(space=DARTS_CELL, **SMALL) | WRONG_NETWORKS[says])
    assert "\n" not in str(error.value)


RGB = torch.rand(2, 3, 8, 8)
DENSE = softmax(torch.zeros(28, 8))
WRONG_CALLS = {
    "no images": (lambda n: n(torch.rand(2, 3, 8), DENSE), "do not fit"),
    "grey images": (lambda n: n(torch.rand(2, 1, 8, 8), DENSE), r"\(N, 3, height, width\)"),
    "bytes": (lambda n: n(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), DENSE), "real numbers"),
    "no pixels": (lambda n: n(torch.rand(2, 3, 0, 8), DENSE), "do not fit"),
    "one pixel to learn from": (lambda n: n(torch.rand(1, 3, 2, 2), DENSE), "two images or more"),
    "a tensor for weights": (lambda n: n(RGB, DENSE.values), "come as `Weights`"),
    "no weights in them": (lambda n: n(RGB, Weights()), "come as `Weights`"),
    "whole weights": (lambda n: n(RGB, Weights(torch.ones(28, 8).long())), "values must hold real numbers"),
    "choices that are a tensor": (lambda n: n(RGB, Weights(None, torch.ones(28, 1))), "a tuple with a tuple"),
    "thousands of cells": (lambda n: CellNetwork(DARTS_CELL, cells=10**9), "cells = 1000000000 must be at most 1000"),
    "thousands of nodes": (lambda n: CellSpace(DARTS_OPS, nodes=10**30), "from 1 to 100"),
    "one weight too deep": (lambda n: n(RGB, Weights(torch.rand(28, 1, 8))), "28 × 8"),
    "values without choices": (lambda n: n(RGB, Weights(torch.rand(28, 8), ((1,),) * 14)), "14 variables"),
    "sums of another number": (lambda n: weighted_sums([RGB, RGB], torch.rand(2, 3)), "do not fit 2 terms"),
    "choices that are none": (lambda n: decode(DARTS_CELL, [0.5] * 28), "whole numbers"),
    "choices NaN": (lambda n: decode(DARTS_CELL, [math.nan] * 28), "whole numbers"),
    "no list": (lambda n: decode(DARTS_CELL, None), "whole numbers"),
    "keep": (lambda n: DARTS_CELL.count(keep=-1), "keep = -1"),
    "keep a half": (lambda n: discretise(DARTS_CELL, DENSE.values, keep=0.5), "keep = 0.5"),
    "nodes that are none": (lambda n: genotype_routes(DARTS_CELL, 3), "pairs"),
    "a state that is none": (lambda n: genotype_routes(DARTS_CELL, ((("sep_conv_3x3", []),),) * 4), "no state"),
    "budget NaN": (lambda n: widest(DARTS_CELL, V2, math.nan), "budget = nan"),
    "most 0": (lambda n: widest(DARTS_CELL, V2, 1000, most=0), "most channels = 0"),
    "counts of no network": (lambda n: parameter_counts(nn.Linear(2, 2)), "takes a supernet"),
    "head without classes": (lambda n: auxiliary_head(4, 0), "classes = 0"),
    "an odd number of channels halved": (lambda n: factorized_reduce(3, 5, True), "c_out = 5 must be even"),
    "an even kernel": (lambda n: Depthwise(4, 2), "k = 2 must be odd"),
    "no channels": (lambda n: relu_conv_bn(0, 4, True), "c_in = 0"),
    "stride 0": (lambda n: DARTS_OPS["sep_conv_3x3"].build(4, 0), "stride = 0"),
    "no modules": (lambda n: side_by_side([], RGB), "0 modules"),
    "factors": (lambda n: side_by_side([nn.Conv2d(3, 3, 1)] * 2, RGB, torch.ones(3)), "2 modules need as many factors"),
    "cost of no image": (lambda n: cost(nn.Conv2d(3, 3, 1), (3, 8)), "shape = "),
    "a bool": (lambda n: check_whole(n=True), "n = True"),
    "an image without channels": (lambda n: check_shape((0, 1, 1)), "channels of shape = 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_a_wrong_call_is_refused_in_one_sentence(case):
    call, says = WRONG_CALLS[case]
    with pytest.raises(ValueError, match=says) as error:
        call(CellNetwork(DARTS_CELL, (3, 8, 8), channels=2, cells=1))
    assert "\n" not in str(error.value)


def test_numpys_whole_numbers_will_do():
    n = np.int64(3)
    assert CellNetwork(DARTS_CELL, (n, np.int32(8), 8), n, n, n)(RGB, DENSE).shape == (2, 3)
