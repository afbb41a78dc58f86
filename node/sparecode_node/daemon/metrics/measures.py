# SPDX-License-Identifier: Apache-2.0
"""Metrics that are counted and timed as events happen."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

from sparecode_node.daemon.metrics import catalog
from sparecode_node.daemon.metrics.catalog import Metric
from sparecode_node.services.ended_calls import EndedCall
from sparecode_node.services.error_table import Audience

_LISTENER = {Audience.AGENT: "agents", Audience.ADMINISTRATOR: "admin"}


class Measures:
    """
    Records events of the other layers: replication's (`Observer`), and ended calls.

    Thread-safe.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._proposals = self._gauge(catalog.PROPOSALS_PENDING)
        self._proposal_seconds = self._histogram(catalog.PROPOSAL_SECONDS)
        self._forwards = self._counter(catalog.FORWARDS)
        self._sync_seconds = self._histogram(catalog.SYNC_SECONDS)
        self._apply_seconds = self._histogram(catalog.APPLY_SECONDS)
        self._primary_changes = self._counter(catalog.PRIMARY_CHANGES)
        self._snapshot_seconds = self._histogram(catalog.SNAPSHOT_SECONDS)
        self._snapshot_failures = self._counter(catalog.SNAPSHOT_FAILURES)
        self._calls = self._counter(catalog.CALLS)
        self._call_seconds = self._histogram(catalog.CALL_SECONDS)
        self._authentications = self._counter(catalog.AUTHENTICATIONS)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(
            metric.name, metric.meaning, metric.labels, registry=self.registry
        )

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.meaning, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(
            metric.name,
            metric.meaning,
            metric.labels,
            registry=self.registry,
            buckets=metric.buckets,
        )

    # --- replication.replica.observer.Observer

    def proposing(self, change: int) -> None:
        """Add *change* to the number of waiting proposals."""
        self._proposals.inc(change)

    def proposed(self, outcome: str, seconds: float) -> None:
        """Record the outcome of a proposal."""
        self._proposal_seconds.labels(outcome).observe(seconds)

    def forwarding(self) -> None:
        """Count a call that is forwarded to the primary."""
        self._forwards.inc()

    def synced(self, seconds: float) -> None:
        """Record one sync of the journal."""
        self._sync_seconds.observe(seconds)

    def primary_changed(self) -> None:
        """Count a change of the primary."""
        self._primary_changes.inc()

    def snapshot(self, work: str, seconds: float) -> None:
        """Record a snapshot that was taken or fetched."""
        self._snapshot_seconds.labels(work).observe(seconds)

    def snapshot_failed(self) -> None:
        """Count a snapshot that could not be taken or fetched."""
        self._snapshot_failures.inc()

    # --- Other layers

    def applied(self, seconds: float) -> None:
        """Record an entry that was applied."""
        self._apply_seconds.observe(seconds)

    def ended(self, call: EndedCall) -> None:
        """Record a call that has ended."""
        listener = call.listener or _LISTENER[call.audience]
        self._calls.labels(listener, call.method, call.code).inc()
        self._call_seconds.labels(listener, call.method).observe(call.seconds)
        if call.decision:
            self._authentications.labels(call.decision).inc()
