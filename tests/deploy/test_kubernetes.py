"""examples/kubernetes: the manifests are what the API takes, and fit together and to the gateway
that they start.
"""

import re
from ipaddress import ip_network

import pytest
import yaml
from lab.documents import ROOT
from lab.real_programs import run as run_program

from fastticket.commands.cli import parser
from fastticket.errors import ConfigError
from fastticket.gateway.processes import END_MARGIN_S
from fastticket.gateway.reader import load_config
from fastticket.keyfile import read_keys

FOLDER = ROOT / "examples/kubernetes"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))
OF_KUBERNETES = ("v1", "apps/v1", "policy/v1", "networking.k8s.io/v1")
AUTH = ROOT / "examples/auth"


def objects(name):
    return [each for each in yaml.safe_load_all((FOLDER / name).read_text()) if each]


def one(name, kind, called=None):
    (found,) = [each for each in objects(name) if each["kind"] == kind and called in (None, each["metadata"]["name"])]
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_api_takes_it(path, tmp_path):
    """Custom resources aside, whose schemas Kubernetes does not have."""
    own = [each for each in objects(path.name) if each["apiVersion"] in OF_KUBERNETES]
    if own:
        (tmp_path / path.name).write_text(yaml.safe_dump_all(own))
        run_program("kubernetes-validate", "--strict", tmp_path / path.name)


def test_names_that_are_referred_to_exist():
    deployment = one("gateway.yaml", "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secrets = {each["metadata"]["name"]: each["stringData"] for each in objects("secrets.yaml")}
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    assert volumes["config"]["configMap"]["name"] == one("config.yaml", "ConfigMap")["metadata"]["name"]
    assert volumes["keys"]["secret"]["secretName"] in secrets
    reference = container["env"][0]["valueFrom"]["secretKeyRef"]
    assert reference["key"] in secrets[reference["name"]]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget"):
        selector = one("gateway.yaml", kind)["spec"]["selector"]
        assert selector.get("matchLabels", selector).items() <= labels.items()


@pytest.fixture
def gateway(tmp_path, monkeypatch):
    """The configuration of the ConfigMap, read with the variables of the Deployment."""
    (container,) = one("gateway.yaml", "Deployment")["spec"]["template"]["spec"]["containers"]
    monkeypatch.setenv(
        container["env"][0]["name"], one("secrets.yaml", "Secret", "fastticket-store")["stringData"]["url"]
    )
    (tmp_path / "fastticket.toml").write_text(one("config.yaml", "ConfigMap")["data"]["fastticket.toml"])
    return load_config(tmp_path / "fastticket.toml")


def test_the_configuration_is_one_and_finds_its_files(gateway):
    (container,) = one("gateway.yaml", "Deployment")["spec"]["template"]["spec"]["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert [str(path) for path in parser().parse_args(container["args"]).config] == [mounts["config"]]
    assert gateway.ticket.keys == f"{mounts['keys']}/keys.toml"
    assert gateway.store.url.startswith("redis://")


def test_probes_ask_the_admin_listener(gateway):
    (container,) = one("gateway.yaml", "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    pages = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {kind: page["path"] for kind, page in pages.items()} == {
        "startup": "/readyz",
        "readiness": "/readyz",
        "liveness": "/healthz",
    }
    assert {ports[page["port"]] for page in pages.values()} == {gateway.admin_address().port}
    assert gateway.admin_readers()
    assert ports["http"] == gateway.listen_addresses()[0].port
    target = one("gateway.yaml", "Service")["spec"]["ports"][0]["targetPort"]
    assert target == "http"


def test_not_every_pod_is_believed_who_the_client_is(gateway):
    assert all(ip_network(network).prefixlen >= 24 for network in gateway.gateway.trusted_proxies)


def test_a_pod_has_the_time_that_its_gateway_may_take(gateway):
    pod = one("gateway.yaml", "Deployment")["spec"]["template"]["spec"]
    assert gateway.gateway.shutdown_delay_s > 0
    needed_s = gateway.gateway.shutdown_delay_s + gateway.gateway.drain_timeout_s + END_MARGIN_S
    assert pod["terminationGracePeriodSeconds"] > needed_s


def test_a_pod_has_no_rights():
    pod = one("gateway.yaml", "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    image_user = re.search(r"^USER (\d+):", (ROOT / "examples/containers/Dockerfile").read_text(), re.MULTILINE)[1]
    assert pod["securityContext"]["runAsUser"] == int(image_user)


def test_secrets_that_nobody_filled_in_start_no_gateway(tmp_path):
    (tmp_path / "keys.toml").write_text(one("secrets.yaml", "Secret", "fastticket-keys")["stringData"]["keys.toml"])
    with pytest.raises(ConfigError):
        read_keys(tmp_path / "keys.toml")


# --- beside the path: as examples/auth, which the tests run, have it


def test_envoy_gateway_asks_as_envoy_does():
    policy = one("auth-envoy-gateway.yaml", "SecurityPolicy")["spec"]
    text = (AUTH / "envoy.yaml").read_text()
    asked = policy["extAuth"]
    assert asked["failOpen"] is False
    assert f"path_prefix: {asked['http']['path']}" in text
    allowed = re.search(r"\n +allowed_headers: (.*)", text)[1]
    assert set(asked["headersToExtAuth"]) == set(re.findall(r"exact: ([\w-]+)", allowed))
    to_backend = re.search(r"allowed_upstream_headers: (.*)", text)[1]
    assert asked["http"]["headersToBackend"] == re.findall(r"exact: ([\w-]+)", to_backend)
    removed = one("auth-envoy-gateway.yaml", "ClientTrafficPolicy")["spec"]["headers"]["earlyRequestHeaders"]["remove"]
    assert removed == asked["http"]["headersToBackend"]
    assert policy["targetRefs"][0]["name"] == "shop"
    assert one("auth-envoy-gateway.yaml", "HTTPRoute", "shop")


def test_traefik_asks_as_traefik_does():
    asked = one("auth-traefik-ingress.yaml", "Middleware")["spec"]["forwardAuth"]
    routes = yaml.safe_load((AUTH / "traefik-routes.yaml").read_text())["http"]
    tested = routes["middlewares"]["ticket"]["forwardAuth"]
    assert {name: value for name, value in asked.items() if name != "address"} == {
        name: value for name, value in tested.items() if name != "address"
    }
    assert asked["address"].endswith("/_ticket/auth")
    (used,) = [
        each["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"]
        for each in objects("auth-traefik-ingress.yaml")
        if "annotations" in each["metadata"]
    ]
    assert used == "default-{}@kubernetescrd".format(one("auth-traefik-ingress.yaml", "Middleware")["metadata"]["name"])


@pytest.mark.parametrize("name", ["auth-envoy-gateway.yaml", "auth-traefik-ingress.yaml"])
def test_logins_and_logouts_go_through_the_gateway(name):
    text = (FOLDER / name).read_text()
    assert re.search(r"/login\b.*\n(.*\n)*.*/logout\b.*\n(.*\n)*?.*name: fastticket", text)


@pytest.mark.parametrize("front", ["envoy", "traefik"])
def test_what_they_say_the_gateway_needs_is_a_configuration(front, tmp_path):
    (text,) = [
        re.search(r"((?:^#   .*\n)+)", path.read_text(), re.MULTILINE)[1]
        for path in MANIFESTS
        if path.name.startswith(f"auth-{front}")
    ]
    said = "\n".join(re.sub(r"#   (.*?)( +#.*)?$", r"\1", line) for line in text.splitlines())
    (tmp_path / "fastticket.toml").write_text(
        said.replace("[...]", '["10.0.0.0/8"]')
        + '\n[[upstream]]\nname = "app"\nservers = ["127.0.0.1:1"]\n[[route]]\npath = "/"\n'
    )
    assert load_config(tmp_path / "fastticket.toml").gateway.auth_front == front
