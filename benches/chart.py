"""A bar chart as SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import groupby

from benches.timing import Speed

WIDTH = 860
LABEL_WIDTH = 330
BAR_WIDTH = WIDTH - LABEL_WIDTH - 70
#: Longer bars are cut here, so that the short ones can be told apart.
LONGEST = 12.0
SCALE = BAR_WIDTH / LONGEST
ROW = 22
BAR = 14

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.section { font-weight: 600 }
.label { text-anchor: end }
.bar { fill: #2f74c0 }
.slower { fill: #c4432b }
.even { stroke: #57606a; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #d7dde4 }
  .bar { fill: #5b9ee6 }
  .slower { fill: #ef7d66 }
  .even { stroke: #98a2ad }
}
"""


def draw(speeds: Sequence[Speed]) -> str:
    """Draw how many times as fast as Djblets each job is."""
    parts: list[str] = []
    row = 1

    for section, jobs in groupby(speeds, key=lambda speed: speed.section):
        parts.append(_text(0, row, section, "section"))
        row += 1
        for speed in jobs:
            parts += _bar(row, speed)
            row += 1

    return "\n".join([*_frame(row), *parts, "</svg>", ""])


def _frame(rows: int) -> Iterable[str]:
    height = (rows + 1) * ROW
    even = LABEL_WIDTH + SCALE
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
    yield "<title>How many times as fast as Djblets each job is</title>"
    yield f"<style>{STYLE}</style>"
    yield _text(LABEL_WIDTH, 0, "Djblets = 1")
    yield f'<line class="even" x1="{even:.1f}" y1="{ROW}" x2="{even:.1f}" y2="{height - ROW}"/>'


def _bar(row: int, speed: Speed) -> Iterable[str]:
    length = min(speed.ratio, LONGEST) * SCALE
    kind = "bar slower" if speed.ratio < 1 else "bar"
    top = row * ROW + (ROW - BAR) / 2
    yield _text(LABEL_WIDTH - 10, row, speed.job, "label")
    yield f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{top:.1f}" width="{length:.1f}" height="{BAR}" rx="2"/>'
    yield _text(LABEL_WIDTH + length + 6, row, f"{speed.ratio:.1f}")


def _text(x: float, row: int, text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{row * ROW + 16}">{escape(text)}</text>'
