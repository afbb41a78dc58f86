# SPDX-License-Identifier: Apache-2.0
"""`ClusterReplicator`s over real gRPC, in one process."""

import asyncio
import itertools
import os
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import ArchiveReport
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.calls.peer_messages import proposal_of
from sparecode_node.replication.codec import encode_call
from sparecode_node.replication.errors import (
    ChangeRefusedError,
    MalformedCallError,
    NoPrimaryError,
    NoQuorumError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
    StartRefusedError,
)
from sparecode_node.replication.log.file import MARK, NAME
from sparecode_node.replication.settings import WINDOW_ENTRIES
from sparecode_node.services.ambient import SystemClock
from sparecode_node.statemachine.results import Applied
from tests.replication.cluster import (
    FOR_NOW,
    Node,
    caught_up,
    outcome,
    put,
    ready,
    running,
    until,
)
from tests.replication.recording_state import RecordingState, call, proposal

pytestmark = pytest.mark.asyncio

WAIT_S = 60

HANDED_OVER = 4
"""This often, the primary becomes another one when it hands over under load."""


async def settled(nodes: list[Node]) -> tuple[Node, list[Node]]:
    """Return the primary and the replicas, when there are any."""
    for node in nodes:
        await ready(node)
    await put(nodes[0], f"settle-{nodes[0].state.applied_index}")
    for node in nodes:
        await caught_up(node)
    async with asyncio.timeout(WAIT_S):
        await until(lambda: any(node.replicator.led_term for node in nodes))
    primary = next(node for node in nodes if node.replicator.led_term)
    return primary, [node for node in nodes if node is not primary]


async def alone(node: Node) -> None:
    """Return when a node knows of no primary, and that it is not linked to a quorum."""

    def is_alone() -> bool:
        status = node.replicator.replica_status
        return status.leader is None and not status.links_quorum

    async with asyncio.timeout(WAIT_S):
        await until(is_alone)


async def propose_digits(node: Node, request_id: str) -> None:
    """Propose a call with tokencodes, which the primary matches."""
    digits = replace(proposal(request_id, node.node_id), tokencodes=("123456",))
    await outcome(lambda: node.replicator.propose(digits, timeout_s=WAIT_S))


async def test_tokencodes_are_matched_on_the_primary_off_the_engines_thread(
    tmp_path: Path,
) -> None:
    """(T1, A6) A long search must not hold heartbeats and other calls up."""
    async with running(tmp_path) as nodes:
        for attempt in itertools.count():
            primary, replicas = await settled(nodes)
            term = primary.replicator.led_term
            for node in nodes:
                node.stamper.matched_in.clear()
            for node in nodes:
                await propose_digits(node, f"digits {attempt}")
            if primary.replicator.led_term == term:
                break  # Otherwise an election came between, and another one matched.
        # A node sends a call again that a busy primary has not answered for long.
        assert len(primary.stamper.matched_in) >= len(nodes)
        assert all(name.startswith("matching") for name in primary.stamper.matched_in)
        assert not any(replica.stamper.matched_in for replica in replicas)


async def test_calls_from_any_node_are_applied_on_all(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        results = await asyncio.gather(
            *(put(node, f"{node.node_id}-{k}") for node in nodes for k in range(20))
        )
        assert all(isinstance(result, Applied) for result in results)
        for node in nodes:
            await caught_up(node)
            assert len(node.state.results) == 60
        assert len({node.state.digest() for node in nodes}) == 1
        assert max(len(calls) for _, calls in nodes[0].state.entries) > 10


async def test_a_barrier_covers_what_was_committed_before(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        primary, (replica, _) = await settled(nodes)
        for k in range(20):
            done = await put(primary, f"r{k}")
            barrier = await caught_up(replica)
            assert isinstance(done, Applied)
            assert barrier.index >= done.index
            assert f"r{k}" in replica.state.results


async def test_concurrent_barriers_are_shared(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        _, (replica, _) = await settled(nodes)
        passed = await asyncio.gather(*(caught_up(replica) for _ in range(200)))
        assert len({barrier.index for barrier in passed}) == 1


async def test_a_read_leaves_nothing_in_the_log(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        primary, _ = await settled(nodes)
        before = primary.state.applied_index
        for node in nodes:
            barrier = await caught_up(node)
            assert before <= barrier.index <= node.state.applied_index
        # An election leaves an entry without calls.
        later = [calls for at, calls in primary.state.entries if at > before]
        assert not any(later)


async def test_the_time_of_a_read_is_not_before_that_of_the_state(
    tmp_path: Path,
) -> None:
    """A primary whose clock is behind uses the time of the committed state (T5)."""
    async with running(tmp_path) as nodes:
        primary, replicas = await settled(nodes)
        ahead = SystemClock().now_ms() + 3_600_000
        for node in nodes:
            node.state.now_ms = ahead
        for node in (primary, *replicas):
            barrier = await caught_up(node)
            assert barrier.at_ms == ahead


async def test_calls_complete_when_the_primary_stops(tmp_path: Path) -> None:
    """Calls under way are retried with their ids: applied once."""
    async with running(tmp_path) as nodes:
        primary, (replica, _) = await settled(nodes)

        async def work(k: int) -> None:
            assert isinstance(await put(replica, f"w{k}"), Applied)

        works = [asyncio.create_task(work(k)) for k in range(50)]
        await asyncio.gather(*works[:5])
        works += [asyncio.create_task(work(k)) for k in range(50, 100)]
        await primary.stop()
        await asyncio.gather(*works)
        works = [asyncio.create_task(work(k)) for k in range(100, 120)]
        await asyncio.gather(*works)
        await primary.start()
        for node in nodes:  # Also one that answered no call may be behind.
            await caught_up(node)
        assert {f"w{k}" for k in range(120)} <= set(primary.state.results)
        assert len({node.state.digest() for node in nodes}) == 1


async def test_a_cluster_comes_back_with_everything(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        await settled(nodes)
        results = {node.node_id: dict(node.state.results) for node in nodes}
        for node in nodes:
            await node.stop()
        nodes[0].state = RecordingState()  # As after a power cut.
        for node in nodes:
            await node.start()
        await settled(nodes)
        for node in nodes:
            assert results[node.node_id].items() <= node.state.results.items()


async def test_without_a_quorum_nothing_is_applied_or_guessed(
    tmp_path: Path,
) -> None:
    """A call is applied, or not, or the caller learns that it is unknown (A7)."""
    async with running(tmp_path) as nodes:
        primary, replicas = await settled(nodes)
        assert primary.replicator.ready
        for replica in replicas:
            await replica.stop()
        with pytest.raises((NoQuorumError, NoPrimaryError, OutcomeUnknownError)):
            await primary.replicator.propose(proposal("lost"), timeout_s=2)
        await alone(primary)
        assert not primary.replicator.ready
        with pytest.raises(NoQuorumError):
            await primary.replicator.propose(proposal("refused"), timeout_s=0.2)
        with pytest.raises(NoQuorumError):
            await primary.replicator.read_barrier(timeout_s=0.2)
        for replica in replicas:
            await replica.start()
        await settled(nodes)
        assert "refused" not in primary.state.results


async def test_a_replica_left_alone_names_no_primary(tmp_path: Path) -> None:
    """It knows that there is no quorum, and does not send callers to a dead node."""
    async with running(tmp_path) as nodes:
        primary, (replica, other) = await settled(nodes)
        await primary.stop()
        await other.stop()
        with pytest.raises((NoQuorumError, NoPrimaryError, OutcomeUnknownError)):
            await replica.replicator.propose(proposal("lost"), timeout_s=2)
        await alone(replica)
        with pytest.raises(NoQuorumError):
            await replica.replicator.propose(proposal("refused"), timeout_s=0.2)
        await primary.start()
        await other.start()
        await settled(nodes)
        assert "refused" not in replica.state.results


async def test_one_retry_finds_the_answer_of_the_first_try(tmp_path: Path) -> None:
    """The answer is remembered with the request id, on every node (Q2)."""
    async with running(tmp_path) as nodes:
        first = [await put(node, "same") for node in nodes]
        assert first[0] == first[1] == first[2]


async def test_every_member_tells_how_far_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        primary, replicas = await settled(nodes)
        await replicas[1].stop()
        mine, *others = await replicas[0].replicator.status(
            digest=True, timeout_s=WAIT_S
        )
        assert mine.node_id == replicas[0].node_id
        by_id = {status.node_id: status for status in (mine, *others)}
        assert by_id[primary.node_id].is_primary
        assert by_id[primary.node_id].digest == mine.digest != ""
        assert by_id[primary.node_id].clock_ms > 0
        assert by_id[primary.node_id].version == "1"
        for node in (primary, replicas[0]):  # Each tells its own (U1).
            report = by_id[node.node_id]
            assert report.audit_head == f"head of {node.node_id}"
            assert report.audit_sequence == node.state.applied_index
        assert not by_id[replicas[1].node_id].reachable
        await replicas[1].start()


async def test_members_tell_the_others_of_their_archives(tmp_path: Path) -> None:
    """(U2) An archive that does not work is seen wherever the status is asked for."""
    async with running(tmp_path) as nodes:
        primary, (replica, other) = await settled(nodes)
        told = {
            primary.node_id: ArchiveReport(place="/srv", problem="No space left"),
            replica.node_id: ArchiveReport(place="/mnt"),
            other.node_id: None,
        }
        for node in (primary, replica):
            await node.stop()
            node.config = replace(node.config, archive=partial(told.get, node.node_id))
            await node.start()
        await settled(nodes)
        async with asyncio.timeout(WAIT_S):
            for node in nodes:
                while (seen := await archives_told_to(node)) != told:
                    pass  # A member that is being reached again does not answer yet.
                assert seen == told


async def archives_told_to(node: Node) -> dict[NodeId, ArchiveReport | None]:
    """Return what the members that answer a node say of their archives."""
    report = await node.replicator.status(digest=False, timeout_s=WAIT_S)
    return {each.node_id: each.archive for each in report}


async def test_states_are_read_on_all_members_at_one_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other, no two would be at one index while calls come in."""
    together = threading.Barrier(3, timeout=WAIT_S)

    def digest() -> str:
        together.wait()
        return "of the state"

    async with running(tmp_path) as nodes:
        _, (replica, _) = await settled(nodes)
        for node in nodes:
            monkeypatch.setattr(node.state, "digest", digest)
        report = await replica.replicator.status(digest=True, timeout_s=WAIT_S / 2)
        assert [member.digest for member in report] == 3 * ["of the state"]


async def test_concurrent_digests_share_one_read_of_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes seconds: many reads would use up the threads."""
    release, reads = threading.Event(), 0

    def digest() -> str:
        nonlocal reads
        reads += 1
        release.wait(WAIT_S)
        return "of the state"

    async with running(tmp_path) as nodes:
        _, (replica, _) = await settled(nodes)
        monkeypatch.setattr(replica.state, "digest", digest)
        asking = [
            asyncio.create_task(
                replica.replicator.status(digest=True, timeout_s=WAIT_S)
            )
            for _ in range(20)
        ]
        await asyncio.sleep(0)
        release.set()
        report = await asyncio.gather(*asking)
    assert {mine.digest for mine, *_ in report} == {"of the state"}
    assert reads <= 2


async def test_a_broken_state_stops_the_node_and_says_why(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        _, (replica, other) = await settled(nodes)
        report = asyncio.Event()

        def fatal(message: str) -> None:
            messages.append(message)
            report.set()

        messages: list[str] = []
        await replica.stop()
        replica.fatal = messages
        replica.on_fatal = fatal
        await replica.start()
        replica.state.applied_index += 1  # Its database was tampered with.
        await put(other, "x")
        async with asyncio.timeout(WAIT_S):
            await report.wait()
        assert "applying entry" in messages[0]
        assert not replica.replicator.ready
        with pytest.raises(NoPrimaryError):
            await replica.replicator.propose(proposal("y"), timeout_s=0.2)
        messages.clear()


async def test_a_node_without_its_journal_does_not_start(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        await settled(nodes)
        node = nodes[0]
        await node.stop()
        (tmp_path / node.node_id / NAME).unlink()
        with pytest.raises(StartRefusedError, match="the journal is missing"):
            await node.start()


async def test_a_node_with_a_cut_journal_does_not_start(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        await settled(nodes)
        node = nodes[0]
        path = tmp_path / node.node_id / NAME
        before = path.stat().st_size
        # The state holds this entry, and the cut removes it and all later ones.
        await put(node, "lost")
        await caught_up(node)
        await node.stop()
        os.truncate(path, before + 10)
        with pytest.raises(StartRefusedError, match="was on disk"):
            await node.start()
        # A power cut may take the mark back, but not the state before the journal.
        (tmp_path / node.node_id / MARK).unlink()
        with pytest.raises(StartRefusedError, match="acknowledged entries are missing"):
            await node.start()


async def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        twin = Node("n1", dict(nodes[0].members), nodes[0].config.tls, tmp_path / "n1")
        with pytest.raises(StartRefusedError, match="another process"):
            await twin.start()


async def test_a_cluster_of_one_works(tmp_path: Path) -> None:
    async with running(tmp_path, count=1) as [node]:
        done = await put(node, "r")
        barrier = await caught_up(node)
        assert done == Applied(index=barrier.index)


async def test_the_engine_stops_even_if_the_network_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fixture `stopped_engines` sees whether it does."""
    async with running(tmp_path, count=1) as [node]:
        transport = node.replicator._transport
        stop_transport = transport.stop

        async def fail() -> None:
            await stop_transport()
            raise OSError("the network is stuck")

        monkeypatch.setattr(transport, "stop", fail)
        with pytest.raises(OSError, match="stuck"):
            await node.stop()


async def test_callers_are_answered_while_the_engine_is_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a disk that does not answer, say (A7)."""
    async with running(tmp_path, count=1) as [node]:
        await caught_up(node)
        release, apply = threading.Event(), node.state.apply

        def slow(index: int, calls: Any) -> Any:
            release.wait(WAIT_S)
            return apply(index, calls)

        monkeypatch.setattr(node.state, "apply", slow)
        try:
            with pytest.raises(OutcomeUnknownError):
                await node.replicator.propose(proposal("r"), timeout_s=0.2)
        finally:
            release.set()
        retried = await put(node, "r")
        assert retried == node.state.results["r"]


async def test_a_node_that_was_away_catches_up(tmp_path: Path) -> None:
    """It lacks more than fits into the window of a follower."""
    async with running(tmp_path) as nodes:
        primary, (replica, away) = await settled(nodes)
        await away.stop()
        for k in range(2 * WINDOW_ENTRIES):
            await put(primary, f"{k}" + 200 * "x")
        await away.start()
        for node in (away, replica):
            await caught_up(node)
        assert len(away.state.results) >= 2 * WINDOW_ENTRIES
        assert away.state.digest() == replica.state.digest()


def is_of_earlier_loop(context: dict[str, Any]) -> bool:
    """
    Return whether a late event of a test before failed here.

    gRPC has one queue of events for all loops of a process, and the loop that reads it
    raises if an event's own loop is closed (`PollerCompletionQueue._handle_events`).
    """
    return "PollerCompletionQueue" in context["message"] and (
        str(context.get("exception")) == "Event loop is closed"
    )


async def test_callers_who_go_away_do_no_harm(tmp_path: Path) -> None:
    """The answer to a cancelled call breaks nothing: the other callers get theirs."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: is_of_earlier_loop(context) or failures.append(context)
    )
    async with running(tmp_path) as nodes:
        primary, _ = await settled(nodes)
        tasks = [asyncio.create_task(put(primary, f"c{k}")) for k in range(50)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in results[::2])
        assert all(isinstance(each, Applied) for each in results[1::2])
        await settled(nodes)
    assert failures == []


async def test_a_call_that_is_too_large_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        with pytest.raises(ValueError, match="too large"):
            await nodes[0].replicator.propose(proposal("x" * 30_000), timeout_s=1)


async def test_a_member_forwards_only_calls_of_its_own() -> None:
    request = peers_pb2.ForwardRequest(call=encode_call(call("r", "n2")))
    assert proposal_of(NodeId("n2"), request).call.node_id == "n2"
    with pytest.raises(MalformedCallError, match="a call of n2 comes from n3"):
        proposal_of(NodeId("n3"), request)
    with pytest.raises(MalformedCallError):
        proposal_of(NodeId("n2"), peers_pb2.ForwardRequest(call=b"\xff"))


async def test_the_primary_hands_over_under_load_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    """
    Through any node. Calls wait for the new primary; no outcome is unknown.

    Unless there are elections besides, on a busy machine.
    """
    async with running(tmp_path) as nodes:
        primary, (replica, other) = await settled(nodes)
        first_term = primary.replicator.led_term or 0
        failures: list[ProposeError] = []

        async def work(k: int) -> None:
            node = nodes[k % 3]
            for j in range(10):
                try:
                    result = await node.replicator.propose(
                        proposal(f"w{k}-{j}", node.node_id), timeout_s=WAIT_S
                    )
                except FOR_NOW as error:
                    failures.append(error)
                    result = await put(node, f"w{k}-{j}")
                assert isinstance(result, Applied)

        async def hand_over(calls: Node, target: Node) -> NodeId:
            return await outcome(
                lambda: calls.replicator.transfer_primary(
                    target.node_id, timeout_s=WAIT_S
                )
            )

        works = [asyncio.create_task(work(k)) for k in range(30)]
        for calls, target in (
            (primary, replica),
            (primary, other),
            (replica, primary),
            (primary, primary),
        ):
            leads = await hand_over(calls, target)
            assert leads == target.node_id
        assert await other.replicator.transfer_primary(timeout_s=WAIT_S) != leads
        await asyncio.gather(*works)
        for node in nodes:
            await caught_up(node)
        assert len({node.state.digest() for node in nodes}) == 1
        last_term = max(node.replicator.replica_status.term for node in nodes)
        if last_term - first_term == HANDED_OVER:  # There was no other election.
            assert {type(each) for each in failures} <= {OverloadedError}


async def test_a_hand_over_to_an_absent_member_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        primary, (replica, other) = await settled(nodes)
        await other.stop()
        for calls in (primary, replica):
            with pytest.raises(ChangeRefusedError) as refused:
                await calls.replicator.transfer_primary(other.node_id, timeout_s=WAIT_S)
            assert refused.value.rejected.reason is Reason.MEMBER_NOT_READY
        with pytest.raises(ChangeRefusedError) as refused:
            await replica.replicator.transfer_primary(NodeId("n9"), timeout_s=WAIT_S)
        assert refused.value.rejected.reason is Reason.MEMBER_UNKNOWN
        assert primary.replicator.primary == primary.node_id
        await other.start()
