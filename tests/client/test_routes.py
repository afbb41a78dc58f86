# SPDX-License-Identifier: Apache-2.0
"""`RoutedAgent`: each attempt in one cluster, until that one says that it never will be."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

import grpc
import pytest

from sparecode.v1 import authentication_pb2
from sparecode_client import (
    AsyncRoutedAgent,
    Authentication,
    Decision,
    InvalidArgument,
    OutcomeUnknown,
    Refused,
    RoutedAgent,
    SlotTable,
    Unavailable,
    slot_of,
)
from sparecode_client.agent import AsyncAgent
from sparecode_client.clusters.routes import LOOK_S, REMEMBERED_S, Routes
from sparecode_client.clusters.slots import SLOTS, ClusterAddress
from sparecode_client.connection.client import Client
from sparecode_client.testing import FakeCluster
from tests.client import answers
from tests.client.conftest import Pki
from tests.client.fakes import OUTCOME_UNKNOWN, Failure, FakeNode

AUTHENTICATE = "AuthenticationService/Authenticate"
CONTINUE = "AuthenticationService/ContinueAuthentication"
MOVED = Failure(
    grpc.StatusCode.FAILED_PRECONDITION, "SLOT_MOVED", "the slot has moved away"
)
MOVING = Failure(
    grpc.StatusCode.UNAVAILABLE, "SLOT_MOVING", "the slot moves", retry_after_s=0.1
)


class Clusters:
    """Two clusters of one fake node each, and a table that a test replaces."""

    def __init__(self, connect: Callable[..., Client], *nodes: FakeNode) -> None:
        self.east, self.west = nodes
        self._connect = connect
        self.table = table("east")
        self.agent = AsyncRoutedAgent.over(self._read, self._agent)

    def _read(self) -> SlotTable:
        return self.table

    def _agent(self, cluster: ClusterAddress) -> AsyncAgent:
        node = {"east": self.east, "west": self.west}[cluster.name]
        return AsyncAgent.over(self._connect(node.address))

    def asked(self) -> list[list[str]]:
        """Return the request ids that each cluster has received."""
        return [
            [request.request_id for request in each.requests(AUTHENTICATE)]
            for each in (self.east, self.west)
        ]


def table(owner: str, version: int = 1, names: tuple[str, ...] = ()) -> SlotTable:
    clusters = {
        name: ClusterAddress(
            name=name, nodes=(f"{name}:7300",), ca="", certificate="", key=""
        )
        for name in names or ("east", "west")
    }
    return SlotTable(version=version, clusters=clusters, owners=(owner,) * SLOTS)


@pytest.fixture
def clusters(
    start_node: Callable[..., FakeNode], connect: Callable[..., Client]
) -> Clusters:
    made = Clusters(connect, start_node(), start_node())
    for node in (made.east, made.west):
        node.answer(AUTHENTICATE, answers.ACCEPTED)
    return made


@pytest.mark.asyncio
async def test_attempt_goes_to_the_cluster_of_the_slot(clusters: Clusters) -> None:
    owners = list(clusters.table.owners)
    owners[slot_of("bob")] = "west"
    clusters.table = replace(clusters.table, owners=tuple(owners))
    clusters.agent = AsyncRoutedAgent.over(clusters._read, clusters._agent)

    alice = await clusters.agent.authenticate("alice", "1", request_id="a")
    bob = await clusters.agent.authenticate(" BOB", "1", request_id="b")

    assert clusters.asked() == [["a"], ["b"]]
    assert (alice.cluster, bob.cluster) == ("east", "west")
    assert alice.accepted


@pytest.mark.asyncio
async def test_moved_slot_is_followed_by_the_table(clusters: Clusters) -> None:
    """The same request id is enough: the first cluster says that it never applies it."""
    clusters.east.answer(AUTHENTICATE, MOVED)
    clusters.table = table("west", version=2)

    decided = await clusters.agent.authenticate("alice", "1", request_id="a")

    assert clusters.asked() == [["a"], ["a"]]
    assert decided.cluster == "west"
    await clusters.agent.authenticate("alice", "1", request_id="b")
    assert clusters.asked() == [["a"], ["a", "b"]]


@pytest.mark.asyncio
async def test_table_that_still_names_the_old_cluster_ends_the_attempt(
    clusters: Clusters,
) -> None:
    """No other cluster is guessed: one that never had the slot would refuse the user."""
    clusters.east.answer(AUTHENTICATE, MOVED)

    with pytest.raises(Unavailable, match="version 1") as caught:
        await clusters.agent.authenticate("alice", "1", request_id="a")

    assert caught.value.reason == "SLOT_MOVED"
    assert clusters.asked() == [["a"], []]


@pytest.mark.asyncio
async def test_clusters_that_both_gave_the_slot_away_end_the_attempt(
    clusters: Clusters,
) -> None:
    clusters.east.answer(AUTHENTICATE, MOVED)
    clusters.west.answer(AUTHENTICATE, MOVED)
    clusters.table = table("west", version=2)

    with pytest.raises(Unavailable, match="version 2"):
        await clusters.agent.authenticate("alice", "1", request_id="a")

    assert clusters.asked() == [["a"], ["a"]]


@pytest.mark.asyncio
async def test_older_table_is_not_taken(clusters: Clusters) -> None:
    """A file that was restored from a backup must not send users back."""
    clusters.table = table("east", version=5)
    agent = AsyncRoutedAgent.over(clusters._read, clusters._agent)
    clusters.east.answer(AUTHENTICATE, MOVED)
    clusters.table = table("west", version=4)

    with pytest.raises(Unavailable, match="version 5"):
        await agent.authenticate("alice", "1", request_id="a")


@pytest.mark.asyncio
async def test_unknown_outcome_stays_with_its_cluster(clusters: Clusters) -> None:
    """(A7) The other cluster does not know the id, and would judge the code again."""
    clusters.east.answer(AUTHENTICATE, OUTCOME_UNKNOWN)
    within = timedelta(seconds=0.3)
    with pytest.raises(OutcomeUnknown) as caught:
        await clusters.agent.authenticate("alice", "1", request_id="a", within=within)
    assert caught.value.cluster == "east"
    tries = len(clusters.asked()[0])
    clusters.table = table("west", version=2)
    clusters.agent._routes.reload()

    clusters.east.answer(AUTHENTICATE, answers.ACCEPTED)
    again = await clusters.agent.authenticate("alice", "1", request_id="a")

    assert again.cluster == "east"
    assert clusters.asked() == [["a"] * (tries + 1), []]
    await clusters.agent.authenticate("alice", "1", request_id="b")
    assert clusters.asked()[1] == ["b"]


@pytest.mark.asyncio
async def test_unknown_outcome_moves_on_once_it_is_settled(clusters: Clusters) -> None:
    clusters.east.answer(AUTHENTICATE, OUTCOME_UNKNOWN)
    within = timedelta(seconds=0.3)
    with pytest.raises(OutcomeUnknown):
        await clusters.agent.authenticate("alice", "1", request_id="a", within=within)
    clusters.east.answer(AUTHENTICATE, MOVED)
    clusters.table = table("west", version=2)

    assert (await clusters.agent.authenticate("alice", "1", request_id="a")).accepted
    assert clusters.asked()[1] == ["a"]


@pytest.mark.asyncio
async def test_other_process_names_the_cluster_of_an_unknown_outcome(
    clusters: Clusters,
) -> None:
    clusters.table = table("west", version=2)
    agent = AsyncRoutedAgent.over(clusters._read, clusters._agent)

    await agent.authenticate("alice", "1", request_id="a", cluster="east")

    assert clusters.asked() == [["a"], []]
    with pytest.raises(Unavailable, match="north"):
        await agent.authenticate("alice", "1", request_id="b", cluster="north")


@pytest.mark.asyncio
async def test_canceled_attempt_stays_with_its_cluster(clusters: Clusters) -> None:
    """Its call may have arrived: the program stopped waiting, not the cluster."""
    clusters.east.never_answer(AUTHENTICATE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await clusters.agent.authenticate("alice", "1", request_id="a")
    clusters.table = table("west", version=2)
    clusters.agent._routes.reload()

    assert clusters.agent._routes.begin("alice", "a").cluster.name == "east"


@pytest.mark.asyncio
async def test_moving_slot_is_asked_again_in_its_cluster(clusters: Clusters) -> None:
    clusters.east.answer(AUTHENTICATE, MOVING, MOVING, answers.ACCEPTED)
    clusters.table = table("west", version=2)

    decided = await clusters.agent.authenticate("alice", "1", request_id="a")

    assert decided.cluster == "east"
    assert clusters.asked() == [["a", "a", "a"], []]


@pytest.mark.asyncio
async def test_other_refusals_go_to_no_other_cluster(clusters: Clusters) -> None:
    clusters.east.answer(
        AUTHENTICATE, Failure(grpc.StatusCode.FAILED_PRECONDITION, "ENTRY_SKIPPED")
    )
    clusters.table = table("west", version=2)

    with pytest.raises(Refused):
        await clusters.agent.authenticate("alice", "1")

    assert clusters.asked()[1] == []


@pytest.mark.asyncio
async def test_next_step_goes_to_the_cluster_of_the_first(clusters: Clusters) -> None:
    """(K3) Its key sealed the challenge, and it knows whether it was answered."""
    clusters.east.answer(
        CONTINUE,
        authentication_pb2.ContinueAuthenticationResponse(
            decision=authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED,
            authentication_id="a2",
        ),
    )
    first = await clusters.agent.authenticate("alice", "1")
    clusters.table = table("west", version=2)
    clusters.agent._routes.reload()

    decided = await clusters.agent.continue_authentication(first, "2")

    assert decided.accepted
    assert decided.cluster == "east"
    foreign = Authentication(decision=Decision.ACCEPTED, authentication_id="x")
    with pytest.raises(InvalidArgument):
        await clusters.agent.continue_authentication(foreign, "2")


def test_pins_end_with_the_memory_of_the_cluster() -> None:
    """After ten minutes no attempt may be repeated, so no pin is needed (Q3)."""
    now_s = [0.0]
    routes = Routes(lambda: table("west"), now_s=lambda: now_s[0])
    routes.pin("a", "east")
    now_s[0] = REMEMBERED_S / 2
    routes.pin("b", "east")
    assert routes.begin("alice", "a").cluster.name == "east"

    now_s[0] = REMEMBERED_S + 1
    assert routes.begin("alice", "a").cluster.name == "west"
    assert routes.begin("alice", "b").cluster.name == "east"
    assert list(routes._pinned) == ["b"]


def test_pins_of_the_newest_attempts_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cluster that is down for ten minutes must not fill a program's memory."""
    monkeypatch.setattr("sparecode_client.clusters.routes.PINNED_MAX", 2)
    routes = Routes(lambda: table("west"), now_s=lambda: 0.0)
    for request_id in ("a", "b", "a", "c"):
        routes.pin(request_id, "east")
    assert list(routes._pinned) == ["a", "c"]
    assert routes.begin("alice", "b").cluster.name == "west"


def test_table_that_cannot_be_read_leaves_the_present_one() -> None:
    tables: Iterator[SlotTable] = iter([table("east")])

    def read() -> SlotTable:
        for each in tables:
            return each
        raise OSError("gone")

    routes = Routes(read, now_s=lambda: 0.0)
    routes.reload()
    assert routes.begin("alice", "a").cluster.name == "east"


def test_table_is_read_again_after_a_while() -> None:
    """A cluster without a quorum cannot say that a slot has moved away."""
    now_s, tables = [0.0], [table("east")]
    routes = Routes(lambda: tables[0], now_s=lambda: now_s[0])
    assert routes.begin("alice", "a").cluster.name == "east"

    tables[0] = table("west", version=2)
    assert routes.begin("alice", "b").cluster.name == "east"
    now_s[0] = LOOK_S
    assert routes.begin("alice", "c").cluster.name == "west"


def test_real_clusters_share_their_users() -> None:
    """Each has one user, and decides on its own alone (A3)."""
    with FakeCluster(nodes=1) as east, FakeCluster(nodes=1) as west:
        fakes = {"east": east, "west": west}
        owners = ["east"] * SLOTS
        owners[slot_of("bob")] = "west"
        both = replace(table("east"), owners=tuple(owners))
        alice, bob = east.add_user("alice"), west.add_user("bob")
        for each in fakes.values():
            each.register_agent()
        agent = RoutedAgent.over(
            AsyncRoutedAgent.over(
                lambda: both, lambda cluster: fakes[cluster.name].async_agent()
            )
        )
        with agent:
            passcode = alice.passcode()
            assert agent.authenticate("Alice", passcode).accepted
            assert not agent.authenticate("alice", passcode).accepted
            assert agent.authenticate("bob", bob.passcode()).cluster == "west"
            assert agent.removed_nodes == frozenset()


def write_table(file: Path, version: int, *addresses: str, pki: Pki, key: Path) -> None:
    """Write a slot table whose clusters are `east` and, if it has two, `west`."""
    slots = ["0-4095"] if len(addresses) == 1 else ["0-4094", "4095"]
    file.write_text(
        f"version = {version}\n"
        + "".join(
            f'[clusters.{name}]\nnodes = ["{address}"]\nca = "{pki.ca}"\n'
            f'certificate = "{pki.agent.certificate}"\nkey = "{key}"\n'
            f'slots = ["{owned}"]\n'
            for name, address, owned in zip(
                ("east", "west"), addresses, slots, strict=False
            )
        )
    )


def test_files_are_read_when_the_agent_is_made(
    pki: Pki, start_node: Callable[..., FakeNode], tmp_path: Path
) -> None:
    """Over TLS, as programs use it; a file that is missing is named at once."""
    node = start_node(pki.credentials(mutual=True))
    node.answer(AUTHENTICATE, answers.ACCEPTED)
    file = tmp_path / "clusters.toml"
    write_table(file, 1, node.address, pki=pki, key=pki.agent.key)

    with RoutedAgent(file) as agent:
        assert agent.authenticate("alice", "1").accepted

    write_table(file, 1, node.address, pki=pki, key=Path("missing.key"))
    with pytest.raises(FileNotFoundError, match=r"missing\.key"):
        RoutedAgent(file)


@pytest.mark.asyncio
async def test_table_with_wrong_files_leaves_the_present_one(
    pki: Pki,
    start_node: Callable[..., FakeNode],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its keys may arrive later than the table: until then every user signs in."""
    node = start_node(pki.credentials(mutual=True))
    node.answer(AUTHENTICATE, answers.ACCEPTED)
    file, key = tmp_path / "clusters.toml", tmp_path / "late.key"
    write_table(file, 1, node.address, pki=pki, key=pki.agent.key)
    async with AsyncRoutedAgent(file) as agent:
        write_table(file, 2, node.address, node.address, pki=pki, key=key)
        for wrong in (None, pki.ca, file):
            if wrong is not None:
                shutil.copy(wrong, key)
            agent._routes.reload()
            assert agent._routes.table.version == 1
            assert (await agent.authenticate("alice", "1")).accepted
        assert "slot_table_not_renewed" in caplog.text
        shutil.copy(pki.agent.key, key)
        agent._routes.reload()
        assert agent._routes.table.version == 2
        assert (await agent.authenticate("alice", "1")).accepted


class PausedAgent:
    """The client of a cluster that answers when a test lets it."""

    removed_nodes: frozenset[str] = frozenset()

    def __init__(self, address: str) -> None:
        self.address = address
        self.may_answer = asyncio.Event()
        self.closed = False

    async def authenticate(self, *_: str, **__: object) -> Authentication:
        await self.may_answer.wait()
        assert not self.closed
        return Authentication(decision=Decision.ACCEPTED, authentication_id="x")

    async def close(self) -> None:
        self.closed = True


class Paused:
    """A routed agent, of which each client waits, and a table that a test replaces."""

    def __init__(self) -> None:
        self.made: list[PausedAgent] = []
        self.table = table("east")
        self.agent = AsyncRoutedAgent.over(lambda: self.table, self._connect)

    def _connect(self, cluster: ClusterAddress) -> AsyncAgent:
        self.made.append(PausedAgent(cluster.nodes[0]))
        return cast("AsyncAgent", self.made[-1])

    async def begin(self) -> asyncio.Task[Authentication]:
        call = asyncio.create_task(self.agent.authenticate("alice", "1"))
        await asyncio.sleep(0)
        return call

    async def change_address(self, address: str) -> None:
        east = replace(self.table.clusters["east"], nodes=(address,))
        self.table = replace(
            self.table,
            version=self.table.version + 1,
            clusters={**self.table.clusters, "east": east},
        )
        self.agent._routes.reload()
        await asyncio.sleep(0)

    def closed(self) -> list[str]:
        return [each.address for each in self.made if each.closed]


@pytest.mark.asyncio
async def test_connection_to_a_former_address_ends_after_its_last_call() -> None:
    """A program runs for years, and addresses change."""
    paused = Paused()
    call = await paused.begin()
    await paused.change_address("east-2:7300")
    assert paused.closed() == []
    await paused.change_address("east-3:7300")
    assert paused.closed() == ["east-2:7300"]

    paused.made[0].may_answer.set()
    assert (await call).accepted
    await asyncio.sleep(0)
    assert paused.closed() == ["east:7300", "east-2:7300"]
    await paused.agent.close()
    assert len(paused.closed()) == len(paused.made) == 4


@pytest.mark.asyncio
async def test_closing_the_agent_closes_former_addresses_too() -> None:
    paused = Paused()
    call = await paused.begin()
    await paused.change_address("east-2:7300")
    await paused.agent.close()
    assert len(paused.closed()) == len(paused.made) == 3
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
