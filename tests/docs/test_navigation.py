"""The navigation of the built pages names every page once. Nothing is built here."""

import runpy
from collections import Counter

from lab.documents import DOCS

NAVIGATION = runpy.run_path(str(DOCS / "conf.py"))["NAVIGATION"]
#: Named by the list of decisions, which is made of what is there.
IN_A_LIST = {f"decisions/{path.stem}" for path in DOCS.glob("decisions/0*.md")}


def test_every_page_is_named_once():
    there = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.glob("**/*.md")} - IN_A_LIST - {"index"}
    named = Counter(page for pages in NAVIGATION.values() for page in pages)
    assert there - named.keys() == set()
    assert [page for page, times in named.items() if times > 1] == []


def test_the_front_page_leads_to_every_page():
    """Without the navigation, too: in a checkout there is none."""
    front = (DOCS / "index.md").read_text()
    there = [path for path in DOCS.glob("*/*.md") if str(path.relative_to(DOCS).with_suffix("")) not in IN_A_LIST]
    assert [path.name for path in there if f"({path.relative_to(DOCS)})" not in front] == []
