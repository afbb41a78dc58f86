# SPDX-License-Identifier: Apache-2.0
"""
What the primary adds to a proposal: its time, and which tokencodes match (T1).

The clear digits end here. What enters the log is a serial and the moment that
the digits were the tokencode of.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from sparecode_node.domain.passcodes import Reading, TokencodeMatch
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencodes import (
    RESYNCHRONIZE_COUNTERS,
    RESYNCHRONIZE_STEPS,
    consecutive_moments,
    matching_moments,
    moments_to_try,
)
from sparecode_node.domain.tokens import Token
from sparecode_node.queries.seeds import SeedReader
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.ambient import Clock
from sparecode_node.services.keyring import UnknownKeyError
from sparecode_node.services.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands import (
    Authenticate,
    Call,
    Command,
)
from sparecode_node.statemachine.token_commands import (
    ResynchronizeToken,
)

log = logging.getLogger(__name__)

TOKENS_MAX = 16
"""More than a policy gives to a user; the work is bounded whatever the state."""


class PrimaryStamper:
    """
    Stamps proposals on the primary, on the engine's thread.

    Its reads are synchronous and its own: the loop is not involved, and a user
    has few tokens.
    """

    def __init__(self, *, seeds: SeedReader, sealing: Sealing, clock: Clock) -> None:
        self._seeds = seeds
        self._sealing = sealing
        self._clock = clock

    def stamp(self, proposals: Sequence[Proposal]) -> tuple[Call, ...]:
        """Return the calls with one time for all, and with matched tokencodes."""
        at_ms = self._clock.now_ms()
        return tuple(self._stamped(proposal, at_ms) for proposal in proposals)

    def _stamped(self, proposal: Proposal, at_ms: int) -> Call:
        call = replace(proposal.call, at_ms=at_ms)
        try:
            command = self._with_matches(call.command, proposal.tokencodes, at_ms)
        except Exception:
            # Whatever a caller sends must not stop the batch; without a match
            # the tokencodes are refused. The digits are not in the trace.
            log.exception("tokencodes could not be matched")
            return call
        return replace(call, command=command)

    def _with_matches(
        self, command: Command, tokencodes: Sequence[str], at_ms: int
    ) -> Command:
        """Return the command with what the clear digits are the tokencodes of."""
        match command, tokencodes:
            case Authenticate(), [_, *_]:
                return self._matched(command, tokencodes, at_ms)
            case ResynchronizeToken(), [first, second]:
                return self._resynchronized(command, (first, second), at_ms)
            case _:
                return command

    def _resynchronized(
        self, command: ResynchronizeToken, digits: tuple[str, str], at_ms: int
    ) -> ResynchronizeToken:
        """Look in a wide window for two tokencodes that follow each other (K1)."""
        token = self._seeds.token(command.serial)
        seed = None if token is None else self._unsealed(token)
        if token is None or seed is None:
            return command
        moments = moments_to_try(
            token.parameters,
            at_ms=at_ms,
            drift=token.drift,
            spent=token.spent,
            window_steps=RESYNCHRONIZE_STEPS,
            look_ahead=RESYNCHRONIZE_COUNTERS,
        )
        found = consecutive_moments(seed, token.parameters, digits, moments)
        return replace(command, moments=found)

    def _matched(
        self, command: Authenticate, tokencodes: Sequence[str], at_ms: int
    ) -> Authenticate:
        """Fill in what each reading of the passcode is the tokencode of."""
        readings = [each for each in command.readings if not each.emergency]
        by_length = {len(digits): digits for digits in tokencodes}
        if not readings or not command.user_id:
            return command
        policy = self._seeds.policy()
        seeds = [
            (token, seed)
            for token in self._seeds.tokens_of(command.user_id)[:TOKENS_MAX]
            if (seed := self._unsealed(token)) is not None
        ]

        def matched(reading: Reading) -> Reading:
            digits = by_length.get(reading.length, "")
            if reading.emergency or not digits:
                return reading
            matches = [
                match
                for token, seed in seeds
                if token.parameters.digits == reading.length
                for match in _matches(token, seed, digits, policy, at_ms)
            ]
            return replace(reading, tokencodes=tuple(matches))

        return replace(command, readings=tuple(map(matched, command.readings)))

    def _unsealed(self, token: Token) -> bytes | None:
        """Return the token's seed, if this node's ring opens it."""
        try:
            return self._sealing.unseal_seed(
                token.serial, token.sealed_seed, token.key_id
            )
        except (BrokenSealError, UnknownKeyError) as error:
            log.error("no seed, no match: token %s: %s", token.serial, error)  # noqa: TRY400 - the cause says all.
            return None


def _matches(
    token: Token, seed: bytes, digits: str, policy: Policy, at_ms: int
) -> list[TokencodeMatch]:
    """Return the moments around now at which *digits* is the token's tokencode."""
    moments = moments_to_try(
        token.parameters,
        at_ms=at_ms,
        drift=token.drift,
        spent=token.spent,
        window_steps=policy.totp_window_steps,
        look_ahead=policy.hotp_look_ahead,
    )
    return [
        TokencodeMatch(serial=token.serial, moment=moment)
        for moment in matching_moments(seed, token.parameters, digits, moments)
    ]
