# SPDX-License-Identifier: Apache-2.0
"""
Keeps the events of sealed segments in this node's file, beside the state (U1).

Apply seals segments. This task stores their events in the background, so no answer
waits for it. Apply discards them, some with each entry, when all voters have told that
they hold them (`segment_holders`). What this node lacks, because it joined or its file
was damaged, comes from the other members, newest first. Stored segments are read again
from time to time. Each step can be repeated, so a crash at any moment loses nothing.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeVar

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.segments import Holding, Ranges
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.links.segment_exchange import (
    SegmentExchange,
    SegmentNotHeldError,
)
from sparecode_node.services.cluster.last_failures import LastFailures
from sparecode_node.services.cluster.segment_file import SegmentFile
from sparecode_node.services.cluster.segment_plan import (
    NOTHING_TO_DO,
    Files,
    Plan,
    plan_of,
)
from sparecode_node.services.cluster.wanted_segments import WantedSegments
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.sealed_events import (
    SealedEvents,
    events_in,
    is_of_rot,
    lines_of,
    put_aside_files,
)
from sparecode_node.statemachine.segment_chain import (
    Chained,
    SegmentChain,
    SegmentError,
    event_in,
)
from sparecode_node.statemachine.tables.segments import Segment

log = logging.getLogger(__name__)

_T = TypeVar("_T")

PAUSE_S = 1.0
"""Between two looks at the state."""
RETRY_S = 10.0
"""After a failure, such as a full disk, or segments that no member has."""
ROUND_S = 10.0
"""A step fetches for no longer: what was sealed meanwhile is stored in the next one."""
REST = 2.0
"""After the work on a segment, as a multiple of its duration."""
TURN_EVENTS = 50
"""Between two short pauses of the thread: answers need the interpreter, too."""
TURN_S = 0.001
READ_AGAIN_S = 60.0
"""Between two stored segments that are read again: a thousandth of a processor."""
CHECK_PAUSE_S_MAX = 6 * 3600.0
"""Between two checks of the whole file that find no damage."""
DELETED_EVENTS = 2_000
"""Events of removed segments that one transaction deletes."""
EVENT_BYTES_MAX = 16 * 1024
"""No event is longer as JSON."""


class SegmentKeeper:
    """The only writer of the node's file of sealed events."""

    def __init__(
        self,
        state: Path,
        on_stored: Callable[[Stored | None], object],
        *,
        serves: Callable[[], bool] = lambda: True,
    ) -> None:
        """
        Keep the events of the state's database *state*.

        *on_stored* gets the sealed events of the database that are all stored; None:
        nothing may be discarded. *serves*: whether this node has joined and caught up.
        """
        self._state = state
        self._on_stored = on_stored
        self._serves = serves
        self._file = SegmentFile(state, self._forget_all)
        self._turn = threading.Event()
        self.exchange = SegmentExchange(self)
        """Reaches the other members, once this node has joined them."""
        self.missing: tuple[Segment, ...] = ()
        """The segments that this node lacks, as of the last look."""
        self.holding: Holding | None = None
        """What this node has stored and proved, as of the last look; None: not known yet."""
        self._failures = LastFailures[NodeId]()
        """
        Members whose last answer was no segment.

        One that stalls costs minutes. It is asked after the others from then on, and not
        first for each of a thousand segments.
        """
        self._not_held = LastFailures[int]()
        """Segments that no member has sent: they come last next time."""
        self._causes: dict[str, str] = {}
        """Why the last step of each kind failed."""
        self._agreed: Ranges = ()
        self._found: Ranges = ()
        self._read_again = 0
        self._suspects: set[int] = set()
        self._wanted = WantedSegments()
        self._is_file_suspect = False
        self._check_from_s, self._check_pause_s = -inf, READ_AGAIN_S
        self.on_replaced: Callable[[], Awaitable[None]] | None = None
        """Called after a damaged file was replaced: readers have it open."""
        self._sealed: tuple[Segment, ...] | None = None
        self._stored: dict[int, bytes] | None = None
        self._seen: tuple[object, ...] = ()
        self._deleted = 0
        """The file has no events of segments up to this one, which were removed."""
        self._planned = NOTHING_TO_DO

    def allow(self, agreed: Ranges, *, found: Ranges = ()) -> None:
        """
        Let apply discard the segments *agreed*: all voters hold them.

        *found*: segments that were declared lost, and that another member has.
        """
        self._agreed, self._found = agreed, found

    def suspect(self, number: int) -> None:
        """Read a segment again in the next step: it was found rotten. Any thread may call it."""
        self._suspects.add(number)

    def suspect_file(self) -> None:
        """Read the whole file soon, for damage: a reader could not."""
        self._is_file_suspect = True

    async def fetch(self, sequence: int, timeout_s: float) -> bool:
        """
        Fetch the segment with an event before all others; return whether it is here now.

        A read waits for it, for at most *timeout_s*.
        """
        number = next(
            (
                each.number
                for each in self.missing
                if each.first_sequence <= sequence <= each.last_sequence
            ),
            0,
        )
        if not number or timeout_s <= 0:
            return False
        return await self._wanted.wait_for(number, timeout_s=timeout_s)

    async def run(self) -> None:
        """Store, fetch and read again until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + READ_AGAIN_S
        try:
            while True:
                done = await self._logged(self.step)
                if loop.time() >= due:  # Also while another segment is missing.
                    done = await self._logged(self.read_again) and done
                    due = loop.time() + READ_AGAIN_S
                await self._wanted.sleep(PAUSE_S if done else RETRY_S)
        finally:
            await asyncio.shield(asyncio.to_thread(self._file.close))

    async def step(self) -> None:
        """
        Store what is sealed, and fetch what is missing.

        Raises `SegmentError`, `SegmentNotHeldError`, `sqlite3.Error` and `OSError`.
        """
        if self._is_file_suspect:
            await self._check_file()
        if self._file.was_replaced and self.on_replaced is not None:
            await self.on_replaced()
            self._file.was_replaced = False
        while self._suspects:
            try:
                await self._verify(self._suspects.pop())
            except SegmentError as error:  # It is missing now, as the plan says.
                log.warning("segment_is_rotten", extra={"cause": str(error)})
        plan = await asyncio.to_thread(self._plan)
        if plan.removed > self._deleted:
            plan = await self._delete_removed()
        failure: SegmentNotHeldError | None = None
        for segment in plan.here:
            try:
                await self._store_own(segment)
            except SegmentNotHeldError as error:
                failure = error
        if not self._serves():
            plan = replace(plan, missing=(), found=())  # A join comes first.
        failure = await self._fetch_some(plan) or failure
        if failure is not None:
            raise failure

    async def _fetch_some(self, plan: Plan) -> SegmentNotHeldError | None:
        """Fetch what is missing, for some seconds; return the last failure."""
        failure: SegmentNotHeldError | None = None
        loop = asyncio.get_running_loop()
        ends = loop.time() + ROUND_S
        declared = {segment.number for segment in plan.found}
        # What no member has sent comes last: it must not take the time of the others.
        left = sorted(
            (*plan.missing, *plan.found),
            key=lambda each: self._not_held.last_of(each.number),
        )
        while left:
            segment = next(
                (each for each in left if each.number in self._wanted), left[0]
            )
            left.remove(segment)
            fetched = False
            try:
                await self._fetch(segment)
                fetched = True
                self._not_held.forget(segment.number)
            except SegmentNotHeldError as error:
                self._not_held.add(segment.number)
                if segment.number not in declared:
                    # A declaration lets readers go on without the segment.
                    failure = error
            finally:
                self._wanted.tell(segment.number, fetched=fetched)
            if loop.time() >= ends:
                break
        if plan.missing or plan.found:
            await asyncio.to_thread(self._plan)
        return failure

    async def read_again(self) -> None:
        """
        Read one stored segment again, the next one of all; a rotten one is missing then.

        Raises as `step`.
        """
        holding = self.holding
        if holding is None or not holding.through:
            return
        held, after = holding.held, self._read_again
        number = next((max(a, after + 1) for a, b in held if b > after), held[0][0])
        self._read_again = number
        await self._verify(number)

    async def _verify(self, number: int) -> None:
        try:
            await self._work(lambda file: file.verify_number(number, self._in_turns))
        except SegmentError as error:
            raise SegmentError(f"segment {number} is damaged: {error}") from error

    async def _check_file(self) -> None:
        """
        Look for damage, if it was not done just now: that reads all of the file.

        The state may be what is damaged: then each read of it asks for a check, and the
        pauses between them become longer.
        """
        loop = asyncio.get_running_loop()
        if loop.time() < self._check_from_s:
            return
        self._is_file_suspect = False
        if await asyncio.to_thread(self._file.check):
            self._check_pause_s = READ_AGAIN_S
        else:
            self._check_pause_s = min(2 * self._check_pause_s, CHECK_PAUSE_S_MAX)
        self._check_from_s = loop.time() + self._check_pause_s

    def _forget_all(self) -> None:
        """Count on nothing that is in the file: it is damaged."""
        self.holding = Holding()
        self._on_stored(None)

    async def _logged(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Return whether the step was done. Log the same cause only once."""
        try:
            await step()
        except (SegmentError, SegmentNotHeldError, sqlite3.Error, OSError) as error:
            cause = str(error)
            if self._causes.get(step.__name__) != cause:
                self._causes[step.__name__] = cause
                log.error("segment_not_stored", extra={"cause": cause})  # noqa: TRY400
            return False
        self._causes.pop(step.__name__, None)
        return True

    def _plan(self) -> Plan:
        """Return what is to be done, and report what is stored. Runs in a thread."""
        with self._file.opened() as file:
            return self._plan_with(file)

    def _plan_with(self, file: SealedEvents) -> Plan:
        sealed, stored, first = file.segments(), file.stored(), file.first_in_state()
        lost = file.lost()
        seen = (first, lost, self._agreed, self._found, file.removed())
        if not (
            sealed is self._sealed and stored is self._stored and seen == self._seen
        ):
            self._planned = self._new_plan(file, frozenset(lost))
            self._sealed, self._stored, self._seen = sealed, stored, seen
        self._on_stored(self._planned.stored)
        return self._planned

    def _new_plan(self, file: SealedEvents, lost: frozenset[int]) -> Plan:
        plan = plan_of(
            Files(
                sealed=file.segments(),
                stored=file.stored(),
                first=file.first_in_state(),
                removed=file.removed(),
                lost=lost,
                is_in_state=file.is_in_state,
            ),
            agreed=self._agreed,
            found=self._found,
        )
        self.holding, self.missing = plan.holding, plan.missing
        return plan

    async def _delete_removed(self) -> Plan:
        """Delete the events of removed segments, a few at a time; return the next plan (U4)."""
        left, removed = True, 0

        def delete(file: SealedEvents) -> None:
            nonlocal left, removed
            removed = file.removed()
            left = file.delete_removed(DELETED_EVENTS)

        while left:
            await self._work(delete)
        if removed > self._deleted:
            log.info("segments_removed", extra={"through": removed})
        self._deleted = removed
        return await asyncio.to_thread(self._plan)

    async def _store_own(self, segment: Segment) -> None:
        try:
            await self._work(
                lambda file: file.store_from_state(segment, self._in_turns)
            )
        except SegmentError:
            # A snapshot may have replaced the state meanwhile. Or the events here are
            # damaged: those of another member are not.
            await self._fetch(segment)
        reach(Point.SEGMENT_STORED)
        log.info("segment_stored", extra={"segment": segment.number})
        await asyncio.to_thread(self._plan)

    async def _fetch(self, segment: Segment) -> None:
        """Fetch a segment from any other member that has it, if the file has not."""
        with contextlib.suppress(SegmentError):
            # It was stored a moment before a crash, or could not be read only for once.
            await self._work(lambda file: file.verify(segment, self._in_turns))
            return
        if await asyncio.to_thread(self._recovered, segment):
            return
        causes = []
        for peer in sorted(self.exchange.others, key=self._failures.last_of):
            try:
                await self._fetch_from(peer, segment)
            except (SegmentNotHeldError, SegmentError) as error:
                causes.append(str(error))
                self._failures.add(peer)
            else:
                self._failures.forget(peer)
                log.info(
                    "segment_fetched", extra={"segment": segment.number, "peer": peer}
                )
                return
        raise SegmentNotHeldError(
            f"no member has the audit events {segment.first_sequence} to "
            f"{segment.last_sequence}: {'; '.join(causes) or 'there is no other member'}"
        )

    def _recovered(self, segment: Segment) -> bool:
        """
        Return whether a file that was put aside still had the segment: it is stored.

        Raises `sqlite3.Error` of this node's own file, such as for a full disk.
        """
        for damaged in put_aside_files(self._state):
            try:
                events = events_in(damaged, segment)
            except (SegmentError, sqlite3.DatabaseError):
                continue  # This part is damaged; another file may have it.
            with contextlib.suppress(SegmentError):
                with self._file.opened() as file:
                    file.store(segment, events, self._in_turns)
                log.info(
                    "segment_recovered",
                    extra={"segment": segment.number, "file": damaged.name},
                )
                return True
        return False

    async def _fetch_from(self, peer: NodeId, segment: Segment) -> None:
        """
        Fetch a segment; each part is judged before the next one is awaited.

        Raises `SegmentNotHeldError` and `SegmentError`.
        """
        chain = SegmentChain(segment)
        chained: list[Chained] = []
        parts = self.exchange.fetch(
            peer,
            segment.number,
            segment.hash_after,
            lines_max=segment.events,
            bytes_max=segment.events * EVENT_BYTES_MAX,
        )

        def take(lines: list[bytes]) -> None:
            chained.extend(map(chain.add, self._in_turns(map(event_in, lines))))

        async with contextlib.aclosing(parts):
            async for lines in parts:
                await self._rested(partial(take, lines))
        chain.end()
        reach(Point.SEGMENT_FETCHED)
        await self._work(
            lambda file: file.store_chained(
                segment, self._in_turns(chained), self._in_turns
            )
        )

    async def _work(self, work: Callable[[SealedEvents], None]) -> None:
        """Run *work* with the file in a thread, and rest as `_rested`."""

        def with_file() -> None:
            with self._file.opened() as file:
                work(file)

        await self._rested(with_file)

    async def _rested(self, work: Callable[[], None]) -> None:
        """Run *work* in a thread, and rest for a time that depends on its duration."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.to_thread(work)
        await asyncio.sleep(REST * (loop.time() - began))

    def _in_turns(self, each: Iterable[_T]) -> Iterator[_T]:
        """Yield events, with a short pause after some of them."""
        for number, event in enumerate(each, start=1):
            if number % TURN_EVENTS == 0:
                self._turn.wait(TURN_S)
            yield event

    def lend(self, number: int, hash_after: bytes, *, skip: int, most: int) -> bytes:
        """Return events of a segment for another member. Raises `SegmentNotHeldError`."""
        lines = None
        try:
            lines = lines_of(self._state, number, hash_after, skip=skip, most=most)
        except (sqlite3.Error, SegmentError) as error:
            if is_of_rot(error):
                self.suspect(number)
        if lines is None:
            raise SegmentNotHeldError("this node does not have the segment")
        return lines
