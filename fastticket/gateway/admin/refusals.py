"""Why an operation of the admin API is refused: one row for each slug."""

from __future__ import annotations

from http import HTTPStatus

from fastticket.errors import FastticketError

#: Slug -> status, and what it means. Which of them an operation may answer is in the table of
#: operations.
REFUSALS: dict[str, tuple[HTTPStatus, str]] = {
    "bad_request": (HTTPStatus.BAD_REQUEST, "The request, a parameter or the body is not as the operation needs it."),
    "invalid_principal": (HTTPStatus.BAD_REQUEST, "The principal is none: 1 to 190 bytes of UTF-8, no controls."),
    "unauthorized": (HTTPStatus.UNAUTHORIZED, "A bearer token is needed, or the one that came is not known."),
    "forbidden": (HTTPStatus.FORBIDDEN, "Not from this address, user, host name or web page."),
    "not_found": (HTTPStatus.NOT_FOUND, "There is no such path."),
    "no_such_session": (HTTPStatus.NOT_FOUND, "The session does not live, or never did."),
    "no_such_key": (HTTPStatus.NOT_FOUND, "The key file has no key of this id."),
    "no_such_server": (HTTPStatus.NOT_FOUND, "There is no upstream or server of this name."),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "The path has other methods: see Allow."),
    "key_in_use": (HTTPStatus.CONFLICT, "The key signs, or tickets were verified by it a short time ago."),
    "key_not_loaded": (HTTPStatus.CONFLICT, "This gateway has not loaded the key: reload every gateway first."),
    "keys_not_in_file": (HTTPStatus.CONFLICT, "The keys come from the environment: change them there."),
    "key_file": (HTTPStatus.CONFLICT, "The key file cannot be changed so; nothing has changed."),
    "last_server": (HTTPStatus.CONFLICT, "The upstream would be left without a server."),
    "not_confirmed": (HTTPStatus.CONFLICT, "It changes a lot: say yes=true."),
    "reload_refused": (HTTPStatus.CONFLICT, "The configuration before stays in force."),
    "stopping": (HTTPStatus.CONFLICT, "The gateway was told to stop."),
    "too_many_sessions": (
        HTTPStatus.CONFLICT,
        "The principal has sessions_max sessions, and none may be ended for it.",
    ),
    "length_required": (HTTPStatus.LENGTH_REQUIRED, "The body must come with a Content-Length."),
    "too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large."),
    "not_json": (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON, with Content-Type: application/json."),
    "busy": (HTTPStatus.SERVICE_UNAVAILABLE, "Too much is asked at once: try again."),
    "no_worker": (HTTPStatus.SERVICE_UNAVAILABLE, "There is no worker now, which a moment may change."),
    "worker_silent": (HTTPStatus.SERVICE_UNAVAILABLE, "The worker has not answered in time; a change may be done."),
    "store_unavailable": (HTTPStatus.SERVICE_UNAVAILABLE, "The store does not answer; a change may be done."),
    "failed": (HTTPStatus.INTERNAL_SERVER_ERROR, "A bug: the error log has more."),
}


class Refused(FastticketError):  # noqa: N818 -- a refusal, not a malfunction
    """An operation is refused. `reason`: a slug of REFUSALS; the message says what to do, and
    contains no secret.
    """

    def __init__(self, reason: str, message: str = "") -> None:
        status, meaning = REFUSALS[reason]
        super().__init__(message or meaning)
        self.reason, self.status = reason, status
