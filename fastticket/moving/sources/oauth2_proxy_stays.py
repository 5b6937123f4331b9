"""What of oauth2-proxy goes on beside ours for a while: its Redis, as a URL of ours, and the
`[[migration]]` by which its sessions are exchanged.

Rules of this file
- A password is not repeated: it belongs into a file that has a name here, and `to_do` says so.
- A value that is not of its kind counts as one that is not set: the report tells of it.
"""

from __future__ import annotations

import datetime
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

EXPIRE_S = 168 * 3600  # cookie_expire
PRINCIPALS = ("user", "email")  # as in its X-Forwarded-User
REDIS_PORT, SENTINEL_PORT = 6379, 26379
COOKIE = "_oauth2_proxy"
PASSWORD_FILE, SENTINEL_PASSWORD_FILE, SECRET_FILE = "redis-password", "redis-sentinel-password", "cookie-secret"
DAYS_TO_MOVE = 30  # from the translation to the move, at most


def redis_url(table: Mapping[str, Any], urls: list[str]) -> str:
    """Where their sessions are, by a list of theirs that is not empty. ValueError: no URL."""
    url = urllib.parse.urlsplit(urls[0])
    secure = "rediss" if url.scheme == "rediss" else "redis"
    options = {}
    if table.get("redis_password") or url.password:
        options["password_file"] = PASSWORD_FILE
    if table.get("redis_use_sentinel") and table.get("redis_sentinel_password"):
        options["sentinel_password_file"] = SENTINEL_PASSWORD_FILE
    if certificates := _text(table, "redis_ca_path"):
        options["ssl_ca_certs"] = certificates
    query = f"?{urllib.parse.urlencode(options, safe='/')}" if options else ""
    name = urllib.parse.quote(_text(table, "redis_username") or urllib.parse.unquote(url.username or ""), safe="")
    user = f"{name}@" if name else ""
    if table.get("redis_use_cluster"):
        return f"{secure}+cluster://{user}{_hosts(urls, REDIS_PORT)}{query}"
    if table.get("redis_use_sentinel"):
        master = _text(table, "redis_sentinel_master_name") or "mymaster"
        return f"{secure}+sentinel://{user}{_hosts(urls, SENTINEL_PORT)}/{master}{query}"
    if url.scheme == "unix":
        return f"unix://{url.path}{query}"
    return f"{secure}://{user}{_hosts(urls[:1], REDIS_PORT)}{url.path}{query}"


def migration_of(table: Mapping[str, Any], url: str, lifetime_s: int) -> dict[str, Any]:
    """Our `[[migration]]`; empty: none is possible. `url`: of their sessions."""
    if table.get("session_store_type") != "redis" or url.startswith("sqlite") or "+cluster" in url:
        return {}
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=DAYS_TO_MOVE, seconds=lifetime_s)
    return {
        "source": "oauth2-proxy",
        "url": url,
        "cookie": _text(table, "cookie_name") or COOKIE,
        "key_file": _text(table, "cookie_secret_file") or SECRET_FILE,
        "until": until.date().isoformat(),
        "idle_timeout_s": lifetime_s,
        "principal_attributes": ["email"] if table.get("prefer_email_to_user") is True else list(PRINCIPALS),
    }


def to_do(table: Mapping[str, Any], store_url: str, migration: Mapping[str, Any]) -> list[str]:
    """What is needed before our file can be used."""
    todo = ["keys.toml: fastticket keygen --out keys.toml"]
    if f"={PASSWORD_FILE}" in store_url:
        where = "redis_password" if table.get("redis_password") else "the password in redis_connection_url, decoded"
        todo.append(f"{PASSWORD_FILE}: a file of which the first line is the password for Redis: {where}")
    if f"={SENTINEL_PASSWORD_FILE}" in store_url:
        todo.append(f"{SENTINEL_PASSWORD_FILE}: a file of which the first line is redis_sentinel_password")
    if migration.get("key_file") == SECRET_FILE:
        todo.append(f"{SECRET_FILE}: a file of which the first line is cookie_secret")
    elif migration:
        todo.append(f"{migration['key_file']}: cookie_secret_file, as seen from the folder of this configuration")
    if table.get("reverse_proxy") is True:
        todo.append("[gateway] trusted_proxies: the addresses of the proxies in front")
    return todo


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else ""


def _hosts(urls: Iterable[str], port: int) -> str:
    found = []
    for url in urls:
        split = urllib.parse.urlsplit(url if "://" in url else f"//{url}")
        host = split.hostname or "127.0.0.1"
        found.append(f"{f'[{host}]' if ':' in host else host}:{split.port or port}")
    return ",".join(found)
