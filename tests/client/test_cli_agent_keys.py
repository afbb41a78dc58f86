# SPDX-License-Identifier: Apache-2.0
"""`sparecode agents key`."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import agents_pb2 as pb
from tests.client import answers
from tests.client.conftest import Cli

METHOD = "AgentService/CreateAgentKey"
KEY = "sparecode_" + 43 * "k"


@pytest.fixture
def keys(cli: Cli) -> Cli:
    cli.node.answer(METHOD, pb.CreateAgentKeyResponse(commit=answers.COMMIT, key=KEY))
    return cli


def test_the_key_is_the_only_output(keys: Cli) -> None:
    """(D5) So it can go into a file; without an overlap, others stop at once."""
    result = keys("agents", "key", "portal")
    assert result.stdout == f"{KEY}\n"
    (request,) = keys.node.requests(METHOD)
    assert request == pb.CreateAgentKeyRequest(
        request_id=request.request_id, name="portal", overlap=Duration()
    )


def test_overlap_and_networks_are_sent(keys: Cli) -> None:
    result = keys(
        *("agents", "key", "portal", "--overlap", "1d", "--output", "json"),
        *("--network", "10.1.0.7", "--network", "10.2.0.0/16"),
    )
    assert json.loads(result.stdout)["key"] == KEY
    (request,) = keys.node.requests(METHOD)
    assert request.overlap == Duration(seconds=86_400)
    assert request.networks == ["10.1.0.7", "10.2.0.0/16"]


def test_an_overlap_is_a_duration(keys: Cli) -> None:
    result = keys("agents", "key", "portal", "--overlap", "2030-01-01")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--overlap takes a duration" in result.stderr


def test_an_agent_is_shown_with_the_times_of_its_keys(keys: Cli) -> None:
    agent = pb.Agent(
        name="portal",
        keys=pb.AgentKeys(
            create_time=Timestamp(seconds=1_700_000_000),
            networks=["10.1.0.7/32"],
            former_end_time=Timestamp(seconds=1_800_000_000),
        ),
    )
    keys.node.answer("AgentService/GetAgent", pb.GetAgentResponse(agent=agent))
    lines = keys("agents", "show", "portal").stdout.splitlines()
    facts = [" ".join(line.split()) for line in lines]
    assert "Bearer key since 2023-11-14 22:13:20 UTC" in facts
    assert "Key works from 10.1.0.7/32" in facts
    assert "Old key works until 2027-01-15 08:00:00 UTC" in facts
