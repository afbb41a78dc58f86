# SPDX-License-Identifier: Apache-2.0
"""What earlier releases have left on disk: opened, applied again, and lived on with."""

import contextlib
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.tables import schema
from tests.compatibility import baseline
from tests.compatibility.golden import TESTDATA, Facts, OneNode, one_node
from tests.system.estate import PIN, Estate

FOLDERS = sorted(path.name for path in TESTDATA.iterdir())


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


def test_every_baseline_has_a_golden_folder():
    """Of the newest level, there is one when it is released."""
    earlier = {f"level-{level}" for level in range(1, NEWEST)}
    assert earlier <= set(FOLDERS)
    assert earlier <= set(baseline.BASELINES)


def test_there_is_a_release_to_go_back_to():
    """Of the formats of now: without one no test takes the way back."""
    name = f"level-{NEWEST}-format-{schema.VERSION}"
    if name not in FOLDERS:
        pytest.skip(f"the formats are new: name a commit with them, and make {name}")
    assert Facts.read(TESTDATA / name).commit == baseline.BASELINES["newest"]


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
            assert not (await agent.authenticate(username, PIN + code)).accepted
        for username, code in facts.live.items():
            assert (await agent.authenticate(username, PIN + code)).accepted
            assert not (await agent.authenticate(username, PIN + code)).accepted
        status = await estate.admin.get_status()
        while status.feature_level < NEWEST:
            status = await estate.admin.get_status()
    (node,) = cluster.nodes
    assert node.stop() == 0
    with contextlib.closing(sqlite3.connect(node.directory / "data/state.db")) as db:
        found = db.execute(
            "SELECT hash FROM audit_events WHERE sequence = ?", (facts.audit_sequence,)
        ).fetchone()
    assert found[0].hex() == facts.audit_head
