# SPDX-License-Identifier: Apache-2.0
"""What sends the notices of a channel, by its kind."""

import ssl
from pathlib import Path
from typing import Protocol

from sparecode_node.domain.notices import Channel, ChannelKind
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.services.notices.alarms import AlarmLinks
from sparecode_node.services.notices.event_file import EventFile
from sparecode_node.services.notices.mail import MailSender
from sparecode_node.services.notices.outcomes import Attempt, Exchange
from sparecode_node.services.notices.streams import StreamSender
from sparecode_node.services.notices.syslog import SyslogSender
from sparecode_node.services.notices.webhook import WebhookSender
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.sealing import BrokenSealError


class UnusableError(Exception):
    """A channel whose secret or settings cannot be used. The message says why."""


class KeyAwaitedError(UnusableError):
    """The ring of this node does not have the key of the secret yet."""


class Sender(Protocol):
    """Sends notices to one receiver."""

    async def send(self, notice: StoredNotice, now_ms: int) -> Attempt:
        """Send one notice; every failure is an `Attempt`, not an exception."""

    async def exchange(self, notice: StoredNotice, now_ms: int) -> Exchange:
        """Send one notice, and return what was sent and received."""

    async def close(self) -> None:
        """Close its connections."""


async def open_sender(
    channel: Channel,
    seals: ChannelSeals,
    *,
    node_id: str,
    folder: Path | None,
    alarm_links: AlarmLinks | None = None,
) -> Sender | StreamSender:
    """
    Prepare the sender of a channel; nothing is sent. Raises `UnusableError`.

    *folder*: where this node writes the files of channels; None: nowhere.
    *alarm_links*: writes the links of mails; None: they have none (N9).
    """
    try:
        if channel.kind is ChannelKind.FILE:
            if folder is None:
                raise UnusableError(
                    f"node {node_id} writes no files: set event_folder in its node.toml"
                )
            return EventFile(channel.channel, folder, seals.cluster_id)
        if channel.kind is ChannelKind.SYSLOG:
            return await SyslogSender.open(channel, seals.cluster_id, node_id)
        secret = seals.unseal_channel_secret(
            channel.channel, channel.sealed_secret, channel.key_id
        )
        if channel.kind is ChannelKind.MAIL:
            return await MailSender.open(channel, secret, alarm_links)
        return await WebhookSender.open(channel, secret, seals.cluster_id)
    except UnknownKeyError as error:
        raise KeyAwaitedError(str(error)) from error
    except (BrokenSealError, ssl.SSLError, ValueError) as error:
        raise UnusableError(str(error)) from error
