# SPDX-License-Identifier: Apache-2.0
"""
Sealed segments of the audit log that a node loses: it must name and fetch them (U1).

A stopped node loses the whole file, or its beginning; or one event of an early segment
is changed, which only reading it again can show: a node reads those first. Under a
running node a page is overwritten, or cannot be read: a reader of the events is refused,
and starts the repair.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from errno import EIO
from pathlib import Path

from local_cluster.cluster import ADMINISTRATOR, LocalNode

from sparecode_client import Admin, SparecodeError
from sparecode_node.statemachine.sealed_events import file_of
from tests.faults.disk_faults import Calls
from tests.faults.site import SEGMENT_EVENTS
from tests.faults.striker import Proof, Striker

EARLY = 4
"""The number of segments, from the first, of which one is spoiled."""
FETCHED_S = 60.0
"""How long a node may take until it has the segments again, and `EACH_S` for each."""
EACH_S = 1.0
DAMAGED = "segment_not_stored"
FETCHED = "segment_fetched"
RECOVERED = "segment_recovered"
"""It came from a file that the node put aside earlier, so no member had to send it."""
STORED_AGAIN = (FETCHED, RECOVERED)
PUT_ASIDE = "segments_put_aside"
SPOILED = b"This was the header of a database."
_POLL_S = 0.1
_CALL = timedelta(seconds=5)


class SegmentStrikes(Striker):
    """All faults of stored segments."""

    def segments_deleted(self) -> Proof:
        """Delete the file, with all segments."""
        return self._lose(_delete, "the file was deleted")

    def segments_spoiled(self) -> Proof:
        """Spoil the file so that it is no database."""
        return self._lose(_spoil, "the file was spoiled")

    def segment_rotten(self) -> Proof:
        """Change one event of a stored segment."""
        node = self._victim()
        early = sorted(_only_in_file(node))[:EARLY]
        node.stop()
        number = self._chance.choice(early) if early else 0
        rotten = _rot(_file(node), number)
        stored_again = [f"{each} segment={number} " for each in STORED_AGAIN]
        damaged, again = self._seen(node, DAMAGED), self._seen(node, *stored_again)
        self._site.start(node)
        if not rotten:
            return Proof(bit=False, words=f"{node.node_id} has no stored segment")
        found_s = self._until(lambda: self._seen(node, DAMAGED) > damaged)
        again_s = self._until(lambda: self._seen(node, *stored_again) > again)
        words = f"an event of segment {number} of {node.node_id} was changed"
        failure = ""
        if found_s is None or again_s is None:
            what = "found" if found_s is None else "stored again"
            failure = f"segment {number} was not {what} for {FETCHED_S:.0f} s"
        return Proof(
            bit=not failure,
            words=f"{words}; named after {found_s or 0:.1f} s, and "
            f"stored again {again_s or 0:.1f} s later",
            failure=failure,
        )

    def segment_page_rotten(self) -> Proof:
        """Overwrite a page with an event of a running node, which an administrator reads."""
        node = self._victim()
        event = self._old_event(node)
        had, aside = _numbers(_file(node)), self._seen(node, PUT_ASIDE)
        if not event or not _zero_page(_file(node), event):
            return Proof(bit=False, words=f"{node.node_id} has no stored segment")

        def is_found() -> bool:
            self._reads(node, event)  # Refused, once.
            return self._seen(node, PUT_ASIDE) > aside

        found_s = self._until(is_found)
        words = (
            f"the page with event {event} of {node.node_id}, which ran, was overwritten"
        )
        if found_s is None:
            return Proof(bit=False, words=words, failure=f"{words}, and not found")
        return self._whole_again(
            node, event, had, f"{words}; found after {found_s:.1f} s"
        )

    def segment_reads_fail(self) -> Proof:
        """Let some reads of the file of a running node fail: a sector is bad, or seems so."""
        node = self._victim()
        event, had = self._old_event(node), _numbers(_file(node))
        if not event:
            return Proof(bit=False, words=f"{node.node_id} has no stored segment")
        times = self._chance.choice([1, 2, 4])
        with self._site.faults(node).inject(
            Calls.READS, error=EIO, times=times, file=_file(node).name
        ) as faults:

            def have_failed() -> bool:
                self._reads(node, event)
                return faults.hits().count >= times

            self._until(have_failed)
            count = faults.hits().count
        words = f"{count} reads of the segments of {node.node_id} failed with EIO"
        if not count:
            return Proof(bit=False, words=words)
        return self._whole_again(node, event, had, words)

    def _whole_again(
        self, node: LocalNode, event: int, had: set[int], words: str
    ) -> Proof:
        """Wait until a running node has its segments again, and shows an old event."""
        again_s = self._until(
            lambda: had <= _numbers(_file(node)) and self._reads(node, event),
            within_s=FETCHED_S + EACH_S * len(had),
        )
        failure = ""
        if again_s is None:
            left = len(had - _numbers(_file(node)))
            failure = f"{left} of {len(had)} segments are not there again"
        return Proof(
            bit=not failure,
            words=f"{words}; {len(had)} segments are there after {again_s or 0:.1f} s",
            failure=failure,
        )

    def _old_event(self, node: LocalNode) -> int:
        """Return the first event of an early segment in the file alone; 0: there is none."""
        early = sorted(_only_in_file(node))[:EARLY]
        number = self._chance.choice(early) if early else 0
        return (number - 1) * SEGMENT_EVENTS + 1 if number else 0

    def _reads(self, node: LocalNode, event: int) -> bool:
        """Return whether a node shows an administrator this event."""
        cluster = self._site.cluster
        try:
            with Admin(
                [node.admin_address], ca=cluster.members_ca, timeout=_CALL
            ) as admin:
                admin.login(ADMINISTRATOR, cluster.password)
                page = admin.list_audit_events(
                    from_sequence=event, page_size=1, stale_ok=True
                )
        except SparecodeError:
            return False
        return [each.sequence for each in page.items] == [event]

    def _victim(self) -> LocalNode:
        """
        Return a node, once it has a segment in its file alone: that takes some seconds.

        It must then come from another member. Retention may have removed earlier ones.
        """
        node = self._chance.choice(self._site.nodes)
        self._until(lambda: bool(_only_in_file(node)))
        return node

    def _lose(self, harm: Callable[[Path], None], words: str) -> Proof:
        node = self._victim()
        node.stop()
        had = _numbers(_file(node))
        harm(_file(node))
        fetched = self._seen(node, FETCHED)
        again = self._seen(node, *STORED_AGAIN)
        self._site.start(node)
        # A segment was not in the state any longer, so the state cannot give it back.
        took_s = self._until(
            lambda: (
                self._seen(node, *STORED_AGAIN) > again and had <= _numbers(_file(node))
            ),
            within_s=FETCHED_S + EACH_S * len(had),
        )
        count = self._seen(node, FETCHED) - fetched
        failure = ""
        if took_s is None:
            left = len(had - _numbers(_file(node)))
            failure = f"{left} of {len(had)} segments were not stored again in time"
        return Proof(
            bit=bool(had) and took_s is not None,
            words=f"{words} on {node.node_id}: {len(had)} segments; all there again "
            f"after {took_s or 0:.1f} s, {count} of them from other members",
            failure=failure,
        )

    def _seen(self, node: LocalNode, *events: str) -> int:
        log = node.log.read_text(errors="replace")
        return sum(log.count(f" {event}") for event in events)

    def _until(
        self, condition: Callable[[], bool], *, within_s: float | None = None
    ) -> float | None:
        """Return after how many seconds a condition held; None: it did not in time."""
        begin = time.monotonic()
        within_s = FETCHED_S if within_s is None else within_s
        while not condition():
            if time.monotonic() > begin + within_s:
                return None
            time.sleep(_POLL_S)
        return time.monotonic() - begin


def _file(node: LocalNode) -> Path:
    return file_of(node.directory / "data" / "state.db")


def _first_in_state(node: LocalNode) -> int:
    """Return the oldest event in a node's state; 0: it cannot be read now."""
    state = node.directory / "data" / "state.db"
    with contextlib.suppress(sqlite3.Error):
        uri = f"file:{state}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1)) as db:
            (first,) = db.execute("SELECT min(sequence) FROM audit_events").fetchone()
            return int(first or 0)
    return 0


def _only_in_file(node: LocalNode) -> set[int]:
    """Return the stored segments whose events the node's state has no more."""
    first = _first_in_state(node)
    return {
        number for number in _numbers(_file(node)) if number * SEGMENT_EVENTS < first
    }


def delete_file(node: LocalNode) -> None:
    """Delete the file with the stored segments of a stopped node."""
    _delete(_file(node))


def _parts(file: Path) -> list[Path]:
    return [file, *(file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))]


def _delete(file: Path) -> None:
    for part in _parts(file):
        part.unlink(missing_ok=True)


def _spoil(file: Path) -> None:
    for part in _parts(file)[1:]:
        part.unlink(missing_ok=True)
    with file.open("r+b") as opened:
        opened.write(SPOILED)


def _rot(file: Path, number: int) -> bool:
    """Change the first event of a stored segment; return whether there was one."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        changed = db.execute(
            "UPDATE audit_events SET detail = detail || '.' WHERE sequence = ?",
            ((number - 1) * SEGMENT_EVENTS + 1,),
        )
        return changed.rowcount == 1


def _zero_page(file: Path, event: int) -> bool:
    """Overwrite the page with an event; return whether there was one."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        (size,) = db.execute("PRAGMA page_size").fetchone()
        row = db.execute(
            "SELECT hash FROM audit_events WHERE sequence = ?", (event,)
        ).fetchone()
    if row is None:
        return False
    content, at = file.read_bytes(), -1
    # A page that was split still has what it had before, and the log may be newer.
    while (at := content.find(row[0], at + 1)) >= 0:
        begin = at // size * size
        _overwrite(file, begin, bytes(size))
        if not _shows(file, event):
            return True
        _overwrite(file, begin, content[begin : begin + size])
    return False


def _overwrite(file: Path, begin: int, page: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(begin)
        opened.write(page)
        os.fsync(opened.fileno())


def _shows(file: Path, event: int) -> bool:
    """Return whether the file has an event, for a program that opens it now."""
    try:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as db:
            found = db.execute(
                "SELECT hash FROM audit_events WHERE sequence = ?", (event,)
            )
            return found.fetchone() is not None
    except sqlite3.DatabaseError:
        return False


def _numbers(file: Path) -> set[int]:
    """Return the numbers of the stored segments; a file that cannot be read has none."""
    with contextlib.suppress(sqlite3.Error):
        uri = f"file:{file}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1)) as db:
            return {
                number for (number,) in db.execute("SELECT number FROM stored_segments")
            }
    return set()
