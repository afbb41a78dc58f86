# SPDX-License-Identifier: Apache-2.0
"""
What the primary adds to a proposal: its clocks' times and the matching tokencodes (T1).

The clear digits go no further than here. The log gets serials and the moments whose
tokencodes the digits are.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from sparecode_node.domain.administrators import (
    SECOND_FACTOR,
    SECOND_FACTOR_WINDOW,
)
from sparecode_node.domain.challenges import CHALLENGE_MS
from sparecode_node.domain.ids import AdministratorName, KeyId, Moment
from sparecode_node.domain.tokencodes import (
    consecutive_moments,
    matching_moments,
    moments_after,
    step_at,
)
from sparecode_node.queries.seeds import SeedReader
from sparecode_node.replication.errors import KeyMissingError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.ambient import Clock
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.pin_folding import tokencodes_in
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.tokencode_search import (
    FILLER_SEED,
    TokencodeMatching,
    wide_moments,
)
from sparecode_node.statemachine.commands import Call, Command
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.second_factors import SetSecondFactor
from sparecode_node.statemachine.commands.sessions import OpenSession, Reauthenticate
from sparecode_node.statemachine.commands.tokens import ResynchronizeToken

log = logging.getLogger(__name__)

MATCHED_MS = 2_000
"""Older matches are searched for again when the call is stamped (T5)."""


class PrimaryStamper:
    """
    Stamps proposals on the primary, in the engine's thread.

    Another thread has matched the tokencodes before (`match`). If it has not, or if the
    clock has moved since, they are matched here. The stamper reads the state
    synchronously, on its own connection.
    """

    def __init__(
        self,
        *,
        seeds: SeedReader,
        sealing: Sealing,
        clock: Clock,
        monotonic_ms: Callable[[], int] | None = None,
    ) -> None:
        self._seeds = seeds
        self._sealing = sealing
        self._clock = clock
        self._machine_ms = monotonic_ms or (lambda: int(clock.monotonic_s() * 1000))
        self._scale_ms: int | None = None
        """From the machine's monotonic time to the state's; None: not known yet."""
        self._matching = TokencodeMatching(seeds=seeds, sealing=sealing)

    def match(self, proposal: Proposal) -> Proposal | KeyMissingError:
        """Return the proposal with matched tokencodes. Safe in any thread."""
        at_ms = self._clock.now_ms()
        command = self._judgeable(proposal.call.command, proposal.tokencodes, at_ms)
        if isinstance(command, KeyMissingError):
            return command
        call = replace(proposal.call, command=command)
        return replace(proposal, call=call, matched_at_ms=at_ms)

    def stamp(
        self, proposals: Sequence[Proposal]
    ) -> tuple[Call | KeyMissingError, ...]:
        """
        Return the calls with one time for all, and with matched tokencodes.

        Without the key of a seed or PIN, right and wrong passcodes look the same. Then
        nothing is judged, and no user is charged for the missing key (T3).
        """
        at_ms, monotonic_ms = self._clock.now_ms(), self._monotonic_ms()
        return tuple(
            self._stamped(proposal, at_ms, monotonic_ms) for proposal in proposals
        )

    def follow(self, reached_ms: int) -> None:
        """
        Take over the monotonic time that the state has just reached (Q3).

        Called on replicas, too. So a new primary loses no time that has passed since
        the last call of the former one. An entry that arrives late moves nothing.
        """
        scale_ms = reached_ms - self._machine_ms()
        if self._scale_ms is None or scale_ms > self._scale_ms:
            self._scale_ms = scale_ms

    def _monotonic_ms(self) -> int:
        """
        Return the monotonic time on the state's scale (Q3); 0: its level has none.

        It begins with what the state has reached, and goes on like the machine's. So it
        is never ahead of the real time, and behind it by the time that no node was up.
        """
        if self._scale_ms is None:
            known_ms = self._seeds.monotonic_ms()
            if known_ms is None:
                return 0
            self._scale_ms = known_ms + 1 - self._machine_ms()
        return self._scale_ms + self._machine_ms()

    def _stamped(
        self, proposal: Proposal, at_ms: int, monotonic_ms: int
    ) -> Call | KeyMissingError:
        call, matched_at_ms = proposal.call, proposal.matched_at_ms
        if matched_at_ms is not None and abs(at_ms - matched_at_ms) <= MATCHED_MS:
            return call.stamped(at_ms, monotonic_ms=monotonic_ms)
        command = self._judgeable(call.command, proposal.tokencodes, at_ms)
        if isinstance(command, KeyMissingError):
            return command
        return call.stamped(at_ms, command, monotonic_ms=monotonic_ms)

    def _judgeable(
        self, command: Command, tokencodes: Sequence[str], at_ms: int
    ) -> Command | KeyMissingError:
        """Return the command with the matches of the clear digits."""
        try:
            return self._with_matches(command, tokencodes, at_ms)
        except UnknownKeyError as error:
            log.error(  # noqa: TRY400 - the cause is enough.
                "a tokencode cannot be checked on this node yet: %s", error
            )
            return KeyMissingError(str(error))
        except Exception:
            # No request may stop the batch. Without a match the tokencodes are refused.
            # The digits are not in the trace.
            log.exception("tokencodes could not be matched")
            return command

    def _with_matches(
        self, command: Command, tokencodes: Sequence[str], at_ms: int
    ) -> Command:
        """Return the command with the matches of the clear digits."""
        match command, tokencodes:
            case Authenticate(), [_, *_]:
                return self._matching.matched(command, tokencodes, at_ms)
            case ResynchronizeToken(), [first, second]:
                return self._resynchronized(command, (first, second), at_ms)
            case ContinueAuthentication(), [digits]:
                return self._continued(command, digits)
            case OpenSession() | Reauthenticate(), [digits]:
                administrator = self._seeds.administrator(command.administrator)
                factor = administrator.second_factor if administrator else None
                if factor is None:
                    self._search_in_vain(command.administrator, digits, at_ms)
                    return command
                moments = self._second_factor(
                    command.administrator,
                    factor.sealed_seed,
                    factor.key_id,
                    digits,
                    at_ms,
                )
                return replace(command, moments=moments)
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

    def _search_in_vain(self, name: AdministratorName, digits: str, at_ms: int) -> None:
        """Do the work of a second factor for a name that has none (A6)."""
        key_id = self._sealing.active_key
        sealed = self._sealing.seal_second_factor(name, FILLER_SEED, key_id)
        self._second_factor(name, sealed, key_id, digits, at_ms)

    def _continued(
        self, command: ContinueAuthentication, digits: str
    ) -> ContinueAuthentication:
        """Find the moments after the challenge's whose tokencode the digits are (K1)."""
        challenge = command.challenge
        token = self._seeds.token(challenge.serial) if challenge else None
        seed = None if token is None else self._matching.unsealed(token)
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
        seed = None if token is None else self._matching.unsealed(token)
        if token is None or seed is None:
            return command
        moments = tuple(wide_moments(token, self._seeds.policy(), at_ms))
        # A PINpad token shows them with its PIN, or without until the PIN is typed in.
        matches = [
            moment
            for (first, second), _ in tokencodes_in(digits, token, self._sealing)
            for moment in consecutive_moments(
                seed, token.parameters, (first, second), moments
            )
        ]
        return replace(command, moments=tuple(matches))
