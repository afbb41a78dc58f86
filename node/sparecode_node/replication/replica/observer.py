# SPDX-License-Identifier: Apache-2.0
"""
What replication reports while it works, for metrics.

Durations are for people and never decide anything, so they come from their own clock
and not from the engine's.
"""

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import NotAppliedError, OutcomeUnknownError
from sparecode_node.replication.log import file as journal_file
from sparecode_node.replication.log.storage import AppendFile, DirectoryStorage

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Receives the reports, in any thread; never raises."""

    def proposing(self, change: int) -> None:
        """Add *change* to the number of proposals that wait for their outcome."""

    def proposed(self, outcome: str, seconds: float) -> None:
        """Record a proposal's outcome: applied, not_applied, unknown, given_up."""

    def forwarding(self) -> None:
        """Count a call that is forwarded to the primary."""

    def synced(self, seconds: float) -> None:
        """Record one sync of the journal."""

    def primary_changed(self) -> None:
        """Count a change of the primary, as far as this node knows."""

    def snapshot(self, work: str, seconds: float) -> None:
        """Record a snapshot that was taken or fetched."""

    def snapshot_failed(self) -> None:
        """Count a snapshot that could not be taken or fetched."""


class Unobserved:
    """An `Observer` that does nothing."""

    def proposing(self, change: int) -> None:
        """Do nothing."""

    def proposed(self, outcome: str, seconds: float) -> None:
        """Do nothing."""

    def forwarding(self) -> None:
        """Do nothing."""

    def synced(self, seconds: float) -> None:
        """Do nothing."""

    def primary_changed(self) -> None:
        """Do nothing."""

    def snapshot(self, work: str, seconds: float) -> None:
        """Do nothing."""

    def snapshot_failed(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def proposal_observed(observer: Observer) -> Iterator[None]:
    """Report how the proposal inside ends, and how long it took."""
    began, outcome = time.perf_counter(), "given_up"
    observer.proposing(1)
    try:
        yield
        outcome = "applied"
    except OutcomeUnknownError:
        outcome = "unknown"
        raise
    except NotAppliedError:
        outcome = "not_applied"
        raise
    finally:
        observer.proposing(-1)
        observer.proposed(outcome, time.perf_counter() - began)


@contextlib.contextmanager
def snapshot_observed(observer: Observer, work: str) -> Iterator[None]:
    """Report how long the work inside took, if it succeeds."""
    began = time.perf_counter()
    yield
    observer.snapshot(work, time.perf_counter() - began)


class ObservedStorage(DirectoryStorage):
    """A directory that reports every sync of the journal."""

    def __init__(self, directory: Path, observer: Observer) -> None:
        super().__init__(directory)
        self._observer = observer

    def append_to(self, name: str) -> AppendFile:
        """Open a file for appending."""
        file = super().append_to(name)
        if not name.startswith(journal_file.NAME):
            return file
        return _ObservedFile(file, self._observer)


class _ObservedFile:
    def __init__(self, file: AppendFile, observer: Observer) -> None:
        self._file = file
        self._observer = observer
        self.append = file.append
        self.close = file.close

    def sync(self) -> None:
        began = time.perf_counter()
        self._file.sync()
        self._observer.synced(time.perf_counter() - began)


class PrimaryWatch:
    """Logs each change of the primary, as this node hears of it, and reports it."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._last: NodeId | None = None
        self._known = False

    def take(self, primary: NodeId | None, term: int) -> None:
        """Record the current primary."""
        if primary is None:
            if self._known:
                log.info("primary_lost", extra={"before": self._last, "term": term})
            self._known = False
            return
        self._known = True
        if primary == self._last:
            return
        log.info(
            "primary_changed",
            extra={"primary": primary, "before": self._last or "", "term": term},
        )
        self._last = primary
        self._observer.primary_changed()
