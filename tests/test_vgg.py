"""VGG19 with shortcuts: the reference case, the equation as written, every kind of gates, and populations
against one by one."""

import copy
import json
from functools import lru_cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.patches import Arc

from nas_nb.batches import resize
from nas_nb.darts import DARTS
from nas_nb.datasets import load_images
from nas_nb.judging import inherited
from nas_nb.parallel import Stack, Together, side_by_side_batches
from nas_nb.population import population_logits, shared_layers
from nas_nb.relaxations import (
    At,
    Weights,
    gumbel,
    gumbel_softmax,
    one_hot,
    raw,
    sigmoid,
    softmax,
    straight_through,
    threshold,
    two_path,
)
from nas_nb.search import search
from nas_nb.training import Recipe, evaluate, reestimate_bn
from nas_nb.vgg import CHANNELS, LEVEL, VGG, ShortcutSpace
from nas_nb.vgg_pictures import draw_shortcuts, plot_gates

CASE = json.loads((Path(__file__).parent / "vgg_cases.json").read_text())["vgg_01_shortcut_space"]
VARIANTS = {
    "I_input_of_conv_sources_1..14": {},
    "I_plus_image_source": dict(image=True),
    "I_plus_classifier_target": dict(classifier=True),
    "I_plus_image_and_classifier": dict(image=True, classifier=True),
    "II_output_of_conv_all_i<j": dict(convention="output"),
    "II_within_block_only": dict(convention="output", within_block=True),
    "I_within_block_only": dict(within_block=True),
}
SPACES = [*VARIANTS.values(), dict(convention="output", image=True)]
EVERY = [
    dict(space=ShortcutSpace(**o), projection=p, scale=s)
    for o in SPACES
    for p, s in (("pool", "none"), ("conv", "none"), ("pool", "mean"))
]
NAMES = ["-".join([*(f"{k}={v}" for k, v in o.items()), p]) for o in SPACES for p in ("pool", "conv", "mean")]
SPACE, M = ShortcutSpace(), 105


pytestmark = pytest.mark.usefixtures("one_thread")


def small(space=SPACE, **options):
    "A network whose statistics are those of a mixture that has seen something."
    return copy.deepcopy(trained(space, **options))


@lru_cache(None)
def trained(space, **options):
    torch.manual_seed(0)
    network = VGG(space, width=1 / 16, **options).double()
    for _ in range(2):
        network(images(8, shape=network.shape), torch.rand(len(space.positions)))
    return network.eval()


def images(n, seed=1, shape=(3, 32, 32)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_bits(n, space=SPACE, chance=0.4, seed=2):
    return (
        torch.rand(n, len(space.positions), generator=torch.Generator().manual_seed(seed)) < chance
    ).long()


# -- the reference case --


def kinds(space):
    "Channels and blocks straight from the case."
    channels, blocks = CASE["channels"], [0, *CASE["block_of_conv"], 5]
    behind = space.convention == "input"
    return {(i, j): (channels[i] != channels[j - behind], blocks[i] != blocks[j]) for i, j in space.positions}


@pytest.mark.parametrize("name", VARIANTS)
def test_counts_of_every_convention(name):
    space, expected = ShortcutSpace(**VARIANTS[name]), CASE["variants"][name]
    of = list(kinds(space).values())
    counts = dict(total=len(of), identity=of.count((False, False)), pool_only=of.count((False, True)))
    counts |= dict(chan_only=of.count((True, False)), pool_and_chan=of.count((True, True)))
    with torch.device("meta"):
        network, plain = VGG(space, projection="conv"), VGG(space)
    convs = sum(p.numel() for p in network.project.parameters() if p.ndim == 4)
    every = sum(p.numel() for p in network.project.parameters())
    assert counts | dict(proj_1x1_params_all=convs, proj_1x1_plus_bn=every) == expected
    assert sum(p.numel() for p in plain.parameters()) == CASE["base_total_with_conv_bias"]
    assert len(space.sizes) == expected["total"] and set(space.sizes) <= {2}


def test_the_other_numbers_of_the_case():
    with torch.device("meta"):
        plain = VGG()
    assert (
        sum(p.numel() for p in plain.parameters()) - sum(layer[0].bias.numel() for layer in plain.convs)
        == CASE["base_total_no_conv_bias"]
    )
    assert (
        list(plain.channels) == CASE["channels"] and [LEVEL[k] for k in range(1, 17)] == CASE["block_of_conv"]
    )
    of = kinds(SPACE)
    assert sorted(p for p in of if of[p] == (False, False)) == sorted(map(tuple, CASE["identity_edges_I"]))
    assert sorted(p for p in of if of[p] == (False, True)) == sorted(map(tuple, CASE["pool_only_edges_I"]))
    far = [p for p in ShortcutSpace("output", within_block=True).positions if p[1] - p[0] >= 2]
    skip = CASE["variants"]["II_within_block_skip_at_least_2"]
    assert len(far) == skip["total"] == skip["identity"] and far == list(
        ShortcutSpace(within_block=True).positions
    )


def test_positions_go_target_by_target_so_that_first_bits_decide_first_layers():
    for options in SPACES:
        targets = [j for _, j in ShortcutSpace(**options).positions]
        assert targets == sorted(targets)
    assert SPACE.decode(SPACE.encode([(5, 8), (1, 3), (5, 8)])) == ((1, 3), (5, 8))
    assert SPACE.check(np.eye(1, M, 3)[0]) == SPACE.check(torch.eye(M).bool()[3]) == SPACE.encode([(1, 5)])


def test_width_multiplies_channels_and_any_image_depth_will_do():
    network = VGG(SPACE, (1, 32, 32), classes=7, width=0.3)
    assert network.channels == (
        1,
        *(round(0.3 * c) for c, n in zip(CHANNELS, (2, 2, 4, 4, 4)) for _ in range(n)),
    )
    assert network(torch.randn(2, 1, 32, 32), [1] * M).shape == (2, 7)


@pytest.mark.parametrize("name, how", [("digits", "enlarge"), ("digits", "pad")])
def test_small_images_fit_after_resize(name, how):
    train = resize(load_images(name).train.take(range(4)), 32, how)
    assert VGG(SPACE, train.shape, width=1 / 16)(train.x / 255, [1] * M).shape == (4, 10)


# -- the equation --


def as_written(network, x, s):
    "Term by term, with its own pooling for each; `s`: {(i, j): gate}."
    x_of, inputs, C = {0: x}, network.space.convention == "input", lambda k: network.channels[k]

    def total(y, j):
        gates = {i: g for (i, to), g in s.items() if to == j}
        for i, g in gates.items():
            size = 2 ** (LEVEL[j] - LEVEL[i])
            p = x_of[i].unfold(2, size, size).unfold(3, size, size).amax((4, 5))
            if C(i) != y.shape[1] and network.projection == "conv":
                p = network.project[f"{i}-{j}"](p)
            y = y + g * torch.cat([p, p.new_zeros(len(p), y.shape[1] - p.shape[1], *p.shape[2:])], 1)
        return y / (1 + sum(gates.values())) if network.scale == "mean" else y

    for j in range(1, 18):
        y = F.max_pool2d(x_of[j - 1], 2) if j in (3, 5, 9, 13, 17) else x_of[j - 1]
        y = total(y, j) if inputs else y
        y = network.convs[j - 1](y) if j <= 16 else y
        x_of[j] = y if inputs else total(y, j)
    return network.linear(x_of[17].flatten(1))


def with_gradients(call, asked):
    logits = call()
    return [
        logits,
        *torch.autograd.grad(
            F.cross_entropy(logits, torch.arange(len(logits))), asked, materialize_grads=True
        ),
    ]


@pytest.mark.parametrize("options", EVERY, ids=NAMES)
@pytest.mark.parametrize("per_image", [False, True])
def test_grouped_form_is_the_equation(options, per_image):
    network = small(**options).train()
    x, n = images(3).requires_grad_(), len(options["space"].positions)
    gates = torch.rand((3, n) if per_image else (n,), dtype=torch.float64, requires_grad=True)
    s = dict(zip(options["space"].positions, gates[..., None, None, None].unbind(-4)))
    asked = [gates, x, *network.parameters()]
    for a, b in zip(
        with_gradients(lambda: network(x, gates), asked),
        with_gradients(lambda: as_written(network, x, s), asked),
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", EVERY, ids=NAMES)
def test_bits_are_the_equation(options):
    network, space = small(**options), options["space"]
    for bits in random_bits(2, space).tolist() + [
        space.encode(space.positions[-1:]),
        [1] * len(space.positions),
    ]:
        s = {p: bit for p, bit in zip(space.positions, bits) if bit}
        torch.testing.assert_close(
            network(images(3), bits), as_written(network, images(3), s), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("channels", [1, 3])
def test_zero_gates_are_plain_vgg_to_the_bit(dtype, layout, channels):
    shape = (channels, 32, 32)
    network = small(shape=shape).to(dtype).to(memory_format=layout)
    x = images(4, shape=shape).to(dtype)
    zeros = [
        [0] * M,
        torch.zeros(M),
        torch.zeros(4, M),
        torch.zeros(4, M, dtype=torch.bool),
        one_hot([0] * M),
        Weights(torch.zeros(M, 2, dtype=dtype)),
    ]
    reference = torch.nn.Sequential(
        *(
            m
            for j, f in enumerate(network.convs)
            for m in ([torch.nn.MaxPool2d(2)] if j in (2, 4, 8, 12) else []) + [f]
        )
    )
    plain = network.linear(F.max_pool2d(reference(x), 2).flatten(1))
    for w in [None, *zeros]:
        assert torch.equal(network(x, w), plain)
    network.train()
    logits = [copy.deepcopy(network)(x, w) for w in [None, *zeros]]
    assert all(torch.equal(logits[0], other) for other in logits)


def test_what_is_closed_is_not_computed(monkeypatch):
    network, x = small(projection="conv"), images(2)
    called = []
    for name, module in network.project.items():
        module.register_forward_hook(lambda *_, name=name: called.append(name))
    network(x, SPACE.encode([(1, 4), (2, 9), (5, 7)]))
    assert called == ["1-4", "2-9"]
    called.clear()
    network(
        x,
        Weights(
            torch.rand(M, 2, dtype=torch.float64),
            tuple((0, 1) if p == (3, 6) else (0,) for p in SPACE.positions),
        ),
    )
    assert called == ["3-6"]
    pooled, pool = [], F.max_pool2d
    monkeypatch.setattr(F, "max_pool2d", lambda y, *a: pooled.append(y.shape) or pool(y, *a))
    network(x)
    assert len(pooled) == 5  # as in plain VGG19


def test_one_architecture_for_each_image_is_each_alone():
    network, x = small(), images(6)
    bits, alphas = random_bits(3), torch.randn(3, M, dtype=torch.float64, requires_grad=True)
    each = lambda t: t.repeat_interleave(2, 0)
    parts = [slice(2 * p, 2 * p + 2) for p in range(3)]
    torch.testing.assert_close(
        network(x, each(bits)),
        torch.cat([network(x[part], b) for part, b in zip(parts, bits)]),
        rtol=1e-9,
        atol=1e-9,
    )
    loss = lambda logits: logits.logsumexp(1).sum()
    values = torch.stack([-alphas, alphas], -1).softmax(-1)
    (together,) = torch.autograd.grad(loss(network(x, Weights(each(values)))), alphas)
    for part, alpha, gradient in zip(parts, alphas, together):
        (alone,) = torch.autograd.grad(loss(network(x[part], (2 * alpha).sigmoid())), alpha)
        torch.testing.assert_close(gradient, alone, rtol=1e-9, atol=1e-9)


def test_nothing_waits_for_the_device():
    "Tensors on the device `meta` hold no numbers: whoever looks at one fails."
    with torch.device("meta"):
        network, x = VGG(SPACE, width=1 / 16, projection="conv", scale="mean"), torch.empty(4, 3, 32, 32)
        values, gates = torch.empty(M, 2, requires_grad=True), torch.empty(4, M)
    partly = tuple((n % 2,) for n in range(M))
    for w in (
        None,
        values[:, 1],
        gates,
        Weights(values),
        Weights(values, partly),
        one_hot([1] * M),
        [0, 1, 1] * 35,
        random_bits(4),
    ):
        network(x, w).logsumexp(1).sum().backward()
    assert population_logits(network, random_bits(5), x, x).shape == (5, 4, 10)


# -- weights of every relaxation --

ALPHA = torch.randn(M, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
OVER = (ALPHA[:, 1] > ALPHA[:, 0]).long().tolist()
RELAXED = {
    "softmax": lambda a: softmax(a),
    "sigmoid": lambda a: sigmoid(a),
    "raw": lambda a: raw(a),
    "gumbel": lambda a: gumbel_softmax(a, gumbel((M, 2), 0, 0).double(), 0.5),
    "threshold": lambda a: threshold(a),
    "one_hot": lambda a: one_hot(OVER),
    "straight_through": lambda a: straight_through(softmax(a), OVER),
    "two_path": lambda a: two_path(a, [(b, 1 - b) for b in OVER]),
}


@pytest.mark.parametrize("name", RELAXED)
def test_a_step_with_every_relaxation(name):
    network, x, alpha = small().train(), images(4), ALPHA.clone().requires_grad_()
    w = RELAXED[name](alpha)
    gates = w.values[:, 1].detach().tolist() if w.values is not None else [float(1 in c) for c in w.chosen]
    with torch.no_grad():
        twin = copy.deepcopy(network)
        torch.testing.assert_close(
            twin(x, w),
            as_written(network, x, {p: g for p, g in zip(SPACE.positions, gates) if g}),
            rtol=1e-9,
            atol=1e-9,
        )
    before = network.convs[3][0].weight.clone()
    F.cross_entropy(network(x, w), torch.arange(4)).backward()
    torch.optim.SGD(network.parameters(), 0.1).step()
    assert not torch.equal(network.convs[3][0].weight, before)
    if w.values is None:
        assert alpha.grad is None and len(network.gates(w, x).opened) == sum(gates)
    else:
        assert alpha.grad[:, 1].all() and alpha.grad.isfinite().all()


def test_what_is_not_chosen_has_no_part_whatever_its_value():
    network, x = small(), images(2)
    values = torch.rand(M, 2, dtype=torch.float64)
    chosen = tuple((0, 1) if n % 3 else (0,) for n in range(M))
    gates = values[:, 1] * torch.tensor([1 in c for c in chosen])
    torch.testing.assert_close(network(x, Weights(values, chosen)), network(x, gates), rtol=1e-9, atol=1e-9)


def test_the_search_loop_trains_it():
    torch.manual_seed(0)
    batches = lambda step: (images(8, step).float(), torch.arange(8) % 10)
    for options, second in ((dict(relax=sigmoid), False), (dict(relax=softmax), True)):
        network, method = VGG(SPACE, width=1 / 32), DARTS(SPACE, **options)
        before = method.alpha.detach().clone()
        recipe = Recipe(2, lr=0.05, optimizer="momentum")
        (row,) = search(network, method, batches, batches, recipe, lr=0.1, second_order=second)
        assert np.isfinite(row["train_loss"]) and (method.alpha[:, 1] != before[:, 1]).all()
    stack, methods = (
        Stack([VGG(SPACE, width=1 / 32) for _ in range(2)]),
        Together([DARTS(SPACE), DARTS(SPACE, seed=1)]),
    )
    both = side_by_side_batches([batches, batches])
    (row,) = search(stack, methods, both, both, Recipe(1, lr=0.05, channels_last=False))
    assert np.isfinite(row["train_loss"])


# -- populations --


def population(space):
    "Random ones, relatives, equal ones, none and all."
    bits = random_bits(4, space)
    late = bits[:1].clone()
    late[:, -1] ^= 1
    extremes = torch.stack([torch.zeros_like(bits[0]), torch.ones_like(bits[0])])
    return torch.cat([bits, late, extremes, bits[1:2]])


SOME = [
    *range(3),
    *range(9, 12),
    *range(18, 24),
]  # of EVERY: I, I with both, I within a block, II with the image


@pytest.mark.parametrize("n", SOME, ids=[NAMES[n] for n in SOME])
def test_population_is_each_alone(n):
    options = EVERY[n]
    network, bits, x, seen = small(**options), population(options["space"]), images(3), images(7, seed=9)
    megabytes = 1e-4 if n % 2 else 1024  # individuals and images one at a time, or all at once
    before = {name: v.clone() for name, v in network.state_dict().items()}
    found = population_logits(network, bits, x, megabytes=megabytes)
    torch.testing.assert_close(found, torch.stack([network(x, b) for b in bits]), rtol=1e-9, atol=1e-9)
    own = population_logits(network, bits, x, seen, megabytes)
    for logits, b in list(zip(own, bits.tolist()))[3:]:
        one = copy.deepcopy(network)
        reestimate_bn(At(one, one_hot(b)), lambda step: (seen, None), 1)
        torch.testing.assert_close(logits, one.eval()(x, b), rtol=1e-9, atol=1e-9)
    assert (own - found).abs().max() > 1e-6
    assert (
        all(torch.equal(v, before[name]) for name, v in network.state_dict().items()) and not network.training
    )


def test_population_agrees_with_the_score_of_one_architecture():
    network, bits, x, seen = small(), random_bits(1), images(20), images(30, seed=9)
    y = torch.arange(20) % 10
    score = inherited(network, one_hot(bits[0].tolist()), [(x, y)], lambda step: (seen, None), 1)
    logits = population_logits(network.train(), bits, x, seen)[0]  # whatever the mode
    assert score.loss == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert score.correct == (logits.argmax(1) == y).sum() and evaluate(network, [(x, y)]).n == 20


@pytest.mark.parametrize("options", SPACES, ids=str)
def test_a_layer_is_computed_once_for_each_beginning(options, monkeypatch):
    space = ShortcutSpace(**options)
    network, bits = small(space), population(space)
    nearest = space.convention == "input"
    begins = lambda row, j: tuple(
        b for (_, to), b in zip(space.positions, row) if to <= (j if nearest else j - 1)
    )
    expected = [len({begins(row, j) for row in bits.tolist()}) for j in range(1, 17)]
    assert shared_layers(space, bits) == expected
    computed = []
    for layer in network.convs:
        layer[0].register_forward_hook(lambda module, args, y: computed.append(len(y)))
    population_logits(network, bits, images(3))
    assert computed == [3 * n for n in expected]


# -- pictures --


def arcs(fig):
    return [p for p in fig.axes[0].patches if isinstance(p, Arc)]


def test_pictures_show_what_is_there():
    for n in (0, 5, 105):
        fig = draw_shortcuts(SPACE, [1] * n + [0] * (M - n))
        assert (
            len(arcs(fig)) == n
            and "".join(fig.axes[0].get_title(loc) for loc in ("left", "center")) == f"{n} of 105 shortcuts"
        )
    gates = torch.rand(M, requires_grad=True)
    fig = draw_shortcuts(SPACE, gates)
    widths = sorted(p.get_linewidth() for p in arcs(fig))
    assert (
        len(widths) == M
        and widths == pytest.approx(sorted(0.3 + 2 * g for g in gates.tolist()))
        and len(fig.axes) == 2
    )
    (arc,) = arcs(
        draw_shortcuts(
            ShortcutSpace(image=True, classifier=True),
            ShortcutSpace(image=True, classifier=True).encode([(0, 17)]),
        )
    )
    (whole,) = arcs(draw_shortcuts(SPACE, SPACE.encode([(1, 16)])))
    assert arc.width > whole.width
    table = plot_gates(SPACE, gates).axes[0].collections[0].get_array()
    assert table.shape == (14, 14) and np.nansum(table.filled(np.nan)) == pytest.approx(
        gates.sum().item(), rel=1e-5
    )
    assert table[2, 5] == pytest.approx(gates[SPACE.positions.index((3, 8))].item())
    plt.close("all")


# -- bad input --

BAD = {
    "no shortcut 3 → 4": lambda n: SPACE.encode([(1, 3), (3, 4)]),
    "no shortcut 0 → 5": lambda n: SPACE.encode([(0, 5)]),
    "pairs of whole numbers, such as .*space.positions": lambda n: SPACE.encode([3, 4]),
    "pairs of whole numbers, such as": lambda n: SPACE.encode(5),
    "no shortcut '1' → '3': choose among": lambda n: SPACE.encode([("1", "3"), (3, 4)]),
    r"105 bits, .* \(104,\) does not fit": lambda n: SPACE.check([0] * 104),
    "are 0 or 1": lambda n: SPACE.decode([2] + [0] * 104),
    "one for each of space.positions": lambda n: SPACE.check(["a"] * 105),
    r"\(0, 105\) does not fit": lambda n: population_logits(n, torch.zeros(0, M), images(2)),
    r"\(105,\) does not fit": lambda n: population_logits(n, [0] * M, images(2)),
    r"images \(2, 3, 28, 28\) do not fit .*data.resize": lambda n: n(torch.randn(2, 3, 28, 28)),
    r"images \(2, 1, 32, 32\) do not fit": lambda n: population_logits(
        n, [[0] * M], images(2), images(2, shape=(1, 32, 32))
    ),
    r"images \(3, 32, 32\) do not fit": lambda n: n(images(2)[0]),
    r"gates \(104,\) do not fit: .*105 shortcuts": lambda n: n(images(2), torch.zeros(104)),
    r"gates \(3, 105\) do not fit 2 images": lambda n: n(images(2), torch.zeros(3, M)),
    r"gates \(2, 2, 105\) do not fit": lambda n: n(images(2), torch.zeros(2, 2, M)),
    r"gates \(3, 105\) do not fit  ?2 images": lambda n: n(images(2), torch.zeros(3, M, dtype=torch.long)),
    "bits .* 0 or 1: pass real gates": lambda n: n(images(2), [0.5] * M),
    r"weights \(105, 3\) do not fit": lambda n: n(images(2), softmax(torch.zeros(M, 3))),
    r"weights \(104, 2\) do not fit": lambda n: n(images(2), softmax(torch.zeros(104, 2))),
    "105 bits": lambda n: n(images(2), one_hot([0] * 104)),
    "choices of a shortcut": lambda n: n(images(2), one_hot([2] * M)),
    "finite": lambda n: n(images(2), torch.full((M,), torch.inf)),
    "must be finite": lambda n: n(images(2), sigmoid(torch.full((M, 2), torch.nan))),
    "must be input or output": lambda n: ShortcutSpace("sum"),
    "in no block": lambda n: ShortcutSpace(within_block=True, classifier=True),
    "convention='input'": lambda n: ShortcutSpace("output", classifier=True),
    r"shape = \(1, 28, 28\) .*data.resize": lambda n: VGG(SPACE, (1, 28, 28)),
    r"shape = \(3, 17, 31\) .*data.resize": lambda n: VGG(SPACE, (3, 17, 31)),
    "shape = 32 must be": lambda n: VGG(SPACE, 32),
    "channels of shape = 0": lambda n: VGG(SPACE, (0, 32, 32)),
    "height of shape = 32.0": lambda n: VGG(SPACE, (3, 32.0, 32)),
    "space = 'vgg'": lambda n: VGG("vgg"),
    "width = '1'": lambda n: VGG(SPACE, width="1"),
    "width = inf": lambda n: draw_shortcuts(SPACE, [0] * M, width=float("inf")),
    "classes = True": lambda n: VGG(SPACE, classes=True),
    "image = 1 must be True or False": lambda n: ShortcutSpace(image=1),
    r"images \(0, 3, 32, 32\) do not fit": lambda n: n(images(0)),
    r"of torch.uint8 do not fit .* real numbers": lambda n: n(images(2).byte()),
    "megabytes = '1' must be": lambda n: population_logits(n, [[0] * M], images(2), megabytes="1"),
    "these are none": lambda n: n(images(2), torch.zeros(M, dtype=torch.complex64).tolist()),
    "width = 0": lambda n: VGG(SPACE, width=0),
    "width = nan": lambda n: VGG(SPACE, width=float("nan")),
    "classes = 0 must be a whole number above 0": lambda n: VGG(SPACE, classes=0),
    "classes = 2.5 must be": lambda n: VGG(SPACE, classes=2.5),
    "megabytes = 0 must be above 0": lambda n: population_logits(n, [[0] * M], images(2), megabytes=0),
    "megabytes = nan must be above 0": lambda n: population_logits(
        n, [[0] * M], images(2), megabytes=float("nan")
    ),
    "projection = 'max'": lambda n: VGG(SPACE, projection="max"),
    "scale = 'sum'": lambda n: VGG(SPACE, scale="sum"),
    "more width, or": lambda n: VGG(ShortcutSpace(image=True), width=1 / 64),
    "between 0 and 1": lambda n: draw_shortcuts(SPACE, torch.full((M,), -0.1)),
    r"not \(3,\)": lambda n: plot_gates(SPACE, [1, 0, 1]),
}


@pytest.mark.parametrize("says", BAD)
def test_bad_input_is_refused_in_one_sentence(says):
    with pytest.raises(ValueError, match=says) as error:
        BAD[says](small())
    assert "\n" not in str(error.value)
