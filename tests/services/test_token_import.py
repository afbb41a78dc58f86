# SPDX-License-Identifier: Apache-2.0
"""The tokens of a file are imported row by row (K4)."""

import io
import uuid
from collections.abc import Iterable
from pathlib import Path

import pskc
import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.errors import InvalidFieldError, NotSignedInError, Refused
from sparecode_node.services.files.token_files import TokenFile, TokenFileFormat
from sparecode_node.services.load.pacing import REST
from sparecode_node.services.tokens.row_import import ROWS_AT_ONCE
from sparecode_node.services.tokens.token_import import ImportedRow
from sparecode_node.statemachine.commands.tokens import EnrollToken
from tests.services.one_node import SEED, OneNode, seed_of
from tests.services.pauses import slow_commits, watch_pauses

pytestmark = pytest.mark.asyncio

HARDWARE = (Path(__file__).parents[1] / "data" / "hardware.sdtid").read_bytes()
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
                "secret": seed_of(serial),
                **fields,
            }
        )
    if password:
        container.encryption.setup_pbkdf2(password, iterations=10)
    file = io.BytesIO()
    container.write(file)
    return file.getvalue()


async def import_file(
    node: OneNode,
    content: bytes,
    *,
    form: TokenFileFormat = TokenFileFormat.PSKC,
    password: str = "",
    request_id: str = "",
) -> list[ImportedRow]:
    begun = await node.token_import.begin(
        node.admin("TokenService/ImportTokens", request_id),
        TokenFile(
            format=form,
            content=content,
            password=password,
            default_pin_rule=PinRule.NONE,
        ),
    )
    rows = [row async for row in begun.results]
    assert begun.rows == len(rows)
    return rows


async def test_an_import_pauses_after_each_batch(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I12) Sign-ins in between are answered nearly as fast."""
    pauses = watch_pauses(node, monkeypatch, node.token_import)
    slow_commits(node, monkeypatch, EnrollToken, 0.001)
    rows = await import_file(node, file_of(map(str, range(ROWS_AT_ONCE + 1))))
    assert all(row.imported for row in rows)
    assert pauses.taken_s == [round(REST * 0.001 * ROWS_AT_ONCE, 3)]


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
    assert await node.accepts(node.tokencode(seed=seed_of("1")))


async def test_rows_of_a_csv_file_are_judged_one_by_one(node: OneNode) -> None:
    """(K4) Form and rules refuse a row by name; the other rows become tokens."""
    await node.enroll("2")
    seeds = [seed_of(str(row)).hex() for row in range(9)]
    seeds[4] = SEED.hex()
    rows = await import_file(
        node,
        "serial,seed,seed_format,digits,algorithm,expires\n"
        f"1,{seeds[1]},hex,,,\n"
        f"2,{seeds[2]},hex,,,\n"
        f"3,{seeds[3]},hex,7,,\n"
        f"4,{seeds[4]},base32,,,\n"
        f"5,{seeds[5][:8]},hex,,,\n"
        f"6,{seeds[6][:32]},hex,,securid,\n"
        f"7,{seeds[7]},hex,,,0001-01-01\n"
        f"8,{seeds[8]},hex,,hotp,\n"
        f"9,{seeds[1]},hex,,hotp,\n".encode(),
        form=TokenFileFormat.CSV,
    )
    assert [row.row for row in rows if row.imported] == [1, 8]
    says = {row.row: row.problem for row in rows if not row.imported}
    assert says[2].startswith("token 2 already exists")
    assert says[3].startswith("digits: must be 6 or 8")
    assert says[4] == "seed is not base32"
    assert says[5].startswith("seed: must have 16 to 64 bytes")
    assert says[6] == "serial: must be 12 digits for SecurID"
    assert says[7].startswith("expire_time: ")
    assert says[9] == "row 1 of this file has the same seed"
    assert [row.reason for row in rows if row.reason] == [
        Reason.TOKEN_EXISTS,
        Reason.SEED_EXISTS,
    ]


async def test_results_come_while_the_rest_is_still_to_be_decided(
    node: OneNode,
) -> None:
    """(K4) So that the caller sees the progress."""
    begun = await node.token_import.begin(
        node.admin("TokenService/ImportTokenFile"),
        TokenFile(
            format=TokenFileFormat.PSKC,
            content=file_of([str(serial) for serial in range(100)]),
            default_pin_rule=PinRule.NONE,
        ),
    )
    assert begun.rows == 100
    before = len(node.replicator.entries)
    first = await anext(begun.results)
    assert first.row == 1
    assert len(node.replicator.entries) == before + ROWS_AT_ONCE
    await begun.results.aclose()
    read = await node.tokens.list(node.admin("TokenService/ListTokens"))
    assert len(read.value.items) == ROWS_AT_ONCE


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
    """(Q1) Decisions stay, also after an unknown outcome."""
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


@pytest.mark.parametrize(
    ("form", "content", "field"),
    [
        (TokenFileFormat.PSKC, b"<broken", "content"),
        (TokenFileFormat.PSKC, file_of("1", "x"), "password"),
        (TokenFileFormat.SDTID, file_of("1"), "content"),
        (TokenFileFormat.SDTID, HARDWARE, "password"),
        (TokenFileFormat.CSV, HARDWARE, "content"),
    ],
)
async def test_file_that_cannot_be_read_changes_nothing(
    node: OneNode, form: TokenFileFormat, content: bytes, field: str
) -> None:
    """(K4) The refusal names the field."""
    entries = len(node.replicator.entries)
    with pytest.raises(InvalidFieldError) as raised:
        await import_file(node, content, form=form)
    assert raised.value.field == field
    assert len(node.replicator.entries) == entries


async def test_file_is_not_read_without_a_session(node: OneNode) -> None:
    node.bearer = "x"
    with pytest.raises(NotSignedInError):
        await import_file(node, b"<broken")
