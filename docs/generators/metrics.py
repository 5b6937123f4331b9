"""Every metric, from the page that the gateway itself makes; its meaning stays as it is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from fastticket.gateway.metrics import GAUGES, metrics_page
from fastticket.gateway.snapshot import Snapshot
from generators.tables import table

ROW = re.compile(r"^\| `(\w+)(?:\{[^}]*\})?` \| \w+ \| (.*) \|$", re.MULTILINE)
SERVER = {"group": "app", "server": "127.0.0.1:9001", "state": "up", "active": 0, "queued": 0}


def _families() -> Iterator[Metric]:
    """Those of a gateway that has done a bit of everything, so that each has its labels."""
    note = {"now": dict.fromkeys(GAUGES, 0), "store": {"127.0.0.1:6379": ["closed"]}, "upstreams": [SERVER], "at_s": 0}
    note |= {"canary_heard_s": 0, "sessions_living": 0, "old_stores_away": {"linkis": False}}
    note["mirroring"] = {"touches_waiting": 0, "changes_waiting": 0, "trouble": ""}
    histogram = {"buckets": [(None, 1)], "sum": 1}
    counted = {"key_uses": {"1": 1}, "answers": {"2xx": 1}, "store_calls": {"exchange": histogram}}
    counted["migrations"] = {"linkis exchanged": 1}
    counted["upstream_counts"] = {"app": {"answers": {"2xx": 1}, "latency_us": [(None, 1)], "latency_us_sum": 1}}
    snapshot = Snapshot(False, [], note, [note], counted, 0, 0, {"done": 1}, workers=[os.getpid()])
    page, _ = metrics_page(snapshot)
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
