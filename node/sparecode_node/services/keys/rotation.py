# SPDX-License-Identifier: Apache-2.0
"""
Use case: rotate the key of the whole cluster while it serves (T3, P5).

    draw -> every voter writes it to its ring -> activate -> reseal -> retire

Nothing is sealed with the key before all voters hold it. After the activation the log
records the rotation, so any node can show it and any primary continues it
(`resealing`). This call only watches. A second call watches the same rotation.
"""

import asyncio
import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries import seals
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.links.key_exchange import (
    CannotHoldError,
    KeyNotHeldError,
)
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.keys.key_holder import KeyHolder
from sparecode_node.services.keys.resealing import unopened
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.secrets.keyring_form import KEY_BYTES
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.keys import ActivateKey, SealKind

HAND_S = 5.0
"""For one member to be reached and to write a key to its ring."""
LOOK_S = 0.1
"""Between two reports of progress."""
STALLED_S = 2.0
"""After this long without progress, check whether the remaining seals are broken."""
UNOPENED_MAX = 100
"""The most broken seals that are reported."""
LEAVE_S = 1.0
"""With less time left the call ends, and the caller calls again."""


class Phase(enum.Enum):
    """The phase of a rotation."""

    HANDING_OUT = enum.auto()
    RESEALING = enum.auto()
    RETIRING = enum.auto()
    DONE = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class UnopenedSeal:
    """Names a value that does not open with its key; never its content."""

    kind: SealKind
    row: str
    """The serial, set, administrator, user id, or number of the approval."""
    serial: str
    """For codes: the serial of their token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationProgress:
    """The progress of a rotation."""

    phase: Phase
    key_id: KeyId
    """The active key."""
    done: int = 0
    every: int = 0
    """Members that hold the key, or rows sealed with it; *every* is their total."""
    retires_at_ms: int | None = None
    """When the older keys are deleted. None: they are."""
    resumed: bool = False
    """The rotation had begun before this call."""
    unopened: tuple[UnopenedSeal, ...] = ()
    """Seals that cannot be replaced, as far as known."""
    stopped: bool = False
    """Only broken seals are left: the old key stays until they are replaced."""


class Rotation:
    """Rotates the key, called on any node."""

    def __init__(
        self,
        *,
        proposer: Proposer,
        replicator: Replicator,
        state: LocalState,
        key_holder: KeyHolder,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._replicator = replicator
        self._state = state
        self._key_holder = key_holder
        self._entropy = entropy

    @idempotent
    async def rotate(
        self, context: CallContext, *, at_once: bool, keep_old_key: bool
    ) -> AsyncGenerator[RotationProgress, None]:
        """
        Return the progress. It ends when everything is resealed, or with little time left.

        *at_once*: delete the older keys as soon as nothing is sealed with them, and
        report until then; for a key that may have leaked. Otherwise they are deleted
        when everything issued under them has expired. Raises
        `NotSignedInError`, `NotPermittedError`, `Refused` (`KEY_NOT_HELD`,
        `KEY_REPLACED`) and `ProposeError`.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        now_ms = await self._proposer.barrier(deadline)
        resumed = (await self._progress()).phase is Phase.RESEALING
        if not resumed:
            await self._proposer.confirmed_at(context, session, now_ms)

        async def progress() -> AsyncGenerator[RotationProgress, None]:
            if not resumed:
                async for each in self._hand_out_and_activate(
                    context, session, deadline, at_once=at_once, keep=keep_old_key
                ):
                    yield each
            async for each in self._watch(deadline, to_the_end=at_once):
                yield replace(each, resumed=resumed)

        return progress()

    async def progress(self, context: CallContext) -> RotationProgress:
        """
        Return the progress of the last rotation, from this node's state.

        Needs no quorum. Raises `NotSignedInError`, `NotPermittedError`.
        """
        await self._proposer.session(context, self._proposer.deadline(context))
        return await self._progress()

    async def _hand_out_and_activate(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        *,
        at_once: bool,
        keep: bool,
    ) -> AsyncGenerator[RotationProgress, None]:
        """Draw a key, and activate it when every voter holds it."""
        async with self._state.transaction() as transaction:
            removed = await seals.rotation_due(transaction)
        replaces = self._key_holder.ring.active
        key = self._entropy.token_bytes(KEY_BYTES)
        others = self._key_holder.exchange.others
        held = RotationProgress(
            phase=Phase.HANDING_OUT, key_id=replaces, every=len(others) + 1
        )
        yield held
        try:
            fingerprint = await self._key_holder.hold(key, replaces=replaces)
            yield (held := replace(held, done=held.done + 1))
            reach(Point.KEY_HELD)
            for node_id in others:
                await self._key_holder.exchange.hand_to(
                    node_id,
                    key,
                    replaces=replaces,
                    fingerprint=fingerprint,
                    timeout_s=min(HAND_S, deadline.left_s()),
                )
                yield (held := replace(held, done=held.done + 1))
        except (CannotHoldError, KeyNotHeldError) as error:
            raise Refused(Rejected(Reason.KEY_NOT_HELD, str(error))) from error
        reach(Point.KEY_ACTIVATE)
        command = ActivateKey(
            fingerprint=fingerprint,
            replaces=replaces,
            at_once=at_once,
            keep_old_key=keep,
            after_removal=removed,
        )
        await self._proposer.propose(context, session, deadline, command)
        await self._proposer.barrier(deadline)

    async def _watch(
        self, deadline: Deadline, *, to_the_end: bool
    ) -> AsyncGenerator[RotationProgress, None]:
        """
        Yield the primary's progress, from this node's state.

        The primary skips broken seals. The progress ends when only those are left:
        then the old key cannot be deleted, and waiting does not help.
        """
        reported: RotationProgress | None = None
        moved_left_s = deadline.left_s()
        while True:
            each = await self._progress()
            if reported is None or (each.phase, each.done) != (
                reported.phase,
                reported.done,
            ):
                moved_left_s = deadline.left_s()
            elif each.phase is Phase.RESEALING and (
                moved_left_s - deadline.left_s() >= STALLED_S
            ):
                each = await self._with_unopened(each)
            if each != reported:
                yield each
                reported = each
            if each.phase is Phase.DONE or each.stopped:
                return
            if each.phase is Phase.RETIRING and not to_the_end:
                return
            if deadline.left_s() < LEAVE_S:
                return
            await asyncio.sleep(LOOK_S)

    async def _with_unopened(self, progress: RotationProgress) -> RotationProgress:
        """Add the broken seals. Any member can find them: all hold the same keys."""
        async with self._state.transaction() as transaction:
            left = await seals.to_replace(
                transaction, progress.key_id, most=UNOPENED_MAX
            )
        closed = await asyncio.to_thread(
            unopened, Sealing(self._key_holder.ring), left, progress.key_id
        )
        return replace(
            progress,
            unopened=tuple(
                UnopenedSeal(kind=each.kind, row=each.row, serial=each.serial)
                for each in closed
            ),
            stopped=bool(left) and len(closed) == len(left),
        )

    async def _progress(self) -> RotationProgress:
        async with self._state.transaction() as transaction:
            keys = await seals.keys(transaction)
            counts = await seals.counts(transaction, keys.active)
        ends = [each.retire_at_ms for each in keys.aging if each.retire_at_ms]
        phase = Phase.DONE
        if keys.aging:
            phase = Phase.RESEALING if counts.old else Phase.RETIRING
        return RotationProgress(
            phase=phase,
            key_id=keys.active,
            done=counts.every - counts.old,
            every=counts.every,
            retires_at_ms=max(ends, default=None),
        )
