# SPDX-License-Identifier: Apache-2.0
"""Second factors, from the QR code to the key that seals the secret (P1, L7)."""

import base64
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import pytest

from sparecode.v1 import (
    administrators_pb2,
    administrators_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
)
from sparecode_node.domain.administrators import SECOND_FACTOR
from sparecode_node.domain.ids import AdministratorName, KeyId, Moment
from sparecode_node.domain.tokencodes import step_at, tokencode_at
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from tests.rpc.loopback_node import PASSWORD, LoopbackNode, new_id, running_node

pytestmark = pytest.mark.asyncio

ADMINISTRATORS = administrators_pb2_grpc.AdministratorServiceStub


def code_of(seed: bytes, ahead: int) -> str:
    """Return the code of a step *ahead* of now: near steps are accepted too."""
    now = step_at(int(time.time() * 1000), SECOND_FACTOR)
    return tokencode_at(seed, SECOND_FACTOR, Moment(now + ahead))


async def sign_in(node: LoopbackNode, second_factor: str = "") -> Any:
    async with node.admin() as channel:
        return await sessions_pb2_grpc.SessionServiceStub(channel).Login(
            sessions_pb2.LoginRequest(
                request_id=new_id(),
                administrator="root",
                password=PASSWORD,
                second_factor=second_factor,
            ),
            timeout=60,
        )


async def refused(node: LoopbackNode, second_factor: str = "") -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sign_in(node, second_factor)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    return caught.value.details() or ""


async def enroll(node: LoopbackNode) -> bytes:
    """Set up the second factor of root; return its seed."""
    enrolled = await node.call(
        ADMINISTRATORS,
        "EnrollSecondFactor",
        administrators_pb2.EnrollSecondFactorRequest(),
    )
    parameters = parse_qs(urlsplit(enrolled.uri).query)
    assert enrolled.uri.startswith("otpauth://totp/Sparecode%3Aroot?")
    assert parameters["secret"] == [enrolled.secret]
    assert parameters["digits"], parameters["period"] == (["6"], ["30"])
    seed = base64.b32decode(enrolled.secret)
    await sign_in(node)  # Nothing changes before it is confirmed.
    await node.call(
        ADMINISTRATORS,
        "ConfirmSecondFactor",
        administrators_pb2.ConfirmSecondFactorRequest(
            request_id=new_id(), draft=enrolled.draft, code=code_of(seed, -1)
        ),
    )
    return seed


async def test_sign_in_needs_a_code_and_accepts_it_once(
    tmp_path: Path,
) -> None:
    """(K1, L7) A code seen while it is typed is of no use afterwards."""
    async with running_node(tmp_path) as node:
        seed = await enroll(node)
        assert "a code of the second factor is also needed" in await refused(node)
        code = code_of(seed, 0)
        assert (await sign_in(node, code)).session
        assert "already used" in await refused(node, code)


async def test_second_factor_outlasts_the_key_that_seals_it(tmp_path: Path) -> None:
    """(T3) It is resealed with everything else."""
    async with running_node(tmp_path) as node:
        seed = await enroll(node)
        async with node.admin() as channel:
            stub = cluster_pb2_grpc.ClusterServiceStub(channel)
            request = cluster_pb2.RotateKeysRequest(request_id=new_id(), at_once=True)
            progress = [
                each
                async for each in stub.RotateKeys(
                    request, timeout=60, metadata=node.bearer
                )
            ]
        assert progress[-1].phase == cluster_pb2.ROTATION_PHASE_DONE
        assert (await sign_in(node, code_of(seed, 1))).session
        assert seed not in node.path.read_bytes()


async def test_seal_is_bound_to_the_administrators_name() -> None:
    """(T3) The seed of one administrator does not work in the row of another."""
    sealing, key = Sealing(KeyRing.draw(SystemEntropy())), KeyId(1)
    root, ada = AdministratorName("root"), AdministratorName("ada")
    sealed = sealing.seal_second_factor(root, b"s" * 20, key)
    assert sealing.unseal_second_factor(root, sealed, key) == b"s" * 20
    with pytest.raises(BrokenSealError):
        sealing.unseal_second_factor(ada, sealed, key)


async def test_administrators_cannot_remove_their_own_second_factor(
    tmp_path: Path,
) -> None:
    """(I10) A stolen session must not be able to remove it."""
    async with running_node(tmp_path) as node:
        await enroll(node)
        with pytest.raises(grpc.aio.AioRpcError, match="you cannot remove your own"):
            await node.call(
                ADMINISTRATORS,
                "RemoveSecondFactor",
                administrators_pb2.RemoveSecondFactorRequest(
                    request_id=new_id(), name="root"
                ),
            )
