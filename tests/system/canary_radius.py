# SPDX-License-Identifier: Apache-2.0
"""Secrets that go through RADIUS, over UDP and TLS, for the test that looks for them."""

import asyncio
from collections.abc import Callable, Sequence

from local_cluster.cluster import AGENT, HOST, LocalCluster
from pyrad.packet import AccessAccept, AccessChallenge, AccessReject, StatusServer

from sparecode_client import RadiusSettings
from sparecode_node.radius import packets
from tests.radius.door import connected, decoded, request
from tests.radius.tls import RADSEC, Connection, trusting
from tests.system.estate import Estate
from tests.system.test_radius import Nas

Tokencodes = Callable[[int], str]
GIVE_UP_S = 60.0


def serve_radius(cluster: LocalCluster, ports: Sequence[int]) -> None:
    """Give the first node both listeners. Before it starts."""
    udp, tls = ports
    node = cluster.nodes[0]
    ours = cluster.certificates / node.node_id
    node.config.write_text(
        node.config.read_text()
        + f'\n[radius]\nlisten = ["{HOST}:{udp}"]\n'
        + f'\n[radsec]\nlisten = "{HOST}:{tls}"\n'
        + f'certificate = "{ours}.pem"\nkey = "{ours}.key"\n'
    )


async def drive_radius(
    estate: Estate,
    ports: Sequence[int],
    username: str,
    tokencode: Tokencodes,
    *,
    pin: str,
    wrong: Sequence[str],
    chosen: str,
) -> str:
    """
    Sign in with a PIN, with wrong passcodes, and choose a PIN. Return the shared secret.

    *username*: has a HOTP token with the same serial, and its PIN.
    """
    udp, tls = ports
    new = await estate.admin.register_radius_client(
        "canary", RadiusSettings(networks=(HOST,))
    )
    nas = Nas(new.secret, [udp])
    await nas.code(request(new.secret, code=StatusServer), [0])
    for password, expected in (
        (pin + tokencode(0), AccessAccept),
        (pin + tokencode(0), AccessReject),
        *((each + tokencode(1), AccessReject) for each in wrong),
    ):
        sent = request(new.secret, username, password)
        assert await nas.code(sent, [0]) == expected
    unsigned = request(new.secret, username, pin + tokencode(1), signed=False)
    silent = await connected(udp)
    silent.transport.sendto(unsigned)
    silent.transport.close()
    named = request(new.secret, pin + tokencode(1), "")  # In the field of the name.
    assert await nas.code(named, [0]) == AccessReject

    await estate.admin.unlock_user(username)
    await estate.admin.clear_pin(username)
    streams = await asyncio.open_connection(
        HOST,
        tls,
        ssl=trusting(estate.cluster.certificates, AGENT),
        server_hostname=HOST,
    )
    connection = Connection(*streams)
    state: list[tuple[int, bytes]] = []
    for password, expected in (
        (tokencode(2), AccessChallenge),
        (chosen, AccessChallenge),
        (chosen, AccessChallenge),
        (tokencode(3), AccessAccept),
    ):
        sent = request(RADSEC, username, password, signed=False, attributes=state)
        async with asyncio.timeout(GIVE_UP_S):
            reply = decoded(RADSEC, sent, await connection.ask(sent))
        assert reply.code == expected
        state = [(packets.STATE, each) for each in reply.get(packets.STATE, ())]
    await connection.close()
    return new.secret
