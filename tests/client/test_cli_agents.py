# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents`: output and requests."""

from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import agents_pb2 as pb
from sparecode.v1 import types_pb2
from sparecode_client import certificate_fingerprint
from tests.client import answers
from tests.client.certificates import Authority
from tests.client.conftest import Cli
from tests.client.fakes import Failure

SERVICE = "AgentService"
FINGERPRINT = "ab" * 32
VPN = pb.Agent(
    name="vpn",
    certificate_identity="spiffe://example.com/vpn",
    protects=types_pb2.AGENT_PROTECTS_CLOUD,
    enabled=True,
    restricted=True,
    allowed_user_count=2,
    allowed_usernames=["alice", "Bob"],
    allowed_groups=["staff"],
)
DENIED = pb.ListDeniedCertificatesResponse(
    certificates=[
        pb.DeniedCertificate(
            fingerprint=FINGERPRINT,
            deny_time=Timestamp(seconds=1_800_000_000),
            administrator="root",
            note="stolen",
        ),
        pb.DeniedCertificate(serial_number="51af", administrator="dora"),
    ],
    position=answers.POSITION,
)


@pytest.fixture
def agents(cli: Cli) -> Cli:
    for name in ("UpdateAgent", "RemoveAgent", "DenyCertificate", "AllowCertificate"):
        answer = getattr(pb, f"{name}Response")(commit=answers.COMMIT)
        cli.node.answer(f"{SERVICE}/{name}", answer)
    cli.node.answer(f"{SERVICE}/GetAgent", pb.GetAgentResponse(agent=VPN))
    cli.node.answer(f"{SERVICE}/ListDeniedCertificates", DENIED)
    return cli


def test_an_agent_is_shown_with_its_allow_list(agents: Cli) -> None:
    lines = agents("agents", "show", "VPN").stdout.splitlines()

    assert [" ".join(line.split()) for line in lines] == [
        "Name vpn",
        "Certificate identity spiffe://example.com/vpn",
        "Protects cloud",
        "State enabled",
        "Admits 2 users",
        "Groups staff",
        "Allow list alice",
        "Bob",
    ]
    (request,) = agents.node.requests(f"{SERVICE}/GetAgent")
    assert request == pb.GetAgentRequest(name="VPN")


def test_an_agent_as_json(agents: Cli) -> None:
    assert agents.json("agents", "show", "vpn") == {
        "name": "vpn",
        "certificate_identity": "spiffe://example.com/vpn",
        "protects": "cloud",
        "enabled": True,
        "restricted": True,
        "allowed_user_count": 2,
        "allowed_usernames": ["alice", "Bob"],
        "allowed_groups": ["staff"],
        "accept_attributes": None,
        "radius": None,
        "secret_create_time": None,
        "former_secret_end_time": None,
        "radius_activity": None,
        "keys": None,
    }


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (["disable", "vpn"], {"enabled": False}),
        (["enable", "vpn"], {"enabled": True}),
        (
            ["update", "vpn", "--protects", "cloud"],
            {"protects": types_pb2.AGENT_PROTECTS_CLOUD},
        ),
        (["update", "vpn", "--everybody"], {"restricted": False}),
        (["update", "vpn", "--end-keys"], {"end_keys": True}),
        (
            [
                *("update", "vpn", "--filter-id", "staff", "--class", ""),
                *("--session-timeout", "60"),
            ],
            {
                "filter_id": "staff",
                "class_attribute": "",
                "session_timeout_seconds": 60,
            },
        ),
        (
            [
                *("update", "vpn", "--restricted", "--allow", "alice"),
                *("--allow", "bob", "--disallow", "carol"),
            ],
            {
                "restricted": True,
                "add_usernames": ["alice", "bob"],
                "remove_usernames": ["carol"],
            },
        ),
    ],
)
def test_given_options_are_sent(
    agents: Cli, arguments: list[str], fields: dict[str, object]
) -> None:
    result = agents("agents", *arguments)

    assert "(node n2, log index 1042)" in result.stdout
    (request,) = agents.node.requests(f"{SERVICE}/UpdateAgent")
    assert request == pb.UpdateAgentRequest(
        request_id=request.request_id, name="vpn", **fields
    )


def test_an_agent_is_removed(agents: Cli) -> None:
    assert "vpn removed" in agents("agents", "remove", "vpn").stdout
    (request,) = agents.node.requests(f"{SERVICE}/RemoveAgent")
    assert request.name == "vpn"


def test_a_certificate_is_denied_by_its_file(agents: Cli, tmp_path: Path) -> None:
    """The command computes the SHA-256 fingerprint from the file."""
    issued = Authority(tmp_path, "agents").issue(
        "vpn", x509.UniformResourceIdentifier("spiffe://example.com/vpn")
    )
    fingerprint = certificate_fingerprint(issued.certificate.read_bytes())

    answer = agents.json(
        *("agents", "deny-certificate", "--certificate", str(issued.certificate)),
        *("--note", "stolen laptop"),
    )

    assert answer["fingerprint"] == fingerprint
    (request,) = agents.node.requests(f"{SERVICE}/DenyCertificate")
    assert request == pb.DenyCertificateRequest(
        request_id=request.request_id, fingerprint=fingerprint, note="stolen laptop"
    )


def test_a_certificate_is_allowed_by_its_serial_number(agents: Cli) -> None:
    result = agents("agents", "allow-certificate", "--serial-number", "51:AF")

    assert "not denied any more" in result.stdout
    (request,) = agents.node.requests(f"{SERVICE}/AllowCertificate")
    assert (request.fingerprint, request.serial_number) == ("", "51:AF")


def test_denied_certificates_are_listed(agents: Cli) -> None:
    lines = agents("agents", "denied").stdout.splitlines()

    assert lines[0].split() == ["Type", "Certificate", "Since", "By", "Note"]
    assert lines[1].split()[:2] == ["SHA-256", FINGERPRINT[: len(lines[1].split()[1])]]
    assert lines[-1].split() == ["serial", "51af", "-", "dora"]
    answer = agents.json("agents", "denied")
    assert answer["complete"] is True
    assert answer["certificates"][0]["deny_time"] == datetime(
        2027, 1, 15, 8, tzinfo=UTC
    ).isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize(
    "arguments",
    [
        ["update", "vpn"],
        ["deny-certificate"],
        ["deny-certificate", "--fingerprint", FINGERPRINT, "--serial-number", "51"],
        ["deny-certificate", "--certificate", __file__],
        ["allow-certificate"],
    ],
)
def test_wrong_usage_calls_no_node(agents: Cli, arguments: list[str]) -> None:
    assert agents("agents", *arguments).exit_code == 2
    assert not agents.node.calls


def test_a_refusal_says_why(agents: Cli) -> None:
    agents.node.answer(
        f"{SERVICE}/DenyCertificate",
        Failure(
            grpc.StatusCode.ALREADY_EXISTS,
            "CERTIFICATE_DENIED",
            "this certificate is already denied",
        ),
    )

    result = agents("agents", "deny-certificate", "--fingerprint", FINGERPRINT)

    assert result.exit_code == 1
    assert "already denied" in result.stderr


def test_an_agent_has_the_identity_that_the_node_certifies(cli: Cli) -> None:
    cli.node.answer(f"{SERVICE}/RegisterAgent", pb.RegisterAgentResponse())

    options = ("--filter-id", "staff", "--class", "c", "--session-timeout", "60")
    assert cli("agents", "add", "vpn", *options).exit_code == 0

    (request,) = cli.node.requests(f"{SERVICE}/RegisterAgent")
    assert request.certificate_identity == "sparecode://agent/vpn"
    assert request.filter_id == "staff"
    assert request.class_attribute == "c"
    assert request.session_timeout_seconds == 60
