# SPDX-License-Identifier: Apache-2.0
"""Handler of the policy: load what exists under it, decide, save the next version."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cached_property
from typing import Any

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.passkeys import ShownFactor
from sparecode_node.domain.policy import UNLIMITED, FactorRule, Policy, changes
from sparecode_node.domain.policy_changes import (
    LiveCodes,
    changed,
    weighs_lettered_pins,
    weighs_live_codes,
)
from sparecode_node.domain.retention import takes_evidence
from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.policy import CountedCodes, UpdatePolicy
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import archives, live_codes, meta
from sparecode_node.statemachine.tables import moves as move_tables
from sparecode_node.statemachine.tables import passkeys as passkey_tables


def find_policy(db: sqlite3.Connection) -> Policy | None:
    """Return the current policy; None before the cluster is initialized."""
    row = db.execute(
        "SELECT value FROM policy ORDER BY version DESC LIMIT 1"
    ).fetchone()
    return _stored(row)


def find_version(db: sqlite3.Connection, version: int) -> Policy | None:
    """Return a version of the policy, in force or former; None: there was none."""
    row = db.execute(
        "SELECT value FROM policy WHERE version = ?", (version,)
    ).fetchone()
    return _stored(row)


def _stored(row: tuple[str] | None) -> Policy | None:
    return Policy(**json.loads(row[0])) if row else None


FIELD_LEVELS = {
    "reset_delay_ms": feature_level.DELAYED_RESETS,
    "rotate_after_removal": feature_level.MEMBERS_ARE_POWER,
    "authorities_due_after_removal": feature_level.DUE_AUTHORITIES,
    "replace_authorities_after_removal": feature_level.DUE_AUTHORITIES,
    "pin_blocklist": feature_level.PIN_BLOCKLIST,
    "issued_sets_per_hour": feature_level.ALLOWANCES,
    "issued_sets_per_day": feature_level.ALLOWANCES,
    "unlocks_per_day": feature_level.ALLOWANCES,
    "privileged_session_lifetime_ms": feature_level.SESSION_LIMITS,
    "privileged_session_idle_ms": feature_level.SESSION_LIMITS,
    "former_code_retention_ms": feature_level.FORMER_CODES,
    "administrators_second_factor": feature_level.PASSKEYS,
    "passkey_domain": feature_level.PASSKEYS,
    "silent_notices": feature_level.PERSONAL_NOTICES,
    "manager_notices": feature_level.PERSONAL_NOTICES,
    "codes_by_message": feature_level.SEALED_CODES,
    "codes_to_manager": feature_level.SEALED_CODES,
    "alarm_ends_codes": feature_level.ALARMS,
    "audit_retention_ms": feature_level.AUDIT_SEGMENTS,
    "audit_archive_copies": feature_level.AUDIT_SEGMENTS,
}
"""
The level that began each field that release 0.1.0 does not have.

Below that level the field is not stored: older members would not read it.
"""


def add_policy(db: sqlite3.Connection, policy: Policy, level: int) -> None:
    """Add a version of the policy; it is in force from now on."""
    value = {
        name: value
        for name, value in asdict(policy).items()
        if FIELD_LEVELS.get(name, feature_level.FIRST) <= level
    }
    db.execute(
        "INSERT INTO policy (version, value) VALUES (?, ?)",
        (policy.version, json.dumps(value, sort_keys=True)),
    )


USERS_ARRIVE = Rejected(
    Reason.MOVE_STEP,
    "this cannot change while users arrive from another cluster, whose codes have the "
    "form of this policy: activate or cancel the move first",
)
"""Refuses changes that weigh live codes: more of them arrive meanwhile (I6, T4)."""


def values_of(command: UpdatePolicy) -> dict[str, Any]:
    """Return the new values of the fields that a command changes."""
    values = {
        field.name: value
        for field in fields(Policy)
        if field.name != "version"
        and (value := getattr(command, field.name)) is not None
    }
    for name in UNLIMITED:
        if values.get(name) == 0:
            values[name] = None
    return values


def weighs_codes(policy: Policy, values: Mapping[str, object], level: int) -> bool:
    """Return whether live codes can forbid a change at a feature level (I6, T4)."""
    return weighs_live_codes(
        policy, values, fewer_guesses=level < feature_level.FREE_TIGHTENING
    )


def update_policy(applying: Applying, command: UpdatePolicy) -> Result:
    """Apply `UpdatePolicy`. The machine uses the new value from the next command on."""
    values = values_of(command)
    # Codes that arrive belong to sets that may have been counted before.
    if weighs_codes(
        applying.policy, values, applying.feature_level
    ) and move_tables.any_arriving(applying.db):
        return USERS_ARRIVE
    in_use = _InUse(applying, values, command.counted)
    try:
        after = changed(applying.policy, command.version, values, in_use)
    except _StaleCountError:
        return Rejected(Reason.STALE_PARAMETERS)
    if isinstance(after, Rejected):
        return after
    refused = _second_factor_problem(applying, after)
    if refused is not None:
        return refused
    if applying.feature_level >= feature_level.AUDIT_SEGMENTS and takes_evidence(
        applying.policy, after
    ):
        meta.write(applying.db, archives.SHORTENED, applying.now_ms)
    add_policy(applying.db, after, applying.feature_level)
    what = changes(applying.policy, after) or "no change"
    applying.detail = f"version {after.version}: {what}"
    return Applied(index=applying.index)


def _second_factor_problem(applying: Applying, after: Policy) -> Rejected | None:
    """
    Refuse changes that could lock every administrator out (P8).

    Who requires a second factor has shown it: then the domain of the passkeys works.
    """
    before = applying.policy
    passkeys = passkey_tables.count(applying.db)
    if after.passkey_domain != before.passkey_domain and passkeys:
        return Rejected(
            Reason.PASSKEYS_IN_USE,
            f"passkey_domain cannot change while {plural(passkeys, 'passkey')} of the "
            "old one would stop working: their owners remove them first",
            "passkey_domain",
        )
    rule = FactorRule(after.administrators_second_factor)
    if rule == before.administrators_second_factor:
        return None
    row = applying.db.execute(
        "SELECT factor FROM sessions WHERE session_id = ?", (applying.call.session_id,)
    ).fetchone()
    if row is None or ShownFactor(row[0]).satisfies(rule):
        return None
    return Rejected(
        Reason.POLICY_VALUE,
        f"to require {'a passkey' if rule is FactorRule.PASSKEY else 'a second factor'}, "
        "sign in with one first, in the Security Console",
        "administrators_second_factor",
    )


TOKENS_COUNTED_MAX = 1_000
"""A refusal from feature level 2 on counts no further: apply answers nobody meanwhile."""


SET_NUMBER_MAX = 2**63 - 1
"""SQLite takes no higher number."""
COUNT_MAX = 2**31 - 1
"""Tokens, or live codes, in a count."""


class _StaleCountError(Exception):
    """The live codes must be counted again: there is no sound count, or an old one (T2)."""


def _is_sound(counted: CountedCodes, policy: Policy) -> bool:
    """
    Return whether a node could have counted these codes under the current policy.

    Any member can propose any numbers: none of them may stop the nodes, or keep them busy.
    """
    kinds = [
        (group.rule, tuple(sorted(each.length for each in group.lengths)))
        for group in counted.groups
    ]
    return (
        0 <= counted.last_set <= SET_NUMBER_MAX
        and len(kinds) == len(set(kinds))
        and all(
            lengths and len(lengths) == len(set(lengths)) for _rule, lengths in kinds
        )
        and all(
            length in policy.code_lengths
            for _rule, lengths in kinds
            for length in lengths
        )
        and all(
            0 < number <= COUNT_MAX
            for group in counted.groups
            for number in (
                group.tokens,
                *(each.riskiest for each in group.lengths),
                *(each.all for each in group.lengths),
            )
        )
    )


class _InUse:
    """What exists under the policy. Each property is read when needed, and once."""

    def __init__(
        self,
        applying: Applying,
        values: Mapping[str, object],
        counted: CountedCodes | None,
    ) -> None:
        self._applying = applying
        self._values = values
        self._counted = counted

    @cached_property
    def live(self) -> tuple[LiveCodes, ...]:
        """The codes that are live, or would be with a later end of their token."""
        applying = self._applying
        if not weighs_codes(applying.policy, self._values, applying.feature_level):
            return ()
        if applying.feature_level < feature_level.COUNTED_CODES:
            # The applying thread sends no heartbeats while the query runs.
            return live_codes.count_all(applying.db, applying.now_ms)
        if self._counted is None or not _is_sound(self._counted, applying.policy):
            raise _StaleCountError
        newer = live_codes.count_new(
            applying.db, self._counted.last_set, applying.now_ms
        )
        if newer is None:
            raise _StaleCountError
        return (*self._counted.live, *newer)

    @property
    def tokens_max(self) -> int | None:
        """Below feature level 2, the words of a refusal have the exact number."""
        counted = self._applying.feature_level >= feature_level.COUNTED_CODES
        return TOKENS_COUNTED_MAX if counted else None

    @cached_property
    def without_pin(self) -> int:
        """Count the tokens whose passcodes have no PIN."""
        return len(self._serials("pin_rule = 'none'"))

    @cached_property
    def lettered_pins(self) -> tuple[TokenSerial, ...]:
        """Return the tokens whose PIN has a letter."""
        applying = self._applying
        if not weighs_lettered_pins(applying.policy, self._values):
            return ()
        return self._serials("pin_lettered")

    def _serials(self, condition: str) -> tuple[TokenSerial, ...]:
        """Return the first tokens with a condition that has an index (`TOKEN_INDEXES`)."""
        most = self.tokens_max
        rows = self._applying.db.execute(
            f"SELECT serial FROM tokens WHERE {condition} ORDER BY serial LIMIT ?",
            (-1 if most is None else most + 1,),
        )
        return tuple(TokenSerial(serial) for (serial,) in rows)
