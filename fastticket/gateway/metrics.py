"""`/metrics`: a snapshot in Prometheus' text format, or in OpenMetrics' where a client asks for it.
docs/reference/metrics.md explains every line of it.

Rule of this file: labels have few values, which the code or the configuration names: no user, no
session, no path.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.registry import Collector, CollectorRegistry

import fastticket
from fastticket.dataplane.counters import METRICS as DATA_PLANE
from fastticket.errors import Verdict
from fastticket.gateway import procfs
from fastticket.gateway.passes import OUTCOMES
from fastticket.gateway.snapshot import Snapshot, old_stores_away

METRICS_TYPE = exposition.CONTENT_TYPE_LATEST

#: What was counted -> name, and what it says: by the data plane, and by the control plane.
COUNTERS = {
    **DATA_PLANE,
    "hits": ("near_cache_hits", "Checks answered from the near cache."),
    "misses": ("near_cache_misses", "Checks of sessions that were not in the near cache."),
    "refreshes": ("near_cache_refreshes", "Checks of sessions that had to be looked up again."),
    "evictions": ("near_cache_evictions", "Sessions that made room for others."),
    "loads": ("store_loads", "Sessions looked up in the store."),
    "touches_coalesced": ("touches_coalesced", "Uses of sessions that needed no write of their own."),
    "touches_written": ("touches_written", "Uses of sessions written to the store."),
    "gaps": ("store_log_gaps", "Times that a part of the store's log was lost."),
    "sessions_given_back": ("sessions_given_back", "Sessions given back to a store that had lost its data."),
    "log_lines_lost": ("access_log_lines_lost", "Lines of the access log that could not be written."),
    "error_lines_left_out": ("error_log_lines_left_out", "Lines of the error log left out among many alike."),
    "error_lines_lost": ("error_log_lines_lost", "Lines of the error log that could not be written."),
    "exchanges": ("store_exchanges", "Exchanges with a shard of the store: look-ups, uses, news."),
    "store_errors": ("store_errors", "Exchanges with a shard of the store that failed."),
}

#: What went over the connections of a store that has some -> name, and what it says.
TRAFFIC = {
    "round_trips": ("store_round_trips", "Writes of commands to the store's servers that went together."),
    "bytes_sent": ("store_sent_bytes", "Bytes sent to the store's servers."),
    "bytes_received": ("store_received_bytes", "Bytes received from the store's servers."),
}

#: What an application asks for.
CHANGES = ("login", "logout", "logout_everywhere", "rotation")

#: What becomes of sessions, by the store's logs.
EVENTS = {
    "created": ("",),
    "rotated": ("",),
    "changed": ("",),
    "revoked": ("logout", "logout_everywhere", "revoked", "evicted", "reissued"),
    "expired": ("idle", "absolute"),
}

#: A value in the notes -> name, divisor to the base unit, how the workers' values become one, help
#: text.
GAUGES: dict[str, tuple[str, int, Callable[[Iterable[float]], float], str]] = {
    "connections": ("connections_open", 1, sum, "Client connections now."),
    "tunnels": ("tunnels_open", 1, sum, "WebSockets and other tunnels now."),
    "connections_max": ("connections_max", 1, max, "Client connections that there may be at a time."),
    "capacity": ("near_cache_capacity", 1, max, "Sessions for which a near cache has room."),
    "sessions_held": ("near_cache_sessions", 1, sum, "Sessions in the near caches."),
    "touches_unwritten": ("near_cache_dirty_entries", 1, sum, "Uses of sessions that are not written yet."),
    "flush_lag_ms": ("flush_lag_seconds", 1000, max, "The oldest use that is not written yet is no older."),
    "shards_leased": ("store_shards_leased", 1, min, "Shards whose sessions are admitted without a look at the store."),
    "shards_away": ("store_shards_away", 1, max, "Shards of the store that do not answer."),
    "outage_ms": ("store_outage_seconds", 1000, max, "How long the store has not answered."),
    "clock_ahead_ms": (
        "clock_ahead_of_store_seconds",
        1000,
        lambda values: max(values, key=abs),
        "How far the clock here is before the store's.",
    ),
}


def metrics_page(snapshot: Snapshot, accept: str = "") -> tuple[bytes, str]:
    """The page of a snapshot, and its Content-Type; `accept`: the client's Accept field."""
    registry = CollectorRegistry()
    registry.register(_Families(snapshot))
    if wants_openmetrics(accept):
        return openmetrics_text(registry), OPENMETRICS_TYPE  # type: ignore[no-untyped-call]
    return exposition.generate_latest(registry), METRICS_TYPE


def wants_openmetrics(accept: str) -> bool:
    """Whether a client names OpenMetrics, and likes it no less than the plain text (RFC 9110,
    12.5.1). `*/*` gets the plain text.
    """
    liked = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for each in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in each.split(";"))
        if kind in liked:
            weights = [part[2:] for part in parameters if part.startswith("q=")]
            liked[kind] = max(liked[kind], _weight(weights[0]) if weights else 1.0)
    return 0.0 < liked["application/openmetrics-text"] >= liked["text/plain"]


def _weight(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdecimal() and text.isascii() else 0.0


class _Families(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All metrics; prometheus-client calls it."""
        snapshot, counted = self._snapshot, self._snapshot.counted
        versions = {"version": fastticket.__version__, "python": platform.python_version()}
        yield InfoMetricFamily("fastticket_build", "The versions of this gateway's program.", value=versions)
        yield from procfs.families(snapshot.workers)
        yield _requests(counted)
        yield _answers(counted)
        yield _durations(counted)
        yield _labelled(counted, "session_changes", "change", "Sessions begun, ended, renewed here.", CHANGES)
        yield _labelled(counted, "token_requests", "outcome", "Requests with a program's token.", OUTCOMES)
        yield _labelled(counted, "key_uses", "key_id", "Tickets verified under a key.", ())
        for source, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(f"fastticket_{name}", text, value=counted.get(source, 0))
        for source, (name, divisor, combine, text) in GAUGES.items():
            value = combine([note["now"][source] for note in snapshot.notes] or [0])
            yield GaugeMetricFamily(f"fastticket_{name}", text, value=value / divisor)
        yield from _revocations(snapshot)
        yield from _store(snapshot)
        yield from _mirror(snapshot)
        yield from _migrations(snapshot)
        yield _store_servers(snapshot.notes)
        yield from _upstreams([snapshot.serving] if snapshot.serving else [])
        yield from _upstream_responses(counted)
        yield from _workers(snapshot)
        yield from _reloads(snapshot)


def _requests(counted: Mapping[str, Any]) -> Metric:
    """Every series exists from the start, so that `rate()` sees its first increase."""
    family = CounterMetricFamily(
        "fastticket_requests", "Requests whose ticket was judged, or that were refused.", labels=["verdict", "reason"]
    )
    family.add_metric(["admitted", ""], counted.get("admitted", 0))
    family.add_metric(["anonymous", ""], counted.get("anonymous", 0))
    for verdict in Verdict:
        if verdict.is_refusal:
            family.add_metric(["refused", verdict.reason], counted.get("refused", {}).get(verdict.reason, 0))
    family.add_metric(["malformed", "bad_request"], counted.get("bad_requests", 0))
    return family


def _answers(counted: Mapping[str, Any]) -> Metric:
    family = CounterMetricFamily(
        "fastticket_responses", "Answers that got through, by class of status.", labels=["status"]
    )
    for status, count in counted.get("answers", {}).items():
        family.add_metric([status], count)
    return family


def _labelled(counted: Mapping[str, Any], name: str, label: str, text: str, always: Iterable[str]) -> Metric:
    """Counts by one label. The label values of `always` exist from the start."""
    family = CounterMetricFamily(f"fastticket_{name}", text, labels=[label])
    for value, count in (dict.fromkeys(always, 0) | counted.get(name, {})).items():
        family.add_metric([value], count)
    return family


def _durations(counted: Mapping[str, Any]) -> Metric:
    family = HistogramMetricFamily(
        "fastticket_request_duration_seconds", "From a request's head to the end of its response."
    )
    family.add_metric([], *_in_seconds(counted))
    return family


def _in_seconds(counted: Mapping[str, Any]) -> tuple[list[tuple[str, int]], float]:
    """What a data plane has counted of times: buckets, and the sum."""
    pairs = [(bound_us and bound_us / 1e6, count) for bound_us, count in counted.get("latency_us", [(None, 0)])]
    return _summed_up(pairs), counted.get("latency_us_sum", 0) / 1e6


def _summed_up(pairs: Iterable[tuple[float | None, int]]) -> list[tuple[str, int]]:
    """Buckets as Prometheus has them, each with what is in those before it, of (bound, count)."""
    buckets, seen = [], 0
    for bound, count in pairs:
        seen += count
        buckets.append(("+Inf" if bound is None else str(float(bound)), seen))
    return buckets


def _histogram(name: str, text: str, found: Mapping[str, Mapping[str, Any]], labels: Iterable[str] = ()) -> Metric:
    """Of what `Histogram.counted` has, by the value of a label."""
    family = HistogramMetricFamily(f"fastticket_{name}", text, labels=list(labels))
    for value, counted in found.items():
        family.add_metric([value] if labels else [], _summed_up(counted["buckets"]), counted["sum"])
    return family


def _plain(counted: Mapping[str, Any], source: str) -> Mapping[str, Mapping[str, Any]]:
    """A histogram without labels, for `_histogram`."""
    return {"": counted.get(source, {"buckets": [(None, 0)], "sum": 0})}


def _revocations(snapshot: Snapshot) -> Iterator[Metric]:
    counted = snapshot.counted
    text = "From when a canary's end was asked for, anywhere, until it was applied here."
    yield _histogram("revocation_lag_seconds", text, _plain(counted, "revocation_lag"))
    age = GaugeMetricFamily("fastticket_revocation_observation_age_seconds", "Since a canary's end was applied here.")
    if snapshot.serving:
        age.add_metric([], max(0.0, time.monotonic() - snapshot.serving["canary_heard_s"]))
    yield age
    canaries = CounterMetricFamily(
        "fastticket_revocation_canaries", "Canaries that were this gateway's to end.", labels=["result"]
    )
    for result, count in (dict.fromkeys(("ended", "failed"), 0) | counted.get("canaries", {})).items():
        canaries.add_metric([result], count)
    yield canaries


def _store(snapshot: Snapshot) -> Iterator[Metric]:
    counted, note = snapshot.counted, snapshot.serving
    living = GaugeMetricFamily("fastticket_store_sessions", "Sessions that live in the store.")
    if note and note["sessions_living"] is not None:
        living.add_metric([], note["sessions_living"])
    yield living
    events = CounterMetricFamily(
        "fastticket_store_events", "What this gateway has heard in the store's logs.", labels=["kind", "reason"]
    )
    for kind, reasons in EVENTS.items():
        for reason, count in (dict.fromkeys(reasons, 0) | counted.get("events", {}).get(kind, {})).items():
            events.add_metric([kind, reason], count)
    yield events
    yield _histogram(
        "store_call_duration_seconds", "Calls of the store, by kind.", counted.get("store_calls", {}), ["call"]
    )
    for source, (name, text) in TRAFFIC.items():
        yield CounterMetricFamily(f"fastticket_{name}", text, value=counted.get("store_traffic", {}).get(source, 0))
    yield _histogram("flush_duration_seconds", "Flushes, from begin to end.", _plain(counted, "flush_duration"))
    yield _histogram("flush_touches", "Uses in a flush that had some.", _plain(counted, "flush_size"))


def _mirror(snapshot: Snapshot) -> Iterator[Metric]:
    """Nothing where no `mirror_url` is configured."""
    states = [note["mirroring"] for note in snapshot.notes if note.get("mirroring")]
    if not states:
        return
    is_up = int(not any(state["trouble"] for state in states))
    up = GaugeMetricFamily("fastticket_mirror_up", "1 if the store's mirror could be written last.", value=is_up)
    touches = GaugeMetricFamily(
        "fastticket_mirror_touches_waiting",
        "Sessions whose last use the mirror may not have yet.",
        value=sum(state["touches_waiting"] for state in states),
    )
    changes = GaugeMetricFamily(
        "fastticket_mirror_changes_waiting",
        "Changes that have begun, and that both stores do not have yet.",
        value=sum(state["changes_waiting"] for state in states),
    )
    yield from (up, touches, changes)


def _migrations(snapshot: Snapshot) -> Iterator[Metric]:
    """Nothing where no `[[migration]]` is configured."""
    counted = snapshot.counted.get("migrations", {})
    if not counted:
        return
    results = CounterMetricFamily(
        "fastticket_migrations", "Cookies of other systems, by what became of them.", labels=["source", "result"]
    )
    for name, count in counted.items():
        results.add_metric(name.split(" "), count)
    yield results
    held = GaugeMetricFamily("fastticket_migrated_sessions", "Exchanged sessions that are watched.")
    held.add_metric([], sum(note.get("migrations", {}).get("held", 0) for note in snapshot.notes))
    late = GaugeMetricFamily("fastticket_migration_pending_ends", "Ends that an old store must still learn of.")
    late.add_metric([], sum(note.get("migrations", {}).get("late", 0) for note in snapshot.notes))
    away = GaugeMetricFamily(
        "fastticket_migration_store_up", "1 if the other system's store answers.", labels=["source"]
    )
    for source, are_away in _gathered(each for note in snapshot.notes for each in old_stores_away(note).items()):
        away.add_metric([source], int(not any(are_away)))
    yield from (held, late, away)


def _store_servers(notes: Sequence[Mapping[str, Any]]) -> Metric:
    family = GaugeMetricFamily(
        "fastticket_store_server_up", "1 if every worker asks this server of the store.", labels=["server"]
    )
    of_mirrors = [(note.get("mirroring") or {}).get("servers", {}) for note in notes]
    servers = [note["store"] for note in notes] + of_mirrors
    for server, states in _gathered(pair for each in servers for pair in each.items()):
        family.add_metric([server], int(all(state == "closed" for state in states)))
    return family


def _upstreams(notes: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ["upstream", "server"]
    up = GaugeMetricFamily(
        "fastticket_upstream_up",
        "1 if the server is up for every worker. One that failed is down until it takes a connection.",
        labels=labels,
    )
    active = GaugeMetricFamily(
        "fastticket_upstream_active_requests", "Requests that the server has now.", labels=labels
    )
    queued = GaugeMetricFamily("fastticket_upstream_queued_requests", "Requests that wait for it.", labels=labels)
    servers = (((server["group"], server["server"]), server) for note in notes for server in note["upstreams"])
    for key, states in _gathered(servers):
        up.add_metric(key, int(all(state["state"] == "up" for state in states)))
        active.add_metric(key, sum(state["active"] for state in states))
        queued.add_metric(key, sum(state["queued"] for state in states))
    yield from (up, active, queued)


def _upstream_responses(counted: Mapping[str, Any]) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "fastticket_upstream_answers", "Responses of an upstream, by class of status.", labels=["upstream", "status"]
    )
    durations = HistogramMetricFamily(
        "fastticket_upstream_response_duration_seconds",
        "From sending a request to an upstream to the head of its response.",
        labels=["upstream"],
    )
    for upstream, of_it in counted.get("upstream_counts", {}).items():
        for status, count in of_it["answers"].items():
            answers.add_metric([upstream, status], count)
        durations.add_metric([upstream], *_in_seconds(of_it))
    yield from (answers, durations)


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    missing = len(snapshot.unhealthy())
    workers = GaugeMetricFamily(
        "fastticket_workers", "Processes, and configurations that retire, by what they do.", labels=["state"]
    )
    workers.add_metric(["serving"], 1 - missing)
    workers.add_metric(["missing"], missing)
    workers.add_metric(["retiring"], snapshot.retiring)
    yield workers
    yield CounterMetricFamily(
        "fastticket_worker_restarts", "Workers that died and were replaced.", value=snapshot.restarts
    )


def _reloads(snapshot: Snapshot) -> Iterator[Metric]:
    reloads = CounterMetricFamily("fastticket_reloads", "SIGHUPs answered.", labels=["result"])
    for result, count in snapshot.reloads.items():
        reloads.add_metric([result], count)
    yield reloads
    last = snapshot.last_reload
    for name, text, value in (
        ("successful", "1 if the last reload was done, 0 if it was refused.", int(last.was_done)),
        ("timestamp_seconds", "When the last reload was over, or the start, in seconds since the epoch.", last.at_s),
        ("duration_seconds", "From SIGHUP until the last reload was over.", last.took_s),
    ):
        yield GaugeMetricFamily(f"fastticket_reload_last_{name}", text, value=value)


def _gathered(pairs: Iterable[tuple[Any, Any]]) -> Iterable[tuple[Any, list[Any]]]:
    """The values of each key."""
    found: dict[Any, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found.items()
