# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster import-users load` goes on where it stopped."""

from pathlib import Path

from sparecode.v1 import moves_pb2
from sparecode_client.values.moves import EXPORT_HEADER, framed
from tests.client.conftest import Cli

LIST, IMPORT = "MoveService/ListMoves", "MoveService/ImportMovedUsers"


def test_pieces_that_the_target_has_are_not_sent_again(
    cli: Cli, tmp_path: Path
) -> None:
    """The last one is: a move that is over must not look as if it were loaded."""
    path = tmp_path / "export"
    pieces = [
        moves_pb2.SealedPiece(move_id="m1", number=number, last=number == 4)
        for number in range(5)
    ]
    path.write_bytes(
        EXPORT_HEADER + b"".join(framed(each.SerializeToString()) for each in pieces)
    )
    moves = moves_pb2.ListMovesResponse(
        moves=[
            moves_pb2.Move(ticket=moves_pb2.MoveTicket(move_id="other"), pieces=5),
            moves_pb2.Move(ticket=moves_pb2.MoveTicket(move_id="m1"), pieces=3),
        ]
    )
    cli.node.answer(LIST, moves, moves_pb2.ListMovesResponse())
    cli.node.answer(IMPORT, moves_pb2.ImportMovedUsersResponse())

    again = cli.json("cluster", "import-users", "load", str(path))
    sent = [each.piece.number for each in cli.node.requests(IMPORT)]
    first = cli.json("cluster", "import-users", "load", str(path))

    assert sent == [2, 3, 4]
    assert (again["pieces"], again["sent"], again["move_id"]) == (5, 3, "m1")
    assert first["sent"] == 5
