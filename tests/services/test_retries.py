# SPDX-License-Identifier: Apache-2.0
"""A retry after a lost answer and a change of policy (Q2)."""

import uuid

import pytest

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.services.emergency.bulk_issue import BulkRow
from sparecode_node.services.emergency.issuing import Lifetime, SetTerms
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.statemachine.results import Decision
from tests.services.one_node import PIN, SERIAL, OneNode

pytestmark = pytest.mark.asyncio

NEW_PIN = "2814"
LONGER = {"pin_length_min": 6}
FEWER = {"codes_per_set_default": 1, "codes_per_set_max": 2, "set_low_threshold": 0}


async def tighten(node: OneNode, values: dict[str, object]) -> None:
    policy = await node.policies.get(node.admin("PolicyService/GetPolicy"))
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=policy.value.version,
        values=values,
    )


def new_id() -> str:
    return str(uuid.uuid4())


async def test_retry_of_an_issue_ignores_a_newer_policy(node: OneNode) -> None:
    """(Q2, I9) The codes are live: "at most 2" would deny that."""
    await node.add_user()
    request_id = new_id()
    issued = await node.issue(count=5, request_id=request_id)
    await tighten(node, FEWER)
    again = await node.issue(count=5, request_id=request_id)
    assert (again.withheld, again.saved) == (True, issued.saved)
    with pytest.raises(InvalidFieldError, match="1 to 2"):
        await node.issue(count=5)
    with pytest.raises(Refused, match="request id"):
        await node.issue(count=6, request_id=request_id)  # Other content (Q1).


async def test_retry_of_a_bulk_ignores_a_newer_policy(
    node: OneNode,
) -> None:
    """(Q2, I9)."""
    await node.add_user()
    request_id = new_id()

    async def bulk(wanted: str) -> list[bool | str]:
        results = await node.bulk.issue(
            node.admin("EmergencyAccessService/BulkIssueTokencodes", wanted),
            rows=[BulkRow(row=1, serial=SERIAL, count=5)],
            count=None,
            terms=SetTerms(lifetime=Lifetime(), recovery=RecoveryPolicy.DENY),
        )
        return [each.problem or each.withheld async for each in results]

    assert await bulk(request_id) == [False]
    await tighten(node, FEWER)
    assert await bulk(request_id) == [True]
    assert "1 to 2" in str(await bulk(new_id()))


async def test_retry_of_setting_a_pin_ignores_a_newer_policy(
    node: OneNode,
) -> None:
    """(Q2, K2)."""
    await node.add_user()
    request_id = new_id()
    context = node.admin("TokenService/SetPin", request_id)
    done = await node.tokens.set_pin(context, serial=SERIAL, pin=NEW_PIN)
    await tighten(node, LONGER)
    assert await node.tokens.set_pin(context, serial=SERIAL, pin=NEW_PIN) == done
    with pytest.raises(InvalidFieldError, match="6 to 8"):
        await node.tokens.set_pin(
            node.admin("TokenService/SetPin"), serial=SERIAL, pin=NEW_PIN
        )


async def test_retry_of_choosing_a_pin_ignores_a_newer_policy(
    node: OneNode,
) -> None:
    """(Q2, K3) But an open challenge is not answered with a PIN that is too short."""
    await node.add_user()
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    response = await node.authenticate(node.tokencode())
    request_id, tokencode = new_id(), node.tokencode(step=1)

    async def chosen(wanted: str) -> Decision:
        answer = await node.answer_challenge(
            response.challenge, tokencode, new_pin=NEW_PIN, request_id=wanted
        )
        return answer.decision

    assert await chosen(request_id) is Decision.ACCEPTED
    await tighten(node, LONGER)
    assert await chosen(request_id) is Decision.ACCEPTED
    with pytest.raises(InvalidFieldError, match="6 to 8"):
        await chosen(new_id())
    node.clock.pass_s(60)
    assert await node.accepts(NEW_PIN + node.tokencode())
    assert not await node.accepts(PIN + node.tokencode())
