"""The pages of the site, as text that Sphinx reads: notebooks with folded code and pictures of their own,
a page for each band of notebooks, and the project's texts.

Nothing is executed. What a notebook shows are the outputs that are committed."""

import json
import re
import shutil
from base64 import b64decode
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# first digit of a notebook's name -> page, title, what is there; in the order of the site
BANDS = {
    "5": ("documents", "Documents", "Articles that run: what each document claims, and what came out."),
    "9": ("overview", "Overview", "All claims in one place, speed, and the arena: spaces known in full."),
    "2": ("methods", "Search methods", "One rule of learning each; they know nothing of data sets."),
    "1": ("spaces", "Search spaces", "What can be built, and how it is drawn."),
    "0": ("foundations", "Foundations", "Data, training, runs, claims, the command line; nothing of NAS."),
}
TEXTS = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "data/README.md": "data.md"}
LINK = re.compile(r'(\]\(|<img src=")([^()\s"]+)([)"])')
ALT = re.compile(r"(?m)^#\|\s*fig-alt:\s*(.+?)\s*$")
DIRECTIVE = re.compile(r"(?m)^#\|.*\n?")
HEADING = re.compile(r"(?m)^#+ (.+?)\s*$")
FENCED = re.compile(r"(?ms)(^[ ]*```.*?^[ ]*```[ ]*$)")


def anchor(title: str) -> str:
    "A heading as JupyterLab links to it."
    return title.replace(" ", "-")


def source(cell: dict) -> str:
    return "".join(cell["source"])


def notebooks(root: Path = ROOT) -> dict[str, dict]:
    "Name without ending -> notebook, in order; the start page last."
    return {p.stem: json.loads(p.read_text(encoding="utf-8")) for p in sorted((root / "nbs").glob("*.ipynb"))}


def heading(nb: dict) -> tuple[str, str]:
    "Title and subtitle of a notebook: the first cell has them by rule."
    title, subtitle = re.match(r"# (.+)\n\n> (.+)", source(nb["cells"][0])).groups()
    return title.strip(), subtitle.strip()


def section(nb: dict, id: str) -> str:
    "The anchor of the last heading down to a cell; raises `KeyError` if the notebook has no such cell."
    titles: list[str] = []
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            titles += HEADING.findall(re.sub(r"[`*]|<!--.*?-->", "", source(cell)))
        if cell["id"] == id:
            return anchor(titles[-1])
    raise KeyError(id)


def module(nb: dict) -> str | None:
    "The module that a notebook exports, without `nas_nb.`."
    code = (source(c) for c in nb["cells"] if c["cell_type"] == "code")
    return next((m[1] for text in code if (m := re.search(r"(?m)^#\|\s*default_exp\s+(\S+)", text))), None)


class Links:
    "Where links of the project lead on the site; files that are linked and have no page are copied."

    def __init__(self, folder: Path, root: Path = ROOT):
        self.folder, self.root = folder, root

    def target(self, link: str, here: str) -> str | None:  # `here`: the folder of the text, from the root
        "The link on the site; None for a folder, which has no page."
        path, hash, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link) or not path:
            return link
        place = (self.root / here / path).resolve()
        name = place.relative_to(self.root).as_posix()
        if name in TEXTS or name == "README.md":
            return TEXTS.get(name, "index.ipynb") + hash + anchor
        if name == "nbs":
            return "index.ipynb#All-notebooks"
        if name == "nas_nb":
            return "api/index.md"
        if place.suffix == ".ipynb" and anchor.startswith("cell-id="):  # JupyterLab's name of a cell
            nb = json.loads(place.read_text(encoding="utf-8"))
            return f"{place.name}#{section(nb, anchor.removeprefix('cell-id='))}"
        if place.suffix == ".ipynb":
            return place.name + hash + anchor
        if place.is_dir():
            return None
        copy = self.folder / "files" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place, copy)
        return f"files/{name}"

    def text(self, markdown: str, here: str) -> str:
        "A text with its links led to the site's pages; what lies in fences stays."
        parts = FENCED.split(markdown)
        return "".join(p if i % 2 else self._line(p, here) for i, p in enumerate(parts))

    def _line(self, text: str, here: str) -> str:
        def one(m):
            to = self.target(m[2], here)
            return f"{m[1]}{to}{m[3]}" if to else f"{m[1]}#{m[3]}"

        return re.sub(r"\[([^\[\]]*)\]\(#\)", r"\1", LINK.sub(one, text))


def alternatives(cell: dict) -> list[str]:
    "What a cell of code states for its pictures, in order: lines `#| fig-alt: …`, as in Quarto."
    return ALT.findall(source(cell))


def pictures(cell: dict) -> list[tuple[dict, str]]:
    "The outputs of a cell that are pictures, each with its alternative text: its own, or the cell's."
    stated = alternatives(cell)
    shown = [o for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    own = [o["metadata"].get("image/png", {}).get("alt", "") for o in shown]
    return [(o, alt or (stated[i] if i < len(stated) else "")) for i, (o, alt) in enumerate(zip(shown, own))]


def prompt(code: str) -> str:
    "What a folded cell is called: what it defines, or how it begins."
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("@", '"""'))]
    named = [m[1] for line in lines if (m := re.match(r"(?:async )?(?:def|class) (\w+)", line))]
    imports = lines and all(re.match(r"import |from |[ )#]", line) for line in lines)
    if named or imports:
        return "imports" if not named else ", ".join(named)
    first = lines[0] if lines else "…"
    return first if len(first) <= 70 else first[:69].rstrip() + "…"


def picture(output: dict, alt: str, name: str, folder: Path) -> dict:
    "An output that shows a picture's file, with its alternative text and its width on the screen."
    path = folder / "pictures" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b64decode("".join(output["data"]["image/png"])))
    width = output["metadata"].get("image/png", {}).get("width")
    lines = ["```{image} pictures/%s.png" % name, f":alt: {json.dumps(alt, ensure_ascii=False)}"]
    lines += [f":width: {width}px"] * bool(width) + ["```"]
    return dict(output_type="display_data", metadata={}, data={"text/markdown": "\n".join(lines)})


def code_cell(cell: dict, name: str, links: Links, folded: bool) -> dict | None:
    "A cell of code as the site shows it; None for one that readers need not see."
    code = DIRECTIVE.sub("", source(cell)).strip("\n")
    if re.search(r"(?m)^#\|\s*hide\s*$", source(cell)) or not (code or cell.get("outputs")):
        return None
    alts, outputs = iter(pictures(cell)), []
    for i, output in enumerate(cell.get("outputs", [])):
        data = output.get("data", {})
        if "image/png" in data:
            output = picture(*next(alts), f"{name}-{cell['id']}-{i}", links.folder)
        elif "text/markdown" in data:
            shown = {"text/markdown": links.text("".join(data["text/markdown"]), "nbs")}
            output = output | dict(data=shown)
        outputs.append(output)
    metadata = dict(mystnb=dict(code_prompt_show=prompt(code), code_prompt_hide=prompt(code)))
    metadata |= dict(tags=["hide-input"]) if folded else {}
    return cell | dict(source=code, outputs=outputs, metadata=metadata)


def toctree(pages: list[str], *options: str) -> str:
    return "\n".join(["```{toctree}", ":hidden:", *options, "", *pages, "```"])


def markdown_cell(text: str, id: str) -> dict:
    return dict(cell_type="markdown", id=id, metadata={}, source=text)


def page(name: str, nb: dict, links: Links, below: list[str]) -> dict:
    "A notebook as Sphinx reads it; `below`: what is listed under it."
    cells = []
    for cell in nb["cells"]:
        if cell["cell_type"] == "markdown":
            cells.append(markdown_cell(links.text(source(cell), "nbs"), cell["id"]))
        elif shown := code_cell(cell, name, links, folded=name != "index"):
            cells.append(shown)
    if exported := module(nb):
        about = f"*Exports [`nas_nb.{exported}`](api/nas_nb.{exported}.md); written in `nbs/{name}.ipynb`.*"
        cells.insert(1, markdown_cell(about, "exports"))
    if below:
        cells.append(markdown_cell(toctree(below), "pages"))
    kernel = dict(name="python3", display_name="Python 3", language="python")
    about = dict(kernelspec=kernel, language_info=dict(name="python"))
    return dict(cells=cells, metadata=about, nbformat=4, nbformat_minor=5)


def families(names: list[str]) -> dict[str, list[str]]:
    "Notebook -> those with its number and a letter, which are listed under it."
    mothers = {name[:2]: name for name in names if re.match(r"\d\d_", name)}
    family: dict[str, list[str]] = {name: [] for name in mothers.values()}
    for name in (n for n in names if re.match(r"\d\d[a-z]_", n)):
        family[mothers[name[:2]]].append(name)
    return family


def band_page(title: str, what: str, family: dict[str, list[str]], nbs: dict) -> str:
    "A band's notebooks, each with the sentence that it begins with."
    lines = [f"# {title}", "", what, ""]
    for mother, letters in family.items():
        for name in [mother, *letters]:
            indent = "  " * (name != mother)
            lines.append(f"{indent}- [{heading(nbs[name])[0]}]({name}.ipynb): {heading(nbs[name])[1]}")
    return "\n".join([*lines, "", toctree([*family], ":maxdepth: 2"), ""])


def write_pages(folder: Path, root: Path = ROOT) -> int:  # the number of pages
    "Write all that is not of the library's reference into a folder."
    nbs, links = notebooks(root), Links(folder, root)
    family = families([*nbs])
    top = [band for band, *_ in BANDS.values()] + ["api/index", "project"]
    for name, nb in nbs.items():
        below = top if name == "index" else family.get(name, [])
        text = json.dumps(page(name, nb, links, below), ensure_ascii=False)
        (folder / f"{name}.ipynb").write_text(text, encoding="utf-8")
    for digit, (band, title, what) in BANDS.items():
        own = {mother: letters for mother, letters in family.items() if mother[0] == digit}
        (folder / f"{band}.md").write_text(band_page(title, what, own, nbs), encoding="utf-8")
    for name, to in TEXTS.items():
        text = links.text((root / name).read_text(encoding="utf-8"), str(Path(name).parent))
        (folder / to).write_text(text, encoding="utf-8")
    listed = [f"- [{name}]({to})" for name, to in TEXTS.items()]
    project = ["# Project", "", "How to take part, what changed, where data lies.", "", *listed, ""]
    text = "\n".join([*project, toctree([*TEXTS.values()]), ""])
    (folder / "project.md").write_text(text, encoding="utf-8")
    return len(nbs) + len(BANDS) + len(TEXTS) + 1
