# SPDX-License-Identifier: Apache-2.0
"""What the fields of the policy are called in the editor, and in which unit."""

from dataclasses import dataclass, fields

from sparecode_node.domain.policy import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
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
class Knob:
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
        """It is a yes or no."""
        return isinstance(_DEFAULTS[self.name], bool)

    @property
    def is_text(self) -> bool:
        """It is no number."""
        return isinstance(_DEFAULTS[self.name], str)

    @property
    def is_capital(self) -> bool:
        """Small letters mean capital ones."""
        return self.name == "code_alphabet"

    @property
    def may_be_empty(self) -> bool:
        """Empty means that there is no bound."""
        return _DEFAULTS[self.name] is None


_DEFAULTS = {field.name: field.default for field in fields(Policy)}

_SAID: tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...] = (
    (
        "Emergency access tokencodes",
        (
            (
                "code_length",
                "Symbols of a code",
                "",
                "Codes of before are accepted on: it joins the further lengths.",
            ),
            (
                "further_code_lengths",
                "Further lengths accepted",
                "",
                "Each costs every passcode two more evaluations; empty when no codes of it live.",
            ),
            (
                "code_alphabet",
                "Symbols to draw from",
                "",
                "With a letter, a code never looks like a tokencode.",
            ),
            ("codes_per_set_default", "Codes of a set, if nobody says", "", ""),
            ("codes_per_set_max", "Codes of a set, at most", "", ""),
            ("set_low_threshold", "A set is low with so many codes left", "", ""),
            (
                "lifetime_ms_max",
                "Longest lifetime",
                "days",
                "Empty: codes need not expire.",
            ),
            ("draft_lifetime_ms", "Time between Generate and Save", "minutes", ""),
        ),
    ),
    (
        "Lockout",
        (
            ("lock_from_failures", "Locked from so many failures on", "", ""),
            ("lock_ms", "First lock", "minutes", "Doubles with each further failure."),
            ("lock_ms_max", "Longest lock", "hours", ""),
            (
                "lock_until_unlocked",
                "Locked until an administrator unlocks",
                "",
                "",
            ),
            (
                "factor_off_at_failures",
                "Factor off from so many failures on",
                "",
                "The guesses that anybody ever has.",
            ),
        ),
    ),
    (
        "PINs and tokens",
        (
            (
                "pin_letters",
                "PINs may have letters",
                "",
                "Every passcode costs another evaluation then.",
            ),
            ("pin_length_min", "Length of a PIN, at least", "", ""),
            ("pin_length_max", "Length of a PIN, at most", "", ""),
            ("tokens_per_user_max", "Tokens of a user, at most", "", ""),
            (
                "totp_window_steps",
                "Time steps accepted around now",
                "",
                "Each way, beside the learned drift.",
            ),
            ("hotp_look_ahead", "Counters accepted ahead", "", ""),
            (
                "next_tokencode_from_failures",
                "Ask for the next tokencode after so many wrong ones",
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
                "A second administrator approves what is grave",
                "",
                "",
            ),
            (
                "backup_recipients",
                "Backups are encrypted to",
                "",
                "age public keys, with a space between; empty: nobody may make one.",
            ),
            ("session_lifetime_ms", "A session ends after", "hours", ""),
            (
                "session_idle_ms",
                "A browser is signed out without use for",
                "minutes",
                "",
            ),
            (
                "session_unused_ms",
                "Any session ends without a call for",
                "hours",
                "Those of scripts and the command line, too.",
            ),
        ),
    ),
    (
        "Requests",
        (
            ("request_retention_ms", "Outcomes are remembered for", "minutes", ""),
            ("requests_max", "Outcomes remembered, at most", "", ""),
        ),
    ),
)


def _groups() -> tuple[tuple[str, tuple[Knob, ...]], ...]:
    said = tuple(
        (
            group,
            tuple(
                Knob(name=name, words=words, unit=unit, hint=hint)
                for name, words, unit, hint in knobs
            ),
        )
        for group, knobs in _SAID
    )
    known = {knob.name for _, knobs in said for knob in knobs} | {"version"}
    # What nobody has found words for yet can be changed all the same.
    others = tuple(
        Knob(
            name=name,
            words=public_name(name).replace("_", " ").capitalize(),
            unit="seconds" if "_ms" in name else "",
        )
        for name in _DEFAULTS
        if name not in known
    )
    return said + ((("Other", others),) if others else ())


GROUPS = _groups()
