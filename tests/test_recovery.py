# SPDX-License-Identifier: Apache-2.0
"""Restore and recovery on files, without a process: refusals and crashes."""

import contextlib
import datetime as dt
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership import recovery
from sparecode_node.membership.preparation import NEW, StartError, refuse_interrupted
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.cluster.bundles import Bundle
from sparecode_node.services.files import age_files
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.tool.doctor.ages import check_ages
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.state import check_journal, check_state
from tests.services.one_node import one_node
from tests.services.test_backups import name_recipients, write

pytestmark = pytest.mark.asyncio


def config_of(folder: Path) -> Config:
    """Return the part of a configuration that the test needs."""
    return cast(
        "Config",
        SimpleNamespace(
            node=SimpleNamespace(id=NodeId("n1"), data_dir=folder / "data"),
            keys_file=folder / "keyring.json",
            wrapping_key_file=None,
            wrap_command=None,
            given_ring_file=None,
            members={NodeId("n1"): "localhost:7301"},
            peers=SimpleNamespace(listen="localhost:7301"),
        ),
    )


async def backed_up(folder: Path) -> tuple[Path, KeyRing, str]:
    """Return a backup, the ring of its cluster, and the key that opens it."""
    folder.mkdir()  # noqa: ASYNC240
    secret, public = age_files.new_identity()
    async with one_node(folder) as node:
        await name_recipients(node, public)
        return await write(node, folder / "a.backup"), node.ring, secret


def restored(folder: Path, backup: Path, ring: KeyRing, secret: str) -> Config:
    config = config_of(folder)
    recovery.restore(
        config,
        backup,
        Bundle(ring=ring),
        identities=[secret],
        clock=SystemClock(),
        entropy=SystemEntropy(),
    )
    return config


async def test_a_backup_without_a_valid_signature_is_not_restored(
    tmp_path: Path,
) -> None:
    """It opens and names the cluster, but no holder of the ring has signed it."""
    backup, ring, secret = await backed_up(tmp_path / "node")
    forger = KeyRing(
        cluster_id=ring.cluster_id,
        active=ring.active,
        keys={ring.active: b"f" * 64},
    )
    with pytest.raises(StartError, match="not signed"):
        restored(tmp_path, backup, forger, secret)
    with pytest.raises(StartError, match="the bundle of"):
        restored(tmp_path, backup, KeyRing.draw(SystemEntropy()), secret)
    # Nothing is left that would prevent another attempt.
    config = restored(tmp_path, backup, ring, secret)
    assert config.keys_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StartError, match="exists"):
        restored(tmp_path, backup, ring, secret)


async def test_a_restore_replaces_no_sealed_events(tmp_path: Path) -> None:
    """(U1) Those after the backup may be the only record of that time."""
    backup, ring, secret = await backed_up(tmp_path / "node")
    data = config_of(tmp_path).node.data_dir
    data.mkdir(exist_ok=True)
    left = data / "state-audit.db"
    left.write_bytes(b"events of the lost cluster")
    with pytest.raises(StartError, match=r"state-audit\.db exists"):
        restored(tmp_path, backup, ring, secret)
    left.unlink()
    restored(tmp_path, backup, ring, secret)


async def test_doctor_is_calm_between_a_restore_and_the_first_start(
    tmp_path: Path,
) -> None:
    """The state is of the lost cluster until the first entry of the journal."""
    backup, ring, secret = await backed_up(tmp_path / "node")
    config = restored(tmp_path, backup, ring, secret)
    data, now = config.node.data_dir, dt.datetime.now(dt.UTC)
    new = KeyRing.load(config.keys_file)
    journal, _ = check_journal(
        data / "journal", node_id=config.node.id, ring=new, running=False
    )
    assert journal is not None
    assert journal.begins == new.cluster_id != ring.cluster_id
    findings = [
        *check_state(data / "state.db", journal=journal, ring=new),
        *check_ages(data / "state.db", now, new.cluster_id),
    ]
    others = [
        each for each in findings if each.subject != "key age"
    ]  # Of a test's clock.
    assert {each.verdict for each in others} == {Verdict.OK}
    assert any("begins cluster" in each.words for each in findings)
    assert any("take one once it is open" in each.words for each in findings)
    for other in (
        None,
        replace(journal, begins="another"),
        replace(journal, first_index=1),
    ):
        findings = list(check_state(data / "state.db", journal=other, ring=new))
        assert "another cluster" in " ".join(
            each.words for each in findings if each.verdict is Verdict.FAIL
        )


async def survivor(folder: Path) -> tuple[Config, str]:
    """Return a node that has a state, a log with one entry more, and a key ring."""
    backup, ring, secret = await backed_up(folder / "node")
    config = restored(folder, backup, ring, secret)
    return config, KeyRing.load(config.keys_file).cluster_id


def epoch_of(config: Config) -> tuple[str, int, int]:
    """Return cluster, epoch and applied index of a state."""
    with contextlib.closing(sqlite3.connect(config.node.data_dir / "state.db")) as db:
        meta = dict(db.execute("SELECT name, value FROM meta").fetchall())
    return meta["cluster_id"], meta.get("epoch", 1), meta["applied_index"]


async def test_a_survivor_keeps_its_whole_log_and_its_old_files(
    tmp_path: Path,
) -> None:
    """Entries that may have been committed are applied; here the entry of a restore."""
    config, before = await survivor(tmp_path)
    _, epoch, applied = epoch_of(config)
    assert epoch == 1
    own = recovery.surviving_log(config)
    assert (own.applied_index, own.last_index) == (applied, applied + 1)

    made = recovery.recover(config, clock=SystemClock(), entropy=SystemEntropy())

    assert epoch_of(config) == (before, 2, applied + 1)
    ring = KeyRing.load(config.keys_file)
    assert ring.cluster_id == made.cluster_id != before
    assert made.kept_in is not None
    assert KeyRing.load(made.kept_in / "ring.json").cluster_id == before
    assert recovery.surviving_log(config).last_index == applied + 2


async def test_looking_at_a_survivor_writes_nothing(tmp_path: Path) -> None:
    """Its next start compares the pages with their checksums, also after a crash."""
    config, _ = await survivor(tmp_path)
    state = config.node.data_dir / "state.db"
    wal, crashed = state.with_name("state.db-wal"), tmp_path / "crashed"
    crashed.mkdir()
    with contextlib.closing(sqlite3.connect(state)) as db:
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("INSERT INTO meta VALUES ('left_in_the_log', 1)")
        db.commit()
        for file in (state, wal):
            shutil.copy(file, crashed)
    for file in (state, wal):
        shutil.copy(crashed / file.name, file)
    before = [file.read_bytes() for file in (state, wal)]
    assert before[1]
    recovery.surviving_log(config)
    assert [file.read_bytes() for file in (state, wal)] == before


@pytest.mark.parametrize("renames", range(4))
async def test_an_interrupted_recovery_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """After a crash at any rename, the node refuses to start and `recover` finishes."""
    config, before = await survivor(tmp_path)
    done = 0
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        nonlocal done
        if done == renames:
            raise OSError("the power is gone")
        done += 1
        return rename(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing)
        with pytest.raises(StartError, match="power"):
            recovery.recover(config, clock=SystemClock(), entropy=SystemEntropy())
    assert recovery.was_interrupted(config)
    with pytest.raises(StartError, match="sparecode-node recover"):
        refuse_interrupted(config)

    kept = recovery.move(config)

    assert kept is not None
    assert not (config.node.data_dir / NEW).exists()
    refuse_interrupted(config)
    assert KeyRing.load(config.keys_file).cluster_id != before
    assert KeyRing.load(kept / "ring.json").cluster_id == before
    assert {each.name for each in kept.iterdir()} >= {"state.db", "journal"}
    own = recovery.surviving_log(config)
    assert own.last_index == own.applied_index + 1


async def test_the_old_and_the_new_state_both_keep_the_sealed_events(
    tmp_path: Path,
) -> None:
    """(E1) The new one goes on with them, and may replace some of another history."""
    config, _ = await survivor(tmp_path)
    sealed = config.node.data_dir / "state-audit.db"
    sealed.write_bytes(b"sealed events")
    made = recovery.recover(config, clock=SystemClock(), entropy=SystemEntropy())
    assert made.kept_in is not None
    assert (made.kept_in / sealed.name).read_bytes() == sealed.read_bytes()
    assert not list(made.kept_in.glob("*.part"))


async def test_without_files_there_is_nothing_to_recover(tmp_path: Path) -> None:
    config, _ = await survivor(tmp_path)
    shutil.rmtree(config.node.data_dir / "journal")
    with pytest.raises(StartError, match="missing"):
        recovery.surviving_log(config)
    assert not (config.node.data_dir / NEW).exists()
