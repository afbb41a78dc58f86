# SPDX-License-Identifier: Apache-2.0
"""Use cases: the administrators (P1, P2)."""

from dataclasses import dataclass, field

from sparecode_node.domain.administrators import Permission, Role
from sparecode_node.domain.ids import NO_KEY, AdministratorName, KeyId, NameKey
from sparecode_node.domain.users import fold
from sparecode_node.queries import administrators
from sparecode_node.queries.administrators import AdministratorView
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.queries.views import Page
from sparecode_node.services import fields
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext, Deadline, Read
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.load.fair_queue import administrators_share
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.people.device_cookies import DeviceCookies
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.kdf import SALT_BYTES, Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.password_strength import (
    check_new_password,
    normal_password,
)
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands.administrators import (
    ChangePassword,
    CreateAdministrator,
    RemoveAdministrator,
    UpdateAdministrator,
)
from sparecode_node.statemachine.commands.resets import CancelReset
from sparecode_node.statemachine.results import Applied


@dataclass(frozen=True, slots=True)
class Link:
    """The user that an administrator is. Empty *username*: explicitly none."""

    username: str

    @property
    def name_key(self) -> NameKey | None:
        """The user's folded name."""
        return fold(fields.username(self.username)) if self.username else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordChanged:
    """A password was changed. The change ended the sessions and the device cookies."""

    applied: Applied
    device_cookie: str = field(default="", repr=False)
    """A new one, for administrators who have changed their own password (L7)."""

    @property
    def index(self) -> int:
        """The log index of the commit."""
        return self.applied.index


class Administrators:
    """
    Manages administrators. Names are compared after NFKC and case folding.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` (`ADMINISTRATOR_UNKNOWN`, `LAST_SUPER_ADMIN`
    and others) and `ProposeError`.
    """

    def __init__(
        self,
        *,
        proposer: Proposer,
        reader: Reader,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        rates: Rates,
        device_cookies: DeviceCookies,
        entropy: Entropy,
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._rates = rates
        self._device_cookies = device_cookies
        self._entropy = entropy

    @idempotent
    async def create(
        self, context: CallContext, *, name: str, role: Role, link: Link, password: str
    ) -> Applied:
        """Add an administrator with a temporary password."""
        key = _key("name", name)
        user = link.name_key
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        await self._proposer.confirmed(context, session, deadline)
        self._rates.new_password(setter=session.administrator)
        await check_new_password("password", password, name=key, second_factor=False)

        async def prepare() -> CreateAdministrator:
            salt = self._entropy.token_bytes(SALT_BYTES)
            key_id = self._sealing.active_key
            return CreateAdministrator(
                name=key,
                role=role,
                user=user,
                password_salt=salt,
                password_verifier=await self._verifier(
                    key,
                    salt,
                    password,
                    deadline,
                    key_id,
                    setter=session.administrator,
                ),
                key_id=key_id,
            )

        return applied(
            await self._proposer.propose_prepared(context, session, deadline, prepare)
        )

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[AdministratorView]]:
        """Return a page of administrators, ordered by name."""
        size = fields.page_size(page_size)

        async def query(
            transaction: ReadTransaction, _: int
        ) -> Page[AdministratorView]:
            return await administrators.page(
                transaction, size=size, page_token=page_token
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    @idempotent
    async def update(
        self,
        context: CallContext,
        *,
        name: str,
        role: Role | None = None,
        enabled: bool | None = None,
        link: Link | None = None,
    ) -> Applied:
        """Change an administrator. None leaves a value unchanged."""
        user = link.name_key if link else None
        command = UpdateAdministrator(
            name=_key("name", name),
            role=role,
            enabled=enabled,
            user=user,
            no_user=link is not None and user is None,
        )
        return await self._proposer.change(context, command)

    @idempotent
    async def remove(self, context: CallContext, *, name: str) -> Applied:
        """Remove an administrator."""
        command = RemoveAdministrator(name=_key("name", name))
        return await self._proposer.change(context, command)

    @idempotent
    async def cancel_reset(self, context: CallContext, *, name: str) -> Applied:
        """Cancel a requested reset of an administrator (P4)."""
        command = CancelReset(name=_key("name", name))
        return await self._proposer.change(context, command)

    @idempotent
    async def change_password(
        self, context: CallContext, *, name: str, old_password: str, new_password: str
    ) -> PasswordChanged:
        """Change one's own password, or set a temporary one for the administrator *name*."""
        if name:
            fields.administrator("name", name)
        fields.secret("old_password", old_password, at_most=fields.PASSWORD_MAX)
        fields.secret("new_password", new_password, at_most=fields.PASSWORD_MAX)
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        key = AdministratorName(fold(name)) if name else session.administrator
        own = key == session.administrator
        if own:
            self._rates.sign_in(
                administrator=key, peer=context.peer, client=session.session_id
            )
        else:
            self._proposer.need(
                context,
                session,
                Permission.CHANGE_ADMINISTRATORS,
                "change another administrator's password",
            )
        await self._proposer.confirmed(context, session, deadline)
        self._rates.new_password(setter=session.administrator)
        if own and not old_password:
            raise InvalidFieldError(
                "old_password", "is required to change your own password"
            )
        async with self._state.transaction() as transaction:
            known = await administrators.password_parameters(transaction, key)
        await check_new_password(
            "new_password",
            new_password,
            name=key,
            second_factor=known is not None and known.second_factor,
        )

        salt = b""

        async def prepare() -> ChangePassword:
            nonlocal salt
            async with self._state.transaction() as transaction:
                current = await administrators.password_parameters(transaction, key)
            candidate, key_id = b"", self._sealing.active_key
            if own and current:
                candidate = await self._verifier(
                    key,
                    current.salt,
                    old_password,
                    deadline,
                    current.key_id,
                    setter=session.administrator,
                )
            salt = self._entropy.token_bytes(SALT_BYTES)
            return ChangePassword(
                name=key,
                candidate=candidate,
                administrator_version=current.version if current else 0,
                key_id=key_id,
                candidate_key_id=current.key_id
                if current and current.key_id != key_id
                else NO_KEY,
                password_salt=salt,
                password_verifier=await self._verifier(
                    key,
                    salt,
                    new_password,
                    deadline,
                    key_id,
                    setter=session.administrator,
                ),
            )

        changed = applied(
            await self._proposer.propose_prepared(context, session, deadline, prepare)
        )
        return PasswordChanged(
            applied=changed,
            device_cookie=self._device_cookies.make(key, salt) if own else "",
        )

    async def _verifier(
        self,
        name: AdministratorName,
        salt: bytes,
        password: str,
        deadline: Deadline,
        key_id: KeyId,
        *,
        setter: AdministratorName,
    ) -> bytes:
        (hashed,) = await self._kdf.derive(
            [
                KdfInput(
                    secret=Secret.PASSWORD, salt=salt, text=normal_password(password)
                )
            ],
            lane=Lane.ISSUING,
            share=administrators_share(setter),
            timeout_s=deadline.left_s(),
        )
        return self._sealing.password_verifier(hashed, name, key_id)


def _key(field: str, name: str) -> AdministratorName:
    return AdministratorName(fold(fields.administrator(field, name)))
