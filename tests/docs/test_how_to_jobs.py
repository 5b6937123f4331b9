"""docs/how-to/jobs.md, with a real Celery worker, and the application that orders its jobs."""

import contextlib
import http.server
import json
import re
import shlex
import subprocess
import threading
from http.cookies import SimpleCookie

import pytest
from conftest import BOUND_S
from lab.real_programs import ending, program
from lab.redis_servers import Server, wait_until
from lab.shop_pages import Customer, Shop, prepared, serving_page
from lab.snippets import blocks, commands, write_files

JOB_BOUND_S = 6 * BOUND_S  # Celery is slow to start


class Worker:
    """A worker of Celery: what it has logged, and orders that it did not get from the shop."""

    def __init__(self, folder, environment):
        self._folder = folder
        self._environment = environment

    def order(self, task, *arguments):
        command = (program("celery"), "--app", task.partition(".")[0], "call", task, "--args", json.dumps(arguments))
        subprocess.run(command, cwd=self._folder, env=self._environment, check=True, stdout=subprocess.DEVNULL)

    def has_answered(self, task, answer, times=1):
        pattern = rf"Task {re.escape(task)}\[[^]]*\] succeeded in [^:]*: {re.escape(repr(answer))}$"
        log = self._folder / "worker.log"
        wait_until(
            lambda: len(re.findall(pattern, log.read_text(), re.MULTILINE)) >= times, f"{task}: {answer}", JOB_BOUND_S
        )


@contextlib.contextmanager
def worker(folder, command, environment):
    with (folder / "worker.log").open("wb") as log:
        name, *arguments = shlex.split(command)
        process = subprocess.Popen(
            [program(name), *arguments], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    with ending(process):
        wait_until(lambda: is_ready(process, folder / "worker.log"), "the worker is ready", JOB_BOUND_S)
        yield Worker(folder, environment)


def is_ready(process, log):
    assert process.poll() is None, log.read_text()
    return " ready." in log.read_text()


class Orders(http.server.BaseHTTPRequestHandler):
    """A service that believes a ticket, and nothing else; says whose it is."""

    def do_GET(self):
        ticket = SimpleCookie(self.headers["Cookie"])["ticket"].value
        self.server.tickets.append(ticket)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"orders of {self.server.cache.authenticate(ticket).principal}".encode())

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def orders(cache):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Orders) as server:
        server.cache, server.tickets = cache, []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def running(redis, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    write_files("how-to/jobs.md", folder)
    (console,) = [each.text for each in blocks("how-to/jobs.md") if each.language == "console"]
    command, environment = prepared(folder, [typed for typed, _ in commands(console)], redis)
    with contextlib.ExitStack() as stack:
        here = stack.enter_context(serving_page(folder, "uvicorn shop:app --port 8000", environment))
        shop = Shop(here, here, folder, redis)
        cache = stack.enter_context(shop.cache())
        server = stack.enter_context(orders(cache))
        environment["SHOP_URL"] = "http://{}:{}".format(*server.server_address)
        at = stack.enter_context(worker(folder, command.replace("--app jobs", "--app report"), environment))
        yield shop, cache, server, at


@pytest.mark.timeout(180)
def test_jobs(running):
    shop, cache, server, worker = running
    customer = Customer()
    customer.post(shop.here, "/login")
    assert Customer().ask(shop.here, "POST", "/export").status == 401
    assert customer.post(shop.here, "/export") == {"export": "ordered"}
    worker.has_answered("jobs.export", "done")
    assert (shop.folder / "alice.csv").read_text() == "order,price\n"

    ticket = customer.cookies["ticket"]
    session_id = cache.authenticate(ticket).id
    worker.order("report.report", "alice")
    worker.has_answered("report.report", "orders of alice")
    assert [session.id for session in cache.sessions("alice")] == [session_id]
    assert all(each != ticket for each in server.tickets)

    worker.order("jobs.close_account", "alice")
    worker.has_answered("jobs.close_account", 1)
    wait_until(lambda: customer.ask(shop.here, "POST", "/export").status == 401, "the account is closed", BOUND_S)
    worker.order("jobs.export", "alice", session_id)
    worker.has_answered("jobs.export", "the session is over")
    assert ticket not in (shop.folder / "worker.log").read_text()
