"""The model's store and the real scripts do the same: random requests to both, with failovers to a
snapshot, on a real Redis.
"""

import random
import struct
from pathlib import Path

import pytest
import redis
from lab.redis_servers import Server

import fastticket.stores.redis
from model import store
from model.store import Operation, Record, Shard

SCRIPTS = Path(fastticket.stores.redis.__file__).parent
PRINCIPALS = ("ann", "bob")
STEPS = 40

pytestmark = pytest.mark.skipif(not (SCRIPTS / "again.lua").exists(), reason="nothing is made again by a script yet")


class Real:
    """The scripts of one shard, called with what the twin is called with."""

    TAG = "{ft:000}:"

    def __init__(self, client):
        self._client = client
        client.flushall()

    def _run(self, name, principal, *arguments):
        flags, newline, body = (SCRIPTS / f"{name}.lua").read_bytes().partition(b"\n")
        script = flags + newline + (SCRIPTS / "prelude.lua").read_bytes() + body
        keys = [f"{self.TAG}live", f"{self.TAG}log", f"{self.TAG}user:{principal}"]
        return self._client.eval(script, len(keys), *keys, *arguments)

    def now(self):
        seconds, microseconds = self._client.time()
        return seconds * 1000 + microseconds // 1000

    def create(self, sid, record):
        return self._run("create", record.principal, 0, sid, record.principal, record.deadline, packed(record), 0, 1)

    def revoke(self, sid, principal):
        return self._run("revoke", principal, 0, principal, "logout", "", sid)

    def revoke_all(self, principal, kept):
        """When it was."""
        return int(self._run("revoke", principal, 0, principal, "logout_everywhere", kept or "")[1])

    def rotate(self, sid, successor, record):
        return self._run(
            "rotate", record.principal, 0, record.principal, sid, successor, record.deadline, packed(record)
        )

    def again(self, ledger):
        for operation in ledger:  # each by itself: keys are declared for one principal
            principal = operation.record.principal if operation.record else operation.principal
            self._run("again", principal, 0, operation.kind, *words_of(operation))

    def snapshot(self):
        return {key: self._client.dump(key) for key in self._client.scan_iter("*")}

    def restore(self, snapshot):
        self._client.flushall()
        for key, value in snapshot.items():
            self._client.restore(key, 0, value)

    def live(self):
        members = self._client.zrange(f"{self.TAG}live", 0, -1, withscores=True)
        return {member.decode().split(".")[0]: int(score) for member, score in members}

    def barred(self):
        marks = [mark.decode() for mark in self._client.zrange(f"{self.TAG}ended", 0, -1)]
        return {mark[1:23] for mark in marks if mark[0] == "s"}, {mark[1:] for mark in marks if mark[0] == "p"}


class Pair:
    """Both; each step goes to both, and then they are compared."""

    def __init__(self, real, chance):
        self.real, self.chance = real, chance
        self.twin = Shard()
        self.ledger: list[Operation] = []
        self.owner: dict[str, Record] = {}
        self.saved = None

    def new_id(self):
        return f"{len(self.owner):022d}"

    def step(self):
        moves = [
            self.login,
            self.login,
            self.logout,
            self.rotate,
            self.everywhere,
            self.save,
            self.fail_over,
            self.again,
        ]
        move = self.chance.choice(moves)
        said = move()
        assert self.real.live() == {sid: record.deadline for sid, record in self.twin.live}, (move.__name__, said)
        barred, principals = self.real.barred()
        assert barred == set(self.twin.barred), (move.__name__, said)
        assert principals == {principal for principal, _ in self.twin.barred_principals}, (move.__name__, said)

    def login(self):
        sid = self.chance.choice([self.new_id(), *self.owner])  # a copy of an old one, at times
        at = self.real.now()
        record = self.owner.setdefault(sid, Record(self.chance.choice(PRINCIPALS), at, at + 10**6))
        self.real.create(sid, record)
        self.twin, _ = store.create(self.twin, at, sid, record)
        self._note(Operation("create", sid, record=record))
        return sid

    def logout(self):
        if self.owner:
            sid = self.chance.choice(list(self.owner))
            principal = self.owner[sid].principal
            self.real.revoke(sid, principal)
            self.twin, _ = store.revoke(self.twin, self.real.now(), sid)
            self._note(Operation("end", sid, principal=principal))

    def rotate(self):
        if self.owner:
            sid, successor = self.chance.choice(list(self.owner)), self.chance.choice([self.new_id(), *self.owner])
            record = self.owner[sid]
            if sid == successor or self.owner.setdefault(successor, record).principal != record.principal:
                return
            record = self.owner[successor]
            self.real.rotate(sid, successor, record)
            self.twin, _ = store.rotate(self.twin, self.real.now(), sid, successor, record)
            self._note(Operation("rotate", sid, successor, record))

    def everywhere(self):
        principal = self.chance.choice(PRINCIPALS)
        own = [sid for sid, record in self.owner.items() if record.principal == principal]
        kept = self.chance.choice([None, *own])
        at = self.real.revoke_all(principal, kept)
        self.twin, _ = store.revoke_all(self.twin, at, principal, kept)
        self._note(Operation("everywhere", principal=principal, up_to=at, kept=kept))

    def save(self):
        self.saved = self.real.snapshot(), self.twin

    def fail_over(self):
        if self.saved:
            snapshot, self.twin = self.saved
            self.real.restore(snapshot)

    def again(self):
        """Some of it, in some order: gateways hear different things, at different times."""
        ledger = [operation for operation in self.ledger if self.chance.random() < 0.7]
        if self.chance.random() < 0.3:
            self.chance.shuffle(ledger)
        self.real.again(ledger)
        self.twin = store.again(self.twin, self.real.now(), ledger)
        return ledger

    def _note(self, operation):
        self.ledger.append(operation)


def words_of(operation):
    """The arguments of again.lua."""
    kind, sid, successor, record, principal, up_to, kept = operation
    match kind:
        case "end":
            return sid, principal
        case "everywhere":
            return principal, up_to, kept or ""
        case "rotate":
            return sid, record.principal, successor, record.deadline, packed(record)
    return sid, record.principal, record.deadline, packed(record)


def packed(record):
    return record.created.to_bytes(6, "big") + struct.pack(">II", 0, 0)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    client = redis.Redis(port=server.port, socket_timeout=5)
    yield client
    client.close()
    server.kill()


@pytest.mark.parametrize("seed", range(40))
def test_the_twin_does_what_the_scripts_do(client, seed):
    pair = Pair(Real(client), random.Random(seed))
    for _ in range(STEPS):
        pair.step()
