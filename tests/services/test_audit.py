# SPDX-License-Identifier: Apache-2.0
"""The audit log: who may read it, and which events a filter selects."""

import dataclasses

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.audit import GENESIS_HASH, chain_hash
from sparecode_node.queries.audit import AuditFilter, AuditRecord
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError, NotPermittedError
from tests.services.one_node import PIN, SERIAL, VPN, OneNode
from tests.services.two_replicas import NOW_MS

pytestmark = pytest.mark.asyncio

EVERYTHING = AuditFilter()


def reading(node: OneNode, method: str = "ListAuditEvents") -> CallContext:
    return dataclasses.replace(node.admin(f"AuditService/{method}"), request_id="")


async def shown(
    node: OneNode, wanted: AuditFilter = EVERYTHING, **options
) -> list[AuditRecord]:
    """Return the events on all pages of a filter."""
    records: list[AuditRecord] = []
    token = ""
    while True:
        read = await node.audit.list(
            reading(node), criteria=wanted, page_token=token, **options
        )
        records += read.value.items
        token = read.value.next_page_token
        if not token:
            return records


def of(records: list[AuditRecord]) -> list[int]:
    return [record.event.sequence for record in records]


def rule(node: OneNode, role: Role) -> None:
    """Give the administrator another role, on every replica."""
    for db in (node.primary_db, node.local_db):
        db.execute("UPDATE administrators SET role = ?", (role.value,))


async def live(node: OneNode) -> None:
    """Cause some events, a second apart."""
    await node.add_user()
    node.clock.pass_s(1)
    assert not await node.accepts("4444" + node.tokencode())
    node.clock.pass_s(1)
    assert await node.accepts(PIN + node.tokencode())


async def test_events_are_shown_newest_first_or_from_a_sequence_on(
    node: OneNode,
) -> None:
    """(U1) Each event once, for any page size, with its link of the chain."""
    await live(node)
    newest_first = await shown(node, page_size=2)
    last = newest_first[0].event.sequence
    assert of(newest_first) == list(range(last, 0, -1))
    assert of(await shown(node, from_sequence=4, page_size=2)) == list(
        range(4, last + 1)
    )
    assert await shown(node, from_sequence=last + 1) == []
    previous = GENESIS_HASH
    for record in reversed(newest_first):
        assert record.previous_hash == previous
        previous = chain_hash(previous, record.event)
        assert record.hash == previous


async def test_a_page_stays_where_it_was_while_events_come(node: OneNode) -> None:
    first = await node.audit.list(reading(node), criteria=EVERYTHING, page_size=2)
    await live(node)
    second = await node.audit.list(
        reading(node),
        criteria=EVERYTHING,
        page_size=2,
        page_token=first.value.next_page_token,
    )
    both = of([*first.value.items, *second.value.items])
    assert both == list(range(both[0], both[0] - len(both), -1))


@pytest.mark.parametrize(
    ("wanted", "actions"),
    [
        (AuditFilter(actor=f"agent:{VPN}"), ["Authenticate", "Authenticate"]),
        (AuditFilter(action="SetPin"), ["SetPin"]),
        (
            AuditFilter(target=SERIAL),
            ["SetPin", "AssignToken", "EnrollToken"],
        ),
        (AuditFilter(outcome="refused"), ["Authenticate"]),
        (AuditFilter(reason="wrong_pin"), ["Authenticate"]),
        (AuditFilter(target="alice", outcome="accepted"), ["Authenticate"]),
        (AuditFilter(actor="administrator:nobody"), []),
        (
            AuditFilter(start_ms=NOW_MS + 1, end_ms=NOW_MS + 2000),
            ["Authenticate"],
        ),
        (AuditFilter(start_ms=NOW_MS + 2000), ["Authenticate"]),
        (AuditFilter(start_ms=NOW_MS + 2001), []),
        (AuditFilter(end_ms=NOW_MS), []),
        (
            AuditFilter(end_ms=NOW_MS + 1, action="CreateUser"),
            ["CreateUser"],
        ),
    ],
)
async def test_all_filters_must_match(
    node: OneNode, wanted: AuditFilter, actions: list[str]
) -> None:
    """A range of times excludes its end."""
    await live(node)
    assert [each.event.action for each in await shown(node, wanted)] == actions
    oldest_first = await shown(node, wanted, from_sequence=1, page_size=1)
    assert [each.event.action for each in oldest_first] == actions[::-1]


async def test_a_time_with_many_events_selects_all_of_them(node: OneNode) -> None:
    """A range of times is a range of sequences, wherever its ends fall."""
    await node.add_user()
    for _ in range(7):
        node.clock.pass_s(1)
        await node.users.unlock(node.admin("UserService/UnlockUser"), username="alice")
    every = await shown(node, from_sequence=1)
    for start_ms in range(NOW_MS - 500, NOW_MS + 9000, 500):
        for end_ms in range(start_ms + 500, NOW_MS + 9000, 1500):
            result = await shown(
                node, AuditFilter(start_ms=start_ms, end_ms=end_ms), from_sequence=1
            )
            assert result == [
                each for each in every if start_ms <= each.event.at_ms < end_ms
            ]


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.SUPER_ADMIN, True),
        (Role.AUDITOR, True),
        (Role.HELP_DESK, False),
        (Role.OPERATOR, False),
    ],
)
async def test_only_permitted_roles_read_the_audit_log(
    node: OneNode, role: Role, may: bool
) -> None:
    """(P1)."""
    rule(node, role)
    if may:
        assert await shown(node)
        return
    with pytest.raises(NotPermittedError):
        await shown(node)


async def test_stale_read_of_the_audit_log_needs_no_quorum(
    node: OneNode,
) -> None:
    """(P2) The answer says that it may be old."""
    node.replicator.down = NoQuorumError("down")
    with pytest.raises(NoQuorumError):
        await shown(node)
    read = await node.audit.list(reading(node), criteria=EVERYTHING, stale_ok=True)
    assert read.stale
    assert read.value.items


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"page_size": 501}, "page_size"),
        ({"page_token": "x"}, "page_token"),
        ({"page_token": "LTE"}, "page_token"),
        ({"page_token": "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"}, "page_token"),
        ({"from_sequence": -1}, "from_sequence"),
        ({"from_sequence": 2**63 - 1}, "from_sequence"),
        ({"criteria": AuditFilter(actor="a\n")}, "filter.actor"),
        ({"criteria": AuditFilter(reason="x" * 513)}, "filter.reason"),
        ({"criteria": AuditFilter(start_ms=5, end_ms=5)}, "filter.end_time"),
    ],
)
async def test_invalid_filters_are_refused(
    node: OneNode, options: dict, field: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await node.audit.list(reading(node), **{"criteria": EVERYTHING, **options})
    assert caught.value.field == field


async def test_the_largest_sequences_are_accepted(node: OneNode) -> None:
    assert await shown(node, from_sequence=2**63 - 2) == []
