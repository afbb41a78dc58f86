# SPDX-License-Identifier: Apache-2.0
"""
One connection without an accepted call costs a node little for each frame that it sends.

The attack: after its third PING too many, gRPC adds an error to a list for each further
one, and copies the list each time. 20,000 PINGs a second, 340 KB, kept a core busy.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.loopback_node import LoopbackNode, running_node
from tests.security.http2_flood import GOAWAY, PING, SETTINGS

pytestmark = pytest.mark.asyncio

KINDS = ("settings", "windows", "pings", "pings", "pings", "calls", "resets")
"""With a bound of pings, gRPC closed some connections at once, and others not at all."""
SHORT_S, LONG_S = 1.0, 5.0
MOST = 20
"""A frame of any kind costs at most this many times a frame of SETTINGS."""


async def flooded(
    node: LoopbackNode, kind: str, seconds: float
) -> tuple[dict[str, Any], float]:
    """Let another process flood the node; return what it saw, and our CPU seconds."""
    port = node.address("admin").rpartition(":")[2]
    began_s = time.process_time()
    flood = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.security.http2_flood"),
        *(port, kind, str(seconds)),
        stdout=asyncio.subprocess.PIPE,
    )
    written, _ = await flood.communicate()
    assert flood.returncode == 0
    return json.loads(written), time.process_time() - began_s


async def test_a_flood_of_pings_is_answered_like_any_other_frame(
    tmp_path: Path,
) -> None:
    """A GOAWAY, the answer of gRPC to too many, is the costly part."""
    async with running_node(tmp_path) as node:
        seen, _ = await flooded(node, "pings", SHORT_S)
        assert str(GOAWAY) not in seen["answers"]
        assert seen["answers"][str(PING)] > 1_000
        assert await node.sign_in()


@pytest.mark.long
async def test_no_kind_of_frame_costs_much_more_than_another(
    tmp_path: Path, record_property: Any
) -> None:
    """With `-s` it prints what each kind of flood costs; docs/security.md has the numbers."""
    costs: dict[str, float] = {}
    async with running_node(tmp_path) as node:
        for kind in KINDS:
            seen, cpu_s = await flooded(node, kind, LONG_S)
            cost = cpu_s / seen["sent"] * 1e6
            costs[kind] = max(cost, costs.get(kind, 0.0))
            words = (
                f"{kind}: {seen['sent'] / seen['lasted_s']:,.0f} frames/s, "
                f"{cpu_s / seen['lasted_s']:.2f} cores, {cost:.2f} us a frame"
            )
            record_property(kind, words)
            print(words)  # noqa: T201
            assert seen["answers"][str(SETTINGS)] >= 1
            assert await node.sign_in()
    assert max(costs.values()) < MOST * costs["settings"], costs
