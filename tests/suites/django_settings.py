"""Settings for Django's own tests, with our engine for sessions."""

import os
import secrets

DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3"},
    "other": {"ENGINE": "django.db.backends.sqlite3"},
}
SECRET_KEY = "of Django's tests"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
SESSION_ENGINE = "fastticket.django.sessions"
TEST_RUNNER = "suites.django_runner.Runner"

os.environ["FASTTICKET_KEYS"] = f"1:{secrets.token_urlsafe(32)}"
FASTTICKET = {"store": "sqlite://:memory:"}
