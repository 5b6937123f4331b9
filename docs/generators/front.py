"""The front page's list of all pages, by their titles."""

from __future__ import annotations

from navigation import HERE, navigation


def _title(page: str) -> str:
    return (HERE / f"{page}.md").read_text().partition("\n")[0].removeprefix("# ")


def pages(_: str) -> str:
    """A list for each heading."""
    return "\n\n".join(
        f"## {heading}\n\n" + "\n".join(f"- [{_title(page)}]({page}.md)" for page in there)
        for heading, there in navigation().items()
    )


BLOCKS = {"pages": pages}
