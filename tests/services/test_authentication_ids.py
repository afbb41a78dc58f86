# SPDX-License-Identifier: Apache-2.0
"""The id that an agent gets with a decision finds the events of that decision (U1)."""

import io
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pytest

from sparecode_client.audit.verification import verify
from sparecode_node.domain.administrators import Role
from sparecode_node.queries import audit
from sparecode_node.queries.audit import AuditFilter, AuditRecord
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.errors import InvalidFieldError, NotPermittedError
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.statemachine.results import Authenticated, Decision
from tests.services.one_node import PIN, SERIAL, OneNode
from tests.services.test_audit import reading, rule, shown
from tests.statemachine.world import World


async def of_decision(node: OneNode, authentication_id: str) -> list[AuditRecord]:
    return await shown(node, AuditFilter(authentication_id=authentication_id))


@pytest.mark.asyncio
async def test_the_id_finds_the_decision_and_its_consequences(node: OneNode) -> None:
    """(U1) An accepted code, with the event that few codes are left; a refusal alone."""
    await node.add_user()
    issued = await node.issue(count=2)
    refused = await node.authenticate("4444" + node.tokencode())
    node.clock.pass_s(2)
    accepted = await node.authenticate(PIN + issued.codes[0].code)
    assert accepted.decision is Decision.ACCEPTED

    events = await of_decision(node, accepted.authentication_id)
    assert [(each.event.action, each.event.outcome) for each in events] == [
        ("SET_LOW", "noted"),
        ("Authenticate", "accepted"),
    ]
    assert {each.authentication_id for each in events} == {accepted.authentication_id}
    assert events[0].event.detail == (
        f"authentication {accepted.authentication_id}, 1 code left"
    )
    (event,) = await of_decision(node, refused.authentication_id)
    assert (event.event.outcome, event.event.reason) == ("refused", "wrong_pin")
    assert await of_decision(node, str(uuid.uuid4())) == []


@pytest.mark.asyncio
async def test_a_retry_and_the_next_step_are_found(node: OneNode) -> None:
    """(U1, Q2) A retry has the id of the first try; each step has one of its own."""
    await node.add_user()
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    request_id = str(uuid.uuid4())
    passcode = node.tokencode()
    first = await node.authenticate(passcode, request_id=request_id)
    again = await node.authenticate(passcode, request_id=request_id)
    assert again == first
    assert first.decision is Decision.NEW_PIN_REQUIRED
    second = await node.answer_challenge(
        first.challenge, node.tokencode(step=1), new_pin="3682"
    )
    (event,) = await of_decision(node, first.authentication_id)
    assert event.event.action == "Authenticate"
    event = (await of_decision(node, second.authentication_id))[-1]
    assert event.event.action == "ContinueAuthentication"
    assert f"challenge {first.authentication_id}" in event.event.detail


@pytest.mark.asyncio
async def test_words_of_an_agent_are_no_id(node: OneNode) -> None:
    """(U1) An agent chooses the client address and the resource that are recorded."""
    await node.add_user()
    target = await node.authenticate("4444" + node.tokencode())
    forged = f"authentication {target.authentication_id}, x"
    await node.authentication.authenticate(
        node.agent(),
        username="alice",
        passcode="x",
        client_address=forged,
        resource=forged,
    )
    assert len(await of_decision(node, target.authentication_id)) == 1


@pytest.mark.asyncio
async def test_auditors_search_and_operators_do_not(node: OneNode) -> None:
    """(P1) An id gives access to nothing by itself."""
    await node.add_user()
    answer = await node.authenticate("4444" + node.tokencode())
    rule(node, Role.AUDITOR)
    assert len(await of_decision(node, answer.authentication_id)) == 1
    rule(node, Role.OPERATOR)
    with pytest.raises(NotPermittedError):
        await of_decision(node, answer.authentication_id)
    rule(node, Role.AUDITOR)
    with pytest.raises(InvalidFieldError, match="authentication_id"):
        await of_decision(node, "x" * 600)


@pytest.mark.asyncio
async def test_an_export_is_verified_as_before(node: OneNode, tmp_path: Path) -> None:
    """(U2) The hash covers the id, and the form of the file is that of 0.1.0."""
    await node.add_user()
    answer = await node.authenticate("4444" + node.tokencode())
    content = io.BytesIO()
    pieces = await node.audit.export(
        reading(node, "ExportAuditEvents"),
        form=ExportFormat.JSON_LINES,
        criteria=AuditFilter(),
    )
    async for piece in pieces:
        content.write(piece.value.content)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(content.getvalue())
    assert answer.authentication_id.encode() in content.getvalue()
    verdict = verify(path, [])
    assert verdict.problem is None
    other = str(uuid.uuid4()).encode()
    path.write_bytes(
        content.getvalue().replace(answer.authentication_id.encode(), other)
    )
    assert verify(path, []).problem is not None


class Explaining:
    """Keeps the plan of each query for several rows."""

    def __init__(self, transaction: ReadTransaction, plans: list[str]) -> None:
        self.one = transaction.one
        self._all = transaction.all
        self._plans = plans

    async def all(self, sql: str, **values: Any) -> list[sqlite3.Row]:
        rows = await self._all(f"EXPLAIN QUERY PLAN {sql}", **values)
        self._plans += [row["detail"] for row in rows]
        return await self._all(sql, **values)


@pytest.mark.asyncio
async def test_the_search_reads_no_other_events(node: OneNode) -> None:
    """(U1) The log grows for years; an index finds the id."""
    plans: list[str] = []
    async with node.state.transaction() as transaction:
        explaining: Any = Explaining(transaction, plans)
        for newest_first in (0, 1):
            await audit.page(
                explaining,
                size=10,
                page_token="",
                criteria=AuditFilter(authentication_id="a"),
                from_sequence=newest_first,
            )
    assert (
        len([each for each in plans if "audit_events_by_authentication" in each]) == 2
    )
    assert not any(each.startswith("SCAN") or "B-TREE" in each for each in plans)


def test_ids_sort_by_time_and_cannot_be_guessed() -> None:
    """The index grows at its end only; all other bits are random."""
    entropy = SystemEntropy()
    ids = [entropy.uuid_at(1_700_000_000_000 + second) for second in range(50)]
    assert ids == sorted(ids)
    assert len({entropy.uuid_at(1) for _ in range(50)}) == 50
    for each in ids:
        assert uuid.UUID(each).version == 7
        assert uuid.UUID(each).variant == uuid.RFC_4122
        assert uuid.UUID(each).int >> 80 == 1_700_000_000_000 + ids.index(each)


@pytest.mark.parametrize("level", [1, 2])
def test_level_1_records_as_release_0_1_0(level: int) -> None:
    """(U1) The words of an event are in its hash, which all members share."""
    world = World()
    world.begin()
    if level == 2:
        world.apply(world.call("raise-feature-level", {"level": "2"}))
    result = world.apply(world.call("authenticate", {"user": "nobody", "code": "1"}))
    assert isinstance(result, Authenticated)
    rows = world.db.execute(
        "SELECT detail, authentication_id FROM audit_events "
        "WHERE action = 'Authenticate'"
    ).fetchall()
    ((detail, authentication_id),) = rows
    if level == 1:
        assert (authentication_id, "authentication" in detail) == (None, False)
    else:
        assert authentication_id == result.authentication_id
        assert detail.startswith(f"authentication {result.authentication_id}, factor ")
