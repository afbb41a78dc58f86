# SPDX-License-Identifier: Apache-2.0
"""
What the checks of a run have compared, as opposed to whether they were called.

A check of logs that share no entry, of reads without an answer, or of codes that were
never spent passes and shows nothing. So each comparison is counted, and a campaign in
which one never happened has failed.
"""

import collections
import enum

from tests.simulation.kinds import Kind


class Comparison(enum.Enum):
    """A kind of comparison. The value is what a person reads."""

    LEADER = "leaders that were the only one of their term"
    COMPLETE = "committed entries that a new leader had"
    LOGS = "pairs of logs with shared, equal entries"
    APPLIED = (
        "entries applied again with the same result, by another node or after a restart"
    )
    ANSWERED = "calls, reads and changes answered once and in time"
    READ = "reads that covered everything committed before"
    NOT_APPLIED = "calls answered as not applied, and not in the log"
    CHANGE_NOT_APPLIED = "changes of members called not applied, and not in the log"
    STAMP = "stamping clocks that agreed with a quorum"
    DIGEST = "states with the same digest as the others"
    CHANGE = "acknowledged membership changes, in force to the end"
    CONFIGURATION = "changes of voters, each by at most one"
    INSTALLED = "installed snapshots that were newer, committed and complete"
    HEALED = "clusters that wrote and read again after healing"

    VOTE = "votes, each the only one of its journal in a term"
    VOTE_KEPT = "starts of voters that still had their last vote"
    PRE_VOTE = "pre-votes granted where no leader was heard"
    START_SEEN = "starts of other members, on disk before they counted"
    REMEMBERED = "promises of other members, remembered and then in the file"
    CAMPAIGN = "candidates that enough voters had wanted"
    ELECTED = "leaders with the votes of enough voters"
    ACKNOWLEDGED = "acknowledged entries that were the leader's"
    OUTSIDER_ASKED = "requests of others than voters for a vote, beside a live primary"
    REFUSED_REMOVED = "removed members refused, each after its removal was committed"
    REFUSED_RETURNED = "members refused for what they had lost, each after a loss"
    COUNTED = "members of whom a leader counted what they had"
    RETURNED = "members counted, or found to have an entry, after they had lost others"
    COMMITTED = "commit indexes of leaders that a majority had on disk"
    STAMPED = "stamps of primaries that had applied what came before"
    CHANGE_BEGUN = "looks at a change of members that was not committed yet"
    PROMOTED = "looks at new voters that had caught up"
    LONG_LOG = "looks at logs too long for a while, which no member needed"
    KEPT = "looks at logs that were kept for a member, none of them too long"
    CONFIRMED = "confirmations of a leader in the term of the member that confirms"
    READ_CONFIRMED = "answers of leaders to a read, confirmed by a majority after it"
    SNAPSHOT_MEMBERS = "snapshots with the term and the members of the log there"

    REFERENCE = "states compared with a machine that never failed"
    TOLD = "acknowledged requests found at their index"
    REPEATED = "retries with the same answer"
    SPENT = "codes and tokencodes, each spent by one request"
    WRONG = "refused guesses"
    ISSUED = "uses of a code whose set was issued and not void"
    SEALED = "sealed audit events, on a machine as in the log"
    FETCHED = "sealed segments fetched from another machine, and proved"
    ROTTEN = "damaged segments found by reading them again"
    FORGED = "sealed segments that came forged from another machine, and did not count"
    STORED = "sealed segments that a node told of, proved again"
    DISCARDED = "sealed segments that a node may discard, and every voter has stored"
    RETIRED = "retired keys, on each machine, that nothing was sealed with"
    OPENED = "sealed values that opened with the key that their row names"
    WORKS = "codes that worked after rotations of the key"
    ARCHIVED = "segments read back from archives"
    REMOVED = "removed segments that enough archives had been read back of"
    SHARED = "removed segments, after the id of a folder that members share had changed"
    ACROSS = "removed audit events, in archives as in the log"
    CHALLENGED = "judged answers to challenges, the first of each"
    ENDING = "uses of a code before its end"

    NOTICE = "notices of committed events that arrived"
    NOTICE_REPEATED = "notices that arrived again, under the same id"
    NOTICE_ORDER = "notices that came after earlier ones of their subject"
    NOTICE_DROPPED = "dropped notices, which the audit log has told"
    STREAMED = "events of a stream, in order and without a gap"

    RECOVERED = "acknowledged changes that a survivor had, and its new cluster has"
    RESTORED = "codes and tokencodes that were spent before a restore"
    SPENT_AGAIN = "tries of what was spent in the old cluster, all refused"
    OLD_MEMBER = "looks at a member of the old cluster, which counts no more"

    CORE = "calls and reads of a core left alone, each answered"
    WAITED = "syncs that an engine's thread waited for, of its journal alone"
    TURN = "snapshots written in good health while most members wrote none"
    READ_COVERED = "reads of callers, confirmed by a majority after they asked"
    CORE_TIME = "looks at a core that was never without answers for too long"

    ROT_NAMED = "journals that lacked a synced batch, and were refused"
    AHEAD = "states that had applied what their journal lacked, and were refused"

    RAISED = "looks at a cluster of a raised feature level, which each member knew"
    READABLE = "calls at an older feature level, in words that its members know"

    @property
    def of_codes(self) -> bool:
        """Needs the real state machine."""
        names = list(Comparison)
        begin, end = Comparison.REFERENCE, Comparison.ENDING
        return names.index(begin) <= names.index(self) <= names.index(end)

    @property
    def of_segments(self) -> bool:
        """Needs machines with files of sealed events, which are kept in memory."""
        return self in (Comparison.SEALED, Comparison.FETCHED, Comparison.ROTTEN)

    @property
    def of_rot(self) -> bool:
        """Needs disks that change what they have reported as written."""
        return self in (Comparison.ROT_NAMED, Comparison.AHEAD)

    @property
    def of_keys(self) -> bool:
        """Needs runs in which keys are rotated."""
        return self in (Comparison.RETIRED, Comparison.OPENED, Comparison.WORKS)

    @property
    def of_archives(self) -> bool:
        """Needs archives and retention, which only `make sim` has."""
        return self in (
            *(Comparison.ARCHIVED, Comparison.REMOVED, Comparison.SHARED),
            Comparison.ACROSS,
            *(Comparison.FORGED, Comparison.STORED, Comparison.DISCARDED),
        )

    @property
    def of_outbox(self) -> bool:
        """Needs channels."""
        names = list(Comparison)
        begin, end = Comparison.NOTICE, Comparison.STREAMED
        return names.index(begin) <= names.index(self) <= names.index(end)

    @property
    def of_new_clusters(self) -> bool:
        """Needs runs whose cluster is lost, and another one begins."""
        names = list(Comparison)
        begin, end = Comparison.RECOVERED, Comparison.OLD_MEMBER
        return names.index(begin) <= names.index(self) <= names.index(end)

    @property
    def of_levels(self) -> bool:
        """Needs nodes of an older release."""
        return self in (Comparison.RAISED, Comparison.READABLE)

    @property
    def of_nodes(self) -> bool:
        """Needs whole nodes."""
        names = list(Comparison)
        begin, end = Comparison.CORE, Comparison.CORE_TIME
        return names.index(begin) <= names.index(self) <= names.index(end)


def comparisons_of(kind: Kind, *, recording: bool = False) -> list[Comparison]:
    """Return the comparisons that a campaign must have made."""
    files = kind is Kind.FILES
    wanted = [c for c in Comparison if kind is Kind.OUTBOX or not c.of_outbox]
    wanted = [c for c in wanted if kind.is_mixed or not c.of_new_clusters]
    wanted = [c for c in wanted if not (files and c.of_segments)]
    wanted = [c for c in wanted if files or not c.of_rot]
    wanted = [c for c in wanted if kind is Kind.MIXED or not c.of_levels]
    if kind is not Kind.ENGINES:
        wanted = [c for c in wanted if not (c.of_archives or c.of_keys)]
    if kind.is_whole:
        # Listeners of whole nodes refuse a removed machine: no engine hears of it.
        return [
            c for c in wanted if not (c.of_segments or c is Comparison.OUTSIDER_ASKED)
        ]
    return [c for c in wanted if not (c.of_nodes or (recording and c.of_codes))]


Comparisons = collections.Counter[Comparison]
