# SPDX-License-Identifier: Apache-2.0
"""A change is refused if another has come in between, by one mechanism (P10)."""

import dataclasses
import re
import typing
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.agents import Protects
from sparecode_node.domain.notices import ChannelKind, EventClass
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import Outdated, Refused
from sparecode_node.services.people.administrators import Link
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.etags import Conditional
from tests.rpc.contract import ID, public
from tests.services.one_node import SERIAL, OneNode

GATE, SIEM, RUTH = "gate", "siem", "ruth"
UPDATES = {name: each for name, each in public().items() if "/Update" in name}
FIELDS = {"AgentService/UpdateRadiusClient": ("Agent", "radius_etag")}
"""The message and field of the etag, unless it is `etag` of the thing's own message."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """How to read and change one thing, as its methods do."""

    read: Callable[[OneNode], Awaitable[str]]
    """Return its etag."""
    change: Callable[[OneNode, CallContext, Any], Awaitable[Any]]
    values: tuple[Any, Any]
    words: str
    """What a refusal says of the first change."""


async def _channel(node: OneNode) -> str:
    read = await node.channels.list(node.admin("NoticeService/ListChannels"))
    return next(each.etag for each in read.value if each.channel.name == SIEM)


async def _administrator(node: OneNode) -> str:
    read = await node.administrators.list(
        node.admin("AdministratorService/ListAdministrators")
    )
    return next(each.etag for each in read.value.items if each.name == RUTH)


async def _agent(node: OneNode) -> Any:
    read = await node.agents.get(node.admin("AgentService/GetAgent"), GATE)
    return read.value


async def _agent_etag(node: OneNode) -> str:
    return str((await _agent(node)).etag)


async def _radius_etag(node: OneNode) -> str:
    return str((await _agent(node)).radius_etag)


async def _user_etag(node: OneNode) -> str:
    return (await node.user("alice")).etag


async def _token_etag(node: OneNode) -> str:
    read = await node.tokens.get(node.admin("TokenService/GetToken"), SERIAL)
    return str(read.value.etag)


CASES = {
    "AdministratorService/UpdateAdministrator": Case(
        read=_administrator,
        change=lambda node, call, value: node.administrators.update(
            call, name=RUTH, role=value
        ),
        values=(Role.OPERATOR, Role.HELP_DESK),
        words="operator",
    ),
    "AgentService/UpdateAgent": Case(
        read=_agent_etag,
        change=lambda node, call, value: node.agents.update(
            call, name=GATE, filter_id=value
        ),
        values=("staff", "guests"),
        words='Filter-Id "staff"',
    ),
    "AgentService/UpdateRadiusClient": Case(
        read=_radius_etag,
        change=lambda node, call, value: node.radius_clients.update(
            call, name=GATE, networks=[value]
        ),
        values=("192.0.2.7", "192.0.2.8"),
        words="networks 192.0.2.7",
    ),
    "NoticeService/UpdateChannel": Case(
        read=_channel,
        change=lambda node, call, value: node.channels.update(
            call, name=SIEM, address=value
        ),
        values=("https://a.example/in", "https://b.example/in"),
        words="https://a.example/in",
    ),
    "TokenService/UpdateToken": Case(
        read=_token_etag,
        change=lambda node, call, value: node.tokens.update(
            call, serial=SERIAL, expires_at_ms=value, never_expires=False
        ),
        values=(1_900_000_000_000, 2_000_000_000_000),
        words="expires at 1900000000000 ms",
    ),
    "UserService/UpdateUser": Case(
        read=_user_etag,
        change=lambda node, call, value: node.users.update(
            call, username="alice", manager_email=value
        ),
        values=("boss@example.net", "chief@example.net"),
        words="manager's address changed",
    ),
}


@pytest_asyncio.fixture
async def thing(node: OneNode) -> OneNode:
    """Return a node with one of each thing."""
    await node.add_user()
    await node.radius_clients.register(
        node.admin("AgentService/RegisterRadiusClient"),
        name=GATE,
        networks=["192.0.2.1"],
        protects=Protects.AUTHENTICATION_MANAGER,
    )
    await node.channels.create(
        node.admin("NoticeService/CreateChannel"),
        name=SIEM,
        kind=ChannelKind.WEBHOOK,
        address="https://siem.example/in",
        classes=[EventClass.TOKENS],
        secret=node.channels.new_secret(),
    )
    await node.administrators.create(
        node.admin("AdministratorService/CreateAdministrator"),
        name=RUTH,
        role=Role.AUDITOR,
        link=Link(""),
        password="tall grass in the wind",
    )
    return node


def with_etag(node: OneNode, method: str, etag: str, request_id: str = "") -> Any:
    return dataclasses.replace(node.admin(method, request_id), etag=etag)


def test_every_update_method_takes_an_etag_that_a_read_returns() -> None:
    """(P10) A policy has its version: the first field of that kind, and as good."""
    messages: dict[str, Any] = {}
    for method in public().values():
        for field in method.output_type.fields:
            if field.message_type is not None:
                messages[field.message_type.name] = field.message_type
    for name, method in UPDATES.items():
        thing = re.sub(".*/Update", "", name)
        if thing == "Policy":
            assert "version" in messages[thing].fields_by_name
            continue
        message, field = FIELDS.get(name, (thing, "etag"))
        assert "etag" in method.input_type.fields_by_name, name
        assert field in messages[message].fields_by_name, name
        assert name in CASES, name
        assert GetMessageClass(method.input_type)().etag == ""


def test_every_command_with_an_etag_is_compared() -> None:
    """(P10) Apply has one list of them, and no other command has the field."""
    commands: Sequence[Any] = typing.get_args(Command)
    fields = {
        each for each in commands for f in dataclasses.fields(each) if f.name == "etag"
    }
    assert fields == set(typing.get_args(Conditional))
    assert len(fields) == len(CASES)


@pytest.mark.asyncio
@pytest.mark.parametrize("method", CASES)
async def test_a_change_of_what_a_colleague_has_changed_is_refused(
    thing: OneNode, method: str
) -> None:
    """(P10) The words name the colleague, the time and the change."""
    case = CASES[method]
    shown = await case.read(thing)
    await case.change(thing, thing.admin(method), case.values[0])
    with pytest.raises(Refused) as refused:
        await case.change(thing, with_etag(thing, method, shown), case.values[1])
    rejected = refused.value.rejected
    assert rejected.reason is Reason.VERSION
    assert isinstance(rejected, Outdated)
    assert re.match(
        rf"changed by administrator root at \d{{4}}-.*: .*{re.escape(case.words)}",
        rejected.detail,
    ), rejected.detail
    newest = await case.read(thing)
    assert newest != shown
    await case.change(thing, with_etag(thing, method, newest), case.values[1])
    assert await case.read(thing) not in (shown, newest)


@pytest.mark.asyncio
@pytest.mark.parametrize("method", CASES)
async def test_a_repeated_change_gets_its_first_answer(
    thing: OneNode, method: str
) -> None:
    """(P10, Q1) Its own success has made the etag old. Another etag is another request."""
    case = CASES[method]
    call = with_etag(thing, method, await case.read(thing), ID)
    first = await case.change(thing, call, case.values[0])
    again = await case.change(thing, call, case.values[0])
    assert again.index == first.index
    other = dataclasses.replace(call, etag=await case.read(thing))
    with pytest.raises(Refused) as refused:
        await case.change(thing, other, case.values[0])
    assert refused.value.rejected.reason is Reason.REQUEST_ID_REUSED


@pytest.mark.asyncio
async def test_sign_ins_and_codes_change_no_etag(thing: OneNode) -> None:
    """(P10) No administrator has to save again because a user has signed in."""
    before = [await case.read(thing) for case in CASES.values()]
    await thing.issue(SERIAL)
    await thing.authenticate(passcode="wrong")
    await thing.users.update(
        thing.admin("UserService/UpdateUser"), username="alice", join_groups=["staff"]
    )
    assert [await case.read(thing) for case in CASES.values()] == before


@pytest.mark.asyncio
async def test_below_level_2_a_change_carries_no_etag(
    thing: OneNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of release 0.1.0 could not read it, and the change is still made."""
    thing.local_db.execute("UPDATE meta SET value = 1 WHERE name = 'feature_level'")
    thing.local_db.commit()
    carried: list[str] = []
    propose = thing.replicator.propose

    async def record(proposal: Any, *, timeout_s: float) -> Any:
        carried.append(getattr(proposal.call.command, "etag", ""))
        return await propose(proposal, timeout_s=timeout_s)

    monkeypatch.setattr(thing.replicator, "propose", record)
    call = with_etag(thing, "UserService/UpdateUser", "of an older page")
    await thing.users.update(call, username="alice", display_name="Alice")
    assert carried == [""]
