# SPDX-License-Identifier: Apache-2.0
"""`sparecode notices`: channels that tell other systems of events."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.exit_codes import ExitCode, UsageError
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk
from sparecode_client.cli.terminal.prompts import content, secret
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.switches import remove_named, set_enabled
from sparecode_client.cli.terminal.words import NUMBER_MAX, show_time
from sparecode_client.values.notices import ChannelKind, EventClass, new_webhook_secret

app = typer.Typer(
    no_args_is_help=True,
    help="Tell other systems of events: channels, and notices that are not delivered. "
    "A notice is written in the commit of its event, and delivered at least once, "
    "always under the same id.",
    short_help="Tell other systems of events.",
)
channels = typer.Typer(
    no_args_is_help=True,
    help="Manage channels. If there is another super administrator, every change "
    "needs their approval: it decides what leaves the cluster.",
    short_help="Manage channels.",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="Name of the channel; letter case does not matter."
    ),
]
Classes = Annotated[
    list[EventClass] | None,
    typer.Option(
        "--event",
        metavar="CLASS",
        help="A class of events that it tells: administration, emergency, tokens, "
        "sessions, authentication or upkeep. May repeat.",
    ),
]
AuthorityFile = Annotated[
    Path | None,
    typer.Option(
        "--authority",
        metavar="FILE",
        help="Authorities of its certificate (PEM). Default: the node's system's.",
    ),
]
Sender = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="ADDRESS", help="Mail: the address that mails are from."
    ),
]
Login = Annotated[
    str | None,
    typer.Option(
        "--login",
        metavar="NAME",
        help="Mail: the name at the server. Default: the nodes do not sign in.",
    ),
]
Contact = Annotated[
    str | None,
    typer.Option(
        "--contact",
        metavar="TEXT",
        help="Mail: how people reach the help desk, such as a phone number.",
    ),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        "--secret-file", metavar="FILE", help="File with its secret (-: stdin)."
    ),
]


@channels.command("list")
def list_channels(context: typer.Context, stale_ok: StaleOk = False) -> None:
    """List the channels, and how many notices wait for each."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = admin.list_channels(stale_ok=stale_ok)
    show_list(
        settings.output,
        page,
        lambda each: [
            each.name,
            each.kind or "",
            each.address,
            " ".join(each.classes),
            "enabled" if each.enabled else "disabled",
            str(each.waiting_count),
            str(each.dead_count),
            show_time(each.oldest_time),
        ],
        key="channels",
        columns=[
            "Name",
            "Kind",
            "Address",
            "Events",
            "State",
            ">Waiting",
            ">Dead",
            "Oldest",
        ],
        noun="channel",
    )


@channels.command(
    epilog="Example: sparecode notices channels create siem https://siem.example/in "
    "--event administration --event emergency --secret-file hook.secret"
)
def create(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of the channel: 1 to 64 characters."),
    ],
    url: Annotated[
        str,
        typer.Argument(
            metavar="[URL]",
            help="Where it tells events: https:// (webhook), tcp+tls://HOST:PORT "
            "(syslog), smtp+starttls:// or smtps:// (mail); a file has none. Put no "
            "secret into it.",
        ),
    ] = "",
    *,
    kind: Annotated[
        ChannelKind, typer.Option(help="How it tells them.")
    ] = ChannelKind.WEBHOOK,
    event: Classes = None,
    secret_file: SecretFile = None,
    allow_private: Annotated[
        bool,
        typer.Option(
            "--allow-private", help="The address may be private, or of the node itself."
        ),
    ] = False,
    authority: AuthorityFile = None,
    sender: Sender = None,
    login: Login = None,
    contact: Contact = None,
) -> None:
    """
    Add a channel, which tells the events after this change.

    A webhook gets an HTTPS request for each event that it wants, signed with its secret;
    `notices channels new-secret` draws one. The other kinds tell every event, in order:
    syslog over TLS, and files in the `event_folder` of each node's node.toml. Mail tells
    the people concerned: it needs --from and --contact, and --login with a password.
    """
    is_webhook = kind is ChannelKind.WEBHOOK
    if is_webhook and not event:
        raise UsageError("name at least one --event that the channel tells")
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.create_channel(
            name,
            url,
            kind=kind,
            classes=event or (),
            secret=secret("Secret of the channel", secret_file)
            if is_webhook or login
            else "",
            allow_private=allow_private,
            authority=content(authority).decode() if authority else "",
            sender=sender or "",
            login=login or "",
            contact=contact or "",
            request_id=settings.request_id,
        )
    settings.output.done(f"Channel {name} created", commit, name=name)


@channels.command(
    epilog="Example: sparecode notices channels update siem --event tokens"
)
def update(
    context: typer.Context,
    name: Name,
    *,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where its requests go.")
    ] = None,
    event: Classes = None,
    secret_file: SecretFile = None,
    allow_private: Annotated[
        bool | None,
        typer.Option(
            "--allow-private/--public-only",
            help="Whether the address may be private, or of the node itself.",
        ),
    ] = None,
    authority: AuthorityFile = None,
    sender: Sender = None,
    login: Login = None,
    contact: Contact = None,
) -> None:
    """Change a channel. `--event` replaces all its classes of events."""
    changes = (
        *(url, event, secret_file, allow_private, authority),
        *(sender, login, contact),
    )
    if changes == (None,) * len(changes):
        raise UsageError("nothing to change: see --help for the options")
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.update_channel(
            name,
            address=url,
            classes=event or (),
            secret=secret("", secret_file) if secret_file else "",
            allow_private=allow_private,
            authority=content(authority).decode() if authority else None,
            sender=sender,
            login=login,
            contact=contact,
            request_id=settings.request_id,
        )
    settings.output.done(f"Channel {name} changed", commit, name=name)


@channels.command()
def enable(context: typer.Context, name: Name) -> None:
    """Let a channel tell events again, those that wait first."""
    set_enabled(context, "Channel", name, Admin.update_channel, enabled=True)


@channels.command()
def disable(context: typer.Context, name: Name) -> None:
    """Stop a channel. Notices that wait for it are kept; later events are not."""
    set_enabled(context, "Channel", name, Admin.update_channel, enabled=False)


@channels.command()
def remove(context: typer.Context, name: Name) -> None:
    """Remove a channel, and the notices that wait for it."""
    remove_named(context, "Channel", name, Admin.remove_channel)


@channels.command(
    "new-secret",
    epilog="Example: sparecode notices channels new-secret > hook.secret",
)
def new_secret(context: typer.Context) -> None:
    """Draw a secret for a webhook, and print it. No node is called."""
    output, drawn = settings_of(context).output, new_webhook_secret()
    if output.is_json:
        output.json({"secret": drawn})
    else:
        output.say(drawn)


@app.command("list", epilog="Example: sparecode notices list --dead")
def list_(
    context: typer.Context,
    *,
    channel: Annotated[
        str, typer.Option(metavar="NAME", help="Only notices of this channel.")
    ] = "",
    dead: Annotated[
        bool, typer.Option("--dead", help="Only those whose delivery was given up.")
    ] = False,
    limit: Limit = 100,
    stale_ok: StaleOk = False,
) -> None:
    """List notices that are not delivered, oldest first."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(
            partial(admin.list_notices, channel=channel, dead_only=dead),
            limit,
            stale_ok=stale_ok,
        )
    show_list(
        settings.output,
        page,
        lambda each: [
            str(each.number),
            each.channel,
            each.event_class or "",
            each.action,
            show_time(each.time),
            f"given up: {each.cause}" if each.dead else "waits",
        ],
        key="notices",
        columns=[">No.", "Channel", "Class", "Event", "Time", "State"],
        noun="notice",
    )


@app.command("send-again", epilog="Example: sparecode notices send-again siem 7 8")
def send_again(
    context: typer.Context,
    channel: Name,
    numbers: Annotated[
        list[int] | None,
        typer.Argument(
            min=1,
            max=NUMBER_MAX,
            metavar="NUMBER",
            help="Numbers in `notices list --dead`. Default: all of the channel.",
        ),
    ] = None,
) -> None:
    """Deliver notices again whose delivery was given up, under their earlier ids."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.send_notices_again(
            channel, numbers or (), request_id=settings.request_id
        )
    settings.output.done(
        f"Notices of channel {channel} are sent again", commit, name=channel
    )


@app.command(
    epilog="Example: sparecode notices test siem", short_help="Send a test notice."
)
def test(context: typer.Context, channel: Name) -> None:
    """
    Send a test notice through a channel, and show what was sent and received.

    The node that is called sends it, at once. Exit code 3: the receiver did not take it.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        tested = admin.test_channel(channel)
    output = settings.output
    if output.is_json:
        output.json(tested)
    else:
        for title, words in (("Sent", tested.sent), ("Received", tested.received)):
            if words:
                output.say(f"{title}:")
                for line in words.splitlines():
                    output.say(f"  {line}".rstrip())
                output.say()
        output.say(
            f"Delivered by {tested.node_id}"
            if tested.delivered
            else f"NOT DELIVERED by {tested.node_id}: {tested.cause}"
        )
    if not tested.delivered:
        raise typer.Exit(ExitCode.UNAVAILABLE)


@app.command(
    epilog="Example: sparecode notices preview codes_issued --language de",
    short_help="Show the mails of notices, with example data.",
)
def preview(
    context: typer.Context,
    kind: Annotated[
        str,
        typer.Argument(
            metavar="[KIND]",
            help="Kind of notice, such as codes_issued. Default: list all subjects.",
        ),
    ] = "",
    *,
    language: Annotated[
        str, typer.Option(metavar="TAG", help="Language, such as de.")
    ] = "en",
    to_manager: Annotated[
        bool, typer.Option("--manager", help="What the manager of the user gets.")
    ] = False,
    html: Annotated[bool, typer.Option("--html", help="Show the HTML.")] = False,
) -> None:
    """
    Show the mail of a kind of notice, with example data. Nothing is sent.

    It names no real person, token or administrator. How to reach the help desk is that of
    the channel for mail.
    """
    if html and not kind:
        raise UsageError("name the KIND of which to show the HTML")
    settings = settings_of(context)
    with settings.admin() as admin:
        found = admin.preview_notices(kind, language=language, to_manager=to_manager)
    output = settings.output
    if output.is_json:
        output.json({"previews": found})
    elif kind:
        for each in found:
            words = each.html if html else f"{each.subject}\n\n{each.text}"
            for line in words.splitlines():
                output.say(line)
    else:
        output.table(["Kind", "Subject"], [[each.kind, each.subject] for each in found])


app.add_typer(channels, name="channels")
