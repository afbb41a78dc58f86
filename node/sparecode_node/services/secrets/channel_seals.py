# SPDX-License-Identifier: Apache-2.0
"""Secrets of channels, such as the keys that sign webhooks."""

from typing import Final

from sparecode_node.domain.ids import KeyId, NameKey
from sparecode_node.services.secrets.sealing import Sealing

CHANNEL_SECRET: Final = "channel-secret"


class ChannelSeals(Sealing):
    """Adds to the seals what only channels need."""

    def seal_channel_secret(
        self, channel: NameKey, secret: str, key_id: KeyId
    ) -> bytes:
        """Seal the secret of a channel."""
        return self._sealed(
            key_id, CHANNEL_SECRET, secret.encode(), [CHANNEL_SECRET, channel]
        )

    def unseal_channel_secret(
        self, channel: NameKey, sealed: bytes, key_id: KeyId
    ) -> str:
        """Return the secret. Raises `BrokenSealError` and `UnknownKeyError`."""
        return self._opened(
            key_id, CHANNEL_SECRET, sealed, [CHANNEL_SECRET, channel]
        ).decode()
