"""Pictures of a ladder and of errors, as inline SVG without a script.

Lines are drawn in the colour of the text around them, so that they show on any page.
"""

import math
from collections.abc import Iterable
from html import escape

from jaxnet.verification.report.error_map import ErrorMap
from jaxnet.verification.report.ladder import Ladder
from jaxnet.verification.report.numbers import short

WIDTH, HEIGHT = 430.0, 248.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 10.0, 26.0, 44.0
"""Margins of a picture's axes, in pixels."""

DECADES = 22.0
"""How far below the largest error an axis goes at most: float64 has 16 digits."""

HEADROOM = 0.3
"""How many decades an axis goes beyond its numbers at least."""

MOST_TICKS = 6
"""How many powers of ten are written along an axis."""

CELLS = 384.0, 192.0
"""Pixels that an error map is wide and high…"""

LARGEST_CELL = 24.0
"""…unless its blocks would be larger than so many."""

SHADES = 5
"""Of an error map: each is a power of ten, from the largest error down."""


class Axis:
    """Powers of ten, as places between two pixels."""

    def __init__(self, values: Iterable[float], start: float, stop: float) -> None:
        logs = [math.log10(x) for x in values if x > 0 and math.isfinite(x)] or [0.0]
        self.high = math.ceil(max(logs) + HEADROOM)
        self.low = math.floor(max(min(logs) - HEADROOM, self.high - DECADES))
        self.start, self.stop = start, stop

    def at(self, value: float) -> float:
        """The pixel of a number; the end of the axis for what lies beyond."""
        log = math.log10(value) if value > 0 else self.low
        share = (min(max(log, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + (self.stop - self.start) * share

    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and words of some powers of ten."""
        every = math.ceil((self.high - self.low) / MOST_TICKS)
        powers = range(self.low, self.high + 1, every)
        return [(self.at(10.0**power), f"1e{power}") for power in powers]


def of_ladder(ladder: Ladder, candidate: float, bound: float) -> str:
    """Errors of the difference quotients against their step, beside the bound.

    From the value that was taken if the candidate is wrong, else from the candidate's.
    """
    error, allowed = abs(candidate - ladder.value), bound + ladder.kink / 2
    is_wrong = not error <= allowed
    true = ladder.value if is_wrong or ladder.kink else candidate
    plain, better = (
        [abs(one - true) for one in values]
        for values in (ladder.quotients, ladder.extrapolated)
    )
    sides = [abs(one) for one in ladder.one_sided] if ladder.kink else []
    x = Axis(ladder.steps, LEFT, WIDTH - RIGHT)
    shown = [*plain, *better, *sides, allowed, error]
    y = Axis(shown, HEIGHT - BOTTOM, TOP)
    parts = [_axes(x, y)]
    if math.isfinite(allowed):
        top = y.at(allowed)
        size = f'width="{x.stop - x.start:g}" height="{y.start - top:.1f}"'
        parts.append(f'<rect class="bound" x="{x.start:g}" y="{top:.1f}" {size}/>')
        below = min(top + 12, y.start - 4)
        words = "between the slopes" if ladder.kink else "within the bound"
        parts.append(_text(x.start + 4, below, f"agrees: {words}", "good"))
    parts.append(_line(x, y, ladder.steps, plain, "plain"))
    parts.append(_line(x, y, ladder.steps, better, "better"))
    parts += [
        f'<circle class="better" cx="{x.at(h):.1f}" cy="{y.at(e):.1f}" r="2.5"/>'
        for h, e in zip(ladder.steps, better, strict=True)
        if math.isfinite(e)
    ]
    if sides:
        parts.append(_line(x, y, ladder.steps, sides, "kink"))
    if math.isfinite(error):
        kind, height = "bad" if is_wrong else "good", y.at(error)
        ends = f'x1="{x.start:g}" x2="{x.stop:g}" y1="{height:.1f}" y2="{height:.1f}"'
        parts.append(f'<line class="{kind}" {ends}/>')
        above = height - 4 if height > TOP + 14 else height + 12
        parts.append(_text(x.stop - 4, above, "candidate", kind, "end"))
    if ladder.chosen is not None:
        place = x.at(ladder.steps[ladder.chosen])
        ends = f'x1="{place:.1f}" x2="{place:.1f}" y1="{y.start:g}" y2="{y.stop:g}"'
        parts.append(f'<line class="chosen" {ends}/>')
        parts.append(_text(place, TOP - 5, "chosen step", "chosen", "middle"))
    whose = "the candidate" if true == candidate else "the value taken"
    label = f"Distances of difference quotients from {whose}, against their step"
    return _svg(WIDTH, HEIGHT, label, parts)


def of_errors(found: ErrorMap) -> str:
    """An array's wrong entries, the darker the further off they are."""
    rows, columns = len(found.errors), max(map(len, found.errors), default=0)
    largest = max((e for row in found.errors for e in row), default=0.0)
    if not rows or not columns or not largest or not math.isfinite(largest):
        return ""
    paths = [""] * SHADES
    for i, row in enumerate(found.errors):
        for j, error in enumerate(row):
            if error:
                below = int(min(math.log10(largest / error), SHADES - 1))
                paths[below] += f"M{j} {i}h1v1h-1z"
    shades = "".join(
        f'<path class="shade" opacity="{1 - below / SHADES:.1f}" d="{path}"/>'
        for below, path in enumerate(paths)
        if path
    )
    frame = f'<rect class="frame" width="{columns}" height="{rows}"/>'
    view = f'viewBox="0 0 {columns} {rows}"'
    cell = min(CELLS[0] / columns, CELLS[1] / rows, LARGEST_CELL)
    size = f'width="{columns * cell:g}" height="{rows * cell:g}"'
    where = "×".join(map(str, found.shape))
    label = (
        f"wrong entries of {where}, by up to {short(largest)}; a shade is a factor 10"
    )
    parts = [f'<svg x="1" y="1" {view} {size}>{shades}{frame}</svg>']
    words = _text(0.0, rows * cell + 16, label, "")
    return _svg(WIDTH, rows * cell + 22, label, [*parts, words])


def _axes(x: Axis, y: Axis) -> str:
    low, middle = HEIGHT - BOTTOM + 13, (x.start + x.stop) / 2
    parts = [_text(place, low, text, "tick", "middle") for place, text in x.ticks()]
    parts += [
        _text(LEFT - 5, place + 4, text, "tick", "end")
        + f'<line class="grid" x1="{x.start:g}" x2="{x.stop:g}" '
        f'y1="{place:.1f}" y2="{place:.1f}"/>'
        for place, text in y.ticks()
    ]
    below = HEIGHT - 8
    parts.append(_text(LEFT - 5, TOP - 14, "error", "tick", "end"))
    parts.append(_text(x.start, below, "← rounding grows", ""))
    parts.append(_text(middle, below, "step h", "", "middle"))
    parts.append(_text(x.stop, below, "truncation grows →", "", "end"))
    return "".join(parts)


def _line(
    x: Axis, y: Axis, steps: Iterable[float], errors: Iterable[float], kind: str
) -> str:
    pairs = zip(steps, errors, strict=True)
    points = [f"{x.at(h):.1f},{y.at(e):.1f}" for h, e in pairs if math.isfinite(e)]
    return f'<polyline class="{kind}" points="{" ".join(points)}"/>'


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{kind}" {place}>{escape(words)}</text>'


def _svg(width: float, height: float, label: str, parts: list[str]) -> str:
    view = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    name = f'role="img" aria-label="{escape(label)}"'
    return f"<svg {view} {name}>{''.join(parts)}</svg>"
