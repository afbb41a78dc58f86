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
