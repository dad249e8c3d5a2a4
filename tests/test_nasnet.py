"NASNet's blocks, ENAS' micro networks, drop path: against the reference, and by hand."

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nas_nb.cells import NASNET_A, NASNET_CELL, CellNetwork, auxiliary_head
from nas_nb.nasnet import (
    ENAS_MICRO,
    WITHOUT_BN,
    Block,
    BlockCell,
    BlockNetwork,
    Blocks,
    DeepDropPath,
    as_blocks,
    as_genotype,
    block_sizes,
    drop_by_depth,
    hold_drop,
    path_keep,
    read_blocks,
    read_enas,
    write_blocks,
)
from nas_nb.operations import ENAS_OPS, NASNET_OPS
from nas_nb.pnas import blocks as pnas_blocks
from nas_nb.training import drop_paths

CASES = json.loads((Path(__file__).parent / "nasnet_cases.json").read_text())
A = as_blocks(NASNET_A)
count = lambda network: sum(p.numel() for p in network.parameters())


def passing(module):
    "Convolutions that pass everything on: a separable convolution is then a ReLU."
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.dirac_(m.weight, groups=m.groups)
    return module.eval()


def test_the_space_has_fifty_decisions_and_as_many_cells_as_by_hand():
    sizes = block_sizes()
    assert len(sizes) == 5 * 5 * 2 and sizes[:10] == [2, 2, 13, 13, 2, 3, 3, 13, 13, 2]
    by_hand = math.prod((2 + b) ** 2 * 13**2 * 2 for b in range(5))
    assert math.prod(sizes[:25]) == by_hand == 2_286_906_949_584_691_200
    assert len(NASNET_OPS) == 13


@pytest.mark.parametrize("seed", range(20))
def test_decisions_there_and_back(seed):
    g = torch.Generator().manual_seed(seed)
    choices = [int(torch.randint(n, (), generator=g)) for n in block_sizes()]
    assert write_blocks(read_blocks(choices)) == choices


@pytest.mark.parametrize("seed", range(6))
def test_any_drawn_architecture_is_a_network_that_learns(seed):
    g = torch.Generator().manual_seed(seed)
    arch = read_blocks([int(torch.randint(n, (), generator=g)) for n in block_sizes(3)], 3)
    network = BlockNetwork(arch, (1, 7, 8), 4, filters=2, repeats=1)
    F.cross_entropy(network(torch.randn(3, 1, 7, 8)), torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.linear.parameters())


def test_published_sizes():
    with torch.device("meta"):
        small = BlockNetwork(A)
        there = CellNetwork(NASNET_CELL, channels=32, cells=20, genotype=NASNET_A)
        enas = BlockNetwork(ENAS_MICRO, filters=36, repeats=5, ops=ENAS_OPS, enas=True)
    assert count(small) == count(there) and round(count(small) / 1e6, 1) == 3.3  # 6 @ 768
    assert small.linear.in_features == 768 and len(small.cells) == 20
    reference = CASES["enas_network_params"]["expected"]["micro_final_L15_F36"]
    pools = [n for n, kind in enumerate(enas.kinds) if kind == "reduce"]
    assert count(enas) == reference["without_aux"] and pools == reference["pool_layers"]
    assert count(auxiliary_head(enas.linear.in_features, 10)) - 10 == reference["aux_head"]


@pytest.mark.parametrize(
    "normal, before", [(int(n), at) for n, at in CASES["nasnet_reduction_layers"]["expected"].items()]
)
def test_stacks_of_n_are_where_the_public_code_inserts_reductions(normal, before):
    if normal % 3 == 0:  # three equal stacks
        network = BlockNetwork(A, (1, 8, 8), filters=2, repeats=normal // 3)
        at = [n for n, kind in enumerate(network.kinds) if kind == "reduce"]
        assert [n - i for i, n in enumerate(at)] == before


def test_the_block_network_computes_what_the_cell_network_does():
    torch.manual_seed(0)
    cells = CellNetwork(NASNET_CELL, (1, 8, 8), channels=4, cells=5, genotype=NASNET_A)
    blocks = BlockNetwork(A, (1, 8, 8), filters=4, repeats=1)
    shared = [(r.state_dict(), b) for r, b in zip((cells.stem, cells.linear), (blocks.stem, blocks.linear))]
    for state, module in shared:
        module.load_state_dict(state)
    for there, here in zip(cells.cells, blocks.cells):
        here.older.load_state_dict(there.first.state_dict())
        here.newer.load_state_dict(there.second.state_dict())
        for n, (b, branch) in enumerate((b, br) for b in here.blocks for br in (0, 1)):
            state, op = ((b.first, b.op1), (b.second, b.op2))[branch]
            edge = there.space.edges.index((state, n // 2))
            own = there.own[f"{edge}-{list(NASNET_OPS).index(op)}"]
            here.branches[n][1][1].load_state_dict(own.state_dict())
    x = torch.randn(2, 1, 8, 8)
    stem = blocks.stem.eval()(x)
    states, older, newer = cells.eval(), stem, stem
    for cell, kind in zip(blocks.eval().cells, cells.kinds):
        plan = cells.plan(None, kind, x.device)
        expected = torch.cat(states.cells[list(blocks.cells).index(cell)](older, newer, plan, None), 1)
        older, newer = newer, cell(older, newer)
        torch.testing.assert_close(newer, expected, rtol=1e-4, atol=1e-4)


def test_the_articles_cell_of_four_nodes_by_hand():
    four = (Block(1, 1, "sep_conv_5x5", "identity"), Block(0, 2, "sep_conv_3x3", "avg_pool_3x3"))
    cell = passing(BlockCell(four, [3], (2, 2), 2, ops=ENAS_OPS, calibrated=True))
    h1, h2 = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    newer = h2.relu()  # the 1×1 convolution behind the newer input begins with a ReLU
    h3 = newer + newer
    h4 = h1.relu() + F.avg_pool2d(h3, 3, 1, 1, count_include_pad=False)
    torch.testing.assert_close(cell(h1, h2), h4, rtol=1e-3, atol=1e-4)
    assert Blocks(four, four).out("normal") == (3,)  # what nobody reads


@pytest.mark.parametrize("combine, channels", [("add", 2), ("concat", 4)])
def test_a_block_of_nasnet_by_hand(combine, channels):
    cell = passing(BlockCell([Block(1, 0, "sep_conv_3x3", "max_pool_3x3", combine)], [2], (2, 2), 2))
    newer, older = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4).relu()
    parts = [newer.relu(), F.max_pool2d(older, 3, 1, 1)]
    expected = sum(parts) if combine == "add" else torch.cat(parts, 1)
    torch.testing.assert_close(cell(older, newer), expected, rtol=1e-3, atol=1e-4)
    assert cell.width == channels


def test_one_by_one_convolutions_stand_where_shapes_differ_and_nowhere_else():
    first = Block(1, 0, "conv_1x1", "identity", "concat")
    cell = BlockCell([first, Block(2, 1, "identity", "identity")], [3], (2, 2), 2)
    inserted = [not isinstance(branch[0], nn.Identity) for branch in cell.branches]
    assert inserted == [False, False, True, False]
    assert cell(torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 4)).shape == (2, 2, 4, 4)


def test_without_batch_norm_only_separable_convolutions_change():
    norms = lambda ops, name: sum(isinstance(m, nn.BatchNorm2d) for m in ops[name].build(4).modules())
    changed = {name for name in NASNET_OPS if norms(NASNET_OPS, name) != norms(WITHOUT_BN, name)}
    assert changed == {"sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7"}
    assert all(norms(WITHOUT_BN, name) == 0 for name in changed)
    assert WITHOUT_BN["sep_conv_3x3"].build(4, 2)(torch.randn(1, 4, 7, 8)).shape == (1, 4, 4, 4)


def test_rates_of_scheduled_drop_path_are_those_of_the_public_code():
    expected = CASES["enas_drop_path_keep"]["expected"]
    assert path_keep(0.6, 0.5, 1 / 17) == pytest.approx(expected["layer0_half"])
    assert path_keep(0.6, 0.5, 9 / 17) == pytest.approx(expected["layer8_half"])
    assert path_keep(0.6, 1.0, 1.0) == pytest.approx(expected["layer16_end"])
    assert path_keep(0.6, 0.001, 1.0) == pytest.approx(expected["layer16_first"])  # first of 1,000 steps
    assert path_keep(0.6, 0.5) == pytest.approx(0.8)  # NASNet: half of the steps, last cell


def test_drop_path_keeps_the_mean_and_as_many_as_it_says():
    path = DeepDropPath(0.5)
    path.p = 0.4
    torch.manual_seed(0)
    y = path(torch.ones(20_000, 1, 1, 1))
    assert y.mean().item() == pytest.approx(1, abs=0.02)
    assert (y > 0).float().mean().item() == pytest.approx(0.8, abs=0.01)  # 1 - 0.5 · 0.4
    assert torch.equal(path.eval()(y), y)


def test_identities_are_not_dropped_and_arms_set_what_they_say():
    network = hold_drop(BlockNetwork(A, (1, 8, 8), filters=2, repeats=1), 0.3)
    assert [p.p for p in drop_paths(network)] == [0.3] * 5
    deep = drop_by_depth(network)
    assert [round(cell.drop.depth, 1) for cell in deep.cells] == [0.2, 0.4, 0.6, 0.8, 1.0]
    cell = BlockCell([Block(0, 1, "identity", "identity")], [2], (2, 2), 2)
    cell.drop.p = 0.99
    x = torch.randn(8, 2, 4, 4)
    assert (cell(x, x) != 0).flatten(1).any(1).all()


def test_genotypes_there_and_back():
    assert as_genotype(A) == NASNET_A
    with pytest.raises(ValueError, match="concatenates"):
        as_genotype(Blocks((Block(0, 1, "identity", "identity", "concat"),), A.reduce))


def test_pnas_counts():
    expected = CASES["pnas_counts"]["expected"]
    assert pnas_blocks(2, 8) == expected["B1"] and pnas_blocks(2, 8) + 4 * 256 == expected["total"]


BAD = {
    "read too early": (lambda: BlockNetwork(A._replace(normal=(Block(2, 0, "identity", "identity"),))), "not there yet"),
    "operation": (lambda: BlockNetwork(A._replace(normal=(Block(0, 1, "conv", "identity"),))), "known are"),
    "combine": (lambda: BlockNetwork(A._replace(normal=(Block(0, 1, "identity", "identity", "mul"),))), "add or"),
    "no blocks": (lambda: BlockNetwork(A._replace(normal=())), "at least one Block"),
    "input put out": (lambda: BlockNetwork(A._replace(reduce_out=(0,))), "puts out states 2 to 6"),
    "no architecture": (lambda: BlockNetwork(NASNET_A), "Blocks"),
    "images": (lambda: BlockNetwork(A, (1, 8, 8), filters=2, repeats=1)(torch.zeros(2, 3, 8, 8)), "do not fit"),
    "filters": (lambda: BlockNetwork(A, filters=0), "filters"),
    "choices": (lambda: read_blocks([0] * 49), "50 whole numbers"),
    "choices too high": (lambda: read_blocks([13] * 50), "50 whole numbers"),
    "enas": (lambda: read_enas("0 2 0", "0 2 0"), "not two cells"),
    "enas state": (lambda: read_enas("0 2 7 0", "0 2 0 0"), "not there yet"),
    "keep": (lambda: path_keep(0.0), "keep"),
    "time": (lambda: path_keep(0.6, 1.5), "time"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_in_a_sentence(name):
    make, says = BAD[name]
    with pytest.raises(ValueError, match=says):
        make()
