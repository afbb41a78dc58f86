# SPDX-License-Identifier: Apache-2.0
"""A node whose disk went back in time is refused, and takes no part any more."""

import asyncio
import copy
import dataclasses
import logging
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.log.boots import Boot, BootFile, Position, Seen
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.offline.inspection import (
    read_journal,
    refused_as_older_copy,
)
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.rollback import (
    REFUSED_S,
    REPEATED,
    SAVE_S,
    Hello,
    Rollbacks,
)
from sparecode_node.replication.replica.replica import Replica
from sparecode_node.statemachine.results import Applied
from tests.replication.bench import Bench, entry
from tests.replication.cluster import Node, put, running
from tests.simulation.disk import Disk

T = TypeVar("T")

BEGAN: Position = (1, 1, 10)


class Watch:
    """What n1 remembers of n2."""

    def __init__(self) -> None:
        self.now = 100.0
        self.level = 2
        self.disk = Disk("n1", random.Random(1))
        self.start()

    def start(self) -> None:
        file = BootFile(self.disk)
        file.open("j1", (0, 0, 1), "n1 nonce")
        members = Configuration.of(Member(node_id=m, address="") for m in ("n1", "n2"))
        journal = type(
            "Journal", (), {"boots": file, "possible_members": set(members.ids)}
        )()
        self.rollbacks = Rollbacks(journal, lambda: self.level, lambda: self.now)

    def accepts(self, *boots: Boot, ends: Position = BEGAN, fresh: bool = True) -> bool:
        hello = Hello("j2", "", boots, ends)
        return self.rollbacks.accepts("n2", hello, fresh=fresh)

    @property
    def seen(self) -> Seen:
        return self.rollbacks.journal.boots.seen["n2"]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def boot(number: int, nonce: str = "", began: Position = BEGAN) -> Boot:
    return Boot(number, nonce or f"nonce {number}", began)


def test_a_node_that_starts_again_with_all_it_had_is_accepted(watch: Watch) -> None:
    assert watch.accepts(boot(1))
    watch.rollbacks.promised("n2", (1, 1, 12))
    assert watch.accepts(boot(1), boot(2, began=(1, 1, 12)))
    assert watch.seen == Seen("j2", 2, "nonce 2", (1, 1, 12))


def test_a_copy_from_before_a_start_is_refused(watch: Watch) -> None:
    assert watch.accepts(boot(1), boot(2), boot(3))
    assert not watch.accepts(boot(1), boot(2))
    assert not watch.accepts(boot(1), boot(2), boot(3, "another nonce"))
    # However often it starts again.
    assert not watch.accepts(boot(1), boot(2), boot(3, "another nonce"), boot(4))


def test_a_copy_of_the_same_start_is_refused_by_what_it_has_lost(watch: Watch) -> None:
    assert watch.accepts(boot(1))
    watch.rollbacks.promised("n2", (1, 1, 12))
    copied = boot(2, began=(1, 1, 11))
    assert not watch.accepts(boot(1), copied)
    later = boot(3, began=(5, 5, 50))
    assert not watch.accepts(boot(1), copied, later)


def test_a_lost_vote_is_noticed(watch: Watch) -> None:
    assert watch.accepts(boot(1))
    watch.rollbacks.promised("n2", (4, 0, 0))
    assert not watch.accepts(boot(1), boot(2, began=(3, 3, 99)))
    assert watch.accepts(boot(1), boot(2, began=(4, 3, 5)))


def test_a_machine_that_resumes_in_the_middle_of_a_start_is_refused(
    watch: Watch,
) -> None:
    """A snapshot with memory: no new start, and an earlier position."""
    assert watch.accepts(boot(1))
    watch.rollbacks.promised("n2", (1, 1, 12))
    assert not watch.accepts(boot(1), ends=(1, 1, 11))
    assert watch.accepts(boot(1), ends=(1, 1, 12))


def test_a_position_that_messages_have_overtaken_does_not_count(watch: Watch) -> None:
    assert watch.accepts(boot(1))
    watch.rollbacks.promised("n2", (1, 1, 12))
    assert watch.accepts(boot(1), ends=(1, 1, 11), fresh=False)


def test_of_two_copies_that_run_one_is_refused(watch: Watch) -> None:
    assert watch.accepts(boot(1), boot(2, "one"))
    assert not watch.accepts(boot(1), boot(2, "other"))
    assert watch.accepts(boot(1), boot(2, "one"))
    assert watch.accepts(boot(1), boot(2, "one"), boot(3, "one"))
    assert not watch.accepts(boot(1), boot(2, "one"))


def test_starts_of_long_ago_are_judged_by_the_position(watch: Watch) -> None:
    assert watch.accepts(boot(1))
    watch.rollbacks.promised("n2", (1, 1, 12))
    assert not watch.accepts(boot(30), boot(31), ends=(1, 1, 11))
    assert watch.accepts(boot(30), boot(31), ends=(1, 1, 12))


def test_an_older_release_shows_no_starts(watch: Watch) -> None:
    """A downgrade within level 1 works; from level 2 on, there is none."""
    watch.level = 1
    assert watch.accepts()
    assert watch.accepts(boot(1))
    assert watch.accepts()
    watch.level = 2
    assert not watch.accepts()


def test_another_journal_is_judged_by_its_name(watch: Watch) -> None:
    assert watch.accepts(boot(5))
    other = Hello("another", "", (boot(1),), BEGAN)
    assert watch.rollbacks.accepts("n2", other, fresh=True)
    assert watch.seen.journal_id == "another"


def test_messages_of_an_earlier_start_are_dropped(watch: Watch) -> None:
    """They may arrive late, and are no reason for an alert."""
    assert watch.accepts(boot(1), boot(2))
    assert not watch.rollbacks.hears("n2", Hello("j2", "", (boot(1),), BEGAN))
    assert watch.rollbacks.refused == []
    assert watch.rollbacks.hears("n2", Hello("j2", "", (boot(1), boot(2)), BEGAN))


def test_a_guest_costs_no_sync(watch: Watch) -> None:
    """It could begin link after link, each with another start."""
    syncs: list[object] = []
    watch.disk.sync = syncs.append  # type: ignore[method-assign]
    for number in range(1, 4):
        hello = Hello("j9", "", (boot(number),), BEGAN)
        assert watch.rollbacks.accepts("n9", hello, fresh=True)
    assert syncs == []
    assert not watch.rollbacks.hears("n9", Hello("j9", "", (boot(2),), BEGAN))
    assert watch.accepts(boot(1))
    assert len(syncs) == 1


@pytest.mark.parametrize("heard", [False, True])
def test_a_refused_node_is_reported_while_it_tries(
    watch: Watch, caplog: pytest.LogCaptureFixture, *, heard: bool
) -> None:
    """Also an older copy that runs beside the original, which is heard all the time."""
    assert watch.accepts(boot(2))
    for _ in range(2 * REPEATED):
        assert not watch.accepts(boot(1))
        assert not heard or watch.rollbacks.hears("n2", Hello("j2", "", (boot(2),)))
        watch.now += 0.1
    assert [r.message for r in caplog.records] == ["older_copy_refused"]
    assert watch.rollbacks.refused == ["n2"]
    watch.now += REFUSED_S
    assert watch.rollbacks.refused == []
    assert not watch.accepts(boot(1))
    assert watch.rollbacks.refused == []


@pytest.mark.parametrize("number", [1, 2])
def test_calls_that_come_late_are_no_reason_for_an_alert(
    watch: Watch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """They are of an earlier start, or of earlier links of this start, a few at most."""
    assert watch.accepts(boot(1), boot(2))
    watch.rollbacks.promised("n2", (1, 1, 12))
    starts = tuple(boot(n) for n in range(1, number + 1))
    for _ in range(3):
        for _ in range(REPEATED - 1):
            assert not watch.accepts(*starts)
        watch.now += REFUSED_S + 1
    assert (caplog.records, watch.rollbacks.refused) == ([], [])


def test_promises_of_a_member_whose_removal_is_taken_back_are_remembered(
    bench: Bench,
) -> None:
    """Until a removal is committed, another leader may cut it off."""
    journal, seen = bench.engine.journal, Seen("j2", 1, "nonce 1", (1, 1, 11))
    journal.boots.seen["n2"] = seen
    both = journal.configuration
    bench.engine.append_configuration(both.without(NodeId("n2")))
    bench.engine.rollbacks.promised("n3", (1, 1, 1))
    bench.engine.rollbacks._save(sync=False)
    assert "n2" not in journal.configuration.ids
    bench.start()
    assert bench.engine.journal.boots.seen["n2"] == seen


def test_what_a_guest_has_promised_is_written_when_it_is_a_member(
    bench: Bench,
) -> None:
    """Its later messages may promise no more than that."""
    engine = bench.engine
    shown, promise = Hello("j4", "", (boot(1),), BEGAN), (1, 1, 11)
    assert engine.rollbacks.accepts("n4", shown)

    def hear() -> None:
        engine.rollbacks.promised("n4", promise)
        bench.now += SAVE_S
        engine.rollbacks.step()

    hear()
    guest = Member(node_id=NodeId("n4"), address="n4:1", journal_id="j4")
    engine.append_configuration(engine.journal.configuration.with_member(guest))
    hear()
    bench.start()
    assert bench.engine.journal.boots.seen["n4"].promised == promise


def test_promises_are_remembered_over_a_restart(watch: Watch) -> None:
    """A start is synced; promises are written at most once a second, without a sync."""
    assert watch.accepts(boot(1))
    for index in range(11, 14):
        watch.rollbacks.promised("n2", (1, 1, index))
        watch.rollbacks.step()
    watch.start()
    assert watch.seen == Seen("j2", 1, "nonce 1", (1, 1, 11))
    watch.rollbacks.promised("n2", (1, 1, 14))
    watch.now += SAVE_S
    watch.rollbacks.step()
    watch.start()
    assert watch.seen.promised == (1, 1, 14)
    watch.disk.lose_power()
    watch.start()
    assert watch.seen.number == 1


def test_no_sync_is_added_to_an_acknowledgement(bench: Bench) -> None:
    term = bench.lead()
    shown = Hello("j2", "", (boot(1),), BEGAN)
    assert bench.replica.refusal_of_link("n2", shown) is None
    syncs: list[str] = []
    sync = bench.disk.sync
    bench.disk.sync = lambda file: (syncs.append("sync"), sync(file))[1]  # type: ignore[method-assign]
    bench.propose("r")
    bench.tick()
    assert len(syncs) == 1
    ack = {"reset": False, "success": True, "term": term}
    last = bench.engine.journal.last_index
    message = {"type": frames.NEXT_NODE_IDX, "next_node_idx": last + 1, **ack}
    bench.guard.receive("n2", message, shown)
    bench.tick(5.0)
    assert len(syncs) == 1
    assert bench.engine.journal.boots.seen["n2"].promised == (term, term, last)


def test_a_refused_node_neither_votes_nor_acknowledges_nor_leads(
    bench: Bench,
) -> None:
    bench.lead()
    outcomes = bench.propose("r")
    bench.tick()
    bench.replica.hear_nothing("n2")
    assert not bench.engine.is_leader()
    assert isinstance(outcomes[0], Exception)
    for _ in range(2):
        bench.take()
        bench.receive(
            "n2", frames.REQUEST_VOTE, term=9, last_log_index=99, last_log_term=8
        )
        bench.append("n2", 9, (1, 0), entry(2, 9))
        bench.tick(5.0)
        bench.tick(5.0)
        assert [m["type"] for _, m in bench.take()] == []
        assert bench.engine.raftCurrentTerm < 9
        assert bench.replica.status().refused_by == "n2"
        bench.lose_power()


def test_a_refused_node_sends_no_acknowledgement_that_it_holds(bench: Bench) -> None:
    bench.append("n2", 3, (1, 0), entry(2, 3))
    bench.replica.hear_nothing("n3")
    bench.tick()
    assert bench.take(frames.NEXT_NODE_IDX) == []


def test_a_message_of_an_older_copy_does_not_count(bench: Bench) -> None:
    """It may wait for the engine when the link of a newer start begins."""
    original = Hello("j2", "", (boot(1), boot(2)), BEGAN)
    assert bench.replica.refusal_of_link("n2", original) is None
    vote = {"type": frames.REQUEST_VOTE, "last_log_index": 9, "last_log_term": 9}
    for term, copied in (
        (7, Hello("j2", "", (boot(1),), BEGAN)),
        (8, Hello("j2", "", (boot(1), boot(2, "another nonce")), BEGAN)),
    ):
        bench.guard.receive("n2", {**vote, "term": term}, copied)
        assert bench.engine.raftCurrentTerm < term
    assert bench.guard.dropped == {Refusal.ROLLED_BACK: 2}
    bench.guard.receive("n2", {**vote, "term": 9}, original)
    assert bench.engine.raftCurrentTerm == 9


def test_a_follower_tells_what_it_has_acknowledged(bench: Bench) -> None:
    bench.append("n2", 3, (1, 0), entry(2, 3))
    bench.receive("n3", frames.ASK_CLOCK, round=1)
    bench.tick()
    bench.receive("n3", frames.ASK_CLOCK, round=2)
    told = [m for _, m in bench.take(frames.TELL_CLOCK)]
    promises = [(m["term"], m["entry_term"], m["entry_index"]) for m in told]
    assert promises == [(3, 0, 0), (3, 3, 2)]
    assert bench.engine.hello().position == (3, 3, 2)


# --- Real processes' parts: files, sockets, certificates


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - of another thread.
            await asyncio.sleep(0.02)


async def write(nodes: list[Node], name: str) -> None:
    """Write; try again while there is no primary."""
    assert isinstance(await put(nodes[0], name), Applied)


async def asked(node: Node, job: Callable[[Replica], T]) -> T:
    """Return what the engine's thread says."""
    result = await node.replicator._engine.run(job, timeout_s=60)
    return cast("T", result)


async def until_heard(node: Node, of: NodeId, promised: Position) -> None:
    """Return when a node has heard what another one has promised."""

    def heard(replica: Replica) -> bool:
        seen = replica._journal.boots.seen.get(of)
        return seen is not None and seen.promised >= promised

    async with asyncio.timeout(60):
        while not await asked(node, heard):  # noqa: ASYNC110 - of another thread.
            await asyncio.sleep(0.02)


@pytest.mark.asyncio
async def test_a_restored_disk_is_refused_by_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The copy is of the files of a running node, as a machine's snapshot has them."""
    async with running(tmp_path) as nodes:
        await write(nodes, "first")
        old = next(n for n in nodes if not n.replicator.replica_status.is_leader)
        others = [n for n in nodes if n is not old]
        await until(lambda: old.state.applied_index >= 3)
        saved, state = tmp_path / "saved", copy.deepcopy(old.state)
        shutil.copytree(old.config.directory, saved)
        await write(others, "second")
        await until(lambda: "second" in old.state.results)
        promised = (await asked(old, lambda replica: replica.hello())).position
        for node in others:  # The other replica hears of it once a second.
            await until_heard(node, old.node_id, promised)
        await old.stop()
        shutil.rmtree(old.config.directory)
        saved.rename(old.config.directory)
        old.state = state
        with caplog.at_level(logging.ERROR):
            await old.start()
            await until(lambda: old.replicator.replica_status.refused_by)
        assert not old.replicator.ready
        assert old.replicator.primary is None
        member = old.replicator.replica_status.refused_by
        directory = old.config.directory
        assert refused_as_older_copy(directory, read_journal(directory)) == member
        other = dataclasses.replace(read_journal(directory), journal_id="another")
        assert refused_as_older_copy(directory, other) == ""
        assert old.replicator.refusals[NodeId(member)] == Refusal.ROLLED_BACK
        for other in others:
            await until(
                lambda o=other: (
                    o.replicator.replica_status.older_copies == (old.node_id,)
                )
            )
        logged = {record.message for record in caplog.records}
        assert {"restored_from_older_copy", "older_copy_refused"} <= logged
        await write(others, "third")
        # A restart changes nothing.
        await old.stop()
        await old.start()
        assert old.replicator.replica_status.refused_by
        await asyncio.sleep(0.5)
        assert not old.replicator.ready
        assert "second" not in old.state.results


@pytest.mark.asyncio
async def test_a_restart_of_every_node_is_no_rollback(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        for round_number in range(2):
            for node in nodes:
                await write(nodes, f"{round_number} {node.node_id}")
                await node.stop()
                await node.start()
        await write(nodes, "last")
        await until(lambda: all("last" in n.state.results for n in nodes))
        for node in nodes:
            status = node.replicator.replica_status
            assert (status.refused_by, status.older_copies) == ("", ())
            boots = await asked(node, lambda replica: len(replica.hello().boots))
            assert boots == 3


def test_the_refusal_says_what_to_do() -> None:
    assert Refusal.ROLLED_BACK == "restored from an older copy"
