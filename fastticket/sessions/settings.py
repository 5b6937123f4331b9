"""The settings of a ticket cache: names, units, defaults and checks, once for every door.

    Settings      the values, checked; immutable
    SettingNames  the names as keyword arguments, for `**settings: Unpack[SettingNames]`

`fastticket.TicketCache`, `fastticket.sync.TicketCache` and Django's FASTTICKET take them by name;
the gateway's configuration file has those that concern it. The default of a setting is the class's
attribute, as in `Settings.lease_ms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from fastticket.errors import ConfigError
from fastticket.stores.contract import Fleet

OutagePolicy = Literal["serve-cached", "deny"]
LimitPolicy = Literal["evict-oldest", "refuse"]

DAY_S = 86_400
LEASE_MS_MAX = 3_600_000
OUTAGE_S_MAX = 30 * DAY_S
LIFETIME_S_END = 1 << 32  # a ticket has 32 bits for each of its two lifetimes
#: A deadline includes a flush interval for a use that is still unwritten, but no time for the flush
#: itself to be answered.
EXPIRY_MARGIN_MIN_MS = 250


@dataclass(frozen=True, kw_only=True)
class Settings:
    """ConfigError if a value is out of its range, or two contradict each other."""

    idle_timeout_s: int = 7200  #: a session ends when it is unused for so long; 0: no idle timeout
    absolute_lifetime_s: int = DAY_S  #: a session ends so long after its login; 0: no end
    remember_lifetime_s: int = 30 * DAY_S  #: in place of both for a login with `remember`
    sessions_max: int = 0  #: live sessions of one principal; 0: any number
    sessions_max_policy: LimitPolicy = "evict-oldest"  #: what a login beyond `sessions_max` does
    attributes_bytes_max: int = 65_536  #: names and serialized values of one session
    near_attributes_bytes: int = 0  #: memory for near copies of attributes; 0: none are kept
    capacity: int = 100_000  #: sessions in the near cache
    flush_interval_ms: int = 500  #: a session's last use is written at most this often
    lease_ms: int = 2000  #: sessions are admitted from memory for so long after the store was asked
    touch_resolution_ms: int = 0  #: an idle deadline that would move by less is not written
    recheck_s: int = 300  #: a session in the near cache is loaded again after so long
    outage_policy: OutagePolicy = "serve-cached"  #: with the store away, admit what is held, or nobody
    outage_grace_s: int = 300  #: for how long, with "serve-cached"
    restore_from_cache: bool = False  #: give the sessions held here back to a store that has lost its data
    #: How long after its deadline a session is removed from the store and its end is logged. None:
    #: as long as an outage may last, so that a gateway that was cut off from the store can still
    #: write the uses that it saw. Another value holds only while somebody follows the events.
    expiry_margin_s: int | None = None

    def __post_init__(self) -> None:
        for fault in (self._fault_of_intervals(), self._fault_of_limits()):
            if fault:
                raise ConfigError(fault)

    @property
    def fleet(self) -> Fleet:
        """What every process on a store must know of the others' settings."""
        return Fleet(self.flush_interval_ms, self.lease_ms)

    @property
    def outage_grace_ms(self) -> int:
        """0 if `outage_policy` is "deny"."""
        return self.outage_grace_s * 1000 if self.outage_policy == "serve-cached" else 0

    @property
    def expiry_margin_ms(self) -> int | None:
        """At least EXPIRY_MARGIN_MIN_MS; None as for `expiry_margin_s`."""
        return None if self.expiry_margin_s is None else max(self.expiry_margin_s * 1000, EXPIRY_MARGIN_MIN_MS)

    def lifetimes_fault(self, idle_timeout_s: int, absolute_lifetime_s: int, flush_interval_ms: int) -> str:
        """Why a ticket cannot have these lifetimes (0: none) where the fleet's longest flush
        interval is `flush_interval_ms`; "" if it can.
        """
        if not isinstance(idle_timeout_s, int) or not isinstance(absolute_lifetime_s, int):
            return (
                "idle_timeout_s and absolute_lifetime_s are whole seconds, "
                f"not {idle_timeout_s} and {absolute_lifetime_s}"
            )
        if not 0 <= idle_timeout_s < LIFETIME_S_END or not 0 <= absolute_lifetime_s < LIFETIME_S_END:
            return "idle_timeout_s and absolute_lifetime_s must be from 0 (none) to 2**32 - 1"
        if idle_timeout_s and idle_timeout_s * 1000 < 4 * flush_interval_ms:
            return (
                f"idle_timeout_s is {idle_timeout_s}, shorter than four flush intervals of {flush_interval_ms} ms: "
                "sessions in use could idle out; lengthen it or flush more often"
            )
        if idle_timeout_s and self.touch_resolution_ms * 2 > idle_timeout_s * 1000:
            return (
                f"touch_resolution_ms is {self.touch_resolution_ms}, more than half of idle_timeout_s "
                f"({idle_timeout_s}): sessions in use could idle out; lower it"
            )
        return ""

    def _fault_of_intervals(self) -> str:
        if self.flush_interval_ms < 1:
            return f"flush_interval_ms must be at least 1, not {self.flush_interval_ms}"
        if self.lease_ms < 2 * self.flush_interval_ms:
            return (
                f"lease_ms is {self.lease_ms}, but each flush renews it: it must be at least twice "
                f"flush_interval_ms ({self.flush_interval_ms})"
            )
        fault = self.lifetimes_fault(self.idle_timeout_s, self.absolute_lifetime_s, self.flush_interval_ms)
        if fault:
            return fault
        if self.lease_ms > LEASE_MS_MAX:
            return f"lease_ms must be at most {LEASE_MS_MAX}, an hour, not {self.lease_ms}: it bounds a revocation"
        if self.touch_resolution_ms < 0:
            return f"touch_resolution_ms must be 0 or more, not {self.touch_resolution_ms}"
        if not 0 <= self.outage_grace_s <= OUTAGE_S_MAX:
            return f"outage_grace_s must be from 0 to {OUTAGE_S_MAX}, 30 days, not {self.outage_grace_s}"
        if self.outage_policy not in ("serve-cached", "deny"):
            return f'outage_policy must be "serve-cached" or "deny", not {self.outage_policy!r}'
        return ""

    def _fault_of_limits(self) -> str:
        if self.sessions_max < 0 or self.sessions_max_policy not in ("evict-oldest", "refuse"):
            return (
                'sessions_max must be 0 (any number) or more, sessions_max_policy "evict-oldest" or "refuse", not '
                f"{self.sessions_max} and {self.sessions_max_policy!r}"
            )
        if self.remember_lifetime_s < 1 or self.attributes_bytes_max < 0 or self.near_attributes_bytes < 0:
            return (
                "remember_lifetime_s must be 1 or more, attributes_bytes_max and near_attributes_bytes 0 or more, not "
                f"{self.remember_lifetime_s}, {self.attributes_bytes_max} and {self.near_attributes_bytes}"
            )
        return ""


class ChangeableNames(TypedDict, total=False):
    """The settings that `TicketCache.change_settings` changes while a cache serves. The others
    belong to its table, to its store, or to the fleet.
    """

    idle_timeout_s: int
    absolute_lifetime_s: int
    remember_lifetime_s: int
    sessions_max: int
    sessions_max_policy: LimitPolicy
    outage_policy: OutagePolicy
    outage_grace_s: int
    restore_from_cache: bool


class SettingNames(ChangeableNames, total=False):
    """The fields of `Settings`, for type checkers; tests/sessions/test_settings.py compares the
    two.
    """

    attributes_bytes_max: int
    near_attributes_bytes: int
    capacity: int
    flush_interval_ms: int
    lease_ms: int
    touch_resolution_ms: int
    recheck_s: int
    expiry_margin_s: int | None
