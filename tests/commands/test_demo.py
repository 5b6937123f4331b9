"""The demo, as somebody sees it who has just installed the package: by curl's means, and in a
browser.
"""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.parse

import pytest
from conftest import BOUND_S
from lab.chromium import chromium
from lab.documents import ROOT
from lab.redis_servers import free_port, wait_until

from fastticket.commands import demo_desk as desk
from fastticket.commands.cli import main
from fastticket.commands.demo import demo_config
from fastticket.commands.demo_application import BAD_NAME
from fastticket.gateway.addresses import Address
from fastticket.keyfile import create_key_file

NOBODY = 65534


@pytest.fixture
def demo(run):
    """`demo()`: a running demo; `demo(...)` with more arguments."""
    return lambda *arguments: run("demo", *(arguments or ("--port", "0")), "--dir", "state")


class Visitor:
    """A client of a demo that keeps its cookie."""

    def __init__(self, at):
        self.address = at.address
        self.cookie = ""

    def ask(self, method, path, form=None, **fields):
        """(status, fields, text)"""
        connection = http.client.HTTPConnection(*self.address, timeout=BOUND_S)
        body = urllib.parse.urlencode(form) if isinstance(form, dict) else form
        sent = {"Cookie": self.cookie} if self.cookie else {}
        connection.request(method, path, body, {**sent, **{name.replace("_", "-"): fields[name] for name in fields}})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        if cookie := answer.getheader("Set-Cookie"):
            self.cookie = cookie.partition(";")[0]
        return answer.status, answer.headers, text

    def json(self, method, path, form=None):
        status, _, text = self.ask(method, path, form)
        return status, json.loads(text)


@pytest.fixture
def alice(demo):
    visitor = Visitor(demo())
    assert visitor.ask("POST", "/login", {"user": "alice"})[0] == 303
    return visitor


# --- what curl sees


@pytest.mark.parametrize(
    "form", ["user=", "user=++", "other=1", "", f"user={'x' * 191}", "user=a%0Ab", "user=a%7F", "user=%FF", "&" * 20]
)
def test_a_bad_name_is_400(demo, form):
    visitor = Visitor(demo())
    status, _, text = visitor.ask("POST", "/login", form)
    assert (status, text) == (400, f"{BAD_NAME}\n")
    status, fields, text = visitor.ask("POST", "/login?next=/x", form, Accept="text/html")
    assert (status, fields["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert BAD_NAME in text
    assert 'action="/login?next=/x"' in text


def test_a_form_without_end_is_400_and_is_not_read(demo):
    assert Visitor(demo()).ask("POST", "/login", f"user={'x' * 5000}")[0] == 400


@pytest.mark.parametrize("name", ["Zoë", "名前", "<b>&\"'", "{{script}}", "x" * 190])
def test_a_name_is_shown_as_it_is_and_is_no_markup(demo, name):
    visitor = Visitor(demo())
    assert visitor.ask("POST", "/login", {"user": name})[0] == 303
    assert visitor.json("GET", "/whoami")[1]["user"] == name
    page = visitor.ask("GET", "/", Accept="text/html")[2]
    shown = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert shown.replace('"', "&quot;").replace("'", "&#x27;") in page


def test_a_page_needs_nothing_from_elsewhere(alice):
    _, fields, page = alice.ask("GET", "/", Accept="text/html")
    assert fields["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert "unsafe" not in fields["Content-Security-Policy"]
    assert re.findall(r"(?:src|href)=\"(?!data:)", page) == []
    assert "https:" not in page
    assert "{{" not in page


def test_who_is_logged_in_needs_no_login_page(alice):
    status, fields, _ = alice.ask("GET", "/login?next=/whoami", Accept="text/html")
    assert (status, fields["Location"]) == (303, "/whoami")


def test_a_second_session_is_refused_at_once_when_it_is_ended(alice):
    second = alice.json("POST", "/desk/second", {})[1]["id"]
    state = alice.json("GET", "/desk/state")[1]
    assert (state["user"], len(state["sessions"]), state["second"]["id"]) == ("alice", 2, second)
    assert set(state["second"]["answers"]) == {200}
    ended = alice.json("POST", "/desk/end", {"id": second})[1]
    assert ended["ended"]
    assert ended["refused"]["after_ms"] < 1000 * desk.BOUND_S  # it was; mostly after 25
    state = alice.json("GET", "/desk/state")[1]
    assert state["second"]["answers"][-1] == 401
    assert [session["id"] for session in state["sessions"]] != [second]
    assert alice.json("GET", "/whoami")[0] == 200


def test_one_s_own_session_can_be_ended(alice):
    (own,) = alice.json("GET", "/desk/state")[1]["sessions"]
    assert alice.json("POST", "/desk/end", {"id": own["id"]}) == (200, {"ended": True, "refused": None})
    wait_until(lambda: alice.json("GET", "/desk/state")[1] == {"user": ""}, "it is refused", BOUND_S)


def test_nobody_ends_another_user_s_session(alice, demo):
    (own,) = alice.json("GET", "/desk/state")[1]["sessions"]
    mallory = Visitor(alice)
    mallory.ask("POST", "/login", {"user": "mallory"})
    assert mallory.json("POST", "/desk/end", {"id": own["id"]})[1]["ended"] is False
    assert alice.json("GET", "/whoami")[0] == 200
    stranger = Visitor(alice)
    assert stranger.json("POST", "/desk/end", {"id": own["id"]})[0] == 403
    assert stranger.json("POST", "/desk/second", {})[0] == 403
    assert stranger.json("GET", "/desk/state") == (200, {"user": ""})


def test_a_second_session_takes_the_place_of_the_one_before(alice):
    first, second = (alice.json("POST", "/desk/second", {})[1]["id"] for _ in range(2))
    assert first != second
    sessions = {session["id"] for session in alice.json("GET", "/desk/state")[1]["sessions"]}
    assert second in sessions
    assert first not in sessions


def test_figures_are_of_the_gateway_and_many_requests_cost_few_commands(alice):
    before = alice.json("GET", "/desk/state")[1]
    began_s = time.monotonic()
    for _ in range(200):
        assert alice.ask("GET", "/whoami")[0] == 200
    lasted_s = time.monotonic() - began_s
    after = wait_until(
        lambda: (state := alice.json("GET", "/desk/state")[1])["requests"] >= before["requests"] + 200 and state,
        "the requests are counted",
        BOUND_S,
    )
    assert after["commands_of_asking"] == 2 * after["requests"]
    # Two flushes a second, and what the gateway hears of commits: not one for each request.
    assert after["commands"] - before["commands"] <= 50 + 60 * (lasted_s + BOUND_S) / 2
    assert after["commands"] - before["commands"] < 200


# --- how it is started


def refused(capsys, *arguments):
    """What the one line says."""
    assert main(["demo", *arguments]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("option", ["--port", "--listen"])
def test_a_port_that_is_taken(demo, capsys, tmp_path, option):
    """By another demo, beside which the kernel would let it listen."""
    at = demo()
    port = at.address[1]
    said = refused(capsys, option, str(port) if option == "--port" else f"127.0.0.1:{port}", "--dir", str(tmp_path))
    assert f"127.0.0.1:{port}: Address already in use" in said
    assert f"--port {port + 1} (make run PORT={port + 1})" in said


def test_two_demos_side_by_side(demo, run):
    """The ports of their applications do not matter to anybody."""
    first, second = demo(), run("demo", "--port", "0", "--dir", "other")
    assert first.address != second.address
    for each in (first, second):
        assert Visitor(each).ask("POST", "/login", {"user": "alice"})[0] == 303


def test_application_ports_that_are_asked_for_are_these(capsys, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = f"{taken.getsockname()[1]},{free_port()}"
        said = refused(capsys, "--port", "0", "--app-ports", ports, "--dir", str(tmp_path))
    assert "choose others with --app-ports" in said


@pytest.mark.parametrize(
    ("listen", "problem"),
    [
        ("8080", "the host is missing; write 127.0.0.1:8080"),
        ("unix:x.sock", "write HOST:PORT, for a browser"),
        ("192.0.2.1:8080", "Cannot assign requested address"),
        ("no-such-host.invalid:80", "no-such-host.invalid:80"),
    ],
)
def test_an_address_that_is_none(capsys, tmp_path, listen, problem):
    assert problem in refused(capsys, "--listen", listen, "--dir", str(tmp_path))


@pytest.mark.parametrize(("host", "is_secure"), [("127.0.0.1", "auto"), ("localhost", "auto"), ("0.0.0.0", False)])
def test_a_browser_on_another_machine_takes_the_cookie(tmp_path, host, is_secure):
    """It came by plain http."""
    config = demo_config(Address(host, 8080), Address("127.0.0.1", 9090), [9001], 9003, tmp_path)
    assert config.ticket.cookie_secure == is_secure


@pytest.fixture
def barred(tmp_path):
    """`barred(...)`: a command, run in a folder that is somebody else's, by a user whom that bars:
    (exit code, error output).
    """
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder = tmp_path / "of-another"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)

    def run(*arguments):
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", sys.executable, "-m", "fastticket"]
        done = subprocess.run(
            [*command, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=3 * BOUND_S,
        )
        return done.returncode, done.stderr

    run.folder = folder
    return run


def given_away(path):
    os.chown(path, NOBODY, NOBODY)
    return path


def says_one_line(result):
    code, error = result
    assert code == 2, error
    lines = [line for line in error.splitlines() if line.startswith("fastticket: ")]
    assert "Traceback" not in error
    assert len(lines) == 1, error
    return lines[0]


def test_a_folder_that_cannot_be_made(barred):
    said = says_one_line(barred("demo", "--port", "0"))
    assert said == "fastticket: demo: demo: Permission denied; choose another folder with --dir"


def test_a_folder_that_cannot_be_written(barred):
    (barred.folder / "demo").mkdir()
    given_away(barred.folder / "demo")
    said = says_one_line(barred("demo", "--port", "0"))
    assert said == "fastticket: demo: demo: this user may not write there; choose another folder with --dir"


def test_a_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "choose another folder with --dir" in refused(capsys, "--port", "0", "--dir", str(tmp_path / "file"))
    assert "choose another folder with --dir" in refused(capsys, "--port", "0", "--dir", str(tmp_path / "file/below"))


SERVE = ("serve", "--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:9")


def test_serve_where_the_database_cannot_be_made(barred, tmp_path):
    keys = tmp_path / "keys.toml"
    create_key_file(keys)
    said = says_one_line(barred(*SERVE, "--keys", str(keys), "--store", "sqlite:///sessions.db"))
    assert "sessions.db: Permission denied" in said
    assert "this user must be able to write the file and its folder" in said


def test_serve_where_the_database_cannot_be_written(barred, tmp_path):
    keys = tmp_path / "keys.toml"
    create_key_file(keys)
    assert main(["issue", "alice", "--keys", str(keys), "--store", f"sqlite:///{barred.folder}/sessions.db"]) == 0
    given_away(barred.folder / "sessions.db").chmod(0o644)
    said = says_one_line(barred(*SERVE, "--keys", str(keys), "--store", "sqlite:///sessions.db"))
    assert "this user must be able to write the file and its folder" in said


def test_serve_where_the_key_file_cannot_be_read(barred, tmp_path):
    create_key_file(tmp_path / "keys.toml")
    given_away(tmp_path / "keys.toml")
    said = says_one_line(barred(*SERVE, "--keys", str(tmp_path / "keys.toml"), "--store", "sqlite://:memory:"))
    assert "keys.toml: Permission denied" in said


def test_keygen_where_the_file_cannot_be_made(barred):
    assert "keys.toml: Permission denied" in says_one_line(barred("keygen", "--out", "keys.toml"))


def test_make_run_passes_the_port_on():
    assert "fastticket demo --port 8123" in made("run", "PORT=8123")
    assert re.search(r"fastticket demo *$", made("run"), re.MULTILINE)


def test_make_run_says_what_it_does():
    """And installs nothing that only work on the code needs."""
    said = re.findall(r'^echo "--- (.*)"', made("-B", "run"), re.MULTILINE)
    assert [re.match(r"(\d) of \d: ", line)[1] for line in said[:-1]] == list("1234"[: len(said) - 1])
    assert "Ctrl-C" in said[-1]
    assert not {"pytest", "chromium", "nginx"} & set(re.findall(r"[\w-]+", made("-B", "run")))


def made(*words):
    done = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=BOUND_S)
    return done.stdout


# --- what somebody sees


@pytest.fixture
def browser(tmp_path):
    with chromium(tmp_path / "profile") as tab:
        yield tab


ARE_COUNTED = "/^Counted/.test(document.getElementById('counted').textContent)"


def log_in(tab, at, name="alice"):
    tab.go("http://{}:{}/".format(*at.address))
    assert tab.run("location.pathname") == "/login"
    tab.run(f"document.getElementById('name').value = {json.dumps(name)}; document.forms.login.requestSubmit()")
    tab.wait("document.getElementById('answered').textContent")


def text_of(tab, name):
    return tab.run(f"document.getElementById('{name}').textContent")


def click(tab, name):
    tab.run(f"document.getElementById('{name}').click()")


def test_in_a_browser(demo, browser):
    """From the login to the logout; the console stays empty."""
    log_in(browser, demo())
    assert text_of(browser, "user") == "alice"
    first = text_of(browser, "answered")
    click(browser, "ask")
    browser.wait(f"document.getElementById('answered').textContent !== {json.dumps(first)}")
    ports = [re.search(r"port (\d+)", said)[1] for said in (first, text_of(browser, "answered"))]
    assert ports[0] != ports[1]

    click(browser, "ask-many")
    browser.wait("/^500 requests/.test(document.getElementById('answered').textContent)")
    browser.wait(ARE_COUNTED)
    requests, commands, asking = figures(browser)
    assert (requests >= 500, asking) == (True, 2 * requests)
    lasted_s = float(re.search(r"for ([\d,.]+) s", text_of(browser, "counted"))[1].replace(",", ""))
    assert commands <= 2 * lasted_s + 10  # two a second, whatever the load; they are counted a moment late

    click(browser, "second")
    browser.wait("document.querySelectorAll('#second-answers li').length > 1")
    browser.wait("document.querySelectorAll('#sessions tr').length === 2")
    browser.run("document.querySelector('#sessions tr:last-child button').click()")
    browser.wait("/was refused/.test(document.getElementById('ended').textContent)")
    browser.wait("document.querySelector('#second-answers li:last-child').textContent === '401'")
    assert browser.run("document.querySelectorAll('#sessions tr').length") == 1

    browser.run("document.querySelector('form[action=\"/logout\"] button').click()")
    browser.wait("location.pathname === '/login' && document.getElementById('name')")
    assert browser.complaints == []


def figures(tab):
    """What the table says: requests, store commands, commands of asking each time."""
    return [int(text_of(tab, name).replace(",", "")) for name in ("requests", "commands", "commands-of-asking")]


def test_the_table_counts_from_the_press(demo, browser):
    """Not what came before, nor what the lease cost while somebody read the page."""
    at = demo()
    log_in(browser, at)
    assert text_of(browser, "requests") == ""
    other = Visitor(at)
    other.ask("POST", "/login", {"user": "bob"})
    for _ in range(700):
        assert other.ask("GET", "/whoami")[0] == 200
    for _ in range(2):  # the second table begins anew, too
        browser.run("document.getElementById('counted').textContent = ''")
        click(browser, "ask-many")
        browser.wait(ARE_COUNTED)
        assert 500 <= figures(browser)[0] < 700
    assert "whatever the load" in browser.run("document.body.textContent").replace("\n", " ")


def test_a_page_whose_session_ends_elsewhere_goes_to_the_login(demo, browser):
    at = demo()
    log_in(browser, at)
    (session,) = browser.run("fetch('/desk/state').then(answer => answer.json())")["sessions"]
    visitor = Visitor(at)
    visitor.ask("POST", "/login", {"user": "alice"})
    visitor.json("POST", "/desk/end", {"id": session["id"]})
    browser.wait("location.pathname === '/login'")
    assert browser.complaints == []


#: The page's next look at its sessions is answered when `release` is called: `seen` has how many it
#: shows from then on, `looks` how often it has looked again.
HELD = """(() => {
    const ask = window.fetch;
    window.seen = [];
    window.looks = 0;
    window.fetch = async (path, options) => {
        const answer = await ask(path, options);
        if (path !== '/desk/state' || window.looks++) return answer;
        await new Promise((done) => { window.release = () => {
            const rows = document.getElementById('sessions');
            new MutationObserver(() => seen.push(rows.children.length)).observe(rows, { childList: true });
            looks = 1;
            done();
        }; });
        return answer;
    };
})()"""


def test_an_older_answer_does_not_take_the_place_of_a_newer(demo, browser):
    log_in(browser, demo())
    browser.run(HELD)
    browser.wait("window.release")
    click(browser, "second")
    browser.wait("document.querySelectorAll('#sessions tr').length === 2")
    browser.run("release()")
    browser.wait("looks > 1")  # which is after what it made of the answer that it got late
    assert browser.run("seen") == []


def test_by_keyboard(demo, browser):
    """Every control is reached by Tab, in the order of the page, and shows that it has the
    focus.
    """
    at = demo()
    browser.go("http://{}:{}/".format(*at.address))
    browser.wait("document.activeElement.tagName === 'INPUT'")
    browser.type("alice")
    browser.press("Enter")
    browser.wait("document.querySelector('#sessions button')")
    reached = []
    for _ in range(6):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.textContent.trim()"))
        assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == ["Log out", "Log out everywhere", "Ask once", "Ask 500 times", "End", "Begin a second session"]
    browser.press("Enter")
    browser.wait("document.querySelectorAll('#sessions tr').length === 2")
    assert browser.complaints == []


def test_a_bad_name_in_a_browser(demo, browser):
    """It is a page, which has the name again. That it was 400 is no mistake of the page's."""
    at = demo()
    browser.go("http://{}:{}/".format(*at.address))
    browser.run("document.getElementById('name').value = 'x'.repeat(191); document.forms.login.requestSubmit()")
    browser.wait("document.getElementById('problem').textContent")
    assert text_of(browser, "problem") == BAD_NAME
    assert browser.run("document.getElementById('name').value") == "x" * 191
    assert browser.status == 400 or browser.run("performance.getEntriesByType('navigation')[0].responseStatus") == 400


@pytest.mark.parametrize("width", [320, 400, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_can_be_read(demo, browser, width, scheme):
    """Nothing sticks out on a phone, and texts differ enough from what is behind them (WCAG 2.2,
    1.4.3: 4.5).
    """
    browser.show_as(width, 800, scheme)
    log_in(browser, demo(), "x" * 190)
    click(browser, "second")
    browser.wait("document.querySelectorAll('#second-answers li').length > 1")
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(CONTRASTS) == []


#: Texts with less contrast than 4.5.
CONTRASTS = """(() => {
    const levels = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => levels(color).slice(0, 3).map((level) => level / 255)
        .map((level) => level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4)
        .reduce((sum, level, place) => sum + level * [0.2126, 0.7152, 0.0722][place], 0);
    const behind = (element) => {
        const color = getComputedStyle(element).backgroundColor;
        return levels(color)[3] === 0 ? behind(element.parentElement) : color;
    };
    return Array.from(document.querySelectorAll("body *")).filter((element) =>
        element.checkVisibility() && !element.disabled
        && Array.from(element.childNodes).some((node) => node.nodeType === 3 && node.data.trim())
    ).map((element) => {
        const [one, other] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
        return [element.textContent.trim().slice(0, 30), (one + 0.05) / (other + 0.05)];
    }).filter(([, contrast]) => contrast < 4.5);
})()"""
