"""All schedules, in the order of the table."""

from __future__ import annotations

from whole import schedules_gateway, schedules_issue, schedules_link, schedules_sets, schedules_store
from whole.stage import SCHEDULES

__all__ = [
    "SCHEDULES",
    "schedules_gateway",
    "schedules_issue",
    "schedules_link",
    "schedules_sets",
    "schedules_store",
]
