# SPDX-License-Identifier: Apache-2.0
"""Commands on channels, and on the notices that wait for their delivery."""

from dataclasses import dataclass, field

from sparecode_node.domain.ids import KeyId, NameKey
from sparecode_node.domain.notices import ChannelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveChannel:
    """Add a channel, or replace the settings of one that still has this *version*."""

    channel: NameKey
    """Not `name_key`: it names no user. Folded by the called node."""
    name: str
    kind: ChannelKind
    version: int
    """The version that was read; 0: a new channel."""
    enabled: bool
    address: str
    classes: tuple[str, ...]
    allow_private: bool
    authority: str
    sealed_secret: bytes | None = field(repr=False)
    """None: the channel keeps its secret."""
    key_id: KeyId
    sender: str = ""
    login: str = ""
    contact: str = ""
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveChannel:
    """Remove a channel, and the notices that wait for it."""

    channel: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class AcknowledgeNotices:
    """
    Forget notices that a channel has delivered (N2).

    It decides nothing, so it is neither deduplicated nor audited.
    """

    channel: NameKey
    numbers: tuple[int, ...]
    """Of a stream: the sequence number of the last event that it has delivered."""
    version: int
    """The channel's: what went to an earlier receiver is not delivered to a later one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailNotices:
    """Keep notices that could not be delivered as dead letters (N2)."""

    channel: NameKey
    numbers: tuple[int, ...]
    cause: str
    disable: bool
    """Whether the receiver wants no more notices: the channel is disabled."""
    version: int
    """The channel's: a later receiver has not refused anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SendNoticesAgain:
    """Deliver dead letters of a channel again, under their earlier ids."""

    channel: NameKey
    numbers: tuple[int, ...]
    """Empty: all of them."""
