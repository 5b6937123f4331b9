"""Takes the pictures of the tutorial: `make docs-pictures`.

The real demo, and a real Chromium that does what the tutorial says. A picture that has not changed
is not written.
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
from lab.redis_servers import free_port  # noqa: E402
from PIL import Image, ImageChops  # noqa: E402

from fastticket.commands.cli import main as fastticket  # noqa: E402

SIZE = (760, 480)
COLOURS = 64  # a page has few, and so the file is a third
IS_OUT = "document.querySelector('form') && document.body.innerText.includes('Log in')"
IS_IN = "document.body.innerText.includes('alice')"


def take(tab: Chromium, folder: Path, name: str) -> None:
    """Write a picture, if it differs from the one that is there."""
    shot = folder / f"{name}.png"
    tab.picture(shot)
    picture = Image.open(shot).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    path = HERE / f"{name}.png"
    if path.exists():
        before = Image.open(path).convert("RGB")
        if before.size == picture.size and not ImageChops.difference(before, picture.convert("RGB")).getbbox():
            return
    picture.save(path, optimize=True)
    print(f"{path}: {path.stat().st_size} bytes")


def log_in(tab: Chromium) -> None:
    """As alice, in the page's form."""
    tab.run("document.querySelector('[name=user]').value = 'alice'")
    tab.run("document.querySelector('[name=user]').form.requestSubmit()")
    tab.wait(IS_IN)


def main() -> None:
    """All pictures, in the order of the tutorial."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port, *applications = (free_port() for _ in range(3))
        demo = Process(
            *("demo", "--port", str(port), "--app-ports", ",".join(map(str, applications)), "--dir", "state"),
            cwd=folder,
        )
        try:
            with chromium(folder / "profile") as tab:
                tab.show_as(*SIZE, "light")
                tab.go(f"http://127.0.0.1:{port}/")
                tab.wait(IS_OUT)
                take(tab, folder, "login")
                log_in(tab)
                take(tab, folder, "logged-in")
                fastticket(["revoke", "--user", "alice", "--store", f"sqlite:///{folder}/state/sessions.db"])
                tab.go(f"http://127.0.0.1:{port}/")
                tab.wait(IS_OUT)
                take(tab, folder, "revoked")
        finally:
            demo.end(signal.SIGTERM)
            demo.process.stdout.close()


if __name__ == "__main__":
    main()
