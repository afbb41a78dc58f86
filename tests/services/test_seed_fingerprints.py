# SPDX-License-Identifier: Apache-2.0
"""Tokens that were enrolled below feature level 2 get their fingerprints (K5)."""

import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.errors import Refused
from sparecode_node.services.keys import resealing
from sparecode_node.statemachine.digest import digest
from tests.services.one_node import OneNode
from tests.services.two_replicas import NODE, TwoReplicas

pytestmark = pytest.mark.asyncio

SEED = b"a seed that is known"


@pytest.fixture(autouse=True)
def leading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the node lead, and work in small batches."""
    monkeypatch.setattr(TwoReplicas, "primary", NODE)
    monkeypatch.setattr(resealing, "ROWS_MAX", 2)


def forget(node: OneNode, *, level: int) -> None:
    """Leave the state that an earlier release has left, at a feature level."""
    for db in (node.primary_db, node.local_db):
        db.execute("DELETE FROM seed_fingerprints")
        db.execute("UPDATE meta SET value = ? WHERE name = 'feature_level'", (level,))
        db.commit()


def fingerprints(node: OneNode) -> list[str]:
    rows = node.primary_db.execute(
        "SELECT serial FROM seed_fingerprints ORDER BY serial"
    )
    return [serial for (serial,) in rows]


def last_detail(node: OneNode) -> str:
    row = node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE action = 'ReplaceSeals' "
        "ORDER BY sequence DESC"
    ).fetchone()
    return str(row[0])


async def test_the_primary_adds_missing_fingerprints(node: OneNode) -> None:
    """(K5) Then the seed of an earlier token is refused like that of a new one."""
    for serial in ("1", "2", "3"):
        await node.enroll(serial)
    forget(node, level=2)
    assert await node.resealer.step()
    assert fingerprints(node) == ["1", "2"]
    assert await node.resealer.step()
    assert fingerprints(node) == ["1", "2", "3"]
    assert not await node.resealer.step()
    assert digest(node.primary_db) == digest(node.local_db)
    with pytest.raises(Refused) as raised:
        await node.enroll("4", seed=b"1".ljust(20, b"."))
    assert raised.value.rejected.reason is Reason.SEED_EXISTS


async def test_below_level_2_nothing_is_written(node: OneNode) -> None:
    """An earlier release reads neither the fingerprints nor the command."""
    await node.enroll("1")
    forget(node, level=1)
    assert not await node.resealer.step()
    assert fingerprints(node) == []


async def test_tokens_that_share_a_seed_are_named(node: OneNode) -> None:
    """(K5, U1) They were enrolled before the rule; an administrator replaces one."""
    await node.enroll("1", seed=SEED)
    await node.enroll("2")
    forget(node, level=2)
    for db in (node.primary_db, node.local_db):
        sealed = node.sealing.seal_seed("2", SEED, node.ring.active)
        db.execute("UPDATE tokens SET sealed_seed = ? WHERE serial = '2'", (sealed,))
        db.commit()
    assert await node.resealer.step()
    assert last_detail(node) == (
        "2 of 2 seals; token 1 has the seed of token 2; token 2 has the seed of token 1"
    )
