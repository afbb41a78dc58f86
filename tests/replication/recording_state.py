# SPDX-License-Identifier: Apache-2.0
"""A state machine that only remembers what it applied, for tests of replication."""

import base64
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import NameKey, NodeId, RequestId, SessionId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.replication.codec import decode_entry, encode_entry
from sparecode_node.replication.replicator import Proposal
from sparecode_node.statemachine.commands import Call, RequestKey, UnstampedCall
from sparecode_node.statemachine.commands.cluster import PassBarrier
from sparecode_node.statemachine.commands.users import DeleteUser
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.results import Applied, BarrierPassed, Result
from sparecode_node.statemachine.skipping import ENTRY_SKIPPED, SkippedEntry
from sparecode_node.statemachine.snapshots import SnapshotError, SnapshotFacts


class RecordingState:
    """Knows request ids, as the real one does: a retry gets the first answer."""

    def __init__(self) -> None:
        self.applied_index = 0
        self.now_ms = 0
        self.feature_level = NEWEST
        self.durable_index = 0
        """No power cut takes the state back before it."""
        self.entries: list[tuple[int, tuple[Call, ...]]] = []
        self.results: dict[str, Result] = {}
        self.member_keys: dict[NodeId, MemberKey] = {}
        self.denied: set[str] = set()
        self.skipped: tuple[SkippedEntry, ...] = ()

    def apply(self, index: int, calls: Sequence[Call]) -> tuple[Result, ...]:
        """Remember the calls; the same request is applied once."""
        if index != self.applied_index + 1:
            raise ValueError(f"entry {index} after entry {self.applied_index}")
        self.applied_index = index
        self.now_ms = max([self.now_ms, *(call.at_ms for call in calls)])
        self.entries.append((index, tuple(calls)))
        return tuple(self._apply(index, call) for call in calls)

    def skip(self, entry: SkippedEntry, calls: Sequence[Call]) -> tuple[Result, ...]:
        """Remember the calls as refused."""
        for call in calls:
            self.results.setdefault(call.request.request_id, ENTRY_SKIPPED)
        self.skipped += (entry,)
        return self.apply(entry.index, calls)

    def denies(self, certificate: Certificate) -> bool:
        """Return whether a test denies a certificate."""
        return certificate.fingerprint in self.denied

    def checkpoint(self) -> int:
        """Record that everything is on disk."""
        self.durable_index = self.applied_index
        return self.applied_index

    def check(self) -> None:
        """Do nothing: this state is on no disk."""

    def serialize(self) -> bytes:
        """Return the state as a snapshot holds it."""
        entries = [
            [index, base64.b64encode(encode_entry(calls)).decode() if calls else ""]
            for index, calls in tuple(self.entries)
        ]
        return json.dumps([entries[-1][0], entries]).encode()

    def deserialize(self, data: bytes) -> None:
        """Become what a snapshot holds."""
        applied, entries = json.loads(data)
        self.entries, self.results, self.now_ms = [], {}, 0
        self.applied_index = self.applied_index if not entries else entries[0][0] - 1
        for index, encoded in entries:
            calls = decode_entry(base64.b64decode(encoded)) if encoded else ()
            self.apply(index, calls)
        if self.applied_index != applied:
            raise ValueError(f"entry {applied} is not the last")
        self.durable_index = applied

    def write(self, target: Path) -> SnapshotFacts:
        """Write a snapshot, in any thread."""
        target.write_bytes(self.serialize())
        return self.check_snapshot(target)

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
        """Return the origin of a snapshot."""
        state = RecordingState()
        try:
            state.deserialize(snapshot.read_bytes())
        except ValueError as error:
            raise SnapshotError(str(error)) from error
        return SnapshotFacts(index=state.applied_index, digest=state.digest())

    def install(self, snapshot: str) -> None:
        """Become what the file holds."""
        self.deserialize(Path(snapshot).read_bytes())

    def reload(self) -> None:
        """Do nothing: `install` has done it."""

    def _apply(self, index: int, call: Call) -> Result:
        if isinstance(call.command, PassBarrier):
            return BarrierPassed(index=index, at_ms=call.at_ms)
        return self.results.setdefault(call.request.request_id, Applied(index=index))

    def digest(self) -> str:
        """Return what was applied, in order, once each."""
        return repr(list(self.results.items()))


class FixedStamper:
    """Stamps a time of its own."""

    def __init__(self, at_ms: int = 1_000_000) -> None:
        self.at_ms = at_ms
        self.matched_in: list[str] = []
        """The name of the thread of each match."""

    def match(self, proposal: Proposal) -> Proposal:
        """Remember the thread."""
        self.matched_in.append(threading.current_thread().name)
        return replace(proposal, matched_at_ms=self.at_ms)

    def stamp(self, proposals: Sequence[Proposal]) -> tuple[Call, ...]:
        """Return the calls with the time."""
        return tuple(p.call.stamped(self.at_ms) for p in proposals)


def call(request_id: str, node_id: str = "n1", name: str = "ada") -> UnstampedCall:
    """Return a call that can be told by its request id."""
    return UnstampedCall(
        command=DeleteUser(name_key=NameKey(name)),
        request=RequestKey(
            caller="administrator:root",
            method="UserService/DeleteUser",
            request_id=RequestId(request_id),
            tag=7,
        ),
        node_id=NodeId(node_id),
        session_id=SessionId("session"),
    )


def proposal(request_id: str, node_id: str = "n1") -> Proposal:
    """Return a proposal of such a call."""
    return Proposal(call=call(request_id, node_id))
