# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents add` for each kind of agent."""

import json
import shlex

import grpc
import pytest

from sparecode.v1 import agents_pb2 as pb
from sparecode.v1 import types_pb2
from tests.client import answers
from tests.client.conftest import Cli
from tests.client.fakes import Failure

SERVICE = "AgentService"
SECRET = "TLEWGDJQJMVQKE5SSXBYFDLDCU66BCA7"
KEY = "sparecode_" + 43 * "k"


@pytest.fixture
def agents(cli: Cli) -> Cli:
    cli.node.answer(
        f"{SERVICE}/RegisterAgent", pb.RegisterAgentResponse(commit=answers.COMMIT)
    )
    cli.node.answer(
        f"{SERVICE}/RegisterRadiusClient",
        pb.RegisterRadiusClientResponse(commit=answers.COMMIT, secret=SECRET),
    )
    cli.node.answer(
        f"{SERVICE}/CreateAgentKey",
        pb.CreateAgentKeyResponse(commit=answers.COMMIT, key=KEY),
    )
    return cli


def test_a_radius_client_is_added_by_one_line(agents: Cli) -> None:
    """(D1) The secret is the only output."""
    line = "agents add --radius NAME --network 10.0.0.0/8"
    assert agents(*shlex.split(line)).stdout == f"{SECRET}\n"
    (request,) = agents.node.requests(f"{SERVICE}/RegisterRadiusClient")
    assert (request.name, [*request.networks]) == ("NAME", ["10.0.0.0/8"])
    assert not agents.node.requests(f"{SERVICE}/RegisterAgent")


def test_an_http_agent_is_added_with_its_key(agents: Cli) -> None:
    """(D5) The key is the only output, and the networks are those of the key."""
    result = agents("agents", "add", "--http", "portal", "--network", "10.1.0.7")
    assert result.stdout == f"{KEY}\n"
    (registration,) = agents.node.requests(f"{SERVICE}/RegisterAgent")
    assert registration.certificate_identity == "sparecode://agent/portal"
    (key,) = agents.node.requests(f"{SERVICE}/CreateAgentKey")
    assert (key.name, [*key.networks]) == ("portal", ["10.1.0.7"])


def test_an_http_agent_without_a_key_says_how_to_go_on(agents: Cli) -> None:
    """The registration stays, so the same line cannot be repeated."""
    agents.node.answer(
        f"{SERVICE}/CreateAgentKey",
        Failure(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "too many keys"),
    )
    result = agents("agents", "add", "--http", "portal")
    assert (result.exit_code != 0, result.stdout) == (True, "")
    assert "sparecode agents key portal" in " ".join(result.stderr.split())


def test_the_command_of_0_1_0_still_registers(agents: Cli) -> None:
    result = agents(
        *("agents", "register", "vpn", "spiffe://vpn", "--protects", "cloud"),
        *("--restricted", "--output", "json"),
    )
    assert set(json.loads(result.stdout)) == {"name", "node_id", "index"}
    (request,) = agents.node.requests(f"{SERVICE}/RegisterAgent")
    assert request == pb.RegisterAgentRequest(
        request_id=request.request_id,
        name="vpn",
        certificate_identity="spiffe://vpn",
        protects=types_pb2.AGENT_PROTECTS_CLOUD,
        restricted=True,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--radius", "at least one --network"),
        ("--radius --http --network 10.1.0.7", "not both"),
        ("sparecode://agent/vpn --radius --network 10.1.0.7", "no IDENTITY"),
        ("--network 10.1.0.7", "needs --radius or --http"),
        ("--repeats", "need --radius"),
        ("--http --prompts", "need --radius"),
        ("--http --request-id 0b0f7a52-3f0e-4c38-9a31-7f1a6f1c3c11", "of two"),
    ],
)
def test_options_of_another_kind_are_refused(
    agents: Cli, options: str, words: str
) -> None:
    """The message says what is wrong, and nothing is sent."""
    result = agents("agents", "add", "vpn", *shlex.split(options))
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())
    for method in ("RegisterAgent", "RegisterRadiusClient", "CreateAgentKey"):
        assert not agents.node.requests(f"{SERVICE}/{method}")
