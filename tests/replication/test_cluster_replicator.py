# SPDX-License-Identifier: Apache-2.0
"""`ClusterReplicator`s over real gRPC, in one process."""

import asyncio
from pathlib import Path

import pytest

from sparecode_node.statemachine.results import Applied
from tests.replication.cluster import running
from tests.replication.recording import proposal

pytestmark = pytest.mark.asyncio


async def test_calls_from_any_node_are_applied_on_all(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        results = await asyncio.gather(
            *(
                node.replicator.propose(
                    proposal(f"{node.node_id}-{k}", node.node_id), timeout_s=10
                )
                for node in nodes
                for k in range(20)
            )
        )
        assert all(isinstance(result, Applied) for result in results)
        for node in nodes:
            await node.replicator.read_barrier(timeout_s=5)
            assert len(node.state.results) == 60
        assert len({node.state.digest() for node in nodes}) == 1
