"""The near cache as plain Python: slow, obvious, the oracle of tests/core/test_nearcache.py. The
rules are those of design section 5.
"""

from collections import OrderedDict

from fastticket.errors import Verdict

INLINE_BYTES, TAIL_BYTES = 92, 140
EVICTIONS_MAX = 64


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


class Model:
    def __init__(self, capacity, shards, slack_ms, touch_resolution_ms, recheck_s, refusal_ms):
        self.free = max(capacity, 3)
        self.slack_ms, self.resolution_ms = slack_ms, touch_resolution_ms
        self.recheck_s, self.refusal_ms = recheck_s, refusal_ms
        self.entries = {}  # session id -> Entry
        self.lru = OrderedDict()  # session ids, oldest first
        self.dirty = [OrderedDict() for _ in range(shards)]
        self.lease_until_ms, self.epoch = [0] * shards, [0] * shards
        buckets = 1
        while buckets < max(capacity, 3):
            buckets *= 2
        self.refusals = [None] * max(1, buckets // 16)

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
        self.use(raw)
        if touch:
            self.touch(entry, now_ms)
        return entry.idle_deadline_ms

    def use(self, raw):
        self.lru[session_id_of(raw)] = True
        self.lru.move_to_end(session_id_of(raw))

    def touch(self, entry, now_ms):
        timeout_s = number(entry.raw, 24, 28)
        absolute_ms = absolute_deadline_ms(entry.raw)
        deadline_ms = min(absolute_ms, now_ms + timeout_s * 1000 + self.slack_ms) if timeout_s else absolute_ms
        if deadline_ms > entry.idle_deadline_ms + self.resolution_ms:
            entry.idle_deadline_ms = deadline_ms
            self.dirty[entry.shard].setdefault(session_id_of(entry.raw))

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
        self.use(raw)
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
            if key not in self.dirty[self.entries[key].shard]:
                self.forget(key)
        return True

    def forget(self, key):
        self.free += slots_of(self.entries.pop(key).raw)

    def invalidate(self, key):
        entry = self.entries[key]
        entry.valid = False
        self.lru.pop(key, None)
        if key not in self.dirty[entry.shard]:
            self.forget(key)

    def refuse(self, session_id, verdict, now_ms):
        place = int.from_bytes(session_id[:4], "little") % len(self.refusals)
        self.refusals[place] = (session_id, now_ms + self.refusal_ms, verdict)
        if session_id in self.entries:
            self.invalidate(session_id)

    def remembered_refusal(self, session_id, now_ms):
        place = self.refusals[int.from_bytes(session_id[:4], "little") % len(self.refusals)]
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
        return sum(entry.shard == shard for entry in self.entries.values())

    def idle_deadline_ms(self, session_id):
        entry = self.entries.get(session_id)
        return entry.idle_deadline_ms if entry and entry.valid else 0

    def drop_key(self, key):
        gone = [k for k, entry in self.entries.items() if entry.raw[1] == key and entry.valid]
        for k in gone:
            self.invalidate(k)
        return len(gone)

    def drain(self, shard, touches_max):
        touches = []
        while self.dirty[shard] and len(touches) < touches_max:
            key, _ = self.dirty[shard].popitem(last=False)
            entry = self.entries[key]
            if entry.valid:
                touches.append((key, entry.raw[33 : 33 + entry.raw[32]], entry.idle_deadline_ms))
            if key not in self.lru:
                self.forget(key)
        return touches
