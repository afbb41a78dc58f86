# SPDX-License-Identifier: Apache-2.0
"""`sparecode authenticate` prompts until the user is accepted or refused (K1-K3)."""

import json
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from click.testing import Result

from sparecode_client import Agent, Decision
from tests.client import answers
from tests.client.conftest import Cli, Pki
from tests.client.fakes import Failure, FakeNode

AUTHENTICATE = "AuthenticationService/Authenticate"
CONTINUE = "AuthenticationService/ContinueAuthentication"

Run = Callable[..., Result]


@pytest.fixture
def node(pki: Pki, start_node: Callable[..., FakeNode]) -> FakeNode:
    """Start a node for agents."""
    return start_node(pki.credentials(mutual=True))


@pytest.fixture
def authenticate(pki: Pki, node: FakeNode, stranger: Cli) -> Run:
    """Return a function that runs the command for alice at that node."""

    def run(*args: str, text: str = "") -> Result:
        return stranger(
            *("authenticate", "alice", "--agents-node", node.address),
            *("--certificate", str(pki.agent.certificate)),
            *("--key", str(pki.agent.key), *args),
            text=text,
        )

    return run


def test_authenticate_prompts_for_the_next_tokencode(
    node: FakeNode, authenticate: Run
) -> None:
    node.answer(AUTHENTICATE, answers.NEXT_TOKENCODE)
    node.answer(CONTINUE, answers.CONTINUED)

    result = authenticate(text="2718111111\n222222\n")

    assert (result.exit_code, result.stdout.strip()) == (0, "ACCEPTED")
    assert "Next tokencode" in result.stderr
    assert "New PIN" not in result.stderr
    assert "222222" not in result.output
    (request,) = node.requests(CONTINUE)
    assert request.challenge == b"challenge-4"
    assert (request.next_tokencode, request.new_pin) == ("222222", "")
    assert request.request_id
    assert request.request_id != node.requests(AUTHENTICATE)[0].request_id


def test_authenticate_prompts_twice_for_a_new_pin(
    node: FakeNode, authenticate: Run
) -> None:
    node.answer(AUTHENTICATE, answers.NEW_PIN)
    node.answer(CONTINUE, answers.CONTINUED_REFUSED)

    result = authenticate(text="111111\n4711\n4712\n4711\n4711\n222222\n")

    assert (result.exit_code, result.stdout.strip()) == (1, "REFUSED")
    assert "4711" not in result.output
    (request,) = node.requests(CONTINUE)
    assert (request.next_tokencode, request.new_pin) == ("222222", "4711")


def test_authenticate_prompts_again_after_a_typing_error(
    node: FakeNode, authenticate: Run
) -> None:
    """The node has not judged the input, so the challenge is still valid."""
    node.answer(AUTHENTICATE, answers.NEW_PIN)
    wrong = Failure(
        grpc.StatusCode.INVALID_ARGUMENT, "FIELD", "a PIN is 4 to 8 digits", "new_pin"
    )
    node.answer(CONTINUE, wrong, answers.CONTINUED)

    result = authenticate(text="111111\n12\n12\n222222\n4711\n4711\n222222\n")

    assert (result.exit_code, result.stdout.strip()) == (0, "ACCEPTED")
    assert "a PIN is 4 to 8 digits" in result.stderr
    first, second = node.requests(CONTINUE)
    assert (first.new_pin, second.new_pin) == ("12", "4711")
    assert first.challenge == second.challenge
    assert first.request_id != second.request_id


def test_other_errors_end_the_prompts(node: FakeNode, authenticate: Run) -> None:
    node.answer(AUTHENTICATE, answers.NEXT_TOKENCODE)
    wrong = Failure(grpc.StatusCode.INVALID_ARGUMENT, "FIELD", "too long", "challenge")
    node.answer(CONTINUE, wrong)

    result = authenticate(text="2718111111\n222222\n")

    assert result.exit_code == 2
    assert len(node.requests(CONTINUE)) == 1


def test_the_next_step_comes_from_files_and_the_answer_as_json(
    node: FakeNode, authenticate: Run, tmp_path: Path
) -> None:
    node.answer(AUTHENTICATE, answers.NEW_PIN)
    node.answer(CONTINUE, answers.CONTINUED)
    passcode, pin = tmp_path / "passcode", tmp_path / "pin"
    passcode.write_text("111111\n")
    pin.write_text("4711\n")

    result = authenticate(
        *("--passcode-file", str(passcode), "--new-pin-file", str(pin)),
        *("--next-tokencode-file", "-"),
        text="222222\n",
    )

    assert result.exit_code == 0
    (request,) = node.requests(CONTINUE)
    assert (request.next_tokencode, request.new_pin) == ("222222", "4711")


def test_wrong_input_from_a_file_ends_the_command(
    node: FakeNode, authenticate: Run, tmp_path: Path
) -> None:
    node.answer(AUTHENTICATE, answers.NEW_PIN)
    wrong = Failure(
        grpc.StatusCode.INVALID_ARGUMENT, "FIELD", "a PIN is 4 to 8 digits", "new_pin"
    )
    node.answer(CONTINUE, wrong)
    pin = tmp_path / "pin"
    pin.write_text("12\n")

    result = authenticate("--new-pin-file", str(pin), text="111111\n222222\n")

    assert result.exit_code == 2
    assert len(node.requests(CONTINUE)) == 1


def test_json_has_the_last_decision_and_no_challenge(
    node: FakeNode, pki: Pki, stranger: Cli
) -> None:
    node.answer(AUTHENTICATE, answers.NEXT_TOKENCODE)
    node.answer(CONTINUE, answers.CONTINUED)

    result = stranger(
        *("--output", "json", "authenticate", "alice"),
        *("--agents-node", node.address, "--certificate", str(pki.agent.certificate)),
        *("--key", str(pki.agent.key)),
        text="2718111111\n222222\n",
    )

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "decision": "accepted",
        "authentication_id": "a-5",
    }


def test_library_continues_its_decision(node: FakeNode, pki: Pki) -> None:
    node.answer(AUTHENTICATE, answers.NEW_PIN)
    node.answer(CONTINUE, answers.CONTINUED)

    with Agent(
        node.address, ca=pki.ca, certificate=pki.agent.certificate, key=pki.agent.key
    ) as agent:
        decision = agent.authenticate("alice", "111111")
        answer = agent.continue_authentication(
            decision, "222222", new_pin="4711", request_id="r"
        )

    assert decision.decision is Decision.NEW_PIN_REQUIRED
    assert (decision.next_step, decision.accepted) == (True, False)
    assert "challenge" not in repr(decision)
    assert (answer.next_step, answer.accepted) == (False, True)
    (request,) = node.requests(CONTINUE)
    assert request.challenge == b"challenge-3"
    assert request.request_id == "r"
