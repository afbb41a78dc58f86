# SPDX-License-Identifier: Apache-2.0
"""The users of a file are imported row by row (K4)."""

import uuid

import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.errors import InvalidFieldError, NotSignedInError, Refused
from sparecode_node.services.load.pacing import REST
from sparecode_node.services.tokens.row_import import ROWS_AT_ONCE
from sparecode_node.services.tokens.user_import import ImportedUser, UserFile
from sparecode_node.statemachine.commands.users import CreateUser
from tests.services.one_node import OneNode
from tests.services.pauses import slow_commits, watch_pauses

pytestmark = pytest.mark.asyncio


async def import_file(
    node: OneNode, text: str | bytes, *, request_id: str = "", from_row: int = 0
) -> list[ImportedUser]:
    content = text.encode() if isinstance(text, str) else text
    begun = await node.user_import.begin(
        node.admin("UserService/ImportUsers", request_id),
        UserFile(content=content, from_row=from_row),
    )
    return [row async for row in begun.results]


async def names(node: OneNode) -> list[tuple[str, str, str]]:
    read = await node.users.list(node.admin("UserService/ListUsers"), page_size=500)
    return [(user.username, user.display_name, user.email) for user in read.value.items]


async def test_users_of_a_file_are_created(node: OneNode) -> None:
    """(K4) As a spreadsheet writes it; columns in any order."""
    rows = await import_file(
        node,
        "\ufeffEmail,Username,display_name\r\n"
        'alice@example.com,alice,"Arden, Alice"\r\n'
        ",bob\r\n"
        "\r\n",
    )
    assert [(row.row, row.username, row.imported) for row in rows] == [
        (1, "alice", True),
        (2, "bob", True),
    ]
    assert await names(node) == [
        ("alice", "Arden, Alice", "alice@example.com"),
        ("bob", "", ""),
    ]


async def test_imported_user_authenticates(node: OneNode) -> None:
    """An imported user is like any other."""
    await import_file(node, "username\nalice\n")
    await node.enroll()
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="000131415926", username="ALICE"
    )
    await node.tokens.set_pin(
        node.admin("TokenService/SetPin"), serial="000131415926", pin="4719"
    )
    assert await node.accepts("4719" + node.tokencode())


async def test_an_import_pauses_after_each_batch(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I12) Sign-ins in between are answered nearly as fast."""
    pauses = watch_pauses(node, monkeypatch, node.user_import)
    slow_commits(node, monkeypatch, CreateUser, 0.001)
    lines = [f"user{number}" for number in range(2 * ROWS_AT_ONCE + 1)]
    rows = await import_file(node, "\n".join(["username", *lines]))
    assert all(row.imported for row in rows)
    assert pauses.taken_s == [round(REST * 0.001 * ROWS_AT_ONCE, 3)] * 2


async def groups_of(node: OneNode, username: str) -> tuple[str, ...]:
    read = await node.users.get(node.admin("UserService/GetUser"), username)
    return read.value.groups


async def test_users_come_with_their_groups(node: OneNode) -> None:
    """(K4, A4) In one commit each: no agent sees a user without the groups."""
    before = len(node.replicator.entries)
    rows = await import_file(
        node,
        "username,groups\nalice,Staff; night shift\nbob,\ncarol,STAFF\n",
    )
    assert [row.imported for row in rows] == [True] * 3
    assert len(node.replicator.entries) - before == 3
    assert await groups_of(node, "alice") == ("night shift", "staff")
    assert await groups_of(node, "bob") == ()
    assert await groups_of(node, "carol") == ("staff",)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("x" * 65, "groups: must have 1 to 64 characters"),
        ("staff;;night", "groups: must have 1 to 64 characters"),
        ("staff;", "groups: must have 1 to 64 characters"),
        (";".join(map(str, range(33))), "groups: must have at most 32 names; has 33"),
    ],
)
async def test_bad_group_leaves_the_whole_row_out(
    node: OneNode, cell: str, says: str
) -> None:
    """(K4) A user without the group would be refused everywhere, without a reason."""
    rows = await import_file(node, f"username,groups\nalice,{cell}\nbob,staff\n")
    assert [row.imported for row in rows] == [False, True]
    assert says in rows[0].problem
    assert [name for name, *_ in await names(node)] == ["bob"]


async def test_bad_row_never_stops_the_rest(node: OneNode) -> None:
    """(K4) Known name, duplicate in the file, blank, too long, one cell too many."""
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="Carol",
        display_name="",
        email="",
    )
    rows = await import_file(
        node,
        "username,email\n"
        f"alice,\ncarol,\nALICE,\n,x@example.com\n{'x' * 129},\ndave,a,b\neve,\n",
    )
    assert [row.row for row in rows if row.imported] == [1, 7]
    says = {row.row: row.problem for row in rows if not row.imported}
    assert "already" in says[2]
    assert says[3] == "row 1 of this file has the same username"
    assert says[4].startswith("username: ")
    assert says[5].startswith("username: ")
    assert says[6] == "it has 3 cells; there are 2 columns"
    assert [row.reason for row in rows if row.reason] == [Reason.USER_EXISTS] * 2
    assert [name for name, *_ in await names(node)] == ["alice", "Carol", "eve"]


async def test_retry_of_an_import_is_the_same_import(node: OneNode) -> None:
    """(Q1) Decisions stay, also after an unknown outcome."""
    request_id = str(uuid.uuid4())
    text = "username\nalice\nbob\ncarol\n"
    propose = node.replicator.propose
    answers = iter([True, False])

    async def loses_the_second(proposal, *, timeout_s):
        result = await propose(proposal, timeout_s=timeout_s)
        if not next(answers):
            raise OutcomeUnknownError
        return result

    node.replicator.propose = loses_the_second
    with pytest.raises(OutcomeUnknownError):
        await import_file(node, text, request_id=request_id)
    node.replicator.propose = propose
    rows = await import_file(node, text, request_id=request_id)
    assert [row.imported for row in rows] == [True, True, True]
    rest = await import_file(node, text, request_id=request_id, from_row=3)
    assert rest == rows[2:]
    with pytest.raises(Refused) as raised:
        await import_file(node, "username\ndave\n", request_id=request_id)
    assert raised.value.rejected.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no column username"),
        (b"name\nalice\n", "column 'name' is not known"),
        (b"username\n", "no row"),
        (b"username\n\xff\n", "UTF-8"),
        (b"username\n" + b"a\n" * 10_001, "10001 rows; at most 10000"),
        (b" " * (1024 * 1024 + 1), "at most 1048576"),
    ],
)
async def test_file_that_cannot_be_read_changes_nothing(
    node: OneNode, content: bytes, says: str
) -> None:
    entries = len(node.replicator.entries)
    with pytest.raises(InvalidFieldError, match=says) as raised:
        await import_file(node, content)
    assert raised.value.field == "content"
    assert len(node.replicator.entries) == entries


@pytest.mark.parametrize("from_row", [-1, 3])
async def test_first_row_must_be_in_the_file(node: OneNode, from_row: int) -> None:
    with pytest.raises(InvalidFieldError, match="must be 1 to 2"):
        await import_file(node, "username\nalice\nbob\n", from_row=from_row)


async def test_file_is_not_read_without_a_session(node: OneNode) -> None:
    node.bearer = "x"
    with pytest.raises(NotSignedInError):
        await import_file(node, "broken")
