# SPDX-License-Identifier: Apache-2.0
"""Channels, and notices that wait for them."""

import base64
import enum
import secrets
from dataclasses import dataclass
from datetime import datetime


class ChannelKind(enum.StrEnum):
    """How a channel tells notices."""

    WEBHOOK = "webhook"
    SYSLOG = "syslog"
    """Every event, in order, by syslog over TLS."""
    FILE = "file"
    """Every event, in order, in files on each node."""
    MAIL = "mail"
    """Mails to the people that events are about."""


class EventClass(enum.StrEnum):
    """What an event is about. A full channel drops the last classes first."""

    ADMINISTRATION = "administration"
    EMERGENCY = "emergency"
    TOKENS = "tokens"
    SESSIONS = "sessions"
    AUTHENTICATION = "authentication"
    UPKEEP = "upkeep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A way by which the cluster tells events to another system."""

    name: str
    kind: ChannelKind | None
    enabled: bool
    address: str
    """The URL of a webhook, a receiver of syslog or a mail server; empty: a file."""
    classes: tuple[EventClass, ...]
    """The events that it tells; empty: those that people hear of by mail."""
    allow_private: bool
    """Whether the address may be private or local."""
    authority: str
    """The authorities of its certificate in PEM; empty: those of the nodes' systems."""
    waiting_count: int
    dead_count: int
    """Notices that could not be delivered."""
    oldest_time: datetime | None
    """When the oldest waiting notice happened; None: none waits."""
    sender: str = ""
    """Mail: the address that it is from."""
    login: str = ""
    """Mail: the name at the mail server; empty: the nodes do not sign in."""
    contact: str = ""
    """Mail: how people reach the help desk, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A notice that is not delivered, without the content of its event."""

    number: int
    notice_id: str
    """The id that every delivery of its event has."""
    channel: str
    event_class: EventClass | None
    action: str
    sequence: int
    """Its number in the audit log."""
    time: datetime | None
    dead: bool
    """Whether it is a dead letter: its delivery was given up."""
    cause: str
    """Why it is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTest:
    """What a test notice sent, and what the receiver answered."""

    delivered: bool
    """Whether the receiver took it."""
    cause: str
    """Why not; empty: it did."""
    sent: str
    received: str
    """The beginning of the answer; empty: there was none."""
    node_id: str
    """The node that sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticePreview:
    """The mail of a kind of notice, with example data."""

    kind: str
    language: str
    """The language that it is written in."""
    subject: str
    text: str
    html: str


def new_webhook_secret() -> str:
    """Draw a secret that signs webhooks, in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
