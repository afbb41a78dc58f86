# SPDX-License-Identifier: Apache-2.0
"""Searches of the audit log: a call looks at a bounded part, and the next goes on (U1)."""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash
from sparecode_node.queries import audit, pages
from sparecode_node.queries.audit import AuditFilter, AuditPage
from sparecode_node.queries.segments import MissingSegmentError
from sparecode_node.queries.transaction import ReadTransaction, Value
from sparecode_node.statemachine import sealed_events
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.schema import TABLES

SEGMENT = 10
EVENTS = 65
RARE = frozenset({1, 29, 31, 64})
LAYOUTS = ("one file", "seam", "lost", "removed")
INSERT = (
    "INSERT INTO audit_events (sequence, at_ms, actor, node, action, target, outcome, "
    "reason, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass
class Log:
    """A log in the files of a node, and the connection of a reader."""

    db: sqlite3.Connection
    events: list[AuditEvent] = field(default_factory=list)
    steps: int = 0

    async def execute_fetchall(
        self, sql: str, parameters: dict[str, Value] | None = None
    ) -> list[sqlite3.Row]:
        return self.db.execute(sql, parameters or {}).fetchall()

    def page(self, criteria: AuditFilter, **options) -> AuditPage:
        """Return a page, and count the steps of SQLite's machine for it."""
        self.steps = 0

        def step() -> None:
            self.steps += 1

        self.db.set_progress_handler(step, 1)
        call = {"size": 50, "page_token": "", "from_sequence": 0, **options}
        try:
            return asyncio.run(
                audit.page(
                    ReadTransaction(connection=self, applied_index=1),
                    criteria=criteria,
                    **call,
                )
            )
        finally:
            self.db.set_progress_handler(None, 1)

    def read(self, criteria: AuditFilter, matches: list[int], **options) -> None:
        """Read all pages, and note the sequence numbers of their events."""
        token = None
        while token != "":
            page = self.page(criteria, page_token=token or "", **options)
            matches += [each.event.sequence for each in page.items]
            token = page.next_page_token


def events_of(number: int) -> list[AuditEvent]:
    """Return events: some at the same time, one action of them rare."""
    draw = random.Random(7)
    at_ms, events = 1_000, []
    for sequence in range(1, number + 1):
        at_ms += draw.choice((0, 0, 1, 5))
        events.append(
            AuditEvent(
                sequence=sequence,
                at_ms=at_ms,
                actor=draw.choice(("agent:a", "agent:b")),
                node="n1",
                action="Rare" if sequence in RARE else draw.choice(("Often", "Other")),
                target=draw.choice(("alice", "bob")),
                outcome=draw.choice(("accepted", "refused")),
                reason=draw.choice(("", "wrong_pin")),
                detail=f"authentication a{sequence // 3}, x" if sequence % 3 else "",
            )
        )
    return events


def write(path: Path, events: list[AuditEvent], *, sealed: int, moved: int) -> None:
    """Write a log whose first *moved* segments of *sealed* ones have left the state."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(TABLES)
        head = GENESIS_HASH
        rows = []
        for each in events:
            head = chain_hash(head, each)
            rows.append(
                (
                    *(each.sequence, each.at_ms, each.actor, each.node, each.action),
                    *(each.target, each.outcome, each.reason, each.detail, head),
                )
            )
        db.executemany(INSERT, rows)
        made = [segments.seal(db, SEGMENT) for _ in range(sealed)]
        sealed_events.create(path)
        with contextlib.closing(sqlite3.connect(sealed_events.file_of(path))) as file:
            for each in made[:moved]:
                file.execute(
                    "INSERT INTO stored_segments VALUES (?, ?)",
                    (each.number, each.hash_after),
                )
            file.executemany(INSERT, rows[: moved * SEGMENT])
            file.commit()
        db.execute("DELETE FROM audit_events WHERE sequence <= ?", (moved * SEGMENT,))
        db.commit()


def lose(path: Path, number: int) -> None:
    """Delete a stored segment."""
    with contextlib.closing(sqlite3.connect(sealed_events.file_of(path))) as file:
        file.execute("DELETE FROM stored_segments WHERE number = ?", (number,))
        file.execute(
            "DELETE FROM audit_events WHERE sequence BETWEEN ? AND ?",
            ((number - 1) * SEGMENT + 1, number * SEGMENT),
        )
        file.commit()


def opened(path: Path, events: list[AuditEvent]) -> Log:
    db = sealed_events.open_log(path, any_thread=True)
    db.row_factory = sqlite3.Row
    return Log(db=db, events=events)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Log]]:
    """Return a log in one file, one over the seam, and two that lack a segment for good."""
    found = {}
    for name in LAYOUTS:
        path = tmp_path_factory.mktemp("log") / "state.db"
        events = events_of(EVENTS)
        write(path, events, sealed=5, moved=0 if name == "one file" else 4)
        if name in ("lost", "removed"):
            gone = 3 if name == "lost" else 1
            lose(path, gone)
            events = [each for each in events if (each.sequence - 1) // 10 + 1 != gone]
        with contextlib.closing(sqlite3.connect(path)) as db:
            if name == "lost":
                segments.declare_lost(db, [3], 1, "burned")
            elif name == "removed":
                archives.remove(db, 1, 2000, [])
            db.commit()
        found[name] = opened(path, events)
    yield found
    for each in found.values():
        each.db.close()


@pytest.fixture
def long_log(tmp_path: Path) -> Iterator[Log]:
    events = events_of(2000)
    write(tmp_path / "state.db", events, sealed=190, moved=180)
    log = opened(tmp_path / "state.db", events)
    yield log
    log.db.close()


def meets(event: AuditEvent, criteria: AuditFilter) -> bool:
    """Return whether an event matches, in the words of the contract."""
    words = ("actor", "action", "target", "outcome", "reason")
    wanted = criteria.authentication_id
    return (
        all(getattr(criteria, each) in ("", getattr(event, each)) for each in words)
        and (criteria.start_ms is None or event.at_ms >= criteria.start_ms)
        and (criteria.end_ms is None or event.at_ms < criteria.end_ms)
        and (not wanted or event.detail.startswith(f"authentication {wanted}, "))
    )


TIMES = st.none() | st.integers(995, 1110)
FILTERS = st.builds(
    AuditFilter,
    start_ms=TIMES,
    end_ms=TIMES,
    actor=st.sampled_from(("", "agent:a", "agent:c")),
    action=st.sampled_from(("", "Often", "Rare", "Never")),
    target=st.sampled_from(("", "alice")),
    outcome=st.sampled_from(("", "accepted")),
    reason=st.sampled_from(("", "wrong_pin")),
    authentication_id=st.sampled_from(("", "", "", "a3", "a9", "x")),
)


@given(
    layout=st.sampled_from(LAYOUTS),
    criteria=FILTERS,
    bound=st.integers(1, 30),
    size=st.integers(1, 8),
    from_sequence=st.integers(0, EVENTS + 2),
)
def test_pages_to_the_end_find_what_a_read_of_all_events_finds(
    logs: dict[str, Log],
    layout: str,
    criteria: AuditFilter,
    bound: int,
    size: int,
    from_sequence: int,
) -> None:
    """(U1) Nothing is left out and nothing comes twice, whatever a call looks at."""
    log = logs[layout]
    wanted = [
        each
        for each in log.events
        if meets(each, criteria) and each.sequence >= from_sequence
    ]
    matches: list[AuditEvent] = []
    token, searched_to, times = "", [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audit, "SEARCHED_MAX", bound)
        while True:
            page = log.page(
                criteria, size=size, page_token=token, from_sequence=from_sequence
            )
            assert len(page.items) <= size
            matches += [each.event for each in page.items]
            assert (page.searched_to_ms is None) == (page.next_page_token == "")
            if page.searched_to_ms is None:
                break
            token = page.next_page_token
            assert page.searched_to_sequence not in searched_to
            searched_to.append(page.searched_to_sequence)
            times.append(page.searched_to_ms)
            assert token == pages.encode(str(page.searched_to_sequence))
    assert matches == (wanted if from_sequence else wanted[::-1])
    assert searched_to == sorted(set(searched_to), reverse=not from_sequence)
    assert times == sorted(times, reverse=not from_sequence)


@pytest.mark.parametrize("from_sequence", [0, 1])
def test_a_rare_filter_costs_the_same_in_a_longer_log(
    long_log: Log,
    from_sequence: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(U1) A read holds one of four connections, and sign-in needs them too."""
    monkeypatch.setattr(audit, "SEARCHED_MAX", 40)
    never, steps, calls = AuditFilter(action="Never"), [], 0
    token = ""
    while True:
        page = long_log.page(never, page_token=token, from_sequence=from_sequence)
        assert page.items == ()
        steps.append(long_log.steps)
        calls += 1
        if not (token := page.next_page_token):
            break
    assert calls == 2000 / 40
    monkeypatch.setattr(audit, "SEARCHED_MAX", 2000)
    long_log.page(never, from_sequence=from_sequence)
    assert max(steps) < long_log.steps / 5


def test_a_search_that_ends_has_no_empty_page_after_it(
    long_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "SEARCHED_MAX", 2000)
    page = long_log.page(AuditFilter(action="Rare"), size=len(RARE))
    assert len(page.items) == len(RARE)
    assert page.next_page_token == ""
    monkeypatch.setattr(audit, "SEARCHED_MAX", 1000)
    page = long_log.page(AuditFilter(action="Never"))
    assert page.searched_to_sequence == 1001
    assert page.searched_to_ms == long_log.events[1000].at_ms
    last = long_log.page(AuditFilter(action="Never"), page_token=page.next_page_token)
    assert (last.next_page_token, last.searched_to_sequence) == ("", 0)


def test_an_authentication_id_is_found_by_its_index(
    long_log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call finds the decision, however old it is."""
    monkeypatch.setattr(audit, "SEARCHED_MAX", 40)
    page = long_log.page(AuditFilter(authentication_id="a3"))
    assert [each.event.sequence for each in page.items] == [11, 10]
    assert page.next_page_token == ""


@pytest.mark.parametrize("bound", [7, 1000])
def test_what_comes_before_a_missing_segment_is_shown_first(
    tmp_path: Path, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U1) A node that has joined serves recent events while it fetches old ones."""
    monkeypatch.setattr(audit, "SEARCHED_MAX", bound)
    path = tmp_path / "state.db"
    write(path, events_of(EVENTS), sealed=5, moved=4)
    lose(path, 3)
    log = opened(path, events_of(EVENTS))
    for from_sequence, shown in ((0, [64, 31]), (1, [1])):
        matches: list[int] = []
        with pytest.raises(MissingSegmentError, match="21 to 30"):
            log.read(AuditFilter(action="Rare"), matches, from_sequence=from_sequence)
        assert matches == shown
    log.db.close()
