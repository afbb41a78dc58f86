# SPDX-License-Identifier: Apache-2.0
"""Metrics, census and probes of one node, without a cluster."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import http.client
import json
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from sparecode_node.daemon.metrics.census import DIGEST_AGAIN_S, DIGEST_EVERY_S, Census
from sparecode_node.daemon.metrics.events import EventCounts
from sparecode_node.daemon.metrics.listener import MetricsListener
from sparecode_node.daemon.metrics.measures import Measures
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import (
    NoPrimaryError,
    OutcomeUnknownError,
    StoppingError,
)
from sparecode_node.replication.replica.observer import PrimaryWatch, proposal_observed
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.services.load.condition import DISK_FLOOR_BYTES, Condition, Disk
from sparecode_node.statemachine.audit import AuditLog
from sparecode_node.statemachine.tables.formats import prepare

NOW = dt.datetime(2026, 11, 25, tzinfo=dt.UTC)


@dataclasses.dataclass
class HandClock:
    """A clock that a test sets."""

    ms: int = int(NOW.timestamp() * 1000)
    s: float = 100.0

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.s


N1 = NodeId("n1")


@dataclasses.dataclass
class Members:
    """The part of a replicator that condition and census use."""

    primary: NodeId | None = N1
    ready: bool = True
    answers: tuple[MemberStatus, ...] = ()
    node_id: NodeId = N1
    removed: bool = False
    refusals: dict[NodeId, str] = dataclasses.field(default_factory=dict)
    older_copies: tuple[NodeId, ...] = ()
    initialized: bool = True

    async def status(self, *, digest: bool, timeout_s: float):
        return self.answers


def member(node_id: str, **fields) -> MemberStatus:
    return MemberStatus(node_id=NodeId(node_id), reachable=True, **fields)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def members() -> Members:
    return Members()


@pytest.fixture
def ends() -> dict[str, dt.datetime]:
    """Return the expiry times of certificates, which a test changes."""
    return {"agents": NOW + dt.timedelta(days=90)}


@pytest.fixture
def condition(tmp_path, clock, members, ends) -> Condition:
    return Condition(
        replicator=members,
        initialized=lambda: members.initialized,
        data_dir=tmp_path,
        certificates=lambda: ends,
        clock=clock,
    )


# --- Condition --------------------------------------------------------------------


def test_node_without_a_quorum_is_not_ready_and_still_alive(condition, members):
    assert condition.problems() == ()
    members.ready = False
    assert condition.problems() == ("no contact to a quorum, or not caught up",)
    assert condition.reason() == "no_quorum"
    members.primary = None
    assert condition.problems() == ("no primary is known here",)
    assert condition.reason() == "no_primary"
    assert condition.alive


def test_node_of_a_cluster_without_an_administrator_is_not_ready(condition, members):
    members.initialized = False
    assert condition.reason() == "not_initialized"
    assert "blank-node.md" in condition.problems()[0]
    members.primary = None
    assert condition.reason() == "no_primary"


def test_removed_node_is_not_ready_whatever_else_it_knows(condition, members):
    members.removed = True
    assert condition.reason() == "removed"
    assert "removed-node.md" in condition.problems()[0]
    members.primary, members.ready = None, False
    assert len(condition.problems()) == 1


def test_node_that_members_refuse_for_good_is_not_ready(condition, members):
    """Even if it is the primary of a cluster of its own."""
    members.refusals = {
        NodeId("n3"): "another journal",
        NodeId("n2"): "another journal",
    }
    assert condition.reason() == "refused"
    (words,) = condition.problems()
    assert words.startswith("refused by n2, n3: this node's journal is not the one")
    assert "blank-node.md" in words


def test_node_that_the_primary_refuses_is_not_ready(condition, members):
    """(P5a) It hears the primary, and can pass on no call: another key is no final cause."""
    members.primary = NodeId("n2")
    members.refusals = {NodeId("n3"): "another key"}
    assert condition.ready
    members.refusals = {NodeId("n2"): "another key"}
    assert condition.reason() == "refused"
    assert "expired-certificates.md" in condition.problems()[0]


def test_members_name_the_node_that_they_refuse(condition, members):
    """They are ready all the same."""
    members.older_copies = (NodeId("n3"),)
    assert condition.ready
    words = condition.warnings()[0]
    assert words.startswith(
        "this node refuses n3, which was restored from an older copy"
    )
    assert "restored-machine.md" in words


def test_refusal_of_a_stranger_only_explains_a_missing_primary(condition, members):
    """A node of another cluster may run at a member's earlier address."""
    members.refusals = {NodeId("n2"): "not a member of this cluster"}
    assert condition.ready
    members.primary = None
    assert condition.reason() == "refused"
    assert condition.problems()[0] == "refused by n2: not a member of this cluster"


def test_node_whose_loop_hangs_is_not_alive(condition, clock):
    clock.s += 4.9
    assert condition.alive
    clock.s += 0.1
    assert not condition.alive
    condition.beat()
    assert condition.alive


def test_certificate_warns_for_a_day_and_then_ends_readiness(condition, ends):
    ends["agents"] = NOW + dt.timedelta(hours=23)
    assert condition.problems() == ()
    assert condition.warnings()[-1] == (
        "the certificate of agents expires at 2026-11-25 23:00 UTC"
    )
    ends["agents"] = NOW
    assert condition.problems() == ("the certificate of agents has expired",)


def test_expired_certificate_of_the_metrics_only_warns(condition, ends):
    """Monitoring sees nothing any more; users are served."""
    ends["metrics"] = NOW
    assert condition.problems() == ()
    assert condition.warnings()[-1] == "the certificate of metrics has expired"


def test_full_disk_warns_and_then_ends_readiness(condition, clock, monkeypatch):
    condition._disk, condition._disk_at_s = Disk(10**9, 10**8 - 1), clock.s
    assert condition.problems() == ()
    assert condition.warnings() == ("95 MiB are left on the disk",)
    condition._disk = Disk(10**9, DISK_FLOOR_BYTES - 1)
    assert condition.problems() == ("the disk is full",)
    assert condition.reason() == "unhealthy"
    clock.s += 6  # The disk is checked again.
    assert condition.disk().size_bytes != 10**9


# --- Census -----------------------------------------------------------------------


@pytest.mark.asyncio
async def test_clock_offsets_are_relative_to_this_node(clock, members):
    members.answers = (
        member("n1", clock_ms=clock.ms),
        member("n2", clock_ms=clock.ms + 1500),
        MemberStatus(node_id=NodeId("n3"), reachable=False),
    )
    census = Census(members, clock)
    await census.ask()
    assert census.clock_offsets_ms == {"n2": 1500}


@pytest.mark.asyncio
async def test_different_heads_after_the_same_events_are_critical(
    clock, members, caplog
):
    """(U1)."""
    census = Census(members, clock)
    members.answers = (
        member("n1", audit_sequence=7, audit_head="aa"),
        member("n2", audit_sequence=8, audit_head="bb"),
    )
    await census.ask()
    assert not census.heads_differ
    members.answers += (member("n3", audit_sequence=8, audit_head="cc"),)
    await census.ask()
    assert census.heads_differ
    assert caplog.records[-1].levelname == "CRITICAL"
    assert caplog.records[-1].event == 8
    members.answers = ()
    await census.ask()
    assert census.heads_differ  # The mark stays for the life of the process.


@pytest.mark.asyncio
async def test_digests_are_compared_at_the_same_index(clock, members):
    census = Census(members, clock)
    members.answers = (
        member("n1", applied_index=5, digest="aa"),
        member("n2", applied_index=6, digest="bb"),
    )
    assert not await census.compare_digests()
    assert (census.digests_differ, census.digests_compared_ms) == (False, 0)
    members.answers += (member("n3", applied_index=5, digest="cc"),)
    assert await census.compare_digests()
    assert (census.digests_differ, census.digests_compared_ms) == (True, clock.ms)


@dataclasses.dataclass
class StoppingMembers(Members):
    """The replicator of a stopping node, which does not read digests any more."""

    questions: list[str] = dataclasses.field(default_factory=list)

    async def status(self, *, digest: bool, timeout_s: float):
        self.questions.append("digests" if digest else "heads")
        if digest:
            raise StoppingError
        return self.answers


@pytest.mark.asyncio
async def test_a_node_that_stops_compares_no_digests(clock, monkeypatch):
    """The census ends without an error and polls no more."""
    monkeypatch.setattr("sparecode_node.daemon.metrics.census.DIGEST_EVERY_S", 0)
    monkeypatch.setattr("sparecode_node.daemon.metrics.census.EVERY_S", 0)
    members = StoppingMembers()
    census = Census(members, clock)
    async with asyncio.timeout(60):
        await census.run()
    assert members.questions == ["heads", "digests"]
    assert (census.digests_differ, census.digests_compared_ms) == (False, 0)


@pytest.mark.asyncio
async def test_digests_that_could_not_be_compared_are_compared_again_soon(
    clock, members, monkeypatch
):
    """Under load, members are rarely at the same index, and an hour is long."""
    looks: list[float] = []
    census = Census(members, clock)

    async def compare() -> bool:
        looks.append(clock.s)
        return len(looks) == 2

    async def turn(s: float) -> None:
        clock.s += s
        if len(looks) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(census, "compare_digests", compare)
    monkeypatch.setattr("sparecode_node.daemon.metrics.census.asyncio.sleep", turn)
    began = clock.s
    with pytest.raises(asyncio.CancelledError):
        await census.run()
    first, second, third = (at - began for at in looks)
    assert first == DIGEST_EVERY_S
    assert second - first == DIGEST_AGAIN_S
    assert third - second == DIGEST_EVERY_S


# --- Events -----------------------------------------------------------------------


@pytest.fixture
def database(tmp_path) -> Path:
    path = tmp_path / "state.db"
    append(path, "before", "")
    return path


def append(path: Path, action: str, reason: str, times: int = 1) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        prepare(db)
        audit = AuditLog(db)
        for _ in range(times):
            audit.append(
                at_ms=1,
                actor="administrator:bob",
                node="n1",
                action=action,
                target="user:alice",
                outcome="refused",
                reason=reason,
                detail="of alice",
            )
    db.close()


def test_events_are_counted_since_the_start_and_each_once(database):
    counts = EventCounts(database)
    assert counts.take() == {}
    append(database, "Authenticate", "wrong_pin", 3)
    append(database, "Authenticate", "locked")
    wrong, locked = (
        ("Authenticate", "refused", "wrong_pin"),
        ("Authenticate", "refused", "locked"),
    )
    assert counts.take() == {wrong: 3, locked: 1}
    append(database, "Authenticate", "locked")
    assert counts.take() == {wrong: 3, locked: 2}
    assert counts.sequence == 6


def test_only_known_words_become_labels(database):
    counts = EventCounts(database)
    append(database, "Authenticate", "alice@example.net")
    assert counts.take() == {("Authenticate", "refused", "other"): 1}


# --- Proposals, primary -----------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "applied"),
        (NoPrimaryError(""), "not_applied"),
        (OutcomeUnknownError(""), "unknown"),
        (KeyboardInterrupt(), "given_up"),
    ],
)
def test_outcome_of_a_proposal_is_counted(error, outcome):
    measures = Measures()

    def value(name: str, **labels: str) -> float | None:
        return measures.registry.get_sample_value(f"sparecode_{name}", labels)

    with contextlib.ExitStack() as expected:
        if error is not None:
            expected.enter_context(pytest.raises(type(error)))
        expected.enter_context(proposal_observed(measures))
        assert value("proposals_pending") == 1
        if error is not None:
            raise error
    assert value("proposals_pending") == 0
    assert value("proposal_seconds_count", outcome=outcome) == 1


def test_changes_of_the_primary_are_logged(caplog):
    measures = Measures()
    watch = PrimaryWatch(measures)
    caplog.set_level("INFO")
    for primary, term in (
        (None, 0),
        ("n1", 1),
        ("n1", 1),
        (None, 1),
        (None, 2),
        ("n2", 3),
    ):
        watch.take(None if primary is None else NodeId(primary), term)
    text = [(record.getMessage(), record.term) for record in caplog.records]
    assert text == [("primary_changed", 1), ("primary_lost", 1), ("primary_changed", 3)]
    assert caplog.records[-1].before == "n1"
    name = "sparecode_primary_changes_total"
    assert measures.registry.get_sample_value(name) == 2


# --- The listener -----------------------------------------------------------------


@pytest.fixture
def listener(condition) -> Iterator[MetricsListener]:
    listener = MetricsListener(
        host="127.0.0.1", port=0, registry=CollectorRegistry(), condition=condition
    )
    listener.start()
    yield listener
    listener.stop()


def get(listener: MetricsListener, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_probes_get_a_status_and_reasons(listener, condition, members, clock):
    assert get(listener, "/healthz") == (200, '{"alive": true}\n')
    assert get(listener, "/readyz")[0] == 200
    members.primary = None
    status, body = get(listener, "/readyz")
    assert (status, json.loads(body)["problems"]) == (503, ["no primary is known here"])
    assert get(listener, "/healthz")[0] == 200
    clock.s += 60
    assert get(listener, "/healthz") == (503, '{"alive": false}\n')


def test_silent_callers_take_a_bounded_number_of_threads(monkeypatch, condition):
    """Further connections are closed. When one ends, the next is served."""
    monkeypatch.setattr("sparecode_node.daemon.metrics.listener.CONNECTIONS_MAX", 3)
    listener = MetricsListener(
        host="127.0.0.1", port=0, registry=CollectorRegistry(), condition=condition
    )
    listener.start()
    with contextlib.ExitStack() as stack:
        stack.callback(listener.stop)
        place = ("127.0.0.1", listener.port)
        silent = [
            stack.enter_context(socket.create_connection(place, timeout=10))
            for _ in range(3)
        ]
        with socket.create_connection(place, timeout=10) as beyond:
            assert beyond.recv(1) == b""
        silent[0].close()
        assert until_answered(listener, "/healthz") == 200


def until_answered(listener: MetricsListener, path: str) -> int:
    """Retry until a place is free: the thread must first notice its caller's end."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return get(listener, path)[0]
        except (http.client.HTTPException, OSError):
            if time.monotonic() > deadline:
                raise


def test_listener_knows_three_paths_and_reads_only(listener):
    assert get(listener, "/metrics")[0] == 200
    assert get(listener, "/etc/passwd")[0] == 404
    assert get(listener, "/metrics", "POST")[0] == 501
    assert get(listener, "/healthz", "HEAD") == (200, "")
