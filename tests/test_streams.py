"""Random numbers of trials: what is refused, and that nobody waits for a device to get them."""

import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nas_nb.streams import Ahead, check_seeds, normal, pairwise_sum, random_bits, square_root, uniform


@pytest.mark.parametrize(
    "seeds, want",
    [
        (7, [7]),
        (np.int64(7), [7]),
        (torch.tensor(7), [7]),
        (range(3), [0, 1, 2]),
        ((2**31 - 1,), [2**31 - 1]),
        (np.array([3, 4], dtype=np.uint8), [3, 4]),
        (torch.tensor([5, 6], dtype=torch.int16), [5, 6]),
    ],
)
def test_seeds_become_a_row_of_int32(seeds, want):
    row = check_seeds(seeds)
    assert row.dtype == torch.int32 and row.tolist() == want


@pytest.mark.parametrize(
    "seeds",
    [
        "3",
        1.5,
        None,
        True,
        [],
        [True],
        [1.0],
        [[1, 2]],
        [1, [2]],
        {1, 2},
        (i for i in range(3)),
        torch.zeros(0, dtype=torch.long),
        torch.tensor([1.0]),
        torch.tensor(1j),
        2**70,
    ],
)
def test_what_is_no_seed_is_refused_in_words(seeds):
    with pytest.raises(ValueError, match="integer or a non-empty list"):
        check_seeds(seeds)


@pytest.mark.parametrize("seeds", [-1, 2**31, [0, -1], [2**31], 2**63, torch.tensor([2**40])])
def test_seeds_out_of_range_are_refused(seeds):
    with pytest.raises(ValueError, match="at least 0 and less than"):
        check_seeds(seeds)


def test_no_step_reads_a_value_from_the_device():
    "In fake mode a tensor of a GPU has no values, and asking for one raises an error."
    with FakeTensorMode():
        for seeds in (check_seeds(5, "cuda"), torch.empty(4, dtype=torch.int32, device="cuda")):
            for draw in (uniform, normal):
                assert draw(seeds, range(3, 5), 6).device.type == "cuda"
                ahead = Ahead(draw, 6, 1)
                assert ahead(seeds, 4).shape == ahead(seeds, 5).shape == (6, len(seeds))
        assert pairwise_sum(torch.empty(5, 3, device="cuda")).shape == (3,)


@pytest.mark.parametrize("steps", [range(0, 10, 3), range(9, -1, -4), range(2**31 - 2, 2**31), range(5, 3)])
def test_any_range_of_steps(steps):
    seeds = check_seeds([1, 2])
    got = uniform(seeds, steps, 5)
    assert got.shape == (len(steps), 5, 2)
    for row, step in zip(got, steps, strict=True):
        assert torch.equal(row, uniform(seeds, range(step, step + 1), 5)[0])


def test_ahead_reaches_the_last_step():
    seeds, last = check_seeds([1, 2]), 2**31 - 1
    assert torch.equal(Ahead(uniform, 5, 0)(seeds, last), uniform(seeds, range(last, last + 1), 5)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_are_the_same_in_both_precisions(dtype):
    "The 24 bits fit both, and the mean of many is 1/2."
    u = uniform(check_seeds(range(100)), range(1), 1000, dtype=dtype)
    assert u.dtype == dtype and torch.equal(
        u.double(), uniform(check_seeds(range(100)), range(1), 1000, dtype=torch.float64)
    )
    assert u.max() < 1 and abs(u.mean() - 0.5) < 5 / math.sqrt(12 * 1e5)


SEEDS = check_seeds([1, 2])


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: random_bits([1, 2], range(1), 4), "check_seeds"),
        (lambda: random_bits(torch.tensor([1.0]), range(1), 4), "check_seeds"),
        (lambda: random_bits(torch.tensor(1, dtype=torch.int32), range(1), 4), "check_seeds"),
        (lambda: uniform(SEEDS, 3, 4), "range"),
        (lambda: uniform(SEEDS, range(-1, 2), 4), "range"),
        (lambda: uniform(SEEDS, range(2, -2, -1), 4), "range"),
        (lambda: uniform(SEEDS, range(2**31, 2**31 + 1), 4), "range"),
        (lambda: uniform(SEEDS, range(1), 2.5), "whole number"),
        (lambda: uniform(SEEDS, range(1), -1), "whole number"),
        (lambda: uniform(SEEDS, range(1), 4, 2**32), "stream"),
        (lambda: uniform(SEEDS, range(1), 4, dtype=torch.float16), "24 bits"),
        (lambda: normal(SEEDS, range(1), 4, dtype=torch.int64), "24 bits"),
        (lambda: normal(SEEDS, range(1), "4"), "whole number"),
        (lambda: Ahead(uniform, 0, 0), "from 1 on"),
        (lambda: Ahead(uniform, 4, 0)(SEEDS, -1), "range"),
        (lambda: Ahead(uniform, 4, 0)(SEEDS, 1.0), "whole number"),
        (lambda: check_seeds(1, "gpu"), "device"),
        (lambda: check_seeds(torch.zeros(9, 9)), "seeds must be an integer"),
        (lambda: uniform(SEEDS, range(1), torch.zeros(9, 9)), "whole number"),
        (lambda: check_seeds(1, 1.5), "device"),
        (lambda: square_root([4.0]), "floats"),
        (lambda: pairwise_sum([1.0, 2.0]), "floats"),
        (lambda: pairwise_sum(torch.zeros(0, 3)), "at least one row"),
        (lambda: pairwise_sum(torch.tensor(1.0)), "at least one row"),
        (lambda: pairwise_sum(torch.ones(300, dtype=torch.int8)), "floats"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
