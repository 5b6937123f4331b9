"""The figures by which an operator sees what is wrong: `figures` of GET /v1/status. The page,
`fastticket status` and `top` show them; docs/how-to/alerts.md says in which emergency each of them
is to be looked at.

    figures_of   what there is to say of each
    attention    the names of those that somebody should look at

Rules of this file
- What is not known is null, and never a guess.
- What is beyond good is decided here, once: whoever shows a figure asks `attention`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fastticket.gateway import procfs
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.shapes import FLAG, NUMBER, TEXT, TEXTS, WHOLE, listed, optional, record
from fastticket.gateway.snapshot import Snapshot

Figures = Mapping[str, Any]

CLOCK_OFF_S = 2.0
CANARY_SILENT_S = 60.0  # one is ended every 10 to 15 s
FLUSH_LAG_S = 5.0
NEARLY_ALL = 0.9  # of connections, and of file descriptors

RELOAD = record(was_done=FLAG, at_s=NUMBER, took_s=NUMBER, why=TEXT)
FIGURES = record(
    workers_serving=WHOLE,
    connections=WHOLE,
    connections_max=optional(WHOLE),
    tunnels=WHOLE,
    descriptors_used=optional(WHOLE),
    descriptors_max=optional(WHOLE),
    sessions_held=WHOLE,
    sessions_capacity=optional(WHOLE),
    sessions_living=optional(WHOLE),
    store_log_gaps=WHOLE,
    flush_lag_s=optional(NUMBER),
    clock_ahead_s=optional(NUMBER),
    revocation_lag_s={**optional(NUMBER), "description": "99 of 100 of the last minute; null: none was heard"},
    revocation_heard_s={**optional(NUMBER), "description": "since the last one was heard"},
    mirror_touches_waiting=optional(WHOLE),
    mirror_changes_waiting=optional(WHOLE),
    mirror_trouble={**optional(TEXT), "description": 'why it could not be written; "": it could; null: no mirror'},
    access_lines_lost=WHOLE,
    error_lines_lost=WHOLE,
    error_lines_left_out=WHOLE,
    last_reload=RELOAD,
)
REFUSALS = listed(record(reason=TEXT, count=WHOLE, per_s=NUMBER))
ATTENTION = {**TEXTS, "description": "the names of those figures that somebody should look at"}


def figures_of(gateway: Gateway, snapshot: Snapshot) -> dict[str, Any]:
    """By the worker that serves, and the counters since the start."""
    counted, note = snapshot.counted, snapshot.serving
    now: Mapping[str, Any] = note["now"] if note else {}
    usage = procfs.usage_of(snapshot.workers[0]) if note and snapshot.workers else None
    mirroring = (note or {}).get("mirroring") or {}
    last = snapshot.last_reload
    return {
        "workers_serving": 1 - len(snapshot.unhealthy()),
        "connections": sum(each["now"]["connections"] for each in snapshot.notes),
        "connections_max": now.get("connections_max"),
        "tunnels": sum(each["now"]["tunnels"] for each in snapshot.notes),
        "descriptors_used": int(usage.open_fds) if usage else None,
        "descriptors_max": int(usage.max_fds) if usage and usage.max_fds != float("inf") else None,
        "sessions_held": sum(each["now"]["sessions_held"] for each in snapshot.notes),
        "sessions_capacity": now.get("capacity"),
        "sessions_living": note["sessions_living"] if note else None,
        "store_log_gaps": counted.get("gaps", 0),
        "flush_lag_s": now["flush_lag_ms"] / 1000 if note else None,
        "clock_ahead_s": now["clock_ahead_ms"] / 1000 if note else None,
        "revocation_lag_s": gateway.recent.revocation_lag_s(),
        "revocation_heard_s": round(max(0.0, time.monotonic() - note["canary_heard_s"]), 1) if note else None,
        "mirror_touches_waiting": mirroring.get("touches_waiting"),
        "mirror_changes_waiting": mirroring.get("changes_waiting"),
        "mirror_trouble": mirroring.get("trouble"),
        "access_lines_lost": counted.get("log_lines_lost", 0),
        "error_lines_lost": counted.get("error_lines_lost", 0),
        "error_lines_left_out": counted.get("error_lines_left_out", 0),
        "last_reload": {"was_done": last.was_done, "at_s": last.at_s, "took_s": round(last.took_s, 3), "why": last.why},
    }


def refusals_of(gateway: Gateway, snapshot: Snapshot) -> list[dict[str, Any]]:
    """Why requests were refused since the start, most of them first, and how often of late."""
    refused: Mapping[str, int] = snapshot.counted.get("refused", {})
    per_s = gateway.recent.refused_per_s()
    ordered = sorted(((count, reason) for reason, count in refused.items() if count), reverse=True)
    return [{"reason": reason, "count": count, "per_s": per_s.get(reason, 0.0)} for count, reason in ordered]


def attention(figures: Figures, lease_ms: int) -> list[str]:
    """The names of the figures that are beyond good. `lease_ms`: so late an end may take effect."""
    late_s = lease_ms / 1000

    def beyond(name: str, bound: float) -> bool:
        return figures[name] is not None and abs(figures[name]) > bound

    def nearly_all(used: str, limit: str) -> bool:
        return None not in (figures[used], figures[limit]) and figures[used] > NEARLY_ALL * figures[limit]

    checks: dict[str, Callable[[], bool]] = {
        "workers_serving": lambda: figures["workers_serving"] == 0,
        "connections": lambda: nearly_all("connections", "connections_max"),
        "descriptors_used": lambda: nearly_all("descriptors_used", "descriptors_max"),
        "flush_lag_s": lambda: beyond("flush_lag_s", FLUSH_LAG_S),
        "clock_ahead_s": lambda: beyond("clock_ahead_s", CLOCK_OFF_S),
        "revocation_lag_s": lambda: beyond("revocation_lag_s", late_s),
        "revocation_heard_s": lambda: beyond("revocation_heard_s", max(CANARY_SILENT_S, late_s)),
        "mirror_trouble": lambda: bool(figures["mirror_trouble"]),
        "access_lines_lost": lambda: figures["access_lines_lost"] > 0,
        "error_lines_lost": lambda: figures["error_lines_lost"] > 0,
        "last_reload": lambda: not figures["last_reload"]["was_done"],
    }
    return [name for name, is_bad in checks.items() if is_bad()]
