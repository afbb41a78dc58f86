# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster import-users`: users come from another cluster."""

from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.admin.moves import is_last, move_of
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.move_files import (
    MoveId,
    NewFile,
    check_new,
    compare,
    read_file,
    slots_in,
    write_text,
)
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plural
from sparecode_client.values.moves import (
    MoveFileError,
    MoveKey,
    pieces_in,
    ticket_words,
)

app = typer.Typer(
    no_args_is_help=True,
    help="Move users here from another cluster.",
)

_FREEZE = "Next, in the cluster that has the users:"


@app.command()
def prepare(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(
            metavar="KEY", help="File of `sparecode cluster export-users key`."
        ),
    ],
    path: NewFile,
    *,
    slots: Annotated[
        str,
        typer.Option(metavar="SLOTS", help="Slots to move, such as 7, 0-2047 or all."),
    ] = "all",
    same_administrators: Annotated[
        bool,
        typer.Option(
            "--same-administrators",
            help="Vouch that an administrator there is the person of the same name here.",
        ),
    ] = False,
) -> None:
    """
    Expect users of another cluster, and write the ticket for it.

    This cluster must have no users in these slots, and serves none there until the move
    has ended. Another super administrator must approve it, if there is one; then get the
    ticket by import-users ticket.

    With --same-administrators you and the approver vouch that every administrator of the
    other cluster is the person who has the same name here, and has no other name here.
    Then a person who has seen a seed or chosen a PIN there needs approvals here, and the
    other administrators do not. Without it all of them need approvals for these tokens.
    """
    check_new(path)
    key, (first, last) = read_file(source, MoveKey.from_text), slots_in(slots)
    settings = settings_of(context)
    with settings.admin() as admin:
        ticket = admin.prepare_move(
            first,
            last,
            key,
            same_administrators=same_administrators,
            request_id=settings.request_id,
        )
    write_text(path, ticket.to_text())
    if settings.output.is_json:
        settings.output.json(
            {
                "file": str(path),
                "move_id": ticket.move_id,
                "ticket_digits": ticket_words(ticket),
            }
        )
        return
    settings.output.say(f"{path}: the ticket of the move {ticket.move_id}.")
    settings.output.say(compare(ticket))
    settings.output.say(_FREEZE)
    settings.output.say(f"  sparecode cluster export-users freeze {path}")


@app.command()
def ticket(context: typer.Context, move: MoveId, path: NewFile) -> None:
    """Write the ticket of a move again, or after its approval."""
    check_new(path)
    settings = settings_of(context)
    with settings.admin() as admin:
        found = [each for each in admin.list_moves() if each.id == move]
    if not found:
        raise UsageError(f"there is no move {move}: see sparecode cluster moves")
    write_text(path, found[0].ticket.to_text())
    if settings.output.is_json:
        settings.output.json(
            {
                "file": str(path),
                "move_id": move,
                "ticket_digits": ticket_words(found[0].ticket),
            }
        )
        return
    settings.output.say(f"{path}: the ticket of the move {move}.")
    settings.output.say(compare(found[0].ticket))
    settings.output.say(_FREEZE)
    settings.output.say(f"  sparecode cluster export-users freeze {path}")


@app.command()
def load(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(
            metavar="EXPORT", help="File of `sparecode cluster export-users write`."
        ),
    ],
) -> None:
    """
    Import the users of an export. They are not served yet.

    If it is interrupted, run it again: it goes on where it stopped.
    """
    settings, count, sent, move = settings_of(context), 0, 0, ""
    imported: dict[str, int] = {}
    ended = False
    with settings.admin() as admin:
        try:
            with path.open("rb") as file:
                for piece in pieces_in(file):
                    if not count:
                        imported = {each.id: each.pieces for each in admin.list_moves()}
                    move, ended = move_of(piece), is_last(piece)
                    # The last imported one again, and the end of this file: then a move
                    # that is over says so, and another export is refused.
                    if ended or count >= imported.get(move, 0) - 1:
                        admin.import_moved_users(piece)
                        sent += 1
                    count += 1
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from None
        except MoveFileError as error:
            raise UsageError(f"{path}: {error}") from None
    if not count:
        raise UsageError(f"{path}: the export is empty: write it again")
    if not ended:
        raise UsageError(f"{path}: the export ends too early: write it again")
    if settings.output.is_json:
        settings.output.json(
            {"file": str(path), "pieces": count, "sent": sent, "move_id": move}
        )
        return
    settings.output.say(f"{plural(count, 'piece')} of {path} are imported.")
    settings.output.say("Next:")
    settings.output.say(f"  sparecode cluster import-users activate {move} RECEIPT")


@app.command()
def activate(context: typer.Context, move: MoveId, path: NewFile) -> None:
    """
    Serve the imported users here, and write the receipt for the other cluster.

    It decides the move, forever. Another super administrator must approve it, if there is
    one; then run it again for the receipt. Keep the receipt secret until the move has
    ended in the other cluster.
    """
    check_new(path)
    settings = settings_of(context)
    with settings.admin() as admin:
        receipt = admin.activate_move(move, request_id=settings.request_id)
    write_text(path, receipt.to_text())
    if settings.output.is_json:
        settings.output.json({"file": str(path), "move_id": move})
        return
    settings.output.say(f"{path}: the receipt. This cluster serves the users now.")
    settings.output.say("Next, in the cluster that had the users:")
    settings.output.say(f"  sparecode cluster export-users end TICKET {path}")
    settings.output.say(
        "Then give the slots to this cluster in the agents' slot table."
    )


@app.command()
def cancel(context: typer.Context, move: MoveId, path: NewFile) -> None:
    """
    Cancel a move, and write the receipt with which the other cluster serves again.

    It decides the move, forever: this cluster never serves the users for it.
    """
    check_new(path)
    settings = settings_of(context)
    with settings.admin() as admin:
        receipt = admin.cancel_move(move, request_id=settings.request_id)
    write_text(path, receipt.to_text())
    if settings.output.is_json:
        settings.output.json({"file": str(path), "move_id": move})
        return
    settings.output.say(f"{path}: the receipt. This cluster never serves the users.")
    settings.output.say("Next, in the cluster that has the users:")
    settings.output.say(f"  sparecode cluster export-users end TICKET {path}")
    settings.output.say("Then delete what was imported here:")
    settings.output.say(f"  sparecode cluster export-users delete {move}")
