# SPDX-License-Identifier: Apache-2.0
"""
An agent that keeps many calls open leaves hashing to other agents and to sign-ins (L8).

The attack: a thief of one agent's key keeps 96 calls open on a node, each with
another name, and ignores every hint when to retry. Hashing costs what it costs in
service.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import authentication_pb2, sessions_pb2
from sparecode.v1.authentication_pb2_grpc import AuthenticationServiceStub
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode_node.services.secrets.kdf import PRODUCTION
from tests.rpc.edge import AGENTS, NOW
from tests.rpc.loopback_node import PASSWORD, LoopbackNode, new_id, running_node
from tests.services.one_node import UNLIMITED

pytestmark = pytest.mark.asyncio

OPEN_CALLS = 96
CALLS = 5
HONEST = AGENTS.issue_agent("mail", now=NOW)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    async with running_node(tmp_path, UNLIMITED, hashing=PRODUCTION) as node:
        yield node


def attempt(username: str) -> authentication_pb2.AuthenticateRequest:
    return authentication_pb2.AuthenticateRequest(
        request_id=new_id(), username=username, passcode="1234567890"
    )


@contextlib.asynccontextmanager
async def flood(node: LoopbackNode) -> AsyncIterator[None]:
    """Keep calls of one agent open; yield when the first of them was shed."""
    names, shed = itertools.count(), asyncio.Event()

    async def attack(stub: AuthenticationServiceStub) -> None:
        while True:
            try:
                await stub.Authenticate(attempt(f"user{next(names)}"), timeout=60)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                    shed.set()

    async with node.agents() as channel:
        stub = AuthenticationServiceStub(channel)
        tasks = [asyncio.create_task(attack(stub)) for _ in range(OPEN_CALLS)]
        async with asyncio.timeout(60):
            await shed.wait()
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_other_agents_are_answered(node: LoopbackNode) -> None:
    """(L8) None of the calls of another agent is shed, and none is retried."""
    async with flood(node), node.agents(HONEST) as channel:
        stub = AuthenticationServiceStub(channel)
        answers = [
            await stub.Authenticate(attempt(f"alice{n}"), timeout=60)
            for n in range(CALLS)
        ]
    refused = authentication_pb2.AUTHENTICATION_DECISION_REFUSED
    assert [each.decision for each in answers] == [refused] * CALLS


async def test_administrators_sign_in(node: LoopbackNode) -> None:
    """(L8) From a device that was never seen, which is what an attacker has, too."""
    async with flood(node), node.admin() as channel:
        stub = SessionServiceStub(channel)
        answers = await asyncio.gather(
            *(
                stub.Login(
                    sessions_pb2.LoginRequest(
                        request_id=new_id(), administrator="root", password=PASSWORD
                    ),
                    timeout=60,
                )
                for _ in range(CALLS)
            )
        )
    assert all(each.session for each in answers)
