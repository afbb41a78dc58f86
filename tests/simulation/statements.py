# SPDX-License-Identifier: Apache-2.0
"""
Statements of one operator that an entry is to be skipped, which must not be enough (E3).

A machine stops at an entry. Either only this machine cannot apply it, or for a while none
can: then the cause is a fault that all machines have. The operator takes the entry for a
bad one, signs with the machine's key, and may give the statement to all machines. Nodes
that have not applied the entry stop at it then, at each start. After a while the cause is
found, and the operator takes the statement back. Then all apply the entry.

No majority signs here, so no entry is ever skipped.
"""

import functools
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from sparecode_node.membership.certificates import Authority, Issued
from sparecode_node.replication.log.skip_statements import (
    SkipStatement,
    digest_of,
    sign,
)
from sparecode_node.replication.log.skips import SkipSettings, Stop
from sparecode_node.statemachine.commands import Call
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.machines import EPOCH_S, Node

SIGNING = 0.2
"""Of the runs: in these an operator signs whenever a machine stops at an entry."""
POISON_RATE = 0.002
"""How often, in a step of such a run, the next entry becomes one that no machine can
apply; at most once in a run."""
VOTERS_MIN = 3
"""Of fewer, one could soon be a majority."""
TAKEN_BACK_S = 0.5, 2.5
"""When the operator takes a statement back."""
VALID = datetime.fromtimestamp(EPOCH_S, UTC) - timedelta(days=9)
"""When the certificates were made."""


class World(Protocol):
    """The cluster."""

    now: float
    ids: list[str]
    effects: Effects
    invariants: Any
    memberships: Any

    def trace(self, now: float, seen: str) -> None: ...


@dataclass
class Folder:
    """What a machine has of statements: a `SkipFolder` in memory."""

    kept: list[SkipStatement] = field(default_factory=list)
    read: tuple[SkipStatement, ...] = ()
    """What the process that runs has read: a node reads them when it starts."""
    stop: Stop | None = None
    """The entry that has stopped the machine, until its operator has seen it."""

    def statements(self) -> tuple[SkipStatement, ...]:
        return tuple(self.kept)

    def note_stop(self, stop: Stop) -> None:
        self.stop = stop


class Statements:
    """One operator at a time, who signs alone."""

    def __init__(self, world: World, seed: str, signing: float = SIGNING) -> None:
        """*signing*: in how many of the runs operators sign."""
        self._world = world
        self._rng = random.Random(seed)
        self.signs = self._rng.random() < signing
        """Whether operators of this run sign at all."""
        self._folders: dict[str, Folder] = {}
        self._signers: dict[tuple[int, str], set[str]] = {}
        """Index and digest of an entry -> who has signed, and has not taken it back."""
        self._back_at = 0.0
        self._poison: int | None = None
        """Index of the entry that no machine can apply."""
        self._was_poisoned = False

    # --- For the machines

    def folder(self, node_id: str) -> Folder:
        """Return the folder of a machine."""
        return self._folders.setdefault(node_id, Folder())

    def settings(self, node_id: str, applied_index: int) -> SkipSettings:
        """Return what a process knows of statements; count one about a later entry."""
        folder: Any = self.folder(node_id)
        folder.read = folder.statements()
        is_ahead = any(each.index > applied_index for each in folder.read)
        self._world.effects[Effect.SIGNED_ALONE] += is_ahead
        return SkipSettings(folder=folder, authorities=lambda: authority().pem)

    def must_stop(self, node: Node) -> bool:
        """Return whether the next entry of a node is one that it must stop at."""
        read = self.folder(node.node_id).read
        if not read or node.replica is None:
            return False
        journal, index = node.journal, node.store.state.applied_index + 1
        if not journal.has(index) or node.running.engine.raftCommitIndex < index:
            return False
        entry = index, digest_of(journal.entry(index)[0])
        return any((each.index, each.digest) == entry for each in read)

    def stops_all(self, index: int, calls: Sequence[Call]) -> bool:
        """Return whether no machine can apply this entry now; count it."""
        if index != self._poison:
            return False
        if not calls:  # The cause is in a call.
            self._poison += 1
            return False
        self._world.effects[Effect.POISON] += 1
        return True

    def check(
        self, node_id: str, index: int, digest: str, voters: Collection[str]
    ) -> None:
        """See that a majority has signed what a node skips, by a rule of its own."""
        signed = self._signers.get((index, digest), set()) & set(voters)
        check_skipped(self._world.invariants, node_id, index, signed, voters)

    # --- Operators

    def act(self) -> None:
        """Sign, or take a statement back."""
        is_out = self._signers or self._poison is not None
        if is_out and self._world.now >= self._back_at:
            self.take_back()
        if self.signs and not self._was_poisoned and self._rng.random() < POISON_RATE:
            self._was_poisoned = True
            self._poison = max(self._world.invariants.applied, default=0) + 1
            self._back_at = self._world.now + self._rng.uniform(*TAKEN_BACK_S)
        voters = self._world.memberships.configuration.voters
        for node_id in self._world.ids if self.signs else ():
            folder = self.folder(node_id)
            stop, folder.stop = folder.stop, None
            if stop and len(voters) >= VOTERS_MIN and not self._signers:
                self._sign(node_id, stop)

    def take_back(self) -> None:
        """Take all statements back; a node that has read them may stop once more."""
        self._signers.clear()
        self._poison = None
        for folder in self._folders.values():
            folder.kept.clear()

    def _sign(self, node_id: str, stop: Stop) -> None:
        world, rng = self._world, self._rng
        told = world.ids if rng.random() < 0.5 else [node_id]
        world.trace(world.now, f"{node_id} signs to skip {stop.index}, on {told}")
        self._signers[stop.index, stop.digest] = {node_id}
        self._back_at = world.now + rng.uniform(*TAKEN_BACK_S)
        signed = signed_by(node_id, stop, int((EPOCH_S + world.now) * 1000))
        for each in told:
            self.folder(each).kept.append(signed)
        if rng.random() < 0.3:  # Once more, with another reason.
            self.folder(node_id).kept.append(
                signed_by(node_id, stop, signed.at_ms, reason="again")
            )


def check_skipped(
    invariants: Any,
    node_id: str,
    index: int,
    signed: Collection[str],
    voters: Collection[str],
) -> None:
    """See that a node skips an entry only if most of the voters have signed for it."""
    if 2 * len(signed) <= len(voters):
        seen = f"{node_id} skips {index} by {sorted(signed)} of {sorted(voters)}"
        invariants.violated("skipped by a majority", seen)


@functools.cache
def authority() -> Authority:
    """Return the authority of all members."""
    return Authority.create("members", now=VALID)


@functools.cache
def _issued(node_id: str) -> Issued:
    return authority().issue_member(node_id, now=VALID)


def signed_by(
    node_id: str, stop: Stop, at_ms: int, reason: str = "it stops here"
) -> SkipStatement:
    """Return the statement of a machine's operator about the entry that has stopped it."""
    statement = SkipStatement(
        cluster_id="simulated",
        index=stop.index,
        term=stop.term,
        digest=stop.digest,
        member=node_id,
        operator="ada",
        reason=reason,
        at_ms=at_ms,
    )
    issued = _issued(node_id)
    return sign(statement, certificate=issued.certificate, key=issued.key)
