# SPDX-License-Identifier: Apache-2.0
"""The programs that check passcodes."""

from datetime import timedelta

from sparecode.v1 import agents_pb2, types_pb2
from sparecode_client.client import Caller, new_request_id
from sparecode_client.values import AgentProtects, Commit, Page, RegisteredAgent
from sparecode_client.wire import agent_in, commit_in, enum_out, position_in


class Agents(Caller):
    """The calls of `AgentService`."""

    async def register_agent(
        self,
        name: str,
        certificate_identity: str,
        *,
        protects: AgentProtects = AgentProtects.AUTHENTICATION_MANAGER,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Let the agent of a certificate authenticate users.

        *certificate_identity* is the one URI or DNS subject name of its
        certificate. Emergency codes do not cover what a cloud service *protects*.
        """
        request = agents_pb2.RegisterAgentRequest(
            request_id=request_id or new_request_id(),
            name=name,
            certificate_identity=certificate_identity,
            protects=enum_out(types_pb2.AgentProtects, protects),
        )
        answer = await self._client.unary(
            lambda node: node.agents.RegisterAgent, request, within=within
        )
        return commit_in(answer.commit)

    async def list_agents(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[RegisteredAgent]:
        """Return a page of agents, in the order of their names."""
        request = agents_pb2.ListAgentsRequest(
            page_size=page_size, page_token=page_token, stale_ok=stale_ok
        )
        answer = await self._client.unary(
            lambda node: node.agents.ListAgents, request, within=within
        )
        return Page(
            items=tuple(agent_in(agent) for agent in answer.agents),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )
