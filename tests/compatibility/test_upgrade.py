# SPDX-License-Identifier: Apache-2.0
"""
Upgrades of a running cluster, one node after the other, under load; and back again.

Real processes of a release and of the tree, side by side. No call fails beyond the
client's retries, every code is accepted once, before, during and after the upgrade of each
node, and in the end all members have the same state. The software that an upgrade leads to
is the tree as it is, and the tree made to know one feature level more, so that a level is
raised whatever the release knows.
"""

import asyncio
import dataclasses
import itertools
import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest
from local_cluster.cluster import LocalCluster, LocalNode
from local_cluster.setup import set_up
from typer.testing import CliRunner

from sparecode_client import AsyncAgent, AuditEvent
from sparecode_client.audit.checkpoints import checkpoint_text
from sparecode_client.cli.app import app
from sparecode_client.errors import SparecodeError
from tests.compatibility import baseline
from tests.compatibility.baseline import BASELINES, HistoryMissingError, Release
from tests.system.estate import PIN, Estate, Holder

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(300)]

WORKERS = 3
CODES = 40
KEPT = 12
"""Codes of the release, more than are used later."""
AFTER_FAILURE_S = 1.2
"""After one failure, a factor waits for a second, and refuses right codes (L1)."""
ENTRIES_MAX = 16
"""Entries in a log that is short."""
SHORT_SEGMENTS = Path(__file__).parent.parent / "system" / "short_segments"
"""Makes segments of ten events."""
INSTALLED = "snapshot_installed"
COMPACTED = "log_compacted"
COMPACTED_S = 60.0
"""For logs to lose their beginnings three times; a snapshot waits for a core."""


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
    """
    People who sign in all the time, and a help desk; all of it is expected to work.

    What is accepted is counted for each phase of the upgrade: when it is sent and answered.
    """

    def __init__(self, estate: Estate, holders: list[Holder]) -> None:
        self._estate = estate
        self._holders = holders
        self._done = asyncio.Event()
        self._phase = "before"
        self.accepted: dict[str, list[str]] = {self._phase: []}
        """Phase -> the users whose codes were accepted, in their order."""

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

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Check that codes are accepted while the body runs."""
        self._phase, self.accepted[phase] = phase, []
        yield
        assert self.accepted[phase], f"no code was accepted while {phase}"

    async def goes_on(self, phase: str) -> None:
        """Return when every user, and one of the help desk's, has signed in from now on."""
        with self.during(phase):
            async with asyncio.timeout(120):
                while not self._all_signed_in(phase):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)

    def _all_signed_in(self, phase: str) -> bool:
        users = set(self.accepted[phase])
        old = {each.username for each in self._holders}
        return old <= users and any(each.startswith("new-") for each in users)

    async def spend(
        self, username: str, code: str, agent: AsyncAgent | None = None
    ) -> None:
        """Sign in with a code, by *agent* or any node: it is accepted once, and not again."""
        phase, anywhere = self._phase, self._estate.any_agent
        answer = await (agent or anywhere).authenticate(username, PIN + code)
        assert answer.accepted, f"a code of {username} was refused while {phase}"
        self.accepted[phase].append(username)
        again = await anywhere.authenticate(username, PIN + code)
        assert not again.accepted, f"a code of {username} was accepted twice"
        await asyncio.sleep(AFTER_FAILURE_S)

    async def _sign_in(self, holder: Holder) -> None:
        """Use one code after the other, and then a new set."""
        codes = holder.codes
        while True:
            for code in codes:
                await self.spend(holder.username, code)
                if self._done.is_set():
                    return
            issued = await self._estate.admin.issue_tokencodes(
                holder.serial, count=CODES
            )
            codes = tuple(each.code for each in issued.codes)

    async def _help(self) -> None:
        """
        Change what the earlier release can change, too, and use a code that is issued.

        A refusal and a re-issue leave words in the audit log: nodes of both releases
        must write the same ones, or their digests differ.
        """
        number, admin = 0, self._estate.admin
        while not self._done.is_set():
            number += 1
            holder = await self._estate.holder(f"new-{number}", codes=2)
            issued = await admin.issue_tokencodes(holder.serial, count=2)
            with suppress(SparecodeError):
                await admin.create_user(holder.username)
            await self.spend(holder.username, issued.codes[0].code)


async def put(cluster: LocalCluster, node: LocalNode, python: str) -> None:
    """Put other software on a node, as an operator does: stop, install, start."""
    assert await asyncio.to_thread(node.stop) == 0
    node.python = python
    node.start()
    await asyncio.to_thread(cluster.wait_ready, node)


async def level_of(estate: Estate) -> int:
    return (await estate.admin.get_status()).feature_level


class Kept:
    """Codes that the release has issued, each used once on a node, some time later."""

    def __init__(self, estate: Estate, load: Load, holder: Holder) -> None:
        self._estate, self._load, self._holder = estate, load, holder
        self._live = iter(holder.codes)
        self._spent: list[str] = []

    async def spend_on(self, *nodes: LocalNode) -> None:
        """Use a code on each of these nodes."""
        for node in nodes:
            code = next(self._live)
            agent = self._estate.agents[node.node_id]
            await self._load.spend(self._holder.username, code, agent)
            self._spent.append(code)

    async def stay_spent(self) -> None:
        """See that none of them is accepted again."""
        username, agent = self._holder.username, self._estate.any_agent
        assert self._spent
        for code in self._spent:
            assert not (await agent.authenticate(username, PIN + code)).accepted
            await self._estate.admin.unlock_user(username)


async def test_rolling_upgrade_under_load_and_the_way_back(
    cluster: LocalCluster, release: Release, target: Release, tmp_path: Path
):
    """
    Node by node there, and back if the level stays the same.

    The level of the cluster is raised when the last node is upgraded, not before. A
    release that does not know the state refuses it, in one line, and changes nothing. Each
    node accepts codes of the release after each step, and shows its events as they were.
    """
    raised = target.level > release.level
    async with Estate(cluster) as estate:
        holders = [
            await estate.holder(f"user-{number}", codes=CODES)
            for number in range(WORKERS)
        ]
        load = Load(estate, holders)
        kept = Kept(estate, load, await estate.holder("kept", codes=KEPT))
        log = AuditLog(estate, tmp_path)
        await log.keep()
        async with load:
            for node in cluster.nodes:
                if raised:
                    assert await level_of(estate) <= release.level
                with load.during(f"{node.node_id} is upgraded"):
                    await put(cluster, node, target.python)
                await kept.spend_on(node)
            async with asyncio.timeout(120):
                while await level_of(estate) != target.level:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await load.goes_on("all nodes are upgraded")
            await kept.spend_on(*cluster.nodes)
            if raised:
                node = cluster.nodes[0]
                with load.during(f"the release refuses the state of {node.node_id}"):
                    await refused_by(release, cluster, node, target)
                for node in cluster.nodes:
                    await until_sealed(node)
            else:
                for node in cluster.nodes:
                    with load.during(f"{node.node_id} goes back"):
                        await put(cluster, node, release.python)
            await load.goes_on("all of it is over")
            await kept.spend_on(*cluster.nodes)
        await kept.stay_spent()
        await estate.until_equal()
        await log.check(answers=sum(map(len, load.accepted.values())))


class AuditLog:
    """The audit log as the release had it, compared with what is left of it."""

    def __init__(self, estate: Estate, folder: Path) -> None:
        self._admin, self._cluster = estate.admin, estate.cluster
        self._folder = folder
        self._released: list[AuditEvent] = []
        self._checkpoints: list[Path] = []

    async def keep(self) -> None:
        """Keep the events of the release, and a checkpoint that it has signed."""
        self._released = await self._events()
        await self._keep_checkpoint()

    async def check(self, *, answers: int) -> None:
        """
        Check that the events are those of the release, and as many sign-ins as *answers*.

        The nodes verify the chain, and so does an operator who has the checkpoints.
        """
        events = await self._events()
        known = len(self._released)
        assert [_content(each) for each in events[:known]] == [
            _content(each) for each in self._released
        ]
        accepted = [
            each
            for each in events
            if (each.action, each.outcome) == ("Authenticate", "accepted")
        ]
        assert len(accepted) == answers
        verdict = await self._admin.verify_chain()
        assert (verdict.broken_sequence, verdict.problem) == (0, "")
        await self._keep_checkpoint()
        exported = self._folder / "log.jsonl"
        with exported.open("wb") as file:
            await self._admin.export_audit_events(file.write)
        assert self._proved(exported) >= events[-1].sequence

    def _proved(self, exported: Path) -> int:
        """Return the last event that `sparecode audit verify` proves."""
        files = [
            word for each in self._checkpoints for word in ("--checkpoint", str(each))
        ]
        keys = str(self._cluster.certificates / "audit.pem")
        command = ["audit", "verify", str(exported), *files, "--public-key", keys]
        done = CliRunner().invoke(app, [*command, "--output", "json"])
        assert done.exit_code == 0, done.output
        return int(json.loads(done.stdout)["proved_up_to"])

    async def _keep_checkpoint(self) -> None:
        path = self._folder / f"checkpoint-{len(self._checkpoints)}.json"
        path.write_text(checkpoint_text(await self._admin.get_checkpoint()))
        self._checkpoints.append(path)

    async def _events(self) -> list[AuditEvent]:
        """Return all events, oldest first."""
        events: list[AuditEvent] = []
        token = ""
        while True:
            page = await self._admin.list_audit_events(
                from_sequence=1, page_size=500, page_token=token
            )
            events += page.items
            token = page.next_page_token
            if not token:
                return events


def _content(event: AuditEvent) -> AuditEvent:
    """Return an event without the field that release 0.1.0 does not show."""
    return dataclasses.replace(event, authentication_id="")


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


async def drop_entries(estate: Estate, nodes: Sequence[LocalNode]) -> None:
    """Create users until the logs of these nodes begin behind all earlier entries."""
    seen = {node.node_id: len(node.log.read_text()) for node in nodes}
    async with asyncio.timeout(COMPACTED_S):
        for number in itertools.count():
            await estate.admin.create_user(f"user-{number}")
            if number >= 2 * ENTRIES_MAX and all(
                node.log.read_text()[seen[node.node_id] :].count(COMPACTED) > 2
                for node in nodes
            ):
                return


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
        await drop_entries(estate, others)
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
