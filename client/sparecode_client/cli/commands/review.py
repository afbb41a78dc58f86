# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster review` and `open`: after a restore or a recovery."""

import sys
from typing import Annotated

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plural, show_second
from sparecode_client.values.review import ClusterReview

app = typer.Typer()


@app.command()
def review(context: typer.Context) -> None:
    """
    Show what to check before a restored cluster serves agents.

    Its state is one of the past: administrators who were removed since are back,
    users who were disabled are enabled, and certificates that were denied are not.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        seen = admin.get_review()
    if settings.output.is_json:
        settings.output.json(seen)
        return
    show(settings.output, seen)
    if not seen.open:
        settings.output.say()
        settings.output.say("Put right what is wrong, and review again. Then:")
        settings.output.say(f"    sparecode cluster open {seen.review}")


@app.command("open")
def open_(
    context: typer.Context,
    mark: Annotated[
        str,
        typer.Argument(
            metavar="[REVIEW]",
            help="As `cluster review` names it (default: show it now, and ask).",
            show_default=False,
        ),
    ] = "",
) -> None:
    """
    Have a restored or recovered cluster serve agents again.

    Only what was reviewed is opened: if anything of it has changed since, it has
    to be reviewed again. Where there is another super administrator, they have to
    approve it.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        if not mark:
            if settings.output.is_json or not sys.stdin.isatty():
                raise UsageError(
                    "no terminal to ask at: run `sparecode cluster review`, and give "
                    "`sparecode cluster open` what it names"
                )
            seen = admin.get_review()
            show(settings.output, seen)
            typer.confirm("\nIs this as it should be? Serve agents", abort=True)
            mark = seen.review
        commit = admin.open_cluster(mark)
    settings.output.done("Agents are served", commit, review=mark)


def show(output: Output, seen: ClusterReview) -> None:
    """Show a review to people."""
    output.say(
        f"Cluster {seen.cluster_id}, epoch {seen.epoch}: agents are "
        f"{'served' if seen.open else 'NOT SERVED'}."
    )
    if seen.cause:
        cause = {"recover": "recovery"}.get(seen.cause, seen.cause)
        output.say(f"It began with a {cause} at {show_second(seen.begin_time)}.")
        output.say(
            f"Its state is of {show_second(seen.state_time)} (log entry "
            f"{seen.state_index})."
        )
        output.say("What was changed after that is not in it.")
    output.say()
    output.say("Administrators. Was one of them removed, disabled or given less?")
    output.table(
        ["Name", "Role", "State"],
        (
            [each.name, each.role, "enabled" if each.enabled else "disabled"]
            for each in seen.administrators
        ),
    )
    output.say()
    output.say("Agents. Was one of them removed, disabled or restricted?")
    output.table(
        ["Name", "Identity", "State"],
        (
            [
                each.name,
                each.identity,
                ("enabled" if each.enabled else "disabled")
                + (", restricted" if each.restricted else ""),
            ]
            for each in seen.agents
        ),
    )
    output.say()
    output.say(
        f"{plural(seen.disabled_users_count, 'user')} disabled. Was another one?"
    )
    for username in seen.disabled_users:
        output.say(f"  {username}")
    output.say()
    output.say(
        f"{plural(len(seen.denied_certificates), 'certificate')} denied. "
        "Was another one?"
    )
    for each in seen.denied_certificates:
        output.say(f"  {each.mark} {each.value} by {each.denied_by}")
