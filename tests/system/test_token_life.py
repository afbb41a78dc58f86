# SPDX-License-Identifier: Apache-2.0
"""The life of a token on a cluster of three: what one node changes holds on all."""

from base64 import b32encode

import pyotp
import pytest
from local_cluster.cluster import LocalCluster

from sparecode_client import NewToken, TokenAlgorithm
from tests.system.estate import PIN, Estate

SEED = b"a seed of twenty byt"
NEW = "serial-lifer-2"


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_every_change_of_a_token_holds_on_every_node(
    cluster: LocalCluster,
) -> None:
    """
    Disabled, enabled, replaced, resynchronized, in emergency access, unassigned.

    The commit that disables it voids its codes (R3). Its PIN moves to its replacement
    (T3), whose tokencodes are spent wherever they were used, and by resynchronizing
    (K1). A fixed tokencode works on all nodes, repeatedly (I11), until the token is
    unassigned (R3).
    """
    hotp = pyotp.HOTP(b32encode(SEED).decode())
    async with Estate(cluster) as estate:
        admin, agents = estate.admin, list(estate.agents.values())
        holder = await estate.holder("lifer", codes=3)

        async def everywhere(passcode: str) -> list[bool]:
            """Ask every node, one after the other."""
            return [
                (await agent.authenticate("lifer", passcode)).accepted
                for agent in agents
            ]

        await admin.disable_token(holder.serial)
        assert await everywhere(PIN + holder.codes[0]) == [False] * 3
        await admin.enable_token(holder.serial)
        assert await everywhere(PIN + holder.codes[0]) == [False] * 3

        await admin.enroll_token(
            NewToken(serial=NEW, seed=SEED, algorithm=TokenAlgorithm.HOTP)
        )
        await admin.replace_token(holder.serial, NEW, keep_pin=True)
        assert await everywhere(PIN + hotp.at(0)) == [True, False, False]

        await admin.resynchronize_token(NEW, hotp.at(60), hotp.at(61))
        assert await everywhere(PIN + hotp.at(61)) == [False] * 3
        assert await everywhere(PIN + hotp.at(62)) == [True, False, False]

        issued = await admin.issue_fixed_tokencode(NEW)
        assert await everywhere(PIN + issued.code) == [True] * 3
        assert await everywhere(PIN + issued.code) == [True] * 3
        await admin.unassign_token(NEW)
        assert await everywhere(PIN + issued.code) == [False] * 3
        assert await estate.until_equal()
