"""Methods that sample: the loop against plain PyTorch, a search that goes on, processes that share the
samples, bad input."""

import copy
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from nas_nb.asng import SNG, Adam
from nas_nb.batches import Augment, Batches, split
from nas_nb.cells import ASNG_CELL, DARTS_CELL, ENAS_CELL, CellNetwork, CellSpace, Genotype, decode, encode
from nas_nb.darts import DARTS
from nas_nb.datasets import load_images
from nas_nb.files import Checkpoint
from nas_nb.judging import random_architecture
from nas_nb.methods import GradientMethod, SamplingMethod
from nas_nb.operations import ASNG_OPS
from nas_nb.parallel import Stack, Together, side_by_side_batches
from nas_nb.relaxations import one_hot
from nas_nb.sampling import DSNAS, SNAS, Proxyless, ProxylessReinforce
from nas_nb.search import Distribution, SearchRun, Uniform, search
from nas_nb.training import Diverged, Recipe

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = CellSpace(ASNG_OPS, nodes=2, picks=True, output="loose", project="always")
RECIPE = Recipe(
    3, optimizer="momentum", lr=0.05, lr_end=0.05, weight_decay=3e-4, clip=0.5, channels_last=False
)
DIGITS = load_images("digits")
HALVES = split(DIGITS.train, seed=0, train=0.5, valid=0.5)
TRAIN, VALID = (
    Batches(HALVES[part], 8, mean=DIGITS.mean, std=DIGITS.std, seed=n)
    for n, part in enumerate(("train", "valid"))
)


def fresh(space=SMALL, **settings):
    torch.manual_seed(0)
    return CellNetwork(space, (1, 8, 8), channels=4, cells=3), Distribution(
        space, seed=1, **dict(delta0=0.3) | settings
    )


def relaxed():
    torch.manual_seed(0)
    return CellNetwork(DARTS_CELL, (1, 8, 8), channels=2, cells=1), DARTS(DARTS_CELL)


def stacked():
    networks, methods = zip(relaxed(), relaxed())
    return Stack(networks), Together(methods)


def same(a, b, **close):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, msg=lambda m: f"{name}: {m}", **close or dict(rtol=0, atol=0))


# -- the loop --


@pytest.mark.parametrize("paths, samples", [(2, 2), (3, 4)])
def test_the_loop_is_that_of_the_document(paths, samples):
    ours, method = fresh()
    search(ours, method, TRAIN, VALID, RECIPE, paths=paths, samples=samples)
    plain, other = fresh()
    momentum = {}
    for step in range(3):
        (x, y), (vx, vy) = TRAIN(step), VALID(step)
        plain.zero_grad()
        drawn = other.ask(2 * step, paths)
        (sum(F.cross_entropy(plain(x, w), y) for w in drawn) / paths).backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        with torch.no_grad():
            for name, w in plain.named_parameters():
                if w.grad is not None:  # an operation that was not drawn stays as it is
                    momentum[name] = 0.9 * momentum.get(name, 0) + w.grad + 3e-4 * w
                    w -= 0.05 * momentum[name]
            other.tell(
                torch.stack([F.cross_entropy(plain(vx, w), vy) for w in other.ask(2 * step + 1, samples)])
            )
    same(ours, plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.rule.theta, other.rule.theta)
    assert not torch.allclose(method.rule.theta, fresh()[1].rule.theta)
    assert any(w.grad is None for w in plain.parameters())  # else the test above would not see them move


def test_samples_for_weights_and_for_theta_are_others():
    network, method = fresh(ASNG_CELL)
    asked, ask = [], method.ask
    method.ask = lambda draw, n: asked.append(draw) or ask(draw, n)
    search(network, method, TRAIN, VALID, RECIPE)
    assert asked == list(range(6))
    assert ask(0, 2) == ask(0, 2) != ask(1, 2)


def test_architecture_is_the_argmax():
    method = Distribution(DARTS_CELL)
    assert method.architecture() == decode(DARTS_CELL, [0] * 28)  # the first of equals
    method.rule.theta_[:, 3, 0] = torch.linspace(0, 1, 8)
    assert method.architecture() == decode(DARTS_CELL, [0, 0, 0, 7] + [0] * 24)


def test_an_architecture_of_no_numbers_is_never_returned():
    "Also without a checkpoint, and if only the update after the last loss was bad."
    network, method = fresh()[0], ProxylessReinforce(SMALL)
    told, tell = [], method.tell
    method.tell = lambda losses: (
        tell(losses) or told.append(losses) or (method.alpha.data.fill_(math.nan) if len(told) == 3 else None)
    )
    with pytest.raises(
        Diverged, match="architecture parameter is not finite at step 3 of 3; there is no checkpoint yet"
    ):
        search(network, method, TRAIN, VALID, RECIPE)


def test_every_method_of_asng_serves():
    assert isinstance(fresh(rule=SNG)[1].rule, SNG)
    search(*fresh(rule=SNG), TRAIN, VALID, RECIPE)


def test_a_sampled_search_that_is_stopped_goes_on_to_the_same_bits(tmp_path):
    whole, method = fresh()
    history = search(whole, method, TRAIN, VALID, RECIPE, every=1)

    def stop(step):
        if step == 2:
            raise KeyboardInterrupt
        return TRAIN(step)

    with pytest.raises(KeyboardInterrupt):
        search(*fresh(), stop, VALID, RECIPE, every=1, ckpt=Checkpoint(tmp_path / "a.pt", every=0))
    network, again = fresh()
    assert (
        search(network, again, TRAIN, VALID, RECIPE, every=1, ckpt=Checkpoint(tmp_path / "a.pt")) == history
    )
    same(whole, network)
    assert all(
        torch.equal(x, y)
        for x, y in zip(method.rule.state().values(), again.rule.state().values())
        if torch.is_tensor(x)
    )


@pytest.mark.parametrize(
    "other",
    [
        dict(rule=SNG),
        dict(delta0=0.2),
        dict(space=CellSpace(ASNG_OPS, nodes=3, picks=True, output="loose", project="always")),
    ],
)
def test_a_checkpoint_of_another_rule_step_or_space_is_refused(tmp_path, other):
    ckpt = Checkpoint(tmp_path / "a.pt", every=0)
    search(*fresh(), TRAIN, VALID, RECIPE, ckpt=ckpt)
    with pytest.raises(ValueError, match="a.pt is the checkpoint of another"):
        search(*fresh(**other), TRAIN, VALID, RECIPE, ckpt=ckpt)


def other(part, **changed):
    return Batches(
        HALVES[part], **dict(size=8, mean=DIGITS.mean, std=DIGITS.std, seed=int(part == "valid")) | changed
    )


@pytest.mark.parametrize("kind", [fresh, relaxed])
def test_a_checkpoint_of_other_batches_is_refused(tmp_path, kind):
    batches, ckpt = dict(train=TRAIN, valid=VALID), Checkpoint(tmp_path / "a.pt", every=0)
    search(*kind(), *batches.values(), RECIPE, ckpt=ckpt)
    search(*kind(), *batches.values(), RECIPE, ckpt=ckpt)
    for part in batches:
        for changed in (dict(size=4), dict(seed=7), dict(augment=Augment(crop=1)), dict(mean=(0.5,))):
            with pytest.raises(
                ValueError,
                match=rf"a.pt was begun with other batches \(not the same: {next(iter(changed))}\)",
            ):
                search(*kind(), *(batches | {part: other(part, **changed)}).values(), RECIPE, ckpt=ckpt)


def test_runs_side_by_side_know_their_batches(tmp_path):
    make = lambda **changed: side_by_side_batches([other("train"), other("train", **changed)])
    go = lambda **changed: search(
        *stacked(), make(**changed), make(), RECIPE, ckpt=Checkpoint(tmp_path / "a.pt", every=0)
    )
    go(), go()
    with pytest.raises(ValueError, match="a.pt was begun with other batches"):
        go(seed=7)
    assert not hasattr(
        side_by_side_batches([TRAIN, lambda step: TRAIN(step)]), "about"
    )  # of one of them nothing is known


ALTERED = [
    ("optimizer", "state", 0, "momentum_buffer"),
    ("method", "_extra_state", "theta_"),
    ("method", "alpha"),
    ("alpha_optimizer", "state", 0, "exp_avg"),
]


@pytest.mark.parametrize(
    "kind, places", [(fresh, ALTERED[:2]), (relaxed, [ALTERED[0], *ALTERED[2:]])], ids=["sampled", "relaxed"]
)
def test_an_altered_checkpoint_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, kind, places):
    path = tmp_path / "a.pt"
    search(*kind(), TRAIN, VALID, RECIPE, ckpt=Checkpoint(path, every=0))
    state, seen = Checkpoint(path).load(), []
    monkeypatch.setattr(SearchRun, "go", lambda run, measure: seen.append(run))
    search(*kind(), TRAIN, VALID, RECIPE)
    run, (untouched, as_well) = seen[0], kind()
    run.ckpt = Checkpoint(path)
    run.examine(state)
    for place in places:
        within = state
        for key in place[:-1]:
            within = within[key]
        right = within[place[-1]]
        for wrong in (right * math.nan, right[..., None], right.half(), None, "x", [right]):
            within[place[-1]] = wrong
            with pytest.raises(ValueError, match="a.pt") as error:
                run.examine(state)
            assert "\n" not in str(error.value)
        within[place[-1]] = right
    same(run.model, untouched)
    assert str(run.method.state_dict()) == str(as_well.state_dict())
    del state["method"]
    Checkpoint(path).save(state)
    with pytest.raises(ValueError, match="the method in a.pt"):
        search(*kind(), TRAIN, VALID, RECIPE, ckpt=Checkpoint(path))


# -- several processes --

PROCESS = """
import os, sys, torch
sys.path.insert(0, sys.argv[2])
import test_search as t
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meet", rank=int(os.environ["RANK"]), world_size=2)
network, method = t.fresh()
rank = torch.distributed.get_rank()
if rank:
    with torch.no_grad():
        [w.add_(1) for w in network.parameters()]  # the first process's count
ckpt = t.Checkpoint(f"{sys.argv[1]}/search.pt", every=0)
history = t.search(network, method, t.TRAIN, t.VALID, t.RECIPE, paths=3, samples=2, every=1, ckpt=ckpt)
torch.save(dict(network=network.state_dict(), theta=method.rule.theta, history=history), f"{sys.argv[1]}/{rank}.out")
torch.distributed.destroy_process_group()
"""


def test_two_processes_give_what_one_gives(tmp_path):
    here = os.path.dirname(__file__)
    env = os.environ | dict(OMP_NUM_THREADS="1")
    run = lambda rank: subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(tmp_path), here],
        env=env | dict(RANK=str(rank)),
        stderr=subprocess.PIPE,
        text=True,
    )
    processes = [run(rank) for rank in (0, 1)]
    for p in processes:
        _, err = p.communicate(timeout=120)
        assert p.returncode == 0, err
    network, method = fresh()
    history = search(network, method, TRAIN, VALID, RECIPE, paths=3, samples=2, every=1)
    counted = {name for name, b in network.named_buffers() if name.endswith("tracked") and b > 0}
    assert (
        0 < len(counted) < sum(name.endswith("tracked") for name, _ in network.named_buffers())
    )  # some batch norms were never reached
    for rank in (0, 1):
        found = torch.load(tmp_path / f"{rank}.out")
        other = copy.deepcopy(network)
        other.load_state_dict(found["network"])
        same(other, network, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["theta"], method.rule.theta)
        assert [row["step"] for row in found["history"]] == [row["step"] for row in history]
        assert found["history"][-1]["train_loss"] == pytest.approx(history[-1]["train_loss"], rel=1e-5)
    assert torch.load(tmp_path / "0.out")["theta"].equal(torch.load(tmp_path / "1.out")["theta"])
    assert len((tmp_path / "search.log.csv").read_text().splitlines()) == 4  # of the first process alone


# -- every method, in the one loop --

LEARN_FROM_LOSSES = {
    "ASNG": Distribution,
    "SNG": lambda space: Distribution(space, SNG),
    "Adam": lambda space: Distribution(space, Adam),
    "random search": Uniform,
    "REINFORCE": ProxylessReinforce,
}
LEARN_FROM_GRADIENTS = {"DARTS": DARTS, "SNAS": SNAS, "DSNAS": DSNAS, "ProxylessNAS": Proxyless}


@pytest.mark.parametrize("space", [DARTS_CELL, ASNG_CELL, ENAS_CELL], ids=["DARTS", "ASNG", "ENAS"])
@pytest.mark.parametrize("name", LEARN_FROM_LOSSES | LEARN_FROM_GRADIENTS)
def test_every_method_runs_on_every_space_that_it_makes_sense_for(name, space):
    make = (LEARN_FROM_LOSSES | LEARN_FROM_GRADIENTS)[name]
    if space.picks and name in LEARN_FROM_GRADIENTS:
        with pytest.raises(ValueError, match="mixture has no meaning|take a space like DARTS_CELL"):
            make(space)
        return
    torch.manual_seed(0)
    network, method = CellNetwork(space, (1, 8, 8), channels=2, cells=3), make(space)
    settings = dict(lr=0.05) if name in LEARN_FROM_GRADIENTS else {}
    recipe = Recipe(2, "momentum", lr=0.05, channels_last=False)
    rows = search(network, method, TRAIN, VALID, recipe, **settings)
    found = method.architecture()
    assert rows[-1]["step"] == 2 and torch.tensor(rows[-1]["train_loss"]).isfinite()
    logits = CellNetwork(space, (1, 8, 8), channels=2, cells=3, genotype=found)(TRAIN(0)[0])
    assert logits.shape == (8, 10) and encode(space, found).chosen


def test_the_example_of_the_readme_searches_a_folder_of_images(tmp_path, monkeypatch, capsys):
    for part in ("train", "test"):
        images = getattr(DIGITS, part)
        for n, (x, y) in enumerate(zip(images.x[:120, 0], images.y.tolist())):
            folder = tmp_path / "own" / part / f"digit {y}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x.numpy()).save(folder / f"{n}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NAS_NB_DATA", str(tmp_path / "data"))
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    example = next(
        part for part in re.findall(r"```python\n(.*?)```", readme, re.S) if "genotype.json" in part
    )
    assert (
        example.count('"digits"') == 1
        and sum(bool(line) and "import" not in line for line in example.splitlines()) <= 14
    )
    names = {}
    exec(example.replace('"digits"', '"own"'), names)
    plt.close("all")
    assert (
        names["images"].train.classes == tuple(f"digit {n}" for n in range(10))
        and len(names["images"].train) == 120
    )
    assert Genotype.from_json((tmp_path / "genotype.json").read_text()) == names["genotype"]
    assert re.search(r"%.*95 % interval.*n = 120", capsys.readouterr().out)


# -- a method of one's own --


class MeanLoss(SamplingMethod):
    "The operation of each edge whose architectures had the lowest mean loss."

    def __init__(self, space):
        super().__init__()
        self.space, shape = space, (len(space.sizes), len(space.ops))
        self.register_buffer("total", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros(shape, dtype=torch.float64))

    def ask(self, draw, n):
        generator = torch.Generator().manual_seed(draw)
        self.asked = torch.randint(len(self.space.ops), (n, len(self.total)), generator=generator).tolist()
        return [one_hot(row) for row in self.asked]

    def tell(self, losses):
        for row, loss in zip(self.asked, losses):
            self.total[range(len(row)), row] += loss
            self.count[range(len(row)), row] += 1

    def architecture(self):
        return decode(self.space, (self.total / self.count.clamp(min=1)).argmin(-1).tolist())


def own():
    torch.manual_seed(0)
    return CellNetwork(DARTS_CELL, (1, 8, 8), channels=2, cells=1), MeanLoss(DARTS_CELL)


def test_a_method_of_ones_own_goes_through_the_loop_and_on_after_a_stop(tmp_path):
    network, method = own()
    search(network, method, TRAIN, VALID, RECIPE, samples=4)
    assert method.count.sum().item() == 3 * 4 * len(DARTS_CELL.sizes)
    stopped = lambda step: [TRAIN(0), TRAIN(1)][step]
    with pytest.raises(IndexError):
        search(*own(), stopped, VALID, RECIPE, samples=4, ckpt=Checkpoint(tmp_path / "a.pt", every=0))
    resumed, again = own()
    search(resumed, again, TRAIN, VALID, RECIPE, samples=4, ckpt=Checkpoint(tmp_path / "a.pt"))
    same(network, resumed)
    assert torch.equal(method.total, again.total) and method.architecture() == again.architecture()


def test_what_a_method_lacks_is_named():
    class Nothing(GradientMethod):
        pass

    assert Nothing().penalty(0) == 0.0 and Nothing().settle(0) is None
    for call, says in (
        (lambda: Nothing().gates(0), r"Nothing needs weights\(step\)"),
        (lambda: Nothing().architecture(), "needs architecture"),
        (lambda: SamplingMethod().ask(0, 2), "needs ask"),
        (lambda: SamplingMethod().tell(torch.zeros(2)), "needs tell"),
    ):
        with pytest.raises(NotImplementedError, match=says):
            call()


# -- bad input --


NO_COUNT = [
    dict([(name, x)])
    for name in ("every", "seed", "paths", "samples")
    for x in ("x", float("nan"), 1.5, -1, None)
]


@pytest.mark.parametrize(
    "bad",
    NO_COUNT + [dict([(n, x)]) for n in ("lr", "decay") for x in (float("nan"), float("inf"), -1.0)],
    ids=str,
)
def test_what_is_no_number_or_out_of_range_is_refused(bad):
    kind = relaxed if next(iter(bad)) in ("lr", "decay") else fresh  # each kind has its own settings
    with pytest.raises(ValueError, match=next(iter(bad))):
        search(*kind(), lambda t: pytest.fail("trained"), VALID, RECIPE, **bad)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_chances_are_numbers(bad):
    for chances in (dict(skip_connect=bad, sep_conv_3x3=1.0), dict(sep_conv_3x3=1.0, skip_connect=bad)):
        with pytest.raises(ValueError, match="finite numbers from 0 on"):
            random_architecture(DARTS_CELL, 0, chances)
    with pytest.raises(ValueError, match="seed = .* must be a whole number"):
        random_architecture(DARTS_CELL, bad)


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(second_order=True), "Distribution learns from losses"),
        (dict(paths=0), "at least 1"),
        (dict(samples=0), "at least 1"),
        (dict(recipe=Recipe(3, "momentum", bf16_cpu=True)), "supernet is slower in bfloat16"),
        (dict(samples=1), "at least two samples"),
        (
            dict(lr=0.1),
            "learns from losses of samples: its settings are paths, samples, weights_first, not lr",
        ),
    ],
)
def test_bad_input(bad, says):
    with pytest.raises(ValueError, match=says):
        search(*fresh(), TRAIN, VALID, **dict(recipe=RECIPE) | bad)


def test_what_is_no_method_is_refused():
    with pytest.raises(ValueError, match="Linear is no method: derive it from GradientMethod"):
        search(fresh()[0], torch.nn.Linear(1, 1), TRAIN, VALID, RECIPE)
    with pytest.raises(
        ValueError, match="DARTS learns from gradients: its settings are lr, decay, second_order"
    ):
        search(*relaxed(), TRAIN, VALID, RECIPE, paths=2)


class OnesOwn(Distribution):
    "A method of somebody's own, who wrote nothing for `load_state_dict`."


@pytest.mark.parametrize("kind", [Distribution, Uniform, OnesOwn])
@pytest.mark.parametrize(
    "change",
    [
        lambda s: True,
        lambda s: {},
        lambda s: s | dict(more=1),
        lambda s: s | {0: 1},
        lambda s: dict(_extra_state=s["_extra_state"] | dict(t=-1)),
        lambda s: dict(_extra_state=s["_extra_state"] | dict(t=2**70)),
        lambda s: dict(_extra_state=s["_extra_state"] | dict(delta=s["_extra_state"]["delta"] * math.nan)),
    ],
)
def test_a_state_that_is_none_is_refused_in_words(kind, change):
    method = kind(ASNG_CELL)
    state = method.state_dict()
    with pytest.raises(ValueError, match="the state of"):
        method.load_state_dict(change(state))
    method.load_state_dict(state)
