# SPDX-License-Identifier: Apache-2.0
"""
Fault points: the places at which a crash, a delay or an error has a meaning of its own.

The code calls `reach` at each of them, as FoundationDB does with BUGGIFY and etcd with
gofail. Tests install a hook that stops the process there, delays it, or raises an
`OSError`: `docs/results/fault-points.md` lists the points and what acted there.

A node in production has no hook. Only code of this process can install one: there is
no setting, environment variable or call for it, and no module of the product does it.
Without a hook a point costs a call and one comparison, 0.1 µs.
"""

import enum
from collections.abc import Callable
from typing import TypeAlias


class Point(enum.Enum):
    """
    A fault point. The value tells what is done and what is not when it is reached.

    The second value: an `OSError` may occur here, as the operating system raises it.
    """

    def __init__(self, meaning: str, fails: bool = False) -> None:  # noqa: FBT001,FBT002
        self.meaning = meaning
        self.fails = fails

    # --- The journal
    JOURNAL_WRITE = "A batch is gathered in memory; nothing is written.", True
    JOURNAL_SYNC = "A batch is written; a power cut drops or tears it.", True
    JOURNAL_SYNCED = "A batch is on disk; the mark that says so is not written."
    JOURNAL_SHORTER_SYNC = "A shorter journal is written beside, not synced.", True
    JOURNAL_SHORTER_WRITTEN = "A shorter journal is on disk under another name."
    JOURNAL_RENAME = "The new journal is complete; the name has the old one.", True
    JOURNAL_RENAMED = "The new journal has the name; the folder is not synced.", True
    JOURNAL_TAIL_CUT = "A torn tail is cut off; the rest is not synced again.", True
    START_COUNTED = "This start is counted on disk; no member has heard of it."
    TERM_WRITE = "A new term or vote is decided in memory alone."
    TERM_WRITTEN = "A new term or vote is on disk; no member has heard of it."
    ENTRIES_CUT = "Entries that conflict with the leader's are cut off in memory."

    # --- Entries
    ENTRY_APPENDED = "The primary has appended an entry, and sent it to no member."
    ENTRIES_SENT = "Entries are sent to a follower, and perhaps not on this disk."
    ACKNOWLEDGE = "Entries of the leader are on disk; it has not been told."
    ACKNOWLEDGED = "A follower's acknowledgement is heard, and not counted."
    COMMITTED = "The commit index has grown; the entries are not applied."
    APPLY = "A committed entry is about to be applied."
    APPLY_CALL = "Within the transaction: another call of the entry begins."
    APPLY_COMMIT = "The transaction of an entry has all its rows, no commit."
    APPLIED = "The transaction is committed; memory and callers do not know."
    ANSWER = "An entry is applied; its callers have no answer."
    LEADERSHIP_LOST = "A leader steps down; callers of open entries know nothing."

    # --- Reads, forwarded calls, handing over
    READ_ROUND = "A leader asks the members to confirm it, for reads."
    READ_CONFIRMED = "A quorum has confirmed the leader; the reads have no answer."
    READ_POINT = "A replica knows the index to read at; its reads still wait."
    FORWARD = "Calls are about to be forwarded to the primary."
    FORWARD_TAKEN = "The primary has forwarded calls, and has proposed none."
    FORWARD_REPLY = "The primary has results of forwarded calls, and sends them."
    FORWARD_ANSWERED = "The answers are back; the callers do not have them."
    HAND_OVER = "The primary takes no calls and tells its successor to campaign."
    CALLED_UP = "A node was told to take over, and has not begun to campaign."

    # --- Members
    MEMBERS_APPENDED = "A change of members is in the primary's log, and not sent."
    MEMBERS_TAKEN = "A node counts by other members, which are not on its disk."
    MEMBERS_COMMITTED = "A change of members is committed; its caller waits."
    JOIN_ADMITTED = "A joining node is admitted, and has none of its files."
    RENEWAL_RECORDED = "A renewal is in the audit log; nothing is signed."
    CERTIFICATE_RECORDED = "The key of a new certificate is recorded, and not shown."
    CERTIFICATE_SHOWN = "A new certificate is taken; old links still show the old one."

    # --- Snapshots and the shorter log
    SNAPSHOT_BEGIN = "A snapshot is due; the file of the last attempt is gone."
    SNAPSHOT_WRITTEN = "The state is copied; nothing describes the copy."
    SNAPSHOT_SYNC = "A snapshot is about to be synced.", True
    SNAPSHOT_NAMED = "A snapshot is on disk under its name, without a manifest.", True
    SNAPSHOT_MANIFEST = "The manifest is on disk under another name.", True
    SNAPSHOT_REPLACED = "The manifest is renamed; the folder is not synced.", True
    SNAPSHOT_TAKEN = "The new snapshot counts; the old one is still there."
    SNAPSHOT_LENT = "A part of the snapshot is about to be sent to a member."
    SNAPSHOT_PART = "A part of a snapshot has arrived, and is not written.", True
    SNAPSHOT_COMPLETE = "All parts have arrived; nothing is synced or checked.", True
    INSTALL = "A received snapshot is this node's own; its state is the old one.", True
    INSTALL_COPY = "The snapshot is about to be copied over the state.", True
    INSTALLED = "The state is the snapshot's; the journal is the old one."
    INSTALL_REBASED = "State and journal are the snapshot's; the engine does not know."
    LOG_SHORTENED = "The log is shorter; nothing else has happened since."

    # --- The state's files
    CHECKPOINT_SYNC = "A checkpoint begins: the write-ahead log is not synced.", True
    CHECKPOINT_COPY = "The write-ahead log is synced, and not copied.", True
    CHECKPOINT_SUMS = "Pages are copied; their checksums are not recorded.", True
    CHECKPOINT_DONE = "A checkpoint is done; the log may begin after it."
    FORMAT_CHANGE = "The tables are about to get the format of another level."
    LEVEL_RAISE = "All members know a higher level; raising it is not proposed."

    # --- The audit log
    SEGMENT_SEALED = "Within the transaction: a segment of the audit log is sealed."
    SEGMENT_DROPPED = "Within the transaction: stored events leave the state."
    SEGMENT_COMMIT = "A sealed segment is in its file, without a commit.", True
    SEGMENT_STORED = "A sealed segment is stored; the state still has its events."
    SEGMENT_FETCHED = "A segment of another member has arrived, and is not stored."
    SEGMENT_REMOVED = "Removed events are deleted in their file, no commit.", True
    SEGMENT_ASIDE = "The log of a damaged file is renamed; the file is not.", True
    ARCHIVE_SYNC = "A file of the archive is written, and not synced.", True
    ARCHIVE_RENAME = "A file of the archive is on disk under another name.", True
    ARCHIVE_WRITTEN = "A segment is in the archive, and was not read again.", True

    # --- Keys and backups
    RING_WRITE = "A key is in memory; the file of the key ring lacks it.", True
    RING_WRITTEN = "The key ring is on disk; who has waited for it does not know."
    KEY_HELD = "This node holds a new key; the other members may lack it."
    KEY_ACTIVATE = "Every voter holds the new key; the state uses the old one."
    SEALS_REPLACED = "New seals are computed; the state has the old ones."
    BACKUP_PERMITTED = "A backup is permitted in the log; no copy is taken."
    BACKUP_COPIED = "The state is copied for a backup, in clear, in a folder."
    BACKUP_SENT = "A backup was read to its end; the log does not record it."

    # --- Notices
    NOTICE_DELIVER = "A committed notice is about to be delivered."
    NOTICE_DELIVERED = "A notice is delivered; the state does not know."
    NOTICE_ACKNOWLEDGED = (
        "The state forgets a delivered notice; the lane does not know."
    )
    EVENT_FILE_WRITE = "Events are about to be written to the file of events.", True

    # --- Stopping, recovering
    STOP_LEAVE = "A node that stops takes no more callers, and may still lead."
    STOP_LEFT = "A node that stops has handed over; everything still runs."
    STOP_ENGINE = "The engine has ended; the tables have the newest format."
    RECOVERY_LOG = "A recovery has begun a journal, and its first entry is missing."


Hook: TypeAlias = Callable[[Point], object]

_hook: Hook | None = None


def reach(point: Point) -> None:
    """Do nothing, unless a test has installed a hook."""
    if _hook is not None:
        _hook(point)


def install(hook: Hook | None) -> Hook | None:
    """Install the hook of a test, or none; return the one before."""
    global _hook
    before, _hook = _hook, hook
    return before
