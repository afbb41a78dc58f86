# SPDX-License-Identifier: Apache-2.0
"""
Slots: each user name belongs to one of 4,096, by a hash that never changes.

Several clusters share the users among them by slots (docs/clusters.md). The client
library computes the same number; a test compares both.
"""

import hashlib
from typing import Final

from sparecode_node.domain.ids import NameKey

SLOTS: Final = 4096
"""The number of slots. It can never change: every cluster computes the same ones."""

_UNUSED_BITS = 4
"""A slot is the first 12 bits of a hash, so four of its first two bytes are not used."""


def slot_of(name_key: NameKey) -> int:
    """Return the slot of a folded name: the first 12 bits of the SHA-256 of its UTF-8."""
    encoded = name_key.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.sha256(encoded).digest()[:2]) >> _UNUSED_BITS


def in_words(first: int, last: int) -> str:
    """Return a range of slots in words."""
    return f"slot {first}" if first == last else f"slots {first} to {last}"
