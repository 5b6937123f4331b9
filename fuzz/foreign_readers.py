"""The readers of what other systems have written: values and sessions in their stores, cookies and
tickets, configuration files, lists of tokens; and of our own exports, which may come from anywhere.

Each gives a value, or refuses by the error or the reason that it declares, and nothing else. A
session that is read can be restored, or is refused with a reason. What is sealed or signed is tried
twice: as it comes, and around an input, as who has the key could make it.

The judges are the libraries that write such values, where there are some: msgspec (Flask-Session),
and for Linkis' tickets a twin (tests/lab/linkis_tickets.py).
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE.parent)]

import django  # noqa: E402
import msgspec  # noqa: E402
from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: E402
from django.conf import settings  # noqa: E402
from guided import Check  # noqa: E402
from lab.linkis_tickets import Tickets  # noqa: E402
from lab.old_systems import java_integer, java_long, java_text  # noqa: E402
from moving.test_oauth2_proxy_session import NAME, NOW_S, SECRET, sealed, signed, ticket_text  # noqa: E402
from starsessions.serializers import JsonSerializer  # noqa: E402

from fastticket.errors import ConfigError  # noqa: E402
from fastticket.gateway.linkis import Around, load_linkis  # noqa: E402
from fastticket.gateway.linkisfiles import crypt_key_of  # noqa: E402
from fastticket.gateway.tokens import read_tokens  # noqa: E402
from fastticket.moving import dump, sealing  # noqa: E402
from fastticket.moving.formats.linkis_ticket import LinkisTickets, OpenedTicket, broken, unbroken  # noqa: E402
from fastticket.moving.formats.oauth2_proxy_session import open_session, read_cookie  # noqa: E402
from fastticket.moving.importing import ATTRIBUTES_BYTES_MAX  # noqa: E402
from fastticket.moving.record import MovedSession, fault_of, to_restored  # noqa: E402
from fastticket.moving.sources import WHY  # noqa: E402
from fastticket.moving.sources.flask_session import FlaskSessions, unsigned  # noqa: E402
from fastticket.moving.sources.javavalues import read_java  # noqa: E402
from fastticket.moving.sources.linkis import LinkisSessions  # noqa: E402
from fastticket.moving.sources.oauth2_proxy import translate  # noqa: E402
from fastticket.moving.sources.spring import INDEX, SpringSessions, _Index, identifier_in  # noqa: E402
from fastticket.moving.sources.spring_jdbc import COLUMNS, SpringExport  # noqa: E402
from fastticket.moving.sources.starsessions import StarSessions  # noqa: E402
from fastticket.moving.sources.values import Unreadable, attribute, read_json, read_msgpack  # noqa: E402
from fastticket.stores.redis.foreign import ForeignRedis  # noqa: E402

NOWHERE = ForeignRedis("redis://127.0.0.1:1")  # which nothing asks
KEY = b"0123456789abcdef"
LATER_MS = 4_000_000_000_000
FOLDER = Path(tempfile.mkdtemp(prefix="fastticket-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))

atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
logging.getLogger("fastticket").setLevel(logging.CRITICAL)


def file_of(name: str, data: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(data)
    return path


def said_of(record: object) -> str:
    """What is wrong with what a source's reader yields."""
    if isinstance(record, MovedSession):
        if not fault_of(record, ATTRIBUTES_BYTES_MAX):
            to_restored(record, 500)
        return ""
    why = getattr(record, "why", None)
    return "" if why in {*WHY, "unreadable"} else f"skipped, because {why!r}"


def finished(coroutine):  # type: ignore[no-untyped-def]
    """What a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


# --- values


def check_json(data: bytes) -> str:
    try:
        found = read_json(data)
    except Unreadable:
        return ""
    with contextlib.suppress(Unreadable):
        if json.loads(attribute(found)) != found:
            return "as an attribute it is another value"
    with contextlib.suppress(msgspec.DecodeError):
        if (theirs := msgspec.json.decode(data)) != found:
            return f"{found!r}, not {theirs!r}"
    return ""


def check_msgpack(data: bytes) -> str:
    try:
        found = read_msgpack(data)
    except Unreadable:
        return ""
    with contextlib.suppress(msgspec.DecodeError):
        theirs = msgspec.msgpack.decode(data)
        if repr(theirs) != repr(found) and b"\xc7" not in data and not set(data) & set(range(0xD4, 0xD9)):
            return f"{found!r}, not {theirs!r}"  # without extensions, which are ours to refuse
    with contextlib.suppress(Unreadable):
        attribute(found)
    return ""


def check_java(data: bytes) -> str:
    with contextlib.suppress(Unreadable):
        found = read_java(data)
        if isinstance(found, int):
            return "" if data in (java_long(found), found.bit_length() < 32 and java_integer(found)) else f"{found}"
        found.encode()
    return ""


# --- sessions


def check_flask(data: bytes) -> str:
    return said_of(FlaskSessions(NOWHERE)._record("identifier", data, 1000))


def check_starsessions(data: bytes) -> str:
    return said_of(StarSessions(NOWHERE, principals=["user.name", "user"])._record("identifier", data, 1000))


async def in_no_index(_: str) -> None:
    """Of an id: nobody's."""


def check_spring(data: bytes) -> str:
    """A hash: names and values by turns."""
    words = data.split(b"\xff\n")
    source = SpringSessions(NOWHERE, principals=[INDEX, "user"])
    times = dict(zip((b"creationTime", b"lastAccessedTime", b"maxInactiveInterval"), words, strict=False))
    attributes = zip((b"sessionAttr:" + name for name in words[3::2]), words[4::2], strict=False)
    return said_of(finished(source._record("identifier", times | dict(attributes), in_no_index)))


def check_springs_index(data: bytes) -> str:
    name, _, member = data.partition(b"\xff\n")
    loaded: dict[str, str | None] = {}
    _Index._add(loaded, name.decode("utf-8", "replace"), [member])
    return ""


def check_springs_cookie(text: str) -> str:
    identifier_in(text).encode()
    return ""


def check_springs_export(data: bytes) -> str:
    source = SpringExport(file_of("sessions.csv", data))
    with contextlib.suppress(ConfigError):
        for row in source._read():
            if said := said_of(source._record(row)):
                return said
        finished(source.read_one("aWQtYWxpY2U="))
    return ""


def check_flasks_cookie(text: str) -> str:
    return "" if unsigned(text, "secret") in (None, text.rpartition(".")[0]) else "another id"


# --- Linkis


OURS = LinkisTickets()
TWINS = {"des": Tickets("1.8"), "des-raw": Tickets("later"), "aes-gcm": Tickets("later")}


def check_linkis_ticket(text: str) -> str:
    opened = OURS.open(text)
    if isinstance(opened, OpenedTicket) and opened.format != "aes-gcm" and base64.b64decode(text)[:1] == b"\x02":
        return ""  # one of 256: whether later versions try DES then is not known
    if isinstance(opened, OpenedTicket) and (user := TWINS[opened.format].user_of(text)) != opened.user:
        return f"{opened.user!r}, not {user!r}"
    if opened and OURS.open(broken(unbroken(text))) != opened:
        return "with line breaks it is another"
    return ""


def check_linkis_text(data: bytes) -> str:
    """A ticket around it."""
    padding = 8 - len(data) % 8
    for kind in ("des", "des-raw"):
        encryptor = OURS._des[kind].encryptor()
        whole = encryptor.update(data + bytes([padding]) * padding)
        if said := check_linkis_ticket(broken(base64.b64encode(whole).decode())):
            return said
    whole = b"\x02" + KEY[:12] + OURS._gcm.encrypt(KEY[:12], data, None)
    return check_linkis_ticket(base64.b64encode(whole).decode())


LINKIS_SESSIONS = LinkisSessions(NOWHERE, OURS)
TICKET = OURS.seal("alice", LATER_MS, "aes-gcm")


def check_linkis_value(data: bytes) -> str:
    return said_of(LINKIS_SESSIONS._record(TICKET, data))


def check_linkis_files(data: bytes) -> str:
    path = file_of("linkis.properties", data)
    with contextlib.suppress(ConfigError):
        crypt_key_of(path)
    with contextlib.suppress(ConfigError):
        load_linkis([path], Around(["127.0.0.1:1"], ["127.0.0.1:2"], "keys.toml", until="2099-12-31"))
    return ""


def check_tokens_csv(data: bytes) -> str:
    with contextlib.suppress(ConfigError):
        read_tokens(file_of("tokens.csv", data))
    return ""


def check_tokens_toml(data: bytes) -> str:
    with contextlib.suppress(ConfigError):
        read_tokens(file_of("tokens.toml", data))
    return ""


# --- oauth2-proxy


def check_proxy_cookie(text: str) -> str:
    read_cookie(NAME, text, SECRET, NOW_S, 3600)
    if read_cookie(NAME, text, "another", NOW_S, 3600):
        return "it is good by another secret"
    return ""


def check_proxy_ticket(text: str) -> str:
    """A cookie around it."""
    with contextlib.suppress(UnicodeEncodeError):
        read_cookie(NAME, signed(text, NOW_S), SECRET, NOW_S, 3600)
        read_cookie(NAME, signed(ticket_text(text, KEY), NOW_S), SECRET, NOW_S, 3600)
    return ""


def check_proxy_session(data: bytes) -> str:
    """As it comes, and around it."""
    if open_session(data, b"another secret!!"):
        return "it opens by another secret"
    session = open_session(KEY[:12] + AESGCM(KEY).encrypt(KEY[:12], data, None), KEY)
    if session and not all(isinstance(name, str) for name in session.names.values()):
        return f"{session}"
    return ""


def check_proxy_files(text: str) -> str:
    """A file in TOML, in YAML, or both with a line of --- between."""
    first, _, second = text.partition("\n---\n")
    for beside, alpha in ((text, None), ("", (text, "a.yaml")), (first, (second, "a.yaml"))):
        with contextlib.suppress(ConfigError):
            made = translate(beside, "a.cfg", alpha)
            tomllib.loads(made.toml.encode().decode())
            str(made.lines).encode()
            if len([line for line in made.lines if line.file == "a.cfg"]) != len(tomllib.loads(beside)):
                return "not every setting is told"
    return ""


# --- exports


def check_export(data: bytes) -> str:
    """As it comes, and with an end that fits."""
    body = [line for line in data.splitlines(keepends=True) if not line.startswith(b'{"end":') and line.endswith(b"\n")]
    count, digest = sum(map(dump.is_session, body)), hashlib.sha256(b"".join(body)).hexdigest()
    for each in (data, b"".join(body) + dump.end_line(count, digest)):
        if said := _said_of_export(file_of("sessions.jsonl", each), None):
            return said
    return ""


SEAL_SECRET = bytes(32)


def check_sealed_export(data: bytes) -> str:
    """As it comes, and sealed."""
    sealer = sealing.Sealer(SEAL_SECRET)
    for each in (data, sealer.start + sealer.seal(data)):
        if said := _said_of_export(file_of("sessions.sealed", each), SEAL_SECRET):
            return said
    return ""


def _said_of_export(path: Path, secret: bytes | None) -> str:
    try:
        dump.check(path, secret)
    except ConfigError:
        return ""
    with contextlib.suppress(ConfigError):
        return next(filter(None, map(said_of, dump.records(path, secret))), "")
    return ""


def check_key_file(data: bytes) -> str:
    with contextlib.suppress(ConfigError):
        sealing.read_secret(file_of("key", data))
    return ""


# --- Django


def set_up_django() -> None:
    apps = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "fastticket.django"]
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    keys = file_of("keys.toml", b'[[key]]\nid = 1\nsecret = "%s"\n' % base64.b64encode(bytes(range(32))))
    settings.configure(
        SECRET_KEY="a secret",
        INSTALLED_APPS=apps,
        DATABASES={"default": database},
        FASTTICKET={"store": f"sqlite:///{FOLDER}/sessions.db", "keys": str(keys)},
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    from django.contrib.auth import get_user_model

    get_user_model().objects.create_user("alice")


def check_django(data: bytes) -> str:
    """What a session decodes to."""
    if not settings.configured:
        set_up_django()
    from django.contrib.sessions.backends.db import SessionStore

    from fastticket.django.moving import Found, OldSessions

    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    store = SessionStore()
    found = Found("key", store.decode(store.encode(content)), LATER_MS)
    return said_of(OldSessions("django.contrib.sessions.backends.db")._record(found))


def django_seed() -> bytes:
    """A session of Django's login."""
    set_up_django()
    from django.contrib.auth import get_user_model, login
    from django.contrib.sessions.backends.db import SessionStore
    from django.http import HttpRequest

    request = HttpRequest()
    request.session = SessionStore()
    login(request, get_user_model().objects.get(), "django.contrib.auth.backends.ModelBackend")
    return json.dumps({**request.session._session, "cart": {"tea": 2}, "_session_expiry": 3600}).encode()


# --- all of them

BYTES = [bytes([number]) for number in (0, 1, 2, 9, 10, 13, 32, 0x7F, 0x80, 0x81, 0x90, 0xC0, 0xC1, 0xC3, 0xC7, 0xCA)]
BYTES += [bytes([number]) for number in (0xCB, 0xCE, 0xCF, 0xD3, 0xD6, 0xD9, 0xDC, 0xDD, 0xDF, 0xED, 0xF0, 0xFE, 0xFF)]
WORDS = [b"{", b"}", b"[", b"]", b":", b",", b'"', b'""', b"null", b"true", b"-1", b"1e999", b"1e400", b"NaN", b"0.5"]
WORDS += [b"9" * 30, b"9" * 5000, b"Infinity", b'"\\ud800"', b"\\u0000", b"[" * 200, b'{"a":' * 100, "é文𝄞".encode()]
USER = {"_user_id": "alice", "user": {"name": "alice"}, "cart": {"tea": 2}, "seen": [1, 2.5, None, True]}
JSON_WORDS = [*WORDS, *(f'"{name}":'.encode() for name in (*USER, "name", "__metadata__", "created", "last_access"))]
JSON_WORDS += [f'"{name}":'.encode() for name in ("lifetime", "_auth_user_id", "_auth_user_hash", "_session_expiry")]
META = {"created": 1_800_000_000.5, "last_access": 3_900_000_000, "lifetime": 3600}
FLASK = [msgspec.msgpack.encode(USER), msgspec.json.encode(USER)]
STAR = [JsonSerializer().serialize({**USER, "__metadata__": META})]
JAVA = [java_long(LATER_MS), java_integer(1800), java_text("alice"), java_text("é𝄞\0")]
SPRING_HASH = b"\xff\n".join(
    [java_long(1), java_long(LATER_MS), java_integer(1800), b"user", java_text("alice"), b"cart"]
)
CONTEXT = b'{"authentication":{"authenticated":true,"principal":{"username":"alice"}}}'
SPRING = [
    SPRING_HASH + b'\xff\n{"tea":2}',
    b"\xff\n".join([b"1", b'["java.lang.Long",3999999999999]', b"-1", b"SPRING_SECURITY_CONTEXT", CONTEXT]),
]
ROW = "id-alice,1,3999999999999,1800,alice\n"
CSV_PIECES = [b",", b'"', b'""', b"\n", b"\r\n", b"\r", b"\0", b"NULL", b"\\N", b"*", b"-1", b"9" * 20, b"\xef\xbb\xbf"]
TABLE = (
    b"id,token_name,legal_users,legal_hosts,create_time,elapse_day,token_sign\n1,secret-1,*,*,2026-01-01 00:00:00,-1,\n"
)
TABLE += b'2,secret-2,"a,b","10.0.0.7,x",2026-01-01 00:00:00.5,9999999,NULL\n'
TOKENS = (
    b'[[token]]\nname = "a"\ncode = "12345678"\nusers = ["*"]\nhosts = ["10.0.0.0/8"]\nexpires = 2027-01-31T00:00:00Z\n'
)
TOML_PIECES = [
    b"\n",
    b"=",
    b'"',
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b".",
    b"'''",
    b"#",
    b"\\u0000",
    b"9" * 5000,
    b"0x" + b"f" * 5000,
]
TOML_PIECES += [
    b"inf",
    b"nan",
    b"true",
    b"1979-05-27T07:32:00Z",
    b"0001-01-01T00:00:00+23:59",
    b"[" * 200,
    "é".encode(),
]
YAML_PIECES = [
    b": ",
    b"- ",
    b"\n",
    b"\n  ",
    b"\n- ",
    b"&a ",
    b"*a",
    b"!!binary ",
    b"|\n",
    b">-\n",
    b"?",
    b"<<: *a",
    b"---\n",
    b"%YAML 9",
]
YAML_PIECES += [
    b"'",
    b'"\\UFFFFFFFF"',
    b'"\\ud800"',
    b"${A}",
    b"$1",
    b"~",
    b"http://[",
    b"unix:///a",
    b"https://a",
    b"1h",
    b"9" * 20 + b"h",
]
LINKIS_FILES = [
    (HERE.parent / f"examples/linkis/{name}.properties").read_bytes() for name in ("linkis", "linkis-mg-gateway")
]
LINKIS_PIECES = [
    *(b"\n", b"=", b"\\", b"\\u12", b"\xff", b"\xd9\xa3", b"true", b"false", b"/", b"|", b"(", b"*", b",", b"9" * 5000)
]
LINKIS_PIECES += [line + b"\n" for each in LINKIS_FILES for line in each.splitlines() if b"=" in line]
SESSION = MovedSession("alice", bytes(16), 1, LATER_MS, 1800, 0, {"address": "a"}, {"cart": b"[1]"})
HEAD = dump.line_of({"format": dump.FORMAT, "version": 1, "dump": "d", "exported_at_ms": 1, "from": "redis://a"})
EXPORT = HEAD + dump.session_line(SESSION) + dump.line_of({"cursor": "1"})
SEALER = sealing.Sealer(SEAL_SECRET)
SEALED = SEALER.start + SEALER.seal(EXPORT) + SEALER.seal(b"\n")
ALPHA = b"""server: {bindAddress: ":80"}
upstreamConfig:
  upstreams:
  - {id: a, path: /, uri: "http://a:1", timeout: 1h}
  - id: b
    path: ^/x
    rewriteTarget: /$1
injectRequestHeaders: &a
- {name: X-User, preserveRequestValue: true, values: [{claimSource: {claim: user}}]}
injectResponseHeaders: *a
providers: [{id: p, clientSecret: s}]
"""
PROXY = b"""http_address = ":4180"
upstreams = ["http://a:1/", "unix:///b"]
cookie_expire = "168h0m0s"
upstream_timeout = 30
skip_auth_routes = ["GET=^/a$", "^/b"]
cookie_domains = [".shop.test"]
redis_use_sentinel = true
redis_sentinel_connection_urls = ["redis://[::1]:7"]
set_xauthrequest = true
"""


def as_text(parts: list[bytes]) -> list[str]:
    return [part.decode("latin-1") for part in parts]


TICKETS = [OURS.seal("alice", 1_700_000_000_000, kind) for kind in ("des", "des-raw", "aes-gcm")]
TICKETS += [OURS.seal("a" * 100, 1, "des"), TWINS["des"].make("a,b", 7)]
PROXY_SESSION = sealed(KEY, u="alice", e="a@b.c", ca=NOW_S - 9, eo=NOW_S + 9)
PROXY_PLAIN = AESGCM(KEY).decrypt(PROXY_SESSION[:12], PROXY_SESSION[12:], None)
SOURCES = "moving/sources/"
VALUES = f"{SOURCES}values.py"
CHECKS = [
    Check(check_json, VALUES, JSON_WORDS, [*STAR, FLASK[1]]),
    Check(check_msgpack, VALUES, BYTES, FLASK[:1]),
    Check(check_java, f"{SOURCES}javavalues.py", [*BYTES, *JAVA], JAVA),
    Check(check_flask, f"{SOURCES}flask_session.py {VALUES}", [*BYTES, *JSON_WORDS], FLASK),
    Check(check_starsessions, f"{SOURCES}starsessions.py {VALUES}", JSON_WORDS, STAR),
    Check(check_spring, f"{SOURCES}spring.py {VALUES}", [*BYTES, *WORDS, *JAVA, b"\xff\n", CONTEXT], SPRING),
    Check(
        check_springs_index,
        f"{SOURCES}spring.py",
        [*BYTES, *JAVA],
        [b"alice\xff\n" + java_text("id"), b'bob\xff\n"id"'],
    ),
    Check(check_springs_cookie, f"{SOURCES}spring.py", as_text([*BYTES, b"aWQ=", b"="]), ["aWQtYWxpY2U="]),
    Check(
        check_springs_export,
        f"{SOURCES}spring_jdbc.py",
        CSV_PIECES,
        [",".join(COLUMNS).encode() + b"\n" + ROW.encode()],
    ),
    Check(check_flasks_cookie, f"{SOURCES}flask_session.py", as_text([*BYTES, b"."]), ["id.signature"]),
    Check(check_linkis_ticket, "moving/formats/linkis_ticket.py", as_text([*BYTES, b"A", b"=", b"\r\n"]), TICKETS),
    Check(
        check_linkis_text, "moving/formats/linkis_ticket.py", [*BYTES, b"bfs_", b",", b"0", b"alice"], [b"bfs_alice,1"]
    ),
    Check(check_linkis_value, f"{SOURCES}linkis.py", [*BYTES, b"9" * 20], [b"1700000000000"]),
    Check(
        check_linkis_files,
        "gateway/linkis.py gateway/linkisfiles.py gateway/properties.py",
        LINKIS_PIECES,
        LINKIS_FILES,
    ),
    Check(check_tokens_csv, "gateway/tokens.py", CSV_PIECES, [TABLE]),
    Check(check_tokens_toml, "gateway/tokens.py", TOML_PIECES, [TOKENS]),
    Check(
        check_proxy_cookie, "moving/formats/oauth2_proxy_session.py", as_text([*BYTES, b"|"]), [signed("v2.a.b", NOW_S)]
    ),
    Check(
        check_proxy_ticket, "moving/formats/oauth2_proxy_session.py", as_text([*BYTES, b"v2."]), [ticket_text("a", KEY)]
    ),
    Check(check_proxy_session, "moving/formats/oauth2_proxy_session.py", BYTES, [PROXY_PLAIN]),
    Check(
        check_proxy_files,
        f"{SOURCES}oauth2_proxy.py {SOURCES}oauth2_proxy_alpha.py {SOURCES}oauth2_proxy_ours.py",
        [part.decode() for part in [*TOML_PIECES, *YAML_PIECES]],
        [each.decode() for each in (PROXY, ALPHA, PROXY + b"\n---\n" + ALPHA)],
    ),
    Check(check_export, "moving/dump.py moving/record.py", [*JSON_WORDS, b"\n"], [EXPORT]),
    Check(check_sealed_export, "moving/dump.py moving/sealing.py", [*BYTES, sealing.MAGIC], [SEALED, EXPORT]),
    Check(check_key_file, "moving/sealing.py", BYTES, [base64.b64encode(bytes(32))]),
    Check(check_django, "django/moving.py", JSON_WORDS, [django_seed()]),
]
