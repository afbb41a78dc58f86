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
        contents = admin.get_review()
    if settings.output.is_json:
        settings.output.json(contents)
        return
    show(settings.output, contents)
    if not contents.open:
        settings.output.say()
        settings.output.say("Put right what is wrong, and review again. Then:")
        settings.output.say(f"    sparecode cluster open {contents.review}")


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
            contents = admin.get_review()
            show(settings.output, contents)
            typer.confirm("\nIs this as it should be? Serve agents", abort=True)
            mark = contents.review
        commit = admin.open_cluster(mark)
    settings.output.done("Agents are served", commit, review=mark)


def show(output: Output, contents: ClusterReview) -> None:
    """Show a review to people."""
    output.say(
        f"Cluster {contents.cluster_id}, epoch {contents.epoch}: agents are "
        f"{'served' if contents.open else 'NOT SERVED'}."
    )
    if contents.cause:
        cause = {"recover": "recovery"}.get(contents.cause, contents.cause)
        output.say(f"It began with a {cause} at {show_second(contents.begin_time)}.")
        output.say(
            f"Its state is of {show_second(contents.state_time)} (log entry "
            f"{contents.state_index})."
        )
        output.say("What was changed after that is not in it.")
    output.say()
    output.say("Administrators. Was one of them removed, disabled or given less?")
    output.table(
        ["Name", "Role", "State"],
        (
            [each.name, each.role, "enabled" if each.enabled else "disabled"]
            for each in contents.administrators
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
            for each in contents.agents
        ),
    )
    output.say()
    output.say(
        f"{plural(contents.disabled_users_count, 'user')} disabled. Was another one?"
    )
    for username in contents.disabled_users:
        output.say(f"  {username}")
    output.say()
    output.say(
        f"{plural(len(contents.denied_certificates), 'certificate')} denied. "
        "Was another one?"
    )
    for each in contents.denied_certificates:
        output.say(f"  {each.mark} {each.value} by {each.denied_by}")
