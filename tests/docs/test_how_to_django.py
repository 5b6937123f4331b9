"""docs/how-to/django.md, with exactly its code: from `startproject` to the admin, two processes on
one Redis that are asked by turns, tests that leave the real store alone.
"""

import re
import subprocess

import pytest
from conftest import BOUND_S
from lab.redis_servers import wait_until
from lab.shown_sites import Shopper, ShownSite, lines_of, shop_by_turns
from lab.snippets import blocks, write_files

from fastticket import Keyring, open_store
from fastticket.sync import TicketCache


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("django")
    site = ShownSite(blocks("how-to/django.md"), [], folder)
    site.run("django-admin startproject")
    site.run("fastticket keygen")
    settings = folder / "shop/settings.py"
    text = settings.read_text()
    (diff,) = (text for language, _, text in site.said if language == "diff")
    removed, added = (re.findall(rf"^\{sign}(.*)$", diff, re.MULTILINE) for sign in "-+")
    assert len(removed) == len(added) == 1
    assert text.count(f"{removed[0]}\n") == 1
    text = text.replace(removed[0], added[0]) + site.begun_by("# at the end of shop/settings.py")
    text += site.begun_by("# and for the shop")
    settings.write_text(site.with_redis(text))
    write_files("how-to/django.md", folder)
    site.run("python manage.py migrate")
    site.run("python manage.py createsuperuser")
    yield site
    site.redis.kill()


@pytest.fixture
def servers(site):
    with site.serve("shop.wsgi", 8001) as one, site.serve("shop.wsgi", 8002) as other:
        yield one, other


@pytest.fixture
def cache(site):
    """The page's store and keys, in this process."""
    store = open_store(f"redis://{site.redis.address}/0?timeout_ms=10000")
    with TicketCache(store, Keyring.from_file(site.folder / "keys.toml")) as made:
        yield made
        made.logout_everywhere("alice")


def log_in(shopper, path="/accounts/login/"):
    shopper.look(path)
    return shopper.click(path, username="alice", password="wonderland", next="/admin/" if "admin" in path else "/")


def test_a_cart_messages_and_redirects_in_two_processes(site, servers, cache):
    shopper = Shopper(*servers)
    log_in(shopper)
    site.run("fastticket sessions", port6379=site.redis.address)
    shopper.click("/accounts/logout/")
    shop_by_turns(shopper, log_in, lambda shopper: shopper.click("/accounts/logout/"))
    assert shopper.ticket == ""
    assert cache.sessions("alice") == []


def test_the_admin_of_two_processes(servers, cache):
    shopper = Shopper(*servers)
    assert "Site administration" in log_in(shopper, "/admin/login/")
    for _ in range(2):
        page = shopper.look("/admin/auth/user/1/change/")
        assert 'value="alice@shop.test"' in page
        form = dict(re.findall(r'<input type="(?:text|email|hidden)" name="(\w+)" value="([^"]*)"', page))
        form |= {"username": "alice", "email": "alice@shop.test", "first_name": "Alice", "is_active": "on"}
        form |= {"is_staff": "on", "is_superuser": "on"}
        said = shopper.click("/admin/auth/user/1/change/", **form)
        assert "was changed successfully" in said
    shopper.click("/admin/logout/")
    assert cache.sessions("alice") == []


def test_what_the_pages_tests_do_is_not_done_to_real_users(site, servers, cache):
    shopper = Shopper(*servers)
    log_in(shopper)
    own = [session.id for session in cache.sessions("alice")]
    before = users_and_attributes(site.redis)
    site.run("manage.py test")
    assert lines_of(shopper.look()) == ["alice has nothing"]
    assert [session.id for session in cache.sessions("alice")] == own
    assert users_and_attributes(site.redis) <= before


def users_and_attributes(server):
    """The keys of sessions; servers have others, which come and go."""
    return {key for key in server.admin("KEYS", "*") if ":user:" in key or ":attr:" in key}


def test_tests_may_have_a_store_that_is_named(site):
    own = site.begun_by("# in the settings of the tests").replace(
        "FASTTICKET", "from shop.settings import *\nFASTTICKET", 1
    )
    (site.folder / "shop/test_settings.py").write_text(site.with_redis(own))
    bash(site, "fastticket keygen --out test-keys.toml && python manage.py test --settings shop.test_settings")
    assert site.redis.admin("INFO", "keyspace").get("db9")


def bash(site, command):
    done = subprocess.run(
        ["bash", "-c", command], cwd=site.folder, env=site.environment, capture_output=True, timeout=3 * BOUND_S
    )
    assert done.returncode == 0, done.stderr.decode()


def set_password(site, password):
    user = "from django.contrib.auth.models import User; user = User.objects.get()"
    bash(site, f"python manage.py shell -c \"{user}; user.set_password('{password}'); user.save()\"")


def test_a_new_password_by_a_command_ends_the_session_of_who_never_comes_again(site, servers, cache):
    ticket = cache.login("alice")
    shopper = Shopper(*servers)
    log_in(shopper)
    set_password(site, "wonderland")
    wait_until(lambda: not cache.check(ticket), "it has ended", BOUND_S)
    assert lines_of(shopper.look()) == ["nobody has nothing"]


def test_a_new_password_in_the_admin_keeps_the_session_and_ends_the_others_in_both_processes(site, servers, cache):
    mine, stolen = Shopper(*servers), Shopper(*servers)
    for shopper in (mine, stolen):
        log_in(shopper)
        for _ in range(2):
            assert lines_of(shopper.look()) == ["alice has nothing"]
    path, new = "/admin/password_change/", "through the looking-glass"
    mine.look(path)
    mine.click(path, old_password="wonderland", new_password1=new, new_password2=new)
    assert len(cache.sessions("alice")) == 1
    for _ in range(2):
        assert lines_of(mine.look()) == ["alice has nothing"]
        wait_until(lambda: lines_of(stolen.look()) == ["nobody has nothing"], "it has ended there", BOUND_S)
    set_password(site, "wonderland")
    assert cache.sessions("alice") == []


def test_the_checks_find_nothing_and_know_where_the_line_stands(site):
    bash(site, "python manage.py check --fail-level WARNING")
    bash(site, "cd / && python $OLDPWD/manage.py check --fail-level WARNING")  # the key file is found from there, too
    moved = "from shop.settings import *\nCSRF_USE_SESSIONS = True\n"
    (site.folder / "shop/csrf_settings.py").write_text(moved)
    with pytest.raises(AssertionError, match=r"fastticket\.W002"):
        bash(site, "python manage.py check --fail-level WARNING --settings shop.csrf_settings")
