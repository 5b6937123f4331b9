"""What `/metrics` says of a real gateway on a real Redis, and in which format."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from bisect import bisect_left
from pathlib import Path

import pytest
from conftest import BOUND_S, OK, Client, status_of
from lab.processes import Site
from lab.redis_servers import wait_until
from lab.traffic import get as traffic_get
from lab.traffic import log_in
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

import fastticket
from fastticket.dataplane.counters import COUNTERS_BYTES, bucket_number, read_counters
from fastticket.gateway import errorlog
from fastticket.gateway.metrics import metrics_page, wants_openmetrics
from fastticket.gateway.snapshot import Snapshot
from fastticket.keyfile import create_key_file
from fastticket.stores.contract import CANARY
from fastticket.stores.usage import BOUNDS_S

LATE_S = 0.06
UPGRADE = (
    b"GET /app/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def application(connection):
    while True:
        head = connection.read_head()
        if b"/ws" in head:
            connection.sendall(SWITCHED)
            connection.read_all()
            return
        connection.sendall(OK)


def slow(connection):
    while True:
        connection.read_head()
        threading.Event().wait(LATE_S)
        connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")


class Watched(Site):
    """A site and its admin listener."""

    def page(self, accept=""):
        """The page, and its Content-Type."""
        with Client(str(self.folder / "admin.sock")) as client:
            client.sendall(f"GET /metrics HTTP/1.1\r\nHost: admin\r\nAccept: {accept}\r\n\r\n".encode())
            head, body = client.read_response()
        assert status_of(head) == 200
        return body.decode(), head.decode().partition("Content-Type: ")[2].partition("\r\n")[0]

    def samples(self, accept="", parse=parser.text_string_to_metric_families):
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in parse(self.page(accept)[0])
            for sample in family.samples
        }

    def value(self, name, **labels):
        return self.samples().get((f"fastticket_{name}", *sorted(labels.items())))

    def command(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "fastticket", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=3 * BOUND_S,
            check=True,
        ).stdout


def tables(folder, store, upstreams, **gateway):
    return {
        "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock", "drain_timeout_s": 1.0, **gateway},
        "ticket": {"keys": "keys.toml"},
        "store": {"url": store},
        "upstream": [{"name": name, "servers": [each.address]} for name, each in upstreams.items()],
        "route": [{"path": f"/{name}", "auth": "none", "upstream": name} for name in upstreams] + [{"path": "/"}],
    }


@pytest.fixture
def site(tmp_path, redis_server, origin):
    create_key_file(tmp_path / "keys.toml")
    table = tables(
        tmp_path, f"redis://{redis_server.address}/0", {"app": origin(application), "slow": origin(slow)}, threads=2
    )
    at = Watched(tmp_path, table)
    at.table = table
    yield at
    at.stop()


@pytest.fixture
def beside(site, tmp_path):
    """Another gateway on the same store."""
    folder = tmp_path / "beside"
    folder.mkdir()
    create_key_file(folder / "keys.toml")
    at = Watched(folder, site.table)
    yield at
    at.stop()


def get(path):
    return b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path


def test_what_a_gateway_is_and_does_is_on_its_page(site, beside, redis_server):
    """Upstreams by status and time; clients and tunnels; processes; what the store costs, and how
    many sessions live there; how late an end is heard of, which one of two gateways has ended.
    After a reload all of it goes on.
    """
    site.command("issue", "alice", "--config", "fastticket.toml")
    for _ in range(5):
        assert status_of(site.ask(get(b"/app/x"))[0]) == 200
    for _ in range(2):
        assert status_of(site.ask(get(b"/slow/x"))[0]) == 503
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(site.connect()) for _ in range(3)]
        clients[0].sendall(UPGRADE)
        assert status_of(clients[0].read_head()) == 101

        def is_seen():
            return (site.value("connections_open"), site.value("tunnels_open")) == (3, 1)

        wait_until(is_seen, "clients and a tunnel", BOUND_S)
        assert site.value("connections_max") >= 1000
        found = site.samples()
    pids = {"supervisor": site.pid, "worker": site.workers()[0]}
    for process, pid in pids.items():
        described = {name: found[(f"process_{name}", ("process", process))] for name in ("open_fds", "max_fds")}
        assert 5 < described["open_fds"] < described["max_fds"]
        assert found[("process_resident_memory_bytes", ("process", process))] > 10_000_000
        assert abs(found[("process_start_time_seconds", ("process", process))] - started_s(pid)) < BOUND_S
    assert (
        found[("fastticket_build_info", ("python", sys.version.split()[0]), ("version", fastticket.__version__))] == 1
    )

    def counted(upstream, status):
        return site.value("upstream_answers_total", upstream=upstream, status=status)

    answered = [counted("app", "2xx"), counted("app", "1xx"), counted("slow", "5xx"), counted("slow", "2xx")]
    assert answered == [5, 1, 2, 0]
    took = "upstream_response_duration_seconds"
    assert site.value(f"{took}_bucket", upstream="slow", le="0.05") == 0
    assert site.value(f"{took}_count", upstream="slow") == 2
    assert site.value(f"{took}_sum", upstream="slow") >= 2 * LATE_S
    slow_ones = 2
    assert (
        site.value("request_duration_seconds_bucket", le="0.05")
        <= site.value("request_duration_seconds_count") - slow_ones
    )
    wait_until(  # of a few on an idle machine, each
        lambda: site.ask(get(b"/app/x")) and site.value("request_duration_seconds_bucket", le="0.05") >= 5, "fast ones"
    )

    gateways = [site, beside]
    wait_until(lambda: all(at.value("revocation_lag_seconds_count") for at in gateways), "a canary", 3 * BOUND_S)
    assert sum(at.value("revocation_canaries_total", result="ended") for at in gateways) >= 1
    assert site.value("revocation_observation_age_seconds") < BOUND_S
    assert [at.value("store_call_duration_seconds_count", call="revoke") for at in gateways] != [None, None]
    assert site.value("store_round_trips_total") >= 2
    assert site.value("store_sent_bytes_total") > 500
    assert site.value("store_received_bytes_total") > 100
    # It went through the log, and nobody is shown it.
    with redis_server.client() as redis:
        logged = [str(redis.xrange(key)) for key in redis.keys("*log")]
    assert any(CANARY in each for each in logged)
    shown = site.command("events", "--config", "fastticket.toml")
    assert "alice" in shown
    assert "canary" not in shown
    assert not [labels for labels in site.samples() if "canary" in str(labels[1:])]

    assert site.value("reload_last_successful") == 1
    assert site.reload("nonsense = 1").startswith("not reloaded")
    assert site.value("reload_last_successful") == 0
    assert site.reload({**site.table, "cache": {"capacity": 1234}}).startswith("reloaded: a new worker")
    assert site.value("reload_last_successful") == 1
    assert 0 < site.value("reload_last_duration_seconds") < BOUND_S
    assert abs(site.value("reload_last_timestamp_seconds") - time.time()) < BOUND_S
    wait_until(lambda: site.value("near_cache_capacity") == 1234, "its note", BOUND_S)
    # Counted anew at its start: alice's session, and no canary.
    wait_until(lambda: site.value("store_sessions") == 1, "the census", BOUND_S)
    wait_until(lambda: counted("slow", "5xx") == 2, "what the worker before had counted", BOUND_S)


def started_s(pid):
    """When a process has started, s since the epoch: by how long it has run."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    since_boot_s = ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot_s


def test_what_waits_for_the_mirror_is_said(tmp_path, redis_server, origin):
    """Also whether it can be written. Where there is no mirror, nothing is."""
    create_key_file(tmp_path / "keys.toml")
    table = tables(tmp_path, "sqlite:///s.db", {"app": origin(application)})
    table["store"] |= {"mirror_url": f"redis://{redis_server.address}/0?timeout_ms=200", "flush_interval_ms": 100}
    at = Watched(tmp_path, table)
    try:
        (ticket,) = log_in(tmp_path, "alice")
        redis_server.kill()
        # Right after the login a use moves no deadline.
        wait_until(
            lambda: at.ask(traffic_get(ticket)) and at.value("mirror_touches_waiting") == 1, "a use that waits", BOUND_S
        )
        wait_until(lambda: at.value("mirror_up") == 0, "the mirror is away", BOUND_S)
        assert at.value("mirror_changes_waiting") == 0
        said = at.command("status", "--admin", f"unix:{tmp_path}/admin.sock")
        assert re.search(r"^mirror +\S.*; 1 uses and 0 changes wait", said, re.MULTILINE)
        redis_server.start()
        wait_until(lambda: (at.value("mirror_touches_waiting"), at.value("mirror_up")) == (0, 1), "it is back", BOUND_S)
        assert at.reload({**table, "store": {"url": "sqlite:///s.db"}}).startswith("reloaded")
        wait_until(lambda: at.value("mirror_up") is None, "no mirror", BOUND_S)
    finally:
        at.stop()


def test_the_page_comes_in_the_format_that_is_asked_for(site):
    """The same in both. Exemplars are in neither."""
    plain, kind = site.page()
    assert kind.startswith("text/plain; version=")
    text, kind = site.page("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1")
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text.endswith("# EOF\n")
    assert " # {" not in text
    samples = site.samples("application/openmetrics-text", openmetrics_parser.text_string_to_metric_families)
    assert set(samples) == set(site.samples())
    assert len(samples) > 200
    assert 'le="0.0005"' in plain


@pytest.mark.parametrize(
    ("accept", "is_wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=0.0.1 ;charset=utf-8", True),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.5", True),
        ("text/plain, application/openmetrics-text;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense,text/plain;q=1e9", False),
        ("application/openmetrics-text;version=\x00;q=²", False),
        ("application/openmetrics-textual", False),
        (",;,=;q", False),
    ],
)
def test_openmetrics_is_for_who_names_it(accept, is_wanted):
    assert wants_openmetrics(accept) == is_wanted


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
def test_a_gateway_without_a_worker_has_a_page(accept):
    page, _ = metrics_page(Snapshot(False, [], None, [], {}, 0, 0, {}, workers=[2**22]), accept)
    assert b'fastticket_workers{state="missing"} 1.0' in page
    assert b"\nfastticket_revocation_observation_age_seconds " not in page


def test_times_are_counted_by_the_first_bound_that_is_not_below_them():
    """By the data plane, with a table and one compare, as by the control plane."""
    bounds_us = [round(bound * 1e6) for bound in BOUNDS_S]
    assert [bound for bound, _ in read_counters(bytes(COUNTERS_BYTES))["latency_us"]] == [*bounds_us, None]
    near = {bound + by for bound in bounds_us for by in (-1, 0, 1)}
    powers = {2**bits + by for bits in range(1, 63) for by in (-1, 0, 1)}
    for took_us in near | powers | set(range(1, 3000)):
        assert bucket_number(took_us) == bisect_left(bounds_us, took_us), took_us


def test_lines_of_the_error_log_that_were_left_out_are_counted(tmp_path):
    """Here by the process itself; the supervisor adds those of its workers."""
    handler = errorlog.ErrorLog()
    handler.move_to(tmp_path / "log", is_json=False)
    record = errorlog.logging.LogRecord("test", 40, __file__, 1, "again and again %s", ("x",), None)
    for _ in range(errorlog.LINES_MAX + 7):
        handler.handle(record)
    assert handler.left_out == 7
    handler._lost("a full disk", 3)
    assert handler.lost == 3
    handler.close()
    assert (
        len((tmp_path / "log").read_text().splitlines()) == errorlog.LINES_MAX + 2
    )  # how many, and that some are lost
