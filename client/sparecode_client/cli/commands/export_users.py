# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster export-users` and `moves`: users go to another cluster."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.move_files import (
    COLUMNS,
    MoveId,
    NewFile,
    TicketFile,
    check_new,
    compare,
    facts,
    receipt_in,
    row,
    slots_in,
    ticket_in,
    vouched,
    write_text,
)
from sparecode_client.cli.terminal.new_file import new_file
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plural
from sparecode_client.values.moves import MoveState, key_words, ticket_words

app = typer.Typer(
    no_args_is_help=True,
    help="Move users from here to another cluster.",
)

ENDS = {
    MoveState.GONE: "The other cluster serves the users. In a day, delete them here: "
    "sparecode cluster export-users delete",
    MoveState.RETURNED: "The move was canceled: this cluster serves the users again.",
    MoveState.NEVER: "The move had not begun here, and never will.",
}


def _words(state: MoveState | None) -> str:
    words = None if state is None else ENDS.get(state)
    return words or "The move has ended."


def moves(context: typer.Context) -> None:
    """List moves of users, the newest first."""
    settings = settings_of(context)
    with settings.admin() as admin:
        found = admin.list_moves()
    if settings.output.is_json:
        settings.output.json({"moves": [facts(each) for each in found]}, "moves")
        return
    settings.output.table(COLUMNS, (row(each) for each in found))
    for line in vouched(found):
        settings.output.say(line)


@app.command()
def key(context: typer.Context, path: NewFile) -> None:
    """
    Write the public key that verifies exports of this cluster.

    The other cluster needs it to prepare a move. It is not secret, but take it there by
    a way that nobody can change it on: a person who replaces it can bring in other users.
    """
    check_new(path)
    settings = settings_of(context)
    with settings.admin() as admin:
        found = admin.get_move_key()
    write_text(path, found.to_text())
    if settings.output.is_json:
        settings.output.json(
            {
                "file": str(path),
                "cluster_id": found.cluster_id,
                "key_digits": key_words(found.public_key),
            }
        )
        return
    settings.output.say(f"{path}: the key of cluster {found.cluster_id}.")
    settings.output.say(
        "Its digits, for the approver of prepare to compare: "
        f"{key_words(found.public_key)}"
    )
    settings.output.say("Next, in the cluster that the users go to:")
    settings.output.say(f"  sparecode cluster import-users prepare {path} TICKET")


@app.command()
def freeze(context: typer.Context, ticket: TicketFile) -> None:
    """
    Stop serving the users of a ticket, until the move has ended.

    From now on none of them can sign in anywhere, and nothing of theirs can be changed.
    Another super administrator must approve it, if there is one.
    """
    settings, wanted = settings_of(context), ticket_in(ticket)
    # Before the call, which may wait for an approval.
    if not settings.output.is_json:
        settings.output.note(compare(wanted))
        if wanted.same_administrators:
            settings.output.note(
                "There an administrator of this cluster counts as the person of the same "
                "name."
            )
    with settings.admin() as admin:
        commit = admin.freeze_users(wanted, request_id=settings.request_id)
    settings.output.done(
        f"The users of the move {wanted.move_id} are frozen",
        commit,
        move_id=wanted.move_id,
        ticket_digits=ticket_words(wanted),
    )
    settings.output.note(f"Next: sparecode cluster export-users write {ticket} EXPORT")


@app.command()
def write(context: typer.Context, ticket: TicketFile, path: NewFile) -> None:
    """
    Write the frozen users of a ticket to a file, encrypted for the other cluster.

    Only the nodes of that cluster can open it, and only until the move has ended.
    """
    check_new(path)
    settings, wanted = settings_of(context), ticket_in(ticket)
    with settings.admin() as admin, new_file(path) as file:

        def begin() -> None:
            file.seek(0)
            file.truncate()

        pieces = admin.export_moved_users(
            wanted.move_id, begin, file.write, request_id=settings.request_id
        )
    if settings.output.is_json:
        settings.output.json({"file": str(path), "pieces": pieces})
        return
    settings.output.say(f"{path}: {plural(pieces, 'piece')}.")
    settings.output.say("Next, in the cluster that the users go to:")
    settings.output.say(f"  sparecode cluster import-users load {path}")


@app.command()
def end(
    context: typer.Context,
    ticket: TicketFile,
    receipt: Annotated[
        Path,
        typer.Argument(
            metavar="RECEIPT", help="File that the target has written at the end."
        ),
    ],
) -> None:
    """
    End a move, as the receipt of the other cluster says.

    After its `activate`, this cluster tells callers that the users have moved. After its
    `cancel`, it serves them again.
    """
    settings, wanted = settings_of(context), ticket_in(ticket)
    proof = receipt_in(receipt, wanted.move_id)
    with settings.admin() as admin:
        state = admin.end_move(wanted, proof, request_id=settings.request_id)
    if settings.output.is_json:
        settings.output.json({"move_id": wanted.move_id, "state": state})
        return
    settings.output.say(_words(state))


@app.command()
def reclaim(
    context: typer.Context,
    move: MoveId,
    *,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Reason, for the audit log.")
    ],
    slots: Annotated[
        str | None,
        typer.Option(
            metavar="SLOTS",
            help="Take back these slots alone, such as 7 or 0-99. The others stay as they "
            "are.",
        ),
    ] = None,
) -> None:
    """
    Serve the slots of a move again, because no other cluster ever will.

    Use it only if no node of the other cluster can ever start again, and no backup of it
    will be restored: otherwise a tokencode could be accepted in both clusters. The
    emergency codes of the users become void, because the other cluster may have accepted
    some; if it lives, cancel the move there instead. In the target of a canceled move it
    clears the slots, once what was imported is deleted. In a target whose restore lost
    how the move ended, it serves the users of a complete import: use it only if the
    source no longer has them. Another super administrator must approve it, if there is
    one; then run it again.

    If the other cluster has moved the users of some slots on to a third one, name the
    other slots: two clusters would serve the users who have moved on.
    """
    first, last = (None, None) if slots is None else slots_in(slots)
    settings = settings_of(context)
    with settings.admin() as admin:
        reclaim_part = partial(
            admin.reclaim_move, move, reason, first_slot=first, last_slot=last
        )
        state = reclaim_part(request_id=settings.request_id)
        while state is MoveState.RECLAIMING:
            state = reclaim_part()
    if settings.output.is_json:
        settings.output.json({"move_id": move, "state": state})
        return
    settings.output.say(
        "This cluster serves the slots again. Their users need new codes."
    )


@app.command()
def delete(context: typer.Context, move: MoveId) -> None:
    """
    Delete the users who have moved away: a day after the move has ended.

    If a move to this cluster was canceled, or a restore lost how it ended, delete what
    had been imported. After a restore, see first that the other cluster still has the
    users: another super administrator must approve it, if there is one; then run it again.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        while admin.delete_moved_users(move):
            pass
    if settings.output.is_json:
        settings.output.json({"move_id": move, "left": 0})
        return
    settings.output.say(f"No user of the move {move} is left in this cluster.")
