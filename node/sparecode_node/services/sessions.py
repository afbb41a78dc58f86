# SPDX-License-Identifier: Apache-2.0
"""Use cases: administrators sign in and out (P2)."""

from dataclasses import dataclass
from typing import NamedTuple

from sparecode_node.queries.state import LocalState
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import CallContext
from sparecode_node.services.kdf import Kdf
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.sealing import Sealing
from sparecode_node.statemachine.results import Applied, SessionOpened


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionView:
    """The calling session."""

    administrator: str
    role: str
    ends_at_ms: int


class SignedIn(NamedTuple):
    """A new session, with the bearer token that is shown once."""

    bearer: str
    opened: SessionOpened

    def __repr__(self) -> str:
        """Say whose session it is, without the bearer."""
        return f"SignedIn(bearer=***, opened={self.opened!r})"


class Sessions:
    """Opens and ends sessions. One is valid on every node, and dead on every node."""

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        clock: Clock,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._clock = clock

    async def login(
        self, context: CallContext, *, administrator: str, password: str
    ) -> SignedIn:
        """
        Open a session.

        A retry with the same request id, on whichever node, gets the same one.
        Raises `Refused` (`SIGN_IN_REFUSED`), `InvalidFieldError`, `ProposeError`.
        """
        raise NotImplementedError

    async def logout(self, context: CallContext) -> Applied:
        """End the calling session. Raises `NotSignedInError`, `ProposeError`."""
        raise NotImplementedError

    async def logout_everywhere(self, context: CallContext) -> Applied:
        """End every session of the calling administrator. Raises as `logout`."""
        raise NotImplementedError

    async def who_am_i(self, context: CallContext) -> SessionView:
        """Say whose session this is. Raises `NotSignedInError`, `ProposeError`."""
        raise NotImplementedError
