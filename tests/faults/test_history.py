# SPDX-License-Identifier: Apache-2.0
"""The outage after a kill, as the clients see it."""

import itertools

from tests.faults.history import History, Kind, Result

SECOND_NS = 1_000_000_000


def test_only_later_changes_on_other_nodes_count():
    """Earlier calls may have been decided before the primary died."""
    ticks = itertools.count(step=SECOND_NS)
    history = History(now_ns=lambda: next(ticks))
    before = history.invoke(Kind.CONSUME, "a", request_id="1", node="n2")  # At 0 s.
    killed_ns = SECOND_NS // 2
    history.answer(before, Result.ACCEPTED)
    own = history.invoke(Kind.CONSUME, "b", request_id="2", node="n1")
    history.answer(own, Result.ACCEPTED)
    read = history.invoke(Kind.READ, "c", request_id="", node="n2")
    history.answer(read, Result.LIVE)
    lost = history.invoke(Kind.CONSUME, "d", request_id="3", node="n2")
    history.unknown(lost, "OUTCOME_UNKNOWN")
    assert history.first_success(killed_ns, but="n1") is None
    first = history.invoke(Kind.CONSUME, "e", request_id="4", node="n3")
    later = history.invoke(Kind.CONSUME, "f", request_id="5", node="n2")
    history.answer(later, Result.REFUSED)
    history.answer(first, Result.ACCEPTED)
    assert history.first_success(killed_ns, but="n1") == 8.5
