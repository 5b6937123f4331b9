"""From a request to the answer of an operation: finds its row in the table, checks who asks and
what, runs it, and notes in the audit log what was changed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import urllib.parse
from collections.abc import AsyncGenerator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from fastticket.gateway.admin.access import Access, Client
from fastticket.gateway.admin.access import is_json as says_json
from fastticket.gateway.admin.audit import AuditLog
from fastticket.gateway.admin.contract import Call, Operation, Parameter, Who
from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.operations import TABLE
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.admin.schema import fault_of, value_of

log = logging.getLogger("fastticket.admin")

PREFIX = "/v1/"
BODY_BYTES_MAX = 65_536
PARAMETERS_MAX = 20


class Request(NamedTuple):
    """A request, up to its body."""

    method: str
    path: str
    query: str
    host: str
    fields: Mapping[str, Sequence[str]]  #: by name in lower case
    body_bytes: int | None  #: 0: there is none; None: only its end will say


class Answer(NamedTuple):
    """An answer, whole."""

    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"
    fields: Sequence[tuple[str, str]] = ()


class Found(NamedTuple):
    """What a request asks for, if it may."""

    operation: Operation
    who: Who
    parameters: dict[str, Any]


class Dispatcher:
    """For the requests under PREFIX."""

    def __init__(self, gateway: Gateway, audit: AuditLog) -> None:
        self._gateway = gateway
        self._audit = audit
        self._rows = [(_pattern_of(operation.path), operation) for operation in TABLE]

    def find(self, request: Request, client: Client, access: Access) -> Found:
        """What is asked for, and by whom: everything is checked that can be before the body is
        read. Refused.
        """
        who = client.stranger
        try:
            access.check_page(client, request.fields, request.host)
            who = access.who(client, request.fields)
            return self._found(request, who, access)
        except Refused as error:
            self.note_refused(request, who, error.reason)
            raise

    def _found(self, request: Request, who: Who, access: Access) -> Found:
        operation, of_path = self._row_of(request)
        if operation.changes:
            access.check_change(request.fields)
        if request.body_bytes is None:
            raise Refused("length_required")
        if request.body_bytes > BODY_BYTES_MAX:
            raise Refused("too_large", f"a body has at most {BODY_BYTES_MAX} bytes")
        if request.body_bytes and operation.body is None:
            raise Refused("bad_request", "this operation takes no body")
        if operation.body is not None and not says_json(request.fields):
            raise Refused("not_json")
        return Found(operation, who, _parameters_of(operation, of_path, request))

    def note_refused(self, request: Request, who: Who, reason: str) -> None:
        """In the audit log: a change that was refused before it began, and a token that is not
        known. To read without any is what every page does until its token is typed.
        """
        operation: Operation | None = None
        parameters: dict[str, Any] = {}
        with contextlib.suppress(Refused):
            operation, of_path = self._row_of(request)
            parameters = _parameters_of(operation, of_path, request)
        if operation and operation.changes:
            self._note(operation, Call(who, parameters, {}), reason, {})
        elif reason == "unauthorized" and "authorization" in request.fields:
            self._audit.note(who, operation.name if operation else "unknown", {}, reason, {})

    def refused(self, found: Found, error: Refused) -> Refused:
        """The same error, noted: an operation that was found does not begin."""
        self._note(found.operation, Call(found.who, found.parameters, {}), error.reason, {})
        return error

    async def run(self, found: Found, body: bytes) -> Answer | AsyncGenerator[bytes, None]:
        """The answer, or the pieces of a stream. Refused."""
        operation, who, parameters = found
        call = Call(who, parameters, {})
        try:
            call = Call(who, parameters, _body_of(operation, body))
            answer = await operation.run(self._gateway, call)
        except Refused as error:
            self._note(operation, call, error.reason, {})
            raise
        except Exception:
            log.exception("the operation %s has failed", operation.name)
            self._note(operation, call, "failed", {})
            raise Refused("failed") from None
        if operation.is_stream:
            return answer
        self._note(operation, call, "done", answer)
        return json_answer(answer, operation.status)

    def _row_of(self, request: Request) -> tuple[Operation, dict[str, str]]:
        """The operation, and the parameters in the path. Refused."""
        fits = [(operation, match) for pattern, operation in self._rows if (match := pattern.fullmatch(request.path))]
        if not fits:
            raise Refused("not_found")
        fits = [each for each in fits if each[0].path == request.path] or fits  # /sessions/count is no id
        wanted = "GET" if request.method == "HEAD" else request.method
        for operation, match in fits:
            if operation.method == wanted:
                return operation, match.groupdict()
        raise MethodNotAllowed(sorted({operation.method for operation, _ in fits}))

    def _note(self, operation: Operation, call: Call, result: str, answer: Any) -> None:
        """In the audit log: each change, and each look at what applications keep in sessions."""
        if operation.changes or call.parameters.get("values"):
            told = {name: answer[name] for name in operation.told if name in answer}
            given = {name: value for name, value in call.parameters.items() if value not in (None, "", False)}
            self._audit.note(call.who, operation.name, given | dict(call.body), result, told)


class MethodNotAllowed(Refused):
    """The path has other methods."""

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__("method_not_allowed")
        self.allow = ", ".join(methods)


def json_answer(value: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """An answer in JSON."""
    return Answer(status, json.dumps(value, ensure_ascii=False).encode(errors="replace") + b"\n")


def refusal_answer(error: Refused) -> Answer:
    """What a client is told that is refused."""
    fields: list[tuple[str, str]] = []
    if isinstance(error, MethodNotAllowed):
        fields.append(("Allow", error.allow))
    if error.status == HTTPStatus.UNAUTHORIZED:
        fields.append(("WWW-Authenticate", "Bearer"))
    if error.status == HTTPStatus.SERVICE_UNAVAILABLE:
        fields.append(("Retry-After", "1"))
    answer = json_answer({"error": error.reason, "message": str(error)}, HTTPStatus(error.status))
    return answer._replace(fields=fields)


def _pattern_of(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))


def _parameters_of(operation: Operation, of_path: Mapping[str, str], request: Request) -> dict[str, Any]:
    """Of path, query and fields, with defaults. Refused."""
    texts = {name: _decoded(text) for name, text in of_path.items()}
    texts |= _query_of(operation, request.query)
    for parameter in operation.parameters:
        if parameter.place == "header" and (values := request.fields.get(parameter.name.lower())):
            texts[parameter.name] = values[0]
    return {each.name: _value_of(each, texts.get(each.name)) for each in operation.parameters}


def _query_of(operation: Operation, query: str) -> dict[str, str]:
    known = [parameter.name for parameter in operation.parameters if parameter.place == "query"]
    try:
        pairs = urllib.parse.parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=PARAMETERS_MAX, errors="strict"
        )
    except ValueError:
        raise Refused("bad_request", "the query is not NAME=VALUE&...") from None
    texts = dict(pairs)
    unknown = sorted(texts.keys() - set(known))
    if unknown or len(texts) < len(pairs):
        what = f"{unknown[0]!r} is not known" if unknown else "a parameter is there twice"
        raise Refused("bad_request", f"{what}; the parameters are: {', '.join(known) or 'none'}")
    return texts


def _decoded(text: str) -> str:
    try:
        return urllib.parse.unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise Refused("bad_request", "the path is not UTF-8") from None


def _value_of(parameter: Parameter, text: str | None) -> Any:
    if text is None:
        return parameter.schema["default"]
    value = value_of(text, parameter.schema)
    if fault := fault_of(value, parameter.schema, parameter.name):
        raise Refused("bad_request", fault)
    return value


def _body_of(operation: Operation, body: bytes) -> dict[str, Any]:
    if operation.body is None:
        return {}
    value = None
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(body)
    fault = fault_of(value, operation.body, "the body")
    if fault or not isinstance(value, dict):
        raise Refused("bad_request", fault or "the body must be an object")
    return value
