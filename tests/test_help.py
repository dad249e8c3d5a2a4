"help() says what shape a tensor has: that of every public function of the search spaces and methods."

import inspect
import re
from importlib import import_module

import pytest

MODULES = (
    "operations cells vgg population vgg_pictures draw darts methods tdga hypernet sampling relaxations"
    " credit blindspot credit_toy decisions controllers enas pnas judging tables twins batches images"
    " layers macro layer_pictures recurrent language recurrent_pictures text controlled search training parallel tiny"
).split()
SHAPE = re.compile(r"\([^()]*[,…][^()]*\)|\bnumber\b|any shape|\bshapes?\b", re.I)


def public(module):
    for name in (mod := import_module(f"nas_nb.{module}")).__all__:
        thing = getattr(mod, name)
        if inspect.isclass(thing) and thing.__module__ == mod.__name__:
            yield name, thing
            methods = {
                k: v
                for base in reversed(thing.__mro__)
                if base.__module__ == mod.__name__
                for k, v in vars(base).items()
                if not k.startswith("_")
            }
            yield from ((f"{name}.{k}", v) for k, v in methods.items() if inspect.isfunction(v))
        elif inspect.isfunction(thing):
            yield name, thing


EVERYTHING = [(f"{module}.{name}", thing) for module in MODULES for name, thing in public(module)]


@pytest.mark.parametrize(("name", "thing"), EVERYTHING, ids=[name for name, _ in EVERYTHING])
def test_help_says_what_it_is_and_which_shapes(name, thing):
    assert thing.__doc__ and thing.__doc__.strip(), f"{name} has no docstring"
    if inspect.isclass(thing):
        return
    signature, text = inspect.signature(thing), " ".join(thing.__doc__.split())
    tensors = [p.name for p in signature.parameters.values() if "Tensor" in str(p.annotation)]
    unsaid = [p for p in tensors if f"`{p}`" not in text]
    assert not unsaid, f"{name}: help() says nothing about {', '.join(unsaid)}"
    if tensors or "Tensor" in str(signature.return_annotation):
        assert SHAPE.search(text), f"{name}: help() gives no shape"
