"""The table of faults (docs/explanation/promises.md) does not rot: each still fits the code, was
seen, and its tests are there. Nothing is run.
"""

import pytest
from mutations.faults import read_faults
from mutations.run import TABLE, digest_of, read_seen, table_of

FAULTS = read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_a_fault_fits_the_code_and_was_seen(fault):
    assert fault.errors() == []
    assert read_seen().get(fault.id) == digest_of(fault), f'try it again: make mutations ONLY="{fault.id}"'


def test_the_page_says_what_was_seen():
    assert TABLE.read_text() == table_of(FAULTS), "write it again: make mutations"
