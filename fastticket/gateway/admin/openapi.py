"""The OpenAPI 3.1 document of the admin API, made of the table of operations."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastticket.gateway.admin.access import CHANGE_FIELD
from fastticket.gateway.admin.contract import Operation
from fastticket.gateway.admin.refusals import REFUSALS

VERSION = "1"  # of the API, as in its paths
#: What any operation may answer.
ALWAYS = ("bad_request", "unauthorized", "forbidden", "method_not_allowed", "length_required", "too_large", "failed")
FOR_CHANGES = ("not_json", "busy")
ERROR = {
    "type": "object",
    "properties": {"error": {"type": "string", "enum": [*REFUSALS]}, "message": {"type": "string"}},
    "required": ["error", "message"],
    "additionalProperties": False,
}


def document_of(table: Iterable[Operation]) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in table:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fastticket admin API",
            "version": VERSION,
            "description": "On the admin listener of a gateway. Errors have a slug for programs and a message.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "tags": [{"name": "admin"}],
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of [gateway] admin_token_file. Through a Unix socket, the gateway's user, "
                    "root and admin_owner need none.",
                }
            },
        },
    }


def refusals_of(operation: Operation) -> list[str]:
    """The slugs of all that an operation may refuse."""
    of_changes = FOR_CHANGES if operation.changes else ()
    return list(dict.fromkeys([*operation.refusals, *ALWAYS, *of_changes]))


def _operation(operation: Operation) -> dict[str, Any]:
    content_type = "text/event-stream" if operation.is_stream else "application/json"
    done = {"description": operation.summary, "content": {content_type: {"schema": operation.answer}}}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": ["admin"],
        "responses": {str(operation.status.value): done, **_refused(operation)},
    }
    if operation.text:
        described["description"] = operation.text
    parameters = [
        {
            "name": each.name,
            "in": each.place,
            "required": each.place == "path",
            "description": each.text,
            "schema": each.schema,
        }
        for each in operation.parameters
    ]
    if operation.changes and operation.body is None:
        text = "a change without a body needs it, with any value, so that no page of another site can make it"
        parameters.append(
            {"name": CHANGE_FIELD, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
        )
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": operation.body}}}
    return described


def _refused(operation: Operation) -> dict[str, Any]:
    """By status: which slugs it may have."""
    slugs: dict[HTTPStatus, list[str]] = {}
    for slug in refusals_of(operation):
        slugs.setdefault(REFUSALS[slug][0], []).append(slug)
    return {
        str(status.value): {
            "description": " ".join(f"`{slug}`: {REFUSALS[slug][1]}" for slug in found),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, found in sorted(slugs.items())
    }
