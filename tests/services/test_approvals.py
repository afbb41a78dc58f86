# SPDX-License-Identifier: Apache-2.0
"""Two administrators: one requests a change, the other approves it."""

import dataclasses
import uuid
from contextlib import aclosing

import pytest
import pytest_asyncio

from sparecode_client.values.notices import new_webhook_secret
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.notices import ChannelKind, EventClass
from sparecode_node.domain.outcomes import Reason
from sparecode_node.queries.approvals import ApprovalView
from sparecode_node.services.emergency.bulk_issue import BulkResult
from sparecode_node.services.emergency.issuing import Lifetime, SetTerms
from sparecode_node.services.errors import (
    ApprovalNeededError,
    InvalidFieldError,
    NotPermittedError,
    Refused,
)
from sparecode_node.services.people.administrators import Link
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from tests.services.one_node import PIN, SERIAL, OneNode
from tests.services.test_administrators import change, create, settled, sign_in
from tests.services.test_bulk_issue import METHOD, bulk, rows, terms
from tests.services.test_rotation import begin, finish

pytestmark = pytest.mark.asyncio

DAY_S = 86_400


@dataclasses.dataclass
class Pair:
    """Root, who is signed in, and Dora."""

    node: OneNode
    root: str
    dora: str

    async def waits(self) -> list[ApprovalView]:
        context = self.node.admin("AdministratorService/ListApprovals")
        read = await self.node.approvals.list(
            dataclasses.replace(context, request_id="")
        )
        return list(read.value.items)

    async def approve(self, number: int, *, as_root: bool = False) -> None:
        mine = self.node.bearer
        self.node.bearer = self.root if as_root else self.dora
        try:
            await self.node.approvals.approve(
                self.node.admin("AdministratorService/Approve"), approval_id=number
            )
        finally:
            self.node.bearer = mine

    async def reject(self, number: int) -> None:
        await self.node.approvals.reject(
            self.node.admin("AdministratorService/Reject"), approval_id=number
        )

    async def set_policy(self, request_id: str = "", **values: object) -> None:
        read = await self.node.policies.get(
            dataclasses.replace(
                self.node.admin("PolicyService/GetPolicy"), request_id=""
            )
        )
        await self.node.policies.update(
            self.node.admin("PolicyService/UpdatePolicy", request_id),
            version=read.value.version,
            values=values,
        )

    async def default_count(self) -> int:
        context = self.node.admin("PolicyService/GetPolicy")
        read = await self.node.policies.get(dataclasses.replace(context, request_id=""))
        return read.value.codes_per_set_default


@pytest_asyncio.fixture
async def pair(node: OneNode) -> Pair:
    """Start a node with a second super administrator."""
    return Pair(node, node.bearer, await settled(node, Role.SUPER_ADMIN))


async def test_a_change_waits_until_another_administrator_approves(pair: Pair) -> None:
    """(P3) Its author may not approve it. A retry of the request does nothing twice."""
    request_id = str(uuid.uuid4())
    for _ in range(2):
        with pytest.raises(ApprovalNeededError) as raised:
            await pair.set_policy(request_id, codes_per_set_default=5)
    assert raised.value.rejected.reason is Reason.APPROVAL_NEEDED
    (waiting,) = await pair.waits()
    assert (waiting.approval_id, waiting.author, waiting.action) == (
        raised.value.approval_id,
        "root",
        "UpdatePolicy",
    )
    assert waiting.description == "version 2: codes_per_set_default 10 -> 5"
    with pytest.raises(Refused) as refused:
        await pair.approve(waiting.approval_id, as_root=True)
    assert refused.value.rejected.reason is Reason.SELF_SERVICE_FORBIDDEN
    assert await pair.default_count() == 10
    await pair.approve(waiting.approval_id)
    assert await pair.default_count() == 5
    assert await pair.waits() == []


async def test_a_new_administrator_signs_in_once_approved(pair: Pair) -> None:
    """(P3) With the password of the request."""
    with pytest.raises(ApprovalNeededError) as raised:
        await create(pair.node, "eve", role=Role.HELP_DESK)
    with pytest.raises(Refused):
        await sign_in(pair.node, "a temporary password", "eve")
    await pair.approve(raised.value.approval_id)
    assert await sign_in(pair.node, "a temporary password", "eve")


async def test_no_administrator_alone_takes_over_another(pair: Pair) -> None:
    """(P3) Nor resets the other's password, which could approve their own request."""
    for attempt in (
        change(pair.node, "a password of mine", name="dora"),
        pair.node.administrators.update(
            pair.node.admin("AdministratorService/UpdateAdministrator"),
            name="dora",
            enabled=False,
        ),
        pair.node.administrators.remove(
            pair.node.admin("AdministratorService/RemoveAdministrator"), name="dora"
        ),
    ):
        with pytest.raises(ApprovalNeededError):
            await attempt
    assert len(await pair.waits()) == 3


async def test_a_pending_change_holds_no_clear_secret(pair: Pair) -> None:
    """Neither the state nor the list holds one: only a verifier, as in the log."""
    secret = "a very temporary secret"
    with pytest.raises(ApprovalNeededError):
        await create(pair.node, "eve", role=Role.HELP_DESK, password=secret)
    assert secret not in str(await pair.waits())
    dump = "\n".join(pair.node.primary_db.iterdump())
    assert "approvals" in dump
    assert secret not in dump


async def test_an_administrator_who_set_the_pin_needs_a_permit_to_issue(
    pair: Pair,
) -> None:
    """(I10) The issue uses it up. A help desk that did not set the PIN needs none."""
    await pair.node.add_user()
    with pytest.raises(ApprovalNeededError) as raised:
        await pair.node.issue()
    with pytest.raises(ApprovalNeededError) as again:
        await pair.node.emergency.issue_fixed(
            pair.node.admin("EmergencyAccessService/IssueFixedTokencode"),
            serial=SERIAL,
            terms=SetTerms(lifetime=Lifetime(), recovery=RecoveryPolicy.DENY),
        )
    assert again.value.approval_id == raised.value.approval_id
    await pair.approve(raised.value.approval_id)
    issued = await pair.node.issue()
    assert await pair.node.accepts(PIN + issued.codes[0].code)
    with pytest.raises(ApprovalNeededError):
        await pair.node.issue()
    pair.node.bearer = pair.dora
    assert (await pair.node.issue()).codes


async def test_the_permit_is_needed_without_a_time_limit(pair: Pair) -> None:
    """(I10) The administrator who set the PIN may not issue alone a day later either."""
    await pair.node.add_user()
    pair.node.clock.pass_s(DAY_S + 1)
    await pair.node.login()
    with pytest.raises(ApprovalNeededError):
        await pair.node.issue()


async def test_a_bulk_needs_an_approval_and_its_author_runs_it(pair: Pair) -> None:
    """(P3, P3a) For exactly the approved tokens, and for each of them once."""
    for serial in ("1", "2", "3"):
        await pair.node.add_user(f"user{serial}", serial=serial)
    pair.node.clock.pass_s(DAY_S + 1)
    await pair.node.login()
    pair.root, pair.dora = pair.node.bearer, await sign_in(pair.node)
    with pytest.raises(ApprovalNeededError) as raised:
        await bulk(pair.node, rows("1", "2"))
    number = raised.value.approval_id
    with pytest.raises(ApprovalNeededError) as raised:
        await bulk(pair.node, rows("2"))
    assert raised.value.approval_id == number
    assert (await pair.waits())[0].serials == ("1", "2")
    await pair.approve(number)

    def codes(results: list[BulkResult]) -> list[int]:
        return [len(result.codes) for result in results]

    assert codes(await bulk(pair.node, rows("1"))) == [3]
    with pytest.raises(ApprovalNeededError) as raised:
        await bulk(pair.node, rows("2", "3"))
    assert raised.value.approval_id != number
    with pytest.raises(ApprovalNeededError):
        await bulk(pair.node, rows("1"))
    assert codes(await bulk(pair.node, rows("2"))) == [3]
    with pytest.raises(ApprovalNeededError):
        await bulk(pair.node, rows("2"))


async def test_a_withdrawn_permit_ends_a_bulk_midway(
    pair: Pair,
) -> None:
    """(P3) Apply checks every row."""
    for serial in ("1", "2"):
        await pair.node.add_user(f"user{serial}", serial=serial)
    with pytest.raises(ApprovalNeededError) as raised:
        await bulk(pair.node, rows("1", "2"))
    await pair.approve(raised.value.approval_id)
    results = await pair.node.bulk.issue(
        pair.node.admin(METHOD), rows=rows("1", "2"), count=1, terms=terms()
    )
    async with aclosing(results):
        assert (await anext(results)).saved
        await pair.reject(raised.value.approval_id)
        with pytest.raises(ApprovalNeededError):
            await anext(results)


async def test_a_node_that_lags_enforces_approvals(pair: Pair) -> None:
    """(P3) Apply decides whether a change waits, not the called node."""
    pair.node.replicator.lags = True
    with pytest.raises(ApprovalNeededError):
        await pair.set_policy(codes_per_set_default=5)


async def test_only_super_administrators_approve(pair: Pair) -> None:
    """(P1, P3) Others may reject only their own requests."""
    with pytest.raises(ApprovalNeededError) as raised:
        await create(pair.node, "eve", role=Role.HELP_DESK, link=Link(""))
    await pair.approve(raised.value.approval_id)
    with pytest.raises(ApprovalNeededError) as raised:
        await pair.set_policy(codes_per_set_default=5)
    pair.node.bearer = await sign_in(pair.node, "a temporary password", "eve")
    await change(pair.node, "a password of eve's", old="a temporary password")
    pair.node.bearer = await sign_in(pair.node, "a password of eve's", "eve")
    with pytest.raises(NotPermittedError):
        await pair.node.approvals.approve(
            pair.node.admin("AdministratorService/Approve"),
            approval_id=raised.value.approval_id,
        )
    with pytest.raises(NotPermittedError):
        await pair.reject(raised.value.approval_id)
    with pytest.raises(Refused) as refused:
        await pair.reject(99)
    assert refused.value.rejected.reason is Reason.APPROVAL_UNKNOWN
    with pytest.raises(InvalidFieldError):
        await pair.reject(0)


async def test_pending_requests_of_one_author_are_bounded(pair: Pair) -> None:
    """A second administrator has to read them all."""
    for number in range(20):
        with pytest.raises(ApprovalNeededError):
            await create(pair.node, f"eve{number}", role=Role.HELP_DESK)
    with pytest.raises(Refused) as raised:
        await create(pair.node, "one more", role=Role.HELP_DESK)
    assert raised.value.rejected.reason is Reason.APPROVALS_FULL


async def test_a_pending_channel_is_sealed_again_with_its_secret(pair: Pair) -> None:
    """(P3, P5, N3) It signs with the secret of the request, whatever the key is by then."""
    node, secret = pair.node, new_webhook_secret()
    with pytest.raises(ApprovalNeededError) as raised:
        await node.channels.create(
            node.admin("NoticeService/CreateChannel"),
            name="siem",
            kind=ChannelKind.WEBHOOK,
            address="https://siem.example/in",
            classes=[EventClass.TOKENS],
            secret=secret,
            allow_private=False,
            authority="",
        )
    before = node.sealing.active_key
    node.replicator.leads = True
    await begin(node)
    await finish(node)
    await pair.approve(raised.value.approval_id)
    (read,) = (await node.channels.list(node.admin("NoticeService/ListChannels"))).value
    assert read.channel.key_id == node.sealing.active_key != before
    opened = ChannelSeals(node.ring).unseal_channel_secret(
        read.channel.channel, read.channel.sealed_secret, read.channel.key_id
    )
    assert opened == secret
