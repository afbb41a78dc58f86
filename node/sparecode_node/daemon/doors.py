# SPDX-License-Identifier: Apache-2.0
"""The doors that a node may have besides gRPC: the console and RADIUS."""

from collections.abc import Sequence

from sparecode_node.config import Config
from sparecode_node.config_section import Address
from sparecode_node.console.kit.site import Site
from sparecode_node.console.server import ConsoleListener, ConsoleServer
from sparecode_node.domain.ids import NodeId
from sparecode_node.radius.dialog import Dialog
from sparecode_node.radius.listener import RadiusListener
from sparecode_node.replication.cluster_replicator import ClusterReplicator
from sparecode_node.rpc import tickets
from sparecode_node.services.access.security_log import SecurityLog
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.load.condition import Condition
from sparecode_node.services.use_cases import Services


def console_server(
    config: Config,
    services: Services,
    replicator: ClusterReplicator,
    *,
    clock: Clock,
    entropy: Entropy,
) -> ConsoleServer | None:
    """Return the console's listener, or None if the node has no console."""
    console, node_id = config.console, NodeId(config.node.id)
    if console is None:
        return None
    return ConsoleServer(
        ConsoleListener(
            host=console.listen.host,
            port=console.listen.port,
            certificate=console.certificate,
            key=console.key,
        ),
        Site(
            node_id=node_id,
            services=services,
            is_ready=lambda: replicator.ready,
            is_primary=lambda: replicator.primary == node_id,
            is_removed=lambda: replicator.removed,
            clock=clock,
            entropy=entropy,
            ticket_text=tickets.to_text,
            addresses=console.addresses,
        ),
    )


async def open_radius(
    config: Config,
    services: Services,
    condition: Condition,
    *,
    security_log: SecurityLog,
    clock: Clock,
) -> RadiusListener | None:
    """
    Open the RADIUS listener; None: the node serves no RADIUS.

    Raises `RadiusListenError`.
    """
    if config.radius is None:
        return None
    addresses: Sequence[Address] = config.radius.listen
    listener = RadiusListener(
        [(each.host, each.port) for each in addresses],
        clients=services.radius_clients,
        dialog=Dialog(
            authentication=services.authentication,
            continuation=services.continuation,
            seals=services.radius_seals,
            security_log=security_log,
        ),
        counts=services.packet_counts,
        is_ready=lambda: condition.ready,
        check_open=condition.check_open,
        security_log=security_log,
        clock=clock,
    )
    await listener.start()
    return listener
