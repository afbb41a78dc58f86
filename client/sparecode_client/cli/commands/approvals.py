# SPDX-License-Identifier: Apache-2.0
"""`sparecode approvals`: what waits for a second administrator."""

from typing import Annotated

import typer

from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import NUMBER_MAX, show_time

app = typer.Typer(
    no_args_is_help=True,
    help="Decide what other administrators have asked for. Changes of policy and of "
    "administrators, bulk issue, and issuing by whoever has just set the PIN wait for "
    "another super administrator, while there is one; for a day at most.",
    short_help="Decide what waits for a second administrator.",
)

Number = Annotated[
    int,
    typer.Argument(
        min=1, max=NUMBER_MAX, metavar="NUMBER", help="As approvals list shows it."
    ),
]


@app.command("list")
def list_(
    context: typer.Context, limit: Limit = 100, stale_ok: StaleOk = False
) -> None:
    """List what waits, and what was approved and is not used yet; the oldest first."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(
            lambda size, token: admin.list_approvals(
                page_size=size, page_token=token, stale_ok=stale_ok
            ),
            limit,
        )
    show_list(
        settings.output,
        page,
        lambda each: [
            str(each.approval_id),
            each.author,
            f"{each.action} {each.target}",
            each.description,
            show_time(each.end_time),
            f"approved by {each.approver}" if each.approver else "waits",
        ],
        key="approvals",
        columns=[">No.", "Asked by", "For", "In words", "Until", "State"],
        noun="approval",
    )


@app.command(epilog="Example: sparecode approvals approve 7")
def approve(context: typer.Context, number: Number) -> None:
    """
    Agree to what another administrator has asked for.

    A change is made at once, as it was asked for. Codes are not: whoever asked for
    them issues them now, within a day.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.approve(number, request_id=settings.request_id)
    settings.output.done(f"Approved: {number}", commit, approval_id=number)


@app.command()
def reject(context: typer.Context, number: Number) -> None:
    """Refuse what waits, or take back what was approved. You may reject your own."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.reject(number, request_id=settings.request_id)
    settings.output.done(f"Rejected: {number}", commit, approval_id=number)
