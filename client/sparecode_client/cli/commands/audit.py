# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit`: events of the audit log."""

import shutil
import textwrap
from typing import Annotated

import typer

from sparecode_client.cli.commands import (
    audit_archive,
    audit_copies,
    audit_files,
    audit_search,
)
from sparecode_client.cli.commands.audit_files import ExportForm, NewFile
from sparecode_client.cli.commands.audit_search import Search
from sparecode_client.cli.terminal.exit_codes import INTERRUPTED
from sparecode_client.cli.terminal.options import Limit, StaleOk, time_option
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import (
    NUMBER_MAX,
    When,
    plain,
    show_second,
)
from sparecode_client.values.audit import AuditEvent, AuditFilter

app = typer.Typer(
    no_args_is_help=True,
    help="Read and verify the audit log of every decision and change.",
    short_help="Read and verify the audit log.",
)


def _exact_option(name: str, example: str) -> object:
    return typer.Option(
        metavar=name.upper(),
        help=f"Only events with exactly this {name}, such as {example}.",
    )


Since = Annotated[
    When | None, time_option("Only events since this time, or this long ago.")
]
Until = Annotated[
    When | None, time_option("Only events before this time, or before this long ago.")
]
Actor = Annotated[str, _exact_option("actor", "administrator:root")]
Action = Annotated[str, _exact_option("action", "SaveEmergencyAccess")]
Target = Annotated[str, _exact_option("target", "alice or a serial")]
Outcome = Annotated[str, _exact_option("outcome", "refused")]
Reason = Annotated[str, _exact_option("reason", "wrong_pin")]
AuthenticationId = Annotated[
    str,
    typer.Option(
        metavar="ID",
        help="Only the decision with this ID, which the agent got, and its consequences.",
    ),
]


def _filter(since: When | None, until: When | None, *words: str) -> AuditFilter:
    """Return the filter that the options describe; *words* are actor to the ID."""
    actor, action, target, outcome, reason, authentication_id = words
    return AuditFilter(
        start_time=None if since is None else since.past(),
        end_time=None if until is None else until.past(),
        actor=actor,
        action=action,
        target=target,
        outcome=outcome,
        reason=reason,
        authentication_id=authentication_id.lower(),
    )


@app.command("list", epilog="Example: sparecode audit list --since 1d --target alice")
def list_(
    context: typer.Context,
    *,
    since: Since = None,
    until: Until = None,
    actor: Actor = "",
    action: Action = "",
    target: Target = "",
    outcome: Outcome = "",
    reason: Reason = "",
    authentication_id: AuthenticationId = "",
    from_sequence: Annotated[
        int | None,
        typer.Option(
            "--from",
            min=1,
            max=NUMBER_MAX,
            metavar="NUMBER",
            help="Start at this event and show the oldest first.",
        ),
    ] = None,
    limit: Limit = 20,
    stale_ok: StaleOk = False,
) -> None:
    """
    Show events, newest first.

    A search through years takes a while. Ctrl-C shows what it has found so far.
    """
    settings = settings_of(context)
    event_filter = _filter(
        *(since, until, actor, action, target, outcome, reason, authentication_id)
    )
    with settings.admin() as admin:
        result = audit_search.search(
            admin,
            event_filter,
            from_sequence=from_sequence or 0,
            limit=limit,
            stale_ok=stale_ok,
            output=settings.output,
        )
        _show(settings.output, result)
        if result.error is not None:
            raise result.error
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


def _show(output: Output, result: Search) -> None:
    """Show what a search has found, and how far it has come."""
    if output.is_json:
        sequence, time = result.searched_to
        output.json(
            {
                "events": result.events,
                "complete": result.complete,
                "position": result.position,
                "removed": result.removed,
                "searched_to_sequence": sequence or None,
                "searched_to_time": time,
            },
            "events",
        )
        return
    for event in result.events:
        for line in event_lines(event, shutil.get_terminal_size().columns):
            output.say(line)
    audit_search.note_end(output, result)
    audit_files.note_removed(output, result.removed)


@app.command("export", epilog="Example: sparecode audit export audit-2026.jsonl")
def export(
    context: typer.Context,
    path: NewFile,
    *,
    form: Annotated[
        ExportForm,
        typer.Option(
            "--format",
            help="json-lines can be verified; csv is for spreadsheets, and safe to open "
            "in one.",
        ),
    ] = ExportForm.JSON_LINES,
    since: Since = None,
    until: Until = None,
    actor: Actor = "",
    action: Action = "",
    target: Target = "",
    outcome: Outcome = "",
    reason: Reason = "",
    authentication_id: AuthenticationId = "",
    from_sequence: Annotated[
        int,
        typer.Option(
            "--from",
            min=1,
            max=NUMBER_MAX,
            metavar="NUMBER",
            help="Start at this event.",
        ),
    ] = 1,
    stale_ok: StaleOk = False,
) -> None:
    """
    Write the audit log to a file, oldest event first.

    Only a complete export can be verified, not one with a filter.
    """
    audit_files.export(
        settings_of(context),
        path,
        _filter(
            *(since, until, actor, action, target, outcome, reason, authentication_id)
        ),
        form=form,
        after_sequence=from_sequence - 1,
        stale_ok=stale_ok,
    )


app.command(
    "checkpoint",
    epilog="Example: sparecode audit checkpoint today.json",
    short_help="Get a signed checkpoint of the audit log.",
)(audit_files.checkpoint)
app.command("check")(audit_files.check)
app.command(
    "archive",
    epilog="Example: sparecode audit archive",
    short_help="Show which archives have the audit log.",
)(audit_archive.archive)
app.command(
    "write-archive",
    epilog="Example: sparecode audit write-archive /srv/audit-archive",
    short_help="Copy sealed segments of the audit log to a folder.",
)(audit_copies.write_archive)
app.command(
    "confirm-archive",
    epilog="Example: sparecode audit confirm-archive /media/tape --place 'tape 12'",
    short_help="Confirm a copy of archived segments.",
)(audit_archive.confirm_archive)
app.command(
    "withdraw-archive",
    epilog="Example: sparecode audit withdraw-archive root 12 20 --reason 'tape 12 burned'",
    short_help="Withdraw a copy that is damaged or lost.",
)(audit_archive.withdraw_archive)
app.command(
    "verify",
    epilog="""\b
    Example:
      sparecode audit verify audit.jsonl --checkpoint today.json \\
        --public-key audit.pem
      sparecode audit verify --archive /srv/archive --public-key audit.pem
    """,
)(audit_files.verify_file)


def event_lines(event: AuditEvent, columns: int) -> list[str]:
    """Return an event as lines for people: what happened, and who did it."""
    what = " ".join(filter(None, (event.action, event.target)))
    number = f"{event.sequence:>7}  "
    margin = " " * len(number)
    how = "; ".join(
        filter(None, (f"by {event.actor} on {event.node_id}", event.detail))
    )
    outcome = event.outcome + (f" ({event.reason})" if event.reason else "")
    return [
        line
        for first, words in (
            (number, f"{show_second(event.time)}  {what}: {outcome}"),
            (margin, how),
        )
        for line in textwrap.wrap(
            plain(words),
            columns,
            initial_indent=first,
            subsequent_indent=margin,
        )
    ]
