"""What `help()` and an editor say of every public name: that it is there, how it is called, and
what it does.
"""

import contextlib
import functools
import importlib
import inspect
import io
import types

import pytest

import fastticket

#: The modules that programs import, and what each offers.
MODULES = (
    "fastticket",
    "fastticket.asgi",
    "fastticket.django",
    "fastticket.errors",
    "fastticket.fastapi",
    "fastticket.flask",
    "fastticket.sync",
    "fastticket.testing",
    "fastticket.testing.flask",
    "fastticket.testing.starlette",
    "fastticket.wsgi",
)


def offered_by(module):
    """Its `__all__`; where it has none, the classes and functions that it defines."""
    names = getattr(module, "__all__", None) or [
        name
        for name, found in vars(module).items()
        if not name.startswith("_") and getattr(found, "__module__", None) == module.__name__ and callable(found)
    ]
    return {name: getattr(module, name) for name in names}


def public():
    """(how it is called, the object) of every public class and function, and of their members."""
    for module in map(importlib.import_module, MODULES):
        for name, found in offered_by(module).items():
            if not isinstance(found, type | types.FunctionType | types.BuiltinFunctionType) and not inspect.isroutine(
                found
            ):
                continue  # a type for annotations, a constant
            yield f"{module.__name__}.{name}", found
            if isinstance(found, type):
                yield from ((f"{module.__name__}.{name}.{member}", value) for member, value in members_of(found))


def members_of(kind):
    """What a class of ours has itself, or from others of ours."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("fastticket")]
    names = {name: None for base in ours for name in vars(base) if not name.startswith("_")}
    return [(name, inspect.getattr_static(kind, name)) for name in names]


EACH = pytest.mark.parametrize(("name", "found"), [pytest.param(*pair, id=pair[0]) for pair in public()])


def is_described(found):
    return isinstance(found, property | functools.cached_property) or callable(found) or inspect.isroutine(found)


@EACH
def test_it_says_what_it_does(name, found):
    if is_described(found):
        assert (inspect.getdoc(found) or "").strip()


@EACH
def test_it_says_how_it_is_called(name, found):
    """Which a compiled function says only if it is told to. Who makes a Session or a Ticket?
    Nobody.
    """
    if inspect.isroutine(found) or name == "fastticket.Keyring":
        assert inspect.signature(getattr(found, "__func__", found))


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in fastticket.__all__])
def test_help_shows_it(name):
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        help(getattr(fastticket, name))
    assert name in shown.getvalue()


@pytest.mark.parametrize("kind", [fastticket.TicketCache, importlib.import_module("fastticket.sync").TicketCache])
def test_help_of_check_says_that_a_miss_is_no_refusal(kind):
    """Whoever answers 401 there locks out good users."""
    cache = kind(fastticket.open_store("sqlite://:memory:"), fastticket.Keyring.generate())
    for check in (kind.check, cache.check):
        said = inspect.getdoc(check)
        assert "MISS" in said
        assert "REFRESH" in said
        assert "no refusals" in said
        assert "authenticate" in said
        assert list(inspect.signature(check).parameters)[-2:] == ["ticket", "touch"]
        assert inspect.signature(check).parameters["touch"].default is True
