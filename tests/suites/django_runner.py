"""Django's own tests against our engine, in a process of their own: `python -m suites.django_runner
SOURCE RESULTS LABEL...`

SOURCE: an unpacked source distribution of the Django that is installed. RESULTS: the file for what
became of the tests, as JSON. A LABEL is what Django's runner takes for one: `sessions_tests`,
`suites.django_engine`.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from django.test.runner import DiscoverRunner
from django.test.utils import iter_test_cases


class Runner(DiscoverRunner):
    """Everything that asks for Django's AuthenticationMiddleware gets ours, which stands in its
    place.
    """

    results = Path(os.devnull)

    def __init__(self, **options):
        super().__init__(**options)
        import django.contrib.auth.middleware

        from fastticket.django.middleware import TicketMiddleware

        django.contrib.auth.middleware.AuthenticationMiddleware = TicketMiddleware

    def run_suite(self, suite, **options):
        ran = sorted({_id_of(test) for test in iter_test_cases(suite)})
        result = super().run_suite(suite, **options)
        bad = [("failed", result.failures), ("error", result.errors), ("skipped", result.skipped)]
        bad.append(("failed", [(test, "passed, though it was to fail") for test in result.unexpectedSuccesses]))
        found = {_id_of(test): [kind, why] for kind, tests in bad for test, why in tests}
        self.results.write_text(json.dumps({"ran": ran, "found": found}))
        return result


def _id_of(test):
    return getattr(test, "test_case", test).id()  # of a subtest: its test


def main(source, results, *labels):
    sys.path.insert(0, str(Path(source, "tests")))
    os.environ["DJANGO_SETTINGS_MODULE"] = "suites.django_settings"
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        os.chdir(Path(source, "tests"))
        import runtests

        from suites import django_runner  # this file runs as __main__, too

        django_runner.Runner.results = Path(results).resolve()
        names = runtests.django_tests.__code__.co_varnames[: runtests.django_tests.__code__.co_argcount]
        usual = {"verbosity": 0, "parallel": 1, "test_labels": list(labels), "buffer": True, "shuffle": False}
        runtests.django_tests(**{name: usual.get(name) for name in names})
        os.chdir("/")


if __name__ == "__main__":
    main(*sys.argv[1:])
