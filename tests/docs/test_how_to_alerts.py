"""Prometheus' rules ask for metrics, labels and values that there are."""

import re

from lab.documents import DOCS, ROOT

RULES = (ROOT / "examples/monitoring/alerts.yml").read_text()
PAGE = (DOCS / "how-to/alerts.md").read_text()
METRICS = (DOCS / "reference/metrics.md").read_text()
ASKED = re.findall(r"\b(fastticket_\w+)(?:\{(\w+)=\"(\w+)\"\})?", RULES)


def test_every_metric_that_a_rule_asks_for_is_there():
    rows = dict(re.findall(r"^\| `(fastticket_\w+)((?:\{[^}]*\})?` .*)$", METRICS, re.MULTILINE))
    assert len(ASKED) > 5
    for name, label, value in ASKED:
        assert name in rows
        assert not label or label in rows[name].partition("}")[0]
        assert not value or f"`{value}`" in rows[name], (name, value)


def test_every_rule_is_explained():
    names = re.findall(r"- alert: (\w+)", RULES)
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == names
