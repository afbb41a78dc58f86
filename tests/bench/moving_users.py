# SPDX-License-Identifier: Apache-2.0
"""
Users who sign in while their slots move, and what becomes of each attempt.

An attempt is made once: in the source, and if that says that the slot moves or has moved,
in the target. They come at a steady rate, whatever the answers: as many of them are
refused as users would be at that rate.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Self

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from local_cluster.cluster import AGENT, LocalCluster

from sparecode.v1 import authentication_pb2
from tests.bench.estate import AUTHENTICATE

PERIOD_S = 0.05
"""Between two attempts."""
CALLS_AT_ONCE = 16
TIMEOUT_S = 10.0
ELSEWHERE = ("SLOT_MOVING", "SLOT_MOVED")
"""The answers after which an attempt is made in the target."""

Call = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class SignIn:
    """An attempt."""

    began: float
    ended: float
    cluster: str
    """The one that accepted it, empty if none did."""
    answers: tuple[str, ...] = ()
    """The reasons of the refusals, in their order."""


def pause_s(sign_ins: Sequence[SignIn]) -> float:
    """
    Return the time from the last attempt of the source to the first of the target.

    Raises `RuntimeError` if one of them has accepted none.
    """
    ended = [each.ended for each in sign_ins if each.cluster == "source"]
    began = [each.began for each in sign_ins if each.cluster == "target"]
    if not ended or not began:
        raise RuntimeError(f"accepted: {len(ended)} in the source, {len(began)} after")
    return min(began) - max(ended)


class MovingUsers:
    """Users who sign in with codes, as a context manager."""

    def __init__(
        self, source: LocalCluster, target: LocalCluster, requests: Sequence[str]
    ) -> None:
        self._channels: list[grpc.Channel] = []
        self._calls = {
            "source": self._calls_of(source),
            "target": self._calls_of(target),
        }
        self._requests = [bytes.fromhex(each) for each in requests]
        self._ends, self._pool = Event(), ThreadPoolExecutor(1)
        self._running: Future[list[SignIn]] | None = None
        self.sign_ins: list[SignIn] = []
        """All attempts in their order, once the users have stopped."""

    def __enter__(self) -> Self:
        self._running = self._pool.submit(self._run)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        try:
            assert self._running is not None
            self.sign_ins = self._running.result()
        finally:
            self._pool.shutdown()
            for channel in self._channels:
                channel.close()

    def _calls_of(self, cluster: LocalCluster) -> list[Call]:
        folder = cluster.certificates
        credentials = grpc.ssl_channel_credentials(
            cluster.members_ca.read_bytes(),
            (folder / f"{AGENT}.key").read_bytes(),
            (folder / f"{AGENT}.pem").read_bytes(),
        )
        calls: list[Call] = []
        for node in cluster.nodes:
            channel = grpc.secure_channel(node.agents_address, credentials)
            self._channels.append(channel)
            stub = channel.unary_unary(AUTHENTICATE)
            calls.append(lambda request, stub=stub: stub(request, timeout=TIMEOUT_S))
        return calls

    def _run(self) -> list[SignIn]:
        next_at, running = time.perf_counter(), []
        with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
            for number, request in enumerate(self._requests):
                if self._ends.wait(max(0.0, next_at - time.perf_counter())):
                    return [each.result() for each in running]
                running.append(pool.submit(self._sign_in, number, request))
                next_at += PERIOD_S
        raise RuntimeError(f"the move outlasts {len(self._requests)} codes")

    def _sign_in(self, number: int, request: bytes) -> SignIn:
        began, cluster, answers = time.perf_counter(), "", []
        for name, calls in self._calls.items():
            answer = ask(calls[number % len(calls)], request)
            if not answer:
                cluster = name
                break
            answers.append(answer)
            if answer not in ELSEWHERE:
                break
        return SignIn(
            began=began,
            ended=time.perf_counter(),
            cluster=cluster,
            answers=tuple(answers),
        )


def ask(call: Call, request: bytes) -> str:
    """
    Make an attempt; return why it is refused, empty if it is accepted.

    Raises `ValueError` if the cluster has decided against it: every passcode is right.
    """
    try:
        body = call(request)
    except grpc.RpcError as error:
        return _reason(error)
    answer = authentication_pb2.AuthenticateResponse.FromString(body)
    if answer.decision != authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED:
        raise ValueError("a right passcode was refused")
    return ""


def _reason(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return str(error.code().name)
