"""Files: what is read back is used only if it is what belongs there."""

import copy
import io
import math
import os
import signal
import time

import pytest
import torch

from nas_nb import files
from nas_nb.files import Checkpoint, check_optimizer, check_state

pytestmark = pytest.mark.usefixtures("one_thread")

STATE = dict(
    step=3,
    lr=0.5,
    name="a",
    none=None,
    net=dict(weight=torch.ones(2, 3), count=torch.tensor(4)),
    open=torch.tensor([1.0, math.inf]),
    pair=[1.0, 2.0],
    rows=[],
)
SAME = [
    dict(step=9),
    dict(lr=1),
    dict(name="b"),
    dict(open=torch.tensor([2.0, math.nan])),
    dict(rows=[dict(a=1), "b"]),
    dict(pair=[3, 4.0]),
]
OTHER = {
    "a key more": dict(more=1),
    "another type": dict(step=3.0),
    "a truth for a number": dict(step=True),
    "a number for a tensor": dict(open=1.0),
    "a tensor for a number": dict(lr=torch.tensor(1.0)),
    "a tensor for nothing": dict(none=torch.ones(1)),
    "nan": dict(lr=math.nan),
    "a longer list": dict(pair=[1.0, 2.0, 3.0]),
    "a tuple for a list": dict(pair=(1.0, 2.0)),
    "a dict for a list": dict(rows={}),
    "nan in a list": dict(pair=[1.0, math.nan]),
    "not finite where it was": dict(open=torch.tensor([math.inf, 1.0])),
    "another shape": dict(net=dict(weight=torch.ones(3, 2), count=torch.tensor(4))),
    "another dtype": dict(net=dict(weight=torch.ones(2, 3).double(), count=torch.tensor(4))),
    "whole numbers": dict(net=dict(weight=torch.ones(2, 3).long(), count=torch.tensor(4))),
    "infinite": dict(net=dict(weight=torch.full((2, 3), math.inf), count=torch.tensor(4))),
    "sparse": dict(net=dict(weight=torch.ones(2, 3).to_sparse(), count=torch.tensor(4))),
    "without data": dict(net=dict(weight=torch.ones(2, 3, device="meta"), count=torch.tensor(4))),
    "one number six times": dict(net=dict(weight=torch.ones(1).expand(2, 3), count=torch.tensor(4))),
    "a key fewer, deep": dict(net=dict(weight=torch.ones(2, 3))),
    "a list for a dict": dict(net=[]),
}


@pytest.mark.parametrize("change", SAME, ids=str)
def test_a_state_that_fits_is_accepted(change):
    check_state(STATE | change, STATE)
    check_state(
        STATE | change, STATE | dict(net=dict(weight=torch.empty(2, 3, device="meta"), count=torch.tensor(0)))
    )


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER)
def test_a_state_that_does_not_fit_is_refused_in_one_sentence(change):
    with pytest.raises(ValueError, match="my state does not fit.*remove it") as error:
        check_state(STATE | change, STATE, "my state")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("loaded", [None, [], 3, dict(), torch.ones(2), "state"])
def test_what_is_no_state_at_all_is_refused(loaded):
    for check, like in ((check_state, STATE), (check_optimizer, optimizer("SGD", momentum=0.9)[1])):
        with pytest.raises(ValueError, match="does not fit"):
            check(loaded, like)


def optimizer(kind, **settings):
    "A small network, and an optimiser that has made one step; one weight never gets a gradient."
    net = torch.nn.ModuleDict(
        dict(a=torch.nn.Linear(3, 4), b=torch.nn.Linear(4, 2), idle=torch.nn.Linear(1, 1))
    )
    opt = getattr(torch.optim, kind)(net.parameters(), lr=0.1, **settings)
    net["b"](net["a"](torch.ones(5, 3))).sum().backward()
    opt.step()
    return net, opt


KINDS = [
    ("SGD", {}),
    ("SGD", dict(momentum=0.9, nesterov=True, weight_decay=1e-4)),
    ("Adam", {}),
    ("Adam", dict(fused=True)),
    ("AdamW", dict(amsgrad=True)),
    ("RMSprop", {}),
    ("Adagrad", {}),
]


@pytest.mark.parametrize("kind, settings", KINDS, ids=str)
def test_an_optimiser_goes_on_from_its_own_state_and_from_no_other(kind, settings):
    opt, fresh = optimizer(kind, **settings)[1], optimizer(kind, **settings)[1]
    torch.save(opt.state_dict(), buffer := io.BytesIO())
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    check_optimizer(saved, fresh)
    check_optimizer(
        saved, getattr(torch.optim, kind)(optimizer(kind)[0].parameters(), lr=0.3, **settings)
    )  # one that has not begun
    check_optimizer(fresh.state_dict() | dict(state={}), fresh)
    damages = [
        lambda s: s["param_groups"][0]["params"].reverse(),
        lambda s: s["param_groups"].append(s["param_groups"][0]),
        lambda s: s["param_groups"][0].update(weight_decay=3.0),
    ]
    damages += [lambda s, i=i: s["state"].update({i: {}}) for i in (0, 17, "0") if saved["state"].get(0)]
    for i, kept in saved["state"].items():
        for name, v in kept.items():
            other = (
                [
                    torch.ones(9999),
                    torch.ones(9999, 7),
                    v.flatten()[:1].expand(v.shape) if v.numel() > 1 else None,
                    v.long() if v.is_floating_point() else v.double(),
                    v * math.nan,
                    3.0,
                ]
                if torch.is_tensor(v)
                else ["x"]
            )
            damages += [lambda s, i=i, name=name, x=x: s["state"][i].update({name: x}) for x in other]
            damages.append(lambda s, i=i, name=name: s["state"][i].pop(name))
    for damage in damages:
        damage(bad := copy.deepcopy(saved))
        with pytest.raises(ValueError, match="does not fit|other settings"):
            check_optimizer(bad, fresh)


def test_who_wants_to_stop_where_nothing_can_be_written_is_told_once(tmp_path, capsys):
    "The run goes on, as it does where a checkpoint cannot be written, and tries again at every step."
    (tmp_path / "x").touch()  # a file where the folder should be
    ckpt, asked = Checkpoint(tmp_path / "x" / "checkpoint.pt", every=30), []
    with pytest.raises(files.Interrupted), files.stopping_at_a_tick():
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(5):
            ckpt.tick(lambda: asked.append(1) or dict(step=1))
    assert len(asked) == 5 and capsys.readouterr().out.count("interrupt again to stop without one") == 1


def test_a_second_interrupt_says_how_to_go_on():
    with (
        pytest.raises(files.Interrupted, match="run again to go on from the last checkpoint"),
        files.stopping_at_a_tick(),
    ):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
