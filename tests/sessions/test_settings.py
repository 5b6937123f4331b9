"""The settings stand once: what takes them by name takes all of them, and nothing else."""

import dataclasses
import inspect
import typing

import pytest

import fastticket
import fastticket.sync
from fastticket.errors import ConfigError
from fastticket.sessions.settings import SettingNames, Settings

CACHES = (fastticket.TicketCache, fastticket.sync.TicketCache)


def test_the_names_for_type_checkers_are_the_settings():
    types = typing.get_type_hints(Settings)
    assert typing.get_type_hints(SettingNames) == {
        field.name: types[field.name] for field in dataclasses.fields(Settings)
    }


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_takes_the_settings_by_name(cache):
    named = inspect.signature(cache).parameters["settings"]
    assert typing.get_type_hints(cache.__init__)["settings"] == typing.Unpack[SettingNames]
    assert named.kind is inspect.Parameter.VAR_KEYWORD


@pytest.mark.parametrize("cache", CACHES)
def test_an_unknown_setting_is_named(cache):
    with pytest.raises(TypeError, match="'lease_s'"):
        cache(fastticket.open_store("sqlite://:memory:"), fastticket.Keyring.generate(), lease_s=2)


def test_settings_are_checked_when_they_are_made():
    with pytest.raises(ConfigError, match="lease_ms is 999"):
        Settings(lease_ms=999)


def test_no_credit_is_given_where_the_policy_denies():
    assert Settings().outage_grace_ms == 300_000
    assert Settings(outage_policy="deny").outage_grace_ms == 0


def test_an_expiry_margin_leaves_a_flush_its_time():
    assert [Settings(expiry_margin_s=seconds).expiry_margin_ms for seconds in (None, 0, 1)] == [None, 250, 1000]
