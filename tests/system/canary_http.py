# SPDX-License-Identifier: Apache-2.0
"""Secrets that go through HTTP, for the test that looks for them."""

from collections.abc import Callable, Sequence
from datetime import timedelta

from local_cluster.cluster import AGENT, HOST, LocalCluster

from tests.http.door import client_of, trusting
from tests.system.estate import Estate

Tokencodes = Callable[[int], str]


def serve_http(cluster: LocalCluster, port: int) -> None:
    """Give the first node the listener. Before it starts."""
    node = cluster.nodes[0]
    ours = cluster.certificates / node.node_id
    node.config.write_text(
        node.config.read_text()
        + f'\n[http]\nlisten = "{HOST}:{port}"\n'
        + f'certificate = "{ours}.pem"\nkey = "{ours}.key"\n'
    )


async def drive_http(
    estate: Estate,
    port: int,
    username: str,
    tokencode: Tokencodes,
    *,
    pin: str,
    wrong: Sequence[str],
    chosen: str,
) -> list[str]:
    """
    Sign in with a PIN, with wrong passcodes, and choose a PIN. Return the bearer keys.

    *username*: has a HOTP token with the same serial, and its PIN.
    """
    keys = [
        (await estate.admin.create_agent_key(AGENT, overlap=timedelta(hours=1))).key
        for _ in range(2)
    ]
    context = trusting(estate.cluster.certificates)
    async with client_of(port, context) as client:

        async def passcode(typed: str, name: str, key: str) -> str:
            response = await client.post(
                "/v1/authenticate",
                json={"username": name, "passcode": typed},
                headers={"authorization": f"Bearer {key}"},
            )
            assert response.status_code == 200, response.text
            return str(response.json()["decision"])

        right = pin + tokencode(0)
        assert await passcode(right, username, keys[0]) == "ACCEPTED"
        for each in (right, *(each + tokencode(1) for each in wrong)):
            assert await passcode(each, username, keys[1]) == "REFUSED"
        # In the field of the name, in a body that is not JSON, in an address, and with
        # a key that is wrong.
        typed = pin + tokencode(1)
        assert await passcode("", typed, keys[1]) == "REFUSED"
        client.headers["authorization"] = f"Bearer {keys[1]}"
        for content in (f'{{"passcode": "{typed}"', f'{{"passcode": {typed}}}'):
            await client.post(
                "/v1/authenticate",
                content=content,
                headers={"content-type": "application/json"},
            )
        await client.get(f"/v1/authenticate?passcode={typed}")
        await client.post(
            "/validate/check",
            data={"user": username, "pass": wrong[0] + tokencode(1)},
            headers={"authorization": f"Bearer {keys[0]}x"},
        )

        await estate.admin.unlock_user(username)
        await estate.admin.clear_pin(username)
        transaction = ""
        for entered, expected in (
            (tokencode(2), "CHALLENGE"),
            (chosen, "CHALLENGE"),
            (chosen, "CHALLENGE"),
            (tokencode(3), "ACCEPT"),
        ):
            response = await client.post(
                "/validate/check",
                data={
                    "user": username,
                    "pass": entered,
                    **({"transaction_id": transaction} if transaction else {}),
                },
            )
            body = response.json()
            assert body["result"]["authentication"] == expected, body
            transaction = body["detail"].get("transaction_id", "")
    return keys
