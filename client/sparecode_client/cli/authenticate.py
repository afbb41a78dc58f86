# SPDX-License-Identifier: Apache-2.0
"""`sparecode authenticate`: acts as an agent."""

from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.failures import ExitCode
from sparecode_client.cli.options import Username
from sparecode_client.cli.prompts import secret
from sparecode_client.cli.settings import settings_of
from sparecode_client.values import Decision

EPILOG = (
    "Example: sparecode authenticate alice --agents-node n2:7300 --agents-ca ca.pem "
    "--certificate vpn.pem --key vpn.key"
)

_WORDS = {
    Decision.ACCEPTED: "ACCEPTED",
    Decision.REFUSED: "REFUSED",
    Decision.NEXT_TOKENCODE_REQUIRED: "NEXT TOKENCODE REQUIRED",
    Decision.NEW_PIN_REQUIRED: "NEW PIN REQUIRED",
}


def authenticate(
    context: typer.Context,
    username: Username,
    certificate: Annotated[
        Path,
        typer.Option(
            envvar="SPARECODE_AGENT_CERTIFICATE",
            metavar="FILE",
            help="The agent's certificate (PEM).",
        ),
    ],
    key: Annotated[
        Path,
        typer.Option(
            envvar="SPARECODE_AGENT_KEY", metavar="FILE", help="Its key (PEM)."
        ),
    ],
    agents_node: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SPARECODE_AGENT_NODES",
            metavar="HOST:PORT",
            help="A node's listener for agents; port 7300 if not given. May repeat. "
            "Default: --node.",
        ),
    ] = None,
    agents_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARECODE_AGENT_CA",
            metavar="FILE",
            help="The CA of the nodes' certificates there (PEM). Default: --ca.",
        ),
    ] = None,
    passcode_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the passcode from FILE (-: stdin) instead of asking.",
        ),
    ] = None,
) -> None:
    """
    Try a user's passcode as an agent would.

    Asks for the passcode without echo: PIN and tokencode, or PIN and emergency code;
    without a PIN, the code alone. Says ACCEPTED (exit code 0) or REFUSED (1). A code
    that is accepted is used up.
    """
    settings = settings_of(context)
    nodes = tuple(
        part.strip() for value in agents_node or () for part in value.split(",")
    )
    with settings.agent(
        nodes=nodes, ca=agents_ca, certificate=certificate, key=key
    ) as agent:
        answer = agent.authenticate(
            username,
            secret("Passcode", passcode_file),
            request_id=settings.request_id,
        )
    if settings.output.is_json:
        settings.output.json(answer)
    else:
        settings.output.say(_WORDS[answer.decision])
    if not answer.accepted:
        raise typer.Exit(ExitCode.REFUSED)
