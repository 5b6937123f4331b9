"""A counterexample in plain words: one line a move, with the time, and what the gateways believe
then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model.protocol import Gateway, Step
from model.scopes import NOW
from model.store import Operation

WHAT = {"flush": "for the news", "load": "for the deadline", "repair": "again for what it holds,"}


def story(steps: Sequence[Step], broken: str) -> Iterator[str]:
    time = 0
    for number, step in enumerate(steps, 1):
        time += step.label[0] == "tick"
        yield f"{number:3}  t{time:<3} {sentence(step.label).replace(' ;', ';'):72} {beliefs(step)}".rstrip()
    yield f"     t{time:<3} -> {broken}"


def sentence(label: tuple) -> str:
    match label:
        case ("tick",):
            return "time goes on"
        case ("unconfirmed", *rest):
            return f"{sentence(tuple(rest))}; who is the primary nobody tells it"
        case (("ask" | "ask in vain") as verb, g, kind, wanted):
            return f"gateway {g} asks {WHAT[kind]} {_sessions(wanted)}" + (
                "; it is lost" if verb == "ask in vain" else ""
            )
        case ("ask, and the answer is lost", g, *_):
            return f"gateway {g} flushes; it is done, and the answer is lost"
        case ("ask, with a copy", g, *_):
            return f"gateway {g} flushes; a copy stays in the network"
        case ("serve", g, kind, wanted):
            return f"the store answers gateway {g}'s {kind} {_sessions(wanted)}; the answer is on its way"
        case ("hear", g, kind, wanted, *said):
            return f"gateway {g} hears the answer to its {kind} {_sessions(wanted)}" + "".join(
                f": {word}" for word in said
            )
        case ("time out", g, kind, wanted):
            return f"gateway {g} gives up its {kind} {_sessions(wanted)}"
        case ("stall" | "wake" | "restart" as verb, g):
            return (
                f"gateway {g} " + {"stall": "is stalled", "wake": "wakes; its pulse beats", "restart": "restarts"}[verb]
            )
        case ("request" | "request, with a copy" | "request, its answer is lost" as verb, g, name, arguments):
            ending = {"request": "acknowledged", "request, with a copy": "acknowledged; a copy stays in the network"}
            return (
                f"{_request(name, arguments)} through gateway {g}: {ending.get(verb, 'done, but nobody hears of it')}"
            )
        case ("a late request", name, arguments):
            return f"a late copy arrives: {_request(name, arguments)}"
        case ("make again", g, ledger):
            return (
                f"gateway {g} meets the new primary, and makes again: {', '.join(map(_operation, ledger)) or 'nothing'}"
            )
        case ("switch", g):
            return f"gateway {g} meets the new primary"
        case ("failover", old_lives):
            return "the snapshot becomes the primary" + (
                "; the old one lives on" if old_lives else "; the old one is dead"
            )
        case ("use" | "refuse" as verb, g, sid):
            return f"session {sid} is used through gateway {g}" + (
                "" if verb == "use" else ", which refuses it as idle"
            )
        case ("snapshot",):
            return "a snapshot of the store is taken"
        case ("trim the log",):
            return "the store trims its log"
        case ("read the clock" | "nothing to repair" as verb, g):
            return f"gateway {g} " + {"read the clock": "reads the store's clock"}.get(verb, "holds nothing to repair")
        case (verb,):  # of the store's clock
            return f"{verb}"
    raise ValueError(label)


def beliefs(step: Step) -> str:
    """The lease, and what is held: `0?` is session 0, to be looked up again."""
    return " | ".join(_belief(gateway) for gateway in step.state.gateways if any(gateway.held) or gateway.out)


def _belief(gateway: Gateway) -> str:
    held = " ".join(f"{sid}{'' if entry.confirmed else '?'}" for sid, entry in enumerate(gateway.held) if entry)
    lease = gateway.lease - NOW
    return f"holds {held or 'nothing'}, {f'leased for {lease}' if lease > 0 else 'no lease'}"


def _sessions(wanted: tuple[int, ...]) -> str:
    return f"of session {', '.join(map(str, wanted))}" if wanted else ""


def _request(name: str, arguments: tuple) -> str:
    match name:
        case "create":
            return f"login of session {arguments[0]}"
        case "rotate":
            return f"rotation of session {arguments[0]} to {arguments[1]}"
        case "revoke":
            return f"logout of session {arguments[0]}"
        case "revoke_all":
            return f"logout of {arguments[0]} everywhere" + (
                "" if arguments[1] is None else f" but session {arguments[1]}"
            )
    return "touches of " + ", ".join(f"session {sid}" for sid, _ in arguments)


def _operation(operation: Operation) -> str:
    match operation.kind:
        case "rotate":
            return f"rotate {operation.sid} to {operation.successor}"
        case "everywhere":
            return f"end all of {operation.principal}"
    return f"{operation.kind} {operation.sid}"
