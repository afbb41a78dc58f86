# SPDX-License-Identifier: Apache-2.0
"""
No two tokens have the same seed (K5).

The attack: a token's seed is enrolled again under another serial. Both tokens accept one
passcode, each once, so a passcode that was seen works a second time (K1).
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode.v1 import cluster_pb2, tokens_pb2, types_pb2
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import SignedIn, root

pytestmark = pytest.mark.asyncio

SEED = b"a seed that is known"
OTHER = b"the seed of another."


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    async with running_node(tmp_path) as started:
        yield started


def token(serial: str, seed: bytes = SEED) -> tokens_pb2.EnrollTokenRequest:
    return tokens_pb2.EnrollTokenRequest(
        request_id=new_id(),
        serial=serial,
        algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
        digits=6,
        period_seconds=30,
        seed=seed,
        pin_rule=types_pb2.PIN_RULE_NONE,
    )


async def enroll(admin: SignedIn, request: tokens_pb2.EnrollTokenRequest) -> None:
    await admin.call(TokenServiceStub, "EnrollToken", request)


@pytest.mark.parametrize("end", [b"", b"\0", b"\0" * 44])
async def test_a_seed_is_refused_under_another_serial(
    node: LoopbackNode, end: bytes
) -> None:
    """(K5) Zero bytes at the end change no tokencode, so they make no other seed."""
    admin = root(node)
    await enroll(admin, token("1"))
    refusal = await admin.refused(
        TokenServiceStub, "EnrollToken", token("2", SEED + end)
    )
    assert refusal.reason == "SEED_EXISTS"
    assert "token 1 has the same seed" in refusal.words
    await enroll(admin, token("2", OTHER))


async def test_a_file_names_the_row(node: LoopbackNode) -> None:
    """(K5, K4) A seed that a token has, and one that an earlier row has."""
    admin = root(node)
    await enroll(admin, token("1"))
    content = (
        "serial,seed,seed_format\n"
        f"2,{OTHER.hex()},hex\n"
        f"3,{SEED.hex()},hex\n"
        f"4,{OTHER.hex()}00,hex\n"
    )
    answers = await admin.stream(
        TokenServiceStub,
        "ImportTokenFile",
        tokens_pb2.ImportTokenFileRequest(
            request_id=new_id(),
            format=tokens_pb2.TOKEN_FILE_FORMAT_CSV,
            content=content.encode(),
            default_pin_rule=types_pb2.PIN_RULE_NONE,
        ),
    )
    rows = [answer.token for answer in answers]
    assert [(row.row, row.imported, row.reason, row.problem) for row in rows] == [
        (1, True, "", ""),
        (2, False, "SEED_EXISTS", "token 1 has the same seed"),
        (3, False, "SEED_EXISTS", "row 1 of this file has the same seed"),
    ]


async def test_a_rotation_of_keys_keeps_the_fingerprints(node: LoopbackNode) -> None:
    """(K5, P5) They are made again with each new key."""
    admin = root(node)
    await enroll(admin, token("1"))
    for _ in range(2):
        await admin.stream(
            ClusterServiceStub,
            "RotateKeys",
            cluster_pb2.RotateKeysRequest(request_id=new_id(), at_once=True),
        )
        refusal = await admin.refused(TokenServiceStub, "EnrollToken", token("2"))
        assert refusal.reason == "SEED_EXISTS"
