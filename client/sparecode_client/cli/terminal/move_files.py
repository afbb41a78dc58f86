# SPDX-License-Identifier: Apache-2.0
"""Files of moves on the command line, and what comes next."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.new_file import new_file
from sparecode_client.cli.terminal.words import show_second
from sparecode_client.values.moves import (
    Move,
    MoveFileError,
    MoveReceipt,
    MoveState,
    MoveTicket,
    ticket_words,
)

T = TypeVar("T")

TicketFile = Annotated[
    Path, typer.Argument(metavar="TICKET", help="File that the target has prepared.")
]
NewFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="File to write, which must not exist.")
]
MoveId = Annotated[
    str, typer.Argument(metavar="MOVE", help="ID of the move: sparecode cluster moves.")
]

SLOTS = 4096

WORDS = {
    MoveState.ARRIVING: "arriving",
    MoveState.ACTIVE: "served here",
    MoveState.CANCELED: "canceled",
    MoveState.LEAVING: "frozen",
    MoveState.GONE: "gone",
    MoveState.RETURNED: "served again",
    MoveState.NEVER: "never began here",
    MoveState.LOST: "end unknown",
    MoveState.RECLAIMING: "being reclaimed",
    MoveState.CLEARED: "cleared",
}

COLUMNS = ["Move", "Slots", "State", "With", ">Users", "Began", "Ended", "Ticket"]
_ID_SHOWN = 8


def row(move: Move) -> list[str]:
    """Return a move as a row of the table."""
    ticket = move.ticket
    arriving = move.state in (
        MoveState.ARRIVING,
        MoveState.ACTIVE,
        MoveState.CANCELED,
        MoveState.LOST,
        MoveState.CLEARED,
    )
    other = ticket.source if arriving else ticket.target
    return [
        ticket.move_id,
        f"{ticket.first_slot}-{ticket.last_slot}",
        WORDS[move.state] if move.state else "unknown",
        f"{'from' if arriving else 'to'} {other[:_ID_SHOWN]}",
        str(move.users) if arriving else "-",
        show_second(move.begin_time),
        show_second(move.end_time) if move.end_time else "-",
        ticket_words(ticket),
    ]


def vouched(moves: Sequence[Move]) -> list[str]:
    """Return lines about the moves whose target has vouched for the administrators."""
    found = [f"  {each.id}" for each in moves if each.ticket.same_administrators]
    if not found:
        return []
    return [
        "Vouched for: an equal name in both clusters is the same administrator's, in:",
        *found,
    ]


def facts(move: Move) -> dict[str, object]:
    """Return what programs read of a move."""
    ticket = move.ticket
    return {
        "move_id": ticket.move_id,
        "first_slot": ticket.first_slot,
        "last_slot": ticket.last_slot,
        "source": ticket.source,
        "target": ticket.target,
        "state": move.state,
        "begin_time": move.begin_time,
        "end_time": move.end_time,
        "pieces": move.pieces,
        "complete": move.complete,
        "users": move.users,
        "same_administrators": ticket.same_administrators,
        "ticket_digits": ticket_words(ticket),
    }


def read_file(path: Path, form: Callable[[str], T]) -> T:
    """Return what a file holds. Raises `UsageError`."""
    try:
        return form(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    except MoveFileError as error:
        raise UsageError(f"{path}: {error}") from None


def ticket_in(path: Path) -> MoveTicket:
    """Return the ticket in a file. Raises `UsageError`."""
    return read_file(path, MoveTicket.from_text)


def compare(ticket: MoveTicket) -> str:
    """Return what to tell approvers of a ticket."""
    return (
        f"Its digits, for approvers to compare in both clusters: {ticket_words(ticket)}"
    )


def receipt_in(path: Path, move_id: str) -> MoveReceipt:
    """Return the receipt of a move in a file. Raises `UsageError`."""
    receipt = read_file(path, MoveReceipt.from_text)
    if receipt.move_id != move_id:
        raise UsageError(f"{path}: this is the receipt of the move {receipt.move_id}")
    return receipt


def write_text(path: Path, text: str) -> None:
    """Write a new file that only its owner can read. Raises `UsageError`."""
    with new_file(path) as file:
        file.write(text.encode())


def check_new(path: Path) -> None:
    """Refuse a file that exists, before the cluster is called. Raises `UsageError`."""
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists already: name a file that does not exist")


def slots_in(text: str) -> tuple[int, int]:
    """Return the first and last slot of `all`, `7` or `0-2047`. Raises `UsageError`."""
    first, _, last = (
        ("0", "-", str(SLOTS - 1)) if text == "all" else text.partition("-")
    )
    try:
        numbers = int(first), int(last or first)
    except ValueError:
        numbers = SLOTS, SLOTS
    if not 0 <= numbers[0] <= numbers[1] < SLOTS:
        raise UsageError(f"--slots {text}: name slots such as all, 7 or 0-2047")
    return numbers
