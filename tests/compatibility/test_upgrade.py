# SPDX-License-Identifier: Apache-2.0
"""
Upgrades of a running cluster, one node after the other, under load; and back again.

Real processes of a release and of the tree, side by side. No call fails beyond the
client's retries, every code is accepted once, and in the end all members have the same
state. The software that an upgrade leads to is the tree as it is, and the tree made to
know one feature level more, so that a level is raised whatever the release knows.
"""

import asyncio
import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Self

import pytest
from local_cluster.cluster import LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client.errors import SparecodeError
from tests.compatibility import baseline
from tests.compatibility.baseline import BASELINES, HistoryMissingError, Release
from tests.system.estate import PIN, Estate, Holder

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

WORKERS = 3
CODES = 40
ENTRIES_MAX = 16
"""Entries in a log that is short."""
SHORT_SEGMENTS = Path(__file__).parent.parent / "system" / "short_segments"
"""Makes segments of ten events."""
INSTALLED = "snapshot_installed"


@pytest.fixture(params=sorted(BASELINES))
def release(request: pytest.FixtureRequest) -> Release:
    """Return an earlier release."""
    try:
        return baseline.build(BASELINES[request.param])
    except HistoryMissingError as missing:
        pytest.skip(f"earlier releases are built from the history: {missing}")


@pytest.fixture(params=["tree", "next level"])
def target(request: pytest.FixtureRequest, release: Release, tmp_path: Path) -> Release:
    """Return the software to upgrade to."""
    tree = baseline.current()
    if request.param == "tree":
        return tree
    if tree.level > release.level:
        pytest.skip("the tree itself raises the level")
    return baseline.next_level(tmp_path / "next")


@pytest.fixture
def cluster(
    release: Release,
    target: Release,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LocalCluster]:
    """Return a running cluster of that release, if there is a software to upgrade to."""
    assert target
    monkeypatch.setenv("PYTHONPATH", str(SHORT_SEGMENTS))
    cluster = set_up(tmp_path / "cluster", testing=True, python=release.python)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


class Load:
    """People who sign in all the time, and a help desk; all of it is expected to work."""

    def __init__(self, estate: Estate, holders: list[Holder]) -> None:
        self._estate = estate
        self._holders = holders
        self._done = asyncio.Event()
        self.accepted: dict[str, list[str]] = {each.serial: [] for each in holders}
        self.changes = 0

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        for holder in self._holders:
            self._group.create_task(self._sign_in(holder))
        self._group.create_task(self._help())
        return self

    async def __aexit__(self, *of: object) -> None:
        self._done.set()
        await self._group.__aexit__(*of)

    async def _sign_in(self, holder: Holder) -> None:
        """Try every code twice, over and over: once in all it is accepted."""
        for code in itertools.cycle(holder.codes):
            for _ in range(2):
                answer = await self._estate.any_agent.authenticate(
                    holder.username, PIN + code
                )
                if answer.accepted:
                    self.accepted[holder.serial].append(code)
            if self._done.is_set():
                return

    async def _help(self) -> None:
        """
        Change what the earlier release can change, too.

        A refusal and a re-issue leave words in the audit log: nodes of both releases
        must write the same ones, or their digests differ.
        """
        while not self._done.is_set():
            self.changes += 1
            holder = await self._estate.holder(f"new-{self.changes}", codes=2)
            await self._estate.admin.issue_tokencodes(holder.serial, count=2)
            with suppress(SparecodeError):
                await self._estate.admin.create_user(holder.username)


async def put(cluster: LocalCluster, node: LocalNode, python: str) -> None:
    """Put other software on a node, as an operator does: stop, install, start."""
    assert await asyncio.to_thread(node.stop) == 0
    node.python = python
    node.start()
    await asyncio.to_thread(cluster.wait_ready, node)


async def level_of(estate: Estate) -> int:
    return (await estate.admin.get_status()).feature_level


async def test_rolling_upgrade_under_load_and_the_way_back(
    cluster: LocalCluster, release: Release, target: Release
):
    """
    Node by node there, and back if the level stays the same.

    The level of the cluster is raised when the last node is upgraded, not before. A
    release that does not know the state refuses it, in one line, and changes nothing.
    """
    async with Estate(cluster) as estate:
        holders = [
            await estate.holder(f"user-{number}", codes=CODES)
            for number in range(WORKERS)
        ]
        async with Load(estate, holders) as load:
            for node in cluster.nodes:
                if target.level > release.level:
                    assert await level_of(estate) <= release.level
                await put(cluster, node, target.python)
            async with asyncio.timeout(120):
                while await level_of(estate) != target.level:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            before = load.changes
            if target.level == release.level:
                for node in cluster.nodes:
                    await put(cluster, node, release.python)
            else:
                await refused_by(release, cluster, cluster.nodes[0], target)
                for node in cluster.nodes:
                    await until_sealed(node)
            async with asyncio.timeout(120):
                while load.changes < before + 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        await estate.until_equal()
        if target.level > release.level:
            verdict = await estate.admin.verify_chain()
            assert (verdict.broken_sequence, verdict.problem) == (0, "")
            oldest = await estate.admin.list_audit_events(from_sequence=1, page_size=5)
            assert [each.sequence for each in oldest.items] == [1, 2, 3, 4, 5]
    for codes in load.accepted.values():
        assert codes
        assert len(set(codes)) == len(codes)


async def until_sealed(node: LocalNode) -> None:
    """Wait until a node has sealed the old log and discarded its first events (U1)."""
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(sealed_the_old_log, node):  # noqa: ASYNC110
            await asyncio.sleep(0.2)


def sealed_the_old_log(node: LocalNode) -> bool:
    with closing(sqlite3.connect(node.directory / "data" / "state.db")) as db:
        first, last = db.execute(
            "SELECT min(sequence), max(sequence) FROM audit_events"
        ).fetchone()
        (sealed,) = db.execute(
            "SELECT max(last_sequence) FROM audit_segments"
        ).fetchone()
    return bool(first > 1 and sealed is not None and last - sealed < 2 * 10)


async def refused_by(
    release: Release, cluster: LocalCluster, node: LocalNode, target: Release
) -> None:
    """See that an earlier release does not touch what it does not know."""
    state = node.directory / "data" / "state.db"
    assert await asyncio.to_thread(node.stop) == 0
    before = state.read_bytes()
    node.python = release.python
    node.start()
    assert await asyncio.to_thread(node.wait, timeout_s=120) == 1
    text = node.last_words(1)
    assert "format" in text or "feature level" in text
    assert state.read_bytes() == before
    with suppress(ProcessLookupError):
        node.kill()
    node.python = target.python
    node.start()
    await asyncio.to_thread(cluster.wait_ready, node)


@pytest.fixture
def short_logs(release: Release, tmp_path: Path) -> Iterator[LocalCluster]:
    """Return a running cluster of that release, in which snapshots are soon needed."""
    raft = {"log_entries_max": ENTRIES_MAX, "log_entries_kept": 4}
    cluster = set_up(
        tmp_path / "cluster", testing=True, python=release.python, raft=raft
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


async def test_an_upgraded_node_can_go_back_until_the_level_is_raised(
    short_logs: LocalCluster, release: Release
):
    """
    A member of the older release takes the snapshot of an upgraded primary.

    All members have one digest. An upgraded node goes back to the older release, with
    the files that it has, and the cluster is that of the release again.
    """
    current = baseline.current()
    if current.level == release.level:
        pytest.skip("this software begins no level")
    older, *others = short_logs.nodes
    async with Estate(short_logs) as estate:
        assert await asyncio.to_thread(older.stop) == 0
        for node in others:
            await put(short_logs, node, current.python)
        holder = await estate.holder("while-one-is-away", codes=2)
        for number in range(ENTRIES_MAX * 2):
            await estate.admin.create_user(f"user-{number}")
        older.start()
        await asyncio.to_thread(short_logs.wait_ready, older)
        await estate.until_equal()
        assert INSTALLED in older.log.read_text()
        assert await level_of(estate) == release.level
        for node in others:
            await put(short_logs, node, release.python)
        await estate.until_equal()
        (code, _) = holder.codes
        agent = estate.any_agent
        assert (await agent.authenticate(holder.username, PIN + code)).accepted
        assert not (await agent.authenticate(holder.username, PIN + code)).accepted
