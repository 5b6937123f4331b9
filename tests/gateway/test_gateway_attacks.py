"""Every raw request of the corpus, over a socket: what is refused reaches nobody, what is forwarded
arrives as it was understood.

And however it comes in pieces. `make corpus` shows the same as a table.
"""

import pytest
from lab.attack_corpus import ATTACKS
from lab.attack_runs import check_in_the_end, guard, run
from lab.deliveries import bytewise, in_two, whole

EVERY_ATTACK = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.id)


@EVERY_ATTACK
def test_an_attack(gateway, origin, attack):
    guarded = guard(gateway, origin)
    raw = guarded.bytes_of(attack)
    run(guarded, attack, whole(raw))
    run(guarded, attack, bytewise(raw))
    check_in_the_end(guarded, attack, runs=2)


def check_splits(guarded, attack, splits):
    for pieces in splits:
        run(guarded, attack, pieces)
    check_in_the_end(guarded, attack, runs=len(splits))


@EVERY_ATTACK
def test_an_attack_split_at_every_boundary(gateway, origin, attack):
    """But for those within the ticket, which are the same in each attack."""
    guarded = guard(gateway, origin)
    check_splits(guarded, attack, list(in_two(guarded.bytes_of(attack), dull=guarded.ticket.encode())))


def test_a_ticket_split_at_every_boundary(gateway, origin):
    guarded = guard(gateway, origin)
    any_good_one = next(attack for attack in ATTACKS if attack.verdict.seen)
    check_splits(guarded, any_good_one, list(in_two(guarded.bytes_of(any_good_one))))
