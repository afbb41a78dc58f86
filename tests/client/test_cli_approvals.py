# SPDX-License-Identifier: Apache-2.0
"""`sparecode approvals`, and the message to an administrator who needs one."""

from pathlib import Path

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sparecode.v1 import administrators_pb2 as pb
from sparecode_client import ApprovalNeeded, AsyncAdmin
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import Failure, FakeNode

SERVICE = "AdministratorService"
APPROVALS = pb.ListApprovalsResponse(
    approvals=[
        pb.Approval(
            approval_id=7,
            author="root",
            action="UpdatePolicy",
            target="policy",
            description="version 2: lock 15m -> 30m",
            ask_time=answers.at(answers.END),
            end_time=answers.at(answers.END),
        ),
        pb.Approval(
            approval_id=8,
            author="dora",
            action="RequestBulkIssue",
            target="2 tokens",
            description="codes for 2 tokens",
            serials=["11", "22"],
            usernames=["alice", ""],
            end_time=answers.at(answers.END),
            approver="root",
        ),
        pb.Approval(
            approval_id=9,
            author="dora",
            action="SaveEmergencyAccess",
            target="11",
            description="codes for token 11, by message to the user's manager",
            serials=["11"],
            usernames=["alice"],
            end_time=answers.at(answers.END),
            recipient="boss@example.com",
        ),
    ],
    position=answers.POSITION,
)


class Needed(Failure):
    """The answer of a node when a request needs approval."""

    def status(self):
        info = any_pb2.Any()
        info.Pack(
            error_details_pb2.ErrorInfo(
                reason="APPROVAL_NEEDED",
                domain="sparecode",
                metadata={"approval_id": "7"},
            )
        )
        return rpc_status.to_status(
            status_pb2.Status(
                code=grpc.StatusCode.PERMISSION_DENIED.value[0],
                message="this waits for another super administrator, as approval 7",
                details=[info],
            )
        )


NEEDED = Needed(grpc.StatusCode.PERMISSION_DENIED)


@pytest.fixture
def approvals(cli: Cli) -> Cli:
    cli.node.answer(f"{SERVICE}/ListApprovals", APPROVALS)
    cli.node.answer(f"{SERVICE}/Approve", pb.ApproveResponse(commit=answers.COMMIT))
    cli.node.answer(f"{SERVICE}/Reject", pb.RejectResponse(commit=answers.COMMIT))
    return cli


def test_approvals_as_a_table(approvals: Cli) -> None:
    result = approvals("approvals", "list")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "No. Author Action Description Until State" in text
    assert "7 root UpdatePolicy" in text
    assert "waits" in text
    assert "approved by root" in text.replace("approved root by", "approved by root")
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_approvals_as_json(approvals: Cli) -> None:
    answer = approvals.json("approvals", "list")
    assert answer["complete"] is True
    assert answer["approvals"][1] == {
        "approval_id": 8,
        "author": "dora",
        "action": "RequestBulkIssue",
        "target": "2 tokens",
        "description": "codes for 2 tokens",
        "serials": ["11", "22"],
        "usernames": ["alice", ""],
        "ask_time": None,
        "end_time": "2026-12-01T12:00:00Z",
        "approver": "root",
        "recipient": "",
    }
    assert answer["approvals"][2]["recipient"] == "boss@example.com"


def test_an_approver_reads_to_whom_codes_go_by_message(approvals: Cli) -> None:
    """(P3, I13) By message, to whom, and to which address."""
    result = approvals("approvals", "list", columns=240)
    assert (
        "codes for token 11, by message to the user's manager: 11 of alice "
        "(boss@example.com)"
    ) in result.stdout


@pytest.mark.parametrize("word", ["approve", "reject"])
def test_a_decision_is_sent(approvals: Cli, word: str) -> None:
    answer = approvals.json("approvals", word, "7")
    assert answer == {"approval_id": 7, "node_id": "n2", "index": 1042}
    (request,) = approvals.node.requests(f"{SERVICE}/{word.capitalize()}")
    assert request.approval_id == 7
    assert request.request_id


def test_error_names_the_needed_approval(cli: Cli) -> None:
    """(P3) The message has the number; the exit code is 4."""
    cli.node.answer(f"{SERVICE}/RemoveAdministrator", NEEDED)
    result = cli("admins", "remove", "eve")
    assert result.exit_code == 4
    assert "as approval 7" in result.stderr
    assert "sparecode approvals approve 7" in result.stderr


def test_a_bulk_issue_that_waits_leaves_no_file(cli: Cli, tmp_path: Path) -> None:
    """The same command works once it is approved."""
    cli.node.answer("EmergencyAccessService/BulkIssueTokencodes", ([], NEEDED))
    path = tmp_path / "lost.csv"
    path.write_text("serial\n11\n")
    result = cli("emergency", "bulk", str(path))
    assert result.exit_code == 4
    assert "approve 7" in result.stderr
    assert list(tmp_path.glob("*-codes.csv")) == []


@pytest.mark.asyncio
async def test_the_library_has_an_error_of_its_own(connect, nodes: list[FakeNode]):
    nodes[0].answer("TokenService/SetPin", NEEDED)
    with pytest.raises(ApprovalNeeded) as raised:
        await AsyncAdmin.over(connect(nodes[0].address)).set_pin("1", "1234")
    assert raised.value.approval_id == 7
    assert raised.value.reason == "APPROVAL_NEEDED"
