# SPDX-License-Identifier: Apache-2.0
"""
RADIUS clients in a separate process, measured as those of gRPC are.

Each has a socket, sends its next packet after an answer, and repeats a packet that got
none. Packets are made before the clock starts.
"""

import asyncio
import dataclasses
import json
import subprocess
import sys
import time

from sparecode.v1 import authentication_pb2
from tests.bench.load import Clients, Load, Measurement, answered

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
                address = load.addresses[number % len(load.addresses)]
                group.create_task(self._send(address, begin + load.seconds))
        return self.measured(begin)

    async def _send(self, address: str, until: float) -> None:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        transport, client = await loop.create_datagram_endpoint(
            _Socket, remote_addr=(host, int(port))
        )
        try:
            while (began := time.perf_counter()) < until:
                number, self._next = self._next, self._next + 1
                if number >= len(self._requests):
                    return
                code, body = "DEADLINE_EXCEEDED", b""
                client.answer = loop.create_future()
                while time.perf_counter() - began < self._load.timeout_s:
                    transport.sendto(self._requests[number])
                    done, _ = await asyncio.wait([client.answer], timeout=REPEAT_S)
                    if done:
                        reply = client.answer.result()
                        code, body = "OK", ACCEPTED if reply[0] == ACCEPT else b""
                        break
                ended = time.perf_counter()
                self.record(ended=ended, took_s=ended - began, code=code, body=body)
        finally:
            transport.close()


def do(load: Load) -> Measurement:
    """Run a load of packets in a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.radius_load"],
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
    measured = asyncio.run(RadiusClients(Load(**fields)).run())
    print(json.dumps(dataclasses.asdict(measured)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
