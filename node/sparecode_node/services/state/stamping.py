# SPDX-License-Identifier: Apache-2.0
"""
What the primary adds to a proposal: its time and the matching tokencodes (T1).

The clear digits go no further than here. The log gets serials and the moments whose
tokencodes the digits are.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

from sparecode_node.domain.administrators import (
    SECOND_FACTOR,
    SECOND_FACTOR_WINDOW,
)
from sparecode_node.domain.challenges import CHALLENGE_MS
from sparecode_node.domain.ids import AdministratorName, KeyId, Moment
from sparecode_node.domain.lockout import Factor
from sparecode_node.domain.passcodes import Reading, TokencodeMatch
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencodes import (
    consecutive_moments,
    matching_moments,
    moments_after,
    moments_to_try,
    step_at,
)
from sparecode_node.domain.tokens import Token
from sparecode_node.queries.seeds import SeedReader
from sparecode_node.replication.errors import KeyMissingError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.ambient import Clock
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.pin_folding import tokencodes_in
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands import Call, Command
from sparecode_node.statemachine.commands.administrators import SetSecondFactor
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.sessions import OpenSession
from sparecode_node.statemachine.commands.tokens import ResynchronizeToken

log = logging.getLogger(__name__)

TOKENS_MAX = 16
"""More than any policy allows a user: bounds the work for every state."""


class PrimaryStamper:
    """
    Stamps proposals on the primary, in the engine's thread.

    It reads the state synchronously, on its own connection: the event loop is not
    involved, and a user has few tokens.
    """

    def __init__(self, *, seeds: SeedReader, sealing: Sealing, clock: Clock) -> None:
        self._seeds = seeds
        self._sealing = sealing
        self._clock = clock

    def stamp(
        self, proposals: Sequence[Proposal]
    ) -> tuple[Call | KeyMissingError, ...]:
        """
        Return the calls with one time for all, and with matched tokencodes.

        Without the key of a seed or PIN, right and wrong passcodes look the same. Then
        nothing is judged, and no user is charged for the missing key (T3).
        """
        at_ms = self._clock.now_ms()
        return tuple(self._stamped(proposal, at_ms) for proposal in proposals)

    def _stamped(self, proposal: Proposal, at_ms: int) -> Call | KeyMissingError:
        call = proposal.call
        try:
            command = self._with_matches(call.command, proposal.tokencodes, at_ms)
        except UnknownKeyError as error:
            log.error(  # noqa: TRY400 - the cause is enough.
                "a tokencode cannot be checked on this node yet: %s", error
            )
            return KeyMissingError(str(error))
        except Exception:
            # No request may stop the batch. Without a match the tokencodes are refused.
            # The digits are not in the trace.
            log.exception("tokencodes could not be matched")
            return call.stamped(at_ms)
        return call.stamped(at_ms, command)

    def _with_matches(
        self, command: Command, tokencodes: Sequence[str], at_ms: int
    ) -> Command:
        """Return the command with the matches of the clear digits."""
        match command, tokencodes:
            case Authenticate(), [_, *_]:
                return self._matched(command, tokencodes, at_ms)
            case ResynchronizeToken(), [first, second]:
                return self._resynchronized(command, (first, second), at_ms)
            case ContinueAuthentication(), [digits]:
                return self._continued(command, digits)
            case OpenSession(), [digits]:
                administrator = self._seeds.administrator(command.administrator)
                factor = administrator.second_factor if administrator else None
                return replace(
                    command,
                    moments=()
                    if factor is None
                    else self._second_factor(
                        command.administrator,
                        factor.sealed_seed,
                        factor.key_id,
                        digits,
                        at_ms,
                    ),
                )
            case SetSecondFactor(), [digits]:
                return replace(
                    command,
                    moments=self._second_factor(
                        command.name, command.sealed_seed, command.key_id, digits, at_ms
                    ),
                )
            case _:
                return command

    def _second_factor(
        self,
        name: AdministratorName,
        sealed: bytes,
        key_id: KeyId,
        digits: str,
        at_ms: int,
    ) -> tuple[Moment, ...]:
        """Return the time steps around now whose code the digits are (RFC 6238)."""
        seed = self._sealing.unseal_second_factor(name, sealed, key_id)
        now = step_at(at_ms, SECOND_FACTOR)
        near = range(now - SECOND_FACTOR_WINDOW, now + SECOND_FACTOR_WINDOW + 1)
        return matching_moments(seed, SECOND_FACTOR, digits, map(Moment, near))

    def _continued(
        self, command: ContinueAuthentication, digits: str
    ) -> ContinueAuthentication:
        """Find the moments after the challenge's whose tokencode the digits are (K1)."""
        challenge = command.challenge
        token = self._seeds.token(challenge.serial) if challenge else None
        seed = None if token is None else self._unsealed(token)
        if challenge is None or token is None or seed is None:
            return command
        following = moments_after(
            token.parameters, challenge.moment, within_ms=CHALLENGE_MS
        )
        # With a PIN, the token shows the sum in the second step too.
        (shown,), _ = tokencodes_in((digits,), token, self._sealing)[0]
        matches = matching_moments(seed, token.parameters, shown, following)
        return replace(command, moments=matches)

    def _resynchronized(
        self, command: ResynchronizeToken, digits: tuple[str, str], at_ms: int
    ) -> ResynchronizeToken:
        """Find two consecutive tokencodes in a wide window (K1)."""
        token = self._seeds.token(command.serial)
        seed = None if token is None else self._unsealed(token)
        if token is None or seed is None:
            return command
        moments = tuple(_wide(token, self._seeds.policy(), at_ms))
        # A PINpad token shows them with its PIN, or without until the PIN is typed in.
        matches = [
            moment
            for (first, second), _ in tokencodes_in(digits, token, self._sealing)
            for moment in consecutive_moments(
                seed, token.parameters, (first, second), moments
            )
        ]
        return replace(command, moments=tuple(matches))

    def _matched(
        self, command: Authenticate, tokencodes: Sequence[str], at_ms: int
    ) -> Authenticate:
        """Add the matching tokencodes of each reading of the passcode."""
        readings = [each for each in command.readings if not each.emergency]
        by_length = {len(digits): digits for digits in tokencodes}
        if not readings or not command.user_id:
            return command
        policy = self._seeds.policy()
        lockout = self._seeds.lockout(command.user_id, Factor.TOKEN)
        # If the next tokencode is required too, a token may be far off (K1).
        wide = lockout.asks_next_tokencode(policy) and not lockout.blocks(at_ms)
        seeds = [
            (token, seed)
            for token in self._seeds.tokens_of(command.user_id)[:TOKENS_MAX]
            if (seed := self._unsealed(token)) is not None
        ]
        # If this node lags, the PINs come from an older state: apply must see that (T2).
        version = min(command.auth_version, self._seeds.auth_version(command.user_id))

        def matched(reading: Reading) -> Reading:
            digits = by_length.get(reading.length, "")
            if reading.emergency or not digits:
                return reading
            matches = [
                match
                for token, seed in seeds
                if token.parameters.digits == reading.length
                for match in self._matches(
                    token, seed, digits, policy, at_ms, wide=wide
                )
            ]
            return replace(reading, tokencodes=tuple(matches))

        return replace(
            command,
            auth_version=version,
            readings=tuple(map(matched, command.readings)),
        )

    def _matches(
        self,
        token: Token,
        seed: bytes,
        digits: str,
        policy: Policy,
        at_ms: int,
        *,
        wide: bool,
    ) -> list[TokencodeMatch]:
        """Return the moments around now at which the token shows *digits*."""
        near = set(_near(token, policy, at_ms))
        moments = sorted(near.union(_wide(token, policy, at_ms)) if wide else near)
        return [
            TokencodeMatch(
                serial=token.serial,
                moment=moment,
                wide=moment not in near,
                folded=folded,
            )
            for (shown,), folded in tokencodes_in((digits,), token, self._sealing)
            for moment in matching_moments(seed, token.parameters, shown, moments)
        ]

    def _unsealed(self, token: Token) -> bytes | None:
        """Return the token's seed, if it opens. Raises `UnknownKeyError`."""
        try:
            return self._sealing.unseal_seed(
                token.serial, token.sealed_seed, token.key_id
            )
        except BrokenSealError as error:
            log.error("the seed of token %s does not open: %s", token.serial, error)  # noqa: TRY400 - the cause is enough.
            return None


def _near(token: Token, policy: Policy, at_ms: int) -> Iterable[Moment]:
    """Return the moments whose tokencode is accepted on its own."""
    return moments_to_try(
        token.parameters,
        at_ms=at_ms,
        drift=token.drift,
        spent=token.spent,
        window_steps=policy.totp_window_steps,
        look_ahead=policy.hotp_look_ahead,
    )


def _wide(token: Token, policy: Policy, at_ms: int) -> Iterable[Moment]:
    """Return the moments that are searched for two consecutive tokencodes."""
    return moments_to_try(
        token.parameters,
        at_ms=at_ms,
        drift=token.drift,
        spent=token.spent,
        window_steps=policy.resynchronize_window_steps,
        look_ahead=policy.resynchronize_look_ahead,
    )
