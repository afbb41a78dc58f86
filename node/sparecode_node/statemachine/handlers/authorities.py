# SPDX-License-Identifier: Apache-2.0
"""
Handlers of the authorities' keys: which members have had them, and what follows (P6a).

The state has the fingerprints of keys, never a key. Certificates of members and agents
are files that operators own, so the cluster replaces no authority itself: it records
that one is due until no member trusts it, or an administrator keeps it.
"""

from collections.abc import Iterable

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import KEYS_MAX, AuthorityKey, DueCause
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.membership import (
    KeepAuthorities,
    NoteAuthorityKeys,
    RetireAuthority,
)
from sparecode_node.statemachine.feature_level import DUE_AUTHORITIES
from sparecode_node.statemachine.tables import authorities as tables
from sparecode_node.statemachine.tables import membership as membership_tables


def note_authority_keys(
    applying: Applying, command: NoteAuthorityKeys
) -> Rejected | None:
    """Apply `NoteAuthorityKeys`."""
    if not command.keys:
        return Rejected(Reason.STALE_PARAMETERS, "the command names no key")
    if command.node_id != applying.call.node_id:
        return Rejected(
            Reason.STALE_PARAMETERS, "a member speaks for itself, not for another"
        )
    if tables.count_keys(applying.db, command.node_id) + len(command.keys) > KEYS_MAX:
        return Rejected(
            Reason.STALE_PARAMETERS, f"{command.node_id} has recorded too many keys"
        )
    record_keys(applying, command.node_id, command.keys)
    applying.detail = in_words(command.keys)
    known = membership_tables.find_node(applying.db, command.node_id)
    if known is not None and known.removed:  # It was on its way at the removal.
        mark_due(applying, command.node_id, requested=known.suspect)
    return None


def record_keys(
    applying: Applying, node_id: NodeId, keys: Iterable[AuthorityKey]
) -> None:
    """Record that a member has these keys."""
    for key in keys:
        tables.save_key(applying.db, node_id, key, applying.now_ms)


def mark_due(
    applying: Applying, node_id: NodeId, *, requested: bool
) -> tuple[AuthorityKey, ...]:
    """
    Record that the authorities whose keys a removed member has had are due.

    On request, or if the policy requires it. Return them.
    """
    if applying.feature_level < DUE_AUTHORITIES or not (
        requested or applying.policy.authorities_due_after_removal
    ):
        return ()
    keys = tables.keys_of(applying.db, node_id)
    cause = DueCause.REQUEST if requested else DueCause.POLICY
    for key in keys:
        tables.save_due(applying.db, node_id, key, applying.now_ms, cause)
    return keys


def retire_authority(applying: Applying, command: RetireAuthority) -> Rejected | None:
    """Apply `RetireAuthority`: its key signs nothing that members accept."""
    key = AuthorityKey(authority=command.authority, fingerprint=command.fingerprint)
    members = tables.forget(applying.db, key)
    if not members:
        return Rejected(
            Reason.STALE_PARAMETERS, "no member is known to have had this key"
        )
    applying.detail = f"no member trusts it; {', '.join(members)} had its key"
    return None


def keep_authorities(applying: Applying, command: KeepAuthorities) -> Rejected | None:
    """Apply `KeepAuthorities`. The event names the administrator and the reason."""
    kept = tables.forget_due(applying.db, command.node_id)
    if not kept:
        return Rejected(
            Reason.AUTHORITY_NOT_DUE,
            f"no authority is due because of {command.node_id}",
            "node_id",
        )
    applying.detail = f"{in_words(kept)} stay: {command.reason}"
    return None


def in_words(keys: Iterable[AuthorityKey]) -> str:
    """Return authorities in words: `members 0123456789abcdef, agents ...`."""
    return ", ".join(map(str, keys))
