"""Error replies of a Redis server, as the exceptions that redis-py has for them."""

from __future__ import annotations

import redis.exceptions as known

#: What a server answers that has another, or none, to serve in its place: it is as good as away.
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
_REDIRECTIONS = ("MOVED", "ASK")  # what follows is for machines: slot and address
_ECHO = ", with args beginning with:"  # a server that does not know AUTH would show the password


def error_of(reply: str) -> known.RedisError:
    """By its first word; a ResponseError if that is another (MISCONF, BUSY, ERR)."""
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


def told(error: known.RedisError) -> str:
    """What the server has said: redis-py's exceptions of redirections are without their first word."""
    word = next((word for word in _REDIRECTIONS if type(error) is _CLASSES[word]), "")
    return f"{word} {error}".strip()
