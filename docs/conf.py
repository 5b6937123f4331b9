"""How the pages become a site: `make docs` builds it into build/docs.

The pages are plain Markdown that reads well in a checkout, too. What only the site needs is here,
such as what becomes of links that lead out of docs/; its navigation is in navigation.py.
docs/decisions/0044 says why it is Sphinx with furo.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pygments.lexers.configs import NginxConfLexer
from pygments.lexers.special import TextLexer

HERE = Path(__file__).parent
sys.path.append(str(HERE))

from navigation import navigation  # noqa: E402
from version import version as said_version  # noqa: E402

project = "fastticket"
author = "the authors of fastticket"
release = said_version()
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpicky = True

myst_enable_extensions = ["strikethrough"]
myst_heading_anchors = 4  # as in a checkout: a heading is linked by its words
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"fastticket {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = "static/favicon.svg"
html_copy_source = False
html_show_copyright = False
html_last_updated_fmt = None
# Both are read by eyes that are used to them; both are in the built pages, as all else is.
pygments_style = "tango"
pygments_dark_style = "monokai"

LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def setup(app):
    """Sphinx calls it."""
    app.connect("source-read", add_navigation)
    app.connect("source-read", keep_links_inside)
    app.add_lexer("redis", TextLexer)
    app.add_lexer("caddyfile", NginxConfLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def add_navigation(app, page, source):
    """To the front page, and to the list of the decisions."""
    if page == "index":
        source[0] += "".join(tree(heading, pages) for heading, pages in navigation().items())
    elif page == "decisions/index":
        source[0] += "\n```{toctree}\n:glob:\n:maxdepth: 1\n0*\n```\n"


def tree(heading, pages):
    """A part of the navigation."""
    return f"\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n" + "\n".join(pages) + "\n```\n"


def keep_links_inside(app, page, source):
    """A link to a file of the repository brings that file along. Of one to a folder, or to a page
    that is not in the site, only the text stays. One that is called like its page's file is called
    like the page.
    """

    def kept(link):
        label, target = link.groups()
        if "://" in target or target.startswith("#"):
            return link[0]
        path = ((HERE / page).parent / target.partition("#")[0]).resolve()
        if HERE not in path.parents:
            return label if path.is_dir() or path.suffix == ".md" else link[0]
        return f"[]({target})" if label == path.name and path.suffix == ".md" else link[0]

    parts = re.split(r"(^```[\s\S]*?^```$)", source[0], flags=re.MULTILINE)
    source[0] = "".join(part if part.startswith("```") else LINK.sub(kept, part) for part in parts)
