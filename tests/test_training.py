"""The training loop: exact after a kill, silent about nothing, and the same calls for every data set."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.ops import StochasticDepth

from nas_nb import files, training
from nas_nb.batches import Augment, Batches, eval_batches
from nas_nb.datasets import load_images
from nas_nb.files import Checkpoint, OutOfTime
from nas_nb.operations import Depthwise
from nas_nb.training import (
    BASELINES,
    Diverged,
    DropPath,
    Recipe,
    batch_loss,
    descend,
    evaluate,
    fit,
    learning_rate,
    make_optimizer,
    small_cnn,
    train_baseline,
    training_loss,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


@pytest.fixture
def batches(digits):
    return Batches(digits.train, 32, digits.mean, digits.std, augment=Augment(crop=1, cutout=2))


class Net(nn.Module):
    """Everything that random numbers and running statistics could get wrong: batch norm, dropout, drop path,
    an auxiliary head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.conv = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.drop, self.out, self.aux = StochasticDepth(0.0, "row"), nn.Linear(4, 10), nn.Linear(4, 10)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = (x + self.drop(self.conv(x))).mean((2, 3))
        logits = self.out(nn.functional.dropout(x, 0.2, self.training))
        return (logits, self.aux(x)) if self.training else logits


RECIPES = [
    Recipe(12, lr=0.1, warmup=3, drop_path=0.3, aux=0.4, clip=1.0, label_smoothing=0.1),
    Recipe(12, optimizer="adam", lr=0.01, momentum=0.9, drop_path=0.3, channels_last=False),
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.optimizer)
@pytest.mark.parametrize("stop", [1, 5, 11])
def test_stopped_anywhere_it_goes_on_to_the_same_bits(tmp_path, digits, batches, recipe, stop, monkeypatch):
    valid = partial(eval_batches, digits.test, 100, digits.mean, digits.std)
    whole, again = Net(), Net()
    history = fit(whole, batches, recipe, valid, every=4)
    ticks = iter(range(1, 100))
    monkeypatch.setattr(files, "seconds_left", lambda: -1.0 if next(ticks) == stop else 1.0)
    with pytest.raises(OutOfTime):
        fit(Net(), batches, recipe, valid, every=4, ckpt=Checkpoint(tmp_path / "c.pt"))
    assert Checkpoint(tmp_path / "c.pt").load()["step"] == stop
    torch.manual_seed(99)  # what another process would have
    fresh = Batches(digits.train, 32, digits.mean, digits.std, augment=Augment(crop=1, cutout=2))
    assert fit(again, fresh, recipe, valid, every=4, ckpt=Checkpoint(tmp_path / "c.pt")) == history
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values()))
    assert [row["step"] for row in history] == [4, 8, 12]
    steps = [line.split(",")[0] for line in (tmp_path / "c.log.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 13))]


real = pytest.mark.skipif(not os.environ.get("NAS_NB_DATA"), reason="needs real data: NAS_NB_DATA is not set")


GO_ON = """
import sys, json
from nas_nb.files import Checkpoint
from nas_nb.training import train_baseline
import torch
torch.set_num_threads(1)
print(json.dumps(train_baseline(**json.loads(sys.argv[1]), ckpt=Checkpoint(sys.argv[2], every=0))))
"""


def going_on(settings, path):
    """Another process: what this one computed before may have fixed another arithmetic than the variables
    now ask for."""
    command = [sys.executable, "-c", GO_ON, json.dumps(settings), str(path)]
    return subprocess.Popen(
        command, env=os.environ | dict(NAS_NB_BATCH="1"), stdout=subprocess.PIPE, text=True
    )


def killed(settings, path, moments) -> bool:
    """Let another process go on with the run, and kill it some time after it has written a checkpoint;
    whether it was still running then."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    child = going_on(settings, path)
    while not (path.exists() and path.stat().st_mtime_ns > before) and child.poll() is None:
        time.sleep(0.002)
    time.sleep(moments.uniform(0, 0.2))
    child.kill()
    return child.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    "source", ["digits", pytest.param("mnist", marks=real), pytest.param("cifar10", marks=real)]
)
def test_killed_and_gone_on_through_the_same_call_for_every_data_set(tmp_path, source):
    steps = dict(digits=120, mnist=40, cifar10=8)[source]
    settings = dict(source=source, epochs=3, seed=1, max_steps=steps, **BASELINES[source] | dict(size=32))
    whole = going_on(settings, tmp_path / "whole.pt").communicate()[0].splitlines()[-1]
    path, moments = tmp_path / "c.pt", random.Random(seed := random.randrange(10**6))
    print("seed of the moments", seed)
    reached = []
    while len(reached) < 3 and killed(settings, path, moments):
        reached.append(Checkpoint(path).load()["step"])
    print("killed with", reached, "of", steps, "steps saved")
    assert reached and reached == sorted(
        set(reached)
    )  # each one went on from where the one before was killed
    assert going_on(settings, path).communicate()[0].splitlines()[-1] == whole


def test_seeds_decide(batches):
    losses = [fit(Net(), batches, RECIPES[0], seed=seed)[-1]["train_loss"] for seed in (3, 3, 4)]
    assert losses[0] == losses[1] != losses[2]


def test_the_layout_changes_no_result(digits):
    rows = [
        fit(
            small(digits),
            Batches(digits.train, 32, digits.mean, digits.std, channels_last=last),
            Recipe(10, channels_last=last),
        )
        for last in (False, True)
    ]
    assert rows[0][-1]["train_loss"] == pytest.approx(rows[1][-1]["train_loss"], rel=1e-4)


def small(digits):
    torch.manual_seed(0)
    return small_cnn(digits.train.shape, 10, 4)


# -- the numbers --


def test_the_learning_rate_is_torchs():
    recipe, net = Recipe(50, lr=0.4, lr_end=0.01, warmup=10), nn.Linear(1, 1)
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40, 0.01)
    scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [10])
    for step in range(50):
        assert learning_rate(step, recipe) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step(), scheduler.step()


def test_smoothing_and_the_auxiliary_head():
    logits, aux, y = torch.randn(5, 10), torch.randn(5, 10), torch.arange(5)

    def smooth(z, eps):
        p = torch.full((5, 10), eps / 10)
        p[torch.arange(5), y] += 1 - eps
        return -(p * z.log_softmax(1)).sum(1).mean()

    recipe = Recipe(1, label_smoothing=0.1, aux=0.4)
    torch.testing.assert_close(
        training_loss((logits, aux), y, recipe), smooth(logits, 0.1) + 0.4 * smooth(aux, 0.1)
    )
    torch.testing.assert_close(training_loss((logits, aux), y, Recipe(1)), smooth(logits, 0.0))


def test_the_gradient_is_clipped():
    net = nn.Linear(4, 10)
    before = [p.detach().clone() for p in net.parameters()]
    recipe = Recipe(1, lr=1.0, momentum=0.0, weight_decay=0.0, clip=0.01)
    descend(
        batch_loss(net, 100 * torch.randn(8, 4), torch.arange(8), recipe), make_optimizer(net, recipe), recipe
    )
    moved = torch.cat([(p - q).flatten() for p, q in zip(net.parameters(), before)]).norm()
    assert moved.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "optimizer, plain", [("sgd", torch.optim.SGD), ("momentum", torch.optim.SGD), ("adam", torch.optim.Adam)]
)
def test_the_update_is_torchs_own(batches, optimizer, plain):
    nets = [Net().eval(), Net().eval()]  # without dropout
    recipe = Recipe(5, optimizer=optimizer, lr=0.05, lr_end=0.05, weight_decay=0.01)
    kwargs = (
        dict(betas=(0.9, 0.999)) if optimizer == "adam" else dict(momentum=0.9, nesterov=optimizer == "sgd")
    )
    other, ours = (
        plain(nets[1].parameters(), 0.05, weight_decay=0.01, **kwargs),
        make_optimizer(nets[0], recipe),
    )
    for step in range(5):
        x, y = batches(step)
        loss = descend(batch_loss(nets[0], x, y, recipe), ours, recipe)
        other.zero_grad()
        expected = nn.functional.cross_entropy(nets[1](x), y)
        expected.backward(), other.step()
        torch.testing.assert_close(loss, expected.detach())
    for a, b in zip(nets[0].parameters(), nets[1].parameters()):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.99])
def test_drop_path_is_torchvisions_to_the_bit(p, dtype):
    ours, theirs = DropPath(p), StochasticDepth(p, "row")
    for shape in ((16, 3, 4, 4), (5, 7), (9,)):
        x, drawn = torch.randn(shape).to(dtype), []
        for module in (ours, theirs):
            torch.manual_seed(1)
            drawn.append(
                (module.train()(x), torch.rand(3))
            )  # and it leaves the generator where the other does
            assert module.eval()(x) is x
        assert all(torch.equal(a, b) for a, b in zip(*drawn))
    for wrong in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="chance to drop a path"):
            DropPath(wrong)


@pytest.mark.parametrize(
    "kind", [DropPath, lambda: StochasticDepth(0.0, "row")], ids=["ours", "torchvision's"]
)
def test_paths_are_dropped_more_and_more(batches, kind):
    net, seen = Net(), []
    net.drop = kind()
    net.drop.register_forward_hook(lambda module, *_: seen.append(module.p))
    fit(net, batches, RECIPES[0])
    assert seen == pytest.approx([0.3 * t / 12 for t in range(12)])


def test_evaluating_changes_nothing(digits):
    net = Net().train()
    net.norm.eval()  # somebody's frozen layer
    before = {k: v.clone() for k, v in net.state_dict().items()}
    score = evaluate(net, eval_batches(digits.test, 100, digits.mean, digits.std))
    assert score.n == len(digits.test) and net.training and not net.norm.training
    with pytest.raises(RuntimeError):
        evaluate(net, [(torch.zeros(1, 3), torch.zeros(1))])
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    x = torch.cat([x for x, _ in eval_batches(digits.test, 64, digits.mean, digits.std)])
    with torch.no_grad():
        logits = net.eval()(x)
    assert score.correct == (logits.argmax(1) == digits.test.y).sum()
    assert score.loss == pytest.approx(nn.functional.cross_entropy(logits, digits.test.y).item(), rel=1e-5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("broken", [1, 5, 10])  # so many images of ten
def test_outputs_that_are_no_numbers_are_never_right(bad, broken):
    "The largest of ten NaN is the first, so a dead network would be right about every image of class 0."
    out = torch.zeros(10, 10)
    out[:broken] = bad
    with pytest.raises(Diverged, match="held-out images is nan") as error:
        evaluate(nn.Identity(), [(out, torch.zeros(10, dtype=torch.int64))])
    assert "\n" not in str(error.value)


# -- what goes wrong --


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_at_its_step(tmp_path, batches, bad):
    def poisoned(step):
        x, y = batches(step)
        return (x * bad, y) if step == 6 else (x, y)

    with pytest.raises(Diverged) as error:
        fit(Net(), poisoned, RECIPES[0], ckpt=Checkpoint(tmp_path / "c.pt", every=0))
    message = str(error.value)
    assert (
        "at step 7 of 12" in message
        and "last checkpoint is of step 6" in message
        and "lr=0.1" in message
        and "\n" not in message
    )
    saved = Checkpoint(tmp_path / "c.pt").load()
    assert saved["step"] == 6 and all(w.isfinite().all() for w in saved["model"].values())
    assert len((tmp_path / "c.log.csv").read_text().splitlines()) == 1 + 7  # the bad one is in the log, too


def test_without_a_checkpoint_the_step_is_still_the_right_one(batches):
    with pytest.raises(Diverged, match="nan at step 4 of 12; there is no checkpoint yet"):
        fit(Net(), lambda t: (batches(t)[0] * (math.nan if t == 3 else 1), batches(t)[1]), RECIPES[0])


def test_weights_that_are_not_finite_are_never_saved(tmp_path, batches):
    "The loss of the step is fine, only its update is not."
    net = Net()
    net.out.weight.register_hook(lambda g: g * math.inf if ticks.append(1) or len(ticks) == 5 else g)
    ticks = []
    with pytest.raises(Diverged, match="a weight or a statistic is not finite at step 5"):
        fit(net, batches, Recipe(12), ckpt=Checkpoint(tmp_path / "c.pt", every=0))
    assert Checkpoint(tmp_path / "c.pt").load()["step"] == 4


def test_statistics_that_are_not_finite_are_never_saved(tmp_path, batches):
    far = lambda t: (
        batches(t)[0] * (1e25 if t == 3 else 1),
        batches(t)[1],
    )  # its square overflows, batch norm hides it from the loss
    with pytest.raises(Diverged, match="statistic is not finite at step 4"):
        fit(Net(), far, Recipe(12, lr=1e-30, weight_decay=0.0), ckpt=Checkpoint(tmp_path / "c.pt", every=0))
    assert Checkpoint(tmp_path / "c.pt").load()["step"] == 3


def test_a_held_out_loss_that_is_not_finite(digits, batches):
    x, y = next(eval_batches(digits.test, 10, digits.mean, digits.std))
    with pytest.raises(Diverged, match="held-out images is nan at step 12"):
        fit(Net(), batches, RECIPES[0], lambda: [(x * math.nan, y)])


def test_diverged_in_the_last_step(batches):
    net, ticks = Net(), []
    net.out.weight.register_hook(lambda g: g * math.inf if ticks.append(1) or len(ticks) == 12 else g)
    with pytest.raises(Diverged, match="step 12 of 12"):
        fit(net, batches, Recipe(12))


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path, batches, capsys):
    (tmp_path / "c.log.csv").mkdir()
    assert fit(Net(), batches, RECIPES[1], ckpt=Checkpoint(tmp_path / "c.pt"))[-1]["step"] == 12
    assert capsys.readouterr().out.count("c.log.csv is not written any more") == 1


def test_what_a_killed_process_logged_too_much_or_lost_is_mended(tmp_path, batches, monkeypatch):
    fit(Net(), batches, RECIPES[1], ckpt=Checkpoint(tmp_path / "whole.pt"))
    left = iter([1.0] * 6)
    monkeypatch.setattr(files, "seconds_left", lambda: next(left, -1.0))
    with pytest.raises(OutOfTime):
        fit(Net(), batches, RECIPES[1], ckpt=Checkpoint(tmp_path / "c.pt"))
    monkeypatch.undo()
    (tmp_path / "c.log.csv").write_text("step,loss\n1,0.5\n" + "\n".join(f"{i},0.5" for i in range(5, 30)))
    fit(Net(), batches, RECIPES[1], ckpt=Checkpoint(tmp_path / "c.pt"))
    assert (tmp_path / "c.log.csv").read_text() == (tmp_path / "whole.log.csv").read_text()


def test_the_models_own_stochastic_depth_and_the_callers_generator_stay(batches):
    net = Net()
    net.drop.p, state = 0.1, torch.get_rng_state()
    fit(net, batches, Recipe(3, aux=0.4))
    assert net.drop.p == 0.1
    fit(net, batches, RECIPES[0])
    assert net.drop.p == 0.1 and torch.equal(torch.get_rng_state(), state)
    with pytest.raises(KeyboardInterrupt):
        fit(net, lambda t: batches(t) if t < 5 else (_ for _ in ()).throw(KeyboardInterrupt), RECIPES[0])
    assert net.drop.p == 0.1 and torch.equal(torch.get_rng_state(), state)


def test_inputs_without_a_layout():
    net, x = nn.Linear(4, 10), torch.randn(8, 4)
    assert fit(net, lambda t: (x, torch.arange(8)), Recipe(3), lambda: [(x, torch.arange(8))])[-1]["n"] == 8


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1, 2.0, 1.5, "x", None, True])
def test_what_is_counted_is_a_whole_number(wrong):
    for name in ("every", "seed"):
        with pytest.raises(ValueError, match=rf"{name} = .* must be a whole number of at least 0"):
            fit(Net(), lambda t: pytest.fail("trained"), Recipe(3), **{name: wrong})
    with pytest.raises(ValueError, match="n = .* must be a whole number of at least 1"):
        training.reestimate_bn(Net(), lambda t: pytest.fail("run"), wrong)


@pytest.mark.parametrize(
    "wrong", [dict(valid=[1]), dict(valid=iter(())), dict(batches=None), dict(batches=[1])]
)
def test_wrong_arguments_are_refused_before_anything_is_trained(wrong):
    with pytest.raises(ValueError, match="function of the step"):
        fit(Net(), **dict(batches=lambda t: pytest.fail("trained")) | wrong, recipe=Recipe(3))
    with pytest.raises(ValueError, match="at least 1"):
        training.reestimate_bn(Net(), lambda t: None, 0)


def test_a_checkpoint_of_another_network_is_refused_in_one_line(tmp_path, batches, digits):
    fit(Net(), batches, RECIPES[0], ckpt=Checkpoint(tmp_path / "c.pt", every=0))
    fit(Net(), batches, RECIPES[0], ckpt=Checkpoint(tmp_path / "c.pt"))  # its own is fine
    others = [(Net(), RECIPES[1], {}), (Net(), replace(RECIPES[0], lr=0.2), {})]
    others += [
        (Net(), RECIPES[0], dict(seed=1)),
        (Net(), RECIPES[0], dict(every=3)),
        (Net(), replace(RECIPES[0], steps=13), {}),
    ]
    for net, recipe, changed in others:
        with pytest.raises(ValueError, match="another model, recipe, seed") as error:
            fit(net, batches, recipe, ckpt=Checkpoint(tmp_path / "c.pt"), **changed)
        assert "\n" not in str(error.value)
    fit(small(digits), batches, Recipe(3), ckpt=Checkpoint(tmp_path / "d.pt", every=0))
    with pytest.raises(
        ValueError, match="d.pt does not fit what is to go on from it.*d.pt.model has other entries"
    ):
        fit(Net(), batches, Recipe(3), ckpt=Checkpoint(tmp_path / "d.pt"))


def permuted(images):
    return replace(images, y=images.y.flip(0))


OTHER_BATCHES = {
    "size": lambda d: Batches(d.train, 16, d.mean, d.std, seed=1, augment=Augment(crop=1)),
    "seed": lambda d: Batches(d.train, 32, d.mean, d.std, seed=2, augment=Augment(crop=1)),
    "augment": lambda d: Batches(d.train, 32, d.mean, d.std, seed=1),
    "mean": lambda d: Batches(d.train, 32, (0.5,), d.std, seed=1, augment=Augment(crop=1)),
    "images, data": lambda d: Batches(
        d.train.take(range(1000)), 32, d.mean, d.std, seed=1, augment=Augment(crop=1)
    ),
    "data": lambda d: Batches(permuted(d.train), 32, d.mean, d.std, seed=1, augment=Augment(crop=1)),
}


@pytest.mark.parametrize("differs", OTHER_BATCHES)
def test_a_checkpoint_of_other_batches_is_refused(tmp_path, digits, differs):
    own = Batches(digits.train, 32, digits.mean, digits.std, seed=1, augment=Augment(crop=1))
    fit(Net(), own, Recipe(3), ckpt=Checkpoint(tmp_path / "c.pt", every=0))
    with pytest.raises(
        ValueError, match=rf"c.pt was begun with other batches \(not the same: {differs}\)"
    ) as error:
        fit(Net(), OTHER_BATCHES[differs](digits), Recipe(3), ckpt=Checkpoint(tmp_path / "c.pt"))
    assert "\n" not in str(error.value)
    same = Batches(
        digits.train, 32, digits.mean, digits.std, seed=1, augment=Augment(crop=1), channels_last=True
    )  # no matter where its numbers lie
    fit(Net(), same, Recipe(3), ckpt=Checkpoint(tmp_path / "c.pt"))


def test_batches_that_say_nothing_of_themselves_are_taken(tmp_path, batches):
    for first, second in (
        (batches, lambda t: batches(t)),
        (lambda t: batches(t), batches),
        (lambda t: batches(t), lambda t: batches(t)),
    ):
        fit(Net(), first, Recipe(3), ckpt=Checkpoint(tmp_path / "c.pt", every=0))
        fit(Net(), second, Recipe(3), ckpt=Checkpoint(tmp_path / "c.pt"))
        (tmp_path / "c.pt").unlink()


def damaged(state, path=()):
    """All that one place of a state could be instead, with the place: another kind, shape, dtype, not
    finite, or missing."""
    wrong = [None, "x", [1], {"a": 1}, math.nan, torch.zeros(3, 5)]
    if torch.is_tensor(state):
        wrong += [state.new_zeros(*state.shape, 2), state.to(torch.int16), state[None]] + [
            state * math.nan
        ] * state.is_floating_point()
    else:
        wrong += [v for v in (-1, 10**9) if type(state) is int]
    yield from ((path, w) for w in wrong if type(w) is not type(state) or torch.is_tensor(w))
    for k, v in (
        state.items()
        if isinstance(state, dict)
        else enumerate(state)
        if isinstance(state, (list, tuple))
        else ()
    ):
        yield from damaged(v, (*path, k))
        yield (*path, k), "missing"


def put(state, path, what):
    if not path:
        return what
    items = dict(state) if isinstance(state, dict) else dict(enumerate(state))
    items[path[0]] = put(items[path[0]], path[1:], what)
    if path[1:] == () and isinstance(what, str) and what == "missing":
        del items[path[0]]
    return items if isinstance(state, dict) else type(state)(items.values())


UNKNOWN = [("batches",), ("batches", 0), ("batches", 1)]  # may say nothing


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.optimizer)
def test_an_altered_checkpoint_is_refused_before_anything_is_loaded(tmp_path, batches, recipe):
    "Momentum of another shape used to end the process with a damaged heap."
    fit(Net(), batches, recipe, every=4, ckpt=Checkpoint(tmp_path / "c.pt", every=0))
    state, tried = Checkpoint(tmp_path / "c.pt").load(), 0
    net = Net()
    run = training.Run(net, batches, recipe, 0, 4, None, "")
    run.ckpt, run.sources, before = (
        Checkpoint(tmp_path / "c.pt"),
        [batches.about, None],
        [v.clone() for v in net.state_dict().values()],
    )
    run.examine(state)
    for path, what in damaged(state):
        if path and path not in UNKNOWN and not (path[:2] == ("optimizer", "state") and path[3:] == ()):
            with pytest.raises(ValueError) as error:
                run.examine(put(state, path, what))
                pytest.fail(f"taken: {path} {what!r}")
            assert "\n" not in str(error.value) and len(str(error.value)) < 400
            tried += 1
    assert tried > 200 and all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), before))
    Checkpoint(tmp_path / "c.pt").save(
        put(
            state,
            ("optimizer", "state", 0, "momentum_buffer" if recipe.optimizer == "sgd" else "exp_avg"),
            torch.zeros(7),
        )
    )
    with pytest.raises(ValueError, match="does not fit"):
        fit(Net(), batches, recipe, every=4, ckpt=Checkpoint(tmp_path / "c.pt"))


@pytest.mark.parametrize(
    "recipe, says", [(Recipe(2, aux=0.4), "auxiliary"), (Recipe(2, drop_path=0.1), "StochasticDepth")]
)
def test_what_would_have_no_effect_is_refused(digits, recipe, says):
    batches = Batches(digits.train, 32, digits.mean, digits.std)
    with pytest.raises(ValueError, match=says):
        fit(small(digits), batches, recipe)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(steps=0),
        dict(lr=0.0),
        dict(lr=math.inf),
        dict(lr_end=-0.1),
        dict(lr_end=1.0),
        dict(warmup=-1),
        dict(warmup=8),
        dict(momentum=1.0),
    ]
    + [
        dict(weight_decay=-1e-4),
        dict(clip=-1.0),
        dict(label_smoothing=1.0),
        dict(drop_path=-0.1),
        dict(aux=math.nan),
        dict(optimizer="lamb"),
    ],
    ids=str,
)
def test_a_recipe_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))) as error:
        Recipe(**dict(steps=8) | wrong)
    assert "\n" not in str(error.value)


# -- bfloat16 --

NATIVE = pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="this processor does not multiply bfloat16"
)


def test_an_option_that_is_off_is_in_no_record():
    "So that earlier records are found, and earlier checkpoints go on."
    assert "bf16_cpu" not in Recipe(3).about and Recipe(3).about == {
        k: v for k, v in asdict(Recipe(3)).items() if k != "bf16_cpu"
    }
    assert Recipe(3, bf16_cpu=True).about == Recipe(3).about | dict(bf16_cpu=True)


def test_a_processor_without_bf16_says_so(batches, monkeypatch, recwarn):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.raises(ValueError, match="does not multiply bfloat16.*bf16_cpu=False") as error:
        fit(Net(), lambda t: pytest.fail("trained"), Recipe(3, bf16_cpu=True))
    assert "\n" not in str(error.value) and not recwarn.list
    fit(Net(), batches, Recipe(3))


@NATIVE
def test_bf16_on_a_processor_stays_near_and_goes_on_to_the_same_bits(tmp_path, digits, batches):
    first, kinds = [], []
    for half in (False, True):
        net = Net()
        net.conv.register_forward_hook(lambda module, x, y: kinds.append(y.dtype))
        first.append(fit(net, batches, replace(RECIPES[0], bf16_cpu=half), every=1)[0]["train_loss"])
        assert all(p.dtype == torch.float32 for p in net.parameters())
    assert first[0] != first[1] == pytest.approx(first[0], rel=1e-2)
    assert set(kinds[:12]) == {torch.float32} and set(kinds[12:]) == {torch.bfloat16}
    recipe, nets = replace(RECIPES[0], bf16_cpu=True), (Net(), Net())
    fit(nets[0], batches, recipe)
    stop = lambda t: batches(t) if t < 5 else (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(Net(), stop, recipe, ckpt=Checkpoint(tmp_path / "c.pt", every=0))
    with pytest.raises(ValueError, match="another model, recipe"):
        fit(Net(), batches, RECIPES[0], ckpt=Checkpoint(tmp_path / "c.pt"))
    fit(nets[1], batches, recipe, ckpt=Checkpoint(tmp_path / "c.pt"))
    assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in nets)))


@NATIVE
@pytest.mark.parametrize(
    "k, stride, dilation, dtype",
    [
        (3, 1, 1, torch.bfloat16),
        (3, 1, 2, torch.bfloat16),
        (5, 1, 1, torch.float32),
        (3, 2, 1, torch.float32),
        (5, 1, 2, torch.float32),
    ],
)
def test_what_is_slow_in_bf16_is_not_computed_in_it(k, stride, dilation, dtype):
    "Kernels of torch 2.14: the gradient of the weights of 5×5, and that of the input at stride 2."
    op, x = Depthwise(8, k, stride, dilation), torch.randn(2, 8, 8, 8)
    plain = op(x)
    with torch.autocast("cpu", torch.bfloat16):
        half = op(x.bfloat16())
        assert torch.is_autocast_enabled("cpu") and half.dtype == dtype
    torch.testing.assert_close(half.float(), plain, rtol=2e-2, atol=2e-2)


def test_nothing_to_evaluate_on():
    with pytest.raises(ValueError, match="no batches"):
        evaluate(Net(), [])


# -- the consumers --


def test_digits_are_learnt():
    result = train_baseline("digits", epochs=12, seed=0, **BASELINES["digits"])
    last = result["epochs"][-1]
    assert training.Score(last["correct"], last["n"], last["loss"]).interval()[0] > 0.95


@pytest.mark.gpu
def test_nothing_waits_for_the_gpu():
    digits = load_images("digits", "cuda")
    batches = Batches(digits.train, 32, digits.mean, digits.std, augment=Augment(crop=1, flip=True, cutout=2))
    net, recipe = Net().to("cuda"), RECIPES[0]
    optimizer, log = make_optimizer(net, recipe), training.StepLog(40, ("loss",), "cuda")
    descend(batch_loss(net, *batches(0), recipe), optimizer, recipe)  # warm up
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 30):
            torch.manual_seed(step)
            log.put(step, descend(batch_loss(net, *batches(step), recipe), optimizer, recipe))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("bf16", [False, True])
def test_bf16_on_a_gpu_stays_near(bf16, digits):
    on_gpu, losses = digits.train.to("cuda"), []
    for device, images in ("cpu", digits.train), ("cuda", on_gpu):
        net = small(digits).to(device)
        losses.append(
            fit(net, Batches(images, 32, digits.mean, digits.std), Recipe(10, bf16=bf16, clip=1.0))[-1][
                "train_loss"
            ]
        )
    assert losses[0] == pytest.approx(losses[1], rel=2e-2 if bf16 else 1e-3)
