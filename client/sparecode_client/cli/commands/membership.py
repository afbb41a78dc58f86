# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster members`, `ticket`, `add`, `remove` and `watch`."""

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.cluster_status import COLUMNS, health, row, summary
from sparecode_client.cli.terminal.completion import complete_member
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.options import StaleOk
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plain, show_second
from sparecode_client.connection.channels import PEERS_PORT
from sparecode_client.connection.channels import address as with_port
from sparecode_client.errors import Unavailable
from sparecode_client.values.cluster import ClusterStatus

app = typer.Typer()

REMOVE_WITHIN = timedelta(seconds=30)
"""Time to hand over the primary and to reach the remaining members."""
WATCH_SHORTEST_S, WATCH_LONGEST_S = 0.2, 60.0
_UNREACHED_PAUSE_S = 1.0
_CALL_SHORTEST = timedelta(seconds=5)
_LOOKS_A_CALL = 3
"""Minimum number of status records per call, so that calls do not shorten the interval."""
_WATCHED = (*COLUMNS[:-1],)
"""Without the version, to fit into 80 columns: it changes least."""


@app.command()
def members(context: typer.Context, stale_ok: StaleOk = False) -> None:
    """
    List the members and the nodes that are joining.

    A voter counts towards the quorum. A learner receives the log and becomes a voter
    when it has caught up.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        members_list = admin.list_members(stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json({"members": members_list}, "members")
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


def peers_address(text: str) -> str:
    """Return HOST:PORT, with the default port of the peers listener."""
    try:
        return with_port(text, PEERS_PORT)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


@app.command()
def ticket(
    context: typer.Context,
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE", help="Id of the new node, which no node has had before."
        ),
    ],
    address: Annotated[
        str,
        typer.Argument(
            help="Address of its peers listener, as other members reach it; the default "
            "port is 7301.",
            metavar="HOST[:PORT]",
        ),
    ],
    *,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Further host name or IP address for its certificate. May repeat.",
            metavar="NAME",
        ),
    ] = None,
    with_authority: Annotated[
        bool,
        typer.Option(
            "--with-authority",
            help="Also hand over the keys of the cluster's authorities. The node can then "
            "make a certificate for any member and any agent.",
        ),
    ] = False,
) -> None:
    """
    Create a ticket that lets one new node join.

    The ticket works once, within 15 minutes, and only for a node at this address. It is
    the only output on stdout, for a pipe or a file. Keep it as secret as a password: it
    gives access to the key ring.

    To set up the node at once: sparecode cluster ticket n2 HOST | ssh root@HOST
    sparecode-node setup --join -

    Only super administrators create tickets. If there is another super administrator, they
    must approve: run the same command again after the approval.
    """
    settings = settings_of(context)
    address = peers_address(address)
    with settings.admin() as admin:
        join_ticket = admin.create_join_ticket(
            node,
            address,
            hosts=host or (),
            with_authority=with_authority,
            request_id=settings.request_id,
        )
    if settings.output.is_json:
        settings.output.json(
            {
                "node_id": node,
                "address": address,
                "ticket": join_ticket.ticket,
                "end_time": join_ticket.end_time,
            }
        )
        return
    settings.output.say(join_ticket.ticket)
    if _is_piped():
        return  # The command behind the pipe uses it.
    settings.output.note(
        f"Works once, until {show_second(join_ticket.end_time)}. On {node}, run:"
    )
    settings.output.note("    sparecode-node setup --join FILE-WITH-THE-TICKET")


def _is_piped() -> bool:
    """Return whether stdout is a pipe to another command."""
    try:
        return stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)
    except (OSError, ValueError):  # It is no file.
        return False


@app.command()
def add(
    context: typer.Context,
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE", help="Id of the new node, which no node has had before."
        ),
    ],
    address: Annotated[
        str,
        typer.Argument(
            help="Address of its peers listener, as other members reach it.",
            metavar="HOST:PORT",
        ),
    ],
) -> None:
    """
    Add a node that has its certificate and the key ring.

    Use it for machines that are set up without a ticket. On the new machine, run
    `sparecode-node init --beside`, then start the node.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        index = admin.add_member(node, address, request_id=settings.request_id)
    if settings.output.is_json:
        settings.output.json({"node_id": node, "address": address, "index": index})
        return
    settings.output.say(f"{node} was added to the cluster (log index {index}).")
    settings.output.say(
        "Start it with this cluster's key ring. It catches up, then becomes a voter."
    )


@app.command()
def remove(
    context: typer.Context,
    node: Annotated[
        str,
        typer.Argument(
            metavar="NODE",
            help="Member to remove permanently.",
            autocompletion=complete_member,
        ),
    ],
    *,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask for confirmation.")
    ] = False,
    rotate_keys: Annotated[
        bool,
        typer.Option(
            "--rotate-keys",
            help="The machine may be in the wrong hands: also replace the ring's key, and "
            "record that the authorities whose keys it has had are due.",
        ),
    ] = False,
) -> None:
    """
    Remove a member permanently, whether it runs or not.

    Its id is never used again: a repaired machine joins as a new node. If the member is
    the primary, another member becomes the primary first.

    The member has had the key ring, and perhaps the authorities' keys. If it may be in
    the wrong hands, add --rotate-keys. The policy rotate_after_removal always replaces
    the ring's key. The policy replace_authorities_after_removal starts to replace the
    authorities: `sparecode cluster status` names the next step.

    If it turns out later that a removed member is in the wrong hands, run the command
    again with --rotate-keys.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        if not yes:
            if settings.output.is_json or not sys.stdin.isatty():
                raise UsageError(
                    "cannot ask for confirmation without a terminal: add --yes to confirm"
                )
            typer.confirm(f"Remove {node} permanently", abort=True)
        removal = admin.remove_member(
            node,
            rotate_keys=rotate_keys,
            request_id=settings.request_id,
            within=REMOVE_WITHIN,
        )
    if settings.output.is_json:
        settings.output.json({"node_id": node, "removed": True, **asdict(removal)})
        return
    settings.output.say(
        f"{node} was removed. Stop it and wipe its disk, which still holds the key ring "
        "and the state."
    )
    if removal.new_key_id:
        settings.output.say(
            f"Key {removal.new_key_id} is active, and the cluster replaces the old one. "
            "To follow it: sparecode cluster rotate-keys"
        )
    elif removal.rotation_problem:
        settings.output.say(f"The key was not replaced: {removal.rotation_problem}")
    else:
        settings.output.say(
            "If it may be in the wrong hands: sparecode cluster rotate-keys --at-once"
        )
    if removal.due_authorities:
        settings.output.say(
            "It has had the keys of the authorities for "
            f"{' and '.join(removal.due_authorities)}. Replace these: "
            "docs/runbooks/new-authority.md. Until then, sparecode cluster status reminds "
            "of them."
        )
    else:
        settings.output.say(
            "If it had the authorities' keys, replace the authorities, too: "
            "docs/runbooks/new-authority.md"
        )


@app.command(
    "keep-authorities",
    epilog="Example: sparecode cluster keep-authorities n3 --reason 'disk destroyed'",
    short_help="Record why authorities stay that a removed member has had.",
)
def keep_authorities(
    context: typer.Context,
    node: Annotated[
        str,
        typer.Argument(metavar="NODE", help="Removed member that has had their keys."),
    ],
    *,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, for the audit log.")
    ],
) -> None:
    """
    Record why the authorities stay, although a removed member has had their keys.

    They are then no longer shown as due. Anyone with these keys can make a certificate
    for any member and any agent, so another super administrator must approve it, if
    there is one.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.keep_authorities(node, reason, request_id=settings.request_id)
    settings.output.done(
        f"The authorities stay whose keys {node} has had", commit, node_id=node
    )


@app.command(
    "replace-authorities",
    epilog="Example: sparecode cluster replace-authorities n3",
    short_help="Replace authorities whose keys a removed member has had.",
)
def replace_authorities(
    context: typer.Context,
    node: Annotated[
        str,
        typer.Argument(metavar="NODE", help="Removed member that has had their keys."),
    ],
    *,
    finish: Annotated[
        bool, typer.Option("--finish", help="End the trust in the old authorities.")
    ] = False,
) -> None:
    """
    Start to replace the authorities whose keys a removed member has had.

    A member that has the keys makes their successors, and all members trust both. The
    policy replace_authorities_after_removal does it at the removal. The runbook
    new-authority.md describes the next steps. Then --finish ends the trust in the old
    authorities: certificates that these signed are refused from then on.

    Another super administrator must approve both, if there is one.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.replace_authorities(
            node, finish=finish, request_id=settings.request_id
        )
    words = (
        f"The authorities whose keys {node} has had are trusted no longer"
        if finish
        else f"The authorities whose keys {node} has had get successors"
    )
    settings.output.done(words, commit, node_id=node)


@app.command()
def watch(
    context: typer.Context,
    interval: Annotated[
        float,
        typer.Option(
            help="Time between two status records.",
            metavar="SECONDS",
            min=WATCH_SHORTEST_S,
            max=WATCH_LONGEST_S,
        ),
    ] = 1.0,
    count: Annotated[
        int,
        typer.Option(
            help="Stop after this many status records (0: at Ctrl-C).",
            metavar="NUMBER",
            min=0,
        ),
    ] = 0,
) -> None:
    """
    Show the status of every member until Ctrl-C.

    The status is as the answering node sees it. In a pipe or a file, the status records
    follow each other. With --output json, each is one line.
    """
    settings = settings_of(context)
    console = Console(highlight=False, markup=False, emoji=False)
    live = None
    if console.is_terminal and not settings.output.is_json:
        live = Live(console=console, auto_refresh=False)
    count_shown = 0

    def take(status: ClusterStatus) -> None:
        nonlocal count_shown
        if count and count_shown >= count:
            return
        count_shown += 1
        if settings.output.is_json:
            settings.output.line(status, "members")
        elif live is not None:
            live.update(status_view(status), refresh=True)
        else:
            # Not by Rich: it would end the event loop of this call if the reader of the
            # pipe is gone, and the command would wait forever.
            with console.capture() as captured:
                console.print(*[""] * (count_shown > 1), status_view(status), sep="\n")
            sys.stdout.write(captured.get())
            sys.stdout.flush()
        if count and count_shown >= count:
            raise _EnoughSeen

    def missed(words: str) -> None:
        if live is None:
            settings.output.note(words)
        else:
            live.update(Text(words), refresh=True)

    display = live or contextlib.nullcontext()
    with (
        settings.admin() as admin,
        display,
        contextlib.suppress(KeyboardInterrupt, _EnoughSeen),
    ):
        _watch(admin, take, missed, timedelta(seconds=interval))


class _EnoughSeen(Exception):  # noqa: N818 - nothing is wrong.
    """The requested number of status records has been shown."""


def _watch(
    admin: Admin,
    take: Callable[[ClusterStatus], object],
    missed: Callable[[str], object],
    interval: timedelta,
) -> None:
    """Watch until interrupted: call again when a call ends or a node goes down."""
    while True:
        try:
            # Within this time, the display may be outdated without a message.
            within = max(_CALL_SHORTEST, _LOOKS_A_CALL * interval)
            admin.watch_status(take, interval=interval, within=within)
        except Unavailable as error:
            words = plain(error.words)
            missed(f"{words[:1].upper()}{words[1:]}. Retrying.")
            time.sleep(_UNREACHED_PAUSE_S)


def status_view(status: ClusterStatus) -> Group:
    """Return one status record for the terminal."""
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
    state = health(status)
    return Group(
        Text(f"{now}  {summary(status)}"),
        Text(state.words, state.style),
        Text(),
        table,
    )
