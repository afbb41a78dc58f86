# SPDX-License-Identifier: Apache-2.0
"""Use cases: the policy of the cluster."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sparecode_node.domain.policy import DOMAIN_MAX, KINDS_MAX, Policy
from sparecode_node.queries import policy as policies
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.age_files import recipient_problem
from sparecode_node.services.idempotency import idempotent
from sparecode_node.services.people.live_codes import LiveCodeCounts
from sparecode_node.services.proposing import Proposer, applied
from sparecode_node.services.reading import Reader
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.handlers.policy import FIELD_LEVELS
from sparecode_node.statemachine.results import Applied


class Policies:
    """
    Shows and changes the policy: one value, and every change is a new version.

    Every method raises `NotSignedInError`, `NotPermittedError` and `ProposeError`.
    """

    def __init__(
        self, *, proposer: Proposer, reader: Reader, counts: LiveCodeCounts
    ) -> None:
        self._proposer = proposer
        self._reader = reader
        self._counts = counts

    async def get(
        self, context: CallContext, *, stale_ok: bool = False
    ) -> Read[Policy]:
        """Return the current policy."""

        async def query(transaction: ReadTransaction, _: int) -> Policy:
            return await policies.current(transaction)

        return await self._reader.read(context, query, stale_ok=stale_ok)

    @idempotent
    async def update(
        self, context: CallContext, *, version: int, values: Mapping[str, Any]
    ) -> Applied:
        """
        Replace the policy that has this version.

        *values* have the names of `Policy`; absent ones stay. Also raises
        `InvalidFieldError` and `Refused` (`VERSION`, `POLICY_VALUE`, `GUESS_ODDS`,
        `CODES_LIVE`).
        """
        if version < 1:
            raise InvalidFieldError(
                "version", "must be the version of the policy that you read"
            )
        _check_texts(values)
        values = await self._without_later_fields(context, version, values)
        # Every field of the command may be absent; apply checks the values.
        absent = {name: None for name in UpdatePolicy.__slots__ if name != "version"}
        command = UpdatePolicy(version=version, **{**absent, **values})
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)

        async def prepare() -> UpdatePolicy:
            counted = await self._counts.counted(context, session, deadline, command)
            return replace(command, counted=counted)

        return applied(
            await self._proposer.propose_fresh(context, session, deadline, prepare)
        )

    async def _without_later_fields(
        self, context: CallContext, version: int, values: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """
        Leave out unchanged fields that release 0.1.0 does not know.

        Callers send the whole policy. While the cluster has members of that release, a
        command with such a field could not be proposed.
        """
        policy = (await self.get(context, stale_ok=True)).value
        return {
            name: value
            for name, value in values.items()
            if policy.version != version
            or name not in FIELD_LEVELS
            or value != getattr(policy, name)
        }


def _check_texts(values: Mapping[str, Any]) -> None:
    """Check the length of texts, and recipients. Raises `InvalidFieldError`."""
    alphabet = values.get("code_alphabet")
    if alphabet is not None:
        fields.text("code_alphabet", alphabet, at_most=fields.ALPHABET_MAX)
    lengths = values.get("further_code_lengths")
    if lengths is not None:
        fields.text("further_code_lengths", lengths, at_most=fields.LENGTHS_MAX)
    for name in ("silent_notices", "manager_notices"):
        if values.get(name) is not None:
            fields.text(name, values[name], at_most=KINDS_MAX)
    for name in ("administrators_second_factor", "passkey_domain"):
        if values.get(name) is not None:
            fields.text(name, values[name], at_most=DOMAIN_MAX)
    for key in (values.get("backup_recipients") or "").split(" "):
        if key and (problem := recipient_problem(key)):
            raise InvalidFieldError(
                "backup_recipients", f"{key} is not an age public key: {problem}"
            )
