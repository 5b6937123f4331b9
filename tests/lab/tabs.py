"""Tabs of a real Chromium, driven by Playwright, and axe-core, which looks for what a screen reader
or a keyboard would stumble over.

Playwright brings no browser along here: it drives the system's.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from importlib.resources import files

from conftest import BOUND_S
from playwright.sync_api import Browser, Page, sync_playwright

from lab.real_programs import program

LOOK_MS = 50
#: WCAG 2.2 up to AA, and what axe's authors recommend.
RULES = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "rules": {"label-content-name-mismatch": {"enabled": True}},  # WCAG 2.5.3, which axe has as experimental
}


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser, for tabs with cookies of their own. While it runs, no `asyncio.run` is possible in
    this thread.
    """
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program("chromium"), args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()


class Tab:
    """`said`: what its console has shown in red; `asked`: every address that it has asked for."""

    def __init__(self, running: Browser, width: int = 1200, height: int = 900) -> None:
        self._context = running.new_context(viewport={"width": width, "height": height}, reduced_motion="reduce")
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(3 * BOUND_S * 1000)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda line: self.said.append(line.text) if line.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def close(self) -> None:
        self._context.close()

    def flaws(self) -> list[str]:
        """What axe-core finds in the page as it is now."""
        self.page.evaluate(files("axe_core_python").joinpath("axe.min.js").read_text())
        found = self.page.evaluate("rules => axe.run(document, rules)", RULES)
        return [f"{each['id']}: {node['html']}" for each in found["violations"] for node in each["nodes"]]

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def wait(self, condition: str) -> None:
        """Until an expression is true in the page. Playwright's own way to wait asks the page to
        evaluate it, which its policy forbids.
        """
        give_up_at_s = time.monotonic() + 3 * BOUND_S
        while not self.page.evaluate(condition):
            shown = self.page.inner_text("body") if time.monotonic() > give_up_at_s else None
            assert shown is None, f"not in {3 * BOUND_S:g} s: {condition}; {shown}"
            self.page.wait_for_timeout(LOOK_MS)

    def wait_text(self, selector: str, text: str) -> None:
        """Until an element has this text in it."""
        self.wait(f"document.querySelector({json.dumps(selector)})?.textContent.includes({json.dumps(text)})")

    @property
    def is_too_wide(self) -> bool:
        """Whether one would have to scroll sideways."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))
