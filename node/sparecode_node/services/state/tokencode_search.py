# SPDX-License-Identifier: Apache-2.0
"""
The search for the tokencodes of a passcode: the same work for every user (A6, T1).

Each attempt searches the wide window of as many tokens as a user may have, whether or
not the user exists, has tokens, waits or is locked, and whatever the number of earlier
attempts. Fillers take the place of missing tokens. Apply ignores matches in the wide
window unless it asks for the next tokencode. Only apply can decide that: a wait may
have ended since the search.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import Moment, TokenSerial
from sparecode_node.domain.passcodes import Reading, TokencodeMatch
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencode_search import matches, tokencodes_at
from sparecode_node.domain.tokencodes import (
    Algorithm,
    HashName,
    TokencodeParameters,
    moments_to_try,
)
from sparecode_node.domain.tokens import Token
from sparecode_node.queries.seeds import SeedReader
from sparecode_node.services.secrets.pin_folding import tokencodes_in
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands.authentication import Authenticate

log = logging.getLogger(__name__)

TOKENS_MAX = 16
"""More than any policy allows a user: bounds the work for every state."""

FILLER_SEED = bytes(20)
FILLER_SERIAL = TokenSerial("")
FILLER = TokencodeParameters(
    algorithm=Algorithm.TOTP, hash_name=HashName.SHA1, digits=6, period_s=30
)


@dataclass(frozen=True, slots=True)
class _Searched:
    """A token with the tokencodes of its window."""

    token: Token
    near: frozenset[Moment]
    codes: dict[Moment, int]


class TokencodeMatching:
    """Finds the tokencodes that the digits of a passcode are. Safe in any thread."""

    def __init__(self, *, seeds: SeedReader, sealing: Sealing) -> None:
        self._seeds = seeds
        self._sealing = sealing

    def matched(
        self, command: Authenticate, tokencodes: Sequence[str], at_ms: int
    ) -> Authenticate:
        """
        Add the matching tokencodes of each reading of the passcode.

        Raises `UnknownKeyError`.
        """
        if all(each.emergency for each in command.readings):
            return command
        by_length = {len(digits): digits for digits in tokencodes}
        policy = self._seeds.policy()
        # If this node lags, the PINs come from an older state: apply must see that (T2).
        version = min(command.auth_version, self._seeds.auth_version(command.user_id))
        searched = self._searched(
            self._seeds.tokens_of(command.user_id)[:TOKENS_MAX], policy, at_ms
        )

        def of_reading(reading: Reading) -> Reading:
            digits = by_length.get(reading.length, "")
            if reading.emergency or not digits:
                return reading
            tokencode_matches = tuple(
                match
                for each in searched
                if each.token.parameters.digits == reading.length
                for match in self._matches(each, digits)
            )
            return replace(reading, tokencodes=tokencode_matches)

        return replace(
            command,
            auth_version=version,
            readings=tuple(map(of_reading, command.readings)),
        )

    def unsealed(self, token: Token) -> bytes | None:
        """Return the token's seed, if it opens. Raises `UnknownKeyError`."""
        try:
            return self._sealing.unseal_seed(
                token.serial, token.sealed_seed, token.key_id
            )
        except BrokenSealError as error:
            log.error("the seed of token %s does not open: %s", token.serial, error)  # noqa: TRY400 - the cause is enough.
            return None

    def _searched(
        self, tokens: Sequence[Token], policy: Policy, at_ms: int
    ) -> list[_Searched]:
        """Return the tokens with their codes. Missing tokens cost as much as others."""
        size = _window_size(policy)
        searched = []
        for token in tokens:
            seed = self.unsealed(token)
            if seed is None:
                self._fill(size)
                continue
            near = near_moments(token, policy, at_ms)
            moments = (
                wide_moments(token, policy, at_ms) if _may_be_wide(policy) else near
            )
            codes = tokencodes_at(seed, token.parameters, moments)
            self._fill(size - len(moments))
            searched.append(_Searched(token, frozenset(near), codes))
        for _ in range(policy.tokens_per_user_max - len(tokens)):
            # Sealing costs as much as opening.
            self._sealing.seal_seed(
                FILLER_SERIAL, FILLER_SEED, self._sealing.active_key
            )
            self._fill(size)
        return searched

    def _fill(self, size: int) -> None:
        """Search *size* moments for a token that does not exist."""
        tokencodes_at(FILLER_SEED, FILLER, [Moment(each) for each in range(size)])

    def _matches(self, searched: _Searched, digits: str) -> list[TokencodeMatch]:
        """Return the moments of the window at which the token shows *digits*."""
        token = searched.token
        return [
            TokencodeMatch(
                serial=token.serial,
                moment=moment,
                wide=moment not in searched.near,
                folded=folded,
            )
            for (shown,), folded in tokencodes_in((digits,), token, self._sealing)
            for moment in matches(searched.codes, token.parameters, shown)
        ]


def _may_be_wide(policy: Policy) -> bool:
    """Return whether the policy ever asks for a next tokencode."""
    return policy.next_tokencode_from_failures > 0


def _window_size(policy: Policy) -> int:
    """Return the number of moments that each attempt searches for each token."""
    if _may_be_wide(policy):
        return 1 + max(
            2 * policy.resynchronize_window_steps, policy.resynchronize_look_ahead
        )
    return 1 + max(2 * policy.totp_window_steps, policy.hotp_look_ahead)


def near_moments(token: Token, policy: Policy, at_ms: int) -> Sequence[Moment]:
    """Return the moments whose tokencode is accepted on its own."""
    return tuple(
        moments_to_try(
            token.parameters,
            at_ms=at_ms,
            drift=token.drift,
            spent=token.spent,
            window_steps=policy.totp_window_steps,
            look_ahead=policy.hotp_look_ahead,
        )
    )


def wide_moments(token: Token, policy: Policy, at_ms: int) -> Sequence[Moment]:
    """Return the moments that are searched for two consecutive tokencodes."""
    return tuple(
        moments_to_try(
            token.parameters,
            at_ms=at_ms,
            drift=token.drift,
            spent=token.spent,
            window_steps=policy.resynchronize_window_steps,
            look_ahead=policy.resynchronize_look_ahead,
        )
    )
