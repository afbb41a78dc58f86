# SPDX-License-Identifier: Apache-2.0
"""Agents, and denied certificates."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from sparecode_client.values.results import Commit


class AgentProtects(enum.StrEnum):
    """What an agent protects. Emergency codes are not accepted for `CLOUD` (A4)."""

    AUTHENTICATION_MANAGER = "authentication_manager"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptAttributes:
    """What an Access-Accept tells an agent, over RADIUS and RadSec."""

    filter_id: str = ""
    """The Filter-Id; empty: none."""
    class_attribute: str = ""
    """The Class; empty: none."""
    session_timeout: timedelta = timedelta(0)
    """The Session-Timeout; zero: none."""


NO_ATTRIBUTES = AcceptAttributes()


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusSettings:
    """What a RADIUS client may do."""

    networks: tuple[str, ...]
    """The addresses that it sends from; the most specific network that fits counts."""
    allow_unsigned: bool = False
    """Requests without Message-Authenticator are answered, too. Unsafe."""
    allow_unsigned_proxied: bool = False
    """So are those of them that have a Proxy-State."""
    unsigned_until_signed: bool = False
    """Only until a signed request is judged; then all three become false."""
    repeats_with_new_authenticator: bool = False
    """A request of the same session under a new identifier counts as repeated for 30 s."""
    prompts_for_passcode: bool = False
    """A signed request with an empty password gets a challenge that asks for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusActivity:
    """The packets of a RADIUS client that one node has received since it started."""

    last_packet_time: datetime | None
    packets: dict[str, int]
    """The number of packets by verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRadiusSecret:
    """A shared secret of a RADIUS client. No call returns it again."""

    secret: str = field(repr=False)
    commit: Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAgentKey:
    """A bearer key of an agent, for calls by HTTP. No call returns it again."""

    key: str = field(repr=False)
    commit: Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKeys:
    """What is known of the bearer keys of an agent. The keys are not stored."""

    create_time: datetime | None
    """When the current key was drawn; None: only replaced ones work."""
    networks: tuple[str, ...]
    """The networks that the current key may be used from; empty: any."""
    former_end_time: datetime | None
    """When the last replaced key stops working; None: none works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredAgent:
    """An agent: a program that checks passcodes."""

    name: str
    certificate_identity: str
    protects: AgentProtects | None
    enabled: bool
    restricted: bool
    """It admits only the users on its allow list. Otherwise it admits every user."""
    allowed_user_count: int
    allowed_usernames: tuple[str, ...] = ()
    """Users on its allow list; empty in lists of agents."""
    allowed_groups: tuple[str, ...] = ()
    """Groups on its allow list, in the form used for comparison."""
    accept_attributes: AcceptAttributes | None = None
    """What an Access-Accept tells it; None: nothing."""
    radius: RadiusSettings | None = None
    """The settings of a RADIUS client; None: a certificate identifies the agent."""
    secret_create_time: datetime | None = None
    """When the current secret of a RADIUS client was drawn."""
    former_secret_end_time: datetime | None = None
    """When the replaced secret of a RADIUS client stops working; None: it has none."""
    keys: AgentKeys | None = None
    """Its bearer keys; None: it has none."""
    radius_activity: RadiusActivity | None = None
    """What the called node has seen of a RADIUS client; None for other agents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCertificate:
    """A certificate that is refused, named by its fingerprint or its serial number."""

    fingerprint: str
    """SHA-256 in hexadecimal digits; empty if the serial number names it."""
    serial_number: str
    deny_time: datetime | None
    administrator: str
    note: str


def certificate_fingerprint(pem: bytes) -> str:
    """
    Return the SHA-256 fingerprint of the first certificate in *pem*.

    Raises:
        ValueError: *pem* holds no certificate.
    """
    certificate = x509.load_pem_x509_certificates(pem)[0]
    return certificate.fingerprint(SHA256()).hex()
