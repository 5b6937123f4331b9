"""A real Chromium, led page by page over its DevTools protocol:
https://chromedevtools.github.io/devtools-protocol/.

Its names under `shop.test` and `localhost` are 127.0.0.1; everything else resolves to nothing.
Certificates are not looked at.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conftest import BOUND_S
from websockets.sync.client import ClientConnection, connect

from lab.real_programs import ending, program

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *(
        "--disable-dev-shm-usage",
        "--window-size=1200,900",
        "--ignore-certificate-errors",
        "--remote-debugging-port=0",
        "about:blank",
    ),
    "--host-resolver-rules=MAP *.localhost 127.0.0.1, MAP shop.test 127.0.0.1, MAP *.shop.test 127.0.0.1, "
    "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PAGE_BOUND_S = 60.0
LISTENS = "DevTools listening on "


#: What a console shows in red, as the protocol names it.
COMPLAINTS = {
    "Runtime.exceptionThrown": lambda said: said["exceptionDetails"],
    "Runtime.consoleAPICalled": lambda said: said if said["type"] in ("error", "warning", "assert") else None,
    "Log.entryAdded": lambda said: said["entry"] if said["entry"]["level"] in ("error", "warning") else None,
}
#: Of what is pressed, what the protocol wants to know.
KEYS = {"Tab": {"windowsVirtualKeyCode": 9}, "Enter": {"windowsVirtualKeyCode": 13, "text": "\r"}}


class Chromium:
    """One tab, with cookies of its own. `status`: of the page that it shows. `complaints`: what its
    console has shown in red. `requested`: every address that it has asked for; `failed`: what of it
    did not come, and why.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self._events: deque[dict[str, Any]] = deque()
        self._session: str | None = None
        self.complaints: list[Any] = []
        self.requested: list[str] = []
        self.failed: list[str] = []
        context = self._call("Target.createBrowserContext", disposeOnDetach=True)["browserContextId"]
        target = self._call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.status = 0
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def go(self, url: str) -> str:
        """As if somebody had typed the address, redirects followed. The page's text."""
        self._events.clear()
        loader = self._call("Page.navigate", url=url)["loaderId"]
        is_here = False  # before that, events may be of a page that a form or a link led to
        while True:
            event = self._event("Network.responseReceived", "Page.frameNavigated", "Page.loadEventFired")
            said = event["params"]
            if event["method"] == "Page.frameNavigated":
                is_here = is_here or said["frame"]["loaderId"] == loader
            elif event["method"] == "Network.responseReceived":
                if said["loaderId"] == loader and said["type"] == "Document":
                    self.status = said["response"]["status"]
            elif is_here:
                return str(self.run("document.body.innerText"))

    def run(self, script: str) -> Any:
        """The value of a script that runs in the page, awaited."""
        found = self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression of a page that takes its time is true. The page may become another
        one meanwhile.
        """
        watch = f"""new Promise(done => {{
            const look = () => {{
                try {{ if ({condition}) {{ done(true); return; }} }} catch (error) {{}}
                if (Date.now() > until) done(false); else setTimeout(look, 50);
            }};
            const until = Date.now() + 5000;
            look();
        }})"""
        give_up_at_s = time.monotonic() + PAGE_BOUND_S
        while time.monotonic() < give_up_at_s:
            with contextlib.suppress(AssertionError):  # it was waited for in a page that is gone
                if self.run(watch):
                    return
        shown = self.run("document.location.href + ' ' + document.body.innerText.slice(0, 1000)")
        raise AssertionError(f"not in {PAGE_BOUND_S:g} s: {condition}; {shown}")

    def choose_file(self, selector: str, path: Path) -> None:
        """Into an `<input type="file">`."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def cookies(self) -> list[tuple[str, str, str]]:
        """All that it keeps: (name, domain, path); a domain for the hosts below it, too, begins
        with a dot.
        """
        found = self._call("Network.getAllCookies")["cookies"]
        return sorted((cookie["name"], cookie["domain"], cookie["path"]) for cookie in found)

    def kept(self, name: str) -> dict[str, Any]:
        """All that it knows of the one cookie of this name."""
        (found,) = [each for each in self._call("Network.getAllCookies")["cookies"] if each["name"] == name]
        return dict(found)

    def show_as(self, width: int, height: int, scheme: str) -> None:
        """In a window of that size in CSS pixels; `scheme`: "light" or "dark", as the system is
        set.
        """
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self._call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """A key of KEYS."""
        for kind in ("keyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **KEYS[key])

    def picture(self, path: Path) -> None:
        """Of the whole page, as PNG."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _hear(self) -> dict[str, Any]:
        heard: dict[str, Any] = json.loads(self._connection.recv(3 * BOUND_S))
        if complaint := COMPLAINTS.get(heard.get("method", ""), lambda _: None)(heard.get("params")):
            self.complaints.append(complaint)
        self._note(heard.get("method", ""), heard.get("params", {}))
        return heard

    def _note(self, method: str, said: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requested.append(said["request"]["url"])
        elif method == "Network.responseReceived" and said["response"]["status"] >= 400:
            self.failed.append(f"{said['response']['url']}: {said['response']['status']}")
        elif method == "Network.loadingFailed" and not said.get("canceled"):
            self.failed.append(f"{said['type']}: {said['errorText']}")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        said = {"id": number, "method": method, "params": params}
        self._connection.send(json.dumps(said | ({"sessionId": self._session} if self._session else {})))
        while True:
            heard = self._hear()
            if heard.get("id") == number:
                assert "error" not in heard, heard
                return dict(heard["result"])
            self._events.append(heard)

    def _event(self, *methods: str) -> dict[str, Any]:
        while True:
            heard = self._events.popleft() if self._events else self._hear()
            if heard.get("method") in methods:
                return heard


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[str]:
    """The address of a browser without tabs, which is ended with all of its processes."""
    command = [program("chromium"), *FLAGS, f"--user-data-dir={profile}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process, ending(process):
        assert process.stderr
        patience = threading.Timer(3 * BOUND_S, process.kill)
        patience.start()
        address = next(line for line in process.stderr if line.startswith(LISTENS))
        patience.cancel()
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or its pipe fills
        yield address.removeprefix(LISTENS).strip()


@contextlib.contextmanager
def tab(address: str) -> Iterator[Chromium]:
    """A tab of a browser; it ends, and its cookies with it."""
    with connect(address, max_size=None, proxy=None) as connection:
        yield Chromium(connection)


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Chromium]:
    """The tab of a browser of its own."""
    with browser(profile) as address, tab(address) as made:
        yield made
