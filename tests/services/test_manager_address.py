# SPDX-License-Identifier: Apache-2.0
"""The manager on file: the address of the manager of a user."""

import pytest

from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.tokens.user_import import UserFile
from tests.services.one_node import OneNode

pytestmark = pytest.mark.asyncio

METHOD = "UserService/UpdateUser"
BOSS = "boss@example.com"


async def manager_of(node: OneNode, username: str) -> str:
    read = await node.users.get(node.admin("UserService/GetUser"), username)
    return read.value.manager_email


async def test_a_manager_is_set_changed_and_taken_away(node: OneNode) -> None:
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="bob",
        display_name="",
        email="",
        manager_email=BOSS,
    )
    assert await manager_of(node, "bob") == BOSS

    await node.users.update(node.admin(METHOD), username="bob", display_name="Bob")
    assert await manager_of(node, "bob") == BOSS

    await node.users.update(node.admin(METHOD), username="bob", manager_email="")
    assert await manager_of(node, "bob") == ""


async def test_what_is_no_address_is_refused_as_a_manager(node: OneNode) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await node.users.update(
            node.admin(METHOD), username="alice", manager_email="the boss"
        )
    assert caught.value.field == "manager_email"


async def test_a_file_of_users_names_their_managers(node: OneNode) -> None:
    content = f"username,manager_email\nbob,{BOSS}\ncarl,nobody\ndora,\n"
    begun = await node.user_import.begin(
        node.admin("UserService/ImportUsers"), UserFile(content=content.encode())
    )
    results = [each async for each in begun.results]
    assert [each.imported for each in results] == [True, False, True]
    assert "manager_email" in results[1].problem
    assert await manager_of(node, "bob") == BOSS
    assert await manager_of(node, "dora") == ""
