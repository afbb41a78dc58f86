# SPDX-License-Identifier: Apache-2.0
"""Use cases: the programs that check passcodes."""

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.users import fold
from sparecode_node.queries import agents
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import AgentView, Page
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.statemachine.commands import RegisterAgent
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
        fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)
        command = RegisterAgent(
            name=name,
            name_key=fold(name),
            identity=fields.identity(identity),
            protects=protects,
        )
        said = {"name": name, "identity": identity, "protects": protects.value}
        return await self._proposer.change(context, command, said)

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[AgentView]]:
        """Return a page of agents in the order of their names."""
        size = fields.page_size(page_size)

        async def query(transaction: ReadTransaction, _: int) -> Page[AgentView]:
            return await agents.page(transaction, size=size, page_token=page_token)

        return await self._reader.read(context, query, stale_ok=stale_ok)
