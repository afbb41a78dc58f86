# SPDX-License-Identifier: Apache-2.0
"""The key of everything is replaced while three real nodes serve (T3, P5)."""

import asyncio
import base64
import json
import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import (
    AsyncAdmin,
    Authentication,
    Refused,
    RotationPhase,
    RotationProgress,
)
from tests.system.estate import PATIENCE, PIN, Estate, Holder, answered, each

pytestmark = pytest.mark.asyncio

HOLDERS = 40
CODES_EACH = 4


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Return a running cluster of which a test may spoil the key rings."""
    cluster = set_up(tmp_path / "cluster", testing=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def ring(node: LocalNode) -> Any:
    assert stat.S_IMODE(node.key_ring.stat().st_mode) == 0o600
    return json.loads(node.key_ring.read_text())


def key_ids(node: LocalNode) -> set[int]:
    """Return every key that stands beside anything in a node's state."""
    (state,) = node.config.parent.rglob("state.db")
    result = set()
    with closing(sqlite3.connect(state)) as db:
        columns = db.execute(
            "SELECT t.name, c.name FROM sqlite_schema t "
            "JOIN pragma_table_info(t.name) c WHERE t.type = 'table' "
            "AND c.name LIKE '%key_id' AND t.name NOT IN ('ring_keys', 'former_tokens')"
        ).fetchall()
        assert len(columns) == 14
        for table, column in columns:
            result |= {
                row[0]
                for row in db.execute(f"SELECT DISTINCT {column} FROM {table}")  # noqa: S608
            }
    return result - {0}


def spilled(node: LocalNode, keys: set[str]) -> list[str]:
    """Return the files of a node, but for its ring, that a key is in, however written."""
    forms = [
        form
        for key in keys
        for raw in [base64.b64decode(key)]
        for form in (key.encode(), raw, raw.hex().encode())
    ]
    return [
        str(path)
        for path in node.config.parent.rglob("*")
        if path.is_file() and path != node.key_ring
        if any(form in path.read_bytes() for form in forms)
    ]


class Load:
    """Spends every code once and again, saves drafts, and signs in, without pause."""

    def __init__(self, estate: Estate, holders: list[Holder]) -> None:
        self._estate = estate
        self._holders = holders
        self.acceptances: Counter[tuple[str, int]] = Counter()
        self.issued = 0
        self.signed_in = 0

    async def spend(self) -> None:
        for ordinal in range(CODES_EACH):
            for holder in self._holders:
                for _ in range(2):
                    passcode = PIN + holder.codes[ordinal]
                    answer = await self._answer(holder, passcode)
                    self.acceptances[holder.serial, ordinal] += answer.accepted

    async def _answer(self, holder: Holder, passcode: str) -> Authentication:
        return await answered(
            lambda request_id: self._estate.any_agent.authenticate(
                holder.username, passcode, request_id=request_id
            )
        )

    async def issue(self) -> None:
        """Generate, wait for a moment as people do, and save."""
        holder = await self._estate.holder("issued-to", codes=1)
        while True:
            generated = await self._estate.admin.generate_tokencodes(
                holder.serial, count=2
            )
            await asyncio.sleep(0.2)
            await self._estate.admin.save_emergency_access(generated)
            answer = await self._estate.any_agent.authenticate(
                holder.username, PIN + generated.codes[0].code
            )
            assert answer.accepted
            self.issued += 1

    async def sign_in(self) -> None:
        cluster = self._estate.cluster
        async with AsyncAdmin(
            [node.admin_address for node in cluster.nodes],
            ca=cluster.members_ca,
            timeout=PATIENCE,
        ) as admin:
            while True:
                await admin.login(ADMINISTRATOR, cluster.password)
                await admin.who_am_i()
                self.signed_in += 1
                await asyncio.sleep(0.5)


@pytest.mark.timeout(300)
async def test_no_call_fails_while_the_key_is_replaced_and_the_primary_killed(
    cluster: LocalCluster,
) -> None:
    """
    Codes are spent, drafts saved and sessions opened while everything is resealed.

    Midway the primary dies by SIGKILL, and another one continues. Every code is
    accepted once, and afterwards no state or ring has anything of the old key.
    """
    old = {ring(node)["keys"]["1"] for node in cluster.nodes}
    assert len(old) == 1
    async with Estate(cluster) as estate:
        holders = await each(
            [f"holder-{number:02}" for number in range(HOLDERS)],
            lambda name: estate.holder(name, codes=CODES_EACH),
            at_once=8,
        )
        load = Load(estate, holders)
        seen: list[RotationProgress] = []
        killed: list[LocalNode] = []

        def take(progress: RotationProgress) -> None:
            seen.append(progress)

        async def kill_primary() -> None:
            while not any(  # noqa: ASYNC110
                each.phase is RotationPhase.RESEALING for each in seen
            ):
                await asyncio.sleep(0.005)
            killed.append(await estate.primary())
            killed[0].kill()

        async with asyncio.TaskGroup() as group:
            spending = group.create_task(load.spend())
            others = [
                group.create_task(load.issue()),
                group.create_task(load.sign_in()),
                group.create_task(kill_primary()),
            ]
            ended = await estate.admin.rotate_keys(at_once=True, progress=take)
            await others[2]
            killed[0].start()
            await asyncio.to_thread(cluster.wait_ready, killed[0])
            await spending
            for task in others:
                task.cancel()
        assert ended.phase is RotationPhase.DONE
        assert ended.key_id == 2
        assert set(load.acceptances.values()) == {1}
        assert len(load.acceptances) == HOLDERS * CODES_EACH
        assert load.issued
        assert load.signed_in
        assert await estate.until_equal()
        for node in cluster.nodes:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while set(ring(node)["keys"]) != {"2"}:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert set(ring(node)["retired"]) == {"1"}
            assert "waiting" not in ring(node)
            assert key_ids(node) == {2}
    new = {ring(node)["keys"]["2"] for node in cluster.nodes}
    assert len(new) == 1
    assert new.isdisjoint(old)
    for node in cluster.nodes:
        assert spilled(node, old | new) == []


@pytest.mark.timeout(300)
async def test_every_member_holds_the_key_or_nothing_changes(
    cluster: LocalCluster,
) -> None:
    """One that is down, or cannot write its ring, is named; and later one has it again."""
    first, _, third = cluster.nodes
    before = first.key_ring.read_text()
    async with Estate(cluster) as estate:
        holder = await estate.holder("alice", codes=2)
        third.stop()
        with pytest.raises(Refused, match=f"{third.node_id} does not hold") as refused:
            await estate.admin.rotate_keys()
        assert refused.value.reason == "KEY_NOT_HELD"
        assert set(ring(first)["keys"]) == {"1"}
        third.start()
        await asyncio.to_thread(cluster.wait_ready, third)

        ended = await estate.admin.rotate_keys()
        assert ended.phase is RotationPhase.RETIRING
        assert ended.retire_time is not None
        third.stop()
        third.key_ring.write_text(before)  # As from an old backup of the machine.
        third.start()
        await asyncio.to_thread(cluster.wait_ready, third)
        assert ring(third)["keys"] == ring(first)["keys"]
        answer = await estate.agents[third.node_id].authenticate(
            "alice", PIN + holder.codes[0]
        )
        assert answer.accepted
    cluster.stop()
    third.key_ring.write_text(before)
    third.start()
    await asyncio.to_thread(third.wait, timeout_s=60)
    text = third.last_words(3)
    assert "lacks key 2, which the cluster uses" in text
    assert "start another member first" in text
