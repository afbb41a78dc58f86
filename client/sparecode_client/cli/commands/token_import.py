# SPDX-License-Identifier: Apache-2.0
"""`sparecode tokens import`: the tokens of a file."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.import_results import importing, say_imported
from sparecode_client.cli.terminal.prompts import content, secret
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.values.imports import TokenFileFormat
from sparecode_client.values.tokens import PinRule

app = typer.Typer()


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
        data = content(file)
        key = b"" if key_file is None else content(key_file)
        with importing(settings.output, file) as take:
            rows = admin.import_tokens(
                data,
                form=None if form is FileFormat.AUTO else TokenFileFormat[form.name],
                password=password,
                key=key,
                default_pin_rule=pin_rule,
                progress=take,
                request_id=settings.request_id,
            )
    say_imported(settings.output, rows, "token", "Serial", [row.serial for row in rows])
