# SPDX-License-Identifier: Apache-2.0
"""Metrics that are read when Prometheus scrapes the node."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from sparecode_node.daemon.metrics import catalog
from sparecode_node.daemon.metrics.catalog import Kind, Metric
from sparecode_node.daemon.metrics.census import Census
from sparecode_node.daemon.metrics.events import EventCounts
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.rpc.tls import CertificateEnds
from sparecode_node.services.access import security_log
from sparecode_node.services.access.security_log import SecurityLog
from sparecode_node.services.load.condition import Condition
from sparecode_node.services.notices import delivery_counts
from sparecode_node.services.secrets.kdf import Kdf, Lane
from sparecode_node.statemachine.feature_level import NEWEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The sources of the metrics. All are thread-safe."""

    version: str
    replica: Callable[[], ReplicaStatus]
    peers: Callable[[], Iterable[NodeId]]
    condition: Condition
    kdf: Kdf
    events: EventCounts
    census: Census
    certificates: Callable[[], Mapping[str, CertificateEnds]]
    security: SecurityLog
    radius_packets: Callable[[], Mapping[tuple[str, str], int]]
    deliveries: Callable[[], Mapping[tuple[str, str], int]]
    unarchived: Callable[[], int | None] = lambda: None
    """None: this node has no archive of the audit log."""


_Samples = Iterable[tuple[tuple[str, ...], float]]


class NodeCollector(Collector):
    """Produces the metrics of the sources."""

    def __init__(self, sources: Sources, *, channel_names: bool) -> None:
        """*channel_names*: else a channel has the number of its place by name."""
        self._sources = sources
        self._channel_names = channel_names

    def collect(self) -> Iterator[Family]:
        """Yield every metric that is not counted as it happens."""
        for metric, value in self._single().items():
            yield _family(metric, [((), value)])
        for metric, samples in self._labelled().items():
            yield _family(metric, samples)

    def _single(self) -> dict[Metric, float]:
        sources = self._sources
        status, census = sources.replica(), sources.census
        disk = sources.condition.disk()
        return {
            catalog.READY: sources.condition.ready,
            catalog.TERM: status.term,
            # Before there is an administrator, no node serves as the primary of a cluster.
            catalog.IS_PRIMARY: status.is_leader and sources.condition.initialized,
            catalog.PRIMARY_KNOWN: status.leader is not None,
            catalog.CONTACT: status.has_contact,
            catalog.COMMIT_INDEX: status.commit_index,
            catalog.APPLIED_INDEX: status.applied_index,
            catalog.APPLY_LAG: max(0, status.commit_index - status.applied_index),
            catalog.FEATURE_LEVEL: status.feature_level,
            catalog.FEATURE_LEVEL_KNOWN: NEWEST,
            catalog.REFUSED_AS_OLDER: bool(status.refused_by),
            catalog.OLDER_COPIES: len(status.older_copies),
            catalog.LOG_ENTRIES: status.log_entries,
            catalog.LOG_BYTES: status.log_bytes,
            catalog.LOG_KEPT_FOR: len(status.log_kept_for),
            catalog.LOG_KEPT_RATIO: status.log_kept_ratio,
            catalog.LOG_GIVEN_UP: status.log_given_up,
            catalog.SNAPSHOTS_OUTDATED: status.snapshots_outdated,
            catalog.AUDIT_MISMATCH: census.heads_differ,
            catalog.DIGEST_MISMATCH: census.digests_differ,
            catalog.DIGEST_COMPARED: census.digests_compared_ms / 1000,
            catalog.DISK_FREE: disk.free_bytes,
            catalog.DISK_SIZE: disk.size_bytes,
        }

    def _labelled(self) -> dict[Metric, _Samples]:
        sources = self._sources
        peers, linked = sorted(sources.peers()), sources.replica().linked
        offsets_ms = sources.census.clock_offsets_ms
        loads = {lane.value: sources.kdf.load(lane) for lane in Lane}
        ends = sources.certificates()
        counts = sources.events.take()
        unarchived = sources.unarchived()
        return {
            catalog.BUILD: [((sources.version,), 1)],
            catalog.PEER_CONNECTED: [((peer,), peer in linked) for peer in peers],
            catalog.PEER_REACHABLE: [((peer,), peer in offsets_ms) for peer in peers],
            catalog.PEER_CLOCK_OFFSET: [
                ((peer,), offset_ms / 1000)
                for peer, offset_ms in sorted(offsets_ms.items())
            ],
            catalog.KDF_TAKEN: [((lane,), load.taken) for lane, load in loads.items()],
            catalog.KDF_BOUND: [((lane,), load.bound) for lane, load in loads.items()],
            catalog.KDF_COMPUTED: [
                ((lane,), load.computed) for lane, load in loads.items()
            ],
            catalog.KDF_SHED: [((lane,), load.shed) for lane, load in loads.items()],
            catalog.CERTIFICATE_ENDS: [
                ((listener, kind), at.timestamp())
                for listener, each in ends.items()
                for kind, at in (("own", each.own), ("ca", each.ca))
                if at is not None
            ],
            catalog.EVENTS: list(counts.items()),
            catalog.AUDIT_SEQUENCE: [((), sources.events.sequence)],
            catalog.LAST_BACKUP: [((), sources.events.last_backup_ms / 1000)],
            catalog.ENTRY_SKIPPED: [((), sources.events.entry_skipped_ms / 1000)],
            catalog.OPEN: [((), sources.events.is_open)],
            catalog.SECURITY_EVENTS: [
                ((event.lower().replace(" ", "_"),), sources.security.counts[event])
                for event in security_log.EVENTS
            ],
            catalog.SEGMENTS_MISSING: [((), sources.events.missing_segments)],
            catalog.SEGMENTS_IN_STATE: [((), sources.events.segments_in_state)],
            catalog.SEGMENTS_UNARCHIVED: [((), unarchived)]
            if unarchived is not None
            else [],
            catalog.SEGMENTS_REMOVED: [((), sources.events.removed_segments)],
            catalog.SEGMENTS_SHORT: [((), sources.events.short_segments)],
            catalog.SEGMENTS_SHORT_OLDEST: [
                ((), sources.events.oldest_short_ms / 1000)
            ],
            catalog.AUTHORITIES_DUE: [((), sources.events.due_authorities)],
            catalog.RADIUS_PACKETS: list(sources.radius_packets().items()),
            catalog.RESETS_PENDING: [((), sources.events.pending_resets)],
            **_notices(sources, channel_names=self._channel_names),
        }


def _notices(sources: Sources, *, channel_names: bool) -> dict[Metric, _Samples]:
    """Return the metrics of channels. `sources.events` has just read the state."""
    queues = [
        (each.channel if channel_names else str(place), each)
        for place, each in enumerate(sources.events.queues, start=1)
    ]
    counts = sources.deliveries()
    return {
        catalog.NOTICES_WAITING: [((name,), each.waiting) for name, each in queues],
        catalog.NOTICES_DEAD: [((name,), each.dead) for name, each in queues],
        catalog.NOTICES_OLDEST: [
            ((name,), each.oldest_ms / 1000) for name, each in queues
        ],
        catalog.NOTICE_DELIVERIES: [
            ((name, outcome), counts.get((each.channel, outcome), 0))
            for name, each in queues
            for outcome in delivery_counts.OUTCOMES
        ],
    }


def _family(metric: Metric, samples: _Samples) -> Family:
    family: GaugeMetricFamily | CounterMetricFamily
    if metric.kind is Kind.COUNTER:
        family = CounterMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, float(value))
    return family
