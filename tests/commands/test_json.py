"""Every command has `--json`, and prints with it what its schema says, and nothing besides."""

import json
from pathlib import Path

import jsonschema
import pytest
from lab.operators_site import operators_site, use

from fastticket.commands.cli import main, parser
from fastticket.commands.examples import every_command
from fastticket.commands.schemas import SCHEMAS, schema_of

#: What goes on until it is told to end, prints a script, or is JSON itself.
WITHOUT = {"serve", "demo", "top", "completion", "schema"}
CONFIG = ("--config", "fastticket.toml")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with operators_site(tmp_path_factory.mktemp("operator"), keys=2) as made:
        yield made


@pytest.fixture
def printed(site, monkeypatch, capsys):
    """Run a command with --json: (exit code, what it prints), of which each fits its schema."""

    def run(command, *arguments):
        monkeypatch.chdir(site.folder)
        capsys.readouterr()
        code = main([*command.split(), *arguments, "--json"])
        output = capsys.readouterr().out
        values = [json.loads(line) for line in output.splitlines()] if command == "events" else [json.loads(output)]
        for value in values:
            jsonschema.validate(value, closed(schema_of(command)))
        return code, *values

    return run


def closed(schema):
    """The same, with which nothing is right that it does not describe."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(value) for name, value in schema.items()}
    return made | {"additionalProperties": False} if "properties" in made else made


def issue(printed, principal):
    return printed("issue", principal, *CONFIG)[1]


def with_json():
    """The commands that have the option."""
    return {name for name, _, command in every_command(parser()) if "--json" in command._option_string_actions}


def test_every_command_has_it_and_a_schema():
    leaves = {name for name, _, command in every_command(parser()) if command._defaults.get("run")}
    assert with_json() == leaves - WITHOUT
    assert set(SCHEMAS) == with_json()


def test_schemas_are_schemas(capsys):
    assert main(["schema"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) == set(SCHEMAS)
    for name, schema in shown.items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert main(["schema", *name.split()]) == 0
        assert json.loads(capsys.readouterr().out) == schema
    assert main(["schema", "serve"]) == 2
    assert "there are: keygen" in capsys.readouterr().err


def test_sessions_and_tickets(printed):
    made = issue(printed, "älice")
    code, told = printed("inspect", made["ticket"], *CONFIG)
    assert (code, told["verdict"], told["session"], told["session_id"]) == (
        0,
        "authentic",
        "lives",
        made["session_id"],
    )
    assert [each["id"] for each in printed("sessions", "--user", "älice", *CONFIG)[1]] == [made["session_id"]]
    assert [each["id"] for each in printed("sessions", "--all", *CONFIG)[1]] == [made["session_id"]]
    assert printed("sessions", "--all", "--count", *CONFIG) == (0, {"count": 1})
    assert printed("revoke", made["ticket"], *CONFIG) == (
        0,
        {"principal": "älice", "ended": [made["session_id"]]},
    )
    code, told = printed("inspect", made["ticket"], *CONFIG)
    assert (code, told["verdict"], told["session"]) == (1, "authentic", "ended")
    assert (told["end"]["kind"], told["end"]["reason"]) == ("revoked", "revoked")
    _, *events = printed("events", *CONFIG)
    assert [(event["kind"], event["reason"]) for event in events if event["principal"] == "älice"] == [
        ("created", ""),
        ("revoked", "revoked"),
    ]
    assert printed("inspect", made["ticket"], "--keys", "keys.toml")[1].keys().isdisjoint({"session", "end"})
    assert printed("revoke", "--all", "--yes", *CONFIG) == (0, {"ended": 0, "is_complete": True})
    assert printed("inspect", "no ticket", *CONFIG) == (1, {"verdict": "malformed"})


def test_export_and_import(printed, tmp_path):
    issue(printed, "erin")
    code, told = printed("export", str(tmp_path / "out"), *CONFIG)
    assert (code, told["done_before"]) == (0, 0)
    store = ("--store", f"sqlite:///{tmp_path}/other.db")
    for option in (["--dry-run"], []):
        code, imported = printed("import", str(tmp_path / "out"), *store, *option)
        assert (code, imported["created"], imported["dry_run"]) == (0, told["sessions"], bool(option))
    code, copied = printed("copy", *CONFIG, "--mirror", f"sqlite:///{tmp_path}/mirror.db")
    assert (code, copied["sessions"], copied["written"]) == (0, told["sessions"], told["sessions"])


def test_keys(printed, site, tmp_path):
    use(site, issue(printed, "bob")["ticket"])
    assert printed("keygen", "--out", str(tmp_path / "new.toml")) == (
        0,
        {"file": str(tmp_path / "new.toml"), "ids": [1]},
    )
    copy = tmp_path / "keys.toml"
    copy.write_bytes(Path(site.folder, "keys.toml").read_bytes())
    copy.chmod(0o600)
    _, rows = printed("keys list", str(copy), "--admin", "unix:admin.sock")
    assert [(row["id"], row["state"]) for row in rows] == [(2, "verifies"), (1, "signs")]
    assert rows[1]["uses"] >= 1
    assert printed("keys add", str(copy))[1]["added"] == [3]
    assert printed("keys promote", str(copy), "2")[1]["signs"] == 2
    _, told = printed("keys retire", str(copy), "1", "--admin", "unix:admin.sock", "--watch-s", "0")
    assert (told["id"], told["is_out"], told["uses"]) == (1, True, 0)
    assert printed("keys retire", str(copy), "3")[1]["uses"] is None


def test_a_running_gateway_and_its_configuration(printed, site):
    code, told = printed("probe", *CONFIG)
    assert code == (0 if told["ready"] else 1)
    assert printed("probe", "healthz", *CONFIG)[1]["healthy"] is True
    code, told = printed("status", *CONFIG)
    assert code == (1 if told["status"]["away"] else 0)
    assert told["status"]["pid"] == site.pid
    assert [each["name"] for each in told["upstreams"]] == ["app"]
    code, told = printed("check-config", *CONFIG)
    assert (code, told["problems"], told["configuration"]["gateway"]["threads"]) == (0, [], 1)
    (site.folder / "bad.toml").write_text("[gateway]\nlissten = 1\n")
    code, told = printed("check-config", "--config", "bad.toml")
    assert (code, told["configuration"]) == (2, None)
    assert any("lissten: no such key" in problem for problem in told["problems"])
