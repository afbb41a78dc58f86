# SPDX-License-Identifier: Apache-2.0
"""Import of users and tokens: paste or choose a file, look at its rows, import them."""

import base64
import binascii
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from starlette.responses import Response

from sparecode_node.console.kit.languages import N_, gettext
from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.console.kit.rendering import number
from sparecode_node.console.kit.visits import Visit
from sparecode_node.console.kit.words import EXPLAINED, Problem, explain, sentence
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.files.token_files import (
    FileToken,
    TokenFile,
    TokenFileFormat,
)
from sparecode_node.services.files.user_csv import UserRow
from sparecode_node.services.tokens.user_import import UserFile

IMPORT_USERS: Final = "UserService/ImportUsers"
CHARACTERS_MAX: Final = 20_000
"""Of a file: it must fit in a form. `sparecode users import` takes larger ones."""
PAGES: Final[Mapping[str, str]] = {
    "/import/users": "sparecode users import FILE",
    "/import/tokens": "sparecode tokens import FILE",
}
"""The commands that import files which are too long for the pages."""
IMPORT_S: Final = 60.0
EXAMPLE: Final = "username,display_name,email,language,manager_email,groups"
IMPORT_TOKENS: Final = "TokenService/ImportTokenFile"
TOKEN_EXAMPLE: Final = "serial,seed,algorithm,digits,pin_rule"
PIN_RULES: Final[Mapping[str, str]] = {
    "": N_("As the file says"),
    PinRule.PREPENDED.value: N_("PIN followed by the tokencode"),
    PinRule.PINPAD.value: N_("PIN folded into the tokencode"),
    PinRule.NONE.value: N_("Tokencode alone, without a PIN"),
}
_FIELDS: Final = {
    "content": "token_file",
    "password": "file_password",
    "key": "file_key",
}
"""The fields of the form, by the names that the service reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row on the page."""

    number: int
    user: UserRow
    problem: str
    imported: bool = False


def too_long(command: str) -> str:
    """Return what to do with a file that is too long; nothing of it is imported."""
    return _(
        "The file is longer than %(characters)s characters. Nothing was imported. Split "
        "it, or import it as a whole with “%(command)s”.",
        characters=number(CHARACTERS_MAX),
        command=command,
    )


def _check_length(visit: Visit, content: str) -> None:
    if len(content) > CHARACTERS_MAX:
        raise InvalidFieldError("content", too_long(PAGES[visit.path]))


async def users(visit: Visit) -> Response:
    """Show the rows of a file, and import them when asked to."""
    visit.require(IMPORT_USERS)
    content = visit.form.secret("content") if visit.is_form else ""
    rows: list[Row] = []
    stopped = False
    if content.strip():
        try:
            _check_length(visit, content)
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
        Row(number=row.number, user=row.user, problem=_("Not decided yet."))
        for row in rows[len(done) :]
    ]
    return [*done, *rest], bool(rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """One row of a file of tokens on the page; it holds no seed."""

    number: int
    serial: str
    token: FileToken | None = None
    """What the file says, when its rows are shown before the import."""
    problem: str = ""
    imported: bool = False


async def tokens(visit: Visit) -> Response:
    """
    Show the rows of a file of tokens, and import them when asked to.

    The page never returns what was uploaded: it holds the file sealed (K4).
    """
    visit.require(IMPORT_TOKENS)
    rows: list[TokenRow] = []
    draft = b""
    stopped = False
    importing = visit.form.text("action") == "import"
    try:
        if visit.is_form and importing:
            draft = _draft(visit)
            rows, stopped = await _imported_tokens(visit, draft)
        elif visit.is_form:
            rows, draft = await _preview_tokens(visit)
    except EXPLAINED as error:
        visit.add(_explained(error))
    return visit.page(
        "import_tokens.html",
        rows=rows,
        draft=draft,
        good=sum(not row.problem for row in rows),
        imported=importing and bool(rows),
        stopped=stopped,
        longest=CHARACTERS_MAX,
        example=TOKEN_EXAMPLE,
        pin_rules={name: gettext(words) for name, words in PIN_RULES.items()},
    )


def _explained(error: Exception) -> Problem:
    """Return an error as a problem of this page's fields."""
    if isinstance(error, Refused) and error.rejected.reason is Reason.DRAFT_STALE:
        return Problem(words=sentence(error.rejected.detail), status=409)
    problem = explain(error)
    return replace(problem, field=_FIELDS.get(problem.field, problem.field))


def _draft(visit: Visit) -> bytes:
    try:
        return base64.urlsafe_b64decode(visit.form.text("draft"))
    except (binascii.Error, ValueError):
        return b""


def _format_of(content: str) -> TokenFileFormat:
    """Return the format that a file looks like; reading it checks the rest."""
    if not content.lstrip("\ufeff \t\r\n").startswith("<"):
        return TokenFileFormat.CSV
    sdtid = "<TKNBatch" in content
    return TokenFileFormat.SDTID if sdtid else TokenFileFormat.PSKC


async def _preview_tokens(visit: Visit) -> tuple[list[TokenRow], bytes]:
    content = visit.form.secret("token_file")
    if not content.strip():
        raise InvalidFieldError("content", _("choose or paste a file"))
    _check_length(visit, content)
    try:
        key = bytes.fromhex(visit.form.text("file_key"))
    except ValueError:
        raise InvalidFieldError("key", _("must be hexadecimal digits")) from None
    rule = visit.form.text("pin_rule")
    previewed = await visit.site.services.token_import.preview(
        visit.call(IMPORT_TOKENS),
        TokenFile(
            format=_format_of(content),
            content=content.encode(errors="replace"),
            password=visit.form.secret("file_password"),
            key=key,
            default_pin_rule=PinRule(rule) if rule in set(PinRule) else None,
        ),
    )
    rows = [
        TokenRow(
            number=each.row,
            serial=each.serial,
            token=each.token,
            problem=sentence(each.problem),
        )
        for each in previewed.rows
    ]
    return rows, previewed.draft


async def _imported_tokens(visit: Visit, draft: bytes) -> tuple[list[TokenRow], bool]:
    """Import the rows, as `_imported` does for users."""
    done: list[TokenRow] = []
    begun = await visit.site.services.token_import.begin_previewed(
        visit.call(
            IMPORT_TOKENS,
            request_id=visit.submitted_request_id(),
            within_s=IMPORT_S,
        ),
        draft,
    )
    try:
        async with aclosing(begun.results) as results:
            async for result in results:
                row = TokenRow(
                    number=result.row,
                    serial=result.serial,
                    problem=sentence(result.problem),
                    imported=result.imported,
                )
                done.append(row)
    except EXPLAINED as error:
        visit.keep_request_id()
        visit.add(_explained(error))
    rest = [
        TokenRow(number=row, serial="", problem=_("Not decided yet."))
        for row in range(len(done) + 1, begun.rows + 1)
    ]
    return [*done, *rest], bool(rest)
