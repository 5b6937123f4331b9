"""A plugin of pytest that keeps which moves between states a debug build has made:

    FASTTICKET_DEBUG=1 python setup.py build_ext --inplace
    FASTTICKET_MOVES=FILE python -m pytest -p lab.moves tests/gateway
    cd tests && python -m lab.moves FILE

The last command prints the moves of the table that no test has made. Without FASTTICKET_DEBUG
nothing is kept.
"""

import json
import os
import sys
from pathlib import Path

from fastticket.dataplane.states import MOVES, moves_made


def pytest_sessionfinish():
    with Path(os.environ["FASTTICKET_MOVES"]).open("a") as file:
        file.write(json.dumps([[int(before), int(after)] for before, after in moves_made()]) + "\n")


def unmade(text: str) -> list[str]:
    """The moves of the table that no line of the file has."""
    made = {tuple(move) for line in text.splitlines() for move in json.loads(line)}
    return [
        f"{before.name} -> {after.name}"
        for before, following in MOVES.items()
        for after in sorted(following)
        if (int(before), int(after)) not in made
    ]


if __name__ == "__main__":
    print(*unmade(Path(sys.argv[1]).read_text()), sep="\n")
