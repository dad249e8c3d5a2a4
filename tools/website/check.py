"""What must hold of every page of the built site: each link inside it leads to a page and a place that are
there, each picture has an alternative text, and nothing is loaded from elsewhere."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
NO_ALT = re.compile(r"^\W*$|^\S*\.(?:png|svg|jpe?g|gif|webp)$|[0-9a-f]{16}")  # nothing, or the name of a file

AWAY = re.compile(r"(?:data|mailto|javascript):|//|[a-z]+://")


class Page(HTMLParser):
    "The ids, links, loaded files and alternative texts of a page."

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.ids, self.links, self.loads, self.alts = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids |= {given[k] for k in ("id", "name") if given.get(k)}
        if tag == "a" and given.get("href") is not None:
            self.links.append(given["href"])
        about = tag == "link" and given.get("rel") not in ("stylesheet", "icon", "preload", "modulepreload")
        if not about and given.get(LOADED.get(tag, "")):
            self.loads.append(given[LOADED[tag]])
        if tag == "img":
            self.alts.append((given.get("src", "")[:60], given.get("alt") or ""))
        if tag == "iframe":
            self.alts.append(("iframe", given.get("title") or ""))
        if tag == "iframe" and given.get("srcdoc"):
            inside = Page(given["srcdoc"])
            self.loads, self.alts = self.loads + inside.loads, self.alts + inside.alts


def outside(target: str) -> bool:
    return re.match(r"(?:[a-z]+:)?//", target) is not None


def check(site: Path) -> list[str]:  # what is wrong, one line each
    "Read every page; the outer web is not asked."
    paths = [p.resolve() for p in sorted(site.rglob("*.html")) if "_static" not in p.parts]  # of the theme
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in paths}
    found = [] if pages else [f"{site} has no page"]
    for path, page in pages.items():
        name = path.relative_to(site.resolve()).as_posix()
        for target in (t for t in page.links + page.loads if not AWAY.match(t)):
            place, _, anchor = target.partition("#")
            to = (path.parent / unquote(place.partition("?")[0])).resolve() if place else path
            if not to.is_file():
                found.append(f"{name}: links to {target}, which is not there")
            elif anchor and to in pages and unquote(anchor) not in pages[to].ids:
                found.append(f"{name}: links to {target}, a place that is not there")
        found += [f"{name}: loads {target} from elsewhere" for target in page.loads if outside(target)]
        bare = (src for src, alt in page.alts if NO_ALT.search(alt))
        found += [f"{name}: a picture without alternative text, {src}" for src in bare]
    return found
