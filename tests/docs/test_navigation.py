"""The navigation of the built pages names every page once. Nothing is built here."""

import runpy
from collections import Counter

from lab.documents import DOCS

NAVIGATION = runpy.run_path(str(DOCS / "navigation.py"))["NAVIGATION"]
#: The list of decisions is made of what is there.
IN_A_LIST = {f"decisions/{path.stem}" for path in DOCS.glob("decisions/0*.md")}


def test_every_page_is_named_once():
    there = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.glob("**/*.md")} - IN_A_LIST - {"index"}
    named = Counter(page for pages in NAVIGATION.values() for page in pages)
    assert there - named.keys() == set()
    assert [page for page, times in named.items() if times > 1] == []
