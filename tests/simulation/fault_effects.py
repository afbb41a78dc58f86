# SPDX-License-Identifier: Apache-2.0
"""
The effects of faults in a run, as opposed to the attempts.

A partition through which no message was sent, or a power cut that lost nothing, shows
nothing. So each fault is counted where it takes effect, and a campaign in which one
never did has failed.
"""

import collections
import enum

from tests.simulation.kinds import Kind


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
    NAMES_SYNC_FAILED = "failed syncs of file names"
    DISK_FULL = "writes to a full disk"
    IN_PLACE_FAILED = "failed writes of files over themselves"
    STORE_BACK = "entries that a state store lost and applied again"

    PARTITION = "partitions"
    PARTITION_ONE_WAY = "partitions in one direction"
    PARTITION_BRIDGE = "partitions with one node that reaches both sides"
    LEADER_CUT_OFF = "leaders cut off with entries on the way"
    MESSAGE_CUT = "messages dropped by a partition"
    MESSAGE_LOST = "messages lost with their connection"
    MESSAGE_BURST = "messages in a burst after a stall"
    MESSAGE_LATE = "messages late by 50 ms or more"
    MESSAGE_OF_OLD_LINK = "messages of an old connection after a new one began"
    MESSAGE_TWICE = "duplicated messages"
    MESSAGE_REORDERED = "messages out of order"
    HELLO_OVERTAKEN = "links that began with a hello which messages had overtaken"

    SNAPSHOT_TAKEN = "snapshots taken"
    SNAPSHOT_INSTALLED = "snapshots installed"
    CHUNK_REFUSED = "damaged snapshots or chunks refused"
    SNAPSHOT_STOPPED = "snapshots that stopped on their way for a while"
    INSTALLED_AMID_FAULTS = (
        "snapshots installed after an absence, with faults all along"
    )
    INSTALLED_AT_ODD_MOMENT = (
        "installations begun by a candidate, or with entries left to apply"
    )

    LEARNER_ADDED = "learners added"
    LEARNER_PROMOTED = "learners promoted"
    MEMBER_REMOVED = "members removed"
    PRIMARY_TO_REMOVE = "primaries to be removed that handed over first"
    CHANGE_AT_ONCE = "members changed in a cluster that had just begun"
    CHANGE_FAILED = "membership changes refused, or with unknown outcome"
    SLIP = "changes and hand-overs asked for that make no sense"
    CHANGE_ROLLED_BACK = "membership changes truncated as conflicts"
    WIPED = "members that returned without their journal"
    DISK_BACK = "members that returned as an older copy"
    OUTSIDER_HEARD = "messages of removed or wiped nodes refused"
    NEWER_MEMBER = "requests from nodes not known yet"

    ROGUE = "votes asked for by learners"

    ELECTION = "elections won"
    TERM = "terms"
    DEPOSED = "leaders deposed while running"
    CONFLICT = "log entries truncated as conflicts"
    UNKNOWN = "unknown outcomes"
    REPEATED = "retried requests with the same answer"

    POINT_KILL = "processes killed at a fault point"
    POINT_POWER = "machines without power at a fault point"
    POINT_ERROR = "errors at a fault point"
    POINT_DELAY = "delays at a fault point"

    APPLY_FAILED = "entries that one machine could not apply"
    SIGNED_ALONE = "starts with the statement of one operator to skip an entry"
    POISON = "stops at an entry that no machine could apply for a while"

    STATE_CALL_FAILED = "calls on a state's files that failed once"
    OWN_READ_FAILED = "reads of a state's files by the product itself that failed once"
    KILL_IN_STATE_CALL = "killed inside a call on a state's files"
    KILL_IN_CHECKPOINT = "killed inside a checkpoint"
    STATE_PAGES_DROPPED = "bytes of a state dropped by a failed sync"
    STATE_SECTORS_LOST = "unsynced sectors of a state lost"
    STATE_SECTORS_KEPT = "unsynced sectors of a state kept"
    STATE_NAME_LOST = "unsynced names of a state's files lost"
    CHECKPOINT = "checkpoints"
    CHECKPOINT_HELD_BACK = "checkpoints that a reader kept from copying all"
    ROTTEN = "disks that changed something they had reported as written"
    LAST_BATCH_ROTTEN = "last batches of journals that rotted"
    BEFORE_MARK_ROTTEN = "last batches that rotted before the disk had their mark"
    WRITE_LOST = "synced writes to the files of journals that a disk lost"
    ROTTEN_REFUSED = "nodes that refused such a disk"
    LOSS_UNKNOWN = "such disks with lost promises that no other member could know of"
    ROTTEN_ACCEPTED = "nodes that did without what such a disk had changed"
    STATE_BACK = "states that returned as an older copy, without the journal"

    CONNECTION_SILENT = "connections that died silently"
    CONNECTION_ONE_WAY = "connections that died silently in one direction"
    BYTES_SWALLOWED = "messages swallowed by a connection that looked alive"
    CLOSED_LATE = "connections closed at one end first"
    RECORD_DAMAGED = "damaged records that ended a connection"
    CONNECTION_RESET = "connections reset"
    STORM = "reconnect storms"
    SHORT_LIVED = "connections that ended as soon as they had begun"
    MESSAGE_HELD = "messages held back by a partition"
    KEEPALIVE = "dead connections ended by gRPC's own pings"
    LINK_REPLACED = "dead connections replaced by another one before that"
    WAITED_FOR_BANDWIDTH = "milliseconds that messages took to be sent on slow links"
    DISK_SLOW = "disks that became slow for a while"
    FORGIVEN = "times without hearing that were taken out of a silence"
    REFUSED = "calls answered as not applied"
    CORE = "cores left alone"
    CORE_SILENT = "cores left alone with dead connections between them"
    CORE_WITHOUT_PRIMARY = "cores left alone without the primary"
    CORE_PRIMARY_KILLED = "cores left alone whose primary was killed at that moment"
    FETCHED_BESIDE_WRITES = "snapshots installed while the others went on writing"
    COMMITS_STOPPED = "primaries in contact with a majority that could commit nothing"
    ENDED_BY_DEADLINE = "calls and reads that only their deadline ended"
    LOG_NOT_KEPT = "times that a log was too long to be kept for a member"
    HANDED_OVER = "primaries that operators moved to another node"
    STALL = "engines whose thread was held up while the loop went on"

    CROWD = "crowds of callers"
    UPGRADED = "nodes upgraded from an older release"
    LEVEL_RAISED = "feature levels raised while callers came"
    KEY_RETIRED = "keys retired after all seals were replaced"
    LONG_RUN = "runs that committed more than 2,000 entries"
    LONG_LOG = "logs that had more than 2,000 entries at once"

    CALLERS_FULL = "callers refused: too many waited on the node"
    MATCHING_FULL = "callers refused: too many tokencodes waited to be matched"
    FORWARDS_FULL = "callers refused: too many calls waited for the primary"
    PROPOSALS_FULL = "proposals refused by a primary whose queue was full"
    READS_FULL = "reads refused by a primary on which too many waited"
    CHANGES_FULL = "changes of members refused because another one waited"
    INBOX_FULL = "jobs refused by an engine with a full inbox"
    LINK_FULL = "links reset because their queue had as many messages as fit"
    LINK_BYTES_FULL = "links reset because their queue had as many bytes as fit"
    MESSAGE_CALLS_FULL = "forwarded messages with as many calls as fit"
    MESSAGE_BYTES_FULL = "forwarded messages with as many bytes as fit"
    ENTRY_FULL = "entries with as many calls as fit"
    APPEND_FULL = "appends with as many bytes as fit"
    WINDOW_FULL = "times that a follower's window was full"
    BEHIND = "looks at a node that had not caught up"
    LOG_BYTES_FULL = "looks at a log that was too long by its bytes, not its entries"

    TOLD_UNKNOWN = "callers told that the outcome is unknown"
    TOLD_NO_PRIMARY = "callers told that no primary is there"
    TOLD_NO_QUORUM = "callers told that no quorum is there"
    TOLD_CLOCK = "callers told that a clock differs"
    TOLD_OLDER_MEMBER = "callers told that a member is too old for their call"
    TOLD_OVERLOADED = "callers told to come again later"
    TOLD_REMOVED = "callers told that their node was removed"

    MAJORITY_EMPTY = "lost majorities that were started on empty disks"
    MAJORITY_BACK = "lost majorities that returned as older copies"

    @property
    def of_nodes(self) -> bool:
        """Belongs to whole nodes and the connections between them alone."""
        names = list(Effect)
        return names.index(self) >= names.index(Effect.CONNECTION_SILENT)

    @property
    def of_mixes(self) -> bool:
        """Belongs to long runs of whole nodes alone."""
        names = list(Effect)
        return names.index(self) >= names.index(Effect.STALL)

    @property
    def of_files(self) -> bool:
        """Needs simulated files of the state."""
        names = list(Effect)
        begin = names.index(Effect.STATE_CALL_FAILED)
        return begin <= names.index(self) < names.index(Effect.CONNECTION_SILENT)


IN_NODES = {
    Effect.KILL,
    Effect.KILL_IN_FILE_OPERATION,
    Effect.POWER_LOSS,
    Effect.PAUSE,
    Effect.CLOCK_JUMP,
    Effect.SYNC_FAILED,
    Effect.DISK_FULL,
    Effect.ENTRY_LOST,
    Effect.STORE_BACK,
    Effect.PARTITION,
    Effect.PARTITION_ONE_WAY,
    Effect.SNAPSHOT_TAKEN,
    Effect.SNAPSHOT_INSTALLED,
    Effect.LEARNER_ADDED,
    Effect.LEARNER_PROMOTED,
    Effect.MEMBER_REMOVED,
    Effect.CHANGE_FAILED,
    Effect.WIPED,
    Effect.DISK_BACK,
    Effect.ELECTION,
    Effect.TERM,
    Effect.CONFLICT,
    Effect.UNKNOWN,
    Effect.REPEATED,
    Effect.POINT_KILL,
    Effect.POINT_POWER,
    Effect.POINT_ERROR,
    Effect.POINT_DELAY,
}
"""The other effects that must occur to whole nodes, too."""


RARE = {Effect.INSTALLED_AT_ODD_MOMENT}
"""
The effects that a campaign may lack, because few of its runs are about them: a test shows
that they occur (`test_snapshots.py`).
"""

IN_LOST = {
    Effect.STALL,
    Effect.READS_FULL,
    Effect.LINK_FULL,
    Effect.MESSAGE_CALLS_FULL,
    Effect.ENTRY_FULL,
    Effect.APPEND_FULL,
    Effect.WINDOW_FULL,
    Effect.BEHIND,
    Effect.TOLD_UNKNOWN,
    Effect.TOLD_NO_PRIMARY,
    Effect.TOLD_NO_QUORUM,
    Effect.TOLD_CLOCK,
    Effect.TOLD_OVERLOADED,
    Effect.MAJORITY_EMPTY,
    Effect.MAJORITY_BACK,
}
"""The effects of long runs that must occur in short ones whose cluster is lost, too."""

IN_LOST_ALONE = {Effect.MAJORITY_EMPTY, Effect.MAJORITY_BACK}
"""Those of these that are drawn in no others."""


def effects_of(kind: Kind) -> list[Effect]:
    """Return the effects that a campaign must have."""
    if not kind.is_whole:
        files = kind is Kind.FILES
        return [e for e in Effect if not e.of_nodes and (files or not e.of_files)]
    lost = kind is Kind.LOST
    of_mixes = {
        e
        for e in Effect
        if e.of_mixes
        and kind.is_mixed
        and (e in IN_LOST if lost else e not in IN_LOST_ALONE)
    }
    return [
        effect
        for effect in Effect
        if effect in of_mixes
        or (effect.of_nodes and not effect.of_mixes)
        or effect in IN_NODES
    ]


Effects = collections.Counter[Effect]
