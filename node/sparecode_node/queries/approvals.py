# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for a second approver, and permits (P3)."""

import json
from dataclasses import dataclass
from itertools import zip_longest

from sparecode_node.domain.approvals import ApprovalKind
from sparecode_node.queries import pages
from sparecode_node.queries.pages import PageTokenError
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import Page
from sparecode_node.statemachine.commands.pending import Change, from_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalView:
    """A request or a permit, without secrets."""

    approval_id: int
    author: str
    action: str
    target: str
    description: str
    serials: tuple[str, ...]
    usernames: tuple[str, ...]
    """
    The users of these tokens when the request was made, one for each token.

    Empty: no user, or the request does not depend on it.
    """
    asked_at_ms: int
    ends_at_ms: int
    approver: str
    """Empty while the request waits."""
    recipient: str = ""
    """The address that codes go to by message (I13); empty: none."""


async def waiting_change(
    transaction: ReadTransaction, approval_id: int
) -> Change | None:
    """Return the change that an approval would make; None: it waits no longer."""
    row = await transaction.one(
        "SELECT change FROM approvals WHERE approval_id = :approval_id "
        "AND kind = :kind AND approver IS NULL",
        approval_id=approval_id,
        kind=ApprovalKind.CHANGE,
    )
    return from_json(row["change"]) if row else None


def _usernames(serials: str, owners: str, names: str) -> tuple[str, ...]:
    """Return a name for each serial; a change of a token or user keeps no owners."""
    by_id: dict[str, str] = json.loads(names)
    known = zip_longest(json.loads(serials), json.loads(owners), fillvalue="")
    return tuple(by_id.get(user_id, "") for _serial, user_id in known)


async def page(
    transaction: ReadTransaction, *, size: int, page_token: str, now_ms: int
) -> Page[ApprovalView]:
    """Return a page of approvals, oldest first."""
    after = pages.decode(page_token)
    if after and not (after.isascii() and after.isdigit() and len(after) < 19):  # noqa: PLR2004
        raise PageTokenError
    rows = await transaction.all(
        """
        SELECT approval_id, author, action, target, description, serials, asked_at_ms,
               ends_at_ms, approver, recipient, (
                   SELECT json_group_object(user_id, username)
                   FROM json_each(owners) JOIN users ON user_id = json_each.value
               ) AS names, owners
        FROM approvals WHERE approval_id > :after AND ends_at_ms > :now
        ORDER BY approval_id LIMIT :rows
        """,
        after=int(after or 0),
        now=now_ms,
        rows=size + 1,
    )
    views = [
        ApprovalView(
            approval_id=row["approval_id"],
            author=row["author"],
            action=row["action"],
            target=row["target"],
            description=row["description"],
            serials=tuple(json.loads(row["serials"])),
            usernames=_usernames(row["serials"], row["owners"], row["names"]),
            asked_at_ms=row["asked_at_ms"],
            ends_at_ms=row["ends_at_ms"],
            approver=row["approver"] or "",
            recipient=row["recipient"],
        )
        for row in rows
    ]
    return pages.page(views, size, lambda each: str(each.approval_id))
