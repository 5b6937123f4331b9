"""The types and docstrings that a user's editor sees: true of the compiled modules, complete, and
enough for `mypy --strict`.
"""

import ast
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import fastticket

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = ROOT / "fastticket"
STUBS = sorted(PACKAGE.rglob("*.pyi"))
BOUND_S = 280  # a busy machine takes its time

#: What inspect cannot see of a compiled class, and therefore stubtest neither: the constructors,
#: and a method without binding.
UNSEEN = {"__new__": "__cinit__", "check": "check"}


def run(*arguments, cwd, **options):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BOUND_S,
        **options,
    )
    return done.returncode, done.stdout


# --- the stubs, and what they describe


@pytest.mark.timeout(300)
def test_the_stubs_are_true_of_the_compiled_modules():
    allowed = HERE / "stubtest-allowlist.txt"
    arguments = ("--concise", "--mypy-config-file", ROOT / "pyproject.toml", "--allowlist", allowed, "fastticket")
    code, output = run("-W", "ignore", "-m", "mypy.stubtest", *arguments, cwd=ROOT)
    assert (code, [line for line in output.splitlines() if line.startswith(("fastticket", "note", "error"))]) == (0, [])


def arguments_of(parameters):
    """Names, kinds and defaults of a Python or Cython parameter list, its types dropped."""
    parameters = re.sub(r"\bnot None\b", "", parameters)
    parameters = re.sub(r"(^|[(,]\s*)(?:const\s+)?[A-Za-z_]\w*(?:\[[^]]*\])?\s+(?=[A-Za-z_])", r"\1", parameters)
    function = ast.parse(f"def function({parameters}): ...").body[0]
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            node.annotation = None
    return ast.unparse(function.args)


def unseen_signatures():
    return [
        pytest.param(stub, kind.name, method, id=f"{kind.name}.{method.name}")
        for stub in STUBS
        for kind in ast.parse(stub.read_text()).body
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name in UNSEEN
    ]


@pytest.mark.parametrize(("stub", "kind", "method"), unseen_signatures())
def test_a_signature_that_stubtest_can_not_see_is_that_of_the_source(stub, kind, method):
    source = stub.with_suffix(".pyx").read_text()
    body = re.search(rf"^cdef class {kind}(?:\(\w+\))?:\n(.*?)(?=^\S|\Z)", source, re.MULTILINE | re.DOTALL)[1]
    parameters = re.search(rf"def {UNSEEN[method.name]}\(\s*self,?\s*(.*?)\s*\):", body, re.DOTALL)[1]
    for node in method.args.args + method.args.kwonlyargs:
        node.annotation = None
    method.args.args = method.args.args[1:]
    assert arguments_of(parameters) == ast.unparse(method.args)


# --- user code


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the Python part of the package, as a wheel would bring it; its
    interpreter.
    """
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    build = ("egg_info", "--egg-base", folder, "build_py", "--build-lib", site)
    code, output = run("-W", "ignore", "setup.py", "-q", *build, cwd=ROOT)
    assert code == 0, output
    return folder / "venv/bin/python"


def test_what_is_installed_has_its_types(installed):
    (package,) = (installed.parent.parent / "lib").glob("python*/site-packages/fastticket")
    assert {path.relative_to(package) for path in package.rglob("*.pyi")} == {s.relative_to(PACKAGE) for s in STUBS}
    assert (package / "py.typed").exists()


def errors_wanted(source):
    """(line, code) of each `# error: code, code`."""
    return sorted(
        (number, code)
        for number, line in enumerate(source.read_text().splitlines(), 1)
        for code in line.partition("# error: ")[2].split(", ")
        if code
    )


@pytest.mark.parametrize("name", ["typed_user.py", "typed_mistakes.py"])
def test_a_strict_checker_finds_the_mistakes_of_user_code_and_no_others(installed, name, tmp_path):
    source = tmp_path / name
    source.write_text((HERE / name).read_text())
    options = ("--strict", "--warn-unreachable", "--no-error-summary", "--python-executable", installed)
    elsewhere = {
        key: value for key, value in os.environ.items() if key != "PYTHONPATH"
    }  # which may lead to the repository
    arguments = (*options, "--config-file", "", "--cache-dir", installed.parent, name)
    _, output = run("-m", "mypy", *arguments, cwd=tmp_path, env=elsewhere)
    found = re.findall(rf"^{re.escape(name)}:(\d+): error: .*\[([\w-]+)\]$", output, re.MULTILINE)
    assert sorted((int(number), code) for number, code in found) == errors_wanted(source), output
    assert output.count(" error: ") == len(found), output


def test_the_user_code_runs(tmp_path):
    code, output = run(HERE / "typed_user.py", cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)})
    assert (code, output) == (0, "")


def test_the_user_code_uses_all_that_is_public():
    source = (HERE / "typed_user.py").read_text()
    assert set(re.findall(r"\bfastticket\.(\w+)", source)) >= set(fastticket.__all__)


# --- what is written about them


def public_definitions():
    """Classes, functions and methods of the stubs, and of the modules that the public names come
    from.
    """
    modules = {ROOT / getattr(fastticket, name).__module__.replace(".", "/") for name in fastticket.__all__}
    python = [module.with_suffix(".py") for module in sorted(modules) if module.with_suffix(".py").exists()]
    return [found for path in STUBS + python for found in definitions(ast.parse(path.read_text()).body, path.name)]


def definitions(body, place):
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield pytest.param(node, id=f"{place}:{node.name}")
            if isinstance(node, ast.ClassDef):
                yield from definitions(node.body, f"{place}:{node.name}")


@pytest.mark.parametrize("node", public_definitions())
def test_what_is_public_is_described_and_annotated(node):
    assert ast.get_docstring(node)
    if isinstance(node, ast.ClassDef):
        return
    parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    unannotated = [each.arg for each in parameters if each and not each.annotation]
    assert unannotated in ([], ["self"], ["cls"])
    assert node.returns


@pytest.mark.parametrize("name", fastticket.__all__)
def test_help_says_what_a_public_name_is(name):
    public = getattr(fastticket, name)
    methods = [key for key, member in vars(public).items() if callable(member) or isinstance(member, classmethod)]
    assert public.__doc__
    assert [key for key in methods if not key.startswith("_") and not getattr(public, key).__doc__] == []
