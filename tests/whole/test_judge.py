"""The judge finds what is wrong in histories made by hand, and nothing in those that are right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from whole.history import LOST, Event, History, Loss, Rules, Window
from whole.judge import judge, touches_lost

RULES: dict[str, Any] = {"lease_s": 2.0, "flush_s": 0.5, "recovery_s": 5.0}


def login(session: int, at_s: float, *, gateway: int = 0, user: str = "") -> Event:
    return Event("login", gateway, session, user or f"user{session}", at_s, at_s + 0.1, 200)


def asked(
    kind: str, session: int, at_s: float, status: int = 200, *, gateway: int = 0, took_s: float = 0.1, **rest: Any
) -> Event:
    user = rest.pop("user", f"user{session}")
    return Event(kind, gateway, session, user, at_s, at_s + took_s, status, **rest)


def found(
    *events: Event,
    windows: Sequence[Window] = (),
    losses: Sequence[Loss] = (),
    forgets: Sequence[tuple[int, float]] = (),
    **rules: Any,
) -> list[str]:
    history = History(Rules(**{**RULES, **rules}), list(events), list(windows), list(losses), list(forgets))
    return sorted(finding.what for finding in judge(history).findings)


LOGIN = login(1, 0)
LOGOUT = asked("logout", 1, 10)  # acknowledged at 10.1


@pytest.mark.parametrize(
    ("sent_s", "wrong"),
    [(12.0, []), (12.11, ["late"])],
    ids=["within the lease", "later than a lease"],
)
def test_an_admission_after_a_logout_is_late_when_the_lease_is_over(sent_s: float, wrong: list[str]) -> None:
    assert found(LOGIN, LOGOUT, asked("use", 1, sent_s, gateway=1)) == wrong


def test_an_admission_that_was_asked_for_in_time_and_answered_late_is_none() -> None:
    assert found(LOGIN, LOGOUT, asked("use", 1, 12.0, took_s=5)) == []


@pytest.mark.parametrize("kind", ["everywhere", "revoke", "revoke_all", "rotate"])
def test_every_kind_of_end_ends(kind: str) -> None:
    end = asked(kind, 1, 10, successor=2 if kind == "rotate" else None)
    assert found(LOGIN, end, asked("use", 1, 12.2)) == ["late"]


def test_a_rotation_that_is_admitted_on_a_dead_ticket_is_late() -> None:
    assert found(LOGIN, LOGOUT, asked("rotate", 1, 12.2, successor=2)) == ["late"]


def test_everywhere_ends_all_of_that_user_and_nobody_else() -> None:
    events = [login(1, 0, user="a"), login(2, 1, user="a"), login(3, 1, user="b"), asked("everywhere", 1, 10, user="a")]
    later = [asked("use", 2, 13, user="a"), asked("use", 3, 13, 401, user="b")]
    assert found(*events, *later) == ["late", "wrong_401"]


def test_everywhere_leaves_a_login_after_it_alone() -> None:
    events = [login(1, 0, user="a"), asked("everywhere", 1, 10, user="a"), login(2, 11, user="a")]
    assert found(*events, asked("use", 2, 20, user="a")) == []
    assert found(*events, asked("use", 2, 20, 401, user="a")) == ["wrong_401"]


def test_a_login_beside_everywhere_may_be_either() -> None:
    events = [login(1, 0, user="a"), asked("everywhere", 1, 10, user="a"), login(2, 10.05, user="a")]
    assert found(*events, asked("use", 2, 20, user="a")) == []
    assert found(*events, asked("use", 2, 20, 401, user="a")) == []


def test_admitted_again_after_a_refusal_is_a_resurrection() -> None:
    assert found(LOGIN, LOGOUT, asked("use", 1, 11, 401), asked("use", 1, 20, gateway=1)) == ["risen"]


@pytest.mark.parametrize(
    ("sent_s", "window", "wrong"),
    [
        (20, Window(0, 11, 30), []),  # it could not have heard
        (20, Window(1, 11, 30), ["late"]),  # another gateway's outage
        (20, Window(0, 12.5, 30), ["late"]),  # it must have heard before the outage: no credit for what nobody had
        (31.9, Window(0, 11, 30), []),
        (32.1, Window(0, 11, 30), ["late"]),  # it can hear again for a lease
        (20, Window(0, 5, 9), ["late"]),  # over before
        (20, Window(0, 5, 10.5), ["late"]),
        (12.4, Window(0, 5, 10.5), []),
        (20, Window(0, 11, 30, is_deaf=False), ["late"]),  # a process that was away, a failover: P2 all the same
    ],
)
def test_credit_is_for_who_could_not_hear(sent_s: float, window: Window, wrong: list[str]) -> None:
    assert found(LOGIN, LOGOUT, asked("use", 1, sent_s), windows=[window]) == wrong


def test_credit_ends_with_the_grace_and_there_is_none_under_deny() -> None:
    late = asked("use", 1, 50)
    assert found(LOGIN, LOGOUT, late, windows=[Window(0, 11, 100)], grace_s=30) == ["late"]
    assert found(LOGIN, LOGOUT, late, windows=[Window(0, 11, 100)], grace_s=60) == []
    assert found(LOGIN, LOGOUT, late, windows=[Window(0, 11, 100)], outage_policy="deny") == ["late"]


def test_a_live_session_that_is_refused_is_wrong() -> None:
    assert found(LOGIN, asked("use", 1, 5, 401)) == ["wrong_401"]
    assert found(LOGIN, asked("use", 1, 5, 401), windows=[Window(0, 0, 20)]) == ["wrong_401"]  # never 401 in an outage


def test_a_refusal_while_an_end_is_under_way_or_may_have_been_done_is_right() -> None:
    assert found(LOGIN, asked("logout", 1, 4.95, 200, took_s=1), asked("use", 1, 5, 401)) == []
    unknown = asked("logout", 1, 4, LOST, gateway=1)
    assert found(LOGIN, unknown, asked("use", 1, 5, 401), windows=[Window(1, 4, 5)]) == []


def test_an_end_that_was_refused_ended_nothing() -> None:
    assert found(LOGIN, asked("logout", 1, 4, 401), asked("use", 1, 5, 401)) == ["wrong_401", "wrong_401"]


def test_what_the_store_lost_may_be_refused_and_nothing_else() -> None:
    lost, kept = login(1, 10), login(2, 0)
    losses = [Loss(at_s=20, kept_s=5)]
    assert found(lost, kept, asked("use", 1, 30, 401), asked("use", 2, 30, 401), losses=losses) == ["wrong_401"]
    assert found(lost, asked("use", 1, 15, 401), losses=losses) == ["wrong_401"]  # before it was lost
    assert found(login(3, 25), asked("use", 3, 30, 401), losses=losses) == ["wrong_401"]  # made after


def test_a_rotation_after_the_snapshot_is_made_again() -> None:
    events = [login(1, 0), asked("rotate", 1, 10, successor=2), asked("use", 2, 30, 401, user="user1")]
    assert found(*events, losses=[Loss(20, 5)]) == ["wrong_401"]
    assert found(*events, losses=[Loss(20, 5, are_rotations_made_again=False)]) == []


def test_a_session_in_use_does_not_idle_out_and_one_unused_does() -> None:
    used = asked("use", 1, 7, gateway=1)
    assert found(LOGIN, used, asked("use", 1, 14, 401), idle_s=8.0) == ["wrong_401"]
    assert found(LOGIN, used, asked("use", 1, 15.5, 401), idle_s=8.0) == []
    assert found(LOGIN, used, asked("use", 1, 15.5), idle_s=8.0) == []  # the flush interval more
    assert found(LOGIN, used, asked("use", 1, 15.7), idle_s=8.0) == ["overlong"]


def test_what_is_held_is_admitted_in_an_outage() -> None:
    window = Window(0, 10, 20)
    refused = asked("use", 1, 15, 503, has_retry_after=True)
    assert found(LOGIN, asked("use", 1, 5), refused, windows=[window]) == ["held_503"]
    assert found(LOGIN, asked("use", 1, 5, gateway=1), refused, windows=[window]) == []  # not held here
    assert found(LOGIN, asked("use", 1, 5), refused, windows=[window], forgets=[(0, 7.0)]) == []  # reloaded since
    assert found(LOGIN, asked("use", 1, 5), refused, windows=[window], outage_policy="deny") == []
    stalled = Window(0, 11, 12, is_deaf=False)
    assert found(LOGIN, asked("use", 1, 5), refused, windows=[window, stalled]) == []  # no credit after a stall


def test_a_failure_with_nothing_wrong_is_wrong() -> None:
    refused = asked("use", 1, 15, 503, has_retry_after=True)
    assert found(LOGIN, refused) == ["failed_well"]
    assert found(LOGIN, refused, windows=[Window(0, 10, 11)]) == []
    assert found(LOGIN, refused, windows=[Window(0, 5, 9)]) == ["failed_well"]  # it had time to recover
    assert found(LOGIN, refused, windows=[Window(0, 10, 11, may_fail=False, is_deaf=False)]) == ["failed_well"]
    assert found(LOGIN, refused, may_be_refused=("use",)) == []
    assert found(LOGIN, asked("use", 1, 15, LOST)) == ["failed_well"]


def test_what_the_store_has_just_lost_is_to_be_tried_again_for_a_while() -> None:
    again = {"status": 503, "has_retry_after": True}
    lost = [LOGIN, asked("use", 1, 21, **again)]
    assert found(*lost, losses=[Loss(20)]) == []
    assert found(*lost, losses=[Loss(20, kept_s=15)]) == ["failed_well"]  # that one it kept
    assert found(LOGIN, asked("use", 1, 25, **again), losses=[Loss(20)]) == ["failed_well"]
    assert found(*lost) == ["failed_well"]


def test_a_503_says_when_to_come_again() -> None:
    assert found(LOGIN, asked("logout", 1, 15, 503), windows=[Window(0, 10, 20)]) == ["bare_503"]


def test_recovery_is_the_time_until_the_last_failure() -> None:
    events = [LOGIN, *(asked("use", 1, s, 503, has_retry_after=True) for s in (21, 23)), asked("use", 1, 24)]
    assert judge(History(Rules(), events, [Window(0, 10, 20)])).recovery_s == 3
    assert judge(History(Rules(), events[:-1], [Window(0, 10, 20)])).recovery_s == math.inf


def test_a_touch_that_was_answered_long_before_the_end_is_in_the_store() -> None:
    history = History(Rules(), [LOGIN, asked("use", 1, 5), asked("use", 1, 9.5)])
    assert touches_lost(history, {"user1": 9.5}, 10, clock_error_s=0.05) == (0.0, "user1")
    age_s, _ = touches_lost(history, {"user1": 5.0}, 10, clock_error_s=0.05) or (0.0, "")
    assert age_s == pytest.approx(0.4)  # only the use at 9.5 is missing
    age_s, _ = touches_lost(history, {"user1": 0.0}, 10, clock_error_s=0.05) or (0.0, "")
    assert age_s == pytest.approx(4.9)


def test_an_admission_as_somebody_else_is_found_and_so_is_an_answer_that_cannot_be() -> None:
    assert found(LOGIN, asked("use", 1, 5, what="user2")) == ["somebody_else"]
    assert found(LOGIN, asked("use", 1, 5, 400)) == ["odd"]
