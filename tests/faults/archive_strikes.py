# SPDX-License-Identifier: Apache-2.0
"""
Archives of the audit log that fail, and retention that removes what they have (U2, U4).

Each node copies its sealed segments to a disk of its own. The disk is full, or files on
it are changed or lost: the node must write them again, and serve meanwhile. The policy
wants a copy in every archive, so in the end each archive alone has the whole log.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from local_cluster.cluster import ADMINISTRATOR, LocalClusterError, LocalNode

from sparecode_client import Admin, AsyncAdmin, SparecodeError
from sparecode_client.audit.archive import ArchivedSegment, archived_segments
from sparecode_client.audit.checkpoints import AuditFileError, read_checkpoint
from sparecode_client.audit.verification import verify_files
from sparecode_client.values.segments import ranges_in
from sparecode_node.statemachine.sealed_events import file_of
from tests.faults.segment_strikes import EACH_S
from tests.faults.site import NODES
from tests.faults.striker import Proof, Striker

ARCHIVED_S = 60.0
"""How long a node may take until its archive is whole again, and `EACH_S` a segment."""
REMOVED_S = 90.0
"""How long it may take until all nodes have deleted the events of removed segments."""
KEPT = timedelta(seconds=5)
"""The retention, while a strike removes segments."""
FOREVER = timedelta(0)
STAYS_S = 8.0
"""How long a withdrawn segment is watched, which stays."""
ARCHIVED = "segment_archived"
NO_SPACE = "No space left on device"
EARLY = 4
"""One of this many segments is damaged: a node reads the first ones first again."""
COPIES = NODES
"""The archives that the policy wants: those of all nodes."""
_CALL = timedelta(seconds=10)
_POLL_S = 0.2


class ArchiveStrikes(Striker):
    """All faults of archives, and the removal of archived segments."""

    # --- Files

    def archive_damaged(self) -> Proof:
        """Change an archived segment of a stopped node, or cut it, or its checkpoint."""
        node = self._chance.choice(self._site.nodes)
        there = self._until_archived(node)
        if not there:
            return Proof(bit=False, words=f"{node.node_id} has archived nothing")
        segment = self._chance.choice(there[:EARLY])
        node.stop()
        how = self._chance.choice([_change, _cut, _forge])
        how(segment)
        begin = self._written(node, segment.number)
        self._site.start(node)
        return self._again(node, segment, begin, f"was damaged ({how.__name__[1:]})")

    def archive_lost(self) -> Proof:
        """Delete a segment's files from the archive of a running node."""
        node = self._chance.choice(self._site.nodes)
        there = self._until_archived(node)
        if not there:
            return Proof(bit=False, words=f"{node.node_id} has archived nothing")
        segment = self._chance.choice(there)
        begin = self._written(node, segment.number)
        segment.events.unlink()
        segment.checkpoint.unlink()
        return self._again(node, segment, begin, "was deleted")

    def _again(
        self, node: LocalNode, segment: ArchivedSegment, begin: int, words: str
    ) -> Proof:
        """Return how long it took until the segment was there again, and is right."""
        within_s = ARCHIVED_S + EACH_S * segment.number
        took_s = self._await(
            lambda: self._written(node, segment.number) > begin, within_s
        )
        failure = ""
        if took_s is None:
            failure = (
                f"segment {segment.number} was not archived again for {within_s:.0f} s"
            )
        elif not _is_right(segment):
            failure = f"segment {segment.number} was archived again, and is wrong"
        return Proof(
            bit=not failure,
            words=f"segment {segment.number} in the archive of {node.node_id} {words}; "
            f"there again after {took_s or 0:.1f} s",
            failure=failure,
        )

    def archive_full(self) -> Proof:
        """Fill the disk of an archive: the node serves, and goes on when there is room."""
        node = self._chance.choice(self._site.nodes)
        disk = self._site.archives[self._site.place(node)]
        refused, archived = self._logged(node, NO_SPACE), self._logged(node, ARCHIVED)
        disk.fill()
        failure = ""
        try:
            took_s = self._await(
                lambda: self._logged(node, NO_SPACE) > refused, ARCHIVED_S
            )
            try:
                self._site.ready(node)
            except LocalClusterError as error:
                failure = f"{node.node_id} does not serve: {error}"
            archived = self._logged(node, ARCHIVED)
        finally:
            disk.free()
        again_s = self._await(
            lambda: self._logged(node, ARCHIVED) > archived, ARCHIVED_S
        )
        if took_s is None or again_s is None:
            what = "refuse to write" if took_s is None else "go on"
            failure = failure or f"{node.node_id} did not {what} in {ARCHIVED_S:.0f} s"
        return Proof(
            bit=not failure,
            words=f"the disk of the archive of {node.node_id} was full; it said so after "
            f"{took_s or 0:.1f} s, served, and archived {again_s or 0:.1f} s after there "
            "was room",
            failure=failure,
        )

    # --- Retention

    def segments_removed(self) -> Proof:
        """Let retention remove what is archived, and kill a node meanwhile."""
        before = self._removed()
        with self._admin() as admin, _retention_of(admin, COPIES):
            began_s = self._await(lambda: self._removed() > before, REMOVED_S)
            node = self._chance.choice(self._site.nodes)
            node.kill()
            self.down.add(node.node_id)
            self._last(0.5, 1)
            self._site.start(node)
            removed = self._removed()
            took_s = self._await(
                lambda: all(_first_stored(each) > removed for each in self._site.nodes),
                REMOVED_S,
            )
        failure = ""
        if began_s is None:
            failure = f"no segment was removed for {REMOVED_S:.0f} s"
        elif took_s is None:
            failure = f"a node still stores what was removed {REMOVED_S:.0f} s ago"
        return Proof(
            bit=not failure,
            words=f"segments {before + 1} to {removed} were removed, the first after "
            f"{began_s or 0:.1f} s; {node.node_id} was killed; no node stored them "
            f"{took_s or 0:.1f} s later",
            failure=failure,
        )

    def copy_withdrawn(self) -> Proof:
        """
        Confirm a copy of some segments as one more archive, and withdraw the last one.

        The policy wants one archive more than there are nodes. So retention may remove
        the others, and not that one. Until the withdrawal, it wants one more than that.
        """
        node = self._chance.choice(self._site.nodes)
        with self._admin() as admin, _retention_of(admin, COPIES + 2):
            self._await(lambda: len(self._common(admin)) > 1, ARCHIVED_S)
            numbers = self._common(admin)
            if len(numbers) <= 1:
                return Proof(bit=False, words="too few segments are in all archives")
            first, last = numbers[0], numbers[-1]
            self._confirm(admin, node, first, last)
            _set_policy(admin, KEPT, COPIES + 1)
            removed_s = self._await(lambda: self._removed() >= last - 1, REMOVED_S)
            # Longer than the primary takes to look at what is due, and to propose it.
            too_much_s = self._await(lambda: self._removed() >= last, STAYS_S)
        failure = ""
        if too_much_s is not None:
            failure = f"segment {last} was removed, although its copy was withdrawn"
        elif removed_s is None:
            failure = f"segments up to {last - 1} were not removed"
        return Proof(
            bit=not failure,
            words=f"a copy of segments {first} to {last} was confirmed, and that of "
            f"{last} withdrawn; the others were removed after {removed_s or 0:.1f} s, "
            f"and it stayed for {STAYS_S:.0f} s",
            failure=failure,
        )

    def _confirm(self, admin: Admin, node: LocalNode, first: int, last: int) -> None:
        """Confirm a copy of a node's archive, and withdraw its last segment at once."""
        copy = [
            each
            for each in archived_segments(self._site.archive(node))
            if first <= each.number <= last
        ]
        read = verify_files(
            [each.events for each in copy],
            [read_checkpoint(each.checkpoint) for each in copy],
        )
        admin.confirm_archive(
            first,
            last,
            hash_before=read.hash_before,
            hash_after=read.hash_after,
            place="a tape",
        )
        admin.withdraw_archive(
            ADMINISTRATOR, "it cannot be read", first=last, last=last
        )

    # --- Looking at archives

    def _until_archived(self, node: LocalNode) -> list[ArchivedSegment]:
        """Return the node's confirmed segments that nodes still have, once it has some."""
        with self._admin() as admin:

            def there() -> list[ArchivedSegment]:
                confirmed = self._confirmed(admin).get(node.node_id, set())
                with contextlib.suppress(AuditFileError):
                    return [
                        each
                        for each in archived_segments(self._site.archive(node))
                        if each.number in confirmed and each.checkpoint.exists()
                    ]
                return []

            self._await(lambda: bool(there()), ARCHIVED_S)
            return there()

    def _confirmed(self, admin: Admin) -> dict[str, set[int]]:
        """Return what each node has confirmed; nothing if no node can say it now."""
        try:
            told = admin.get_status(within=_CALL).audit_retention
        except SparecodeError:
            return {}
        return {
            each.archiver.removeprefix("node:"): {
                number
                for first, last in ranges_in(each.segments)
                for number in range(first, last + 1)
            }
            for each in (told.archives if told else ())
        }

    def _common(self, admin: Admin) -> list[int]:
        """
        Return the first segments that nodes have, if all archives have them, without a gap.

        Retention removes nothing before them. A node that has joined confirms later ones
        first.
        """
        confirmed = self._confirmed(admin)
        each = [confirmed.get(node.node_id, set()) for node in self._site.nodes]
        numbers = sorted(set.intersection(*each))
        first = self._removed() + 1
        return [
            number for place, number in enumerate(numbers) if number == first + place
        ]

    def _removed(self) -> int:
        """Return the last removed segment, by the state of any node; 0: none."""
        return max(_removed_by(node) for node in self._site.nodes)

    @contextmanager
    def _admin(self) -> Iterator[Admin]:
        cluster = self._site.cluster
        addresses = [each.admin_address for each in self._site.nodes]
        with Admin(addresses, ca=cluster.members_ca, timeout=_CALL) as admin:
            admin.login(ADMINISTRATOR, cluster.password)
            admin.confirm_with(lambda _: cluster.password)
            yield admin

    def _logged(self, node: LocalNode, words: str) -> int:
        return node.log.read_text(errors="replace").count(words)

    def _written(self, node: LocalNode, number: int) -> int:
        """Return how often a node has archived a segment."""
        return self._site.values(node, ARCHIVED, "segment").count(number)

    def _await(self, condition: Callable[[], bool], within_s: float) -> float | None:
        """Return after how many seconds a condition held; None: it did not in time."""
        begin = time.monotonic()
        while not condition():
            if time.monotonic() > begin + within_s:
                return None
            time.sleep(_POLL_S)
        return time.monotonic() - begin


@contextmanager
def _retention_of(admin: Admin, copies: int) -> Iterator[None]:
    """Let retention remove what this many archives have, and keep all afterwards."""
    _set_policy(admin, KEPT, copies)
    try:
        yield
    finally:
        _set_policy(admin, FOREVER, COPIES)


def _set_policy(admin: Admin, kept: timedelta, copies: int) -> None:
    policy = admin.get_policy()
    admin.update_policy(
        replace(policy, audit_retention=kept, audit_archive_copies=copies)
    )


async def want_all_archives(admin: AsyncAdmin) -> None:
    """Let the policy want every segment in the archives of all nodes."""
    policy = await admin.get_policy()
    await admin.update_policy(replace(policy, audit_archive_copies=COPIES))


def _change(segment: ArchivedSegment) -> None:
    with segment.events.open("r+b") as file:
        content = file.read()
        place = content.index(b'"detail"') + 1
        file.seek(place)
        file.write(b"D")


def _cut(segment: ArchivedSegment) -> None:
    with segment.events.open("r+b") as file:
        file.truncate(segment.events.stat().st_size // 2)


def _forge(segment: ArchivedSegment) -> None:
    text = segment.checkpoint.read_text()
    segment.checkpoint.write_text(text.replace('"sequence": ', '"sequence": 1'))


def _is_right(segment: ArchivedSegment) -> bool:
    try:
        checkpoint = read_checkpoint(segment.checkpoint)
        return verify_files([segment.events], [checkpoint]).problem is None
    except AuditFileError:
        return False


def _removed_by(node: LocalNode) -> int:
    state = node.directory / "data" / "state.db"
    with contextlib.suppress(sqlite3.Error):
        uri = f"file:{state}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1)) as db:
            (through,) = db.execute(
                "SELECT max(through) FROM removed_segments"
            ).fetchone()
            return int(through or 0)
    return 0


def _first_stored(node: LocalNode) -> int:
    """Return the first segment in a node's file; 0: it cannot be read now."""
    file = file_of(node.directory / "data" / "state.db")
    with contextlib.suppress(sqlite3.Error):
        uri = f"file:{file}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=1)) as db:
            (first,) = db.execute("SELECT min(number) FROM stored_segments").fetchone()
            (event,) = db.execute("SELECT min(sequence) FROM audit_events").fetchone()
            if first is None or event is None:
                return 1 << 60
            return int(first)
    return 0
