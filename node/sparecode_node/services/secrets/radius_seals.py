# SPDX-License-Identifier: Apache-2.0
"""Shared secrets of RADIUS clients, and the request ids and State of their packets."""

import json
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidTag

from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import (
    AgentIdentity,
    KeyId,
    Moment,
    NameKey,
    RequestId,
    TokenSerial,
    UserId,
)
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.sealing import (
    FORM,
    KEY_ID_BYTES,
    BrokenSealError,
    Sealing,
)

RADIUS_SECRET: Final = "radius-secret"
RADIUS_REQUEST: Final = "radius-request"
RADIUS_STATE: Final = "radius-state"
STATE_MAX = 253
"""The octets of an attribute's value (RFC 2865, 5.24)."""
NEW_PIN_MAX = 32
"""Octets of a PIN that fit into a State, whatever the policy allows."""

_STEPS = {"t": NextStep.NEXT_TOKENCODE, "p": NextStep.NEW_PIN}
_LETTERS = {step: letter for letter, step in _STEPS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusState:
    """
    A dialog between two packets, which any node can continue (K3).

    A new PIN takes three answers: the PIN, the PIN again, and a tokencode.
    """

    challenge: Challenge
    name_key: NameKey
    """
    The folded User-Name that the challenge was sent for.

    A client accepts the user that a packet names, so the next packet must name the
    same one. The challenge has the user's id, whatever the packet says.
    """
    new_pin: str = field(default="", repr=False)
    """What the user has chosen so far; empty: nothing."""
    repeated: bool = False
    """Whether the user has entered *new_pin* twice."""
    key_id: KeyId | None = field(default=None, compare=False)
    """The key that it was sealed with; None: it is not sealed yet."""


class RadiusSeals(Sealing):
    """Adds to the seals what only RADIUS needs."""

    def seal_radius_secret(
        self, agent: AgentIdentity, secret_id: str, secret: bytes, key_id: KeyId
    ) -> bytes:
        """Seal the shared secret of a RADIUS client."""
        return self._sealed(
            key_id, RADIUS_SECRET, secret, [RADIUS_SECRET, agent, secret_id]
        )

    def unseal_radius_secret(
        self, agent: AgentIdentity, secret_id: str, sealed: bytes, key_id: KeyId
    ) -> bytes:
        """Return the shared secret. Raises `BrokenSealError` and `UnknownKeyError`."""
        return self._opened(
            key_id, RADIUS_SECRET, sealed, [RADIUS_SECRET, agent, secret_id]
        )

    def session_ids(self, content: bytes) -> tuple[RequestId, ...]:
        """
        Return the ids of a session's request, under all keys in use: the active key's first.

        *content* holds a passcode. A client's secret alone must not be enough to try
        passcodes against a request id in the state, so the ring's keys make the ids.
        """
        return tuple(
            RequestId(
                str(uuid.UUID(bytes=self._mac(RADIUS_REQUEST, content, key_id)[:16]))
            )
            for key_id in (self.active_key, *self.aging_keys)
        )

    def seal_state(self, state: RadiusState) -> bytes:
        """
        Seal the State attribute of an Access-Challenge: at most `STATE_MAX` octets.

        It belongs to the challenge's agent and to the User-Name, which are associated
        data and take no octets. Equal dialogs give equal bytes, so a retransmission gets the same State (Q2).
        """
        challenge = state.challenge
        content = json.dumps(
            [
                challenge.challenge_id.replace("-", ""),
                _LETTERS[challenge.step],
                challenge.user_id,
                challenge.auth_version,
                challenge.serial,
                challenge.moment,
                challenge.ends_at_ms,
                _filled(state.new_pin),
                int(state.repeated),
            ],
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        key_id = self.active_key
        header = FORM + key_id.to_bytes(KEY_ID_BYTES)
        sealed = header + self._cipher(key_id, RADIUS_STATE).encrypt(
            content, self._bound(header, challenge.agent, state.name_key)
        )
        if len(sealed) > STATE_MAX:
            raise ValueError(f"a State of {len(sealed)} octets does not fit")
        return sealed

    def unseal_state(
        self, sealed: bytes, agent: AgentIdentity, name_key: NameKey
    ) -> RadiusState:
        """Open a State that *agent* got for a User-Name. Raises `BrokenSealError`."""
        size = len(FORM) + KEY_ID_BYTES
        header = sealed[:size]
        if len(header) < size or not header.startswith(FORM):
            raise BrokenSealError("not a State")
        try:
            key_id = KeyId(int.from_bytes(header[len(FORM) :]))
            content: list[Any] = json.loads(
                self._cipher(key_id, RADIUS_STATE).decrypt(
                    sealed[size:], self._bound(header, agent, name_key)
                )
            )
        except (InvalidTag, ValueError, UnknownKeyError):
            raise BrokenSealError(
                "not a State of this cluster, client and user"
            ) from None
        # Content that opens was sealed by a member, so its form needs no check.
        challenge_id, step, user_id, version, serial, moment, ends_at_ms = content[:7]
        new_pin, repeated = content[7:]
        return RadiusState(
            challenge=Challenge(
                challenge_id=str(uuid.UUID(hex=challenge_id)),
                step=_STEPS[step],
                agent=agent,
                user_id=UserId(user_id),
                auth_version=version,
                serial=TokenSerial(serial),
                moment=Moment(moment),
                ends_at_ms=ends_at_ms,
            ),
            name_key=name_key,
            new_pin=new_pin.rstrip(),
            repeated=bool(repeated),
            key_id=key_id,
        )

    def _bound(
        self, header: bytes, agent: AgentIdentity, name_key: NameKey
    ) -> list[bytes]:
        return [
            *self._kept(RADIUS_STATE, header),
            agent.encode(),
            name_key.encode(errors="replace"),
        ]


def _filled(new_pin: str) -> str:
    """Return a PIN filled with spaces: the length of a State must not tell its own."""
    return new_pin + " " * (NEW_PIN_MAX - len(new_pin.encode())) if new_pin else ""
