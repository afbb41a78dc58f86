# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster import-users` and `moves`: what they send and show."""

from pathlib import Path

import grpc
import pytest

from sparecode.v1 import moves_pb2
from sparecode_client.values.moves import EXPORT_HEADER, MoveKey, MoveTicket, framed
from tests.client.conftest import Cli
from tests.client.fakes import Failure

LIST, IMPORT = "MoveService/ListMoves", "MoveService/ImportMovedUsers"
PREPARE = "MoveService/PrepareMove"
OTHER_EXPORT = Failure(
    grpc.StatusCode.FAILED_PRECONDITION, "MOVE_EXPORT", "this export differs"
)


def write_export(path: Path, count: int, *, pieces: int) -> None:
    """Write the first pieces of an export."""
    written = [
        moves_pb2.SealedPiece(move_id="m1", number=number, last=number == pieces - 1)
        for number in range(count)
    ]
    path.write_bytes(
        EXPORT_HEADER + b"".join(framed(each.SerializeToString()) for each in written)
    )


def imported(pieces: int) -> moves_pb2.ListMovesResponse:
    """Return two moves, of which one has got some pieces."""
    return moves_pb2.ListMovesResponse(
        moves=[
            moves_pb2.Move(ticket=moves_pb2.MoveTicket(move_id="other"), pieces=5),
            moves_pb2.Move(ticket=moves_pb2.MoveTicket(move_id="m1"), pieces=pieces),
        ]
    )


def test_pieces_that_the_target_has_are_not_sent_again(
    cli: Cli, tmp_path: Path
) -> None:
    """The last one is: a move that is over must not look as if it were loaded."""
    path = tmp_path / "export"
    write_export(path, 5, pieces=5)
    cli.node.answer(LIST, imported(3), moves_pb2.ListMovesResponse())
    cli.node.answer(IMPORT, moves_pb2.ImportMovedUsersResponse())

    again = cli.json("cluster", "import-users", "load", str(path))
    sent = [each.piece.number for each in cli.node.requests(IMPORT)]
    first = cli.json("cluster", "import-users", "load", str(path))

    assert sent == [2, 3, 4]
    assert (again["pieces"], again["sent"], again["move_id"]) == (5, 3, "m1")
    assert first["sent"] == 5


def test_the_end_of_a_shorter_export_is_sent(cli: Cli, tmp_path: Path) -> None:
    """The cluster sees that it is another export, or that the move is over."""
    path = tmp_path / "export"
    write_export(path, 2, pieces=2)
    cli.node.answer(LIST, imported(5))
    cli.node.answer(IMPORT, OTHER_EXPORT)

    refused = cli("cluster", "import-users", "load", str(path))

    assert [each.piece.number for each in cli.node.requests(IMPORT)] == [1]
    assert refused.exit_code
    assert "imported" not in refused.stdout


def test_an_export_without_its_end_is_not_reported_as_imported(
    cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "export"
    write_export(path, 2, pieces=5)
    cli.node.answer(LIST, imported(5))
    refused = cli("cluster", "import-users", "load", str(path))
    assert refused.exit_code
    assert "the export ends too early" in refused.stderr


@pytest.mark.parametrize("options", [[], ["--same-administrators"]])
def test_administrators_are_vouched_for_by_an_option_alone(
    cli: Cli, tmp_path: Path, options: list[str]
) -> None:
    """(I10) The ticket tells the source, and its digits cover it."""
    key, path = tmp_path / "key", tmp_path / "ticket"
    key.write_text(MoveKey(cluster_id="east", key_id=1, public_key=bytes(32)).to_text())
    wanted = bool(options)
    ticket = moves_pb2.MoveTicket(move_id="m1", same_administrators=wanted)
    cli.node.answer(PREPARE, moves_pb2.PrepareMoveResponse(ticket=ticket))
    cli.json("cluster", "import-users", "prepare", str(key), str(path), *options)
    [request] = cli.node.requests(PREPARE)
    assert request.same_administrators is wanted
    assert MoveTicket.from_text(path.read_text()).same_administrators is wanted


def test_moves_say_who_was_vouched_for(cli: Cli) -> None:
    """(I10) In 80 columns."""
    moves = [
        moves_pb2.Move(
            ticket=moves_pb2.MoveTicket(move_id=move_id, same_administrators=vouched)
        )
        for move_id, vouched in (("m1", True), ("m2", False))
    ]
    cli.node.answer(LIST, *[moves_pb2.ListMovesResponse(moves=moves)] * 2)
    shown = cli("cluster", "moves").stdout
    assert shown.splitlines()[-2:] == [
        "Vouched for: an equal name in both clusters is the same administrator's, in:",
        "  m1",
    ]
    assert max(map(len, shown.splitlines())) <= 80
    found = cli.json("cluster", "moves")["moves"]
    assert [each["same_administrators"] for each in found] == [True, False]
