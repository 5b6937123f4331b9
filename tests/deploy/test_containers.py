"""examples/containers: the files are what their programs take, and the services of compose.yaml
work together, by their own files.

There is no daemon for containers here. The services run as processes, each with the command and the
files that compose.yaml names; only addresses and folders are others.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import yaml
from conftest import BOUND_S, Client, fields_of, status_of
from lab.documents import ROOT, blocks_of
from lab.processes import Nginx, Process
from lab.real_programs import run as run_program
from lab.redis_servers import Server, free_port, wait_until
from lab.snippets import blocks, commands

from fastticket.commands.cli import parser
from fastticket.gateway.processes import END_MARGIN_S
from fastticket.gateway.reader import load_config

FOLDER = ROOT / "examples/containers"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
GATEWAYS = ("gateway-1", "gateway-2")


# --- the files


def test_the_dockerfile_is_one():
    run_program("hadolint", FOLDER / "Dockerfile")


def test_the_compose_file_is_one():
    run_program("check-jsonschema", "--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml")


@pytest.mark.parametrize(
    "path", sorted(FOLDER.parent.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_yaml_is_clean(path):
    rules = (
        "{extends: default, rules: {line-length: {max: 140}, document-start: disable, braces: {max-spaces-inside: 1}}}"
    )
    if path.parent.name in ("containers", "kubernetes"):
        run_program("yamllint", "--strict", "-d", rules, path)


def instruction(name):
    """The arguments of the last such instruction."""
    return re.findall(rf"^\s*{name} (.*)$", DOCKERFILE, re.MULTILINE)[-1]


def health_check():
    """Its words, of the image."""
    return json.loads(re.search(r"^HEALTHCHECK .*\\\n\s+CMD (.*)$", DOCKERFILE, re.MULTILINE)[1])


def shown(kind):
    """The one block of this kind on the page: what a third gateway needs."""
    (text,) = (block.text for block in blocks("how-to/containers.md") if block.language == kind)
    return text


def test_the_image_starts_a_command_of_ours():
    command = json.loads(instruction("ENTRYPOINT")) + json.loads(instruction("CMD"))
    assert command[0] == "fastticket"
    options = parser().parse_args(command[1:])
    mounted = {mount.split(":")[1] for mount in SERVICES["gateway-1"]["volumes"]}
    assert {str(path) for path in options.config} <= mounted
    assert instruction("USER") == "10001:10001"


def test_the_image_asks_the_admin_socket_that_the_configuration_has():
    assert parser().parse_args(health_check()[1:]).admin == load_config(FOLDER / "fastticket.toml").gateway.admin


def test_the_context_has_what_a_wheel_is_built_of_and_nothing_that_is_built():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    let_in = [line.removeprefix("!") for line in lines if line.startswith("!")]
    needed = {"LICENSE", "README.md", "fastticket", "fastticket_start.py", "pyproject.toml", "setup.py"}
    assert needed <= set(let_in) <= needed | {"MANIFEST.in", "release"}
    read = re.findall(r'ROOT / "([\w.]+)', (ROOT / "setup.py").read_text())
    assert set(read) <= set(let_in)
    assert all((ROOT / name).exists() for name in needed)
    assert {"**/*.so", "fastticket/**/*.c", "**/__pycache__"} <= set(lines)


def test_each_service_is_locked_down():
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["image"] == "fastticket" or service["user"], name


def test_a_gateway_that_is_stopped_has_the_time_that_it_may_take():
    gateway = load_config(FOLDER / "fastticket.toml").gateway
    for name in GATEWAYS:
        grace_s = int(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > gateway.shutdown_delay_s + gateway.drain_timeout_s + END_MARGIN_S


def test_nginx_tries_a_gateway_again_before_the_next_one_goes():
    delays = re.findall(r"fail_timeout=(\d+)s", (FOLDER / "nginx.conf").read_text())
    assert max(map(int, delays)) < load_config(FOLDER / "fastticket.toml").gateway.shutdown_delay_s


def address_of(service):
    return ip_address(service["networks"]["inside"]["ipv4_address"])


def test_the_gateways_believe_nginx_alone():
    assert load_config(FOLDER / "fastticket.toml").gateway.trusted_proxies == [f"{address_of(SERVICES['nginx'])}/32"]


def test_addresses_are_fixed_and_no_other_container_gets_one():
    (network,) = COMPOSE["networks"]["inside"]["ipam"]["config"]
    third = yaml.safe_load(shown("yaml").replace("<<: *gateway", ""))["gateway-3"]
    fixed = [address_of(service) for service in (SERVICES["nginx"], *map(SERVICES.get, GATEWAYS), third)]
    assert len({*fixed, ip_address(network["gateway"])}) == len(fixed) + 1
    assert all(address in ip_network(network["subnet"]) for address in fixed)
    assert not any(address in ip_network(network["ip_range"]) for address in fixed)


def test_each_gateway_has_the_image_s_health_check():
    """Podman's images have none."""
    options = dict(re.findall(r"--([\w-]+)=(\w+)", instruction("HEALTHCHECK")))
    for name in GATEWAYS:
        check = SERVICES[name]["healthcheck"]
        assert check["test"] == ["CMD", *health_check()]
        assert {key.replace("_", "-"): str(check[key]) for key in check if key != "test"} == options


def test_commands_of_the_page_name_services_and_volumes_that_are_there():
    page = ROOT / "docs/how-to/containers.md"
    said = [command for block in blocks_of(page) for command, _ in commands(block.text)]
    ours = [words[4:] for words in map(shlex.split, said) if words[:2] == ["docker", "compose"]]
    assert {words[0] for words in ours} >= {"up", "down", "build", "restart", "exec", "kill"}
    named = {word for words in ours for word in words if re.fullmatch(r"nginx|gateway-\d+|redis|keys", word)}
    assert named == {*GATEWAYS, "gateway-3", "nginx", "keys"}
    (run,) = [words for words in ours if words[0] == "run"]
    assert parser().parse_args(run[run.index("keys") + 1 :]).file == Path("/var/lib/fastticket/keys.toml")
    assert set(re.findall(rf"`{COMPOSE['name']}_(\w+)`", page.read_text())) == set(COMPOSE["volumes"])


# --- the services together


class Services:
    """All of compose.yaml. `address`: nginx's; `gateways`: theirs."""

    def __init__(self, folder: Path, names=GATEWAYS):
        self.folder = folder
        self.redis = Server(folder, {"maxmemory-policy": "noeviction"})
        self.ports = {name: free_port() for name in ("nginx", "application", *names)}
        self._application = subprocess.Popen(
            [sys.executable, FOLDER / "application.py"],
            env={**os.environ, "PORT": str(self.ports["application"])},
            stderr=subprocess.DEVNULL,
        )
        at = ("127.0.0.1", self.ports["application"])
        wait_until(lambda: Client(at).close() is None, "the application listens", 3 * BOUND_S)
        self.make_keys()
        self.gateways = {name: self._gateway(name) for name in names}
        self.address = ("127.0.0.1", self.ports["nginx"])
        self._nginx = Nginx(folder, self._nginx_config(), self.address)

    def make_keys(self):
        """The command of `keys`."""
        service = SERVICES["keys"]
        command = [*service["entrypoint"], *service["command"]]
        (self.folder / "bin").mkdir(exist_ok=True)
        (self.folder / "bin/fastticket").write_text(f'#!/bin/sh\nexec {sys.executable} -m fastticket "$@"\n')
        (self.folder / "bin/fastticket").chmod(0o755)
        environment = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(sys.path)}
        command[-1] = command[-1].replace("/var/lib/fastticket", str(self.folder))
        subprocess.run(command, env={**os.environ, **environment}, check=True, timeout=3 * BOUND_S)

    def _gateway(self, name):
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        text = (FOLDER / "fastticket.toml").read_text()
        for said, here in {
            "0.0.0.0:8080": f"127.0.0.1:{self.ports[name]}",
            "/run/fastticket/admin.sock": "admin.sock",
            "172.30.17.10/32": "127.0.0.1/32",
            "/var/lib/fastticket": str(self.folder),
            "redis:6379": self.redis.address,
            "application:9001": f"127.0.0.1:{self.ports['application']}",
        }.items():
            assert said in text
            text = text.replace(said, here)
        (folder / "fastticket.toml").write_text(text)
        return Process("serve", "--config", "fastticket.toml", cwd=folder)

    def _nginx_config(self):
        text = "daemon off;\n" + (FOLDER / "nginx.conf").read_text().replace("/tmp/", f"{self.folder}/")
        if "gateway-3" in self.gateways:
            text = text.replace("        keepalive ", shown("nginx") + "        keepalive ")
        text = text.replace("listen 8080", "listen 127.0.0.1:{}".format(self.ports["nginx"])).replace(
            "error_log stderr warn;", f"error_log {self.folder}/error.log;"
        )
        for name in self.gateways:
            assert f"{name}:8080" in text
            text = text.replace(f"{name}:8080", f"127.0.0.1:{self.ports[name]}")
        return text

    def probe(self, name):
        """The exit code of the image's HEALTHCHECK."""
        words = [word.replace("/run/fastticket", str(self.folder / name)) for word in health_check()]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, env=environment, capture_output=True, timeout=3 * BOUND_S).returncode

    def restart(self, name):
        """As `docker compose restart`; the exit code."""
        code = self.gateways[name].end(signal.SIGTERM)
        self.gateways[name].process.stdout.close()
        self.gateways[name] = self._gateway(name)
        return code

    def stop(self):
        self._nginx.stop()
        for gateway in self.gateways.values():
            gateway.end(signal.SIGKILL)
            gateway.process.stdout.close()
        self._application.kill()
        self._application.wait(BOUND_S)
        self.redis.kill()


@pytest.fixture
def services(tmp_path):
    made = Services(tmp_path)
    yield made
    made.stop()


def request(method, path, *fields, body=b""):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost:8080", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def ask(address, *arguments, **options):
    with Client(address) as client:
        client.sendall(request(*arguments, **options))
        return client.read_response()


def log_in(services):
    """The cookie."""
    head, _ = ask(services.address, "POST", "/login", body=b"user=alice")
    assert status_of(head) == 303
    return "Cookie: " + fields_of(head)[b"set-cookie"].decode().partition(";")[0]


def test_what_the_first_lines_say_to_type(services, tmp_path):
    command = (FOLDER / "compose.yaml").read_text().splitlines()[2].removeprefix("#   ")
    command = command.replace("localhost:8080", "localhost:{}".format(services.ports["nginx"]))
    printed = subprocess.check_output(["bash", "-c", command], cwd=tmp_path, text=True, timeout=3 * BOUND_S)
    assert '"user": "alice", "client": "127.0.0.1, 127.0.0.1"' in printed  # by nginx, and by the gateway


def test_a_ticket_of_one_gateway_is_good_at_the_other_and_ends_at_both(services):
    cookie = log_in(services)
    each = [(at.address, "GET", "/", cookie) for at in services.gateways.values()]
    assert [status_of(ask(*arguments)[0]) for arguments in each] == [200, 200]
    assert status_of(ask(services.address, "POST", "/logout", cookie)[0]) == 303
    wait_until(lambda: [status_of(ask(*arguments)[0]) for arguments in each] == [401, 401], "both refuse", BOUND_S)


def test_a_gateway_is_restarted_and_no_request_fails(services):
    cookie = log_in(services)
    statuses, ended = [], threading.Event()

    def visit():
        while not ended.is_set():
            statuses.append(status_of(ask(services.address, "GET", "/", cookie)[0]))

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        codes = [services.restart(name) for name in GATEWAYS]
        wait_until(lambda: len(statuses) > 100, "100 visits", 3 * BOUND_S)
    finally:
        ended.set()
        visitor.join()
    assert codes == [0, 0]
    assert set(statuses) == {200}


def test_a_third_gateway_by_the_lines_of_the_page(tmp_path):
    of_compose = (FOLDER / "compose.yaml").read_text().replace("  # Makes the key file", shown("yaml") + "\n  # Makes")
    assert yaml.safe_load(of_compose)["services"]["gateway-3"]["image"] == "fastticket"
    services = Services(tmp_path, (*GATEWAYS, "gateway-3"))
    try:
        cookie = log_in(services)
        for name in GATEWAYS:
            services.gateways[name].end(signal.SIGTERM)
        assert status_of(ask(services.address, "GET", "/", cookie)[0]) == 200
    finally:
        services.stop()


def test_the_keys_are_made_once(services):
    before = (services.folder / "keys.toml").read_bytes()
    services.make_keys()
    assert (services.folder / "keys.toml").read_bytes() == before


def test_the_image_s_health_check_tells_a_gateway_that_serves_from_one_that_is_gone(services):
    assert services.probe("gateway-1") == 0
    services.gateways["gateway-1"].end(signal.SIGKILL)
    assert services.probe("gateway-1") == 1


def test_redis_is_started_with_options_that_it_takes_and_evicts_nothing(tmp_path):
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    server = Server(tmp_path, {name.removeprefix("--"): value or '""' for name, value in options.items()})
    server.kill()
    assert options["--maxmemory-policy"] == "noeviction"
    assert command[0] == "redis-server"


def test_every_program_is_of_the_image_that_runs_it():
    assert shlex.split(SERVICES["keys"]["command"][0])[-4:-1] == ["fastticket", "keygen", "--out"]
    assert shutil.which("nginx") or Path("/usr/sbin/nginx").exists()
    assert SERVICES["nginx"]["command"][2] in SERVICES["nginx"]["volumes"][0]
    assert SERVICES["application"]["command"][1] in SERVICES["application"]["volumes"][0]
