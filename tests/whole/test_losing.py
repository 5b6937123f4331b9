"""FLUSHALL under load, in small; `python -m whole.losing` does it with 10,000 sessions."""

from __future__ import annotations

from pathlib import Path

from whole.losing import play


async def test_p8_a_store_that_is_emptied_logs_nobody_out_and_brings_nobody_back(tmp_path: Path) -> None:
    outcome = await play(tmp_path, 600)
    assert outcome.is_good, str(outcome)
