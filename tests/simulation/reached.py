# SPDX-License-Identifier: Apache-2.0
"""Why simulated runs never enter some functions of `replication/`: for the page."""

from collections.abc import Mapping
from typing import Any

STOPS = "Orderly stops do not happen: each process is killed. `tests/replication` and `tests/system` stop nodes."
THREADS = "The simulation steps the threads itself; the real ones run in `tests/replication` and `tests/system`."
OPERATORS = "No run asks for it: it is for operators and their pages (`tests/replication`, `tests/rpc`)."
GRPC = "gRPC and TLS are replaced by simulated connections; `tests/replication` and `tests/security` have the real ones."
KEYS = "Keys, certificates and segments of the whole node are not part of these runs (`tests/services`, `tests/security`)."
SKIPS = "No entry is skipped: no majority of operators signs, and those who sign do it rightly, with keys of one kind (`tests/replication/test_skips.py`, `tests/system/test_poison_entry.py`)."
PYSYNCOBJ = (
    "PySyncObj's interface asks for it; the engine never calls it, or refuses it."
)

TYPES = "It is there for the type checker alone."
DISK = "The journal is on a simulated disk; `tests/replication/test_journal.py` has a real one."

UNREADABLE = "No call between members is malformed (`tests/security/test_odd_bytes_hold_up_no_node.py`, `tests/fuzz`)."

REASONS: dict[str, str] = {
    "offline/": "It runs while the node is stopped (`tests/test_recovery_tool.py`, `tests/test_skip_tool.py`, `tests/system/test_runbooks.py`).",
    "loopback.py": "A node alone has no engine (`tests/replication/test_loopback.py`).",
    "log/skips.py": SKIPS,
    "log/skip_statements.py": SKIPS,
    "log/storage.py": DISK,
    "log/file.py: Successor.close": STOPS,
    "log/boots.py: read_refused_by": OPERATORS,
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
    "raft/admission.py: is_final": OPERATORS,
    "links/tls.py": GRPC,
    "links/grpc_server.py": GRPC,
    "links/decoding.py": UNREADABLE,
    "links/limits.py": GRPC,
    "links/transport.py: dial": GRPC,
    "links/transport.py: PeerTransport.stop": STOPS,
    "links/transport.py: PeerTransport.renew": KEYS,
    "links/transport.py: PeerTransport._renew_all": KEYS,
    "links/transport.py: PeerTransport.authorities": SKIPS,
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
    "codec.py: _refuse_unknown_fields": "No entry has a field that a member does not know: the levels keep it out of the log (`tests/replication/test_codec.py`).",
    "links/known_peers.py: KnownPeers.other_voters": KEYS,
    "log/journal.py: Journal.__getitem__@356": TYPES,
    "log/journal.py: Journal.__getitem__@358": TYPES,
    "replicator.py: Proposal.__repr__": "Nothing prints a proposal.",
}
"""Module, or module and function, or a folder with "/" at its end -> why."""


MALFORMED = "No member sends, and no disk here holds, what is malformed or too large (`tests/replication`, `tests/fuzz`)."
NEWER = "No member is newer than this version (`tests/replication/test_codec.py`)."
OLDER = "Members of the older level run today's code: none leaves out what release 0.1.0 did not show (`tests/replication`, `tests/system`)."
COMPLETE = "A case that nothing reaches: the cases before it are all that there are, or the callers check first."
RARE = "None of these seeds has this moment: "
ROT = "Rot in this place is rare, or was refused for another reason before (`tests/replication/test_journal.py`, `tests/simulation/test_files.py`)."
LARGE = (
    "No simulated call is large, and no log becomes so long here (`tests/replication`)."
)
SETTINGS = "The settings of the runs are right (`tests/replication`)."
OTHERS = "No run has this kind of call or change (`tests/replication`)."
UNFAILING = "Stamping never fails here (`tests/replication/test_proposals.py`)."
UNMATCHED = (
    "No machine here lacks the key of a call (`tests/replication/test_proposals.py`)."
)
TESTS_FILE = "Tests alone use a file that is not open."
ONE_KIND = "All operators have keys of one kind (`tests/replication/test_skips.py`)."
SIGNED_RIGHTLY = (
    "All statements are signed rightly (`tests/replication/test_skips.py`)."
)
RECOVERIES = "Only a recovery closes a journal here: it has the journal open, and not the file of starts."
LAST_CHECK = "A last check: it is reached only if another protection has failed."

BRANCHES: dict[str, str] = {
    "calls/membership_requests.py: MembershipRequests._primary_after": RARE
    + "the time of an operator ends between two primaries.",
    "calls/membership_requests.py: MembershipRequests._ask_to_change": COMPLETE,
    "calls/membership_requests.py: _change_in": COMPLETE,
    "calls/peer_messages.py: proposal_of": MALFORMED,
    "calls/peer_messages.py: kind_of": NEWER,
    "calls/primary_contact.py: PrimaryContact.way_to": RARE
    + "a node asks a primary that it has not dialed yet.",
    "calls/quorum_wait.py: QuorumWait.limited": RARE
    + "another limit than that of the contact to a quorum ends inside.",
    "cluster_replicator.py: ClusterReplicator.propose": MALFORMED,
    "cluster_replicator.py: ClusterReplicator.remove_member": RARE
    + "a node that was removed is asked to remove itself.",
    "codec.py: decode_entry": MALFORMED,
    "codec.py: _parse": NEWER,
    "codec.py: _to_call": MALFORMED,
    "codec.py: _from_call": MALFORMED,
    "codec.py: _kind_of": COMPLETE,
    "codec.py: _write": OTHERS,
    "codec.py: _read_field": MALFORMED,
    "levels/__init__.py: level_of_peer": OLDER,
    "links/decoding.py: _checked": UNREADABLE,
    "links/decoding.py: _each": UNREADABLE,
    "links/hello.py: hello_in": OLDER,
    "links/hello.py: introduction_of": OLDER,
    "links/known_peers.py: KnownPeers.check_hello": MALFORMED,
    "links/known_peers.py: KnownPeers.link_ended": RARE
    + "two links of a node that is no member end.",
    "links/outbound.py: OutboundLink._keep": "gRPC itself raises this, and it is simulated (`tests/replication`).",
    "links/peer_service.py: PeerServicer._certified": KEYS,
    "links/peer_service.py: PeerServicer._caller": RARE
    + "a member without a link calls, and has none when its time ends.",
    "links/peer_service.py: PeerServicer._refuse_if_linked_no_more": RARE
    + "a member is refused while its call is served.",
    "links/peer_service.py: PeerServicer.Link": RARE
    + "a member is refused, or shows another key, between two steps of a link's begin; or its link is replaced after the last message.",
    "links/peer_service.py: PeerServicer._read": STOPS,
    "links/refusal_log.py: RefusalLog._kind": RARE
    + "a node refuses in more ways than it counts apart.",
    "links/transport.py: PeerTransport._send": RARE
    + "the engine sends to a member whose address has just changed.",
    "links/transport.py: PeerTransport.start": KEYS,
    "links/transport.py: PeerTransport._replace": RARE
    + "two causes replace the same channel.",
    "log/boots.py: BootFile.close": RECOVERIES,
    "log/file.py: JournalFile.close": RECOVERIES,
    "log/file.py: JournalFile._note": TESTS_FILE,
    "log/file.py: JournalFile.take": TESTS_FILE,
    "log/format.py: read_file_header": ROT,
    "log/format.py: read_batches": ROT,
    "log/format.py: joined": LARGE,
    "log/format.py: _read_body": COMPLETE,
    "log/journal.py: Journal.take": RARE
    + "entries are cut off while the journal that is to replace this one is written.",
    "log/journal.py: Journal._begin_at": RARE
    + "the log has the snapshot's last entry when the snapshot is installed.",
    "log/journal.py: Journal.add": LARGE,
    "log/journal.py: Journal.add -> raise Fatal(": LAST_CHECK,
    "log/journal.py: Journal.deleteEntriesFrom": PYSYNCOBJ,
    "log/journal.py: Journal.deleteEntriesFrom -> raise Fatal(": LAST_CHECK,
    "log/journal.py: Journal.setCurrentTerm": PYSYNCOBJ,
    "log/journal.py: Journal._replay": ROT,
    "log/journal.py: open_journal": "No disk here loses the journal alone, and no machine has that of another one (`tests/replication/test_journal.py`).",
    "log/skip_statements.py: sign": ONE_KIND,
    "log/skip_statements.py: verify": SIGNED_RIGHTLY,
    "log/skip_statements.py: _verify_signature": ONE_KIND,
    "log/skips.py: Signers.problem": SIGNED_RIGHTLY,
    "log/skips.py: Skips.__init__": SIGNED_RIGHTLY,
    "log/skips.py: Skips.apply": SKIPS,
    "log/skips.py: Skips.apply -> raise Fatal(stop.words()) from error": "Every machine has a folder for statements.",
    "log/skips.py: Skips.skipped": SKIPS,
    "log/skips.py: Skips.differ": SKIPS,
    "log/skips.py: Skips.decision": SIGNED_RIGHTLY,
    "members.py: Configuration.from_message": MALFORMED,
    "members.py: _read": NEWER,
    "owned_tasks.py: watched.ended": LAST_CHECK,
    "raft/campaign.py: Campaign.count_pre_vote": RARE
    + "a node answers a pre-vote and is no voter any more.",
    "raft/engine.py: the module itself": "The pinned version of PySyncObj is installed.",
    "raft/engine.py: Engine._take_configuration": "PySyncObj makes a candidate a follower before its log changes.",
    "raft/follower.py: check_entries": MALFORMED,
    "raft/follower.py: is_acceptable": MALFORMED,
    "raft/follower.py: is_configuration": MALFORMED,
    "raft/frames.py: encode": COMPLETE,
    "raft/frames.py: decode": NEWER,
    "raft/guard.py: Guard.connected": SKIPS,
    "raft/guard.py: Guard.receive": NEWER,
    "raft/guard.py: Guard.send": COMPLETE,
    "raft/guard.py: Guard._receive_ack": LAST_CHECK,
    "raft/guard.py: Guard._receive_hand_over": RARE
    + "a hand-over arrives from a node that leads no more.",
    "raft/membership_changes.py: Membership._after": COMPLETE,
    "raft/membership_changes.py: Membership._why_not_begun": RARE
    + "the time of a change ends before all voters have shown their journals.",
    "raft/membership_changes.py: _with_learner": OTHERS,
    "raft/proposals.py: ProposedEntry.applied": LAST_CHECK,
    "raft/proposals.py: Proposals.take": LARGE,
    "raft/proposals.py: Proposals._fit": LARGE,
    'raft/proposals.py: Proposals._fit -> pending.answer(OverloadedError("the primary cannot stamp the call"))': UNFAILING,
    "raft/proposals.py: Proposals._fit -> for pending in pendings:": UNFAILING,
    "raft/proposals.py: Proposals._fit -> pending.answer(each)": UNMATCHED,
    "raft/proposals.py: Proposals.applied": RARE
    + "another entry takes the place of one before its leader knows that it leads no more.",
    "raft/rollback.py: Rollbacks.hears": OLDER,
    "raft/rollback.py: Rollbacks._fits": OLDER,
    "raft/rollback.py: Rollbacks._fits -> return position >= seen.promised  # So long ago that it is not shown.": RARE
    + "a node starts more often between two links than it shows.",
    "raft/rollback.py: _is_same": OLDER,
    "raft/stalls.py: Stalls._forgive_leader": RARE
    + "an engine is held up so often that its silence counts again.",
    "replica/compaction.py: Compaction.is_due": SKIPS,
    "replica/compaction.py: Compaction.run": SKIPS,
    "replica/compaction.py: Compaction._first_kept": LARGE,
    'replica/engine_thread.py: EngineThread._matched -> raise NoPrimaryError("the engine is not running")': STOPS,
    'replica/engine_thread.py: EngineThread._ask -> raise NoPrimaryError("the engine is not running")': STOPS,
    'replica/engine_thread.py: EngineThread._match -> return NoPrimaryError("the engine is not running")': STOPS,
    'replica/engine_thread.py: EngineThread._abandon -> _resolve(future, OutcomeUnknownError("the engine has stopped"))': STOPS,
    "replica/engine_thread.py: EngineThread._matched -> raise matched": STOPS,
    "replica/engine_thread.py: EngineThread._wake": THREADS,
    "replica/replica.py: Replica.refusal_of_link": SKIPS,
    "replica/snapshot_fetch.py: SnapshotFetch.run": LAST_CHECK,
    "replica/snapshot_fetch.py: SnapshotFetch._receive": RARE
    + "a member ends a portion without a part.",
    "replica/snapshot_fetch.py: SnapshotFetch._receive_portion": RARE
    + "the member that a snapshot comes from is removed.",
    "replica/snapshot_keeper.py: SnapshotKeeper._next_work": STOPS,
    "settings.py: RaftSettings.__post_init__": SETTINGS,
    "snapshots/installation.py: SnapshotInstallation.check": RARE
    + "a member leads before the snapshot that it has fetched is installed.",
    'snapshots/installation.py: SnapshotInstallation.check -> raise SnapshotRefusedError(f"it is of cluster {manifest.cluster_id!r}")': COMPLETE,
    "snapshots/installation.py: SnapshotInstallation.install.then": RARE
    + "a snapshot is refused after its installation has begun.",
    "snapshots/installation.py: finish_install": LAST_CHECK,
    "snapshots/recovery_checks.py: check_state": ROT,
    "snapshots/store.py: Manifest.from_message": MALFORMED,
    "snapshots/store.py: SnapshotStore._check": LAST_CHECK,
    "snapshots/store.py: SnapshotStore._adopt": RARE
    + "a disk is full exactly when the manifest of the same snapshot is written again.",
    "snapshots/store.py: SnapshotStore.add": MALFORMED,
    "snapshots/store.py: SnapshotStore.complete": LAST_CHECK,
}
"""
Module and function that seeds enter -> why they take not all of its branches. A key may
end with " -> " and the line that a branch would go to, if that one has its own reason.
"""


def keys_for(module: str, name: str) -> list[str]:
    """Return the keys of a function in `REASONS`, the most special one first."""
    outer = ".".join(name.split(".")[:2])
    folders = [key for key in REASONS if key.endswith("/") and module.startswith(key)]
    keys = (f"{module}: {name}", f"{module}: {outer}", module)
    return [key for key in keys if key in REASONS] + sorted(folders, key=len)[::-1]


def reason_for(module: str, name: str) -> str | None:
    """Return why no seed enters a function; None: nothing is known."""
    return next((REASONS[key] for key in keys_for(module, name)), None)


def reason_for_branch(module: str, name: str, target: str) -> str | None:
    """
    Return why no seed goes from a function to a line; None: nothing is known.

    The reason of a module is about functions that nothing enters, not about this one.
    """
    function = f"{module}: {name}"
    own = BRANCHES.get(f"{function} -> {target}")
    if own is None and target.startswith("raise Fatal"):
        return LAST_CHECK
    return own or BRANCHES.get(function)


def needless(numbers: Mapping[str, Any]) -> list[str]:
    """Return the reasons for functions and branches that seeds do reach."""
    functions = {
        key
        for each in numbers["modules"]
        for name in each["never"]
        for key in keys_for(each["module"], name)
    }
    branches = set()
    for each in numbers["modules"]:
        for name, _, target in each["partly"]:
            function = f"{each['module']}: {name}"
            own = f"{function} -> {target}"
            is_last_check = target.startswith("raise Fatal")
            branches.add(own if own in BRANCHES or is_last_check else function)
    return sorted((REASONS.keys() - functions) | (BRANCHES.keys() - branches))
