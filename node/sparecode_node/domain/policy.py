# SPDX-License-Identifier: Apache-2.0
"""
The policy: one replicated, versioned value, the same on every node.

Never node configuration: two nodes with different files would judge one command
differently.
"""

from dataclasses import dataclass

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999: no time is later, so that sums of times are numbers too."""

UNAMBIGUOUS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Digits and capitals without 0 O 1 I L: 31 symbols that survive being read aloud."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What administrators may tune. The defaults are those of a new cluster."""

    version: int = 1

    # Emergency codes, see I4 to I7.
    code_length: int = 8
    code_alphabet: str = UNAMBIGUOUS
    codes_per_set_default: int = 10
    codes_per_set_max: int = 50
    lifetime_ms_max: int | None = None
    draft_lifetime_ms: int = 15 * MINUTE_MS
    set_low_threshold: int = 2

    # PINs and tokens, see K.
    pin_length_min: int = 4
    pin_length_max: int = 8
    totp_window_steps: int = 1
    hotp_look_ahead: int = 10
    tokens_per_user_max: int = 3

    # Lockout, see L.
    lock_from_failures: int = 5
    lock_ms: int = 15 * MINUTE_MS
    lock_ms_max: int = DAY_MS
    lock_until_unlocked: bool = False
    factor_off_at_failures: int = 100

    # Sessions and request ids, see P2 and Q3.
    session_lifetime_ms: int = 12 * HOUR_MS
    request_retention_ms: int = 10 * MINUTE_MS
    requests_max: int = 200_000
