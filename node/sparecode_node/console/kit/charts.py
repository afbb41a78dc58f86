# SPDX-License-Identifier: Apache-2.0
"""Charts: bars above and below a line, as numbers for an SVG that the template draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

HEIGHT: Final = 100
SLOT: Final = 10
"""The width of a bar with its gap; the browser stretches the whole to its place."""
_GAP: Final = 2
_VISIBLE: Final = 2.0
"""The height of the smallest bar: one refusal among thousands is seen, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A rectangle, in units of the chart."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    """`up` or `down`: the class of its colors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars, and the line between those that go up and those that go down."""

    bars: tuple[Bar, ...]
    width: int
    height: int
    line: float
    """The height of the line, from the top."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.bars


def draw(up: Sequence[int], down: Sequence[int] = ()) -> Chart:
    """
    Return bars for counts, all on one scale.

    *up* and *down* have one count per slot; without *down*, the line is at the bottom.
    """
    highest, lowest = max(up, default=0), max(down, default=0)
    unit = HEIGHT / max(1, highest + lowest)
    line = highest * unit if highest + lowest else HEIGHT
    bars = [
        Bar(
            x=slot * SLOT + _GAP / 2,
            y=round(top, 2),
            width=SLOT - _GAP,
            height=round(height, 2),
            kind=kind,
        )
        for kind, counts in (("up", up), ("down", down))
        for slot, count in enumerate(counts)
        if count
        for height in [max(count * unit, _VISIBLE)]
        for top in [line - height if kind == "up" else line]
    ]
    return Chart(
        bars=tuple(bars),
        width=max(len(up), len(down)) * SLOT,
        height=HEIGHT,
        line=round(line, 2),
    )
