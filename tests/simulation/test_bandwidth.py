# SPDX-License-Identifier: Apache-2.0
"""What a slow link does: messages of one call wait for each other, calls take turns."""

import functools
import random

from tests.simulation.nodes.bandwidth import (
    FAST_BYTES_S,
    FRAME_BYTES,
    SLOW_BYTES_S,
    Bandwidth,
    Line,
)
from tests.simulation.nodes.loops import Timeline


def sent_on(line_of: float, messages: list[tuple[int, int]]) -> list[tuple[int, float]]:
    """Send messages (call, size) at once; return which are sent when, in order."""
    timeline = Timeline()
    begin = timeline.now
    seen: list[tuple[int, float]] = []
    line = Line(timeline, line_of, lambda _seconds: None)

    def sent(number: int) -> None:
        seen.append((number, round(timeline.now - begin, 6)))

    for number, (call, size) in enumerate(messages):
        line.send(call, size, functools.partial(sent, number))
    timeline.run_until(begin + 1000)
    return seen


def test_messages_of_a_call_wait_for_each_other() -> None:
    assert sent_on(1000, [(1, 500), (1, 2000)]) == [(0, 0.5), (1, 2.5)]


def test_a_short_call_waits_for_one_frame_of_a_long_one() -> None:
    long, short = (1, 10 * FRAME_BYTES), (2, FRAME_BYTES)
    assert sent_on(FRAME_BYTES, [long, short]) == [(1, 2.0), (0, 11.0)]


def test_what_is_not_sent_when_a_connection_ends_is_lost() -> None:
    timeline = Timeline()
    seen: list[int] = []
    line = Line(timeline, 100, lambda _seconds: None)
    line.send(1, 1000, lambda: seen.append(1))
    timeline.run_until(timeline.now + 1)
    line.drop()
    line.send(2, 100, lambda: seen.append(2))
    timeline.run_until(timeline.now + 100)
    assert seen == [2]


def test_some_links_are_slow_in_some_runs_and_in_both_directions() -> None:
    rates: set[float] = set()
    for seed in range(60):
        bandwidth = Bandwidth(random.Random(seed))
        rates.add(bandwidth.of(("n1", "n2")))
        assert bandwidth.of(("n1", "n2")) == bandwidth.of(("n2", "n1"))
    assert rates == {FAST_BYTES_S, *SLOW_BYTES_S}
