# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents add`: agents of every kind."""

import enum
from datetime import timedelta
from typing import Annotated

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.commands.agent_keys import show_key
from sparecode_client.cli.commands.radius_clients import show_secret
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.settings import Settings, settings_of
from sparecode_client.errors import SparecodeError
from sparecode_client.values.agents import (
    AcceptAttributes,
    AgentProtects,
    RadiusSettings,
)


class Protects(enum.StrEnum):
    """`AgentProtects` on the command line."""

    AUTHENTICATION_MANAGER = "authentication-manager"
    CLOUD = "cloud"


def add(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of the agent: 1 to 64 characters, such as vpn."
        ),
    ],
    identity: Annotated[
        str | None,
        typer.Argument(
            metavar="[IDENTITY]",
            help="The only URI or DNS subject name of its certificate; at most 256 "
            "characters. Default: sparecode://agent/NAME, as `sparecode-node` "
            "certifies it.",
        ),
    ] = None,
    *,
    radius: Annotated[
        bool,
        typer.Option("--radius", help="It is a RADIUS client: print its secret."),
    ] = False,
    http: Annotated[
        bool,
        typer.Option("--http", help="It calls by HTTP with a key: print the key."),
    ] = False,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            metavar="NETWORK",
            help="With --radius or --http: an address or network that it sends from, "
            "such as 10.1.0.0/24. May repeat. A RADIUS client needs one.",
        ),
    ] = None,
    protects: Annotated[
        Protects,
        typer.Option(
            help="What the agent protects. Emergency codes are not accepted for cloud."
        ),
    ] = Protects.AUTHENTICATION_MANAGER,
    restricted: Annotated[
        bool,
        typer.Option(
            "--restricted",
            help="Admit only users that `agents update --allow` adds.",
        ),
    ] = False,
    unsigned: Annotated[
        bool,
        typer.Option(
            "--allow-unsigned",
            help="With --radius: answer requests without Message-Authenticator. "
            "Unsafe (BlastRADIUS).",
        ),
    ] = False,
    until_signed: Annotated[
        bool,
        typer.Option(
            "--until-signed",
            help="With --allow-unsigned: only until it has sent a signed request.",
        ),
    ] = False,
    repeats: Annotated[
        bool,
        typer.Option(
            "--repeats",
            help="With --radius: it repeats requests to the next server as new ones, "
            "as pam_radius does.",
        ),
    ] = False,
    prompts: Annotated[
        bool,
        typer.Option(
            "--prompts",
            help="With --radius: it begins with an empty password, and needs a "
            "challenge for it.",
        ),
    ] = False,
    filter_id: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Filter-Id of an Access-Accept (RADIUS, RadSec)."
        ),
    ] = "",
    class_attribute: Annotated[
        str,
        typer.Option(
            "--class",
            metavar="TEXT",
            help="Class of an Access-Accept (RADIUS, RadSec).",
        ),
    ] = "",
    session_timeout: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Session-Timeout of an Access-Accept (RADIUS, RadSec).",
        ),
    ] = 0,
) -> None:
    """
    Add an agent, which can then check passcodes.

    By default it shows a certificate: over gRPC, RadSec or HTTP. With --radius or --http
    its secret or key is the only output on stdout, and no command prints it again. If it
    is lost, use `agents rotate-secret` or `agents key`.
    """
    settings = settings_of(context)
    attributes = AcceptAttributes(
        filter_id=filter_id,
        class_attribute=class_attribute,
        session_timeout=timedelta(seconds=session_timeout),
    )
    told = RadiusSettings(
        networks=tuple(network or ()),
        allow_unsigned=unsigned,
        unsigned_until_signed=until_signed,
        repeats_with_new_authenticator=repeats,
        prompts_for_passcode=prompts,
    )
    _check(settings, told, identity, radius=radius, http=http)
    with settings.admin() as admin:
        if radius:
            new = admin.register_radius_client(
                name,
                told,
                attributes=attributes,
                protects=AgentProtects[protects.name],
                restricted=restricted,
                request_id=settings.request_id,
            )
            show_secret(settings.output, name, new)
            return
        commit = admin.register_agent(
            name,
            f"sparecode://agent/{name}" if identity is None else identity,
            protects=AgentProtects[protects.name],
            restricted=restricted,
            attributes=attributes,
            request_id=settings.request_id,
        )
        if http:
            _add_key(settings, admin, name, told.networks)
            return
    settings.output.done(f"Agent {name} registered", commit, name=name)


def _check(
    settings: Settings,
    told: RadiusSettings,
    identity: str | None,
    *,
    radius: bool,
    http: bool,
) -> None:
    """Raise `UsageError` if the options do not fit the kind of the agent."""
    if radius and http:
        raise UsageError("an agent is added with --radius or --http, not both")
    if radius and identity is not None:
        raise UsageError("a RADIUS client has no certificate, and no IDENTITY")
    if radius and not told.networks:
        raise UsageError("name at least one --network that the client sends from")
    if not radius and told != RadiusSettings(networks=told.networks):
        raise UsageError(
            "--allow-unsigned, --until-signed, --repeats and --prompts need --radius"
        )
    if told.networks and not (radius or http):
        raise UsageError("--network needs --radius or --http")
    if http and settings.request_id:
        raise UsageError(
            "--request-id cannot be used with --http: it names one change of two"
        )


def _add_key(
    settings: Settings, admin: Admin, name: str, networks: tuple[str, ...]
) -> None:
    try:
        new = admin.create_agent_key(name, overlap=timedelta(0), networks=networks)
    except SparecodeError:
        settings.output.note(
            f"Agent {name} is registered, but has no key yet. Create it with: "
            f"sparecode agents key {name}"
        )
        raise
    show_key(settings.output, name, new)
