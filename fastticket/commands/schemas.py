"""What each command prints with `--json`, as JSON Schemas, and `fastticket schema`, which prints
them.

A later version may print more members than are described here, never fewer: whoever reads the
output ignores those that it does not know. tests/commands/test_json.py compares what every command
prints with its schema.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from fastticket.commands import terminal
from fastticket.errors import ConfigError
from fastticket.gateway.admin.status import STATUS
from fastticket.gateway.admin.upstreams import UPSTREAMS

Schema = Mapping[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SECONDS: Schema = {"type": "integer", "minimum": 0, "description": "seconds; 0: without that limit"}
NUMBER: Schema = {"type": "number", "minimum": 0}
YES_NO: Schema = {"type": "boolean"}
#: A time as `iso` writes it, in UTC; beyond the calendar's end it is a number of ms.
TIME: Schema = {"type": "string", "pattern": r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z|\d+ ms)$"}
SESSION_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"}
KEY_ID: Schema = {"type": "integer", "minimum": 0, "maximum": 255}


def one_of(*values: str) -> Schema:
    """One of these texts."""
    return {"enum": list(values)}


def or_null(schema: Schema, description: str) -> Schema:
    """The same or null. `description`: when it is null."""
    return {"anyOf": [schema, {"type": "null"}], "description": description}


def list_of(schema: Schema) -> Schema:
    """An array of them."""
    return {"type": "array", "items": schema}


def map_of(schema: Schema) -> Schema:
    """An object with any names."""
    return {"type": "object", "additionalProperties": schema}


def members(required: Mapping[str, Schema], sometimes: Mapping[str, Schema] | None = None) -> Schema:
    """An object with these members."""
    return {"type": "object", "properties": {**required, **(sometimes or {})}, "required": list(required)}


SESSION = members(
    {
        "id": SESSION_ID,
        "principal": TEXT,
        "created": TIME,
        "idle_deadline": or_null(TIME, "null: none"),
        "absolute_deadline": or_null(TIME, "null: none"),
        "details": map_of(TEXT),
    }
)
END = {
    "kind": one_of("rotated", "revoked", "expired"),
    "reason": {"type": "string", "description": "of a revocation, and of an expiry; else empty"},
    "successor_id": {"type": "string", "description": "of a rotation: the session's id from then on; else empty"},
    "at": or_null(TIME, "null where the store's log has no times (SQLite)"),
}

IMPORTED = members(
    {
        "created": COUNT,
        "exists": COUNT,
        "ended": COUNT,
        "expired": COUNT,
        "done_before": {**COUNT, "description": "by an earlier run"},
        "in_doubt": {**COUNT, "description": "of these: not there, and perhaps ended since"},
        "skipped": {**map_of(COUNT), "description": "by the reason"},
        "dry_run": YES_NO,
    }
)

MIGRATED = members(
    {
        "source": TEXT,
        "dry_run": YES_NO,
        "read": COUNT,
        **IMPORTED["properties"],
        "examples": list_of(members({"what": TEXT, "why": TEXT})),
        "attributes_left": list_of(members({"name": TEXT, "why": TEXT, "count": COUNT})),
    }
)

#: Command -> what it prints, and a sentence about it. `events` prints one such object a line.
SCHEMAS: Mapping[str, tuple[str, Schema]] = {
    "keygen": ("Only with --out.", members({"file": TEXT, "ids": list_of(KEY_ID)})),
    "keys list": (
        "In the order of the file, the one that signs last.",
        list_of(
            members(
                {
                    "id": KEY_ID,
                    "state": one_of("signs", "verifies"),
                    "created": or_null({"type": "string", "format": "date-time"}, "null: the file does not say"),
                    "age_s": or_null({"type": "integer"}, "null: the file does not say"),
                },
                {"uses": or_null(COUNT, "only with --admin; null: the gateway does not say")},
            )
        ),
    ),
    "keys add": ("", members({"file": TEXT, "added": list_of(KEY_ID)})),
    "keys promote": ("", members({"file": TEXT, "signs": KEY_ID})),
    "keys retire": (
        "Exit code 1 goes with `is_out` false.",
        members({"file": TEXT, "id": KEY_ID, "is_out": YES_NO, "uses": or_null(COUNT, "null: without --admin")}),
    ),
    "issue": (
        "The ticket is a secret.",
        members({"ticket": TEXT, "session_id": SESSION_ID, "principal": TEXT, "store": TEXT}),
    ),
    "inspect": (
        "Of a ticket that is not authentic, the verdict alone.",
        members(
            {"verdict": TEXT},
            {
                "principal": TEXT,
                "session_id": SESSION_ID,
                "key_id": KEY_ID,
                "issued_at": TIME,
                "idle_timeout_s": SECONDS,
                "absolute_lifetime_s": SECONDS,
                "session": {
                    **one_of("lives", "ended", "unknown"),
                    "description": "only if a store was named; unknown: it did not answer",
                },
                "idle_deadline": or_null(TIME, "of a session that lives; null: none"),
                "absolute_deadline": or_null(TIME, "of a session that lives; null: none"),
                "end": or_null(members(END), "of a session that ended; null: the store's log says nothing of it"),
            },
        ),
    ),
    "sessions": (
        "A list; with --count, an object.",
        {"anyOf": [list_of(SESSION), members({"count": COUNT})]},
    ),
    "revoke": (
        "With --all, how many.",
        {
            "anyOf": [
                members({"principal": TEXT, "ended": list_of(SESSION_ID)}),
                members({"ended": COUNT, "is_complete": {**YES_NO, "description": "false: some may come back"}}),
            ]
        },
    ),
    "events": (
        "One object a line.",
        members(
            {
                "position": TEXT,
                "kind": one_of("created", "rotated", "changed", "revoked", "expired"),
                "session_id": TEXT,
                "principal": TEXT,
                "reason": END["reason"],
                "successor_id": END["successor_id"],
                "at": END["at"],
            }
        ),
    ),
    "export": (
        "",
        members({"file": TEXT, "sessions": COUNT, "done_before": {**COUNT, "description": "of them, by earlier runs"}}),
    ),
    "import": ("", IMPORTED),
    **{f"migrate {source}": ("", MIGRATED) for source in ("linkis", "spring", "flask-session", "starsessions")},
    "migrate oauth2-proxy": (
        "A line of their files each.",
        members(
            {
                "configuration": {**TEXT, "description": "TOML"},
                "lines": list_of(
                    members(
                        {
                            "file": TEXT,
                            "number": {**COUNT, "description": "of its line; 0: not found"},
                            "key": TEXT,
                            "ours": {**TEXT, "description": "empty: it has no counterpart"},
                            "note": TEXT,
                        }
                    )
                ),
                "to_do": {**list_of(TEXT), "description": "what is needed before the configuration can be used"},
            }
        ),
    ),
    "copy": (
        "",
        members(
            {
                "sessions": COUNT,
                "written": COUNT,
                "ended": {**COUNT, "description": "which the mirror does not take: it knows that they have ended"},
                "strays": {**COUNT, "description": "which only the mirror had"},
                "strays_ended": YES_NO,
                "clock_ahead_ms": {"type": "integer", "description": "the mirror's"},
            }
        ),
    ),
    "probe": (
        "What the page says, /readyz first.",
        {
            "anyOf": [
                members({"ready": YES_NO, "away": list_of(TEXT), "reasons": list_of(TEXT)}),
                members({"healthy": YES_NO, "away": list_of(TEXT)}),
            ]
        },
    ),
    "status": (
        "`status`, `upstreams` and `fleet` are what the admin API says under /v1/status, /v1/upstreams and /v1/gateways.",
        members(
            {
                "is_healthy": {"type": "boolean", "description": "nothing is away; exit code 1 goes with false"},
                "status": STATUS,
                "upstreams": UPSTREAMS["properties"]["upstreams"],
                "fleet": or_null({"type": "object"}, "null while no worker serves"),
            }
        ),
    ),
    "check-config": (
        "`configuration` is that of the reference; null if there are problems.",
        members(
            {
                "problems": list_of(TEXT),
                "warnings": list_of(TEXT),
                "configuration": or_null({"type": "object"}, "null if there are problems"),
            }
        ),
    ),
}


def schema_of(command: str) -> dict[str, Any]:
    """The whole schema of a command's output. KeyError: it has none."""
    text, schema = SCHEMAS[command]
    title = f"fastticket {command} --json"
    return {"$schema": DIALECT, "title": title, **({"description": text} if text else {}), **schema}


def print_schemas(options: argparse.Namespace) -> int:
    """Print a command's schema, or all of them by name. ConfigError: it has none."""
    name = " ".join(options.command)
    if name and name not in SCHEMAS:
        below = [each for each in SCHEMAS if each.startswith(f"{name} ")]
        what = "has commands of its own" if below else "prints no JSON"
        raise ConfigError(f"schema: {name} {what}; there are: {', '.join(below or SCHEMAS)}")
    shown: Any = schema_of(name) if name else {each: schema_of(each) for each in SCHEMAS}
    print(terminal.json_text(shown, indent=2))
    return 0
