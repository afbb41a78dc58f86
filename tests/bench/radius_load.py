# SPDX-License-Identifier: Apache-2.0
"""
RADIUS clients in a separate process, measured as those of gRPC are.

Each has a socket, sends its next packet after an answer, and repeats a packet that got
none. Packets are made before the clock starts.
"""

import asyncio
import sys
import time

from sparecode.v1 import authentication_pb2
from tests.bench.load import LOST_S, Clients, Measurement, main

ACCEPT = 2
REPEAT_S = 3.0
"""A NAS repeats a packet after this time."""
ACCEPTED = authentication_pb2.AuthenticateResponse(
    decision=authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED
).SerializeToString()


class _Socket(asyncio.DatagramProtocol):
    """The socket of one client."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] | None = None

    def datagram_received(self, data: bytes, _addr: object) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(data)


class RadiusClients(Clients):
    """Runs a load whose requests are packets."""

    async def run(self) -> Measurement:
        """Send until the time or the requests are over."""
        load = self._load
        begin = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(load.clients):
                group.create_task(self._send(number, begin + load.seconds))
        return self.measured(begin)

    async def _send(self, number: int, until: float) -> None:
        loop = asyncio.get_running_loop()
        addresses = self.targets(number)
        sockets = {}
        for address in {*addresses}:
            host, _, port = address.rpartition(":")
            sockets[address] = await loop.create_datagram_endpoint(
                _Socket, remote_addr=(host, int(port))
            )
        try:
            while time.perf_counter() < until:
                request = self.take()
                if request is None:
                    return
                for copy, address in enumerate(addresses):
                    await asyncio.sleep(LOST_S if copy else 0)
                    await self._ask(*sockets[address], request)
        finally:
            for transport, _ in sockets.values():
                transport.close()

    async def _ask(
        self, transport: asyncio.DatagramTransport, client: _Socket, request: bytes
    ) -> None:
        """Send a packet until it is answered, and record the answer."""
        began = time.perf_counter()
        code, body = "DEADLINE_EXCEEDED", b""
        client.answer = asyncio.get_running_loop().create_future()
        while time.perf_counter() - began < self._load.timeout_s:
            transport.sendto(request)
            done, _ = await asyncio.wait([client.answer], timeout=REPEAT_S)
            if done:
                reply = client.answer.result()
                code, body = "OK", ACCEPTED if reply[0] == ACCEPT else b""
                break
        ended = time.perf_counter()
        self.record(ended=ended, took_s=ended - began, code=code, body=body)


if __name__ == "__main__":
    sys.exit(main(RadiusClients))
