# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents`: the programs that check passcodes."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk
from sparecode_client.cli.terminal.prompts import content
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plural, show_time
from sparecode_client.values.agents import (
    AgentProtects,
    RegisteredAgent,
    certificate_fingerprint,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Manage the programs that check passcodes: VPNs, SSH servers, web sites.",
    short_help="Manage the programs that check passcodes.",
)


class Protects(enum.StrEnum):
    """`AgentProtects`, as it is typed."""

    AUTHENTICATION_MANAGER = "authentication-manager"
    CLOUD = "cloud"


@app.command(epilog="Example: sparecode agents register vpn spiffe://example.com/vpn")
def register(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="1 to 64 characters, as vpn.")
    ],
    identity: Annotated[
        str,
        typer.Argument(
            metavar="IDENTITY",
            help="The one URI or DNS subject name of its certificate; at most 256 "
            "characters.",
        ),
    ],
    protects: Annotated[
        Protects,
        typer.Option(
            help="What it protects. Emergency codes do not cover resources of a cloud "
            "service."
        ),
    ] = Protects.AUTHENTICATION_MANAGER,
    restricted: Annotated[
        bool,
        typer.Option(
            "--restricted", help="Admit nobody before `update --allow` names them."
        ),
    ] = False,
) -> None:
    """Let the agent with a certificate authenticate users."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.register_agent(
            name,
            identity,
            protects=AgentProtects[protects.name],
            restricted=restricted,
            request_id=settings.request_id,
        )
    settings.output.done(f"Agent {name} registered", commit, name=name)


@app.command("list")
def list_(
    context: typer.Context, limit: Limit = 100, stale_ok: StaleOk = False
) -> None:
    """List agents, in the order of names."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(
            lambda size, token: admin.list_agents(
                page_size=size, page_token=token, stale_ok=stale_ok
            ),
            limit,
        )
    show_list(
        settings.output,
        page,
        lambda agent: [
            agent.name,
            agent.certificate_identity,
            protects_of(agent),
            admits_of(agent),
            "enabled" if agent.enabled else "disabled",
        ],
        key="agents",
        columns=["Name", "Certificate identity", "Protects", "Admits", "State"],
        noun="agent",
    )


def protects_of(agent: RegisteredAgent) -> str:
    """Return what an agent protects, as it is typed."""
    return "?" if agent.protects is None else Protects[agent.protects.name].value


def admits_of(agent: RegisteredAgent) -> str:
    """Return whom an agent admits, in words."""
    if agent.restricted:
        return plural(agent.allowed_user_count, "user")
    return "everybody"


Name = Annotated[str, typer.Argument(metavar="NAME", help="The agent, in any case.")]


@app.command()
def show(context: typer.Context, name: Name, stale_ok: StaleOk = False) -> None:
    """Show an agent, with the users on its allow list."""
    settings = settings_of(context)
    with settings.admin() as admin:
        agent = admin.get_agent(name, stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json(agent)
        return
    settings.output.facts(
        [
            ("Name", agent.name),
            ("Certificate identity", agent.certificate_identity),
            ("Protects", protects_of(agent)),
            ("State", "enabled" if agent.enabled else "disabled"),
            ("Admits", admits_of(agent)),
            *(
                [("Groups", ", ".join(agent.allowed_groups))]
                * bool(agent.allowed_groups)
            ),
            *(
                ("Allow list" if first else "", username)
                for first, username in zip(
                    [True] + [False] * agent.allowed_user_count,
                    agent.allowed_usernames,
                    strict=False,
                )
            ),
        ]
    )


@app.command(epilog="Example: sparecode agents update vpn --restricted --allow alice")
def update(
    context: typer.Context,
    name: Name,
    *,
    protects: Annotated[
        Protects | None, typer.Option(help="What it protects from now on.")
    ] = None,
    restricted: Annotated[
        bool | None,
        typer.Option(
            "--restricted/--everybody",
            help="Admit only the users on its allow list, or everybody.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="USER", help="Onto its allow list; may repeat."),
    ] = None,
    disallow: Annotated[
        list[str] | None,
        typer.Option(metavar="USER", help="From its allow list; may repeat."),
    ] = None,
    allow_group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="All users of a group; may repeat."),
    ] = None,
    disallow_group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="From its allow list; may repeat."),
    ] = None,
) -> None:
    """Change an agent: what it protects, and whom it admits."""
    settings = settings_of(context)
    with settings.admin() as admin:
        lists = (allow, disallow, allow_group, disallow_group)
        if (protects, restricted, *lists) == (None,) * 6:
            raise UsageError("say what to change: see --help")
        commit = admin.update_agent(
            name,
            protects=None if protects is None else AgentProtects[protects.name],
            restricted=restricted,
            add_usernames=allow or (),
            remove_usernames=disallow or (),
            add_groups=allow_group or (),
            remove_groups=disallow_group or (),
            request_id=settings.request_id,
        )
    settings.output.done(f"Agent {name} changed", commit, name=name)


@app.command()
def enable(context: typer.Context, name: Name) -> None:
    """Let an agent ask again."""
    _set_enabled(context, name, enabled=True)


@app.command()
def disable(context: typer.Context, name: Name) -> None:
    """Refuse whatever an agent asks; open connections too."""
    _set_enabled(context, name, enabled=False)


def _set_enabled(context: typer.Context, name: str, *, enabled: bool) -> None:
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.update_agent(
            name, enabled=enabled, request_id=settings.request_id
        )
    state = "enabled" if enabled else "disabled"
    settings.output.done(f"Agent {name} {state}", commit, name=name, enabled=enabled)


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """Remove an agent: all that it asks is refused."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.remove_agent(name, request_id=settings.request_id)
    settings.output.done(f"Agent {name} removed", commit, name=name)


CertificateFile = Annotated[
    Path | None,
    typer.Option(
        "--certificate", metavar="FILE", help="The certificate itself (PEM; -: stdin)."
    ),
]
Fingerprint = Annotated[
    str, typer.Option(metavar="HEX", help="SHA-256 of the certificate.")
]
SerialNumber = Annotated[
    str,
    typer.Option(metavar="HEX", help="The serial number that its authority gave it."),
]


def fingerprint_of(file: Path | None, fingerprint: str, serial_number: str) -> str:
    """Return the fingerprint that was given, if exactly one mark was."""
    if sum(map(bool, (file, fingerprint, serial_number))) != 1:
        raise UsageError("give one of --certificate, --fingerprint, --serial-number")
    if file is None:
        return fingerprint
    try:
        return certificate_fingerprint(content(file))
    except ValueError as error:
        raise UsageError(f"{file} is no certificate in PEM") from error


@app.command(
    "deny-certificate",
    epilog="Example: sparecode agents deny-certificate --certificate vpn.pem",
)
def deny_certificate(
    context: typer.Context,
    *,
    certificate: CertificateFile = None,
    fingerprint: Fingerprint = "",
    serial_number: SerialNumber = "",
    note: Annotated[
        str, typer.Option(metavar="TEXT", help="Why, for those who read the list.")
    ] = "",
) -> None:
    """Refuse whoever calls with a certificate."""
    settings = settings_of(context)
    with settings.admin() as admin:
        mark = fingerprint_of(certificate, fingerprint, serial_number)
        commit = admin.deny_certificate(
            fingerprint=mark,
            serial_number=serial_number,
            note=note,
            request_id=settings.request_id,
        )
    settings.output.done(
        "The certificate is denied",
        commit,
        fingerprint=mark,
        serial_number=serial_number,
    )


@app.command("allow-certificate")
def allow_certificate(
    context: typer.Context,
    *,
    certificate: CertificateFile = None,
    fingerprint: Fingerprint = "",
    serial_number: SerialNumber = "",
) -> None:
    """Refuse a certificate no longer."""
    settings = settings_of(context)
    with settings.admin() as admin:
        mark = fingerprint_of(certificate, fingerprint, serial_number)
        commit = admin.allow_certificate(
            fingerprint=mark,
            serial_number=serial_number,
            request_id=settings.request_id,
        )
    settings.output.done(
        "The certificate is denied no longer",
        commit,
        fingerprint=mark,
        serial_number=serial_number,
    )


@app.command()
def denied(
    context: typer.Context, limit: Limit = 100, stale_ok: StaleOk = False
) -> None:
    """List the certificates that are refused."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(
            lambda size, token: admin.list_denied_certificates(
                page_size=size, page_token=token, stale_ok=stale_ok
            ),
            limit,
        )
    show_list(
        settings.output,
        page,
        lambda each: [
            "SHA-256" if each.fingerprint else "serial",
            each.fingerprint or each.serial_number,
            show_time(each.deny_time),
            each.administrator,
            each.note,
        ],
        key="certificates",
        columns=["Mark", "Certificate", "Since", "By", "Note"],
        noun="certificate",
    )
