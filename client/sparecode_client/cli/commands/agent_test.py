# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents test`: one passcode through the door that an agent uses."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.completion import complete_agent
from sparecode_client.cli.terminal.exit_codes import ExitCode, UsageError
from sparecode_client.cli.terminal.options import Username
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.prompts import content, secret
from sparecode_client.cli.terminal.settings import Settings, settings_of
from sparecode_client.connection import http, radius
from sparecode_client.connection.channels import address
from sparecode_client.connection.radius import RadiusCode
from sparecode_client.values.agents import RegisteredAgent
from sparecode_client.values.users import Attempt

app = typer.Typer()

NO_ANSWER = "no_answer"
NO_DECISION = "no_decision"
_DECISIONS = {RadiusCode.ACCEPT: "accepted", RadiusCode.REJECT: "refused"}
_CHALLENGED = "next_step_required"
_REASONS = {
    "CREDENTIALS": "The key is unknown, has ended, or does not work from this machine. "
    "Create another: sparecode agents key {name}",
    "CERTIFICATE_REFUSED": "The certificate is denied. See: sparecode agents denied",
}
"""What to do if HTTP has no decision, by the reason."""
_COUNTED = {
    "wrong_secret": "The secret is wrong. Replace it: sparecode agents rotate-secret {name}",
    "proxy_state": "A proxy on the way has removed the Message-Authenticator.",
    "no_message_authenticator": (
        "A proxy on the way has removed the Message-Authenticator."
    ),
    "overloaded": "The node is overloaded. See: sparecode cluster status",
    "unavailable": "The node cannot decide now. See: sparecode cluster status",
}
"""Why a packet got no answer, by what the node has counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """The answer to one request, and why it was given."""

    agent: str
    username: str
    outcome: str
    """`accepted`, `refused`, `next_tokencode_required`, `no_answer` and so on."""
    message: str
    """What the client shows to the user; empty: nothing."""
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where an agent calls that no shared secret identifies, and with what."""

    http: str | None
    radsec: str | None
    """Both None: it calls by gRPC."""
    nodes: tuple[str, ...]
    ca: Path | None
    certificate: Path | None
    key: Path | None
    bearer_file: Path | None


@app.command(
    "test",
    epilog="Example: sparecode agents test vpn alice --secret-file secret --server n1",
    short_help="Send a passcode as an agent does, and explain the answer.",
)
def check(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the agent; letter case does not matter.",
            autocompletion=complete_agent,
        ),
    ],
    username: Username,
    *,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="RADIUS listener of a node; the default port is 1812.",
        ),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Shared secret of the RADIUS client."),
    ] = None,
    by_http: Annotated[
        str | None,
        typer.Option(
            "--http",
            metavar="HOST:PORT",
            help="Call by HTTP: listener of a node; the default port is 7305.",
        ),
    ] = None,
    by_radsec: Annotated[
        str | None,
        typer.Option(
            "--radsec",
            metavar="HOST:PORT",
            help="Call by RadSec: listener of a node; the default port is 2083.",
        ),
    ] = None,
    bearer_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Bearer key for --http, instead of a certificate."
        ),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARECODE_AGENT_CERTIFICATE",
            metavar="FILE",
            help="Certificate of another agent (PEM).",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARECODE_AGENT_KEY",
            metavar="FILE",
            help="Key of that certificate (PEM).",
        ),
    ] = None,
    agents_node: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SPARECODE_AGENT_NODES",
            metavar="HOST:PORT",
            help="Agent listener of a node; the default port is 7300. May repeat.",
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
    passcode_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the passcode from FILE (-: stdin) instead of prompting for it.",
        ),
    ] = None,
) -> None:
    """
    Send one passcode through the door that an agent uses, and explain the answer.

    For a RADIUS client, run it on a machine in the client's networks, with the client's
    secret. For another agent, give its certificate and key, or with `--http` its bearer
    key; without `--http` and `--radsec` it calls by gRPC. It is a real sign-in: an
    accepted code is spent, and a wrong passcode counts as a failure. A next step, such
    as a new PIN, is not continued.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        agent = admin.get_agent(name)
        earlier = {each.authentication_id for each in _attempts(admin, username)}
        if agent.radius is not None:
            tested = _by_radius(
                admin, agent, username, server, secret_file, passcode_file
            )
        else:
            tested = _by_credentials(
                settings,
                agent,
                username,
                door=Door(
                    http=by_http,
                    radsec=by_radsec,
                    nodes=tuple(agents_node or ()),
                    ca=agents_ca,
                    certificate=certificate,
                    key=key,
                    bearer_file=bearer_file,
                ),
                passcode_file=passcode_file,
            )
        if tested.outcome not in (NO_ANSWER, NO_DECISION):
            tested = _explained(admin, tested, earlier)
    _show(settings.output, tested)


def _show(output: Output, tested: Tested) -> None:
    """Show the answer, and exit with what it means."""
    if output.is_json:
        output.json(tested)
    else:
        output.say(tested.outcome.replace("_", " ").upper())
        for words in (tested.message, tested.explanation):
            if words:
                output.say(words)
    if tested.outcome in (NO_ANSWER, NO_DECISION):
        raise typer.Exit(ExitCode.UNAVAILABLE)
    if tested.outcome != "accepted":
        raise typer.Exit(ExitCode.REFUSED)


def _attempts(admin: Admin, username: str) -> tuple[Attempt, ...]:
    return admin.explain_user(username).attempts


def _explained(admin: Admin, tested: Tested, earlier: set[str]) -> Tested:
    """Return the outcome with the words of the attempt that it has made."""
    for attempt in _attempts(admin, tested.username):
        if attempt.agent == tested.agent and attempt.authentication_id not in earlier:
            return Tested(
                agent=tested.agent,
                username=tested.username,
                outcome=attempt.outcome,
                message=tested.message,
                explanation=f"{attempt.words} {attempt.next_step}".strip(),
            )
    return tested


def _by_radius(
    admin: Admin,
    agent: RegisteredAgent,
    username: str,
    server: str | None,
    secret_file: Path | None,
    passcode_file: Path | None,
) -> Tested:
    if server is None or secret_file is None:
        raise UsageError(
            f"agent {agent.name} is a RADIUS client: use --server HOST:PORT and "
            "--secret-file FILE"
        )
    try:
        host, _, port = address(server, radius.RADIUS_PORT).rpartition(":")
        reply = radius.ask(
            host.strip("[]"),
            int(port),
            secret=content(secret_file).strip(),
            username=username,
            passcode=secret("Passcode", passcode_file),
        )
    except ImportError:
        raise UsageError(
            "RADIUS needs an extra: pip install sparecode[radius]"
        ) from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"{server}: {error.strerror}") from None
    if reply is None:
        outcome, explanation = NO_ANSWER, _silence(agent, admin.get_agent(agent.name))
    else:
        outcome, explanation = _DECISIONS.get(reply.code, _CHALLENGED), ""
    return Tested(
        agent=agent.name,
        username=username,
        outcome=outcome,
        message=reply.message if reply else "",
        explanation=explanation,
    )


def _by_credentials(
    settings: Settings,
    agent: RegisteredAgent,
    username: str,
    *,
    door: Door,
    passcode_file: Path | None,
) -> Tested:
    """Call as an agent that no shared secret identifies."""
    with_key = door.http is not None and door.bearer_file is not None
    if not with_key and (door.certificate is None or door.key is None):
        raise UsageError(
            f"agent {agent.name} proves itself by a certificate: use --certificate "
            "FILE and --key FILE"
        )
    if door.http is not None:
        return _by_http(settings, agent, username, door, passcode_file)
    if door.radsec is not None:
        return _by_radsec(settings, agent, username, door, passcode_file)
    return _by_grpc(settings, agent, username, door, passcode_file)


def _tls(settings: Settings, door: Door) -> ssl.SSLContext:
    """Return what trusts the nodes, and shows the agent's certificate if it has no key."""
    try:
        tls = ssl.create_default_context(cafile=settings.agents_ca(door.ca))
        if door.bearer_file is None and door.certificate is not None:
            tls.load_cert_chain(door.certificate, door.key)
    except OSError as error:  # Also `ssl.SSLError`.
        raise UsageError(f"certificate or CA cannot be used: {error}") from None
    return tls


def _by_http(
    settings: Settings,
    agent: RegisteredAgent,
    username: str,
    door: Door,
    passcode_file: Path | None,
) -> Tested:
    server = door.http or ""
    host, port = _host_and_port(server, http.HTTP_PORT)
    bearer = content(door.bearer_file).decode().strip() if door.bearer_file else ""
    try:
        reply = http.ask(
            host,
            port,
            context=_tls(settings, door),
            bearer=bearer,
            username=username,
            passcode=secret("Passcode", passcode_file),
        )
    except (ValueError, OSError) as error:
        raise UsageError(f"{server}: {error}") from None
    return Tested(
        agent=agent.name,
        username=username,
        outcome=reply.decision or NO_DECISION,
        message=f"{reply.reason}: {reply.message}" if reply.reason else "",
        explanation=_REASONS.get(reply.reason, "").format(name=agent.name),
    )


def _by_radsec(
    settings: Settings,
    agent: RegisteredAgent,
    username: str,
    door: Door,
    passcode_file: Path | None,
) -> Tested:
    server = door.radsec or ""
    host, port = _host_and_port(server, radius.RADSEC_PORT)
    try:
        reply = radius.ask_by_tls(
            host,
            port,
            context=_tls(settings, door),
            username=username,
            passcode=secret("Passcode", passcode_file),
        )
    except ImportError:
        raise UsageError(
            "RADIUS needs an extra: pip install sparecode[radius]"
        ) from None
    except (ValueError, OSError) as error:
        raise UsageError(f"{server}: {error}") from None
    return Tested(
        agent=agent.name,
        username=username,
        outcome=_DECISIONS.get(reply.code, _CHALLENGED) if reply else NO_ANSWER,
        message=reply.message if reply else "",
        explanation=""
        if reply
        else "The node has closed the connection, or cannot decide now. See: sparecode "
        "cluster status",
    )


def _host_and_port(server: str, default: int) -> tuple[str, int]:
    try:
        host, _, port = address(server, default).rpartition(":")
        return host.strip("[]"), int(port)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _silence(before: RegisteredAgent, after: RegisteredAgent) -> str:
    """Return why a packet got no answer, as far as the node knows that was asked."""
    earlier, counts = _packets(before), _packets(after)
    for verdict, words in _COUNTED.items():
        if counts.get(verdict, 0) > earlier.get(verdict, 0):
            return words.format(name=before.name)
    networks = ", ".join(before.radius.networks) if before.radius else ""
    return (
        f"The called node has seen no packet of {before.name}. This machine must be in "
        f"its networks ({networks}), UDP must pass to the server, and the server's "
        "node.toml must have [radius]. If another node is the server, see there: "
        f"sparecode --node SERVER agents show {before.name}"
    )


def _packets(agent: RegisteredAgent) -> Mapping[str, int]:
    return agent.radius_activity.packets if agent.radius_activity else {}


def _by_grpc(
    settings: Settings,
    agent: RegisteredAgent,
    username: str,
    door: Door,
    passcode_file: Path | None,
) -> Tested:
    if door.certificate is None or door.key is None:
        raise TypeError("checked before")
    listed = tuple(part.strip() for each in door.nodes for part in each.split(","))
    with settings.agent(
        nodes=listed, ca=door.ca, certificate=door.certificate, key=door.key
    ) as caller:
        answer = caller.authenticate(username, secret("Passcode", passcode_file))
    return Tested(
        agent=agent.name,
        username=username,
        outcome=answer.decision.value,
        message="",
        explanation="",
    )
