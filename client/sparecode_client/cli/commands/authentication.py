# SPDX-License-Identifier: Apache-2.0
"""`sparecode authenticate`: checks a passcode as an agent does."""

from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.blocking import Agent
from sparecode_client.cli.terminal.exit_codes import ExitCode
from sparecode_client.cli.terminal.options import Username
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.settings import Settings, settings_of
from sparecode_client.errors import InvalidArgument
from sparecode_client.values.authentication import Authentication, Decision

EPILOG = """\b
    Example:
      sparecode authenticate alice --agents-node n2:7300 --agents-ca ca.pem \\
        --certificate vpn.pem --key vpn.key
    """

_WORDS = {
    Decision.ACCEPTED: "ACCEPTED",
    Decision.REFUSED: "REFUSED",
    Decision.NEXT_TOKENCODE_REQUIRED: "NEXT TOKENCODE REQUIRED",
    Decision.NEW_PIN_REQUIRED: "NEW PIN REQUIRED",
}


_INSTRUCTIONS = {
    Decision.NEXT_TOKENCODE_REQUIRED: (
        "The next tokencode is also needed, because there were several failures. Wait "
        "until the token shows it."
    ),
    Decision.NEW_PIN_REQUIRED: (
        "The token has no PIN yet. Choose one, and wait for the token's next tokencode."
    ),
}


def authenticate(
    context: typer.Context,
    username: Username,
    certificate: Annotated[
        Path,
        typer.Option(
            envvar="SPARECODE_AGENT_CERTIFICATE",
            metavar="FILE",
            help="Certificate of the agent (PEM).",
        ),
    ],
    key: Annotated[
        Path,
        typer.Option(
            envvar="SPARECODE_AGENT_KEY",
            metavar="FILE",
            help="Key of that certificate (PEM).",
        ),
    ],
    agents_node: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SPARECODE_AGENT_NODES",
            metavar="HOST:PORT",
            help="Agent listener of a node; the default port is 7300. May repeat. "
            "Default: --node.",
        ),
    ] = None,
    agents_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARECODE_AGENT_CA",
            metavar="FILE",
            help="CA of the nodes' certificates on that listener (PEM). Default: --ca.",
        ),
    ] = None,
    *,
    passcode_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the passcode from FILE (-: stdin) instead of prompting for it.",
        ),
    ] = None,
    new_pin_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="If a new PIN is required, read it from FILE instead of prompting for it.",
        ),
    ] = None,
    next_tokencode_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="If the next tokencode is required, read it from FILE (-: stdin) "
            "instead of prompting for it.",
        ),
    ] = None,
) -> None:
    """
    Check a user's passcode, as an agent does.

    Prompts for the passcode without echo: the PIN and a tokencode or emergency code, or
    the code alone if the token needs no PIN. Prints ACCEPTED (exit code 0) or REFUSED
    (exit code 1). An accepted code is spent.

    Prompts for the next step if one is required: the next tokencode after several
    failures, or a new PIN and the next tokencode if the token has no PIN.
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
        if answer.next_step:
            answer = _continued(
                settings, agent, answer, new_pin_file, next_tokencode_file
            )
    if settings.output.is_json:
        settings.output.json(
            {
                "decision": answer.decision,
                "authentication_id": answer.authentication_id,
            }
        )
    else:
        settings.output.say(_WORDS[answer.decision])
    if not answer.accepted:
        raise typer.Exit(ExitCode.REFUSED)


def _continued(
    settings: Settings,
    agent: Agent,
    answer: Authentication,
    new_pin_file: Path | None,
    next_tokencode_file: Path | None,
) -> Authentication:
    """Prompt for the next step until the input has a valid form; return the decision."""
    interactive = new_pin_file is None and next_tokencode_file is None
    while True:
        settings.output.note(_INSTRUCTIONS[answer.decision])
        new_pin = ""
        if answer.decision is Decision.NEW_PIN_REQUIRED:
            new_pin = secret("New PIN", new_pin_file, confirm=new_pin_file is None)
        tokencode = secret("Next tokencode", next_tokencode_file)
        try:
            return agent.continue_authentication(answer, tokencode, new_pin=new_pin)
        except InvalidArgument as error:
            # The node has not judged the input, so the user can type it again.
            if not interactive or error.field not in ("new_pin", "next_tokencode"):
                raise
            settings.output.note(f"{error}")
