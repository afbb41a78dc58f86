# SPDX-License-Identifier: Apache-2.0
"""
A file from an administrator takes no more than its share of a node (K4).

It is read in work that grows with its size, and in a process that ends when it passes
its bounds. Then nothing is imported, and the refusal names the bound.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import tokens_pb2 as pb
from sparecode.v1 import types_pb2, users_pb2
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from sparecode_node.services.files import file_reader
from sparecode_node.services.files.file_reader import MIB, ReadingLimits
from tests.rpc.edge import failure
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node

pytestmark = pytest.mark.asyncio

PSKC = pb.TOKEN_FILE_FORMAT_PSKC
SDTID = pb.TOKEN_FILE_FORMAT_SDTID
CSV = pb.TOKEN_FILE_FORMAT_CSV
CODE = grpc.StatusCode
NAMESPACE = b"urn:ietf:params:xml:ns:keyprov:pskc"
SECRET = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTA="
BLOCK = b"AAAAAAAAAAAAAAAAAAAAAA=="


@pytest_asyncio.fixture
async def node(tmp_path: Path, strict: None) -> AsyncIterator[LoopbackNode]:
    """Start a node; Alice has token 1 with a PIN."""
    async with running_node(tmp_path) as started:
        await started.populate()
        yield started


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give files less than nodes do: processor time, which a busy machine keeps."""
    monkeypatch.setattr(file_reader, "LIMITS", ReadingLimits(processor_s=4))


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CSV files be read by readers that never end well, within small limits."""
    limits = ReadingLimits(processor_s=1, memory_bytes=128 * MIB)
    monkeypatch.setattr(file_reader, "LIMITS", limits)
    monkeypatch.setattr(file_reader, "WORKER", "tests.security.endless_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))


async def import_tokens(
    node: LoopbackNode, content: bytes, form: int = PSKC, within_s: float = 60
) -> list[pb.ImportedToken]:
    async with node.admin() as channel:
        call = TokenServiceStub(channel).ImportTokenFile(
            pb.ImportTokenFileRequest(
                request_id=new_id(),
                format=form,
                password="the password",
                default_pin_rule=types_pb2.PIN_RULE_NONE,
                content=content,
            ),
            timeout=within_s,
            metadata=node.bearer,
        )
        return [answer.token async for answer in call]


async def refusal(
    node: LoopbackNode, content: bytes, form: int = PSKC, *, field: str = "content"
) -> str:
    """Return why a file is refused. Nothing has changed."""
    before = node.facts()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await import_tokens(node, content, form)
    assert node.facts() == before
    assert caught.value.code() is CODE.INVALID_ARGUMENT
    assert failure(caught.value).field == field
    return caught.value.details() or ""


def container(content: bytes, attributes: bytes = b"") -> bytes:
    return (
        b'<KeyContainer Version="1.0" xmlns="%s"%s>%s</KeyContainer>'
        % (NAMESPACE, attributes, content)
    )  # fmt: skip


def package(inside: bytes = b"", data: bytes = b"") -> bytes:
    """Return a key that is read as a whole, but of an algorithm that is not supported."""
    return (
        b'<KeyPackage>%s<Key Id="1" Algorithm="%s:ocra"><Data>%s</Data></Key>'
        b"</KeyPackage>" % (inside, NAMESPACE, data)
    )


def sdtid(header: bytes, tokens: bytes) -> bytes:
    return (
        b"<TKNBatch><TKNHeader><Origin>a</Origin><Dest>a</Dest><Name>a</Name>"
        b"<Secret>%s</Secret><HeaderMAC>%s</HeaderMAC>%s</TKNHeader>%s</TKNBatch>"
        % (BLOCK, BLOCK, header, tokens)
    )


TOKEN = b"<TKN><SN>1</SN>%%s<TokenMAC>%s</TokenMAC></TKN>" % BLOCK


@pytest.mark.parametrize(
    "content",
    [
        container(b"<a/>" * 40_000 + package() * 1000),
        container(
            b"<KeyPackage>"
            + b"<a/>" * 40_000
            + b'<Key Id="1" Algorithm="x"/>' * 1000
            + b"</KeyPackage>"
        ),
        container(
            package(data=b"<Counter><PlainValue>" + b"/" * 4000 + b"</PlainValue></Counter>")
            * 200
        ),
        container(
            package(
                b"<DeviceInfo><StartDate>" + b"1" * 900_000 + b"</StartDate></DeviceInfo>"
            )
        ),
    ],
    ids=["header for each key", "package for each key", "long numbers", "long date"],
)  # fmt: skip
async def test_work_grows_with_the_size_of_a_file(
    node: LoopbackNode, content: bytes
) -> None:
    """(K4) It once took a minute for a file of 423 KB: its header was read for each key."""
    rows = await import_tokens(node, content)
    assert rows
    assert not [row for row in rows if row.imported or not row.problem]


async def test_macs_of_a_securid_file_are_computed_in_linear_time(
    node: LoopbackNode,
) -> None:
    """(K4) Long names make the input of each MAC long: 16 MB in a file of 370 KB."""
    name = b"n" * 250
    token = TOKEN % (b"<%s>%s</%s>" % (name, b"<a/>" * 230, name))
    answer = await refusal(node, sdtid(b"", token * 250), SDTID, field="password")
    assert "does not open this file" in answer


@pytest.mark.parametrize(
    ("content", "bound"),
    [
        (container(b"<a/>" * 65_000 + package()), "more than 64000 elements"),
        (container(b'<a b="" c=""/>' * 22_000 + package()), "more than 64000 elements"),
        (
            container(b"<z:a/>" * 50_000, b' xmlns:z="' + b"u" * 500_000 + b'"'),
            "a namespace has 500000 characters; at most 256",
        ),
        (container(b"<a>" * 33 + b"</a>" * 33), "deeper than 32"),
    ],
)
async def test_bound_is_named(node: LoopbackNode, content: bytes, bound: str) -> None:
    """(K4)."""
    assert bound in await refusal(node, content)
    assert bound in await refusal(node, content, SDTID)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize(
    ("work", "bound"),
    [
        (b"spin", "takes more than 1 s of processor time"),
        (b"fill", "takes more than 128 MiB of memory"),
    ],
)
async def test_process_ends_at_its_bound(
    node: LoopbackNode, work: bytes, bound: str
) -> None:
    """(K4) Nothing is imported, and the next file is read."""
    assert bound in await refusal(node, work, CSV)
    assert not readers()
    assert len(await import_tokens(node, container(package()))) == 1


@pytest.mark.usefixtures("endless")
async def test_failure_of_a_reader_quotes_nothing(
    node: LoopbackNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor does the log; it names the place in the code."""
    caplog.set_level(logging.DEBUG)
    answer = await refusal(node, f"fail {SECRET}".encode(), CSV)
    assert answer.endswith(
        "reading it failed: nothing was imported, try a smaller file"
    )
    (record,) = [each for each in caplog.records if "file" in each.message]
    assert record.place.startswith("RuntimeError in read, line ")
    assert SECRET not in caplog.text + answer


def readers() -> list[Path]:
    """Return the processes of this one that read a file."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"_worker" in arguments(process):
                found.append(process)
    return found


def arguments(process: Path) -> bytes:
    return (process / "cmdline").read_bytes()


@contextlib.contextmanager
def no_new_files(folder: Path) -> Iterator[None]:
    before = {*folder.iterdir()}
    yield
    assert {*folder.iterdir()} <= before


@pytest.mark.usefixtures("endless")
async def test_process_has_no_secret_in_reach_of_others_and_ends_with_the_call(
    node: LoopbackNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No argument, variable, file or core dump holds the file; others are answered."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with no_new_files(tmp_path):
        call = asyncio.ensure_future(
            import_tokens(node, f"wait {SECRET}".encode(), CSV)
        )
        await eventually(lambda: len(readers()) == 1)
        (process,) = readers()
        await eventually(lambda: limits_of(process)["Max cpu time"] == ["1", "2"])
        limits = limits_of(process)
        assert limits["Max core file size"] == ["1", "1"]
        assert limits["Max file size"] == ["0", "0"]
        assert await node.authenticate("368200000000")
        for secret in (SECRET.encode(), b"the password"):
            assert secret not in arguments(process)
            assert secret not in (process / "environ").read_bytes()
        call.cancel()
        await eventually(lambda: not readers())


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    for _ in range(800):
        if condition():
            return
        await asyncio.sleep(0.05)
    pytest.fail("it did not happen within 40 s")


def limits_of(process: Path) -> dict[str, list[str]]:
    """Return the soft and the hard limit of each resource."""
    lines = (process / "limits").read_text().splitlines()[1:]
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}


async def test_file_of_users_is_read_in_a_process_too(
    node: LoopbackNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(K4) With the same bounds."""
    monkeypatch.setattr(file_reader, "WORKER", "json.tool")
    async with node.admin() as channel:
        call = UserServiceStub(channel).ImportUsers(
            users_pb2.ImportUsersRequest(
                request_id=new_id(), content=b"username\nbob\n"
            ),
            timeout=60,
            metadata=node.bearer,
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(call))
    assert "reading it ended with" in (caught.value.details() or "")
