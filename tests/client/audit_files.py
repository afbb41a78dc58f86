# SPDX-License-Identifier: Apache-2.0
"""Files of audit logs and checkpoints, made with the nodes' own code."""

from dataclasses import replace
from pathlib import Path

from sparecode_client.audit.checkpoints import checkpoint_text
from sparecode_client.values.audit import Checkpoint as ClientCheckpoint
from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash
from sparecode_node.domain.ids import KeyId
from sparecode_node.queries.audit import AuditHead, AuditRecord
from sparecode_node.services.cluster import checkpoints
from sparecode_node.services.files import audit_export
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing

RING = KeyRing(cluster_id="c-1", active=KeyId(1), keys={KeyId(1): b"k" * 64})
OTHER_RING = KeyRing(cluster_id="c-1", active=KeyId(1), keys={KeyId(1): b"x" * 64})


def event(sequence: int, **fields) -> AuditEvent:
    return replace(
        AuditEvent(
            sequence=sequence,
            at_ms=1_700_000_000_000 + sequence,
            actor="administrator:root",
            node="n1",
            action="UnlockUser",
            target=f"user{sequence}",
            outcome="applied",
            reason="",
            detail='Zo\u00eb "\U0001f511" \\ \x7f',
        ),
        **fields,
    )


def chained(events: list[AuditEvent], previous: bytes = GENESIS_HASH):
    """Return events with their hashes."""
    records = []
    for each in events:
        after = chain_hash(previous, each)
        records.append(AuditRecord(event=each, previous_hash=previous, hash=after))
        previous = after
    return records


def log(count: int = 10) -> list[AuditRecord]:
    return chained([event(sequence) for sequence in range(1, count + 1)])


def write(path: Path, records) -> Path:
    path.write_bytes(audit_export.lines(ExportFormat.JSON_LINES, records))
    return path


def signed(records, sequence: int, ring: KeyRing = RING) -> ClientCheckpoint:
    """Return a signed checkpoint of a log at a sequence number."""
    signature = checkpoints.sign(
        Sealing(ring),
        AuditHead(sequence=sequence, hash=records[sequence - 1].hash),
        at_ms=1_700_000_100_000,
    )
    return ClientCheckpoint(
        **{name: getattr(signature, name) for name in ClientCheckpoint.__slots__}
    )


def write_checkpoint(path: Path, checkpoint: ClientCheckpoint) -> Path:
    path.write_text(checkpoint_text(checkpoint))
    return path


def write_archive(folder: Path, count: int, events: int = 5) -> Path:
    """Write an archive of *count* segments, each of *events* events, as nodes do."""
    folder.mkdir(exist_ok=True)
    records = log(count * events)
    for number in range(1, count + 1):
        last = number * events
        name = f"{number:08}-{records[last - 1].hash.hex()[:16]}"
        write(folder / f"{name}.jsonl", records[last - events : last])
        write_checkpoint(folder / f"{name}.checkpoint.json", signed(records, last))
    return folder
