"""Takes the pictures of the operators' page: `make docs-pictures`.

Two real gateways on one Redis, with clients, and a real Chromium. Figures and times in them are of
that run.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lab.processes import Site  # noqa: E402
from lab.tabs import Tab, browser  # noqa: E402
from lab.traffic import get  # noqa: E402
from lab.two_gateways import TOKEN, TwoGateways, two_gateways  # noqa: E402
from PIL import Image  # noqa: E402

WIDE, NARROW = (1000, 700), (400, 1000)
COLOURS = 200
USERS = 200
PAUSE_S = 0.002  # of a client, between two requests
WATCHED_S = 30  # so that lines have a shape


def take(tab: Tab, name: str, first: str = "", last: str = "") -> None:
    """Write a picture of what the window shows; or of the page from one section to another."""
    path = HERE / f"page-{name}.png"
    if last:
        box = "([first, last]) => [first, last].map(id => document.getElementById(id).closest('section')"
        top, bottom = tab.page.evaluate(
            f"{box}.getBoundingClientRect()).map((box, at) => at ? box.bottom : box.top)", [first, last]
        )
        clip = {"x": 0, "y": top + tab.page.evaluate("scrollY"), "width": WIDE[0], "height": bottom - top + 16}
        tab.page.screenshot(path=path, full_page=True, clip=clip)
    else:
        tab.page.screenshot(path=path)
    picture = Image.open(path).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")


@contextlib.contextmanager
def clients(*groups: tuple[Site, Sequence[str]]) -> Iterator[None]:
    """Meanwhile a client of each group asks its gateway, with one ticket after the other."""
    is_over = threading.Event()

    def ask(at: Site, tickets: Sequence[str]) -> None:
        with at.connect() as client:
            while True:
                for ticket in tickets:
                    if is_over.wait(PAUSE_S):
                        return
                    client.sendall(get(ticket))
                    client.read_response()

    threads = [threading.Thread(target=ask, args=group) for group in groups]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def open_page(tab: Tab, port: int) -> None:
    """With the token typed in."""
    tab.page.goto(f"http://127.0.0.1:{port}/")
    tab.page.fill("#token-text", TOKEN)
    tab.page.keyboard.press("Enter")
    tab.wait("document.querySelectorAll('#gateways tbody tr').length === 2")
    tab.wait("document.querySelectorAll('#ring tbody tr').length === 1")


def look_up(tab: Tab, user: str) -> None:
    """Show a user's sessions."""
    tab.page.fill("#user", user)
    tab.page.press("#user", "Enter")
    tab.wait_text("#sessions-said", f"{user} has ")


def look_at(fleet: TwoGateways, here: Tab, there: Tab) -> None:
    """All pictures."""
    tickets = fleet.log_in(*(f"user{number}" for number in range(USERS)))
    for tab, port in zip((here, there), fleet.ports, strict=True):
        open_page(tab, port)
    take(here, "idle")
    one, two = fleet.gateways
    with clients((one, tickets), (two, tickets), (two, tickets[::-1])):
        here.page.wait_for_timeout(WATCHED_S * 1000)
        take(here, "load")
        here.page.emulate_media(color_scheme="dark")
        take(here, "dark")
        here.page.emulate_media(color_scheme="light")
        here.page.set_viewport_size(dict(zip(("width", "height"), NARROW, strict=True)))
        take(here, "narrow")
        here.page.set_viewport_size(dict(zip(("width", "height"), WIDE, strict=True)))
        fleet.log_in("alice", "alice", "alice")
        look_up(here, "alice")
        look_up(there, "alice")
        here.page.click("#found-sessions tbody tr:first-child button")
        here.page.click("#confirm-yes")
        there.wait_text("#happened tbody", "revoked")
        there.wait_text("#sessions-said", "alice has 2 sessions.")
        take(there, "ended-elsewhere", "sessions", "events")
        fleet.redis.kill()
        here.wait_text("#unknown", "The store has not answered since ")
        here.wait_text("#store-state", "Away for ")
        here.page.wait_for_timeout(WATCHED_S * 100)
        take(here, "store-away", "fleet", "store")


def main() -> None:
    """In a fleet of its own."""
    with tempfile.TemporaryDirectory() as name, two_gateways(Path(name)) as fleet, browser() as running:
        tabs = [Tab(running, *WIDE) for _ in range(2)]
        look_at(fleet, *tabs)
        for tab in tabs:
            tab.close()


if __name__ == "__main__":
    main()
