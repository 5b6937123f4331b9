"""Drawings in the documents can be read: on a telephone, in the dark, offline, and by who does not
see them. Each stands in a page.
"""

import re
import xml.etree.ElementTree as ET

import pytest
from lab.documents import DOCUMENTS, ROOT, links_of, name

DRAWINGS = sorted(path for path in ROOT.glob("docs/**/*.svg") if "static" not in path.parts)
SVG = "{http://www.w3.org/2000/svg}"
#: What is left of a page of 400 px beside its margins, and the smallest letters there.
PICTURE_PX = 368
LETTERS_PX = 11


@pytest.mark.parametrize("drawing", DRAWINGS, ids=name)
def test_a_drawing_stands_on_its_own_and_can_be_read(drawing):
    text = drawing.read_text()
    root = ET.fromstring(text)
    assert root.get("role") == "img"
    assert all(root.findtext(SVG + said, "").strip() for said in ("title", "desc"))
    assert set(re.findall(r"https?://[^\"]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script|<image|@import|@font-face|href=", text)
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {f"#{part.get('id')}" for part in root.iter()}
    assert "prefers-color-scheme: dark" in text
    paper = root.find(f"{SVG}rect[@class='paper']")
    assert paper is not None  # for a page whose scheme is another one than the system's
    width = float(root.get("viewBox").split()[2])
    assert float(paper.get("width")) == width
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ?(\d+(?:\.\d+)?)px", text)]
    assert min(sizes) * PICTURE_PX / width >= LETTERS_PX


def test_each_stands_in_a_page():
    shown = {(page.parent / target).resolve() for page in DOCUMENTS for target in links_of(page)}
    assert set(DRAWINGS) <= shown
