"""Fixtures of real processes, which end with the test: commands of ours, gateways, a Redis."""

import pytest
import redis
from conftest import BOUND_S

from lab.processes import Process, Site
from lab.redis_servers import Server


@pytest.fixture
def run(tmp_path):
    """`run("serve", ...)`: a command of ours in the test's folder, as a Process."""
    started = []

    def start(*arguments, **options):
        started.append(Process(*arguments, cwd=tmp_path, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.wait(BOUND_S)
        each.process.stdout.close()


@pytest.fixture
def site(tmp_path):
    """`site(config)`: a gateway by a configuration in the test's folder, as a Site."""
    started = []

    def start(config, **options):
        started.append(Site(tmp_path, config, **options))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def redis_server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.fixture
def there(redis_server):
    """A client of the Redis that another system keeps its sessions in."""
    client = redis.Redis(port=redis_server.port)
    yield client
    client.close()


@pytest.fixture
def url(redis_server):
    """Where that Redis is."""
    return f"redis://{redis_server.address}/0"
