# SPDX-License-Identifier: Apache-2.0
"""The doctor's findings about channels that do not deliver, of each kind (N2)."""

import contextlib
import datetime as dt
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparecode_node.services.notices.ocsf import event_uid
from sparecode_node.statemachine.tables.formats import convert, prepare
from sparecode_node.tool.doctor.findings import Finding, Verdict
from sparecode_node.tool.doctor.notices import check_notices

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
EVENTS = 30
"""Events of the audit log, one a minute; the last one is of now."""


def ms(minutes: int) -> int:
    return int((NOW - dt.timedelta(minutes=minutes)).timestamp() * 1000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the data folder of a node whose state has an audit log."""
    with changing(tmp_path, make=True) as db:
        prepare(db)
        db.execute("INSERT INTO meta VALUES ('cluster_id', 'c')")
        db.execute("INSERT INTO meta VALUES ('now_ms', ?)", (ms(0),))
        db.executemany(
            "INSERT INTO audit_events VALUES (?, ?, '', '', '', '', '', '', '', X'')",
            [(number, ms(EVENTS - number)) for number in range(1, EVENTS + 1)],
        )
    return tmp_path


@contextlib.contextmanager
def changing(folder: Path, *, make: bool = False) -> Iterator[sqlite3.Connection]:
    """Give the state's database, and keep what is written to it."""
    path = folder / "state.db"
    assert make or path.exists()
    with contextlib.closing(sqlite3.connect(path)) as db:
        yield db
        db.commit()


def add(folder: Path, name: str, kind: str, *, position: int = 0, on: int = 1) -> None:
    with changing(folder) as db:
        db.execute(
            "INSERT INTO channels VALUES (?, ?, ?, ?, '', 'tokens', 0, '', X'', 1, 1, 1, 0, "
            "0, 0, ?, '', '', '')",
            (name, name, kind, on, position),
        )


def notice(folder: Path, channel: str, *, minutes: int, dead: int = 0) -> None:
    with changing(folder) as db:
        db.execute(
            "INSERT INTO notices VALUES (NULL, ?, 'c-1-1', 1, 'tokens', 1, ?, '', '', '', "
            "'', '', '', '', 0, ?, '', '', '', '', '', 0, '', 0)",
            (channel, ms(minutes), dead),
        )


def written(folder: Path, channel: str, last: int, cluster: str = "c") -> Path:
    """Return the node's folder of event files, with a file up to an event."""
    events = folder / "events"
    events.mkdir(exist_ok=True)
    lines = [
        f'{{"id": "{event_uid(cluster, each)}", "cluster": "{cluster}", '
        f'"sequence": {each}}}\n'
        for each in range(1, last + 1)
    ]
    (events / f"{channel}.jsonl").write_text("".join(lines))
    return events


def found(
    folder: Path, events: Path | None = None, *, running: bool = True, hours: int = 0
) -> list[tuple[Verdict, str]]:
    """Return the findings, *hours* after the last event."""
    findings: list[Finding] = list(
        check_notices(
            folder,
            folder / "state.db",
            events,
            NOW + dt.timedelta(hours=hours),
            running=running,
        )
    )
    assert {each.subject for each in findings} <= {"notices"}
    return [(each.verdict, each.words) for each in findings]


def test_channels_that_deliver_are_fine(folder: Path) -> None:
    add(folder, "hook", "webhook")
    add(folder, "log", "file")
    add(folder, "mail", "mail")
    add(folder, "siem", "syslog", position=EVENTS - 1)
    notice(folder, "hook", minutes=19)
    [(verdict, words)] = found(folder, written(folder, "log", EVENTS - 19))
    assert verdict is Verdict.OK
    assert words == (
        "nothing waits for long: hook (webhook), log (file), mail (mail), siem (syslog)"
    )


@pytest.mark.parametrize("kind", ["webhook", "mail"])
def test_a_receiver_that_fails_is_found(folder: Path, kind: str) -> None:
    add(folder, "late", kind)
    notice(folder, "late", minutes=21)
    notice(folder, "late", minutes=1)
    [(verdict, words)] = found(folder)
    assert verdict is Verdict.WARN
    assert words.startswith("channel late has not delivered 2 notices, the oldest of")
    assert "2026-05-31 23:39 UTC (21 minutes ago)" in words
    assert "sparecode notices test late" in words


def test_dead_letters_are_found_also_of_a_disabled_channel(folder: Path) -> None:
    """An answer of 410 disables a channel."""
    add(folder, "gone", "webhook", on=0)
    notice(folder, "gone", minutes=1, dead=1)
    [(verdict, words)] = found(folder)
    assert verdict is Verdict.WARN
    assert words.startswith("channel gone has 1 dead letter, and is disabled:")
    assert "sparecode notices send-again" in words


def test_a_receiver_of_syslog_that_is_behind_is_found(folder: Path) -> None:
    """By the last event that the state has recorded as received."""
    add(folder, "siem", "syslog", position=5)
    [(verdict, words)] = found(folder)
    assert verdict is Verdict.WARN
    assert words.startswith(
        "channel siem has sent nothing after event 5: 25 events wait"
    )
    assert "(24 minutes ago)" in words
    assert "sparecode notices test siem" in words


def test_events_that_are_sealed_wait_as_well(folder: Path) -> None:
    """They are in another file than the rest of the audit log."""
    add(folder, "siem", "syslog", position=5)
    with changing(folder) as db:
        db.execute("DELETE FROM audit_events WHERE sequence <= 20")
        db.execute(
            "INSERT INTO audit_segments VALUES (1, 1, 20, ?, ?, X'', X'')",
            (ms(90), ms(70)),
        )
    [(verdict, words)] = found(folder)
    assert verdict is Verdict.WARN
    assert "25 events wait" in words
    assert "(70 minutes ago)" in words


def test_a_file_that_is_behind_is_found(folder: Path) -> None:
    add(folder, "log", "file")
    [(verdict, words)] = found(folder, written(folder, "log", 5))
    assert verdict is Verdict.WARN
    assert words.startswith("channel log lacks 25 events in ")
    assert "stream_interrupted" in words


def test_a_file_of_an_earlier_cluster_counts_from_the_channels_beginning(
    folder: Path,
) -> None:
    """After a restore its events have other ids."""
    add(folder, "log", "file", position=EVENTS - 2)
    assert [each for each, _ in found(folder, written(folder, "log", 5, "old"))] == [
        Verdict.OK
    ]


def test_a_folder_that_the_node_refuses_is_found(folder: Path) -> None:
    add(folder, "log", "file")
    [(verdict, words)] = found(folder, folder / "none")
    assert verdict is Verdict.FAIL
    assert "none: No such file or directory; mount or create it" in words
    events = written(folder, "log", EVENTS)
    events.chmod(0o777)
    [(verdict, words)] = found(folder, events)
    assert verdict is Verdict.FAIL
    assert f"chmod o-w {events}" in words
    [(verdict, words)] = found(folder, events / "log.jsonl")
    assert (verdict, "is no folder" in words) == (Verdict.FAIL, True)


@pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root: changes the owner of a folder"
)
def test_a_folder_of_another_user_is_found(folder: Path) -> None:
    """The owner of the data folder is the node's user, also if root runs doctor."""
    add(folder, "log", "file")
    events = written(folder, "log", EVENTS)
    os.chown(events, 10001, 10001)
    [(verdict, words)] = found(folder, events)
    assert verdict is Verdict.FAIL
    assert "belongs to another user" in words
    os.chown(folder, 10001, 10001)
    assert [each for each, _ in found(folder, events)] == [Verdict.OK]


def test_a_folder_that_cannot_be_written_is_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(folder, "log", "file")
    events = written(folder, "log", EVENTS)
    monkeypatch.setattr(os, "access", lambda *_: False)
    [(verdict, words)] = found(folder, events)
    assert verdict is Verdict.FAIL
    assert "cannot be written to: give it to the node's user" in words


def test_a_link_in_place_of_a_file_is_not_followed(folder: Path) -> None:
    add(folder, "log", "file")
    events = written(folder, "other", EVENTS)
    (events / "log.jsonl").symlink_to(events / "other.jsonl")
    [(verdict, words)] = found(folder, events)
    assert verdict is Verdict.WARN
    assert "channel log not checked" in words


def test_a_node_without_a_folder_says_so(folder: Path) -> None:
    add(folder, "log", "file")
    [(verdict, words)] = found(folder)
    assert verdict is Verdict.OK
    assert "node.toml names no event_folder" in words


def test_a_stopped_node_is_judged_as_of_its_last_call(folder: Path) -> None:
    """Its state is old, and another node may have delivered since."""
    add(folder, "hook", "webhook")
    notice(folder, "hook", minutes=1)
    assert [each for each, _ in found(folder, hours=8, running=False)] == [Verdict.OK]
    assert [each for each, _ in found(folder, hours=8)] == [Verdict.WARN]


def test_nothing_is_delivered_before_a_restored_cluster_is_open(folder: Path) -> None:
    """(E2)."""
    add(folder, "siem", "syslog")
    with changing(folder) as db:
        db.execute("INSERT INTO meta VALUES ('not_open', 1)")
    [(verdict, words)] = found(folder)
    assert verdict is Verdict.WARN
    assert "sparecode cluster open" in words


def test_files_are_judged_also_before_a_restored_cluster_is_opened(
    folder: Path,
) -> None:
    """(E2) They are written all the same."""
    add(folder, "events", "file")
    with changing(folder) as db:
        db.execute("INSERT INTO meta VALUES ('not_open', 1)")
    [(_, words)] = found(folder)
    assert "writes no file here" in words


def test_a_state_without_channels_is_no_finding(folder: Path) -> None:
    """Nor is one of an earlier release, a damaged one, or none."""
    assert found(folder) == []
    with changing(folder) as db:
        convert(db, 1)
    assert found(folder) == []
    (folder / "state.db").write_bytes(b"not a database" * 100)
    assert found(folder) == []
    (folder / "state.db").unlink()
    assert found(folder) == []
