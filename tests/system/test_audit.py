# SPDX-License-Identifier: Apache-2.0
"""One audit log on three nodes: exported anywhere, signed anywhere, proved without."""

import asyncio
from pathlib import Path

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalCluster

from sparecode_client import AsyncAdmin, ClusterStatus
from sparecode_client.audit.checkpoints import read_public_keys, signature_is_right
from sparecode_client.audit.verification import verify
from tests.system.estate import PATIENCE, PIN, Estate

pytestmark = pytest.mark.asyncio


async def until_heads_are_equal(admin: AsyncAdmin) -> ClusterStatus:
    """Return the status once every member has equally many events."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            status = await admin.get_status()
            if len({member.audit_sequence for member in status.members}) == 1:
                return status


async def test_every_node_has_the_same_log_and_signs_alike(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """
    (U1, U2) Heads are equal, exports are equal byte by byte, any checkpoint proves any.

    The public key is that which the operator was given, not that of the answer.
    """
    async with Estate(cluster) as estate:
        holder = await estate.holder("alice", codes=5)
        for node_id, agent in estate.agents.items():
            answer = await agent.authenticate("alice", PIN + holder.codes[0])
            assert answer.accepted == (node_id == cluster.nodes[0].node_id)
        status = await until_heads_are_equal(estate.admin)
        heads = {(each.audit_sequence, each.audit_head) for each in status.members}
        assert len(heads) == 1
        trusted = read_public_keys(cluster.certificates / "audit.pem")
        exports, checkpoints = [], []
        for node in cluster.nodes:
            async with AsyncAdmin(
                node.admin_address, ca=cluster.members_ca, timeout=PATIENCE
            ) as admin:
                await admin.login(ADMINISTRATOR, cluster.password)
                checkpoints.append(await admin.get_checkpoint())
                written: list[bytes] = []
                await admin.export_audit_events(written.append)
                exports.append(b"".join(written))
                result = await admin.verify_chain()
                assert result.broken_sequence == 0
                assert result.verified_sequence >= checkpoints[-1].sequence
    for checkpoint in checkpoints:
        assert signature_is_right(checkpoint)
        assert checkpoint.public_key in trusted
    # Each sign-in is an event, so that a later export is longer.
    assert exports[1].startswith(exports[0])
    assert exports[2].startswith(exports[1])
    path = tmp_path / "audit.jsonl"
    path.write_bytes(exports[0])
    assert verify(path, checkpoints[:1]).problem is None
    path.write_bytes(exports[2])
    verdict = verify(path, checkpoints)
    assert verdict.problem is None
    assert verdict.proved_up_to == checkpoints[2].sequence
