"""What an operation of the admin API is."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Literal, NamedTuple

from fastticket.gateway.admin.gateway import Gateway
from fastticket.gateway.admin.schema import Schema


class Who(NamedTuple):
    """Who asks."""

    name: str  #: the name of the token, or of the user
    uid: int | None = None  #: of the process at the other end of a Unix socket
    pid: int | None = None
    address: str = ""  #: where a connection comes from that is none of a Unix socket

    def __str__(self) -> str:
        return f"{self.name}{f' at {self.address}' if self.address else ''}"


@dataclasses.dataclass(frozen=True)
class Call:
    """One request for an operation, checked."""

    who: Who
    parameters: Mapping[str, Any]  #: of path, query and fields, by name; those that did not come have their default
    body: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.parameters[name]


class Parameter(NamedTuple):
    """A parameter of an operation. One of a path is required, any other has a default."""

    name: str
    place: Literal["path", "query", "header"]
    schema: Schema  #: with `default`, if it is not of a path
    text: str


#: Returns what is answered, as JSON; Refused.
Handler = Callable[[Gateway, Call], Awaitable[Any]]
#: Returns pieces of a stream of events; Refused.
Streamer = Callable[[Gateway, Call], Awaitable[AsyncGenerator[bytes, None]]]


@dataclasses.dataclass(frozen=True)
class Operation:
    """One row of the table."""

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str  #: with `{name}` for each parameter of it
    name: str  #: as the audit log has it, and the document's operationId
    summary: str  #: one sentence
    run: Handler | Streamer
    answer: Schema
    text: str = ""  #: what there is to say beside the summary
    parameters: tuple[Parameter, ...] = ()
    body: Schema | None = None  #: None: there is none
    status: HTTPStatus = HTTPStatus.OK
    refusals: tuple[str, ...] = ()  #: slugs of its own, beside those that every operation has
    is_stream: bool = False
    told: tuple[str, ...] = ()  #: what of its answer the audit log has

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"
