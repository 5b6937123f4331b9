p='tests/model/store.py'
s=open(p).read()
s=s.replace('''    everywheres: frozenset[tuple[Id, int, tuple[Id, ...]]] = frozenset()  #: principal, up to when created, those kept
    heirs: frozenset[tuple[Id, Id]] = frozenset()  #: a session, and what it was rotated to
''','''    barred_principals: frozenset[tuple[Id, int]] = frozenset()  #: with all sessions created up to then
''')
s=s.replace("`everywhere`: principal, up_to, keeps.","`everywhere`: principal, up_to, kept.").replace("`everywhere` (principal, up_to, keeps)","`everywhere` (principal, up_to, kept)")
s=s.replace("    keeps: tuple[Id, ...] = ()\n","    kept: Id = None\n")
a=s.index("def is_barred_with_all("); b=s.index("# --- changes, of which")
s=s[:a]+'''def is_barred_with_all(shard: Shard, record: Record) -> bool:
    """Whether all that its principal had then was ended."""
    return any(who == record.principal and record.created <= up_to for who, up_to in shard.barred_principals)


'''+s[b:]
a=s.index("def _end("); b=s.index("# --- the scripts")
s=s[:a]+'''def _finish(shard: Shard, at: int, sid: Id) -> Shard:
    return _append(shard._replace(live=_others(shard, sid)), at, "revoked", sid=sid) if record_of(shard, sid) else shard


def _end(shard: Shard, at: int, sid: Id) -> Shard:
    return _bar(_finish(shard, at, sid), sid)


def _end_all(shard: Shard, at: int, principal: Id, up_to: int, kept: Id) -> tuple[Shard, tuple[Id, ...]]:
    """One mark for all of them; where one is kept, each has its own."""
    ids = tuple(sid for sid, record in shard.live if record.principal == principal and record.created <= up_to and sid != kept)
    for sid in ids:
        shard = _finish(shard, at, sid) if kept is None else _end(shard, at, sid)
    if kept is None:
        shard = shard._replace(barred_principals=shard.barred_principals | {(principal, up_to)})
    return shard, ids


def _move(shard: Shard, at: int, sid: Id, successor: Id, record: Record) -> Shard:
    shard = _with(shard._replace(live=_others(shard, sid)), successor, record)
    return _bar(_append(shard, at, "rotated", sid=sid, successor=successor, record=record), sid)


'''+s[b:]
a=s.index("def revoke_all("); b=s.index("def rotate(")
s=s[:a]+'''def revoke_all(shard: Shard, at: int, principal: Id, kept: Id = None) -> tuple[Shard, tuple[Id, ...]]:
    """The ids of those that ended. If it was all, the log says so, for the ledgers of others; if one was kept, it says each."""
    up_to = max([at, *(record.created for _, record in shard.live if record.principal == principal)])
    shard, ended = _end_all(shard, at, principal, up_to, kept)
    if kept is None:
        shard = _append(shard, at, "everywhere", principal=principal, up_to=up_to)
    return shard, ended


'''+s[b:]
s=s.replace("return _rename(shard, at, sid, successor, record), True","return _move(shard, at, sid, successor, record), True")
s=s.replace("operation.principal, operation.up_to, operation.keeps)[0]","operation.principal, operation.up_to, operation.kept)[0]")
a=s.index("def again_rotate("); b=s.index("AGAIN: Mapping")
s=s[:a]+'''def again_rotate(shard: Shard, at: int, operation: Operation) -> Shard:
    """If what it became has ended since, it ends."""
    sid, successor, record = operation.sid, operation.successor, operation.record
    if record_of(shard, successor):
        return shard
    if successor in shard.barred or is_barred_with_all(shard, record):
        return _end(shard, at, sid)
    return _move(shard, at, sid, successor, record)


def again_create(shard: Shard, at: int, operation: Operation) -> Shard:
    sid, record = operation.sid, operation.record
    if record_of(shard, sid) or sid in shard.barred or is_barred_with_all(shard, record):
        return shard
    return _append(_with(shard, sid, record), at, "created", sid=sid)


'''+s[b:]
open(p,'w').write(s)

p='tests/model/protocol.py'
s=open(p).read()
a=s.index("                principal, _ = arguments\n                done ="); b=s.index("    def _uses(")
s=s[:a]+'''                return self._all_ended(state, g, *arguments, ended=outcome, at=at)

    def _all_ended(self, state: State, g: int, principal: str, kept: int | None, *, ended: tuple[int, ...], at: int) -> State:
        """One record for the ledger; where a session was kept, a list."""
        gateway = state.gateways[g]
        if kept is None:
            born = enumerate(state.born)
            ended = tuple(sid for sid, record in born if record and record.principal == principal and record.created <= at)
        state = _end(state, ended)
        listed = self.rules.everywhere_max
        if kept is None and listed is None:
            return _put(state, g, _heard(gateway, ended, _everywhere(state.shards[gateway.at].log[-1])))
        for sid in ended[:listed]:
            gateway = _heard(gateway, (), Operation("end", sid))
        return _put(state, g, _heard(gateway, ended, None))

'''+s[b:]
s=s.replace("up_to=entry.up_to, keeps=entry.keeps)","up_to=entry.up_to, kept=entry.kept)")
s=s.replace('''            now_ms=NOW + gateway.offset,
''','''            asked_ms=message.sent_at + gateway.offset if self.rules.asks_again_if_idle else NEVER,
            now_ms=NOW + gateway.offset,
''')
a=s.index("        if landing is coherence.Landing.IDLE and self.rules"); b=s.index("        said = landing.value\n")
s=s[:a]+s[b:]
s=s.replace("if record and not is_flying and not self.admits(gateway, sid):","if record and not is_flying and (self.scope.is_strong or not self.admits(gateway, sid)):")
a=s.index("        since = NOW if gateway.outage is None else gateway.outage\n        failure"); b=s.index('        if message.kind == "repair":  # with the next flush')
s=s[:a]+'''        if gateway.answered_at <= message.sent_at or self.rules.believes_old_failures:
            since = NOW if gateway.outage is None else gateway.outage
            failure = coherence.Failure(message.sent_at, NOW, gateway.stalled_at, gateway.answered_at, since)
            lease = self.rules.credited_until_ms(gateway.lease, failure, self.scope.lease, self.scope.grace)
            gateway = gateway._replace(outage=since, lease=lease)
'''+s[b:]
s=s.replace('''    asks_again_if_idle: bool = True
''','''    asks_again_if_idle: bool = True  # a load whose deadline passed while it was under way
    believes_old_failures: bool = False  # of questions older than one that was answered
''')
open(p,'w').write(s)
p='tests/model/scopes.py'
s=open(p).read()
s=s.replace('''    is_full: bool''','''    is_strong: bool = False  #: loads are asked for although there is an entry
    is_full: bool''')
s=s.replace('"strays": 1}, caches=2, idle=4)','"strays": 1}, caches=2, idle=4, is_strong=True)')
open(p,'w').write(s)
p='tests/model/faults.py'
s=open(p).read()
a=s.index("def _rotate_again_without_looking"); b=s.index("def _create_again_without_looking")
s=s[:a]+'''def _rotate_again_without_looking(shard: Shard, at: int, operation: Operation) -> Shard:
    bare = shard._replace(barred=frozenset(), barred_principals=frozenset())
    made = store.again_rotate(bare, at, operation)
    return made._replace(barred=made.barred | shard.barred, barred_principals=shard.barred_principals)


'''+s[b:]
a=s.index("def _everywhere_again_without_mark"); b=s.index("def _nothing_again")
s=s[:a]+'''def _everywhere_again_without_mark(shard: Shard, at: int, operation: Operation) -> Shard:
    return store.again_everywhere(shard, at, operation)._replace(barred_principals=shard.barred_principals)


'''+s[b:]
a=s.index('    Fault("everywhere-leaves-no-mark"'); b=s.index('    Fault("everywhere-is-a-list"')
s=s[:a]+'''    Fault("everywhere-leaves-no-mark", "a logout everywhere leaves no mark", replace(RIGHT, again=_again(everywhere=_everywhere_again_without_mark)),
          _within(AGAIN, logins=1, everywheres=1, failovers=1, snapshots=1), "P6"),
'''+s[b:]
s=s.replace('replace(RIGHT, confirms=False), _OTHER','replace(RIGHT, confirms=False, counts_confirmation=False), _OTHER')
s=s.replace("replace(RIGHT, credited_until_ms=_credit_although_answered),","replace(RIGHT, credited_until_ms=_credit_although_answered, believes_old_failures=True),")
s=s.replace("GAP, IDLE, KEEPS, OUTAGE","GAP, IDLE, OUTAGE")
open(p,'w').write(s)
