"""`make tables`: compute the package's own tables again, and compare them with those that are shipped."""

import argparse
import os
from pathlib import Path

from nas_nb.bits import portable_variables
from nas_nb.core import root

EXAMPLES = """examples:
  make tables                                  all; networks in two processes; what was stopped goes on
  python tools/tables.py digits --jobs 4       one of them
"""


def main() -> int:
    os.environ.update(portable_variables("quick"))  # before torch is imported, here and in the processes
    import torch

    from nas_nb.rule_table import build_rule_table
    from nas_nb.tiny import DATA, build_table

    known, names = Path(root()) / "nas_nb" / "known", [*DATA, "rules"]
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"default: {' '.join(names)}")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--folder", default=root() / "data" / "tables-parts", help="where parts are kept")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(names)):
        parser.error(f"unknown table {unknown[0]}: known are {', '.join(names)}")
    if args.jobs < 1:
        parser.error(f"--jobs {args.jobs}: at least one process is needed")
    torch.set_num_threads(1)
    for name in args.names or names:
        shipped = known / f"{name}.csv"
        text = build_rule_table() if name == "rules" else build_table(name, Path(args.folder), args.jobs)
        same = shipped.is_file() and shipped.read_text(encoding="utf-8") == text
        if not same:
            shipped.parent.mkdir(exist_ok=True)
            shipped.write_text(text, encoding="utf-8", newline="\n")
        print(f"{name}: {'identical with' if same else 'written to'} {shipped}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
