# SPDX-License-Identifier: Apache-2.0
"""RADIUS clients: one secret for one request, and what a node reads of them (D1)."""

import logging
import uuid

import pytest

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.radius import REPLACED_SECRETS_MAX, AcceptAttributes
from sparecode_node.radius.sources import sources_of
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.people.radius_clients import NewSecret, RadiusClient
from sparecode_node.services.secrets.radius_seals import RadiusSeals
from tests.services.one_node import OneNode

pytestmark = pytest.mark.asyncio

REGISTER = "AgentService/RegisterRadiusClient"
ROTATE = "AgentService/RotateRadiusSecret"
UPDATE = "AgentService/UpdateRadiusClient"
REVIEW = "ClusterService/GetReview"
REMEMBERED_S = 601


async def register(
    node: OneNode, name: str = "vpn", *, request_id: str = "", **settings: object
) -> NewSecret:
    number = len((await node.radius_clients.directory()).clients)
    return await node.radius_clients.register(
        node.admin(REGISTER, request_id),
        name=name,
        **{
            "networks": [f"192.0.2.{number}"],
            "protects": Protects.AUTHENTICATION_MANAGER,
            **settings,
        },
    )


async def rotate(
    node: OneNode, name: str = "vpn", *, request_id: str = "", overlap_s: int = 0
) -> NewSecret:
    return await node.radius_clients.rotate_secret(
        node.admin(ROTATE, request_id), name=name, overlap_ms=1000 * overlap_s
    )


async def clients(node: OneNode) -> tuple[RadiusClient, ...]:
    return (await node.radius_clients.directory()).clients


async def secrets(node: OneNode) -> list[bytes]:
    return [secret for each in await clients(node) for secret in each.secrets]


async def test_a_retry_returns_the_committed_secret_under_any_key(
    node: OneNode,
) -> None:
    """(D1, Q1) Also if the active key was replaced after the first try."""
    request_id = str(uuid.uuid4())
    first = await register(node, request_id=request_id)
    await node.rotation.rotate(
        node.admin("ClusterService/RotateKeys"), at_once=True, keep_old_key=True
    )
    again = await node.radius_clients.register(
        node.admin(REGISTER, request_id.upper()),
        name="vpn",
        networks=["192.0.2.0"],
        protects=Protects.AUTHENTICATION_MANAGER,
    )
    assert again == first
    assert await secrets(node) == [first.secret.encode()]


async def test_one_request_id_draws_different_secrets(node: OneNode) -> None:
    """(D1) The caller chooses the id, so no secret follows from it."""
    request_id = str(uuid.uuid4())
    drawn = {
        (await register(node, "vpn", request_id=request_id)).secret,
        (await register(node, "ssh")).secret,
        (await rotate(node, "ssh", request_id=request_id)).secret,
    }
    assert len(drawn) == 3
    assert min(map(len, drawn)) >= 32
    node.clock.pass_s(REMEMBERED_S)
    await node.login()
    # The id is forgotten. It draws no secret that someone may know.
    with pytest.raises(Refused) as refused:
        await rotate(node, "ssh", request_id=request_id)
    assert refused.value.rejected.reason is Reason.REQUEST_ID_REUSED
    await rotate(node, "ssh")
    await rotate(node, "ssh")
    drawn.add((await rotate(node, "ssh", request_id=request_id)).secret)
    assert len(drawn) == 4


async def test_a_stolen_session_opens_no_door(node: OneNode) -> None:
    """(P7) A secret, or a network for it, lets anyone ask about passcodes."""
    await register(node)
    node.clock.pass_s(301)
    for change in (
        lambda: register(node, "mine"),
        lambda: rotate(node),
        lambda: node.radius_clients.update(
            node.admin(UPDATE), name="vpn", networks=["198.51.100.1"]
        ),
    ):
        with pytest.raises(Refused) as refused:
            await change()
        assert refused.value.rejected.reason is Reason.REAUTHENTICATION_NEEDED


async def test_a_rotation_leaves_earlier_secrets_their_overlap(node: OneNode) -> None:
    """(D1) The client may have any of them, because the last one got lost."""
    drawn = [(await register(node)).secret.encode()]
    drawn += [(await rotate(node, overlap_s=60)).secret.encode() for _ in range(2)]
    assert set(await secrets(node)) == {*drawn}
    node.clock.pass_s(30)
    drawn += [(await rotate(node, overlap_s=60)).secret.encode() for _ in range(3)]
    found = await secrets(node)
    assert found[0] == drawn[-1]
    assert len(found) == 1 + REPLACED_SECRETS_MAX
    last = await rotate(node)
    assert await secrets(node) == [last.secret.encode()]


async def test_a_retry_after_the_next_rotation_returns_no_other_secret(
    node: OneNode,
) -> None:
    """(D1, Q1)."""
    request_id = str(uuid.uuid4())
    await register(node)
    await rotate(node, request_id=request_id)
    await rotate(node)
    await rotate(node)
    with pytest.raises(InvalidFieldError, match="replaced since"):
        await rotate(node, request_id=request_id)


async def test_unsigned_proxied_requests_need_unsigned_ones(node: OneNode) -> None:
    """(D2) It permits all that BlastRADIUS needs, so no shorter way leads there."""
    with pytest.raises(InvalidFieldError, match="needs allow_unsigned"):
        await register(node, allow_unsigned_proxied=True)
    await register(node)

    async def update(**changes: bool) -> tuple[bool, bool]:
        await node.radius_clients.update(node.admin(UPDATE), name="vpn", **changes)
        (client,) = await clients(node)
        settings = client.settings
        return settings.allow_unsigned, settings.allow_unsigned_proxied

    for unsigned in ({}, {"allow_unsigned": False}):
        with pytest.raises(InvalidFieldError, match="needs allow_unsigned"):
            await update(allow_unsigned_proxied=True, **unsigned)
    with pytest.raises(Refused) as refused:
        await node.radius_clients.update(
            node.admin(UPDATE), name="ssh", allow_unsigned_proxied=True
        )
    assert refused.value.rejected.reason is Reason.AGENT_UNKNOWN
    assert await update(allow_unsigned=True) == (True, False)
    assert await update(allow_unsigned_proxied=True) == (True, True)
    assert await update(allow_unsigned=False) == (False, False)
    details = node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE action = 'UpdateRadiusClient' "
        "AND outcome = 'applied' ORDER BY sequence"
    ).fetchall()
    assert details == [
        ("allow unsigned yes",),
        ("allow unsigned proxied yes",),
        ("allow unsigned no, allow unsigned proxied no",),
    ]


async def test_a_limit_of_unsigned_requests_needs_them(node: OneNode) -> None:
    """(D2) It would limit nothing, and return when unsigned requests are allowed."""
    with pytest.raises(InvalidFieldError, match="which it limits"):
        await register(node, unsigned_until_signed=True)
    await register(node, allow_unsigned=True, unsigned_until_signed=True)
    await node.radius_clients.update(
        node.admin(UPDATE), name="vpn", allow_unsigned=False
    )
    (client,) = await clients(node)
    assert not client.settings.unsigned_until_signed
    with pytest.raises(InvalidFieldError, match="which it limits"):
        await node.radius_clients.update(
            node.admin(UPDATE), name="vpn", unsigned_until_signed=True
        )


async def test_clients_are_read_again_only_if_something_changes(
    node: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each secret is opened once, and an overlap ends by the node's clock (D1)."""
    opened = []
    unseal = RadiusSeals.unseal_radius_secret

    def counted(seals: RadiusSeals, *sealed: object) -> bytes:
        opened.append(sealed[1])
        return unseal(seals, *sealed)  # type: ignore[arg-type]

    first = await register(node)
    new = await rotate(node, overlap_s=60)
    monkeypatch.setattr(RadiusSeals, "unseal_radius_secret", counted)
    directory = await node.radius_clients.directory()
    assert directory.clients[0].secrets == (
        new.secret.encode(),
        first.secret.encode(),
    )
    assert await node.radius_clients.directory() is directory
    assert len(opened) <= 2
    node.clock.pass_s(61)
    assert await secrets(node) == [new.secret.encode()]
    assert len(opened) <= 2


async def test_a_broken_secret_is_logged_once_and_stops_no_other(
    node: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    await register(node, "vpn")
    good = await register(node, "ssh")
    for db in (node.primary_db, node.local_db):
        db.execute(
            "UPDATE radius_secrets SET sealed = x'00' WHERE identity = 'radius:vpn'"
        )
    for _ in range(3):
        assert await secrets(node) == [good.secret.encode()]
    (line,) = [
        each for each in caplog.records if each.message == "radius_secret_not_opened"
    ]
    assert vars(line)["agent"] == "radius:vpn"


async def test_a_network_that_is_not_read_stops_no_other_client(
    node: OneNode, caplog: pytest.LogCaptureFixture
) -> None:
    """One Python may read a text that another one does not; the node goes on."""
    await register(node, "vpn", networks=["192.0.2.1", "198.51.100.0/24"])
    await register(node, "ssh", networks=["203.0.113.1"])
    for db in (node.primary_db, node.local_db):
        db.execute(
            "UPDATE radius_networks SET network = 'x' WHERE network = '192.0.2.1/32'"
        )
    sources = sources_of(await clients(node))
    assert sources.find("192.0.2.1") is None
    found = [sources.find(each) for each in ("198.51.100.7", "203.0.113.1")]
    assert [each.name for each in found if each] == ["vpn", "ssh"]
    assert "radius_network_not_read" in [each.message for each in caplog.records]
    assert {each.levelno for each in caplog.records} == {logging.ERROR}


async def test_an_agent_shows_the_times_of_its_secrets(node: OneNode) -> None:
    """A secret that no longer works is not shown, also before its row is deleted."""
    await register(node)

    async def shown() -> tuple[int | None, int | None]:
        context = node.admin("AgentService/GetAgent")
        view = (await node.agents.get(context, "vpn")).value
        listed = await node.agents.list(node.admin("AgentService/ListAgents"))
        (row,) = [each for each in listed.value.items if each.radius]
        assert row == view
        assert view.radius_activity is not None
        return view.secret_created_at_ms, view.former_secret_ends_at_ms

    begun_ms = node.clock.now_ms()
    assert await shown() == (begun_ms, None)
    node.clock.pass_s(100)
    await rotate(node, overlap_s=60)
    assert await shown() == (begun_ms + 100_000, begun_ms + 160_000)
    node.clock.pass_s(60)
    assert await shown() == (begun_ms + 100_000, None)
    await rotate(node)
    assert await shown() == (begun_ms + 160_000, None)


async def test_a_review_shows_the_clients_that_a_restore_brings_back(
    node: OneNode,
) -> None:
    """(E2) The mark covers networks, unsafe settings and secrets."""

    async def mark() -> str:
        review = (await node.epoch_review.review(node.admin(REVIEW))).value
        marks.append(review.mark)
        return review.mark

    marks: list[str] = []
    await mark()
    await register(node, networks=["198.51.100.0/24", "192.0.2.1"])
    await mark()
    await rotate(node, overlap_s=60)
    await mark()
    for change in (
        {"allow_unsigned": True},
        {"allow_unsigned_proxied": True},
        {"unsigned_until_signed": True},
    ):
        await node.radius_clients.update(node.admin(UPDATE), name="vpn", **change)
        await mark()
    for attribute in (
        {"filter_id": "administrators"},
        {"class_attribute": "vpn"},
        {"session_timeout_s": 60},
    ):
        await node.agents.update(
            node.admin("AgentService/UpdateAgent"), name="vpn", **attribute
        )
        await mark()
    assert len(set(marks)) == 9
    # The end of an overlap changes no mark.
    node.clock.pass_s(61)
    assert await mark() == marks[-2]
    review = (await node.epoch_review.review(node.admin(REVIEW))).value
    assert [each.accept_attributes for each in review.agents if each.name == "vpn"] == [
        AcceptAttributes(
            filter_id="administrators", class_attribute="vpn", session_timeout_s=60
        )
    ]
    (client,) = review.radius_clients
    assert client.networks == ("192.0.2.1/32", "198.51.100.0/24")
    assert client.allow_unsigned
    assert client.allow_unsigned_proxied
    assert client.unsigned_until_signed
    assert client.secret_created_at_ms is not None
