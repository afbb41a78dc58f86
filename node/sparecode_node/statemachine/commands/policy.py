# SPDX-License-Identifier: Apache-2.0
"""The command that changes the policy; see `commands`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdatePolicy:
    """
    Change the policy of this *version*, which creates the next version.

    Fields that are None keep their value. A field that was added later is None in older
    entries.
    """

    version: int
    code_length: int | None
    code_alphabet: str | None
    codes_per_set_default: int | None
    codes_per_set_max: int | None
    lifetime_ms_max: int | None
    """0: no maximum."""
    draft_lifetime_ms: int | None
    set_low_threshold: int | None
    pin_length_min: int | None
    pin_length_max: int | None
    totp_window_steps: int | None
    hotp_look_ahead: int | None
    tokens_per_user_max: int | None
    lock_from_failures: int | None
    lock_ms: int | None
    lock_ms_max: int | None
    lock_until_unlocked: bool | None
    factor_off_at_failures: int | None
    session_lifetime_ms: int | None
    request_retention_ms: int | None
    requests_max: int | None
    resynchronize_window_steps: int | None = None
    resynchronize_look_ahead: int | None = None
    next_tokencode_from_failures: int | None = None
    second_approver: bool | None = None
    backup_recipients: str | None = None
    pin_letters: bool | None = None
    session_unused_ms: int | None = None
    privileged_session_lifetime_ms: int | None = None
    privileged_session_idle_ms: int | None = None
    further_code_lengths: str | None = None
    session_idle_ms: int | None = None
    reset_delay_ms: int | None = None
    rotate_after_removal: bool | None = None
    pin_blocklist: bool | None = None
    issued_sets_per_hour: int | None = None
    issued_sets_per_day: int | None = None
    unlocks_per_day: int | None = None
    former_code_retention_ms: int | None = None
    administrators_second_factor: str | None = None
    passkey_domain: str | None = None
    authorities_due_after_removal: bool | None = None
    replace_authorities_after_removal: bool | None = None
    silent_notices: str | None = None
    manager_notices: str | None = None
    codes_by_message: bool | None = None
    alarm_ends_codes: bool | None = None
