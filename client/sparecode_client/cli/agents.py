# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents`: the programs that check passcodes."""

import enum
from typing import Annotated

import typer

from sparecode_client.cli.options import Limit, StaleOk, pages
from sparecode_client.cli.settings import settings_of
from sparecode_client.cli.words import plural
from sparecode_client.values import AgentProtects

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
) -> None:
    """Let the agent with a certificate authenticate users."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.register_agent(
            name,
            identity,
            protects=AgentProtects[protects.name],
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
        page, complete = pages(
            lambda size, token: admin.list_agents(
                page_size=size, page_token=token, stale_ok=stale_ok
            ),
            limit,
        )
    if settings.output.is_json:
        settings.output.json(
            {"agents": page.items, "complete": complete, "position": page.position}
        )
        return
    settings.output.table(
        ["Name", "Certificate identity", "Protects", "State"],
        (
            [
                agent.name,
                agent.certificate_identity,
                "?" if agent.protects is None else Protects[agent.protects.name].value,
                "enabled" if agent.enabled else "disabled",
            ]
            for agent in page.items
        ),
    )
    if not complete:
        settings.output.note(
            f"There are more than {plural(limit, 'agent')}: see --limit."
        )
    settings.output.position(page.position)
