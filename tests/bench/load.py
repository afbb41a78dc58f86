# SPDX-License-Identifier: Apache-2.0
"""
Concurrent clients in a separate process; each sends its next call after an answer.

`python -m tests.bench.load` reads a `Load` as JSON, runs it, and prints a
`Measurement`. Requests are made before the clock starts, and answers stay bytes
until it has stopped: so the echo and Sparecode are measured alike.
"""

import asyncio
import dataclasses
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sparecode.v1 import authentication_pb2

LOST_S = 0.5
"""A client learns after this time that an answer is lost. Real ones take seconds."""
WARM_UP = 0.15
"""The first part of the calls, which is not counted."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Requests, addresses and the number of concurrent clients."""

    addresses: tuple[str, ...]
    """Clients are spread over them."""
    ca: str
    certificate: str = ""
    key: str = ""
    """PEM files; empty for a listener that asks for no certificate."""
    method: str
    requests: tuple[str, ...] = field(repr=False)
    """As hexadecimal digits. Each is sent once, or all repeatedly (*repeat*)."""
    metadata: tuple[tuple[str, str], ...] = ()
    repeat: bool = False
    clients: int
    seconds: float
    """No new call starts after that."""
    timeout_s: float = 10.0
    patient: bool = False
    """Whether a shed client waits as long as its retry hint says, like the library."""
    storm: bool = False
    """
    Whether RADIUS and HTTP send each request three times: to a node, to it again, and to
    the next one, each some time after an answer that got lost.
    """
    keeps_answers: bool = False
    """Whether the measurement has the times of each answer: many numbers, if many clients call."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The result of a load. Latencies are those of successful calls."""

    answered: int
    seconds: float
    per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    codes: dict[str, int]
    """Status -> number of calls."""
    accepted: int
    """Answers that accept; only for `Authenticate`."""
    shed_p95_ms: float = 0.0
    """Of shed calls (RESOURCE_EXHAUSTED)."""
    shed_at_first_p95_ms: float = 0.0
    """Of shed calls in the warm-up, when all clients start at once."""
    shed_with_hint: int = 0
    began: float = 0.0
    """By `time.perf_counter`, which all processes share on Linux."""
    lasted_s: float = 0.0
    """From the first call to the last answer, warm-up included."""
    silent_at_last_s: float = 0.0
    """From the last successful answer to the end."""
    longest_gap_s: float = 0.0
    """The longest time without a successful answer for any client."""
    sent: int = 0
    """Requests that were sent; the rest of a load's requests can be sent later."""
    answers: tuple[tuple[float, float], ...] = ()
    """When each answered call began and ended, if the load keeps them."""

    @classmethod
    def of_json(cls, text: str) -> Self:
        """Return the measurement that another process printed."""
        fields = json.loads(text)
        answers = tuple((began, ended) for began, ended in fields.pop("answers"))
        return cls(**fields, answers=answers)


@dataclass
class _Answer:
    """One answer."""

    ended: float
    took_s: float
    code: str
    body: bytes
    hint: bool = False


class Clients:
    """Runs a load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._requests = [bytes.fromhex(each) for each in load.requests]
        self._next = 0
        self._answers: list[_Answer] = []

    async def run(self) -> Measurement:
        """Call until the time or the requests are over."""
        load = self._load
        channels = [self._channel(address) for address in load.addresses]
        try:
            for channel in channels:
                await asyncio.wait_for(channel.channel_ready(), 20)
            begin = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for number in range(load.clients):
                    call = channels[number % len(channels)].unary_unary(load.method)
                    group.create_task(self._ask(call, begin + load.seconds))
        finally:
            for channel in channels:
                await channel.close()
        return self.measured(begin)

    def take(self) -> bytes | None:
        """Return the next request; None: all are taken."""
        number, self._next = self._next, self._next + 1
        return self._requests[number] if number < len(self._requests) else None

    def targets(self, number: int) -> tuple[str, ...]:
        """Return the nodes that client *number* sends each request to, in turn."""
        nodes = self._load.addresses
        own, other = nodes[number % len(nodes)], nodes[(number + 1) % len(nodes)]
        return (own, own, other) if self._load.storm else (own,)

    def _channel(self, address: str) -> grpc.aio.Channel:
        load = self._load
        credentials = grpc.ssl_channel_credentials(
            Path(load.ca).read_bytes(),
            Path(load.key).read_bytes() if load.key else None,
            Path(load.certificate).read_bytes() if load.certificate else None,
        )
        return grpc.aio.secure_channel(address, credentials)

    async def _ask(
        self, call: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]", until: float
    ) -> None:
        load = self._load
        number: int | None = None
        while (began := time.perf_counter()) < until:
            if number is None:
                number, self._next = self._next, self._next + 1
            if number >= len(self._requests) and not load.repeat:
                return
            request = self._requests[number % len(self._requests)]
            code, body, wait_s = "OK", b"", None
            try:
                body = await call(
                    request, timeout=load.timeout_s, metadata=load.metadata or None
                )
            except grpc.aio.AioRpcError as error:
                code = error.code().name
                wait_s = _retry_delay_s(error)
            ended = time.perf_counter()
            self.record(
                ended=ended,
                took_s=ended - began,
                code=code,
                body=body,
                hint=wait_s is not None,
            )
            if wait_s is not None and load.patient:
                await asyncio.sleep(max(0, min(wait_s, until - ended)))
            else:
                number = None

    def record(
        self,
        *,
        ended: float,
        took_s: float,
        code: str,
        body: bytes = b"",
        hint: bool = False,
    ) -> None:
        """Record one answer."""
        self._answers.append(_Answer(ended, took_s, code, body, hint))

    def measured(self, begin: float) -> Measurement:
        """Return the measurement from *begin* on."""
        seen = sorted(self._answers, key=lambda each: each.ended)
        kept = seen[round(len(seen) * WARM_UP) :]
        first = (
            seen[len(seen) - len(kept) - 1].ended if len(kept) < len(seen) else begin
        )
        seconds = (kept[-1].ended - first) if kept else 0.0
        well = [each.took_s * 1000 for each in kept if each.code == "OK"]
        shed = [e.took_s * 1000 for e in seen if e.code == "RESOURCE_EXHAUSTED"]
        shed_later = [e.took_s * 1000 for e in kept if e.code == "RESOURCE_EXHAUSTED"]
        shed_at_first = shed[: len(shed) - len(shed_later)]
        good = [each.ended for each in seen if each.code == "OK"]
        ended = [each.ended for each in seen[-1:]]
        return Measurement(
            answered=len(well),
            seconds=seconds,
            per_s=len(well) / seconds if seconds else 0.0,
            p50_ms=percentile(well, 50),
            p95_ms=percentile(well, 95),
            p99_ms=percentile(well, 99),
            codes=dict(Counter(each.code for each in kept)),
            accepted=sum(map(self._is_accepted, kept)),
            shed_p95_ms=percentile(shed_later, 95),
            shed_at_first_p95_ms=percentile(shed_at_first, 95),
            shed_with_hint=sum(
                each.hint for each in kept if each.code == "RESOURCE_EXHAUSTED"
            ),
            began=begin,
            lasted_s=seen[-1].ended - begin if seen else 0.0,
            silent_at_last_s=longest_gap([*(good or [begin])[-1:], *ended]),
            # Counts an outage that lasts until the end.
            longest_gap_s=longest_gap([begin, *good, *ended]),
            sent=min(self._next, len(self._requests)),
            answers=tuple(
                (each.ended - each.took_s, each.ended)
                for each in seen
                if self._load.keeps_answers and each.code == "OK"
            ),
        )

    def _is_accepted(self, seen: _Answer) -> bool:
        if "Authenticate" not in self._load.method or seen.code != "OK":
            return False
        answer = authentication_pb2.AuthenticateResponse.FromString(seen.body)
        return answer.decision == authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED


def _retry_delay_s(error: grpc.aio.AioRpcError) -> float | None:
    """Return the delay of the retry hint, if the error has one."""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            return retry.retry_delay.ToTimedelta().total_seconds()
    return None


def longest_gap(moments: list[float]) -> float:
    """Return the longest time between two consecutive moments."""
    return max(
        (later - earlier for earlier, later in itertools.pairwise(moments)),
        default=0.0,
    )


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile, or 0 without values."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def do(load: Load, clients: type[Clients] = Clients) -> Measurement:
    """Run a load in a separate process, which runs the module of *clients*."""
    done = subprocess.run(
        [sys.executable, "-m", clients.__module__],
        input=json.dumps(dataclasses.asdict(load)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the clients failed: {done.stderr[-2000:]}")
    return answered(Measurement.of_json(done.stdout))


def answered(measured: Measurement) -> Measurement:
    """Return it if any call succeeded: latencies of 0 would meet every target."""
    if not measured.answered:
        raise RuntimeError(f"no call was answered: {measured.codes}")
    return measured


def must_have_lasted(measured: Measurement, seconds: float) -> None:
    """Check that the load did not run out of requests."""
    if measured.lasted_s < seconds - 1:
        raise RuntimeError(f"all codes were spent in {measured.lasted_s:.0f} s")


def main(clients: type[Clients] = Clients) -> int:
    """Read a load from stdin, run it with these clients, and print the measurement."""
    fields = json.loads(sys.stdin.read())
    for name in ("addresses", "requests"):
        fields[name] = tuple(fields[name])
    fields["metadata"] = tuple((key, value) for key, value in fields["metadata"])
    measured = asyncio.run(clients(Load(**fields)).run())
    print(json.dumps(dataclasses.asdict(measured)))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
