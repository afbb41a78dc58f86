# SPDX-License-Identifier: Apache-2.0
"""
The effects of faults in a run, as opposed to the attempts.

A partition through which no message was sent, or a power cut that lost nothing, shows
nothing. So each fault is counted where it takes effect, and a campaign in which one
never did has failed.
"""

import collections
import enum


class Effect(enum.Enum):
    """An effect of a fault. The value is what a person reads."""

    KILL = "processes killed"
    KILL_IN_FILE_OPERATION = "killed inside a file operation"
    KILL_IN_TRANSACTION = "killed inside a transaction"
    POWER_LOSS = "machines without power"
    ALL_DOWN = "times that all machines were down at once"
    PAUSE = "pauses"
    MESSAGE_KEPT_WAITING = "messages delayed by a paused node"
    CLOCK_JUMP = "clock jumps"
    STAMP_BACK = "entries stamped earlier than the previous one"

    BYTES_LOST = "unsynced journal bytes lost"
    BYTES_TORN = "torn journal bytes"
    NAME_LOST = "unsynced file names lost"
    ENTRY_LOST = "unsynced log entries lost"
    SYNC_FAILED = "failed syncs"
    PAGES_DROPPED = "journal bytes dropped by a failed sync"
    DISK_FULL = "writes to a full disk"
    STORE_BACK = "entries that a state store lost and applied again"

    PARTITION = "partitions"
    PARTITION_ONE_WAY = "partitions in one direction"
    PARTITION_BRIDGE = "partitions with one node that reaches both sides"
    MESSAGE_CUT = "messages dropped by a partition"
    MESSAGE_LOST = "messages lost with their connection"
    MESSAGE_BURST = "messages in a burst after a stall"
    MESSAGE_LATE = "messages late by 50 ms or more"
    MESSAGE_OF_OLD_LINK = "messages of an old connection after a new one began"
    MESSAGE_TWICE = "duplicated messages"
    MESSAGE_REORDERED = "messages out of order"

    SNAPSHOT_TAKEN = "snapshots taken"
    SNAPSHOT_INSTALLED = "snapshots installed"
    CHUNK_REFUSED = "damaged snapshots or chunks refused"

    LEARNER_ADDED = "learners added"
    LEARNER_PROMOTED = "learners promoted"
    MEMBER_REMOVED = "members removed"
    PRIMARY_TO_REMOVE = "removed primaries that handed over first"
    CHANGE_FAILED = "membership changes refused, or with unknown outcome"
    CHANGE_ROLLED_BACK = "membership changes truncated as conflicts"
    WIPED = "members that returned without their journal"
    DISK_BACK = "members that returned as an older copy"
    OUTSIDER_HEARD = "messages of removed or wiped nodes refused"
    NEWER_MEMBER = "requests from nodes not known yet"

    ELECTION = "elections won"
    TERM = "terms"
    DEPOSED = "leaders deposed while running"
    CONFLICT = "log entries truncated as conflicts"
    UNKNOWN = "unknown outcomes"
    REPEATED = "retried requests with the same answer"


Effects = collections.Counter[Effect]
