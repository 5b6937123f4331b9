"""Error replies of a Redis server as redis-py's exceptions, and as text for ours."""

from __future__ import annotations

import redis.exceptions as known

#: Errors of a server that cannot serve now, such as a former primary: it counts as failed.
AWAY = (known.ReadOnlyError, known.MasterDownError, known.BusyLoadingError)

_CLASSES: dict[str, type[known.RedisError]] = {
    "MOVED": known.MovedError,
    "ASK": known.AskError,
    "TRYAGAIN": known.TryAgainError,
    "CLUSTERDOWN": known.ClusterDownError,
    "NOSCRIPT": known.NoScriptError,
    "READONLY": known.ReadOnlyError,
    "MASTERDOWN": known.MasterDownError,
    "LOADING": known.BusyLoadingError,
    "NOAUTH": known.AuthenticationError,
    "WRONGPASS": known.AuthenticationError,
    "NOPERM": known.NoPermissionError,
    "OOM": known.OutOfMemoryError,
}
_REDIRECTIONS = ("MOVED", "ASK")  # slot and address follow, not a text
_ECHO = ", with args beginning with:"  # what follows may be the password, if the server does not know AUTH
REPLY_CHARS_MAX = 200  # of a server's text, in an error of ours


def error_of(reply: str) -> known.RedisError:
    """The exception of an error reply's first word; ResponseError for a word without one (MISCONF,
    BUSY, ERR).
    """
    word, _, rest = reply.partition(" ")
    text = reply.partition(_ECHO)[0]
    if word in _REDIRECTIONS:
        try:
            return _CLASSES[word](rest)
        except ValueError:  # no address in it
            return known.ResponseError(text)
    if reply.startswith(("ERR AUTH", "ERR Client sent AUTH")):
        return known.AuthenticationError(text)
    return _CLASSES.get(word, known.ResponseError)(text)


def text_with_code(error: known.RedisError) -> str:
    """The server's text with its first word, which redis-py's exceptions of redirections lack."""
    word = next((word for word in _REDIRECTIONS if type(error) is _CLASSES[word]), "")
    return shortened(f"{word} {error}".strip())


def shortened(reply: object) -> str:
    """A server's text, cut to REPLY_CHARS_MAX, for an error of ours."""
    return str(reply)[:REPLY_CHARS_MAX]
