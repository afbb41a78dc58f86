# SPDX-License-Identifier: Apache-2.0
"""
The public listeners: one per kind of caller, each with its own limits.

gRPC either requires a client certificate or does not request one, per port. So agents
(mutual TLS) and administrators (TLS and sessions) have separate ports, and the methods
for one kind of caller do not exist on the port of the other.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sparecode.v1 import (
    administrators_pb2,
    administrators_pb2_grpc,
    agents_pb2,
    agents_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    authentication_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    emergency_access_pb2,
    emergency_access_pb2_grpc,
    moves_pb2,
    moves_pb2_grpc,
    notices_pb2,
    notices_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
    users_pb2,
    users_pb2_grpc,
)
from sparecode_node.replication.links.grpc_server import new_server
from sparecode_node.replication.links.limits import (
    ADMINISTRATORS,
    AGENTS,
    Connections,
    listener_options,
)
from sparecode_node.replication.links.tls import renewable_credentials
from sparecode_node.rpc.administrators import AdministratorServicer
from sparecode_node.rpc.agents import AgentServicer
from sparecode_node.rpc.audit import AuditServicer
from sparecode_node.rpc.authentication import AuthenticationServicer
from sparecode_node.rpc.cluster import ClusterServicer
from sparecode_node.rpc.emergency_access import EmergencyAccessServicer
from sparecode_node.rpc.health import Health
from sparecode_node.rpc.interceptors import (
    ABSENT,
    FILE_MESSAGE_BYTES_MAX,
    KNOWN_METHODS,
    MESSAGE_BYTES_MAX,
    CallInterceptor,
)
from sparecode_node.rpc.moves import MoveServicer
from sparecode_node.rpc.notices import NoticeServicer
from sparecode_node.rpc.policy import PolicyServicer
from sparecode_node.rpc.sessions import SessionServicer
from sparecode_node.rpc.tls import TlsFiles
from sparecode_node.rpc.tokens import TokenServicer
from sparecode_node.rpc.users import UserServicer
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Clock
from sparecode_node.services.ended_calls import EndedCall, Tracer
from sparecode_node.services.error_table import Audience
from sparecode_node.services.load.open_calls import CallLimits
from sparecode_node.services.use_cases import Services

log = logging.getLogger(__name__)

AGENT_CALLS = CallLimits(calls=512, of_agent=256)
ADMIN_CALLS = CallLimits(
    calls=128,
    reserved=24,
    reserved_of_session=8,
    reserved_of_address=16,
    streams=32,
    streams_of_session=8,
    streams_of_address=16,
    of_session=32,
    of_address=64,
)
"""Open calls of one listener. Further calls are refused with a retry hint."""

HARD = 2
"""
Beyond this many times the limit, gRPC itself refuses calls, without an explanation.

Half of them are reserved for watchers of the health. Each watcher is a call that never
ends, and on the administrators' listener it needs no authentication.
"""

AGENTS_SERVICE = "AuthenticationService"
"""The service on the agents' listener. All others are on the administrators'."""

STREAMS_MAX = 256
"""
Concurrent streams on one connection. Callers wait until one is free.

An answered stream still counts for a moment, and a caller that opens another one
meanwhile is refused. So this is twice what a caller should have in progress.
"""

_OPTIONS = (
    # A second process on the port is a mistake, not a way to share load.
    ("grpc.so_reuseport", 0),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    # Detect within a minute that a caller with a call in progress has vanished. gRPC
    # waits for the answer to a ping as long as the third option says, or a minute.
    ("grpc.keepalive_time_ms", 40_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # Answer every ping. To close a connection for pings, gRPC keeps an error for each
    # one that follows, and copies them all: 20,000 a second kept a core busy.
    ("grpc.http2.max_ping_strikes", 0),
    # Close every connection after a while, so that the next handshake checks the
    # certificate again. Otherwise an expired certificate would stay valid forever.
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 60_000),
    ("grpc.max_connection_idle_ms", 10 * 60_000),
)


class ListenError(Exception):
    """A listener could not be opened. The message names it and the cause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerSettings:
    """The address and the certificate of a listener."""

    address: str
    tls: Callable[[], TlsFiles]
    """Called at every handshake. Returns the same object until the files change."""
    reflection: bool = False


class Listeners:
    """The listeners for agents and for administrators. Start and stop them once."""

    def __init__(  # noqa: PLR0913 - One argument per part.
        self,
        *,
        node_id: str,
        agents: ListenerSettings,
        admin: ListenerSettings,
        services: Services,
        refusals: Refusals,
        is_ready: Callable[[], bool],
        check_open: Callable[[], object] = lambda: None,
        clock: Clock,
        on_ended: Callable[[EndedCall], object] | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = {"agents": agents, "admin": admin}
        self._health = {
            "agents": Health(is_ready, watchers_max=AGENT_CALLS.calls),
            "admin": Health(is_ready, watchers_max=ADMIN_CALLS.calls),
        }
        self._health_tasks: list[asyncio.Task[None]] = []
        agents_server = _server(
            CallInterceptor(
                audience=Audience.AGENT,
                refusals=refusals,
                clock=clock,
                check_open=check_open,
                limits=AGENT_CALLS,
                check_room={
                    "AuthenticationService/Authenticate": (
                        services.authentication.check_room
                    )
                },
                on_ended=on_ended,
                tracer=tracer,
            ),
            message_bytes_max=MESSAGE_BYTES_MAX,
            calls_max=AGENT_CALLS.calls,
            connections=AGENTS,
        )
        # The larger limit is for methods that take files. The interceptor enforces the
        # smaller one for all others.
        admin_server = _server(
            CallInterceptor(
                audience=Audience.ADMINISTRATOR,
                refusals=refusals,
                clock=clock,
                check_open=check_open,
                limits=ADMIN_CALLS,
                on_ended=on_ended,
                tracer=tracer,
            ),
            message_bytes_max=FILE_MESSAGE_BYTES_MAX,
            calls_max=ADMIN_CALLS.calls,
            connections=ADMINISTRATORS,
        )
        self._servers = {"agents": agents_server, "admin": admin_server}
        authentication_pb2_grpc.add_AuthenticationServiceServicer_to_server(
            AuthenticationServicer(services.authentication, services.continuation),
            agents_server,
        )
        _add_administration(admin_server, node_id, services)
        for name, server in self._servers.items():
            health_pb2_grpc.add_HealthServicer_to_server(self._health[name], server)
            _add_absent(server, for_agents=name == "agents")
        if admin.reflection:
            reflection.enable_server_reflection(_admin_names(), admin_server)
        self.ports: dict[str, int] = {}
        """The ports of `agents` and `admin`, once they are bound."""

    async def start(self) -> None:
        """Bind both ports, then serve. Raises `ListenError`."""
        try:
            for name, server in self._servers.items():
                self.ports[name] = _bind(name, server, self._settings[name])
            for name, server in self._servers.items():
                await server.start()
                log.info(
                    "listening", extra={"listener": name, "port": self.ports[name]}
                )
        except BaseException:
            await self.stop(grace_s=0)
            raise
        self._health_tasks = [
            asyncio.create_task(health.run(), name=f"health of {name}")
            for name, health in self._health.items()
        ]

    def leave(self) -> None:
        """Tell watchers that this node is stopping. It still serves until `stop`."""
        for health in self._health.values():
            health.stop()

    async def stop(self, *, grace_s: float) -> None:
        """Refuse new calls, let running calls end within *grace_s*, and close."""
        self.leave()
        for task in self._health_tasks:
            task.cancel()
        await asyncio.gather(*self._health_tasks, return_exceptions=True)
        self._health_tasks = []
        await asyncio.gather(
            *(server.stop(grace_s) for server in self._servers.values())
        )


def _server(
    interceptor: CallInterceptor,
    *,
    message_bytes_max: int,
    calls_max: int,
    connections: Connections,
) -> grpc.aio.Server:
    return new_server(
        refuse=interceptor.refuse_unknown,
        interceptors=[interceptor],
        options=[
            *_OPTIONS,
            *listener_options(connections),
            ("grpc.max_concurrent_streams", STREAMS_MAX),
            ("grpc.max_receive_message_length", message_bytes_max),
        ],
        maximum_concurrent_rpcs=HARD * calls_max,
    )


def _add_administration(
    server: grpc.aio.Server, node_id: str, services: Services
) -> None:
    sessions_pb2_grpc.add_SessionServiceServicer_to_server(
        SessionServicer(
            services.sessions,
            services.open_sessions,
            services.browser_logins,
            node_id,
        ),
        server,
    )
    users_pb2_grpc.add_UserServiceServicer_to_server(
        UserServicer(
            node_id, services.users, services.user_import, services.explanations
        ),
        server,
    )
    tokens_pb2_grpc.add_TokenServiceServicer_to_server(
        TokenServicer(node_id, services.tokens, services.token_import), server
    )
    emergency_access_pb2_grpc.add_EmergencyAccessServiceServicer_to_server(
        EmergencyAccessServicer(node_id, services.emergency, services.bulk), server
    )
    agents_pb2_grpc.add_AgentServiceServicer_to_server(
        AgentServicer(
            node_id, services.agents, services.agent_keys, services.radius_clients
        ),
        server,
    )
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(
        ClusterServicer(
            node_id,
            services.cluster,
            services.membership,
            services.epoch_review,
            services.backups,
            services.rotation,
        ),
        server,
    )
    moves_pb2_grpc.add_MoveServiceServicer_to_server(
        MoveServicer(node_id, services.user_moves), server
    )
    notices_pb2_grpc.add_NoticeServiceServicer_to_server(
        NoticeServicer(node_id, services.channels, services.notice_previews), server
    )
    audit_pb2_grpc.add_AuditServiceServicer_to_server(
        AuditServicer(services.audit), server
    )
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(
        PolicyServicer(node_id, services.policies), server
    )
    administrators_pb2_grpc.add_AdministratorServiceServicer_to_server(
        AdministratorServicer(
            node_id,
            services.administrators,
            services.approvals,
            services.second_factors,
        ),
        server,
    )


def _add_absent(server: grpc.aio.Server, *, for_agents: bool) -> None:
    """Add the methods of the other listener, so that their calls are refused by name."""
    for name in KNOWN_METHODS:
        service, _, method = name.partition("/")
        if for_agents != (service == AGENTS_SERVICE):
            server.add_registered_method_handlers(
                f"sparecode.v1.{service}", {method: ABSENT}
            )


def _admin_names() -> Sequence[str]:
    """Return the names of the services that reflection may show."""
    files = (
        sessions_pb2,
        users_pb2,
        tokens_pb2,
        emergency_access_pb2,
        agents_pb2,
        cluster_pb2,
        audit_pb2,
        moves_pb2,
        notices_pb2,
        policy_pb2,
        administrators_pb2,
        health_pb2,
    )
    return (
        *(
            service.full_name
            for file in files
            for service in file.DESCRIPTOR.services_by_name.values()
        ),
        reflection.SERVICE_NAME,
    )


def _bind(name: str, server: grpc.aio.Server, settings: ListenerSettings) -> int:
    check_free(name, settings.address)
    try:
        return server.add_secure_port(
            settings.address, renewable_credentials(settings.tls)
        )
    except RuntimeError as error:
        raise ListenError(f"[{name}] listen {settings.address}: {error}") from error


def check_free(name: str, address: str) -> None:
    """
    Bind *address* and release it, to learn the reason if binding fails.

    gRPC knows the operating system's reason but does not report it. A socket file, which
    only tests have, is not checked. Raises `ListenError`.
    """
    if address.startswith("unix:"):
        return
    host, _, port = address.rpartition(":")
    try:
        addresses = socket.getaddrinfo(
            host.strip("[]"),
            int(port),
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        for family, kind, protocol, _, place in addresses:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                probe.listen()
    except OSError as error:
        raise ListenError(
            f"[{name}] listen {address}: cannot listen: {error.strerror or error}"
        ) from error
