# SPDX-License-Identifier: Apache-2.0
"""Use cases: the programs that check passcodes."""

from sparecode_node.domain.agents import Protects
from sparecode_node.queries.views import AgentView, Page
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.statemachine.results import Applied


class Agents:
    """
    Manages authentication agents.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`AGENT_EXISTS`) and `ProposeError`.
    """

    def __init__(self, *, proposer: Proposer, reader: Reader) -> None:
        self._proposer = proposer
        self._reader = reader

    async def register(
        self, context: CallContext, *, name: str, identity: str, protects: Protects
    ) -> Applied:
        """Let the agent of a certificate identity authenticate users."""
        raise NotImplementedError

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[AgentView]]:
        """Return a page of agents in the order of their names."""
        raise NotImplementedError
