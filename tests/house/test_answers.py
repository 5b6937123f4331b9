"""docs/reference/answers.md names each answer of the data plane's own, with its statuses."""

import re
from collections import defaultdict

from lab.documents import ROOT

from fastticket.dataplane import counters, reasons
from fastticket.errors import InvalidPrincipal, StoreUnavailable, TooManySessions
from fastticket.gateway import metrics

#: What changing a session may raise, which the gateway answers with (gateway/worker.py).
OF_CHANGES = (InvalidPrincipal, StoreUnavailable, TooManySessions)
#: Counters that are published with a label, or as parts of a histogram.
LABELLED = {"admitted", "anonymous", "bad_requests", "refused", "answers", "latency", "latency_us_sum"}


def documented():
    """Slug to the statuses that its rows of the page name."""
    page = (ROOT / "docs/reference/answers.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|", page, re.MULTILINE)
    found = defaultdict(set)
    for slug, statuses in rows:
        found[slug] |= {int(status) for status in statuses.split(", ")}
    return dict(found)


def given():
    """The same of the code."""
    found = defaultdict(set)
    for status, slug, _ in reasons.ANSWERS.values():
        found[slug].add(status)
    for verdict, statuses in reasons.REFUSALS.items():
        found[verdict.reason] |= set(statuses)
    for error in OF_CHANGES:
        found[error.reason].add(error.status)
    return dict(found)


def test_the_page_has_each_answer_with_its_statuses():
    assert documented() == given()


def test_each_row_stands_once_and_has_a_phrase_and_a_counter():
    assert list(reasons.ANSWERS) == list(reasons.Reason)
    assert {status for status, _, _ in reasons.ANSWERS.values()} <= set(reasons.PHRASES)
    assert {counter for _, _, counter in reasons.ANSWERS.values()} - {None} <= set(counters.NUMBERS)


def test_each_counter_is_published_once():
    assert set(counters.METRICS) | LABELLED == set(counters.NUMBERS)
    assert set(counters.METRICS) & LABELLED == set()
    names = [name for name, _ in metrics.COUNTERS.values()]
    assert len(set(names)) == len(names)


def test_each_counter_stands_in_the_page_of_metrics():
    page = (ROOT / "docs/reference/metrics.md").read_text()
    assert [name for name, _ in metrics.COUNTERS.values() if f"`fastticket_{name}_total`" not in page] == []
