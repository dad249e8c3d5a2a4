"""A processor without AVX2, as an emulator shows it: nothing dies, and the reason is said."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = """
from nas_nb.bits import compute_portably, other_surroundings, portable_variables
print(portable_variables("quick"), other_surroundings()[-1], compute_portably("quick"), sep="\\n")
"""


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="no qemu-user here")
def test_a_processor_without_avx2_is_the_reason():
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    env = {k: v for k, v in os.environ.items() if k != "ATEN_CPU_CAPABILITY"} | dict(
        PYTHONPATH=os.pathsep.join((str(ROOT), packages))
    )
    command = ["qemu-x86_64", "-cpu", "Nehalem", os.path.realpath(sys.executable), "-c", CODE]
    run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-500:]
    variables, reason, said = run.stdout.splitlines()
    assert (variables, reason) == ("{}", "other processor: x86_64 without AVX2")
    assert (
        said.startswith("last digits will differ")
        and said.endswith("other processor: x86_64 without AVX2)")
        and "too late" not in said
    )
