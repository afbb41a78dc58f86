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

    *user_id* and *auth_version* are those that the candidates were computed
    with; empty and 0 when the called node knows no such user. If apply sees
    others it answers `STALE_PARAMETERS`, uncharged (T2).
    """

    authentication_id: str
    agent: AgentIdentity
    name_tag: bytes
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    lettered: bool
    """The passcode holds a letter: so the factor is told where nothing is read (L)."""
    readings: tuple[Reading, ...]
    client_address: str
    resource: str
    certificate_fingerprint: str = ""
    """Of the certificate that the agent calls with; see `CertificateMark`."""
    certificate_serial_number: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinueAuthentication:
    """
    Judge the answer to a challenge, as `Authenticate` does a passcode (K3).

    Without a *challenge* it could not be opened: refused. The versions are those
    that the verifier was computed with, as everywhere (T2); what the challenge
    says of them is the first step's.
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
    After that of the challenge, at which the digits are the tokencode.

    Filled in by the primary, which alone unseals seeds (T1); empty: there is none.
    """
    pin_verifier: bytes
    """Of the new PIN, for the challenge's user and token; empty: none was given."""
    certificate_fingerprint: str
    """Of the certificate that the agent calls with; see `CertificateMark`."""
    certificate_serial_number: str
    sealed_pin: bytes = b""
    """The new PIN of a PINpad token, sealed for it; else empty."""
    pin_lettered: bool = False
    """The new PIN has a letter."""
