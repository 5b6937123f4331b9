"""What a wheel has in it, how large it is, and that it works without the tree and without the
system's libcrypto.

It is built as for a release, but out of the modules that the tree has already: only the one with
libcrypto inside is compiled here. `make wheel-check` builds everything, and tries it on a system
without a compiler.
"""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile

import pytest
from lab.documents import ROOT, links_of

import fastticket

BYTES_MAX = 2_000_000
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
TO_BUILD = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "fastticket_start.py", "release", "docs/man")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, open."""
    tree = tmp_path_factory.mktemp("tree")
    for name in TO_BUILD:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, tree / name)
    shutil.copytree(ROOT / "fastticket", tree / "fastticket", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    platform = f"{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for module in [*ROOT.glob("fastticket/*/*" + SUFFIX)]:
        if not module.name.startswith("ticket."):
            built = tree / "build" / f"lib.{platform}" / module.relative_to(ROOT)
            built.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(module, built)  # newer than its sources, so that it is up to date
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTTICKET_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "-q", "bdist_wheel", "-d", "made"],
        cwd=tree,
        env={**environment, "FASTTICKET_STATIC_LIBCRYPTO": "1", "FASTTICKET_QUICK": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(*(tree / "made").iterdir()) as opened:
        yield opened


@pytest.fixture(scope="module")
def metadata(wheel):
    """Its METADATA: a message, of which README.md is the body."""
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel.read(name))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder in which nothing but the wheel is."""
    folder = tmp_path_factory.mktemp("installed")
    wheel.extractall(folder)
    return folder


@pytest.fixture
def run(installed, tmp_path):
    """Run a program that imports the wheel; what it prints."""

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        done = subprocess.run(
            [sys.executable, "-P", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_it_has_what_is_used_and_nothing_that_only_a_build_needs(wheel):
    package = ROOT / "fastticket"
    source = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    to_build = {path for path in source if path.suffix in (".pyx", ".c", ".so")}
    undeclared = {path for path in source if path.suffix == ".pxd" and path.parent not in (package, package / "core")}
    compiled = {path.with_name(path.stem + SUFFIX) for path in source if path.suffix == ".pyx"}
    wanted = {str(path.relative_to(ROOT)) for path in source - to_build - undeclared | compiled}
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    manual = {name for name in found if name.endswith(".data/data/share/man/man1/fastticket.1")}
    assert (len(manual), found - manual) == (1, wanted | {"fastticket_start.py"})


def test_it_is_small(wheel):
    assert os.path.getsize(wheel.filename) <= BYTES_MAX


def test_its_modules_keep_names_for_perf_and_nothing_else_for_a_debugger(installed):
    for module in installed.rglob("*.so"):
        sections = subprocess.run(["readelf", "-SW", module], capture_output=True, text=True, check=True).stdout
        assert " .symtab " in sections
        assert " .debug_info " not in sections


def test_sha_256_is_inside_and_no_other_module_sees_it(installed):
    (module,) = installed.rglob("core/ticket.*.so")
    needed = subprocess.run(["readelf", "-d", module], capture_output=True, text=True, check=True).stdout
    seen = subprocess.run(["nm", "-D", module], capture_output=True, text=True, check=True).stdout
    assert "libcrypto" not in needed
    assert "SHA256" not in seen
    assert "PyInit_ticket" in seen


def test_it_verifies_what_every_version_verifies(run):
    """The test vectors of docs/ticket-format.md."""
    program = """
import json, sys, fastticket
vectors, named = json.load(open(sys.argv[1])), []
for case in vectors["accepted"]:
    ring = vectors["rings"][case["ring"]]
    keys = [(key["id"], bytes.fromhex(key["secret_hex"])) for key in ring["keys"]]
    named.append(fastticket.Keyring(keys, audience=ring["audience"]).verify(case["ticket"], case["now_ms"]).principal)
print(json.dumps(named))
"""
    vectors = json.loads((ROOT / "tests/lab/vectors.json").read_text())
    named = run("-c", program, str(ROOT / "tests/lab/vectors.json"))
    assert json.loads(named) == [case["principal"] for case in vectors["accepted"]]


def test_the_command_says_which_version_it_is(run):
    assert run("-m", "fastticket", "--version") == f"fastticket {fastticket.__version__}\n"


def test_the_core_can_be_used_from_c(run, tmp_path):
    source = tmp_path / "user.pyx"
    source.write_text(
        "from fastticket.core.check cimport Checker\n"
        "from fastticket.core.nearcache cimport NearCache\n"
        "from fastticket.core.ticket cimport Keyring\n"
        "def held(Checker checker): return checker is not None\n"
    )
    run("-m", "cython", "-3", str(source))
    assert source.with_suffix(".c").exists()


def test_the_metadata_says_what_it_is(metadata):
    assert metadata["Version"] == fastticket.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert dict(url.split(", ") for url in metadata.get_all("Project-URL")) == PROJECT["urls"]
    assert {"django", "fastapi", "flask", "starlette"} <= set(metadata.get_all("Provides-Extra"))


def test_links_of_the_readme_lead_there_from_an_index_page(metadata, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(metadata.get_payload(decode=True).decode())
    base = PROJECT["urls"]["Source"] + "/"
    assert len(links_of(page)) == len(links_of(ROOT / "README.md"))
    for link in links_of(page):
        assert re.match(r"https?://|#", link), link
        assert not link.startswith(base) or (ROOT / link.removeprefix(base).partition("#")[0]).exists(), link


def test_its_bill_of_materials_names_what_it_needs_and_what_is_inside(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/sboms/fastticket.cdx.json"))
    bill = json.loads(wheel.read(name))
    parts = {part["name"]: part for part in bill["components"]}
    required = {re.match(r"[\w.-]+", text)[0] for text in PROJECT["dependencies"]}
    assert bill["metadata"]["component"]["version"] == fastticket.__version__
    assert set(parts) == required | {"openssl"}
    assert re.fullmatch(r"3\.\d+\.\d+", parts["openssl"]["version"])
    assert {entry["ref"] for entry in bill["dependencies"]} == {
        bill["metadata"]["component"]["bom-ref"],
        *(part["bom-ref"] for part in parts.values()),
    }
