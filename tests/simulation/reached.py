# SPDX-License-Identifier: Apache-2.0
"""Why simulated runs never enter some functions of `replication/`: for the page."""

STOPS = "Orderly stops do not happen: each process is killed. `tests/replication` and `tests/system` stop nodes."
THREADS = "The simulation steps the threads itself; the real ones run in `tests/replication` and `tests/system`."
OPERATORS = "No run asks for it: it is for operators and their pages (`tests/replication`, `tests/rpc`)."
GRPC = "gRPC and TLS are replaced by simulated connections; `tests/replication` and `tests/security` have the real ones."
KEYS = "Keys, certificates and segments of the whole node are not part of these runs (`tests/services`, `tests/security`)."
SKIPS = "No entry is skipped: that needs statements of operators (`tests/replication/test_skips.py`, `tests/system/test_poison_entry.py`)."
PYSYNCOBJ = (
    "PySyncObj's interface asks for it; the engine never calls it, or refuses it."
)
TESTS = "Tests alone call it."
TYPES = "It is there for the type checker alone."
DISK = "The journal is on a simulated disk; `tests/replication/test_journal.py` has a real one."

REASONS: dict[str, str] = {
    "offline/": "It runs while the node is stopped (`tests/test_recovery_tool.py`, `tests/test_skip_tool.py`, `tests/system/test_runbooks.py`).",
    "loopback.py": "A node alone has no engine (`tests/replication/test_loopback.py`).",
    "log/skips.py": SKIPS,
    "log/skip_statements.py": SKIPS,
    "log/storage.py": DISK,
    "log/boots.py: BootFile.close": STOPS,
    "log/file.py: Successor.close": STOPS,
    "log/file.py: JournalFile.close": STOPS,
    "log/boots.py: read_refused_by": OPERATORS,
    "log/journal.py: Journal._destroy": STOPS,
    "log/journal.py: Journal.clear": PYSYNCOBJ,
    "log/journal.py: Journal.deleteEntriesTo": PYSYNCOBJ,
    "raft/engine.py: Engine.listen": THREADS,
    "raft/engine.py: Engine.stop_listening": THREADS,
    "raft/engine.py": PYSYNCOBJ,
    "raft/guard.py: Guard.setOnUtilityMessageCallback": PYSYNCOBJ,
    "raft/guard.py: Guard.setOnReadonlyNodeConnectedCallback": PYSYNCOBJ,
    "raft/guard.py: Guard.setOnReadonlyNodeDisconnectedCallback": PYSYNCOBJ,
    "raft/guard.py: Guard.destroy": STOPS,
    "raft/handover.py: HandOver.stop": STOPS,
    "raft/proposals.py: Proposals.stop": STOPS,
    "raft/admission.py: explained": OPERATORS,
    "raft/admission.py: is_final": OPERATORS,
    "links/tls.py": GRPC,
    "links/grpc_server.py": GRPC,
    "links/decoding.py": "No call between members is malformed (`tests/security/test_odd_bytes_hold_up_no_node.py`, `tests/fuzz`).",
    "links/limits.py": GRPC,
    "links/transport.py: dial": GRPC,
    "links/transport.py: PeerTransport.stop": STOPS,
    "links/transport.py: PeerTransport.renew": KEYS,
    "links/transport.py: PeerTransport._renew_all": KEYS,
    "links/transport.py: PeerTransport.authorities": SKIPS,
    "links/transport.py: _end": STOPS,
    "links/joiner_certificates.py": KEYS,
    "links/key_exchange.py": KEYS,
    "links/segment_exchange.py": KEYS,
    "links/member_keys.py": KEYS,
    "replica/engine_thread.py": THREADS,
    "replica/observer.py": "No run collects metrics (`tests/metrics`).",
    "replica/replica.py: Replica.stop": STOPS,
    "replica/replica.py: Replica.match_indexes": OPERATORS,
    "replica/snapshot_keeper.py: SnapshotKeeper.stop": STOPS,
    "calls/read_points.py: ReadPoints.stop": STOPS,
    "calls/waiters.py: Shared.stop": STOPS,
    "calls/peer_messages.py: ask_status": OPERATORS,
    "calls/peer_messages.py: status_response": OPERATORS,
    "calls/peer_calls.py: PeerCalls.member_status": OPERATORS,
    "calls/membership_requests.py: MembershipRequests.match_indexes": OPERATORS,
    "calls/membership_requests.py: with_configuration": OPERATORS,
    "links/peer_service.py: PeerServicer.GetMemberStatus": OPERATORS,
    "links/peer_service.py: PeerServicer._member_or_guest": OPERATORS,
    "links/peer_service.py: PeerServicer._refuse_by_hello": OPERATORS,
    "cluster_replicator.py: ClusterReplicator.stop": STOPS,
    "cluster_replicator.py: ClusterReplicator._take_fatal": THREADS,
    "cluster_replicator.py: ClusterReplicator.renew_certificate": KEYS,
    "cluster_replicator.py: ClusterReplicator.led_term": OPERATORS,
    "cluster_replicator.py: ClusterReplicator.ready": OPERATORS,
    "cluster_replicator.py: ClusterReplicator.older_copies": OPERATORS,
    "cluster_replicator.py: ClusterReplicator.members": OPERATORS,
    "cluster_replicator.py: ClusterReplicator.wait_applied": OPERATORS,
    "cluster_replicator.py: ClusterReplicator.status": OPERATORS,
    "cluster_replicator.py: ClusterReplicator._own_status": OPERATORS,
    "errors.py: StoppingError.__init__": STOPS,
    "cluster_replicator.py: ClusterReplicator.replica_status": OPERATORS,
    "raft/membership_changes.py: _spelled": "Rare: a learner that has been added is added again, after an unknown outcome (`tests/replication/test_membership_changes.py`).",
    "log/format.py: FormatError.__init__": "Rare: a journal has rotted where no torn tail can be (`tests/replication/test_journal.py`).",
    "snapshots/store.py: SnapshotStore._cut_off": "Rare: a disk fails while it writes a part of a snapshot (`tests/replication/test_compaction.py`).",
    "codec.py: fields_of": TESTS,
    "codec.py: _refuse_unknown_fields": "No entry has a field that a member does not know: the levels keep it out of the log (`tests/replication/test_codec.py`).",
    "links/known_peers.py: KnownPeers.other_voters": KEYS,
    "log/journal.py: Journal.compact": "Tests alone drop entries in one step: a node uses `shorten` and `take`.",
    "log/journal.py: Journal.__getitem__@356": TYPES,
    "log/journal.py: Journal.__getitem__@358": TYPES,
    "replicator.py: Proposal.__repr__": "Nothing prints a proposal.",
}
"""Module, or module and function, or a folder with "/" at its end -> why."""


LAST_CHECK = "A last check: it stops a node of which another protection has failed."

BRANCHES: dict[str, str] = {}
"""Module and function that seeds enter -> why they take not all of its branches."""


def reason_for(module: str, name: str) -> str | None:
    """Return why no seed enters a function; None: nothing is known."""
    outer = ".".join(name.split(".")[:2])
    for key in (f"{module}: {name}", f"{module}: {outer}", module):
        if key in REASONS:
            return REASONS[key]
    folders = [key for key in REASONS if key.endswith("/") and module.startswith(key)]
    return REASONS[max(folders, key=len)] if folders else None


def reason_for_branch(module: str, name: str, target: str) -> str | None:
    """Return why no seed goes from a function to a line; None: nothing is known."""
    known = BRANCHES.get(f"{module}: {name}") or reason_for(module, name)
    if known is None and target.startswith("raise Fatal"):
        return LAST_CHECK
    return known
