# SPDX-License-Identifier: Apache-2.0
"""
HTTP clients in a separate process, measured as those of gRPC are.

Each has one connection with TLS, sends its next request after an answer, and keeps the
connection. Requests are made before the clock starts. The client is as lean as it can
be, because it shares the machine's cores with the nodes.
"""

import asyncio
import dataclasses
import json
import re
import ssl
import subprocess
import sys
import time

from sparecode.v1 import authentication_pb2
from tests.bench.load import Clients, Load, Measurement, answered

ACCEPTED = authentication_pb2.AuthenticateResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED
).SerializeToString()
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class HttpClients(Clients):
    """Runs a load whose requests are whole HTTP requests."""

    async def run(self) -> Measurement:
        """Send until the time or the requests are over."""
        load = self._load
        tls = ssl.create_default_context(cafile=load.ca)
        tls.load_cert_chain(load.certificate, load.key)
        streams = []
        for number in range(load.clients):
            host, _, port = load.addresses[number % len(load.addresses)].rpartition(":")
            streams.append(await asyncio.open_connection(host, int(port), ssl=tls))
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for reader, writer in streams:
                group.create_task(self._send(reader, writer, begin + load.seconds))
        return self.measured(begin)

    async def _send(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        until: float,
    ) -> None:
        while (began := time.perf_counter()) < until:
            number, self._next = self._next, self._next + 1
            if number >= len(self._requests):
                break
            writer.write(self._requests[number])
            async with asyncio.timeout(self._load.timeout_s):
                status, body = await _answer(reader)
            ended = time.perf_counter()
            self.record(
                ended=ended,
                took_s=ended - began,
                code="OK" if status == b"200" else f"HTTP {status.decode()}",
                body=ACCEPTED if b'"ACCEPTED"' in body else b"",
            )
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the status and the body of an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    if length is None:
        raise ValueError(f"an answer without a length: {head[:80]!r}")
    return head[9:12], await reader.readexactly(int(length[1]))


def do(load: Load) -> Measurement:
    """Run a load of requests in a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.http_load"],
        input=json.dumps(dataclasses.asdict(load)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the clients failed: {done.stderr[-2000:]}")
    return answered(Measurement.of_json(done.stdout))


def main() -> int:
    fields = json.loads(sys.stdin.read())
    for name in ("addresses", "requests", "metadata"):
        fields[name] = tuple(fields[name])
    measured = asyncio.run(HttpClients(Load(**fields)).run())
    print(json.dumps(dataclasses.asdict(measured)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
