# SPDX-License-Identifier: Apache-2.0
"""Administrators manage agents, and changes take effect on their calls."""

import pytest

from sparecode_node.domain.agents import (
    GROUPS_MAX,
    Certificate,
    CertificateMark,
    Protects,
)
from sparecode_node.domain.outcomes import Reason
from sparecode_node.queries.views import AgentView
from sparecode_node.services.context import AgentCaller, CallContext
from sparecode_node.services.errors import (
    CertificateDeniedError,
    InvalidFieldError,
    Refused,
)
from tests.services.one_node import PIN, VPN, OneNode

pytestmark = pytest.mark.asyncio

MINE = Certificate(fingerprint="ab" * 32, serial_number="51af")


async def update(node: OneNode, **changes: object) -> None:
    await node.agents.update(
        node.admin("AgentService/UpdateAgent"),
        name=VPN,
        **changes,  # type: ignore[arg-type]
    )


async def seen(node: OneNode, name: str = VPN) -> AgentView:
    read = await node.agents.get(node.admin("AgentService/GetAgent"), name)
    return read.value


def with_certificate(node: OneNode, request_id: str = "") -> CallContext:
    context = node.agent(request_id=request_id)
    return CallContext(
        caller=AgentCaller(identity=VPN, certificate=MINE),
        request_id=context.request_id,
        method=context.method,
        deadline_s=context.deadline_s,
    )


async def decision(node: OneNode, context: CallContext, passcode: str) -> str:
    answer = await node.authentication.authenticate(
        context, username="alice", passcode=passcode, client_address="", resource=""
    )
    return answer.decision.value


async def test_what_is_given_changes_and_the_rest_stays(node: OneNode) -> None:
    await node.add_user("Alice")
    await node.add_user("bob", serial="2")
    await update(node, protects=Protects.CLOUD)
    await update(node, enabled=False, add_usernames=("bob", "ALICE"))
    await update(node, restricted=True, remove_usernames=("BOB",))

    result = await seen(node, VPN.upper())

    assert result == AgentView(
        name=VPN,
        identity=VPN,
        protects=Protects.CLOUD,
        enabled=False,
        restricted=True,
        allowed_user_count=1,
        allowed_usernames=("Alice",),
    )
    listed = await node.agents.list(node.admin("AgentService/ListAgents"))
    assert [each.allowed_user_count for each in listed.value.items] == [1]


async def test_a_disabled_agent_is_refused_by_a_node_that_lags(node: OneNode) -> None:
    """(A4, U1) Apply checks the agent, so the called node may be behind."""
    await node.add_user()
    codes = (await node.issue()).codes
    node.replicator.lags = True
    await update(node, enabled=False)

    assert not await node.accepts(PIN + codes[0].code)
    assert node.reasons()[-1] == Reason.AGENT_DISABLED
    await update(node, enabled=True)
    assert await node.accepts(PIN + codes[0].code)


async def test_emergency_codes_do_not_work_for_the_cloud(node: OneNode) -> None:
    """(A4) From the commit that changes the agent's scope. The code stays live."""
    await node.add_user()
    codes = (await node.issue()).codes
    await update(node, protects=Protects.CLOUD)

    assert not await node.accepts(PIN + codes[0].code)
    assert node.reasons()[-1] == Reason.RESOURCE_NOT_COVERED
    await update(node, protects=Protects.AUTHENTICATION_MANAGER)
    assert await node.accepts(PIN + codes[0].code)


async def test_only_users_on_the_allow_list_are_accepted(node: OneNode) -> None:
    """(A4, A6) The agent learns no more than for a wrong passcode."""
    await node.add_user()
    await node.add_user("bob", serial="2")
    await update(node, restricted=True, add_usernames=("bob",))
    before = node.kdf.evaluations()

    assert not await node.accepts(PIN + node.tokencode())
    assert node.reasons()[-1] == Reason.USER_NOT_ALLOWED
    assert node.kdf.evaluations() - before == 2
    await update(node, add_usernames=("alice",))
    assert await node.accepts(PIN + node.tokencode())


async def update_user(node: OneNode, **groups: tuple[str, ...]) -> None:
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", **groups
    )


async def test_users_in_an_allowed_group_are_accepted(node: OneNode) -> None:
    """(A4, A6) On every node from the commit on, until the commit that removes them."""
    await node.add_user()
    await update(node, restricted=True, add_groups=("Staff", "night shift"))
    assert (await seen(node)).allowed_groups == ("night shift", "staff")
    assert not await node.accepts(PIN + node.tokencode())
    await update_user(node, join_groups=("STAFF", "other"))
    assert await node.accepts(PIN + node.tokencode())
    read = await node.users.get(node.admin("UserService/GetUser"), "alice")
    assert read.value.groups == ("other", "staff")
    await update_user(node, leave_groups=("staff",))
    assert not await node.accepts(PIN + node.tokencode(step=1))
    assert node.reasons()[-1] == Reason.USER_NOT_ALLOWED
    await update_user(node, join_groups=("night shift",))
    await update(node, remove_groups=("night shift",))
    assert not await node.accepts(PIN + node.tokencode(step=1))


async def test_groups_have_bounds(node: OneNode) -> None:
    """A change that would exceed a bound changes nothing."""
    await node.add_user()
    many = tuple(f"group {number}" for number in range(GROUPS_MAX))
    await update_user(node, join_groups=many)
    await update(node, add_groups=many)
    for change in (
        update_user(node, join_groups=("one more",)),
        update(node, add_groups=("one more",)),
    ):
        with pytest.raises(Refused) as refused:
            await change
        assert refused.value.rejected.reason is Reason.GROUP_LIMIT
    with pytest.raises(InvalidFieldError, match="at most 32 names"):
        await update_user(node, join_groups=(*many, "one more"))
    with pytest.raises(InvalidFieldError, match="that join_groups names too"):
        await update_user(node, join_groups=("a",), leave_groups=("A",))
    assert len((await seen(node)).allowed_groups) == GROUPS_MAX


async def test_a_denied_certificate_is_refused_and_its_agent_is_not(
    node: OneNode,
) -> None:
    """(A4, Q2) By fingerprint or serial number. The agent's new certificate works."""
    await node.add_user()
    codes = [PIN + each.code for each in (await node.issue(count=5)).codes]
    known = with_certificate(node)
    assert await decision(node, known, codes[0]) == "accepted"
    for mark, number in (("fingerprint", "AB:" * 31 + "ab"), ("serial_number", "51AF")):
        await node.agents.deny(
            node.admin("AgentService/DenyCertificate"),
            note="stolen",
            **{mark: number},  # type: ignore[arg-type]
        )
        for refused, passcode in (
            (with_certificate(node), codes[1]),
            (known, codes[0]),
        ):
            with pytest.raises(CertificateDeniedError):
                await decision(node, refused, passcode)
        assert await decision(node, node.agent(), codes[1]) == "accepted"
        codes.pop(1)
        await node.agents.allow(
            node.admin("AgentService/AllowCertificate"),
            **{mark: number},  # type: ignore[arg-type]
        )
    assert await decision(node, with_certificate(node), codes[1]) == "accepted"


async def test_the_deny_list_is_shown(node: OneNode) -> None:
    for fields in ({"serial_number": "0x0A"}, {"fingerprint": MINE.fingerprint}):
        await node.agents.deny(
            node.admin("AgentService/DenyCertificate"), note="lost", **fields
        )
    context = node.admin("AgentService/ListDeniedCertificates")
    first = await node.agents.list_denied(context, page_size=1)
    second = await node.agents.list_denied(
        context, page_token=first.value.next_page_token
    )

    results = [*first.value.items, *second.value.items]
    assert [(each.mark, each.value) for each in results] == [
        (CertificateMark.FINGERPRINT, MINE.fingerprint),
        (CertificateMark.SERIAL_NUMBER, "a"),
    ]
    assert {(each.administrator, each.note) for each in results} == {("root", "lost")}
    assert second.value.next_page_token == ""


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "fingerprint"),
        ({"fingerprint": "ab" * 32, "serial_number": "1"}, "fingerprint"),
        ({"fingerprint": "ab" * 31}, "fingerprint"),
        ({"fingerprint": "xy" * 32}, "fingerprint"),
        ({"serial_number": "00:00"}, "serial_number"),
        ({"serial_number": "1" * 41}, "serial_number"),
        ({"serial_number": "1", "note": "x" * 257}, "note"),
    ],
)
async def test_a_certificate_is_named_in_one_way(
    node: OneNode, fields: dict[str, str], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await node.agents.deny(node.admin("AgentService/DenyCertificate"), **fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"add_usernames": ("a",) * 101}, "add_usernames"),
        ({"remove_usernames": ("",)}, "remove_usernames"),
        ({"add_usernames": ("A",), "remove_usernames": ("a",)}, "remove_usernames"),
    ],
)
async def test_a_list_has_bounds(
    node: OneNode, changes: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        await update(node, **changes)
    assert caught.value.field == field


async def test_an_agent_that_is_removed_can_be_registered_again(node: OneNode) -> None:
    """(A4) Nothing of the old one remains, not even its allow list."""
    await node.add_user()
    await update(node, restricted=True, add_usernames=("alice",))
    await node.agents.remove(node.admin("AgentService/RemoveAgent"), name=VPN)

    assert not await node.accepts(PIN + node.tokencode())
    assert node.reasons()[-1] == Reason.AGENT_UNKNOWN
    with pytest.raises(Refused) as caught:
        await seen(node)
    assert caught.value.rejected.reason is Reason.AGENT_UNKNOWN
    await node.register_agent()
    assert (await seen(node)).allowed_user_count == 0
    assert await node.accepts(PIN + node.tokencode())
