# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node init`, where a cluster is there already."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sparecode_node.config import Config
from sparecode_node.config_section import Address, ConfigError, Section
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership import joiner
from sparecode_node.membership.preparation import StartError
from sparecode_node.rpc.tickets import PREFIX as TICKET_PREFIX
from sparecode_node.rpc.tickets import TICKET_CHARACTERS_MAX
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.tool.terminal import EXIT_USAGE, fail

Beside = Annotated[
    list[str] | None,
    typer.Option(
        "--beside",
        help="A member of the cluster that has this node added; may repeat.",
        metavar="NODE=HOST:PORT",
    ),
]


def next_step(config: Config) -> str:
    """Say what makes a cluster of a node that is about to begin one."""
    if len(config.members) == 1:
        return (
            f"Ready to begin: start node {config.node.id}. Others join it, each with a "
            "ticket:\nsparecode cluster ticket NODE"
        )
    return (
        f"Ready to begin: start node {config.node.id} and the others.\n"
        "Every node needs the same key ring: join by tickets, or give it to each."
    )


def draw_ring(
    path: Annotated[Path, typer.Argument(help="Where to write it, mode 0600.")],
) -> None:
    """
    Draw the key ring of a new cluster, for nodes that are given it from the start.

    `[keys] given` names it on each node, which keeps a copy of its own from then on.
    Nodes that join by tickets do not need it.
    """
    if path.exists():
        fail(f"{path} exists already; a ring is never drawn over another one")
    try:
        KeyRing.draw(SystemEntropy()).save(path)
    except KeyRingError as error:
        fail(str(error))
    typer.echo(
        f"{path} holds a new cluster's first key. Give it to every node as\n"
        "[keys] given, and begin on the first with `sparecode-node init`."
    )


def join_cluster(config: Config, source: str, hosts: list[str]) -> None:
    """Have this node admitted by a ticket, and say what to do next."""
    try:
        if source == "-":
            ticket = sys.stdin.read(TICKET_CHARACTERS_MAX)
        elif source.startswith(TICKET_PREFIX):
            ticket = source
        else:
            with Path(source).open() as file:
                ticket = file.read(TICKET_CHARACTERS_MAX)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"--join {source}: {getattr(error, 'strerror', error)}")
    try:
        joined = joiner.join(
            config, ticket, hosts=hosts, clock=SystemClock(), entropy=SystemEntropy()
        )
    except StartError as error:
        fail(str(error))
    typer.echo(
        f"{config.node.id} was admitted to cluster {joined.cluster_id} by {joined.by}.\n"
        "Start it: it catches up, and votes as soon as it has. See how far it is:\n"
        "sparecode cluster members"
    )


def begin_beside(config: Config, values: list[str]) -> None:
    """Have this node begin among members of which it was told, and say what is next."""
    members: dict[NodeId, Address] = {}
    for each in values:
        node_id, _, address = each.partition("=")
        section = Section(Path("--beside"), each, {node_id: address})
        try:
            members[NodeId(node_id)] = section.address(node_id)
        except ConfigError:
            fail(f"--beside {each}: must be NODE=HOST:PORT", EXIT_USAGE)
    try:
        joiner.begin_beside(
            config, {node_id: str(address) for node_id, address in members.items()}
        )
    except StartError as error:
        fail(str(error))
    typer.echo(
        f"{config.node.id} begins beside {', '.join(members)}, with the key ring that "
        f"it has.\nHave it added, and start it:\nsparecode cluster add {config.node.id} "
        f"{config.members[config.node.id]}"
    )
