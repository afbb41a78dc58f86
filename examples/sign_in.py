# SPDX-License-Identifier: Apache-2.0
"""
A service that signs users in with Sparecode.

    python examples/sign_in.py alice

Set SPARECODE_AGENT_NODES, SPARECODE_CA, SPARECODE_AGENT_CERTIFICATE and
SPARECODE_AGENT_KEY, as for `sparecode authenticate`.
"""

import getpass
import os
import sys
from collections.abc import Callable

from sparecode_client import (
    Agent,
    Authentication,
    Decision,
    OutcomeUnknown,
    SparecodeError,
)

Ask = Callable[[str], str]


def sign_in(agent: Agent, username: str, ask: Ask) -> bool:
    """
    Return whether a user may enter. *ask* prompts the user.

    An exception of the library never means yes: without a decision no one enters.
    """
    answer = decide(agent, username, ask("Passcode: "))
    while not answer.accepted:
        match answer.decision:
            case Decision.NEXT_TOKENCODE_REQUIRED:
                answer = agent.continue_authentication(
                    answer, ask("The next tokencode that the token shows: ")
                )
            case Decision.NEW_PIN_REQUIRED:
                new_pin = ask("A new PIN: ")
                answer = agent.continue_authentication(
                    answer, ask("The next tokencode: "), new_pin=new_pin
                )
            case _:
                return False
    return True


def decide(agent: Agent, username: str, passcode: str) -> Authentication:
    """
    Return the decision on a passcode.

    If the outcome is unknown, a code may be spent: the same request id asks for the
    decision that was made, and never spends a second code.
    """
    try:
        return agent.authenticate(username, passcode, resource="example")
    except OutcomeUnknown as error:
        return agent.authenticate(
            username, passcode, resource="example", request_id=error.request_id
        )


def main() -> int:
    """Sign a user in at the terminal."""
    environment = os.environ
    if not sys.argv[1:] or "SPARECODE_AGENT_NODES" not in environment:
        print(__doc__, file=sys.stderr)
        return 2
    with Agent(
        environment["SPARECODE_AGENT_NODES"].split(","),
        ca=environment["SPARECODE_CA"],
        certificate=environment["SPARECODE_AGENT_CERTIFICATE"],
        key=environment["SPARECODE_AGENT_KEY"],
    ) as agent:
        try:
            accepted = sign_in(agent, sys.argv[1], getpass.getpass)
        except SparecodeError as error:
            print(f"No decision: {error}", file=sys.stderr)
            return 3
    print("Welcome." if accepted else "Wrong passcode.")
    return 0 if accepted else 1


if __name__ == "__main__":
    sys.exit(main())
