# SPDX-License-Identifier: Apache-2.0
"""Changing the policy: load what lives under it, decide, save the next version."""

import json
import sqlite3
from dataclasses import asdict, fields

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy, changes
from sparecode_node.domain.policy_changes import InUse, changed
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.policy_commands import UpdatePolicy
from sparecode_node.statemachine.results import Applied, Result


def find_policy(db: sqlite3.Connection) -> Policy | None:
    """Return the policy that governs; None before the cluster is initialized."""
    row = db.execute(
        "SELECT value FROM policy ORDER BY version DESC LIMIT 1"
    ).fetchone()
    return Policy(**json.loads(row[0])) if row else None


def add_policy(db: sqlite3.Connection, policy: Policy) -> None:
    """Add a version of the policy, which governs from now on."""
    db.execute(
        "INSERT INTO policy (version, value) VALUES (?, ?)",
        (policy.version, json.dumps(asdict(policy), sort_keys=True)),
    )


def update_policy(applying: Applying, command: UpdatePolicy) -> Result:
    """Apply `UpdatePolicy`; the machine reads the new value for the next command."""
    wanted = {
        field.name: value
        for field in fields(Policy)
        if field.name != "version"
        and (value := getattr(command, field.name)) is not None
    }
    if wanted.get("lifetime_ms_max") == 0:
        wanted["lifetime_ms_max"] = None
    after = changed(
        applying.policy,
        command.version,
        wanted,
        _in_use(applying),
        keep_lengths=bool(command.keep_code_lengths),
    )
    if isinstance(after, Rejected):
        return after
    add_policy(applying.db, after)
    what = changes(applying.policy, after) or "nothing is other than before"
    applying.detail = f"version {after.version}: {what}"
    return Applied(index=applying.index)


def _in_use(applying: Applying) -> InUse:
    """Count what a user could use now, by token."""
    rows = applying.db.execute(
        "SELECT serial, pin_rule, code_length, count(*) FROM tokens "
        "JOIN code_sets USING (serial) JOIN codes USING (set_id) "
        "WHERE state = 'live' "
        "AND (ends_at_ms IS NULL OR ends_at_ms > :now) "
        "AND (expires_at_ms IS NULL OR expires_at_ms > :now) "
        "GROUP BY serial, pin_rule, code_length ORDER BY serial, code_length",
        {"now": applying.now_ms},
    ).fetchall()
    live: dict[TokenSerial, dict[int, int]] = {}
    for serial, _, length, count in rows:
        live.setdefault(TokenSerial(serial), {})[length] = count
    (without_pin,) = applying.db.execute(
        "SELECT count(*) FROM tokens WHERE pin_rule = ?", (PinRule.NONE,)
    ).fetchone()
    lettered = applying.db.execute(
        "SELECT serial FROM tokens WHERE pin_lettered ORDER BY serial"
    )
    return InUse(
        lettered_pins=tuple(TokenSerial(serial) for (serial,) in lettered),
        live=live,
        rules={TokenSerial(serial): PinRule(rule) for serial, rule, *_ in rows},
        without_pin=without_pin,
    )
