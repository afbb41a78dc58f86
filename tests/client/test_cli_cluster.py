# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster`: what changes the cluster."""

import grpc

from sparecode.v1 import cluster_pb2
from tests.client.conftest import Cli
from tests.client.fakes import Failure

TRANSFER = "ClusterService/TransferPrimary"


def test_transfer_says_who_leads(cli: Cli) -> None:
    cli.node.answer(TRANSFER, cluster_pb2.TransferPrimaryResponse(primary="n2"))

    result = cli("cluster", "transfer", "n2")

    assert result.exit_code == 0, result.output
    assert result.stdout == "n2 is the primary.\n"
    (request,) = cli.node.requests(TRANSFER)
    assert request.target == "n2"
    assert request.request_id


def test_transfer_to_whoever_is_best_as_json(cli: Cli) -> None:
    cli.node.answer(TRANSFER, cluster_pb2.TransferPrimaryResponse(primary="n3"))

    assert cli.json("cluster", "transfer") == {"primary": "n3"}
    (request,) = cli.node.requests(TRANSFER)
    assert request.target == ""


def test_a_transfer_that_cannot_be_is_exit_code_1(cli: Cli) -> None:
    code = grpc.StatusCode.FAILED_PRECONDITION
    cli.node.answer(TRANSFER, Failure(code, "MEMBER_NOT_READY", "n2 is behind"))

    result = cli("cluster", "transfer", "n2")

    assert result.exit_code == 1
    assert "n2 is behind" in result.stderr


STATUS = "ClusterService/GetStatus"


def test_status_says_who_is_of_an_older_release(cli: Cli) -> None:
    levels = {"n1": 2, "n2": 2, "n3": 1}
    cli.node.answer(
        STATUS,
        cluster_pb2.GetStatusResponse(
            node_id="n1",
            quorum=True,
            feature_level=1,
            members=[
                cluster_pb2.Member(node_id=node, reachable=True, feature_level=level)
                for node, level in levels.items()
            ],
        ),
    )

    shown = cli("cluster", "status").stdout

    assert "Feature level 1; 2 is known, and waits for n3: upgrade them." in shown


def test_status_does_not_speak_of_levels_when_all_is_well(cli: Cli) -> None:
    member = cluster_pb2.Member(node_id="n1", reachable=True, feature_level=2)
    answer = cluster_pb2.GetStatusResponse(
        node_id="n1", quorum=True, feature_level=2, members=[member]
    )
    cli.node.answer(STATUS, answer)

    assert "evel" not in cli("cluster", "status").stdout
