# SPDX-License-Identifier: Apache-2.0
"""Commands on RADIUS clients: agents that a shared secret identifies."""

from dataclasses import dataclass, field

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.ids import KeyId, NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRadiusClient:
    """Register a RADIUS client with its networks and sealed secret."""

    name: str
    name_key: NameKey
    """Folded by the called node, because replicas may have different Unicode tables."""
    protects: Protects
    restricted: bool
    """Whether it admits only the users on its allow list, which begins empty."""
    networks: tuple[str, ...]
    allow_unsigned: bool
    allow_unsigned_proxied: bool
    unsigned_until_signed: bool
    repeats_with_new_authenticator: bool
    prompts_for_passcode: bool
    filter_id: str
    class_attribute: str
    session_timeout_s: int
    secret_id: str
    """
    Names the secret; the seal belongs to it.

    It follows from the request and the client. So a request whose id is not remembered
    any more cannot replace the secret that it drew.
    """
    sealed_secret: bytes = field(repr=False)
    key_id: KeyId


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRadiusClient:
    """Change the settings of a RADIUS client. Fields that are None keep their value."""

    name_key: NameKey
    networks: tuple[str, ...]
    """All its networks; empty: no change."""
    allow_unsigned: bool | None
    allow_unsigned_proxied: bool | None
    unsigned_until_signed: bool | None
    repeats_with_new_authenticator: bool | None
    prompts_for_passcode: bool | None
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotateRadiusSecret:
    """Give a RADIUS client a new secret; the previous one works for *overlap_ms* more."""

    name_key: NameKey
    secret_id: str
    sealed_secret: bytes = field(repr=False)
    key_id: KeyId
    overlap_ms: int
