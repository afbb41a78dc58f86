# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it prints its result.
"""
Delay packets: python -m tests.faults.delay DELAY_MS JITTER_MS, in a namespace.

Many machines lack the kernel module `tc netem`, so the kernel queues packets to this
process (NFQUEUE), which releases each after its delay. With jitter, packets can
overtake each other. At the end of its standard input it releases all packets and
prints how many it has delayed.
"""

import heapq
import random
import select
import socket
import struct
import sys
import time

QUEUE = 1
NETLINK_NETFILTER = 12
PACKET, VERDICT, CONFIG = 0x300, 0x301, 0x302
BIND, COPY_META, ACCEPT = 1, 1, 1
CFG_CMD, CFG_PARAMS, CFG_QUEUE_LENGTH = 1, 2, 3
PACKET_HEADER, VERDICT_HEADER = 1, 2
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct(">BBH")


class Queue:
    """The kernel's queue of packets."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._send(CONFIG, CFG_CMD, struct.pack(">BxH", BIND, 0))
        self._send(CONFIG, CFG_PARAMS, struct.pack(">IB", 0, COPY_META))
        self._send(CONFIG, CFG_QUEUE_LENGTH, struct.pack(">I", 16_384))

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[int]:
        """Return the ids of new packets."""
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            return []  # The kernel dropped packets because this process was slow.
        packets = []
        while len(data) >= _HEADER.size:
            length, kind, *_ = _HEADER.unpack_from(data)
            if kind == PACKET:
                packets.append(self._packet_id(data[_HEADER.size + 4 : length]))
            data = data[(length + 3) & ~3 :]
        return packets

    def accept(self, packet: int) -> None:
        """Release a packet."""
        self._send(VERDICT, VERDICT_HEADER, struct.pack(">II", ACCEPT, packet))

    @staticmethod
    def _packet_id(attributes: bytes) -> int:
        while attributes:
            length, kind = struct.unpack_from("=HH", attributes)
            if kind & 0x3FFF == PACKET_HEADER:
                return int(struct.unpack_from(">I", attributes, 4)[0])
            attributes = attributes[(length + 3) & ~3 :]
        raise ValueError("a packet without header")

    def _send(self, message: int, attribute: int, value: bytes) -> None:
        body = _FAMILY.pack(0, 0, QUEUE)
        body += struct.pack("=HH", 4 + len(value), attribute) + value
        body += bytes(-len(body) % 4)
        header = _HEADER.pack(_HEADER.size + len(body), message, 1, 0, 0)
        self._socket.send(header + body)


def hold(delay_s: float, jitter_s: float) -> int:
    """Delay packets until standard input ends; return their number."""
    queue = Queue()
    waiting: list[tuple[float, int]] = []
    held = 0
    while True:
        wait_s = 0.2
        if waiting:
            wait_s = min(wait_s, max(0.0, waiting[0][0] - time.monotonic()))
        ready, _, _ = select.select([queue, sys.stdin], [], [], wait_s)
        if sys.stdin in ready:
            break
        if queue in ready:
            for packet in queue.read():
                held += 1
                until = time.monotonic() + delay_s + random.random() * jitter_s
                heapq.heappush(waiting, (until, packet))
        while waiting and waiting[0][0] <= time.monotonic():
            queue.accept(heapq.heappop(waiting)[1])
    for _, packet in sorted(waiting):
        queue.accept(packet)
    return held


if __name__ == "__main__":
    print(hold(int(sys.argv[1]) / 1000, int(sys.argv[2]) / 1000))
