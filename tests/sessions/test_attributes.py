"""Attributes without a store: the mapping, its differences, and which near copies are kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastticket.errors import BadAttribute, NotLoaded
from fastticket.sessions.attributes import AttributeChanges, Changes, JSONSerializer, Saved, after
from fastticket.sessions.nearattributes import NearAttributes
from fastticket.stores.contract import StoredAttributes, Written

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("abü👩\0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(["a", "b", "c", "ü"])


def stored(version: int = 1, **values: bytes) -> StoredAttributes:
    return StoredAttributes((version, 0), values)


def held(version: int = 1, **values: bytes) -> AttributeChanges:
    attributes = AttributeChanges(JSONSerializer())
    attributes.hold(stored(version, **values))
    return attributes


def unread() -> AttributeChanges:
    return AttributeChanges(JSONSerializer())


# --- the mapping


def test_it_is_a_mapping():
    attributes = held(a=b"1", b=b'"two"')
    attributes["c"] = [3]
    del attributes["a"]
    assert dict(attributes) == {"b": "two", "c": [3]}
    assert (len(attributes), "a" in attributes, "b" in attributes, "c" in attributes) == (2, False, True, True)
    assert attributes.pop("b") == "two"
    assert attributes.setdefault("d", 4) == 4
    assert attributes.get("a") is None
    attributes.clear()
    assert dict(attributes) == {}
    with pytest.raises(KeyError):
        attributes["a"]
    with pytest.raises(KeyError):
        del attributes["a"]


@given(
    before=st.dictionaries(NAMES, JSON_VALUES),
    steps=st.lists(st.tuples(NAMES, st.none() | JSON_VALUES.map(lambda value: [value]))),
)
def test_it_does_as_a_dict_does_and_writes_only_the_difference(before, steps):
    serializer = JSONSerializer()
    raw = {name: serializer.dumps(value) for name, value in before.items()}
    attributes, model = held(**raw), dict(before)
    for name, boxed in steps:
        if boxed is None:
            assert attributes.pop(name, "none") == model.pop(name, "none")
        else:
            attributes[name] = model[name] = boxed[0]
        assert dict(attributes) == model
        assert len(attributes) == len(model)
    changes = attributes.changes()
    now = after(stored(1, **raw), changes, Written((2, 0), (1, 0)))
    assert {name: serializer.loads(value) for name, value in now.values.items()} == model
    assert all(raw.get(name) != value for name, value in changes.values.items())
    assert set(changes.removed) == set(before) - set(model)
    attributes.settle(changes, Saved(now.version, now))
    assert not attributes.changes()
    assert dict(attributes) == model


def test_a_value_that_was_changed_in_place_is_a_change():
    attributes = held(cart=b'["tea"]', color=b'"red"')
    attributes["cart"].append("milk")
    attributes["color"] = "red"
    assert attributes.changes() == Changes({"cart": b'["tea","milk"]'}, [])


def test_reading_changes_nothing():
    attributes = held(a=b'{"x": 1.0 }', b=b"[]")  # the first one not as this serializer writes it
    assert dict(attributes) == {"a": {"x": 1.0}, "b": []}
    attributes["b"] = []
    assert not attributes.changes()


def test_unread_attributes_can_be_set_and_removed_but_not_read():
    attributes = unread()
    attributes["a"] = 1
    attributes.discard("b")
    assert attributes["a"] == 1
    assert "a" in attributes
    for look in (lambda: attributes["c"], lambda: "c" in attributes, lambda: list(attributes), lambda: len(attributes)):
        with pytest.raises(NotLoaded, match=r"await attributes\.load"):
            look()
    changes = attributes.changes()
    assert changes == Changes({"a": b"1"}, ["b"])
    attributes.settle(changes, Saved((4, 0), None))
    assert not attributes.changes()
    attributes.hold(stored(5, a=b"2", b=b"3"))  # somebody else was faster
    assert not attributes.changes()


def test_the_version_is_that_of_the_last_read_or_write_also_if_others_have_written_in_between():
    attributes = unread()
    assert attributes.version is None
    attributes.hold(stored(3, a=b"1"))
    assert attributes.version == (3, 0)
    attributes["a"] = 2
    attributes.settle(attributes.changes(), Saved((7, 0), None))
    assert attributes.version == (7, 0)


def test_once_others_have_written_what_is_set_is_written_even_to_what_it_was_when_it_was_read():
    """Somebody has set it otherwise, perhaps, and that is not known here."""
    attributes = held(a=b"1", b=b"2")
    attributes["b"] = 3
    attributes.settle(attributes.changes(), Saved((9, 0), None))
    assert attributes["a"] == 1
    assert not attributes.changes()
    attributes["a"] = 1
    attributes.discard("c")
    assert attributes.changes() == Changes({"a": b"1"}, ["c"])
    attributes.settle(attributes.changes(), Saved((11, 0), None))
    assert not attributes.changes()


def test_what_others_wrote_meanwhile_is_not_overwritten_by_a_second_save():
    attributes = held(a=b"1", b=b"2")
    assert attributes["b"] == 2
    attributes["a"] = 10
    attributes.settle(attributes.changes(), Saved((4, 0), None))
    assert dict(attributes) == {"a": 10, "b": 2}
    attributes["c"] = 3
    assert attributes.changes() == Changes({"c": b"3"}, [])


def saved(attributes: AttributeChanges, before: StoredAttributes | None = None) -> Changes:
    """The changes, as written by a store that no one else writes to."""
    changes = attributes.changes()
    version = before.version[0] if before else 0
    now = after(before, changes, Written((version + 1, 0), (version, 0)))
    attributes.settle(changes, Saved((version + 1, 0), now))
    return changes


def test_a_value_comes_back_after_it_was_removed_or_changed():
    attributes = unread()
    attributes["x"] = 1
    assert saved(attributes) == Changes({"x": b"1"}, [])
    attributes.discard("x")
    assert saved(attributes) == Changes({}, ["x"])
    attributes["x"] = 1
    assert saved(attributes) == Changes({"x": b"1"}, [])
    before = stored(3, x=b"1")
    attributes.hold(before)
    attributes["x"] = 5
    assert saved(attributes, before) == Changes({"x": b"5"}, [])
    attributes["x"] = 1
    assert attributes.changes() == Changes({"x": b"1"}, [])


def test_what_is_removed_while_a_save_is_under_way_is_removed_by_the_next_one():
    before = stored(1, a=b"1", b=b"2")
    attributes = held(a=b"1", b=b"2")
    del attributes["a"]
    changes = attributes.changes()
    del attributes["b"]
    attributes.settle(changes, Saved((2, 0), after(before, changes, Written((2, 0), (1, 0)))))
    assert dict(attributes) == {}
    assert attributes.changes() == Changes({}, ["b"])


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), float("nan"), float("inf"), lambda: 0])
def test_a_value_that_can_not_be_written_is_named(value):
    attributes = held(a=b"1")
    attributes["today"] = value
    with pytest.raises(BadAttribute, match="attribute 'today'") as failure:
        attributes.changes()
    assert failure.value.name == "today"
    del attributes["today"]
    assert not attributes.changes()


def test_a_value_without_end_can_not_be_written():
    attributes, endless = held(), []
    endless.append(endless)
    attributes["endless"] = endless
    with pytest.raises(BadAttribute, match="endless"):
        attributes.changes()


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"\x80\x04K\x01.", b"NaN."])
def test_a_value_that_can_not_be_read_back_is_named_and_the_others_are_there(raw):
    attributes = held(bad=raw, good=b"1")
    assert attributes["good"] == 1
    assert "bad" in attributes
    with pytest.raises(BadAttribute, match="attribute 'bad'") as failure:
        attributes["bad"]
    assert raw.decode(errors="replace") not in str(failure.value) or not raw
    assert not attributes.changes()  # and it is not lost by a save
    attributes["bad"] = 2
    assert attributes.changes() == Changes({"bad": b"2"}, [])


@pytest.mark.parametrize(
    ("name", "error"), [("", BadAttribute), ("x" * 256, BadAttribute), ("\ud800", BadAttribute), (1, TypeError)]
)
def test_a_name_has_bounds(name, error):
    with pytest.raises(error):
        held()[name] = 1


def test_no_value_is_in_the_repr():
    assert "secret" not in repr(held(a=b'"secret"'))
    assert "1 attributes" in repr(held(a=b'"secret"'))
    assert "not loaded" in repr(unread())


# --- what the store holds after a write


def test_what_is_stored_is_known_only_if_nobody_else_has_written():
    changes = Changes({"b": b"2"}, ["a"])
    assert after(stored(3, a=b"1"), changes, Written((5, 0), (3, 0))) == stored(5, b=b"2")
    assert after(stored(3, a=b"1"), changes, Written((5, 0), (4, 0))) is None
    assert after(None, changes, Written((5, 0), (0, 0))) is None


# --- near copies


def copies(bytes_max: int = 10_000) -> NearAttributes:
    return NearAttributes(bytes_max)


def keep(near: NearAttributes, session_id: str = "s", version: int = 1, shard: int = 0, **values: bytes) -> None:
    near.land(near.depart(session_id, shard), stored(version, **values))


def test_a_copy_is_found_until_the_log_tells_of_a_later_version():
    near = copies()
    keep(near, version=7, a=b"1")
    for version in (6, 7):
        near.changed("s", (version, 0))
        assert near.find("s") == stored(7, a=b"1")
    near.changed("s", (8, 0))
    assert near.find("s") is None


def test_what_is_under_way_when_the_log_tells_of_a_later_version_is_not_kept():
    near = copies()
    late, later = near.depart("s", 0), near.depart("s", 0)
    near.changed("s", (8, 0))
    near.land(late, stored(7))
    assert near.find("s") is None
    near.land(later, stored(8))
    assert near.find("s") == stored(8)


@pytest.mark.parametrize("end", [lambda near: near.end("s"), lambda near: near.forget(0)])
def test_what_is_under_way_when_the_session_ends_or_the_log_has_a_gap_is_not_kept(end):
    near = copies()
    keep(near)
    flight = near.depart("s", 0)
    end(near)
    assert near.find("s") is None
    near.land(flight, stored(9))
    assert near.find("s") is None


def test_a_gap_concerns_its_shard_alone():
    near = copies()
    keep(near, "here", shard=0)
    keep(near, "there", shard=1)
    flight = near.depart("there too", 1)
    near.forget(0)
    near.land(flight, stored())
    assert (near.find("here"), near.find("there"), near.find("there too")) == (None, stored(), stored())


def test_a_write_of_unknown_outcome_drops_the_copy():
    near = copies()
    keep(near)
    near.land(near.depart("s", 0), None)
    assert near.find("s") is None


def test_an_older_answer_does_not_replace_a_newer_copy():
    near = copies()
    early, late = near.depart("s", 0), near.depart("s", 0)
    near.land(late, stored(9))
    near.land(early, stored(8))
    assert near.find("s") == stored(9)


def test_copies_are_bounded_and_the_least_recently_used_go_first():
    near = copies(bytes_max=3 * 1000)
    for name in "abc":
        keep(near, name, x=b"x" * 599)
    assert near.find("a")
    keep(near, "d", x=b"x" * 599)
    assert [name for name in "abcd" if near.find(name)] == ["a", "c", "d"]
    keep(near, "large", x=b"x" * 3000)
    assert near.find("large") is None
    assert len(near) == 3
    for name in "acd":
        near.end(name)
    keep(near, "large", x=b"x" * 2599)
    assert near.find("large")


def test_none_is_kept_unless_asked_for():
    near = copies(bytes_max=0)
    keep(near)
    assert near.find("s") is None
