# SPDX-License-Identifier: Apache-2.0
"""Previews of notices to people: every kind, with example data alone (N6)."""

import pytest

from sparecode_node.domain.personal_kinds import KINDS_OF_USERS, PersonalKind
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.notices import letters
from sparecode_node.services.notices.previews import PERSON
from tests.services.one_node import SERIAL, OneNode
from tests.services.test_mail import create

pytestmark = pytest.mark.asyncio

METHOD = "NoticeService/PreviewNotices"


@pytest.mark.parametrize("language", letters.languages())
async def test_every_kind_can_be_looked_at(node: OneNode, language: str) -> None:
    """(N6) In each language, as text and as HTML, and to managers what they can get."""
    read = await node.notice_previews.write(node.admin(METHOD), language=language)
    assert [each.kind for each in read.value] == [*PersonalKind]
    for each in read.value:
        assert each.language == language
        assert PERSON in each.text
        assert PERSON in each.html
        assert each.subject in each.html
    read = await node.notice_previews.write(node.admin(METHOD), to_manager=True)
    assert [each.kind for each in read.value] == [*KINDS_OF_USERS]


async def test_a_preview_holds_data_of_no_one(node: OneNode) -> None:
    """(N3) Only how to reach the help desk is real."""
    await node.add_user()
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", email="al@example.com"
    )
    await create(node, "smtps://mail.example", contact="Call 4711.")
    await node.issue()
    read = await node.notice_previews.write(node.admin(METHOD), kind="codes_issued")
    (preview,) = read.value
    assert "Call 4711." in preview.text
    for words in ("alice", "al@example.com", SERIAL, "root"):
        assert words not in preview.text.lower() + preview.html.lower()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"kind": "unknown"}, "kind"),
        ({"language": "../de"}, "language"),
        ({"kind": "new_device", "to_manager": True}, "kind"),
    ],
)
async def test_what_there_is_no_notice_of_is_refused(
    node: OneNode, fields: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await node.notice_previews.write(node.admin(METHOD), **fields)
    assert caught.value.field == field
