# SPDX-License-Identifier: Apache-2.0
"""Every metric of a node: its name, kind, labels, and what it means."""

import enum
from dataclasses import dataclass

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_CALLS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SNAPSHOTS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Kind(enum.StrEnum):
    """Prometheus' types."""

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
    "Always 1; says which software runs.",
    ("version",),
)
READY = Metric(
    "sparecode_ready", Kind.GAUGE, "1 if the node is ready to serve, as /readyz says."
)

# --- Raft

TERM = Metric("sparecode_raft_term", Kind.GAUGE, "The Raft term.")
IS_PRIMARY = Metric("sparecode_is_primary", Kind.GAUGE, "1 on the primary.")
PRIMARY_KNOWN = Metric(
    "sparecode_primary_known", Kind.GAUGE, "1 if the node knows a primary."
)
PRIMARY_CHANGES = Metric(
    "sparecode_primary_changes_total",
    Kind.COUNTER,
    "How often another node became the primary, as this node has heard.",
)
CONTACT = Metric(
    "sparecode_quorum_contact",
    Kind.GAUGE,
    "1 if the node has heard of a quorum lately, by or through the primary.",
)
COMMIT_INDEX = Metric(
    "sparecode_commit_index",
    Kind.GAUGE,
    "Up to here entries are known to be committed.",
)
APPLIED_INDEX = Metric(
    "sparecode_applied_index",
    Kind.GAUGE,
    "Up to here entries are applied to the state.",
)
APPLY_LAG = Metric(
    "sparecode_apply_lag_entries",
    Kind.GAUGE,
    "Entries that are committed, as far as this node knows, and not applied here.",
)
LOG_ENTRIES = Metric("sparecode_log_entries", Kind.GAUGE, "Entries in the log.")
LOG_BYTES = Metric(
    "sparecode_log_bytes", Kind.GAUGE, "Bytes of all entries in the log."
)
PEER_CONNECTED = Metric(
    "sparecode_peer_connected",
    Kind.GAUGE,
    "1 if Raft's link to this member is up.",
    ("peer",),
)
PEER_REACHABLE = Metric(
    "sparecode_peer_reachable",
    Kind.GAUGE,
    "1 if this member has answered the last question for its status.",
    ("peer",),
)
PEER_CLOCK_OFFSET = Metric(
    "sparecode_peer_clock_offset_seconds",
    Kind.GAUGE,
    "This member's clock minus the node's own, as far as one round trip tells.",
    ("peer",),
)

# --- Writing

PROPOSALS_PENDING = Metric(
    "sparecode_proposals_pending",
    Kind.GAUGE,
    "Changes that callers of this node wait for.",
)
PROPOSAL_SECONDS = Metric(
    "sparecode_proposal_seconds",
    Kind.HISTOGRAM,
    "From a change proposed on this node to its outcome: `applied` by a quorum and by "
    "the primary, `not_applied`, `unknown`, or `given_up` by its caller.",
    ("outcome",),
    _CALLS,
)
FORWARDS = Metric(
    "sparecode_forwards_total",
    Kind.COUNTER,
    "Calls that this node has handed to the primary, every attempt counted: none on the "
    "primary itself.",
)
SYNC_SECONDS = Metric(
    "sparecode_journal_sync_seconds",
    Kind.HISTOGRAM,
    "Making the journal durable (fdatasync).",
    (),
    _FAST,
)
APPLY_SECONDS = Metric(
    "sparecode_apply_seconds",
    Kind.HISTOGRAM,
    "Applying one entry: one transaction of the state's database.",
    (),
    _FAST,
)
SNAPSHOT_SECONDS = Metric(
    "sparecode_snapshot_seconds",
    Kind.HISTOGRAM,
    "Taking a snapshot (`take`), or fetching one from another member (`fetch`).",
    ("work",),
    _SNAPSHOTS,
)
SNAPSHOT_FAILURES = Metric(
    "sparecode_snapshot_failures_total",
    Kind.COUNTER,
    "Snapshots that could not be taken or fetched; they are tried again.",
)

# --- Calls

CALLS = Metric(
    "sparecode_calls_total",
    Kind.COUNTER,
    "gRPC calls, by listener, method and status.",
    ("listener", "method", "code"),
)
CALL_SECONDS = Metric(
    "sparecode_call_seconds",
    Kind.HISTOGRAM,
    "How long calls took on this node.",
    ("listener", "method"),
    _CALLS,
)
AUTHENTICATIONS = Metric(
    "sparecode_authentications_total",
    Kind.COUNTER,
    "What agents that called this node were told about passcodes.",
    ("decision",),
)
EVENTS = Metric(
    "sparecode_events_total",
    Kind.COUNTER,
    "Events of the audit log, applied here since the node started. Every node applies "
    "all of them: take the maximum over nodes, never the sum. The reason says what "
    "agents are not told: `locked`, `wrong_pin`, `code_not_live`, `tokencode_spent`.",
    ("action", "outcome", "reason"),
)

# --- Hashing

KDF_TAKEN = Metric(
    "sparecode_kdf_taken",
    Kind.GAUGE,
    "Hashes that wait or are being computed: `authenticating`, `issuing`.",
    ("lane",),
)
KDF_BOUND = Metric(
    "sparecode_kdf_bound",
    Kind.GAUGE,
    "How many hashes may wait or be computed; what goes beyond is shed.",
    ("lane",),
)
KDF_COMPUTED = Metric(
    "sparecode_kdf_computed_total", Kind.COUNTER, "Hashes computed.", ("lane",)
)
KDF_SHED = Metric(
    "sparecode_kdf_shed_total",
    Kind.COUNTER,
    "Hashes that were asked for and did not fit, or not in time.",
    ("lane",),
)

# --- What an operator looks after

CERTIFICATE_ENDS = Metric(
    "sparecode_certificate_not_after_timestamp_seconds",
    Kind.GAUGE,
    "When the certificate of a listener (`own`), or the first to end of the authorities "
    "that it trusts (`ca`), expires.",
    ("listener", "certificate"),
)
AUDIT_SEQUENCE = Metric(
    "sparecode_audit_sequence", Kind.GAUGE, "Events in the audit log."
)
AUDIT_MISMATCH = Metric(
    "sparecode_audit_head_mismatch",
    Kind.GAUGE,
    "1 if two members with equally many audit events had different ones: a replica is "
    "broken. Stays 1 until the node is restarted.",
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
    "When the states of at least two members were compared last; 0: not yet.",
)
LAST_BACKUP = Metric(
    "sparecode_last_backup_timestamp_seconds",
    Kind.GAUGE,
    "When the newest backup was taken that some node has handed out whole; 0: never.",
)
FEATURE_LEVEL = Metric(
    "sparecode_feature_level",
    Kind.GAUGE,
    "The feature level of the cluster: that of its oldest member, when all were linked.",
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
DISK_FREE = Metric(
    "sparecode_disk_free_bytes", Kind.GAUGE, "Free on the disk that holds the state."
)
DISK_SIZE = Metric(
    "sparecode_disk_size_bytes", Kind.GAUGE, "Size of the disk that holds the state."
)

CATALOG: tuple[Metric, ...] = tuple(
    value for value in list(vars().values()) if isinstance(value, Metric)
)
"""In the order of this file."""
