"""No spelling of a path reaches a protected resource through a route that needs no ticket.

Rule: nobody here has a ticket. So nothing that arrives at the service may need one, whichever way
it is read there: path_readers.py knows the ways.
"""

import contextlib
import itertools
import socket
from collections import Counter
from dataclasses import dataclass
from urllib.parse import quote

import pytest
from conftest import Gateway, Origin, gateways, origins, status_of
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.attack_corpus import ATTACKS
from lab.http_grammar import FACTOR
from lab.path_corpus import AFTER, BEFORE, LAYOUTS, NOT_PUBLIC, PUBLIC, SLASHES
from lab.path_readers import STEPS, before_query, readings


@dataclass
class Site:
    """A gateway with the routes of a layout, and the service behind it."""

    routes: dict[str, str]
    gateway: Gateway
    behind: Origin

    def needs_ticket(self, path):
        above = [route for route in self.routes if f"{path}/".startswith(f"{route.rstrip('/')}/")]
        return bool(above) and self.routes[max(above, key=len)] == "required"

    def send(self, raw):
        """The status of the first answer. AssertionError: something arrived that needs a ticket."""
        self.behind.requests.clear()
        with self.gateway.connect() as client:
            with contextlib.suppress(ConnectionError):
                client.sendall(raw)
                client.shutdown(socket.SHUT_WR)
            status = status_of(client.read_all())
        for head, _ in self.behind.requests:
            target = head.split(b" ")[1].decode("latin-1")
            assert not any(map(self.needs_ticket, self.readings(target))), target
        return status

    def ask(self, target):
        return self.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode("latin-1"))

    def readings(self, target):
        return readings(target.partition("?")[0])


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """`sites(routes)`, one for each layout."""
    with origins() as start_origin, gateways(tmp_path_factory.mktemp("sites")) as start_gateway:

        def start(routes):
            behind = start_origin()
            tables = [{"path": path, "auth": auth} for path, auth in routes.items()]
            return Site(routes, start_gateway(behind, routes=tables), behind)

        yield start


@pytest.fixture(scope="module", params=LAYOUTS)
def site(sites, request):
    return sites(LAYOUTS[request.param])


# ---------------------------------------------------------------------------------------- spellings

WANTED = ["/private", "/private/key", "/private/open/not", "/private/open/../key", "/open/../private"]


def spelled(character):
    """Mostly as it is: of two oddities, one is enough to be refused."""
    code = ord(character)
    odd = [f"%{code:02x}", f"%{code:02X}", f"%25{code:02x}", f"%u00{code:02x}", character.swapcase()]
    return st.sampled_from(SLASHES if character == "/" else [character] * 20 + odd)


@st.composite
def targets(draw):
    wanted = draw(st.sampled_from(WANTED))
    path = "".join(draw(spelled(character)) for character in wanted)
    return draw(st.sampled_from(BEFORE)) + path + draw(st.sampled_from(AFTER))


# -------------------------------------------------------------------------------------------- tests


@given(target=targets())
@settings(deadline=None, max_examples=int(1000 * FACTOR) + 1)
def test_spellings_that_hypothesis_makes(site, target):
    site.ask(target)


def test_every_slash_between_every_beginning_and_end(site):
    counts = Counter()
    for before, slash, after in itertools.product(BEFORE, SLASHES, AFTER[: int(len(AFTER) * min(FACTOR, 1)) + 1]):
        counts[site.ask(f"{before}{slash}private{after}")] += 1
    assert counts[401] > counts.total() * 0.3, counts  # these are well formed, and may go nowhere
    assert set(counts) <= {200, 400, 401}


@pytest.mark.parametrize("protected", ["/x", "/b", "/smug"])
def test_attacks_without_a_ticket(sites, protected):
    site = sites({"/": "none", protected: "required"})
    counts = Counter(site.send(attack.raw()) for attack in ATTACKS)
    assert counts[400] > 100


def test_what_needs_no_ticket_is_forwarded(sites):
    site = sites(LAYOUTS["nested"])
    for target in (
        "/",
        "/open",
        "/privat",
        "/privately",
        "/a/private",
        "/%6fpen",
        "/private/open",
        "/private/%6Fpen/x?/..",
    ):
        assert site.ask(target) == 200
    for target in (
        "/private",
        "/private/",
        "/%70rivate",
        "http://a/private",
        "/private/open/not/",
        "/private/open/no%74",
    ):
        assert site.ask(target) == 401


@pytest.mark.parametrize("layout", LAYOUTS)
def test_public_pages_in_every_language(sites, layout):
    """The service gets the path that was asked for, byte by byte; access is decided by every
    reading of it.
    """
    site = sites(LAYOUTS[layout])
    for path in PUBLIC[layout]:
        target = quote(path, safe="/%;=")
        assert site.ask(target) == 200, target
        assert site.behind.requests[-1][0].startswith(f"GET {target} HTTP".encode())
    for path in NOT_PUBLIC[layout]:
        assert site.ask(quote(path, safe="/%;=")) == 401, path


@pytest.mark.parametrize("escape", ["%3f", "%3Fx", "%23", "%23x"])
def test_a_service_that_decodes_before_it_looks_for_the_query(sites, escape, monkeypatch):
    """As CVE-2024-38474 (mod_rewrite): `/private%3f` becomes `/private?`, and that is /private."""
    site = sites(LAYOUTS["exempt around"])
    monkeypatch.setattr(site, "readings", lambda target: readings(target.partition("?")[0], [*STEPS, before_query]))
    site.ask(f"/private{escape}")
