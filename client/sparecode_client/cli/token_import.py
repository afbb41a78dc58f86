# SPDX-License-Identifier: Apache-2.0
"""`sparecode tokens import`: the tokens of a file."""

import enum
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.failures import ExitCode, UsageError
from sparecode_client.cli.progress import row_progress
from sparecode_client.cli.prompts import content, secret
from sparecode_client.cli.settings import Settings, settings_of
from sparecode_client.cli.words import plural
from sparecode_client.errors import InvalidArgument, SparecodeError
from sparecode_client.token_files import TokenFileFormat
from sparecode_client.values import ImportedToken, PinRule

app = typer.Typer()

ROWS_SHOWN = 50
"""A longer list of what went well helps nobody."""


class FileFormat(enum.StrEnum):
    """The form of a token file."""

    AUTO = "auto"
    PSKC = "pskc"
    SDTID = "sdtid"
    CSV = "csv"


@app.command(
    "import",
    epilog="Example: sparecode tokens import tokens.xml --password-file password.txt",
    short_help="Add the tokens of a file: PSKC, sdtid or CSV.",
)
def import_(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="PSKC (RFC 6030), sdtid (SecurID) or CSV; at most 1 MiB and 1000 "
            "tokens.",
        ),
    ],
    form: Annotated[
        FileFormat, typer.Option("--format", help="What FILE is; auto: look at it.")
    ] = FileFormat.AUTO,
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its password is in FILE (-: stdin)."),
    ] = None,
    ask_password: Annotated[
        bool, typer.Option("--ask-password", help="Ask for its password.")
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its pre-shared key is in FILE, as bytes."),
    ] = None,
    pin_rule: Annotated[
        PinRule, typer.Option(help="Of tokens for which the file does not say.")
    ] = PinRule.PREPENDED,
) -> None:
    """
    Add the tokens of a file.

    Each gets its own result: a bad one never stops the rest. The exit code is 1 if
    one was not imported. To go on after an interruption, import the file again:
    tokens that are there already are told and stay as they are.

    The first line of a CSV file names its columns: serial and seed; if wanted also
    seed_format (base32, hex), algorithm (totp, hotp, securid), hash, digits, period,
    counter, pin_rule and expires. Its seeds are in clear: destroy it afterwards.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        password = ""
        if ask_password or password_file is not None:
            password = secret("Password of the file", password_file)
        taken = content(file)
        key = b"" if key_file is None else content(key_file)
        done: list[ImportedToken] = []
        try:
            with row_progress("Importing") as advance:

                def take(token: ImportedToken, rows: int) -> None:
                    done.append(token)
                    advance(rows)

                rows = admin.import_tokens(
                    taken,
                    form=None
                    if form is FileFormat.AUTO
                    else TokenFileFormat[form.name],
                    password=password,
                    key=key,
                    default_pin_rule=pin_rule,
                    progress=take,
                    request_id=settings.request_id,
                )
        except InvalidArgument as error:
            if error.field != "content":
                raise
            raise UsageError(f"{file}: {error.description}") from error
        except SparecodeError:
            if done:
                settings.output.note(
                    f"{plural(len(done), 'row')} of {file} are decided. Import it again "
                    "to go on."
                )
            raise
    _say(settings, rows)
    if not all(row.imported for row in rows):
        raise typer.Exit(ExitCode.REFUSED)


def _say(settings: Settings, rows: Sequence[ImportedToken]) -> None:
    """Tell what became of the rows."""
    imported = sum(row.imported for row in rows)
    if settings.output.is_json:
        settings.output.json({"tokens": rows, "imported": imported})
        return
    shown = [row for row in rows if len(rows) <= ROWS_SHOWN or not row.imported]
    if shown:
        settings.output.table(
            [">Row", "Serial", "Result"],
            (
                [
                    str(row.row),
                    row.serial or "-",
                    "imported" if row.imported else f"NOT imported: {row.problem}",
                ]
                for row in shown
            ),
        )
    reasons = Counter(row.reason or "NOT READABLE" for row in rows if not row.imported)
    if len(reasons) > 1:
        settings.output.say()
        settings.output.table(
            [">Rows", "Not imported, because"],
            ([str(count), reason] for reason, count in reasons.most_common()),
        )
    settings.output.say(f"{imported} of {plural(len(rows), 'token')} imported.")
