"""The figures of a running gateway, as `status` and `top` show them: those of the admin listener's
page, from the same operations, and from /metrics.

    read(admin)      all of them, at one moment
    Rates            what has grown between two readings, a second

Rule of this file: what a gateway of another version does not say is left out, and no error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from fastticket.commands.admin import AdminApi, AdminError

Labels = tuple[tuple[str, str], ...]
#: Name -> labels -> value.
Samples = Mapping[str, Mapping[Labels, float]]

DURATION = "fastticket_request_duration_seconds_bucket"
REFUSALS = "fastticket_requests_total"
KEY_USES = "fastticket_key_uses_total"


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
    code, text = admin.page("/metrics")
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
        "g": Table("gateways", GATEWAY_COLUMNS, _gateway_rows(reading.gateways)),
        "u": Table("upstreams", ("upstream", "server", "state", "active", "queued"), _upstream_rows(reading.upstreams)),
        "k": Table("keys", ("key id", "uses", "a second"), _counter_rows(reading, rates, KEY_USES, "key_id")),
        "r": Table("refusals", ("reason", "requests", "a second"), _refusal_rows(reading, rates)),
    }


GATEWAY_COLUMNS = (
    "gateway",
    "pid",
    "version",
    "req/s",
    "ref/s",
    "5xx/s",
    "p99 ms",
    "clients",
    "sessions",
    "store",
    "up",
)


def _gateway_rows(shown: Mapping[str, Any]) -> list[Row]:
    return [_gateway_row(card, card["id"] == shown.get("self")) for card in shown.get("gateways", ())]


def _gateway_row(card: Mapping[str, Any], is_self: bool) -> Row:
    """Two of one machine have one host, so the pid is there, too."""
    figures = card.get("figures", {})
    up, servers = figures.get("servers_up", 0), figures.get("servers", 0)
    numbers = ("requests_per_s", "refused_per_s", "failed_per_s", "p99_ms", "connections", "sessions_held")
    return Row(
        str(card["id"]),
        (
            f"{card.get('host', card['id'])}{' (this one)' if is_self else ''}",
            str(card.get("pid", "")),
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
            (upstream["name"], server["server"], _state(server), server["active"], server["queued"]),
        )
        for upstream in upstreams
        for server in upstream["servers"]
    ]


def _state(server: Mapping[str, Any]) -> str:
    return f"{server['state']}: {server['why']}" if server.get("why") else str(server["state"])


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


class Said:
    """The text of a line, and the names of the figures that make it a bad one."""

    def __init__(self, text: str, *names: str) -> None:
        self.text = text
        self.names = names


class Line(NamedTuple):
    """One of the lines above the tables: a name and what there is to say."""

    name: str
    text: str
    is_bad: bool = False


def lines(reading: Reading, rates: Rates) -> list[Line]:
    """How a gateway is, for people. What is bad, the gateway decides: `attention`."""
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
        *_of_figures(status, {"reload": _reload}),
        Line("requests", _requests(status["rates"], rates)),
        *_of_figures(status, {"clients": _clients, "sessions": _sessions}),
        _store_line(status["store"]),
        *_of_figures(
            status, {"log": _store_log, "mirror": _mirror, "ends": _ends, "clock": _clock, "logs": _log_lines}
        ),
    ]


def _of_figures(
    status: Mapping[str, Any], wanted: Mapping[str, Callable[[Mapping[str, Any]], Said | None]]
) -> list[Line]:
    """Lines of what /v1/status has under `figures`; None: there is nothing to say."""
    figures, attention = status.get("figures", {}), set(status.get("attention", ()))
    said = {name: of(figures) for name, of in wanted.items()} if figures else {}
    return [Line(name, each.text, not attention.isdisjoint(each.names)) for name, each in said.items() if each]


def _reload(figures: Mapping[str, Any]) -> Said | None:
    last = figures["last_reload"]
    ago = shown_time(max(0.0, time.time() - last["at_s"]))
    return None if last["was_done"] else Said(f"refused {ago} ago: {last['why']}", "last_reload")


def _clients(figures: Mapping[str, Any]) -> Said:
    used = f"{_number(figures['descriptors_used'])} file descriptors of {_number(figures['descriptors_max'])}"
    shown = (
        f"{figures['connections']} connections of {_number(figures['connections_max'])}, {figures['tunnels']} tunnels"
    )
    return Said(f"{shown}, {used}", "connections", "descriptors_used")


def _sessions(figures: Mapping[str, Any]) -> Said:
    room, living = _number(figures["sessions_capacity"]), _number(figures["sessions_living"])
    return Said(f"{_number(figures['sessions_held'])} held of {room}; {living} live in the store")


def _store_log(figures: Mapping[str, Any]) -> Said | None:
    """Only what is worth a line."""
    gaps = figures["store_log_gaps"]
    return Said(f"parts of the store's log were lost {gaps} times since the start") if gaps else None


def _mirror(figures: Mapping[str, Any]) -> Said | None:
    trouble = figures["mirror_trouble"]
    if trouble is None:
        return None
    waiting = f"{figures['mirror_touches_waiting']} uses and {figures['mirror_changes_waiting']} changes wait"
    return Said(f"{trouble or 'is written'}; {waiting}", "mirror_trouble")


def _ends(figures: Mapping[str, Any]) -> Said:
    """How late this gateway hears that a session has ended."""
    late_s, heard_s = figures["revocation_lag_s"], figures["revocation_heard_s"]
    within = (
        "none heard in the last minute" if late_s is None else f"99 of 100 ended sessions known within {late_s:g} s"
    )
    last = "" if heard_s is None else f", the last {shown_time(heard_s)} ago"
    return Said(within + last, "revocation_lag_s", "revocation_heard_s")


def _clock(figures: Mapping[str, Any]) -> Said:
    off_s = figures["clock_ahead_s"]
    if off_s is None:
        return Said("unknown: no worker serves")
    if abs(off_s) < 1:
        return Said("as the store's", "clock_ahead_s")
    return Said(f"{abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} the store's", "clock_ahead_s")


def _log_lines(figures: Mapping[str, Any]) -> Said:
    lost = figures["access_lines_lost"] + figures["error_lines_lost"]
    why = ": a full disk, or a pipe without a reader" if lost else ""
    text = f"{lost} lines lost since the start{why}; {figures['error_lines_left_out']} of the error log left out"
    return Said(text, "access_lines_lost", "error_lines_lost")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _requests(shown: Mapping[str, float], rates: Rates) -> str:
    quantiles = (("p50", rates.quantile_s(0.5)), ("p99", rates.quantile_s(0.99)))
    times = ", ".join(f"{name} {'-' if value is None else f'{value * 1000:g} ms'}" for name, value in quantiles)
    return f"{shown['requests']:.1f}/s, refused {shown['refused']:.1f}/s, {times}"


def _store_line(store: Mapping[str, Any] | None) -> Line:
    if not store:
        return Line("store", "unknown: no worker serves", is_bad=True)
    unwritten = f"{store['touches_unwritten']} uses unwritten, the oldest for {store['flush_lag_ms'] / 1000:.1f} s"
    if store["is_away"]:
        served = "sessions that are held are admitted" if store["is_outage_tolerated"] else "nobody is admitted"
        away = f"away for {shown_time(store['outage_ms'] / 1000)}, {store['shards_away']} shards"
        return Line("store", f"{store['url']}: {away}; {served}; {unwritten}", is_bad=True)
    servers = f" ({', '.join(sorted(store['servers']))})" if store["servers"] else ""
    return Line("store", f"{store['url']}: up{servers}, {unwritten}")


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
