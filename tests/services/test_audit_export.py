# SPDX-License-Identifier: Apache-2.0
"""Exports, checkpoints and the chain of a state with events."""

import base64
import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sparecode_client.audit import verification as offline
from sparecode_client.audit.checkpoints import signature_is_right
from sparecode_client.values.audit import Checkpoint as ClientCheckpoint
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.passcodes import normalized
from sparecode_node.queries.audit import AuditFilter
from sparecode_node.services.cluster import checkpoints
from sparecode_node.services.cluster.checkpoints import Checkpoint
from sparecode_node.services.errors import (
    InvalidFieldError,
    NotPermittedError,
    NotSignedInError,
    Refused,
)
from sparecode_node.services.files import audit_export
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from tests.generators import tool
from tests.services.one_node import PIN, SERIAL, OneNode
from tests.services.test_audit import live, reading, rule, shown

pytestmark = pytest.mark.asyncio


async def exported(
    node: OneNode,
    form: ExportFormat = ExportFormat.JSON_LINES,
    wanted: AuditFilter | None = None,
    **options,
) -> bytes:
    pieces = await node.audit.export(
        reading(node, "ExportAuditEvents"),
        form=form,
        criteria=wanted or AuditFilter(),
        **options,
    )
    return b"".join([read.value.content async for read in pieces])


async def signed(node: OneNode) -> Checkpoint:
    return (await node.audit.checkpoint(reading(node, "GetCheckpoint"))).value


def as_client(checkpoint: Checkpoint) -> ClientCheckpoint:
    return ClientCheckpoint(
        cluster_id=checkpoint.cluster_id,
        sequence=checkpoint.sequence,
        head=checkpoint.head,
        at_ms=checkpoint.at_ms,
        key_id=checkpoint.key_id,
        public_key=checkpoint.public_key,
        signature=checkpoint.signature,
    )


async def test_export_is_the_log_line_by_line(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For any size of the pieces and any starting sequence."""
    await live(node)
    records = await shown(node, from_sequence=1)
    whole = await exported(node)
    lines = [json.loads(line) for line in whole.splitlines()]
    assert [line["sequence"] for line in lines] == [r.event.sequence for r in records]
    assert [line["hash"] for line in lines] == [r.hash.hex() for r in records]
    assert [line["detail"] for line in lines] == [r.event.detail for r in records]
    monkeypatch.setattr("sparecode_node.services.cluster.audit.BATCH", 2)
    assert await exported(node) == whole
    first, second = whole.split(b"\n", 1)
    assert await exported(node, after_sequence=1) == second
    assert json.loads(first)["previous_hash"] == "0" * 64


async def test_export_ends_at_the_head_that_it_began_with(node: OneNode) -> None:
    """Later events belong to the next export."""
    pieces = await node.audit.export(
        reading(node, "ExportAuditEvents"),
        form=ExportFormat.JSON_LINES,
        criteria=AuditFilter(),
    )
    first = await anext(pieces)
    await live(node)
    rest = [read.value async for read in pieces]
    assert first.value.end_sequence == rest[-1].last_sequence
    assert sum(piece.events for piece in rest) == first.value.end_sequence


async def test_session_that_ends_ends_the_export(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P2) Each piece checks the session."""
    monkeypatch.setattr("sparecode_node.services.cluster.audit.BATCH", 1)
    pieces = await node.audit.export(
        reading(node, "ExportAuditEvents"),
        form=ExportFormat.JSON_LINES,
        criteria=AuditFilter(),
    )
    await anext(pieces)
    await anext(pieces)
    await node.sessions.logout(node.admin("SessionService/Logout"))
    with pytest.raises(NotSignedInError):
        await anext(pieces)


@pytest.mark.parametrize("role", [Role.HELP_DESK, Role.OPERATOR])
async def test_role_without_access_gets_no_export_and_no_signature(
    node: OneNode, role: Role
) -> None:
    """(P1)."""
    rule(node, role)
    with pytest.raises(NotPermittedError):
        await exported(node)
    with pytest.raises(NotPermittedError):
        await signed(node)
    with pytest.raises(NotPermittedError):
        await node.audit.verify_chain(reading(node, "VerifyChain"))


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"after_sequence": -1}, "after_sequence"),
        ({"wanted": AuditFilter(actor="a\n")}, "filter.actor"),
    ],
)
async def test_invalid_export_requests_are_refused(
    node: OneNode, options: dict, field: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await exported(node, **options)
    assert caught.value.field == field


# --- CSV


async def test_csv_has_a_header_once_and_every_event(node: OneNode) -> None:
    await live(node)
    records = await shown(node, from_sequence=1)
    content = (await exported(node, ExportFormat.CSV)).decode()
    header, *rows = csv.reader(io.StringIO(content))
    assert tuple(header) == audit_export.COLUMNS
    assert [row[0] for row in rows] == [str(r.event.sequence) for r in records]
    assert rows[0][1] == "2023-11-14T22:13:20.000Z"
    assert rows[-1][-1] == records[-1].hash.hex()
    continued = await exported(node, ExportFormat.CSV, after_sequence=1, continued=True)
    assert continued.decode() == content.split("\r\n", 2)[2]


@pytest.mark.parametrize(
    "name",
    [
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@SUM(A1)",
        " =1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff201",
        "\t=1",
        "\r=1",
    ],
)
async def test_no_cell_of_the_csv_is_a_formula(node: OneNode, name: str) -> None:
    """A name that someone chose must run nothing on the auditor's computer."""
    assert audit_export.harmless(name) == f"'{name}"


async def test_a_name_that_is_a_formula_comes_out_as_text(node: OneNode) -> None:
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username='=cmd|"/c-calc"!A1,"',
        display_name="",
        email="",
    )
    content = (await exported(node, ExportFormat.CSV)).decode()
    *_, row = csv.reader(io.StringIO(content))
    assert row[5] == '\'=cmd|"/c-calc"!a1,"'
    for row in csv.reader(io.StringIO(content)):
        assert not any(cell[:1] in set("=+-@") for cell in row)


async def test_other_cells_stay_unchanged() -> None:
    for cell in ("alice", "a=b", "1-2", "", "'x", "000131415926"):
        assert audit_export.harmless(cell) == cell


# --- Checkpoints and the chain


async def test_checkpoint_signs_cluster_sequence_head_and_time(node: OneNode) -> None:
    """(U2) With the ring's key; a signature fails if any of them is changed."""
    await live(node)
    (last, *_) = await shown(node)
    checkpoint = await signed(node)
    assert checkpoint.cluster_id == node.ring.cluster_id
    assert (checkpoint.sequence, checkpoint.head) == (last.event.sequence, last.hash)
    assert checkpoint.at_ms == node.clock.now
    assert signature_is_right(as_client(checkpoint))
    other = {
        "cluster_id": "x",
        "sequence": checkpoint.sequence + 1,
        "head": bytes(32),
        "at_ms": 1,
        "key_id": 2,
        "public_key": bytes(32),
        "signature": bytes(64),
    }
    for name, value in other.items():
        changed = ClientCheckpoint(
            **{
                **{n: getattr(checkpoint, n) for n in checkpoint.__slots__},
                name: value,
            }
        )
        assert not signature_is_right(changed), name


async def test_stale_checkpoint_needs_no_quorum(
    node: OneNode,
) -> None:
    """(P2)."""
    read = await node.audit.checkpoint(reading(node, "GetCheckpoint"), stale_ok=True)
    assert read.stale


async def test_every_member_signs_alike_and_every_key_has_its_own() -> None:
    """(U2) The signing key is derived from the ring, and serves nothing else."""
    keys = {KeyId(1): b"1" * 64, KeyId(2): b"2" * 64}
    rings = [
        KeyRing(cluster_id="c", active=KeyId(1), keys=keys),
        KeyRing(cluster_id="c", active=KeyId(2), keys=keys),
        KeyRing(cluster_id="d", active=KeyId(1), keys=keys),
    ]
    public = []
    for ring in rings:
        key_id, key = Sealing(ring).checkpoint_key()
        assert key_id == ring.active
        public.append(key.public_key().public_bytes_raw())
    assert len(set(public)) == 3
    assert checkpoints.public_keys(rings[0]) == checkpoints.public_keys(rings[1])
    pem = checkpoints.public_keys(rings[0]).encode()
    assert pem.count(b"BEGIN PUBLIC KEY") == 2
    first = load_pem_public_key(pem)
    assert isinstance(first, Ed25519PublicKey)
    assert first.public_bytes_raw() == public[0]
    with pytest.raises(InvalidSignature):
        first.verify(bytes(64), b"")


def openssl_verifies(
    key: Path, message: Path, signature: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(tool("openssl"), "pkeyutl", "-verify", "-pubin", "-inkey", key),
            *("-rawin", "-in", message, "-sigfile", signature),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


async def test_openssl_verifies_the_signature(tmp_path: Path, node: OneNode) -> None:
    """An independent reader of the key, and a second opinion on the signature."""
    checkpoint = await signed(node)
    key, message, signature = (tmp_path / name for name in ("key", "message", "s"))
    key.write_text(checkpoints.public_keys(node.ring))
    message.write_bytes(
        b"sparecode audit checkpoint 1\n"
        + (
            f'{{"at_ms":{checkpoint.at_ms},"cluster_id":"{checkpoint.cluster_id}",'
            f'"head":"{checkpoint.head.hex()}","key_id":1,'
            f'"sequence":{checkpoint.sequence}}}'
        ).encode()
    )
    signature.write_bytes(checkpoint.signature)
    done = openssl_verifies(key, message, signature)
    assert "Signature Verified Successfully" in done.stdout, done.stderr


async def test_node_finds_its_chain_whole(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U1)."""
    await live(node)
    (last, *_) = await shown(node)
    for batch in (1, 3, 200):
        monkeypatch.setattr("sparecode_node.services.cluster.audit.BATCH", batch)
        verdict = (await node.audit.verify_chain(reading(node, "VerifyChain"))).value
        assert verdict.broken_sequence == 0
        assert (verdict.verified_sequence, verdict.head) == (
            last.event.sequence,
            last.hash,
        )


@pytest.mark.parametrize(
    ("damage", "broken"),
    [
        ("UPDATE audit_events SET detail = 'x' WHERE sequence = 3", 3),
        ("UPDATE audit_events SET at_ms = at_ms + 1 WHERE sequence = 1", 1),
        ("UPDATE audit_events SET hash = zeroblob(32) WHERE sequence = 4", 4),
        ("DELETE FROM audit_events WHERE sequence = 2", 2),
        ("DELETE FROM audit_events WHERE sequence < 3", 1),
    ],
)
async def test_node_finds_the_first_changed_event(
    node: OneNode, damage: str, broken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(U1)."""
    await live(node)
    node.local_db.execute(damage)
    for batch in (1, 200):
        monkeypatch.setattr("sparecode_node.services.cluster.audit.BATCH", batch)
        verdict = (await node.audit.verify_chain(reading(node, "VerifyChain"))).value
        assert verdict.broken_sequence == broken
        assert verdict.verified_sequence == broken - 1
        assert verdict.problem


async def test_export_of_a_node_is_proved_by_the_client(
    node: OneNode, tmp_path: Path
) -> None:
    """(U2) Two implementations of the chain and the signature agree."""
    await live(node)
    early = as_client(await signed(node))
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username='Zo\u00eb-"\U0001f511"\\',
        display_name="",
        email="",
    )
    newest = as_client(await signed(node))
    await live_on(node)
    file = tmp_path / "audit.jsonl"
    file.write_bytes(await exported(node))
    verdict = offline.verify(file, [newest, early])
    assert verdict.problem is None
    assert verdict.first == 1
    assert verdict.proved_up_to == newest.sequence
    assert verdict.last > newest.sequence > early.sequence


async def live_on(node: OneNode) -> None:
    node.clock.pass_s(60)
    await node.users.unlock(node.admin("UserService/UnlockUser"), username="alice")


# --- Secrets


async def test_no_secret_is_in_any_export(node: OneNode) -> None:
    """
    (A6) PINs, codes, tokencodes, seeds, passwords, bearers: right, wrong, mistyped.

    Searched as typed, grouped, folded, hexadecimal and base64, also in the database and
    in the log that the events come from.
    """
    pin, wrong_pin, seed = "90817263", "77665544", b"canary-seed-canary!!"
    wrong_password, mistyped = "Canary Password, long", "Canary Password, name field"
    await node.add_user(pin=pin, seed=seed, digits=8)
    issued = await node.issue()
    generated = await node.emergency.generate(
        node.admin("EmergencyAccessService/GenerateTokencodes"), serial=SERIAL
    )
    code, other, third = (each.code for each in issued.codes)
    tokencode = node.tokencode(seed=seed, digits=8)
    assert await node.accepts(pin + code)
    assert not await node.accepts(pin + code)
    assert not await node.accepts(wrong_pin + other)
    for name in (pin, code, third, tokencode, pin + tokencode):
        assert not await node.accepts(pin + tokencode, username=name)
    node.clock.pass_s(30)
    for name, password in (("root", wrong_password), (mistyped, "x"), (PIN, pin)):
        with pytest.raises(Refused):
            await node.login(name=name, password=password)
    node.clock.pass_s(3600)
    await node.login()
    secrets = [pin, wrong_pin, tokencode, wrong_password, mistyped, node.bearer]
    secrets.append(seed.decode())
    for each in (*issued.codes, *generated.codes):
        secrets += [each.code, normalized(each.code), each.code.replace("-", " ")]
    text = b"\n".join(
        [
            await exported(node),
            await exported(node, ExportFormat.CSV),
            repr(await shown(node)).encode(),
            "\n".join(node.primary_db.iterdump()).encode(),
            *node.replicator.entries,
        ]
    )
    assert b"OpenSession" in text
    for secret in secrets:
        for form in (secret, secret.casefold(), secret.lower()):
            for shape in (
                form.encode(),
                form.encode().hex().encode(),
                base64.b64encode(form.encode()).rstrip(b"=")[:-1],
            ):
                assert shape not in text, secret
