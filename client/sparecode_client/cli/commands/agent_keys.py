# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents key`: a bearer key, for agents that call by HTTP."""

from datetime import timedelta
from typing import Annotated

import typer

from sparecode_client.cli.terminal.completion import complete_agent
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.options import time_option
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import When, show_second
from sparecode_client.values.agents import NewAgentKey, RegisteredAgent

app = typer.Typer()


@app.command(
    "key",
    epilog="Example: sparecode agents key portal --overlap 1d",
    short_help="Give an agent a new bearer key, and print it.",
)
def create_key(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the agent; letter case does not matter.",
            autocompletion=complete_agent,
        ),
    ],
    *,
    overlap: Annotated[
        When | None,
        time_option("How long the previous key still works. Default: not at all."),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            metavar="NETWORK",
            help="An address or network that the key works from. Default: any.",
        ),
    ] = None,
) -> None:
    """
    Give an agent a new bearer key for calls by HTTP, and print it.

    A key stands in for a certificate. With `--overlap` the previous key still works for
    that long, so that you can change the program in between. Keys that were replaced
    earlier keep their ends; without `--overlap` they stop at once, too. The new key is
    the only output on stdout, and no command prints it again.
    """
    value = timedelta(0) if overlap is None else overlap.value
    if not isinstance(value, timedelta):
        raise UsageError("--overlap takes a duration, such as 1d")
    settings = settings_of(context)
    with settings.admin() as admin:
        new = admin.create_agent_key(
            name,
            overlap=value,
            networks=network or (),
            request_id=settings.request_id,
        )
    show_key(settings.output, name, new)


def show_key(output: Output, name: str, new: NewAgentKey) -> None:
    """Print the key of an agent, alone on stdout."""
    if output.is_json:
        output.json({"name": name, "key": new.key, "commit": new.commit})
        return
    output.say(new.key)
    output.note(f"This is the bearer key of agent {name}. No command prints it again.")


def key_facts(agent: RegisteredAgent) -> list[tuple[str, str]]:
    """Return what `agents show` tells of an agent's keys; empty: it has none."""
    keys = agent.keys
    if keys is None:
        return []
    facts = []
    if keys.create_time is not None:
        facts.append(("Bearer key since", show_second(keys.create_time)))
    if keys.networks:
        facts.append(("Key works from", ", ".join(keys.networks)))
    if keys.former_end_time is not None:
        facts.append(("Old key works until", show_second(keys.former_end_time)))
    return facts
