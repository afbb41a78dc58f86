# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents`: agents and denied certificates."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.commands import (
    agent_keys,
    agent_test,
    new_agent,
    radius_clients,
)
from sparecode_client.cli.commands.agent_keys import key_facts
from sparecode_client.cli.commands.new_agent import Protects
from sparecode_client.cli.commands.radius_clients import attribute_facts, radius_facts
from sparecode_client.cli.terminal.completion import complete_agent
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk
from sparecode_client.cli.terminal.prompts import content
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.switches import remove_named, set_enabled
from sparecode_client.cli.terminal.words import plural, show_time
from sparecode_client.values.agents import (
    AgentProtects,
    RegisteredAgent,
    certificate_fingerprint,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Manage agents: the programs that check passcodes, such as VPN gateways.",
    short_help="Manage agents, the programs that check passcodes.",
)
app.command(
    "add",
    epilog="Example: sparecode agents add --radius vpn --network 10.0.0.0/8",
    short_help="Add an agent: by certificate, RADIUS or HTTP.",
)(new_agent.add)
# The name that 0.1.0 has.
app.command("register", hidden=True)(new_agent.add)
app.add_typer(radius_clients.app)
app.add_typer(agent_keys.app)
app.add_typer(agent_test.app)


@app.command("list")
def list_(
    context: typer.Context, limit: Limit = 100, stale_ok: StaleOk = False
) -> None:
    """List agents by name."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(admin.list_agents, limit, stale_ok=stale_ok)
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
    """Return what an agent protects, as on the command line."""
    return "?" if agent.protects is None else Protects[agent.protects.name].value


def admits_of(agent: RegisteredAgent) -> str:
    """Return the users that an agent admits, in words."""
    if agent.restricted:
        return plural(agent.allowed_user_count, "user")
    return "all users"


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the agent; letter case does not matter.",
        autocompletion=complete_agent,
    ),
]


@app.command()
def show(context: typer.Context, name: Name, stale_ok: StaleOk = False) -> None:
    """Show an agent and its allow list."""
    settings = settings_of(context)
    with settings.admin() as admin:
        agent = admin.get_agent(name, stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json(agent)
        return
    settings.output.facts(
        [
            ("Name", agent.name),
            (
                "Identity" if agent.radius else "Certificate identity",
                agent.certificate_identity,
            ),
            ("Protects", protects_of(agent)),
            ("State", "enabled" if agent.enabled else "disabled"),
            ("Admits", admits_of(agent)),
            *radius_facts(agent),
            *attribute_facts(agent),
            *key_facts(agent),
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
        Protects | None, typer.Option(help="What the agent protects.")
    ] = None,
    restricted: Annotated[
        bool | None,
        typer.Option(
            "--restricted/--everybody",
            help="Admit only the users on the allow list, or all users.",
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="USER", help="Add a user to the allow list. May repeat."),
    ] = None,
    disallow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="USER", help="Remove a user from the allow list. May repeat."
        ),
    ] = None,
    allow_group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP", help="Add a group to the allow list. May repeat."
        ),
    ] = None,
    disallow_group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP", help="Remove a group from the allow list. May repeat."
        ),
    ] = None,
    end_keys: Annotated[
        bool,
        typer.Option(
            "--end-keys", help="End all its bearer keys. Its certificate still works."
        ),
    ] = False,
    filter_id: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Filter-Id of an Access-Accept; empty: none."
        ),
    ] = None,
    class_attribute: Annotated[
        str | None,
        typer.Option(
            "--class", metavar="TEXT", help="Class of an Access-Accept; empty: none."
        ),
    ] = None,
    session_timeout: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Session-Timeout of an Access-Accept; 0: none.",
        ),
    ] = None,
) -> None:
    """Change what an agent protects, admits or is told."""
    settings = settings_of(context)
    with settings.admin() as admin:
        lists = (allow, disallow, allow_group, disallow_group)
        told = (filter_id, class_attribute, session_timeout)
        if (protects, restricted, *lists, *told) == (None,) * 9 and not end_keys:
            raise UsageError("nothing to change: see --help for the options")
        commit = admin.update_agent(
            name,
            protects=None if protects is None else AgentProtects[protects.name],
            restricted=restricted,
            add_usernames=allow or (),
            remove_usernames=disallow or (),
            add_groups=allow_group or (),
            remove_groups=disallow_group or (),
            end_keys=end_keys,
            filter_id=filter_id,
            class_attribute=class_attribute,
            session_timeout=None
            if session_timeout is None
            else timedelta(seconds=session_timeout),
            request_id=settings.request_id,
        )
    settings.output.done(f"Agent {name} changed", commit, name=name)


@app.command()
def enable(context: typer.Context, name: Name) -> None:
    """Accept requests of an agent again."""
    set_enabled(context, "Agent", name, Admin.update_agent, enabled=True)


@app.command()
def disable(context: typer.Context, name: Name) -> None:
    """Refuse all requests of an agent, on open connections too."""
    set_enabled(context, "Agent", name, Admin.update_agent, enabled=False)


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """Remove an agent. All its requests are refused."""
    remove_named(context, "Agent", name, Admin.remove_agent)


CertificateFile = Annotated[
    Path | None,
    typer.Option(
        "--certificate", metavar="FILE", help="The certificate (PEM; -: stdin)."
    ),
]
Fingerprint = Annotated[
    str, typer.Option(metavar="HEX", help="SHA-256 fingerprint of the certificate.")
]
SerialNumber = Annotated[
    str,
    typer.Option(metavar="HEX", help="Serial number of the certificate."),
]


def fingerprint_of(file: Path | None, fingerprint: str, serial_number: str) -> str:
    """Return the fingerprint, if the options name the certificate in exactly one way."""
    if sum(map(bool, (file, fingerprint, serial_number))) != 1:
        raise UsageError("use one of --certificate, --fingerprint and --serial-number")
    if file is None:
        return fingerprint
    try:
        return certificate_fingerprint(content(file))
    except ValueError as error:
        raise UsageError(f"{file} is not a PEM certificate") from error


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
        str, typer.Option(metavar="TEXT", help="Reason, shown in the list.")
    ] = "",
) -> None:
    """Deny a certificate: all calls with it are refused."""
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
    """Remove a certificate from the deny list."""
    settings = settings_of(context)
    with settings.admin() as admin:
        mark = fingerprint_of(certificate, fingerprint, serial_number)
        commit = admin.allow_certificate(
            fingerprint=mark,
            serial_number=serial_number,
            request_id=settings.request_id,
        )
    settings.output.done(
        "The certificate is not denied any more",
        commit,
        fingerprint=mark,
        serial_number=serial_number,
    )


@app.command()
def denied(
    context: typer.Context, limit: Limit = 100, stale_ok: StaleOk = False
) -> None:
    """List the denied certificates."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(admin.list_denied_certificates, limit, stale_ok=stale_ok)
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
        columns=["Type", "Certificate", "Since", "By", "Note"],
        noun="certificate",
    )
