# SPDX-License-Identifier: Apache-2.0
"""`AgentService`: agents and denied certificates."""

from sparecode.v1 import agents_pb2 as pb
from sparecode.v1 import agents_pb2_grpc as pb_grpc
from sparecode.v1 import types_pb2
from sparecode_node.domain.agents import Protects
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.queries.views import (
    AgentKeysView,
    AgentView,
    DeniedCertificateView,
    RadiusActivityView,
)
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.people.agent_keys import AgentKeys
from sparecode_node.services.people.agents import Agents
from sparecode_node.services.people.radius_clients import RadiusClients


class AgentServicer(pb_grpc.AgentServiceServicer):
    """Translates between the wire, `Agents`, `AgentKeys` and `RadiusClients`."""

    def __init__(
        self,
        node_id: str,
        agents: Agents,
        agent_keys: AgentKeys,
        radius_clients: RadiusClients,
    ) -> None:
        self._node_id = node_id
        self._agents = agents
        self._agent_keys = agent_keys
        self._radius_clients = radius_clients

    async def RegisterAgent(
        self, request: pb.RegisterAgentRequest, context: Context
    ) -> pb.RegisterAgentResponse:
        """Register an agent."""
        protects = Protects.AUTHENTICATION_MANAGER
        if request.protects != types_pb2.AGENT_PROTECTS_UNSPECIFIED:
            protects = conversion.enum_value(
                "protects", request.protects, conversion.PROTECTS
            )
        applied = await self._agents.register(
            calls.session_call(
                context, "AgentService/RegisterAgent", request.request_id
            ),
            name=request.name,
            identity=request.certificate_identity,
            protects=protects,
            restricted=request.restricted,
            filter_id=request.filter_id,
            class_attribute=request.class_attribute,
            session_timeout_s=request.session_timeout_seconds,
        )
        return pb.RegisterAgentResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def GetAgent(
        self, request: pb.GetAgentRequest, context: Context
    ) -> pb.GetAgentResponse:
        """Return one agent."""
        read = await self._agents.get(
            calls.session_call(context, "AgentService/GetAgent"),
            request.name,
            stale_ok=request.stale_ok,
        )
        return pb.GetAgentResponse(
            agent=_agent(read.value), position=conversion.position(read)
        )

    async def UpdateAgent(
        self, request: pb.UpdateAgentRequest, context: Context
    ) -> pb.UpdateAgentResponse:
        """Change an agent."""
        protects = None
        if request.protects != types_pb2.AGENT_PROTECTS_UNSPECIFIED:
            protects = conversion.enum_value(
                "protects", request.protects, conversion.PROTECTS
            )
        applied = await self._agents.update(
            calls.session_call(
                context, "AgentService/UpdateAgent", request.request_id, request.etag
            ),
            name=request.name,
            protects=protects,
            enabled=request.enabled if request.HasField("enabled") else None,
            restricted=request.restricted if request.HasField("restricted") else None,
            add_usernames=tuple(request.add_usernames),
            remove_usernames=tuple(request.remove_usernames),
            add_groups=tuple(request.add_groups),
            remove_groups=tuple(request.remove_groups),
            end_keys=request.end_keys,
            filter_id=request.filter_id if request.HasField("filter_id") else None,
            class_attribute=request.class_attribute
            if request.HasField("class_attribute")
            else None,
            session_timeout_s=request.session_timeout_seconds
            if request.HasField("session_timeout_seconds")
            else None,
        )
        return pb.UpdateAgentResponse(commit=conversion.commit(self._node_id, applied))

    async def RemoveAgent(
        self, request: pb.RemoveAgentRequest, context: Context
    ) -> pb.RemoveAgentResponse:
        """Remove an agent."""
        applied = await self._agents.remove(
            calls.session_call(context, "AgentService/RemoveAgent", request.request_id),
            name=request.name,
        )
        return pb.RemoveAgentResponse(commit=conversion.commit(self._node_id, applied))

    async def RegisterRadiusClient(
        self, request: pb.RegisterRadiusClientRequest, context: Context
    ) -> pb.RegisterRadiusClientResponse:
        """Register a RADIUS client."""
        protects = Protects.AUTHENTICATION_MANAGER
        if request.protects != types_pb2.AGENT_PROTECTS_UNSPECIFIED:
            protects = conversion.enum_value(
                "protects", request.protects, conversion.PROTECTS
            )
        new = await self._radius_clients.register(
            calls.session_call(
                context, "AgentService/RegisterRadiusClient", request.request_id
            ),
            name=request.name,
            networks=tuple(request.networks),
            protects=protects,
            restricted=request.restricted,
            allow_unsigned=request.allow_unsigned,
            allow_unsigned_proxied=request.allow_unsigned_proxied,
            unsigned_until_signed=request.unsigned_until_signed,
            repeats_with_new_authenticator=request.repeats_with_new_authenticator,
            prompts_for_passcode=request.prompts_for_passcode,
            filter_id=request.filter_id,
            class_attribute=request.class_attribute,
            session_timeout_s=request.session_timeout_seconds,
        )
        return pb.RegisterRadiusClientResponse(
            commit=conversion.commit(self._node_id, new), secret=new.secret
        )

    async def UpdateRadiusClient(
        self, request: pb.UpdateRadiusClientRequest, context: Context
    ) -> pb.UpdateRadiusClientResponse:
        """Change a RADIUS client."""

        def flag(name: str) -> bool | None:
            return getattr(request, name) if request.HasField(name) else None  # type: ignore[arg-type]

        applied = await self._radius_clients.update(
            calls.session_call(
                context,
                "AgentService/UpdateRadiusClient",
                request.request_id,
                request.etag,
            ),
            name=request.name,
            networks=tuple(request.networks),
            allow_unsigned=flag("allow_unsigned"),
            allow_unsigned_proxied=flag("allow_unsigned_proxied"),
            unsigned_until_signed=flag("unsigned_until_signed"),
            repeats_with_new_authenticator=flag("repeats_with_new_authenticator"),
            prompts_for_passcode=flag("prompts_for_passcode"),
        )
        return pb.UpdateRadiusClientResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def RotateRadiusSecret(
        self, request: pb.RotateRadiusSecretRequest, context: Context
    ) -> pb.RotateRadiusSecretResponse:
        """Give a RADIUS client a new secret."""
        new = await self._radius_clients.rotate_secret(
            calls.session_call(
                context, "AgentService/RotateRadiusSecret", request.request_id
            ),
            name=request.name,
            overlap_ms=conversion.duration_milliseconds("overlap", request.overlap),
        )
        return pb.RotateRadiusSecretResponse(
            commit=conversion.commit(self._node_id, new), secret=new.secret
        )

    async def CreateAgentKey(
        self, request: pb.CreateAgentKeyRequest, context: Context
    ) -> pb.CreateAgentKeyResponse:
        """Give an agent a new bearer key."""
        new = await self._agent_keys.create(
            calls.session_call(
                context, "AgentService/CreateAgentKey", request.request_id
            ),
            name=request.name,
            overlap_ms=conversion.duration_milliseconds("overlap", request.overlap),
            networks=tuple(request.networks),
        )
        return pb.CreateAgentKeyResponse(
            commit=conversion.commit(self._node_id, new), key=new.key
        )

    async def DenyCertificate(
        self, request: pb.DenyCertificateRequest, context: Context
    ) -> pb.DenyCertificateResponse:
        """Deny a certificate."""
        applied = await self._agents.deny(
            calls.session_call(
                context, "AgentService/DenyCertificate", request.request_id
            ),
            fingerprint=request.fingerprint,
            serial_number=request.serial_number,
            note=request.note,
        )
        return pb.DenyCertificateResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def AllowCertificate(
        self, request: pb.AllowCertificateRequest, context: Context
    ) -> pb.AllowCertificateResponse:
        """Remove a certificate from the deny list."""
        applied = await self._agents.allow(
            calls.session_call(
                context, "AgentService/AllowCertificate", request.request_id
            ),
            fingerprint=request.fingerprint,
            serial_number=request.serial_number,
        )
        return pb.AllowCertificateResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def ListDeniedCertificates(
        self, request: pb.ListDeniedCertificatesRequest, context: Context
    ) -> pb.ListDeniedCertificatesResponse:
        """Return a page of the deny list."""
        read = await self._agents.list_denied(
            calls.session_call(context, "AgentService/ListDeniedCertificates"),
            page_size=request.page_size,
            page_token=request.page_token,
            stale_ok=request.stale_ok,
        )
        return pb.ListDeniedCertificatesResponse(
            certificates=[_denied(each) for each in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
        )

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
            position=conversion.position(read),
        )


def _radius(settings: RadiusSettings) -> pb.RadiusSettings:
    return pb.RadiusSettings(
        networks=settings.networks,
        allow_unsigned=settings.allow_unsigned,
        allow_unsigned_proxied=settings.allow_unsigned_proxied,
        unsigned_until_signed=settings.unsigned_until_signed,
        repeats_with_new_authenticator=settings.repeats_with_new_authenticator,
        prompts_for_passcode=settings.prompts_for_passcode,
    )


def _activity(activity: RadiusActivityView) -> pb.RadiusActivity:
    return pb.RadiusActivity(
        last_packet_time=conversion.timestamp(activity.last_packet_ms),
        packets=[
            pb.PacketCount(verdict=each.verdict, count=each.count)
            for each in activity.packets
        ],
    )


def _keys(keys: AgentKeysView) -> pb.AgentKeys:
    return pb.AgentKeys(
        create_time=conversion.timestamp(keys.created_at_ms),
        networks=keys.networks,
        former_end_time=conversion.timestamp(keys.former_ends_at_ms),
    )


def _agent(agent: AgentView) -> pb.Agent:
    return pb.Agent(
        name=agent.name,
        certificate_identity=agent.identity,
        protects=conversion.enum_number(agent.protects, conversion.PROTECTS),
        enabled=agent.enabled,
        restricted=agent.restricted,
        allowed_user_count=agent.allowed_user_count,
        allowed_usernames=agent.allowed_usernames,
        allowed_groups=agent.allowed_groups,
        accept_attributes=conversion.attributes(agent.accept_attributes),
        radius=None if agent.radius is None else _radius(agent.radius),
        secret_create_time=conversion.timestamp(agent.secret_created_at_ms),
        former_secret_end_time=conversion.timestamp(agent.former_secret_ends_at_ms),
        keys=None if agent.keys is None else _keys(agent.keys),
        radius_activity=None
        if agent.radius_activity is None
        else _activity(agent.radius_activity),
        etag=agent.etag,
        radius_etag=agent.radius_etag,
    )


def _denied(denied: DeniedCertificateView) -> pb.DeniedCertificate:
    return pb.DeniedCertificate(
        **{denied.mark.value: denied.value},
        deny_time=conversion.timestamp(denied.denied_at_ms),
        administrator=denied.administrator,
        note=denied.note,
    )
