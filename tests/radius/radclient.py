# SPDX-License-Identifier: Apache-2.0
"""FreeRADIUS's `radclient`, unmodified, and what it sends."""

import asyncio
import secrets
import shutil

import pytest

HOST = "127.0.0.1"
SIGNED = "Message-Authenticator = 0x00"
NEEDS_RADCLIENT = pytest.mark.skipif(
    shutil.which("radclient") is None,
    reason="radclient is missing: make system-packages (freeradius-utils)",
)


async def radclient(
    port: int, secret: str, attributes: str, *arguments: str, kind: str = "auth"
) -> str:
    """
    Run radclient, which accepts signed answers only (`-b`); return what it prints.

    It sends again for a minute: a node is silent during an election.

    On a busy machine it now and then ends at once, without an answer or a word. It is
    run again then, with the same octets, which are the same request.
    """
    if kind == "auth" and "Packet-Authentication-Vector" not in attributes:
        attributes += f", Packet-Authentication-Vector = 0x{secrets.token_hex(16)}"
    number: tuple[str, ...] = (
        () if "-i" in arguments else ("-i", str(secrets.randbelow(256)))
    )
    while True:
        process = await asyncio.create_subprocess_exec(
            *("radclient", "-b", "-x", "-r", "12", "-t", "5", *number, *arguments),
            *(f"{HOST}:{port}", kind, secret),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate(f"{attributes}\n".encode())
        printed = output.decode()
        if "Received" in printed or "No reply" in printed:
            return printed


def login(password: str, *more: str, username: str = "alice") -> str:
    """Return the attributes of a request of a user."""
    return ", ".join(
        (f"User-Name = {username}", f'User-Password = "{password}"', SIGNED, *more)
    )
