# SPDX-License-Identifier: Apache-2.0
"""
What a command costs, in steps of SQLite's virtual machine, and estates of any size.

A time would depend on the machine. A look into an index is one step, however large the
index is.
"""

import sqlite3
from collections.abc import Callable

from tests.statemachine.world import START_MS

FAR_MS = START_MS + 10 * 365 * 24 * 3600 * 1000


def steps(db: sqlite3.Connection, work: Callable[[], object]) -> int:
    """Return the steps of SQLite's virtual machine that *work* takes."""
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    db.set_progress_handler(step, 1)
    try:
        work()
    finally:
        db.set_progress_handler(None, 1)
    return count


NUMBERS = """
WITH RECURSIVE numbers (n) AS (
    SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :users
), codes_of (c) AS (
    SELECT 1 UNION ALL SELECT c + 1 FROM codes_of WHERE c < 10
)
INSERT INTO
"""
CROWD = (
    """users (user_id, username, name_key, name_tag, display_name, email, enabled,
        auth_version, pin_salt, code_salt, tag_key_id)
    SELECT 'zu' || n, 'zu' || n, 'zu' || n, CAST('zu' || n AS BLOB), '', '', 1, 1, x'00',
        x'00', 99 FROM numbers""",
    """tokens (serial, algorithm, hash_name, digits, period_s, sealed_seed, key_id,
        pin_rule, enabled, user_id, pin_verifier, pin_key_id, spent, drift, lost, recovery,
        sealed_pin, out_of_step, pin_lettered)
    SELECT 'z' || n, 'totp', 'sha1', 6, 30, x'00', 99, 'prepended', 1, 'zu' || n, x'01', 99,
        -1, 0, 1, 'deny', x'', 0, 0 FROM numbers""",
    """code_sets (set_id, serial, key_id, code_length, issuer, node_id, issued_at_ms,
        issued_index, voided, fixed)
    SELECT 'zs' || n, 'z' || n, 99, 8, 'a', 'n1', 0, 0, 0, 0 FROM numbers""",
    """codes (set_id, ordinal, verifier, state)
    SELECT 'zs' || n, c, x'01', 'live' FROM numbers, codes_of""",
)
"""Users with a token, and ten live codes each."""

HISTORY = (
    """lockouts (user_id, factor, failures, rung, blocked_until_ms, failed_at_ms, off)
    SELECT 'zu' || n, 'pin', 1, 0, 0, 0, 0 FROM numbers""",
    """user_groups (user_id, group_key) SELECT 'zu' || n, 'staff' FROM numbers""",
    """user_creators (user_id, administrator) SELECT 'zu' || n, 'zadmin' FROM numbers""",
    """former_names (name_key, deleted_at_ms) SELECT 'zf' || n, 0 FROM numbers""",
    """former_addresses (user_id, of_manager, email, ends_at_ms)
    SELECT 'zu' || n, 0, 'a@example.org', :far FROM numbers""",
    """personal_counts (person, kind, count, ends_at_ms)
    SELECT 'zu' || n, 'k', 1, :far FROM numbers""",
    """alarms (user_id, notice_id, kind, told_at_ms, raised_at_ms, ends_at_ms)
    SELECT 'zu' || n, 'zn', 'k', 0, 0, :far FROM numbers""",
    """known_secrets (serial, administrator, secret)
    SELECT 'z' || n, 'zadmin', 'seed' FROM numbers""",
    """secrets_known_elsewhere (serial, secret) SELECT 'z' || n, 'seed' FROM numbers""",
    """sets_issued_elsewhere (set_id) SELECT 'zs' || n FROM numbers""",
    """pin_changes (serial, administrator, ends_at_ms)
    SELECT 'z' || n, 'zadmin', :far FROM numbers""",
    """seed_fingerprints (serial, key_id, value)
    SELECT 'z' || n, 99, CAST('z' || n AS BLOB) FROM numbers""",
    """former_sets (set_id, user_id) SELECT 'zs' || n, 'zu' || n FROM numbers""",
    """former_tokens (serial, kind, seed_mark, key_id, spent, fingerprint)
    SELECT 'zf' || n, 'totp 30', x'00', 99, 0, CAST('zf' || n AS BLOB) FROM numbers""",
    """former_codes (user_id, serial, key_id, since_ms, tags)
    SELECT 'zu' || n, 'zf' || n, 99, :far, x'00' FROM numbers""",
    """deleted_sets (set_id, serial, user_id, key_id, code_length)
    SELECT 'zd' || n, 'zf' || n, 'zu' || n, 99, 8 FROM numbers""",
    """deleted_codes (set_id, ordinal, verifier)
    SELECT 'zd' || n, c, x'01' FROM numbers, codes_of""",
    """sealed_codes (set_id, opener, ciphertext, recipient, ends_at_ms, page, to_manager)
    SELECT 'zs' || n, 'zo' || n, x'00', 'a@example.org', :far, '', 0 FROM numbers""",
    """set_ends (set_id, end_ms, due_ms) SELECT 'zs' || n, :far, :far FROM numbers""",
    """consumed_drafts (draft_id, ends_at_ms) SELECT 'zd' || n, :far FROM numbers""",
    """consumed_challenges (challenge_id, ends_at_ms)
    SELECT 'zc' || n, :far FROM numbers""",
    """equal_refusals (actor, action, reason, target, count, ends_at_ms)
    SELECT 'agent:z', 'a', 'r', 'z' || n, 0, :far FROM numbers""",
    """allowance_counts (allowance, subject, minute_ms, uses, ends_at_ms)
    SELECT 'unlock', 'zu' || n, 0, 1, :far FROM numbers""",
    """agents (identity, name, name_key, protects, enabled, restricted)
    SELECT 'za' || n, 'za' || n, 'za' || n, 'cloud', 1, 1 FROM numbers""",
    """agent_users (identity, user_id) SELECT 'za' || n, 'zu' || n FROM numbers""",
    """agent_groups (identity, group_key) SELECT 'za' || n, 'staff' FROM numbers""",
    """agent_keys (bearer_id, identity, digest, networks, created_at_ms, ends_at_ms)
    SELECT 'zk' || n, 'za' || n, CAST('zk' || n AS BLOB), '[]', 0, :far FROM numbers""",
    """accept_attributes (identity, filter_id, class_attribute, session_timeout_s)
    SELECT 'za' || n, '', '', 0 FROM numbers""",
    """radius_clients (identity, allow_unsigned, allow_unsigned_proxied,
        unsigned_until_signed, repeats_with_new_authenticator, prompts_for_passcode)
    SELECT 'za' || n, 0, 0, 0, 0, 0 FROM numbers""",
    """radius_networks (network, identity)
    SELECT '10.' || (n / 250) || '.' || (n % 250) || '.0/24', 'za' || n FROM numbers""",
    """radius_secrets (secret_id, identity, sealed, key_id, created_at_ms, ends_at_ms)
    SELECT 'zr' || n, 'za' || n, x'00', 99, 0, :far FROM numbers""",
    """denied_certificates (mark, value, denied_at_ms, denied_by, note)
    SELECT 'fingerprint', 'z' || n, 0, 'a', '' FROM numbers""",
    """requests (caller, method, request_id, tag, at_ms, result)
    SELECT 'agent:z', 'm', printf('%012d', n), 0, :far, '{}' FROM numbers""",
)
"""Everything else that grows with users, tokens, agents, and calls."""


def add_crowd(db: sqlite3.Connection, users: int) -> None:
    """Add users with a token and ten live codes each."""
    for rows in CROWD:
        db.execute(NUMBERS + rows, {"users": users})


def add_history(db: sqlite3.Connection, users: int) -> None:
    """Add what these users have left behind, and as many agents, requests and events."""
    db.execute(ADMINISTRATOR)
    for rows in HISTORY:
        db.execute(NUMBERS + rows, {"users": users, "far": FAR_MS})


ADMINISTRATOR = """
INSERT INTO administrators (name, role, password_salt, password_verifier, key_id, version,
    enabled, failures, blocked_until_ms, temporary, sealed_factor, factor_key_id,
    factor_spent)
VALUES ('zadmin', 'help_desk', x'00', x'00', 99, 1, 1, 0, 0, 0, x'', 0, 0)
"""
