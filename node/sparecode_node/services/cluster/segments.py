# SPDX-License-Identifier: Apache-2.0
"""
Keeps the events of sealed segments in this node's file, beside the state (U1).

Apply seals segments. This task stores their events in the background, so no answer
waits for it; only then apply discards them, some with each entry. What this node lacks,
because it joined or its file was damaged, comes from the other members, newest first.
Each step can be repeated, so a crash at any moment loses nothing.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.links.segment_exchange import (
    SegmentExchange,
    SegmentNotHeldError,
)
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.sealed_events import (
    SealedEvents,
    SegmentError,
    event_in,
    lines_of,
)
from sparecode_node.statemachine.tables.segments import Segment

log = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Between two looks at the state."""
RETRY_S = 10.0
"""After a failure, such as a full disk, or segments that no member has."""
REST = 2.0
"""After the work on a segment, as a multiple of its duration."""
TURN_EVENTS = 50
"""Between two short pauses of the thread: answers need the interpreter, too."""
TURN_S = 0.001
EVENT_BYTES_MAX = 16 * 1024
"""No event is longer as JSON."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done now."""

    here: tuple[Segment, ...]
    """Their events are still in the state's database; oldest first."""
    missing: tuple[Segment, ...]
    """Their events are with other members only; newest first."""


class SegmentKeeper:
    """The only writer of the node's file of sealed events."""

    def __init__(self, state: Path, on_stored: Callable[[Stored], object]) -> None:
        """
        Keep the events of the state's database *state*.

        *on_stored* gets the sealed events of the database that are all stored.
        """
        self._state = state
        self._on_stored = on_stored
        self._file: SealedEvents | None = None
        self._turn = threading.Event()
        # A thread goes on after its task was cancelled. Held for one segment at most.
        self._working = threading.Lock()
        self._closed = False
        self._cause = ""
        self.exchange = SegmentExchange(self)
        """Reaches the other members, once this node has joined them."""
        self.missing: tuple[Segment, ...] = ()
        """The segments that this node lacks, as of the last look."""

    async def run(self) -> None:
        """Store and fetch until cancelled."""
        try:
            while True:
                done = await self._logged_step()
                await asyncio.sleep(PAUSE_S if done else RETRY_S)
        finally:
            await asyncio.shield(asyncio.to_thread(self._close))

    async def step(self) -> None:
        """
        Store what is sealed, and fetch what is missing.

        Raises `SegmentError`, `SegmentNotHeldError`, `sqlite3.Error` and `OSError`.
        """
        plan = await asyncio.to_thread(self._plan)
        failure: SegmentNotHeldError | None = None
        for segment in plan.here:
            try:
                await self._store_own(segment)
            except SegmentNotHeldError as error:
                failure = error
        for segment in plan.missing:
            try:
                await self._fetch(segment)
            except SegmentNotHeldError as error:
                failure = error
        if plan.missing:
            await asyncio.to_thread(self._plan)
        if failure is not None:
            raise failure

    async def _logged_step(self) -> bool:
        """Return whether the step was done. Log the same cause only once."""
        try:
            await self.step()
        except (SegmentError, SegmentNotHeldError, sqlite3.Error, OSError) as error:
            if str(error) != self._cause:
                self._cause = str(error)
                log.error("segment_not_stored", extra={"cause": self._cause})  # noqa: TRY400
            return False
        self._cause = ""
        return True

    @contextlib.contextmanager
    def _opened(self) -> Iterator[SealedEvents]:
        """Lend the file to this thread. Raises `SegmentError` after the end."""
        with self._working:
            if self._closed:
                raise SegmentError("the file is closed")
            if self._file is None:
                self._file = SealedEvents(self._state)
            yield self._file

    def _close(self) -> None:
        with self._working:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _plan(self) -> _Plan:
        """Return what is to be done, and report what is stored. Runs in a thread."""
        with self._opened() as file:
            return self._plan_with(file)

    def _plan_with(self, file: SealedEvents) -> _Plan:
        stored, first = file.stored(), file.first_in_state()
        here, missing = [], []
        whole = True
        last: Segment | None = None
        for segment in file.segments():
            if stored.get(segment.number) == segment.hash_after:
                if whole and segment.last_sequence >= first:
                    last = segment
            elif segment.first_sequence >= first:
                here.append(segment)
                whole = False
            else:
                missing.append(segment)
                whole = whole and segment.last_sequence < first
        self.missing = tuple(reversed(missing))
        if last is not None:
            self._on_stored(Stored(segment=last, first=first))
        return _Plan(tuple(here), self.missing)

    async def _store_own(self, segment: Segment) -> None:
        try:
            await self._work(
                lambda file: file.store_from_state(segment, self._in_turns)
            )
        except SegmentError:
            # A snapshot may have replaced the state meanwhile. Or the events here are
            # damaged: those of another member are not.
            await self._fetch(segment)
        log.info("segment_stored", extra={"segment": segment.number})
        await asyncio.to_thread(self._plan)

    async def _fetch(self, segment: Segment) -> None:
        """Fetch a segment from any other member that has it."""
        causes = []
        for peer in self.exchange.others:
            try:
                await self._fetch_from(peer, segment)
            except (SegmentNotHeldError, SegmentError) as error:
                causes.append(str(error))
            else:
                log.info(
                    "segment_fetched", extra={"segment": segment.number, "peer": peer}
                )
                return
        raise SegmentNotHeldError(
            f"no member has the audit events {segment.first_sequence} to "
            f"{segment.last_sequence}: {'; '.join(causes) or 'there is no other member'}"
        )

    async def _fetch_from(self, peer: NodeId, segment: Segment) -> None:
        lines = await self.exchange.fetch(
            peer,
            segment.number,
            segment.hash_after,
            bytes_max=segment.events * EVENT_BYTES_MAX,
        )
        await self._work(
            lambda file: file.store(
                segment, self._in_turns(map(event_in, lines)), self._in_turns
            )
        )

    async def _work(self, work: Callable[[SealedEvents], None]) -> None:
        """Run *work* in a thread, and rest for a time that depends on its duration."""
        loop = asyncio.get_running_loop()
        began = loop.time()

        def with_file() -> None:
            with self._opened() as file:
                work(file)

        await asyncio.to_thread(with_file)
        await asyncio.sleep(REST * (loop.time() - began))

    def _in_turns(self, events: Iterable[AuditEvent]) -> Iterator[AuditEvent]:
        """Yield events, with a short pause after some of them."""
        for number, event in enumerate(events, start=1):
            if number % TURN_EVENTS == 0:
                self._turn.wait(TURN_S)
            yield event

    def lend(self, number: int, hash_after: bytes, *, skip: int, most: int) -> bytes:
        """Return events of a segment for another member. Raises `SegmentNotHeldError`."""
        lines = None
        with contextlib.suppress(sqlite3.Error):
            lines = lines_of(self._state, number, hash_after, skip=skip, most=most)
        if lines is None:
            raise SegmentNotHeldError("this node does not have the segment")
        return lines
