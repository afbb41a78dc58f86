# SPDX-License-Identifier: Apache-2.0
"""
What the faults of a run have done, as opposed to what was tried.

A partition through which nobody wanted to send, or a power cut after which
everything was still there, shows nothing. So each fault is counted where it
takes effect, and a campaign in which one never did has failed.
"""

import collections
import enum


class Effect(enum.Enum):
    """An effect of a fault. The value is what a person reads."""

    KILL = "processes killed"
    KILL_IN_FILE_OPERATION = "killed inside a file operation"
    KILL_IN_TRANSACTION = "killed inside a transaction"
    POWER_LOSS = "machines without power"
    ALL_DOWN = "times that all went down at once"
    PAUSE = "pauses"
    MESSAGE_KEPT_WAITING = "messages kept waiting by a paused node"
    CLOCK_JUMP = "clocks that jumped"
    STAMP_BACK = "entries stamped earlier than the one before"

    BYTES_LOST = "journal bytes lost before their sync"
    BYTES_TORN = "journal bytes torn"
    NAME_LOST = "file names lost before their sync"
    ENTRY_LOST = "log entries lost before their sync"
    SYNC_FAILED = "syncs that failed"
    PAGES_DROPPED = "journal bytes that a failed sync dropped"
    DISK_FULL = "writes without room"
    STORE_BACK = "entries that a state store lost and got again"

    PARTITION = "partitions"
    PARTITION_ONE_WAY = "partitions in one direction"
    PARTITION_BRIDGE = "partitions with a node on both sides"
    MESSAGE_CUT = "messages that a partition cut off"
    MESSAGE_LOST = "messages lost with their connection"
    MESSAGE_BURST = "messages that came in a burst after a stall"
    MESSAGE_LATE = "messages late by 50 ms or more"
    MESSAGE_OF_OLD_LINK = "messages of an old connection during a new one"
    MESSAGE_TWICE = "messages that came twice"
    MESSAGE_REORDERED = "messages out of order"

    SNAPSHOT_TAKEN = "snapshots taken"
    SNAPSHOT_INSTALLED = "snapshots installed"
    CHUNK_REFUSED = "damaged snapshots or parts of them refused"

    LEARNER_ADDED = "learners added"
    LEARNER_PROMOTED = "learners promoted"
    MEMBER_REMOVED = "members removed"
    PRIMARY_TO_REMOVE = "primaries that had to go, and handed over first"
    CHANGE_FAILED = "changes of members refused, or of unknown outcome"
    CHANGE_ROLLED_BACK = "changes of members cut off as conflicts"
    WIPED = "members that came back without their journal"
    OUTSIDER_HEARD = "messages of removed or wiped nodes refused"
    NEWER_MEMBER = "requests of nodes that were not known yet"

    ELECTION = "elections won"
    TERM = "terms passed"
    DEPOSED = "leaders that lost their leadership and lived"
    CONFLICT = "log entries cut off as conflicts"
    UNKNOWN = "outcomes unknown"
    REPEATED = "requests asked again and answered alike"


Effects = collections.Counter[Effect]
