# SPDX-License-Identifier: Apache-2.0
"""`sparecode approvals`: requests that need a second administrator."""

from typing import Annotated

import typer

from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import NUMBER_MAX, show_time
from sparecode_client.values.approvals import Approval

app = typer.Typer(
    no_args_is_help=True,
    help="Approve or reject requests of other administrators. If there is another super "
    "administrator, these need approval: changes of policy and of administrators, "
    "admitting a member, bulk issue, issuing codes just after setting the token's PIN, and "
    "issuing more sets, or unlocking a user more often, than the policy's allowance. "
    "Requests expire after one day.",
    short_help="Approve or reject requests of other administrators.",
)

Number = Annotated[
    int,
    typer.Argument(
        min=1,
        max=NUMBER_MAX,
        metavar="NUMBER",
        help="Number of the request in `approvals list`.",
    ),
]


@app.command("list")
def list_(
    context: typer.Context, limit: Limit = 100, stale_ok: StaleOk = False
) -> None:
    """List waiting requests and unused approvals, oldest first."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(admin.list_approvals, limit, stale_ok=stale_ok)
    show_list(
        settings.output,
        page,
        lambda each: [
            str(each.approval_id),
            each.author,
            f"{each.action} {each.target}",
            _description(each),
            show_time(each.end_time),
            f"approved by {each.approver}" if each.approver else "waits",
        ],
        key="approvals",
        columns=[">No.", "Author", "Action", "Description", "Until", "State"],
        noun="approval",
    )


def _description(approval: Approval) -> str:
    """Return the request in words, with its tokens and their users."""
    users = approval.usernames or ("",) * len(approval.serials)
    tokens = ", ".join(
        f"{serial} of {user}" if user else serial
        for serial, user in zip(approval.serials, users, strict=True)
    )
    words = f"{approval.description}: {tokens}" if tokens else approval.description
    return f"{words} ({approval.recipient})" if approval.recipient else words


@app.command(epilog="Example: sparecode approvals approve 7")
def approve(context: typer.Context, number: Number) -> None:
    """
    Approve a request of another administrator.

    A requested change is made at once. Requested codes are not issued: the author of
    the request issues them within one day.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.approve(number, request_id=settings.request_id)
    settings.output.done(f"Approved: {number}", commit, approval_id=number)


@app.command()
def reject(context: typer.Context, number: Number) -> None:
    """Reject a request, or withdraw an approval. You may reject your own requests."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.reject(number, request_id=settings.request_id)
    settings.output.done(f"Rejected: {number}", commit, approval_id=number)
