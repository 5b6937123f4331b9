"""The bill of materials of a wheel: what it needs, and what of others is inside it. CycloneDX 1.6.

setup.py writes it into the wheel, as `.dist-info/sboms/fastticket.cdx.json` (PEP 770).
`python release/sbom.py WHEEL` prints that of a wheel, if the schema of CycloneDX allows it.
"""

import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import zipfile

STATIC = "-l:libcrypto.a"  # among the linker's options: SHA-256 is inside the wheel


def bill_of_materials(project, version, libcrypto):
    """The JSON text. `project`: that table of pyproject.toml; `libcrypto`: how it is linked."""
    own = purl("fastticket", version)
    required = [requirement(text) for text in project["dependencies"]]
    parts = [*required, openssl_inside() if STATIC in libcrypto else openssl_of_the_system()]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": own,
                "name": "fastticket",
                "version": version,
                "purl": own,
                "licenses": [{"license": {"id": project["license"]}}],
            },
            "tools": {
                "components": [
                    {"type": "application", "name": name, "version": importlib.metadata.version(name)}
                    for name in ("Cython", "setuptools")
                ]
            },
        },
        "components": parts,
        "dependencies": [
            {"ref": own, "dependsOn": [part["bom-ref"] for part in parts]},
            *({"ref": part["bom-ref"]} for part in parts),
        ],
    }
    return json.dumps(bill, indent=2) + "\n"


def purl(name, version=None):
    return f"pkg:pypi/{name}" + (f"@{version}" if version else "")


def requirement(text):
    """A package that pip installs besides. Which version, the user's installation decides."""
    name, versions = re.fullmatch(r"([\w.-]+)(?:\[[\w,-]+\])?(.*)", text).groups()
    return {
        "type": "library",
        "bom-ref": purl(name),
        "name": name,
        "purl": purl(name),
        "scope": "required",
        "properties": [{"name": "fastticket:versions", "value": versions}],
    }


def openssl_inside():
    version = openssl_version()
    return {
        "type": "library",
        "bom-ref": f"pkg:generic/openssl@{version}",
        "name": "openssl",
        "version": version,
        "purl": f"pkg:generic/openssl@{version}",
        "scope": "required",
        "description": "SHA-256, CRYPTO_memcmp and OPENSSL_cleanse of libcrypto.a, in fastticket/core/ticket",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }


def openssl_of_the_system():
    return {
        "type": "library",
        "bom-ref": "pkg:generic/openssl",
        "name": "openssl",
        "purl": "pkg:generic/openssl",
        "scope": "required",
        "description": "libcrypto of the system, which fastticket/core/ticket loads",
    }


def openssl_version():
    """Of the headers, which come with the library: what the compiler makes of its version."""
    compiler = shlex.split(os.environ.get("CC", sysconfig.get_config_var("CC")))
    flags = shlex.split(os.environ.get("CFLAGS", ""))
    source = "#include <openssl/opensslv.h>\nversion OPENSSL_VERSION_STR\n"
    done = subprocess.run(
        [*compiler, *flags, "-E", "-P", "-"], input=source, capture_output=True, text=True, check=True
    )
    return re.search(r'^version "([^"]+)"', done.stdout, re.MULTILINE)[1]


def main():
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    with zipfile.ZipFile(sys.argv[1]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/sboms/fastticket.cdx.json"))
        bill = wheel.read(name).decode()
    if error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill):
        sys.exit(f"{name}: {error}")
    sys.stdout.write(bill)


if __name__ == "__main__":
    main()
