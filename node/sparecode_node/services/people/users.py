# SPDX-License-Identifier: Apache-2.0
"""Use cases: the users, who sign in with tokens."""

from collections.abc import Sequence

from sparecode_node.domain.ids import GroupKey, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.users import USERNAME_LENGTH_MAX, fold
from sparecode_node.queries import users
from sparecode_node.queries.transaction import ReadTransaction
from sparecode_node.queries.users import UserFilter, UserOrder
from sparecode_node.queries.views import Found, Page, UserView
from sparecode_node.services import fields
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.kdf import SALT_BYTES
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.users import (
    CreateUser,
    DeleteUser,
    UnlockUser,
    UpdateUser,
)
from sparecode_node.statemachine.results import Applied


def check_new(
    username: str,
    display_name: str,
    email: str,
    language: str = "",
    manager_email: str = "",
) -> None:
    """Check the fields of a new user. Raises `InvalidFieldError`."""
    fields.new_username(username)
    fields.text("display_name", display_name, at_most=fields.DISPLAY_NAME_MAX)
    fields.email(email)
    fields.language(language)
    fields.email(manager_email, "manager_email")


def creation(
    sealing: Sealing,
    entropy: Entropy,
    *,
    username: str,
    display_name: str,
    email: str,
    groups: Sequence[GroupKey],
    language: str = "",
    manager_email: str = "",
) -> CreateUser:
    """Return the command that adds a user. Raises `InvalidFieldError`."""
    check_new(username, display_name, email, language, manager_email)
    name_key = fold(username)
    key_id = sealing.active_key
    return CreateUser(
        user_id=UserId(entropy.uuid()),
        username=username,
        name_key=name_key,
        name_tag=sealing.name_tag(name_key, key_id),
        key_id=key_id,
        display_name=display_name,
        email=email,
        pin_salt=entropy.token_bytes(SALT_BYTES),
        code_salt=entropy.token_bytes(SALT_BYTES),
        join_groups=tuple(groups),
        language=fields.language(language),
        manager_email=manager_email,
    )


class Users:
    """
    Manages users. Usernames are compared after NFKC and case folding.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`USER_UNKNOWN` and others) and
    `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        sealing: Sealing,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._sealing = sealing
        self._entropy = entropy

    @idempotent
    async def create(
        self,
        context: CallContext,
        *,
        username: str,
        display_name: str,
        email: str,
        join_groups: Sequence[str] = (),
        language: str = "",
        manager_email: str = "",
    ) -> Applied:
        """
        Add a user, as a member of *join_groups*.

        *language*: of what is written for the user, a tag of BCP 47. *manager_email*: the
        address of the user's manager, who may hear of notices, too.
        """
        command = creation(
            self._sealing,
            self._entropy,
            username=username,
            display_name=display_name,
            email=email,
            groups=fields.groups("join_groups", join_groups),
            language=language,
            manager_email=manager_email,
        )
        return await self._proposer.change(context, command)

    async def get(
        self, context: CallContext, username: str, *, stale_ok: bool = False
    ) -> Read[UserView]:
        """Return one user."""
        name_key = fold(fields.username(username))

        async def query(transaction: ReadTransaction, now_ms: int) -> UserView:
            view = await users.get(transaction, name_key, now_ms=now_ms)
            if view is None:
                raise Refused(Rejected(Reason.USER_UNKNOWN, f"no user {username}"))
            return view

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        username_prefix: str = "",
        search: str = "",
        enabled: bool | None = None,
        locked: bool | None = None,
        stale_ok: bool = False,
    ) -> Read[Page[UserView]]:
        """
        Return a page of users, ordered by name. All filters must match.

        *search*: words that are in the names or the e-mail, in any spelling.
        """
        size = fields.page_size(page_size)
        fields.text("username_prefix", username_prefix, at_most=USERNAME_LENGTH_MAX)
        fields.text("search", search, at_most=fields.EMAIL_MAX)
        user_filter = UserFilter(
            prefix=fold(username_prefix),
            search=search,
            enabled=enabled,
            locked=locked,
        )

        async def query(transaction: ReadTransaction, now_ms: int) -> Page[UserView]:
            return await users.page(
                transaction,
                user_filter,
                size=size,
                page_token=page_token,
                now_ms=now_ms,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def find(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        number: int = 1,
        search: str = "",
        enabled: bool | None = None,
        locked: bool | None = None,
        order: UserOrder = UserOrder.NAME,
        stale_ok: bool = False,
    ) -> Read[Found[UserView]]:
        """
        Return a page of users for a person, with the number of all matches.

        Other than `list`, it goes no further than `pages.COUNTED_MAX` users.
        """
        size = fields.page_size(page_size)
        fields.text("search", search, at_most=fields.EMAIL_MAX)
        page_number = fields.page_number(number)
        user_filter = UserFilter(search=search, enabled=enabled, locked=locked)

        async def query(transaction: ReadTransaction, now_ms: int) -> Found[UserView]:
            return await users.find(
                transaction,
                user_filter,
                order=order,
                number=page_number,
                size=size,
                now_ms=now_ms,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def alike(
        self,
        context: CallContext,
        *,
        search: str,
        most: int,
        stale_ok: bool = False,
    ) -> Read[tuple[UserView, ...]]:
        """Return at most *most* users whose names sound like *search*, for a person."""
        fields.text("search", search, at_most=fields.EMAIL_MAX)

        async def query(
            transaction: ReadTransaction, now_ms: int
        ) -> tuple[UserView, ...]:
            return await users.alike(transaction, search, most=most, now_ms=now_ms)

        return await self._reader.read(context, query, stale_ok=stale_ok)

    @idempotent
    async def update(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        username: str,
        display_name: str | None = None,
        email: str | None = None,
        enabled: bool | None = None,
        join_groups: Sequence[str] = (),
        leave_groups: Sequence[str] = (),
        language: str | None = None,
        manager_email: str | None = None,
    ) -> Applied:
        """Change a user. None leaves a value unchanged."""
        fields.username(username)
        if display_name is not None:
            fields.text("display_name", display_name, at_most=fields.DISPLAY_NAME_MAX)
        if email is not None:
            fields.email(email)
        if manager_email is not None:
            fields.email(manager_email, "manager_email")
        command = UpdateUser(
            name_key=fold(username),
            display_name=display_name,
            email=email,
            enabled=enabled,
            join_groups=fields.groups("join_groups", join_groups),
            leave_groups=fields.groups("leave_groups", leave_groups),
            language=None if language is None else fields.language(language),
            manager_email=manager_email,
        )
        if set(command.join_groups) & set(command.leave_groups):
            raise InvalidFieldError(
                "leave_groups", "names a group that join_groups names too"
            )
        return await self._proposer.change(context, command)

    @idempotent
    async def delete(self, context: CallContext, *, username: str) -> Applied:
        """Delete a user without tokens."""
        command = DeleteUser(name_key=fold(fields.username(username)))
        return await self._proposer.change(context, command)

    @idempotent
    async def unlock(self, context: CallContext, *, username: str) -> Applied:
        """Set the failure counts of both factors to zero (L6)."""
        command = UnlockUser(name_key=fold(fields.username(username)))
        return await self._proposer.change(context, command)
