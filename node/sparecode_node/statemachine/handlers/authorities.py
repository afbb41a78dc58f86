# SPDX-License-Identifier: Apache-2.0
"""
Handlers of the authorities' keys: which members have had them, and what follows (P6a).

The state has the fingerprints of keys, never a key. It records that an authority is due
until no member trusts it, or an administrator keeps it. A member that has its key makes
a successor and announces it with a proof. Nothing here checks the proof, because
libraries of two releases might judge it differently: each node does before it trusts the
successor (`membership/successors.py`).
"""

from collections.abc import Iterable
from dataclasses import replace

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import (
    KEYS_MAX,
    SUCCESSOR_BYTES_MAX,
    AuthorityKey,
    DueCause,
    Successor,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.membership import (
    AnnounceAuthority,
    FinishAuthorities,
    KeepAuthorities,
    NoteAuthorityKeys,
    ReplaceAuthorities,
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
    started = applying.policy.replace_authorities_after_removal
    for key in keys:
        tables.save_due(
            applying.db, node_id, key, applying.now_ms, cause, started=started
        )
    return keys


def replace_authorities(
    applying: Applying, command: ReplaceAuthorities
) -> Rejected | None:
    """Apply `ReplaceAuthorities`: a member that has the keys makes the successors."""
    started = tables.start(applying.db, command.node_id)
    if not started:
        return _not_due(command.node_id)
    applying.detail = f"{in_words(started)} get successors"
    return None


def announce_authority(
    applying: Applying, command: AnnounceAuthority
) -> Rejected | None:
    """Apply `AnnounceAuthority`, for an authority that is due, and for its maker alone."""
    successor = Successor(
        authority=command.authority,
        replaces=command.replaces,
        node_id=command.node_id,
        fingerprint=command.fingerprint,
        certificate=command.certificate,
        proof=command.proof,
        since_ms=applying.now_ms,
    )
    if command.node_id != applying.call.node_id or _is_removed(
        applying, command.node_id
    ):
        return Rejected(
            Reason.STALE_PARAMETERS, "only a member announces a successor, its own"
        )
    if not tables.is_started(applying.db, successor.replaced):
        return Rejected(
            Reason.STALE_PARAMETERS, f"{successor.replaced} is not to be replaced"
        )
    if refused := _announced_before(applying, successor):
        return refused
    if max(len(command.certificate), len(command.proof)) > SUCCESSOR_BYTES_MAX:
        return Rejected(Reason.STALE_PARAMETERS, "the announcement is too large")
    held = tables.keys_of(applying.db, command.node_id)
    if successor.replaced not in held:
        return Rejected(
            Reason.STALE_PARAMETERS,
            f"{command.node_id} has not recorded the key of {successor.replaced}",
        )
    if successor.key not in held and len(held) >= KEYS_MAX:
        return Rejected(
            Reason.STALE_PARAMETERS, f"{command.node_id} has recorded too many keys"
        )
    tables.save_successor(applying.db, successor)
    record_keys(applying, command.node_id, (successor.key,))
    applying.detail = f"{successor.key} is to replace {successor.replaces[:16]}"
    return None


def _is_removed(applying: Applying, node_id: NodeId) -> bool:
    known = membership_tables.find_node(applying.db, node_id)
    return known is not None and known.removed


def _announced_before(applying: Applying, successor: Successor) -> Rejected | None:
    """
    Refuse an announcement that would change or hide an earlier one.

    Members may use certificates of the earlier one.
    """
    if successor.fingerprint == successor.replaces:
        return Rejected(Reason.STALE_PARAMETERS, "an authority does not replace itself")
    for each in tables.successors(applying.db):
        if each.replaced == successor.replaced and each.sole:
            return Rejected(
                Reason.STALE_PARAMETERS, f"{successor.replaced} has been replaced"
            )
        if each.replaced == successor.replaced and each.node_id == successor.node_id:
            return Rejected(
                Reason.STALE_PARAMETERS, f"{each.node_id} has announced another one"
            )
    return None


def finish_authorities(
    applying: Applying, command: FinishAuthorities
) -> Rejected | None:
    """Apply `FinishAuthorities`: only the named successors are trusted from now on."""
    due = tables.due_keys(applying.db, command.node_id)
    if not due:
        return _not_due(command.node_id)
    if membership_tables.admitted(applying.db) != command.nodes:
        return Rejected(
            Reason.STALE_PARAMETERS,
            "a node was admitted or removed since the members were asked",
        )
    chosen = {
        each.replaced: each
        for each in tables.successors(applying.db)
        if each.name in command.successors and not _is_removed(applying, each.node_id)
    }
    if missing := [key for key in due if key not in chosen]:
        return Rejected(
            Reason.MEMBER_NOT_READY, f"{in_words(missing)} have no successor"
        )
    for key in due:
        tables.save_successor(applying.db, replace(chosen[key], sole=True))
        tables.forget_successors(applying.db, key)
    applying.detail = ", ".join(
        f"{chosen[key].key} of {chosen[key].node_id} in place of {key.fingerprint[:16]}"
        for key in due
    )
    return None


def retire_authority(applying: Applying, command: RetireAuthority) -> Rejected | None:
    """
    Apply `RetireAuthority`: its key signs nothing that members accept.

    Not of a successor that is announced: members are about to trust it, and the removal
    of its maker must find that it has the key.
    """
    key = AuthorityKey(authority=command.authority, fingerprint=command.fingerprint)
    if any(
        each.key == key and not each.sole for each in tables.successors(applying.db)
    ):
        return Rejected(
            Reason.STALE_PARAMETERS, f"{key} is announced, and not in place yet"
        )
    members = tables.forget(applying.db, key)
    if not members:
        return Rejected(
            Reason.STALE_PARAMETERS, "no member is known to have had this key"
        )
    tables.forget_successors(applying.db, key)
    applying.detail = f"no member trusts it; {', '.join(members)} had its key"
    return None


def keep_authorities(applying: Applying, command: KeepAuthorities) -> Rejected | None:
    """Apply `KeepAuthorities`. The event names the administrator and the reason."""
    kept = tables.forget_due(applying.db, command.node_id)
    if not kept:
        return _not_due(command.node_id)
    applying.detail = f"{in_words(kept)} stay: {command.reason}"
    if ended := _end_pending(applying, kept):
        applying.detail += f"; {in_words(ended)} replaces none"
    return None


def _end_pending(
    applying: Applying, kept: Iterable[AuthorityKey]
) -> tuple[AuthorityKey, ...]:
    """
    End the trust in successors of authorities that stay; return these successors.

    Not of an authority that is due because of another member, too, and not of one whose
    successor has been replaced: that one's successor is in place.
    """
    announced = tables.successors(applying.db)
    replaced = {each.replaced for each in announced if each.sole}
    ended: list[AuthorityKey] = []
    for key in kept:
        pending = [s for s in announced if s.replaced == key and not s.sole]
        if tables.is_due(applying.db, key) or replaced & {s.key for s in pending}:
            continue
        tables.forget_successors(applying.db, key)
        ended += (each.key for each in pending)
    return tuple(ended)


def _not_due(node_id: NodeId) -> Rejected:
    return Rejected(
        Reason.AUTHORITY_NOT_DUE,
        f"no authority is due because of {node_id}",
        "node_id",
    )


def in_words(keys: Iterable[AuthorityKey]) -> str:
    """Return authorities in words: `members 0123456789abcdef, agents ...`."""
    return ", ".join(map(str, keys))
