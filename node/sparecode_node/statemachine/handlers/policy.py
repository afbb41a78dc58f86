# SPDX-License-Identifier: Apache-2.0
"""Handler of the policy: load what exists under it, decide, save the next version."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import cached_property

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.passkeys import ShownFactor
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import FactorRule, Policy, changes
from sparecode_node.domain.policy_changes import (
    LiveCodes,
    changed,
    weighs_lettered_pins,
    weighs_live_codes,
)
from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import passkeys as passkey_tables


def find_policy(db: sqlite3.Connection) -> Policy | None:
    """Return the current policy; None before the cluster is initialized."""
    row = db.execute(
        "SELECT value FROM policy ORDER BY version DESC LIMIT 1"
    ).fetchone()
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
    "alarm_ends_codes": feature_level.ALARMS,
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


def update_policy(applying: Applying, command: UpdatePolicy) -> Result:
    """Apply `UpdatePolicy`. The machine uses the new value from the next command on."""
    values = {
        field.name: value
        for field in fields(Policy)
        if field.name != "version"
        and (value := getattr(command, field.name)) is not None
    }
    if values.get("lifetime_ms_max") == 0:
        values["lifetime_ms_max"] = None
    after = changed(applying.policy, command.version, values, _InUse(applying, values))
    if isinstance(after, Rejected):
        return after
    refused = _second_factor_problem(applying, after)
    if refused is not None:
        return refused
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


LIVE_CODES = """
WITH sets AS MATERIALIZED (
    SELECT serial, pin_rule, code_length, (
        SELECT count(*) FROM codes
        WHERE codes.set_id = code_sets.set_id AND codes.state = 'live'
    ) AS live
    FROM tokens JOIN code_sets USING (serial)
    WHERE (ends_at_ms IS NULL OR ends_at_ms > :now)
), lengths AS (
    SELECT serial, pin_rule, code_length, sum(live) AS live FROM sets
    WHERE live > 0 GROUP BY serial, pin_rule, code_length
), owners AS (
    SELECT serial, pin_rule, json_group_object(code_length, live) AS lengths
    FROM lengths GROUP BY serial, pin_rule
)
SELECT lengths, pin_rule, count(*), min(serial) FROM owners
GROUP BY lengths, pin_rule
"""
"""
The codes that users can use now, or could use if their expired token got another end.
Tokens that are alike share a row.

The applying thread sends no heartbeats while the query runs. With a row for each of
75,000 tokens it took 1.3 s, and the primary lost its leadership. This query takes 0.2 s
for a million codes.
"""


class _InUse:
    """What exists under the policy. Each property is read when needed, and once."""

    def __init__(self, applying: Applying, values: Mapping[str, object]) -> None:
        self._applying = applying
        self._values = values

    @cached_property
    def live(self) -> tuple[LiveCodes, ...]:
        """Count codes that are live, or would be with a later end of their token."""
        applying = self._applying
        if not weighs_live_codes(
            applying.policy,
            self._values,
            fewer_guesses=applying.feature_level < feature_level.FREE_TIGHTENING,
        ):
            return ()
        # An expired token may be given another end, and its codes then live again.
        rows = applying.db.execute(LIVE_CODES, {"now": applying.now_ms})
        return tuple(
            LiveCodes(
                lengths={
                    int(length): live for length, live in json.loads(lengths).items()
                },
                rule=PinRule(rule),
                tokens=tokens,
                first=TokenSerial(first),
            )
            for lengths, rule, tokens, first in rows
        )

    @cached_property
    def without_pin(self) -> int:
        """Count the tokens whose passcodes have no PIN."""
        count: int
        (count,) = self._applying.db.execute(
            "SELECT count(*) FROM tokens WHERE pin_rule = ?", (PinRule.NONE,)
        ).fetchone()
        return count

    @cached_property
    def lettered_pins(self) -> tuple[TokenSerial, ...]:
        """Return the tokens whose PIN has a letter."""
        applying = self._applying
        if not weighs_lettered_pins(applying.policy, self._values):
            return ()
        rows = applying.db.execute(
            "SELECT serial FROM tokens WHERE pin_lettered ORDER BY serial"
        )
        return tuple(TokenSerial(serial) for (serial,) in rows)
