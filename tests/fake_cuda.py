"""A GPU that is not there: tensors of device `cuda` without values. What mixes devices, or waits for the
device, raises on any machine.

Host tensors are real meanwhile and may be read. What torch does not tell is how a backward pass goes:
that needs a real GPU.
"""

import traceback
from contextlib import contextmanager

import torch
from torch import nn
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

aten = torch.ops.aten


class Waits(Exception):
    "A copy between host and device for which the host would wait."


# a copy that waits; a value that is read; a shape that depends on values; two devices in one operation
FOUND = (
    Waits,
    DataDependentOutputException,
    DynamicOutputShapeException,
    getattr(fake_tensor, "FakeTensorDeviceMismatchError", RuntimeError),
)


def _sent(
    func, args, kwargs
) -> tuple:  # (from, to, whether the host waits for it) of what an operation copies
    if func is aten._to_copy.default and kwargs.get("device") is not None:
        return args[0].device.type, torch.device(kwargs["device"]).type, not kwargs.get("non_blocking")
    if func is aten.copy_.default and args[1].ndim:  # a single number goes along with the kernel
        return (
            args[1].device.type,
            args[0].device.type,
            not (args[2] if len(args) > 2 else kwargs.get("non_blocking")),
        )
    if func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default) and any(
        i is not None and i.device != args[0].device for i in args[1]
    ):
        return "cpu", args[0].device.type, True  # torch takes indices of the host, and sends them itself
    return None, None, False


class _Device(TorchDispatchMode):
    """The host computes; the device has no values. With `waits`, it has: what would wait is then noted there
    and does not raise."""

    def __init__(self, waits: list | None):
        super().__init__()
        self.waits, self.values = waits, WeakIdKeyDictionary()  # fake tensor -> its values, on the host

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if (
            torch.is_inference_mode_enabled() and func.namespace == "aten"
        ):  # then composite operations arrive as they are
            with self:
                if (found := func.decompose(*args, **kwargs)) is not NotImplemented:
                    return found
        device = kwargs.get("device")
        if (device is None or torch.device(device).type == "cpu") and not any(
            isinstance(x, FakeTensor) for x in tree_leaves((args, kwargs))
        ):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        origin, target, waits = _sent(func, args, kwargs)
        if waits and origin != target:
            self.wait(
                Waits(
                    f"a copy from {origin} to {target}: non_blocking=True to the device, or make it there; nothing is read back"
                )
            )
        return func(*args, **kwargs) if self.waits is None else self.with_values(func, args, kwargs)

    def wait(self, error: Exception) -> None:
        if self.waits is None:
            raise error
        self.waits.append(
            next(
                (
                    f"{f.name}: {f.line}"
                    for f in reversed(traceback.extract_stack())
                    if "/nas_nb/" in f.filename
                ),
                "",
            )
        )

    def with_values(self, func, args, kwargs):
        host = lambda x: (
            self.values[x]
            if isinstance(x, FakeTensor)
            else torch.device("cpu")
            if isinstance(x, torch.device)
            else x
        )
        with unset_fake_temporarily():
            real = func(*tree_map(host, args), **tree_map(host, kwargs))
        try:
            fake = func(*args, **kwargs)
        except (
            DataDependentOutputException,
            DynamicOutputShapeException,
        ) as error:  # a value is read, or a shape depends on values
            self.wait(error)
            fake = tree_map(lambda x: self.new(x) if isinstance(x, torch.Tensor) else x, real)
        if (
            func is aten._local_scalar_dense.default
            or torch.device(kwargs.get("device") or "cuda").type == "cpu"
        ):
            return real
        for f, r in zip(tree_leaves(fake), tree_leaves(real)):
            if isinstance(f, FakeTensor):
                self.values[f] = r
        return fake

    def new(self, t: torch.Tensor) -> torch.Tensor:
        fake = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cuda").requires_grad_(
            t.requires_grad
        )
        self.values[fake] = t.detach().clone()
        return fake


_open = []  # the mode that is on


@contextmanager
def fake_cuda(looks: bool = False):
    """In here device `cuda` exists. With `looks`, waiting is noted in the list that this yields; without, it
    raises."""
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(
        True
    )  # a parameter's storage cannot become a fake one
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), _Device([] if looks else None) as mode:
            _open.append(mode)
            yield mode.waits
    finally:
        _open.clear()
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


def _tensor(t: torch.Tensor) -> torch.Tensor:
    return _open[0].new(t)


def moved(x):
    """The same object on the fake device: modules as by `.to`, other objects with all tensors that they
    hold; changed in place where that can be."""
    if isinstance(x, nn.Module):
        return x._apply(_tensor)
    if isinstance(x, torch.Tensor):
        return _tensor(x)
    if isinstance(x, torch.device):
        return torch.device("cuda:0")
    if isinstance(x, (list, tuple)):
        parts = [moved(v) for v in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    if isinstance(x, dict):
        return {k: moved(v) for k, v in x.items()}
    if type(x).__module__.startswith("nas_nb") and hasattr(x, "__dict__"):
        for name, value in vars(x).items():
            object.__setattr__(x, name, moved(value))  # of a frozen dataclass, too
    return x
