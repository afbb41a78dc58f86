# SPDX-License-Identifier: Apache-2.0
"""What became of one attempt to deliver a notice."""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId


class ChannelChangedError(Exception):
    """The channel was changed or removed meanwhile, so nothing counts as delivered to it."""


class Outcome(enum.Enum):
    """What became of one attempt."""

    DELIVERED = enum.auto()
    UNREACHABLE = enum.auto()
    """The receiver is down or too busy: other notices would fail, too."""
    REFUSED = enum.auto()
    """The receiver answered, and did not take this notice."""
    REJECTED = enum.auto()
    """The receiver will never take this notice: trying again is useless."""
    GONE = enum.auto()
    """The receiver wants no more notices."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt, and in words why it failed."""

    outcome: Outcome
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What one attempt sent, and what the receiver answered, for a person to read."""

    sent: str
    received: str
    """Empty: nothing. Only its beginning."""
    attempt: Attempt


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTest:
    """What a test notice sent, and what the receiver answered."""

    delivered: bool
    cause: str
    sent: str
    received: str
    node_id: NodeId
    """The node that sent it."""
