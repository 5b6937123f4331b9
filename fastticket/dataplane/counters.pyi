"""The data plane's counters: numbers written in place, into memory that another process may
read.
"""

from collections.abc import Mapping
from typing import Any

from typing_extensions import Buffer

#: How much memory the counters of a `Proxy` need.
COUNTERS_BYTES: int

#: What `/metrics` calls a counter: (name without the prefix `fastticket_`, help).
METRICS: Mapping[str, tuple[str, str]]

#: The place of each number in the page; a list of places for what is counted by something.
NUMBERS: Mapping[str, int | list[int]]

def read_counters(page: Buffer) -> dict[str, Any]:
    """What a `Proxy` writes into its page, from whatever process.

    Numbers by name; `refused` by reason; `answers` by class of status ("2xx"); `latency_us`: (upper
    bound in µs, requests that took no longer, and longer than the bound before), the last bound
    None. ValueError: the page has less than COUNTERS_BYTES.
    """

def bucket_number(took_us: int) -> int:
    """In which bucket of `latency_us` the planes count a time of 1 µs or more."""
