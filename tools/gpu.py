"""`make gpu`: on whatever Python there is, with the wheels and the data of `make gpu-bundle`; nothing is
installed."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "data" / "gpu"
paths = [str(ROOT), *map(str, sorted(BUNDLE.glob("wheels/*.whl")))]
sys.path[:0] = paths
os.environ["PYTHONPATH"] = os.pathsep.join(
    [*paths, *filter(None, [os.environ.get("PYTHONPATH")])]
)  # of the tests' process
os.environ.setdefault("MPLBACKEND", "Agg")
if "NAS_NB_DATA" not in os.environ and (BUNDLE / "data").is_dir():
    os.environ["NAS_NB_DATA"] = str(BUNDLE / "data")
if missing := [
    m
    for m in (
        "torch",
        "torchvision",
        "numpy",
        "pandas",
        "scipy",
        "seaborn",
        "sklearn",
        "psutil",
        "tqdm",
        "PIL",
        "pytest",
        "fastcore",
    )
    if not importlib.util.find_spec(m)
]:
    how = "name another Python (make gpu PYTHON=…), or run `make gpu-bundle` before"
    raise SystemExit(f"{sys.executable} lacks {', '.join(missing)}: {how}")

from nas_nb.inprocess import main

if __name__ == "__main__":
    raise SystemExit(main())
