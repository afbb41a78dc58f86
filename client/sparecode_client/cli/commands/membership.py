# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster members|ticket|add|remove|watch`: members that come and go."""

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.cluster_status import COLUMNS, row, summary
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.options import StaleOk
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plain, show_second
from sparecode_client.errors import Unavailable
from sparecode_client.values.cluster import ClusterStatus

app = typer.Typer()

REMOVE_WITHIN = timedelta(seconds=30)
"""The primary hands over before it goes, and what stays must be in contact."""
WATCH_SHORTEST_S, WATCH_LONGEST_S = 0.2, 60.0
_UNREACHED_PAUSE_S = 1.0
_CALL_SHORTEST = timedelta(seconds=5)
_LOOKS_A_CALL = 3
"""A call that ended before its second look would look more often than asked for."""
_WATCHED = (*COLUMNS[:-1],)
"""Without the version: it changes least, and eighty columns are few."""


@app.command()
def members(context: typer.Context, stale_ok: StaleOk = False) -> None:
    """
    List the members, and the nodes that are about to become one.

    A voter counts for the quorum. A learner is sent everything, and votes as soon
    as it has caught up.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        members_list = admin.list_members(stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json({"members": members_list})
        return
    settings.output.table(
        ["Node", "Standing", "Address"],
        (
            [
                member.node_id,
                "?" if member.standing is None else member.standing.value,
                member.address,
            ]
            for member in members_list
        ),
    )


@app.command()
def ticket(
    context: typer.Context,
    node: Annotated[
        str, typer.Argument(help="The new node's id: one that no node had before.")
    ],
) -> None:
    """
    Make a ticket with which one new node joins.

    Good once, within 15 minutes. It alone goes to stdout, so write it to a file. Whoever
    has it is given the key ring, so carry it as you would carry a password.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        join_ticket = admin.create_join_ticket(node, request_id=settings.request_id)
    if settings.output.is_json:
        settings.output.json(
            {
                "node_id": node,
                "ticket": join_ticket.ticket,
                "end_time": join_ticket.end_time,
            }
        )
        return
    settings.output.say(join_ticket.ticket)
    settings.output.note(
        f"Good once, until {show_second(join_ticket.end_time)}. On {node}:"
    )
    settings.output.note(
        "    sparecode-node --config node.toml init --join FILE-WITH-THE-TICKET"
    )


@app.command()
def add(
    context: typer.Context,
    node: Annotated[
        str, typer.Argument(help="The new node's id: one that no node had before.")
    ],
    address: Annotated[
        str,
        typer.Argument(
            help="Where members reach its peers listener.", metavar="HOST:PORT"
        ),
    ],
) -> None:
    """
    Add a node that has its certificate and the key ring already.

    For machines that are set up by other means than a ticket: there, run
    sparecode-node init --beside, and start the node then.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        index = admin.add_member(node, address, request_id=settings.request_id)
    if settings.output.is_json:
        settings.output.json({"node_id": node, "address": address, "index": index})
        return
    settings.output.say(f"{node} shall be a member (log index {index}).")
    settings.output.say(
        "Start it with this cluster's key ring: it catches up, and then votes."
    )


@app.command()
def remove(
    context: typer.Context,
    node: Annotated[str, typer.Argument(help="The member that leaves for good.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """
    Have a member leave for good, dead or alive.

    Its id does not come back: a machine that is repaired joins as a new node. If it
    is the primary, another one leads first.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        if not yes:
            if settings.output.is_json or not sys.stdin.isatty():
                raise UsageError("no terminal to ask at: add --yes if you mean it")
            typer.confirm(f"Remove {node} for good", abort=True)
        admin.remove_member(node, request_id=settings.request_id, within=REMOVE_WITHIN)
    if settings.output.is_json:
        settings.output.json({"node_id": node, "removed": True})
        return
    settings.output.say(f"{node} is no member any more. Stop it, and wipe its disk:")
    settings.output.say("it still holds the key ring and the state.")


@app.command()
def watch(
    context: typer.Context,
    interval: Annotated[
        float,
        typer.Option(
            help="Seconds between two looks.", min=WATCH_SHORTEST_S, max=WATCH_LONGEST_S
        ),
    ] = 1.0,
    count: Annotated[
        int, typer.Option(help="End after so many looks (0: until Ctrl-C).", min=0)
    ] = 0,
) -> None:
    """
    Watch every member until Ctrl-C.

    As the node that answers sees it. With --output json, a line for each look.
    """
    settings = settings_of(context)
    console = Console(highlight=False, markup=False, emoji=False)
    live = Live(console=console, auto_refresh=False)
    count_shown = 0

    def take(status: ClusterStatus) -> None:
        nonlocal count_shown
        if count and count_shown >= count:
            return
        count_shown += 1
        if settings.output.is_json:
            settings.output.line(status)
        else:
            live.update(picture(status), refresh=True)
        if count and count_shown >= count:
            raise _EnoughSeen

    def missed(words: str) -> None:
        if settings.output.is_json:
            settings.output.note(words)
        else:
            live.update(Text(words), refresh=True)

    with settings.admin() as admin:
        if not settings.output.is_json:
            live.start()
        try:
            _watch(admin, take, missed, timedelta(seconds=interval))
        except (KeyboardInterrupt, _EnoughSeen):
            pass
        finally:
            live.stop()


class _EnoughSeen(Exception):  # noqa: N818 - nothing is wrong.
    """So many looks were wished for."""


def _watch(
    admin: Admin,
    take: Callable[[ClusterStatus], object],
    missed: Callable[[str], object],
    interval: timedelta,
) -> None:
    """Watch, over calls that end and nodes that go."""
    while True:
        try:
            # So long a picture may be of the past before it is said that none comes.
            within = max(_CALL_SHORTEST, _LOOKS_A_CALL * interval)
            admin.watch_status(take, interval=interval, within=within)
        except Unavailable as error:
            words = plain(error.words)
            missed(f"{words[:1].upper()}{words[1:]}. Trying again.")
            time.sleep(_UNREACHED_PAUSE_S)


def picture(status: ClusterStatus) -> Group:
    """Return one look, for the terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in _WATCHED:
        table.add_column(
            column.removeprefix(">"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
        )
    for member in status.members:
        table.add_row(*(plain(cell) for cell in row(member)[: len(_WATCHED)]))
    now = f"{datetime.now().astimezone():%H:%M:%S}"
    return Group(Text(f"{now}  {summary(status)}"), Text(), table)
