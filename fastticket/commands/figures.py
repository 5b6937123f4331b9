"""The figures of a running gateway, as `status` and `top` show them: those of the admin listener's
page, from the same operations, and from /metrics.

    read(admin)      all of them, at one moment
    Rates            what has grown between two readings, a second

Rule of this file: what a gateway of another version does not say is left out, and no error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from fastticket.commands.admin import AdminApi, AdminError, ask

Labels = tuple[tuple[str, str], ...]
#: Name -> labels -> value.
Samples = Mapping[str, Mapping[Labels, float]]

DURATION = "fastticket_request_duration_seconds_bucket"
REFUSALS = "fastticket_requests_total"
KEY_USES = "fastticket_key_uses_total"
REVOCATION_LAG = "fastticket_revocation_lag_seconds_bucket"
LINES_LOST = ("fastticket_access_log_lines_lost_total", "fastticket_error_log_lines_lost_total")
CLOCK = "fastticket_clock_ahead_of_store_seconds"

LATE_S = 2.0  # a revocation takes effect within the lease
CLOCK_OFF_S = 2.0


class Reading(NamedTuple):
    """What a gateway says. Each member but the last two is as in the admin API."""

    status: Mapping[str, Any]  #: /v1/status
    upstreams: Sequence[Mapping[str, Any]]  #: of /v1/upstreams; none while no worker serves
    gateways: Mapping[str, Any]  #: /v1/gateways; empty while no worker serves
    samples: Samples  #: of /metrics
    at_s: float  #: monotonic

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is away: the worker, the store, an upstream."""
        return not self.status["away"]


def read(admin: AdminApi) -> Reading:
    """Ask for all of it. AdminError: the gateway does not answer, or refuses."""
    status = admin.read("/v1/status")
    code, text = ask(admin.address, "/metrics")
    samples = _samples(text) if code == 200 else {}
    return Reading(
        status,
        _or_nothing(admin, "/v1/upstreams").get("upstreams", ()),
        _or_nothing(admin, "/v1/gateways"),
        samples,
        time.monotonic(),
    )


def _or_nothing(admin: AdminApi, path: str) -> Mapping[str, Any]:
    """A page that a worker has to answer: without one, it is empty."""
    try:
        answer: Mapping[str, Any] = admin.read(path)
    except AdminError:
        return {}
    return answer


def _samples(text: str) -> Samples:
    found: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


class Rates:
    """What has happened from one reading to a later one."""

    def __init__(self, before: Reading | None, after: Reading) -> None:
        is_same = before is not None and before.status["pid"] == after.status["pid"]
        self._before: Samples = before.samples if before and is_same else {}
        self._after = after.samples
        began_s = before.at_s if before and is_same else after.at_s - after.status["uptime_s"]
        self.seconds = max(after.at_s - began_s, 0.001)

    def of(self, name: str) -> dict[Labels, float]:
        """How much a counter has grown in a second, by labels."""
        before = self._before.get(name, {})
        grown = {labels: value - before.get(labels, 0.0) for labels, value in self._after.get(name, {}).items()}
        return {labels: max(more, 0.0) / self.seconds for labels, more in grown.items()}

    def quantile_s(self, share: float, name: str = DURATION) -> float | None:
        """Under which that share stayed, by the ends of a histogram's buckets: s. None: there was
        none, or it took longer than every end.
        """
        ends = sorted((float(dict(labels)["le"]), rate) for labels, rate in self.of(name).items())
        total = ends[-1][1] if ends else 0.0
        found = next((end for end, count in ends if count >= share * total), None) if total else None
        return None if found == float("inf") else found


class Row(NamedTuple):
    """A line of a table: what it is about, and what there is to say."""

    key: str
    cells: tuple[str | float, ...]


class Table(NamedTuple):
    """One that `top` shows: its title, the columns, and the rows."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Row]


def tables(reading: Reading, rates: Rates) -> Mapping[str, Table]:
    """Those of a reading, by the key that shows each."""
    return {
        "g": Table("gateways", GATEWAY_COLUMNS, [_gateway_row(each) for each in reading.gateways.get("gateways", ())]),
        "u": Table("upstreams", ("upstream", "server", "state", "active", "queued"), _upstream_rows(reading.upstreams)),
        "k": Table("keys", ("key id", "uses", "a second"), _counter_rows(reading, rates, KEY_USES, "key_id")),
        "r": Table("refusals", ("reason", "requests", "a second"), _refusal_rows(reading, rates)),
    }


GATEWAY_COLUMNS = ("gateway", "version", "req/s", "ref/s", "5xx/s", "p99 ms", "clients", "sessions", "store", "up")


def _gateway_row(card: Mapping[str, Any]) -> Row:
    figures = card.get("figures", {})
    up, servers = figures.get("servers_up", 0), figures.get("servers", 0)
    numbers = ("requests_per_s", "refused_per_s", "failed_per_s", "p99_ms", "connections", "sessions_held")
    return Row(
        str(card["id"]),
        (
            str(card.get("host", card["id"])),
            str(card.get("version", "")),
            *(figures.get(name) or 0 for name in numbers),
            str(figures.get("store", "")),
            f"{up}/{servers}",
        ),
    )


def _upstream_rows(upstreams: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [
        Row(
            f"{upstream['name']} {server['server']}",
            (upstream["name"], server["server"], server["state"], server["active"], server["queued"]),
        )
        for upstream in upstreams
        for server in upstream["servers"]
    ]


def _counter_rows(reading: Reading, rates: Rates, name: str, label: str) -> list[Row]:
    values, grown = reading.samples.get(name, {}), rates.of(name)
    return [
        Row(dict(labels)[label], (dict(labels)[label], int(value), round(grown[labels], 1)))
        for labels, value in values.items()
    ]


def _refusal_rows(reading: Reading, rates: Rates) -> list[Row]:
    """The reasons that there were."""
    rows = _counter_rows(reading, rates, REFUSALS, "reason")
    return [row for row in rows if row.key and row.cells[1]]


class Line(NamedTuple):
    """One of the lines above the tables: a name and what there is to say."""

    name: str
    text: str
    is_bad: bool = False


def lines(reading: Reading, rates: Rates) -> list[Line]:
    """How a gateway is, for people."""
    status = reading.status
    away = ", ".join(status["away"])
    workers = sum(worker["state"] == "serving" for worker in status["workers"])
    return [
        Line(
            "gateway",
            f"{'not healthy: ' + away if away else 'healthy'}, {'ready' if status['is_ready'] else 'not ready'}"
            f"{', draining' if status['is_draining'] else ''}",
            bool(away),
        ),
        Line(
            "process",
            f"{status['version']}, pid {status['pid']}, up {shown_time(status['uptime_s'])}, "
            f"{workers} serving, {status['restarts']} restarts, "
            f"{status['reloads'].get('done', 0)} reloads, {status['reloads'].get('refused', 0)} refused",
            not workers,
        ),
        Line("requests", _requests(status["rates"], rates)),
        Line(
            "clients",
            f"{status['connections']} connections of {_gauge(reading, 'fastticket_connections_max')}, "
            f"{_gauge(reading, 'fastticket_tunnels_open')} tunnels",
        ),
        Line(
            "sessions",
            f"{status['sessions_held']} held of {_gauge(reading, 'fastticket_near_cache_capacity')}, "
            f"{_gauge(reading, 'fastticket_near_cache_dirty_entries')} uses unwritten; "
            f"{_gauge(reading, 'fastticket_store_sessions')} live in the store",
        ),
        _store_line(status["store"]),
        *_revocations(rates),
        *_lost_lines(reading),
        *_clock(reading),
    ]


def _requests(shown: Mapping[str, float], rates: Rates) -> str:
    quantiles = (("p50", rates.quantile_s(0.5)), ("p99", rates.quantile_s(0.99)))
    times = ", ".join(f"{name} {'-' if value is None else f'{value * 1000:g} ms'}" for name, value in quantiles)
    return f"{shown['requests']:.1f}/s, refused {shown['refused']:.1f}/s, {times}"


def _gauge(reading: Reading, name: str) -> str:
    values = reading.samples.get(name)
    return f"{sum(values.values()):g}" if values else "-"


def _store_line(store: Mapping[str, Any] | None) -> Line:
    if not store:
        return Line("store", "unknown: no worker serves", is_bad=True)
    if store["is_away"]:
        served = "sessions that are held are admitted" if store["is_outage_tolerated"] else "nobody is admitted"
        away = f"away for {shown_time(store['outage_ms'] / 1000)}, {store['shards_away']} shards"
        return Line("store", f"{store['url']}: {away}; {served}", is_bad=True)
    servers = f" ({', '.join(sorted(store['servers']))})" if store["servers"] else ""
    return Line("store", f"{store['url']}: up{servers}, flush lag {store['flush_lag_ms'] / 1000:.1f} s")


def _revocations(rates: Rates) -> Iterator[Line]:
    """How late this gateway hears that a session has ended, if it has heard of any."""
    late_s = rates.quantile_s(0.99, REVOCATION_LAG)
    if late_s is not None:
        yield Line("ends", f"99 of 100 ended sessions are known here within {late_s:g} s", late_s > LATE_S)


def _lost_lines(reading: Reading) -> Iterator[Line]:
    lost = sum(sum(reading.samples.get(name, {}).values()) for name in LINES_LOST)
    if lost:
        yield Line(
            "logs", f"{lost:.0f} lines lost since the start: a full disk, or a pipe without a reader", is_bad=True
        )


def _clock(reading: Reading) -> Iterator[Line]:
    """If it is off by more than CLOCK_OFF_S."""
    off_s = max(reading.samples.get(CLOCK, {}).values(), key=abs, default=0.0)
    if abs(off_s) > CLOCK_OFF_S:
        yield Line("clock", f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} the store's", is_bad=True)


def shown_time(seconds: float) -> str:
    """In its largest unit of which there are at least two."""
    for unit_s, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{int(seconds // unit_s)} {name}"
    return f"{int(seconds)} s"


def sorted_rows(table: Table, column: int, is_reversed: bool) -> list[Row]:
    """By one column: numbers the largest first, texts by the alphabet; or the other way round."""
    is_text = any(isinstance(row.cells[column], str) for row in table.rows)
    return sorted(table.rows, key=lambda row: _order(row.cells[column]), reverse=is_text == is_reversed)


def _order(cell: str | float) -> Any:
    return cell.lower() if isinstance(cell, str) else cell
