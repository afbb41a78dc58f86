# SPDX-License-Identifier: Apache-2.0
"""
Which keys of the ring the state uses, and until when: facts about keys, never a key.

                  activated              the next one activated        nothing uses it
    waiting  ------------------> active ---------------------> aging -----------------> retired

An aging key still opens what was sealed with it, while all of it is sealed anew.
"""

from dataclasses import dataclass

from sparecode_node.domain.challenges import CHALLENGE_MS
from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInUse:
    """A key that something in the state may be sealed with."""

    key_id: KeyId
    fingerprint: bytes
    """Tells the key from any other; empty: not known of a cluster's first one."""
    retire_at_ms: int | None = None
    """Not before then; None: it is active."""
    keep: bool = False
    """The members keep it in their rings, for backups of before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetiredKey:
    """A key that nothing is sealed with any more."""

    key_id: KeyId
    keep: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysInState:
    """The keys as the state knows them."""

    active: KeyId
    """0: the cluster has not begun."""
    in_use: tuple[KeyInUse, ...] = ()
    retired: tuple[RetiredKey, ...] = ()

    def uses(self, key_id: KeyId) -> bool:
        """Say whether what is sealed with the key may enter the state."""
        return any(each.key_id == key_id for each in self.in_use)

    @property
    def aging(self) -> tuple[KeyInUse, ...]:
        """The keys whose seals are to be replaced."""
        return tuple(each for each in self.in_use if each.key_id != self.active)


def retire_at_ms(policy: Policy, now_ms: int, *, at_once: bool) -> int:
    """
    Return when a key that was active until now may go.

    By then nothing that was handed out under it can be used any more: drafts,
    challenges, and retries whose request ids are remembered with its tags.
    """
    if at_once:
        return now_ms
    return now_ms + max(
        policy.draft_lifetime_ms, policy.request_retention_ms, CHALLENGE_MS
    )
