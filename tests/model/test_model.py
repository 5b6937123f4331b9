"""The small bound of the model, for every run of the tests; `make model` explores further."""

import pytest

from model import store, words
from model.explore import explore
from model.faults import FAULTS
from model.protocol import Protocol
from model.scopes import LARGE, QUICK
from model.store import Operation, Record, Shard

SECONDS = 300  # on a machine that others use, too; each takes a second


@pytest.mark.parametrize("scope", QUICK, ids=lambda scope: scope.name)
def test_the_right_protocol_keeps_its_promises(scope):
    report = explore(Protocol(scope), scope.depth, SECONDS)
    assert report.finding is None, "\n".join(words.story(report.finding.steps, report.finding.broken))
    assert report.is_whole or report.depth == scope.depth
    assert report.states > 1000


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_put_back_is_found(fault):
    report = explore(Protocol(fault.scope, fault.rules), fault.scope.depth, SECONDS, fault.breaks)
    assert report.finding, f"not found in {report.states} states, depth {report.depth}"
    assert report.finding.broken.count(fault.breaks)
    assert len(report.finding.steps) == report.depth + len(fault.scope.prelude)
    assert not any("(" in line for line in words.story(report.finding.steps, ""))
    # It is the fault that is found, not the scope: as deep as that, the right protocol holds.
    right = explore(Protocol(fault.scope), report.depth, SECONDS)
    assert right.finding is None, "\n".join(words.story(right.finding.steps, right.finding.broken))


def test_the_large_bound_has_the_same_scopes():
    assert [scope.name for scope in LARGE] == [scope.name for scope in QUICK]


def test_the_store_bars_what_ended():
    shard, _ = store.create(Shard(), 1, "a", Record("ann", 1, 99))
    shard, was_there = store.revoke(shard, 2, "a")
    assert was_there
    assert store.create(shard, 3, "a", Record("ann", 1, 99)) == (shard, False)
    assert store.again(shard, 3, [Operation("rotate", "z", "a", Record("ann", 1, 99))]).live == ()
    shard, was_there = store.revoke(shard, 4, "b")
    assert not was_there
    assert "b" in shard.barred
