"""The static site of all notebooks, in `_site/`: open `_site/index.html` (`make site`).

Nothing is executed: it shows the outputs that are committed. Neither building nor reading needs a network."""

import argparse
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from website.api import write_api
from website.check import check
from website.pages import ROOT, write_pages

NEEDED = ("sphinx", "myst_nb", "pydata_sphinx_theme", "sphinx-mathjax-offline")


def lacking() -> list[str]:
    "The packages of the extra `site` that are not installed."
    return [name for name in NEEDED if find_spec(name) is None]


def build(out: Path, root: Path = ROOT) -> list[str]:  # what is wrong, one line each
    "Write the sources, let Sphinx build the site, and check every page; raises `SystemExit` on a warning."
    from sphinx.cmd.build import main as sphinx

    begun, folder = time.process_time(), out.with_name(out.name + ".src")
    for old in (folder, out):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)
    n = write_pages(folder, root) + write_api(folder, root)
    conf, doctrees = Path(__file__).parent / "website", folder / ".doctrees"
    args = ["-q", "-W", "--keep-going", "-b", "html", "-d", doctrees, "-c", conf, folder, out]
    status = sphinx([str(a) for a in args])
    shutil.rmtree(out.with_name("jupyter_execute"), ignore_errors=True)  # myst-nb's copies of the notebooks
    if status:
        raise SystemExit(status)
    shutil.rmtree(folder)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e6
    print(f"{n} pages, {size:.0f} MB, {time.process_time() - begun:.0f} s of processor: {out / 'index.html'}")
    return check(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_site")
    parser.add_argument("--ready", action="store_true", help="only say whether all is installed")
    args = parser.parse_args()
    if missing := lacking():
        print(f"{', '.join(missing)} not installed: pip install -e .[site]")
    if missing or args.ready:
        return bool(missing)
    out = args.out.resolve()
    found = build(out)
    print("\n".join(found) or "every link inside it leads somewhere, every picture has its alternative text")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
