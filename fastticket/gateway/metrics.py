"""`/metrics`: a snapshot in Prometheus' text format. docs/how-to/operate.md explains every line of
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from fastticket.dataplane.counters import METRICS as DATA_PLANE
from fastticket.errors import Verdict
from fastticket.gateway.passes import OUTCOMES
from fastticket.gateway.snapshot import Snapshot

METRICS_TYPE = CONTENT_TYPE_LATEST

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
    "exchanges": ("store_exchanges", "Exchanges with a shard of the store: look-ups, uses, news."),
    "store_errors": ("store_errors", "Exchanges with a shard of the store that failed."),
}

#: What an application asks for.
CHANGES = ("login", "logout", "logout_everywhere", "rotation")

#: A value in the notes -> name, divisor to the base unit, how the workers' values become one, help
#: text.
GAUGES: dict[str, tuple[str, int, Callable[[Iterable[float]], float], str]] = {
    "sessions_held": ("near_cache_sessions", 1, sum, "Sessions in the near caches."),
    "touches_unwritten": ("near_cache_dirty_entries", 1, sum, "Uses of sessions that are not written yet."),
    "flush_lag_ms": ("flush_lag_seconds", 1000, max, "The oldest use that is not written yet is no older."),
    "shards_leased": ("store_shards_leased", 1, min, "Shards whose sessions are admitted without a look at the store."),
    "shards_away": ("store_shards_away", 1, max, "Shards of the store that do not answer."),
    "outage_ms": ("store_outage_seconds", 1000, max, "How long the store has not answered."),
}


def metrics_text(snapshot: Snapshot) -> bytes:
    """The page of a snapshot."""
    registry = CollectorRegistry()
    registry.register(_Families(snapshot))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """All metrics; prometheus-client calls it."""
        snapshot = self._snapshot
        yield _requests(snapshot.counted)
        yield _answers(snapshot.counted)
        yield _durations(snapshot.counted)
        yield _labelled(snapshot.counted, "session_changes", "change", "Sessions begun, ended, renewed here.", CHANGES)
        yield _labelled(snapshot.counted, "token_requests", "outcome", "Requests with a program's token.", OUTCOMES)
        yield _labelled(snapshot.counted, "key_uses", "key_id", "Tickets verified under a key.", ())
        for source, (name, text) in COUNTERS.items():
            yield CounterMetricFamily(f"fastticket_{name}", text, value=snapshot.counted.get(source, 0))
        for source, (name, divisor, combine, text) in GAUGES.items():
            value = combine([note["now"][source] for note in snapshot.notes] or [0])
            yield GaugeMetricFamily(f"fastticket_{name}", text, value=value / divisor)
        yield from _migrations(snapshot)
        yield _store_servers(snapshot.notes)
        yield from _upstreams([snapshot.serving] if snapshot.serving else [])
        yield from _workers(snapshot)


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
    buckets, seen = [], 0
    for bound_us, count in counted.get("latency_us", [(None, 0)]):
        seen += count
        buckets.append(("+Inf" if bound_us is None else str(bound_us / 1e6), seen))
    return HistogramMetricFamily(
        "fastticket_request_duration_seconds",
        "From a request's head to the end of its response.",
        buckets=buckets,
        sum_value=counted.get("latency_us_sum", 0) / 1e6,
    )


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
    yield from (held, late)


def _store_servers(notes: Iterable[Mapping[str, Any]]) -> Metric:
    family = GaugeMetricFamily(
        "fastticket_store_server_up", "1 if every worker asks this server of the store.", labels=["server"]
    )
    for server, states in _gathered((name, state) for note in notes for name, state in note["store"].items()):
        family.add_metric([server], int(all(state == "closed" for state in states)))
    return family


def _upstreams(notes: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    labels = ["upstream", "server"]
    up = GaugeMetricFamily("fastticket_upstream_up", "1 if the server is up for every worker.", labels=labels)
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
    reloads = CounterMetricFamily("fastticket_reloads", "SIGHUPs answered.", labels=["result"])
    for result, count in snapshot.reloads.items():
        reloads.add_metric([result], count)
    yield reloads


def _gathered(pairs: Iterable[tuple[Any, Any]]) -> Iterable[tuple[Any, list[Any]]]:
    """The values of each key."""
    found: dict[Any, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found.items()
