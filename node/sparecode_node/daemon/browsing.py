# SPDX-License-Identifier: Apache-2.0
"""The Security Console of a node, as its configuration has it."""

from sparecode_node.config import Config
from sparecode_node.console.kit.site import Site
from sparecode_node.console.server import ConsoleListener, ConsoleServer
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.cluster_replicator import ClusterReplicator
from sparecode_node.rpc import tickets
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.use_cases import Services


def console_of(
    config: Config,
    services: Services,
    replicator: ClusterReplicator,
    *,
    clock: Clock,
    entropy: Entropy,
) -> ConsoleServer | None:
    """Return the listener for browsers; None: this node has none."""
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
            clock=clock,
            entropy=entropy,
            ticket_text=tickets.to_text,
            addresses=console.addresses,
        ),
    )
