# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit`: who did what, when and where, and what became of it."""

import shutil
import textwrap
from typing import Annotated

import typer

from sparecode_client.cli.commands import audit_files
from sparecode_client.cli.commands.audit_files import ExportForm, NewFile
from sparecode_client.cli.terminal.listing import list_json, note_rest, read_pages
from sparecode_client.cli.terminal.options import Limit, StaleOk, time_option
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import (
    NUMBER_MAX,
    When,
    plain,
    show_second,
)
from sparecode_client.values.audit import AuditEvent, AuditFilter
from sparecode_client.values.results import Page

app = typer.Typer(
    no_args_is_help=True,
    help="Read the audit log: every decision and every change.",
    short_help="Read the audit log.",
)


def _exact_option(name: str, example: str) -> object:
    return typer.Option(
        metavar=name.upper(), help=f"Only events of exactly this {name}, as {example}."
    )


Since = Annotated[
    When | None, time_option("Only events from then on; a duration counts back.")
]
Until = Annotated[
    When | None, time_option("Only events before then; a duration counts back.")
]
Actor = Annotated[str, _exact_option("actor", "administrator:root")]
Action = Annotated[str, _exact_option("action", "SaveEmergencyAccess")]
Target = Annotated[str, _exact_option("target", "alice, or a serial")]
Outcome = Annotated[str, _exact_option("outcome", "refused")]
Reason = Annotated[str, _exact_option("reason", "wrong_pin")]


def _filter(since: When | None, until: When | None, *words: str) -> AuditFilter:
    """Return what the options say: times, then actor to reason, in their order."""
    actor, action, target, outcome, reason = words
    return AuditFilter(
        start_time=None if since is None else since.past(),
        end_time=None if until is None else until.past(),
        actor=actor,
        action=action,
        target=target,
        outcome=outcome,
        reason=reason,
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
    from_sequence: Annotated[
        int | None,
        typer.Option(
            "--from",
            min=1,
            max=NUMBER_MAX,
            metavar="NUMBER",
            help="From this event on, oldest first. Otherwise the newest come first.",
        ),
    ] = None,
    limit: Limit = 20,
    stale_ok: StaleOk = False,
) -> None:
    """Show events, the newest first."""
    settings = settings_of(context)
    event_filter = _filter(since, until, actor, action, target, outcome, reason)

    def page_of(size: int, token: str) -> Page[AuditEvent]:
        return admin.list_audit_events(
            event_filter,
            from_sequence=from_sequence or 0,
            page_size=size,
            page_token=token,
            stale_ok=stale_ok,
        )

    with settings.admin() as admin:
        page = read_pages(page_of, limit)
    if settings.output.is_json:
        settings.output.json(list_json("events", page))
        return
    for event in page.items:
        for line in lines_of(event, shutil.get_terminal_size().columns):
            settings.output.say(line)
    if not page.items:
        settings.output.note("There are no such events.")
    note_rest(settings.output, page, "event")


@app.command("export", epilog="Example: sparecode audit export audit-2026.jsonl")
def export(
    context: typer.Context,
    path: NewFile,
    *,
    form: Annotated[
        ExportForm,
        typer.Option(
            "--format",
            help="JSON Lines can be verified; CSV is for spreadsheets, and safe to "
            "open in one.",
        ),
    ] = ExportForm.JSON_LINES,
    since: Since = None,
    until: Until = None,
    actor: Actor = "",
    action: Action = "",
    target: Target = "",
    outcome: Outcome = "",
    reason: Reason = "",
    from_sequence: Annotated[
        int,
        typer.Option(
            "--from",
            min=1,
            max=NUMBER_MAX,
            metavar="NUMBER",
            help="From this event on.",
        ),
    ] = 1,
    stale_ok: StaleOk = False,
) -> None:
    """
    Write the audit log into a file, the oldest event first.

    Only an export of everything can be verified: with a filter, events are missing.
    """
    audit_files.export(
        settings_of(context),
        path,
        _filter(since, until, actor, action, target, outcome, reason),
        form=form,
        after_sequence=from_sequence - 1,
        stale_ok=stale_ok,
    )


app.command("checkpoint", epilog="Example: sparecode audit checkpoint today.json")(
    audit_files.checkpoint
)
app.command("check")(audit_files.check)
app.command(
    "verify",
    epilog="Example: sparecode audit verify audit.jsonl --checkpoint today.json "
    "--public-key audit.pem",
)(audit_files.verify_file)


def lines_of(event: AuditEvent, columns: int) -> list[str]:
    """Return an event for people: what became of what, and below it by whom."""
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
