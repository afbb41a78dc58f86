# SPDX-License-Identifier: Apache-2.0
"""
Nobody protects the service with a secret that is guessed first.

Administrators' passwords and users' PINs, through the console and the use cases that
every door calls. The refusal says what to do, and never repeats the secret.
"""

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.people.administrators import Link
from tests.console.desk import Desk
from tests.console.test_second_factor import enrolled
from tests.services.one_node import PASSWORD, ROOT, OneNode

pytestmark = pytest.mark.asyncio

GUESSED_FIRST = (
    "passwordpassword",
    "administrator123",
    "qwertyuiopasdfgh",
    "1234567890123456",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "sparecodesparecode",
    "letmeinletmeinletmein",
)
SHORT = "j7#kQ2!vZ9$wX"
"""Thirteen characters that nobody guesses."""
LONG = "j7#kQ2!vZ9$wX4&"


async def changes_own(node: OneNode, password: str) -> None:
    """Change the password of the signed-in administrator."""
    await node.administrators.change_password(
        node.admin("AdministratorService/ChangePassword"),
        name="",
        old_password=PASSWORD,
        new_password=password,
    )


@pytest.mark.parametrize("password", [*GUESSED_FIRST, SHORT])
async def test_weak_passwords_of_administrators_are_refused(
    desk: Desk, password: str
) -> None:
    """(P4) One's own, a temporary one, and that of a new administrator."""
    node = desk.node
    with pytest.raises(InvalidFieldError) as own:
        await changes_own(node, password)
    with pytest.raises(InvalidFieldError) as new:
        await node.administrators.create(
            node.admin("AdministratorService/CreateAdministrator"),
            name="eve",
            role=Role.AUDITOR,
            link=Link(""),
            password=password,
        )
    with pytest.raises(InvalidFieldError) as temporary:
        await node.administrators.change_password(
            node.admin("AdministratorService/ChangePassword"),
            name="eve",
            old_password="",
            new_password=password,
        )
    words = "15 to 1024 characters" if password == SHORT else "too easy to guess"
    for refused in (own, new, temporary):
        assert words in str(refused.value)
        assert password not in str(refused.value)
    await node.login()


async def test_a_password_may_be_shorter_beside_a_second_factor(desk: Desk) -> None:
    """(P4) As in SP 800-63B-4: fifteen characters if the password is the only factor."""
    node = desk.node
    with pytest.raises(InvalidFieldError, match="15"):
        await changes_own(node, SHORT)
    browser = await desk.administrator()
    await enrolled(desk, browser)
    for password, path in (
        ("passwordpassword", "/account/password"),
        (SHORT, "/sign-in"),
    ):
        await browser.open("/account/password")
        page = await browser.send(
            "Change password",
            old_password=PASSWORD,
            new_password=password,
            new_password_again=password,
        )
        assert page.path == path


async def test_a_long_password_is_judged_off_the_event_loop_and_accepted(
    desk: Desk,
) -> None:
    await changes_own(desk.node, LONG)
    await desk.administrator(ROOT, LONG)


async def test_a_name_is_not_a_password(desk: Desk) -> None:
    with pytest.raises(InvalidFieldError, match="too easy to guess"):
        await desk.node.administrators.create(
            desk.node.admin("AdministratorService/CreateAdministrator"),
            name="guenther-mayr-huber",
            role=Role.AUDITOR,
            link=Link(""),
            password="guenther-mayr-huber",
        )


async def test_the_console_says_what_to_do(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/account/password")
    page = await browser.send(
        "Change password",
        old_password=PASSWORD,
        new_password="passwordpassword",
        new_password_again="passwordpassword",
    )
    assert page.status == 422
    assert "too easy to guess: use several unrelated words" in page.text
    assert "passwordpassword" not in page.response.text
