# SPDX-License-Identifier: Apache-2.0
"""The same, of disks: what a machine promises from, waits for, or has lost."""

import random
from types import SimpleNamespace
from typing import Any

from sparecode_node.replication.settings import RaftSettings
from tests.simulation.broken_runs import breaks
from tests.simulation.disk import Disk
from tests.simulation.files.rot import check_started
from tests.simulation.invariants import Invariants
from tests.simulation.nodes.engines import check_applied, check_sync
from tests.simulation.nodes.turns import Writing, check_turns


def disk(seen: Invariants) -> Disk:
    """Return a disk with a file that is on it, and its name, too."""
    result = Disk("n1", random.Random(1))
    result.violated = seen.violated
    file = result.append_to("journal")
    file.append(b"synced")
    file.sync()
    result.sync_directory()
    return result


@breaks("names of synced bytes")
def a_name_of_unsynced_bytes() -> Invariants:
    seen = Invariants()
    writing = disk(seen)
    writing.append_to("journal").append(b" and not synced")
    writing.rename("journal", "other")
    return seen


@breaks("promises are on disk")
def a_promise_from_unsynced_bytes() -> Invariants:
    seen = Invariants()
    writing = disk(seen)
    writing.check_holds("journal")
    assert not seen.violations
    writing.append_to("journal").append(b" and not synced")
    writing.check_holds("journal")
    return seen


@breaks("promises are on disk")
def a_promise_from_a_name_that_is_not_synced() -> Invariants:
    seen = Invariants()
    writing = disk(seen)
    writing.rename("journal", "other")
    writing.check_holds("other")
    return seen


@breaks("snapshots in turns")
def snapshots_of_a_majority_at_once() -> Invariants:
    seen = Invariants()
    check_turns(seen, [Writing("n1", 5.0, 6.0), Writing("n2", 5.5, 6.5)], 3)
    return seen


def machine(seen: Invariants, **more: Any) -> Any:
    """Return a machine that works on an entry for 10 ms."""
    speed = SimpleNamespace(apply_s=0.01)
    known = {"node_id": "n1", "invariants": seen, "speed": speed}
    return SimpleNamespace(**{**known, **more})


@breaks("engine waits for its journal alone")
def an_engine_that_waits_for_a_snapshot() -> Invariants:
    seen = Invariants()
    writing = disk(seen)
    writing.append_to("snapshot")
    check_sync(machine(seen, disk=writing), writing.names["snapshot"])
    return seen


@breaks("a follower that applies answers")
def a_follower_that_applies_everything_at_once() -> Invariants:
    seen = Invariants()
    check_applied(machine(seen, applied_s=0.2), RaftSettings(), led=True)
    assert not seen.violations
    check_applied(machine(seen, applied_s=0.2), RaftSettings(), led=False)
    return seen


@breaks("rot is noticed")
def a_start_without_a_synced_batch() -> Invariants:
    seen = Invariants()
    starting: Any = SimpleNamespace(node_id="n1", is_up=lambda: True)
    check_started(seen, starting, lacks=True)
    return seen


DISK_RUNS = True
"""Importing this module adds its runs."""
