# SPDX-License-Identifier: Apache-2.0
"""Commands that judge a passcode, or the answer to a challenge."""

from dataclasses import dataclass

from sparecode_node.domain.challenges import Challenge
from sparecode_node.domain.ids import AgentIdentity, KeyId, Moment, UserId
from sparecode_node.domain.passcodes import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticate:
    """
    Judge a passcode, and spend, charge and record in the same commit (A3).

    The candidates were computed for *user_id* and *auth_version*; these are empty and 0
    if the called node does not know the user. If apply finds other values, it answers
    `STALE_PARAMETERS` without charging (T2).
    """

    authentication_id: str
    agent: AgentIdentity
    name_tag: bytes
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    lettered: bool
    """Whether the passcode has a letter; decides the factor if there is no reading (L)."""
    readings: tuple[Reading, ...]
    client_address: str
    resource: str
    certificate_fingerprint: str = ""
    """Fingerprint of the agent's certificate; see `CertificateMark`."""
    certificate_serial_number: str = ""
    radius_secret_id: str = ""
    """The secret that the RADIUS client has used; empty: another agent."""
    radius_signed: bool = False
    """Signed, by a RADIUS client that need not sign before it has done so once."""
    bearer_id: str = ""
    """The bearer key that the agent has shown; empty: none."""
    slot: int = 0
    """One more than the slot of the typed name; 0: the called node knew of no moves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinueAuthentication:
    """
    Judge the answer to a challenge, as `Authenticate` judges a passcode (K3).

    *challenge* is None if it could not be opened; then the answer is refused. The
    versions are those that the verifier was computed with (T2). The challenge holds
    those of the first step.
    """

    authentication_id: str
    agent: AgentIdentity
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    challenge: Challenge | None
    moments: tuple[Moment, ...] = ()
    """
    Moments after the challenge's at which the digits are the tokencode.

    Filled in by the primary, since only the primary unseals seeds (T1); empty: none.
    """
    pin_verifier: bytes
    """Verifier of the new PIN, for the challenge's user and token; empty: no PIN."""
    certificate_fingerprint: str
    """Fingerprint of the agent's certificate; see `CertificateMark`."""
    certificate_serial_number: str
    sealed_pin: bytes = b""
    """The sealed new PIN of a PINpad token; empty for other tokens."""
    pin_lettered: bool = False
    """Whether the new PIN has a letter."""
    client_address: str = ""
    """Where the user is, as the agent reports it; only from RADIUS clients."""
    resource: str = ""
    radius_secret_id: str = ""
    """The secret that the RADIUS client has used; empty: another agent."""
    radius_signed: bool = False
    """Signed, by a RADIUS client that need not sign before it has done so once."""
    bearer_id: str = ""
    """The bearer key that the agent has shown; empty: none."""
