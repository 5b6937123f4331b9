"""Every metric, from the page that the gateway itself makes; its meaning stays as it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from fastticket.gateway.metrics import GAUGES, metrics_text
from fastticket.gateway.snapshot import Snapshot
from generators.tables import table

ROW = re.compile(r"^\| `(\w+)(?:\{[^}]*\})?` \| \w+ \| (.*) \|$", re.MULTILINE)
SERVER = {"group": "app", "server": "127.0.0.1:9001", "state": "up", "active": 0, "queued": 0}


def _families() -> Iterator[Metric]:
    """Those of a gateway that has done a bit of everything, so that each has its labels."""
    note = {"now": dict.fromkeys(GAUGES, 0), "store": {"127.0.0.1:6379": ["closed"]}, "upstreams": [SERVER], "at_s": 0}
    counted = {"key_uses": {"1": 1}, "answers": {"2xx": 1}, "migrations": {"linkis exchanged": 1}}
    page = metrics_text(Snapshot(False, [], note, [note], counted, 0, 0, {"done": 1}))
    yield from text_string_to_metric_families(page.decode())


def _row(family: Metric, meanings: dict[str, str]) -> list[str]:
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = [label for label in family.samples[0].labels if label != "le"]
    shown = f"`{name}{{{','.join(labels)}}}`" if labels else f"`{name}`"
    return [shown, family.type, meanings.get(name, family.documentation)]


def metric_table(before: str) -> str:
    """A row for each metric. Its meaning: what the page says now, or the metric's own help."""
    meanings = dict(ROW.findall(before))
    return re.sub(
        r"\\\\\|", r"\\|", table(["metric", "type", "meaning"], (_row(each, meanings) for each in _families()))
    )


BLOCKS = {"metrics": metric_table}
