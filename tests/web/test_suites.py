"""Django's, Flask's, flask-login's and Starlette's own tests, with our sessions in place of theirs:
what fails is what is written down.

In `make test` a part of Django's and Flask's; `make suites` runs all. Their source distributions
come from the package registry, once; where it is away, and nothing was fetched before, a suite is
skipped.
"""

import tomllib
from pathlib import Path

import pytest
from suites import runs
from suites.sources import RegistryError

WRITTEN = tomllib.loads((Path(__file__).parents[1] / "suites/differences.toml").read_text())["difference"]


@pytest.mark.timeout(2 * runs.BOUND_S)
@pytest.mark.parametrize("name", runs.SUITES)
def test_what_fails_of_a_suite_is_what_is_written_down(name):
    try:
        outcome = runs.SUITES[name].run(True)
    except RegistryError as error:
        pytest.skip(f"the package registry does not answer, and the tests of {name} are its: {error}")
    written = {test for test in runs.differences(name) if test in outcome.ran}
    assert sorted(outcome.failed) == sorted(written)
    assert len(outcome.ran) >= AT_LEAST[name]


#: So that a suite which finds no tests any more does not pass.
AT_LEAST = {
    "django": 350,
    "flask": 150,
    "flask, ticket": 150,
    "flask-login": 110,
    "starlette": 15,
    "starlette, ticket": 15,
}


def test_each_difference_is_of_a_suite_and_has_its_reason():
    assert {entry["suite"] for entry in WRITTEN} <= set(runs.SUITES)
    assert all(len(entry["why"].strip()) > 20 and entry["tests"] for entry in WRITTEN)
    tests = [(entry["suite"], test) for entry in WRITTEN for test in entry["tests"]]
    assert len(tests) == len(set(tests))
