# SPDX-License-Identifier: Apache-2.0
"""Every command of `sparecode` with arguments that fit, and a node that answers them all."""

import base64
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from sparecode.v1 import (
    agents_pb2,
    cluster_pb2,
    emergency_access_pb2,
    moves_pb2,
    tokens_pb2,
    users_pb2,
)
from sparecode_client.cli import app
from sparecode_client.values.moves import MoveKey, MoveReceipt, MoveTicket
from tests.client import answers, audit_files
from tests.client.conftest import Cli, Pki
from tests.client.fakes import FakeNode

SERIAL = "000123456789"
PASSWORD = "correct horse battery"
ARGUMENTS = {
    "serial": SERIAL,
    "replacement": "000987654321",
    "username": "alice",
    "administrator": "root",
    "name": "vpn",
    "identity": "sparecode://agent/vpn",
    "channel": "siem",
    "url": "https://siem.example/in",
    "numbers": "7",
    "number": "3",
    "first": "3",
    "kind": "codes_issued",
    "last": "7",
    "node": "n4",
    "address": "h:7301",
    "target": "n2",
    "mark": "abc",
    "session_id": "5d41402abc4b2a76",
    "path": "new.file",
    "reason": "WRONG_PIN",
    "move": "m1",
    "ticket": "move.ticket",
    "receipt": "move.receipt",
    "source": "source.key",
    "folder": "archive",
}
OPTIONS = {
    "tokens enroll": ["--seed-file", "seed"],
    "tokens expire": ["--never"],
    "users update": ["--email", "alice@example.com"],
    "agents update": ["--protects", "cloud"],
    "agents update-radius": ["--network", "10.0.0.1"],
    "notices channels create": ["--event", "tokens", "--secret-file", "hook.secret"],
    "notices channels update": ["--event", "tokens"],
    "agents deny-certificate": ["--serial-number", "ab"],
    "agents allow-certificate": ["--serial-number", "ab"],
    "policy update": ["--set", "pin_letters=yes"],
    "admins create": ["--role", "auditor", "--no-user"],
    "admins update": ["--role", "auditor"],
    "cluster declare-lost": ["--reason", "its disk was destroyed"],
    "cluster export-users reclaim": ["--reason", "its site burned"],
    "cluster keep-authorities": ["--reason", "its disk was destroyed"],
    "cluster remove": ["--yes"],
    "cluster watch": ["--count", "1"],
    "authenticate": ["--certificate", "agent.pem", "--key", "agent.key"],
    "agents test": ["--certificate", "agent.pem", "--key", "agent.key"],
    "audit verify": ["--checkpoint", "checkpoint"],
    "audit confirm-archive": ["--place", "a disk in the vault"],
    "audit withdraw-archive": ["--reason", "its disk is damaged"],
}
INPUT = {
    "users import": ("people.csv", "username\nuser1\n"),
    "tokens import": ("tokens.csv", "serial,seed\n1,GEZDGNBVGY3TQOJQ\n"),
    "emergency bulk": ("lost.csv", "serial\n11\n"),
    "audit verify": ("log", ""),
    "cluster import-users load": (
        "users.export",
        "sparecode moved users 1\n\0\0\0\6\n\2m1 \1",
    ),
}
"""The file that a command reads: its name, and its content if it is not made below."""
ONE_ROW: Mapping[str, Message] = {
    "SessionService/Login": answers.LOGIN,
    "AuthenticationService/Authenticate": answers.ACCEPTED,
    "UserService/ImportUsers": users_pb2.ImportUsersResponse(
        rows=1,
        user=users_pb2.ImportedUser(row=1, username="user1", imported=True),
    ),
    "TokenService/ImportTokenFile": tokens_pb2.ImportTokenFileResponse(
        rows=1, token=tokens_pb2.ImportedToken(row=1, serial="1", imported=True)
    ),
    "EmergencyAccessService/BulkIssueTokencodes": (
        emergency_access_pb2.BulkIssueTokencodesResponse(
            row=1,
            serial="11",
            username="alice",
            saved=answers.SAVED.saved,
            codes=[emergency_access_pb2.Tokencode(ordinal=1, code="K7PM-4XQ2")],
        )
    ),
    "ClusterService/CreateBackup": cluster_pb2.CreateBackupResponse(
        content=b"whole", index=1042, digest="ab", take_time=answers.at(answers.END)
    ),
    "MoveService/ListMoves": moves_pb2.ListMovesResponse(
        moves=[
            moves_pb2.Move(
                ticket=moves_pb2.MoveTicket(move_id="m1", last_slot=4095),
                state=moves_pb2.MOVE_STATE_ARRIVING,
            )
        ]
    ),
    "MoveService/ExportMovedUsers": moves_pb2.ExportMovedUsersResponse(
        piece=moves_pb2.SealedPiece(move_id="m1", last=True)
    ),
    "MoveService/ReclaimMove": moves_pb2.ReclaimMoveResponse(
        state=moves_pb2.MOVE_STATE_RETURNED
    ),
    "MoveService/DeleteMovedUsers": moves_pb2.DeleteMovedUsersResponse(),
    "ClusterService/RotateKeys": cluster_pb2.RotateKeysResponse(
        phase=cluster_pb2.ROTATION_PHASE_DONE, key_id=2, done=1, total=1
    ),
}
"""Answers that must fit the request: an empty or a random one is of no node."""
BY_CERTIFICATE = agents_pb2.GetAgentResponse(
    agent=agents_pb2.Agent(
        name="vpn", certificate_identity="sparecode://agent/vpn", enabled=True
    )
)
"""The agent of `agents test`: a RADIUS client needs a RADIUS server."""
NOTHING_SEALED = cluster_pb2.GetStatusResponse(node_id="n1")
"""For `audit write-archive`: a random checkpoint is signed wrongly."""
WITHOUT_QUORUM = {"cluster status", "notices test"}
"""An empty answer means no quorum, or a test that failed, hence this exit code."""


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Return every command of every group with its name."""
    for name, each in getattr(command, "commands", {}).items():
        yield from commands(each, (*path, name))
    if not hasattr(command, "commands"):
        yield " ".join(path), command


ALL = dict(commands(typer.main.get_command(app)))


FILES = (
    "administrators",
    "agents",
    "audit",
    "authentication",
    "cluster",
    "emergency_access",
    "moves",
    "notices",
    "policy",
    "sessions",
    "tokens",
    "users",
)


def answer_everything(
    name: str, cli: Cli, pki: Pki, answer: Callable[[Message], object]
) -> list[str]:
    """
    Let a node answer every request of a command; return the words of that command.

    *answer* makes the answer from an empty one. The files that commands read are in the
    working folder.
    """
    given = dict(ONE_ROW)
    if name == "agents test":
        given["AgentService/GetAgent"] = BY_CERTIFICATE
    if name == "audit write-archive":
        given["ClusterService/GetStatus"] = NOTHING_SEALED
    pool = descriptor_pool.Default()
    for file in FILES:
        described = pool.FindFileByName(f"sparecode/v1/{file}.proto")
        for service in described.services_by_name.values():
            for method in service.methods:
                called = f"{service.name}/{method.name}"
                made = answer(message_factory.GetMessageClass(method.output_type)())
                if isinstance(made, Message):
                    made = given.get(called, made)
                streamed = method.server_streaming and isinstance(made, Message)
                cli.node.answer(called, ([made], None) if streamed else made)
    _write_files(name, pki)
    return words_of(name, cli.node)


def _write_files(name: str, pki: Pki) -> None:
    Path("hook.secret").write_text("whsec_c2VjcmV0")
    ticket = MoveTicket(
        move_id="m1",
        first_slot=0,
        last_slot=4095,
        source="east",
        target="west",
        source_key_id=1,
        public_key=bytes(32),
        activated_lock=bytes(32),
        canceled_lock=bytes(32),
    )
    receipt = MoveReceipt(move_id="m1", receipt=bytes(32))
    key = MoveKey(cluster_id="east", key_id=1, public_key=bytes(32))
    for file, content in (
        ("move.ticket", ticket),
        ("move.receipt", receipt),
        ("source.key", key),
    ):
        Path(file).write_text(content.to_text())
    Path("seed").write_bytes(base64.b32encode(b"a seed of twenty byt"))
    shutil.copy(pki.agent.certificate, "agent.pem")
    shutil.copy(pki.agent.key, "agent.key")
    if name in INPUT:
        file, content = INPUT[name]
        Path(file).write_text(content)
    if name == "audit write-archive":
        Path("archive").mkdir(exist_ok=True)
    if name == "audit confirm-archive":
        audit_files.write_archive(Path("archive"), 7)
    if name == "audit verify":
        records = audit_files.log()
        audit_files.write(Path("log"), records)
        audit_files.write_checkpoint(
            Path("checkpoint"), audit_files.signed(records, len(records))
        )


def words_of(name: str, node: FakeNode) -> list[str]:
    """Return the words of a command, with arguments and the options that it needs."""
    files = {"path": INPUT[name][0], "file": INPUT[name][0]} if name in INPUT else {}
    arguments = [
        {**ARGUMENTS, **files}[each.name]
        for each in ALL[name].params
        if each.param_type_name == "argument"
    ]
    words = [*name.split(), *arguments, *OPTIONS.get(name, [])]
    if name in {"authenticate", "agents test"}:
        words += ["--agents-node", node.address]
    return words


TYPED = f"{PASSWORD}\n{PASSWORD}\n123456\n123456\n"
"""What commands prompt for."""
