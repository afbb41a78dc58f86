# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents add --radius`, `update-radius` and `rotate-secret`."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import agents_pb2 as pb
from sparecode.v1 import types_pb2
from tests.client import answers
from tests.client.conftest import Cli

SERVICE = "AgentService"
SECRET = "TLEWGDJQJMVQKE5SSXBYFDLDCU66BCA7"
VPN = pb.Agent(
    name="vpn",
    certificate_identity="radius:vpn",
    protects=types_pb2.AGENT_PROTECTS_AUTHENTICATION_MANAGER,
    enabled=True,
    radius=pb.RadiusSettings(
        networks=["10.1.0.0/24", "2001:db8::1/128"],
        allow_unsigned=True,
    ),
    accept_attributes=pb.AcceptAttributes(
        filter_id="staff", session_timeout_seconds=3600
    ),
    secret_create_time=Timestamp(seconds=1_700_000_000),
    former_secret_end_time=Timestamp(seconds=1_800_000_000),
    radius_activity=pb.RadiusActivity(
        last_packet_time=Timestamp(seconds=1_800_000_000),
        packets=[pb.PacketCount(verdict="wrong_secret", count=7)],
    ),
)


@pytest.fixture
def radius(cli: Cli) -> Cli:
    for name in ("RegisterRadiusClient", "RotateRadiusSecret"):
        answer = getattr(pb, f"{name}Response")(commit=answers.COMMIT, secret=SECRET)
        cli.node.answer(f"{SERVICE}/{name}", answer)
    cli.node.answer(
        f"{SERVICE}/UpdateRadiusClient",
        pb.UpdateRadiusClientResponse(commit=answers.COMMIT),
    )
    cli.node.answer(f"{SERVICE}/GetAgent", pb.GetAgentResponse(agent=VPN))
    return cli


def test_registering_prints_the_secret_alone(radius: Cli) -> None:
    """(D1) It is secure unless the options say otherwise."""
    result = radius("agents", "add", "--radius", "vpn", "--network", "10.1.0.7")
    assert result.stdout == f"{SECRET}\n"
    (request,) = radius.node.requests(f"{SERVICE}/RegisterRadiusClient")
    assert request == pb.RegisterRadiusClientRequest(
        request_id=request.request_id,
        name="vpn",
        protects=types_pb2.AGENT_PROTECTS_AUTHENTICATION_MANAGER,
        networks=["10.1.0.7"],
    )


def test_registering_sends_every_option(radius: Cli) -> None:
    radius(
        "agents",
        *("add", "--radius", "vpn", "--protects", "cloud", "--restricted"),
        *("--network", "10.1.0.7", "--network", "10.1.0.8"),
        *("--allow-unsigned", "--until-signed", "--repeats", "--prompts"),
        *("--filter-id", "staff", "--class", "c"),
        *("--session-timeout", "60"),
    )
    (request,) = radius.node.requests(f"{SERVICE}/RegisterRadiusClient")
    assert request == pb.RegisterRadiusClientRequest(
        request_id=request.request_id,
        name="vpn",
        protects=types_pb2.AGENT_PROTECTS_CLOUD,
        restricted=True,
        networks=["10.1.0.7", "10.1.0.8"],
        allow_unsigned=True,
        unsigned_until_signed=True,
        repeats_with_new_authenticator=True,
        prompts_for_passcode=True,
        filter_id="staff",
        class_attribute="c",
        session_timeout_seconds=60,
    )


def test_a_change_needs_an_option(radius: Cli) -> None:
    result = radius("agents", "update-radius", "vpn")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "nothing to change" in result.stderr


def test_an_update_sends_what_is_named(radius: Cli) -> None:
    radius("agents", "update-radius", "vpn", "--require-signed")
    (request,) = radius.node.requests(f"{SERVICE}/UpdateRadiusClient")
    assert request == pb.UpdateRadiusClientRequest(
        request_id=request.request_id, name="vpn", allow_unsigned=False
    )


def test_an_update_can_end_unsigned_requests_with_the_first_signed_one(
    radius: Cli,
) -> None:
    radius("agents", "update-radius", "vpn", "--until-signed")
    (request,) = radius.node.requests(f"{SERVICE}/UpdateRadiusClient")
    assert request == pb.UpdateRadiusClientRequest(
        request_id=request.request_id, name="vpn", unsigned_until_signed=True
    )


def test_a_rotation_prints_the_new_secret(radius: Cli) -> None:
    result = radius(
        "agents", "rotate-secret", "vpn", "--overlap", "1d", "--output", "json"
    )
    assert json.loads(result.stdout)["secret"] == SECRET
    (request,) = radius.node.requests(f"{SERVICE}/RotateRadiusSecret")
    assert request.overlap == Duration(seconds=86_400)


def test_a_client_is_shown_with_what_the_node_has_seen(radius: Cli) -> None:
    lines = radius("agents", "show", "vpn").stdout.splitlines()
    facts = [" ".join(line.split()) for line in lines]
    assert "Networks 10.1.0.0/24, 2001:db8::1/128" in facts
    assert "Unsafe requests without Message-Authenticator are answered" in facts
    assert "Filter-Id staff" in facts
    assert "Session-Timeout 3600 s" in facts
    assert "Secret since 2023-11-14 22:13:20 UTC" in facts
    assert not any("Proxy-State" in fact for fact in facts)
    assert "Packets: wrong secret 7" in facts


def test_unsigned_requests_with_proxy_state_are_named(radius: Cli) -> None:
    """(D2) The most dangerous setting: BlastRADIUS needs nothing else."""
    vpn = pb.Agent()
    vpn.CopyFrom(VPN)
    vpn.radius.allow_unsigned_proxied = True
    radius.node.answer(f"{SERVICE}/GetAgent", pb.GetAgentResponse(agent=vpn))
    shown = " ".join(radius("agents", "show", "vpn").stdout.split())
    assert "Unsafe also with Proxy-State, which BlastRADIUS needs" in shown
