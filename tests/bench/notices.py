# SPDX-License-Identifier: Apache-2.0
"""
Sign-ins while every channel of notices hangs: they must take no longer (N2).

Three webhooks that want every event, syslog over TLS, and mail to every user whose code is
used. Their receivers take connections, and end no handshake: `make bench-notices`.
"""

import argparse
import asyncio
import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from local_cluster.cluster import ADMINISTRATOR
from rich.console import Console

from sparecode_client import AsyncAdmin
from sparecode_client.values.notices import ChannelKind, EventClass, new_webhook_secret
from tests.bench import paired
from tests.bench.estate import Estate, Run
from tests.bench.harness import Bench
from tests.bench.limits import Limits
from tests.bench.page import write_report
from tests.bench.population import Population
from tests.bench.report import Report
from tests.results import ROOT

CLIENTS = 8
SECONDS = 2.0
ROUNDS = 12
"""Of both loads, so that the ratio has an interval (`paired`)."""
TRIED_S = 5.0
"""A channel tries within a second of the first sign-in: it looks twice a second."""
CALLS = 1600
"""More than the clients make in this time."""
USERS = 4000
BOUND = 1.3
"""Each webhook that tells sign-ins costs their commit one more row, and so does each mail."""
EVERYTHING = tuple(EventClass)
CHANNELS: tuple[tuple[str, ChannelKind, str], ...] = (
    ("webhook-1", ChannelKind.WEBHOOK, "https"),
    ("webhook-2", ChannelKind.WEBHOOK, "https"),
    ("webhook-3", ChannelKind.WEBHOOK, "https"),
    ("siem", ChannelKind.SYSLOG, "tcp+tls"),
    ("people", ChannelKind.MAIL, "smtps"),
)


def main() -> int:
    """Compare; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.notices")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    arguments = parser.parse_args()
    report = Report(path=ROOT / "var" / "notices.json", command="make bench-notices")
    none = Limits(
        echo={},
        sync_ms=0,
        argon2id_ms=0,
        argon2id_per_s=0,
        argon2_cffi_ms=0,
        argon2_cffi_per_s=0,
        commits_per_s=0,
    )
    bench, load = Bench(report, none, SECONDS, Console()), os.getloadavg()[0]
    population = Population(users=USERS, profile="testing")
    with (
        tempfile.TemporaryDirectory(prefix="sparecode-bench-") as folder,
        bench.part("Channels hang"),
        Estate(Path(folder) / "notices", population) as estate,
    ):
        hanging(bench, estate)
    report.add("load of the machine, one minute", before=load, after=os.getloadavg()[0])
    report.finish()
    report.show(bench.console)
    if arguments.page:
        write_report("notices", report)
    return bench.report.exit_code()


def hanging(bench: Bench, estate: Estate, *, rounds: int = ROUNDS) -> None:
    """Compare sign-ins without channels with those of hanging ones, in turns."""
    with silent([name for name, *_ in CHANNELS]) as receivers:
        asyncio.run(_create(estate, [each.port for each in receivers]))

        def load(*, enabled: bool) -> Run:
            asyncio.run(_enable(estate, enabled=enabled))
            for each in receivers:
                each.forget()
            run = estate.authenticate(
                kind="code", clients=CLIENTS, seconds=SECONDS, calls=CALLS
            )
            if enabled:
                for each in receivers:
                    each.check()
            return run

        none, hung = bench.alternate(
            {
                "authenticate, codes, no channel": lambda: load(enabled=False),
                "authenticate, codes, all channels hang": lambda: load(enabled=True),
            },
            clients=CLIENTS,
            rounds=rounds,
        )
    for name, value in (("median", "p50_ms"), ("95th percentile", "p95_ms")):
        compared = paired.ratio(
            [getattr(each, value) for each in hung],
            [getattr(each, value) for each in none],
        )
        bench.target(
            "(n)",
            f"{name} of a sign-in while all channels hang, compared with none",
            compared.median,
            BOUND,
            interval=(compared.low, compared.high),
        )


class Receiver:
    """A port on which connections open, and no handshake ever ends."""

    def __init__(self, name: str, listener: socket.socket) -> None:
        self.port: int = listener.getsockname()[1]
        self._name = name
        self._listener = listener
        self._connections: list[socket.socket] = []

    def forget(self) -> None:
        """Close the connections of an earlier round."""
        self._accept(0.0)
        while self._connections:
            self._connections.pop().close()

    def check(self) -> None:
        """
        Raise if no delivery of this round hangs: then the channel has delayed nothing.

        A node that gives up a delivery closes its connection.
        """
        self._accept(TRIED_S)
        if not self._connections:
            raise RuntimeError(f"channel {self._name} has tried no delivery")
        if not any(map(_is_open, self._connections)):
            raise RuntimeError(f"no delivery of channel {self._name} hangs")

    def _accept(self, timeout_s: float) -> None:
        """Take the connections that wait; if there is none at all, wait for the first."""
        self._listener.settimeout(0 if self._connections else timeout_s)
        with contextlib.suppress(BlockingIOError, TimeoutError):
            while True:
                self._connections.append(self._listener.accept()[0])
                self._listener.settimeout(0)


def _is_open(connection: socket.socket) -> bool:
    """Return whether the other end still waits for an answer to what it has sent."""
    connection.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                if not connection.recv(65536):
                    return False
            except ConnectionError:
                return False
    return True


@contextlib.contextmanager
def silent(names: Sequence[str]) -> Iterator[list[Receiver]]:
    """Yield a receiver for each channel."""
    with contextlib.ExitStack() as stack:
        receivers = []
        for name in names:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            receivers.append(Receiver(name, listener))
            stack.callback(receivers[-1].forget)
        yield receivers


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
        for (name, kind, scheme), port in zip(CHANNELS, ports, strict=True):
            is_webhook, is_mail = kind is ChannelKind.WEBHOOK, kind is ChannelKind.MAIL
            await admin.create_channel(
                name,
                f"{scheme}://127.0.0.1:{port}{'/' if is_webhook else ''}",
                kind=kind,
                classes=EVERYTHING if is_webhook else (),
                secret=new_webhook_secret() if is_webhook else "",
                sender="sparecode@example.org" if is_mail else "",
                contact="Call 4711." if is_mail else "",
                allow_private=True,
            )


async def _enable(estate: Estate, *, enabled: bool) -> None:
    async with _administrator(estate) as admin:
        for channel in (await admin.list_channels()).items:
            await admin.update_channel(channel.name, enabled=enabled)


if __name__ == "__main__":
    sys.exit(main())
