"""What a program may call: the public modules, read and not run, docstrings and stubs alike."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import griffe

from fastticket.sessions.settings import Settings
from generators.tables import table

ROOT = Path(__file__).parents[2]
MODULES = ("fastticket", "fastticket.sync", "fastticket.asgi", "fastticket.fastapi", "fastticket.flask")
MODULES += ("fastticket.wsgi", "fastticket.django", "fastticket.web.adapter", "fastticket.testing")
MODULES += ("fastticket.testing.starlette", "fastticket.testing.flask", "fastticket.testing.django")
WIDTH = 96
KINDS = griffe.ParameterKind


@functools.cache
def _package() -> griffe.Module:
    package = griffe.load("fastticket", search_paths=[ROOT], allow_inspection=False, resolve_aliases=True)
    assert isinstance(package, griffe.Module)
    return package


def module(name: str, _: str) -> str:
    """Its members, in the order of the file's own list where it has one, else of the file."""
    found = _package()[name.partition(".")[2]] if "." in name else _package()
    return "\n".join(part for member in _members(found) for part in _entry(member, f"{name}.", 3))


def _members(found: griffe.Module) -> Iterator[griffe.Object]:
    """Errors have a page of their own."""
    own = (name for name, member in found.members.items() if _is_public(name) and not member.is_alias)
    names = (
        sorted(map(str, found.exports))
        if found.exports
        else [name for name in own if found.members[name].is_class or found.members[name].is_function]
    )
    for name in names:
        member = found.members[name]
        target = member.final_target if member.is_alias else member
        if target.module.name != "errors":
            yield target


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _entry(member: griffe.Object, prefix: str, depth: int) -> Iterator[str]:
    yield f"{'#' * depth} {prefix}{member.name}\n"
    if member.is_function or member.is_class:
        yield f"```text\n{_call(member, member.name)}\n```\n"
    elif isinstance(member, griffe.Attribute) and member.annotation:
        yield f"`{member.annotation}`\n"
    yield _prose(member)
    if isinstance(member, griffe.Class):
        yield from _fields(member)
        for each in _methods(member):
            yield from _entry(each, f"{member.name}.", depth + 1)


def _own(kind: griffe.Class) -> Iterator[griffe.Object]:
    """What a class has, what it inherits from others of ours included."""
    for name, each in kind.all_members.items():
        target = each.final_target if each.is_alias else each
        if _is_public(name) and target.path.startswith("fastticket."):
            yield _called(target) or target


def _called(member: griffe.Object) -> griffe.Function | None:
    """How to call an attribute that is a function: `check: _Check`, a protocol beside it."""
    kind = member.module.members.get(str(getattr(member, "annotation", None)))
    if not isinstance(kind, griffe.Class) or not kind.name.startswith("_") or "__call__" not in kind.members:
        return None
    function = kind.members["__call__"]
    function.name = member.name
    assert isinstance(function, griffe.Function)
    return function


def _methods(kind: griffe.Class) -> list[griffe.Object]:
    """Without those that a store has for its cache: the contract is no part of the reference."""
    for_cache = _package()["stores.contract.Store"].members if kind.name == "MemoryStore" else {}
    return [each for each in _own(kind) if each.is_function and each.docstring and each.name not in for_cache]


def _fields(kind: griffe.Class) -> Iterator[str]:
    """What is read of an object: attributes and properties."""
    rows = [
        [f"`{each.name}`", f"`{each.annotation}`" if each.annotation else "", " ".join(_prose(each).split())]
        for each in _own(kind)
        if isinstance(each, griffe.Attribute) and _is_shown(each)
    ]
    if rows:
        yield table(["attribute", "type", "meaning"], rows) + "\n"


def _is_shown(attribute: griffe.Attribute) -> bool:
    return bool(attribute.docstring) or "property" in attribute.labels or bool(attribute.annotation)


# --- signatures


def _call(member: griffe.Object, name: str) -> str:
    """As a program would write it, in several lines if it is long."""
    function = member if member.is_function else member.all_members.get("__init__")
    if not isinstance(function, griffe.Function) or not str(function.path).startswith("fastticket."):
        return f"class {name}"
    words = [*_parameters(function)]
    before = "class " if member.is_class else "async def " if "async" in function.labels else "def "
    after = f" -> {function.returns}" if member.is_function and function.returns else ""
    line = f"{before}{name}({', '.join(words)}){after}"
    return (
        line if len(line) <= WIDTH else f"{before}{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){after}"
    )


def _parameters(function: griffe.Function) -> Iterator[str]:
    is_starred = False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        stars = {KINDS.var_positional: "*", KINDS.var_keyword: "**"}.get(parameter.kind, "")
        if parameter.kind is KINDS.keyword_only and not is_starred:
            yield "*"
        is_starred = is_starred or parameter.kind in (KINDS.keyword_only, KINDS.var_positional)
        annotation = f": {parameter.annotation}" if parameter.annotation else ""
        default = f" = {parameter.default}" if parameter.default is not None and not stars else ""
        yield f"{stars}{parameter.name}{annotation}{default}"


# --- docstrings


def _prose(member: griffe.Object) -> str:
    """Markdown; a list of names that is set in by spaces becomes a block of text."""
    text = inspect.cleandoc(member.docstring.value) if member.docstring else ""
    parts = re.split(r"\n\n+", text)
    return "\n\n".join(_block(part) if _is_set_apart(part) else part for part in parts) + ("\n" if text else "")


def _is_set_apart(part: str) -> bool:
    return any(line.startswith("    ") or re.match(r"\w+  +\S", line) for line in part.splitlines())


def _block(part: str) -> str:
    return f"```text\n{inspect.cleandoc(part)}\n```"


# --- settings


def settings(_: str) -> str:
    """The keyword arguments of a ticket cache."""
    said = _package()["sessions.settings.Settings"].members
    rows = [
        [f"`{field.name}`", f"`{said[field.name].annotation}`", f"`{field.default!r}`", _said(field.name)]
        for field in dataclasses.fields(Settings)
    ]
    return table(["setting", "type", "default", "meaning"], rows)


def _said(name: str) -> str:
    """What stands after `#:` in the line of a setting, or above it."""
    source = inspect.getsource(Settings)
    if beside := re.search(rf"^    {name}: .*  #: (.*)$", source, re.MULTILINE):
        return beside[1]
    above = re.search(rf"((?:    #: .*\n)+)    {name}: ", source)
    return " ".join(line.strip().removeprefix("#: ") for line in above[1].splitlines()) if above else ""


BLOCKS = {"settings": settings} | {name: partial(module, name) for name in MODULES}
