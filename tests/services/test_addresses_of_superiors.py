# SPDX-License-Identifier: Apache-2.0
"""The manager on file: the address of the manager of a user."""

import pytest

from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.tokens.user_import import UserFile
from tests.services.mail_server import MailServer
from tests.services.one_node import PIN, SERIAL, OneNode
from tests.services.test_mail import ALICE, add_alice, create, server
from tests.services.test_notices import lane

__all__ = ["server"]

pytestmark = pytest.mark.asyncio

METHOD = "UserService/UpdateUser"
BOSS = "boss@example.com"


async def test_a_manager_is_set_changed_and_taken_away(node: OneNode) -> None:
    await node.create_user("bob", manager_email=BOSS)
    assert (await node.user("bob")).manager_email == BOSS

    await node.users.update(node.admin(METHOD), username="bob", display_name="Bob")
    assert (await node.user("bob")).manager_email == BOSS

    await node.users.update(node.admin(METHOD), username="bob", manager_email="")
    assert (await node.user("bob")).manager_email == ""


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
    assert (await node.user("bob")).manager_email == BOSS
    assert (await node.user("dora")).manager_email == ""


@pytest.mark.parametrize("language", ["en", "de"])
async def test_a_manager_hears_whose_codes_were_issued(
    node: OneNode, server: MailServer, language: str
) -> None:
    """(N3, N6) In words for the manager, and without a code, a PIN or a link."""
    await add_alice(node, language=language)
    await node.users.update(node.admin(METHOD), username="alice", manager_email=BOSS)
    await create(node, server.url)
    codes = [each.code for each in (await node.issue()).codes]
    await (await lane(node)).step()
    assert server.recipients == [ALICE, BOSS]
    own, copy = server.mails
    assert own["Subject"] != copy["Subject"]
    assert str(own["Subject"]) in str(copy["Subject"])
    assert own["Message-ID"] != copy["Message-ID"]
    for kind in ("plain", "html"):
        body = copy.get_body((kind,))
        assert body is not None
        text = body.get_content()
        assert text.count("Alice A.") == 3
        assert "Hello Alice" not in text
        assert SERIAL in text
        assert not [code for code in codes if code in text]
        assert PIN not in text.replace(SERIAL, "")
