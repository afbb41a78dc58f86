# SPDX-License-Identifier: Apache-2.0
"""Every command of `sparecode` with arguments that fit, and a node that answers them all."""

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from sparecode_client.cli import app
from tests.client.fakes import FakeNode

SERIAL = "000123456789"
PASSWORD = "correct horse battery"
ARGUMENTS = {
    "serial": SERIAL,
    "replacement": "000987654321",
    "username": "alice",
    "name": "vpn",
    "identity": "sparecode://agent/vpn",
    "channel": "siem",
    "url": "https://siem.example/in",
    "numbers": "7",
    "number": "3",
    "node": "n4",
    "address": "h:7301",
    "target": "n2",
    "mark": "abc",
    "session_id": "5d41402abc4b2a76",
    "path": "new.file",
    "reason": "WRONG_PIN",
}
OPTIONS = {
    "tokens enroll": ["--seed-file", "seed"],
    "tokens expire": ["--never"],
    "users update": ["--email", "alice@example.com"],
    "agents update": ["--protects", "cloud"],
    "agents register-radius": ["--network", "10.0.0.1"],
    "agents update-radius": ["--network", "10.0.0.1"],
    "notices channels create": ["--event", "tokens", "--secret-file", "hook.secret"],
    "notices channels update": ["--event", "tokens"],
    "agents deny-certificate": ["--serial-number", "ab"],
    "agents allow-certificate": ["--serial-number", "ab"],
    "policy update": ["--set", "pin_letters=yes"],
    "admins create": ["--role", "auditor", "--no-user"],
    "admins update": ["--role", "auditor"],
    "cluster keep-authorities": ["--reason", "its disk was destroyed"],
    "cluster remove": ["--yes"],
    "cluster watch": ["--count", "1"],
}
ELSEWHERE = {
    "login",  # test_cli_sessions.py, and so is the end of the session that all use.
    "logout",
    "authenticate",  # test_cli_authentication.py: by an agent's certificate.
    "agents test",  # test_cli_agent_test.py: by an agent's secret or certificate.
    "audit verify",  # test_cli_audit.py: of files, without a node.
    # A node has something to tell of every row: test_cli_bulk_issue.py, test_user_import.py,
    # test_token_import.py, test_cli_rotation.py.
    "emergency bulk",
    "users import",
    "tokens import",
    "cluster rotate-keys",
}
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
    "cluster",
    "emergency_access",
    "notices",
    "policy",
    "sessions",
    "tokens",
    "users",
)


def answer_everything(
    node: FakeNode, folder: Path, answer: Callable[[Message], object]
) -> None:
    """
    Let a node answer every request, and write the files that commands read.

    *answer* makes the answer from an empty one.
    """
    (folder / "hook.secret").write_text("whsec_c2VjcmV0")
    (folder / "seed").write_bytes(base64.b32encode(b"a seed of twenty byt"))
    pool = descriptor_pool.Default()
    for file in FILES:
        described = pool.FindFileByName(f"sparecode/v1/{file}.proto")
        for service in described.services_by_name.values():
            for method in service.methods:
                empty = message_factory.GetMessageClass(method.output_type)()
                made = answer(empty)
                streamed = method.server_streaming and isinstance(made, Message)
                node.answer(
                    f"{service.name}/{method.name}",
                    ([made], None) if streamed else made,
                )


def words_of(name: str) -> list[str]:
    """Return the words of a command, with arguments and the options that it needs."""
    arguments = [
        ARGUMENTS[each.name]
        for each in ALL[name].params
        if each.param_type_name == "argument"
    ]
    return [*name.split(), *arguments, *OPTIONS.get(name, [])]


TYPED = f"{PASSWORD}\n{PASSWORD}\n123456\n123456\n"
"""What commands prompt for."""
