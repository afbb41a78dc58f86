# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node skip-entry` on files, without a process: what it finds and refuses (E3)."""

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sparecode_node.config import Config
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership import skipping
from sparecode_node.membership.certificates import write_certificates
from sparecode_node.membership.preparation import JOURNAL, SKIPS, STATE, StartError
from sparecode_node.membership.skipping import Wish
from sparecode_node.replication.codec import encode_entry
from sparecode_node.replication.log.format import SALT_BYTES, Identity
from sparecode_node.replication.log.journal import open_journal
from sparecode_node.replication.log.skip_statements import SkipStatement
from sparecode_node.replication.log.skips import Decision, Stop
from sparecode_node.replication.log.storage import DirectoryStorage
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.offline.refounding import SurvivingLog
from sparecode_node.replication.offline.skipping import Trial
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.services.ambient import Clock, SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.statemachine import dispatch
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.cluster import RaiseFeatureLevel
from sparecode_node.statemachine.commands.users import CreateUser
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.skipping import SkippedEntry
from sparecode_node.tool.doctor.skips import check_stop
from tests.statemachine.world import START_MS, World

VOTERS = ("n1", "n2", "n3")


class Machine:
    """The files of a stopped node, whose log ends with two entries not applied yet."""

    def __init__(self, folder: Path, node_id: str, ring: KeyRing) -> None:
        self.world = World()
        self.world.index = 1  # The log begins with an entry of its own.
        self.world.begin()
        self.world.handle("raise-feature-level", {"level": "2"})
        self.applied = self.world.index
        self.data = folder / node_id
        self.data.mkdir()
        certificates = folder / "certificates"
        file = folder / f"{node_id}.keyring.json"
        self.config = cast(
            "Config",
            SimpleNamespace(
                path=folder / "node.toml",
                node=SimpleNamespace(id=NodeId(node_id), data_dir=self.data),
                keys_file=file,
                wrapping_key_file=None,
                wrap_command=None,
                given_ring_file=None,
                members={NodeId(each): f"{each}:7301" for each in VOTERS},
                peers=SimpleNamespace(
                    certificate=certificates / f"{node_id}.pem",
                    key=certificates / f"{node_id}.key",
                    ca=certificates / "members-ca.pem",
                ),
            ),
        )
        skipping.ring_file(self.config).save(ring)
        with contextlib.closing(sqlite3.connect(self.data / STATE)) as db:
            self.world.db.backup(db)
            db.execute("PRAGMA journal_mode = WAL").fetchall()
        self.calls = [
            self.world.call("create-user", {"name": name})
            for name in ("bob", "mallory")
        ]
        self.write_log(ring.cluster_id)

    def write_log(self, cluster_id: str) -> None:
        storage = DirectoryStorage(self.data / JOURNAL)
        journal = open_journal(
            storage,
            Identity(cluster_id, self.config.node.id),
            Configuration.of(Member(node_id=NodeId(v), address="") for v in VOTERS),
            must_exist=False,
            salt=bytes(SALT_BYTES),
        )
        journal.setCurrentTerm(1, None)
        log = [*self.world.log, (0, tuple(self.calls[:1])), (0, tuple(self.calls[1:]))]
        for index, (_, calls) in enumerate(log, start=2):
            journal.add(b"\x00" + encode_entry(calls), index, 1)
        journal.sync()
        journal.close()
        storage.close()

    @property
    def poison(self) -> int:
        """The index of the entry that stops a node with the bug."""
        return self.applied + 2

    def sign(self, trial: Trial, operator: str = "ada") -> tuple[SkipStatement, Path]:
        stop = trial.stop
        assert stop is not None
        wish = Wish(
            index=stop.index, digest=stop.digest, operator=operator, reason="bug 7"
        )
        clock = cast("Clock", SimpleNamespace(now_ms=lambda: self.world.now_ms))
        return skipping.sign_here(self.config, wish, stop, clock)


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Machine, Machine]:
    """Return n1 and n2 of a cluster of three."""
    now = dt.datetime.fromtimestamp(START_MS / 1000, dt.UTC)
    write_certificates(tmp_path / "certificates", members=VOTERS, now=now)
    ring = KeyRing.draw(SystemEntropy())
    return Machine(tmp_path, "n1", ring), Machine(tmp_path, "n2", ring)


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Exception]]:
    """Let each command that makes the user mallory raise an exception."""
    decide = dispatch.decide
    raised: dict[str, Exception] = {"error": ZeroDivisionError()}

    def broken(applying: Applying, again: Callable[[Applying], Result]) -> Result:
        command = applying.call.command
        if isinstance(command, CreateUser) and command.name_key == "mallory":
            raise raised["error"]
        return decide(applying, again)

    monkeypatch.setattr(dispatch, "decide", broken)
    return raised


def test_the_entry_is_found_on_a_copy(
    machines: tuple[Machine, Machine], bug: dict[str, Exception]
) -> None:
    """Nothing of the node changes, and the callers are named (E3)."""
    n1, _ = machines
    before = (n1.data / STATE).read_bytes()
    trial = skipping.try_here(n1.config)
    assert trial.stop is not None
    assert (trial.stop.index, trial.stop.term) == (n1.poison, 1)
    assert trial.stop.cause.startswith("ZeroDivisionError in test_skip_tool.py, line ")
    assert (trial.log.applied_index, trial.log.last_index) == (n1.applied, n1.poison)
    (caller,) = trial.callers
    assert caller.startswith("CreateUser of administrator:root, request ")
    assert trial.decision is not None
    assert trial.decision.needed == 2
    assert not trial.objection
    # Not a byte: the node compares its pages with their checksums at its next start.
    assert (n1.data / STATE).read_bytes() == before
    assert not (n1.data / skipping.COPY).exists()


def test_a_log_without_a_bad_entry_is_told(machines: tuple[Machine, Machine]) -> None:
    trial = skipping.try_here(machines[0].config)
    assert (trial.stop, trial.decision) == (None, None)


def test_a_failing_machine_is_no_bad_entry(
    machines: tuple[Machine, Machine], bug: dict[str, Exception]
) -> None:
    """An operator must not skip an entry because a disk is full (E3)."""
    bug["error"] = OSError(28, "No space left on device")
    with pytest.raises(StartError, match="No space left on device"):
        skipping.try_here(machines[0].config)


def test_statements_of_two_members_end_it(
    machines: tuple[Machine, Machine], bug: dict[str, Exception]
) -> None:
    """Each node needs both, and keeps the other's as it was signed (E3)."""
    n1, n2 = machines
    first, file = n1.sign(skipping.try_here(n1.config))
    trial = skipping.try_here(n1.config)
    assert trial.decision is not None
    assert trial.decision.signed == {"n1"}
    _, second = n2.sign(skipping.try_here(n2.config), "bob")
    (taken,) = skipping.add(n1.config, [second])
    assert (taken.member, taken.operator) == ("n2", "bob")
    for machine, statements in ((n1, [file]), (n2, [file])):
        assert skipping.add(machine.config, statements) == [first]
        assert skipping.try_here(machine.config).decision is None
        assert second.stat().st_mode & 0o777 == 0o600


def test_a_cured_release_still_stops_at_a_signed_entry(
    machines: tuple[Machine, Machine],
    bug: dict[str, Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another node may have skipped it by now (E3)."""
    n1, _ = machines
    n1.sign(skipping.try_here(n1.config))
    monkeypatch.undo()
    trial = skipping.try_here(n1.config)
    assert trial.stop is None
    assert trial.decision is not None
    assert trial.decision.signed == {"n1"}


def test_some_entries_are_never_skipped(
    machines: tuple[Machine, Machine], bug: dict[str, Exception], tmp_path: Path
) -> None:
    """The log after them means something else without them (E3)."""
    n1, _ = machines
    level = replace(n1.calls[1], command=RaiseFeatureLevel(level=2))
    n1.calls.append(level)
    n1.data = n1.data.rename(tmp_path / "moved")
    (n1.data / JOURNAL / "raft.journal").unlink()
    (n1.data / JOURNAL / "raft.mark").unlink()
    cast("Any", n1.config).node.data_dir = n1.data
    n1.write_log(skipping.ring_file(n1.config).load().cluster_id)
    trial = skipping.try_here(n1.config)
    assert "would mean something else" in trial.objection


# --- When a node does not sign

DIGEST = "ab" * 32
STOP = Stop(index=9, term=2, digest=DIGEST, commands="1 CreateUser", cause="KeyError")
LOG = SurvivingLog(
    cluster_id="c1",
    node_id=NodeId("n1"),
    members=(),
    applied_index=8,
    last_index=12,
    last_term=2,
)
TRIAL = Trial(
    log=LOG,
    stop=STOP,
    decision=Decision(
        entry=SkippedEntry(index=9, term=2, digest=DIGEST, cluster_id="c1"),
        signed=frozenset(),
        voters=frozenset(VOTERS),
    ),
)
WISH = Wish(index=9, digest=DIGEST, operator="ada", reason="bug 7")


def status(node_id: str, applied: int, *, reachable: bool = True) -> MemberStatus:
    return MemberStatus(
        node_id=NodeId(node_id), reachable=reachable, applied_index=applied
    )


@pytest.mark.parametrize(
    ("trial", "wish", "others", "words"),
    [
        (TRIAL, WISH, (), ""),
        (TRIAL, WISH, (status("n2", 8), status("n3", 0, reachable=False)), ""),
        (
            replace(TRIAL, log=replace(LOG, applied_index=9)),
            WISH,
            (),
            "n1 has applied entry 9",
        ),
        (
            replace(TRIAL, log=replace(LOG, last_index=8), stop=None),
            WISH,
            (),
            "ends at entry 8",
        ),
        (replace(TRIAL, stop=None, decision=None), WISH, (), "can apply every entry"),
        (TRIAL, replace(WISH, index=10), (), "n1 stops at entry 9, not at entry 10"),
        (TRIAL, replace(WISH, digest="cd" * 32), (), "has the digest abab"),
        (
            replace(TRIAL, objection="of level 1"),
            WISH,
            (),
            "cannot be skipped: of level",
        ),
        (TRIAL, WISH, (status("n2", 9),), "n2 has gone beyond entry 9"),
        (
            TRIAL,
            WISH,
            (status("n3", 12), status("n2", 0)),
            "n3 has gone beyond entry 9",
        ),
    ],
)
def test_a_node_signs_only_for_the_entry_that_stops_it(
    trial: Trial, wish: Wish, others: tuple[MemberStatus, ...], words: str
) -> None:
    """And only while no member in reach has applied it (E3)."""
    objection = skipping.objection(trial, wish, others, "n1")
    assert words in objection
    assert bool(words) == bool(objection)


def test_a_node_that_is_no_voter_does_not_sign() -> None:
    assert "n4 is no voter" in skipping.objection(TRIAL, WISH, (), "n4")


# --- Statements that are not taken


def test_statements_of_strangers_are_not_taken(
    machines: tuple[Machine, Machine], bug: dict[str, Exception], tmp_path: Path
) -> None:
    """Nor those of another cluster, nor one in this node's name made elsewhere (E3)."""
    n1, n2 = machines
    trial = skipping.try_here(n2.config)
    statement, file = n2.sign(trial)
    for change, words in (
        ({"reason": "another"}, "signature is wrong"),
        ({"signature": b""}, "signature is wrong"),
        ({"certificate": ""}, "certificate cannot be read"),
        ({"member": "n3"}, "not that of n3"),
    ):
        bad = tmp_path / "bad.statement"
        bad.write_text(replace(statement, **cast("Any", change)).to_text())
        with pytest.raises(StartError, match=words):
            skipping.add(n1.config, [bad])
    own, _ = n1.sign(skipping.try_here(n1.config), "eve")
    stolen = tmp_path / "stolen.statement"
    stolen.write_text(own.to_text())
    n1.sign(skipping.try_here(n1.config))  # The name of the file is the same.
    with pytest.raises(StartError, match=r"not here.*leaked-key\.md"):
        skipping.add(n1.config, [stolen])
    other = KeyRing.draw(SystemEntropy())
    skipping.ring_file(n1.config).save(other)
    with pytest.raises(StartError, match="of cluster"):
        skipping.add(n1.config, [file])
    assert [path.name[-12:] for path in (n1.data / SKIPS).glob("*.statement")] == [
        "n1.statement"
    ]


def test_doctor_names_the_entry_and_the_page(machines: tuple[Machine, Machine]) -> None:
    """Until the state includes it."""
    n1, _ = machines
    assert list(check_stop(n1.config)) == []
    folder = skipping.folder_of(n1.config)
    folder.note_stop(replace(STOP, index=n1.applied + 1))
    (finding,) = check_stop(n1.config)
    assert f"stops at entry {n1.applied + 1} (1 CreateUser): KeyError" in finding.words
    assert "docs/runbooks/poison-entry.md" in finding.words
    folder.note_stop(replace(STOP, index=n1.applied))
    assert list(check_stop(n1.config)) == []
