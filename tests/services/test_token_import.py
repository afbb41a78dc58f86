# SPDX-License-Identifier: Apache-2.0
"""The tokens of a file become tokens of the system, row by row (K4)."""

import io
import uuid
from collections.abc import Iterable

import pskc
import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.errors import InvalidFieldError, NotSignedInError, Refused
from sparecode_node.services.tokens import ImportedRow
from tests.services.one_node import SEED, OneNode

pytestmark = pytest.mark.asyncio

TOTP = "urn:ietf:params:xml:ns:keyprov:pskc:totp"


def file_of(serials: Iterable[str], password: str = "", **fields: object) -> bytes:
    """Return a file with a TOTP token for each serial."""
    container = pskc.PSKC()
    for serial in serials:
        container.add_key(
            **{
                "id": serial,
                "serial": serial,
                "algorithm": TOTP,
                "response_encoding": "DECIMAL",
                "response_length": 6,
                "time_interval": 30,
                "secret": SEED,
                **fields,
            }
        )
    if password:
        container.encryption.setup_pbkdf2(password, iterations=10)
    file = io.BytesIO()
    container.write(file)
    return file.getvalue()


async def import_file(
    node: OneNode, content: bytes, *, password: str = "", request_id: str = ""
) -> list[ImportedRow]:
    return await node.tokens.import_pskc(
        node.admin("TokenService/ImportTokens", request_id),
        content=content,
        password=password,
        key=b"",
        default_pin_rule=PinRule.NONE,
    )


async def test_imported_token_authenticates(node: OneNode) -> None:
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="alice",
        display_name="",
        email="",
    )
    rows = await import_file(node, file_of(["1"], "opens it"), password="opens it")
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="1", username="alice"
    )
    assert rows == [ImportedRow(row=1, serial="1", imported=True)]
    assert await node.accepts(node.tokencode())


async def test_bad_row_never_stops_the_rest(node: OneNode) -> None:
    """(K4) Known serial, twin in the file, malformed serial, digits beyond."""
    await node.enroll("2")
    content = file_of(["1", "2", "1", "not a serial", "5"])
    content = content.replace(b'Length="6"', b'Length="7"', 1)
    rows = await import_file(node, content)
    assert [row.imported for row in rows] == [False, False, False, False, True]
    assert [row.row for row in rows] == [1, 2, 3, 4, 5]
    assert [row.serial for row in rows] == ["1", "2", "1", "not a serial", "5"]
    assert [row.reason for row in rows] == [
        "",
        Reason.TOKEN_EXISTS,
        Reason.TOKEN_EXISTS,
        "",
        "",
    ]
    assert "digits" in rows[0].problem
    assert "2" in rows[1].problem
    assert "row 1" in rows[2].problem
    assert "serial" in rows[3].problem
    read = await node.tokens.list(node.admin("TokenService/ListTokens"))
    assert [token.serial for token in read.value.items] == ["2", "5"]


async def test_retry_of_an_import_is_the_same_import(node: OneNode) -> None:
    """(Q1) What was decided stays, also after an outcome that nobody knew."""
    request_id = str(uuid.uuid4())
    content = file_of(["1", "2", "3"])
    propose = node.replicator.propose
    answers = iter([True, False])

    async def loses_the_second(proposal, *, timeout_s):
        result = await propose(proposal, timeout_s=timeout_s)
        if not next(answers):
            raise OutcomeUnknownError
        return result

    node.replicator.propose = loses_the_second
    with pytest.raises(OutcomeUnknownError):
        await import_file(node, content, request_id=request_id)
    node.replicator.propose = propose
    rows = await import_file(node, content, request_id=request_id)
    assert [row.imported for row in rows] == [True, True, True]
    again = await import_file(node, content, request_id=request_id)
    assert again == rows
    with pytest.raises(Refused) as raised:
        await import_file(node, file_of(["4"]), request_id=request_id)
    assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED


async def test_file_that_cannot_be_read_changes_nothing(node: OneNode) -> None:
    entries = len(node.replicator.entries)
    for content, field in [(b"<broken", "content"), (file_of("1", "x"), "password")]:
        with pytest.raises(InvalidFieldError) as raised:
            await import_file(node, content)
        assert raised.value.field == field
    assert len(node.replicator.entries) == entries


async def test_file_is_not_read_for_whoever_is_not_signed_in(node: OneNode) -> None:
    node.bearer = "x"
    with pytest.raises(NotSignedInError):
        await import_file(node, b"<broken")
