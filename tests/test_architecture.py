"""Imports point one way (design: cli -> gateway -> cache -> {core, stores} -> errors), and the house rules that a machine can check."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fastticket"

#: What each room may import of the package.
MAY_IMPORT = {
    "errors": set(),
    "tomlfile": {"errors"},
    "terminal": set(),
    "core.ticket": {"errors", "tomlfile"},
    "core.nearcache": {"errors"},
    "core.http1": set(),
    "core.check": {"errors", "core.ticket", "core.nearcache"},
    "core.clients": set(),
    "core.paths": set(),
    "core.routes": {"core.http1", "core.paths"},
    "core.upstreams": set(),
    "core.accesslog": set(),
    "core.proxy": {
        "errors",
        *("core.check", "core.ticket", "core.nearcache", "core.http1"),
        *("core.clients", "core.paths", "core.routes", "core.upstreams", "core.accesslog"),
    },
    "tasks": set(),
    "stores": {"errors", "tasks", "stores"},
    "attributes": {"errors", "stores", "core.check", "cache"},  # the last two for annotations alone
    "events": {"errors", "stores"},
    "coherence": {"errors", "stores"},
    "cache": {
        "errors",
        "core.ticket",
        "core.nearcache",
        "core.check",
        "stores",
        "attributes",
        "events",
        "coherence",
        "tasks",
    },
    "sync": {"errors", "core.ticket", "core.check", "stores", "attributes", "events", "cache", ""},
    "keyfile": {"errors", "core.ticket"},
    "cookies": {"errors"},
    "seen": {"stores"},
    "websession": {
        "errors",
        "core.ticket",
        "core.check",
        "stores",
        "attributes",
        "cache",
        "sync",
        "cookies",
        "seen",
        "",
    },
    "asgi": {"errors", "tasks", "cache", "cookies", "websession"},
    "fastapi": {"asgi"},
    "django": {"errors", "attributes", "core.ticket", "core.check", "stores", "sync", "cookies", "seen", "websession"},
    "wsgi": {"errors", "sync", "cookies", "websession"},
    "flask": {"errors", "sync", "cookies", "attributes", "websession", "wsgi"},
    "gateway": {
        *("errors", "tasks", "stores", "cache", "cookies", "gateway", "core.ticket", "core.http1", "core.proxy"),
        *("core.clients", "core.paths", "core.routes", "core.upstreams", "core.accesslog", "tomlfile"),
    },
    "demo": {"errors", "keyfile", "gateway"},
    "keys_cli": {"errors", "keyfile"},
    "store_cli": {"errors", "core.ticket", "stores", "gateway", ""},
    "cli": {"errors", "keyfile", "gateway", "stores", "demo", "keys_cli", "store_cli", ""},
    "__main__": {"cli"},
}
DECLARATIONS = {
    "core.wire",
    "core.verdict",
    "core.sockets",
    "core.answers",
    "core.mixing",
    "core.frames",
}  # C declarations only

SOURCES = sorted([*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyx"), *PACKAGE.rglob("*.pxd")])


def room(module: str) -> str:
    """`stores.sqlite` is in the room `stores`; each module of the core is a room of its own."""
    return module if module.startswith("core.") else module.partition(".")[0]


def module_of(source: Path) -> str:
    return ".".join(source.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(source: Path) -> set[str]:
    """The package's own modules that a source imports, cimports included."""
    found = re.findall(
        r"^\s*(?:from|cimport|import)\s+fastticket(?:\.([\w.]+))?\s", source.read_text() + "\n", re.MULTILINE
    )
    return {name or "" for name in found}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(source):
    module = module_of(source)
    if module in ("__init__", "core", "core.__init__") or module in DECLARATIONS:
        return
    allowed = MAY_IMPORT[room(module)]
    rooms = {room(name) for name in imports_of(source)} - DECLARATIONS - {room(module)}
    assert rooms <= allowed


def test_only_the_redis_store_knows_redis():
    knowing = [s for s in SOURCES if re.search(r"^\s*(?:import|from)\s+redis\b", s.read_text(), re.MULTILINE)]
    assert all(s.parent.name == "stores" and s.name.startswith("redis") for s in knowing)
    assert "redis_link.py" in {s.name for s in knowing}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_web_framework_is_known_in_its_own_room_alone(source):
    frameworks = r"^\s*(?:import|from)\s+(fastapi|starlette|flask|werkzeug|django)\b"
    known = set(re.findall(frameworks, source.read_text(), re.MULTILINE))
    family = {"fastapi": {"starlette"}, "flask": {"werkzeug"}}
    own = room(module_of(source))
    assert known <= {own} | family.get(own, set())


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.pyx")), ids=lambda path: path.name)
def test_a_compiled_module_has_its_declarations_stub_and_directives(source):
    assert source.with_suffix(".pxd").exists()
    assert source.with_suffix(".pyi").exists()
    first = source.read_text().splitlines()[0]
    assert first.startswith("# cython: language_level=3")
    assert not re.search(r"^\s*(include|DEF)\s", source.read_text(), re.MULTILINE)


@pytest.mark.parametrize("source", sorted(PACKAGE.rglob("*.pyx")), ids=lambda path: path.name)
def test_a_stub_names_what_the_module_has(source):
    """Every public function and class of the stub is in the compiled module."""
    module = __import__(f"fastticket.core.{source.stem}", fromlist=["*"])
    for node in ast.parse(source.with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert hasattr(module, node.name), node.name
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and not member.name.startswith("__"):
                    assert hasattr(getattr(module, node.name), member.name), f"{node.name}.{member.name}"
