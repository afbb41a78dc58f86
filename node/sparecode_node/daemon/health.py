# SPDX-License-Identifier: Apache-2.0
"""What others may know of a running node: its condition and its metrics."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from sparecode_node.config import Config
from sparecode_node.daemon.certificate_watch import Certificates
from sparecode_node.daemon.metrics.access import OPEN, MetricsAccess
from sparecode_node.daemon.metrics.census import Census
from sparecode_node.daemon.metrics.collector import Sources
from sparecode_node.daemon.metrics.events import EventCounts
from sparecode_node.daemon.metrics.measures import Measures
from sparecode_node.daemon.metrics.observation import Observation
from sparecode_node.membership.preparation import STATE
from sparecode_node.replication.cluster_replicator import ClusterReplicator
from sparecode_node.rpc.server import check_free
from sparecode_node.services.access.packet_counts import PacketCounts
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Clock
from sparecode_node.services.load.condition import Condition
from sparecode_node.services.notices.delivery_counts import DeliveryCounts
from sparecode_node.services.secrets.kdf import Kdf
from sparecode_node.services.state.state_file import StateFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts of a node that are observed."""

    replicator: ClusterReplicator
    state_file: StateFile
    kdf: Kdf
    measures: Measures
    certificates: Certificates
    refusals: Refusals
    radius_packets: PacketCounts
    deliveries: DeliveryCounts
    unarchived: Callable[[], int | None]
    clock: Clock
    version: str


def observe(
    config: Config, parts: Parts, cleanup: contextlib.AsyncExitStack
) -> Condition:
    """Start the collection of metrics and health, and the metrics listener."""
    replicator, certificates = parts.replicator, parts.certificates
    condition = Condition(
        replicator=replicator,
        initialized=lambda: parts.state_file.initialized,
        data_dir=config.node.data_dir,
        certificates=lambda: {
            name: ends.own for name, ends in certificates.ends().items()
        },
        clock=parts.clock,
    )
    address, access = None, OPEN
    if config.metrics is not None:
        check_free("metrics", str(config.metrics.listen))
        address = config.metrics.listen.host, config.metrics.listen.port
        access = MetricsAccess(
            certificate=config.metrics.certificate,
            key=config.metrics.key,
            ca=config.metrics.ca,
            token_file=config.metrics.token_file,
        )
    observation = Observation(
        Sources(
            version=parts.version,
            replica=lambda: replicator.replica_status,
            peers=lambda: (
                member.node_id
                for member in replicator.members()
                if member.node_id != replicator.node_id
            ),
            condition=condition,
            kdf=parts.kdf,
            events=EventCounts(config.node.data_dir / STATE),
            census=Census(replicator, parts.clock),
            certificates=certificates.ends,
            security=parts.refusals.log,
            radius_packets=parts.radius_packets.published,
            deliveries=parts.deliveries.attempts,
            unarchived=parts.unarchived,
        ),
        parts.measures,
        address,
        access,
    )
    observation.start()
    cleanup.push_async_callback(observation.stop)
    return condition
