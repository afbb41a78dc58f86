# SPDX-License-Identifier: Apache-2.0
"""
The tables of the replicated state.

Every row is a function of the log. `meta` holds single values: `applied_index`,
`now_ms` (the log's time), `cluster_id` and others. Times are `*_ms`; booleans are 0 or
1; absent values are NULL.
"""

from pathlib import Path

from sparecode_node.statemachine.tables.agent_keys import AGENT_KEY_TABLES
from sparecode_node.statemachine.tables.alarms import ALARM_TABLES
from sparecode_node.statemachine.tables.allowance_counts import ALLOWANCE_TABLES
from sparecode_node.statemachine.tables.archives import ARCHIVE_TABLES
from sparecode_node.statemachine.tables.authorities import AUTHORITY_TABLES
from sparecode_node.statemachine.tables.browser_logins import BROWSER_LOGIN_TABLES
from sparecode_node.statemachine.tables.known_secrets import SECRET_TABLES
from sparecode_node.statemachine.tables.membership import MEMBER_KEY_TABLES
from sparecode_node.statemachine.tables.moves import MOVE_TABLES, SLOT_INDEX
from sparecode_node.statemachine.tables.notices import NOTICE_TABLES
from sparecode_node.statemachine.tables.radius import RADIUS_TABLES
from sparecode_node.statemachine.tables.sealed_codes import SEALED_CODE_TABLES
from sparecode_node.statemachine.tables.segments import SEGMENT_TABLES
from sparecode_node.statemachine.tables.set_ends import SET_END_TABLES
from sparecode_node.statemachine.tables.skips import SKIP_TABLES

VERSION = 2
"""
The format of these tables, which is the newest feature level, too (feature_level.py).

So a change of the tables begins a level, and adds to its migration in formats.py.
"""

_KEY_TABLES = """
CREATE TABLE ring_keys (
    key_id INTEGER PRIMARY KEY,
    fingerprint BLOB NOT NULL,       -- empty: the cluster's first key
    activated_at_ms INTEGER NOT NULL,
    retire_at_ms INTEGER,            -- NULL: the key is active
    keep INTEGER NOT NULL,           -- keep in the rings when retired
    retired INTEGER NOT NULL
) STRICT;
"""

_APPROVAL_TABLES = """
CREATE TABLE pin_changes (
    serial TEXT NOT NULL REFERENCES tokens (serial) ON DELETE CASCADE,
    administrator TEXT NOT NULL REFERENCES administrators (name) ON DELETE CASCADE,
    ends_at_ms INTEGER NOT NULL,     -- see I10
    PRIMARY KEY (serial, administrator)
) STRICT, WITHOUT ROWID;
CREATE INDEX pin_changes_by_administrator ON pin_changes (administrator);
CREATE INDEX pin_changes_by_end ON pin_changes (ends_at_ms);

CREATE TABLE approvals (
    approval_id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,              -- change, issue, bulk_issue
    author TEXT NOT NULL REFERENCES administrators (name) ON DELETE CASCADE,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    description TEXT NOT NULL,
    change TEXT NOT NULL,            -- JSON, see commands/pending.py
    serials TEXT NOT NULL,           -- JSON
    asked_at_ms INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,
    approver TEXT,                   -- NULL: waiting
    basis TEXT NOT NULL DEFAULT '',  -- what the request relies on
    owners TEXT NOT NULL DEFAULT '[]',           -- JSON: user ids, as the serials
    used TEXT NOT NULL DEFAULT '[]',             -- JSON: serials it covers no longer
    recipient TEXT NOT NULL DEFAULT ''           -- where codes go by message
) STRICT;
CREATE INDEX approvals_by_author ON approvals (author);
CREATE INDEX approvals_by_end ON approvals (ends_at_ms);
"""

_MEMBERSHIP_TABLES = """
CREATE TABLE join_tickets (
    node_id TEXT PRIMARY KEY,        -- a node has at most one ticket
    ticket_id TEXT NOT NULL UNIQUE,  -- SHA-256 of the certificate, hex
    certificate BLOB NOT NULL,       -- of the joiner, DER
    good_until_ms INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,     -- then the ticket is forgotten
    used_by TEXT,                    -- fingerprint of the key; NULL: not used
    address TEXT,                    -- where the node joins; NULL: anywhere
    hosts TEXT NOT NULL DEFAULT '[]',            -- JSON: names for its certificate
    with_authority INTEGER NOT NULL DEFAULT 0    -- gets the authorities' keys
) STRICT, WITHOUT ROWID;
CREATE INDEX join_tickets_by_end ON join_tickets (ends_at_ms);

CREATE TABLE nodes (                 -- joined or left after the beginning
    node_id TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    removed INTEGER NOT NULL,        -- for good: the id is never used again
    changed_at_ms INTEGER NOT NULL,
    hosts TEXT,                      -- JSON: names in its certificate; NULL: unknown
    suspect INTEGER NOT NULL DEFAULT 0  -- its removal asked for other keys, see P6a
) STRICT, WITHOUT ROWID;
"""

_AGENT_TABLES = """
CREATE TABLE agent_users (              -- allow lists
    identity TEXT NOT NULL REFERENCES agents (identity) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    PRIMARY KEY (identity, user_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_users_by_user ON agent_users (user_id);

CREATE TABLE denied_certificates (
    mark TEXT NOT NULL,              -- fingerprint, serial_number
    value TEXT NOT NULL,
    denied_at_ms INTEGER NOT NULL,
    denied_by TEXT NOT NULL,
    note TEXT NOT NULL,
    PRIMARY KEY (mark, value)
) STRICT, WITHOUT ROWID;
"""

_FORMER_TABLES = """
CREATE TABLE former_sets (              -- sets of unassigned tokens
    set_id TEXT PRIMARY KEY REFERENCES code_sets (set_id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX former_sets_by_user ON former_sets (user_id);

CREATE TABLE former_tokens (            -- what deleted tokens have spent
    serial TEXT NOT NULL,
    kind TEXT NOT NULL,              -- algorithm and period
    seed_mark BLOB NOT NULL,         -- SHA-256 of the sealed seed
    key_id INTEGER NOT NULL,         -- key of the seal
    spent INTEGER NOT NULL,
    fingerprint BLOB NOT NULL DEFAULT x'',       -- of the seed; empty: none was known
    PRIMARY KEY (serial, kind, seed_mark)
) STRICT, WITHOUT ROWID;
"""

FORMER_INDEX = """
CREATE INDEX former_tokens_by_fingerprint ON former_tokens (fingerprint);
"""

FORMER_CODE_TABLES = """
CREATE TABLE former_codes (             -- the codes of former sets, as tags (A5)
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- order in which they became tags
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    serial TEXT NOT NULL,
    key_id INTEGER NOT NULL,         -- key of the tags
    since_ms INTEGER NOT NULL,
    tags BLOB NOT NULL               -- of one set, one after the other
) STRICT;
CREATE INDEX former_codes_by_user ON former_codes (user_id, number);
CREATE INDEX former_codes_by_key ON former_codes (key_id);
"""

FINGERPRINT_TABLES = """
CREATE TABLE seed_fingerprints (        -- keyed hashes of the tokens' seeds (K5)
    serial TEXT PRIMARY KEY REFERENCES tokens (serial) ON DELETE CASCADE,
    key_id INTEGER NOT NULL,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX seed_fingerprints_by_value ON seed_fingerprints (value);
"""

_DELETED_TABLES = """
CREATE TABLE deleted_sets (             -- whose codes wait to become tags
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- order of deletion
    set_id TEXT NOT NULL UNIQUE,
    serial TEXT NOT NULL,
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    key_id INTEGER NOT NULL,
    code_length INTEGER NOT NULL
) STRICT;
CREATE INDEX deleted_sets_by_user ON deleted_sets (user_id, number);

CREATE TABLE deleted_codes (
    set_id TEXT NOT NULL REFERENCES deleted_sets (set_id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    verifier BLOB NOT NULL,
    PRIMARY KEY (set_id, ordinal)
) STRICT, WITHOUT ROWID;
"""

PASSKEY_TABLES = """
CREATE TABLE passkeys (
    credential_id BLOB PRIMARY KEY,
    administrator TEXT NOT NULL REFERENCES administrators (name) ON DELETE CASCADE,
    label TEXT NOT NULL,
    public_key BLOB NOT NULL,        -- COSE
    sign_count INTEGER NOT NULL,
    added_at_ms INTEGER NOT NULL,
    used_at_ms INTEGER               -- NULL: not used since
) STRICT, WITHOUT ROWID;
CREATE INDEX passkeys_by_administrator ON passkeys (administrator);
"""

SIGN_IN_TABLES = """
CREATE TABLE sign_in_waits (            -- wrong passwords of known clients
    administrator TEXT NOT NULL REFERENCES administrators (name) ON DELETE CASCADE,
    client TEXT NOT NULL,            -- id of a device or a session
    failures INTEGER NOT NULL,
    blocked_until_ms INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,     -- then the count is forgotten
    PRIMARY KEY (administrator, client)
) STRICT, WITHOUT ROWID;
CREATE INDEX sign_in_waits_by_end ON sign_in_waits (ends_at_ms);
"""

REFUSAL_TABLES = """
CREATE TABLE equal_refusals (           -- of one minute
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    reason TEXT NOT NULL,
    target TEXT NOT NULL,
    count INTEGER NOT NULL,          -- after the first, which is an event
    ends_at_ms INTEGER NOT NULL,
    PRIMARY KEY (actor, action, reason, target)
) STRICT, WITHOUT ROWID;
CREATE INDEX equal_refusals_by_end ON equal_refusals (ends_at_ms);
"""

_GROUP_TABLES = """
CREATE TABLE user_groups (
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    group_key TEXT NOT NULL,         -- NFKC, casefold
    PRIMARY KEY (user_id, group_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE agent_groups (             -- groups on allow lists
    identity TEXT NOT NULL REFERENCES agents (identity) ON DELETE CASCADE,
    group_key TEXT NOT NULL,
    PRIMARY KEY (identity, group_key)
) STRICT, WITHOUT ROWID;
"""

RESET_TABLES = """
CREATE TABLE administrator_resets (     -- requested and not in force yet
    name TEXT PRIMARY KEY REFERENCES administrators (name) ON DELETE CASCADE,
    password_salt BLOB NOT NULL,
    password_verifier BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    second_factor INTEGER NOT NULL,  -- also removes the second factor
    node_id TEXT NOT NULL,
    uid INTEGER NOT NULL,
    asked_at_ms INTEGER NOT NULL,
    due_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

TOKEN_INDEXES = """
CREATE INDEX tokens_without_pin ON tokens (serial) WHERE pin_rule = 'none';
CREATE INDEX tokens_lettered ON tokens (serial) WHERE pin_lettered;
"""
"""The tokens that a change of the policy may have to name."""

AUTHENTICATION_ID = """
    authentication_id TEXT GENERATED ALWAYS AS ( -- see `domain.audit`; NULL: none
        CASE substr(detail, 1, 15) WHEN 'authentication '
        THEN substr(detail, 16, instr(detail || ',', ',') - 16) END
    ) VIRTUAL
"""
"""Computed from the detail, which the hash covers: it cannot differ from it."""

AUTHENTICATION_INDEX = """
CREATE INDEX audit_events_by_authentication ON audit_events (authentication_id)
    WHERE authentication_id IS NOT NULL;
CREATE INDEX audit_events_of_decisions ON audit_events (target)
    WHERE authentication_id IS NOT NULL;
"""

TABLES = (
    """
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE policy (
    version INTEGER PRIMARY KEY,
    value TEXT NOT NULL              -- JSON; the highest version is in force
) STRICT;

CREATE TABLE administrators (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    password_salt BLOB NOT NULL,
    password_verifier BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    version INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    blocked_until_ms INTEGER NOT NULL,
    user_id TEXT REFERENCES users (user_id),
    temporary INTEGER NOT NULL,
    sealed_factor BLOB NOT NULL,
    factor_key_id INTEGER NOT NULL,
    factor_spent INTEGER NOT NULL,
    replaced INTEGER NOT NULL DEFAULT 0   -- temporary instead of one of their own
) STRICT, WITHOUT ROWID;
CREATE INDEX administrators_by_user ON administrators (user_id);

CREATE TABLE sessions (
    session_id TEXT PRIMARY KEY,     -- SHA-256 of the bearer, hex
    administrator TEXT NOT NULL REFERENCES administrators (name),
    opened_at_ms INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,
    used_at_ms INTEGER NOT NULL,       -- to the minute
    proved_at_ms INTEGER NOT NULL DEFAULT 0,   -- last password and second factor
    node_id TEXT NOT NULL DEFAULT '',          -- where it was opened
    address TEXT NOT NULL DEFAULT '',          -- from where
    door TEXT NOT NULL DEFAULT '',             -- 'console' or 'api'
    factor TEXT NOT NULL DEFAULT ''    -- shown second factor: code, passkey
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_administrator ON sessions (administrator);
CREATE INDEX sessions_by_end ON sessions (ends_at_ms);

CREATE TABLE users (
    user_id TEXT PRIMARY KEY,
    username TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,   -- NFKC, casefold
    name_tag BLOB NOT NULL UNIQUE,   -- keyed hash of name_key
    display_name TEXT NOT NULL,
    email TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    auth_version INTEGER NOT NULL,
    pin_salt BLOB NOT NULL,
    code_salt BLOB NOT NULL,
    tag_key_id INTEGER NOT NULL,
    language TEXT NOT NULL DEFAULT '',           -- BCP 47; empty: not known
    manager_email TEXT NOT NULL DEFAULT '',      -- empty: no manager on file
    email_since_ms INTEGER NOT NULL DEFAULT 0,   -- last change; 0: long ago
    manager_since_ms INTEGER NOT NULL DEFAULT 0, -- the same, of manager_email
    slot INTEGER NOT NULL DEFAULT 0  -- of name_key, see domain/slots.py
) STRICT, WITHOUT ROWID;

CREATE TABLE lockouts (
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    factor TEXT NOT NULL,
    failures INTEGER NOT NULL,
    rung INTEGER NOT NULL,
    blocked_until_ms INTEGER NOT NULL,
    failed_at_ms INTEGER NOT NULL,
    off INTEGER NOT NULL,
    PRIMARY KEY (user_id, factor)
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
    serial TEXT PRIMARY KEY,
    algorithm TEXT NOT NULL,
    hash_name TEXT NOT NULL,
    digits INTEGER NOT NULL,
    period_s INTEGER NOT NULL,
    sealed_seed BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    pin_rule TEXT NOT NULL,
    expires_at_ms INTEGER,
    enabled INTEGER NOT NULL,
    user_id TEXT REFERENCES users (user_id),
    pin_verifier BLOB NOT NULL,      -- empty: no PIN is set
    pin_key_id INTEGER NOT NULL,
    spent INTEGER NOT NULL,          -- last spent TOTP step or HOTP counter
    drift INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    recovery TEXT NOT NULL,
    sealed_pin BLOB NOT NULL,        -- only PINpad tokens
    out_of_step INTEGER NOT NULL,
    pin_lettered INTEGER NOT NULL,
    maybe_spent INTEGER NOT NULL DEFAULT -1  -- last step that a lost state may have spent
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_lost ON tokens (serial) WHERE lost;

CREATE TABLE code_sets (
    number INTEGER PRIMARY KEY AUTOINCREMENT,   -- order of issue
    set_id TEXT NOT NULL UNIQUE,
    serial TEXT NOT NULL REFERENCES tokens (serial) ON DELETE CASCADE,
    key_id INTEGER NOT NULL,
    code_length INTEGER NOT NULL,
    issuer TEXT NOT NULL,
    node_id TEXT NOT NULL,
    issued_at_ms INTEGER NOT NULL,
    issued_index INTEGER NOT NULL,
    ends_at_ms INTEGER,
    voided INTEGER NOT NULL,
    fixed INTEGER NOT NULL            -- its one code is never spent
) STRICT;
CREATE INDEX code_sets_by_token ON code_sets (serial, number);

CREATE TABLE codes (
    set_id TEXT NOT NULL REFERENCES code_sets (set_id) ON DELETE CASCADE,
    ordinal INTEGER NOT NULL,
    verifier BLOB NOT NULL,
    state TEXT NOT NULL,             -- live, used, void
    used_at_ms INTEGER,
    used_agent TEXT,
    used_node_id TEXT,
    used_index INTEGER,
    PRIMARY KEY (set_id, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE consumed_drafts (
    draft_id TEXT PRIMARY KEY,
    ends_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX consumed_drafts_by_end ON consumed_drafts (ends_at_ms);

CREATE TABLE consumed_challenges (
    challenge_id TEXT PRIMARY KEY,
    ends_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX consumed_challenges_by_end ON consumed_challenges (ends_at_ms);

CREATE TABLE agents (
    identity TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    name_key TEXT NOT NULL UNIQUE,
    protects TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    restricted INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
    caller TEXT NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    tag INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    result TEXT NOT NULL,            -- JSON, see results.py
    in_reserve INTEGER NOT NULL DEFAULT 0,  -- see shares.py
    PRIMARY KEY (caller, method, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (at_ms);

CREATE TABLE audit_events (
    sequence INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    node TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL,              -- over the previous event's hash and this event
"""
    + AUTHENTICATION_ID
    + """) STRICT;
"""
    + AUTHENTICATION_INDEX
    + AGENT_KEY_TABLES
    + _AGENT_TABLES
    + ALARM_TABLES
    + ALLOWANCE_TABLES
    + _APPROVAL_TABLES
    + AUTHORITY_TABLES
    + BROWSER_LOGIN_TABLES
    + _DELETED_TABLES
    + FINGERPRINT_TABLES
    + FORMER_CODE_TABLES
    + _FORMER_TABLES
    + FORMER_INDEX
    + _GROUP_TABLES
    + _KEY_TABLES
    + _MEMBERSHIP_TABLES
    + MEMBER_KEY_TABLES
    + MOVE_TABLES
    + NOTICE_TABLES
    + PASSKEY_TABLES
    + RADIUS_TABLES
    + REFUSAL_TABLES
    + RESET_TABLES
    + SEALED_CODE_TABLES
    + SECRET_TABLES
    + SEGMENT_TABLES
    + SET_END_TABLES
    + ARCHIVE_TABLES
    + SIGN_IN_TABLES
    + SKIP_TABLES
    + TOKEN_INDEXES
    + SLOT_INDEX
)


def read_only_uri(path: Path, *, immutable: bool = False) -> str:
    """
    Return the URI by which SQLite opens *path* and never writes.

    *immutable*: no other process writes it; then SQLite needs no lock and no other file.
    """
    return f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' * immutable}"
