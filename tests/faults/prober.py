# SPDX-License-Identifier: Apache-2.0
"""
A client of its own that opens a call every 100 ms, and records how each ended.

It is a separate program with only the public client library, configured with the
addresses of all nodes, as an agent should be. Each call is an authentication with a code
that was not used before. So each answer needs a quorum, and each must be "accepted".

Arguments: OUTPUT CA CERTIFICATE KEY, and for each node the addresses for agents and for
administrators, as HOST:PORT/HOST:PORT. It reads the session of an administrator from its
input, and ends with its input. OUTPUT gets a line of JSON for each call that has ended,
with times of the machine's monotonic clock.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO

from sparecode_client import AsyncAdmin, AsyncAgent, NewToken, SparecodeError

INTERVAL_S = 0.1
CODES_EACH = 50
POOL = 1000
"""Unused codes that are kept ready: enough for 100 s in which no set can be issued."""
MAKERS = 4
NO_CODE = "NO_CODE"
"""In place of a result: there was no code left, so no call was opened."""
PIN = "4719"
PATIENCE = timedelta(seconds=30)

# --- The program


async def _make(
    admin: AsyncAdmin, maker: int, pool: asyncio.Queue[tuple[str, str]]
) -> None:
    """Create users with codes, as long as the pool takes them."""
    number = 0
    while True:
        number += 1
        name = f"prober-{maker}-{number}"
        try:
            await admin.create_user(name, within=PATIENCE)
            token = NewToken(serial=name, seed=name.ljust(20).encode()[:20])
            await admin.enroll_token(token, within=PATIENCE)
            await admin.assign_token(name, name, within=PATIENCE)
            await admin.set_pin(name, PIN, within=PATIENCE)
            issued = await admin.issue_tokencodes(
                name, count=CODES_EACH, within=PATIENCE
            )
        except SparecodeError:
            await asyncio.sleep(INTERVAL_S)
            continue
        for code in issued.codes:
            await pool.put((name, PIN + code.code))


async def _call(
    agent: AsyncAgent, pool: asyncio.Queue[tuple[str, str]], output: IO[str]
) -> None:
    opened_ns = time.monotonic_ns()
    try:
        user, passcode = pool.get_nowait()
        answer = await agent.authenticate(user, passcode)
        result, words = answer.decision.value, ""
    except asyncio.QueueEmpty:
        result, words = NO_CODE, ""
    except SparecodeError as error:
        result, words = error.reason, str(error)
    call = {
        "opened_ns": opened_ns,
        "ended_ns": time.monotonic_ns(),
        "result": result,
        "words": words,
    }
    output.write(json.dumps(call) + "\n")


async def probe(
    output: IO[str], ca: str, certificate: str, key: str, nodes: Sequence[str]
) -> None:
    """Open calls until the input ends; let those in progress end."""
    session = sys.stdin.readline().strip()
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    pool: asyncio.Queue[tuple[str, str]] = asyncio.Queue(POOL)
    agents, admins = zip(*(each.split("/") for each in nodes), strict=True)
    async with (
        AsyncAdmin(admins, ca=ca, session=session) as admin,
        AsyncAgent(agents, ca=ca, certificate=certificate, key=key) as agent,
    ):
        makers = [asyncio.create_task(_make(admin, n, pool)) for n in range(MAKERS)]
        while not (pool.full() or over.done()):
            await asyncio.wait([over], timeout=INTERVAL_S)
        calls: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        while not over.done():
            call = asyncio.create_task(_call(agent, pool, output))
            calls.add(call)
            call.add_done_callback(calls.discard)
            due += INTERVAL_S
            await asyncio.wait([over], timeout=max(0, due - time.monotonic()))
        for maker in makers:
            maker.cancel()
        if calls:
            await asyncio.wait(calls, timeout=PATIENCE.total_seconds())


def main() -> None:
    output, ca, certificate, key, *nodes = sys.argv[1:]
    with Path(output).open("w", buffering=1) as file:
        asyncio.run(probe(file, ca, certificate, key, nodes))


if __name__ == "__main__":
    main()
