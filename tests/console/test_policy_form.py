# SPDX-License-Identifier: Apache-2.0
"""The policy editor while a colleague, or a lost primary, comes in between."""

import pytest

from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.errors import CountingError
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.results import Result
from tests.console.desk import Desk

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("first", "typed"),
    [("Check", {}), ("Save", {}), ("Save", {"lock_ms": "soon"})],
    ids=["checked", "saved", "refused"],
)
async def test_a_saved_policy_keeps_what_a_colleague_has_changed(
    desk: Desk, first: str, typed: dict[str, str]
) -> None:
    """Whatever the second one presses before, only changed fields are sent."""
    one, two = await desk.administrator(), await desk.administrator()
    await one.open("/policy")
    await two.open("/policy")
    await one.send(
        "Save",
        codes_per_set_default="12",
        tick={"lock_until_unlocked": "on", "silent_notices": "new_device"},
        untick=("pin_blocklist",),
    )
    page = await two.send(
        first,
        set_low_threshold="4",
        tick={"manager_notices": "codes_issued"},
        untick=("second_approver",),
        **typed,
    )
    by_whom = "Nothing was saved: changed by root at"
    meantime = "Another administrator has changed this in the meantime"
    assert (meantime if first == "Check" or typed else by_whom) in page.text
    assert "The value is now" not in page.text
    form = page.form("/policy")
    assert form.value("codes_per_set_default") == "12"
    assert form.value("set_low_threshold") == "4"
    assert form.values("lock_until_unlocked") == ["on"]
    assert form.values("pin_blocklist") == []
    assert form.values("second_approver") == []
    assert form.values("silent_notices") == ["new_device"]
    assert form.values("manager_notices") == ["codes_issued"]
    page = await two.send("Save", **dict.fromkeys(typed, "2"))
    assert "It is now version 3" in page.text
    policy = (
        await desk.node.policies.get(desk.node.admin("PolicyService/GetPolicy"))
    ).value
    assert policy.codes_per_set_default == 12
    assert policy.set_low_threshold == 4
    assert policy.lock_until_unlocked
    assert not policy.pin_blocklist
    assert not policy.second_approver
    assert policy.silent_notices == "new_device"
    assert policy.manager_notices == "codes_issued"


async def test_kinds_of_notices_that_two_have_ticked_are_both_ticked(
    desk: Desk,
) -> None:
    one, two = await desk.administrator(), await desk.administrator()
    await one.open("/policy")
    await two.open("/policy")
    await one.send("Save", tick={"silent_notices": "new_device"})
    page = await two.send("Check", tick={"silent_notices": "codes_issued"})
    ticked = page.form("/policy").values("silent_notices")
    assert sorted(ticked) == ["codes_issued", "new_device"]


async def test_a_field_that_two_have_changed_says_what_holds_now(desk: Desk) -> None:
    """(P10) The refusal says who it was; the field, what holds now."""
    one, two = await desk.administrator(), await desk.administrator()
    await one.open("/policy")
    await two.open("/policy")
    await one.send("Save", lock_ms="2")
    page = await two.send("Save", lock_ms="3")
    assert page.status == 409
    assert "Nothing was saved: changed by root at" in page.text
    assert "The value is now: 2" in page.text


async def test_a_policy_saved_before_a_colleague_s_check_is_not_overwritten(
    desk: Desk,
) -> None:
    """A check beside the fields does not make an old page a new one."""
    one, two = await desk.administrator(), await desk.administrator()
    await one.open("/policy")
    page = await two.open("/policy")
    await one.send("Save", codes_per_set_default="12")
    await two.send("Check", set_low_threshold="4")
    two.page = page  # The script has replaced the odds only.
    page = await two.send("Save", set_low_threshold="4")
    assert page.status == 409
    assert page.form("/policy").value("codes_per_set_default") == "12"


async def test_a_policy_of_unknown_outcome_is_sent_again_as_it_was(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A7, Q1) The policy has a newer version by then: the form's own."""
    browser = await desk.administrator()
    await browser.open("/policy")
    replicator, propose = desk.node.replicator, desk.node.replicator.propose

    async def lose_the_answer(proposal: Proposal, *, timeout_s: float) -> Result:
        result = await propose(proposal, timeout_s=timeout_s)
        if isinstance(proposal.call.command, UpdatePolicy):
            monkeypatch.setattr(replicator, "propose", propose)
            raise OutcomeUnknownError("lost")
        return result

    monkeypatch.setattr(replicator, "propose", lose_the_answer)
    page = await browser.send("Save", set_low_threshold="4")
    assert page.status == 503
    page = await browser.send("Save")
    assert "It is now version 2" in page.text


async def test_a_policy_whose_codes_are_still_counted_is_sent_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a million users the count takes longer than a request of the console."""
    browser = await desk.administrator()
    await browser.open("/policy")
    counted = desk.node.policies._counts.counted

    async def counting(*_values: object) -> None:
        monkeypatch.setattr(desk.node.policies._counts, "counted", counted)
        raise CountingError("live codes are still being counted")

    monkeypatch.setattr(desk.node.policies._counts, "counted", counting)
    page = await browser.send("Save", codes_per_set_default="12")
    assert "still counting the live codes" in page.text
    assert page.form("/policy").value("codes_per_set_default") == "12"
    page = await browser.send("Save")
    assert "It is now version 2" in page.text
