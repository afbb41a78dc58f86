# SPDX-License-Identifier: Apache-2.0
"""Two administrators edit the same thing: the second one learns of it (P10)."""

import dataclasses
from typing import Any

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.people.administrators import Link
from sparecode_node.statemachine.commands.cluster import PassBarrier
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.etags import Conditional
from sparecode_node.statemachine.results import Result
from tests.console.desk import GATE, SIEM, Desk
from tests.console.paper import Form, Page, Paper
from tests.console.test_pages import PAGES
from tests.services.one_node import SERIAL

pytestmark = pytest.mark.asyncio

SWITCHES = {"enable", "disable", "end-keys", "admit", "turn-away"}
"""
Actions that carry no etag.

They overwrite no value that the page showed otherwise, and must work under an attack,
whatever a colleague does meanwhile.
"""
ELSEWHERE = {"/language", "/account/sign-out", "/account/sign-out-everywhere"}
"""Forms of every page."""
EXPIRATION = f"/tokens/{SERIAL}/expiration"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """An editing form: what the colleague changes, what the second one types."""

    path: str

    theirs: dict[str, str]
    ours: dict[str, str]
    says: str
    """Of the colleague's change."""
    now: str
    """Of the field that both have changed."""


CASES = {
    "agent": Case(
        path=f"/agents/{GATE}",
        theirs={"filter_id": "staff", "class_attribute": "c"},
        ours={"filter_id": "guests"},
        says='Filter-Id "staff", Class "c"',
        now="staff",
    ),
    "choice": Case(
        path=f"/agents/{GATE}",
        theirs={"filter_id": "staff", "protects": "cloud"},
        ours={"filter_id": "guests"},
        says="protects cloud",
        now="staff",
    ),
    "client": Case(
        path=f"/radius-clients/{GATE}",
        theirs={"networks": "192.0.2.7/32", "signatures": "optional"},
        ours={"networks": "192.0.2.8/32"},
        says="networks 192.0.2.7/32",
        now="192.0.2.7/32",
    ),
    "user": Case(
        path="/users/alice",
        theirs={"email": "a@example.net", "display_name": "Alice Ash"},
        ours={"email": "b@example.net"},
        says="display name changed, email changed",
        now="a@example.net",
    ),
    "channel": Case(
        path=f"/channels/{SIEM}",
        theirs={"address": "https://a.example/in", "authority": ""},
        ours={"address": "https://b.example/in"},
        says="webhook to https://a.example/in",
        now="https://a.example/in",
    ),
    "link": Case(
        path="/administrators/ruth",
        theirs={"username": "alice"},
        ours={"username": "bob"},
        says="user alice",
        now="alice",
    ),
    "token": Case(
        path=EXPIRATION,
        theirs={"expires_date": "2030-05-01", "lifetime": "until"},
        ours={"expires_date": "2030-06-01"},
        says="expires at",
        now="2030-05-01",
    ),
}


async def other_people(desk: Desk) -> None:
    await desk.node.create_user("bob")
    await desk.node.administrators.create(
        desk.node.admin("AdministratorService/CreateAdministrator"),
        name="ruth",
        role=Role.AUDITOR,
        link=Link(""),
        password="tall grass in the wind",
    )
    await desk.node.tokens.update(
        desk.node.admin("TokenService/UpdateToken"),
        serial=SERIAL,
        expires_at_ms=1_900_000_000_000,
        never_expires=False,
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_form_does_not_overwrite_what_a_colleague_has_changed(
    desk: Desk, case: Case
) -> None:
    """
    (P10) It says who has changed what, and keeps the input; the next save works.

    Fields that the second one has not changed show the colleague's values.
    """
    await other_people(desk)
    one, two = await desk.administrator(), await desk.administrator()
    await one.open(case.path)
    await two.open(case.path)
    await one.send("Save", **case.theirs)
    page = await two.send("Save", **case.ours)
    assert page.status == 409
    assert "Nothing was saved: changed by root at" in page.text
    assert case.says in page.text
    assert f"The value is now: {case.now}" in page.text
    form = page.form(case.path, "Save")
    for name, value in {**case.theirs, **case.ours}.items():
        assert form.value(name) == value, name
    page = await two.send("Save")
    assert page.status == 200
    assert "Nothing was saved" not in page.text
    form = (await two.open(case.path)).form(case.path, "Save")
    for name, value in {**case.theirs, **case.ours}.items():
        assert form.value(name) == value, name


async def test_boxes_that_a_colleague_has_ticked_stay_ticked(desk: Desk) -> None:
    """(P10) A box that the second one has not touched says what holds now."""
    one, two = await desk.administrator(), await desk.administrator()
    path = f"/agents/{GATE}"
    await one.open(path)
    await two.open(path)
    await one.send("Save", protects="cloud", tick={"restricted": "on"})
    page = await two.send("Save", filter_id="staff")
    assert page.status == 409
    assert page.form(path, "Save").values("restricted") == ["on"]
    page = await two.send("Save")
    for words in ("Filter-Id staff", "Cloud resources", "no user is admitted"):
        assert words in page.text, words


async def test_another_mistake_does_not_make_an_old_page_a_new_one(desk: Desk) -> None:
    """(P10) The form keeps its etag until the page has said that it is outdated."""
    one, two = await desk.administrator(), await desk.administrator()
    path = f"/agents/{GATE}"
    await one.open(path)
    await two.open(path)
    await one.send("Save", filter_id="staff")
    page = await two.send("Save", filter_id="guests", session_timeout="soon")
    assert page.status == 422
    page = await two.send("Save", session_timeout="60")
    assert page.status == 409
    assert "The value is now: staff" in page.text


async def test_an_edit_of_unknown_outcome_is_sent_again_with_its_etag(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P10, Q1) Its own success is no change of another administrator."""
    browser = await desk.administrator()
    await browser.open("/users/alice")
    replicator, propose = desk.node.replicator, desk.node.replicator.propose

    async def lose_the_answer(proposal: Proposal, *, timeout_s: float) -> Result:
        monkeypatch.setattr(replicator, "propose", propose)
        await propose(proposal, timeout_s=timeout_s)
        raise OutcomeUnknownError("lost")

    monkeypatch.setattr(replicator, "propose", lose_the_answer)
    page = await browser.send("Save", display_name="Alice Ash")
    assert page.status == 503
    page = await browser.send("Save")
    assert "The user is changed" in page.text


async def pressed(
    browser: Paper, page: Page, form: Form, name: str, value: str
) -> None:
    fields = [*form.fields, (name, value)] if name else form.fields
    await browser.client.post(
        form.action,
        data=dict(fields),  # type: ignore[arg-type]
        follow_redirects=True,
    )


async def test_every_form_that_edits_values_carries_what_it_showed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P10) Every button of every page is pressed; nothing is committed."""
    await other_people(desk)
    browser = await desk.administrator()
    proposed: list[tuple[str, str, Any]] = []
    now, propose = ("", ""), desk.node.replicator.propose

    async def record(proposal: Proposal, *, timeout_s: float) -> Result:
        if isinstance(proposal.call.command, PassBarrier):
            return await propose(proposal, timeout_s=timeout_s)
        proposed.append((*now, proposal.call.command))
        raise NoQuorumError("nothing is committed here")

    paths = [*PAGES, "/administrators/ruth", f"/agents/{GATE}", "/users/alice"]
    pages = [(path, await browser.open(path)) for path in [*paths, EXPIRATION]]
    monkeypatch.setattr(desk.node.replicator, "propose", record)
    for path, page in pages:
        for form in page.every_form:
            if form.method.lower() != "post" or form.action in ELSEWHERE:
                continue
            for button in form.buttons:
                now = (path, button.value)
                await pressed(browser, page, form, button.name, button.value)
    seen = set()
    for path, action, command in proposed:
        if isinstance(command, Conditional) and action not in SWITCHES:
            assert command.etag, (path, action)
            seen.add(type(command))
        if isinstance(command, UpdatePolicy):
            assert command.version, path
            seen.add(type(command))
    assert seen == {*Conditional.__args__, UpdatePolicy}
