"""The table of operations of the admin API. Everything that is answered under /v1/ is a row here,
and the OpenAPI document and docs/reference/admin-api.md are made of the rows.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastticket.gateway.admin import events, keys, loglevel, running, sessions, status, upstreams
from fastticket.gateway.admin.contract import Call, Operation, Parameter
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.openapi import document_of
from fastticket.gateway.admin.shapes import (
    FLAG,
    KEY_ID,
    LIFETIME,
    PRINCIPAL,
    SERVER,
    SESSION,
    SESSION_ID,
    TEXT,
    UPSTREAM,
    VALUES,
    WHOLE,
    listed,
    optional,
    record,
    table,
    with_default,
)

OF_WORKER = ("no_worker", "worker_silent", "busy")
OF_STORE = (*OF_WORKER, "store_unavailable")

PATH_ID = Parameter("id", "path", SESSION_ID, "the session's id")
PATH_PRINCIPAL = Parameter("principal", "path", PRINCIPAL, "whose sessions, percent-encoded")
QUERY_PRINCIPAL = Parameter(
    "principal",
    "query",
    {"type": "string", "maxLength": 190, "default": ""},
    "whose session it is; without it all sessions are looked through, which takes seconds if there are many",
)
PATH_KEY = Parameter("id", "path", KEY_ID, "the key's id")
PATH_UPSTREAM = Parameter("upstream", "path", UPSTREAM, "the name of the upstream")
PATH_SERVER = Parameter(
    "server",
    "path",
    SERVER,
    "the server as `GET /v1/upstreams` has it, or as it is configured: then all addresses of the name; percent-encoded",
)
ISSUED = record(ticket=TEXT, id=SESSION_ID, principal=TEXT)
ISSUE = {
    "type": "object",
    "properties": {
        "principal": PRINCIPAL,
        "remember": {**FLAG, "description": "no idle timeout, and the lifetime remember_lifetime_s"},
        "idle_timeout_s": optional(LIFETIME),
        "absolute_lifetime_s": optional(LIFETIME),
        "details": {**table(TEXT), "description": "what is to be said of the login; at most 1,024 bytes"},
    },
    "required": ["principal"],
    "additionalProperties": False,
}
KEY_CHANGED = ("key_file", "keys_not_in_file", "reload_refused", "stopping", "worker_silent")


async def show_document(_gateway: Gateway, _call: Call) -> Any:
    """GET /v1/openapi.json"""
    return DOCUMENT


TABLE: tuple[Operation, ...] = (
    Operation("GET", "/v1/openapi.json", "document", "This document.", show_document, table({})),
    Operation("GET", "/v1/status", "status", "What this gateway is and does.", status.show_status, status.STATUS),
    Operation(
        "GET",
        "/v1/gateways",
        "gateways",
        "The gateways of the fleet, as far as the store knows them; this one first.",
        status.show_gateways,
        status.GATEWAYS,
        text="Each announces itself in the store every few seconds, with figures of that time. One that has ended "
        "without a word is gone after 15 s. `unknown_since_ms`: since when the store does not answer.",
        refusals=OF_WORKER,
    ),
    Operation(
        "GET",
        "/v1/workers",
        "workers",
        "The worker processes, and their threads.",
        status.show_workers,
        record(workers=listed(status.WORKER)),
    ),
    Operation(
        "GET",
        "/v1/store",
        "store",
        "The store, as the worker sees it.",
        status.show_store,
        status.STORE,
        refusals=("no_worker",),
    ),
    Operation(
        "GET",
        "/v1/config",
        "config",
        "The configuration in force, defaults included, without secrets.",
        status.show_config,
        record(source=TEXT, tables=table({})),
    ),
    Operation(
        "GET",
        "/v1/log-level",
        "log_level",
        "From which level on lines are logged.",
        loglevel.show_level,
        loglevel.LOG_LEVEL,
    ),
    Operation(
        "GET",
        "/v1/upstreams",
        "upstreams",
        "The upstreams and their servers.",
        upstreams.show_upstreams,
        upstreams.UPSTREAMS,
        refusals=("no_worker",),
    ),
    Operation(
        "GET",
        "/v1/keys",
        "keys",
        "The keys of the key file, the one that signs last; no secret.",
        keys.show_keys,
        keys.KEYS,
        refusals=("key_file",),
    ),
    Operation(
        "GET",
        "/v1/principals/{principal}/sessions",
        "sessions_of_principal",
        "The live sessions of a principal.",
        sessions.show_of_principal,
        record(sessions=listed(SESSION)),
        parameters=(PATH_PRINCIPAL, VALUES),
        refusals=("invalid_principal", *OF_STORE),
    ),
    Operation(
        "GET",
        "/v1/sessions/{id}",
        "session",
        "One live session.",
        sessions.show,
        SESSION,
        parameters=(PATH_ID, QUERY_PRINCIPAL, VALUES),
        refusals=("no_such_session", *OF_STORE),
    ),
    Operation(
        "DELETE",
        "/v1/principals/{principal}/sessions",
        "end_sessions_of_principal",
        "End the sessions of a principal, or all but one.",
        sessions.end_of_principal,
        record(ended=WHOLE),
        text="One answer is enough, also right after the store has lost data: a session of the principal that it would "
        "be given back does not come back. `ended` counts those that were there.",
        parameters=(
            PATH_PRINCIPAL,
            Parameter(
                "but",
                "query",
                {"type": "string", "pattern": "^([A-Za-z0-9_-]{22})?$", "default": ""},
                "the id of the session that is to stay",
            ),
        ),
        refusals=("invalid_principal", "no_such_session", *OF_STORE),
        told=("ended",),
    ),
    Operation(
        "GET",
        "/v1/sessions",
        "sessions",
        "All live sessions, some at a time.",
        sessions.show_all,
        record(sessions=listed(SESSION), cursor=TEXT),
        text="Ask again with the `cursor` of the answer, until that is empty. The cursor holds in every gateway of the "
        "fleet. A session that lives all the while is there at least once.",
        parameters=(
            Parameter(
                "cursor", "query", with_default({"type": "string", "maxLength": 1000}, ""), "of the answer before"
            ),
            Parameter(
                "limit",
                "query",
                {"type": "integer", "minimum": 1, "maximum": 200, "default": 100},
                "about how many; fewer come at the end, or if it would take over 2 s",
            ),
            VALUES,
        ),
        refusals=OF_STORE,
    ),
    Operation(
        "GET",
        "/v1/sessions/count",
        "count_sessions",
        "How many sessions live.",
        sessions.count,
        record(count=WHOLE),
        refusals=OF_STORE,
    ),
    Operation(
        "DELETE",
        "/v1/sessions",
        "end_all_sessions",
        "End every session of the fleet: everybody has to log in again.",
        sessions.end_all,
        record(ended=WHOLE, is_complete=FLAG),
        text="One request works for at most 15 s. If `is_complete` is false, ask again: there are more, or the store has "
        "just lost data and some of them may come back for some seconds.",
        parameters=(Parameter("yes", "query", with_default(FLAG, False), "that it is meant"),),
        refusals=("not_confirmed", *OF_STORE),
        told=("ended", "is_complete"),
    ),
    Operation(
        "POST",
        "/v1/sessions",
        "issue",
        "Begin a session. Its ticket is shown once, here.",
        sessions.issue,
        ISSUED,
        body=ISSUE,
        status=HTTPStatus.CREATED,
        refusals=("invalid_principal", "too_many_sessions", *OF_STORE),
        told=("id",),
    ),
    Operation(
        "DELETE",
        "/v1/sessions/{id}",
        "end_session",
        "End a session.",
        sessions.end,
        record(ended=WHOLE, principal=TEXT),
        parameters=(PATH_ID, QUERY_PRINCIPAL),
        refusals=("invalid_principal", "no_such_session", *OF_STORE),
        told=("principal",),
    ),
    Operation(
        "POST",
        "/v1/sessions/{id}/rotate",
        "rotate",
        "Give a session another ticket and id; the old ticket is over. The new one is shown once, here.",
        sessions.rotate,
        ISSUED,
        parameters=(PATH_ID, QUERY_PRINCIPAL),
        refusals=("invalid_principal", "no_such_session", *OF_STORE),
        told=("id", "principal"),
    ),
    Operation(
        "POST",
        "/v1/keys",
        "add_key",
        "Add a new key, which verifies and does not sign, and load it.",
        keys.add,
        record(id=KEY_ID, state=TEXT),
        text="The key file of this gateway is changed. Bring the key to every gateway of the fleet before you promote it.",
        body={
            "type": "object",
            "properties": {"id": {**optional(KEY_ID), "description": "by default above all that the file has had"}},
            "additionalProperties": False,
        },
        status=HTTPStatus.CREATED,
        refusals=KEY_CHANGED,
        told=("id",),
    ),
    Operation(
        "POST",
        "/v1/keys/{id}/promote",
        "promote_key",
        "Let a key sign, and load that.",
        keys.promote,
        record(id=KEY_ID, state=TEXT),
        text="Every gateway of the fleet must have loaded the key before, or it refuses the new tickets.",
        parameters=(PATH_KEY,),
        refusals=("no_such_key", "key_not_loaded", *KEY_CHANGED),
    ),
    Operation(
        "DELETE",
        "/v1/keys/{id}",
        "retire_key",
        "Take out a key that does not sign, and load that.",
        keys.retire,
        record(id=KEY_ID),
        text="A key by which this gateway has verified a ticket in the last ten minutes is in use. That none was says "
        "nothing of sessions that gateways hold: wait for the longest life of a ticket.",
        parameters=(PATH_KEY, Parameter("force", "query", with_default(FLAG, False), "although it is in use")),
        refusals=("no_such_key", "key_in_use", *KEY_CHANGED),
    ),
    Operation(
        "POST",
        "/v1/upstreams/{upstream}/servers/{server}/drain",
        "drain_server",
        "Send a server no new request. What is under way there ends in peace.",
        upstreams.drain,
        upstreams.DRAINED,
        text="It holds for reloads, replaced workers and upgrades, until it is taken back or the gateway ends; for this "
        "gateway alone.",
        parameters=(PATH_UPSTREAM, PATH_SERVER),
        refusals=("no_such_server", "last_server", *OF_WORKER),
    ),
    Operation(
        "DELETE",
        "/v1/upstreams/{upstream}/servers/{server}/drain",
        "undrain_server",
        "Put a server back in.",
        upstreams.undrain,
        upstreams.DRAINED,
        parameters=(PATH_UPSTREAM, PATH_SERVER),
        refusals=("no_such_server", *OF_WORKER),
    ),
    Operation(
        "PUT",
        "/v1/log-level",
        "set_log_level",
        "Log from another level on, in every process, until the next reload.",
        loglevel.set_level,
        loglevel.LOG_LEVEL,
        body=record(level=loglevel.LEVEL),
    ),
    Operation(
        "POST",
        "/v1/reload",
        "reload",
        "Read the configuration anew, and serve by it.",
        running.reload,
        running.RELOADED,
        text="Answered when it is in force. If anything is wrong with it, the one before stays, and the message says why.",
        refusals=("reload_refused", "stopping", "worker_silent"),
    ),
    Operation(
        "POST",
        "/v1/drain",
        "drain",
        "Be not ready, and close each connection after its next answer, while new clients are still served.",
        running.drain,
        running.DRAIN,
    ),
    Operation(
        "DELETE",
        "/v1/drain",
        "undrain",
        "Be ready again.",
        running.undrain,
        running.DRAIN,
        refusals=("stopping",),
    ),
    Operation(
        "GET",
        "/v1/events",
        "events",
        "What becomes of sessions, as server-sent events.",
        events.follow_events,
        TEXT,
        text="The stream goes on after the event of `Last-Event-ID`, from any gateway of the fleet. An event `lost` "
        "says that the store's log does not go back so far.",
        parameters=(
            Parameter(
                "kinds",
                "query",
                {"type": "string", "pattern": events.KINDS_PATTERN, "default": events.KINDS_DEFAULT},
                "which events, with commas between them; `lost` comes in any case",
            ),
            Parameter("after", "query", with_default(TEXT, ""), "the id of an event, as Last-Event-ID"),
            Parameter("Last-Event-ID", "header", with_default(TEXT, ""), "the id of the last event that was read"),
        ),
        refusals=OF_STORE,
        is_stream=True,
    ),
)

DOCUMENT = document_of(TABLE)
