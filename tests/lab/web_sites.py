"""Real web applications with sessions: those of `peers/session_*.py`, in several processes each, on
one Redis; and visitors of them.
"""

import contextlib
import http.client
import itertools
import json
import os
import subprocess
import sys
from http.cookies import SimpleCookie
from urllib.parse import urlencode

from conftest import BOUND_S

import fastticket
from fastticket.keyfile import create_key_file
from fastticket.sync import TicketCache
from lab.real_programs import PEERS, home, program, serving
from lab.redis_servers import Server, wait_until

#: The options of gunicorn.
WORKERS = {
    "sync": ("--worker-class", "sync"),
    "gthread": ("--worker-class", "gthread", "--threads", "4"),
    "preload": ("--worker-class", "gthread", "--threads", "4", "--preload"),
}


class Visitor:
    """A browser without connections that stay: each request is taken by whichever process is there
    first.

    Several addresses are asked in turns.
    """

    def __init__(self, address, ticket="", *others):
        self._addresses = itertools.cycle([address, *others])
        self._address = address
        self.cookies = {"ticket": ticket}
        self.location = None  # of the last answer

    @property
    def ticket(self):
        return self.cookies.get("ticket", "")

    @ticket.setter
    def ticket(self, ticket):
        self.cookies["ticket"] = ticket

    def ask(self, path, method="GET", form=None):
        """(status, what the answer says). `form`: the fields of one that is sent."""
        said = "; ".join(f"{name}={value}" for name, value in self.cookies.items() if value)
        connection = http.client.HTTPConnection(next(self._addresses), timeout=2 * BOUND_S)
        with contextlib.closing(connection):
            headers = {"Cookie": said} if said else {}
            if form is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
            connection.request(method, path, form and urlencode(form), headers)
            response = connection.getresponse()
            body = response.read()
        cookies = SimpleCookie()
        for line in response.headers.get_all("Set-Cookie") or ():
            cookies.load(line)
        self.cookies |= {name: cookie.value for name, cookie in cookies.items()}
        self.location = response.headers["Location"]
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(body) if is_json and body else body

    def get(self, path):
        """The value in the answer, which is a good one."""
        status, said = self.ask(path)
        assert status == 200, said
        return said["value"]

    def get_of_each(self, path, processes=2):
        """The values that so many processes answer with; each is asked with the ticket of now,
        whatever the others say of it.
        """
        values = {}

        def have_all_answered():
            asking = Visitor(self._address)
            asking.cookies = dict(self.cookies)
            status, said = asking.ask(path)
            assert status == 200, said
            values[said["process"]] = said["value"]
            return len(values) == processes

        wait_until(have_all_answered, f"{processes} processes answer")
        return list(values.values())


class Place:
    """A Redis, a key file, and servers of a folder of their own that use both."""

    def __init__(self, folder):
        self._folder = folder
        self.redis = Server(folder)
        create_key_file(folder / "keys.toml")

    def settings(self, **more):
        # Redis may have to wait for a processor; one that is dead refuses at once.
        return {
            "store": f"redis://{self.redis.address}/0?timeout_ms=10000",
            "keys": str(self._folder / "keys.toml"),
            **more,
        }

    def gunicorn(self, application, worker="sync", *, processes=2, **settings):
        """`with place.gunicorn("session_flask", "sync") as address`."""
        options = ("--chdir", PEERS, "--log-level", "warning", "--workers", processes, *WORKERS[worker])
        command = (program("gunicorn"), *options, f"{application}:application", "--bind")
        environment = self._environment(settings)
        return serving(lambda fd: [*command, f"fd://{fd}"], self._folder, environment=environment)

    def django(self, worker="sync", *, users=("alice", "bob"), secret="of one project", environment=None, **options):
        """A project with its own users."""
        database = str(self._folder / secret)
        own = {"DJANGO_DATABASE": database, "DJANGO_SECRET": secret, **(environment or {})}
        if not os.path.exists(database):
            prepare = f"import django_application; django_application.prepare(*{users!r})"
            environment = {**os.environ, **self._environment({}), **own}
            subprocess.run([sys.executable, "-c", prepare], cwd=PEERS, env=environment, check=True, timeout=4 * BOUND_S)
        return self.gunicorn("session_django", worker, environment=own, **options)

    def uvicorn(self, application, *, processes=2, **settings):
        options = ("--app-dir", PEERS, "--log-level", "warning", "--workers", processes)
        command = (program("uvicorn"), *options, f"{application}:application", "--fd")
        return serving(lambda fd: [*command, fd], self._folder, environment=self._environment(settings))

    def _environment(self, settings):
        own = settings.pop("environment", {})
        return {**home(self._folder), "FASTTICKET": json.dumps(self.settings(**settings)), **own}

    @contextlib.contextmanager
    def cache(self, **settings):
        """A cache of the same sessions in this process."""
        said = self.settings(**settings)
        keys = fastticket.Keyring.from_file(said.pop("keys"))
        with TicketCache(fastticket.open_store(said.pop("store")), keys, **said) as cache:
            yield cache
