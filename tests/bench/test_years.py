# SPDX-License-Identifier: Apache-2.0
"""Pages of years ago are full and of that time, and the chain is verified."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from sparecode_client import AuditEvent
from sparecode_node.services.fields import PAGE_SIZE_DEFAULT
from tests.bench.years import JOINS_MAX, PAGE_WITHIN, chain_in, check_pages, joins_of

END = datetime(2024, 5, 6, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize("rounds", [1, 9, 40])
def test_nodes_join_as_often_as_a_cluster_makes_tickets(rounds: int) -> None:
    joins = joins_of(rounds)
    assert len(joins) == rounds
    assert sum(joins) == JOINS_MAX
    assert max(joins) - min(joins) <= 1


def events(newest: int, count: int, time: datetime) -> list[AuditEvent]:
    """Return these events, newest first, a second apart."""
    return [
        AuditEvent(
            sequence=newest - number,
            time=time - number * SECOND,
            actor="",
            node_id="n1",
            action="Authenticate",
            target="",
            outcome="accepted",
            reason="",
            detail="",
            previous_hash="",
            hash="",
        )
        for number in range(count)
    ]


def pages(found: Sequence[AuditEvent]) -> tuple[list[AuditEvent], list[AuditEvent]]:
    return [*found[:PAGE_SIZE_DEFAULT]], [*found[PAGE_SIZE_DEFAULT:]]


GOOD = events(900, 2 * PAGE_SIZE_DEFAULT, END - SECOND)


def test_full_pages_of_that_time_are_measured():
    check_pages(*pages(GOOD), END, PAGE_WITHIN)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "have 0, 0 events"),
        (GOOD[:-1], "have 50, 49 events"),
        ([*GOOD[:60], *events(800, 40, END - timedelta(hours=1))], "leave out events"),
        ([*GOOD[:50], *GOOD[:50]], "leave out events"),
        (events(900, 100, END), "are of 2024-05-05"),
        (events(900, 100, END - timedelta(days=400)), "are of 2023-04-01"),
    ],
)
def test_pages_that_are_short_or_of_another_time_are_refused(
    found: list[AuditEvent], words: str
):
    """An empty page is fast."""
    with pytest.raises(RuntimeError, match=words):
        check_pages(*pages(found), END, PAGE_WITHIN)


def finding(verdict: str, words: str) -> list[dict[str, str]]:
    return [
        {"verdict": "ok", "subject": "state", "words": "9 events in an unbroken chain"},
        {"verdict": verdict, "subject": "audit log", "words": words},
    ]


def test_an_unbroken_chain_has_all_events():
    words = "700 events in an unbroken chain, head 00ff"
    assert chain_in(finding("ok", words), 700) == words
    for findings in (
        finding("ok", "699 events in an unbroken chain, head 00ff"),
        finding("fail", "the chain breaks at event 700"),
        finding("warn", "3 of 700 events are missing on this node"),
        [],
    ):
        with pytest.raises(RuntimeError, match="700 events are not in an unbroken"):
            chain_in(findings, 700)
