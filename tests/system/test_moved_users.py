# SPDX-License-Identifier: Apache-2.0
"""Users move between two clusters of real processes, by commands and files (A3)."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster
from local_cluster.setup import set_up

from sparecode_client import (
    AsyncAgent,
    AsyncRoutedAgent,
    OutcomeUnknown,
    RotationPhase,
    SparecodeError,
    Unavailable,
)
from sparecode_client.clusters import routes
from tests.system.estate import PATIENCE, PIN, Estate, Holder, each

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

HOLDERS = 4
CODES_EACH = 50
MOVES_LEVEL = 2
SHORTLY = timedelta(seconds=1)
"""A user who is on the way is asked for again, and not waited for."""


@pytest.fixture
def east(tmp_path: Path) -> Iterator[LocalCluster]:
    """Return the cluster that has the users: three processes."""
    cluster = set_up(tmp_path / "east", testing=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@dataclass
class Single:
    """A cluster of one process."""

    cluster: Any


@pytest.fixture
def west(tmp_path: Path) -> Iterator[tuple[str, Single]]:
    """Return the cluster that gets the users: one process."""
    cluster = set_up(tmp_path / "west", nodes=1, testing=True)
    try:
        cluster.start()
        yield "west", Single(cluster)
    finally:
        cluster.kill()


class Operator:
    """Runs `sparecode` for one cluster; the files of a move are in one folder."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "SPARECODE_NODES": ",".join(each.admin_address for each in cluster.nodes),
            "SPARECODE_CA": str(cluster.members_ca),
            "SPARECODE_SESSION_FILE": str(cluster.directory / "session"),
        }
        self._password_file = cluster.password_file

    async def sign_in(self) -> None:
        await self.run("login", ADMINISTRATOR, f"--password-file={self._password_file}")

    async def run(self, *words: str) -> str:
        """Run a command that succeeds; return its output."""
        done = await asyncio.to_thread(
            subprocess.run,
            [
                sys.executable,
                "-c",
                "from sparecode_client.cli import main; main()",
                *words,
            ],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    async def export(self, step: str, *files: str) -> str:
        return await self.run("cluster", "export-users", step, *files)

    async def load(self, step: str, *files: str) -> str:
        return await self.run("cluster", "import-users", step, *files)


@dataclass
class Attempts:
    """Every code at both clusters, again and again: who accepted which."""

    agents: dict[str, AsyncAgent]
    holders: list[Holder]
    accepted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """By cluster, user and code."""
    ended: bool = False

    async def once(
        self,
        cluster: str,
        holder: Holder,
        code: str,
        *,
        within: timedelta = SHORTLY,
    ) -> None:
        request_id = None
        for _ in range(90):
            try:
                answer = await self.agents[cluster].authenticate(
                    holder.username, PIN + code, request_id=request_id, within=within
                )
            except OutcomeUnknown as unknown:
                request_id = unknown.request_id
            except SparecodeError:
                return  # Not applied: the user is elsewhere, or on the way.
            else:
                self.accepted[cluster, holder.username, code] += answer.accepted
                return
        pytest.fail("the outcome stayed unknown")

    async def go_on(self, cluster: str) -> None:
        """Try each code, until the move has ended."""
        while not self.ended:
            for ordinal in range(CODES_EACH):
                for holder in self.holders:
                    await self.once(cluster, holder, holder.codes[ordinal])

    def by_code(self) -> Counter[tuple[str, str]]:
        """Return how often each code was accepted anywhere."""
        result: Counter[tuple[str, str]] = Counter()
        for (_, username, code), times in self.accepted.items():
            result[username, code] += times
        return result

    def at(self, cluster: str) -> int:
        return sum(n for (name, _, _), n in self.accepted.items() if name == cluster)


async def until_level(estate: Estate) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (await estate.admin.get_status()).feature_level < MOVES_LEVEL:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def rotate(estate: Estate) -> None:
    """Replace the key of a ring. It keeps the old one, which the move needs."""
    ended = await estate.admin.rotate_keys()
    assert ended.phase is RotationPhase.RETIRING


def write_table(
    file: Path, version: int, owner: str, clusters: dict[str, LocalCluster]
) -> None:
    """Write the slot table of programs: one cluster has all slots."""
    file.write_text(
        f"version = {version}\n"
        + "".join(
            f"[clusters.{name}]\n"
            f"nodes = {json.dumps([node.agents_address for node in cluster.nodes])}\n"
            f'ca = "{cluster.members_ca}"\n'
            f'certificate = "{cluster.certificates / AGENT}.pem"\n'
            f'key = "{cluster.certificates / AGENT}.key"\n'
            f"slots = {json.dumps(['0-4095'] * (name == owner))}\n"
            for name, cluster in clusters.items()
        )
    )


@dataclass
class Program:
    """Signs one user in, by the slot table in a file."""

    agent: AsyncRoutedAgent
    holder: Holder
    used: int = 0

    async def accepted_by(self) -> str:
        """Return the cluster that accepts the next code."""
        code = self.holder.codes[self.used]
        answer = await self.agent.authenticate(
            self.holder.username, PIN + code, within=PATIENCE
        )
        assert answer.accepted
        self.used += 1
        return answer.cluster

    async def refusal(self) -> str:
        """Return why no cluster decides about the next code, which stays unused."""
        code = self.holder.codes[self.used]
        with pytest.raises(Unavailable) as refused:
            await self.agent.authenticate(
                self.holder.username, PIN + code, within=SHORTLY
            )
        return refused.value.reason


async def prepare(source: Operator, target: Operator, *options: str) -> str:
    """Sign the operators in, prepare a move of all users, and return its id."""
    for operator in (source, target):
        await operator.sign_in()
    await source.export("key", "east.key")
    words = await target.load(
        "prepare", "east.key", "ticket", "--output=json", *options
    )
    move_id: str = json.loads(words)["move_id"]
    return move_id


async def test_each_code_works_once_in_one_of_two_clusters(
    east: LocalCluster, west: tuple[str, Single], tmp_path: Path
) -> None:
    """(A3) With the source's primary killed, and both key rings replaced on the way."""
    other = west[1].cluster
    source, target = Operator(east, tmp_path), Operator(other, tmp_path)
    async with Estate(east) as here, Estate(other) as there:
        await until_level(here)
        await until_level(there)
        holders = await each(
            [f"holder-{number}" for number in range(HOLDERS)],
            lambda name: here.holder(name, codes=CODES_EACH),
            at_once=3,
        )
        alice = await here.holder("alice", codes=3)
        attempts = Attempts({"east": here.any_agent, "west": there.any_agent}, holders)
        await attempts.once("east", alice, alice.codes[0], within=PATIENCE)
        assert attempts.at("east") == 1
        move_id = await prepare(source, target, "--same-administrators")
        await rotate(there)

        async with asyncio.TaskGroup() as group:
            for name in ("east", "west"):
                group.create_task(attempts.go_on(name))
            await source.export("freeze", "ticket")
            killed = await here.primary()
            killed.kill()
            await here.primary(but=killed)  # The operator waits for an election.
            await source.export("write", "ticket", "users.export")
            killed.start()
            await asyncio.to_thread(east.wait_ready, killed)
            await rotate(here)
            await target.load("load", "users.export")
            await target.load("load", "users.export")  # As after an interruption.
            await target.load("activate", move_id, "receipt")
            await source.export("end", "ticket", "receipt")
            attempts.ended = True

        await attempts.once("west", alice, alice.codes[0], within=PATIENCE)
        await attempts.once("west", alice, alice.codes[1], within=PATIENCE)
        await attempts.once("east", alice, alice.codes[2])
        assert attempts.by_code()["alice", alice.codes[2]] == 0
        for holder in holders:
            for code in holder.codes:
                # Where the users are by now, each code has to be decided.
                await attempts.once("west", holder, code, within=PATIENCE)
                await attempts.once("east", holder, code)
    counts = attempts.by_code()
    assert counts["alice", alice.codes[0]] == 1
    assert counts["alice", alice.codes[1]] == 1
    for holder in holders:
        times = {counts[holder.username, code] for code in holder.codes}
        assert times == {1}, holder.username
    assert attempts.accepted["west", "alice", alice.codes[1]] == 1


async def test_a_program_follows_its_user_to_the_other_cluster(
    east: LocalCluster,
    west: tuple[str, Single],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It looks for a new slot table only when a cluster says that the slot has moved."""
    monkeypatch.setattr(routes, "LOOK_S", float("inf"))
    other, table = west[1].cluster, tmp_path / "clusters.toml"
    clusters = {"east": east, "west": other}
    source, target = Operator(east, tmp_path), Operator(other, tmp_path)
    write_table(table, 1, "east", clusters)
    async with (
        Estate(east) as here,
        Estate(other) as there,
        AsyncRoutedAgent(table) as agent,
    ):
        await until_level(here)
        await until_level(there)
        program = Program(agent, await here.holder("alice", codes=2))
        assert await program.accepted_by() == "east"
        move_id = await prepare(source, target)
        await source.export("freeze", "ticket")
        assert await program.refusal() == "SLOT_MOVING"
        await source.export("write", "ticket", "users.export")
        await target.load("load", "users.export")
        await target.load("activate", move_id, "receipt")
        await source.export("end", "ticket", "receipt")
        assert await program.refusal() == "SLOT_MOVED"
        write_table(table, 2, "west", clusters)
        assert await program.accepted_by() == "west"
