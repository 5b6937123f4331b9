"""Notifications to systemd (sd_notify(3)) for `Type=notify` and `notify-reload`, and its watchdog.
Without NOTIFY_SOCKET nothing happens.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


def reloading() -> str:
    """The state from a SIGHUP until the next READY."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}"


def notify(state: str) -> None:
    """Send a state. Never blocks, never raises: a state that systemd does not get is lost."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as told:
        told.sendto(state.encode(), "\0" + path[1:] if path[0] == "@" else path)
