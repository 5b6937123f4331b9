"""The table of operations of the admin API. Everything that is answered under /v1/ is a row here,
and the OpenAPI document and docs/reference/admin-api.md are made of the rows.
"""

from __future__ import annotations

from typing import Any

from fastticket.gateway.admin import events, keys, loglevel, sessions, status, upstreams
from fastticket.gateway.admin.contract import Call, Operation, Parameter
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.openapi import document_of
from fastticket.gateway.admin.shapes import (
    PRINCIPAL,
    SESSION,
    SESSION_ID,
    TEXT,
    VALUES,
    listed,
    record,
    table,
    with_default,
)

OF_WORKER = ("no_worker", "worker_silent", "busy")
OF_STORE = (*OF_WORKER, "store_unavailable")

PATH_ID = Parameter("id", "path", SESSION_ID, "the session's id")
PATH_PRINCIPAL = Parameter("principal", "path", PRINCIPAL, "whose sessions, percent-encoded")
QUERY_PRINCIPAL = Parameter(
    "principal", "query", {"type": "string", "maxLength": 190, "default": ""}, "whose session it is"
)


async def show_document(_gateway: Gateway, _call: Call) -> Any:
    """GET /v1/openapi.json"""
    return DOCUMENT


TABLE: tuple[Operation, ...] = (
    Operation("GET", "/v1/openapi.json", "document", "This document.", show_document, table({})),
    Operation("GET", "/v1/status", "status", "What this gateway is and does.", status.show_status, status.STATUS),
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
