# SPDX-License-Identifier: Apache-2.0
"""Imports on the terminal: a progress bar, and the result of each row."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from sparecode_client.cli.terminal.exit_codes import ExitCode, UsageError
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.progress import progress_bar
from sparecode_client.cli.terminal.words import plural
from sparecode_client.errors import InvalidArgument, SparecodeError
from sparecode_client.values.imports import ImportedToken, ImportedUser

ROWS_SHOWN = 50
"""With more rows, only those that were not imported are listed."""


@contextmanager
def import_progress(
    output: Output, file: Path
) -> Iterator[Callable[[object, int], None]]:
    """
    Show a progress bar during an import of *file*.

    Yield a function to call with each result and the number of all rows. An error names
    *file*; if the import is interrupted, a note explains how to continue.
    """
    done = 0
    with progress_bar("Importing") as bar:

        def take(_result: object, rows: int) -> None:
            nonlocal done
            done += 1
            bar.show(done, rows)

        try:
            yield take
        except InvalidArgument as error:
            if error.field != "content":
                raise
            raise UsageError(f"{file}: {error.description}") from error
        except SparecodeError:
            if done:
                output.note(
                    f"{plural(done, 'row')} of {file} done. To continue, import the "
                    "file again."
                )
            raise


def say_imported(
    output: Output,
    rows: Sequence[ImportedToken | ImportedUser],
    what: str,
    column: str,
    names: Sequence[str],
) -> None:
    """Show the results; exit with 1 if a row was not imported."""
    imported = sum(row.imported for row in rows)
    if output.is_json:
        output.json({f"{what}s": rows, "imported": imported}, f"{what}s")
    else:
        _show(output, rows, column, names)
        output.say(f"{imported} of {plural(len(rows), what)} imported.")
    if imported < len(rows):
        raise typer.Exit(ExitCode.REFUSED)


def _show(
    output: Output,
    rows: Sequence[ImportedToken | ImportedUser],
    column: str,
    names: Sequence[str],
) -> None:
    table_rows = [
        [
            str(row.row),
            name or "-",
            "imported" if row.imported else f"NOT imported: {row.problem}",
        ]
        for row, name in zip(rows, names, strict=True)
        if len(rows) <= ROWS_SHOWN or not row.imported
    ]
    if table_rows:
        output.table([">Row", column, "Result"], table_rows)
    reasons = Counter(row.reason or "NOT READABLE" for row in rows if not row.imported)
    if len(reasons) > 1:
        output.say()
        output.table(
            [">Rows", "Reason"],
            ([str(count), reason] for reason, count in reasons.most_common()),
        )
