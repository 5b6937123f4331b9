"""The judge: pure functions over a history. What is wrong is a list of findings, each with how
much; nothing is forgiven.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from whole.history import LOST, Event, History, Life, Window, lives_of


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer that is wrong. `by_s`: how late, or 0."""

    what: str  # late, risen, wrong_401, overlong, held_503, failed_well, bare_503, somebody_else, odd
    event: Event
    by_s: float = 0.0


@dataclass(slots=True)
class Judgement:
    """The judgement of a history: findings, failures and figures."""

    requests: int
    findings: list[Finding]
    failed: Counter[str]
    recovery_s: float | None  # the longest after any window; None: there was no window; inf: not at all
    touches_lost_s: float | None = None  # the worst, see `touches_lost`
    touches_bound_s: float = math.inf
    notes: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # what the schedule itself wants and did not get

    def count(self, *what: str) -> int:
        return sum(finding.what in what for finding in self.findings)

    def worst_s(self, *what: str) -> float:
        return max((finding.by_s for finding in self.findings if finding.what in what), default=0.0)

    @property
    def is_good(self) -> bool:
        lost_s = self.touches_lost_s
        return not self.findings and not self.broken and (lost_s is None or lost_s <= self.touches_bound_s)

    def __str__(self) -> str:
        kinds = Counter(finding.what for finding in self.findings)
        parts = [f"{number} {what} (worst {self.worst_s(what):.2f} s)" for what, number in kinds.items()]
        for what in kinds:
            event = next(finding.event for finding in self.findings if finding.what == what)
            parts.append(f"first {what}: {event}")
        if self.touches_lost_s is not None and self.touches_lost_s > self.touches_bound_s:
            parts.append(f"touches lost: {self.touches_lost_s:.2f} s, bound {self.touches_bound_s:.2f} s")
        return "\n".join([f"{self.requests} requests, failed {dict(self.failed)}", *parts, *self.broken, *self.notes])


def judge(history: History) -> Judgement:
    """Everything that a history alone can show."""
    lives = lives_of(history.events)
    findings = [
        *late_admissions(history, lives),
        *wrong_refusals(history, lives),
        *overlong_admissions(history),
        *refusals_of_held(history, lives),
        *failures_while_well(history, lives),
        *bare_refusals(history),
        *strange_answers(history),
    ]
    failed = Counter(str(e.status or e.what) for e in history.events if e.is_failure)
    recovery_s = recovery(history)
    return Judgement(len(history.events), findings, failed, recovery_s)


def late_admissions(history: History, lives: Mapping[int, Life]) -> list[Finding]:
    """P2, P6, P8: admitted although ended so long ago that this gateway must have heard of it.
    `risen`: it was refused in between.
    """
    refused: dict[int, float] = {}  # session: the first refusal after its end
    found = []
    for event in sorted(history.events, key=lambda e: e.sent_s):
        life = lives.get(event.session)
        if life is None or life.ended_s == math.inf or event.sent_s <= life.ended_s:
            continue
        if event.status == 401:
            refused.setdefault(event.session, event.received_s)
        elif event.is_admission:
            limit_s = latest_admission(history, event.gateway, life.ended_s)
            if event.sent_s > limit_s:
                is_risen = refused.get(event.session, math.inf) < event.sent_s
                found.append(Finding("risen" if is_risen else "late", event, event.sent_s - limit_s))
    return found


def latest_admission(history: History, gateway: int, ended_s: float) -> float:
    """When a gateway that hears the store refuses at the latest what was ended at `ended_s`.

    A lease after the acknowledgement; but if it could not hear the store before that time was over,
    it may admit on credit, for `grace_s`, and a lease longer after it can hear again. A store that
    is away *later* excuses nothing.
    """
    rules = history.rules
    limit_s = ended_s + rules.lease_s
    for window in history.windows_of(gateway):
        if not window.is_deaf or window.start_s >= limit_s or window.end_s + rules.lease_s <= limit_s:
            continue
        if rules.outage_policy == "deny":
            continue  # a lease runs out whether the store answers or not
        limit_s = min(window.end_s, window.start_s + rules.grace_s) + rules.lease_s
    return limit_s


def wrong_refusals(history: History, lives: Mapping[int, Life]) -> list[Finding]:
    """P4, P8: 401 for a session that nobody ended, that did not idle out, and that the store has
    not lost.
    """
    uses = last_uses(history)
    found = []
    for event in history.events:
        life = lives.get(event.session)
        if event.status != 401 or life is None or event.sent_s < life.born_s:
            continue
        if event.received_s >= life.end_sent_s or _is_lost(history, lives, life, event):
            continue
        alive_from_s = max([life.born_sent_s, *(s for s in uses.get(event.session, ()) if s < event.sent_s)])
        if event.received_s >= alive_from_s + history.rules.idle_s:
            continue
        if event.received_s >= _login_sent(lives, life) + history.rules.lifetime_s:
            continue
        found.append(Finding("wrong_401", event, event.sent_s - life.born_s))
    return found


def _login_sent(lives: Mapping[int, Life], life: Life) -> float:
    while life.parent is not None and life.parent in lives:
        life = lives[life.parent]
    return life.born_sent_s


def _is_lost(history: History, lives: Mapping[int, Life], life: Life, event: Event) -> bool:
    """Whether the store lost it before the answer."""
    for loss in history.losses:
        if event.received_s <= loss.at_s or life.born_sent_s > loss.at_s or life.born_s <= loss.kept_s:
            continue
        root = life
        while loss.are_rotations_made_again and root.parent is not None and root.parent in lives:
            root = lives[root.parent]
        if root.born_s > loss.kept_s:
            return True
    return False


def _is_just_lost(history: History, lives: Mapping[int, Life], event: Event) -> bool:
    """Whether the store lost its session, not longer ago than it takes all gateways to say what
    they know of it.
    """
    life = lives.get(event.session)
    if event.kind != "use" or life is None or not _is_lost(history, lives, life, event):
        return False
    settles_s = 2 * history.rules.lease_s
    return any(loss.at_s < event.received_s <= loss.at_s + settles_s for loss in history.losses)


def last_uses(history: History) -> dict[int, list[float]]:
    """session: when its admitted requests were sent."""
    uses: dict[int, list[float]] = defaultdict(list)
    for event in history.events:
        if event.is_admission:
            uses[event.session].append(event.sent_s)
    return uses


def overlong_admissions(history: History) -> list[Finding]:
    """P3: admitted although unused for the idle timeout and a flush interval."""
    rules = history.rules
    if rules.idle_s == math.inf:
        return []
    latest: dict[int, float] = {}
    found = []
    for event in sorted(history.events, key=lambda e: e.sent_s):
        if event.kind == "login" and event.status == 200:
            latest[event.session] = event.received_s
        elif event.is_admission:
            limit_s = latest.get(event.session, math.inf) + rules.idle_s + rules.flush_s
            if event.sent_s > limit_s:
                found.append(Finding("overlong", event, event.sent_s - limit_s))
            for session in {event.session, event.successor or event.session}:
                latest[session] = max(latest.get(session, 0.0), event.received_s)
        elif event.is_failure:
            latest[event.session] = math.inf  # it may have counted
    return found


def refusals_of_held(history: History, lives: Mapping[int, Life]) -> list[Finding]:
    """P8: with the store away, 503 for a session that this gateway admitted when it could hear the
    store.
    """
    if history.rules.outage_policy == "deny":
        return []
    admitted: dict[tuple[int, int], list[float]] = defaultdict(list)
    for event in history.events:
        if event.is_admission:
            admitted[event.gateway, event.session].append(event.sent_s)
    found = []
    for event in history.events:
        window = _window_at(history, event)
        life = lives.get(event.session)
        if event.kind != "use" or event.status != 503 or window is None or life is None:
            continue
        since_s = _well_since(history, event.gateway, window)
        is_held = any(since_s <= s < window.start_s for s in admitted[event.gateway, event.session])
        if is_held and event.received_s < life.end_sent_s and event.sent_s < window.start_s + history.rules.grace_s:
            found.append(Finding("held_503", event))
    return found


def _window_at(history: History, event: Event) -> Window | None:
    """The outage that a request lies in, if the gateway is to admit by what it holds."""
    for window in history.windows_of(event.gateway):
        if window.is_deaf and window.start_s <= event.sent_s and event.received_s <= window.end_s:
            return window if window.holds else None
    return None


def _well_since(history: History, gateway: int, window: Window) -> float:
    """Since when what it admitted is still held when the window begins."""
    rules = history.rules
    before = [w.end_s + rules.recovery_s for w in history.windows_of(gateway) if w.end_s <= window.start_s]
    before += [at_s for g, at_s in history.forgets if g == gateway and at_s <= window.start_s]
    before += [loss.at_s for loss in history.losses if loss.at_s <= window.start_s]
    if any(
        w.start_s < window.end_s and w.end_s > window.start_s and not w.is_deaf for w in history.windows_of(gateway)
    ):
        return math.inf  # a process that was away gives no credit
    return max(before, default=-math.inf)


def failures_while_well(history: History, lives: Mapping[int, Life]) -> list[Finding]:
    """A request that failed though nothing was wrong, or not any more for `recovery_s`.

    What the store has lost is "try again" for a while, before it is over: some gateway may be about
    to make it again.
    """
    rules = history.rules
    found = []
    for event in history.events:
        if not event.is_failure or (event.kind in rules.may_be_refused and event.has_retry_after):
            continue
        if event.has_retry_after and _is_just_lost(history, lives, event):
            continue
        if not any(
            w.may_fail and w.start_s <= event.received_s and event.sent_s <= w.end_s + rules.recovery_s
            for w in history.windows_of(event.gateway)
        ):
            found.append(Finding("failed_well", event))
    return found


def bare_refusals(history: History) -> list[Finding]:
    """503 without Retry-After."""
    return [Finding("bare_503", e) for e in history.events if e.status == 503 and not e.has_retry_after]


def strange_answers(history: History) -> list[Finding]:
    """P1: admitted as somebody else; and what no request of these can be answered with."""
    found = [Finding("somebody_else", e) for e in history.events if e.is_admission and e.what]
    return found + [Finding("odd", e) for e in history.events if e.status not in (LOST, 200, 401) and e.status < 500]


def recovery(history: History) -> float | None:
    """When, after a window, the last request was sent that failed; the worst of all. inf: none was
    answered after it.
    """
    worst = None
    for window in history.windows:
        if window.end_s == math.inf or not window.may_fail:
            continue
        later = [w.start_s for w in history.windows_of(window.gateway) if w.start_s > window.end_s]
        until_s = min(later, default=math.inf)
        after = [e for e in history.events if e.gateway == window.gateway and window.end_s < e.sent_s < until_s]
        failures = [e.sent_s for e in after if e.is_failure]
        last_s = max(failures, default=window.end_s)
        is_back = not failures or any(e.sent_s > last_s for e in after)
        worst = max(worst or 0.0, last_s - window.end_s if is_back else math.inf)
    return worst


def touches_lost(
    history: History, deadlines_s: Mapping[str, float], until_s: float, *, clock_error_s: float
) -> tuple[float, str] | None:
    """P5: (the worst age, when the gateway ended at `until_s`, of a use that is not in the store;
    of which principal).

    `deadlines_s`: the last use that the store knows, by principal, on the history's clock. A use
    counts from its answer.
    """
    uses: dict[str, list[Event]] = defaultdict(list)
    for event in history.events:
        if event.is_admission and event.received_s <= until_s:
            uses[event.principal].append(event)
    worst: tuple[float, str] | None = None
    for principal, written_s in deadlines_s.items():
        missing = [e.received_s for e in uses.get(principal, ()) if e.sent_s > written_s + clock_error_s]
        behind_s = until_s - min(missing) if missing else 0.0
        if worst is None or behind_s > worst[0]:
            worst = (behind_s, principal)
    return worst
