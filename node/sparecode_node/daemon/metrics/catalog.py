# SPDX-License-Identifier: Apache-2.0
"""Every metric of a node: its name, type, labels and meaning."""

import enum
from dataclasses import dataclass

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CALLS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SNAPSHOTS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Kind(enum.StrEnum):
    """The types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; a counter's name ends in `_total`."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


BUILD = Metric(
    "sparecode_build_info",
    Kind.GAUGE,
    "Always 1; the label is the version of the software.",
    ("version",),
)
READY = Metric(
    "sparecode_ready", Kind.GAUGE, "1 if the node is ready to serve (/readyz)."
)

# --- Raft

TERM = Metric("sparecode_raft_term", Kind.GAUGE, "The current Raft term.")
IS_PRIMARY = Metric(
    "sparecode_is_primary", Kind.GAUGE, "1 if this node is the primary."
)
PRIMARY_KNOWN = Metric(
    "sparecode_primary_known", Kind.GAUGE, "1 if this node knows the primary."
)
PRIMARY_CHANGES = Metric(
    "sparecode_primary_changes_total",
    Kind.COUNTER,
    "Changes of the primary that this node has seen.",
)
CONTACT = Metric(
    "sparecode_quorum_contact",
    Kind.GAUGE,
    "1 if the node was recently in contact with a quorum, directly or through the "
    "primary.",
)
COMMIT_INDEX = Metric(
    "sparecode_commit_index",
    Kind.GAUGE,
    "Index of the last entry that this node knows to be committed.",
)
APPLIED_INDEX = Metric(
    "sparecode_applied_index",
    Kind.GAUGE,
    "Index of the last entry applied to the state.",
)
APPLY_LAG = Metric(
    "sparecode_apply_lag_entries",
    Kind.GAUGE,
    "Entries that this node knows to be committed and has not applied yet.",
)
REFUSED_AS_OLDER = Metric(
    "sparecode_refused_as_older_copy",
    Kind.GAUGE,
    "1 if another member has refused this node, because its disk went back in time.",
)
OLDER_COPIES = Metric(
    "sparecode_older_copies",
    Kind.GAUGE,
    "Nodes that this node refuses, because their disks went back in time.",
)
LOG_ENTRIES = Metric("sparecode_log_entries", Kind.GAUGE, "Entries in the log.")
LOG_BYTES = Metric("sparecode_log_bytes", Kind.GAUGE, "Size of all entries in the log.")
LOG_KEPT_FOR = Metric(
    "sparecode_log_kept_for_members",
    Kind.GAUGE,
    "Members for which this node keeps its newest snapshot and the log after it, until "
    "they have fetched a snapshot and caught up.",
)
LOG_KEPT_RATIO = Metric(
    "sparecode_log_kept_ratio",
    Kind.GAUGE,
    "Length of the log divided by its bound, while it is kept for members; else 0. The "
    "bound is eight times `log_entries_max` and `log_bytes_max`.",
)
LOG_GIVEN_UP = Metric(
    "sparecode_log_given_up_total",
    Kind.COUNTER,
    "Times that this node stopped keeping the log for a member that had not caught up: "
    "the log had reached its bound, or the member had received and applied nothing for "
    "five minutes.",
)
SNAPSHOTS_OUTDATED = Metric(
    "sparecode_snapshots_outdated_total",
    Kind.COUNTER,
    "Snapshots that did not bring this node up to date, because the other members had "
    "dropped the entries after them. The node waits, and fetches another one.",
)
PEER_CONNECTED = Metric(
    "sparecode_peer_connected",
    Kind.GAUGE,
    "1 if the Raft link to this member is up.",
    ("peer",),
)
PEER_REACHABLE = Metric(
    "sparecode_peer_reachable",
    Kind.GAUGE,
    "1 if this member answered the last request for its status.",
    ("peer",),
)
PEER_CLOCK_OFFSET = Metric(
    "sparecode_peer_clock_offset_seconds",
    Kind.GAUGE,
    "Clock of this member minus the node's own, estimated from one round trip.",
    ("peer",),
)

# --- Writing

PROPOSALS_PENDING = Metric(
    "sparecode_proposals_pending",
    Kind.GAUGE,
    "Changes proposed on this node whose callers wait for the outcome.",
)
PROPOSAL_SECONDS = Metric(
    "sparecode_proposal_seconds",
    Kind.HISTOGRAM,
    "Time from proposing a change on this node to its outcome: `applied` (committed by a "
    "quorum and applied by the primary), `not_applied`, `unknown`, or `given_up` (the "
    "caller stopped waiting).",
    ("outcome",),
    _CALLS,
)
FORWARDS = Metric(
    "sparecode_forwards_total",
    Kind.COUNTER,
    "Calls that this node forwarded to the primary, counting each attempt. The primary "
    "forwards none.",
)
SYNC_SECONDS = Metric(
    "sparecode_journal_sync_seconds",
    Kind.HISTOGRAM,
    "Time to make the journal durable (fdatasync).",
    (),
    _FAST,
)
APPLY_SECONDS = Metric(
    "sparecode_apply_seconds",
    Kind.HISTOGRAM,
    "Time to apply one entry, in one transaction of the state's database.",
    (),
    _FAST,
)
SNAPSHOT_SECONDS = Metric(
    "sparecode_snapshot_seconds",
    Kind.HISTOGRAM,
    "Time to take a snapshot (`take`), or to fetch one from another member (`fetch`).",
    ("work",),
    _SNAPSHOTS,
)
SNAPSHOT_FAILURES = Metric(
    "sparecode_snapshot_failures_total",
    Kind.COUNTER,
    "Attempts to take or fetch a snapshot that failed. The node tries again.",
)

# --- Calls

CALLS = Metric(
    "sparecode_calls_total",
    Kind.COUNTER,
    "Calls by gRPC and HTTP, by listener, method and status. Those by HTTP have the names "
    "of gRPC for both.",
    ("listener", "method", "code"),
)
CALL_SECONDS = Metric(
    "sparecode_call_seconds",
    Kind.HISTOGRAM,
    "Duration of calls by gRPC and HTTP on this node.",
    ("listener", "method"),
    _CALLS,
)
AUTHENTICATIONS = Metric(
    "sparecode_authentications_total",
    Kind.COUNTER,
    "Answers to agents of this node about passcodes, by decision.",
    ("decision",),
)
RADIUS_PACKETS = Metric(
    "sparecode_radius_packets_total",
    Kind.COUNTER,
    "Packets at the RADIUS listener, by agent (empty: from no registered address) and "
    "verdict. docs/radius.md lists the verdicts.",
    ("agent", "verdict"),
)
SECURITY_EVENTS = Metric(
    "sparecode_security_events_total",
    Kind.COUNTER,
    "Callers that this node refused before anything was decided: `call_refused` (not "
    "signed in, not permitted, no such method or path), `malformed_message` (a message "
    "that does not decode, bytes that are no HTTP, headers that are too long), `tls_handshake_failed`, `radius_packet_dropped`, "
    "`radius_request_without_pap`. The security log has lines about some of them.",
    ("event",),
)
EVENTS = Metric(
    "sparecode_events_total",
    Kind.COUNTER,
    "Audit events applied on this node since it started. Every node applies all of them: "
    "use the maximum over the nodes, never the sum. The reason is more precise than the "
    "answer to agents: `locked`, `wrong_pin`, `code_not_live`, `tokencode_spent`.",
    ("action", "outcome", "reason"),
)

# --- Hashing

KDF_TAKEN = Metric(
    "sparecode_kdf_taken",
    Kind.GAUGE,
    "Hashes that wait or are being computed, by lane: `authenticating`, `issuing`.",
    ("lane",),
)
KDF_BOUND = Metric(
    "sparecode_kdf_bound",
    Kind.GAUGE,
    "Maximum number of hashes that may wait or be computed. More are shed.",
    ("lane",),
)
KDF_COMPUTED = Metric(
    "sparecode_kdf_computed_total", Kind.COUNTER, "Hashes computed.", ("lane",)
)
KDF_SHED = Metric(
    "sparecode_kdf_shed_total",
    Kind.COUNTER,
    "Hashes that were refused because too many waited, or that waited too long.",
    ("lane",),
)

# --- Operation

CERTIFICATE_ENDS = Metric(
    "sparecode_certificate_not_after_timestamp_seconds",
    Kind.GAUGE,
    "Expiry of a listener's certificate (`own`), or of the authority it trusts that "
    "expires first (`ca`).",
    ("listener", "certificate"),
)
AUDIT_SEQUENCE = Metric(
    "sparecode_audit_sequence", Kind.GAUGE, "Events in the audit log."
)
AUDIT_MISMATCH = Metric(
    "sparecode_audit_head_mismatch",
    Kind.GAUGE,
    "1 if two members with the same number of audit events had different ones: a replica "
    "is broken. Stays 1 until the node is restarted.",
)
DIGEST_MISMATCH = Metric(
    "sparecode_state_digest_mismatch",
    Kind.GAUGE,
    "1 if two members had different states at the same index: a replica is broken. "
    "The primary compares every hour. Stays 1 until the node is restarted.",
)
DIGEST_COMPARED = Metric(
    "sparecode_state_digest_compared_timestamp_seconds",
    Kind.GAUGE,
    "Time of the last comparison of at least two members' states; 0: none yet.",
)
LAST_BACKUP = Metric(
    "sparecode_last_backup_timestamp_seconds",
    Kind.GAUGE,
    "Time of the newest backup that a node has delivered completely; 0: none.",
)
ENTRY_SKIPPED = Metric(
    "sparecode_entry_skipped_timestamp_seconds",
    Kind.GAUGE,
    "Time at which the operators' decision to skip an entry took effect last; 0: never.",
)
FEATURE_LEVEL = Metric(
    "sparecode_feature_level",
    Kind.GAUGE,
    "The feature level of the cluster: that of the oldest software among its members, "
    "taken when all were linked.",
)
FEATURE_LEVEL_KNOWN = Metric(
    "sparecode_feature_level_known",
    Kind.GAUGE,
    "The newest feature level that this node's software knows.",
)
OPEN = Metric(
    "sparecode_open",
    Kind.GAUGE,
    "1 if agents are served; 0 after a restore or a recovery, until an operator has "
    "reviewed and opened the cluster.",
)
SEGMENTS_MISSING = Metric(
    "sparecode_audit_segments_missing",
    Kind.GAUGE,
    "Sealed segments of the audit log that this node has not stored.",
)
SEGMENTS_IN_STATE = Metric(
    "sparecode_audit_segments_in_state",
    Kind.GAUGE,
    "Sealed segments of the audit log whose events this node's state still has: all "
    "members keep them until every voter has stored them.",
)
SEGMENTS_UNARCHIVED = Metric(
    "sparecode_audit_segments_unarchived",
    Kind.GAUGE,
    "Sealed segments of the audit log that are not in this node's archive, without those "
    "that it has not fetched itself (sparecode_audit_segments_missing). Only with "
    "[audit] archive in node.toml.",
)
SEGMENTS_REMOVED = Metric(
    "sparecode_audit_segments_removed",
    Kind.GAUGE,
    "Segments of the audit log that retention has removed from the nodes.",
)
SEGMENTS_SHORT = Metric(
    "sparecode_audit_segments_short",
    Kind.GAUGE,
    "Sealed segments of the audit log that fewer archives have than the policy's "
    "audit_archive_copies, so that retention keeps them. 0 without a retention.",
)
SEGMENTS_SHORT_OLDEST = Metric(
    "sparecode_audit_segments_short_oldest_timestamp_seconds",
    Kind.GAUGE,
    "Time of the last event of the oldest of these segments; 0: there is none.",
)
AUTHORITIES_DUE = Metric(
    "sparecode_authorities_due",
    Kind.GAUGE,
    "Authorities that are to be replaced, because a removed member has had their keys.",
)
NOTICES_WAITING = Metric(
    "sparecode_notices_waiting",
    Kind.GAUGE,
    "Notices that wait for their delivery, by channel: its name, or a number if callers "
    "need neither a token nor a certificate.",
    ("channel",),
)
NOTICES_DEAD = Metric(
    "sparecode_notices_dead",
    Kind.GAUGE,
    "Dead letters, by channel: notices whose delivery was given up.",
    ("channel",),
)
NOTICES_OLDEST = Metric(
    "sparecode_notices_oldest_timestamp_seconds",
    Kind.GAUGE,
    "Time of the oldest event that waits for its delivery, by channel; 0: none waits.",
    ("channel",),
)
NOTICE_DELIVERIES = Metric(
    "sparecode_notice_deliveries_total",
    Kind.COUNTER,
    "Attempts of this node to deliver a notice, by channel and outcome (`delivered`, "
    "`failed`). Only the primary delivers: use the sum over the nodes.",
    ("channel", "outcome"),
)
RESETS_PENDING = Metric(
    "sparecode_administrator_resets_pending",
    Kind.GAUGE,
    "Resets of administrators that root on a node has requested and that are not in "
    "force yet.",
)
DISK_FREE = Metric(
    "sparecode_disk_free_bytes", Kind.GAUGE, "Free space on the disk of the state."
)
DISK_SIZE = Metric(
    "sparecode_disk_size_bytes", Kind.GAUGE, "Size of the disk of the state."
)

CATALOG: tuple[Metric, ...] = tuple(
    value for value in list(vars().values()) if isinstance(value, Metric)
)
"""All metrics, in the order of this file."""
