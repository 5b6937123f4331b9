"""What importing the public modules loads, each in an interpreter of its own."""

import subprocess
import sys

import pytest


def loaded_by(module):
    """The modules and threads that there are after an import."""
    program = (
        f"import {module}, sys, threading\n"
        "print('\\n'.join(sys.modules)); print(*(f'thread {t.name}' for t in threading.enumerate()), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines())


@pytest.mark.parametrize("module", ["fastticket", "fastticket.asgi", "fastticket.fastapi"])
def test_asyncio_applications_load_no_thread_cache(module):
    loaded = loaded_by(module)
    assert module in loaded
    assert "fastticket.sync" not in loaded
    assert {line for line in loaded if line.startswith("thread ")} == {"thread MainThread"}


def test_the_asgi_middleware_loads_no_web_framework():
    assert loaded_by("fastticket.asgi").isdisjoint({"starlette", "fastapi", "flask", "werkzeug", "django", "asgiref"})


@pytest.mark.parametrize("module", ["fastticket.wsgi", "fastticket.flask"])
def test_applications_in_threads_load_it(module):
    assert "fastticket.sync" in loaded_by(module)
