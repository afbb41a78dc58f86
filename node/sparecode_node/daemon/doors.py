# SPDX-License-Identifier: Apache-2.0
"""The doors that a node may have besides gRPC: the console, RADIUS and HTTP."""

import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparecode_node.config import Config
from sparecode_node.config_section import Address
from sparecode_node.console.kit.site import Site
from sparecode_node.console.server import ConsoleListener, ConsoleServer
from sparecode_node.daemon.certificate_watch import Certificates
from sparecode_node.domain.ids import AgentIdentity, NodeId
from sparecode_node.domain.networks import ByNetwork
from sparecode_node.http.app import Parts as HttpParts
from sparecode_node.http.plugins import Plugins
from sparecode_node.http.server import HttpServer
from sparecode_node.http.v1 import Steps
from sparecode_node.radius.dialog import Dialog
from sparecode_node.radius.exchange import Exchange
from sparecode_node.radius.listener import RadiusListener
from sparecode_node.radius.radsec import RadsecListener, tls_context
from sparecode_node.replication.cluster_replicator import ClusterReplicator
from sparecode_node.rpc import tickets
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.authentication.prompts import Prompts
from sparecode_node.services.ended_calls import EndedCall
from sparecode_node.services.load.condition import Condition
from sparecode_node.services.use_cases import Services
from sparecode_node.web.server import WebServer

STOP_GRACE_S = 5.0
"""Time for calls in progress to end when the node stops."""
RADIUS_GRACE_S = 2.0
"""The same for RADIUS: a client waits few seconds, then asks another node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the doors need of their node."""

    services: Services
    replicator: ClusterReplicator
    condition: Condition
    refusals: Refusals
    certificates: Certificates
    on_ended: Callable[[EndedCall], object]
    is_broken: Callable[[], bool]
    """Whether the node stops because it is broken, and waits for nothing."""
    clock: Clock
    entropy: Entropy


class Doors:
    """The doors of a node. `open` them once, and close them in reverse order."""

    def __init__(self) -> None:
        self._web: dict[str, WebServer] = {}
        self._radius: list[RadiusListener | RadsecListener] = []
        self._radsec: RadsecListener | None = None
        self._config: Config | None = None

    async def open(
        self, config: Config, parts: Parts, cleanup: contextlib.AsyncExitStack
    ) -> Sequence[RadiusListener | RadsecListener]:
        """
        Open what the configuration names; *cleanup* gets what closes it.

        Return the RADIUS listeners, which have to `run`. Raises `WebListenError` and
        `RadiusListenError`.
        """
        self._config = config
        for name, server in (
            ("console", _console(config, parts)),
            ("http", _http(config, parts)),
        ):
            if server is not None:
                await server.start(grace_s=int(STOP_GRACE_S))
                cleanup.push_async_callback(server.stop)
                self._web[name] = server
        exchange = _exchange(parts)
        self._radsec = _radsec(lambda: self._config or config, parts, exchange)
        for listener in (_radius(config, parts, exchange), self._radsec):
            if listener is not None:
                await listener.start()
                cleanup.push_async_callback(_close_radius, listener, parts.is_broken)
                self._radius.append(listener)
        return self._radius

    def reload(self, config: Config) -> None:
        """Read certificates from the files of this configuration from now on."""
        self._config = config
        for name, server in self._web.items():
            listener = config.tls_listeners.get(name)
            if listener is not None:
                server.use(listener.certificate, listener.key)

    def renew(self, name: str) -> None:
        """Use the certificates that are now in the files of a listener."""
        # HTTP and RadSec demand certificates of the agents' authority, too.
        name = "http" if name == "agents" else name
        if name in self._web:
            self._web[name].renew()
        if name in ("http", "radsec") and self._radsec is not None:
            self._radsec.renew()

    def leave(self) -> None:
        """Take no new packets, because the node is about to stop."""
        for listener in self._radius:
            listener.leave()


def _console(config: Config, parts: Parts) -> WebServer | None:
    """Return the console's listener, or None if the node has no console."""
    console, node_id = config.console, NodeId(config.node.id)
    if console is None:
        return None
    replicator = parts.replicator
    return ConsoleServer(
        ConsoleListener(
            host=console.listen.host,
            port=console.listen.port,
            certificate=console.certificate,
            key=console.key,
        ),
        Site(
            node_id=node_id,
            services=parts.services,
            is_ready=lambda: replicator.ready,
            is_primary=lambda: replicator.primary == node_id,
            is_removed=lambda: replicator.removed,
            clock=parts.clock,
            entropy=parts.entropy,
            ticket_text=tickets.to_text,
            addresses=console.addresses,
        ),
        parts.refusals.log,
    )


def _http(config: Config, parts: Parts) -> WebServer | None:
    """Return the listener for agents over HTTP, or None if the node has none."""
    if config.http is None:
        return None
    return HttpServer(
        HttpParts(
            steps=Steps(
                authentication=parts.services.authentication,
                continuation=parts.services.continuation,
                entropy=parts.entropy,
            ),
            prompts=Prompts(
                continuation=parts.services.continuation,
                seals=parts.services.radius_seals,
            ),
            seals=parts.services.radius_seals,
            agent_keys=parts.services.agent_keys,
            plugins=_plugins(config),
            check_open=parts.condition.check_open,
            refusals=parts.refusals,
            clock=parts.clock,
            on_ended=parts.on_ended,
        ),
        host=config.http.listen.host,
        port=config.http.listen.port,
        certificate=config.http.certificate,
        key=config.http.key,
        authority=lambda: parts.certificates["agents"].ca or b"",
    )


def _plugins(config: Config) -> Plugins:
    """Return what the configuration says of privacyIDEA's plug-ins."""
    return Plugins(
        by_network=ByNetwork(
            {
                network: AgentIdentity(each.agent)
                for each in config.http_plugins
                for network in each.networks
            }
        ),
        repeating=frozenset(
            AgentIdentity(each.agent) for each in config.http_plugins if each.repeats
        ),
    )


def _exchange(parts: Parts) -> Exchange:
    """Return what answers RADIUS requests, for all its listeners."""
    services = parts.services
    return Exchange(
        dialog=Dialog(
            authentication=services.authentication,
            continuation=services.continuation,
            seals=services.radius_seals,
            security_log=parts.refusals.log,
        ),
        counts=services.packet_counts,
        is_ready=lambda: parts.condition.ready,
        check_open=parts.condition.check_open,
        security_log=parts.refusals.log,
        clock=parts.clock,
    )


def _radius(config: Config, parts: Parts, exchange: Exchange) -> RadiusListener | None:
    """Return the RADIUS listener; None: the node serves no RADIUS over UDP."""
    if config.radius is None:
        return None
    addresses: Sequence[Address] = config.radius.listen
    return RadiusListener(
        [(each.host, each.port) for each in addresses],
        clients=parts.services.radius_clients,
        exchange=exchange,
        counts=parts.services.packet_counts,
    )


def _radsec(
    config: Callable[[], Config], parts: Parts, exchange: Exchange
) -> RadsecListener | None:
    """Return the RadSec listener; None: the node serves no RADIUS over TLS."""
    radsec = config().radsec
    if radsec is None:
        return None

    def tls() -> ssl.SSLContext:
        files = config().radsec or radsec
        return tls_context(
            files.certificate, files.key, parts.certificates["agents"].ca or b""
        )

    return RadsecListener(
        radsec.listen.host,
        radsec.listen.port,
        tls=tls,
        clients=parts.services.radius_clients,
        exchange=exchange,
        security_log=parts.refusals.log,
        clock=parts.clock,
    )


async def _close_radius(
    listener: RadiusListener | RadsecListener, is_broken: Callable[[], bool]
) -> None:
    await listener.stop(grace_s=0 if is_broken() else RADIUS_GRACE_S)
