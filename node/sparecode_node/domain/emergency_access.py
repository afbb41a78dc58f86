# SPDX-License-Identifier: Apache-2.0
"""
Emergency access of a token: sets of emergency codes, and the states of a code.

A set holds one-time tokencodes, each accepted once. Or it holds one temporary fixed
tokencode, accepted until its end: a set of one code that is never spent (I11).

    LIVE ---- accepted ---> USED
      |
      +------ re-issue, off, recovered token ---> VOID

A set ends by time (`effective_end_ms`) or by being voided. Using its last code does not
end it. A set *reaches its end* only if it was not voided before (R2).
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
    """What happens when the lost token is used again (R); see `recovery`."""

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
    """One emergency code: its number in the set, its verifier, its state."""

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
    """The set's own end; the effective end also depends on the token."""
    voided: bool = False
    fixed: bool = False
    """Whether its one code can be used repeatedly (I11)."""
    codes: tuple[EmergencyCode, ...] = ()

    @property
    def unused(self) -> int:
        """How many of its codes are neither used nor void, even if they have ended."""
        return sum(code.state is CodeState.LIVE for code in self.codes)

    def effective_end_ms(self, token_expires_at_ms: int | None) -> int | None:
        """Return the earlier of the set's end and the token's (I7); None: no end."""
        ends = [
            end for end in (self.ends_at_ms, token_expires_at_ms) if end is not None
        ]
        return min(ends, default=None)

    def expired(self, now_ms: int, token_expires_at_ms: int | None) -> bool:
        """Return whether the set has ended by time: from its effective end on (I7)."""
        end = self.effective_end_ms(token_expires_at_ms)
        return end is not None and now_ms >= end

    def live(self, now_ms: int, token_expires_at_ms: int | None) -> int:
        """Return how many of its codes can be used now."""
        if self.expired(now_ms, token_expires_at_ms):
            return 0
        return self.unused

    def reached_its_end(self, now_ms: int, token_expires_at_ms: int | None) -> bool:
        """Return whether the set ended by time and was not voided before (R, R2)."""
        return not self.voided and self.expired(now_ms, token_expires_at_ms)

    def spend(self, ordinal: int, use: Use) -> "EmergencyCodeSet":
        """Return the set with the live code of this ordinal used."""
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

        A set past its own end stays as it is: nothing later may take back what its end
        allowed (R, R2). A set that ended only because its token expired is voided: the
        token's end can be moved.
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
    """What remains of a set whose token was unassigned or deleted, or of an old set (A5)."""

    set_id: SetId
    serial: TokenSerial
    key_id: KeyId
    verifiers: tuple[bytes, ...]
    assigned: bool = False
    """Whether the token is the user's; from feature level 2 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerCode:
    """A typed code that the state knows by its tag alone: it belonged to the user (A5)."""

    tag: bytes
    serial: TokenSerial
    assigned: bool
    """Whether the token is the user's."""


def all_void(
    sets: Sequence[EmergencyCodeSet], now_ms: int
) -> tuple[tuple[EmergencyCodeSet, ...], int]:
    """
    Return the sets of one token, all voided, and the number of codes voided.

    *sets* are ordered newest first. Emergency access is not over while any set has a live
    code, or while a kept set used after the newest's end has not ended. In that case the
    newest set is voided even past its own end, because the newest set lets a token back
    in (R2). Codes that ended only because their token expired count as live: moving the
    token's end would revive them.
    """
    voided = [each.void(now_ms) for each in sets]
    live = live_codes(sets, now_ms, token_expires_at_ms=None)
    if live or used_while_it_outlives(sets, now_ms):
        voided[0] = voided[0].void_for_good()
    return tuple(voided), live


def used_while_it_outlives(sets: Sequence[EmergencyCodeSet], now_ms: int) -> bool:
    """
    Return whether a kept set outlives the newest set and was used after its end (R2).

    *sets* belong to one token, newest first. Such a set has not ended, even if its last
    code was used. A kept set that was used up before the newest set ended does not
    count: the newest set decides (I8).
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
    """Return the number of usable codes in these sets of one token."""
    return sum(each.live(now_ms, token_expires_at_ms) for each in sets)
