# SPDX-License-Identifier: Apache-2.0
"""Commands on the keys of the ring; like all others, never broken. No key is in them."""

import enum
from dataclasses import dataclass, field

from sparecode_node.domain.ids import KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivateKey:
    """Make new things with a key that all voters hold (P5)."""

    fingerprint: bytes
    replaces: KeyId
    """The key that was active when it was handed out: one rotation after the other."""
    at_once: bool
    """The older keys go as soon as nothing is sealed with them."""
    keep_old_key: bool
    """The members keep the older keys in their rings, for backups of before."""


class SealKind(enum.StrEnum):
    """What is sealed, or keyed. The values are in the log."""

    SEED = "seed"
    PIN = "pin"
    CODES = "codes"
    PASSWORD = "password"
    SECOND_FACTOR = "second_factor"
    NAME_TAG = "name_tag"
    PENDING_CHANGE = "pending_change"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplacedSeal:
    """
    What one row holds instead of what it held, if it still does (T3).

    Of a set all verifiers, in the order of its codes; of a PIN its verifier and, for
    a PINpad token, the PIN as it is folded in (else nothing). A set without new ones
    is forgotten, if no code of it lives.
    """

    kind: SealKind
    row: str
    old_key_id: KeyId
    old: tuple[bytes, ...] = field(repr=False)
    new: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceSeals:
    """Replace seals by those of the active key; what has changed meanwhile stays."""

    key_id: KeyId
    seals: tuple[ReplacedSeal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetireKey:
    """Say that nothing is sealed with a key any more, and that none shall be."""

    key_id: KeyId
