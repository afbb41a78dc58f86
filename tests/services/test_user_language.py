# SPDX-License-Identifier: Apache-2.0
"""The language of a user, which decides the language of the sheet of codes."""

import pytest

from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.tokens.user_import import UserFile
from tests.services.one_node import SERIAL, OneNode

pytestmark = pytest.mark.asyncio

METHOD = "UserService/UpdateUser"


async def test_a_language_is_set_changed_and_taken_away(node: OneNode) -> None:
    await node.create_user("bob", language="pt-br")
    assert (await node.user("bob")).language == "pt-BR"
    await node.users.update(node.admin(METHOD), username="bob", email="b@example.com")
    assert (await node.user("bob")).language == "pt-BR"
    await node.users.update(node.admin(METHOD), username="bob", language="")
    assert (await node.user("bob")).language == ""


async def test_a_token_shows_the_language_of_its_user(node: OneNode) -> None:
    await node.add_user()
    await node.users.update(node.admin(METHOD), username="alice", language="ar")
    read = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    assert read.value.language == "ar"


@pytest.mark.parametrize(
    "tag", ["klingon", "../../de", "de\r\nx: y", "d", "de@euro", "de_DE", "x" * 36]
)
async def test_a_tag_that_is_no_language_is_refused(node: OneNode, tag: str) -> None:
    await node.add_user()
    with pytest.raises(InvalidFieldError) as caught:
        await node.users.update(node.admin(METHOD), username="alice", language=tag)
    assert caught.value.field == "language"
    assert (await node.user("alice")).language == ""


async def test_a_file_of_users_has_their_languages(node: OneNode) -> None:
    begun = await node.services.user_import.begin(
        node.admin("UserService/ImportUsers"),
        UserFile(content=b"username,language\nbob,de\neve,none\n"),
    )
    rows = [row async for row in begun.results]
    assert [row.imported for row in rows] == [True, False]
    assert "such as de or pt-BR" in rows[1].problem
    assert (await node.user("bob")).language == "de"
