# SPDX-License-Identifier: Apache-2.0
"""
Copies sealed audit events to the archive, a folder that `node.toml` names (U2).

A copy is proved by the chain in the state before and after it is written. It gets its
name only when it is synced. What is there is read again from time to time; a damaged
copy is put aside, and written again from this node's file. The node never deletes a
file of the archive, and does not make the folder: a mount that is missing is a failure.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.membership import ArchiveReport
from sparecode_node.domain.segments import (
    Holding,
    Ranges,
    holding_of,
    numbers_of,
    ranges_of,
    subtract,
)
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries.archives import Told
from sparecode_node.queries.audit import AuditHead
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.cluster import archive_files, checkpoints
from sparecode_node.services.cluster.archive_files import ArchivedFiles
from sparecode_node.services.cluster.checkpoints import Checkpoint
from sparecode_node.services.cluster.last_failures import LastFailures
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.missing_segments import missing_in
from sparecode_node.statemachine.sealed_events import lines_of, open_log
from sparecode_node.statemachine.segment_chain import SegmentError, event_in
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.segments import Segment

log = logging.getLogger(__name__)

PAUSE_S = 2.0
LOOK_S = 60.0
"""Between two looks at the files of the archive, if nothing is sealed meanwhile."""
RETRY_S = 30.0
"""After a failure, such as a full disk."""
READ_AGAIN_S = 60.0
"""Between two archived segments that are read again."""
ROUND_S = 10.0
"""A step works for no longer: what was sealed or damaged meanwhile is seen in the next one."""
REST = 2.0
"""After the work on a segment, as a multiple of its duration."""
PART_EVENTS = 200
"""Events that are read at once."""
TURN_S = 0.001
"""After each of these: answers need the interpreter, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look has found, as one value: other threads read it at any time."""

    folder_id: str
    """The id in the folder; empty: it could not be read."""
    proved: Ranges | None
    """What this node confirms to have; None: not known yet."""
    folder_changes: int = 0
    """The id was read when the state had this many changes of ids (`Told`)."""


class SegmentArchive:
    """This node's copies in the archive."""

    def __init__(
        self,
        *,
        folder: Path,
        state: Path,
        node_id: str,
        sealing: Sealing,
        entropy: Entropy,
    ) -> None:
        """Copy to *folder* what the state's database *state* and its file have."""
        self.folder = folder
        self._state = state
        self._node_id = node_id
        self._sealing = sealing
        self._entropy = entropy
        self._turn = threading.Event()
        self._read_again = 0
        self.waiting = 0
        """
        Sealed segments that are not in the archive, as of the last look, without those
        that this node lacks itself; also removed ones whose copy there is damaged.
        """
        self.holding = Holding()
        """What the archive has, as of the last look."""
        self.found = Found(folder_id="", proved=None)
        """What the last look has found."""
        self.told: Told | None = None
        """What the state says of this node, as one value; None: not read yet."""
        self._causes: dict[str, str] = {}
        """Why the last step and the last reading failed, if they did."""
        self._failures: dict[int, str] = {}
        """Why segments could not be written or read, each for as long as it lasts."""
        self._unproved: set[str] = set()
        """The files that were not read again after they were written, or not rightly."""
        self._read_id = ""
        """The id of the folder that these were read in; empty: none was read yet."""
        self._proved: set[str] = set()
        """The files that were read since the start of this node."""
        self._rotten: dict[int, tuple[int, ...] | None] = {}
        """
        Removed segments whose copy here is damaged, and what its files then showed
        (`archive_files.changed`); None: it could not be read. It cannot be written again.
        """
        self._unsure: frozenset[int] = frozenset()
        """Segments that could not be read here, and that this node lacks itself."""
        self._kept: Ranges = ()
        """Removed segments that the archive has, as of the last look."""
        self._failed = LastFailures[int]()
        """Segments whose files could not be written or read."""
        self._due: frozenset[int] = frozenset()
        """Segments that are to be read again before this node confirms them again."""
        self._read_ms: dict[int, int] = {}
        """When a segment was last read, since the start of this node."""
        self._now_ms = 0
        self._is_idle = False
        """Whether the last step found nothing to do."""
        self._seen: tuple[object, ...] = ()
        self._looked_s = 0.0

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + READ_AGAIN_S
        while True:
            done = await self._logged("write", self._step_if_due)
            if loop.time() >= due:
                done = await self._logged("read", self.read_again) and done
                due = loop.time() + READ_AGAIN_S
            await asyncio.sleep(PAUSE_S if done else RETRY_S)

    async def _step_if_due(self) -> None:
        """Do a step, unless nothing has changed: a look at all files costs the more the older the log is."""
        now = asyncio.get_running_loop().time()
        seen = await asyncio.to_thread(self._news)
        if self._is_idle and seen == self._seen and now - self._looked_s < LOOK_S:
            return
        await self.step()
        self._seen, self._looked_s = seen, now

    def _news(self) -> tuple[object, ...]:
        with contextlib.closing(open_log(self._state)) as db:
            last, removed = segments.last_sealed(db), archives.removed(db).through
            (stored,) = db.execute("SELECT count(*) FROM stored_segments").fetchone()
            return last, removed, segments.lost(db), stored, self.told, self._due

    async def step(self) -> None:
        """
        Write what the archive lacks, oldest first, and read what it had before.

        A segment that this node lacks is left out until it is fetched, and so is one
        whose files cannot be written. Raises `SegmentError`, `sqlite3.Error` and
        `OSError`.
        """
        lacking = await asyncio.to_thread(self._look)
        failure = await self._each(lacking, self._write_and_tell)
        unread = await asyncio.to_thread(self._unread)
        unreadable = await self._each(unread, self._prove)
        failure = failure or unreadable  # What cannot be written is new every time.
        self._is_idle = not (lacking or unread)
        if lacking or unread:
            await asyncio.to_thread(self._look)
        if failure is not None:
            raise failure

    async def _each(
        self, each: Sequence[Segment], work: Callable[[Segment], None]
    ) -> SegmentError | OSError | None:
        """Run *work* in a thread for each segment, for some seconds; return the first failure."""
        failure: SegmentError | OSError | None = None
        loop = asyncio.get_running_loop()
        ends = loop.time() + ROUND_S
        # What has failed comes last: it must not take the time of the others.
        for segment in sorted(each, key=lambda one: self._failed.last_of(one.number)):
            began = loop.time()
            try:
                await asyncio.to_thread(work, segment)
                self._failed.forget(segment.number)
                self._failures.pop(segment.number, None)
            except (SegmentError, OSError) as error:
                self._failed.add(segment.number)
                self._failures[segment.number] = str(error)
                failure = failure or error
            await asyncio.sleep(REST * (loop.time() - began))
            if loop.time() >= ends:
                break
        return failure

    def _write_and_tell(self, segment: Segment) -> None:
        self._write(segment)
        log.info("segment_archived", extra={"segment": segment.number})

    def not_read(
        self, numbers: frozenset[int], *, now_ms: int, since_ms: int
    ) -> frozenset[int]:
        """
        Return which of these were not read back since a moment; they are read soon.

        What was read later than now was read by a clock that was ahead.
        """
        self._now_ms = now_ms
        self._due = due = frozenset(
            number
            for number in numbers
            if not since_ms <= self._read_ms.get(number, 0) <= now_ms
        )
        return due

    def report(self) -> ArchiveReport:
        """Return what this node says of its archive: the cause, as long as it lasts."""
        # The last step tells of the whole folder; a reading, of a segment only.
        causes = (self._causes.get("write"), *self._failures.values())
        return ArchiveReport.of(str(self.folder), next(filter(None, causes), ""))

    async def read_again(self) -> None:
        """Prove the next archived segment; put a damaged one aside. Raises as `step`."""
        await asyncio.to_thread(self._prove_next)

    async def _logged(self, kind: str, step: Callable[[], object]) -> bool:
        """Return whether the step was done. Log the same cause only once."""
        try:
            await step()  # type: ignore[misc]
        except (SegmentError, sqlite3.Error, OSError) as error:
            cause = str(error)
            if self._causes.get(kind) != cause:
                self._causes[kind] = cause
                log.error("segment_not_archived", extra={"cause": cause})  # noqa: TRY400
            return False
        self._causes.pop(kind, None)
        return True

    def _look(self) -> tuple[Segment, ...]:
        """
        Return the segments that the archive lacks, without lost ones, oldest first.

        What was read of a folder with another id proves nothing of this one.
        """
        told = self.told
        folder_changes = told.folder_changes if told else 0
        with contextlib.closing(open_log(self._state)) as db:
            removed = archives.removed(db).through
            every = segments.all_sealed(db)
            sealed = [each for each in every if each.number > removed]
            stored = dict(db.execute("SELECT number, hash FROM stored_segments"))
            unfetched = missing_in(db, sealed, stored)
            # This node may have found one again.
            declared = frozenset(segments.lost(db))
            lost = frozenset(
                each.number
                for each in sealed
                if each.number in declared
                and stored.get(each.number) != each.hash_after
            )
        try:
            there = archive_files.present(self.folder)
            folder_id = archive_files.folder_id(
                self.folder, self._node_id, self._entropy
            )
        except (SegmentError, OSError):
            away = {each.number for each in sealed} - lost - unfetched
            self.holding, self._kept, self.waiting = Holding(), (), len(away)
            self.found = Found(folder_id="", proved=(), folder_changes=folder_changes)
            raise
        if folder_id != self._read_id:
            self._proved.clear()
            self._read_ms.clear()
            self._read_id = folder_id
        confirmed = told.numbers if told and told.folder_id == folder_id else ()
        archived, proved, lacking, unsure, failing = [], [], [], [], set[int]()
        for each in sealed:
            name = ArchivedFiles.of(self.folder, each).name
            if name in self._unproved:
                failing.add(each.number)
            if name in there and name not in self._unproved:
                archived.append(each.number)
                if name in self._proved or each.number in confirmed:
                    proved.append(each.number)
            elif each.number not in lost and each.number not in unfetched:
                lacking.append(each)
            elif name in there:
                unsure.append(each.number)
        self._unsure = frozenset(unsure)
        kept = [
            each.number
            for each in every[: len(every) - len(sealed)]
            if ArchivedFiles.of(self.folder, each).name in there
        ]
        self._kept = ranges_of(kept)
        self._rotten = {n: at for n, at in self._rotten.items() if n in kept}
        failing |= self._rotten.keys()
        self._failures = {n: why for n, why in self._failures.items() if n in failing}
        self.holding = holding_of(archived)
        self.waiting = len(lacking) + len(self._rotten)
        self.found = Found(
            folder_id=folder_id,
            proved=None if told is None else ranges_of(proved),
            folder_changes=folder_changes,
        )
        return tuple(lacking)

    def _unread(self) -> tuple[Segment, ...]:
        """
        Return what is in the archive by its name alone, or is due; oldest first.

        A copy that this node cannot write is among it if it was damaged and has changed.
        Of those that could not be read, one is: reading a bad disk takes long.
        """
        if self.found.proved is None:
            return ()  # The state may say that this node has read them before.
        held = self.holding.held
        unproved = numbers_of(subtract(held, self.found.proved))
        numbers = unproved | (self._due & numbers_of(held))
        if unreadable := self._unsure | {
            number for number, changed in self._rotten.items() if changed is None
        }:
            numbers |= {min(sorted(unreadable), key=self._failed.last_of)}
        if not numbers and not self._rotten:
            return ()
        with contextlib.closing(open_log(self._state)) as db:
            return tuple(
                each
                for each in segments.all_sealed(db)
                if each.number in numbers or self._has_changed(each)
            )

    def _has_changed(self, segment: Segment) -> bool:
        """Return whether a damaged copy of a removed segment may be another one by now."""
        seen = self._rotten.get(segment.number)
        if seen is None:
            return False
        return archive_files.changed(ArchivedFiles.of(self.folder, segment)) != seen

    def _write(self, segment: Segment) -> None:
        files = ArchivedFiles.of(self.folder, segment)
        self._unproved.add(files.name)
        archive_files.write(
            files,
            segment,
            self._events(segment),
            self._signed(segment),
            node_id=self._node_id,
            is_signed=self._is_signed,
        )
        reach(Point.ARCHIVE_WRITTEN)
        archive_files.prove(files, segment, self._is_signed)
        self._unproved.discard(files.name)
        self._proved.add(files.name)
        self._read_ms[segment.number] = self._now_ms

    def _signed(self, segment: Segment) -> Checkpoint:
        """
        Return a checkpoint of the segment's end, at the time of its last event.

        With the time of now it would say that the log has no later events.
        """
        head = AuditHead(sequence=segment.last_sequence, hash=segment.hash_after)
        return checkpoints.sign(self._sealing, head, at_ms=segment.last_at_ms)

    def _is_signed(self, checkpoint: Checkpoint) -> bool:
        return checkpoints.is_signed(self._sealing, checkpoint)

    def _events(self, segment: Segment) -> Iterator[AuditEvent]:
        skip = 0
        while lines := lines_of(
            self._state,
            segment.number,
            segment.hash_after,
            skip=skip,
            most=PART_EVENTS,
        ):
            yield from map(event_in, lines.splitlines())
            skip += PART_EVENTS
            self._turn.wait(TURN_S)

    def _is_removed(self, number: int) -> bool:
        with contextlib.closing(open_log(self._state)) as db:
            return number <= archives.removed(db).through

    def _prove_next(self) -> None:
        held = (*self._kept, *self.holding.held)
        if not held:
            return
        after = self._read_again
        number = next((max(a, after + 1) for a, b in held if b > after), held[0][0])
        self._read_again = number
        with contextlib.closing(open_log(self._state)) as db:
            segment = segments.find(db, number)
        if segment is None:
            return
        try:
            self._prove(segment)
        except (SegmentError, OSError) as error:
            self._failures[number] = str(error)
            raise
        self._failures.pop(number, None)

    def _prove(self, segment: Segment) -> None:
        files, number = ArchivedFiles.of(self.folder, segment), segment.number
        # Before it is read: another copy may come meanwhile.
        changed = archive_files.changed(files)
        try:
            archive_files.prove(files, segment, self._is_signed)
            if number in self._unsure:  # What this node has written it writes again.
                self._unproved.discard(files.name)
            self._proved.add(files.name)
            self._read_ms[number] = self._now_ms
            self._due -= {number}
            self._rotten.pop(number, None)
        except (SegmentError, OSError) as error:
            # First of all: whatever fails next, what was read before counts no longer.
            self._read_ms.pop(number, None)
            self._proved.discard(files.name)
            if isinstance(error, SegmentError):
                self._unproved.add(files.name)
            try:
                self._look()  # If the whole folder is away, no file is damaged.
            except sqlite3.Error:
                self._unproved.add(files.name)
                raise
            self._unproved.add(files.name)
            if self._is_removed(number):  # It cannot be written again.
                is_of_file = isinstance(error, SegmentError)
                self._rotten[number] = changed if is_of_file else None
                self._look()
                raise SegmentError(
                    f"segment {number} is damaged in the archive, and retention has "
                    f"removed it: take it from another archive: {error}"
                ) from error
            self._look()
            if isinstance(
                error, OSError
            ):  # Perhaps not of the file: it is tried again.
                raise
            archive_files.put_aside(files)
            raise SegmentError(
                f"segment {number} is damaged in the archive: {error}; it was put aside, "
                "and the node writes its own copy again"
            ) from error
