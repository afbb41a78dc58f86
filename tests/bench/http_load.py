# SPDX-License-Identifier: Apache-2.0
"""
HTTP clients in a separate process, measured as those of gRPC are.

Each has one connection with TLS, sends its next request after an answer, and keeps the
connection. Requests are made before the clock starts. The client is as lean as it can
be, because it shares the machine's cores with the nodes.
"""

import asyncio
import re
import ssl
import sys
import time

from sparecode.v1 import authentication_pb2
from tests.bench.load import LOST_S, Clients, Measurement, main

ACCEPTED = authentication_pb2.AuthenticateResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED
).SerializeToString()
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class HttpClients(Clients):
    """Runs a load whose requests are whole HTTP requests."""

    async def run(self) -> Measurement:
        """Send until the time or the requests are over."""
        load = self._load
        tls = ssl.create_default_context(cafile=load.ca)
        tls.load_cert_chain(load.certificate, load.key)
        clients = []
        for number in range(load.clients):
            addresses = self.targets(number)
            streams = {each: await _connected(each, tls) for each in {*addresses}}
            clients.append([streams[each] for each in addresses])
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for streams_of_client in clients:
                group.create_task(self._send(streams_of_client, begin + load.seconds))
        return self.measured(begin)

    async def _send(self, streams: list[Stream], until: float) -> None:
        while time.perf_counter() < until:
            request = self.take()
            if request is None:
                break
            for number, (reader, writer) in enumerate(streams):
                await asyncio.sleep(LOST_S if number else 0)
                began = time.perf_counter()
                writer.write(request)
                async with asyncio.timeout(self._load.timeout_s):
                    status, body = await _answer(reader)
                ended = time.perf_counter()
                self.record(
                    ended=ended,
                    took_s=ended - began,
                    code="OK" if status == b"200" else f"HTTP {status.decode()}",
                    body=ACCEPTED if b'"ACCEPTED"' in body else b"",
                )
        for _, writer in streams:
            writer.close()


async def _connected(address: str, tls: ssl.SSLContext) -> Stream:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port), ssl=tls)


async def _answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the status and the body of an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = LENGTH.search(head)
    if length is None:
        raise ValueError(f"an answer without a length: {head[:80]!r}")
    return head[9:12], await reader.readexactly(int(length[1]))


if __name__ == "__main__":
    sys.exit(main(HttpClients))
