"""Draw the comparison of page.py as SVG: one row for each way to share sessions, with two figures.

    what was not found at worst    %, a bar on a track from 0 to 100: a bar of no length leaves its
                                   track
    messages or commands           for 1,000 requests, a dot on a scale of powers of ten, on which
                                   40 and 7,000 both show

A figure that does not exist is a word without a track, so that it does not look like a zero. The
picture is as wide as a telephone, and grows with the page. It has colours for dark pages of its
own, and a background for pages whose scheme is another one than the system's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

WIDTH = 400
SHARE_AT, SHARE_WIDTH = 12, 110
SCALE_AT, SCALE_WIDTH = 202, 140
HEAD, ROW = 82, 42
NONE = "no figure"
DECADES = range(1, 5)  # 10 to 10,000

STYLE = """
    text { font: 13px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #17212b }
    .b { font-weight: 600 }
    .s { fill: #3f4d5a }
    .m { text-anchor: middle }
    .paper { fill: #ffffff }
    .track { fill: #e3e8ed }
    .theirs { fill: #66757f }
    .ours { fill: #0b5fa5 }
    .line { stroke: #9aa8b5 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e8edf2 }
      .s { fill: #b9c4ce }
      .paper { fill: #1b2129 }
      .track { fill: #333e49 }
      .theirs { fill: #a9b6c1 }
      .ours { fill: #6cb6f5 }
      .line { stroke: #66757f }
    }
"""


class Point(NamedTuple):
    """A row of the picture; None: there is no such figure."""

    name: str
    is_ours: bool
    share: float | None  #: %
    count: float | None


def drawn(points: Sequence[Point], share: str, count: str) -> str:
    """The SVG; `share` and `count` say what the two figures are."""
    height = HEAD + ROW * len(points) + 8
    said = escape(f"{share}; {count}")
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * 6 // 5}" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="t d">',
        f'  <title id="t">{said}</title>',
        f'  <desc id="d">{escape(" ".join(map(_sentence, points)))}</desc>',
        f"  <style>{STYLE}  </style>",
        f'  <rect class="paper" width="{WIDTH}" height="{height}" rx="6"/>',
        *_head(share, count),
    ]
    for number, point in enumerate(points):
        lines += _row(point, HEAD + ROW * number)
    return "\n".join([*lines, "</svg>", ""])


def _sentence(point: Point) -> str:
    return f"{point.name}: {_percent(point.share)}; {_number(point.count)}."


def _head(share: str, count: str) -> Iterator[str]:
    for at, words in ((SHARE_AT, share), (SCALE_AT, count)):
        for line, text in enumerate(_halves(words)):
            yield _text(at, 22 + 17 * line, text, "b")
    for power in DECADES:
        x = _place(10.0**power)
        yield _text(x, 74, f"{10**power:,}", "s m")


def _row(point: Point, top: int) -> Iterator[str]:
    kind = "ours" if point.is_ours else "theirs"
    bar = top + 24
    yield _text(SHARE_AT, top + 17, point.name, "b" if point.is_ours else "")
    if point.share is not None:
        yield f'  <rect class="track" x="{SHARE_AT}" y="{bar}" width="{SHARE_WIDTH}" height="10"/>'
        yield f'  <rect class="{kind}" x="{SHARE_AT}" y="{bar}" width="{SHARE_WIDTH * point.share / 100:.1f}" height="10"/>'
    yield _text(SHARE_AT + (0 if point.share is None else SHARE_WIDTH + 8), bar + 10, _percent(point.share), "s")
    if point.count is None:
        yield _text(SCALE_AT, bar + 10, _number(point.count), "s")
    else:
        x = _place(point.count)
        ticks = " ".join(f"M{_place(10.0**power):.1f} {bar} V{bar + 10}" for power in DECADES)
        yield f'  <path class="line" d="M{SCALE_AT} {bar + 5} h{SCALE_WIDTH} {ticks}"/>'
        yield f'  <circle class="{kind}" cx="{x:.1f}" cy="{bar + 5}" r="5.5"/>'
        yield _text(SCALE_AT + SCALE_WIDTH + 14, bar + 10, _number(point.count), "s")


def _place(count: float) -> float:
    """On the scale; what is below its beginning stands there."""
    first, last = DECADES[0], DECADES[-1]
    return SCALE_AT + SCALE_WIDTH * (max(math.log10(max(count, 1e-9)), first) - first) / (last - first)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.0f} %"


def _number(count: float | None) -> str:
    return NONE if count is None else f"{count:,.0f}"


def _halves(words: str) -> Iterable[str]:
    """Two lines of about the same length."""
    spaces = [at for at, sign in enumerate(words) if sign == " "]
    middle = min(spaces, key=lambda at: abs(at - len(words) / 2), default=len(words))
    return words[:middle], words[middle + 1 :]


def _text(x: float, y: float, text: str, kind: str) -> str:
    named = f' class="{kind}"' if kind else ""
    return f'  <text{named} x="{x:.4g}" y="{y}">{escape(text)}</text>'
