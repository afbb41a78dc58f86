# SPDX-License-Identifier: Apache-2.0
"""
The policy: one replicated, versioned value, the same on every node.

It is never node configuration: nodes with different files would decide the same
command differently. `policy_problem` judges the values; `policy_changes` also judges a
change against live codes and PINs.
"""

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from sparecode_node.domain.personal_kinds import KINDS_OF_USERS, PersonalKind

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

FIXED_LIFETIME_MS = 7 * DAY_MS
"""Default lifetime of a fixed tokencode, which must end (I11)."""

TIME_MS_MAX = 253_402_300_799_999
"""The end of the year 9999. No time is later, so sums of times cannot overflow."""

UNAMBIGUOUS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Digits and capitals without 0 O 1 I L: 31 symbols that are safe to read aloud."""


class FactorRule(enum.StrEnum):
    """The second factor that sign-in of administrators needs (P8)."""

    OPTIONAL = "optional"
    """The administrator's own one, if there is one."""
    ANY = "any"
    PASSKEY = "passkey"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The settings of the cluster. The defaults are those of a new cluster."""

    version: int = 1

    # Emergency codes, see I4 to I7.
    code_length: int = 8
    further_code_lengths: str = ""
    """Other accepted lengths of issued codes (T4): ascending, separated by spaces."""
    code_alphabet: str = UNAMBIGUOUS
    codes_per_set_default: int = 10
    codes_per_set_max: int = 50
    lifetime_ms_max: int | None = None
    draft_lifetime_ms: int = 15 * MINUTE_MS
    set_low_threshold: int = 2
    former_code_retention_ms: int = 365 * DAY_MS
    """How long codes of former sets are recognized, so that they are no guesses (A5)."""

    # PINs and tokens, see K.
    pin_length_min: int = 4
    pin_length_max: int = 8
    pin_letters: bool = False
    pin_blocklist: bool = True
    """Whether new PINs that are easy to guess are refused."""
    totp_window_steps: int = 1
    hotp_look_ahead: int = 10
    tokens_per_user_max: int = 3

    # Lockout, see L.
    lock_from_failures: int = 5
    lock_ms: int = 15 * MINUTE_MS
    lock_ms_max: int = DAY_MS
    lock_until_unlocked: bool = False
    factor_off_at_failures: int = 100

    # Administrators, see P3 and I10.
    second_approver: bool = True

    # Second factors of administrators, see P8.
    administrators_second_factor: str = FactorRule.OPTIONAL.value
    """A `FactorRule`."""
    passkey_domain: str = ""
    """The domain of all nodes' consoles; empty: no passkeys."""

    # Issued sets of each administrator without an approval, see P3a.
    issued_sets_per_hour: int = 30
    issued_sets_per_day: int = 100
    # Unlocks of each user without an approval, by all administrators together.
    unlocks_per_day: int = 3

    # Local resets of administrators, see P4.
    reset_delay_ms: int = HOUR_MS
    """How long a reset is announced before it is in force."""

    # Removed members, see P6.
    rotate_after_removal: bool = False
    """Whether removing a member starts a rotation of the ring's key."""
    authorities_due_after_removal: bool = True
    """Whether the authorities are due after the removal of a member with their keys."""
    replace_authorities_after_removal: bool = True
    """Whether authorities that are due are replaced: a member makes their successors."""

    # Notices to people by mail, see N6.
    silent_notices: str = ""
    """Kinds that people do not get, separated by spaces."""
    manager_notices: str = (
        "codes_issued token_reinstated recovered_token_accepted recovered_token_refused"
    )
    """Kinds that the manager of the user gets, too, separated by spaces."""

    # Codes by message, see I13.
    codes_by_message: bool = False
    """Whether codes may go to their user as a sealed message."""
    codes_to_manager: bool = False
    """Whether they may also go to the user's manager."""

    # Retention of the audit log, see U4.
    audit_retention_ms: int | None = None
    """How long sealed events stay after their segment was archived; None: forever."""
    audit_archive_copies: int = 2
    """How many archives must have a segment before it is removed."""

    # "This was not me", see N9.
    alarm_ends_codes: bool = False
    """Whether a user's alarm about a notice voids the user's live codes."""

    # Public keys (age) that backups are encrypted for, separated by spaces; see P1, P3.
    backup_recipients: str = ""

    # Sessions and request ids, see P2 and Q3.
    session_lifetime_ms: int = 12 * HOUR_MS
    session_idle_ms: int = 30 * MINUTE_MS
    session_unused_ms: int = 7 * DAY_MS
    """
    A session without a call for this long ends early.

    The maximum is the longest lifetime of a session: then none ends early.
    """
    privileged_session_lifetime_ms: int = 4 * HOUR_MS
    privileged_session_idle_ms: int = 15 * MINUTE_MS
    """Of super administrators. The lower of these and the general limits counts."""
    request_retention_ms: int = 10 * MINUTE_MS
    requests_max: int = 200_000

    # Two tokencodes in a row, see K1.
    resynchronize_window_steps: int = 60
    resynchronize_look_ahead: int = 100
    next_tokencode_from_failures: int = 3

    @property
    def code_lengths(self) -> tuple[int, ...]:
        """The accepted lengths of emergency codes; that of new codes comes first."""
        return (self.code_length, *lengths_of(self.further_code_lengths))


BOUNDS: dict[str, tuple[int, int]] = {
    "code_length": (6, 16),
    "codes_per_set_default": (1, 100),
    "codes_per_set_max": (1, 100),
    "lifetime_ms_max": (HOUR_MS, 3_660 * DAY_MS),
    "draft_lifetime_ms": (MINUTE_MS, HOUR_MS),
    "set_low_threshold": (0, 100),
    "former_code_retention_ms": (30 * DAY_MS, 3_660 * DAY_MS),
    "pin_length_min": (4, 16),
    "pin_length_max": (4, 16),
    "totp_window_steps": (0, 3),
    "hotp_look_ahead": (1, 50),
    "resynchronize_window_steps": (1, 120),
    "resynchronize_look_ahead": (1, 500),
    "next_tokencode_from_failures": (0, 100),
    "tokens_per_user_max": (1, 3),
    "lock_from_failures": (1, 100),
    "lock_ms": (MINUTE_MS, DAY_MS),
    "lock_ms_max": (MINUTE_MS, 30 * DAY_MS),
    "factor_off_at_failures": (5, 100),
    "issued_sets_per_hour": (0, 10_000),
    "issued_sets_per_day": (0, 10_000),
    "unlocks_per_day": (0, 100),
    "session_lifetime_ms": (5 * MINUTE_MS, 7 * DAY_MS),
    "session_idle_ms": (5 * MINUTE_MS, DAY_MS),
    "session_unused_ms": (5 * MINUTE_MS, 7 * DAY_MS),
    "privileged_session_lifetime_ms": (5 * MINUTE_MS, 7 * DAY_MS),
    "privileged_session_idle_ms": (5 * MINUTE_MS, DAY_MS),
    "reset_delay_ms": (10 * MINUTE_MS, 7 * DAY_MS),
    "request_retention_ms": (10 * MINUTE_MS, HOUR_MS),
    "requests_max": (10_000, 5_000_000),
    "audit_retention_ms": (90 * DAY_MS, 36_600 * DAY_MS),
    "audit_archive_copies": (1, 5),
}
"""
The bounds of every number.

No administrator can allow more than 100 guesses (L4).
"""

UNLIMITED = ("lifetime_ms_max", "audit_retention_ms")
"""Numbers that may be None: no limit. A change to it is written as 0."""

ORDERED = (
    ("codes_per_set_default", "codes_per_set_max"),
    ("set_low_threshold", "codes_per_set_max"),
    ("pin_length_min", "pin_length_max"),
    ("totp_window_steps", "resynchronize_window_steps"),
    ("hotp_look_ahead", "resynchronize_look_ahead"),
    ("lock_from_failures", "factor_off_at_failures"),
    ("lock_ms", "lock_ms_max"),
    ("issued_sets_per_hour", "issued_sets_per_day"),
)
"""Pairs of fields: the first must not be more than the second."""

DOMAIN_MAX = 253
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(
    f"localhost|(?=.{{1,{DOMAIN_MAX}}}$)({_LABEL}[.])+(?=[a-z]){_LABEL}"
)
"""A DNS name. Its last label begins with a letter, so it is no IP address."""

KINDS_MAX = 1000
"""Characters of a list of kinds of notices: more than all kinds have."""

RECIPIENTS_MAX = 8
_RECIPIENT = re.compile("age1[02-9ac-hj-np-z]{58}")

FURTHER_LENGTHS_MAX = 2
"""Maximum further lengths: each costs every attempt two hashes (T4)."""
_LENGTHS = re.compile("([1-9][0-9]?( [1-9][0-9]?)*)?")

_SYMBOLS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SYMBOLS_MIN = 10


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """The field of a policy that is wrong, and what is wrong with it."""

    field: str
    """Its public name."""
    words: str


def public_name(name: str) -> str:
    """Return the public name of a field: without its unit, as public times have one."""
    return name.replace("_ms", "")


def policy_problem(policy: Policy) -> PolicyProblem | None:
    """Return the first field that is out of bounds or conflicts with another."""
    return (
        numbers_problem(policy)
        or _lengths_problem(policy)
        or _alphabet_problem(policy.code_alphabet)
        or _recipients_problem(policy.backup_recipients)
        or _factor_problem(policy)
        or _kinds_problem(
            "silent_notices",
            policy.silent_notices,
            [each for each in PersonalKind if each is not PersonalKind.TEST],
        )
        or _kinds_problem("manager_notices", policy.manager_notices, KINDS_OF_USERS)
    )


def numbers_problem(policy: Policy) -> PolicyProblem | None:
    """Return the first number that is out of bounds or conflicts with another."""
    for name, (least, most) in BOUNDS.items():
        value: int | None = getattr(policy, name)
        if value is None:
            continue  # No cap.
        if not least <= value <= most:
            bounds = (
                f"must be {_format_value(name, least)} to {_format_value(name, most)}"
            )
            return PolicyProblem(
                public_name(name), f"{bounds}, not {_format_value(name, value)}"
            )
    for low, high in ORDERED:
        if getattr(policy, low) > getattr(policy, high):
            return PolicyProblem(
                public_name(low),
                f"must not be more than {public_name(high)}: "
                f"{_format_value(low, getattr(policy, low))} is more than "
                f"{_format_value(high, getattr(policy, high))}",
            )
    return None


def lengths_of(further: str) -> tuple[int, ...]:
    """Return the lengths of a policy's `further_code_lengths`."""
    return tuple(int(length) for length in further.split())


def _lengths_problem(policy: Policy) -> PolicyProblem | None:
    """Refuse a list of further lengths that is malformed or too long (T4)."""
    further = policy.further_code_lengths
    least, most = BOUNDS["code_length"]
    words = ""
    if not _LENGTHS.fullmatch(further):
        words = "must be numbers with one space between two"
    else:
        lengths = lengths_of(further)
        if len(lengths) > FURTHER_LENGTHS_MAX:
            words = f"must be at most {FURTHER_LENGTHS_MAX} lengths, not {len(lengths)}"
        elif not all(least <= length <= most for length in lengths):
            words = f"must be of lengths of {least} to {most}, not {further}"
        elif list(lengths) != sorted({*lengths} - {policy.code_length}):
            words = (
                "must be in ascending order, and none twice or that of new codes "
                f"({policy.code_length}), not {further}"
            )
    return PolicyProblem("further_code_lengths", words) if words else None


def _recipients_problem(recipients: str) -> PolicyProblem | None:
    """Refuse malformed public keys; services check them closely beforehand."""
    keys = recipients.split(" ") if recipients else []
    words = ""
    if len(keys) > RECIPIENTS_MAX:
        words = f"must be at most {RECIPIENTS_MAX} public keys, not {len(keys)}"
    elif len(set(keys)) != len(keys):
        words = "must not hold a public key twice"
    elif not all(_RECIPIENT.fullmatch(key) for key in keys):
        words = (
            "must be age public keys (age1 and 58 letters and digits), with one space "
            "between two"
        )
    return PolicyProblem("backup_recipients", words) if words else None


def _factor_problem(policy: Policy) -> PolicyProblem | None:
    """Refuse an unknown second factor, and passkeys that no console could use (P8)."""
    domain = policy.passkey_domain
    rule = policy.administrators_second_factor
    if rule not in list(FactorRule):
        return PolicyProblem(
            "administrators_second_factor",
            f"must be optional, any or passkey, not {rule}",
        )
    if domain and not _DOMAIN.fullmatch(domain):
        return PolicyProblem(
            "passkey_domain",
            "must be the domain of the consoles in lower case, such as "
            "sparecode.example.com, and no IP address",
        )
    if rule == FactorRule.PASSKEY and not domain:
        return PolicyProblem(
            "passkey_domain", "must be set if administrators need a passkey"
        )
    return None


def _kinds_problem(
    field: str, value: str, known: Sequence[PersonalKind]
) -> PolicyProblem | None:
    """Refuse unknown kinds of notices, which would change nothing (N6)."""
    kinds = value.split(" ") if value else []
    words = ""
    if unknown := [each for each in kinds if each not in known]:
        words = f"must be of {' '.join(known)}, not {unknown[0]}"
    elif len(set(kinds)) != len(kinds):
        words = "must not hold a kind twice"
    return PolicyProblem(field, words) if words else None


def _alphabet_problem(alphabet: str) -> PolicyProblem | None:
    """Refuse symbols that are hard to type or occur twice (I5)."""
    symbols = set(alphabet)
    words = ""
    if not symbols <= set(_SYMBOLS):
        words = "may hold digits and capital letters (A to Z) only"
    elif len(symbols) != len(alphabet):
        words = "must not hold a symbol twice: codes would not be drawn evenly"
    elif len(symbols) < _SYMBOLS_MIN:
        words = f"must hold at least {_SYMBOLS_MIN} symbols, not {len(symbols)}"
    return PolicyProblem("code_alphabet", words) if words else None


def changes(before: Policy, after: Policy) -> str:
    """Return the changed fields with old and new values, for the audit log."""
    parts = []
    for field in fields(Policy):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if field.name != "version" and old != new:
            parts.append(
                f"{public_name(field.name)} {_format_value(field.name, old)} -> "
                f"{_format_value(field.name, new)}"
            )
    return ", ".join(parts)


def _format_value(name: str, value: object) -> str:
    if value in (None, ""):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and "_ms" in name:
        for unit_ms, unit in ((DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m")):
            if value and value % unit_ms == 0:
                return f"{value // unit_ms}{unit}"
        return f"{value / SECOND_MS:g}s"
    return str(value)
