# SPDX-License-Identifier: Apache-2.0
"""
Notices: audit events that a channel tells, and the channels themselves (N1, N2).

Every event belongs to one class. A channel names the classes that it wants.
"""

import enum
from dataclasses import dataclass, field

from sparecode_node.domain.ids import KeyId, NameKey
from sparecode_node.domain.policy import DAY_MS, MINUTE_MS

CHANNELS_MAX = 16
"""Maximum channels of a cluster: each event may cost a row for each."""
NOTICES_MAX = 10_000
"""Maximum notices that are kept for one channel, dead letters included."""
DROPS_TOLD_MS = MINUTE_MS
"""A full channel has at most one audit event for all that it drops in this time."""
GIVE_UP_MS = 3 * DAY_MS
"""A notice that could not be delivered for this long becomes a dead letter."""
SETTLED_MAX = 256
"""Maximum notices that one command settles: applying it blocks the engine's thread."""
CAUSE_MAX = 400
"""Characters of the reason why a notice is a dead letter; the rest is cut."""


class ChannelKind(enum.StrEnum):
    """How a channel tells notices. The values are in the log and the state."""

    WEBHOOK = "webhook"
    SYSLOG = "syslog"
    """Syslog over TLS (RFC 5424 and 5425)."""
    FILE = "file"
    """Files on each node, whose folder its `node.toml` names."""
    MAIL = "mail"
    """Notices to the people that events are about, by SMTP (N6)."""


STREAMS = frozenset({ChannelKind.SYSLOG, ChannelKind.FILE})
"""
Kinds that tell every event, in order, straight from the audit log.

They need no rows in the outbox: only the position up to which events are delivered.
"""


class EventClass(enum.StrEnum):
    """What an event is about, the most important class first."""

    ADMINISTRATION = "administration"
    """Administrators, policy, members, keys, agents, channels, approvals."""
    EMERGENCY = "emergency"
    """Emergency codes: issued, low, exhausted, void; and tokens that come back."""
    TOKENS = "tokens"
    """Users, their tokens and their PINs."""
    SESSIONS = "sessions"
    """Sign-ins of administrators, and refused calls."""
    AUTHENTICATION = "authentication"
    """Every decision on a passcode."""
    UPKEEP = "upkeep"
    """What the cluster does by itself: resealing, backups, certificates."""


RANKS = {each: rank for rank, each in enumerate(EventClass)}
"""Of one sender, a full channel drops notices of the highest number first."""
DROPPED_FIRST = "SET_ENDED"
"""A million sets may end by time at once: they must not push other notices out."""
SECURITY_RANK = RANKS[EventClass.TOKENS]
"""
Notices up to this rank are about security, and half of a channel is room of their own:
sign-ins, passcodes and upkeep, which come in floods, never push them out of it.
"""

_ACTIONS: dict[EventClass, str] = {
    EventClass.ADMINISTRATION: """
        ActivateKey AddMember AdmitNode AllowCertificate Approve CancelReset
        ChangePassword CreateAdministrator CreateAgentKey CreateBackup CreateJoinTicket
        DenyCertificate InitializeCluster BeginEpoch OpenCluster KeepAuthorities
        DeclareSegmentsLost ConfirmArchive WithdrawArchive RemoveSegments
        NoteSkipStatement RegisterAgent RegisterPasskey RegisterRadiusClient Reject
        RemoveAdministrator RemoveAgent RemoveMember RemovePasskey RemoveSecondFactor
        ResetAdministrator RotateRadiusSecret SetSecondFactor UpdateAdministrator
        UpdateAgent UpdatePolicy UpdateRadiusClient SaveChannel RemoveChannel
        SendNoticesAgain FailNotices NOTICES_DROPPED APPROVAL_ENDED ENTRY_SKIPPED
        RESET_CANCELED RESET_IN_FORCE
        PrepareMove FreezeUsers ExportMovedUsers ImportMovedUsers ActivateMove CancelMove
        EndMove ReclaimMove DeleteMovedUsers SLOTS_MOVED
    """,
    EventClass.EMERGENCY: """
        SaveEmergencyAccess IssueFixedTokencode IssueTokencodesInBulk RequestBulkIssue
        DisableEmergencyAccess ReinstateToken CODES_VOIDED RECOVERED_TOKEN_ACCEPTED
        RECOVERED_TOKEN_REFUSED SET_EXHAUSTED SET_LOW OpenSealedCodes NoteSealedCodes
        CODES_NOT_OPENED SET_ENDED RaiseAlarm
    """,
    EventClass.TOKENS: """
        CreateUser UpdateUser DeleteUser UnlockUser EnrollToken AssignToken
        UnassignToken EnableToken DisableToken UpdateToken DeleteToken ReplaceToken
        ResynchronizeToken SetPin ClearPin PIN_CHOSEN
        USER_ARRIVED TOKEN_ARRIVED USER_GONE TOKEN_GONE
    """,
    EventClass.SESSIONS: """
        OpenSession Reauthenticate EndSession CloseSession ApproveBrowserLogin
        RefuseBrowserLogin CollectBrowserLogin NoteRefusedCalls
    """,
    EventClass.AUTHENTICATION: "Authenticate ContinueAuthentication",
    EventClass.UPKEEP: """
        ActivateDueKey NoteAuthorityKeys NoteArchive NoteEndedSets NoteMemberKey NoteBackup
        RaiseFeatureLevel RenewCertificate
        ReplaceSeals RetireAuthority RetireKey TransferPrimary
    """,
}

CLASSES = {
    action: event_class
    for event_class, actions in _ACTIONS.items()
    for action in actions.split()
}
"""The class of each action in the audit log."""


def class_of(action: str) -> EventClass:
    """Return the class of an action. One that is not listed is never overlooked."""
    return CLASSES.get(action, EventClass.ADMINISTRATION)


def rank_of(action: str) -> int:
    """Return the rank of an action: of one sender, the highest one is dropped first."""
    return len(RANKS) if action == DROPPED_FIRST else RANKS[class_of(action)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A way by which the cluster tells events to another system."""

    name: str
    channel: NameKey
    """The folded name, by which it is found."""
    kind: ChannelKind
    enabled: bool
    address: str
    """The URL of a webhook, a receiver of syslog or a mail server; empty: files."""
    classes: tuple[EventClass, ...]
    """The events that it wants; empty only for mail."""
    allow_private: bool
    """Whether the address may be private or local: else it could reach inner systems."""
    authority: str
    """The authorities of its certificate in PEM; empty: those of the node's system."""
    sealed_secret: bytes = field(repr=False)
    """Sealed with a key of the ring."""
    key_id: KeyId
    version: int
    """The index of its last change: no other channel, and no earlier one, has it."""
    sender: str = ""
    """The address that its mails are from."""
    login: str = ""
    """The name that the node signs in to the mail server with; empty: it does not."""
    contact: str = ""
    """How people reach the help desk, in words."""

    @property
    def target(self) -> str:
        """The target of its events in the audit log."""
        return channel_target(self.channel)


def channel_target(channel: NameKey) -> str:
    """Return how the audit log names a channel."""
    return f"channel {channel}"


def notice_id(cluster_id: str, index: int, number: int) -> str:
    """Return the id of an event: the same at every delivery, and of no other event."""
    return f"{cluster_id}-{index}-{number}"
