# SPDX-License-Identifier: Apache-2.0
"""Key rotation on a node: callers notice nothing, and nothing of the old key is left."""

import asyncio
import itertools
import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparecode.v1 import (
    administrators_pb2,
    administrators_pb2_grpc,
    agents_pb2,
    agents_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    authentication_pb2,
    cluster_pb2,
    cluster_pb2_grpc,
    emergency_access_pb2,
    notices_pb2,
    notices_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
    types_pb2,
    users_pb2,
    users_pb2_grpc,
)
from sparecode_client.audit.checkpoints import checkpoint_text, read_checkpoint
from sparecode_client.cli import app
from sparecode_client.values.audit import Checkpoint
from sparecode_node.domain.ids import KeyId
from sparecode_node.queries import seals
from sparecode_node.queries.state import LocalState
from sparecode_node.services.cluster.checkpoints import public_keys
from sparecode_node.services.keys.resealing import new_seals
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands.keys import SealKind
from tests.rpc.loopback_node import PIN, LoopbackNode, new_id, running_node

pytestmark = pytest.mark.asyncio

NOT_OF_THE_RING = {
    ("users", "pin_salt"),
    ("users", "code_salt"),
    ("administrators", "password_salt"),
    ("audit_events", "hash"),
    ("ring_keys", "fingerprint"),
}
"""Blobs that are no secret and are made without a key."""
ACCEPTED = authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED


async def rotate(node: LoopbackNode) -> list[cluster_pb2.RotateKeysResponse]:
    async with node.admin() as channel:
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        request = cluster_pb2.RotateKeysRequest(request_id=new_id(), at_once=True)
        return [
            each
            async for each in stub.RotateKeys(request, timeout=60, metadata=node.bearer)
        ]


async def ring_with(path: Path, key_id: int) -> KeyRing:
    """Return the ring in the node's file, once it has this key alone."""
    async with asyncio.timeout(60):
        while True:
            ring = KeyRing.load(path)
            if ring.key_ids == (key_id,):
                return ring
            await asyncio.sleep(0.02)


async def issue(node: LoopbackNode, serial: str) -> list[str]:
    issued = await node.emergency(
        "IssueTokencodes",
        emergency_access_pb2.IssueTokencodesRequest(
            request_id=new_id(), serial=serial, count=2
        ),
    )
    return [code.code for code in issued.codes]


async def add_people(node: LoopbackNode) -> None:
    """Add users with tokens of each kind, an administrator, RADIUS clients, channels."""
    for name in ("siem", "pager"):
        await node.call(
            notices_pb2_grpc.NoticeServiceStub,
            "CreateChannel",
            notices_pb2.CreateChannelRequest(
                request_id=new_id(),
                name=name,
                kind=notices_pb2.CHANNEL_KIND_WEBHOOK,
                address=f"https://{name}.example/in",
                classes=[notices_pb2.EVENT_CLASS_UPKEEP],
                secret="whsec_" + "A" * 32,
            ),
        )
    for name in ("gate", "switch"):
        await node.call(
            agents_pb2_grpc.AgentServiceStub,
            "RegisterRadiusClient",
            agents_pb2.RegisterRadiusClientRequest(
                request_id=new_id(), name=name, networks=[f"192.0.2.{len(name)}"]
            ),
        )
    tokens, users = tokens_pb2_grpc.TokenServiceStub, users_pb2_grpc.UserServiceStub
    for serial, name, rule, algorithm in (
        ("2", "bob", types_pb2.PIN_RULE_PREPENDED, types_pb2.TOKEN_ALGORITHM_TOTP),
        ("3", "carol", types_pb2.PIN_RULE_PINPAD, types_pb2.TOKEN_ALGORITHM_TOTP),
        ("4", "dora", types_pb2.PIN_RULE_PINPAD, types_pb2.TOKEN_ALGORITHM_TOTP),
    ):
        await node.call(
            users,
            "CreateUser",
            users_pb2.CreateUserRequest(request_id=new_id(), username=name),
        )
        await node.call(
            tokens,
            "EnrollToken",
            tokens_pb2.EnrollTokenRequest(
                request_id=new_id(),
                serial=serial,
                algorithm=algorithm,
                digits=6,
                period_seconds=30,
                seed=serial.encode() * 20,
                pin_rule=rule,
            ),
        )
        await node.call(
            tokens,
            "AssignToken",
            tokens_pb2.AssignTokenRequest(
                request_id=new_id(), serial=serial, username=name
            ),
        )
        await node.call(
            tokens,
            "SetPin",
            tokens_pb2.SetPinRequest(request_id=new_id(), serial=serial, pin=PIN),
        )
    await node.call(
        administrators_pb2_grpc.AdministratorServiceStub,
        "CreateAdministrator",
        administrators_pb2.CreateAdministratorRequest(
            request_id=new_id(),
            name="ada",
            role=administrators_pb2.ADMINISTRATOR_ROLE_HELP_DESK,
            no_user=True,
            password="a temporary password",
        ),
    )


def blobs(path: Path) -> dict[tuple[str, str], set[bytes]]:
    """Return every value in every table that is made with a key."""
    contents: dict[tuple[str, str], set[bytes]] = defaultdict(set)
    with closing(sqlite3.connect(path)) as db:
        for (table,) in db.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table'"
        ).fetchall():
            rows = db.execute(f"SELECT * FROM {table}")  # noqa: S608
            names = [each[0] for each in rows.description]
            for row in rows.fetchall():
                for name, value in zip(names, row, strict=True):
                    if isinstance(value, bytes) and value:
                        contents[table, name].add(value)
    return {
        column: values
        for column, values in contents.items()
        if column not in NOT_OF_THE_RING
    }


async def test_rotation_leaves_nothing_made_with_the_old_key(tmp_path: Path) -> None:
    """
    (T3, P5) Every blob in every table has changed, and everything still works.

    The test finds all tables and columns itself, so it covers later ones too.
    """
    async with running_node(tmp_path) as node:
        await node.populate()
        await add_people(node)
        codes = await issue(node, "1")
        await issue(node, "2")
        before = blobs(node.path)
        ring = tmp_path / "keys.json"
        progress = await rotate(node)
        after = blobs(node.path)
        assert before.keys() == after.keys()
        assert {
            column: before[column] & after[column]
            for column in before
            if before[column] & after[column]
        } == {}
        assert progress[0].phase == cluster_pb2.ROTATION_PHASE_HANDING_OUT
        assert progress[-1].phase == cluster_pb2.ROTATION_PHASE_DONE
        assert progress[-1].key_id == 2
        assert await node.authenticate(PIN + codes[0]) == ACCEPTED
        assert await node.authenticate(PIN + codes[0]) != ACCEPTED
        assert await node.sign_in()
        held = await ring_with(ring, 2)
        assert list(held.retired) == [1]
        written = json.loads(ring.read_text())["keys"]["2"]
        assert written.encode() not in node.path.read_bytes()


async def test_rotation_keeps_sessions_and_request_ids(
    tmp_path: Path,
) -> None:
    """(Q1, P2) A retry after the rotation gets the answer of the first try."""
    async with running_node(tmp_path) as node:
        await node.populate()
        (code, _) = await issue(node, "1")
        request_id = new_id()
        assert await node.authenticate(PIN + code, request_id) == ACCEPTED
        async with node.admin() as channel:
            stub = cluster_pb2_grpc.ClusterServiceStub(channel)
            request = cluster_pb2.RotateKeysRequest(request_id=new_id())
            progress = [
                each
                async for each in stub.RotateKeys(
                    request, timeout=60, metadata=node.bearer
                )
            ]
        assert progress[-1].phase == cluster_pb2.ROTATION_PHASE_RETIRING
        assert progress[-1].HasField("retire_time")
        assert await node.authenticate(PIN + code, request_id) == ACCEPTED


async def checkpoint_of(node: LoopbackNode) -> str:
    """Return a checkpoint as `sparecode audit checkpoint` writes it."""
    answer = await node.call(
        audit_pb2_grpc.AuditServiceStub,
        "GetCheckpoint",
        audit_pb2.GetCheckpointRequest(),
    )
    signed = answer.checkpoint
    return checkpoint_text(
        Checkpoint(
            cluster_id=signed.cluster_id,
            sequence=signed.sequence,
            head=signed.head,
            at_ms=signed.checkpoint_time.ToMilliseconds(),
            key_id=signed.key_id,
            public_key=signed.public_key,
            signature=signed.signature,
        )
    )


async def exported(node: LoopbackNode) -> bytes:
    async with node.admin() as channel:
        pieces = audit_pb2_grpc.AuditServiceStub(channel).ExportAuditEvents(
            audit_pb2.ExportAuditEventsRequest(
                format=audit_pb2.AUDIT_EXPORT_FORMAT_JSON_LINES
            ),
            timeout=60,
            metadata=node.bearer,
        )
        return b"".join([piece.content async for piece in pieces])


def verified_offline(
    log: Path, checkpoints: list[Path], public_keys: Path
) -> dict[str, object]:
    """Return the verdict of `sparecode audit verify`, which contacts no node."""
    result = CliRunner().invoke(
        app,
        [
            *("audit", "verify", str(log)),
            *(word for each in checkpoints for word in ("--checkpoint", str(each))),
            *("--public-key", str(public_keys), "--output", "json"),
        ],
    )
    verdict: dict[str, object] = json.loads(result.stdout or "{}")
    return verdict | {"exit_code": result.exit_code, "stderr": result.stderr}


async def test_earlier_checkpoint_verifies_after_its_key_is_deleted(
    tmp_path: Path,
) -> None:
    """(U2, P5) Every member keeps the public half of a retired key forever."""
    before, after, log, keys, old_keys = (
        tmp_path / name for name in ("before", "after", "log", "keys.pem", "old.pem")
    )
    async with running_node(tmp_path) as node:
        await node.populate()
        before.write_text(await checkpoint_of(node))
        await rotate(node)
        await rotate(node)
        await issue(node, "1")
        after.write_text(await checkpoint_of(node))
        log.write_bytes(await exported(node))
        ring = await ring_with(tmp_path / "keys.json", 3)
        assert await node.sign_in()
    keys.write_text(public_keys(ring))
    assert keys.read_text().count("BEGIN PUBLIC KEY") == 3
    signed = [read_checkpoint(each) for each in (before, after)]
    assert [each.key_id for each in signed] == [1, 3]
    for files, proved in (
        ([before], signed[0].sequence),
        ([after], signed[1].sequence),
        ([before, after], signed[1].sequence),
    ):
        verdict = verified_offline(log, files, keys)
        assert (verdict["exit_code"], verdict["proved_up_to"]) == (0, proved), verdict
    # The keys printed after the first rotation do not include the third key.
    old_keys.write_text("".join(keys.read_text().splitlines(keepends=True)[:6]))
    verdict = verified_offline(log, [before, after], old_keys)
    assert verdict["exit_code"] == 1
    assert "not in --public-key" in str(verdict["stderr"])
    assert str(after) in str(verdict["stderr"])
    # A change before the first checkpoint is detected, even with later checkpoints.
    text = log.read_text().splitlines(keepends=True)
    log.write_text("".join([text[0].replace("root", "toor"), *text[1:]]))
    assert verified_offline(log, [before], keys)["exit_code"] == 1


async def test_seal_moved_to_another_row_does_not_open(tmp_path: Path) -> None:
    """(T3) For every kind of seal, and every pair of rows that hold one."""
    async with running_node(tmp_path) as node:
        await node.populate()
        await add_people(node)
        await issue(node, "1")
        await issue(node, "2")
        await rotate(node)  # Which writes the ring to its file.
        sealing = Sealing(KeyRing.load(tmp_path / "keys.json"))
        state = await LocalState.open(node.path)
        async with state.transaction() as transaction:
            replaced = await seals.to_replace(transaction, KeyId(99), most=1000)
        await state.close()
    kinds = {each.kind for each in replaced}
    assert kinds == set(SealKind) - {
        SealKind.CODE_TAGS,  # See tests/services/test_former_codes.py.
        SealKind.FORMER_CODES,
        SealKind.PENDING_CHANGE,
        SealKind.PENDING_CHANNEL,  # See tests/services/test_approvals.py.
        SealKind.PENDING_RESET,
        SealKind.SECOND_FACTOR,
    }
    # Those are computed from their own rows.
    for kind in kinds - {SealKind.NAME_TAG, SealKind.SEED_FINGERPRINT}:
        rows = [each for each in replaced if each.kind is kind]
        assert len(rows) > 1
        for own, other in itertools.permutations(rows, 2):
            assert new_seals(sealing, own, KeyId(2)) == own.sealed
            for at in range(len(own.sealed)):
                if not other.sealed[at]:
                    continue
                sealed = list(own.sealed)
                sealed[at] = other.sealed[at]
                moved = type(own)(
                    kind=own.kind,
                    row=own.row,
                    key_id=own.key_id,
                    belongs_to=own.belongs_to,
                    sealed=tuple(sealed),
                )
                with pytest.raises(BrokenSealError):
                    new_seals(sealing, moved, KeyId(2))
