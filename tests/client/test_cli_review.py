# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster review` and `open` after a restore (E2)."""

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import cluster_pb2 as pb
from sparecode.v1.agents_pb2 import AcceptAttributes
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import Failure

REVIEW = "ClusterService/GetReview"
OPEN = "ClusterService/OpenCluster"
MARK = "0123456789abcdef"


@pytest.fixture
def restored(cli: Cli) -> Cli:
    cli.node.answer(
        REVIEW,
        pb.GetReviewResponse(
            cluster_id="8f8f8f8f-0000-4000-8000-000000000000",
            epoch=2,
            cause="restore",
            begin_time=Timestamp(seconds=1_800_000_000),
            state_index=1042,
            state_time=Timestamp(seconds=1_799_990_000),
            review=MARK,
            administrators=[
                pb.ReviewedAdministrator(name="root", role="super_admin", enabled=True),
                pb.ReviewedAdministrator(name="eve", role="help_desk"),
            ],
            agents=[
                pb.ReviewedAgent(
                    name="vpn",
                    identity="vpn.example",
                    enabled=True,
                    accept_attributes=AcceptAttributes(filter_id="vpn-administrators"),
                )
            ],
            disabled_users=["mallory"],
            disabled_users_count=1,
            radius_clients=[
                pb.ReviewedRadiusClient(
                    name="gate",
                    networks=["10.1.0.0/24"],
                    allow_unsigned=True,
                    allow_unsigned_proxied=True,
                    unsigned_until_signed=True,
                    secret_create_time=Timestamp(seconds=1_799_000_000),
                ),
                pb.ReviewedRadiusClient(name="switch", networks=["10.1.0.7/32"]),
            ],
            denied_certificates=[
                pb.ReviewedCertificate(
                    mark="fingerprint", value="ab" * 32, denied_by="root"
                )
            ],
        ),
    )
    cli.node.answer(OPEN, pb.OpenClusterResponse(commit=answers.COMMIT))
    return cli


def test_a_review_shows_what_to_check_and_the_next_step(restored: Cli) -> None:
    result = restored("cluster", "review")
    assert result.exit_code == 0, result.output
    for words in (
        "agents are NOT SERVED",
        "2027-01-15 05:13:20 UTC (log entry 1042)",
        "sparecode cluster export-users freeze TICKET",
        "eve",
        "mallory",
        "vpn.example",
        "vpn-administrators",
        "UNSIGNED at first, also proxied",
        "sparecode agents rotate-secret",
        f"sparecode cluster open {MARK}",
    ):
        assert words in result.stdout
    lines = [each for each in result.stdout.splitlines() if "fingerprint" not in each]
    assert max(map(len, lines)) <= 80


def test_a_recovery_is_named(restored: Cli) -> None:
    restored.node.answer(REVIEW, pb.GetReviewResponse(epoch=2, cause="recover"))
    assert "The epoch began with a recovery at" in restored("cluster", "review").stdout


def test_a_review_as_json(restored: Cli) -> None:
    answer = restored.json("cluster", "review")
    assert answer["review"] == MARK
    assert answer["open"] is False
    assert answer["state_time"] == "2027-01-15T05:13:20Z"


def test_open_sends_the_mark_of_the_review(restored: Cli) -> None:
    answer = restored.json("cluster", "open", MARK)
    assert answer == {"review": MARK, "node_id": "n2", "index": 1042}
    (request,) = restored.node.requests(OPEN)
    assert request.review == MARK
    assert request.request_id


def test_open_without_a_terminal_is_explained(restored: Cli) -> None:
    result = restored("cluster", "open")
    assert result.exit_code == 2
    assert "sparecode cluster review" in result.stderr
    assert not restored.node.requests(OPEN)


def test_a_stale_review_is_exit_code_1(restored: Cli) -> None:
    code = grpc.StatusCode.FAILED_PRECONDITION
    restored.node.answer(OPEN, Failure(code, "REVIEW_STALE", "review it again"))
    result = restored("cluster", "open", MARK)
    assert result.exit_code == 1
    assert "review it again" in result.stderr
