"""A real Prometheus that reads a gateway each second, by the rules of examples/prometheus, thirty
times faster: `for: 1m` is two seconds here, and `[15m]` half a minute.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab.documents import ROOT
from lab.redis_servers import free_port, wait_until

RULES = ROOT / "examples/prometheus/alerts.yml"
FASTER = 30
UNITS_S = {"s": 1, "m": 60}
BOUND_S = 60.0

CONFIG = """
global: {{ scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }}
rule_files: [rules.yml]
scrape_configs:
  - job_name: fastticket
    static_configs: [{{ targets: {targets} }}]
"""


def program(name: str) -> str:
    """prometheus or promtool: the system's, or those beside Python (Makefile)."""
    return shutil.which(name) or str(Path(sys.executable).with_name(name))


def names() -> list[str]:
    """Of all alerts."""
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def faster(rules: str) -> str:
    """The same rules, with every time that they wait for or look back over made shorter."""

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{max(1, int(found[2]) * UNITS_S[found[3]] // FASTER)}s"

    return re.sub(r"(for: |\[)(\d+)([sm])", shorter, rules)


class Prometheus:
    """Reads the gateways at some addresses, host:port."""

    def __init__(self, folder: Path, targets: Iterable[str]) -> None:
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        (folder / "rules.yml").write_text(faster(RULES.read_text()))
        (folder / "prometheus.yml").write_text(CONFIG.format(targets=json.dumps(list(targets))))
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program("prometheus"),
                    f"--config.file={folder}/prometheus.yml",
                    f"--storage.tsdb.path={folder}/prometheus",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(self._reads_all, f"Prometheus reads the gateway; see {folder}/prometheus.log", BOUND_S)
        except BaseException:
            self.stop()
            raise

    def ask(self, path: str, **parameters: str) -> Any:
        """`data` of an answer of its API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {each["labels"]["alertname"] for each in self.ask("alerts")["alerts"] if each["state"] == "firing"}

    def _reads_all(self) -> bool:
        try:
            up = self.ask("query", query="min(up)")["result"]
        except OSError:
            assert self._process.poll() is None
            return False
        return bool(up) and up[0]["value"][1] == "1"

    def wait_for(self, alerts: Iterable[str]) -> dict[str, float]:
        """Until all of them fire; alert -> after how many seconds it did first."""
        began_s, wanted, seen = time.monotonic(), set(alerts), dict[str, float]()
        while wanted - seen.keys():
            for name in self.firing() - seen.keys():
                seen[name] = time.monotonic() - began_s
            assert time.monotonic() - began_s < 2 * BOUND_S, f"{wanted - seen.keys()} do not fire, only {set(seen)}"
            time.sleep(0.2)
        return seen

    def wait_until_quiet(self, alerts: Iterable[str]) -> float:
        """Until none of them fires; how many seconds that took."""
        began_s, ended = time.monotonic(), set(alerts)
        wait_until(lambda: not self.firing() & ended, f"an end of {', '.join(sorted(ended))}", 2 * BOUND_S)
        return time.monotonic() - began_s

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
