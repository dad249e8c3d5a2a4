"""README.md from nbs/index.ipynb, without Quarto: text as it is, code as blocks, links rewritten for the
project's top folder."""

import json
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(
    r"""(\]\(|\b(?:src|href)=")(?![a-z]+:|\#|/)([^)"\s]+)"""
)  # relative targets in Markdown and HTML


def _cell(cell: dict) -> str:
    text = "".join(cell["source"]).strip()
    if cell["cell_type"] == "markdown":
        text = re.sub(r"\]\(#[^)\s]+\)", lambda m: m[0].lower(), text)  # GitHub's headings, within the page
        return LINK.sub(lambda m: m[1] + posixpath.normpath(posixpath.join("nbs", m[2])), text)
    if re.search(r"(?m)^#\|\s*hide", text):
        return ""
    code = re.sub(r"(?m)^#\|.*\n?", "", text).strip()
    return code and f"```python\n{code}\n```"


def readme(
    index: Path = ROOT / "nbs" / "index.ipynb",
) -> str:  # the text of README.md
    "What README.md has to hold."
    cells = json.loads(index.read_text(encoding="utf-8"))["cells"]
    parts = ["<!-- Built from nbs/index.ipynb by `make readme`: edit that one. -->", *map(_cell, cells)]
    return "\n\n".join(filter(None, parts)) + "\n"


if __name__ == "__main__":
    (ROOT / "README.md").write_text(readme(), encoding="utf-8")
