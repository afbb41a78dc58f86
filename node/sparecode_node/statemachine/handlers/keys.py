# SPDX-License-Identifier: Apache-2.0
"""
Handlers of keys: activate, reseal, retire (T3, P5).

Resealing does not change what a value means, so it raises no version. A candidate
computed with the old key is recognized by the key number beside the seal.
"""

from collections.abc import Sequence
from dataclasses import replace

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.keys import retire_at_ms
from sparecode_node.domain.moves import RECEIPTS_KEPT_MS
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.keys import (
    ActivateDueKey,
    ActivateKey,
    ReplacedSeal,
    ReplaceSeals,
    RetireKey,
    SealKind,
)
from sparecode_node.statemachine.feature_level import FOUND_UNUSED
from sparecode_node.statemachine.tables import keys as key_tables
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables import moves as move_tables
from sparecode_node.statemachine.tables import seed_fingerprints as fingerprint_tables

SHARED_SEEDS_MAX = 8
"""Tokens with the seed of another token that one event names."""


def takes(applying: Applying, key_id: KeyId) -> bool:
    """
    Return whether a value that is sealed with the key may enter the state.

    Records that a value with an aging key enters: the key may have been found unused.
    """
    if not applying.keys.uses(key_id):
        return False
    if key_id != applying.keys.active and applying.feature_level >= FOUND_UNUSED:
        meta.write(applying.db, key_tables.AGING_SEALED_INDEX, applying.index)
    return True


def activate_key(applying: Applying, command: ActivateKey) -> Rejected | None:
    """Apply `ActivateKey`."""
    db, keys = applying.db, applying.keys
    if command.replaces != keys.active or key_tables.has_key(db, command.fingerprint):
        return Rejected(
            Reason.KEY_REPLACED,
            f"another rotation has activated key {keys.active} in the meantime",
        )
    end_ms = retire_at_ms(applying.policy, applying.now_ms, at_once=command.at_once)
    for each in keys.in_use:
        before_ms = each.retire_at_ms
        key_tables.age(
            db,
            replace(
                each,
                retire_at_ms=end_ms if before_ms is None else min(before_ms, end_ms),
                keep=each.keep or command.keep_old_key,
            ),
        )
    if command.after_removal == key_tables.rotation_due(db):
        meta.clear(db, key_tables.ROTATION_DUE)
    key_id = key_tables.add(db, command.fingerprint, applying.now_ms)
    applying.detail = f"key {key_id} replaces key {command.replaces}" + (
        ", without a delay for the old key" if command.at_once else ""
    )
    return None


def activate_due_key(applying: Applying, command: ActivateDueKey) -> Rejected | None:
    """Apply `ActivateDueKey`: without an administrator, only while one is due (P6)."""
    if command.node_id != key_tables.rotation_due(applying.db):
        return Rejected(
            Reason.KEY_REPLACED,
            f"no removal of {command.node_id} waits for another key",
        )
    refused = activate_key(
        applying,
        ActivateKey(
            fingerprint=command.fingerprint,
            replaces=command.replaces,
            at_once=True,
            keep_old_key=False,
            after_removal=command.node_id,
        ),
    )
    applying.detail += f", after the removal of {command.node_id}"
    return refused


def replace_seals(applying: Applying, command: ReplaceSeals) -> Rejected | None:
    """Apply `ReplaceSeals`."""
    if command.key_id != applying.keys.active:
        return Rejected(Reason.STALE_PARAMETERS)
    done = [
        seal
        for seal in command.seals
        if applying.keys.uses(seal.old_key_id)
        and key_tables.replace_seal(applying.db, seal, command.key_id, applying.now_ms)
    ]
    applying.detail = f"{len(done)} of {len(command.seals)} seals" + "".join(
        _shared_seeds(applying, done)[:SHARED_SEEDS_MAX]
    )
    return None


def _shared_seeds(applying: Applying, done: Sequence[ReplacedSeal]) -> list[str]:
    """Name the tokens that were found to have the seed of another token (K5)."""
    shared = []
    for seal in done:
        if seal.kind is SealKind.SEED_FINGERPRINT:
            other = fingerprint_tables.find_serial(
                applying.db, seal.new, other_than=seal.row
            )
            if other is not None:
                shared.append(f"; token {seal.row} has the seed of token {other}")
    return shared


def retire_key(applying: Applying, command: RetireKey) -> Rejected | None:
    """Apply `RetireKey`."""
    aging = {each.key_id: each for each in applying.keys.aging}
    key = aging.get(command.key_id)
    if (
        key is None
        or key.retire_at_ms is None
        or applying.now_ms < key.retire_at_ms
        or _is_used(applying, command)
        or move_tables.needs_key(
            applying.db, command.key_id, applying.now_ms - RECEIPTS_KEPT_MS
        )
    ):
        return Rejected(
            Reason.KEY_IN_USE,
            f"key {command.key_id} is active, in use, or not due to be retired yet",
        )
    key_tables.retire(applying.db, command.key_id)
    return None


def _is_used(applying: Applying, command: RetireKey) -> bool:
    """
    Return whether a value is, or may be, sealed with the key.

    Below feature level 2, apply looks at every value, and answers nobody meanwhile.
    """
    db = applying.db
    if applying.feature_level < FOUND_UNUSED:
        return key_tables.is_used(db, command.key_id)
    return (
        command.unused_at is None
        or meta.read(db, key_tables.AGING_SEALED_INDEX, 0) > command.unused_at
        or key_tables.waits(db, command.key_id)
    )
