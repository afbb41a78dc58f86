# SPDX-License-Identifier: Apache-2.0
"""One passcode by HTTP, as an agent would send it."""

import http.client
import json
import ssl
import uuid
from dataclasses import dataclass

HTTP_PORT = 7305
TIMEOUT_S = 15.0
PATH = "/v1/authenticate"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpReply:
    """The answer to a passcode, or why there was no decision."""

    decision: str
    """For example `accepted`; empty: nothing was decided."""
    reason: str
    """Why nothing was decided, for example `CREDENTIALS`; empty: it was."""
    message: str
    """The same in words."""


def ask(
    host: str,
    port: int,
    *,
    context: ssl.SSLContext,
    bearer: str,
    username: str,
    passcode: str,
) -> HttpReply:
    """
    Send a passcode, and return the answer.

    *context* trusts the nodes, and has the agent's certificate if there is no *bearer*.

    Raises:
        OSError: No connection, or no answer in time.
        ValueError: The key or the answer has another form.
    """
    headers = {
        "Content-Type": "application/json",
        "Idempotency-Key": str(uuid.uuid4()),
        **({"Authorization": f"Bearer {bearer}"} if bearer else {}),
    }
    body = json.dumps({"username": username, "passcode": passcode})
    connection = http.client.HTTPSConnection(
        host, port, timeout=TIMEOUT_S, context=context
    )
    try:
        connection.request("POST", PATH, body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except http.client.HTTPException as error:
        raise ValueError("no answer of a node") from error
    finally:
        connection.close()
    if response.status == http.client.OK:
        decision = str(answer.get("decision", "")).lower()
        return HttpReply(decision=decision, reason="", message="")
    return HttpReply(
        decision="",
        reason=str(answer.get("reason", "")),
        message=str(answer.get("detail", "")),
    )
