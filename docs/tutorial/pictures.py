"""Takes the pictures of the tutorial: `make docs-pictures`.

The real demo, and a real Chromium that does what the tutorial says. Figures and times in them are
of that run.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from lab.chromium import Chromium, chromium  # noqa: E402
from lab.processes import Process  # noqa: E402
from PIL import Image  # noqa: E402

SIZE = (760, 300)  # the least that a picture has: a page is taken whole
COLOURS = 64  # a page has few, and so the file is a third
IS_OUT = "document.querySelector('[name=user]')"
IS_IN = "document.getElementById('ask-many')"
ARE_COUNTED = "/^Counted/.test(document.getElementById('counted').textContent)"


def take(tab: Chromium, folder: Path, name: str, section: str | None = None) -> None:
    """Write a picture of the page, or of the section that has an element of this id."""
    shot = folder / f"{name}.png"
    tab.picture(shot)
    picture = Image.open(shot).convert("RGB")
    if section:
        box = "const box = document.getElementById(name).closest('section').getBoundingClientRect()"
        edges = "[box.left, box.top, box.right, box.bottom].map((each, at) => each + [scrollX, scrollY][at % 2])"
        picture = picture.crop(tuple(tab.run(f"(name => {{ {box}; return {edges}; }})('{section}')")))
    path = HERE / f"{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")


def main() -> None:
    """All pictures, in the order of the tutorial."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = Process("demo", "--port", "0", "--dir", "state", cwd=folder)
        try:
            with chromium(folder / "profile") as tab:
                look_at_the_demo(tab, folder, "http://{}:{}/".format(*demo.address))
        finally:
            demo.end(signal.SIGTERM)
            demo.process.stdout.close()


def look_at_the_demo(tab: Chromium, folder: Path, url: str) -> None:
    """As the tutorial says."""
    tab.show_as(*SIZE, "light")
    tab.go(url)
    tab.wait(IS_OUT)
    take(tab, folder, "login")
    tab.run("document.querySelector('[name=user]').value = 'alice'")
    tab.run("document.querySelector('[name=user]').form.requestSubmit()")
    tab.wait(IS_IN)
    tab.run("document.getElementById('ask-many').click()")
    tab.wait(ARE_COUNTED)
    take(tab, folder, "answers", "ask-many")
    take(tab, folder, "store", "requests")
    tab.run("document.getElementById('second').click()")
    tab.wait("document.querySelectorAll('#second-answers li').length > 2")
    tab.run("document.querySelector('#sessions tr:last-child button').click()")
    tab.wait("document.querySelector('#second-answers .refused') && document.getElementById('ended').innerText")
    take(tab, folder, "ended", "second")


if __name__ == "__main__":
    main()
