# SPDX-License-Identifier: Apache-2.0
"""Use cases: the agents, the programs that check passcodes."""

from collections.abc import Sequence
from dataclasses import replace

from sparecode_node.domain.agents import CertificateMark, Protects
from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.users import USERNAME_LENGTH_MAX, fold
from sparecode_node.queries import agents
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import AgentView, DeniedCertificateView, Page
from sparecode_node.services import fields
from sparecode_node.services.access.packet_counts import PacketCounts
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import Reader
from sparecode_node.statemachine.commands.agents import (
    AllowCertificate,
    DenyCertificate,
    RegisterAgent,
    RemoveAgent,
    UpdateAgent,
)
from sparecode_node.statemachine.results import Applied


class Agents:
    """
    Manages authentication agents.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError`, `Refused` and `ProposeError`. A change takes effect at its
    commit, also for calls on open connections: apply checks the agent of every passcode.
    """

    def __init__(
        self, *, proposer: Proposer, reader: Reader, packet_counts: PacketCounts
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._packet_counts = packet_counts

    @idempotent
    async def register(
        self,
        context: CallContext,
        *,
        name: str,
        identity: str,
        protects: Protects,
        restricted: bool = False,
        filter_id: str = "",
        class_attribute: str = "",
        session_timeout_s: int = 0,
    ) -> Applied:
        """Let the agent with this certificate identity authenticate users."""
        fields.check_attributes(
            filter_id=filter_id,
            class_attribute=class_attribute,
            session_timeout_s=session_timeout_s,
        )
        command = RegisterAgent(
            name=_name(name),
            name_key=fold(name),
            identity=fields.identity(identity),
            protects=protects,
            restricted=restricted,
            filter_id=filter_id,
            class_attribute=class_attribute,
            session_timeout_s=session_timeout_s,
        )
        return await self._proposer.change(context, command)

    async def get(
        self, context: CallContext, name: str, *, stale_ok: bool = False
    ) -> Read[AgentView]:
        """Return one agent with its allow list."""
        name_key = fold(_name(name))

        async def query(transaction: ReadTransaction, now_ms: int) -> AgentView:
            view = await agents.get(transaction, name_key, now_ms)
            if view is None:
                raise Refused(Rejected(Reason.AGENT_UNKNOWN, f"no agent {name}"))
            return self._with_activity(view)

        return await self._reader.read(context, query, stale_ok=stale_ok)

    @idempotent
    async def update(  # noqa: PLR0913 - one argument per field.
        self,
        context: CallContext,
        *,
        name: str,
        protects: Protects | None = None,
        enabled: bool | None = None,
        restricted: bool | None = None,
        add_usernames: Sequence[str] = (),
        remove_usernames: Sequence[str] = (),
        add_groups: Sequence[str] = (),
        remove_groups: Sequence[str] = (),
        end_keys: bool = False,
        filter_id: str | None = None,
        class_attribute: str | None = None,
        session_timeout_s: int | None = None,
    ) -> Applied:
        """
        Change an agent. None leaves a value unchanged.

        *end_keys*: no bearer key of the agent works any longer (D5).
        """
        fields.check_attributes(
            filter_id=filter_id,
            class_attribute=class_attribute,
            session_timeout_s=session_timeout_s,
        )
        command = UpdateAgent(
            name_key=fold(_name(name)),
            protects=protects,
            enabled=enabled,
            restricted=restricted,
            add_users=_name_keys("add_usernames", add_usernames),
            remove_users=_name_keys("remove_usernames", remove_usernames),
            add_groups=fields.groups("add_groups", add_groups),
            remove_groups=fields.groups("remove_groups", remove_groups),
            end_keys=end_keys or None,
            filter_id=filter_id,
            class_attribute=class_attribute,
            session_timeout_s=session_timeout_s,
        )
        if set(command.add_groups) & set(command.remove_groups):
            raise InvalidFieldError(
                "remove_groups", "names a group that add_groups names too"
            )
        if set(command.add_users) & set(command.remove_users):
            raise InvalidFieldError(
                "remove_usernames", "names a user that add_usernames names too"
            )
        return await self._proposer.change(context, command)

    @idempotent
    async def remove(self, context: CallContext, *, name: str) -> Applied:
        """Remove an agent."""
        command = RemoveAgent(name_key=fold(_name(name)))
        return await self._proposer.change(context, command)

    @idempotent
    async def deny(
        self,
        context: CallContext,
        *,
        fingerprint: str = "",
        serial_number: str = "",
        note: str = "",
    ) -> Applied:
        """Refuse every agent that calls with this certificate."""
        mark, value = _certificate(fingerprint, serial_number)
        fields.text("note", note, at_most=fields.NOTE_MAX)
        command = DenyCertificate(mark=mark, value=value, note=note)
        return await self._proposer.change(context, command)

    @idempotent
    async def allow(
        self, context: CallContext, *, fingerprint: str = "", serial_number: str = ""
    ) -> Applied:
        """Remove a certificate from the deny list."""
        mark, value = _certificate(fingerprint, serial_number)
        command = AllowCertificate(mark=mark, value=value)
        return await self._proposer.change(context, command)

    async def list_denied(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[DeniedCertificateView]]:
        """Return a page of the deny list."""
        size = fields.page_size(page_size)

        async def query(
            transaction: ReadTransaction, _: int
        ) -> Page[DeniedCertificateView]:
            return await agents.denied_certificates(
                transaction, size=size, page_token=page_token
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def list(
        self,
        context: CallContext,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[Page[AgentView]]:
        """Return a page of agents, ordered by name."""
        size = fields.page_size(page_size)

        async def query(transaction: ReadTransaction, now_ms: int) -> Page[AgentView]:
            page = await agents.page(
                transaction, now_ms, size=size, page_token=page_token
            )
            items = tuple(self._with_activity(each) for each in page.items)
            return replace(page, items=items)

        return await self._reader.read(context, query, stale_ok=stale_ok)

    def _with_activity(self, view: AgentView) -> AgentView:
        """Add what this node has seen of a RADIUS client."""
        if view.radius is None:
            return view
        return replace(view, radius_activity=self._packet_counts.of(view.name))


def _name(name: str) -> str:
    return fields.text("name", name, at_least=1, at_most=fields.AGENT_NAME_MAX)


def _name_keys(field: str, names: Sequence[str]) -> tuple[NameKey, ...]:
    if len(names) > fields.ALLOWED_AT_ONCE_MAX:
        raise InvalidFieldError(
            field,
            f"must have at most {fields.ALLOWED_AT_ONCE_MAX} names; has {len(names)}",
        )
    for name in names:
        fields.text(field, name, at_least=1, at_most=USERNAME_LENGTH_MAX)
    return tuple(fold(name) for name in names)


def _certificate(fingerprint: str, serial_number: str) -> tuple[CertificateMark, str]:
    """Return the mark that names a certificate, in the form that is compared."""
    if bool(fingerprint) == bool(serial_number):
        raise InvalidFieldError(
            "fingerprint", "exactly one of fingerprint and serial_number is needed"
        )
    if fingerprint:
        return CertificateMark.FINGERPRINT, fields.fingerprint(fingerprint)
    return CertificateMark.SERIAL_NUMBER, fields.serial_number(serial_number)
