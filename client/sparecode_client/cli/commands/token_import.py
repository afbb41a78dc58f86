# SPDX-License-Identifier: Apache-2.0
"""`sparecode tokens import`: the tokens in a file."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.import_results import import_progress, say_imported
from sparecode_client.cli.terminal.prompts import content, secret
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.values.imports import TokenFileFormat
from sparecode_client.values.tokens import PinRule

app = typer.Typer()


class FileFormat(enum.StrEnum):
    """Format of a token file."""

    AUTO = "auto"
    PSKC = "pskc"
    SDTID = "sdtid"
    CSV = "csv"


@app.command(
    "import",
    epilog="Example: sparecode tokens import tokens.xml --password-file password.txt",
    short_help="Import the tokens in a PSKC, sdtid or CSV file.",
)
def import_(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="PSKC (RFC 6030), sdtid (SecurID) or CSV file; at most 1 MiB and 1000 "
            "tokens.",
        ),
    ],
    form: Annotated[
        FileFormat, typer.Option("--format", help="Format of FILE; auto: detect it.")
    ] = FileFormat.AUTO,
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read the file's password from FILE (-: stdin)."
        ),
    ] = None,
    ask_password: Annotated[
        bool, typer.Option("--ask-password", help="Prompt for the file's password.")
    ] = False,
    key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read the file's pre-shared key from FILE, as bytes."
        ),
    ] = None,
    pin_rule: Annotated[
        PinRule, typer.Option(help="PIN rule of tokens whose file does not set one.")
    ] = PinRule.PREPENDED,
) -> None:
    """
    Import the tokens in a file.

    Each token has its own result, and a bad one never stops the others. The exit code is
    1 if a token was not imported. To continue after an interruption, import the file
    again: existing tokens are reported and stay as they are.

    The first line of a CSV file names its columns: serial and seed, and optionally
    seed_format (base32, hex), algorithm (totp, hotp, securid), hash, digits, period,
    counter, pin_rule and expires. Its seeds are not encrypted: destroy the file
    afterwards.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        password = ""
        if ask_password or password_file is not None:
            password = secret("Password of the file", password_file)
        data = content(file)
        key = b"" if key_file is None else content(key_file)
        with import_progress(settings.output, file) as take:
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
