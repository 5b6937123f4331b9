"""Every measured figure in the documents is that of the newest record, in its passage of
bench/quotes/; and there is none beside those.
"""

import copy
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "bench"))

import figures  # noqa: E402
import quotes  # noqa: E402
import tables  # noqa: E402

RECORD = quotes.newest()
QUOTES = {each.name: each for each in quotes.all_quotes()}
#: Units that only what was measured has. `ms` and bytes are those of settings, too.
MEASURED = re.compile(r"(?<![\w.,])\d[\d,.]* (?:µs|ns|bytes a session|bytes each|times faster)\b")
#: What was measured once, and is in no record: a section, and page -> how its text goes on.
BY_HAND_SECTION = "## Measured by hand"
BY_HAND = {"docs/how-to/redis.md": ("6 µs.",)}
PAGES = [
    "README.md",
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("docs/**/*.md")) if path.parent.name != "decisions"),
]


@pytest.mark.parametrize("name", QUOTES)
def test_a_page_says_what_the_newest_record_says(name):
    """Else: `python bench/quotes.py --write`."""
    page = QUOTES[name].page.read_text()
    assert quotes.rewritten(page, QUOTES[name].passages, RECORD) == page


@pytest.mark.parametrize("name", QUOTES)
def test_every_figure_that_is_quoted_is_measured(name):
    holes = {hole[1] for passage in QUOTES[name].passages for hole in quotes.HOLE.finditer(passage)}
    assert holes - RECORD["figures"].keys() == set()


@pytest.mark.parametrize("name", PAGES)
def test_no_figure_is_written_by_hand(name):
    text = (ROOT / name).read_text()
    spans = quotes.covered(text, QUOTES[name].passages, RECORD) if name in QUOTES else []
    text = text.partition(BY_HAND_SECTION)[0]
    found = [
        text[match.start() : match.start() + 40]
        for match in MEASURED.finditer(text)
        if not any(begin <= match.start() < end for begin, end in spans)
    ]
    assert [each for each in found if not each.startswith(BY_HAND.get(name, ()))] == []


@pytest.mark.parametrize("name", ["README.md", "docs/explanation/benchmarks.md"])
def test_no_number_in_a_table_of_figures_is_written_by_hand(name):
    """But for its first column, what is in code, and bounds."""
    text = (ROOT / name).read_text()
    spans = quotes.covered(text, QUOTES[name].passages, RECORD)
    begin = text.index("## Performance") if name == "README.md" else 0
    end = text.index("## Embedding" if name == "README.md" else BY_HAND_SECTION)
    found = []
    for row in re.finditer(r"^\|(?!---)[^|]*\|(.*)\|$", text, re.M):
        is_heading = text[row.end() + 1 :].startswith("|---")
        if begin <= row.start() < end and not is_heading:
            hidden = re.sub(r"`[^`]*`|2,000 ms|\(bound: 2,000\)", lambda match: " " * len(match[0]), row[1])
            numbers = (row.start(1) + number.start() for number in re.finditer(r"\d[\d,.]*", hidden))
            found += [text[at : at + 20] for at in numbers if not any(first <= at < last for first, last in spans)]
    assert found == []


def test_a_bytes_of_a_session_has_one_value_on_every_page():
    """Three pages once gave three."""
    found = set()
    for name in PAGES:
        found |= set(re.findall(r"near cache[,;] (?:a session \| |about )(\d+) bytes", (ROOT / name).read_text()))
        found |= set(re.findall(r"capacity`, (\d+)\s+bytes a\s+session", (ROOT / name).read_text()))
    assert found == {f"{RECORD['figures']['core/near cache, bytes a session']['value']:.0f}"}


def test_a_figure_that_differs_and_a_passage_that_has_changed_are_found():
    """The page follows the record, wherever its lines break; a passage that is gone is an error."""
    passages = ["A hit takes {core/hit|.0f} ns, {core/ratio} times less."]
    page = "Before. A hit\n  takes 64 ns, 103 times less. After.\n"
    record = {"figures": {"core/hit": {"value": 71.6, "unit": "ns"}, "core/ratio": {"value": 99.0, "unit": "ratio"}}}
    assert quotes.rewritten(page, passages, record) == page.replace("64", "72").replace("103", "99")
    assert "takes — ns" in quotes.rewritten(page, passages, {"figures": {}})
    for changed in (page.replace("hit", "miss"), page + page):
        with pytest.raises(quotes.MisquotedError):
            quotes.rewritten(changed, passages, record)


def test_a_table_is_made_whole():
    """With a gateway that was not there, and in the new order."""
    text = "Text.\n\n" + "\n".join(tables.all_gateways(RECORD)) + "\n\nMore.\n"
    record = copy.deepcopy(RECORD)
    record["figures"]["gateway/nginx/cpu"]["value"] = 1.0
    record["figures"]["gateway/new/cpu"] = {"value": 2.0, "unit": "µs a request"}
    lines = quotes.rewritten(text, ["[gateways]"], record).splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:6]] == ["nginx", "new"]
    assert (lines[0], lines[-1]) == ("Text.", "More.")


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1.793, "1.79"), (12.78, "12.8"), (102.93, "103"), (57390.6, "57,391"), (4, "4")]
)
def test_a_figure_has_three_digits_or_is_whole(value, text):
    assert figures.said(value) == text
