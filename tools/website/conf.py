"""What Sphinx is told: nothing is executed, and nothing is loaded from a network, not by a reader either."""

import hashlib
import shutil
from importlib.util import find_spec
from pathlib import Path

project, language, root_doc = "nas_nb", "en", "index"
copyright = "2026 the nas_nb developers"
extensions = ["myst_nb", "sphinx.ext.mathjax"]
source_suffix = {".ipynb": "myst-nb", ".md": "myst-nb"}

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"  # tables, links and equations in outputs are those of the text
# for each kind of output what is shown of it: the first that it has
nb_mime_priority_overrides = [("html", kind, i) for i, kind in enumerate(("text/html", "text/markdown"))]

myst_enable_extensions = ["dollarmath", "amsmath", "fieldlist", "html_image"]  # the last: <img> with a width
myst_heading_anchors = 4
myst_heading_slug_func = "website.pages.anchor"

# One file that needs no other: the extra `site` brings it (MathJax 3.2.2, as npm has it).
MATHJAX = "a4354ff94fd868aea0cc6eaaa79a57fda0588646fc46ee3700a349ee0a11cbe6"
mathjax_path = "tex-svg-full.js"

add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "nas_nb"
html_static_path = ["static"]
html_css_files, html_js_files = ["site.css"], ["site.js"]
html_domain_indices = False  # the page `Library` lists the modules
html_copy_source = html_show_sourcelink = False
html_context = {"default_mode": "auto"}  # without it the theme complains in every page
html_show_search_summary = False  # it asks for pages, which a browser refuses from file://
html_theme_options = {
    "show_prev_next": True,
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,  # arrow keys move the players
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "navbar_align": "left",
    "logo": {"text": "nas_nb"},
    "back_to_top_button": True,
}
html_sidebars = {"index": []}


def add_mathjax(app) -> None:
    where = Path(next(iter(find_spec("sphinx-mathjax-offline").submodule_search_locations)))
    file = where / "static/mathjax" / mathjax_path
    if hashlib.sha256(file.read_bytes()).hexdigest() != MATHJAX:
        raise ValueError(f"{file} is not MathJax 3.2.2: install nas_nb[site] anew")
    static = Path(app.outdir) / "_static"
    static.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, static)


def setup(app):
    app.connect("builder-inited", add_mathjax)
