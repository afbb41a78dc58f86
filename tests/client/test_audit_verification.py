# SPDX-License-Identifier: Apache-2.0
"""Verification of an export: what it proves, and its first problem (U2)."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from sparecode_client.audit.checkpoints import (
    AuditFileError,
    canonical_form,
    read_checkpoint,
    read_public_keys,
    signature_is_right,
)
from sparecode_client.audit.verification import (
    AuditProblem,
    AuditVerdict,
    ProblemKind,
    _read,
    verify,
)
from sparecode_node.domain.audit import AuditEvent, chain_hash
from sparecode_node.queries.audit import AuditRecord
from sparecode_node.services.cluster import checkpoints
from sparecode_node.services.files import audit_export
from sparecode_node.services.files.audit_export import ExportFormat
from tests.client.audit_files import (
    OTHER_RING,
    RING,
    chained,
    event,
    log,
    signed,
    write,
    write_checkpoint,
)

Records = list[AuditRecord]


def verdict_of(path: Path, records: Records, *at: int) -> AuditVerdict:
    """Verify a file against checkpoints of the original log."""
    return verify(write(path / "audit.jsonl", records), [signed(log(), n) for n in at])


def problem_of(path: Path, records: Records, *at: int) -> AuditProblem:
    problem = verdict_of(path, records, *at).problem
    assert problem is not None
    return problem


def test_untouched_log_is_proved_up_to_its_newest_checkpoint(tmp_path: Path) -> None:
    """(U2) And no further: later events are only consistent."""
    assert verdict_of(tmp_path, log(), 3, 8) == AuditVerdict(
        first=1, last=10, proved_up_to=8, problem=None
    )


def test_nothing_is_proved_beyond_what_was_signed(tmp_path: Path) -> None:
    """(U2) A forged end is consistent, but not proved."""
    forged = chained([*(r.event for r in log(8)), event(9, target="mallory")])
    verdict = verdict_of(tmp_path, forged, 8)
    assert (verdict.proved_up_to, verdict.last, verdict.problem) == (8, 9, None)


def test_part_of_a_log_is_proved_from_where_it_begins(tmp_path: Path) -> None:
    assert verdict_of(tmp_path, log()[4:], 8) == AuditVerdict(
        first=5, last=10, proved_up_to=8, problem=None
    )
    previous = verdict_of(tmp_path, log()[4:], 4)
    assert (previous.proved_up_to, previous.problem) == (4, None)
    older = verdict_of(tmp_path, log()[4:], 3)
    assert (older.proved_up_to, older.problem) == (0, None)


def edited(records: Records, at: int, **fields) -> Records:
    """Change an event but not its hash."""
    changed = replace(records[at - 1], event=replace(records[at - 1].event, **fields))
    return [*records[: at - 1], changed, *records[at:]]


@pytest.mark.parametrize(
    "fields",
    [
        {"at_ms": 1},
        {"actor": "administrator:alice"},
        {"node": "n2"},
        {"action": "DeleteUser"},
        {"target": ""},
        {"outcome": "refused"},
        {"reason": "x"},
        {"detail": ""},
    ],
)
@pytest.mark.parametrize("at", [1, 5, 10])
def test_edit_of_any_field_is_named(tmp_path: Path, fields: dict, at: int) -> None:
    """(U2)."""
    problem = problem_of(tmp_path, edited(log(), at, **fields), 10)
    assert (problem.kind, problem.sequence) == (ProblemKind.EDITED, at)
    assert problem.line == at
    assert f"event {at} was changed" in problem.words


def test_edit_with_a_new_hash_is_named_by_the_next_event(tmp_path: Path) -> None:
    """(U2) The next event still has the original hash."""
    records = log()
    (fourth,) = chained([event(4, target="mallory")], records[2].hash)
    problem = problem_of(tmp_path, [*records[:3], fourth, *records[4:]], 10)
    assert (problem.kind, problem.sequence, problem.line) == (ProblemKind.EDITED, 4, 4)


def test_edit_of_a_hash_is_an_edit(tmp_path: Path) -> None:
    for name in ("hash", "previous_hash"):
        records = log()
        records[4] = replace(records[4], **{name: bytes(32)})
        problem = problem_of(tmp_path, records, 10)
        assert (problem.kind, problem.sequence) == (ProblemKind.EDITED, 5)
    first = replace(log()[0], previous_hash=b"\1" * 32)
    first = replace(first, hash=chain_hash(b"\1" * 32, first.event))
    problem = problem_of(tmp_path, [first], 1)
    assert (problem.kind, problem.sequence) == (ProblemKind.EDITED, 1)


def test_rewritten_log_does_not_match_the_checkpoint(tmp_path: Path) -> None:
    """(U2) Every hash is consistent; the problem names the checkpoints around the change."""
    forged = chained([r.event for r in edited(log(), 5, target="mallory")])
    problem = problem_of(tmp_path, forged, 3, 8)
    assert (problem.kind, problem.sequence) == (ProblemKind.NOT_SIGNED, 8)
    assert "event 4 or a later one" in problem.words
    assert verdict_of(tmp_path, forged, 3, 8).proved_up_to == 3


@pytest.mark.parametrize(
    ("gone", "words"), [((5,), "event 5 is"), ((5, 6), "to 6 are")]
)
def test_gap_is_named(tmp_path: Path, gone: tuple[int, ...], words: str) -> None:
    """(U2)."""
    kept = [record for record in log() if record.event.sequence not in gone]
    problem = problem_of(tmp_path, kept, 10)
    assert (problem.kind, problem.sequence) == (ProblemKind.MISSING, 5)
    assert words in problem.words


def test_gap_that_was_closed_by_renumbering_is_an_edit(tmp_path: Path) -> None:
    """(U2)."""
    kept = [record for record in log() if record.event.sequence != 5]
    closed = [
        replace(record, event=replace(record.event, sequence=number))
        for number, record in enumerate(kept, start=1)
    ]
    problem = problem_of(tmp_path, closed, 9)
    assert (problem.kind, problem.sequence) == (ProblemKind.EDITED, 5)


def test_reordering_is_named(tmp_path: Path) -> None:
    """(U2) Swapped, moved or repeated."""
    one = log()
    one[3], one[6] = one[6], one[3]
    problem = problem_of(tmp_path, one, 10)
    assert (problem.kind, problem.sequence) == (ProblemKind.REORDERED, 7)
    assert "event 7 comes before event 4" in problem.words
    twice = log()
    twice.insert(6, twice[2])
    problem = problem_of(tmp_path, twice, 10)
    assert (problem.kind, problem.sequence) == (ProblemKind.REORDERED, 3)
    assert "event 3 comes after event 6" in problem.words


@pytest.mark.parametrize("kept", [0, 1, 7])
def test_cut_tail_is_named_up_to_the_newest_checkpoint(
    tmp_path: Path, kept: int
) -> None:
    """(U2)."""
    verdict = verdict_of(tmp_path, log()[:kept], 1, 8)
    assert verdict.problem is not None
    assert verdict.problem.kind is ProblemKind.CUT
    assert verdict.problem.sequence == kept + 1
    assert f"events {kept + 1} to 8 are missing at the end" in verdict.problem.words
    assert verdict.proved_up_to == min(kept, 1)


def test_cut_below_the_newest_checkpoint_is_not_seen_by_an_older_one(
    tmp_path: Path,
) -> None:
    """(U2) The verdict says how far the log is proved."""
    verdict = verdict_of(tmp_path, log()[:7], 5)
    assert (verdict.proved_up_to, verdict.last, verdict.problem) == (5, 7, None)


def test_first_problem_is_the_one_that_is_named(tmp_path: Path) -> None:
    records = edited(edited(log(), 3, target=""), 7, target="")
    del records[8]
    assert problem_of(tmp_path, records, 10).sequence == 3


SPOILED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut": lambda line: line[:-3],
    "a list": lambda _: b"[]",
    "not UTF-8": lambda _: b"\xff\xfe",
    "another name": lambda line: line.replace(b'"action"', b'"Action"'),
    "spaces": lambda line: line.replace(b",", b", "),
    "a name twice": lambda line: line.replace(b'{"act', b'{"action":"x","act'),
    "negative": lambda line: line.replace(b'"at_ms":', b'"at_ms":-'),
    "null": lambda line: line.replace(b'"outcome":"applied"', b'"outcome":null'),
    "escaped": lambda line: line.replace(b'"node":"n1"', b'"node":"n\\u0031"'),
    "a fraction": lambda line: line.replace(b'"sequence":5', b'"sequence":5.0'),
    "a boolean": lambda line: line.replace(b'"sequence":5', b'"sequence":true'),
    "no hash": lambda line: line.replace(b'"hash":"', b'"hash":"zz'),
    "deep": lambda _: b"[" * 60_000,
    "long": lambda _: b'{"sequence":' + b"5" * 70_000 + b"}",
}


@pytest.mark.parametrize("spoiled", SPOILED)
def test_line_that_is_not_an_event_is_named(tmp_path: Path, spoiled: str) -> None:
    """Another spelling of an event is refused, so that its meaning is never in doubt."""
    path = write(tmp_path / "audit.jsonl", log())
    lines = path.read_bytes().splitlines()
    lines[4] = SPOILED[spoiled](lines[4])
    path.write_bytes(b"\n".join(lines) + b"\n")
    problem = verify(path, [signed(log(), 10)]).problem
    assert problem is not None
    assert (problem.kind, problem.sequence, problem.line) == (ProblemKind.DAMAGED, 5, 5)


def test_csv_is_distinguished_from_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    path.write_bytes(
        audit_export.header(ExportFormat.CSV)
        + audit_export.lines(ExportFormat.CSV, log())
    )
    problem = verify(path, [signed(log(), 10)]).problem
    assert problem is not None
    assert "this is CSV" in problem.words


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(AuditFileError, match="No such file"):
        verify(tmp_path / "none", [signed(log(), 10)])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(
    events=st.lists(
        st.builds(
            AuditEvent,
            sequence=st.just(0),
            at_ms=st.integers(0, 253_402_300_799_999),
            actor=TEXT,
            node=TEXT,
            action=TEXT,
            target=TEXT,
            outcome=TEXT,
            reason=TEXT,
            detail=TEXT,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_client_and_node_compute_the_same_chain(events: list[AuditEvent]) -> None:
    """(U2) Two implementations agree on any event."""
    records = chained(
        [replace(each, sequence=n) for n, each in enumerate(events, start=1)]
    )
    content = audit_export.lines(ExportFormat.JSON_LINES, records)
    for record, text in zip(records, content.splitlines(keepends=True), strict=True):
        line = _read(1, text)
        assert line is not None
        assert line.intact
        assert (line.sequence, line.hash) == (record.event.sequence, record.hash)


def test_canonical_form_matches_the_api() -> None:
    """Computed by hand, as `AuditEvent` in audit.proto defines it."""
    assert canonical_form({"b": 'é"\\\n\x00\x7f\U0001f511 /', "a": 1}) == (
        rb'{"a":1,"b":"\u00e9\"\\\n\u0000\u007f\ud83d\udd11 /"}'
    )


def test_verification_needs_no_node() -> None:
    """(U2) Not even an installed one."""
    program = (
        "import sys, sparecode_client.audit.verification, sparecode_client.cli.app\n"
        "print(any(name.startswith('sparecode_node') for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


# --- Checkpoints and keys


def test_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    checkpoint = signed(log(), 4)
    path = write_checkpoint(tmp_path / "c.json", checkpoint)
    assert read_checkpoint(path) == checkpoint
    assert signature_is_right(checkpoint)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cluster_id", "c-2"),
        ("sequence", 5),
        ("head", "00" * 32),
        ("at_ms", 1),
        ("key_id", 2),
        ("public_key", "AAAA" * 10 + "AAA="),
        ("signature", "AAAA"),
    ],
)
def test_checkpoint_that_was_changed_is_not_signed(
    tmp_path: Path, name: str, value: str | int
) -> None:
    """(U2)."""
    path = write_checkpoint(tmp_path / "c.json", signed(log(), 4))
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    assert not signature_is_right(read_checkpoint(path))


NO_CHECKPOINT = {
    "cluster_id": 1,
    "sequence": "1",
    "head": "x",
    "at_ms": -1,
    "key_id": None,
    "public_key": "?",
    "signature": ["AAAA"],
}


@pytest.mark.parametrize("name", NO_CHECKPOINT)
def test_checkpoint_of_another_form_is_refused(tmp_path: Path, name: str) -> None:
    path = write_checkpoint(tmp_path / "c.json", signed(log(), 4))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, name: NO_CHECKPOINT[name]}))
    with pytest.raises(AuditFileError, match="not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff", b"[" * 60_000])
def test_invalid_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(content)
    with pytest.raises(AuditFileError, match="not a checkpoint"):
        read_checkpoint(path)


def test_public_keys_are_read_from_a_bundle(tmp_path: Path, pki) -> None:
    """The file may also hold the CA's certificate."""
    path = tmp_path / "bundle.pem"
    own, other = (checkpoints.public_keys(ring) for ring in (RING, OTHER_RING))
    path.write_text(f"{pki.ca.read_text()}{own}# since July\n{other}")
    assert read_public_keys(path) == (
        signed(log(), 1).public_key,
        signed(log(), 1, OTHER_RING).public_key,
    )


P256_KEY = (
    ec.generate_private_key(ec.SECP256R1())
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no PEM public key"),
        (
            "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n",
            "not a PEM public key",
        ),
        (
            P256_KEY,
            "not an Ed25519 key",
        ),
    ],
)
def test_invalid_public_key_is_refused(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "key.pem"
    path.write_text(content)
    with pytest.raises(AuditFileError, match=words):
        read_public_keys(path)
