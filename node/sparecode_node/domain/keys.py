# SPDX-License-Identifier: Apache-2.0
"""
The keys that the state uses, and until when. These are facts about keys, never keys.

                  activated              next key activated            nothing uses it
    waiting  ------------------> active ---------------------> aging -----------------> retired

An aging key still opens the values sealed with it, until all are resealed.
"""

from dataclasses import dataclass

from sparecode_node.domain.challenges import CHALLENGE_MS
from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInUse:
    """A key that values in the state may be sealed with."""

    key_id: KeyId
    fingerprint: bytes
    """Identifies the key; empty if unknown, for a cluster's first key."""
    retire_at_ms: int | None = None
    """The earliest time at which the key may be retired; None: the key is active."""
    keep: bool = False
    """Whether members keep the key in their rings, to open older backups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetiredKey:
    """A key that no value is sealed with any more."""

    key_id: KeyId
    keep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysInState:
    """The keys that the state knows."""

    active: KeyId
    """0: the cluster is not initialized."""
    in_use: tuple[KeyInUse, ...] = ()
    retired: tuple[RetiredKey, ...] = ()

    def uses(self, key_id: KeyId) -> bool:
        """Return whether values sealed with the key may enter the state."""
        return any(each.key_id == key_id for each in self.in_use)

    @property
    def aging(self) -> tuple[KeyInUse, ...]:
        """The keys whose seals must be replaced."""
        return tuple(each for each in self.in_use if each.key_id != self.active)


def retire_at_ms(policy: Policy, now_ms: int, *, at_once: bool) -> int:
    """
    Return the earliest time to retire a key that was active until now.

    By then everything issued under the key has ended: drafts, challenges, and
    remembered request ids with the key's tags.
    """
    if at_once:
        return now_ms
    return now_ms + max(
        policy.draft_lifetime_ms, policy.request_retention_ms, CHALLENGE_MS
    )
