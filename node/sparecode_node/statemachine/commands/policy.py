# SPDX-License-Identifier: Apache-2.0
"""The command that changes the policy; see `commands`."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy_changes import LiveCodes


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedLength:
    """The live codes of one length in a group of tokens."""

    length: int
    riskiest: int
    """Of the token whose codes are the easiest to guess."""
    all: int
    """Of all tokens in the group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedTokens:
    """A group of tokens with live codes, see `LiveCodes`."""

    rule: PinRule
    tokens: int
    first: TokenSerial
    riskiest: TokenSerial
    lengths: tuple[CountedLength, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedCodes:
    """
    All live codes, as a reader has counted them (I6).

    Apply adds the sets that were issued since. Nothing else makes a code live, and no
    token changes its PIN rule, so no live code is missing.
    """

    last_set: int
    """The number of the newest set that was counted; 0: there was none."""
    groups: tuple[CountedTokens, ...]

    @classmethod
    def of(cls, last_set: int, groups: Sequence[LiveCodes]) -> "CountedCodes":
        """Return the groups as a command carries them."""
        return cls(
            last_set=last_set,
            groups=tuple(
                CountedTokens(
                    rule=group.rule,
                    tokens=group.tokens,
                    first=group.first,
                    riskiest=group.riskiest,
                    lengths=tuple(
                        CountedLength(
                            length=length, riskiest=live, all=group.codes[length]
                        )
                        for length, live in sorted(group.lengths.items())
                    ),
                )
                for group in groups
            ),
        )

    @property
    def live(self) -> tuple[LiveCodes, ...]:
        """The groups as the domain judges them."""
        return tuple(
            LiveCodes(
                lengths={each.length: each.riskiest for each in group.lengths},
                riskiest=group.riskiest,
                codes={each.length: each.all for each in group.lengths},
                rule=group.rule,
                tokens=group.tokens,
                first=group.first,
            )
            for group in self.groups
        )


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
    codes_to_manager: bool | None = None
    alarm_ends_codes: bool | None = None
    audit_retention_ms: int | None = None
    """0: forever."""
    audit_archive_copies: int | None = None
    counted: CountedCodes | None = None
    """
    The live codes, from feature level 2 on, if the change weighs them. A change that
    waits for an approval has none: the approval has them, counted again.
    """
