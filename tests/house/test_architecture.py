"""Imports point one way (design, section 7), and the house rules that a machine can check."""

import ast
import importlib
import re

import pytest
from lab.imports import PACKAGE, SOURCES, circle_in, graph, module_of, rooms

from fastticket.errors import Verdict

#: What each room may import of the package. Of what stands beside the rooms, each module is a room
#: of its own.
MAY_IMPORT = {
    "errors": set(),
    "tasks": set(),
    "spans": set(),
    "loglines": set(),
    "tomlfile": {"errors"},
    "keyfile": {"errors", "tomlfile", "core"},
    "core": {"errors"},
    "dataplane": {"errors", "core"},
    "stores": {"errors", "tasks", "spans"},
    "sessions": {"errors", "tasks", "spans", "core", "stores"},
    "moving": {"errors", "core", "stores", "sessions"},
    "sync": {"errors", "core", "stores", "sessions"},
    "web": {"errors", "tasks", "core", "stores", "sessions"},
    "asgi": {"errors", "sessions", "web", "starlette"},
    "starlette": set(),
    "fastapi": {"asgi", "errors"},
    "wsgi": {"errors", "sync", "web"},
    "flask": {"errors", "sync", "sessions", "web", "wsgi"},
    "django": {"errors", "core", "stores", "sessions", "moving", "sync", "web"},
    "gateway": {
        *("spans", "loglines"),
        *("errors", "tasks", "tomlfile", "keyfile", "core", "dataplane", "stores", "sessions", "moving", "web", ""),
    },
    "commands": {"errors", "loglines", "core", "keyfile", "stores", "sessions", "moving", "sync", "gateway", ""},
    "testing": {"errors", "stores", "sessions", "sync", "web", "asgi", "flask", "django", ""},
    "": {"errors", "core", "stores", "sessions", "web"},
    "__main__": set(),
}
LINES_MAX = 900


def test_imports_point_one_way():
    """Those for annotations included, those in LATE not."""
    found = rooms(graph())
    assert {room: found[room] - MAY_IMPORT[room] for room in found if found[room] - MAY_IMPORT[room]} == {}
    assert set(MAY_IMPORT) == set(found)


def test_no_room_and_no_module_imports_itself_by_way_of_others():
    assert circle_in(rooms(graph())) == []
    assert circle_in(graph()) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_can_be_read_in_one_go(source):
    assert len(source.read_text().splitlines()) <= LINES_MAX


def test_verdicts_have_one_order_in_c_and_in_python():
    """So they have one number each."""
    listed = (PACKAGE / "core" / "verdict.pxd").read_text().partition("cdef enum Verdict:\n")[2].partition("\n\n")[0]
    names = re.findall(r"^    (\w+)", listed, re.MULTILINE)
    assert names == ["HIT", *(verdict.name for verdict in Verdict), "VERDICTS"]
    assert [verdict.value for verdict in Verdict] == list(range(1, len(names) - 1))


def test_only_the_redis_store_knows_redis():
    knowing = [s for s in SOURCES if re.search(r"^\s*(?:import|from)\s+redis\b", s.read_text(), re.MULTILINE)]
    assert {source.parent for source in knowing} == {PACKAGE / "stores" / "redis"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_web_framework_is_known_in_its_own_room_alone(source):
    frameworks = r"^\s*(?:import|from)\s+(fastapi|starlette|flask|werkzeug|django)\b"
    known = set(re.findall(frameworks, source.read_text(), re.MULTILINE))
    family = {"fastapi": {"starlette"}, "flask": {"werkzeug"}}
    own = set(module_of(source).split("."))  # of fastticket.testing, each module has one
    assert known <= own.union(*(family.get(name, ()) for name in own))


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.pyx")), ids=lambda path: path.name)
def test_a_compiled_module_has_its_declarations_stub_and_directives(source):
    assert source.with_suffix(".pxd").exists()
    assert source.with_suffix(".pyi").exists()
    first, second = source.read_text().splitlines()[:2]
    assert first.startswith("# cython: language_level=3")
    assert second == "# cython: freethreading_compatible=True"  # else importing it switches the GIL on
    assert not re.search(r"^\s*(include|DEF)\s", source.read_text(), re.MULTILINE)


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.pyx")), ids=lambda path: path.name)
def test_a_stub_names_what_the_module_has(source):
    """Every public function and class of the stub is in the compiled module."""
    module = importlib.import_module(f"fastticket.{module_of(source)}")
    for node in ast.parse(source.with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert hasattr(module, node.name), node.name
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                    assert hasattr(getattr(module, node.name), member.name), f"{node.name}.{member.name}"
