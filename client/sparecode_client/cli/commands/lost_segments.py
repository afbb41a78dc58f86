# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster declare-lost`."""

from typing import Annotated

import typer

from sparecode_client.cli.terminal.settings import settings_of

app = typer.Typer()


@app.command(
    "declare-lost",
    epilog="Example: sparecode cluster declare-lost 12 --reason 'disk destroyed'",
    short_help="Declare segments of the audit log lost.",
)
def declare_lost(
    context: typer.Context,
    first: Annotated[
        int, typer.Argument(metavar="FIRST", help="Number of the first segment.")
    ],
    last: Annotated[
        int | None,
        typer.Argument(metavar="LAST", help="Number of the last one; default: FIRST."),
    ] = None,
    *,
    destroyed: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE",
            help="Member that has them by the cluster's record, and will not come back. "
            "May repeat.",
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, for the audit log.")
    ],
) -> None:
    """
    Declare that no member has some segments of the audit log any more.

    Pages, exports, verification and backups then go on without their events, and the
    last member that had them can be removed. Another super administrator must approve
    it, if there is one. sparecode cluster status shows which members lack segments.

    A member that does not answer may still have them. So the command is refused while
    one has told that it has them, unless --destroyed names it. If it comes back with
    them, the other members fetch them all the same.
    """
    settings, end = settings_of(context), last or first
    with settings.admin() as admin:
        commit = admin.declare_segments_lost(
            first,
            end,
            reason,
            destroyed=destroyed or (),
            request_id=settings.request_id,
        )
    settings.output.done(
        f"Segments {first} to {end} of the audit log are declared lost",
        commit,
        first=first,
        last=end,
    )
