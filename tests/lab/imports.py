"""The imports within the package, read from the sources: `.py`, `.pyx` and `.pxd`, imports for
annotations included.

`python -m lab.imports` (in `tests/`) or `make rooms` prints the rooms: their files with lines, and
what each room imports.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "fastticket"
SOURCES = sorted(path for kind in ("py", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{kind}"))

_COMPILED = re.compile(
    r"^\s*(?:from\s+fastticket(?:\.([\w.]+))?\s+c?import\s+\(?([\w, ]*)|c?import\s+fastticket\.([\w.]+))", re.M
)


def module_of(source: Path) -> str:
    """`fastticket/stores/redis/store.py` is `stores.redis.store`, the package itself the empty
    name.
    """
    parts = source.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def room_of(module: str) -> str:
    """The folder that a module is in; of one beside the folders, its own name."""
    return module.partition(".")[0]


MODULES = {module_of(source) for source in SOURCES}

#: Imports inside a function, against the direction: (module, imported). A comment at each says why.
LATE = {("core.ticket", "keyfile")}


def imports_of(source: Path) -> set[str]:
    """The package's own modules that a source imports."""
    text = source.read_text()
    named = _named_in_python(text) if source.suffix == ".py" else _named_in_cython(text)
    return {_module(base, name) for base, name in named} - {module_of(source)}


def _named_in_python(text: str) -> set[tuple[str, str]]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fastticket":
            found |= {((node.module or "").partition(".")[2], alias.name) for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                (alias.name.partition(".")[2], "") for alias in node.names if alias.name.startswith("fastticket.")
            }
    return found


def _named_in_cython(text: str) -> set[tuple[str, str]]:
    found = set()
    for base, names, whole in _COMPILED.findall(text):
        found |= {(whole or base, name.strip()) for name in names.split(",")}
    return found


def _module(base: str, name: str) -> str:
    """`from base import name`: a module of that name, or what `base` defines."""
    inner = f"{base}.{name}" if base else name
    return inner if inner in MODULES else base


def graph() -> dict[str, set[str]]:
    """Each module of the package, and the modules of it that it imports, but for LATE."""
    found: dict[str, set[str]] = {module: set() for module in sorted(MODULES)}
    for source in SOURCES:
        found[module_of(source)] |= imports_of(source)
    for module, imported in LATE:
        found[module].remove(imported)
    return found


def rooms(modules: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The imports of each room."""
    found: dict[str, set[str]] = {}
    for module, imported in modules.items():
        of = found.setdefault(room_of(module), set())
        of |= {room_of(each) for each in imported} - {room_of(module)}
    return found


def circle_in(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules of which each imports the next and the last one the first; empty if there is no such
    circle.
    """
    done: set[str] = set()
    path: list[str] = []

    def visit(module: str) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        path.append(module)
        for imported in sorted(graph.get(module, ())):
            if circle := visit(imported):
                return circle
        done.add(path.pop())
        return []

    return next((circle for module in sorted(graph) if (circle := visit(module))), [])


def main() -> None:
    """Print the imports and the files of each room."""
    for room, imported in sorted(rooms(graph()).items()):
        print(f"{room or 'fastticket (the package itself)'} -> {', '.join(sorted(imported)) or 'nothing'}")
        for source in SOURCES:
            if room_of(module_of(source)) == room:
                print(f"    {len(source.read_text().splitlines()):5} {source.relative_to(PACKAGE)}")
    print("late, in a function:", ", ".join(f"{module} -> {imported}" for module, imported in sorted(LATE)))
    print("circle:", " -> ".join(circle_in(graph())) or "none")


if __name__ == "__main__":
    main()
