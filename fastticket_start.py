"""The entry point of the command `fastticket`: what must happen before the package is imported,
which takes a tenth of a second.
"""

import os
import signal
import sys

ENDED_BY_SIGTERM = 128 + signal.SIGTERM


def main() -> int:
    """Run a command; the exit code.

    For the first process of a container (pid 1) the kernel drops SIGTERM until it has a handler.
    And SIGHUP, SIGUSR1 and SIGUSR2, which mean "reload", "open the logs anew" and "upgrade" to a
    gateway, must not end one that still starts: it is about to do all that.
    """
    _open_standard_streams()
    if sys.argv[1:2] == ["serve"]:
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(ENDED_BY_SIGTERM))
    from fastticket.commands.cli import main as command

    return command()


def _open_standard_streams() -> None:
    """Open those that are closed (`2>&-`): their number would become that of the next file or
    socket, and messages would be written into it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 -- for as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
