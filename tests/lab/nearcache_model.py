"""The near cache as plain Python: slow, obvious, the oracle of tests/core/test_nearcache.py. The
rules are those of design section 5.
"""

from collections import OrderedDict

from fastticket.errors import Verdict

INLINE_BYTES, TAIL_BYTES = 94, 128
EVICTIONS_MAX = 64
TICK_MS = 1024


def session_id_of(raw):
    return raw[2:18]


def number(raw, start, end):
    return int.from_bytes(raw[start:end], "big")


def absolute_deadline_ms(raw):
    lifetime_s = number(raw, 28, 32)
    return number(raw, 18, 24) + lifetime_s * 1000 if lifetime_s else 2**53 - 1


def slots_of(raw):
    return 1 + max(0, -(-(len(raw) - INLINE_BYTES) // TAIL_BYTES))


class Entry:
    def __init__(self, raw, shard):
        self.raw, self.shard = raw, shard
        self.idle_deadline_ms = 0
        self.valid = True
        self.sent = False
        self.moved_at = None  # in ticks, when it became the newest of the LRU chain


class Model:
    def __init__(self, capacity, shards, slack_ms, touch_resolution_ms, recheck_s, refusal_ms):
        self.free = max(capacity, 3)
        self.slack_ms, self.resolution_ms = slack_ms, touch_resolution_ms
        self.recheck_s, self.refusal_ms = recheck_s, refusal_ms
        self.entries = {}  # session id -> Entry
        self.lru = OrderedDict()  # session ids, oldest first
        self.dirty = OrderedDict()
        self.unheld = {}  # session id -> Entry, of touches only
        self.unheld_dirty = OrderedDict()
        self.flights = []  # of touches that are sent: their tables, chains and keys
        self.lease_until_ms, self.epoch = [0] * shards, [0] * shards
        self.refusals = [None] * max(1, self.free // 16)

    def lookup(self, raw, now_ms, touch):
        entry = self.entries.get(session_id_of(raw))
        if entry is None or entry.raw != raw:
            return Verdict.MISS
        if now_ms >= absolute_deadline_ms(raw):
            return Verdict.EXPIRED
        if not (
            entry.valid
            and entry.epoch == self.epoch[entry.shard]
            and now_ms < self.lease_until_ms[entry.shard]
            and now_ms < entry.idle_deadline_ms
            and now_ms < (entry.loaded_at_s + self.recheck_s) * 1000
        ):
            return Verdict.REFRESH
        self.use(entry, now_ms)
        if touch:
            self.touch(entry, now_ms)
        return entry.idle_deadline_ms

    def use(self, entry, now_ms):
        """The order is that of the last uses, to within a tick: in one tick an entry moves once."""
        key, tick = session_id_of(entry.raw), now_ms // TICK_MS
        if key in self.lru and (entry.moved_at == tick or next(reversed(self.lru)) == key):
            return
        self.lru[key] = True
        self.lru.move_to_end(key)
        entry.moved_at = tick

    def touch(self, entry, now_ms):
        timeout_s = number(entry.raw, 24, 28)
        absolute_ms = absolute_deadline_ms(entry.raw)
        deadline_ms = min(absolute_ms, now_ms + timeout_s * 1000 + self.slack_ms) if timeout_s else absolute_ms
        if deadline_ms > entry.idle_deadline_ms + self.resolution_ms:
            entry.idle_deadline_ms = deadline_ms
            self.dirty.setdefault(session_id_of(entry.raw))

    def insert(self, raw, shard, idle_deadline_ms, now_ms, touch):
        key = session_id_of(raw)
        entry = self.entries.get(key)
        if entry is None:
            if not self.make_room(slots_of(raw)):
                return False
            entry = self.entries[key] = Entry(raw, shard)
            self.free -= slots_of(raw)
        if len(entry.raw) != len(raw):
            return False
        entry.raw = raw
        entry.idle_deadline_ms = max(entry.idle_deadline_ms, idle_deadline_ms)
        entry.epoch, entry.loaded_at_s, entry.valid = self.epoch[shard], now_ms // 1000, True
        self.use(entry, now_ms)
        if touch:
            self.touch(entry, now_ms)
        return True

    def make_room(self, wanted):
        looked_at = 0
        while self.free < wanted:
            if not self.lru or looked_at == EVICTIONS_MAX:
                return False
            looked_at += 1
            key, _ = self.lru.popitem(last=False)
            if not self.is_pending(key):
                self.forget(key)
        return True

    def is_pending(self, key):
        return key in self.dirty or self.entries[key].sent

    def forget(self, key):
        self.free += slots_of(self.entries.pop(key).raw)

    def invalidate(self, key):
        entry = self.entries[key]
        entry.valid = False
        self.lru.pop(key, None)
        if not self.is_pending(key):
            self.forget(key)

    def refuse(self, session_id, verdict, now_ms):
        self.refusals[self.place_of(session_id)] = (session_id, now_ms + self.refusal_ms, verdict)
        if session_id in self.entries:
            self.invalidate(session_id)
        if session_id in self.unheld:
            self.unheld[session_id].valid = False

    def place_of(self, session_id):
        return int.from_bytes(session_id[:4], "little") * len(self.refusals) >> 32

    def remembered_refusal(self, session_id, now_ms):
        place = self.refusals[self.place_of(session_id)]
        return place[2] if place and place[0] == session_id and now_ms < place[1] else None

    def extend(self, raw, now_ms):
        entry = self.entries.get(session_id_of(raw))
        if entry is None or entry.raw != raw or not entry.valid or entry.epoch != self.epoch[entry.shard]:
            return False
        entry.loaded_at_s = now_ms // 1000
        return now_ms < entry.idle_deadline_ms and now_ms < absolute_deadline_ms(raw)

    def confirm(self, session_id, epoch, idle_deadline_ms, now_ms):
        entry = self.entries.get(session_id)
        if entry is None or not entry.valid or epoch != self.epoch[entry.shard]:
            return False
        entry.epoch, entry.loaded_at_s = epoch, now_ms // 1000
        entry.idle_deadline_ms = max(entry.idle_deadline_ms, idle_deadline_ms)
        return True

    def stale(self):
        return {
            (entry.shard, key, entry.raw[33 : 33 + entry.raw[32]])
            for key, entry in self.entries.items()
            if entry.valid and entry.epoch != self.epoch[entry.shard]
        }

    def held_in(self, shard):
        return sum(entry.shard == shard for entry in (*self.entries.values(), *self.unheld.values()))

    def idle_deadline_ms(self, session_id):
        known = [table[session_id] for table in (self.entries, self.unheld) if session_id in table]
        return max((entry.idle_deadline_ms for entry in known if entry.valid), default=0)

    def drop_key(self, key):
        gone = [k for k, entry in self.entries.items() if entry.raw[1] == key and entry.valid]
        for k in gone:
            self.invalidate(k)
        return len(gone)

    def touch_unheld(self, shard, session_id, principal, idle_deadline_ms):
        entry = self.unheld.setdefault(session_id, Entry(bytes(33) + principal, shard))
        if entry.idle_deadline_ms < idle_deadline_ms:
            entry.idle_deadline_ms = idle_deadline_ms
            self.unheld_dirty.setdefault(session_id)
        return True

    def take(self, touches_max):
        """[(shard, session id, principal, deadline)], and they are sent: the next of `flights`."""
        touches, flight = [], []
        for table, dirty in ((self.entries, self.dirty), (self.unheld, self.unheld_dirty)):
            for key in list(dirty):
                if len(touches) == touches_max:
                    break
                del dirty[key]
                entry = table[key]
                if not entry.valid or (table is self.unheld and self.is_written_with_entry(key)):
                    if not entry.sent and (table is self.unheld or key not in self.lru):
                        self.drop(table, key)
                elif entry.sent:
                    dirty[key] = None
                else:
                    entry.sent = True
                    flight.append((table, dirty, key))
                    touches.append((entry.shard, key, entry.raw[33:][: principal_bytes(entry)], entry.idle_deadline_ms))
        self.flights.append(flight)
        return touches

    def is_written_with_entry(self, key):
        """A session that was used without an entry has one now, and its touch is on its way."""
        entry = self.entries.get(key)
        return (
            entry is not None
            and entry.valid
            and entry.sent
            and key not in self.dirty
            and entry.idle_deadline_ms >= self.unheld[key].idle_deadline_ms
        )

    def settle(self, number, is_written):
        for table, dirty, key in self.flights.pop(number):
            table[key].sent = False
            if key in dirty:
                continue
            if not is_written and table[key].valid:
                dirty[key] = None
            elif table is self.unheld or key not in self.lru:
                self.drop(table, key)

    def drop(self, table, key):
        if table is self.entries:
            self.forget(key)
        else:
            del table[key]


def principal_bytes(entry):
    return entry.raw[32] or len(entry.raw) - 33
