"""Every raw response of the corpus, over a socket: what is malformed is 502 or cut, and its
connection is not used again.

And however it comes in pieces. `make corpus` shows the same as a table.
"""

from dataclasses import replace

import pytest
from lab.deliveries import bytewise, in_two, whole
from lab.response_corpus import ANSWERS, BROKEN
from lab.response_runs import run, set_stage

EVERY_ANSWER = pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.id)
WHOLE_ONES = [answer for answer in ANSWERS if answer.verdict.is_kept]


def test_ids_are_unique():
    assert len({answer.id for answer in ANSWERS}) == len(ANSWERS)


@EVERY_ANSWER
def test_an_answer(gateway, origin, answer):
    stage = set_stage(gateway, origin)
    run(stage, answer, whole(answer.raw()))
    run(stage, answer, bytewise(answer.raw()))


@EVERY_ANSWER
def test_an_answer_split_at_every_boundary(gateway, origin, answer):
    stage = set_stage(gateway, origin)
    for pieces in in_two(answer.raw()):
        run(stage, answer, pieces)


@pytest.mark.parametrize("answer", WHOLE_ONES, ids=lambda answer: answer.id)
def test_an_answer_cut_short_at_every_boundary(gateway, origin, answer):
    """Whatever is a response only as a whole is none without its last byte."""
    stage = set_stage(gateway, origin)
    for start, _ in in_two(answer.raw()):
        run(stage, replace(answer, verdict=BROKEN, ends=True), [start])
