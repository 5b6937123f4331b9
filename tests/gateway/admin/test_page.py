"""The page of the admin listener, in a real Chromium: two gateways on one Redis, and an operator
who has a keyboard, a screen reader, a telephone.
"""

import contextlib
import json
import re
import socket
import socketserver
import threading
import time
from urllib.parse import urlsplit

import pytest
from conftest import BOUND_S, status_of
from lab.operators import Operator
from lab.redis_servers import free_port, wait_until
from lab.tabs import Tab, browser
from lab.traffic import get
from lab.two_gateways import TOKEN, two_gateways
from playwright.sync_api import Error
from whole.emergencies import ROWS

from fastticket import Keyring
from fastticket.gateway.admin.page import POLICY, page_files
from fastticket.keyfile import create_key_file, read_ring

MANY = 500


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with two_gateways(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def look(fleet, chromium):
    """`look(number)`: a tab with the page of a gateway, with the token typed in."""
    tabs = []

    def open_tab(number=0, token=TOKEN, **size):
        tab = Tab(chromium, **size)
        tabs.append(tab)
        tab.page.goto(f"http://127.0.0.1:{fleet.ports[number]}/")
        tab.page.wait_for_selector("#token:not([hidden])")
        if token:
            tab.page.fill("#token-text", token)
            tab.page.keyboard.press("Enter")
            tab.wait("document.querySelectorAll('#gateways tbody tr').length === 2")
        return tab

    yield open_tab
    for tab in tabs:
        tab.close()


def rows(tab, table):
    """The text of each row's cells."""
    read = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    return tab.page.eval_on_selector_all(f"#{table} tbody tr", read)


class Held:
    """The first request for an address that the page makes: its answer is held back. `early`: the
    gateway answers at once; otherwise it is not asked before `release`.
    """

    def __init__(self, tab, address, *, early=False):
        self._page = tab.page
        self._route = self._answer = None
        self._early = early
        tab.page.route(address, self._take)

    def _take(self, route):
        if self._route:
            route.continue_()
            return
        self._route = route
        if self._early:
            self._answer = route.fetch()

    def wait(self):
        """Until the request has been made; `early`: and answered."""
        taken = lambda: self._answer if self._early else self._route  # noqa: E731
        wait_until(lambda: self._page.wait_for_timeout(20) or taken(), "the request", BOUND_S)

    def release(self, **changed):
        """With the answer of the gateway, or with `changed`; until the page has seen it."""
        self.wait()
        if self._early or changed:
            self._route.fulfill(response=self._answer, **changed)
        else:
            self._route.continue_()
        request = self._route.request
        wait_until(lambda: self._page.wait_for_timeout(20) or request.response(), "the answer", BOUND_S)
        request.response().finished()
        self._page.evaluate("fetch('/page/icon.svg').then(answer => answer.text())")


def search(tab, user):
    tab.page.fill("#user", user)
    tab.page.press("#user", "Enter")


def end_by_keyboard(tab, button):
    """Press a button that asks first: Escape leaves everything as it is. It may ask once more."""
    for keys in (("Escape",), ("Tab", "Enter")):
        tab.page.focus(button)
        tab.page.keyboard.press("Enter")
        tab.wait("document.activeElement.id === 'confirm-no'")
        asked = json.dumps(tab.text("#confirm-what"))
        for key in keys:
            tab.page.keyboard.press(key)
        tab.wait(
            f"!document.getElementById('confirm').open || document.getElementById('confirm-what').innerText !== {asked}"
        )
        yield keys


def test_the_page_asks_for_a_token_and_keeps_it_to_itself(fleet, look):
    tab = look(token="")
    assert tab.flaws() == []
    assert not tab.page.is_visible("#known")
    tab.page.fill("#token-text", "y" * 40)
    tab.page.keyboard.press("Enter")
    tab.wait_text("#token-refused", "does not know this token")
    assert tab.page.evaluate("document.activeElement.id") == "token-text"
    tab.page.fill("#token-text", TOKEN)
    tab.page.keyboard.press("Enter")
    tab.wait("document.querySelectorAll('#gateways tbody tr').length === 2")
    assert not tab.page.is_visible("#token")
    kept = "JSON.stringify([localStorage, sessionStorage, document.cookie, location.href, document.body.innerHTML])"
    assert TOKEN not in tab.page.evaluate(kept)
    assert [said for said in tab.said if "401" not in said] == []
    tab.page.reload()
    tab.page.wait_for_selector("#token:not([hidden])")


def test_all_that_the_page_needs_is_here_and_its_policy_refuses_the_rest(fleet, look):
    tab = look()
    here = f"http://127.0.0.1:{fleet.ports[0]}/"
    assert [url for url in tab.asked if not url.startswith(here)] == []
    assert {f"/{url.removeprefix(here)}" for url in tab.asked} >= page_files().keys()
    assert tab.page.request.get(here).headers["content-security-policy"] == POLICY
    tab.page.evaluate("document.body.setAttribute('style', 'display: none')")
    assert tab.page.is_visible("h1")
    for intruder in ("document.body.innerHTML = '<img>'", "document.createElement('script').text = 'alert(1)'"):
        with pytest.raises(Error, match="requires 'Trusted"):
            tab.page.evaluate(intruder)


def test_everybody_can_read_it(fleet, look):
    """Light and dark, on a desktop and on a telephone: nothing that axe-core knows is wrong, and
    nobody scrolls sideways.
    """
    (ticket,) = fleet.log_in("zoe")
    assert status_of(fleet.gateways[0].ask(get(ticket))[0]) == 200
    tab = look()
    tab.page.fill("#user", "zoe")
    tab.page.press("#user", "Enter")
    tab.wait("document.querySelectorAll('#found-sessions tbody tr').length > 0")
    tab.wait("document.querySelectorAll('#ring tbody tr').length > 0")
    tab.page.click("#charts details summary")
    assert "all gateways: now" in tab.page.get_attribute("#charts svg[role=img]", "aria-label")
    assert tab.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    for width, scheme in ((1200, "light"), (1000, "light"), (400, "dark")):
        tab.page.set_viewport_size({"width": width, "height": 800})
        tab.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert tab.flaws() == []
        assert not tab.is_too_wide
        tab.page.click("#end-all")
        assert tab.flaws() == []
        tab.page.click("#confirm-no")


class Tunnel(socketserver.ThreadingTCPServer):
    """As `ssh -L PORT:PATH`: to a Unix socket, as this user."""

    daemon_threads = allow_reuse_address = True

    def __init__(self, path):
        super().__init__(("127.0.0.1", 0), None)
        self._path = path
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, request, client_address):
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(self._path)
            back = threading.Thread(target=self._pass_on, args=(other, request))
            back.start()
            self._pass_on(request, other)
            back.join()

    @staticmethod
    def _pass_on(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_through_a_tunnel_to_the_unix_socket_no_token_is_needed(site, origin, chromium, tmp_path):
    create_key_file(tmp_path / "keys.toml")
    site(
        {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": "unix:admin.sock"},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "app", "servers": [origin().address]}],
            "route": [{"path": "/"}],
        }
    )
    with Tunnel(str(tmp_path / "admin.sock")) as tunnel:
        tab = Tab(chromium)
        tab.page.goto(f"http://localhost:{tunnel.server_address[1]}/")
        tab.wait("document.querySelectorAll('#gateways tbody tr').length === 1")
        tab.wait("document.getElementById('events-note').hidden")
        assert not tab.page.is_visible("#token")
        assert tab.said == []
        tab.close()
        tunnel.shutdown()


def test_what_is_ended_at_one_gateway_is_seen_on_the_page_of_another(fleet, look):
    """With the keyboard alone. The session is over at both gateways."""
    tickets = fleet.log_in(*["alice"] * 3)
    here, there = look(0), look(1)
    for tab in (here, there):
        tab.wait("document.getElementById('events-note').hidden")
        tab.page.fill("#user", "alice")
        tab.page.press("#user", "Enter")
        tab.wait_text("#sessions-said", "alice has 3 sessions.")
    button = "#found-sessions tbody tr:first-child button"
    for keys in end_by_keyboard(here, button):
        if "Enter" in keys:
            here.wait_text("#changed", "By you: Ended the session ")
            here.wait("document.querySelectorAll('#found-sessions tbody tr').length === 2")
        assert len(rows(here, "found-sessions")) == (2 if "Enter" in keys else 3)
    there.wait_text("#happened tbody", "revoked")
    there.wait_text("#sessions-said", "alice has 2 sessions.")
    assert [row[1:3] + row[4:5] for row in rows(there, "happened")] == [["revoked", "alice", "revoked"]]
    for keys in end_by_keyboard(here, "#end-all"):
        if "Enter" in keys:
            here.wait_text("#changed", "By you: Ended 2 sessions of alice.")
            here.wait_text("#sessions-said", "alice has no sessions.")
    there.wait_text("#sessions-said", "alice has no sessions.")
    here.wait("document.activeElement !== document.body")  # once the page's own look is answered, too

    def is_over(at, ticket):
        return status_of(at.ask(get(ticket))[0]) == 401

    for at in fleet.gateways:
        for ticket in tickets:
            wait_until(lambda at=at, ticket=ticket: is_over(at, ticket), "it is over", BOUND_S)


def test_a_server_is_drained_and_put_back(fleet, look):
    tab = look()
    tab.wait("document.querySelectorAll('#servers tbody tr').length === 2")
    server = rows(tab, "servers")[0][0]
    tab.page.click("#servers tbody tr:first-child button")
    tab.page.click("#confirm-yes")
    tab.wait_text("#servers tbody tr:first-child", "drained")
    tab.wait_text("#changed", f"Server {server} of app: drained, before: up")
    tab.page.click("#servers tbody tr:nth-child(2) button")
    tab.page.click("#confirm-yes")
    tab.wait_text("#upstreams-said", "is as before: ")
    tab.page.click("#servers tbody tr:first-child button")
    both = "[...document.querySelectorAll('#servers tbody tr')].map(row => row.cells[2].innerText.trim())"
    tab.wait(f"{both}.join() === 'up,up'")


def test_the_button_that_ends_all_is_of_the_user_who_is_looked_for(fleet, look):
    """Nothing of somebody else is there while the answer is on its way, or does not come."""
    fleet.log_in("ada", "ada", "ben")
    tab = look()
    search(tab, "ada")
    tab.wait_text("#end-all", "End all 2 sessions of ada")
    late = Held(tab, "**/principals/ben/sessions")
    search(tab, "ben")
    late.wait()
    assert not tab.page.is_visible("#found")
    later = Held(tab, "**/principals/ben/sessions")  # two seconds on, whenever this test goes on
    late.release(status=503, json={"error": "store_unavailable", "message": "The store is away."})
    tab.wait_text("#sessions-said", "The sessions of ben are not known: The store is away.")
    assert not tab.page.is_visible("#found")
    later.release()
    tab.wait_text("#end-all", "End the session of ben")  # asked for again
    assert tab.page.is_visible("#found")


def test_an_older_answer_does_not_take_the_place_of_a_newer(fleet, look):
    """And what was ended stands there until somebody else is looked for."""
    tab = look()
    tab.wait("document.getElementById('events-note').hidden")
    fleet.log_in("carol")
    late = Held(tab, "**/principals/carol/sessions", early=True)
    search(tab, "carol")
    late.wait()
    fleet.log_in("carol")
    tab.wait_text("#sessions-said", "carol has 2 sessions.")
    late.release()
    assert tab.text("#sessions-said") == "carol has 2 sessions."
    for keys in end_by_keyboard(tab, "#end-all"):
        if "Enter" in keys:
            tab.wait_text("#sessions-said", "Ended 2 sessions of carol. carol has no sessions.")
    fleet.log_in("carol")
    tab.wait_text("#sessions-said", "carol has one session.")
    assert tab.text("#sessions-said").startswith("Ended 2 sessions of carol.")
    search(tab, "dave")
    tab.wait("document.querySelector('#sessions-said').textContent === 'dave has no sessions.'")


def test_a_late_answer_changes_nothing_while_the_page_is_paused_or_locked(fleet, look):
    tab = look()
    for stop in ("paused", "locked"):
        tab.wait_text("#fresh", "As of ")
        late = Held(tab, "**/v1/status", early=True)
        late.wait()
        if stop == "paused":
            tab.page.click("#pause")
        else:
            tab.page.route("**/v1/upstreams", lambda route: route.continue_(headers={}))
            tab.page.wait_for_selector("#token:not([hidden])")
        late.release()
        assert tab.text("#fresh").startswith("Paused at ") == (stop == "paused")
        assert tab.page.is_visible("#known") == (stop == "paused")
        tab.page.unroute_all()
        tab.page.click("#pause")


def test_who_typed_a_token_in_is_not_refused_for_what_was_asked_before(fleet, look):
    tab = look(token="")
    late = Held(tab, "**/v1/keys", early=True)
    tab.page.reload()
    tab.page.wait_for_selector("#token:not([hidden])")
    tab.page.fill("#token-text", TOKEN)
    tab.page.keyboard.press("Enter")
    tab.wait("document.querySelectorAll('#gateways tbody tr').length === 2")
    late.release()
    tab.wait("document.querySelectorAll('#ring tbody tr').length === 1")
    assert not tab.page.is_visible("#token")


def test_a_stream_that_does_not_begin_is_asked_for_again(fleet, look):
    tab = look(token="")
    tab.page.clock.install()
    tab.page.reload()
    tab.page.wait_for_selector("#token:not([hidden])")
    silent = Held(tab, "**/v1/events?*")
    tab.page.fill("#token-text", TOKEN)
    tab.page.keyboard.press("Enter")
    silent.wait()
    tab.page.clock.pause_at(tab.page.evaluate("Date.now()") / 1000 + 20)  # what is said stands until it is seen
    tab.wait_text("#events-note", "Events are not known: the gateway does not answer.")
    tab.page.clock.fast_forward("02")
    tab.wait("document.getElementById('events-note').hidden")


def test_a_reload_that_ends_takes_the_focus_from_nobody(fleet, look):
    """Enter would begin it anew. (The file on disk is the second gateway's.)"""
    tab = look(1)
    for then in ("user", "reload"):
        late = Held(tab, "**/v1/reload")
        tab.page.focus("#reload")
        tab.page.keyboard.press("Enter")
        late.wait()
        tab.page.keyboard.press("Enter")  # does nothing meanwhile
        if then == "user":
            assert tab.flaws() == []
            tab.page.focus("#user")
        late.release()
        tab.wait_text("#gateway-said", "Reloaded: ")
        tab.wait("!document.getElementById('reload').ariaDisabled")
        assert tab.page.evaluate("document.activeElement.id") == then
        tab.page.unroute_all()
    assert sum(url.endswith("/v1/reload") for url in tab.asked) == 2


@pytest.fixture
def alone(site, origin, chromium, tmp_path):
    """A gateway whose configuration and keys are its own, and a tab with its page."""
    create_key_file(tmp_path / "keys.toml")
    (tmp_path / "tokens").write_text(f"olga {TOKEN}\n")
    (tmp_path / "tokens").chmod(0o600)
    admin = f"127.0.0.1:{free_port()}"
    listener = {"admin": admin, "admin_token_file": "tokens", "admin_audit_log": "audit"}
    at = site(
        {
            "gateway": {"listen": ["127.0.0.1:0"], "drain_timeout_s": 2.0, **listener},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "partner", "servers": [origin().address]}],
            "route": [{"path": "/"}],
        }
    )
    tab = Tab(chromium)
    tab.page.goto(f"http://{admin}/")
    tab.page.fill("#token-text", TOKEN)
    tab.page.keyboard.press("Enter")
    tab.wait("document.querySelectorAll('#ring tbody tr').length === 1")
    yield at, tab
    tab.close()


def check_audited(at, *wanted):
    """The audit log has these changes of olga's, (what, result), and no others: it is written a
    moment after the answer.
    """

    def audited():
        lines = [json.loads(line) for line in (at.folder / "audit").read_text().splitlines()]
        return [(line["who"]["name"], line["audit"], line["result"]) for line in lines]

    wait_until(lambda: audited() == [("olga", *each) for each in wanted], "the audit log", BOUND_S)


def test_keys_are_added_promoted_and_retired_with_the_keyboard(alone):
    at, tab = alone
    ring = Keyring.from_file(at.folder / "keys.toml")
    assert status_of(at.ask(get(ring.mint("alice", time.time_ns() // 1_000_000, 60, 60)))[0]) == 401
    tab.page.focus("#add-key")
    tab.page.keyboard.press("Enter")
    tab.wait_text("#keys-said", "Key 2 is added.")
    tab.wait("document.querySelectorAll('#ring tbody tr').length === 2")
    in_order = [["2", "verifies"], ["1", "signs"]]  # as in the file, and in `keys list`
    shown = lambda: tab.page.wait_for_timeout(50) or [row[:2] for row in rows(tab, "ring")]  # noqa: E731
    wait_until(lambda: shown() == in_order, "the keys; a look may have seen one that was not loaded yet", BOUND_S)
    for keys in end_by_keyboard(tab, "#ring [aria-label='Promote key 2']"):
        if "Enter" in keys:
            tab.wait_text("#keys-said", "Key 2 signs.")
    tab.wait("document.querySelector(`#ring [aria-label='Retire key 1']`)")
    wait_until(lambda: read_ring(at.folder / "keys.toml")[-1].id == 2, "the file", BOUND_S)
    wait_until(lambda: tab.page.wait_for_timeout(50) or "ago" in rows(tab, "ring")[0][5], "key 1 was used", 20)
    assert tab.flaws() == []
    for keys in end_by_keyboard(tab, "#ring [aria-label='Retire key 1']"):
        if "Enter" in keys:
            tab.wait_text("#confirm-what", "Retire key 1 although it is in use?")
            tab.page.click("#confirm-yes")
            tab.wait_text("#keys-said", "Key 1 has retired.")
    tab.wait("document.querySelectorAll('#ring tbody tr').length === 1")
    tab.wait("document.activeElement.id === 'keys'")  # when the last look is answered
    assert "By you: Key 1 has retired." in tab.text("#changed")
    assert "an admin request" not in at.log  # before the token was typed in nobody tried one
    retired = [("retire_key", "key_in_use"), ("retire_key", "done")]
    check_audited(at, ("add_key", "done"), ("promote_key", "done"), *retired)


def test_the_gateway_is_reloaded_drained_and_made_to_say_more(alone):
    at, tab = alone
    good = (at.folder / "fastticket.toml").read_text()
    (at.folder / "fastticket.toml").write_text(good.replace("[gateway]", "[gateway]\nthraeds = 2"))
    tab.page.click("#reload")
    tab.wait_text("#gateway-said", "did you mean threads?")
    tab.wait_text("#reload-refused", "did you mean threads?")
    tab.wait("[...document.querySelectorAll('#own .bad')].some(each => each.textContent.includes('\u26a0 refused'))")
    assert tab.flaws() == []
    (at.folder / "fastticket.toml").write_text(good)
    tab.page.click("#reload")
    tab.wait_text("#gateway-said", "Reloaded: fastticket.toml is in force.")
    tab.wait("document.getElementById('reload-refused').hidden")
    tab.page.select_option("#level", "debug")
    tab.wait_text("#gateway-said", "The log begins at debug now.")
    tab.wait_text("#level-configured", "configured: info")
    for keys in end_by_keyboard(tab, "#drain"):
        if "Enter" in keys:
            tab.wait_text("#ready", "Not ready: drained")
    tab.page.click("#drain")
    tab.wait_text("#ready", "Ready")
    tab.wait_text("#drain", "Drain this gateway")
    changes = [("reload", "reload_refused"), ("reload", "done"), ("set_log_level", "done")]
    check_audited(at, *changes, ("drain", "done"), ("undrain", "done"))


def test_who_asks_again_before_the_page_has_heard_of_the_no_is_asked_again(alone):
    """A dialog says that it was closed later than it is."""
    at, tab = alone
    drain, dialog = "document.getElementById('drain')", "document.getElementById('confirm')"
    tab.page.evaluate(f"() => {{ {drain}.click(); {dialog}.close(); {drain}.click(); }}")
    tab.page.keyboard.press("Tab")
    tab.page.keyboard.press("Enter")
    tab.wait_text("#ready", "Not ready: drained")
    check_audited(at, ("drain", "done"))


def test_a_question_about_a_drain_is_of_the_drain_that_was_asked_for(alone):
    """Somebody else drains while the question is there: the yes to it does not take that back."""
    at, tab = alone
    tab.page.click("#drain")
    Operator(("127.0.0.1", urlsplit(tab.page.url).port), TOKEN).do("POST", "/v1/drain")
    tab.wait_text("#ready", "Not ready: drained")
    tab.page.click("#confirm-yes")
    tab.wait_text("#gateway-said", "This gateway is drained.")
    check_audited(at, ("drain", "done"), ("drain", "done"))


def test_questions_wait_for_each_other_and_a_double_click_is_one_answer(alone):
    at, tab = alone
    tab.page.click("#add-key")
    tab.wait_text("#keys-said", "Key 2 is added.")  # before the second click: the gateway is fast, or the hand is slow
    tab.page.mouse.down(click_count=2)
    tab.page.mouse.up(click_count=2)
    late = Held(tab, "**/v1/keys/2")
    tab.page.click("#ring [aria-label='Retire key 2']")
    tab.page.click("#confirm-yes")
    late.wait()
    tab.page.click("#drain")
    late.release(status=409, json={"error": "key_in_use", "message": "Key 2 is in use."})
    tab.wait_text("#keys-said", "Refused: Key 2 is in use.")
    assert tab.text("#confirm-what") == "Drain this gateway?"
    tab.page.click("#confirm-yes")
    tab.wait_text("#confirm-what", "Retire key 2 although it is in use?")
    tab.page.hover("#confirm-yes")
    tab.page.mouse.down(click_count=2)
    tab.page.mouse.up(click_count=2)
    tab.wait_text("#ready", "Not ready: drained")
    tab.page.click("#confirm-no")
    check_audited(at, ("add_key", "done"), ("drain", "done"))


def test_the_figure_of_every_emergency_is_there(alone):
    """Also where nothing is wrong: the drill (whole/emergencies.py) sees each when it is."""
    at, tab = alone
    ring = Keyring.from_file(at.folder / "keys.toml")
    ticket = ring.mint("alice", time.time_ns() // 1_000_000, 60, 60)
    for each in (ticket, ticket[:-8] + "AAAAAAAA"):
        assert status_of(at.ask(get(each))[0]) == 401
    tab.wait("document.querySelectorAll('#refusals tbody tr').length === 2")
    seen = {row.name: row.seen for row in ROWS}
    last = seen.pop("gateway dead")
    assert [name for name, each in seen.items() if not each.text(tab)] == []
    at.at.kill()
    tab.wait_text("#trouble", "the gateway cannot be reached")
    assert re.search(last.pattern, last.text(tab))


def test_many_events_leave_the_page_small(fleet, look):
    tab = look()
    tab.wait("document.getElementById('events-note').hidden")
    for each in ("#ring > tbody > tr", "#servers > tbody > tr", "#own > div", "#store-figures > div"):
        tab.page.wait_for_selector(each)
    before = tab.page.evaluate("document.querySelectorAll('*').length")
    fleet.log_in(*(f"user{n}" for n in range(MANY)))
    tab.wait_text("#events-count", f"{MANY} since this page was opened; the last 30 are shown")
    assert len(rows(tab, "happened")) == 30
    assert tab.page.evaluate("document.querySelectorAll('*').length") < before + 30 * 8
    tab.page.click("#pause")
    fleet.log_in("late")
    tab.page.select_option("#kinds", "revoked,expired")
    fleet.operator().do("DELETE", "/v1/principals/late/sessions")
    tab.page.click("#pause")
    tab.wait_text("#happened tbody tr:first-child", "revoked")


def test_a_principal_and_an_upstream_are_text_whatever_they_are(fleet, look):
    tab = look()
    tab.wait("document.getElementById('events-note').hidden")
    odd = "<img src=x onerror=alert(1)>/%2F?#\u202e"
    fleet.log_in(odd)
    tab.page.fill("#user", odd)
    tab.page.press("#user", "Enter")
    tab.wait_text("#sessions-said", f"{odd} has one session.")
    tab.wait_text("#happened tbody", odd)
    assert tab.page.query_selector("img") is None


def test_without_the_store_the_page_says_what_is_known_and_since_when(fleet, look):
    """The last test of the module: the Redis that starts again is empty."""
    tab = look()
    tab.wait_text("#store-state", "Answers")
    fleet.redis.kill()
    tab.wait_text("#unknown", "The store has not answered since ")
    tab.wait_text("#store-state", "Away for ")
    tab.wait_text("#changed", "The store: away, before: answers")
    assert "as of " in rows(tab, "gateways")[1][1]
    assert "serves" in rows(tab, "gateways")[0][1]
    tab.page.fill("#user", "alice")
    tab.page.press("#user", "Enter")
    tab.wait_text("#sessions-said", "The sessions of alice are not known: ")
    assert tab.flaws() == []
    for width in (1200, 1000):  # the widest state of the fleet's table
        tab.page.set_viewport_size({"width": width, "height": 900})
        assert not tab.is_too_wide
    fleet.redis.start()
    tab.wait(
        "document.getElementById('unknown').hidden && document.querySelectorAll('#gateways tbody tr').length === 2"
    )
    tab.wait_text("#changed", "The store: answers, before: away")
    tab.wait_text("#sessions-said", "alice has no session")  # without being asked again
    fleet.gateways[0].at.kill()
    tab.wait_text("#trouble", "the gateway cannot be reached")
    assert tab.flaws() == []
