"""Chromium, driven by its DevTools protocol: one page, its scripts, its files. Every wait is bounded."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from real_programs import program
from websockets.sync.client import connect

START_S = 30.0
CALL_S = 30.0
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-dev-shm-usage", "--window-size=1200,900", "--remote-debugging-port=0"),
)


class PageFailed(AssertionError):  # noqa: N818 -- what happened
    """A script of ours raised, or what was waited for did not come."""


class Page:
    """A tab."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._calls = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser something; what it answers."""
        self._calls += 1
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": parameters}))
        give_up_at_s = time.monotonic() + CALL_S
        while time.monotonic() < give_up_at_s:
            said = json.loads(self._socket.recv(CALL_S))
            if said.get("id") == self._calls:
                if "error" in said:
                    raise PageFailed(f"{method}: {said['error']['message']}")
                return said["result"]
        raise PageFailed(f"{method}: no answer in {CALL_S:g} s")

    def go(self, url: str) -> None:
        self.call("Page.enable")
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of an expression, or of the promise that it is."""
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            raise PageFailed(details.get("exception", {}).get("description") or details["text"])
        return told["result"].get("value")

    def wait(self, condition: str, bound_s: float = 60.0) -> None:
        """Until an expression is true; the page may become another one meanwhile."""
        give_up_at_s = time.monotonic() + bound_s
        watch = f"""new Promise((done, fail) => {{
            const look = () => {{
                try {{ if ({condition}) {{ done(true); return; }} }} catch (error) {{}}
                if (Date.now() > until) fail(new Error("still not")); else setTimeout(look, 50);
            }};
            const until = Date.now() + 5000;
            look();
        }})"""
        while time.monotonic() < give_up_at_s:
            with contextlib.suppress(PageFailed):
                self.run(watch)
                return
        shown = self.run("document.location.href + ' ' + document.body.innerText.slice(0, 1000)")
        raise PageFailed(f"never so: {condition}; {shown}")

    def choose_file(self, selector: str, path: Path) -> None:
        """Into an `<input type="file">`."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser with a profile of its own, and one page."""
    command = [program("chromium"), *FLAGS, f"--user-data-dir={folder}/profile", "about:blank"]
    log = folder / "chromium.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            place = _place(process, log)
            connection = http.client.HTTPConnection(place, timeout=CALL_S)
            connection.request("PUT", "/json/new?about:blank")
            page = json.loads(connection.getresponse().read())
            connection.close()
            with connect(page["webSocketDebuggerUrl"], proxy=None, max_size=None, open_timeout=CALL_S) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _place(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, which it says in its log."""
    give_up_at_s = time.monotonic() + START_S
    while time.monotonic() < give_up_at_s and process.poll() is None:
        if said := re.search(r"DevTools listening on ws://([^/]+)/", log.read_text("utf-8", "replace")):
            return said[1]
        time.sleep(0.05)  # another program's log: nothing tells of a line
    raise AssertionError(f"chromium does not start: {log.read_text('utf-8', 'replace')[-2000:]}")
