# SPDX-License-Identifier: Apache-2.0
"""`AgentService`: the programs that check passcodes."""

from sparecode.v1 import agents_pb2 as pb
from sparecode.v1 import agents_pb2_grpc as pb_grpc
from sparecode.v1 import types_pb2
from sparecode_node.domain.agents import Protects
from sparecode_node.queries.views import AgentView
from sparecode_node.rpc import calls, convert
from sparecode_node.rpc.identity import Context
from sparecode_node.services.agents import Agents


class AgentServicer(pb_grpc.AgentServiceServicer):
    """Translates between the wire and `Agents`."""

    def __init__(self, node_id: str, agents: Agents) -> None:
        self._node_id = node_id
        self._agents = agents

    async def RegisterAgent(
        self, request: pb.RegisterAgentRequest, context: Context
    ) -> pb.RegisterAgentResponse:
        """Let an agent authenticate users."""
        protects = Protects.AUTHENTICATION_MANAGER
        if request.protects != types_pb2.AGENT_PROTECTS_UNSPECIFIED:
            protects = convert.enum_value(
                "protects", request.protects, convert.PROTECTS
            )
        applied = await self._agents.register(
            calls.session_call(
                context, "AgentService/RegisterAgent", request.request_id
            ),
            name=request.name,
            identity=request.certificate_identity,
            protects=protects,
        )
        return pb.RegisterAgentResponse(commit=convert.commit(self._node_id, applied))

    async def ListAgents(
        self, request: pb.ListAgentsRequest, context: Context
    ) -> pb.ListAgentsResponse:
        """Return a page of agents."""
        read = await self._agents.list(
            calls.session_call(context, "AgentService/ListAgents"),
            page_size=request.page_size,
            page_token=request.page_token,
            stale_ok=request.stale_ok,
        )
        return pb.ListAgentsResponse(
            agents=[_agent(agent) for agent in read.value.items],
            next_page_token=read.value.next_page_token,
            position=convert.position(read),
        )


def _agent(agent: AgentView) -> pb.Agent:
    return pb.Agent(
        name=agent.name,
        certificate_identity=agent.identity,
        protects=convert.enum_number(agent.protects, convert.PROTECTS),
        enabled=agent.enabled,
    )
