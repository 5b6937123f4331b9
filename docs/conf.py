"""How the pages become a site: `make docs` builds it into build/docs.

The pages are plain Markdown that reads well in a checkout, too. What only the site needs is here:
its navigation, and what becomes of links that lead out of docs/. docs/decisions/0044 says why it is
Sphinx with furo.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from pygments.lexers.configs import NginxConfLexer
from pygments.lexers.special import TextLexer

HERE = Path(__file__).parent
PACKAGE = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]

#: What stands in the navigation, by heading, in this order. A test finds a page that is in none.
NAVIGATION = {
    "Tutorial": ["tutorial/index"],
    "How to: applications": [
        *("how-to/fastapi", "how-to/flask", "how-to/django", "how-to/litestar", "how-to/quart", "how-to/sanic"),
        *("how-to/aiohttp", "how-to/tornado", "how-to/embed", "how-to/jobs", "how-to/jupyter"),
        *("how-to/test-your-application", "frameworks"),
    ],
    "How to: gateways": [
        *("how-to/nginx", "how-to/forward-auth", "how-to/containers", "how-to/kubernetes", "how-to/redis"),
        *("how-to/keys", "how-to/operate", "how-to/alerts", "how-to/backup", "how-to/upgrade", "how-to/linkis"),
    ],
    "Reference": [
        *("reference/configuration", "reference/commands", "reference/headers", "reference/answers"),
        *("reference/metrics", "reference/api", "reference/reasons", "reference/http", "reference/ticket-format"),
        "reference/versions",
    ],
    "Explanation": [
        *("explanation/coherence", "explanation/sessions", "explanation/security", "explanation/promises"),
        *("explanation/capacity", "explanation/benchmarks", "explanation/session-sharing"),
    ],
    "Development": ["development", "decisions/index"],
}

project = "fastticket"
author = "the authors of fastticket"
version = release = PACKAGE["version"]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
nitpicky = True

myst_enable_extensions = ["strikethrough"]
myst_heading_anchors = 4  # as in a checkout: a heading is linked by its words
myst_links_external_new_tab = False

html_theme = "furo"
html_title = f"fastticket {version}"
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
        source[0] += "".join(tree(heading, existing(pages)) for heading, pages in NAVIGATION.items())
    elif page == "decisions/index":
        source[0] += "\n```{toctree}\n:glob:\n:maxdepth: 1\n0*\n```\n"


def existing(pages):
    """Those that are there."""
    return [page for page in pages if (HERE / f"{page}.md").exists()]


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
