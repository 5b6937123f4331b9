"""The built pages: every link leads somewhere, nothing is asked of another machine, and the search
finds what is in them, from a server and from the disk.
"""

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
import urllib.parse
from html.parser import HTMLParser

import pytest
from lab.chromium import chromium
from lab.documents import DOCS, ROOT

BUILD_BOUND_S = 100


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built pages. A warning of the generator is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = ["sphinx", "-W", "--keep-going", "-q", "-j", "2", "-d", folder / "trees", DOCS, folder / "html"]
    done = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, timeout=BUILD_BOUND_S, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page has that can be linked to, what it links to, and what a browser loads for it."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        self.anchors |= {said[name] for name in ("id", "name") if said.get(name)}
        if tag == "a" and said.get("href"):
            self.links.append(said["href"])
        if tag in ("script", "img", "iframe", "source") and said.get("src"):
            self.loaded.append(said["src"])
        if (
            tag == "link"
            and said.get("href")
            and said.get("rel") not in ("canonical", "next", "prev", "index", "search")
        ):
            self.loaded.append(said["href"])


@pytest.fixture(scope="module")
def pages(site):
    return {path: Page(path.read_text()) for path in site.glob("**/*.html")}


def test_every_page_is_built(pages, site):
    built = {str(path.relative_to(site).with_suffix("")) for path in pages}
    assert {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.glob("**/*.md")} <= built


def test_every_link_leads_somewhere(pages):
    lost = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            target = urllib.parse.urlsplit(link)
            if target.scheme:
                continue
            there = (path.parent / urllib.parse.unquote(target.path)).resolve() if target.path else path
            is_there = target.fragment in pages[there].anchors if there in pages else there.exists()
            lost += [] if is_there else [f"{path.name}: {link}"]
    assert lost == []


def test_nothing_is_loaded_from_elsewhere(pages, site):
    assert [loaded for page in pages.values() for loaded in page.loaded if urllib.parse.urlsplit(loaded).netloc] == []
    styles = "".join(path.read_text() for path in site.glob("**/*.css"))
    assert "@import" not in styles
    assert "url(http" not in styles.replace('url("http', "url(http")


@contextlib.contextmanager
def served(folder):
    """The address of a server of these files."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *said):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["a server", "the disk"])
def address(request, site):
    if request.param == "the disk":
        yield site.as_uri()
    else:
        with served(site) as at:
            yield at


RESULTS = "document.querySelectorAll('#search-results ul.search li a')"


def test_it_is_read_and_searched_without_a_network(address, tmp_path):
    """Nothing but the site itself can be reached: the browser resolves no other name."""
    with chromium(tmp_path / "profile") as tab:
        assert "session-ticket gateway" in tab.go(f"{address}/index.html")
        tab.go(f"{address}/reference/configuration.html")
        tab.run("document.querySelector('.sidebar-search').value = 'revoke'")
        tab.run("document.querySelector('.sidebar-search').form.submit()")
        tab.wait("document.location.href.includes('q=revoke')")
        tab.wait(f"{RESULTS}.length > 3 && [...{RESULTS}].some(each => each.href.includes('/reference/commands.html'))")
        found = tab.run(f"[...{RESULTS}].map(each => each.href)")  # one comes after the other
        assert "revoke" in tab.go(found[0]).lower()
        assert [url for url in tab.requested if not url.startswith((address, "data:", "about:"))] == []
        assert (tab.failed, tab.complaints) == ([], [])
