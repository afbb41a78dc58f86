# SPDX-License-Identifier: Apache-2.0
"""Commands on the keys of the ring. They never contain a key."""

import enum
from dataclasses import dataclass, field

from sparecode_node.domain.ids import KeyId, NodeId


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivateKey:
    """Use a key that all voters hold for new seals (P5)."""

    fingerprint: bytes
    replaces: KeyId
    """The key that was active when the new one was distributed: one rotation at a time."""
    at_once: bool
    """Retire older keys as soon as nothing is sealed with them."""
    keep_old_key: bool
    """Keep older keys in the members' rings, to open older backups."""
    after_removal: str = ""
    """Id of the removed member because of which the key is replaced; or empty (P6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivateDueKey:
    """Use a new key because a removal requires it, without an administrator (P6)."""

    fingerprint: bytes
    replaces: KeyId
    node_id: NodeId
    """The removed member."""


class SealKind(enum.StrEnum):
    """The kind of a sealed or keyed value. The values are in the log."""

    SEED = "seed"
    PIN = "pin"
    CODES = "codes"
    PASSWORD = "password"
    SECOND_FACTOR = "second_factor"
    NAME_TAG = "name_tag"
    PENDING_CHANGE = "pending_change"
    PENDING_RESET = "pending_reset"
    """From feature level 2 on; the state of a lower level has none."""
    SEED_FINGERPRINT = "seed_fingerprint"
    """
    From feature level 2 on. The old value is the sealed seed that was hashed, under its
    key: the first fingerprint of a token enrolled below level 2 replaces none.
    """
    RADIUS_SECRET = "radius_secret"
    """From feature level 2 on: the secret of a RADIUS client."""
    CHANNEL_SECRET = "channel_secret"
    """From feature level 2 on: the secret of a channel."""
    PENDING_CHANNEL = "pending_channel"
    """From feature level 2 on: the same in a change that waits for an approval."""
    FORMER_CODES = "former_codes"
    """
    From feature level 2 on: the codes of a former set. The old values are its verifiers,
    the new ones the tags of its codes, which replace the set (A5).
    """
    CODE_TAGS = "code_tags"
    """From feature level 2 on: the tags of a former set, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedSeal:
    """
    The old and new seals of one row. Replaced only if the row still holds the old (T3).

    For a set: all verifiers, in the order of its codes. For a PIN: the verifier and, for
    a PINpad token, the sealed PIN, else an empty value. A set whose *new* is empty is
    deleted if none of its codes is live, and so are tags.
    """

    kind: SealKind
    row: str
    old_key_id: KeyId
    old: tuple[bytes, ...] = field(repr=False)
    new: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceSeals:
    """Replace seals by the active key's, and former codes by tags. Skip changed values."""

    key_id: KeyId
    seals: tuple[ReplacedSeal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireKey:
    """Retire a key: nothing is sealed with it, and nothing will be."""

    key_id: KeyId
    unused_at: int | None = None
    """
    The entry after which nothing was sealed with the key, as its proposer has seen.

    From feature level 2 on. Apply knows whether a value with an aging key came later.
    """
