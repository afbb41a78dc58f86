# SPDX-License-Identifier: Apache-2.0
"""A long-running client whose certificate is replaced."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from sparecode.v1 import authentication_pb2
from sparecode_client.connection.channels import TlsConnect
from sparecode_client.connection.client import Client
from tests.client import answers
from tests.client.certificates import Authority, Certificate
from tests.client.conftest import Pki
from tests.client.fakes import FakeNode

AUTHENTICATE = "AuthenticationService/Authenticate"


@pytest.fixture
def certificates_shown() -> list[bytes]:
    """Return the client certificate of each call."""
    return []


@pytest.fixture
def node(
    pki: Pki,
    start_node: Callable[..., FakeNode],
    certificates_shown: list[bytes],
    monkeypatch,
) -> FakeNode:
    handle = FakeNode.handle

    def note(self, method: str, request, context: grpc.ServicerContext):
        certificates_shown.extend(context.auth_context()["x509_pem_cert"])
        return handle(self, method, request, context)

    monkeypatch.setattr(FakeNode, "handle", note)
    node = start_node(pki.credentials(mutual=True))
    node.answer(AUTHENTICATE, *[answers.ACCEPTED] * 10)
    return node


@pytest.fixture
def files(pki: Pki, tmp_path: Path) -> Certificate:
    """Copy the agent's files to a folder where a test can replace them."""
    copy = Certificate(tmp_path / "agent.pem", tmp_path / "agent.key")
    shutil.copy(pki.agent.certificate, copy.certificate)
    shutil.copy(pki.agent.key, copy.key)
    return copy


def renewed(pki: Pki, tmp_path: Path) -> Certificate:
    """Issue a certificate from a new authority that the node also trusts."""
    (tmp_path / "new").mkdir()
    authority = Authority(tmp_path / "new", "agents")
    return authority.issue("vpn")


def connect(pki: Pki, files: Certificate) -> TlsConnect:
    return TlsConnect(pki.ca, certificate=files.certificate, key=files.key, look_s=0.0)


async def call(client: Client) -> None:
    await client.unary(
        lambda stubs: stubs.authentication.Authenticate,
        authentication_pb2.AuthenticateRequest(request_id="r", username="alice"),
    )


@pytest.mark.asyncio
async def test_running_client_uses_its_new_certificate(
    pki: Pki, node: FakeNode, files: Certificate, certificates_shown: list[bytes]
):
    """Renewed by the same authority: here the same certificate, with its chain."""
    client = Client([node.address], connect(pki, files))
    async with client:
        await call(client)
        first = client._nodes[0]._channel
        # What is the same to the node, and another file: so the connection is new.
        shutil.copy(pki.agent.certificate, files.certificate)
        await call(client)
        assert client._nodes[0]._channel is not first
        second = client._nodes[0]._channel
        await call(client)
        assert client._nodes[0]._channel is second
    assert len(certificates_shown) == 3


@pytest.mark.asyncio
async def test_half_of_a_renewal_is_not_used(
    pki: Pki, node: FakeNode, files: Certificate, tmp_path: Path, caplog
):
    """With a new key and the old certificate, the client keeps using the old pair."""
    client = Client([node.address], connect(pki, files))
    other = renewed(pki, tmp_path)
    async with client:
        await call(client)
        shutil.copy(other.key, files.key)
        await call(client)
        assert "certificate_not_renewed" in caplog.text
        shutil.copy(pki.agent.key, files.key)
        await call(client)


def test_files_are_checked_at_intervals(pki: Pki, files: Certificate):
    connected = TlsConnect(
        pki.ca, certificate=files.certificate, key=files.key, look_s=1000.0
    )
    shutil.copy(pki.agent.certificate, files.certificate)
    assert connected.version() == 0
    connected._looked_s = time.monotonic() - 1001
    assert connected.version() == 1
