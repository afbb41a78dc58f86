# SPDX-License-Identifier: Apache-2.0
"""
Handlers of archived segments, and of their removal by retention (U2, U4).

A member confirms only what it has read back from its archive, and it speaks for itself
alone. It may be broken, or may lie: so the policy says how many archives must have a
segment, two at first. One member alone then causes no removal, unless it leads. Members
that share one folder have one copy: they tell the id that is in it. After another id
of one of them, all read theirs again: a lost id would make two copies of one.
"""

import re
import sqlite3

from sparecode_node.domain.audit import GENESIS_HASH
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.retention import (
    RENEW_MS,
    counts_since_ms,
    removable_before_ms,
)
from sparecode_node.domain.segments import gone, in_words, ranges_of
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.segments import (
    ConfirmArchive,
    NoteArchive,
    RemoveSegments,
    WithdrawArchive,
)
from sparecode_node.statemachine.handlers.segments import told_holding
from sparecode_node.statemachine.tables import archives, membership, meta, segments

NOTED_MAX = 1_000
"""Segments that one command confirms or removes."""
PLACE_MAX = 256
"""Characters of the name of an archive."""
FOLDER = re.compile(r"[0-9a-f]{32}")
"""The id in the folder of an archive."""


def note_archive(applying: Applying, command: NoteArchive) -> Rejected | None:
    """Apply `NoteArchive`: what a member no longer names does not count any longer."""
    db = applying.db
    if command.node_id != applying.call.node_id:
        return _stale("a member speaks for itself, not for another")
    known = membership.find_node(db, command.node_id)
    if known is not None and known.removed:
        return Rejected(
            Reason.MEMBER_REMOVED, f"{command.node_id} was removed from the cluster"
        )
    holding = told_holding(db, command.through, command.missing)
    newest = segments.find(db, command.through)
    if holding is None or (newest.hash_after if newest else b"") != command.hash_after:
        return _stale("these are no segments of the log")
    if not 0 < len(command.place) <= PLACE_MAX:
        return _stale("the archive has no name, or a long one")
    if command.folder and not FOLDER.fullmatch(command.folder):
        return _stale("this is no id of a folder")
    removed = archives.removed(db).through
    archiver = archives.archiver_of(command.node_id)
    before = archives.numbers_of(db, archiver)
    now = {
        number
        for first, last in holding.held
        for number in range(max(first, removed + 1), last + 1)
    }
    if now and (refused := _has_no_id(db, command)):
        return refused
    new, withdrawn = now - before, before - now
    is_moved = bool(now) and command.folder != archives.folder_of(db, archiver)
    is_news = bool(new or withdrawn or is_moved)
    if not is_news and not _is_renewed(applying, archiver, now):
        return _stale("the cluster knows this")
    if len(new) > NOTED_MAX:  # A member withdraws all of its own at once.
        return _stale("too many segments at once")
    if is_moved:
        meta.write(db, archives.FOLDER_CHANGES, command.folder_changes + 1)
    archives.save(
        db,
        archiver,
        command.place,
        applying.now_ms,
        new=new,
        withdrawn=withdrawn,
        folder=command.folder if now else "",
    )
    words = [
        f"{verb} {in_words(ranges_of(numbers))}"
        for verb, numbers in (("has segments", new), ("no longer confirms", withdrawn))
        if numbers
    ] or [f"still has segments {in_words(ranges_of(now))}"]
    applying.detail = f"{'; '.join(words)}: {command.place}"
    return None


def _has_no_id(db: sqlite3.Connection, command: NoteArchive) -> Rejected | None:
    """Refuse a folder that may be another member's, too: its id would not tell."""
    if not command.folder:
        return _stale("the archive has no id, so it may be another member's")
    if command.folder_changes != archives.folder_changes(db):
        return _stale("the id of a folder has changed since this one was read")
    return None


def _is_renewed(applying: Applying, archiver: str, now: set[int]) -> bool:
    """Return whether it is time that an archiver says again what it has."""
    said_ms = archives.said_ms(applying.db, archiver)
    is_due = applying.now_ms - said_ms >= RENEW_MS
    return bool(now) and (
        is_due or not archives.is_of_last_change(applying.db, archiver)
    )


def confirm_archive(applying: Applying, command: ConfirmArchive) -> Rejected | None:
    """Apply `ConfirmArchive`."""
    db = applying.db
    removed = archives.removed(db)
    begin, end = segments.find(db, command.first), segments.find(db, command.last)
    if begin is None or end is None or begin.number > end.number:
        return Rejected(
            Reason.SEGMENT_UNKNOWN, "the audit log has no such sealed segments", "first"
        )
    if (begin.hash_before, end.hash_after) != (
        command.hash_before,
        command.hash_after,
    ):
        return Rejected(
            Reason.SEGMENT_UNKNOWN,
            "the copy is not of this cluster's audit log: its hashes are others",
            "hash_after",
        )
    if end.number - begin.number >= NOTED_MAX:
        return Rejected(
            Reason.SEGMENT_UNKNOWN, f"at most {NOTED_MAX} segments at once", "last"
        )
    new = range(max(begin.number, removed.through + 1), end.number + 1)
    if not new:
        return Rejected(
            Reason.SEGMENT_UNKNOWN, "these segments were removed already", "first"
        )
    archiver = archives.archiver_named(applying.acting_administrator.name)
    archives.save(db, archiver, command.place, applying.now_ms, new=new)
    applying.detail = (
        f"{plural(len(new), 'segment')}, events {begin.first_sequence} to "
        f"{end.last_sequence}, hash after {end.hash_after.hex()}: {command.place}"
    )
    return None


def withdraw_archive(applying: Applying, command: WithdrawArchive) -> Rejected | None:
    """
    Apply `WithdrawArchive`: the copy counts no longer, so retention keeps more.

    It needs no approval: what is known to be gone must not permit a removal while an
    approver is looked for. What was removed before stays removed, and its record says
    that the copy was withdrawn.
    """
    db = applying.db
    first, last = command.first, command.last
    if (first, last) == (0, 0):
        newest = segments.last_sealed(db)
        first, last = 1, newest.number if newest else 1
    if not 1 <= first <= last:
        return Rejected(
            Reason.SEGMENT_UNKNOWN, "the first segment comes before the last", "first"
        )
    archiver = archives.archiver_named(command.administrator)
    withdrawn = archives.withdraw(db, archiver, first, last)
    removed = archives.note_withdrawal(db, archiver, first, last)
    if not withdrawn and removed is None:
        return Rejected(
            Reason.SEGMENT_UNKNOWN,
            f"{command.administrator} has confirmed no copy of such segments, or it is "
            "withdrawn",
            "administrator",
        )
    words = []
    if withdrawn:
        words.append(f"segments {in_words(ranges_of(withdrawn))} have one copy less")
    if removed is not None:
        words.append(
            f"segments {in_words((removed,))} were removed from the nodes, and do not "
            "come back: only the other archives have them"
        )
    applying.detail = f"{'; '.join(words)}: {command.reason}"
    return None


def remove_segments(applying: Applying, command: RemoveSegments) -> Rejected | None:
    """
    Apply `RemoveSegments`: every node then deletes their events.

    Apply judges all of it again, so neither the node that proposes it nor its clock
    decides what is removed, apart from the time that entries carry.
    """
    db, policy = applying.db, applying.policy
    before = archives.removed(db)
    segment = segments.find(db, command.through)
    if (
        segment is None
        or segment.number <= before.through
        or segment.number - before.through > NOTED_MAX
        or segment.hash_after != command.hash_after
    ):
        return _stale("these are no segments to remove")
    shortened_ms = meta.read(db, archives.SHORTENED, 0)
    limit_ms = removable_before_ms(policy, applying.now_ms, shortened_ms)
    if segment.last_at_ms >= limit_ms:
        return _stale("the policy keeps these segments")
    first = before.through + 1
    since_ms = counts_since_ms(applying.now_ms, shortened_ms)
    copies = archives.copies(db, first, segment.number, since_ms=since_ms)
    # What was declared lost may have been found again, and is then like any other.
    exempt = gone(segments.lost(db), segments.holdings(db).values())
    for number in range(first, segment.number + 1):
        if number not in exempt and copies.get(number, 0) < policy.audit_archive_copies:
            return _stale(f"segment {number} is not in enough archives")
    places = archives.places(db, first, segment.number, since_ms=since_ms)
    archives.remove(db, segment.number, applying.now_ms, places)
    fewest = min(
        (
            copies.get(number, 0)
            for number in range(first, segment.number + 1)
            if number not in exempt
        ),
        default=0,
    )
    # All that is gone so far: the events of earlier removals may be gone, too. Offline
    # verification reads these words (`removed_events` of the client).
    applying.detail = (
        f"{plural(segment.number, 'segment')}, events 1 to {segment.last_sequence}, "
        f"hash before {GENESIS_HASH.hex()}, hash after {segment.hash_after.hex()}: "
        f"the last {segment.number - before.through} are in at least "
        f"{plural(fewest, 'archive')}: "
        f"{archives.words_of(places) or 'none, since they were declared lost'}"
    )
    return None


def _stale(words: str) -> Rejected:
    return Rejected(Reason.STALE_PARAMETERS, words)
