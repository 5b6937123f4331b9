"""`make corpus`: every attack, every bad response and paths of public pages, over sockets, and
properties files, as a table.

Rule: nothing is judged here. A row counts the runs of attack_runs.py, response_runs.py and
path_corpus.py that raised nothing; of a properties file it says whether it is read as
java_properties.py does. Exit code 1 unless all is as wanted.
"""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conftest import gateways, origins

from fastticket.gateway.properties import read_properties
from lab import attack_runs, path_corpus, response_runs
from lab.attack_corpus import ATTACKS
from lab.deliveries import bytewise, in_two, whole
from lab.java_properties import KNOWN_TEXTS, load
from lab.response_corpus import ANSWERS


@dataclass
class Row:
    """One entry of a corpus, and in how many of its runs all was as wanted."""

    id: str
    group: str
    wanted: str
    seen: str
    is_whole_right: bool
    splits: int
    splits_right: int

    @property
    def is_right(self):
        return self.is_whole_right and self.splits_right == self.splits

    def __str__(self):
        split = f"{self.splits_right}/{self.splits}"
        return (
            f"{self.id:36}{self.group:26}{self.wanted:28}{self.seen:18}{split:>12}  {'' if self.is_right else 'WRONG'}"
        )


def is_right(run: Callable, *arguments) -> bool:
    try:
        run(*arguments)
    except (AssertionError, EOFError, OSError):
        return False
    return True


def row(entry, raw, show, run, stage, check_in_the_end=lambda runs: None):
    splits = [bytewise(raw), *in_two(raw)]
    is_whole_right = is_right(run, stage, entry, whole(raw))
    seen = show()
    right = sum(is_right(run, stage, entry, pieces) for pieces in splits)
    is_whole_right &= is_right(check_in_the_end, 1 + len(splits))
    return Row(entry.id, entry.group, str(entry.verdict), seen, is_whole_right, len(splits), right)


def attack_row(attack, start_gateway, start_origin):
    guarded = attack_runs.guard(start_gateway, start_origin)
    return row(
        attack,
        guarded.bytes_of(attack),
        lambda: ", ".join(map(str, guarded.statuses)),
        attack_runs.run,
        guarded,
        lambda runs: attack_runs.check_in_the_end(guarded, attack, runs),
    )


def answer_row(answer, start_gateway, start_origin):
    stage = response_runs.set_stage(start_gateway, start_origin)
    return row(answer, answer.raw(), lambda: stage.seen, response_runs.run, stage)


def path_row(entry, start_gateway, start_origin):
    stage = path_corpus.set_stage(entry.layout, start_gateway, start_origin)
    return row(entry, entry.raw(), lambda: stage.seen, path_corpus.run, stage)


def properties_row(entry, *_):
    """A row for a text of properties: one run, which cannot be split."""
    text, wanted = entry
    found = read_properties(text)
    is_right = found == load(text) == wanted
    return Row(ascii(text)[1:-1][:34], "properties", ascii(wanted)[:26], ascii(found)[:16], is_right, 0, 0)


def rows(title, make_row, entries):
    """Print them as they come, and the total."""
    print(f"\n{title}\n{'id':36}{'group':26}{'wanted':28}{'seen whole':18}{'right split':>12}")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for entry in entries:
            with origins() as start_origin, gateways(Path(folder)) as start_gateway:
                found.append(make_row(entry, start_gateway, start_origin))
            print(found[-1], flush=True)
    return found


def total(title, found):
    right = sum(row.is_whole_right for row in found)
    splits_right, splits = sum(row.splits_right for row in found), sum(row.splits for row in found)
    return f"{title:36}{right}/{len(found)} whole, {splits_right}/{splits} split"


def main():
    tables = {
        "attacks of reliability.md": (attack_row, [attack for attack in ATTACKS if attack.id.isdigit()]),
        "more attacks": (attack_row, [attack for attack in ATTACKS if not attack.id.isdigit()]),
        "responses of a service": (answer_row, ANSWERS),
        "paths of public pages": (path_row, path_corpus.PATHS),
        "properties files": (properties_row, KNOWN_TEXTS),
    }
    found = {title: rows(title, *table) for title, table in tables.items()}
    print("", *(total(title, some) for title, some in found.items()), sep="\n")
    return 0 if all(row.is_right for some in found.values() for row in some) else 1


if __name__ == "__main__":
    sys.exit(main())
