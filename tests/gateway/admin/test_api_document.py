"""The OpenAPI document against a running gateway, both ways: everything in it is answered as it
says, and nothing is answered that is not in it.
"""

import re

import hypothesis
import pytest
import schemathesis
from lab.operators import Operator
from lab.redis_servers import free_port
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from fastticket.gateway.admin.operations import DOCUMENT, TABLE
from fastticket.gateway.admin.refusals import REFUSALS
from fastticket.keyfile import create_key_file

TOKEN = "t" * 40
EXAMPLES = 5
#: Each of these reads the configuration anew.
RELOADING = ("add_key", "promote_key", "retire_key", "reload")
#: Cursors, and what makes a principal or a login, are more than a schema says: these may refuse
#: what fits theirs.
RULED = ("sessions", "issue", "sessions_of_principal", "end_sessions_of_principal", "session", "end_session", "rotate")
PATHS = {"id": "A" * 22, "principal": "nobody", "upstream": "app", "server": "127.0.0.1:9"}


@pytest.fixture
def operator(site, tmp_path):
    create_key_file(tmp_path / "keys.toml")
    (tmp_path / "tokens").write_text(f"fuzz {TOKEN}\n")
    port = free_port()
    at = site(
        {
            "gateway": {"listen": ["127.0.0.1:0"], "admin": f"127.0.0.1:{port}", "admin_token_file": "tokens"},
            "ticket": {"keys": "keys.toml"},
            "store": {"url": "sqlite:///s.db"},
            "upstream": [{"name": "app", "servers": ["127.0.0.1:9", "127.0.0.1:10"]}],
            "route": [{"path": "/"}],
        }
    )
    found = Operator(("127.0.0.1", port), TOKEN)
    found.base_url, found.log = f"http://127.0.0.1:{port}", lambda: at.log
    return found


def test_it_is_valid_and_served(operator):
    validate(DOCUMENT)
    assert operator.get("/v1/openapi.json") == DOCUMENT
    assert {(path, method.upper()) for path, of in DOCUMENT["paths"].items() for method in of} == {
        (operation.path, operation.method) for operation in TABLE
    }
    names = [operation.name for operation in TABLE]
    assert len(set(names)) == len(names)
    for operation in TABLE:
        assert {each.name for each in operation.parameters if each.place == "path"} == set(
            re.findall(r"{(\w+)}", operation.path)
        ), operation.name
        assert all("default" in each.schema for each in operation.parameters if each.place != "path"), operation.name
        assert set(operation.refusals) <= set(REFUSALS)


def test_nothing_else_is_answered(operator):
    """A path of the document has its methods and no other; a path that is not in it has none."""
    methods = {}
    for operation in TABLE:
        methods.setdefault(operation.path, set()).add(operation.method)
    for path, known in methods.items():
        asked = re.sub(r"{(\w+)}", lambda found: PATHS[found[1]], path)
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            if method in known:
                continue
            status, said, fields = operator.ask(method, asked)
            assert (status, said["error"]) == (405, "method_not_allowed"), (method, path)
            assert set(fields["Allow"].split(", ")) == known
        assert operator.refused("GET", f"{asked}/x/y/z") == (404, "not_found")
    for path in ("/v1/", "/v1/session", "/v1//status", "/v1/status/"):
        assert operator.refused("GET", path) == (404, "not_found"), path
    assert operator.ask("HEAD", "/v1/status")[:2] == (200, None)
    assert operator.ask("HEAD", "/v1/events")[:2] == (200, None)


def test_everything_is_answered_as_it_says(operator):
    """Requests that schemathesis makes, good ones and bad ones; nothing is an unexpected error."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    asked = set()

    def check(case):
        response = case.call(base_url=operator.base_url, headers=operator.fields, timeout=30)
        asked.add((case.operation.label, response.status_code))
        if response.status_code == 431:  # of any request, by its size: docs/reference/admin-api.md
            return
        is_ruled = case.operation.definition.raw["operationId"] in RULED
        case.validate_response(response, excluded_checks=[positive_data_acceptance] if is_ruled else [])

    for found in schema.get_all_operations():
        operation = found.ok()
        name = operation.definition.raw["operationId"]
        if name == "events":  # it does not end
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if mode is GenerationMode.NEGATIVE and not operation.body and not any(operation.iter_parameters()):
                continue  # nothing could be wrong
            quick = hypothesis.settings(
                max_examples=2 if name in RELOADING else EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[hypothesis.Phase.generate],
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            quick(hypothesis.given(case=operation.as_strategy(generation_mode=mode))(check))()
    assert {label for label, status in asked if status < 300} >= {
        f"{each.method} {each.path}" for each in TABLE if "{" not in each.path and each.name != "events"
    } - {"DELETE /v1/sessions"}
    assert "Traceback" not in operator.log()
