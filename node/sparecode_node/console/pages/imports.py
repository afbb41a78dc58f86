# SPDX-License-Identifier: Apache-2.0
"""Import of users: paste or choose a file, look at its rows, import them."""

from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, explain, sentence
from sparecode_node.services.files.user_csv import UserRow
from sparecode_node.services.tokens.user_import import UserFile

IMPORT_USERS: Final = "UserService/ImportUsers"
CHARACTERS_MAX: Final = 20_000
"""Of a file: it must fit in a form. `sparecode users import` takes larger ones."""
IMPORT_S: Final = 60.0
EXAMPLE: Final = "username,display_name,email,groups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row on the page."""

    number: int
    user: UserRow
    problem: str
    imported: bool = False


async def users(visit: Visit) -> Response:
    """Show the rows of a file, and import them when asked to."""
    visit.require(IMPORT_USERS)
    content = visit.form.secret("content") if visit.is_form else ""
    rows: list[Row] = []
    stopped = False
    if content.strip():
        try:
            rows = await _preview(visit, content)
            if visit.form.text("action") == "import" and rows:
                rows, stopped = await _imported(visit, content, rows)
        except EXPLAINED as error:
            visit.add(explain(error))
    imported = visit.form.text("action") == "import" and bool(rows)
    return visit.page(
        "import_users.html",
        content=content,
        rows=rows,
        good=sum(not row.problem for row in rows),
        imported=imported,
        stopped=stopped,
        longest=CHARACTERS_MAX,
        example=EXAMPLE,
    )


async def _preview(visit: Visit, content: str) -> list[Row]:
    previewed = await visit.site.services.user_import.preview(
        visit.call(IMPORT_USERS), content.encode(errors="replace")
    )
    return [
        Row(number=each.row, user=each.user, problem=sentence(each.problem))
        for each in previewed
    ]


async def _imported(
    visit: Visit, content: str, rows: list[Row]
) -> tuple[list[Row], bool]:
    """
    Import the rows, and return the result of each, and whether it stopped early.

    The same form goes on where it stopped: each row has its own request id (Q1).
    """
    by_number = {row.number: row for row in rows}
    done: list[Row] = []
    try:
        begun = await visit.site.services.user_import.begin(
            visit.call(
                IMPORT_USERS,
                request_id=visit.submitted_request_id(),
                within_s=IMPORT_S,
            ),
            UserFile(content=content.encode(errors="replace")),
        )
        async with aclosing(begun.results) as results:
            async for result in results:
                row = by_number[result.row]
                done.append(
                    Row(
                        number=row.number,
                        user=row.user,
                        problem=sentence(result.problem),
                        imported=result.imported,
                    )
                )
    except EXPLAINED as error:
        visit.keep_request_id()
        visit.add(explain(error))
    rest = [
        Row(number=row.number, user=row.user, problem="Not decided yet.")
        for row in rows[len(done) :]
    ]
    return [*done, *rest], bool(rest)
