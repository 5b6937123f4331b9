"""Applications as a page of the documents shows them: its files in a folder, its commands typed
there, its servers as real processes on a Redis of the test; and a shopper who clicks.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from conftest import BOUND_S

from lab.documents import ROOT
from lab.real_programs import home, serving
from lab.redis_servers import Server
from lab.snippets import Snippet, commands
from lab.web_sites import Visitor

SHOWN_REDIS = "127.0.0.1:6379"
TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')


class ShownSite:
    """`said`: what the page shows. `files`: those that it names, which are there already."""

    def __init__(self, said: list[Snippet], files: list[Path], folder: Path) -> None:
        self.said = said
        self.folder = folder
        self.redis = Server(folder)
        self.environment = {
            **os.environ,
            **home(folder),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
        }
        for name in ("DJANGO_SETTINGS_MODULE", "FASTTICKET", "FASTTICKET_KEYS"):
            self.environment.pop(name, None)
        for path in files:
            path.write_text(self.with_redis(path.read_text()))

    def with_redis(self, text: str) -> str:
        """The text, with the Redis that is there, which may have to wait for a processor."""
        return re.sub(rf"{SHOWN_REDIS}/(\d)", rf"{self.redis.address}/\1?timeout_ms=10000", text)

    def begun_by(self, first_line: str) -> str:
        """The block of Python that begins with this comment."""
        return next(text for _, _, text in self.said if text.startswith(first_line))

    def commands(self) -> list[tuple[str, str]]:
        """All that is typed into a terminal, and what it prints."""
        return [pair for language, _, text in self.said if language == "console" for pair in commands(text)]

    def run(self, word: str, **places: str) -> None:
        """Type the commands with this word, in their order; they print what the page shows.
        `places`: what is served where, by the port that the page has.
        """
        typed = [pair for pair in self.commands() if word in pair[0]]
        assert typed, word
        for command, printed in typed:
            for port, address in places.items():
                command = command.replace(f"127.0.0.1:{port.removeprefix('port')}", address)
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=3 * BOUND_S,
                check=False,
            )
            assert done.returncode == 0, (command, done.stdout)
            for line in printed.splitlines():
                assert line in done.stdout, (command, done.stdout)
            if "curl" in command:
                assert done.stdout.splitlines() == printed.splitlines()

    def serve(self, application: str, port: int = 8001):
        """`with site.serve("shop:app") as address`: as the page's command for this port serves
        it; an application that has none is served as the others.
        """
        typed = [shlex.split(command) for command, _ in self.commands() if command.startswith("gunicorn")]
        command = next(words for words in typed if f"127.0.0.1:{port}" in words)

        def with_place(descriptor):
            return [
                f"fd://{descriptor}" if word == f"127.0.0.1:{port}" else word for word in [*command[:-1], application]
            ]

        return serving(with_place, self.folder, environment=self.environment)


class Shopper(Visitor):
    """A browser that sends forms, goes where it is redirected to, and asks one server after the
    other.
    """

    def __init__(self, *addresses):
        first, *others = addresses
        super().__init__(first, "", *others)
        self.page = ""

    def look(self, path="/"):
        """The page, which is a good one."""
        status, body = self.ask(path)
        assert status == 200, body
        self.page = body.decode()
        return self.page

    def click(self, path, **form):
        """The page to which the form leads: another server makes it."""
        token = TOKEN.search(self.page)
        fields = {"csrfmiddlewaretoken": token[1]} if token else {}
        status, body = self.ask(path, "POST", {**fields, **form})
        assert status in (302, 303), (status, body)
        return self.look(self.location)


def lines_of(page):
    """The lines that are seen of a page of these shops."""
    return re.findall(r"<p>(.*)</p>", page)


def shop_by_turns(shopper, log_in, log_out):
    """A visitor's cart, the login, a user's cart, the logout: each page is made by another server
    than the one before, and each message is shown once.
    """
    took = []
    for user in ("nobody", "alice"):
        if user == "alice":
            log_in(shopper)
        for item in ("tea", "milk", "bread"):  # an odd number of requests each: every server gets every part
            took.append(item)
            has = f"{user} has {' and '.join(took)}"
            shopper.look()
            assert lines_of(shopper.click("/cart", item=item)) == [f"You took {item}", has]
            assert lines_of(shopper.look()) == [has]
            assert lines_of(shopper.look()) == [has]
    log_out(shopper)
    for _ in range(2):
        assert lines_of(shopper.look()) == ["nobody has nothing"]
