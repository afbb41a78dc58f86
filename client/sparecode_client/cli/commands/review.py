# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster review` and `open`, for a restored or recovered cluster."""

import sys
from typing import Annotated

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plural, role, show_second
from sparecode_client.values.agents import NO_ATTRIBUTES
from sparecode_client.values.review import ClusterReview, ReviewedRadiusClient

app = typer.Typer()


@app.command()
def review(context: typer.Context) -> None:
    """
    List what to check before a restored cluster opens.

    Its state is from an earlier time. Administrators removed since then are back, users
    disabled since then are enabled, and certificates denied since then are accepted.
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
        settings.output.say(
            "Correct what is wrong, then review again. If all is right, run:"
        )
        settings.output.say(f"    sparecode cluster open {contents.review}")


@app.command("open")
def open_(
    context: typer.Context,
    mark: Annotated[
        str,
        typer.Argument(
            metavar="[REVIEW]",
            help="Mark that `cluster review` prints. Default: show the review now and ask "
            "for confirmation.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """
    Let a restored or recovered cluster serve agents again.

    Only the reviewed state is opened: if it has changed since, review it again. If another
    super administrator exists, that person must approve the opening.

    For one or two hours, each sign-in with a token then takes two tokencodes in a row:
    one alone may have been used before. HOTP tokens must be resynchronized.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        if not mark:
            if settings.output.is_json or not sys.stdin.isatty():
                raise UsageError(
                    "cannot ask for confirmation without a terminal: run `sparecode cluster "
                    "review`, then `sparecode cluster open` with the mark it prints"
                )
            contents = admin.get_review()
            show(settings.output, contents)
            typer.confirm("\nIs everything right? Serve agents", abort=True)
            mark = contents.review
        commit = admin.open_cluster(mark)
    settings.output.done("Agents are served", commit, review=mark)


def show(output: Output, contents: ClusterReview) -> None:
    """Show a review."""
    output.say(
        f"Cluster {contents.cluster_id}, epoch {contents.epoch}: agents are "
        f"{'served' if contents.open else 'NOT SERVED'}."
    )
    if contents.cause:
        cause = {"recover": "recovery"}.get(contents.cause, contents.cause)
        output.say(
            f"The epoch began with a {cause} at {show_second(contents.begin_time)}."
        )
        output.say(
            f"The state is of {show_second(contents.state_time)} (log entry "
            f"{contents.state_index})."
        )
        output.say("Later changes are missing.")
        output.say(
            "Users who moved to another cluster since then are here again. Freeze them by"
        )
        output.say(
            "the ticket of their move first: sparecode cluster export-users freeze TICKET"
        )
    output.say()
    output.say(
        "Administrators. Was one removed, disabled or given a lesser role since then?"
    )
    output.table(
        ["Name", "Role", "State"],
        (
            [each.name, role(each.role), "enabled" if each.enabled else "disabled"]
            for each in contents.administrators
        ),
    )
    output.say()
    output.say("Agents. Was one removed, disabled or restricted since then?")
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
    with_keys = [each for each in contents.agents if each.key_create_time is not None]
    if with_keys:
        output.say()
        output.say("Bearer keys of agents. Was one replaced since then?")
        output.say("If so, replace it once more: sparecode agents key")
        output.table(
            ["Name", "Key since"],
            ([each.name, show_second(each.key_create_time)] for each in with_keys),
        )
    _show_attributes(output, contents)
    if contents.radius_clients:
        output.say()
        output.say(
            "RADIUS clients. Were their settings safer since then, or was a secret "
            "replaced?"
        )
        output.say("If so, give the client a new one: sparecode agents rotate-secret")
        output.table(
            ["Name", "Secret since", "Requests", "Networks"],
            (
                [
                    each.name,
                    show_second(each.secret_create_time),
                    _signatures(each),
                    ", ".join(each.networks),
                ]
                for each in contents.radius_clients
            ),
        )
    output.say()
    output.say(
        f"{plural(contents.disabled_users_count, 'user')} disabled. Was another one "
        "disabled since then?"
    )
    for username in contents.disabled_users:
        output.say(f"  {username}")
    output.say()
    output.say(
        f"{plural(len(contents.denied_certificates), 'certificate')} denied. "
        "Was another one denied since then?"
    )
    for each in contents.denied_certificates:
        output.say(f"  {each.mark} {each.value} by {each.denied_by}")


def _signatures(client: ReviewedRadiusClient) -> str:
    """Return which requests of a RADIUS client need no Message-Authenticator."""
    if not client.allow_unsigned:
        return "signed"
    words = "UNSIGNED at first" if client.unsigned_until_signed else "UNSIGNED"
    return f"{words}, also proxied" if client.allow_unsigned_proxied else words


def _show_attributes(output: Output, contents: ClusterReview) -> None:
    """Show what an Access-Accept tells the agents that have attributes."""
    told = [each for each in contents.agents if each.accept_attributes != NO_ATTRIBUTES]
    if not told:
        return
    output.say()
    output.say("Attributes of an Access-Accept. Was one changed or removed since then?")
    output.say("If so, change it once more: sparecode agents update")
    output.table(
        ["Name", "Filter-Id", "Class", "Session-Timeout"],
        (
            [
                each.name,
                each.accept_attributes.filter_id,
                each.accept_attributes.class_attribute,
                f"{each.accept_attributes.session_timeout.total_seconds():.0f} s"
                if each.accept_attributes.session_timeout
                else "",
            ]
            for each in told
        ),
    )
