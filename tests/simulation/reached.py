# SPDX-License-Identifier: Apache-2.0
"""Why simulated runs never enter some functions of `replication/`: for the page."""

from collections.abc import Mapping
from typing import Any

from tests.simulation.stops import is_stop

STOPS = "Orderly stops do not happen: each process is killed. `tests/replication` and `tests/system` stop nodes."
ENDS = "A simulated process ends together with its engine: then no one is left to ask it, or to wait for it"
THREADS = "The simulation steps the threads itself; the real ones run in `tests/replication` and `tests/system`."
DISK = "The journal is on a simulated disk; `tests/replication/test_journal.py` and all whole nodes in `tests/replication` have a real one."
STATUSES = "No run asks members for their status: pages, tools and services of a whole node do (`tests/replication/test_cluster_membership.py`)."
SERVICES = "Services of a whole node alone call it, and these runs have none (`tests/system` has whole nodes)."
READINESS = "Services and tools alone ask whether a node is ready, and why not (`tests/replication/test_cluster_membership.py`, `tests/metrics/test_observation.py`)."
GRPC = "gRPC and TLS are replaced by simulated connections; `tests/replication` and `tests/security` have the real ones."
STREAMS = "When a simulated connection ends, the handler of its link is cancelled; with gRPC, its stream of messages may just end (`tests/replication`)."
KEYS = "These runs have no key rings, so no member hands a key to another one (`tests/replication/test_key_exchange.py`, `tests/system/test_key_rotation.py`)."
SEGMENTS = "Members fetch no sealed audit events from each other here (`tests/replication/test_transport.py`, `tests/system/test_sealed_events.py`)."
SHOWN_KEYS = "These runs have no certificates, so each member has the right key (`tests/security/test_a_member_is_known_by_its_key.py`)."
RENEWALS = "No run renews a certificate (`tests/replication/test_transport.py`, `tests/system/test_certificate_renewal.py`)."
JOINERS = "No node joins with a ticket: the simulation adds members itself (`tests/security/test_a_joiner_gets_what_its_ticket_says.py`, `tests/security/test_odd_bytes_hold_up_no_node.py`)."
SKIPS = "No entry is skipped, because no majority of operators signs (`tests/replication/test_skips.py`, `tests/system/test_poison_entry.py`)."
SKIP_FILES = "Statements of operators are in memory here, and not in files (`tests/replication/test_skips.py`)."
OFF = "PySyncObj has it for a part that is off: a call would stop the node (`tests/replication/test_engine.py`)."
UNREADABLE = "No call between members is malformed (`tests/replication/test_transport.py`, `tests/security/test_odd_bytes_hold_up_no_node.py`)."
SECRETS = "Nothing prints it: it is there so that what is secret in it is not printed (`tests/services/test_secrecy.py` prints a proposal)."
NEWER_FIELDS = "No call or entry has a field that its reader does not know: the feature level keeps it out of the log (`tests/replication/test_codec.py`)."
CUT_OFF = "None of these seeds has this moment: entries are cut off while a shorter journal is written that has them (`tests/replication/test_compaction.py`)."

REASONS: dict[str, str] = {
    "offline/": "Tools alone use it, most of them beside a node that is stopped (`tests/test_recovery.py`, `tests/test_recovery_tool.py`, `tests/test_skip_tool.py`, `tests/system/test_runbooks.py`).",
    "loopback.py": "No node has it: it takes the place of a cluster in tests, and in the fake cluster for programs of users (`tests/replication/test_loopback.py`).",
    "log/skips.py": SKIPS,
    "log/skips.py: SkipFolder.statements": SKIP_FILES,
    "log/skips.py: SkipFolder.file_of": SKIP_FILES,
    "log/skips.py: SkipFolder.note_stop": SKIP_FILES,
    "log/skips.py: SkipFolder.stop": SKIP_FILES,
    "log/skip_statements.py": SKIP_FILES,
    "log/storage.py": DISK,
    "log/file.py: Successor.close": CUT_OFF,
    "log/boots.py: read_refused_by": "A tool alone reads the file of a node that may run (`tests/replication/test_rollback.py`).",
    "log/journal.py: Journal.clear": OFF,
    "log/journal.py: Journal.deleteEntriesTo": OFF,
    "raft/engine.py: Engine.listen": THREADS,
    "raft/engine.py: Engine.stop_listening": THREADS,
    "raft/engine.py: _refuse": OFF,
    "raft/guard.py: Guard.destroy": STOPS,
    "raft/handover.py: HandOver.stop": STOPS,
    "raft/proposals.py: Proposals.stop": STOPS,
    "raft/admission.py: is_final": READINESS,
    "links/tls.py": GRPC,
    "links/tls.py: PeerTls.__repr__": SECRETS,
    "links/grpc_server.py": GRPC,
    "links/decoding.py": UNREADABLE,
    "links/limits.py": "The program of a node alone asks for more open files (`tests/rpc/test_connections.py`).",
    "links/transport.py: dial": GRPC,
    "links/transport.py: PeerTransport.stop": STOPS,
    "links/transport.py: PeerTransport.renew": RENEWALS,
    "links/transport.py: PeerTransport._renew_all": "No run renews a certificate, or takes the 20 minutes after which members open new connections (`tests/replication/test_transport.py`).",
    "links/transport.py: PeerTransport.authorities": "It is for statements of operators that an entry is to be skipped, and whole nodes have none here (`tests/replication/test_skips.py`).",
    "links/joiner_certificates.py": JOINERS,
    "links/key_exchange.py": KEYS,
    "links/segment_exchange.py": SEGMENTS,
    "links/member_keys.py": SHOWN_KEYS,
    "links/known_peers.py: KnownPeers.other_voters": "Key rings and sealed audit events alone are for all other voters, and these runs have neither (`tests/system/test_key_rotation.py`).",
    "replica/engine_thread.py": THREADS,
    "replica/observer.py": DISK,
    "replica/replica.py: Replica.stop": STOPS,
    "replica/replica.py: Replica.match_indexes": STATUSES,
    "replica/snapshot_keeper.py: SnapshotKeeper.stop": STOPS,
    "calls/read_points.py: ReadPoints.stop": STOPS,
    "calls/waiters.py: Shared.stop": STOPS,
    "calls/peer_messages.py: ask_status": STATUSES,
    "calls/peer_messages.py: status_response": STATUSES,
    "calls/peer_calls.py: PeerCalls.member_status": STATUSES,
    "calls/membership_requests.py: MembershipRequests.match_indexes": STATUSES,
    "calls/membership_requests.py: with_configuration": STATUSES,
    "links/peer_service.py: PeerServicer.GetMemberStatus": STATUSES,
    "links/peer_service.py: PeerServicer._member_or_guest": STATUSES,
    "links/peer_service.py: PeerServicer._refuse_by_hello": STATUSES,
    "cluster_replicator.py: ClusterReplicator.stop": STOPS,
    "cluster_replicator.py: ClusterReplicator._take_fatal": ENDS
    + " (`tests/replication/test_cluster_replicator.py`).",
    "cluster_replicator.py: ClusterReplicator.renew_certificate": RENEWALS,
    "cluster_replicator.py: ClusterReplicator.led_term": "Channels of notices alone ask for it, and in the runs that have channels (`make sim-outbox`) the simulation answers (`tests/replication/test_cluster_replicator.py`).",
    "cluster_replicator.py: ClusterReplicator.ready": READINESS,
    "cluster_replicator.py: ClusterReplicator.older_copies": SERVICES,
    "cluster_replicator.py: ClusterReplicator.members": "Services of a whole node alone call it, and these runs have none (`tests/replication/test_cluster_membership.py`).",
    "cluster_replicator.py: ClusterReplicator.wait_applied": SERVICES,
    "cluster_replicator.py: ClusterReplicator.status": STATUSES,
    "cluster_replicator.py: ClusterReplicator._own_status": STATUSES,
    "errors.py: StoppingError.__init__": "Orderly stops do not happen: each process is killed. `tests/replication/test_snapshot_keeper.py` stops what reads the state.",
    "codec.py: _refuse_unknown_fields": NEWER_FIELDS,
    "replicator.py: Proposal.__repr__": SECRETS,
}
"""Module, or module and class or function, or a folder with "/" at its end -> why."""


MALFORMED = "No member sends, and no disk here holds, what is malformed (`tests/replication`, `tests/fuzz`)."
NEWER = "No member is newer than this version, and sends what it does not know (`tests/replication`)."
OLDER = "Members of the older level run today's code: none leaves out what release 0.1.0 did not show (`tests/replication/test_rollback.py`, and `tests/packages` with that release)."
COMPLETE = (
    "The cases before it are all that there are: the type of what is compared says so."
)
FORMS = "The engine sends only what has a form on the wire (`tests/replication/test_engine.py`)."
RARE = "None of these seeds has this moment: "
CHECKED = "Rot does not pass the checksum, so only a wrong program could write this"
LARGE_CALLS = (
    "No call here is too large for an entry (`tests/replication/test_proposals.py`)."
)
LARGE_WRITES = "No journal here has 1 MiB to write at once (`tests/replication/test_compaction.py`)."
OPEN = "A node writes, and replaces, only a journal that it has opened. No test does anything else."
UNFAILING = "Stamping never fails here (`tests/replication/test_proposals.py`)."
UNMATCHED = "No machine here lacks a key that judging a call needs"
ONE_KIND = "All operators have keys of one kind (`tests/replication/test_skips.py`)."
SIGNED_RIGHTLY = "In these seeds, all statements of operators are signed rightly, and by voters (`tests/replication/test_skips.py`)."
RECOVERIES = "Only a recovery closes a journal here: it has the journal open, and not the file of starts (`tests/replication` closes both)."
LAST_CHECK = "A last check: it is reached only if another protection has failed."
LAST_CHECKS = "A last check: it is reached only if another protection has failed ("
"""And a test that reaches it."""
UNTESTED = " No test reaches it."

BRANCHES: dict[str, str] = {
    "answers.py: stub_of": RARE
    + "a channel is closed when a call over it begins (`tests/replication/test_read_points.py`).",
    "calls/membership_requests.py: MembershipRequests._ask_to_change": COMPLETE,
    "calls/membership_requests.py: _change_in": "No member is newer than this version, and asks for a change that it does not know. No test does it.",
    "calls/peer_messages.py: proposal_of": "A member forwards calls of its own alone, and none that is too large (`tests/replication/test_peer_messages.py`).",
    "calls/peer_messages.py: kind_of": "The one error without a kind of its own says that a node was removed, and a removed node answers no other one (`tests/replication/test_peer_messages.py`).",
    "calls/primary_contact.py: PrimaryContact.way_to": RARE
    + "a node asks a primary that it has not dialed yet, or dials no more. No test has it.",
    "calls/quorum_wait.py: QuorumWait.limited": "What waits inside ends with errors of its own, and never with a plain timeout (`tests/replication/test_quorum_wait.py`).",
    "cluster_replicator.py: ClusterReplicator.propose": "No call here is too large (`tests/replication/test_cluster_replicator.py`).",
    "cluster_replicator.py: ClusterReplicator.remove_member": RARE
    + "a node that was removed is asked to remove itself (`tests/replication/test_cluster_membership.py`).",
    "codec.py: decode_entry": MALFORMED,
    "codec.py: _parse": NEWER_FIELDS,
    "codec.py: _to_call": "Each command has a field in a message: `tests/replication/test_codec.py` compares them.",
    "codec.py: _from_call": MALFORMED,
    "codec.py: _kind_of": "Each field of a command is of a kind that can be written: `tests/replication/test_codec.py` looks at all.",
    "codec.py: _read_field": MALFORMED,
    "levels/__init__.py: level_of_peer": OLDER,
    "links/decoding.py: _checked": UNREADABLE,
    "links/decoding.py: _each": UNREADABLE,
    "links/hello.py: hello_in": "gRPC adds metadata of its own, among which this is looked for; the simulated connections add none (`tests/replication/test_transport.py`).",
    "links/hello.py: introduction_of": OLDER,
    "links/known_peers.py: KnownPeers.check_hello": MALFORMED,
    "links/known_peers.py: KnownPeers.link_ended": "Each node tells its address when its link begins, so one is known when the link ends (`tests/replication/test_transport.py` has nodes that tell none).",
    "links/outbound.py: OutboundLink._keep": "gRPC itself may raise this when it cancels a call, and it is simulated. No test has it.",
    "links/peer_service.py: PeerServicer._certified": "The caller of a simulated connection is always another member (`tests/replication/test_transport.py`).",
    "links/peer_service.py: PeerServicer._certified -> await self._refuse(context, peer, Refusal.ANOTHER_KEY.value)": SHOWN_KEYS,
    "links/peer_service.py: PeerServicer._caller": RARE
    + "a member without a link calls, and has none when its time ends (`tests/replication/test_transport.py`).",
    "links/peer_service.py: PeerServicer._refuse_if_linked_no_more": RARE
    + "a member calls after it was refused, and before its link has ended (`tests/replication/test_transport.py`).",
    "links/peer_service.py: PeerServicer.Link": RARE
    + "a member is refused between two steps of the beginning of its link (`tests/replication/test_transport.py`).",
    "links/peer_service.py: PeerServicer.Link -> await self._refuse(context, peer, Refusal.ANOTHER_KEY.value)": "These runs have no certificates, so no member shows another key between two steps of the beginning of its link. No test does it.",
    "links/peer_service.py: PeerServicer.Link -> return peers_pb2.LinkResponse()": STREAMS,
    "links/peer_service.py: PeerServicer._read": STREAMS,
    "links/refusal_log.py: RefusalLog._kind": RARE
    + "a node refuses in more ways than it counts apart (`tests/security/test_a_member_is_known_by_its_key.py`).",
    "links/transport.py: PeerTransport._send": RARE
    + "the engine sends to a member to which the link is just being closed. No test has it.",
    "links/transport.py: PeerTransport.start": JOINERS,
    "links/transport.py: PeerTransport._replace": "A channel has two causes to be replaced only if a certificate is renewed, or after 20 minutes. No run has that, and no test.",
    "links/transport.py: PeerTransport._forget_refusal": RARE
    + "a node that was refused, for another reason than its removal, has a link again (`tests/replication/test_transport.py`).",
    "log/boots.py: BootFile.close": RECOVERIES,
    'log/boots.py: BootFile.save -> raise Fatal(f"{self._storage.where(NAME)} is closed")': "A node that runs does not close the file of starts (`tests/replication/test_boots.py`).",
    'log/boots.py: _slot -> raise Fatal(f"{NAME} has no room for {len(slot)} bytes")': LAST_CHECKS
    + "`tests/replication/test_boots.py`): the greatest number of members has room.",
    "log/file.py: JournalFile.close": RECOVERIES,
    "log/file.py: JournalFile._note": OPEN,
    "log/file.py: JournalFile.check_usable -> raise Fatal(self._poisoned)": "A node stops when a write fails, so it comes to no other one (`tests/replication/test_journal.py`).",
    'log/file.py: JournalFile.append -> raise Fatal("the journal is closed")': OPEN,
    "log/file.py: JournalFile.take": OPEN,
    'log/file.py: JournalFile.take -> raise Fatal(f"{self.where}: the new journal is not written")': "What replaces a journal is written first. No test does anything else.",
    "log/file.py: JournalFile.take -> raise Fatal(self._poisoned) from error (2)": "A simulated disk that has just taken the new name takes the mark, too (`tests/replication/test_compaction.py`).",
    "log/format.py: read_file_header": "No rot of these seeds changes the few bytes with which a journal begins, though it may take them away (`tests/replication/test_journal.py`).",
    'log/format.py: read_batches -> problem = f"batch {batch.sequence} follows batch {sequence}"': CHECKED
    + " (`tests/replication/test_journal.py`).",
    'log/format.py: read_batches -> raise FormatError(offset, "damaged, and longer than a torn batch could be")': "No journal is damaged here more than 64 MiB before its end: none becomes so long. No test has one.",
    "log/format.py: joined": LARGE_WRITES,
    "log/format.py: _read_body": COMPLETE,
    "log/journal.py: Journal.take": CUT_OFF,
    "log/journal.py: Journal.add": LARGE_WRITES,
    "log/journal.py: Journal.add -> raise Fatal(": LAST_CHECKS
    + "`tests/replication/test_journal.py`).",
    "log/journal.py: Journal.deleteEntriesFrom -> return": "PySyncObj cuts off only entries that are there. No test does anything else.",
    "log/journal.py: Journal.deleteEntriesFrom -> raise Fatal(": LAST_CHECKS
    + "`tests/replication/test_journal.py`).",
    'log/journal.py: Journal.rebase -> raise Fatal(f"entry {self.committed} is committed and must not be lost")': LAST_CHECKS
    + "`tests/replication/test_compaction.py`).",
    'log/journal.py: Journal.shorten -> raise Fatal(f"the log cannot be compacted up to entry {index}")': LAST_CHECKS
    + "`tests/replication/test_compaction.py`).",
    "log/journal.py: Journal.setCurrentTerm -> return": "PySyncObj sets term and vote only where one of them changes (`tests/replication/test_journal.py`).",
    "log/journal.py: Journal.setCurrentTerm -> wanted = (term, votedForNodeId)": LAST_CHECKS
    + "`tests/replication/test_journal.py`).",
    'log/journal.py: Journal.setCurrentTerm -> raise Fatal(f"term and vote cannot go from {promised} to {wanted}")': LAST_CHECKS
    + "`tests/replication/test_journal.py`).",
    "log/journal.py: Journal._replay": CHECKED + ". No test does it.",
    "log/journal.py: open_journal": "No disk here loses the journal alone, and no machine has that of another one (`tests/replication/test_journal.py`).",
    "log/skip_statements.py: sign": ONE_KIND,
    "log/skip_statements.py: verify": SIGNED_RIGHTLY,
    "log/skip_statements.py: _verify_signature": ONE_KIND,
    "log/skips.py: Signers.problem": SIGNED_RIGHTLY,
    "log/skips.py: Skips.__init__": "All statements of operators are about the one cluster that there is (`tests/replication/test_skips.py`).",
    "log/skips.py: Skips.apply": SKIPS,
    "log/skips.py: Skips.apply -> if self._skipped_elsewhere and may_be_skipped(calls):": SIGNED_RIGHTLY,
    "log/skips.py: Skips.apply -> raise Fatal(stop.words()) from error": "Each machine that an entry stops here has a place for statements (`tests/replication/test_engine.py` has one without).",
    "log/skips.py: Skips.skipped": SKIPS,
    "log/skips.py: Skips.differ": SKIPS,
    "log/skips.py: Skips.decision": SIGNED_RIGHTLY,
    "members.py: Configuration.naming": LAST_CHECK,
    "members.py: Configuration.from_message": MALFORMED,
    'members.py: Configuration.from_message -> raise ConfigurationError("a configuration of a newer version")': NEWER,
    "members.py: _read": NEWER,
    "owned_tasks.py: watched.ended": "No task of the links fails: that would be a defect, and stop the node (`tests/replication/test_transport.py`).",
    "raft/campaign.py: Campaign.count_pre_vote": RARE
    + "a node answers a pre-vote and is no voter any more. No test has it.",
    "raft/engine.py: the module itself": "The release of PySyncObj is installed that the overrides fit.",
    'raft/engine.py: _own_journal -> raise Fatal("PySyncObj must not create its own journal")': "PySyncObj always gets the node's journal. No test gives it another one.",
    'raft/engine.py: Engine._SyncObj__doApplyCommand -> raise Fatal(f"entry {index} cannot be read here: {error}") from error': "Each entry here is written by a member, in a form that all members read (`tests/replication/test_engine.py`).",
    "raft/follower.py: FollowerLog.judge -> raise Fatal(": LAST_CHECKS
    + "`tests/replication/test_guard.py`).",
    'raft/follower.py: FollowerLog._count_known -> raise Fatal(f"two entries have index {index} and term {term}")': LAST_CHECK
    + UNTESTED,
    "raft/follower.py: FollowerLog._back_off -> raise Fatal(": LAST_CHECKS
    + "`tests/replication/test_guard.py`).",
    "raft/follower.py: check_entries": MALFORMED,
    "raft/follower.py: is_acceptable": MALFORMED,
    "raft/follower.py: is_configuration": MALFORMED,
    "raft/frames.py: encode": FORMS,
    "raft/frames.py: decode": NEWER,
    "raft/guard.py: Guard.connected": "No entry is skipped, because no majority of operators signs. No test has it: where entries differ, the called node refuses first.",
    "raft/guard.py: Guard.receive": "There is a receiver for each kind of message that can be read (`tests/replication/test_engine.py`).",
    "raft/guard.py: Guard.send": FORMS,
    'raft/guard.py: Guard.send -> raise Fatal(f"the engine tried to send {kind}: {sorted(message)}")': FORMS,
    "raft/guard.py: Guard._receive_ack": LAST_CHECK,
    'raft/guard.py: Guard._receive_append -> raise Fatal(f"{node.id} leads in term {term}, and so does this node")': LAST_CHECK
    + UNTESTED,
    "raft/membership_changes.py: Membership._after": COMPLETE,
    "raft/membership_changes.py: Membership._why_not_begun": RARE
    + "the time of a change ends before all voters have shown their journals (`tests/replication/test_membership_changes.py`).",
    "raft/membership_changes.py: _with_learner": "No cluster here has the greatest number of members (`tests/replication/test_membership_changes.py`).",
    'raft/membership_changes.py: _with_learner -> raise refused("the configuration would be too large for the log")': "The clusters here have few former members, and short addresses. No test has one.",
    "raft/proposals.py: ProposedEntry.applied": LAST_CHECK,
    "raft/proposals.py: Proposals.take": "Each call here can be stamped, and fits in an entry (`tests/replication/test_proposals.py`).",
    "raft/proposals.py: Proposals._fit": LARGE_CALLS,
    "raft/proposals.py: Proposals._fit -> return None": "Each call here can be stamped (`tests/replication/test_proposals.py`).",
    'raft/proposals.py: Proposals._fit -> pending.answer(OverloadedError("the primary cannot stamp the call"))': UNFAILING,
    "raft/proposals.py: Proposals._fit -> for pending in pendings:": UNFAILING,
    "raft/proposals.py: Proposals._fit -> pending.answer(each)": UNMATCHED
    + " (`tests/replication/test_proposals.py`).",
    "raft/proposals.py: Proposals.applied": "A last check: a leader forgets its proposals when it leads no more, before another one's entry can take their place. Without it, a caller could get the answer to the call of another one.",
    "raft/rollback.py: Rollbacks.hears": OLDER,
    "raft/rollback.py: Rollbacks.promised": OLDER,
    "raft/rollback.py: Rollbacks._fits": OLDER,
    "raft/rollback.py: Rollbacks._fits -> return position >= seen.promised  # So long ago that it is not shown.": RARE
    + "a node starts more often between two links than it shows (`tests/replication/test_rollback.py`).",
    "raft/rollback.py: _is_same": OLDER,
    "raft/stalls.py: Stalls._forgive_leader": RARE
    + "an engine is held up so often that its silence counts again (`tests/replication/test_stalls.py`).",
    "replica/compaction.py: Compaction.is_due": SKIPS,
    "replica/compaction.py: Compaction.run": SKIPS,
    "replica/compaction.py: Compaction._first_kept": "It is asked for only while the log has more than the part that always stays.",
    "replica/engine_thread.py: EngineThread._matched": ENDS + ". No test has it.",
    "replica/engine_thread.py: EngineThread._matched -> raise matched": UNMATCHED
    + ". No test has this.",
    "replica/engine_thread.py: EngineThread._ask": ENDS
    + " (`tests/replication/test_skips.py`).",
    "replica/engine_thread.py: EngineThread._match": ENDS + ". No test has it.",
    "replica/engine_thread.py: EngineThread._abandon": ENDS
    + " (`tests/replication/test_engine_thread.py`).",
    "replica/engine_thread.py: EngineThread._wake": THREADS,
    "replica/replica.py: Replica.refusal_of_link": SKIPS,
    "replica/snapshot_fetch.py: SnapshotFetch.run": LAST_CHECK,
    "replica/snapshot_fetch.py: SnapshotFetch._receive": "No member has a snapshot that is shorter than its description says. No test has one.",
    "replica/snapshot_fetch.py: SnapshotFetch._receive_portion": RARE
    + "the member that a snapshot comes from is dialed no more (`tests/replication/test_snapshot_fetch.py`).",
    "replica/snapshot_keeper.py: SnapshotKeeper._next_work": "Orderly stops do not happen: each process is killed. `tests/replication/test_snapshot_keeper.py` has one.",
    "settings.py: RaftSettings.__post_init__": "The settings of the runs are right. No test has wrong ones.",
    "snapshots/installation.py: SnapshotInstallation.check": RARE
    + "a member leads before the snapshot that it has fetched is installed (`tests/replication/test_compaction.py`).",
    'snapshots/installation.py: SnapshotInstallation.check -> raise SnapshotRefusedError(f"it is of cluster {manifest.cluster_id!r}")': LAST_CHECK,
    "snapshots/installation.py: SnapshotInstallation.install.then": RARE
    + "the disk is full when a snapshot that was fetched becomes the node's own (`tests/replication/test_compaction.py`).",
    "snapshots/installation.py: SnapshotInstallation._go_on_after -> raise Fatal(": LAST_CHECKS
    + "`tests/replication/test_compaction.py`).",
    "snapshots/installation.py: finish_install": RARE
    + "the disk has lost the end of the journal, its mark with it, and the state has applied more than the newest snapshot has (`tests/replication/test_compaction.py`).",
    "snapshots/store.py: Manifest.from_message": MALFORMED,
    "snapshots/store.py: SnapshotStore._check": LAST_CHECK,
    "snapshots/store.py: SnapshotStore._adopt": RARE
    + "a disk is full exactly when the manifest of the same snapshot is written again (`tests/replication/test_compaction.py`).",
    "snapshots/store.py: SnapshotStore.add": MALFORMED,
    "snapshots/store.py: SnapshotStore.complete": LAST_CHECK,
}
"""
Module and function that seeds enter -> why they take not all of its branches. A key may
end with " -> " and the line that a branch would go to, if that one has its own reason.
Each line that stops the node has its own one, also in an exception handler (`stops`).
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
    return own if is_stop(target) else own or BRANCHES.get(function)


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
            branches.add(own if own in BRANCHES or is_stop(target) else function)
        branches |= {
            f"{each['module']}: {name} -> {stop}" for name, stop in each["stops"]
        }
    return sorted((REASONS.keys() - functions) | (BRANCHES.keys() - branches))
