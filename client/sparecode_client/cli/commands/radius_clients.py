# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents update-radius` and `rotate-secret`."""

from datetime import timedelta
from typing import Annotated

import typer

from sparecode_client.cli.terminal.completion import complete_agent
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.options import time_option
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import When, show_second
from sparecode_client.values.agents import (
    NewRadiusSecret,
    RegisteredAgent,
)

app = typer.Typer()

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the RADIUS client; letter case does not matter.",
        autocompletion=complete_agent,
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--network",
        metavar="NETWORK",
        help="An address or network that it sends from, such as 10.1.0.0/24.",
    ),
]


@app.command(
    "update-radius",
    epilog="Example: sparecode agents update-radius vpn --network 10.1.0.0/24",
)
def update_radius(
    context: typer.Context,
    name: Name,
    *,
    network: Networks = None,
    unsigned: Annotated[
        bool | None,
        typer.Option(
            "--allow-unsigned/--require-signed",
            help="Whether requests may lack a Message-Authenticator. Unsafe (BlastRADIUS).",
        ),
    ] = None,
    proxied: Annotated[
        bool | None,
        typer.Option(
            "--allow-unsigned-proxied/--limit-proxy-state",
            help="Whether requests with Proxy-State may lack it, too.",
        ),
    ] = None,
    until_signed: Annotated[
        bool | None,
        typer.Option(
            "--until-signed/--also-later",
            help="Whether unsigned requests end with the first signed one.",
        ),
    ] = None,
    repeats: Annotated[
        bool | None,
        typer.Option(
            "--repeats/--no-repeats",
            help="Whether it repeats requests to the next server as new ones.",
        ),
    ] = None,
    prompts: Annotated[
        bool | None,
        typer.Option(
            "--prompts/--no-prompts",
            help="Whether an empty password gets a challenge for the passcode.",
        ),
    ] = None,
) -> None:
    """Change the settings of a RADIUS client. `--network` replaces all networks."""
    changes = (network, unsigned, proxied, until_signed, repeats, prompts)
    if changes == (None,) * 6:
        raise UsageError("nothing to change: see --help for the options")
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.update_radius_client(
            name,
            networks=network or (),
            allow_unsigned=unsigned,
            allow_unsigned_proxied=proxied,
            unsigned_until_signed=until_signed,
            repeats_with_new_authenticator=repeats,
            prompts_for_passcode=prompts,
            request_id=settings.request_id,
        )
    settings.output.done(f"RADIUS client {name} changed", commit, name=name)


@app.command(
    "rotate-secret",
    epilog="Example: sparecode agents rotate-secret vpn --overlap 1d",
    short_help="Give a RADIUS client a new secret, and print it.",
)
def rotate_secret(
    context: typer.Context,
    name: Name,
    overlap: Annotated[
        When | None,
        time_option("How long the previous secret still works. Default: not at all."),
    ] = None,
) -> None:
    """
    Give a RADIUS client a new shared secret, and print it.

    With `--overlap` the previous secret still works for that long, so that you can
    change the client in between. Secrets that were replaced earlier keep their ends;
    without `--overlap` they stop at once, too. The new secret is the only output on
    stdout.
    """
    value = timedelta(0) if overlap is None else overlap.value
    if not isinstance(value, timedelta):
        raise UsageError("--overlap takes a duration, such as 1d")
    settings = settings_of(context)
    with settings.admin() as admin:
        new = admin.rotate_radius_secret(
            name, overlap=value, request_id=settings.request_id
        )
    show_secret(settings.output, name, new)


def show_secret(output: Output, name: str, new: NewRadiusSecret) -> None:
    """Print the secret of a RADIUS client, alone on stdout."""
    if output.is_json:
        output.json({"name": name, "secret": new.secret, "commit": new.commit})
        return
    output.say(new.secret)
    output.note(
        f"This is the secret of RADIUS client {name}. No command prints it again."
    )


def attribute_facts(agent: RegisteredAgent) -> list[tuple[str, str]]:
    """Return what `agents show` tells of the attributes of an Access-Accept."""
    told = agent.accept_attributes
    if told is None:
        return []
    timeout = told.session_timeout.total_seconds()
    attributes = (
        ("Filter-Id", told.filter_id),
        ("Class", told.class_attribute),
        ("Session-Timeout", f"{timeout:.0f} s" if timeout else ""),
    )
    return [(label, value) for label, value in attributes if value]


def radius_facts(agent: RegisteredAgent) -> list[tuple[str, str]]:
    """Return what `agents show` tells of a RADIUS client; empty for other agents."""
    settings, activity = agent.radius, agent.radius_activity
    if settings is None:
        return []
    facts = [("Networks", ", ".join(settings.networks))]
    if settings.allow_unsigned:
        facts.append(("Unsafe", "requests without Message-Authenticator are answered"))
    if settings.allow_unsigned_proxied:
        facts.append(("Unsafe", "also with Proxy-State, which BlastRADIUS needs"))
    if settings.unsigned_until_signed:
        facts.append(("Until", "it has sent a signed one"))
    if settings.repeats_with_new_authenticator:
        facts.append(("Repeats", "as new requests, within 30 s"))
    if settings.prompts_for_passcode:
        facts.append(("Empty password", "gets a challenge for the passcode"))
    if agent.secret_create_time is not None:
        facts.append(("Secret since", show_second(agent.secret_create_time)))
    if agent.former_secret_end_time is not None:
        facts.append(
            ("Old secret works until", show_second(agent.former_secret_end_time))
        )
    if activity is not None:
        facts.append(
            ("Last packet at this node", show_second(activity.last_packet_time))
        )
        facts += [
            (f"Packets: {verdict.replace('_', ' ')}", str(number))
            for verdict, number in sorted(activity.packets.items())
        ]
    return facts
