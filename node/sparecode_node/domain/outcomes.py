# SPDX-License-Identifier: Apache-2.0
"""
Reasons of refusals: a closed list.

A refusal is a value that every replica computes alike, never an exception. Agents
learn less: accepted, refused, or the next step (A6).
"""

import enum
from dataclasses import dataclass


class Reason(enum.StrEnum):
    """Why a request was refused. The values are in the log: never reuse one."""

    # The request itself; see the rules of request ids (Q) and versions (T2)
    REQUEST_ID_REUSED = "request_id_reused"
    REQUEST_TABLE_FULL = "request_table_full"
    STALE_PARAMETERS = "stale_parameters"
    ENTRY_SKIPPED = "entry_skipped"

    # The cluster
    ALREADY_INITIALIZED = "already_initialized"
    NOT_INITIALIZED = "not_initialized"
    NOT_OPEN = "not_open"
    ALREADY_OPEN = "already_open"
    REVIEW_STALE = "review_stale"
    NO_BACKUP_RECIPIENT = "no_backup_recipient"

    # The policy
    VERSION = "version"
    POLICY_VALUE = "policy_value"
    CODES_LIVE = "codes_live"
    PINS_LETTERED = "pins_lettered"

    # Sessions and permissions
    SESSION_ENDED = "session_ended"
    ROLE = "role"
    SIGN_IN_REFUSED = "sign_in_refused"
    SELF_SERVICE_FORBIDDEN = "self_service_forbidden"
    PASSWORD_CHANGE_NEEDED = "password_change_needed"
    REAUTHENTICATION_NEEDED = "reauthentication_needed"
    SECOND_FACTOR_REQUIRED = "second_factor_required"

    # Administrators
    ADMINISTRATOR_UNKNOWN = "administrator_unknown"
    SESSION_UNKNOWN = "session_unknown"
    ADMINISTRATOR_EXISTS = "administrator_exists"
    LAST_SUPER_ADMIN = "last_super_admin"
    WRONG_PASSWORD = "wrong_password"
    SECOND_FACTOR_NEEDED = "second_factor_needed"
    SECOND_FACTOR_WRONG = "second_factor_wrong"
    SECOND_FACTOR_NOT_CONFIRMED = "second_factor_not_confirmed"
    SECOND_FACTOR_SET = "second_factor_set"
    SECOND_FACTOR_NOT_SET = "second_factor_not_set"
    PASSKEY_NEEDED = "passkey_needed"
    PASSKEY_WRONG = "passkey_wrong"
    PASSKEY_REFUSED = "passkey_refused"
    PASSKEY_UNKNOWN = "passkey_unknown"
    PASSKEY_LIMIT = "passkey_limit"
    PASSKEYS_IN_USE = "passkeys_in_use"
    BROWSER_LOGIN_UNKNOWN = "browser_login_unknown"
    BROWSER_LOGIN_REFUSED = "browser_login_refused"
    BROWSER_LOGINS_FULL = "browser_logins_full"
    RESET_PENDING = "reset_pending"
    RESET_UNKNOWN = "reset_unknown"
    USER_IS_ADMINISTRATOR = "user_is_administrator"

    # Members, keys and tickets
    MEMBER_UNKNOWN = "member_unknown"
    MEMBER_NOT_READY = "member_not_ready"
    MEMBER_EXISTS = "member_exists"
    MEMBER_YOUNG = "member_young"
    MEMBER_REMOVED = "member_removed"
    KEY_REPLACED = "key_replaced"
    KEY_NOT_HELD = "key_not_held"
    KEY_IN_USE = "key_in_use"
    TICKET_UNKNOWN = "ticket_unknown"
    TICKET_ENDED = "ticket_ended"
    TICKET_USED = "ticket_used"
    TICKETS_FULL = "tickets_full"
    TICKET_ADDRESS = "ticket_address"
    JOINER_CERTIFICATE = "joiner_certificate"
    AUTHORITY_MISSING = "authority_missing"
    AUTHORITY_NOT_DUE = "authority_not_due"
    LAST_SEGMENT_HOLDER = "last_segment_holder"
    SEGMENT_UNKNOWN = "segment_unknown"
    SEGMENT_HELD = "segment_held"

    # Users who move to another cluster
    SLOT_MOVING = "slot_moving"
    SLOT_MOVED = "slot_moved"
    MOVE_UNKNOWN = "move_unknown"
    MOVE_SLOTS = "move_slots"
    MOVE_STEP = "move_step"
    MOVE_RECEIPT = "move_receipt"
    MOVE_EXPORT = "move_export"
    MOVE_CONFLICT = "move_conflict"

    # A second approver, see P3 and I10
    APPROVAL_NEEDED = "approval_needed"
    APPROVAL_UNKNOWN = "approval_unknown"
    APPROVAL_STALE = "approval_stale"
    APPROVALS_FULL = "approvals_full"

    # Users
    USER_UNKNOWN = "user_unknown"
    USER_EXISTS = "user_exists"
    USER_DISABLED = "user_disabled"
    USER_HAS_TOKENS = "user_has_tokens"
    GROUP_LIMIT = "group_limit"

    # Tokens and PINs
    TOKEN_UNKNOWN = "token_unknown"
    TOKEN_EXISTS = "token_exists"
    SEED_EXISTS = "seed_exists"
    TOKEN_NOT_ASSIGNED = "token_not_assigned"
    TOKEN_ASSIGNED = "token_assigned"
    TOKEN_DISABLED = "token_disabled"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_LIMIT = "token_limit"
    TOKEN_FORMAT = "token_format"
    PIN_NOT_SET = "pin_not_set"
    PIN_NOT_USED = "pin_not_used"
    PIN_FORMAT = "pin_format"
    TOKEN_NOT_LOST = "token_not_lost"
    TOKENCODES_NOT_CONSECUTIVE = "tokencodes_not_consecutive"
    TOKEN_OUT_OF_STEP = "token_out_of_step"

    # Emergency access (I, R)
    CODE_COUNT = "code_count"
    CODE_FORMAT = "code_format"
    GUESS_ODDS = "guess_odds"
    LIFETIME_PAST = "lifetime_past"
    LIFETIME_BEYOND_CAP = "lifetime_beyond_cap"
    LIFETIME_NEEDED = "lifetime_needed"
    RECOVERY_NEEDS_END = "recovery_needs_end"
    RECOVERY_END_TOO_LATE = "recovery_end_too_late"
    RECOVERY_WEAKENED = "recovery_weakened"
    DRAFT_STALE = "draft_stale"
    NO_EMERGENCY_ACCESS = "no_emergency_access"
    NOT_BY_MESSAGE = "not_by_message"

    # Agents
    AGENT_UNKNOWN = "agent_unknown"
    AGENT_EXISTS = "agent_exists"
    AGENT_DISABLED = "agent_disabled"
    ALLOW_LIST_LIMIT = "allow_list_limit"
    CERTIFICATE_DENIED = "certificate_denied"
    CERTIFICATE_NOT_DENIED = "certificate_not_denied"

    # Channels
    CHANNEL_UNKNOWN = "channel_unknown"
    CHANNEL_EXISTS = "channel_exists"
    CHANNELS_FULL = "channels_full"
    CHANNEL_SETTINGS = "channel_settings"
    NOTICE_UNKNOWN = "notice_unknown"

    # Authentication; only the audit log shows these
    WRONG_PASSCODE = "wrong_passcode"
    WRONG_PIN = "wrong_pin"
    TOKENCODE_SPENT = "tokencode_spent"
    TOKENCODE_MAYBE_SPENT = "tokencode_maybe_spent"
    CODE_NOT_LIVE = "code_not_live"
    SET_EXPIRED = "set_expired"
    RESOURCE_NOT_COVERED = "resource_not_covered"
    USER_NOT_ALLOWED = "user_not_allowed"
    RECOVERED_TOKEN_REFUSED = "recovered_token_refused"
    LOCKED = "locked"
    CHALLENGE_NOT_VALID = "challenge_not_valid"


@dataclass(frozen=True, slots=True)
class Rejected:
    """The rules forbid the request. A result, not an exception: replicas compute it."""

    reason: Reason
    detail: str = ""
    """A message for people: it names the object and the bound, never a secret."""
    field: str = ""
    """The request field at fault, if it is a single field."""


def plural(number: int, one: str) -> str:
    """Return a number with a noun, such as `1 code` or `3 codes`, for messages and the audit log."""
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
