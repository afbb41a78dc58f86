# SPDX-License-Identifier: Apache-2.0
"""
Emergency access of a token: its emergency codes, and the life of a code.

A set of one-time tokencodes, each accepted once, or one temporary fixed
tokencode, accepted until its end (I11): a set of one code that is never spent.

    LIVE ---- accepted ---> USED
      |
      +------ re-issue, off, recovered token ---> VOID

A set ends by time (`effective_end_ms`), or by being voided; that its last code was used
does not end it. Only a set that nobody voided before *reaches its end* (R2).
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import (
    AdministratorName,
    AgentIdentity,
    KeyId,
    NodeId,
    SetId,
    TokenSerial,
)


class RecoveryPolicy(enum.StrEnum):
    """What happens when the lost token is used again (R); `recovery` decides by it."""

    DENY = "deny"
    ALLOW_AND_DISABLE = "allow_and_disable"
    ALLOW_AFTER_EXPIRY = "allow_after_expiry"


class CodeState(enum.StrEnum):
    """The state of one emergency code."""

    LIVE = "live"
    USED = "used"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Where and when a code was accepted."""

    at_ms: int
    agent: AgentIdentity
    node_id: NodeId
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyCode:
    """One one-time tokencode: a number in its set, a verifier, a state."""

    ordinal: int
    verifier: bytes
    state: CodeState = CodeState.LIVE
    use: Use | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyCodeSet:
    """A set of one-time tokencodes of one token, or its fixed tokencode."""

    set_id: SetId
    serial: TokenSerial
    key_id: KeyId
    code_length: int
    issuer: AdministratorName
    node_id: NodeId
    issued_at_ms: int
    issued_index: int
    ends_at_ms: int | None
    """As asked for; the effective end also depends on the token."""
    voided: bool = False
    fixed: bool = False
    """Its one code is not spent by use (I11)."""
    codes: tuple[EmergencyCode, ...] = ()

    def effective_end_ms(self, token_expires_at_ms: int | None) -> int | None:
        """Return the earlier of the set's end and the token's (I7); None: no end."""
        ends = [
            end for end in (self.ends_at_ms, token_expires_at_ms) if end is not None
        ]
        return min(ends, default=None)

    def expired(self, now_ms: int, token_expires_at_ms: int | None) -> bool:
        """Say whether the set has ended by time: refused from its end on (I7)."""
        end = self.effective_end_ms(token_expires_at_ms)
        return end is not None and now_ms >= end

    def live(self, now_ms: int, token_expires_at_ms: int | None) -> int:
        """Return how many of its codes can be used now."""
        if self.expired(now_ms, token_expires_at_ms):
            return 0
        return sum(code.state is CodeState.LIVE for code in self.codes)

    def reached_its_end(self, now_ms: int, token_expires_at_ms: int | None) -> bool:
        """Say whether it ended by time, and was not voided before (R, R2)."""
        return not self.voided and self.expired(now_ms, token_expires_at_ms)

    def spend(self, ordinal: int, use: Use) -> "EmergencyCodeSet":
        """Return the set with that live code used."""
        return replace(
            self,
            codes=tuple(
                replace(code, state=CodeState.USED, use=use)
                if code.ordinal == ordinal
                else code
                for code in self.codes
            ),
        )

    def void(self, now_ms: int) -> "EmergencyCodeSet":
        """
        Return the set with its live codes void.

        One that has reached its own end stays as it is: that is over, and nothing
        that comes later may take back what it allowed (R, R2). One that has ended
        with its token is voided, for a token's end can be moved.
        """
        if self.ends_at_ms is not None and now_ms >= self.ends_at_ms:
            return self
        return self.void_for_good()

    def void_for_good(self) -> "EmergencyCodeSet":
        """Return the set with its live codes void, whether or not it has ended."""
        return replace(
            self,
            voided=True,
            codes=tuple(
                replace(code, state=CodeState.VOID)
                if code.state is CodeState.LIVE
                else code
                for code in self.codes
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerSet:
    """What is known of a set whose token was taken away or deleted (A5)."""

    set_id: SetId
    serial: TokenSerial
    key_id: KeyId
    verifiers: tuple[bytes, ...]


def all_void(
    sets: Sequence[EmergencyCodeSet], now_ms: int
) -> tuple[tuple[EmergencyCodeSet, ...], int]:
    """
    Return the sets of one token, newest first, after somebody has ended them all.

    And how many codes died by it. While a code lives in any of them, or a kept one
    that was used after the newest had ended has not, nothing has reached its end yet:
    then the newest is voided even where its own end is past, for it is the newest that
    lets a token back in (R2). Codes that have ended with their token alone live, too:
    another end of the token would revive them.
    """
    voided = [each.void(now_ms) for each in sets]
    live = live_codes(sets, now_ms, token_expires_at_ms=None)
    if live or used_while_it_outlives(sets, now_ms):
        voided[0] = voided[0].void_for_good()
    return tuple(voided), live


def used_while_it_outlives(sets: Sequence[EmergencyCodeSet], now_ms: int) -> bool:
    """
    Say whether a code was used of a kept set that outlives the newest (R2).

    *sets* are those of one token, newest first. It has not ended then, also if that
    was its last code. One that was used up before the newest ended does not count:
    the newest governs (I8).
    """
    if not sets or sets[0].ends_at_ms is None:
        return False
    newest_ended_at_ms = sets[0].ends_at_ms
    return any(
        code.use is not None and code.use.at_ms >= newest_ended_at_ms
        for kept in sets[1:]
        if not kept.expired(now_ms, None)
        for code in kept.codes
    )


def live_codes(
    sets: Iterable[EmergencyCodeSet], now_ms: int, token_expires_at_ms: int | None
) -> int:
    """Return how many codes of these sets of one token can be used now."""
    return sum(each.live(now_ms, token_expires_at_ms) for each in sets)
