# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster`: status and changes of the cluster."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2

from sparecode.v1 import cluster_pb2, types_pb2
from sparecode_client import Admin, Unavailable
from sparecode_client.cli.commands import membership
from tests.client.conftest import Cli
from tests.client.fakes import Failure

TRANSFER = "ClusterService/TransferPrimary"


def test_transfer_reports_the_new_primary(cli: Cli) -> None:
    cli.node.answer(TRANSFER, cluster_pb2.TransferPrimaryResponse(primary="n2"))

    result = cli("cluster", "transfer", "n2")

    assert result.exit_code == 0, result.output
    assert result.stdout == "n2 is the primary.\n"
    (request,) = cli.node.requests(TRANSFER)
    assert request.target == "n2"
    assert request.request_id


def test_transfer_without_a_target_as_json(cli: Cli) -> None:
    cli.node.answer(TRANSFER, cluster_pb2.TransferPrimaryResponse(primary="n3"))

    assert cli.json("cluster", "transfer") == {"primary": "n3"}
    (request,) = cli.node.requests(TRANSFER)
    assert request.target == ""


def test_an_impossible_transfer_is_exit_code_1(cli: Cli) -> None:
    code = grpc.StatusCode.FAILED_PRECONDITION
    cli.node.answer(TRANSFER, Failure(code, "MEMBER_NOT_READY", "n2 is behind"))

    result = cli("cluster", "transfer", "n2")

    assert result.exit_code == 1
    assert "n2 is behind" in result.stderr


STATUS = "ClusterService/GetStatus"


def test_status_shows_the_last_backup(cli: Cli) -> None:
    answer = cluster_pb2.GetStatusResponse(
        node_id="n1",
        quorum=True,
        last_backup_time=datetime(2026, 11, 26, 2, 0, tzinfo=UTC),
        last_backup_index=1042,
    )
    none = cluster_pb2.GetStatusResponse(node_id="n1", quorum=True)
    cli.node.answer(STATUS, answer, none)

    assert (
        "Last backup: 2026-11-26 02:00 UTC, with everything up to log index 1042."
        in cli("cluster", "status").stdout
    )
    assert "Last backup: none known to n1." in cli("cluster", "status").stdout


def test_status_names_members_of_an_older_release(cli: Cli) -> None:
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

    output = cli("cluster", "status").stdout

    assert (
        "Feature level 1; level 2 is available once these members are upgraded: n3."
        in output
    )


def test_status_names_missing_and_lost_audit_events(cli: Cli) -> None:
    """(U1) What a member lacks is a warning; a declared loss is only named."""
    cli.node.answer(
        STATUS,
        cluster_pb2.GetStatusResponse(
            node_id="n1",
            quorum=True,
            sealed_segments=9,
            lost_segments="3",
            found_segments="3",
            members=[
                cluster_pb2.Member(node_id="n1"),
                cluster_pb2.Member(
                    node_id="n2", reachable=True, missing_segments="1 to 2, 7"
                ),
                cluster_pb2.Member(node_id="n3", missing_segments="8"),
            ],
        ),
        cluster_pb2.GetStatusResponse(node_id="n1", quorum=True, sealed_segments=9),
    )

    words = " ".join(cli("cluster", "status").stdout.split())

    assert "WARNING: n2 lacks segments 1 to 2, 7 of the audit log. It fetches" in words
    assert "WARNING: n3 lacks segments 8 of the audit log. It does not answer." in words
    assert "n1 lacks" not in words
    assert "Segments 3 of 9 of the audit log were declared lost." in words
    assert "A member has segments 3 after all" in words
    assert "of the audit log" not in cli("cluster", "status").stdout


def test_status_names_archives_and_what_they_lack(cli: Cli) -> None:
    """(U2) Also what is removed, and until when a new retention can be taken back."""
    at = datetime(2026, 11, 26, 2, 0, tzinfo=UTC)
    archives = [
        cluster_pb2.AuditArchive(
            archiver="node:n1", place="/a", segments="2 to 5", counts=True
        ),
        cluster_pb2.AuditArchive(archiver="node:n2", place="/b"),
    ]
    for each in archives:
        each.confirm_time.FromDatetime(at)
    told = cluster_pb2.AuditRetention(
        archives=archives,
        unarchived_segments="6 to 7",
        archives_wanted=2,
        removed_segments="1",
        removed=types_pb2.RemovedEvents(last_sequence=10_000, archives="node:n1 in /a"),
    )
    told.retention.FromTimedelta(timedelta(days=90))
    told.removal_begin_time.FromDatetime(datetime.now(UTC) + timedelta(days=3))
    answer = cluster_pb2.GetStatusResponse(
        node_id="n1",
        quorum=True,
        audit_retention=told,
        members=[cluster_pb2.Member(node_id="n1")],
    )
    begun = cluster_pb2.GetStatusResponse()
    begun.CopyFrom(answer)
    begun.audit_retention.removal_begin_time.FromDatetime(at)
    cli.node.answer(STATUS, answer, begun)

    words = " ".join(cli("cluster", "status").stdout.split())

    assert "Audit archive of node:n1: segments 2 to 5 in /a, since 2026-11-26" in words
    assert "Audit archive of node:n2: segments none in /b" in words
    assert words.count("it does not count: its node is silent.") == 1
    assert "Segments 6 to 7 of the audit log are not in 2 archives yet" in words
    assert "Archived audit events are removed after 90 days, and none before" in words
    assert "Segments 1 of the audit log, events 1 to 10000, were removed" in words
    assert "archived by node:n1 in /a." in words
    assert "removed after 90 days." in " ".join(cli("cluster", "status").stdout.split())


def test_archives_that_lag_or_do_not_work_are_warned_of(cli: Cli) -> None:
    """(U2) With the cause that the node tells, also if it has confirmed nothing yet."""
    archives = [
        cluster_pb2.AuditArchive(
            archiver="node:n1",
            place="/a",
            late_segments="8 to 12",
            problem="No space left on device",
        ),
        cluster_pb2.AuditArchive(archiver="node:n2", place="/b", late_segments="12"),
        cluster_pb2.AuditArchive(
            archiver="node:n3", place="/c", problem="it is rotten"
        ),
        cluster_pb2.AuditArchive(archiver="node:n4", place="/d"),
        cluster_pb2.AuditArchive(archiver="node:n5", place="/e", folder="ab"),
        cluster_pb2.AuditArchive(archiver="node:n6", place="/e", folder="ab"),
        *(
            cluster_pb2.AuditArchive(archiver=f"node:{each}", place="/f", folder="cd")
            for each in ("n7", "n8", "n9")
        ),
    ]
    answer = cluster_pb2.GetStatusResponse(
        node_id="n1",
        quorum=True,
        audit_retention=cluster_pb2.AuditRetention(
            archives=archives, archives_wanted=2
        ),
    )
    cli.node.answer(STATUS, answer, answer)

    for command in (("cluster", "status"), ("audit", "archive")):
        words = " ".join(cli(*command).stdout.split())
        assert (
            "WARNING: n1 has not archived segments 8 to 12 of the audit log in /a: "
            "No space left on device. See docs/audit-archive.md" in words
        )
        assert (
            "WARNING: n2 has not archived segments 12 of the audit log in /b, though "
            "they were sealed more than two hours ago." in words
        )
        assert "the archive of n3 in /c does not work: it is rotten." in words
        for names in ("n5 and n6", "n7, n8 and n9"):
            assert (
                f"{names} archive to one folder, which counts as one archive: give one "
                "of them another folder." in words
            )
        assert "n4 has not" not in words
        assert "the policy wants" not in words
    assert "node:n4: /d, nothing confirmed yet" in words


def test_status_is_silent_about_equal_levels(cli: Cli) -> None:
    member = cluster_pb2.Member(node_id="n1", reachable=True, feature_level=2)
    answer = cluster_pb2.GetStatusResponse(
        node_id="n1", quorum=True, feature_level=2, members=[member]
    )
    cli.node.answer(STATUS, answer)

    assert "evel" not in cli("cluster", "status").stdout


def test_status_warns_of_requested_resets(cli: Cli) -> None:
    """(P4) Who asked, what else the reset changes, when, and how to cancel it."""
    due = datetime(2026, 11, 26, 2, 0, tzinfo=UTC)
    resets = [
        cluster_pb2.PendingReset(administrator="ada", node_id="n2", due_time=due),
        cluster_pb2.PendingReset(
            administrator="bob",
            node_id="n3",
            uid=990,
            second_factor=True,
            enables=True,
            due_time=due,
        ),
    ]
    cli.node.answer(
        STATUS,
        cluster_pb2.GetStatusResponse(node_id="n1", quorum=True, pending_resets=resets),
        cluster_pb2.GetStatusResponse(node_id="n1", quorum=True),
    )

    words = " ".join(cli("cluster", "status").stdout.split())

    assert (
        "WARNING: root on n2 (user id 0) has requested a reset of administrator ada. "
        "It takes effect at 2026-11-26 02:00 UTC. To cancel it, a super administrator "
        "signs in, or runs: sparecode admins cancel-reset ada"
    ) in words
    assert (
        "WARNING: root on n3 (user id 990) has requested a reset of administrator bob, "
        "with the second factor, who is disabled and becomes enabled. It takes effect at"
    ) in words
    assert "reset" not in cli("cluster", "status").stdout


def test_status_reminds_of_a_recovery_bundle(cli: Cli) -> None:
    """(P5) One current bundle is enough; without any authority's key none is missed."""
    cases = {
        ("missing", "not_here"): "WARNING: there is no recovery bundle.",
        ("outdated", "missing"): "WARNING: the recovery bundle is outdated.",
        ("current", "outdated"): "",
        ("not_here", ""): "",
    }
    for states, words in cases.items():
        cli.node.answer(
            STATUS,
            cluster_pb2.GetStatusResponse(
                node_id="n1",
                quorum=True,
                members=[
                    cluster_pb2.Member(node_id=f"n{number}", recovery_bundle=state)
                    for number, state in enumerate(states)
                ],
            ),
        )
        lines = cli("cluster", "status").stdout.splitlines()
        assert words in " ".join(lines)
        assert any("bundle" in line for line in lines) == bool(words)


def test_status_reminds_of_authorities_that_are_due(cli: Cli) -> None:
    """(P6a) It names the member that has had the keys, and who still trusts them."""
    due = [
        cluster_pb2.DueAuthority(authority=kind, fingerprint=mark, node_id="n3")
        for kind, mark in (("members", "aa"), ("agents", "bb"))
    ]
    members = [
        cluster_pb2.Member(
            node_id=node_id,
            reachable=node_id != "n4",
            members_authorities=marks,
            agents_authorities=["cc"],
        )
        for node_id, marks in (("n1", ["aa", "dd"]), ("n2", ["dd"]), ("n4", []))
    ]
    answer = cluster_pb2.GetStatusResponse(
        node_id="n1", quorum=True, members=members, due_authorities=due
    )
    cli.node.answer(STATUS, answer)
    words = " ".join(cli("cluster", "status").stdout.split())
    assert "has had the keys of the authorities for members and agents." in words
    assert "Still trusted by: n1. Not known of: n4." in words
    (first, second) = cli.json("cluster", "status")["due_authorities"]
    assert (first["fingerprint"], second["authority"]) == ("aa", "agents")


@pytest.mark.parametrize(
    ("reachable", "learners", "exit_code", "words"),
    [
        (
            "11111",
            "",
            0,
            "5 of 5 voters can be reached: the cluster survives 2 further losses.",
        ),
        (
            "1110",
            "3",
            0,
            "3 of 3 voters can be reached: the cluster survives 1 further loss.",
        ),
        (
            "110",
            "",
            1,
            "2 of 3 voters can be reached: the cluster survives no further loss.",
        ),
        (
            "1",
            "",
            1,
            "1 of 1 voter can be reached: the cluster survives no further loss.",
        ),
        (
            "100",
            "",
            3,
            (
                "1 of 3 voters can be reached, which is not a quorum: nothing can be "
                "changed."
            ),
        ),
    ],
)
def test_status_says_how_many_losses_are_survived(
    cli: Cli, reachable: str, learners: str, exit_code: int, words: str
) -> None:
    """`--check` has an exit code for monitoring. A learner counts for nothing."""
    members = [
        cluster_pb2.Member(
            node_id=f"n{number}",
            reachable=state == "1",
            role=cluster_pb2.MEMBER_ROLE_LEARNER
            if str(number) in learners
            else cluster_pb2.MEMBER_ROLE_UNSPECIFIED,
        )
        for number, state in enumerate(reachable)
    ]
    cli.node.answer(
        STATUS,
        cluster_pb2.GetStatusResponse(
            node_id="n1", quorum=exit_code != 3, members=members
        ),
    )
    checked = cli("cluster", "status", "--check")
    assert (checked.stdout, checked.exit_code) == (f"{words}\n", exit_code)
    shown = cli("cluster", "status")
    assert words in shown.stdout.splitlines()
    assert shown.exit_code == (3 if exit_code == 3 else 0)
    answer = cli("cluster", "status", "--check", "--output", "json")
    assert answer.exit_code == exit_code
    losses = json.loads(answer.stdout)["survivable_losses"]
    assert losses == (int(words.split()[-3]) if exit_code == 0 else 0)


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_shows_the_state_in_color(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, no_color: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", no_color)
    member = cluster_pb2.Member(node_id="n1", reachable=True)
    answer = cluster_pb2.GetStatusResponse(node_id="n1", quorum=True, members=[member])
    cli.node.answer(STATUS, answer)
    shown = cli("cluster", "status", "--check").stdout
    assert "the cluster survives no further loss." in shown
    assert ("\x1b[1;33m" in shown) == (not no_color)


# --- Members that come and go


TICKET = "ClusterService/CreateJoinTicket"
WORDS = "sparecode-join-1:" + "Q2hlY2s" * 90


def list_member(node_id: str, standing: int) -> cluster_pb2.ListedMember:
    return cluster_pb2.ListedMember(
        node_id=node_id,
        address=f"{node_id}.example.com:7301",
        standing=cluster_pb2.MemberStanding.ValueType(standing),
    )


def test_members_are_listed_with_their_standing(cli: Cli) -> None:
    cli.node.answer(
        "ClusterService/ListMembers",
        cluster_pb2.ListMembersResponse(
            members=[list_member("n1", 1), list_member("n2", 2), list_member("n3", 3)]
        ),
    )
    assert cli("cluster", "members").stdout == (
        "Node  Standing  Address\n"
        "n1    voter     n1.example.com:7301\n"
        "n2    learner   n2.example.com:7301\n"
        "n3    admitted  n3.example.com:7301\n"
    )
    assert cli.json("cluster", "members")["members"][1] == {
        "node_id": "n2",
        "address": "n2.example.com:7301",
        "standing": "learner",
    }


@pytest.mark.parametrize(
    ("address", "sent"),
    [("n4.example", "n4.example:7301"), ("[::1]", "[::1]:7301"), ("n4:1", "n4:1")],
)
def test_an_address_of_a_ticket_has_a_default_port(
    cli: Cli, address: str, sent: str
) -> None:
    cli.node.answer(TICKET, cluster_pb2.CreateJoinTicketResponse(ticket=WORDS))

    assert cli("cluster", "ticket", "n4", address).exit_code == 0
    assert [each.address for each in cli.node.requests(TICKET)] == [sent]


def test_a_wrong_address_of_a_ticket_is_refused(cli: Cli) -> None:
    result = cli("cluster", "ticket", "n4", "n4:70000")

    assert result.exit_code == 2
    assert "is not HOST:PORT" in " ".join(result.stderr.split())


def test_a_piped_ticket_comes_without_instructions(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command behind the pipe uses it: `| ssh root@n4 sparecode-node setup --join -`."""
    cli.node.answer(TICKET, cluster_pb2.CreateJoinTicketResponse(ticket=WORDS))
    monkeypatch.setattr(membership, "_is_piped", lambda: True)
    result = cli("cluster", "ticket", "n4", "n4")
    assert result.stdout == WORDS + "\n"
    assert not result.stderr


def test_a_ticket_is_alone_on_stdout(cli: Cli) -> None:
    """So it can be redirected to a file. The instructions are on stderr."""
    end = timestamp_pb2.Timestamp(seconds=1_800_000_000)
    cli.node.answer(
        TICKET, cluster_pb2.CreateJoinTicketResponse(ticket=WORDS, end_time=end)
    )
    result = cli("cluster", "ticket", "n4", "n4:7301")
    assert result.stdout == WORDS + "\n"
    assert "Works once, until 2027-" in result.stderr
    assert "sparecode-node setup --join" in result.stderr
    (request,) = cli.node.requests(TICKET)
    assert request.node_id == "n4"
    assert request.request_id
    assert request.address == "n4:7301"
    assert not request.hosts
    assert not request.with_authority
    more = ("--host", "a", "--host", "b", "--with-authority")
    assert cli.json("cluster", "ticket", "n4", "n4:7301", *more) == {
        "node_id": "n4",
        "address": "n4:7301",
        "ticket": WORDS,
        "end_time": "2027-01-15T08:00:00Z",
    }
    (_, request) = cli.node.requests(TICKET)
    assert list(request.hosts) == ["a", "b"]
    assert request.with_authority


def test_an_existing_member_is_exit_code_1(cli: Cli) -> None:
    code = grpc.StatusCode.ALREADY_EXISTS
    cli.node.answer(TICKET, Failure(code, "MEMBER_EXISTS", "n4 is already a member"))
    result = cli("cluster", "ticket", "n4", "n4:7301")
    assert result.exit_code == 1
    assert result.stderr == (
        "sparecode: n4 is already a member\nList the members: sparecode cluster members\n"
    )
    assert result.stdout == ""


def test_a_node_is_added_by_its_address(cli: Cli) -> None:
    method = "ClusterService/AddMember"
    cli.node.answer(method, cluster_pb2.AddMemberResponse(index=7))
    result = cli("cluster", "add", "n4", "n4.example.com:7301")
    assert result.stdout == (
        "n4 was added to the cluster (log index 7).\n"
        "Start it with this cluster's key ring. It catches up, then becomes a voter.\n"
    )
    (request,) = cli.node.requests(method)
    assert (request.node_id, request.address) == ("n4", "n4.example.com:7301")
    assert cli.json("cluster", "add", "n4", "h:1")["index"] == 7


def test_a_removal_needs_confirmation(cli: Cli) -> None:
    method = "ClusterService/RemoveMember"
    cli.node.answer(method, cluster_pb2.RemoveMemberResponse())
    unconfirmed = cli("cluster", "remove", "n3")
    assert unconfirmed.exit_code == 2
    assert "--yes" in unconfirmed.stderr
    assert cli.node.requests(method) == []
    result = cli("cluster", "remove", "n3", "--yes")
    assert result.stdout == (
        "n3 was removed. Stop it and wipe its disk, which still holds the key ring and "
        "the state.\n"
        "If it may be in the wrong hands: sparecode cluster rotate-keys --at-once\n"
        "If it had the authorities' keys, replace the authorities, too: "
        "docs/runbooks/new-authority.md\n"
    )
    (request,) = cli.node.requests(method)
    assert request.node_id == "n3"
    assert not request.rotate_keys
    assert cli.json("cluster", "remove", "n3", "--yes") == {
        "node_id": "n3",
        "removed": True,
        "new_key_id": None,
        "rotation_problem": "",
        "due_authorities": [],
    }


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"new_key_id": 2}, "Key 2 is active, and the cluster replaces the old one."),
        ({"rotation_problem": "n2 is down"}, "The key was not replaced: n2 is down"),
    ],
)
def test_a_removal_replaces_the_key(
    cli: Cli, answer: dict[str, Any], words: str
) -> None:
    """(P6) The member has had it."""
    method = "ClusterService/RemoveMember"
    cli.node.answer(method, cluster_pb2.RemoveMemberResponse(**answer))
    result = cli("cluster", "remove", "n3", "--yes", "--rotate-keys")
    assert words in result.stdout
    (request,) = cli.node.requests(method)
    assert request.rotate_keys


def test_a_removal_names_the_authorities_that_are_due(cli: Cli) -> None:
    """(P6a) Then there is no doubt whether the member has had their keys."""
    method = "ClusterService/RemoveMember"
    answer = cluster_pb2.RemoveMemberResponse(due_authorities=["members", "agents"])
    cli.node.answer(method, answer)
    words = " ".join(cli("cluster", "remove", "n3", "--yes").stdout.split())
    assert "It has had the keys of the authorities for members and agents." in words
    assert "If it had" not in words


def test_authorities_are_kept_for_a_reason(cli: Cli) -> None:
    """(P6a)."""
    method = "ClusterService/KeepAuthorities"
    cli.node.answer(method, cluster_pb2.KeepAuthoritiesResponse())
    assert cli("cluster", "keep-authorities", "n3").exit_code == 2
    result = cli("cluster", "keep-authorities", "n3", "--reason", "disk destroyed")
    assert result.stdout.startswith("The authorities stay whose keys n3 has had")
    (request,) = cli.node.requests(method)
    assert (request.node_id, request.reason) == ("n3", "disk destroyed")


def test_segments_are_declared_lost_for_a_reason(cli: Cli) -> None:
    """(U1)."""
    method = "ClusterService/DeclareSegmentsLost"
    cli.node.answer(method, cluster_pb2.DeclareSegmentsLostResponse())
    assert cli("cluster", "declare-lost", "3").exit_code == 2
    lost = ("cluster", "declare-lost", "3", "7", "--reason", "disk destroyed")
    result = cli(*lost)
    assert result.stdout.startswith("Segments 3 to 7 of the audit log are declared")
    assert cli(*lost, "--destroyed", "n2").exit_code == 0
    first, second = cli.node.requests(method)
    assert (first.first, first.last, first.reason) == (3, 7, "disk destroyed")
    assert [list(each.destroyed) for each in (first, second)] == [[], ["n2"]]


def test_the_replacement_of_authorities_is_started_and_finished(cli: Cli) -> None:
    """(P6a)."""
    method = "ClusterService/ReplaceAuthorities"
    cli.node.answer(method, cluster_pb2.ReplaceAuthoritiesResponse())
    result = cli("cluster", "replace-authorities", "n3")
    assert "n3 has had get successors" in result.stdout
    result = cli("cluster", "replace-authorities", "n3", "--finish")
    assert "n3 has had are trusted no longer" in result.stdout
    requests = cli.node.requests(method)
    assert [(each.node_id, each.finish) for each in requests] == [
        ("n3", False),
        ("n3", True),
    ]


def status_answer() -> cluster_pb2.WatchStatusResponse:
    return cluster_pb2.WatchStatusResponse(
        status=cluster_pb2.GetStatusResponse(
            node_id="n1",
            primary="n1",
            quorum=True,
            cluster_id="6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10",
            members=[
                cluster_pb2.Member(
                    node_id="n1",
                    reachable=True,
                    role=cluster_pb2.MEMBER_ROLE_PRIMARY,
                    term=7,
                    commit_index=123_456,
                    applied_index=123_456,
                    version="0.1.0",
                ),
                cluster_pb2.Member(
                    node_id="n2",
                    reachable=True,
                    role=cluster_pb2.MEMBER_ROLE_LEARNER,
                    term=7,
                    applied_index=120_000,
                    lag=3_456,
                    version="0.1.0",
                ),
                cluster_pb2.Member(node_id="n3"),
            ],
        )
    )


def test_watch_shows_every_member_in_80_columns(cli: Cli) -> None:
    cli.node.answer("ClusterService/WatchStatus", ([status_answer()], None))
    result = cli("cluster", "watch", "--count", "1")
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert max(map(len, lines)) <= 80
    assert "primary n1, quorum reached." in " ".join(lines)
    assert lines[-4:] == [
        "Node  Role         Term  Commit  Applied   Lag  Clock",
        "n1    primary         7  123456   123456     0      -",
        "n2    learner         7       0   120000  3456      -",
        "n3    unreachable     -       -        -     -      -",
    ]


def test_watch_streams_into_a_pipe(cli: Cli) -> None:
    """Each status record stays, and none moves the cursor."""
    cli.node.answer(
        "ClusterService/WatchStatus", ([status_answer(), status_answer()], None)
    )
    result = cli("cluster", "watch", "--count", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert sum("survives no further loss" in line for line in lines) == 2
    assert sum(line.startswith("n1 ") for line in lines) == 2
    assert "\x1b" not in result.stdout


def test_watch_ends_with_the_reader_of_its_pipe(cli: Cli) -> None:
    """As in `sparecode cluster watch | head -1`."""
    answers = [status_answer() for _ in range(100)]
    cli.node.answer("ClusterService/WatchStatus", (answers, None))
    with subprocess.Popen(
        [
            *(sys.executable, "-c", "from sparecode_client.cli import main; main()"),
            *("cluster", "watch"),
        ],
        env={
            **os.environ,
            "SPARECODE_NODES": cli.node.address,
            "SPARECODE_CA": str(cli.ca),
            "SPARECODE_SESSION_FILE": str(cli.session_file),
        },
        stdout=subprocess.PIPE,
    ) as watching:
        assert watching.stdout is not None
        watching.stdout.readline()
        watching.stdout.close()
        try:
            assert watching.wait(timeout=120) == 1
        finally:
            watching.kill()


def test_watch_prints_one_json_line_per_record(cli: Cli) -> None:
    """When a call ends, the next one continues."""
    cli.node.answer(
        "ClusterService/WatchStatus", ([status_answer(), status_answer()], None)
    )
    result = cli("cluster", "watch", "--count", "3", "--output", "json")
    assert result.exit_code == 0, result.output
    looks = [json.loads(line) for line in result.stdout.splitlines()]
    assert [look["primary"] for look in looks] == ["n1"] * 3
    assert len(cli.node.requests("ClusterService/WatchStatus")) == 2


@pytest.mark.parametrize(("interval", "within_s"), [("1", 5), ("60", 180)])
def test_watch_limits_the_duration_of_a_call(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, interval: str, within_s: int
) -> None:
    """An outage is noticed only after that time. A call lasts for two records at least."""
    timeouts = []

    def watch(_admin: Admin, _take: object, **options: timedelta) -> None:
        timeouts.append(options["within"])
        raise KeyboardInterrupt

    monkeypatch.setattr(Admin, "watch_status", watch)
    assert cli("cluster", "watch", "--interval", interval).exit_code == 0
    assert timeouts == [timedelta(seconds=within_s)]


def test_an_outage_is_not_a_status_record(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs get only JSON on stdout."""
    cli.node.answer("ClusterService/WatchStatus", ([status_answer()], None))
    watch, tries = vars(Admin)["watch_status"], []

    def missed_at_first(admin: Admin, *args: object, **options: object) -> None:
        tries.append(1)
        if len(tries) == 1:
            raise Unavailable("UNREACHABLE", "no node could answer")
        watch.__get__(admin, Admin)(*args, **options)

    monkeypatch.setattr(Admin, "watch_status", missed_at_first)
    monkeypatch.setattr(membership, "_UNREACHED_PAUSE_S", 0)
    result = cli("cluster", "watch", "--count", "1", "--output", "json")
    assert result.exit_code == 0, result.output
    (look,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert look["primary"] == "n1"
    assert result.stderr == "No node could answer. Retrying.\n"
