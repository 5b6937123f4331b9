"""An installation of Linkis as processes, its users' tickets in Redis, and gateways of ours before
it or in its place.
"""

import contextlib
import json
import signal
from concurrent.futures import ThreadPoolExecutor

from conftest import Client, status_of

from fastticket.keyfile import create_key_file
from lab.documents import ROOT
from lab.linkis_tickets import COOKIE, HASH, Tickets, now_ms
from lab.linkis_users import WHO, User
from lab.processes import Process, Site
from lab.redis_servers import Server

TIMEOUT_MS = 7_200_000
TOKEN = "LINKIS_CLI-AUTH"
TOKENS = f"token_name,legal_users,legal_hosts,create_time,elapse_day\n{TOKEN},*,127.0.0.1,2022-01-01,-1\n"
USER = "/api/rest_j/v1/user"
STAND_IN = (str(ROOT / "tests/lab/linkis_service.py"),)
LOGIN_SERVICE = (str(ROOT / "examples/linkis/login.py"), "0")


class Installation:
    """Redis, services, gateways, and gateways of ours, all ended with it."""

    def __init__(self, folder, era):
        self.folder = folder
        self.tickets = Tickets(era)
        self.redis = Server(folder)
        self.exits = contextlib.ExitStack()
        self.exits.callback(self.redis.kill)
        # Python takes its time to start. A process ends with the thread that has started it.
        self.threads = self.exits.enter_context(ThreadPoolExecutor())
        self.hash = self.exits.enter_context(contextlib.closing(self.redis.client()))
        self.linkis = ("--redis", str(self.redis.port), "--era", era, "--timeout-ms", str(TIMEOUT_MS))
        self.services = self.start(*[("service", *self.linkis, "--name", f"service{n}") for n in range(2)])
        (self.login,) = self.start((), program=LOGIN_SERVICE)
        self.old = self.start_old()

    def start(self, *commands, program=STAND_IN):
        made = list(self.threads.map(lambda words: Process(*words, cwd=self.folder, program=program), commands))
        for each in made:
            self.exits.callback(self.end, each)
        return made

    def start_old(self):
        services = [word for each in self.services for word in ("--service", f"127.0.0.1:{each.address[1]}")]
        return self.start(*[("gateway", *self.linkis, *services, "--token", TOKEN)] * 2)

    def end(self, process):
        if process.process.poll() is None:
            process.end(signal.SIGTERM)
        process.process.stdout.close()

    def seed(self, count):
        """Users who are logged in: their tickets are in the hash."""
        users = [User(f"user{n}", **{COOKIE: self.ticket_of(f"user{n}")}) for n in range(count)]
        self.hash.hset(HASH, mapping={user.cookies[COOKIE]: now_ms() - 1000 for user in users})
        return users

    def ticket_of(self, user, login_ms=None):
        return self.tickets.make(user, login_ms or now_ms())

    def configuration(self, *, in_place):
        """Of a gateway of ours: before the old gateways, or in their place."""
        addresses = [f"127.0.0.1:{each.address[1]}" for each in (self.services if in_place else self.old)]
        login = {"upstream": "login"} if in_place else {}
        url = f"redis://{self.redis.address}/0?timeout_ms=5000"  # it may have to wait for a processor
        kind = {"1.8": "des", "later": "aes-gcm"}[self.tickets.era] if in_place else ""
        upstreams = [{"name": "linkis", "servers": addresses, "linkis_ticket": kind}]
        if in_place:
            upstreams.append({"name": "login", "servers": [f"127.0.0.1:{self.login.address[1]}"]})
        return {
            "gateway": {"listen": ["127.0.0.1:0"]},
            "ticket": {"keys": "keys.toml"},
            "tokens": {"file": "tokens.csv", "forward": not in_place},
            "store": {"url": url},
            "upstream": upstreams,
            "route": [
                {"path": "/"},
                {"path": USER, **login},
                {"path": f"{USER}/login", "auth": "optional", "login": True, **login},
            ],
            "migration": [{"source": "linkis", "url": url, "until": "2999-01-31"}],
        }

    def start_ours(self):
        sites = []
        create_key_file(self.folder / "keys.toml")
        for number in range(2):
            folder = self.folder / f"gateway{number}"
            folder.mkdir()
            (folder / "keys.toml").write_bytes((self.folder / "keys.toml").read_bytes())
            (folder / "tokens.csv").write_text(TOKENS)
            sites.append(Site(folder, self.configuration(in_place=False)))
            self.exits.callback(sites[-1].stop)
        return sites


def ask(address, user, path=WHO, method="GET", body=b"", *fields):
    """(status, what it says) of one request; the cookies are kept."""
    with Client(address) as client:
        client.sendall(user.request(path, method, body, *fields))
        head, said = client.read_response()
    user.keep(head.decode("latin-1"))
    return status_of(head), json.loads(said)


def log_in(address, name, password):
    user = User(name)
    body = json.dumps({"userName": name, "password": password}).encode()
    assert ask(address, user, f"{USER}/login", "POST", body)[0] == 200
    return user
