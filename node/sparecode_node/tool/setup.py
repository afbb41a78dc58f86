# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node init` and `draw-ring`: set up a node or a key ring."""

import asyncio
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparecode_node.config import Config
from sparecode_node.config_section import Address, ConfigError, Section
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership import joiner, preparation
from sparecode_node.membership.founder import make_authorities
from sparecode_node.membership.preparation import StartError
from sparecode_node.rpc.tickets import PREFIX as TICKET_PREFIX
from sparecode_node.rpc.tickets import TICKET_CHARACTERS_MAX
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.tool.terminal import EXIT_USAGE, fail, tool

# What `setup` and `init` have in common.
Administrator = Annotated[
    str | None,
    typer.Option(
        "--administrator",
        help="Name of the first administrator. Default: prompt for it.",
        metavar="NAME",
    ),
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        help="Read the administrator's password from FILE, mode 0600. Default: prompt "
        "for it.",
        metavar="FILE",
    ),
]
Join = Annotated[
    str | None,
    typer.Option(
        "--join",
        help="Join a cluster with this ticket, or the ticket in this file (-: stdin).",
        metavar="TICKET",
    ),
]
Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        help="Another name or address at which this node is reached, for its "
        "certificate. May repeat.",
        metavar="HOST",
    ),
]
Beside = Annotated[
    list[str] | None,
    typer.Option(
        "--beside",
        help="Prepare to be added to a cluster; names a member of it. May repeat.",
        metavar="NODE=HOST:PORT",
    ),
]


def next_step(config: Config) -> str:
    """Return what the operator does next to start the new cluster."""
    if len(config.members) == 1:
        return (
            f"Node {config.node.id} is ready: start it. Then create a ticket for each "
            "node that joins:\nsparecode cluster ticket NODE HOST:PORT"
        )
    return (
        f"Node {config.node.id} is ready: start it and the other nodes.\n"
        "All nodes need the same key ring: copy it to each, or let the others join by\n"
        "ticket."
    )


def draw_ring(
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="File to write, which must not exist."),
    ],
) -> None:
    """
    Draw a key ring for a cluster set up without tickets.

    Name the file in `[keys] given` on every node. Each node copies it at its first
    start, and keeps its own copy from then on. Nodes that join by ticket get the key
    ring from a member, and do not need this file.
    """
    if path.exists():
        fail(f"{path} exists; key rings are never overwritten: choose another name")
    try:
        KeyRing.draw(SystemEntropy()).save(path)
    except KeyRingError as error:
        fail(str(error))
    typer.echo(
        f"Wrote the key ring of a new cluster to {path}.\nName it in [keys] given on "
        "every node, and run `sparecode-node init` on the first."
    )


def now() -> dt.datetime:
    """Return the machine's time."""
    return dt.datetime.fromtimestamp(SystemClock().now_ms() / 1000, dt.UTC)


def found_cluster(
    config: Config,
    *,
    administrator: str,
    password: str,
    new_authority: bool,
    hosts: Sequence[str],
) -> None:
    """
    Prepare this node to begin a cluster. Raises `StartError` and `InvalidFieldError`.

    Call `refuse_founding` first.
    """
    if new_authority:
        make_authorities(config, hosts=hosts, now=now())
    asyncio.run(
        preparation.initialize(
            config,
            administrator=administrator,
            password=password,
            entropy=SystemEntropy(),
        )
    )


def audit_words(config: Config) -> str:
    """Return the key that the founder of a cluster must keep. Raises `StartError`."""
    return (
        "Keep this key with the authority's certificate; `sparecode audit verify` needs "
        f"it:\n{preparation.audit_keys(config)}"
    ).rstrip()


def bundle_words(config: Config) -> str:
    """Return how to export the recovery bundle."""
    return (
        "The recovery bundle is not exported yet. It holds the key ring and the\n"
        "authorities' keys, encrypted. No backup can be restored without it. Export it,\n"
        f"and keep it offline:\n{tool(config)} bundle FILE"
    )


def read_ticket(source: str) -> str:
    """
    Return the text of a ticket. Raises `StartError`.

    *source* is the ticket, the file that holds it, or - for stdin.
    """
    try:
        if source == "-":
            if text := sys.stdin.read(TICKET_CHARACTERS_MAX).strip():
                return text
            raise StartError(
                "no ticket came from stdin: the command before the pipe tells why"
            )
        if source.startswith(TICKET_PREFIX):
            return source
        with Path(source).open() as file:
            return file.read(TICKET_CHARACTERS_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(
            f"--join {source}: {getattr(error, 'strerror', error)}"
        ) from error


def joined_words(config: Config, joined: joiner.JoinResult) -> str:
    """Return who admitted this node to which cluster."""
    return (
        f"{config.node.id} was admitted to cluster {joined.cluster_id} by {joined.by}."
    )


def join_cluster(config: Config, source: str, hosts: list[str]) -> None:
    """Join a cluster by a ticket, and print what to do next. For *source* see above."""
    try:
        joined = joiner.join(
            config,
            read_ticket(source),
            hosts=hosts,
            clock=SystemClock(),
            entropy=SystemEntropy(),
        )
    except StartError as error:
        fail(str(error))
    typer.echo(
        f"{joined_words(config, joined)}\n"
        "Start it: it votes as soon as it has caught up. To follow its progress:\n"
        "sparecode cluster members"
    )


def begin_beside(config: Config, values: list[str]) -> None:
    """Prepare this node to be added by the given members, and print what to do next."""
    members: dict[NodeId, Address] = {}
    for each in values:
        node_id, _, address = each.partition("=")
        section = Section(Path("--beside"), each, {node_id: address})
        try:
            members[NodeId(node_id)] = section.address(node_id)
        except ConfigError:
            fail(f"--beside {each}: not NODE=HOST:PORT", EXIT_USAGE)
    try:
        joiner.begin_beside(
            config, {node_id: str(address) for node_id, address in members.items()}
        )
    except StartError as error:
        fail(str(error))
    typer.echo(
        f"{config.node.id} is ready to be added to the cluster of {', '.join(members)}, "
        f"with its present key ring.\nAdd it, and start it:\n"
        f"sparecode cluster add {config.node.id} {config.members[config.node.id]}"
    )
