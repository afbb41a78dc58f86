# SPDX-License-Identifier: Apache-2.0
"""
Queues and windows so small that crowds and held up threads fill them, and how often.

Each bound is set in the module that keeps it: a queue behind another one with the same
bound would never be full. No bound is so small that one healthy member's window does not
fit: then its link would be reset again and again, and no run would come to an end.
"""

import functools
import weakref
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from sparecode_node.replication.calls import forward_queue
from sparecode_node.replication.calls.forward_queue import ForwardQueue
from sparecode_node.replication.links import outbound
from sparecode_node.replication.links.outbound import OutboundLink
from sparecode_node.replication.raft import (
    membership_changes,
    proposals,
    read_index,
    sender,
)
from sparecode_node.replication.raft.membership_changes import Membership
from sparecode_node.replication.raft.proposals import Proposals
from sparecode_node.replication.raft.read_index import ReadIndex
from sparecode_node.replication.raft.sender import Sender
from sparecode_node.replication.replica import engine_thread, replica
from sparecode_node.replication.replica.compaction import Compaction
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.replica import Replica
from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.channels import Call

Count = Callable[[Effect], object]
Look = tuple[type, str, Callable[..., Effect | None]]
"""A class, its method, and what looks at a call of it."""

BOUNDS: dict[ModuleType, dict[str, int]] = {
    engine_thread: {"PROPOSALS_QUEUED_MAX": 64, "INBOX_MAX": 48},
    forward_queue: {
        "WAITING_MAX": 48,
        "CALLS_PER_ENTRY_MAX": 16,
        "FORWARD_BYTES_MAX": 2048,
    },
    outbound: {"QUEUE_FRAMES_MAX": 10, "QUEUE_BYTES_MAX": 12 * 1024},
    membership_changes: {"CHANGES_WAITING_MAX": 1},
    proposals: {"PROPOSALS_QUEUED_MAX": 24, "CALLS_PER_ENTRY_MAX": 16},
    read_index: {"READS_WAITING_MAX": 2},
    replica: {"ENTRIES_BEHIND_MAX": 8},
    sender: {"APPEND_BYTES_MAX": 4096, "WINDOW_ENTRIES": 8},
}
"""Module of `replication/` -> its bounds."""

UNACKNOWLEDGED_MAX = 2
"""Messages that a connection takes whose bytes get lost; gRPC's window is 64 KiB."""


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Make queues and windows small."""
    for module, bounds in BOUNDS.items():
        for name, bound in bounds.items():
            patch.setattr(module, name, bound)


def count_all(patch: pytest.MonkeyPatch, count: Count) -> None:
    """Count each time that a bound is reached, and let lost bytes fill a link's queue."""
    before: tuple[Look, ...] = (
        (Proposals, "submit", _proposals_full),
        (ReadIndex, "submit", _reads_full),
        (Membership, "submit", _changes_full),
        (ForwardQueue, "forward", _forwards_full),
        (EngineThread, "_matched", _matching_full),
        (EngineThread, "_ask", _callers_full),
        (OutboundLink, "send", _link_full),
        (Sender, "_window_end", _window_full),
    )
    after: tuple[Look, ...] = (
        (EngineThread, "has_room", _inbox_full),
        (ForwardQueue, "_take", _message_full),
        (Proposals, "take", _entry_full),
        (Sender, "_entries", _append_full),
        (Replica, "status", _behind),
        (Compaction, "_is_its_turn", _log_full),
    )
    for look in before:
        _look_at(patch, look, count, after=False)
    for look in after:
        _look_at(patch, look, count, after=True)
    patch.setattr(Call, "write", _writing_with_flow_control(Call.write))


def _look_at(
    patch: pytest.MonkeyPatch, look: Look, count: Count, *, after: bool
) -> None:
    """Let a look see the arguments of each call; *after* it, first its result, too."""
    owner, name, seen = look
    real = getattr(owner, name)

    def note(effect: Effect | None) -> None:
        if effect:
            count(effect)

    @functools.wraps(real)
    def wrapped(*args: Any, **more: Any) -> Any:
        if not after:  # The call may raise.
            note(seen(*args))
        result = real(*args, **more)
        if after:
            note(seen(result, *args))
        return result

    patch.setattr(owner, name, wrapped)


def _bound(module: ModuleType, name: str) -> int:
    """Return a bound of this run."""
    return int(vars(module)[name])


# --- On the primary


def _proposals_full(of: Proposals, _pending: object) -> Effect | None:
    full = len(of._queue) >= _bound(proposals, "PROPOSALS_QUEUED_MAX")
    return Effect.PROPOSALS_FULL if full else None


def _entry_full(entry: Any, _of: Proposals) -> Effect | None:
    full = entry and len(entry.waiting) >= _bound(proposals, "CALLS_PER_ENTRY_MAX")
    return Effect.ENTRY_FULL if full else None


def _reads_full(of: ReadIndex, _read: object) -> Effect | None:
    full = of._waiting() >= _bound(read_index, "READS_WAITING_MAX")
    return Effect.READS_FULL if full else None


def _changes_full(of: Membership, _pending: object) -> Effect | None:
    full = len(of._waiting) >= _bound(membership_changes, "CHANGES_WAITING_MAX")
    return Effect.CHANGES_FULL if full and of.leader.is_leader() else None


def _window_full(of: Sender, follower: str) -> Effect | None:
    end = of.leader.acknowledged(follower) + _bound(sender, "WINDOW_ENTRIES")
    return Effect.WINDOW_FULL if end < of.journal.last_index else None


def _append_full(
    entries: list[Any], _of: Sender, first: int, last: int
) -> Effect | None:
    return Effect.APPEND_FULL if len(entries) <= last - first else None


# --- On each node


def _callers_full(of: EngineThread, *_: object) -> Effect | None:
    full = len(of._futures) >= _bound(engine_thread, "PROPOSALS_QUEUED_MAX")
    return Effect.CALLERS_FULL if full else None


def _matching_full(of: EngineThread, _proposal: object) -> Effect | None:
    full = of._matching_now >= _bound(engine_thread, "PROPOSALS_QUEUED_MAX")
    return Effect.MATCHING_FULL if full else None


def _inbox_full(has_room: bool, _of: EngineThread) -> Effect | None:
    return None if has_room else Effect.INBOX_FULL


def _forwards_full(of: ForwardQueue, *_: object) -> Effect | None:
    full = len(of._queue) >= _bound(forward_queue, "WAITING_MAX")
    return Effect.FORWARDS_FULL if full else None


def _message_full(batch: list[Any], of: ForwardQueue) -> Effect | None:
    if not of._queue:
        return None
    by_number = len(batch) >= _bound(forward_queue, "CALLS_PER_ENTRY_MAX")
    return Effect.MESSAGE_CALLS_FULL if by_number else Effect.MESSAGE_BYTES_FULL


def _link_full(of: OutboundLink, epoch: int, frame: Any) -> Effect | None:
    if of._call is None or epoch != of.epoch:
        return None
    if len(of._queue) >= _bound(outbound, "QUEUE_FRAMES_MAX"):
        return Effect.LINK_FULL
    size = of._queued_bytes + frame.ByteSize()
    full = size > _bound(outbound, "QUEUE_BYTES_MAX")
    return Effect.LINK_BYTES_FULL if full else None


def _log_full(its_turn: bool, of: Compaction) -> Effect | None:
    settings, (count, applied_bytes) = of.settings, of._applied()
    entries = (count - settings.log_entries_kept) / of._span()
    size = settings.log_bytes_max - settings.log_bytes_kept
    by_bytes = (applied_bytes - settings.log_bytes_kept) / size > entries
    return Effect.LOG_BYTES_FULL if its_turn and by_bytes else None


def _behind(status: Any, _of: Replica) -> Effect | None:
    return None if status.caught_up else Effect.BEHIND


# --- A connection whose bytes get lost


def _writing_with_flow_control(real: Callable[..., Any]) -> Callable[..., Any]:
    """
    Return `Call.write` as gRPC's is: the other side must make room.

    A connection that swallows bytes takes only a few messages more. Then writers wait
    until it ends, and what they would send waits in the link's queue.
    """
    sent: weakref.WeakKeyDictionary[Call, int] = weakref.WeakKeyDictionary()

    async def write(call: Call, request: Any) -> None:
        connection = call.connection
        if connection is not None and any(connection.swallowing):
            sent[call] = sent.get(call, 0) + 1
            if sent[call] > UNACKNOWLEDGED_MAX:
                await call.code()
        await real(call, request)

    return write
