# SPDX-License-Identifier: Apache-2.0
"""Labels and units of the policy's fields in the editor."""

from dataclasses import dataclass, fields

from sparecode_node.domain.policy import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    FactorRule,
    Policy,
    public_name,
)

_UNITS = {
    "minutes": MINUTE_MS,
    "hours": HOUR_MS,
    "days": DAY_MS,
    "seconds": SECOND_MS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyField:
    """One field of the policy."""

    name: str
    words: str
    unit: str = ""
    hint: str = ""

    @property
    def unit_ms(self) -> int:
        """Milliseconds in one unit; 0 if the unit is not a unit of time."""
        return _UNITS.get(self.unit, 0)

    @property
    def is_box(self) -> bool:
        """Whether the field is yes or no."""
        return isinstance(_DEFAULTS[self.name], bool)

    @property
    def is_text(self) -> bool:
        """Whether the field is text."""
        return isinstance(_DEFAULTS[self.name], str)

    @property
    def choices(self) -> dict[str, str]:
        """The values that the field can have, with their words; empty: any."""
        return _CHOICES.get(self.name, {})

    @property
    def is_capital(self) -> bool:
        """Whether letters are converted to capitals."""
        return self.name == "code_alphabet"

    @property
    def may_be_empty(self) -> bool:
        """Whether an empty field means no bound."""
        return _DEFAULTS[self.name] is None


_DEFAULTS = {field.name: field.default for field in fields(Policy)}

_CHOICES = {
    "administrators_second_factor": {
        FactorRule.OPTIONAL.value: "Optional",
        FactorRule.ANY.value: "Any: code or passkey",
        FactorRule.PASSKEY.value: "Passkey",
    }
}

_LABELS: tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...] = (
    (
        "Emergency access tokencodes",
        (
            (
                "code_length",
                "Symbols per code",
                "",
                "Codes already issued stay valid: their length is added to the accepted lengths.",
            ),
            (
                "further_code_lengths",
                "Other accepted lengths",
                "",
                "Each one adds two hashes to every sign-in. Remove a length when no code of it is live.",
            ),
            (
                "code_alphabet",
                "Alphabet",
                "",
                "If it has letters, a code never looks like a tokencode.",
            ),
            ("codes_per_set_default", "Default codes per set", "", ""),
            ("codes_per_set_max", "Maximum codes per set", "", ""),
            ("set_low_threshold", "Report a set as low at this many codes", "", ""),
            (
                "lifetime_ms_max",
                "Longest lifetime",
                "days",
                "Leave empty to allow codes without an expiration.",
            ),
            ("draft_lifetime_ms", "Time between Generate and Save", "minutes", ""),
            (
                "former_code_retention_ms",
                "Recognize codes of former sets for",
                "days",
                "Such a code does not count as a guess.",
            ),
        ),
    ),
    (
        "Lockout",
        (
            ("lock_from_failures", "Lock after this many failures", "", ""),
            ("lock_ms", "First lock", "minutes", "Doubles with each further failure."),
            ("lock_ms_max", "Longest lock", "hours", ""),
            (
                "lock_until_unlocked",
                "Keep users locked until an administrator unlocks them",
                "",
                "",
            ),
            (
                "factor_off_at_failures",
                "Disable the factor after this many failures in total",
                "",
                "An attacker never has more guesses than this.",
            ),
        ),
    ),
    (
        "PINs and tokens",
        (
            (
                "pin_letters",
                "PINs may contain letters",
                "",
                "Adds a hash to every sign-in.",
            ),
            (
                "pin_blocklist",
                "Refuse new PINs that are easy to guess",
                "",
                "Repeated digits, runs, years, dates, common PINs, and parts of the user’s name.",
            ),
            ("pin_length_min", "Shortest PIN", "", ""),
            ("pin_length_max", "Longest PIN", "", ""),
            ("tokens_per_user_max", "Maximum tokens per user", "", ""),
            (
                "totp_window_steps",
                "Time steps accepted around now",
                "",
                "In each direction, after correcting for the learned drift.",
            ),
            ("hotp_look_ahead", "Counters accepted ahead", "", ""),
            (
                "next_tokencode_from_failures",
                "Ask for the next tokencode after this many wrong ones",
                "",
                "0: never.",
            ),
            (
                "resynchronize_window_steps",
                "Time steps searched to resynchronize",
                "",
                "",
            ),
            ("resynchronize_look_ahead", "Counters searched to resynchronize", "", ""),
        ),
    ),
    (
        "Administrators and backups",
        (
            (
                "second_approver",
                "Sensitive changes need a second super administrator’s approval",
                "",
                "",
            ),
            (
                "administrators_second_factor",
                "Second factor of administrators",
                "",
                "Without it, a session can only set one up.",
            ),
            (
                "passkey_domain",
                "Passkey domain",
                "",
                "The domain of all consoles, such as sparecode.example.com. Cannot change while there are passkeys. Leave empty to offer none.",
            ),
            (
                "issued_sets_per_hour",
                "Sets an administrator may issue within an hour without approval",
                "",
                "Further sets need another super administrator’s approval.",
            ),
            (
                "issued_sets_per_day",
                "Sets an administrator may issue within a day without approval",
                "",
                "",
            ),
            (
                "unlocks_per_day",
                "Unlocks of a user within a day without approval",
                "",
                "By all administrators together. Further unlocks need another super administrator’s approval.",
            ),
            (
                "backup_recipients",
                "Backup recipients",
                "",
                "age public keys, separated by spaces. Leave empty to disable backups.",
            ),
            (
                "reset_delay_ms",
                "Announce a local reset of an administrator for",
                "minutes",
                "A super administrator who signs in during this time cancels it.",
            ),
            (
                "rotate_after_removal",
                "Removing a member also replaces the ring’s key",
                "",
                "The removed member has had it.",
            ),
            (
                "authorities_due_after_removal",
                "Removing a member with the authorities’ keys makes these due",
                "",
                "The dashboard reminds until they are replaced.",
            ),
            ("session_lifetime_ms", "Sessions end after", "hours", ""),
            (
                "session_idle_ms",
                "End a session that is not used after",
                "minutes",
                "In browsers, on the command line and in scripts.",
            ),
            (
                "session_unused_ms",
                "Further limit of a session without use",
                "hours",
                "The lower of both limits counts.",
            ),
            (
                "privileged_session_lifetime_ms",
                "Sessions of super administrators end after",
                "hours",
                "If that is earlier.",
            ),
            (
                "privileged_session_idle_ms",
                "End a super administrator’s session that is not used after",
                "minutes",
                "If that is earlier.",
            ),
        ),
    ),
    (
        "Requests",
        (
            ("request_retention_ms", "Keep outcomes for", "minutes", ""),
            ("requests_max", "Maximum outcomes kept", "", ""),
        ),
    ),
)


def _groups() -> tuple[tuple[str, tuple[PolicyField, ...]], ...]:
    groups = tuple(
        (
            group,
            tuple(
                PolicyField(name=name, words=words, unit=unit, hint=hint)
                for name, words, unit, hint in knobs
            ),
        )
        for group, knobs in _LABELS
    )
    known = {knob.name for _, knobs in groups for knob in knobs} | {"version"}
    # A field without a label here can be changed nevertheless.
    others = tuple(
        PolicyField(
            name=name,
            words=public_name(name).replace("_", " ").capitalize(),
            unit="seconds" if "_ms" in name else "",
        )
        for name in _DEFAULTS
        if name not in known
    )
    return groups + ((("Other", others),) if others else ())


GROUPS = _groups()
