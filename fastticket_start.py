"""Where the command `fastticket` begins: before the package is imported, which takes a tenth of a
second.
"""

import os
import signal
import sys

ENDED_BY_SIGTERM = 128 + signal.SIGTERM


def main() -> int:
    """Run a command; the exit code.

    The first process of a container (pid 1) has no default for SIGTERM: the kernel drops it until
    somebody handles it. And what means "reload" or "open the logs anew" to a gateway must not end
    one that still starts: it reads all of that now.
    """
    _open_standard_streams()
    if sys.argv[1:2] == ["serve"]:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(ENDED_BY_SIGTERM))
    from fastticket.commands.cli import main as command

    return command()


def _open_standard_streams() -> None:
    """One that is closed (`2>&-`) would be the number of the next file or socket, and what is said
    to nobody would be written there.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 -- for as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
