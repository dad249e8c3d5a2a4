"""No operation writes where it must not: under glibc's checking allocator, which stops the process when a
block that was written past its end is freed."""

import ctypes.util
import os
import signal
import subprocess
import sys

import pytest

from nas_nb.bits import other_surroundings, portable_variables

GUARD = "libc_malloc_debug.so.0"  # part of glibc since 2.34
NEEDED = pytest.mark.skipif(not ctypes.util.find_library("c_malloc_debug"), reason=f"needs {GUARD} of glibc")

BEGIN = """import torch, torch.nn.functional as F
from nas_nb.operations import *
torch.set_num_threads(1)

def image(n, channels, size, layout):
    return torch.randn(n, channels, size, size).contiguous(memory_format=layout).requires_grad_()
"""
OPERATIONS = """
for table in (DARTS_OPS, ASNG_OPS, ENAS_OPS, NASNET_OPS):
    for channels in (2, 4, 6, 8, 12):
        for stride in (1, 2):
            for size, layout in ((8, torch.channels_last), (7, torch.channels_last), (8, torch.contiguous_format)):
                for op in table.values():
                    some = [op.build(channels, stride).to(memory_format=layout) for _ in range(2)]
                    for y in (some[0](x := image(16, channels, size, layout)), side_by_side(some, x)):
                        if y.requires_grad:
                            y.sum().backward()
"""
STRIDED = """
for channels in range(2, 8):
    for c_out in (1, 4, 8):
        x = image(16, channels, 8, torch.channels_last)
        F.conv2d(x, torch.randn(c_out, channels, 1, 1, requires_grad=True), stride=2).sum().backward()
"""


def guarded(text):
    env = (
        os.environ
        | portable_variables("quick")
        | dict(LD_PRELOAD=GUARD, MALLOC_CHECK_="3", OMP_NUM_THREADS="1")
    )
    return subprocess.run(
        [sys.executable, "-c", BEGIN + text], env=env, capture_output=True, text=True, timeout=600
    )


@NEEDED
def test_every_operation_of_every_table_keeps_to_its_memory():
    done = guarded(OPERATIONS)
    assert done.returncode == 0, done.stderr


@NEEDED
@pytest.mark.skipif(not portable_variables("quick"), reason="concerns x86-64 with AVX2 only")
@pytest.mark.skipif(
    any(s.startswith("other torch:") for s in other_surroundings()), reason="seen with the pinned torch"
)
def test_the_allocator_sees_what_a_strided_1x1_convolution_does():
    "If this fails with a newer pin, torch has been mended, and `Pointwise` is not needed any more."
    assert guarded(STRIDED).returncode in (-signal.SIGABRT, -signal.SIGSEGV)
