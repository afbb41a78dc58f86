# SPDX-License-Identifier: Apache-2.0
"""Timings and limits of replication, each with the reason for its value."""

from dataclasses import dataclass

COMMAND_BYTES_MAX = 32 * 1024
"""Of one log entry. A commit of this size still applies in milliseconds."""

CALL_BYTES_MAX = 24 * 1024
"""
Of one call before it is stamped: the stamp must not take it over an entry's limit.
"""

CALLS_PER_ENTRY_MAX = 128
"""In one transaction of the state machine, which occupies the engine's thread."""

ENTRIES_IN_FLIGHT_MAX = 2
"""
Appended, not committed. More entries only make batches smaller, not answers faster.
"""

CALLS_BESIDE_MAX = 3
"""
In flight, for another entry or another message to the primary to leave beside them.

With more, what waits leaves together once they are done, unless it fills an entry: an
entry costs every node as much as several calls, and so does a message. With few, a call
waits for no other.
"""

APPEND_BYTES_MAX = 256 * 1024
"""Of the entries in one message to a follower."""

FORWARD_BYTES_MAX = 256 * 1024
"""Of the calls in one message to the primary."""

WINDOW_ENTRIES = 256
"""Sent to a follower and not acknowledged yet: 8 MiB at most."""

PROPOSALS_QUEUED_MAX = 4096
"""Waiting on the primary to be appended; the primary sheds further calls."""

READS_WAITING_MAX = 4096
"""Waiting on the primary for confirmation by a quorum; it sheds further reads."""

MEMBERS_MAX = 9
"""Voters and learners: each further voter makes a commit slower."""

MAX_CLOCK_OFFSET_S = 2.0
"""Between the clock of a primary that stamps and the clocks of a quorum (T5)."""


KEPT_LOG_FACTOR = 8
"""
How many times as long as `log_entries_max` and `log_bytes_max` the log may become while
a member needs it. The log is in memory, so this bounds memory, too.
"""

SNAPSHOT_CHUNK_BYTES = 256 * 1024
"""Of one message of a snapshot: a broken link costs no more than one chunk again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftSettings:
    """Raft's timings, in seconds."""

    heartbeat_s: float = 0.1
    election_min_s: float = 0.4
    election_max_s: float = 0.8
    step_down_s: float = 1.0
    """A leader without contact to a quorum for this time steps down."""
    contact_s: float = 0.5
    """A leader without contact to a quorum for this time takes no proposals."""
    tick_s: float = 0.02
    """The engine looks at its clocks at least this often; messages wake it at once."""
    log_entries_max: int = 8192
    log_bytes_max: int = 32 * 1024 * 1024
    """A longer log is compacted: a snapshot is taken, and the beginning is dropped."""
    log_entries_kept: int = 1024
    log_bytes_kept: int = 4 * 1024 * 1024
    """The end of the log that stays, for followers that were away for a moment."""
    member_stalled_s: float = 300.0
    """
    The log is kept for a member that needs it until the member has made no progress for
    this time. Reading and installing a large snapshot takes minutes.
    """

    def __post_init__(self) -> None:
        """Check the relations that the engine relies on."""
        if not 3 * self.heartbeat_s < self.election_min_s < self.election_max_s:
            raise ValueError(
                "election_min_s must be more than 3 heartbeat_s, and less than"
                " election_max_s"
            )
        if not self.heartbeat_s < self.contact_s <= self.step_down_s:
            raise ValueError("contact_s must lie between heartbeat_s and step_down_s")
        if not (
            0 < 2 * self.log_entries_kept <= self.log_entries_max
            and 0 < 2 * self.log_bytes_kept <= self.log_bytes_max
        ):
            raise ValueError(
                "log_entries_kept and log_bytes_kept may be at most half of"
                " log_entries_max and log_bytes_max"
            )
