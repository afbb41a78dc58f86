# SPDX-License-Identifier: Apache-2.0
"""Sign-ins while every channel of notices hangs: they must take no longer (N2)."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from datetime import timedelta

from local_cluster.cluster import ADMINISTRATOR

from sparecode_client import AsyncAdmin
from sparecode_client.values.notices import ChannelKind, EventClass, new_webhook_secret
from tests.bench.estate import Estate, Run
from tests.bench.harness import Bench, ratio

CLIENTS = 8
SECONDS = 2.0
CALLS = 1600
"""More than the clients make in this time."""
WEBHOOKS, STREAMS = 3, 1
BOUND = 1.3
"""Each webhook that tells sign-ins costs their commit one more row."""


def hanging(bench: Bench, estate: Estate) -> None:
    """Compare sign-ins without channels with those of hanging ones, in turns."""
    with _silent(WEBHOOKS + STREAMS) as ports:
        asyncio.run(_create(estate, ports))

        def load(*, enabled: bool) -> Run:
            asyncio.run(_enable(estate, enabled=enabled))
            return estate.authenticate(
                kind="code", clients=CLIENTS, seconds=SECONDS, calls=CALLS
            )

        none, hung = bench.alternate(
            {
                "authenticate, codes, no channel": lambda: load(enabled=False),
                "authenticate, codes, all channels hang": lambda: load(enabled=True),
            },
            clients=CLIENTS,
        )
    for name, value in (("median", "p50_ms"), ("95th percentile", "p95_ms")):
        bench.target(
            "(n)",
            f"{name} of a sign-in while all channels hang, compared with none",
            ratio(
                [getattr(each, value) for each in hung],
                [getattr(each, value) for each in none],
            ),
            BOUND,
        )


@contextlib.contextmanager
def _silent(count: int) -> Iterator[list[int]]:
    """Yield ports on which connections open, and no handshake ever ends."""
    with contextlib.ExitStack() as open_sockets:
        listeners = [
            open_sockets.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        yield [each.getsockname()[1] for each in listeners]


@contextlib.asynccontextmanager
async def _administrator(estate: Estate):  # type: ignore[no-untyped-def]
    cluster = estate.cluster
    async with AsyncAdmin(
        [node.admin_address for node in cluster.nodes],
        ca=cluster.members_ca,
        timeout=timedelta(seconds=60),
    ) as admin:
        await admin.login(ADMINISTRATOR, cluster.password)
        yield admin


async def _create(estate: Estate, ports: list[int]) -> None:
    async with _administrator(estate) as admin:
        for number, port in enumerate(ports):
            is_stream = number >= WEBHOOKS
            await admin.create_channel(
                f"silent-{number}",
                f"tcp+tls://127.0.0.1:{port}"
                if is_stream
                else f"https://127.0.0.1:{port}/",
                kind=ChannelKind.SYSLOG if is_stream else ChannelKind.WEBHOOK,
                classes=() if is_stream else tuple(EventClass),
                secret="" if is_stream else new_webhook_secret(),
                allow_private=True,
            )


async def _enable(estate: Estate, *, enabled: bool) -> None:
    async with _administrator(estate) as admin:
        for channel in (await admin.list_channels()).items:
            await admin.update_channel(channel.name, enabled=enabled)
