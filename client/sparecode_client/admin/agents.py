# SPDX-License-Identifier: Apache-2.0
"""Calls on agents and denied certificates."""

from collections.abc import Sequence
from datetime import timedelta
from typing import TypedDict

from google.protobuf.duration_pb2 import Duration

from sparecode.v1 import agents_pb2, types_pb2
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import (
    commit_in,
    enum_in,
    enum_out,
    position_in,
    time_in,
)
from sparecode_client.values.agents import (
    NO_ATTRIBUTES,
    AcceptAttributes,
    AgentKeys,
    AgentProtects,
    DeniedCertificate,
    NewAgentKey,
    NewRadiusSecret,
    RadiusActivity,
    RadiusSettings,
    RegisteredAgent,
)
from sparecode_client.values.results import Commit, Page


class Agents(Caller):
    """The calls of `AgentService`."""

    async def register_agent(
        self,
        name: str,
        certificate_identity: str,
        *,
        protects: AgentProtects = AgentProtects.AUTHENTICATION_MANAGER,
        restricted: bool = False,
        attributes: AcceptAttributes = NO_ATTRIBUTES,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Register an agent, which can then authenticate users.

        *certificate_identity* is the only URI or DNS subject name of its certificate.
        *protects*: emergency codes are not accepted for a cloud service. *restricted*:
        the agent admits only users that `update_agent` allows. *attributes*: what it
        gets with an Access-Accept over RadSec.
        """
        request = agents_pb2.RegisterAgentRequest(
            request_id=request_id or new_request_id(),
            name=name,
            certificate_identity=certificate_identity,
            protects=enum_out(types_pb2.AgentProtects, protects),
            restricted=restricted,
            **_attributes_out(attributes),
        )
        answer = await self._client.unary(
            lambda node: node.agents.RegisterAgent, request, within=within
        )
        return commit_in(answer.commit)

    async def get_agent(
        self, name: str, *, stale_ok: bool = False, within: timedelta | None = None
    ) -> RegisteredAgent:
        """Return an agent with its allow list."""
        request = agents_pb2.GetAgentRequest(name=name, stale_ok=stale_ok)
        answer = await self._client.unary(
            lambda node: node.agents.GetAgent, request, within=within
        )
        return agent_in(answer.agent)

    async def list_agents(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[RegisteredAgent]:
        """Return a page of agents, by name."""
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

    async def update_agent(  # noqa: PLR0913 - one argument per field.
        self,
        name: str,
        *,
        protects: AgentProtects | None = None,
        enabled: bool | None = None,
        restricted: bool | None = None,
        add_usernames: Sequence[str] = (),
        remove_usernames: Sequence[str] = (),
        add_groups: Sequence[str] = (),
        remove_groups: Sequence[str] = (),
        end_keys: bool = False,
        filter_id: str | None = None,
        class_attribute: str | None = None,
        session_timeout: timedelta | None = None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Change an agent; None keeps a value.

        The change takes effect with the commit, on every node and for open connections.
        A *restricted* agent admits only the users and the members of the groups on its
        allow list. *end_keys*: no bearer key of the agent works any longer. The last
        three are what an Access-Accept tells it, over RADIUS and RadSec; empty and zero:
        nothing.
        """
        request = agents_pb2.UpdateAgentRequest(
            request_id=request_id or new_request_id(),
            name=name,
            add_usernames=add_usernames,
            remove_usernames=remove_usernames,
            add_groups=add_groups,
            remove_groups=remove_groups,
            end_keys=end_keys,
            filter_id=filter_id,
            class_attribute=class_attribute,
            session_timeout_seconds=None
            if session_timeout is None
            else int(session_timeout.total_seconds()),
        )
        if protects is not None:
            request.protects = enum_out(types_pb2.AgentProtects, protects)
        if enabled is not None:
            request.enabled = enabled
        if restricted is not None:
            request.restricted = restricted
        answer = await self._client.unary(
            lambda node: node.agents.UpdateAgent, request, within=within
        )
        return commit_in(answer.commit)

    async def remove_agent(
        self,
        name: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Remove an agent. All its later requests are refused."""
        request = agents_pb2.RemoveAgentRequest(
            request_id=request_id or new_request_id(), name=name
        )
        answer = await self._client.unary(
            lambda node: node.agents.RemoveAgent, request, within=within
        )
        return commit_in(answer.commit)

    async def register_radius_client(
        self,
        name: str,
        settings: RadiusSettings,
        *,
        protects: AgentProtects = AgentProtects.AUTHENTICATION_MANAGER,
        restricted: bool = False,
        attributes: AcceptAttributes = NO_ATTRIBUTES,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> NewRadiusSecret:
        """
        Register a RADIUS client as an agent, and return its shared secret.

        A retry with the same *request_id* returns the same secret; no other call does.
        """
        request = agents_pb2.RegisterRadiusClientRequest(
            request_id=request_id or new_request_id(),
            name=name,
            protects=enum_out(types_pb2.AgentProtects, protects),
            restricted=restricted,
            networks=settings.networks,
            allow_unsigned=settings.allow_unsigned,
            allow_unsigned_proxied=settings.allow_unsigned_proxied,
            unsigned_until_signed=settings.unsigned_until_signed,
            repeats_with_new_authenticator=settings.repeats_with_new_authenticator,
            prompts_for_passcode=settings.prompts_for_passcode,
            **_attributes_out(attributes),
        )
        answer = await self._client.unary(
            lambda node: node.agents.RegisterRadiusClient, request, within=within
        )
        return NewRadiusSecret(secret=answer.secret, commit=commit_in(answer.commit))

    async def update_radius_client(  # noqa: PLR0913 - one argument per field.
        self,
        name: str,
        *,
        networks: Sequence[str] = (),
        allow_unsigned: bool | None = None,
        allow_unsigned_proxied: bool | None = None,
        unsigned_until_signed: bool | None = None,
        repeats_with_new_authenticator: bool | None = None,
        prompts_for_passcode: bool | None = None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Change the settings of a RADIUS client; None and no *networks* keep a value.

        `update_agent` changes what every agent has: its allow list, and its attributes.
        """
        request = agents_pb2.UpdateRadiusClientRequest(
            request_id=request_id or new_request_id(),
            name=name,
            networks=networks,
            allow_unsigned=allow_unsigned,
            allow_unsigned_proxied=allow_unsigned_proxied,
            unsigned_until_signed=unsigned_until_signed,
            repeats_with_new_authenticator=repeats_with_new_authenticator,
            prompts_for_passcode=prompts_for_passcode,
        )
        answer = await self._client.unary(
            lambda node: node.agents.UpdateRadiusClient, request, within=within
        )
        return commit_in(answer.commit)

    async def rotate_radius_secret(
        self,
        name: str,
        *,
        overlap: timedelta,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> NewRadiusSecret:
        """
        Give a RADIUS client a new shared secret, and return it.

        The previous secret works for *overlap* more, at most 30 days. Those replaced
        earlier keep their ends; with no overlap they stop at once, too.
        """
        request = agents_pb2.RotateRadiusSecretRequest(
            request_id=request_id or new_request_id(),
            name=name,
            overlap=_duration(overlap),
        )
        answer = await self._client.unary(
            lambda node: node.agents.RotateRadiusSecret, request, within=within
        )
        return NewRadiusSecret(secret=answer.secret, commit=commit_in(answer.commit))

    async def create_agent_key(
        self,
        name: str,
        *,
        overlap: timedelta,
        networks: Sequence[str] = (),
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> NewAgentKey:
        """
        Give an agent a new bearer key for calls by HTTP, and return it.

        The previous key works for *overlap* more, at most 30 days. Those replaced
        earlier keep their ends; with no overlap they stop at once, too. *networks*: the
        addresses that the key may be used from; empty: any. No call returns the key
        again, not even a retry: if the answer is lost, `InvalidArgument` says so.
        """
        request = agents_pb2.CreateAgentKeyRequest(
            request_id=request_id or new_request_id(),
            name=name,
            overlap=_duration(overlap),
            networks=networks,
        )
        answer = await self._client.unary(
            lambda node: node.agents.CreateAgentKey, request, within=within
        )
        return NewAgentKey(key=answer.key, commit=commit_in(answer.commit))

    async def deny_certificate(
        self,
        *,
        fingerprint: str = "",
        serial_number: str = "",
        note: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Deny a certificate: every call with it is refused from the commit on.

        Pass exactly one of *fingerprint* (see `certificate_fingerprint`) and
        *serial_number*, in hexadecimal digits.
        """
        request = agents_pb2.DenyCertificateRequest(
            request_id=request_id or new_request_id(),
            fingerprint=fingerprint,
            serial_number=serial_number,
            note=note,
        )
        answer = await self._client.unary(
            lambda node: node.agents.DenyCertificate, request, within=within
        )
        return commit_in(answer.commit)

    async def allow_certificate(
        self,
        *,
        fingerprint: str = "",
        serial_number: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Remove a certificate from the deny list. Name it as when it was denied."""
        request = agents_pb2.AllowCertificateRequest(
            request_id=request_id or new_request_id(),
            fingerprint=fingerprint,
            serial_number=serial_number,
        )
        answer = await self._client.unary(
            lambda node: node.agents.AllowCertificate, request, within=within
        )
        return commit_in(answer.commit)

    async def list_denied_certificates(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[DeniedCertificate]:
        """Return a page of the denied certificates."""
        request = agents_pb2.ListDeniedCertificatesRequest(
            page_size=page_size, page_token=page_token, stale_ok=stale_ok
        )
        answer = await self._client.unary(
            lambda node: node.agents.ListDeniedCertificates, request, within=within
        )
        return Page(
            items=tuple(denied_in(each) for each in answer.certificates),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )


def agent_in(agent: agents_pb2.Agent) -> RegisteredAgent:
    """Convert an agent."""
    return RegisteredAgent(
        name=agent.name,
        certificate_identity=agent.certificate_identity,
        protects=enum_in(AgentProtects, types_pb2.AgentProtects, agent.protects),
        enabled=agent.enabled,
        restricted=agent.restricted,
        allowed_user_count=agent.allowed_user_count,
        allowed_usernames=tuple(agent.allowed_usernames),
        allowed_groups=tuple(agent.allowed_groups),
        accept_attributes=attributes_in(agent.accept_attributes)
        if agent.HasField("accept_attributes")
        else None,
        radius=radius_in(agent.radius) if agent.HasField("radius") else None,
        secret_create_time=time_in(agent, "secret_create_time"),
        former_secret_end_time=time_in(agent, "former_secret_end_time"),
        keys=AgentKeys(
            create_time=time_in(agent.keys, "create_time"),
            networks=tuple(agent.keys.networks),
            former_end_time=time_in(agent.keys, "former_end_time"),
        )
        if agent.HasField("keys")
        else None,
        radius_activity=RadiusActivity(
            last_packet_time=time_in(agent.radius_activity, "last_packet_time"),
            packets={
                each.verdict: each.count for each in agent.radius_activity.packets
            },
        )
        if agent.HasField("radius_activity")
        else None,
    )


def _duration(value: timedelta) -> Duration:
    duration = Duration()
    duration.FromTimedelta(value)
    return duration


def radius_in(settings: agents_pb2.RadiusSettings) -> RadiusSettings:
    """Convert the settings of a RADIUS client."""
    return RadiusSettings(
        networks=tuple(settings.networks),
        allow_unsigned=settings.allow_unsigned,
        allow_unsigned_proxied=settings.allow_unsigned_proxied,
        unsigned_until_signed=settings.unsigned_until_signed,
        repeats_with_new_authenticator=settings.repeats_with_new_authenticator,
        prompts_for_passcode=settings.prompts_for_passcode,
    )


def attributes_in(attributes: agents_pb2.AcceptAttributes) -> AcceptAttributes:
    """Convert the attributes of an Access-Accept."""
    return AcceptAttributes(
        filter_id=attributes.filter_id,
        class_attribute=attributes.class_attribute,
        session_timeout=timedelta(seconds=attributes.session_timeout_seconds),
    )


class _AttributesOut(TypedDict):
    filter_id: str
    class_attribute: str
    session_timeout_seconds: int


def _attributes_out(attributes: AcceptAttributes) -> _AttributesOut:
    return _AttributesOut(
        filter_id=attributes.filter_id,
        class_attribute=attributes.class_attribute,
        session_timeout_seconds=int(attributes.session_timeout.total_seconds()),
    )


def denied_in(denied: agents_pb2.DeniedCertificate) -> DeniedCertificate:
    """Convert a denied certificate."""
    return DeniedCertificate(
        fingerprint=denied.fingerprint,
        serial_number=denied.serial_number,
        deny_time=time_in(denied, "deny_time"),
        administrator=denied.administrator,
        note=denied.note,
    )
