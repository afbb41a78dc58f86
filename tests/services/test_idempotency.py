# SPDX-License-Identifier: Apache-2.0
"""The content of requests, which a retry must repeat on any node and release (Q1)."""

import dataclasses
import enum
import inspect
import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import Refused
from sparecode_node.services.files.user_csv import UserRow
from sparecode_node.services.idempotency import content_of, idempotent
from sparecode_node.services.use_cases import Services
from tests.services.one_node import OneNode

ARGUMENTS = {
    "administrators.cancel_reset": "name",
    "administrators.change_password": "name old_password new_password",
    "administrators.create": "name role link password",
    "administrators.remove": "name",
    "administrators.update": "name role enabled link",
    "agents.allow": "fingerprint serial_number",
    "agents.deny": "fingerprint serial_number note",
    "agents.register": "name identity protects restricted filter_id class_attribute session_timeout_s",
    "agents.remove": "name",
    "agents.update": "name protects enabled restricted add_usernames remove_usernames add_groups remove_groups end_keys filter_id class_attribute session_timeout_s",
    "approvals.approve": "approval_id",
    "approvals.reject": "approval_id",
    "authentication.authenticate": (
        "username passcode client_address resource is_guess"
    ),
    "backups.create": "without_sealed_events",
    "membership.add_member": "node_id address",
    "membership.create_join_ticket": "node_id address hosts with_authority",
    "membership.keep_authorities": "node_id reason",
    "membership.declare_segments_lost": "first last reason destroyed",
    "user_moves.activate": "move_id",
    "user_moves.cancel": "move_id",
    "user_moves.delete": "move_id",
    "user_moves.end": "ticket receipt",
    "user_moves.export": "move_id",
    "user_moves.freeze": "ticket",
    "user_moves.import_piece": "piece",
    "user_moves.prepare": "first_slot last_slot source same_administrators",
    "user_moves.reclaim": "move_id reason first_slot last_slot",
    "membership.confirm_archive": "first last hash_before hash_after place",
    "membership.withdraw_archive": "administrator first last reason",
    "membership.replace_authorities": "node_id finish",
    "membership.remove_member": "node_id rotate_keys",
    "membership.transfer_primary": "target",
    "browser_logins.approve": "user_code",
    "browser_logins.collect": "device_code",
    "browser_logins.refuse": "user_code",
    "continuation.continue_authentication": (
        "challenge next_tokencode new_pin client_address resource is_guess"
    ),
    "emergency.disable": "serial reinstate_token",
    "channels.create": "name kind address classes secret allow_private authority "
    "sender login contact",
    "channels.remove": "name",
    "channels.send_again": "channel numbers",
    "channels.update": "name enabled address classes allow_private authority secret "
    "sender login contact",
    "emergency.issue": "serial count terms by_message to_manager",
    "emergency.issue_fixed": "serial terms",
    "emergency.save": "serial draft terms",
    "epoch_review.open": "review",
    "passkeys.register": "label answer",
    "passkeys.remove": "credential_id",
    "policies.update": "version values",
    "radius_clients.register": "name networks protects restricted allow_unsigned allow_unsigned_proxied unsigned_until_signed repeats_with_new_authenticator prompts_for_passcode filter_id class_attribute session_timeout_s",
    "radius_clients.rotate_secret": "name overlap_ms",
    "agent_keys.create": "name overlap_ms networks",
    "radius_clients.update": "name networks allow_unsigned allow_unsigned_proxied unsigned_until_signed repeats_with_new_authenticator prompts_for_passcode",
    "rotation.rotate": "at_once keep_old_key",
    "second_factors.confirm": "draft code",
    "second_factors.remove": "name",
    "sessions.login": "administrator password second_factor passkey",
    "sessions.logout": "",
    "sessions.logout_everywhere": "",
    "tokens.assign": "serial username",
    "tokens.clear_pin": "serial",
    "tokens.delete": "serial",
    "tokens.disable": "serial",
    "tokens.enable": "serial",
    "tokens.enroll": "serial algorithm hash_name digits period_s counter seed pin_rule expires_at_ms",
    "tokens.reinstate": "serial",
    "open_sessions.end": "session_id",
    "sessions.reauthenticate": "password second_factor passkey",
    "tokens.replace": "serial replacement_serial keep_pin",
    "tokens.resynchronize": "serial first_tokencode second_tokencode",
    "tokens.set_pin": "serial pin",
    "tokens.unassign": "serial",
    "tokens.update": "serial expires_at_ms never_expires",
    "users.create": "username display_name email join_groups language manager_email",
    "users.delete": "username",
    "users.unlock": "username",
    "users.update": "username display_name email enabled join_groups leave_groups language manager_email",
}
"""The arguments of every use case that changes the state. Never rename or remove one."""

VALUES = st.recursive(
    st.none() | st.text(max_size=4) | st.binary(max_size=4) | st.integers(-9, 9),
    lambda each: (
        st.lists(each, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), each, max_size=3)
    ),
    max_leaves=6,
)


def idempotent_use_cases() -> dict[str, str]:
    """Return the arguments of every use case that is marked, by its name."""
    marked = {}
    for field in dataclasses.fields(Services):
        for name, function in inspect.getmembers(field.type, inspect.isfunction):
            if hasattr(function, "__wrapped__") and name[0] != "_":
                _, _, *arguments = inspect.signature(function).parameters
                marked[f"{field.name}.{name}"] = " ".join(arguments)
    return marked


def test_arguments_of_requests_keep_their_names() -> None:
    """A renamed one gets another tag on a newer node: its retries are refused there."""
    assert idempotent_use_cases() == ARGUMENTS


class Spelling(enum.StrEnum):
    SHORT = "short"


@dataclasses.dataclass(frozen=True)
class Earlier:
    name: str
    size: int = 3


@dataclasses.dataclass(frozen=True)
class Later:
    """The same request one release later."""

    name: str
    size: int = 3
    color: str = ""


class EarlierService:
    @idempotent
    async def paint(self, context: CallContext, *, name: str) -> bytes | None:
        return context.content


class LaterService:
    @idempotent
    async def paint(
        self, context: CallContext, *, name: str, colors: tuple[str, ...] = ()
    ) -> bytes | None:
        return context.content


@given(VALUES, VALUES)
def test_content_is_equal_for_equal_values_only(one: Any, other: Any) -> None:
    assert (content_of(one) == content_of(other)) is (one == other)


def test_content_is_the_same_in_every_release() -> None:
    """(Q1) These bytes never change, or a retry across an upgrade is refused."""
    value = {"b": (None, b"x"), "a": [True, Spelling.SHORT]}
    assert content_of(value) == (
        b"m\0\0\0\0\0\0\0Q"
        b"s\0\0\0\0\0\0\0\x01a"
        b"l\0\0\0\0\0\0\0\x18"
        b"i\0\0\0\0\0\0\0\x011s\0\0\0\0\0\0\0\x05short"
        b"s\0\0\0\0\0\0\0\x01b"
        b"l\0\0\0\0\0\0\0\x13"
        b"-\0\0\0\0\0\0\0\0b\0\0\0\0\0\0\0\x01x"
    )


@pytest.mark.parametrize("color", ["", "red"])
def test_new_field_changes_no_content_while_it_has_its_default(color: str) -> None:
    """A node of the earlier release computes the same for a request without it."""
    same = content_of(Earlier("a")) == content_of(Later("a", color=color))
    assert same is (color == "")


def test_rows_of_files_are_told_apart() -> None:
    """(K4) The row of a user without groups has the content of one before groups."""
    assert content_of(UserRow(username="ada")) != content_of(UserRow(username="ben"))
    assert content_of(UserRow(username="ada")) == content_of({"username": "ada"})


def test_value_without_a_content_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        content_of(object())


def test_arguments_are_given_by_name() -> None:
    async def paint(self: object, context: CallContext, name: str) -> None: ...

    with pytest.raises(TypeError, match="by name"):
        idempotent(paint)


@pytest.mark.asyncio
async def test_new_argument_changes_no_content_while_it_has_its_default(
    node: OneNode,
) -> None:
    """Also where the edge passes a list for a tuple."""
    context = node.admin()
    earlier = await EarlierService().paint(context, name="a")
    for colors in ((), []):
        later = LaterService().paint(
            context, name="a", colors=typing.cast("tuple[str, ...]", colors)
        )
        assert await later == earlier
    assert await LaterService().paint(context, name="a", colors=("red",)) != earlier


@pytest.mark.asyncio
async def test_same_id_with_other_arguments_is_refused(node: OneNode) -> None:
    """(Q1)."""
    context = node.admin("UserService/CreateUser")
    arguments = {"display_name": "", "email": ""}
    first = await node.users.create(context, username="ada", **arguments)
    assert await node.users.create(context, username="ada", **arguments) == first
    with pytest.raises(Refused) as caught:
        await node.users.create(context, username="ben", **arguments)
    assert caught.value.rejected.reason == "request_id_reused"


def test_content_is_not_shown(node: OneNode) -> None:
    """It may hold a PIN."""
    context = dataclasses.replace(node.admin(), content=b"4719")
    assert "4719" not in repr(context)
