# SPDX-License-Identifier: Apache-2.0
"""
A replicator over two states in one process: the primary's and the called node's.

Every proposal passes the stamper and the codec of the log, and is kept as bytes.
The called node applies it at once. While `lags` is set it applies only at a read
barrier, like a replica that is behind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.membership import ArchiveReport, AuthorityKey
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.replication.codec import decode_entry, encode_entry
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    NotAppliedError,
    ProposeError,
    RemovedError,
)
from sparecode_node.replication.members import Member
from sparecode_node.replication.replicator import MemberStatus, Proposal
from sparecode_node.services.state.stamping import PrimaryStamper
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.cluster import PassBarrier
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import BarrierPassed, Result

_T = TypeVar("_T")

NODE = NodeId("n1")
NOW_MS = 1_700_000_000_000


class FakeClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = NOW_MS
        self._jumped_ms = 0

    def now_ms(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return (self.now - self._jumped_ms) / 1000

    def pass_s(self, seconds: float) -> None:
        self.now += int(seconds * 1000)

    def jump_s(self, seconds: float) -> None:
        """Move the clock on though no time passes."""
        self.pass_s(seconds)
        self._jumped_ms += int(seconds * 1000)


class TwoReplicas:
    """A replicator whose log is a list."""

    def __init__(
        self,
        primary: StateMachine,
        local: StateMachine,
        stamper: PrimaryStamper,
        clock: FakeClock,
    ) -> None:
        self._primary, self._local = primary, local
        self.clock = clock
        self._stamper = stamper
        self.entries: list[bytes] = []
        self.forwarded = 0
        """Calls that went to the primary."""
        self.lags = False
        self.down: ProposeError | None = None
        self.recovery_bundle = ""
        """What every member that answers says of its recovery bundle."""
        self.archives: dict[str, ArchiveReport] = {}
        """What members that answer say of their archives, by node id."""
        self.authorities: dict[str, tuple[AuthorityKey, ...]] = {}
        """The authorities that members trust, by node id."""
        self.shown: dict[str, tuple[str, ...]] = {}
        """Fingerprints of the authorities that signed what members show, by node id."""
        self.leads = False
        """Whether this node leads, and not another one."""
        self.term = 1
        self.transfers: list[NodeId | None] = []
        self.not_ready = 0
        """Removals that are refused as not ready yet; each takes 10 ms."""
        self.gone: set[str] = set()
        """Members that were removed."""
        self.busy: set[str] = set()
        """Those that run, and do not answer."""
        self.lagging: set[str] = set()
        """Those that have applied nothing yet."""
        self.joined: tuple[Member, ...] = ()
        """Members that were added."""
        self.changes: list[tuple[str, Member | NodeId]] = []
        self.before_apply: UnstampedCall | None = None
        """A call that another node commits just before the next proposal."""

    @property
    def node_id(self) -> NodeId:
        return NODE

    @property
    def primary(self) -> NodeId | None:
        if self.down:
            return None
        return self.node_id if self.leads else NodeId("n2")

    @property
    def led_term(self) -> int | None:
        return self.term if self.primary == self.node_id else None

    @property
    def ready(self) -> bool:
        return self.down is None

    @property
    def removed(self) -> bool:
        return isinstance(self.down, RemovedError)

    @property
    def older_copies(self) -> tuple[NodeId, ...]:
        return ()

    @property
    def refusals(self) -> Mapping[NodeId, str]:
        return {}

    async def propose(self, proposal: Proposal, *, timeout_s: float) -> Result:
        assert timeout_s > 0
        self.forwarded += 1
        if self.down:
            raise self.down
        if self.before_apply:
            call, self.before_apply = self.before_apply, None
            self.commit([Proposal(call=call)])
        matched = self._stamper.match(proposal)
        if isinstance(matched, NotAppliedError):
            raise matched
        return self.commit([matched])[0]

    def commit(self, proposals: Sequence[Proposal]) -> tuple[Result, ...]:
        calls = []
        for each in self._stamper.stamp(proposals):
            if isinstance(each, NotAppliedError):
                raise each
            calls.append(each)
        entry = encode_entry(tuple(calls))
        self.entries.append(entry)
        results = self._primary.apply(len(self.entries), decode_entry(entry))
        if not self.lags:
            self.catch_up()
        return results

    def commands(self, kind: type[_T], *, after: int = 0) -> list[_T]:
        """Return the commands of one kind in the entries after the first *after*."""
        return [
            call.command
            for entry in self.entries[after:]
            for call in decode_entry(entry)
            if isinstance(call.command, kind)
        ]

    def catch_up(self) -> None:
        for index in range(self._local.applied_index + 1, len(self.entries) + 1):
            self._local.apply(index, decode_entry(self.entries[index - 1]))

    async def read_barrier(self, *, timeout_s: float) -> BarrierPassed:
        call = UnstampedCall.of_node(NODE, PassBarrier(), RequestId(""))
        result = await self.propose(Proposal(call=call), timeout_s=timeout_s)
        self.catch_up()
        assert isinstance(result, BarrierPassed)
        return result

    async def wait_applied(self, index: int, *, timeout_s: float) -> None:
        self.catch_up()
        assert self._local.applied_index >= index

    async def transfer_primary(
        self, target: NodeId | None = None, *, timeout_s: float
    ) -> NodeId:
        assert timeout_s > 0
        if target == "n9":
            raise ChangeRefusedError(Rejected(Reason.MEMBER_UNKNOWN, "no n9"))
        self.transfers.append(target)
        return target or NodeId("n3")

    def members(self) -> tuple[Member, ...]:
        begun = (
            Member(node_id=NodeId(i), address=f"{i}:7301")
            for i in ("n0", "n1", "n3")
            if i not in self.gone
        )
        return (*begun, *self.joined)

    async def add_learner(self, member: Member, *, timeout_s: float) -> None:
        assert timeout_s > 0
        self.changes.append(("add_learner", member))

    async def promote(self, node_id: NodeId, *, timeout_s: float) -> None:
        assert timeout_s > 0
        self.changes.append(("promote", node_id))

    async def remove_member(self, node_id: NodeId, *, timeout_s: float) -> None:
        assert timeout_s > 0
        if self.not_ready:
            self.not_ready -= 1
            self.clock.pass_s(0.01)
            rejected = Rejected(Reason.MEMBER_NOT_READY, "only n2 is in contact")
            raise ChangeRefusedError(rejected)
        if node_id == "n9":
            raise ChangeRefusedError(Rejected(Reason.MEMBER_UNKNOWN, "no n9"))
        self.changes.append(("remove_member", node_id))

    async def status(
        self, *, digest: bool, timeout_s: float
    ) -> tuple[MemberStatus, ...]:
        this = MemberStatus(
            node_id=NODE,
            reachable=True,
            commit_index=self._local.applied_index,
            applied_index=self._local.applied_index,
            digest=self._local.digest() if digest else "",
            clock_ms=NOW_MS,
            audit_sequence=self._local._audit.sequence,
            audit_head=self._local._audit.head.hex(),
            recovery_bundle=self.recovery_bundle,
            authorities=self.authorities.get(NODE, ()),
            shown_authorities=self.shown.get(NODE, ()),
            archive=self.archives.get(NODE),
        )
        other = replace(
            this,
            node_id=NodeId("n0"),
            is_primary=True,
            commit_index=len(self.entries),
            applied_index=0 if "n0" in self.lagging else len(self.entries),
            clock_ms=NOW_MS + 250,
            authorities=self.authorities.get("n0", ()),
            shown_authorities=self.shown.get("n0", ()),
            archive=self.archives.get("n0"),
        )
        if self.down:
            other = MemberStatus(node_id=NodeId("n0"), reachable=False)
        away = MemberStatus(
            node_id=NodeId("n3"), reachable=False, busy="n3" in self.busy
        )
        return tuple(
            each for each in (this, other, away) if each.node_id not in self.gone
        )
