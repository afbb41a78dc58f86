# SPDX-License-Identifier: Apache-2.0
"""Verification of an export that lacks events which were declared lost (U2)."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sparecode_client.audit.lost_events import LostEvents
from sparecode_client.audit.verification import AuditVerdict, ProblemKind, verify
from sparecode_node.domain.audit import GENESIS_HASH
from sparecode_node.queries.audit import AuditRecord
from tests.client.audit_files import chained, event, log, signed, write

Records = list[AuditRecord]
LOST = range(4, 7)
"""Events that the log of these tests declares lost with its event 9."""
DECLARED = 9


def declaring(
    sequence: int, records: Records, first: int, last: int, **fields: str
) -> AuditRecord:
    """Return an event that declares events lost, after the last one of *records*."""
    before = records[first - 2].hash if first > 1 else GENESIS_HASH
    words = (
        f"1 segment, events {first} to {last}, hash before {before.hex()}, "
        f"hash after {records[last - 1].hash.hex()}: disks of n1 destroyed"
    )
    fields = {"action": "DeclareSegmentsLost", "detail": words, **fields}
    (record,) = chained([event(sequence, **fields)], records[-1].hash)
    return record


def whole(**fields: str) -> Records:
    """Return ten events and two more; one declares others lost."""
    records = log(DECLARED - 1)
    records.append(declaring(DECLARED, records, LOST[0], LOST[-1], **fields))
    return [*records, *chained([event(10), event(11)], records[-1].hash)]


def without(records: Records, numbers: Sequence[int] = LOST) -> Records:
    return [each for each in records if each.event.sequence not in numbers]


def verdict_of(path: Path, kept: Records, original: Records, *at: int) -> AuditVerdict:
    file = write(path / "audit.jsonl", kept)
    return verify(file, [signed(original, each) for each in at])


def test_what_was_declared_lost_is_named_and_no_problem(tmp_path: Path) -> None:
    """(U2) The signature covers the declaration, and this one the log before the gap."""
    records = whole()
    assert verdict_of(tmp_path, without(records), records, 10) == AuditVerdict(
        first=1,
        last=11,
        proved_up_to=10,
        problem=None,
        lost=(LostEvents(first=4, last=6, declared_by=DECLARED),),
    )


def test_a_log_without_its_beginning_says_why(tmp_path: Path) -> None:
    records = log(8)
    records.append(declaring(9, records, 1, 3))
    verdict = verdict_of(tmp_path, records[3:], records, 9)
    assert verdict.problem is None
    assert verdict.first == 4
    assert verdict.lost == (LostEvents(first=1, last=3, declared_by=9),)


def test_a_declaration_that_no_checkpoint_covers_proves_nothing(
    tmp_path: Path,
) -> None:
    """(U2) A forger could have appended it to hide events."""
    records = whole()
    for at, proved in (((8,), 0), ((2, 8), 2), ((2,), 2)):
        verdict = verdict_of(tmp_path, without(records), records, *at)
        assert verdict.problem is not None
        assert (verdict.problem.kind, verdict.problem.sequence) == (
            ProblemKind.MISSING,
            LOST[0],
        )
        assert "no checkpoint proves it" in verdict.problem.words
        assert verdict.problem.line == LOST[0]
        assert (verdict.proved_up_to, verdict.lost) == (proved, ())


@pytest.mark.parametrize(
    "gone", [range(3, 7), range(4, 8), range(4, 6), range(5, 7), range(8, 9)]
)
def test_only_exactly_what_was_declared_may_be_missing(
    tmp_path: Path, gone: range
) -> None:
    """(U2) No event more, and on both sides the recorded hashes."""
    records = whole()
    problem = verdict_of(tmp_path, without(records, gone), records, 11).problem
    assert problem is not None
    assert (problem.kind, problem.sequence) == (ProblemKind.MISSING, gone[0])


@pytest.mark.parametrize(
    "fields",
    [
        {"outcome": "refused"},
        {"outcome": "pending"},
        {"action": "UnlockUser"},
        {"detail": "see: 1 segment, events 4 to 6"},
    ],
)
def test_only_an_applied_declaration_counts(
    tmp_path: Path, fields: dict[str, str]
) -> None:
    records = whole(**fields)
    problem = verdict_of(tmp_path, without(records), records, 11).problem
    assert problem is not None
    assert (problem.kind, problem.sequence) == (ProblemKind.MISSING, LOST[0])


@pytest.mark.parametrize("beside", [3, 6])
def test_a_gap_between_other_hashes_is_a_problem(tmp_path: Path, beside: int) -> None:
    """(U2) The declaration is signed, but is about another log."""
    records = whole()
    recorded = records[beside - 1].hash.hex()
    words = records[DECLARED - 1].event.detail.replace(recorded, "00" * 32)
    records = whole(detail=words)
    problem = verdict_of(tmp_path, without(records), records, 11).problem
    assert problem is not None
    assert (problem.kind, problem.sequence) == (ProblemKind.MISSING, LOST[0])


def test_a_log_that_was_rewritten_before_a_gap_is_a_problem(tmp_path: Path) -> None:
    """(U2) Its chain is consistent, and no later event reaches it but the declaration."""
    records = whole()
    forged = chained(
        [*(each.event for each in records[:2]), event(3, target="mallory")]
    )
    problem = verdict_of(tmp_path, [*forged, *records[6:]], records, 11).problem
    assert problem is not None
    assert problem.kind is ProblemKind.MISSING


def test_a_forged_copy_of_a_declaration_is_a_problem(tmp_path: Path) -> None:
    """(U2) Nothing is proved by a line that is not in the chain."""
    records = whole()
    forged = log(3)
    forged[2:] = chained([event(3, target="mallory")], forged[1].hash)
    wrong = declaring(DECLARED, [*forged, *records[3:8]], LOST[0], LOST[-1])
    verdict = verdict_of(tmp_path, [*forged, *records[6:], wrong], records, 11)
    assert verdict.problem is not None
    assert (verdict.proved_up_to, verdict.lost) == (0, ())


def test_several_declarations_explain_one_gap(tmp_path: Path) -> None:
    records = log(8)
    records.append(declaring(9, records, 5, 6))
    records.append(declaring(10, records, 3, 4))
    verdict = verdict_of(tmp_path, without(records, range(3, 7)), records, 10)
    assert verdict.problem is None
    assert [(each.first, each.declared_by) for each in verdict.lost] == [
        (3, 10),
        (5, 9),
    ]


def test_an_unproved_gap_proves_no_earlier_one(tmp_path: Path) -> None:
    """(U2) No chain leads from the checkpoint over the second gap to the first."""
    records = log(8)
    records.append(declaring(9, records, 2, 3))
    records += chained([event(number) for number in range(10, 13)], records[-1].hash)
    records.append(declaring(13, records, 10, 11))
    kept = without(without(records, [10, 11]), [2, 3])
    proved = verdict_of(tmp_path, kept, records, 13)
    assert proved.problem is None
    assert [each.first for each in proved.lost] == [2, 10]
    verdict = verdict_of(tmp_path, kept, records, 5, 12)
    assert verdict.problem is not None
    assert (verdict.problem.kind, verdict.problem.sequence) == (ProblemKind.MISSING, 2)
    assert (verdict.proved_up_to, verdict.lost) == (0, ())


def test_a_checkpoint_at_the_end_of_a_gap_is_compared(tmp_path: Path) -> None:
    """(U2) The event after the gap names the hash that it signs."""
    records = whole()
    other = log(6)
    other[5:] = chained([event(6, target="mallory")], other[4].hash)
    file = write(tmp_path / "audit.jsonl", without(records))
    verdict = verify(file, [signed(other, 6), signed(records, 11)])
    assert verdict.problem is not None
    assert verdict.problem.kind is ProblemKind.NOT_SIGNED
