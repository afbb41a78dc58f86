# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster rotate-keys`: output and next steps."""

import json

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import cluster_pb2 as pb
from tests.client.conftest import Cli
from tests.client.fakes import Failure

ROTATE = "ClusterService/RotateKeys"
NOT_HELD = Failure(
    grpc.StatusCode.FAILED_PRECONDITION,
    "KEY_NOT_HELD",
    "n3 does not hold the new key: it did not answer (DEADLINE_EXCEEDED); nothing "
    "was changed; see to that node, then try again",
)
DISTRIBUTED = pb.RotateKeysResponse(
    phase=pb.ROTATION_PHASE_HANDING_OUT, key_id=1, done=3, total=3
)
HALF = pb.RotateKeysResponse(
    phase=pb.ROTATION_PHASE_RESEALING, key_id=2, done=60, total=120
)
SEALED = pb.RotateKeysResponse(
    phase=pb.ROTATION_PHASE_RETIRING,
    key_id=2,
    done=120,
    total=120,
    retire_time=Timestamp(seconds=1_800_000_000),
)
DONE = pb.RotateKeysResponse(
    phase=pb.ROTATION_PHASE_DONE, key_id=2, done=120, total=120
)


def test_end_of_the_old_key_and_next_steps_are_shown(cli: Cli) -> None:
    """(P5) Every line fits into 80 columns or is wrapped."""
    cli.node.answer(ROTATE, ([DISTRIBUTED, HALF, SEALED], None))
    result = cli("cluster", "rotate-keys")
    assert result.exit_code == 0, result.output
    assert "Everything is sealed with key 2." in result.stdout
    assert "The old key is removed at 2027-01-15 08:00:00 UTC" in result.stdout
    assert "sparecode-node audit-keys" in result.stdout
    (request,) = cli.node.requests(ROTATE)
    assert not request.at_once
    assert not request.keep_old_key


def test_at_once_waits_until_the_old_key_is_removed(cli: Cli) -> None:
    """If a node ends the stream early, the call is repeated under the same request id."""
    cli.node.answer(ROTATE, ([DISTRIBUTED, HALF], None), ([SEALED, DONE], None))
    result = cli("--output", "json", "cluster", "rotate-keys", "--at-once")
    assert result.exit_code == 0, result.output
    progress = json.loads(result.stdout)
    assert (progress["phase"], progress["key_id"]) == ("done", 2)
    first, second = cli.node.requests(ROTATE)
    assert first == second
    assert first.at_once


def test_member_that_cannot_receive_the_key_is_named(cli: Cli) -> None:
    cli.node.answer(ROTATE, ([], NOT_HELD))
    result = cli("cluster", "rotate-keys")
    assert result.exit_code == 1
    assert "n3 does not hold the new key" in result.stderr
    assert "nothing was changed" in " ".join(result.stderr.split())


def test_interruption_notes_that_the_cluster_continues(cli: Cli) -> None:
    gone = Failure(grpc.StatusCode.PERMISSION_DENIED, "ROLE", "may not")
    cli.node.answer(ROTATE, ([DISTRIBUTED, HALF], gone))
    result = cli("cluster", "rotate-keys")
    assert result.exit_code != 0
    assert "the cluster continues on its own" in " ".join(result.stderr.split())


def test_values_that_do_not_open_are_listed_with_a_command(cli: Cli) -> None:
    """(P5) Within 80 columns; the exit code says that the rotation is not done."""
    stopped = pb.RotateKeysResponse(
        phase=pb.ROTATION_PHASE_RESEALING,
        key_id=2,
        done=117,
        total=120,
        stopped=True,
        unopened=[
            pb.UnopenedSeal(kind="seed", row="000123456789"),
            pb.UnopenedSeal(kind="codes", row="a-set", serial="000123456789"),
            pb.UnopenedSeal(kind="second_factor", row="dora"),
        ],
    )
    cli.node.answer(ROTATE, ([DISTRIBUTED, HALF, stopped], None))
    result = cli("cluster", "rotate-keys", "--at-once")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert max(map(len, lines[-4:])) <= 80
    assert [" ".join(line.split()) for line in lines[-4:]] == [
        "Value Of Replace it with",
        "seed token 000123456789 sparecode tokens delete 000123456789",
        "codes token 000123456789 sparecode emergency disable 000123456789",
        "second factor administrator dora sparecode admins second-factor remove dora",
    ]
    assert "117 of 120 values are sealed with key 2" in result.stdout
    assert "the old key stays" in result.stderr
    assert len(cli.node.requests(ROTATE)) == 1
