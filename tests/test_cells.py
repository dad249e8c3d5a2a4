"""Operations, cells and relaxations: the papers' numbers, one code path for every kind of weights, and the way to a genotype and back."""

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from nas_nb.cells import ASNG_CELL, DARTS_CELL, ENAS_CELL, CellNetwork, CellSpace, Genotype, decode, discretise, encode, routes
from nas_nb.operations import ASNG_OPS, DARTS_OPS, NASNET_OPS, Depthwise, Op, cost, factorized_reduce
from nas_nb.relaxations import Weights, one_hot, sigmoid, softmax, straight_through, threshold, two_path

CASES = json.loads((Path(__file__).parent / "cells_cases.json").read_text())
ALL_OPS = DARTS_OPS | {"sep_conv_7x7": NASNET_OPS["sep_conv_7x7"], "conv_7x1_1x7": NASNET_OPS["conv_1x7_7x1"]}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


def count(network, skip="aux"):
    return sum(p.numel() for name, p in network.named_parameters() if not name.startswith(skip))


def genotype(normal, reduce, normal_concat=range(2, 6), reduce_concat=range(2, 6)):
    "From the flat lists in which the public genotypes are written: two (operation, state) pairs for each node."
    pairs = lambda flat: tuple(tuple(flat[n : n + 2]) for n in range(0, len(flat), 2))
    return Genotype(pairs(normal), tuple(normal_concat), pairs(reduce), tuple(reduce_concat))


def ops(text):
    short = dict(sep3="sep_conv_3x3", sep5="sep_conv_5x5", sep7="sep_conv_7x7", dil3="dil_conv_3x3", skip="skip_connect", max="max_pool_3x3")
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
    network = CellNetwork(CellSpace(ALL_OPS, nodes=len(g.normal)), channels=36, cells=20, genotype=g, aux=True)
    assert count(network) == expected[f"cifar_{name}_C36_L20"]
    assert count(network, skip="none") == expected[f"cifar_{name}_C36_L20_with_aux"]


def test_supernets_have_the_published_sizes():
    expected = CASES["darts_param_counts"]["expected"]
    assert count(CellNetwork(DARTS_CELL)) == expected["search_C16_L8"]
    assert count(CellNetwork(DARTS_CELL, classes=100)) == expected["search_C16_L8_100cls"]
    assert count(CellNetwork(DARTS_CELL, channels=16, cells=8, genotype=PUBLIC["DARTS_V2"])) == expected["cifar_DARTS_V2_C16_L8"]
    asng = CASES["asng_cifar_network"]["expected"]
    assert count(CellNetwork(ASNG_CELL)) == asng["search_supernet_C16_8cells_params"]["without_aux"]
    assert ASNG_CELL.sizes == asng["K"] and math.log10(ASNG_CELL.count() ** 2) == pytest.approx(asng["log10_architectures"])
    assert sum(n - 1 for n in ASNG_CELL.sizes) == asng["n_theta"]


@pytest.mark.parametrize("name", ["all_zero", "chain_sep3", "random_seed0"])
@pytest.mark.parametrize("channels", [16, 24, 36])
def test_asng_networks_have_the_published_sizes(name, channels):
    case = CASES["asng_cifar_network"]["expected"]["architectures"][name]
    network = CellNetwork(ASNG_CELL, channels=channels, cells=20, genotype=decode(ASNG_CELL, case["arch"]))
    assert count(network) == case[f"params_20cells_affine_C{channels}"]


def test_multiply_adds():
    network = CellNetwork(DARTS_CELL, channels=36, cells=20, genotype=PUBLIC["DARTS_V2"])
    assert cost(network, (3, 32, 32)).multiply_adds == CASES["darts_macs"]["expected"]["cifar_DARTS_V2_C36_L20_32px"]


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
        torch.testing.assert_close(ops["avg_pool_3x3"].build(1)(x)[0, 0], torch.tensor(CASES["avgpool_count_include_pad"][paper]))
    layer = factorized_reduce(1, 2, True)
    for conv in (layer[1].even, layer[1].odd):
        torch.nn.init.ones_(conv.weight)
    layer[1].bn = torch.nn.Identity()
    assert layer(torch.arange(16.0).view(1, 1, 4, 4) - 5)[0].tolist() == CASES["factorized_reduce_sampling"]["expected"]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("k, stride, size", [(3, 1, 8), (5, 1, 8), (5, 1, 4), (3, 2, 8), (5, 2, 7), (5, 1, 7), (5, 2, 4)])
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
                    total = total + rows[e, k] * cell.own[f"{e}-{k}"](cell.shared[f"{j}-{cell.kinds[op.shared]}"](states[j]))
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
    alpha = torch.randn(28, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
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
    hooks = [m.register_forward_hook(lambda m, i, o, name=name: computed.append(name)) for name, m in supernet.cells[0].own.items()]
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
    hooks = [m.register_forward_hook(lambda *a, key=key: calls.append(key)) for key, m in supernet.cells[0].shared.items()]
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
    assert flat(found.normal) == case["expected"]["normal"] and flat(found.reduce) == case["expected"]["reduce"]
    assert list(found.normal_concat) == case["expected"]["normal_concat"]


def test_softmax_and_none_decide_which_edges_are_kept():
    alpha = torch.zeros(28, 8)
    alpha[2, 4], alpha[2, 0] = 2.0, 4.0  # the largest raw value of the node's edges, and mostly none
    alpha[3, 4] = alpha[4, 5] = 1.0
    assert discretise(DARTS_CELL, softmax(alpha).values).normal[1] == (("sep_conv_3x3", 1), ("sep_conv_5x5", 2))
    assert discretise(DARTS_CELL, alpha).normal[1][0] == ("sep_conv_3x3", 0)  # what ranking raw values would give
    everything = discretise(DARTS_CELL, softmax(alpha).values, keep=None)
    assert everything.normal[1] == (("sep_conv_3x3", 1), ("sep_conv_5x5", 2))  # none is the strongest elsewhere


@pytest.mark.parametrize("space", [DARTS_CELL, ASNG_CELL, ENAS_CELL], ids=["DARTS", "ASNG", "ENAS"])
def test_choices_to_genotype_to_text_to_weights_and_back(space):
    random = torch.Generator().manual_seed(4)
    for _ in range(20):
        choices = [int(torch.randint(n, (1,), generator=random)) for n in space.sizes]
        g = Genotype.from_json(decode(space, choices).to_json())
        again = encode(space, g)
        none = list(space.ops).index("none") if "none" in space.ops else -1
        assert again.chosen == tuple(() if not space.picks and c == none else (c,) for c in choices)
        assert discretise(space, F.one_hot(torch.tensor(choices), 8).float(), keep=None) == g if not space.picks else decode(space, [c for (c,) in again.chosen]) == g


def test_the_final_network_is_the_supernet_restricted_to_its_genotype():
    "Same weights, same function: with the supernet's kind of batch norm the two agree."
    torch.manual_seed(0)
    g = decode(ASNG_CELL, [1, 0, 3, 4, 0, 0, 3, 3, 2, 1, 1, 2, 0, 4, 0, 3, 3, 1, 2, 0] * 2)  # node 1 takes one operation twice
    network, final = CellNetwork(ASNG_CELL, channels=4, cells=3), CellNetwork(ASNG_CELL, channels=4, cells=3, genotype=g)
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
        ops={"none": DARTS_OPS["none"], "skip": DARTS_OPS["skip_connect"], "conv": Op(DARTS_OPS["sep_conv_3x3"].shared, NASNET_OPS["conv_3x3"].own)},
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
        (lambda: CellNetwork(ASNG_CELL, channels=4, cells=1)(some().float(), dense), "nobody reads"),
        (lambda: supernet(some()), "needs weights"),
        (lambda: supernet(some(), softmax(torch.zeros(14, 8))), "14 variables do not fit"),
        (lambda: CellNetwork(DARTS_CELL, channels=4, cells=1, genotype=PUBLIC["DARTS_V1"])(some().float(), one_hot([0] * 28)), "takes no weights"),
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
    assert {r.op for node in routes(DARTS_CELL, softmax(torch.zeros(28, 8)), "normal") for r in node} == set(range(1, 8))
