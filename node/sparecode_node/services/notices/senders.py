# SPDX-License-Identifier: Apache-2.0
"""What sends the notices of a channel, by its kind."""

import ssl
from typing import Protocol

from sparecode_node.domain.notices import Channel
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.services.notices.outcomes import Attempt, Exchange
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


async def open_sender(channel: Channel, seals: ChannelSeals) -> Sender:
    """Prepare the sender of a channel; nothing is sent. Raises `UnusableError`."""
    try:
        secret = seals.unseal_channel_secret(
            channel.channel, channel.sealed_secret, channel.key_id
        )
        return await WebhookSender.open(channel, secret, seals.cluster_id)
    except UnknownKeyError as error:
        raise KeyAwaitedError(str(error)) from error
    except (BrokenSealError, ssl.SSLError, ValueError) as error:
        raise UnusableError(str(error)) from error
