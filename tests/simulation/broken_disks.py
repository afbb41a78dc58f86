# SPDX-License-Identifier: Apache-2.0
"""The same, of disks: what a machine promises from, waits for, or has lost."""

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sparecode_node.replication.log import boots
from sparecode_node.replication.log.boots import NOWHERE, Seen
from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.log.journal import Journal, open_journal
from sparecode_node.replication.members import Configuration
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.settings import RaftSettings
from tests.simulation.broken_runs import THREE, breaks
from tests.simulation.disk import Disk
from tests.simulation.files.kernel import Folder
from tests.simulation.files.rot import check_started
from tests.simulation.files.store import LOG, check_log
from tests.simulation.invariants import Invariants
from tests.simulation.nodes.engines import check_applied, check_sync
from tests.simulation.nodes.speeds import Speed
from tests.simulation.nodes.turns import MOST_S, Turns, Writing, check_turns
from tests.simulation.starts import JudgedRollbacks, judged_fence
from tests.simulation.written_journals import check_file


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


@breaks("promises are on disk")
def a_start_of_a_member_that_counts_before_it_is_on_disk() -> Invariants:
    seen, known = Invariants(), Seen("journal of n2", 1, "one", NOWHERE)
    writing, starts = disk(seen), {"n2": known, "n4": known}
    writing.rename("journal", boots.NAME)
    writing.sync_directory()
    journal: Any = SimpleNamespace(
        boots=SimpleNamespace(seen=starts), configuration=THREE
    )

    def hears(peer: str, _hello: Hello) -> bool:
        writing.append_to(boots.NAME).append(peer.encode())
        starts[peer] = replace(known, number=2)
        return True

    rollbacks: Any = SimpleNamespace(journal=journal, hears=hears)
    one = machine(seen, disk=writing, journal=journal)
    judged, hello = JudgedRollbacks(one, rollbacks), Hello("journal of n2")
    assert judged.hears("n4", hello)
    assert not seen.violations  # A guest, whose start is kept in memory.
    assert judged.hears("n2", hello)
    return seen


@breaks("promises are on disk")
def a_refusal_that_counts_before_it_is_on_disk() -> Invariants:
    seen = Invariants()
    writing, file = disk(seen), SimpleNamespace(refused_by="")
    writing.rename("journal", boots.NAME)
    writing.sync_directory()
    one = machine(seen, disk=writing, journal=SimpleNamespace(boots=file))
    with judged_fence(one):
        file.refused_by = "n2"
    assert not seen.violations
    with judged_fence(one):
        writing.append_to(boots.NAME).append(b"n3")
    assert not seen.violations  # It was refused before.
    file.refused_by = ""
    with judged_fence(one):
        file.refused_by = "n2"
    return seen


def shortened(seen: Invariants) -> tuple[Journal, Disk]:
    """Return a journal that has begun again, in another file."""
    writing = disk(seen)
    journal = open_journal(
        writing, Identity("cluster", "n1"), THREE, must_exist=False, salt=bytes(16)
    )
    journal.setCurrentTerm(1, "n2")
    for index in range(2, 5):
        journal.add(b"entry", index, 1)
    journal.sync()
    journal.committed = 3
    shortening = journal.shorten(3)
    journal.setCurrentTerm(2, "n3")
    shortening.write()
    assert journal.take(shortening)
    check_file(journal, writing)
    assert not seen.violations
    return journal, writing


@breaks("promises are on disk")
def a_journal_whose_new_file_has_an_earlier_vote() -> Invariants:
    journal, writing = shortened(seen := Invariants())
    journal._term = 3
    check_file(journal, writing)
    return seen


@breaks("promises are on disk")
def a_journal_whose_new_file_has_other_members() -> Invariants:
    journal, writing = shortened(seen := Invariants())
    journal._configurations = [(3, Configuration(THREE.members[:2]))]
    check_file(journal, writing)
    return seen


@breaks("promises are on disk")
def a_journal_whose_new_file_begins_elsewhere() -> Invariants:
    journal, writing = shortened(seen := Invariants())
    journal._entries[0] = (b"", 3, 2)
    check_file(journal, writing)
    return seen


@breaks("promises are on disk")
def a_journal_whose_new_file_lacks_an_entry() -> Invariants:
    journal, writing = shortened(seen := Invariants())
    journal.add(b"entry", 5, 2)
    check_file(journal, writing)
    return seen


@breaks("promises are on disk")
def a_log_of_the_state_that_counts_before_it_is_on_disk() -> Invariants:
    seen, folder = Invariants(), Folder(Path("state of n1"))
    folder.tracked(LOG)
    check_log(folder, disk(seen))
    assert not seen.violations
    folder.tracked(LOG).dropped.add(0)
    check_log(folder, disk(seen))
    return seen


@breaks("snapshots in turns")
def snapshots_of_a_majority_at_once() -> Invariants:
    seen = Invariants()
    check_turns(seen, [Writing("n1", 5.0, 6.0), Writing("n2", 5.5, 6.5)], 3)
    return seen


@breaks("snapshots are taken")
def a_member_that_takes_no_snapshot() -> Invariants:
    world = SimpleNamespace(
        now=0.0,
        invariants=Invariants(),
        memberships=SimpleNamespace(belonging=lambda: ["n1", "n2"]),
        nodes={name: node_with_speed() for name in ("n1", "n2")},
        rng=random.Random(1),
        live=lambda: [SimpleNamespace(node_id="n1")],
        probe=lambda *_: None,
    )
    turns = Turns(world, is_drawn=True)

    def step() -> None:
        world.now += 20.0
        turns.wrote("n1", world.now, 0.1)

    world.step = step
    turns.watch()
    assert world.now >= MOST_S
    return world.invariants


def node_with_speed() -> Any:
    """Return a machine whose state is one byte long."""
    speed = Speed.drawn(random.Random(1))
    return SimpleNamespace(store=SimpleNamespace(serialize=lambda: b"s"), speed=speed)


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


@breaks("rot is noticed")
def a_start_with_a_state_ahead_of_its_journal() -> Invariants:
    seen = Invariants()
    starting: Any = SimpleNamespace(node_id="n1", is_up=lambda: True)
    check_started(seen, starting, lacks=False)
    assert not seen.violations
    check_started(seen, starting, lacks=False, is_ahead=True)
    return seen


DISK_RUNS = True
"""Importing this module adds its runs."""
