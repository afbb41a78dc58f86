# SPDX-License-Identifier: Apache-2.0
"""Labels and units of the policy's fields in the editor."""

from dataclasses import dataclass, fields

from sparecode_node.console.kit.languages import N_
from sparecode_node.console.kit.notice_kinds import NOTICE_KINDS
from sparecode_node.domain.personal_kinds import KINDS_OF_USERS, PersonalKind
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
    def kinds(self) -> dict[str, str]:
        """The kinds of notices that the field lists, with their words; empty: none."""
        return _KINDS.get(self.name, {})

    def kinds_in(self, value: str) -> dict[str, str]:
        """Return the kinds for the page: also those that only a newer release knows."""
        return self.kinds | {
            each: each for each in value.split() if each not in self.kinds
        }

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
        FactorRule.OPTIONAL.value: N_("Optional"),
        FactorRule.ANY.value: N_("Any: code or passkey"),
        FactorRule.PASSKEY.value: N_("Passkey"),
    }
}

_KINDS = {
    "silent_notices": {
        kind.value: words
        for kind, words in NOTICE_KINDS.items()
        if kind is not PersonalKind.TEST
    },
    "manager_notices": {kind.value: NOTICE_KINDS[kind] for kind in KINDS_OF_USERS},
}

_LABELS: tuple[tuple[str, tuple[tuple[str, str, str, str], ...]], ...] = (
    (
        N_("Emergency access tokencodes"),
        (
            (
                "code_length",
                N_("Symbols per code"),
                "",
                N_(
                    "Codes already issued stay valid: their length is added to the accepted lengths."
                ),
            ),
            (
                "further_code_lengths",
                N_("Other accepted lengths"),
                "",
                N_(
                    "Each one adds two hashes to every sign-in. Remove a length when no code of it is live."
                ),
            ),
            (
                "code_alphabet",
                N_("Alphabet"),
                "",
                N_("If it has letters, a code never looks like a tokencode."),
            ),
            ("codes_per_set_default", N_("Default codes per set"), "", ""),
            ("codes_per_set_max", N_("Maximum codes per set"), "", ""),
            ("set_low_threshold", N_("Report a set as low at this many codes"), "", ""),
            (
                "lifetime_ms_max",
                N_("Longest lifetime"),
                N_("days"),
                N_("Leave empty to allow codes without an expiration."),
            ),
            (
                "draft_lifetime_ms",
                N_("Time between Generate and Save"),
                N_("minutes"),
                "",
            ),
            (
                "former_code_retention_ms",
                N_("Recognize codes of former sets for"),
                N_("days"),
                N_("Such a code does not count as a guess."),
            ),
        ),
    ),
    (
        N_("Lockout"),
        (
            ("lock_from_failures", N_("Lock after this many failures"), "", ""),
            (
                "lock_ms",
                N_("First lock"),
                N_("minutes"),
                N_("Doubles with each further failure."),
            ),
            ("lock_ms_max", N_("Longest lock"), N_("hours"), ""),
            (
                "lock_until_unlocked",
                N_("Keep users locked until an administrator unlocks them"),
                "",
                "",
            ),
            (
                "factor_off_at_failures",
                N_("Disable the factor after this many failures in total"),
                "",
                N_("An attacker never has more guesses than this."),
            ),
        ),
    ),
    (
        N_("PINs and tokens"),
        (
            (
                "pin_letters",
                N_("PINs may contain letters"),
                "",
                N_("Adds a hash to every sign-in."),
            ),
            (
                "pin_blocklist",
                N_("Refuse new PINs that are easy to guess"),
                "",
                N_(
                    "Repeated digits, runs, years, dates, common PINs, and parts of the user’s name."
                ),
            ),
            ("pin_length_min", N_("Shortest PIN"), "", ""),
            ("pin_length_max", N_("Longest PIN"), "", ""),
            ("tokens_per_user_max", N_("Maximum tokens per user"), "", ""),
            (
                "totp_window_steps",
                N_("Time steps accepted around now"),
                "",
                N_("In each direction, after correcting for the learned drift."),
            ),
            ("hotp_look_ahead", N_("Counters accepted ahead"), "", ""),
            (
                "next_tokencode_from_failures",
                N_("Ask for the next tokencode after this many wrong ones"),
                "",
                N_("0: never."),
            ),
            (
                "resynchronize_window_steps",
                N_("Time steps searched to resynchronize"),
                "",
                "",
            ),
            (
                "resynchronize_look_ahead",
                N_("Counters searched to resynchronize"),
                "",
                "",
            ),
        ),
    ),
    (
        N_("Administrators and approvals"),
        (
            (
                "second_approver",
                N_("Sensitive changes need a second super administrator’s approval"),
                "",
                "",
            ),
            (
                "administrators_second_factor",
                N_("Second factor of administrators"),
                "",
                N_("Without it, a session can only set one up."),
            ),
            (
                "passkey_domain",
                N_("Passkey domain"),
                "",
                N_(
                    "The domain of all consoles, such as sparecode.example.com. Cannot change while there are passkeys. Leave empty to offer none."
                ),
            ),
            (
                "issued_sets_per_hour",
                N_("Sets an administrator may issue within an hour without approval"),
                "",
                N_("Further sets need another super administrator’s approval."),
            ),
            (
                "issued_sets_per_day",
                N_("Sets an administrator may issue within a day without approval"),
                "",
                "",
            ),
            (
                "unlocks_per_day",
                N_("Unlocks of a user within a day without approval"),
                "",
                N_(
                    "By all administrators together. Further unlocks need another super administrator’s approval."
                ),
            ),
            (
                "reset_delay_ms",
                N_("Announce a local reset of an administrator for"),
                N_("minutes"),
                N_("A super administrator who signs in during this time cancels it."),
            ),
        ),
    ),
    (
        N_("Sessions"),
        (
            ("session_lifetime_ms", N_("Sessions end after"), N_("hours"), ""),
            (
                "session_idle_ms",
                N_("End a session that is not used after"),
                N_("minutes"),
                N_("In browsers, on the command line and in scripts."),
            ),
            (
                "session_unused_ms",
                N_("Further limit of a session without use"),
                N_("hours"),
                N_("The lower of both limits counts."),
            ),
            (
                "privileged_session_lifetime_ms",
                N_("Sessions of super administrators end after"),
                N_("hours"),
                N_("If that is earlier."),
            ),
            (
                "privileged_session_idle_ms",
                N_("End a super administrator’s session that is not used after"),
                N_("minutes"),
                N_("If that is earlier."),
            ),
        ),
    ),
    (
        N_("Notices"),
        (
            (
                "silent_notices",
                N_("Notices that people do not get by mail"),
                "",
                N_("All others are sent, if there is a channel for mail."),
            ),
            (
                "manager_notices",
                N_("Notices that managers get, too"),
                "",
                N_("They go to the manager whose address is on file with the user."),
            ),
            (
                "codes_by_message",
                N_("Codes may go to their user as a sealed message"),
                "",
                N_(
                    "A mail has a link that shows the codes once, within an hour. Anyone who reads the mailbox gets the codes, but not the PIN."
                ),
            ),
            (
                "codes_to_manager",
                N_("Codes may also go to the manager of their user"),
                "",
                N_(
                    "As a sealed message, to the address of the manager on file with the user. The manager gives the codes to the user in person."
                ),
            ),
            (
                "alarm_ends_codes",
                N_("“This was not me” turns emergency access off"),
                "",
                N_(
                    "The link in each notice tells the help desk. With this, it also voids the live codes of the user. Anyone who reads the mailbox can do so."
                ),
            ),
        ),
    ),
    (
        N_("Audit log"),
        (
            (
                "audit_retention_ms",
                N_("Remove archived audit events after"),
                N_("days"),
                N_(
                    "At least 90. Leave empty to keep all. Only what enough archives have is removed. A shorter time has no effect for three days."
                ),
            ),
            (
                "audit_archive_copies",
                N_("Archives that must have audit events before they are removed"),
                "",
                N_(
                    "Of members, or copies that administrators have confirmed. With 1, a single broken archive is enough to lose them."
                ),
            ),
        ),
    ),
    (
        N_("Backups and keys"),
        (
            (
                "backup_recipients",
                N_("Backup recipients"),
                "",
                N_(
                    "age public keys, separated by spaces. Leave empty to disable backups."
                ),
            ),
            (
                "rotate_after_removal",
                N_("Removing a member also replaces the ring’s key"),
                "",
                N_("The removed member has had it."),
            ),
            (
                "authorities_due_after_removal",
                N_("Removing a member with the authorities’ keys makes these due"),
                "",
                N_("The dashboard reminds until they are replaced."),
            ),
            (
                "replace_authorities_after_removal",
                N_("Authorities that are due are replaced"),
                "",
                N_(
                    "A member that has their keys makes new authorities, which all "
                    "members trust."
                ),
            ),
        ),
    ),
    (
        N_("Requests"),
        (
            ("request_retention_ms", N_("Keep outcomes for"), N_("minutes"), ""),
            ("requests_max", N_("Maximum outcomes kept"), "", ""),
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
            unit=N_("seconds") if "_ms" in name else "",
        )
        for name in _DEFAULTS
        if name not in known
    )
    return groups + (((N_("Other"), others),) if others else ())


GROUPS = _groups()

FIELDS = {knob.name: knob for _group, knobs in GROUPS for knob in knobs}
"""The fields by their names."""
