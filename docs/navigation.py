"""Which pages there are, in which order: for the navigation of the site and for the front page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent

#: By heading. A test finds a page that is under none.
NAVIGATION: Mapping[str, Sequence[str]] = {
    "Tutorial": ["tutorial/index"],
    "How to: applications": [
        *("how-to/fastapi", "how-to/flask", "how-to/django", "how-to/litestar", "how-to/quart", "how-to/sanic"),
        *("how-to/aiohttp", "how-to/tornado", "how-to/embed", "how-to/jobs", "how-to/jupyter"),
        *("how-to/test-your-application", "how-to/frameworks"),
    ],
    "How to: gateways": [
        *("how-to/nginx", "how-to/forward-auth", "how-to/containers", "how-to/kubernetes", "how-to/redis"),
        *("how-to/keys", "how-to/operate", "how-to/operators-page", "how-to/admin-api", "how-to/alerts"),
        *("how-to/backup", "how-to/move-store", "how-to/upgrade"),
    ],
    "How to: moving in": [
        "how-to/linkis",
        *("how-to/from-spring-session", "how-to/from-oauth2-proxy", "how-to/from-flask-session"),
        *("how-to/from-starsessions", "how-to/from-django-sessions"),
    ],
    "Reference": [
        *("reference/configuration", "reference/commands", "reference/headers", "reference/answers"),
        *(
            "reference/metrics",
            "reference/admin-api",
            "reference/api",
            "reference/reasons",
            "reference/http",
            "reference/ticket-format",
        ),
        "reference/versions",
    ],
    "Explanation": [
        *("explanation/coherence", "explanation/sessions", "explanation/security", "explanation/promises"),
        *("explanation/capacity", "explanation/benchmarks", "explanation/session-sharing"),
    ],
    "Development": ["development", "decisions/index"],
}


def navigation() -> dict[str, list[str]]:
    """The pages that are there, by heading."""
    return {
        heading: [page for page in pages if (HERE / f"{page}.md").exists()] for heading, pages in NAVIGATION.items()
    }
