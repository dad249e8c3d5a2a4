"""No step mixes devices, and none waits for a GPU but where it says so: seen without one (`fake_cuda`)."""

from functools import partial

import pytest
import torch
from fake_cuda import FOUND, Waits, fake_cuda, moved
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from nas_nb import asng, cells, decisions, enas, pnas, population, tdga, training, vgg
from nas_nb import batches as batches_py
from nas_nb.asng import ASNG, SNG, Adam, Space
from nas_nb.batches import Augment, Batches, eval_batches
from nas_nb.cells import ASNG_CELL, CellNetwork, CellSpace, encode
from nas_nb.controlled import Controlled
from nas_nb.controllers import PPO, Reinforce
from nas_nb.credit import Credit, ExactCredit
from nas_nb.darts import DARTS, expected_cost, zero_one
from nas_nb.hypernet import Hypernet
from nas_nb.images import Images
from nas_nb.judging import random_architecture
from nas_nb.layers import LayerSpace, random_rows
from nas_nb.macro import JOINS, MacroSpace
from nas_nb.operations import DARTS_OPS
from nas_nb.papers import tdga_runs as shortcuts
from nas_nb.pnas import PNAS
from nas_nb.relaxations import raw, sigmoid
from nas_nb.sampling import (
    DSNAS,
    SNAS,
    Proxyless,
    ProxylessReinforce,
    annealed,
    resource_costs,
    resource_penalty,
)
from nas_nb.search import Distribution, Uniform, search
from nas_nb.training import Recipe, StepLog
from nas_nb.vgg import VGG, ShortcutSpace

SPACE, SHAPE = CellSpace(DARTS_OPS, nodes=2), (3, 16, 16)


def images(n=20, shape=SHAPE):
    return Images(
        torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        torch.arange(n) % 10,
        tuple("0123456789"),
    )


# -- methods and supernets --

METHODS = {
    "DARTS": lambda costs: DARTS(SPACE),
    "Fair DARTS": lambda costs: DARTS(SPACE, sigmoid, lambda alpha, w: zero_one(alpha)),
    "DARTS, expected cost": lambda costs: DARTS(
        SPACE, penalty=lambda alpha, w: expected_cost(w, costs["count"])
    ),
    "SNAS": lambda costs: SNAS(SPACE, partial(annealed, steps=10)),
    **{
        f"SNAS, {e}": lambda costs, e=e: SNAS(SPACE, 0.5, partial(resource_penalty, costs=costs["kinds"]), e)
        for e in ("policy_gradient", "reparametrization", "discrete")
    },
    "DSNAS": lambda costs: DSNAS(SPACE),
    "ProxylessNAS": lambda costs: Proxyless(SPACE),
    "ProxylessNAS, latency": lambda costs: Proxyless(SPACE, torch.rand(10, 8)),
    "hypernetwork": lambda costs: Hypernet(SPACE, (1e-3, 1.0)),
    "hypernetwork, raw": lambda costs: Hypernet(
        SPACE, (1e-3, 1.0), "raw", relax=raw, penalty=lambda alpha, w: expected_cost(w, costs["count"])
    ),
    "hypernetwork, Gumbel": lambda costs: Hypernet(SPACE, (1e-3, 1.0), knots=5, relax=None, steps=10),
    "REINFORCE": lambda costs: ProxylessReinforce(SPACE),
    "credit": lambda costs: Credit(SPACE, baseline=True),
    "exact credit": lambda costs: ExactCredit(SPACE, zero="domestic"),
    "ASNG": lambda costs: Distribution(SPACE),
    "random": lambda costs: Uniform(SPACE),
}


def steps_of(method, network, x):
    "What a search does with a method, without the backward pass."
    if hasattr(method, "credit"):
        for t in range(3):
            asked = [*method.ask(t, 2), *method.probes(t, 2)]
            out = [network(x, w) for w in asked]
            m = len(asked) - 2
            method.credit(torch.rand(m).double(), torch.rand(m, len(SPACE.sizes)).double())
        return out
    if hasattr(method, "tell"):
        for t in range(3):
            out = [network(x, w) for w in method.ask(t, 2)]
            method.tell(
                torch.tensor([1.0, 2.0 + t], dtype=torch.float64)
            )  # the losses of samples are what the host does wait for
        return out
    for t in range(2):
        out = network(x, getattr(method, "gates", method.weights)(t)).mean() + method.penalty(t)
        if hasattr(method, "settle"):
            method.settle(t)
        out = network(x, method.weights(t))
    return out


@pytest.mark.parametrize("name", METHODS)
def test_a_step_of_a_method(name):
    network = CellNetwork(SPACE, SHAPE, channels=2, cells=3)
    costs = dict(kinds=resource_costs(network, 16), count=torch.rand(10, 8))
    with fake_cuda():
        network, x = moved(network), moved(torch.zeros(4, *SHAPE))
        steps_of(moved(METHODS[name](moved(costs))), network, x)


@pytest.mark.parametrize(
    "space",
    [ASNG_CELL, cells.DARTS_CELL, cells.ENAS_CELL, cells.NASNET_CELL],
    ids="ASNG DARTS ENAS NASNet".split(),
)
def test_a_network_of_one_architecture(space):
    genotype = random_architecture(space, 0)
    network, alone = (
        CellNetwork(space, (3, 32, 32), channels=4, cells=3, genotype=g, aux=g is not None)
        for g in (None, genotype)
    )
    for module in (m for m in alone.modules() if isinstance(m, training.DropPath)):
        module.p = 0.3
    with fake_cuda():
        x = moved(torch.zeros(4, 3, 32, 32))
        moved(network)(x, encode(space, genotype))
        logits, aux = moved(alone)(x)
        training.training_loss(
            (logits, aux),
            moved(torch.zeros(4, dtype=torch.long)),
            training.Recipe(1, aux=0.4, label_smoothing=0.1),
        )


@pytest.mark.parametrize(
    "space", [Space([3, 3]), Space([3, 2, 4], [(1, 9)], [(0.0, 1.0)])], ids=["choices", "choices and numbers"]
)
@pytest.mark.parametrize("rule", [ASNG, SNG, Adam])
def test_ask_and_tell(rule, space):
    method = rule(space, seeds=range(5))
    with fake_cuda():
        method = moved(method)
        for _ in range(3):
            samples = method.ask(4)
            method.tell(samples, samples.values.sum(-1) + samples.cat.sum(-1))
        method.theta, method.state()


@pytest.mark.parametrize("join", JOINS)
def test_a_network_of_layers(join):
    "The supernet with architectures of a controller, and a network of one of them."
    space = MacroSpace(4, 4, join=join)
    method = Controlled(space)
    supernet, alone = space.supernet(SHAPE), space.network(method.row(), SHAPE)
    with fake_cuda():
        x = moved(torch.zeros(4, *SHAPE))
        supernet = moved(supernet)
        for t in range(2):
            for w in method.ask(t, 2):
                supernet(x, w)
        moved(alone)(x)


def test_a_child_of_tokens():
    space = LayerSpace(4, counts=(4, 6))
    child = space.network(random_rows(space.sizes, 1, 0, 0)[0].tolist(), SHAPE)
    with fake_cuda():
        moved(child)(moved(torch.zeros(4, *SHAPE)))


@pytest.mark.parametrize("rule", [Reinforce, PPO])
@pytest.mark.parametrize(
    "space",
    [Space([3, 2, 4]), enas.macro(3, 4), enas.micro(3, 5), decisions.layers(3, [2, 3])],
    ids=["choices", "macro", "micro", "layers"],
)
def test_what_a_controller_draws(rule, space):
    "Its `tell` takes losses of the host, as they come from networks that were trained."
    controller = rule(space, seeds=range(3), hidden=4)
    with fake_cuda():
        controller = moved(controller)
        for _ in range(2):
            draws = controller.ask(4)
        controller.best(), controller.state()
        assert draws.picked.is_cuda


def test_progressive_search():
    "A step looks twice: how many candidates are left, and whether a loss is finite. Fitting needs a real GPU."
    found = []
    for device in ("cpu", "cuda"):
        progressive = PNAS(Space([3, 3, 3]), range(2), beam=4)
        progressive.surrogate.fit = lambda cat, losses: None
        with fake_cuda(looks=True) as waits:
            if device == "cuda":
                progressive = moved(progressive)
            for _ in range(3):
                asked = progressive.ask()
                progressive.tell(asked.double().sum(-1).cos())
            found.append(progressive.best().cpu())
        assert len(waits) <= 4 * 3 + 1, waits
    assert torch.equal(*found)


def test_what_a_surrogate_learns_from_lies_where_it_does(monkeypatch):
    "All but the step itself, whose backward pass needs a real GPU."
    progressive = PNAS(Space([3, 3, 3]), range(2), beam=4)
    given = []
    monkeypatch.setattr(pnas.Surrogate, "_step", lambda self, *args: given.extend(args))
    with fake_cuda():
        progressive = moved(progressive)
        cat = moved(torch.zeros(2, 5, 3, dtype=torch.long))
        progressive.surrogate.fit(cat, moved(torch.rand(2, 5).double()), steps=1)
        assert len(given) == 4 and all(x.is_cuda for x in given)


# -- data --

AUGMENTED = [
    Augment(),
    Augment(crop=2),
    Augment(flip=True),
    Augment(cutout=5),
    Augment(degrees=15, translate=0.1, zoom=0.1),
    Augment(4, True, 8, 5, 0.1, 0.1),
]


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("augment", AUGMENTED, ids=str)
def test_batches(augment, last):
    batches = Batches(images(), 6, (0.5,) * 3, (0.2,) * 3, augment=augment, channels_last=last)
    with fake_cuda():
        batches = moved(batches)
        for step in range(7):  # three an epoch
            x, y = batches(step)
        assert x.is_cuda and y.is_cuda and x.shape == (6, *SHAPE)


def test_evaluation_batches():
    part = images()
    with fake_cuda():
        found = list(eval_batches(moved(part), 8, (0.5,) * 3, (0.2,) * 3))
        assert [len(y) for _, y in found] == [8, 8, 4]


# -- VGG19 and populations --


@pytest.mark.parametrize("sampling", shortcuts.SAMPLINGS)
def test_gates_of_shortcuts(sampling):
    network, method = shortcuts.new_supernet(sampling, 0, images(shape=(3, 32, 32)), 1 / 32)
    with fake_cuda():
        network, method, x = moved(network), moved(method), moved(torch.zeros(4, 3, 32, 32))
        for t in range(2):
            network(x, method.weights(t))
        network(x), network(x, [1] * 105), network(x, method.weights(0).values[..., 1].expand(4, -1))


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("projection", ["pool", "conv"])
@pytest.mark.parametrize("convention", ["input", "output"])
def test_population(convention, projection, calibrate):
    network = VGG(ShortcutSpace(convention), width=1 / 32, projection=projection, scale="mean").eval()
    bits = torch.randint(2, (4, len(network.space.positions)), generator=torch.Generator().manual_seed(0))
    with fake_cuda():
        x = moved(torch.zeros(3, 3, 32, 32))
        population.population_logits(moved(network), bits, x, x if calibrate else None)


GENES = torch.randint(2, (3, 6, 9), generator=torch.Generator().manual_seed(0))
# and how often `tell` looks at values, each time to refuse what cannot be selected or to see which alleles
# there are
GENERATIONS = {
    "TDGA": (lambda e: tdga.TDGA(GENES, e, 0.1), 7),
    "feedback": (lambda e: tdga.TDGA(GENES, e, tdga.entropy_feedback(0.3, 0.1)), 6),
    "no elite": (lambda e: tdga.TDGA(GENES, e, 0.1, elite=False, replacement=False), 7),
    "real genes": (lambda e: tdga.TDGA(GENES - 0.5, e, 0.1, express=lambda a: (a > 0).long()), 7),
    "SimpleGA": (lambda e: tdga.SimpleGA(GENES, e), 2),
}


@pytest.mark.parametrize("kind", GENERATIONS)
def test_generations(kind):
    make, looks = GENERATIONS[kind]
    searches = [make(GENES.sum(-1).cos()) for _ in range(3)]
    with fake_cuda():
        moved(searches[0]).ask()
    with fake_cuda(looks=True) as waits:
        there = moved(searches[1])
        for _ in range(2):
            there.tell(there.ask().double().sum(-1))
        assert len(waits) <= 2 * looks, waits
        found = there.population.cpu()
    for _ in range(2):
        searches[2].tell(searches[2].ask().double().sum(-1))
    assert torch.equal(found, searches[2].population)


# -- the log --


def test_log():
    log = StepLog(5, ("loss", "valid_loss"), "cpu")
    with fake_cuda():
        log = moved(log)
        log.put(0, moved(torch.tensor(1.0)), 2.0)
        log.put(1, moved(torch.tensor(1.0, dtype=torch.bfloat16)), moved(torch.tensor(1.0)))


# -- what these tests are worth --

# a function on the way -> a test that must fail if it reads a value, waits for a copy, or mixes devices
WITHIN = {
    "network": (CellNetwork, "forward", partial(test_a_step_of_a_method, "DSNAS")),
    "DARTS": (DARTS, "weights", partial(test_a_step_of_a_method, "DARTS")),
    "SNAS": (SNAS, "penalty", partial(test_a_step_of_a_method, "SNAS, policy_gradient")),
    "hypernetwork": (Hypernet, "alpha", partial(test_a_step_of_a_method, "hypernetwork, Gumbel")),
    "loss": (training, "_logits", partial(test_a_network_of_one_architecture, ASNG_CELL)),
    "ask": (ASNG, "ask", partial(test_ask_and_tell, ASNG, Space([3, 3]))),
    "tell": (asng, "fisher_categorical", partial(test_ask_and_tell, SNG, Space([3, 3]))),
    "batches": (Batches, "_pixels", partial(test_batches, AUGMENTED[1], True)),
    "evaluation": (batches_py._Layout, "normalise", test_evaluation_batches),
    "gates": (VGG, "gates", partial(test_gates_of_shortcuts, "threshold")),
    "population": (vgg, "_product", partial(test_population, "input", "pool", True)),
    "generation": (tdga, "mutate", partial(test_generations, "TDGA")),
    "log": (StepLog, "put", test_log),
}
FAULTS = {
    "read": lambda t: t.sum().item(),
    "asked": lambda t: bool((t > 0).any()),
    "copied": lambda t: torch.tensor([1.0, 2.0], device=t.device),
    "indexed": lambda t: t.flatten()[torch.tensor([0])],
    "masked": lambda t: t[t > 0],
    "mixed": lambda t: t.flatten()[:1] + torch.ones(2),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", WITHIN)
def test_a_planted_fault_is_found(place, fault, monkeypatch):
    owner, name, test = WITHIN[place]
    right = getattr(owner, name)

    def wrong(*args, **kwargs):
        found = right(*args, **kwargs)
        FAULTS[fault](next(t for t in tree_leaves((found, args)) if isinstance(t, FakeTensor)))
        return found

    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises(FOUND):
        test()


def test_the_fake_device_computes_what_the_host_computes():
    x = torch.arange(6.0).view(2, 3)
    with fake_cuda(looks=True) as waits:
        there = moved(x)
        there[0] += 1
        assert there.is_cuda and (there * 2).sum().item() == 36 and there[there > 3].tolist() == [4, 5]
        assert len(waits) >= 3
    with fake_cuda():
        assert (x + 1).tolist() == [[1, 2, 3], [4, 5, 6]]  # the host may look at what is its own
        moved(x)[:1] + x.sum(), moved(x) + x.to("cuda", non_blocking=True)
        with pytest.raises(Waits):
            x.to("cuda")


# -- the same on a real one, with the backward pass --


def few_steps(name, device, n=4):
    "A search of a few steps."
    torch.manual_seed(0)
    network = CellNetwork(SPACE, SHAPE, channels=4, cells=3).to(device)
    part, norm = images().to(device), dict(mean=(0.5,) * 3, std=(0.2,) * 3)
    train, valid = (
        Batches(part, 8, seed=seed, augment=Augment(crop=1, flip=True), channels_last=True, **norm)
        for seed in (0, 1)
    )
    costs = dict(
        kinds=resource_costs(network, 16),
        count=torch.rand(10, 8, generator=torch.Generator().manual_seed(0)).to(device),
    )
    return search(
        network,
        METHODS[name](costs),
        train,
        valid,
        Recipe(n, "momentum", lr=0.01, clip=5.0, bf16=False),
        every=1,
    )


@pytest.mark.gpu
@pytest.mark.parametrize("name", METHODS)
def test_a_search_on_a_gpu_is_that_of_the_host(name):
    there, here = few_steps(name, "cuda"), few_steps(name, "cpu")
    for a, b in zip(there[:2], here):  # later a rounding may have drawn another architecture
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("make", [Reinforce, PPO, PNAS], ids=["REINFORCE", "PPO", "PNAS"])
def test_a_controller_on_a_gpu_learns(make):
    space, more = Space([3, 3, 3]), dict(beam=4) if make is PNAS else dict(hidden=4)
    m = make(space, range(2), device="cuda", **more)
    for _ in range(3):
        asked = m.ask() if make is PNAS else m.ask(4)
        told = (asked if make is PNAS else asked.picked).double().sum(-1)
        m.tell(told) if make is PNAS else m.tell(asked, told)
    best = m.best() if make is PNAS else m.best().picked
    assert best.is_cuda


@pytest.mark.gpu
@pytest.mark.parametrize("case", ["batches", "log", "gates", "ask", "population"])
def test_nothing_waits_on_a_gpu(case):
    x, part = torch.zeros(4, 3, 32, 32, device="cuda"), images().to("cuda")
    batches, log = (
        Batches(part, 6, (0.5,) * 3, (0.2,) * 3, augment=AUGMENTED[-1], channels_last=True),
        StepLog(5, ("loss",), "cuda"),
    )
    network, method = (
        m.to("cuda") for m in shortcuts.new_supernet("Bernoulli", 0, images(shape=(3, 32, 32)), 1 / 32)
    )
    rule, bits = ASNG(Space([3, 3]), seeds=range(5), device="cuda"), torch.randint(2, (4, 105))
    work = dict(
        batches=lambda: [batches(step) for step in range(7)],
        log=lambda: log.put(0, x.mean()),
        gates=lambda: network(x, method.weights(1)).mean().backward(),
        ask=lambda: rule.tell(s := rule.ask(4), s.cat.sum(-1).float()),
        population=lambda: population.population_logits(network, bits, x, x),
    )[case]
    work()  # what is made once
    torch.cuda.set_sync_debug_mode("error")
    try:
        work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
