# SPDX-License-Identifier: Apache-2.0
"""Views: the values that reads return to people. They hold no secret."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sparecode_node.domain.agents import CertificateMark, Protects
from sparecode_node.domain.emergency_access import CodeState, RecoveryPolicy
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.radius import NO_ATTRIBUTES, AcceptAttributes, RadiusSettings
from sparecode_node.domain.tokencodes import Algorithm, HashName

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A page of a list."""

    items: tuple[T, ...]
    next_page_token: str
    """Empty on the last page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[T]):
    """A page of what a search has found."""

    items: tuple[T, ...]
    total: int
    """Number of all matches."""
    more: bool
    """Whether there are more than `total`: they are not counted."""
    number: int
    """The page, from 1 on."""
    size: int
    """Items of a full page."""

    @property
    def pages(self) -> int:
        """The number of pages that can be shown."""
        return max(1, -(-self.total // self.size))


@dataclass(frozen=True, slots=True, kw_only=True)
class UserView:
    """A person who signs in with tokens."""

    username: str
    display_name: str
    email: str
    enabled: bool
    token_serials: tuple[str, ...]
    token_failures: int
    """Consecutive failures of the token factor."""
    emergency_failures: int
    """Consecutive failures of the emergency factor."""
    locked: bool
    """Whether a factor is waiting or locked at the time of the answer."""
    groups: tuple[str, ...] = ()
    language: str = ""
    """Of what is written for the user, a tag of BCP 47; empty: not known."""
    manager_email: str = ""
    """Empty: no manager is on file."""
    etag: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenView:
    """A token, without its seed."""

    serial: str
    algorithm: Algorithm
    hash_name: HashName
    digits: int
    period_s: int
    """0 for HOTP."""
    pin_rule: PinRule
    pin_set: bool
    username: str
    """Empty if the token is not assigned."""
    enabled: bool
    expires_at_ms: int | None
    lost: bool
    live_codes: int
    """Number of its emergency codes that can be used at the time of the answer."""
    display_name: str = ""
    """Display name of the user."""
    email: str = ""
    language: str = ""
    """Language of the user; empty: not known."""
    etag: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeView:
    """One code of a set, without the code."""

    ordinal: int
    state: CodeState
    used_at_ms: int | None
    agent: str
    node_id: str
    """The node that the agent called."""
    index: int
    """The log index of its use; 0: not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeSetView:
    """A set of one-time tokencodes, or a temporary fixed tokencode."""

    set_id: str
    issuer: str
    node_id: str
    index: int
    issued_at_ms: int
    ends_at_ms: int | None
    """Effective end: the earlier of the set's and the token's (I7)."""
    codes: tuple[CodeView, ...]
    expired: bool
    """Whether it had ended by the time of the answer."""
    fixed: bool = False
    """Whether its one code can be used repeatedly (I11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyAccessView:
    """The emergency access of a token."""

    serial: str
    username: str
    enabled: bool
    """Whether the token has codes that can be used."""
    lost: bool
    recovery: RecoveryPolicy
    live_codes: int
    ends_at_ms: int | None
    """When the last live code ends; None: never, or there is none."""
    fixed: bool
    """Whether the live code is a temporary fixed tokencode, which use does not spend."""
    sets: tuple[CodeSetView, ...]
    """Newest first; empty in lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketCount:
    """The number of packets that had one verdict."""

    verdict: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusActivityView:
    """The packets of a RADIUS client that this node has received since it started."""

    last_packet_ms: int | None
    packets: tuple[PacketCount, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentKeysView:
    """What administrators may know of an agent's bearer keys: times and networks."""

    created_at_ms: int | None
    """When the current key was drawn; None: only replaced ones work."""
    networks: tuple[str, ...]
    """The addresses that it may be used from; empty: any."""
    former_ends_at_ms: int | None
    """When the last replaced key stops working; None: none works."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentView:
    """A program that checks passcodes."""

    name: str
    identity: str
    protects: Protects
    enabled: bool
    restricted: bool = False
    """Whether it admits only the users on its allow list."""
    allowed_user_count: int = 0
    allowed_usernames: tuple[str, ...] = ()
    """The users on its allow list; empty in lists."""
    allowed_groups: tuple[str, ...] = ()
    """The groups on its allow list; also set in lists."""
    accept_attributes: AcceptAttributes = NO_ATTRIBUTES
    """What an Access-Accept tells it."""
    radius: RadiusSettings | None = None
    """The settings of a RADIUS client; None: a certificate identifies the agent."""
    secret_created_at_ms: int | None = None
    """When the current secret of a RADIUS client was drawn."""
    former_secret_ends_at_ms: int | None = None
    """When the replaced secret of a RADIUS client stops working; None: it has none."""
    keys: AgentKeysView | None = None
    """What is known of its bearer keys; None: it has none."""
    radius_activity: RadiusActivityView | None = None
    """What this node has seen of a RADIUS client; None for other agents."""
    etag: str = field(default="", compare=False)
    radius_etag: str = field(default="", compare=False)
    """Of what `UpdateRadiusClient` replaces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedCertificateView:
    """A certificate on the deny list."""

    mark: CertificateMark
    value: str
    denied_at_ms: int
    administrator: str
    note: str
