"""The move from Apache Linkis as a whole, under load: fastticket is put in front of two
linkis-gateways, then in their place, then they are gone, and all the way back. Nobody is logged
out, and nobody is let in who should not be.

The gateways and services of Linkis are stand-ins, written from what is known of Linkis
(lab/linkis_service.py): whatever they say is Linkis' judgement, not fastticket's.
"""

import contextlib
import json
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import BOUND_S, Client, status_of
from lab.documents import ROOT
from lab.linkis_tickets import COOKIE, HASH, Tickets, now_ms
from lab.linkis_users import WHO, Crowd, User
from lab.processes import Process, Site
from lab.redis_servers import Server, wait_until

from fastticket.keyfile import create_key_file

SESSIONS = 1000
TIMEOUT_MS = 7_200_000
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
        return self.start(*[("gateway", *self.linkis, *services)] * 2)

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
        upstreams = [{"name": "linkis", "servers": addresses}]
        if in_place:
            upstreams.append({"name": "login", "servers": [f"127.0.0.1:{self.login.address[1]}"]})
        return {
            "gateway": {"listen": ["127.0.0.1:0"]},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": f"redis://{self.redis.address}/0"},
            "upstream": upstreams,
            "route": [
                {"path": "/"},
                {"path": USER, **login},
                {"path": f"{USER}/login", "auth": "optional", "login": True, **login},
            ],
            "migration": [{"source": "linkis", "url": f"redis://{self.redis.address}/0", "until": "2999-01-31"}],
        }

    def start_ours(self):
        sites = []
        create_key_file(self.folder / "keys.toml")
        for number in range(2):
            folder = self.folder / f"gateway{number}"
            folder.mkdir()
            (folder / "keys.toml").write_bytes((self.folder / "keys.toml").read_bytes())
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


def refused(address, user):
    """Whether it is, sooner or later. The lease is 2 s; a busy machine may take longer to ask."""
    return wait_until(lambda: ask(address, User(user.name, **user.cookies))[0] == 401, "it is refused", BOUND_S)


@pytest.fixture
def installation(tmp_path, era, monkeypatch):
    monkeypatch.setenv("LOGIN_PASSWORD", "wonder")
    made = Installation(tmp_path, era)
    with made.exits:
        yield made


@pytest.mark.timeout(300)
@pytest.mark.parametrize("era", ["1.8", "later"])
def test_the_move_logs_nobody_out_and_lets_nobody_in(installation, era):
    users = installation.seed(SESSIONS)
    old = [each.address for each in installation.old]
    with Crowd(users, list(old)) as crowd:
        crowd.go_round()
        assert not crowd.failures

        # In front of the old gateways: first for some of the requests, then for all.
        sites = installation.start_ours()
        ours = [each.address for each in sites]
        crowd.entry = [*old, *ours]
        crowd.go_round()
        crowd.entry = list(ours)
        crowd.go_round()
        assert not crowd.failures
        assert all("ticket" in user.cookies for user in users)
        see_nobody_let_in(installation, ours[0], old)
        see_ends_end_both(installation, ours, old)

        # In their place.
        for site in sites:
            assert site.reload(installation.configuration(in_place=True)).startswith("reloaded")
        crowd.go_round()
        assert not crowd.failures
        see_nobody_let_in(installation, ours[0], old)
        see_login_and_logout_in_place(installation, ours, old)

        # They are gone. Use keeps the old tickets alive: as if the sessions were nearly idle.
        for each in installation.old:
            installation.end(each)
        almost_idle_ms = now_ms() - TIMEOUT_MS * 9 // 10
        installation.hash.hset(HASH, mapping={user.cookies[COOKIE]: almost_idle_ms for user in users})
        crowd.go_round()
        wait_until(
            lambda: all(int(used) > almost_idle_ms for used in installation.hash.hmget(HASH, tickets_of(users))),
            "the last uses are written back",
            2 * BOUND_S,
        )
        assert not crowd.failures

        # And back.
        crowd.entry = [each.address for each in installation.start_old()]
        crowd.go_round()
        assert not crowd.failures


def tickets_of(users):
    return [user.cookies[COOKIE] for user in users]


def see_nobody_let_in(installation, ours, old):
    """Tickets that are none: forged, expired, or of nobody."""
    forged = User("hadoop", **{COOKIE: installation.ticket_of("hadoop")})
    expired = User("erin", **{COOKIE: installation.ticket_of("erin")})
    installation.hash.hset(HASH, expired.cookies[COOKIE], now_ms() - TIMEOUT_MS - 60_000)
    foreign = User("mallory", **{COOKIE: Tickets("1.8", "another-key").make("mallory", now_ms())})
    installation.hash.hset(HASH, foreign.cookies[COOKIE], now_ms())
    for user in (forged, expired, foreign, User("nobody")):
        assert ask(ours, user)[0] == 401, user.name
        assert "ticket" not in user.cookies
        assert ask(old[0], user)[0] == 401, user.name


def see_ends_end_both(installation, ours, old):
    """Two users log in at Linkis, through ours and not; each ends the session on one side."""
    there, here = log_in(old[0], "olga", "olga"), log_in(ours[0], "henry", "henry")
    for user in (there, here):
        assert [ask(address, user)[0] for address in ours] == [200, 200]
        assert "ticket" in user.cookies
    at_the_other = User("olga", **there.cookies)
    assert ask(old[1], at_the_other, f"{USER}/logout")[0] == 200
    before = User("henry", **here.cookies)
    assert ask(ours[1], here, f"{USER}/logout")[0] == 200
    for user in (there, before):
        for address in (*ours, *old):
            assert refused(address, user)


def see_login_and_logout_in_place(installation, ours, old):
    """Our logout ends Linkis' session; a login without Linkis gets a session here."""
    user = log_in(old[0], "ines", "ines")
    assert ask(ours[0], user)[0] == 200
    before = User("ines", **user.cookies)
    assert ask(ours[1], user, f"{USER}/logout")[0] == 200
    for address in (*ours, *old):
        assert refused(address, before)
    newcomer = log_in(ours[0], "nora", "wonder")
    status, said = ask(ours[1], newcomer, f"{USER}/userInfo")
    assert (status, said["data"]) == (200, {"userName": "nora"})
