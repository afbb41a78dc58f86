# SPDX-License-Identifier: Apache-2.0
"""
The questions of a next step, one at a time, for doors whose users type one answer.

A next tokencode takes one answer. A new PIN takes three: the PIN, the PIN again, and a
tokencode. Everything that the next answer needs is sealed in its question, so any node
can continue (K3).
"""

from dataclasses import dataclass, field, replace

from sparecode_node.domain.challenges import NextStep
from sparecode_node.domain.ids import AgentIdentity, NameKey
from sparecode_node.domain.passcodes import normalized
from sparecode_node.services.authentication.next_step import Continuation
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.secrets.radius_seals import (
    NEW_PIN_MAX,
    RadiusSeals,
    RadiusState,
)

UNKNOWN_CHALLENGE = b"-"
"""No challenge of any cluster: its answer is refused in a commit, and charges no one."""

ENTER_NEXT = "Wait for the next tokencode, then enter it:"
ENTER_NEW_PIN = "Enter a new PIN:"
REPEAT_PIN = "Enter the new PIN again:"
PIN_THEN_NEXT = "Wait for the next tokencode, then enter the tokencode alone:"
PINS_DIFFER = "The PINs differ. Enter a new PIN:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question to the user, and what their answer has to bring along."""

    message: str
    state: bytes = field(repr=False)
    """Sealed for the agent and the user's name."""
    echo: bool
    """Whether the answer may be shown while it is typed."""


class Prompts:
    """Asks for what a challenge needs. Nothing is decided here."""

    def __init__(self, *, continuation: Continuation, seals: RadiusSeals) -> None:
        self._continuation = continuation
        self._seals = seals

    def begun(self, sealed_challenge: bytes, name_key: NameKey) -> RadiusState:
        """Return the state of a dialog that a decision's challenge begins."""
        return RadiusState(
            challenge=self._seals.unseal_challenge(sealed_challenge), name_key=name_key
        )

    def opened(
        self, sealed: bytes, agent: AgentIdentity, name_key: NameKey
    ) -> RadiusState:
        """Return the state that a prompt of this agent had. Raises `BrokenSealError`."""
        return self._seals.unseal_state(sealed, agent, name_key)

    def first(self, state: RadiusState) -> Prompt:
        """Return the question with which a dialog begins."""
        if state.challenge.step is NextStep.NEW_PIN:
            return self._prompt(ENTER_NEW_PIN, state, echo=False)
        return self._prompt(ENTER_NEXT, state, echo=True)

    async def after_pin(self, state: RadiusState, entered: str) -> Prompt:
        """Return the question after a new PIN, or its repetition."""
        pin = normalized(entered)
        if state.new_pin:
            if pin != state.new_pin:
                return self._prompt(PINS_DIFFER, replace(state, new_pin=""), echo=False)
            return self._prompt(PIN_THEN_NEXT, replace(state, repeated=True), echo=True)
        problem = await self._continuation.new_pin_problem(state.challenge, pin)
        if not pin or len(pin.encode()) > NEW_PIN_MAX:
            problem = problem or f"a PIN has 1 to {NEW_PIN_MAX} characters"
        if problem:
            return self._another_pin(state, problem)
        return self._prompt(REPEAT_PIN, replace(state, new_pin=pin), echo=False)

    def again(
        self, error: InvalidFieldError, state: RadiusState, sealed: bytes
    ) -> Prompt:
        """
        Return the question after an answer that was not judged (K3).

        *sealed* is the state as it came. Raises *error* if it is about another field.
        """
        if error.field == "new_pin":
            return self._another_pin(state, error.message)
        if error.field != "next_tokencode":
            raise error
        message = PIN_THEN_NEXT if state.new_pin else ENTER_NEXT
        return Prompt(message=message, state=sealed, echo=True)

    def challenge_in(self, state: RadiusState) -> bytes:
        """
        Return the sealed challenge of a state: the same for each copy of a request (D3).

        Another key may be active by the next copy, so the key of the state seals it.
        """
        return self._seals.seal_challenge(state.challenge, state.key_id)

    def _another_pin(self, state: RadiusState, problem: str) -> Prompt:
        return self._prompt(
            f"{problem[:1].upper()}{problem[1:]}. {ENTER_NEW_PIN}",
            replace(state, new_pin="", repeated=False),
            echo=False,
        )

    def _prompt(self, message: str, state: RadiusState, *, echo: bool) -> Prompt:
        return Prompt(message=message, state=self._seals.seal_state(state), echo=echo)


def wants_pin(state: RadiusState) -> bool:
    """Return whether the next answer is a new PIN, or its repetition."""
    return state.challenge.step is NextStep.NEW_PIN and not state.repeated
