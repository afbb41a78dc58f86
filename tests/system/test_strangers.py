# SPDX-License-Identifier: Apache-2.0
"""
Callers without a right certificate get nowhere on three real nodes, and are logged.

The handshake fails inside gRPC, before any of our code runs. Each node's security log
has a line, and no node's state changes.
"""

import asyncio
import contextlib
import datetime as dt
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import MethodDescriptor
from local_cluster.cluster import LocalCluster, LocalNode

from sparecode_node.membership.certificates import Authority, Issued
from tests.rpc import bare_http2
from tests.rpc.contract import between_members, public

NOW = dt.datetime.now(dt.UTC)
PATIENCE_S = 60
METHODS: dict[str, MethodDescriptor] = {
    f"/{method.containing_service.full_name}/{method.name}": method
    for method in (*public().values(), *between_members().values())
}
"""All that there are, on whichever listener."""
LISTENERS = ("agents", "peers")


def authority(cluster: LocalCluster, name: str) -> Authority:
    path = cluster.certificates / f"{name}-ca"
    return Authority.from_pem(
        path.with_suffix(".pem").read_bytes(), path.with_suffix(".key").read_bytes()
    )


def credentials(cluster: LocalCluster) -> dict[str, tuple[Issued | None, str]]:
    """Return wrong certificates for both listeners, with the log line of each."""
    members, agents = authority(cluster, "members"), authority(cluster, "agents")
    strangers = Authority.create("members", now=NOW)
    past = NOW - dt.timedelta(days=40)
    return {
        "peers none": (None, "did not return a certificate"),
        "peers expired": (
            members.issue_member("n1", hosts=["127.0.0.1"], now=past, days=30),
            "expired",
        ),
        "peers foreign": (
            strangers.issue_member("n1", hosts=["127.0.0.1"], now=NOW),
            "verify failed",
        ),
        "peers agent": (agents.issue_agent("vpn", now=NOW), "verify failed"),
        "agents none": (None, "did not return a certificate"),
        "agents expired": (agents.issue_agent("vpn", now=past, days=30), "expired"),
        "agents foreign": (strangers.issue_agent("vpn", now=NOW), "verify failed"),
        "agents member": (
            members.issue_member("n1", hosts=["127.0.0.1"], now=NOW),
            "verify failed",
        ),
    }


def rows(node: LocalNode) -> dict[str, list[Any]]:
    """Return every row of a node's state, of one moment, but the applied index and the time."""
    uri = f"{(node.directory / 'data' / 'state.db').as_uri()}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        db.execute("BEGIN")
        names = db.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' "
            "AND name != 'meta' "
            "AND name NOT LIKE 'request_counts%'"  # They are no state.
        ).fetchall()
        return {
            name: db.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608
            for (name,) in names
        }


def settled_rows(cluster: LocalCluster) -> list[dict[str, list[Any]]]:
    """Return the rows of every node, once the members have recorded all of their keys."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        states = [rows(node) for node in cluster.nodes]
        lacking = [
            node.node_id
            for node in cluster.nodes
            if not has_recorded(states[0], node.node_id)
        ]
        if not lacking and all(state == states[0] for state in states):
            return states
        assert time.monotonic() < deadline, lacking


def has_recorded(state: dict[str, list[Any]], member: str) -> bool:
    """
    Return whether the state has a member's own key, and those of authorities (P5a, P6a).

    The latter come some ten seconds after its start.
    """
    noted = [row for row in state["audit_events"] if "NoteAuthorityKeys" in row]
    return any(member in row for row in state["member_keys"]) and any(
        member in row for row in noted
    )


def until_recorded(node: LocalNode, events: int) -> dict[str, list[Any]]:
    """Return the rows of a node once its audit log has more events than a number."""
    deadline = time.monotonic() + PATIENCE_S
    while len((result := rows(node))["audit_events"]) <= events:
        assert time.monotonic() < deadline, node.last_words()
    return result


def noted(node: LocalNode, since: int) -> list[str]:
    """Return the new lines of the node's security log."""
    lines = node.log.read_text(errors="replace").splitlines()[since:]
    return [line for line in lines if "TLS handshake failed" in line]


def until_noted(node: LocalNode, since: int, words: str) -> list[str]:
    deadline = time.monotonic() + PATIENCE_S
    while not any(words in line for line in noted(node, since)):
        assert time.monotonic() < deadline, node.last_words()
    return noted(node, since)


def length(node: LocalNode) -> int:
    return len(node.log.read_text(errors="replace").splitlines())


@contextlib.contextmanager
def channel(
    cluster: LocalCluster, node: LocalNode, listener: str, own: Issued | None
) -> Iterator[grpc.Channel]:
    opened = grpc.secure_channel(
        f"127.0.0.1:{getattr(node.ports, listener)}",
        grpc.ssl_channel_credentials(
            cluster.members_ca.read_bytes(),
            private_key=own.key if own else None,
            certificate_chain=own.certificate if own else None,
        ),
        options=(("grpc.use_local_subchannel_pool", 1),),
    )
    with opened:
        yield opened


def refused_with(opened: grpc.Channel, path: str) -> grpc.StatusCode:
    method = opened.stream_stream(
        path, request_serializer=bytes, response_deserializer=bytes
    )
    metadata = (("authorization", "Bearer " + "A" * 43),)
    with pytest.raises(grpc.RpcError) as caught:
        list(method(iter([b""]), timeout=PATIENCE_S, metadata=metadata))
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.mark.parametrize("which", range(8))
def test_wrong_certificates_are_refused(cluster: LocalCluster, which: int) -> None:
    """(U1) None, expired, of a foreign CA, of the other role; a stolen bearer."""
    name, (own, words) = list(credentials(cluster).items())[which]
    node = cluster.nodes[which % 3]
    listener = name.partition(" ")[0]
    before = settled_rows(cluster)
    since = length(node)
    with channel(cluster, node, listener, own) as opened:
        for path in METHODS:
            assert refused_with(opened, path) is grpc.StatusCode.UNAVAILABLE
    assert until_noted(node, since, words)
    assert [rows(each) for each in cluster.nodes] == before


def test_a_node_that_is_no_member_is_refused(cluster: LocalCluster) -> None:
    """(U1) Its certificate is right, but it was never added, or was removed."""
    own = authority(cluster, "members").issue_member("n9", hosts=["127.0.0.1"], now=NOW)
    node = cluster.nodes[0]
    before = settled_rows(cluster)
    since = length(node)
    with channel(cluster, node, "peers", own) as opened:
        for path, method in METHODS.items():
            expected = grpc.StatusCode.UNIMPLEMENTED
            if method.containing_service.file.package.startswith("sparecode.internal"):
                expected = grpc.StatusCode.PERMISSION_DENIED
            assert refused_with(opened, path) is expected, path
    lines = node.log.read_text().splitlines()[since:]
    assert any("stranger_refused" in line for line in lines)
    # A node without a certificate may request one; the missing ticket is recorded.
    for each, old in zip(cluster.nodes, before, strict=True):
        new = until_recorded(each, len(old["audit_events"]))
        (event,) = (
            row for row in new.pop("audit_events") if row not in old["audit_events"]
        )
        assert event[5:8] == ("JoiningService/Join", "refused", "not_a_ticket")
        (request,) = (row for row in new.pop("requests") if row not in old["requests"])
        assert "NoteRefusedCalls" in request
        assert new == {name: old[name] for name in new}


def test_a_flood_of_strangers_does_not_fill_the_log(cluster: LocalCluster) -> None:
    """(U1) A few lines a second, and the count of what they leave out."""
    node = cluster.nodes[1]
    since = length(node)
    for _ in range(400):
        speak_plainly(node)
    sent = 400
    deadline = time.monotonic() + PATIENCE_S
    # A line may have come amid the flood, and another tells of those after it.
    while told_of(lines := noted(node, since)) <= 0.75 * sent:
        assert time.monotonic() < deadline, node.last_words()
        speak_plainly(node)
        sent += 1
    assert len(lines) < 100


def test_a_flood_of_malformed_messages_writes_few_lines(cluster: LocalCluster) -> None:
    """(U1) On every listener of a real node; it counts them, and goes on."""
    members, agents = authority(cluster, "members"), authority(cluster, "agents")
    callers = {
        "admin": (None, "/sparecode.v1.SessionService/Login"),
        "agents": (
            agents.issue_agent("vpn", now=NOW),
            "/sparecode.v1.AuthenticationService/Authenticate",
        ),
        "peers": (
            members.issue_member("n9", hosts=["127.0.0.1"], now=NOW),
            "/sparecode.internal.v1.JoiningService/Join",
        ),
    }
    node, since, since_s = cluster.nodes[2], length(cluster.nodes[2]), time.monotonic()
    before = malformed(node)
    for listener, (own, path) in callers.items():
        address = f"127.0.0.1:{getattr(node.ports, listener)}"
        sent = bare_http2.request(b"/\xff")
        status = asyncio.run(bare_http2.status_of(address, sent, own))
        assert status == grpc.StatusCode.UNIMPLEMENTED.value[0]
        timeout = bare_http2.request(b"/", metadata=[(b"grpc-timeout", b"\xff")])
        asyncio.run(bare_http2.status_of(address, timeout, own))
        with channel(cluster, node, listener, own) as opened:
            method = opened.unary_unary(path)
            calls = [method.future(b"\xff\xff", timeout=PATIENCE_S) for _ in range(100)]
            codes = {call.code() for call in calls}
        assert codes == {grpc.StatusCode.INVALID_ARGUMENT}, listener
    lines = node.log.read_text().splitlines()[since:]
    seconds = 1 + time.monotonic() - since_s
    assert 1 <= sum("malformed message" in line for line in lines) <= seconds
    assert sum("grpc-timeout" in line for line in lines) <= seconds
    assert not any("Traceback" in line or " ERROR" in line for line in lines)
    assert malformed(node) == before + 100 * len(callers)


def malformed(node: LocalNode) -> float:
    """Return how many malformed messages the node has counted."""
    metrics = httpx.get(
        f"http://{node.metrics_address}/metrics", timeout=PATIENCE_S
    ).text
    (count,) = re.findall(
        r'^sparecode_security_events_total\{event="malformed_message"\} (.+)$',
        metrics,
        re.MULTILINE,
    )
    return float(count)


def speak_plainly(node: LocalNode) -> None:
    """Connect without TLS, until the node hangs up."""
    with socket.create_connection(("127.0.0.1", node.ports.agents)) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        plain.recv(1)


def told_of(lines: list[str]) -> int:
    """Return of how many strangers there is a line, or a count in another one's."""
    left_out = re.findall(r"left_out=(\d+)", "\n".join(lines))
    return len(lines) + sum(map(int, left_out))


def test_lines_of_grpc_stay_out_of_the_log(cluster: LocalCluster) -> None:
    """They would break the form of the log for its readers."""
    for node in cluster.nodes:
        foreign = [
            line
            for line in node.log.read_text().splitlines()
            if re.match(r"[IWEF]\d{4} ", line)
        ]
        assert not foreign
