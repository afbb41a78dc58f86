# SPDX-License-Identifier: Apache-2.0
"""What earlier releases have left on disk: opened, applied again, and lived on with."""

import contextlib
import json
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparecode_node.replication.log.format import Identity
from sparecode_node.replication.offline.refounding import apply_log
from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.snapshots import read_facts, read_state, write_snapshot
from sparecode_node.statemachine.tables import formats
from sparecode_node.statemachine.tables.schema import read_only_uri
from tests.compatibility import baseline
from tests.compatibility.baseline import BASELINES, HistoryMissingError
from tests.compatibility.golden import TESTDATA, Facts, OneNode, one_node
from tests.system.estate import Estate

FOLDERS = sorted(path.parent.name for path in TESTDATA.glob("*/facts.json"))


@pytest.fixture(params=FOLDERS)
def golden(request: pytest.FixtureRequest) -> Path:
    return TESTDATA / request.param


@pytest.fixture
def facts(golden: Path) -> Facts:
    return Facts.read(golden)


@pytest.fixture
def cluster(golden: Path, facts: Facts, tmp_path: Path) -> Iterator[OneNode]:
    """
    Return a cluster of one on a copy of the folder, which does not run yet.

    Its state is that of the snapshot, so that all of the journal is applied again.
    """
    cluster = one_node(tmp_path / "cluster", sys.executable)
    (node,) = cluster.nodes
    data = node.directory / "data"
    shutil.rmtree(data)
    shutil.copytree(golden / "data", data)
    (snapshot,) = (data / "journal").glob("snapshot.*.*")
    shutil.copy(snapshot, data / "state.db")
    shutil.copy(golden / "keyring.json", node.key_ring)
    node.key_ring.chmod(0o600)
    cluster.password_file.write_text(facts.password)
    try:
        yield cluster
    finally:
        cluster.kill()


def test_every_release_has_a_golden_folder():
    commits = {name: Facts.read(TESTDATA / name).commit for name in FOLDERS}
    assert commits == BASELINES


def test_the_tables_of_a_released_level_are_those_of_the_release(
    golden: Path, facts: Facts
):
    """A change of the tables begins a level: a node may go back within a level."""
    assert facts.schema == facts.level
    uri = read_only_uri(golden / "data/state.db", immutable=True)
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True)) as released,
        contextlib.closing(sqlite3.connect(":memory:")) as ours,
    ):
        formats.prepare(ours)
        formats.convert(ours, facts.level)
        assert columns(ours) == columns(released)


def columns(db: sqlite3.Connection) -> list[tuple[object, ...]]:
    """Return what is known of each column and of each index."""
    return db.execute(
        'SELECT tables.name, found.name, found.type, "notnull", dflt_value, pk '
        "FROM sqlite_schema AS tables "
        "LEFT JOIN pragma_table_info(tables.name) AS found ORDER BY 1, found.cid"
    ).fetchall()


def test_journal_gives_the_state_of_the_release(
    golden: Path, facts: Facts, tmp_path: Path
):
    """To the last row: below the next level, this software writes nothing of it."""
    shutil.copytree(golden / "data", tmp_path / "data")
    (snapshot,) = (tmp_path / "data/journal").glob("snapshot.*.*")
    state = shutil.copy(snapshot, tmp_path / "state.db")
    ring = json.loads((golden / "keyring.json").read_text())
    identity = Identity(cluster_id=ring["cluster_id"], node_id="n1")
    log = apply_log(tmp_path / "data/journal", state, identity, {"n1": "n1:7301"})
    after = read_state(state)
    assert log.last_index >= after.index >= facts.index
    assert after.digest == facts.digest
    write_snapshot(state, tmp_path / "written")
    assert read_facts(tmp_path / "written") == after
    uri = read_only_uri(tmp_path / "written", immutable=True)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (facts.schema,)


def test_the_messages_of_a_released_level_are_those_of_the_release(facts: Facts):
    """What is added to the log belongs to a level that is not released yet."""
    path = f"node/sparecode_node/replication/levels/level_{facts.level}.binpb"
    try:
        released = baseline.file_of(facts.commit, path)
    except HistoryMissingError as missing:
        pytest.skip(f"releases are read from the history: {missing}")
    assert (baseline.ROOT / path).read_bytes() == released


def test_state_is_the_one_that_the_release_had(golden: Path, facts: Facts):
    uri = f"{(golden / 'data/state.db').as_uri()}?mode=ro&immutable=1"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (facts.schema,)
        assert digest(db) == facts.digest


@pytest.mark.asyncio
async def test_journal_is_decided_as_it_was_and_the_cluster_lives_on(
    cluster: OneNode, facts: Facts
):
    """
    The audit log knows every decision: at the release's last event its head is the same.

    What was spent stays spent, what was live is accepted, once; and the cluster is
    raised to the level of the software that it runs now.
    """
    cluster.start()
    async with Estate(cluster) as estate:
        agent = estate.any_agent
        for username, code in facts.spent.items():
            assert not (await agent.authenticate(username, facts.pin + code)).accepted
        for username, code in facts.live.items():
            assert (await agent.authenticate(username, facts.pin + code)).accepted
            assert not (await agent.authenticate(username, facts.pin + code)).accepted
        status = await estate.admin.get_status()
        while status.feature_level < NEWEST:
            status = await estate.admin.get_status()
    (node,) = cluster.nodes
    assert node.stop() == 0
    with contextlib.closing(sqlite3.connect(node.directory / "data/state.db")) as db:
        events = db.execute(
            "SELECT hash FROM audit_events WHERE sequence = ?", (facts.audit_sequence,)
        ).fetchone()
    assert events[0].hex() == facts.audit_head
