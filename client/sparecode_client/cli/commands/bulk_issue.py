# SPDX-License-Identifier: Apache-2.0
"""`sparecode emergency bulk`: codes for the tokens in a CSV file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.commands.emergency_access import (
    IfRecovered,
    WeakenRecoveryPolicy,
)
from sparecode_client.cli.terminal.bulk_issue_files import CodesFile, read_rows
from sparecode_client.cli.terminal.exit_codes import ExitCode, UsageError
from sparecode_client.cli.terminal.options import time_option
from sparecode_client.cli.terminal.progress import progress_bar
from sparecode_client.cli.terminal.settings import Settings, settings_of
from sparecode_client.cli.terminal.words import When, plural
from sparecode_client.errors import SparecodeError
from sparecode_client.values.bulk_issue import BulkIssueResult, BulkIssueRow
from sparecode_client.values.emergency_access import RecoveryPolicy

app = typer.Typer()


@app.command(
    epilog="Example: sparecode emergency bulk lost.csv --codes codes.csv --expires 7d",
    short_help="Issue one-time codes for many tokens and write them to a file.",
)
def bulk(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV file with a column serial, and optionally a column count.",
        ),
    ],
    codes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write the codes to; only you can read it. Default: "
            "FILE-codes.csv.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100,
            metavar="NUMBER",
            help="Codes per token, where the CSV file has no count. Default: the "
            "policy's.",
        ),
    ] = None,
    expires: Annotated[
        When | None,
        time_option("When the codes expire: a time, or a duration."),
    ] = None,
    if_recovered: Annotated[
        IfRecovered,
        typer.Option(
            metavar="POLICY",
            help="What happens when a token is found: see sparecode emergency issue.",
        ),
    ] = IfRecovered.DENY,
    weaken_recovery_policy: WeakenRecoveryPolicy = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue an interrupted run: tokens whose codes are already in the codes "
            "file keep them.",
        ),
    ] = False,
) -> None:
    """
    Issue one-time codes for the tokens in a CSV file.

    Earlier unused codes of these tokens become void. The new codes are written to a
    file, one per line, as soon as they are live: they cannot be shown again. Each token
    has its own result, and a refused token never stops the others. The exit code is 1
    if a token got no codes.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        if settings.request_id:
            raise UsageError("use --resume instead of --request-id to continue")
        rows = read_rows(file)
        path = codes or file.with_name(f"{file.stem}-codes.csv")
        results: list[BulkIssueResult] = []
        with CodesFile.open(path, resume=resume) as output:
            pending = [row for row in rows if row.serial not in output.complete]
            skipped = len(rows) - len(pending)
            with progress_bar("Issuing") as bar:
                bar.show(skipped, len(rows))

                def take(result: BulkIssueResult) -> None:
                    output.write(result)
                    results.append(result)
                    bar.show(skipped + len(results), len(rows))

                try:
                    admin.bulk_issue_tokencodes(
                        pending,
                        count=count,
                        lifetime=None if expires is None else expires.value,
                        recovery_policy=RecoveryPolicy[if_recovered.name],
                        weaken_recovery_policy=weaken_recovery_policy,
                        progress=take,
                    )
                except SparecodeError:
                    settings.output.note(
                        f"{len(results) + skipped} of {plural(len(rows), 'token')} done; the "
                        f"codes are in {path}. To continue, add --resume."
                    )
                    raise
    _say(settings, rows, results, skipped, path)
    if any(result.saved is None for result in results):
        raise typer.Exit(ExitCode.REFUSED)


def _say(
    settings: Settings,
    rows: Sequence[BulkIssueRow],
    results: Sequence[BulkIssueResult],
    skipped: int,
    path: Path,
) -> None:
    """Show the results, without the codes."""
    issued = [result for result in results if result.saved is not None]
    refused = [result for result in results if result.saved is None]
    lines = {row.serial: line for line, row in enumerate(rows, start=1)}
    if settings.output.is_json:
        settings.output.json(
            {
                "file": str(path),
                "issued": len(issued),
                "refused": len(refused),
                "kept": skipped,
                "tokens": [
                    {
                        "row": lines[result.serial],
                        "serial": result.serial,
                        "username": result.username,
                        "codes": len(result.codes),
                        "end_time": result.saved and result.saved.end_time,
                        "reason": result.reason,
                        "problem": result.problem,
                    }
                    for result in results
                ],
            }
        )
        return
    if refused:
        settings.output.table(
            [">Row", "Serial", "User", "Reason"],
            (
                [
                    str(lines[result.serial]),
                    result.serial,
                    result.username or "-",
                    result.problem or result.reason,
                ]
                for result in refused
            ),
        )
    settings.output.say(
        f"{len(issued)} of {plural(len(rows), 'token')} have new codes, in {path}."
        + (f" {skipped} kept the codes of the earlier run." if skipped else "")
    )
    settings.output.say(
        "They cannot be shown again: hand them over, then destroy the file."
    )
