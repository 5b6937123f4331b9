"""Runs a file of Python as a document shows it: `python tests/lab/run_snippet.py FILE`.

It may await at its top level. If it then uses a `cache` that it does not make, it has one, open and
in memory, and alice's `ticket`.
"""

import ast
import asyncio
import inspect
import sys
import types
from pathlib import Path

import fastticket


def wants_a_cache(source):
    uses = [node.ctx for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and node.id == "cache"]
    return bool(uses) and all(isinstance(use, ast.Load) for use in uses)


async def run_awaiting(code, names, needs_cache):
    if not needs_cache:
        return await eval(code, names)
    store, keys = fastticket.open_store("sqlite://:memory:"), fastticket.Keyring.generate()
    async with fastticket.TicketCache(store, keys) as cache:
        names.update(fastticket=fastticket, cache=cache, ticket=await cache.login("alice"))
        return await eval(code, names)


def main(path):
    source = Path(path).read_text()
    code = compile(source, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    module = sys.modules["snippet"] = types.ModuleType("snippet")  # frameworks look for a function's module
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(run_awaiting(code, vars(module), wants_a_cache(source)))
    else:
        exec(code, vars(module))


main(sys.argv[1])
