# SPDX-License-Identifier: Apache-2.0
"""A log that begins after what retention has removed says so itself (U4)."""

from pathlib import Path

from sparecode_client.audit.lost_events import LostEvents
from sparecode_client.audit.removed_events import Removal, RemovedLog, removal
from sparecode_client.audit.verification import verify
from sparecode_node.domain.audit import GENESIS_HASH
from tests.client.audit_files import chained, event, log, signed, write, write_archive
from tests.client.audit_files import write_checkpoint as save
from tests.client.conftest import Cli
from tests.client.test_lost_events import Records, declaring, verdict_of

REMOVED = 5
"""The last event that retention has removed."""
SAYS = 9
"""The event that says so."""
ARCHIVES = "node:n1 (/srv/a; b); node:n2 (/mnt)"


def removing(sequence: int, records: Records, last: int, **fields: str) -> Records:
    """Return an event that removes events, after the last one of *records*."""
    words = (
        f"{last // 5} segments, events 1 to {last}, hash before {GENESIS_HASH.hex()}, "
        f"hash after {records[last - 1].hash.hex()}: the last 1 are in at least 2 "
        f"archives: {ARCHIVES}"
    )
    fields = {"action": "RemoveSegments", "detail": words, **fields}
    return chained([event(sequence, **fields)], records[-1].hash)


def whole(**fields: str) -> Records:
    """Return ten events; the ninth removes the first five."""
    records = log(SAYS - 1)
    records += removing(SAYS, records, REMOVED, **fields)
    return records + chained([event(10)], records[-1].hash)


def test_the_verdict_names_what_was_removed_and_by_which_event(tmp_path: Path) -> None:
    records = whole()
    verdict = verdict_of(tmp_path, records[REMOVED:], records, 10)
    assert (verdict.problem, verdict.first, verdict.proved_up_to) == (None, 6, 10)
    assert verdict.removed == RemovedLog(
        segments=1,
        last=REMOVED,
        removed_by=SAYS,
        at_ms=records[SAYS - 1].event.at_ms,
        copies=2,
        archives=ARCHIVES,
    )


def test_only_a_proved_and_fitting_removal_explains_the_beginning(
    tmp_path: Path,
) -> None:
    """A forger could append the event, or cut the log elsewhere."""
    records = whole()
    for kept, original, at in (
        (records[REMOVED:], records, 8),  # No checkpoint covers it.
        (records[REMOVED + 1 :], records, 10),  # Another event is gone, too.
        (records[REMOVED - 1 :], records, 10),  # One is still there.
        *(
            (changed[REMOVED:], changed, 10)
            for changed in (
                whole(outcome="refused"),
                whole(action="UnlockUser"),
                whole(detail="1 segment, events 1 to 5"),
                whole(
                    detail=records[SAYS - 1].event.detail.replace(
                        records[REMOVED - 1].hash.hex(), "0" * 64
                    )
                ),
            )
        ),
    ):
        assert verdict_of(tmp_path, kept, original, at).removed is None


def test_a_removal_at_no_time_explains_nothing() -> None:
    """A forged event may have any number as its time; it must not end the check."""
    said = removing(SAYS, log(SAYS - 1), REMOVED)[0].event
    latest = 253_402_300_799_999

    def of(at_ms: int) -> Removal | None:
        return removal(
            SAYS,
            at_ms=at_ms,
            action=said.action,
            outcome=said.outcome,
            detail=said.detail,
        )

    assert of(-1) is None
    assert of(latest + 1) is None
    found = of(latest)
    assert found is not None
    assert found.log.time.year == 9999


def test_lost_events_may_follow_removed_ones(tmp_path: Path) -> None:
    """(U2) Both are named; a later removal takes the place of an earlier one."""
    records = log(12)
    records.append(declaring(13, records, 6, 8))
    records += removing(14, records, 5)
    verdict = verdict_of(tmp_path, records[8:], records, 14)
    assert verdict.removed is not None
    assert verdict.removed.removed_by == 14
    assert verdict.lost == (LostEvents(first=6, last=8, declared_by=13),)
    records += removing(15, records, 10)
    verdict = verdict_of(tmp_path, records[10:], records, 15)
    assert verdict.removed is not None
    assert (verdict.removed.last, verdict.removed.removed_by) == (10, 15)
    assert verdict.lost == ()


def test_a_gap_that_retention_made_names_the_archives(tmp_path: Path) -> None:
    """An archive without its newest segment, and an export after the removed events."""
    records = log(12)
    records += removing(13, records, 10)
    file = write(tmp_path / "audit.jsonl", records[:5] + records[10:])
    verdict = verify(file, [signed(records, 5), signed(records, 13)])
    assert verdict.problem is not None
    assert verdict.problem.words.startswith(
        "events 6 to 10 are missing: retention removed events 1 to 10 on 2023-11-14 "
        f"(event 13), and they are in 2 archives: {ARCHIVES}"
    )
    assert verdict.proved_up_to == 5


def test_verify_says_what_was_removed_and_proves_across(
    stranger: Cli, tmp_path: Path
) -> None:
    """In words, in JSON, and with the archive as one log."""
    records = whole()
    file = str(write(tmp_path / "left.jsonl", records[REMOVED:]))
    checkpoint = str(save(tmp_path / "head.json", signed(records, 10)))
    archive = str(write_archive(tmp_path / "archive", 1))
    arguments = ("audit", "verify", file, "--checkpoint", checkpoint)

    words = " ".join(stranger(*arguments).stdout.split())
    answer = stranger.json(*arguments)
    across = stranger(*arguments, "--archive", archive)

    assert "Proved: events 6 to 10 are complete and unchanged." in words
    assert (
        "Events 1 to 5 (segments up to 1) were removed by retention on 2023-11-14 "
        "22:13:20 UTC: event 9 says that at least 2 archives had them "
        f"({ARCHIVES}). To verify them, give one with --archive." in words
    )
    assert answer["removed"]["removed_by"] == SAYS
    assert answer["removed"]["at_ms"] == records[SAYS - 1].event.at_ms
    assert "Proved: events 1 to 10 are complete" in across.stdout
    assert "removed" not in across.stdout
