"""For each second of a run, which share of the calls had to wait or failed, as SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from benches.chart import STYLE, WIDTH
from tests.load.traffic import Call

LABEL_WIDTH = 200
LEFT = LABEL_WIDTH + 40
HEIGHT, GAP, TOP, BOTTOM = 44, 14, 30, 24
#: The seconds between two numbers below.
STEP = 5


def draw(runs: Sequence[tuple[str, list[Call]]], slow: float) -> str:
    """Draw the runs, one below the other.

    Args:
        runs: What each is called, and its calls.
        slow: From how many seconds on a call had to wait.
    """
    seconds = max(int(_offset(calls, calls[-1])) for _, calls in runs) + 1
    width = (WIDTH - LEFT) / seconds
    bottom = TOP + len(runs) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}" role="img">',
        "<title>Which share of the calls of each second had to wait, or failed</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="bar" x="{LEFT}" y="6" width="12" height="12"/>',
        f'<text x="{LEFT + 18}" y="16">{escape(f"waited longer than {slow:g} s")}</text>',
        f'<rect class="slower" x="{LEFT + 220}" y="6" width="12" height="12"/>',
        f'<text x="{LEFT + 238}" y="16">got an error</text>',
    ]
    for row, (name, calls) in enumerate(runs):
        top = TOP + row * (HEIGHT + GAP)
        parts.append(f'<text class="label" x="{LABEL_WIDTH}" y="{top + HEIGHT - 12}">{escape(name)}</text>')
        parts.append(f'<text class="label" x="{LEFT - 4}" y="{top + 10}">all</text>')
        parts.append(f'<line class="even" x1="{LEFT}" y1="{top + HEIGHT}" x2="{WIDTH}" y2="{top + HEIGHT}"/>')
        for second in range(seconds):
            shares = _shares([call for call in calls if int(_offset(calls, call)) == second], slow)
            parts += _bars(LEFT + second * width, top + HEIGHT, width - 1, shares)
    for second in range(0, seconds, STEP):
        unit = " s" if second == 0 else ""
        parts.append(f'<text x="{LEFT + second * width:.1f}" y="{bottom + 6}">{second}{unit}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _offset(calls: list[Call], call: Call) -> float:
    return call.begin - calls[0].begin


def _shares(calls: list[Call], slow: float) -> tuple[float, float]:
    """The shares that failed, and that waited and got a value."""
    failed = sum(call.version is None for call in calls)
    waited = sum(call.version is not None and call.seconds > slow for call in calls)
    return failed / max(1, len(calls)), waited / max(1, len(calls))


def _bars(left: float, bottom: float, width: float, shares: tuple[float, float]) -> Iterable[str]:
    for kind, share in zip(("slower", "bar"), shares, strict=True):
        height = share * HEIGHT
        bottom -= height
        if share:
            yield (f'<rect class="{kind}" x="{left:.1f}" y="{bottom:.1f}" width="{width:.1f}" height="{height:.1f}"/>')
