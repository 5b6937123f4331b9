"""docs/how-to/test-your-application.md: its applications and tests, in a pytest and a Django of
their own.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest
from conftest import BOUND_S
from lab.snippets import blocks, commands, write_files

from fastticket.keyfile import create_key_file

#: The project whose tests the page shows.
SETTINGS = """
import os
SECRET_KEY = "of a test"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "accounts"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
ROOT_URLCONF = "accounts.urls"
SESSION_ENGINE = "fastticket.django.sessions"
SESSION_COOKIE_NAME = "ticket"
FASTTICKET = {"store": "redis://127.0.0.1:1/0", "keys": "keys.toml"}
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "fastticket.django.middleware.TicketMiddleware",
]
"""
URLS = """
from django.http import HttpResponse
from django.urls import path

urlpatterns = [path("who", lambda request: HttpResponse(request.user.get_username()))]
"""


@pytest.fixture
def folder(tmp_path):
    write_files("how-to/test-your-application.md", tmp_path)
    create_key_file(tmp_path / "keys.toml")
    return tmp_path


def run(folder, *words):
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=6 * BOUND_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(("name", "count"), [("test_shop.py", 7), ("test_flaskshop.py", 2), ("test_sessions.py", 2)])
def test_pytest_runs_them(folder, name, count):
    plugin = ("-p", "no:asyncio", "-p", "fastticket.testing.plugin", "-p", "no:cacheprovider")
    assert f"{count} passed" in run(folder, "-m", "pytest", "-q", "-W", "error", *plugin, name)


def test_what_the_server_starts_can_be_imported(folder):
    run(folder, "-W", "error", "-c", "import main")


def test_the_plain_one(folder):
    assert run(folder, "-W", "error", "plain.py") == "expired\n"


def test_django_runs_them(folder):
    (folder / "project_settings.py").write_text(SETTINGS)
    (folder / "accounts/__init__.py").touch()
    (folder / "accounts/urls.py").write_text(URLS)
    (text,) = (text for language, _, text in blocks("how-to/test-your-application.md") if language == "console")
    ((command, _),) = commands(text)
    said = run(folder, *shlex.split(command)[1:])
    assert "Ran 2 tests" in said
    assert "OK" in said
