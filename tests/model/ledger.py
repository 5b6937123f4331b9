"""The operations that a gateway makes again, as the product's ledger keeps it
(stores/redis/again.py): a tuple of operations, first heard first.

What has ended is not made again even for a moment, nor what it came from: so an end takes the login
or rotation out of the ledger, and an end of all takes out each that it ended.
"""

from __future__ import annotations

from model.store import Id, Operation

Ledger = tuple[Operation, ...]


def noted(ledger: Ledger, heard: Operation) -> Ledger:
    match heard.kind:
        case "end":
            return _ended(ledger, heard.sid)
        case "everywhere":
            return (*(other for other in ledger if not _is_over_with(other, heard)), heard)
    if any((other.kind, other.sid) == (heard.kind, heard.sid) for other in ledger):
        return ledger
    return (*ledger, heard)


def _ended(ledger: Ledger, sid: Id) -> Ledger:
    """An end takes the login and the rotations that led to the session along."""
    ledger = tuple(other for other in ledger if (other.kind, other.sid) != ("create", sid))
    if Operation("end", sid) not in ledger:
        ledger = (*ledger, Operation("end", sid))
    for other in ledger:
        if other.kind == "rotate" and other.successor == sid:
            return _ended(tuple(left for left in ledger if left is not other), other.sid)
    return ledger


def _is_over_with(other: Operation, heard: Operation) -> bool:
    """Whether an end of all says this, too."""
    if other.kind == "everywhere":
        return other.principal == heard.principal
    record = other.record
    if record is None or record.principal != heard.principal or record.created > heard.up_to:
        return False
    return heard.kept is None or heard.kept != (other.successor if other.kind == "rotate" else other.sid)
