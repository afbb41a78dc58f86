# SPDX-License-Identifier: Apache-2.0
"""
Every replicated command: one frozen value each, named in the imperative.

A command carries all that its decision needs and no clear secret: candidates
and verifiers instead of PINs, codes and passwords, sealed seeds instead of
seeds (T1-T3). Those that change one token are in `token_commands`, those on
agents in `agent_commands`. Field names and meanings are on disk, hence never
broken; a new meaning is a new field, with a default that means "as before". `replication/codec.py` maps them to protobuf by name.
"""

from dataclasses import dataclass

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import (
    NO_KEY,
    AdministratorName,
    AgentIdentity,
    GroupKey,
    KeyId,
    Moment,
    NameKey,
    NodeId,
    RequestId,
    SessionId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.passcodes import Reading
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.statemachine.commands.administrators import (
    AdministratorCommand,
)
from sparecode_node.statemachine.commands.agents import AgentCommand
from sparecode_node.statemachine.commands.approvals import ApprovalCommand
from sparecode_node.statemachine.commands.authentication import (
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.backups import BackupCommand
from sparecode_node.statemachine.commands.bulk import BulkCommand
from sparecode_node.statemachine.commands.cluster import ClusterCommand
from sparecode_node.statemachine.commands.epochs import EpochCommand
from sparecode_node.statemachine.commands.keys import KeyCommand
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.commands.refusals import NoteRefusedCalls
from sparecode_node.statemachine.commands.reset import ResetAdministrator
from sparecode_node.statemachine.commands.sessions import TouchSessions
from sparecode_node.statemachine.commands.tokens import (
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    ReplaceToken,
    ResynchronizeToken,
    SetPin,
    UnassignToken,
    UpdateToken,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """Names one request of one caller (Q1)."""

    caller: str
    """`agent:IDENTITY`, `administrator:NAME` or `node:ID`, as authenticated."""
    method: str
    """`EmergencyAccessService/IssueTokencodes`, say."""
    request_id: RequestId
    tag: int
    """32-bit keyed tag over the caller's fields: same id, other tag is refused."""
    other_tags: tuple[int, ...] = ()
    """The same under keys that were active before, by which a retry is known too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitializeCluster:
    """Begin the cluster's state: its id, its policy's defaults, its first administrator."""

    cluster_id: str
    administrator: AdministratorName
    password_salt: bytes
    password_verifier: bytes
    key_id: KeyId
    feature_level: int | None = None
    """Of the node that begins it; absent: the first (see feature_level.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSession:
    """Sign an administrator in, if the candidate is the verifier of the password."""

    administrator: AdministratorName
    candidate: bytes
    administrator_version: int
    """Of the administrator's row that the candidate was computed with; 0: unknown name."""
    key_id: KeyId
    session_id: SessionId
    second_factor: bool = False  # A code of it was given.
    moments: tuple[Moment, ...] = ()  # Of that code; filled in by the primary (T1).


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseSession:
    """End the calling session, or every session of its administrator."""

    everywhere: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateUser:
    """Add a user."""

    user_id: UserId
    username: str
    name_key: NameKey
    name_tag: bytes
    """Keyed hash of the name key, by which authentication finds the user (A6)."""
    display_name: str
    email: str
    pin_salt: bytes
    code_salt: bytes
    key_id: KeyId = NO_KEY
    """That the tag was made with; 0: the first one, of which there was no other."""
    join_groups: tuple[GroupKey, ...] = ()
    """Where the user is from the beginning: added with all of them, or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateUser:
    """Change what is given of a user; what is absent stays."""

    name_key: NameKey
    display_name: str | None
    email: str | None
    enabled: bool | None
    join_groups: tuple[GroupKey, ...] = ()
    leave_groups: tuple[GroupKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteUser:
    """Delete a user who has no token."""

    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlockUser:
    """Set the failure counts of both factors to zero and end their locks (L6)."""

    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollToken:
    """Add a token."""

    serial: TokenSerial
    algorithm: Algorithm
    hash_name: HashName
    digits: int
    period_s: int
    """Of a TOTP step; 0 for HOTP."""
    counter: int
    """The next HOTP counter; 0 for TOTP."""
    sealed_seed: bytes
    key_id: KeyId
    pin_rule: PinRule
    expires_at_ms: int | None
    folds_pin: bool = False
    """
    The PIN rule is PINPAD.

    Said once more for members of feature level 1, which know no such PIN rule: what
    they hold no field for is not asked of them.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignToken:
    """Give an unassigned token to a user (up to three tokens a user)."""

    serial: TokenSerial
    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinstateToken:
    """Say that a lost token is its owner's again: end its emergency access and accept it."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCode:
    """One new one-time tokencode: its ordinal in the set (from 1) and its verifier."""

    ordinal: int
    verifier: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveEmergencyAccess:
    """
    Make a generated set of one-time tokencodes live (I1-I8).

    Of *ends_at_ms* and *lifetime_ms* at most one is given; neither: no end.
    With a *draft_id* (two steps) anything changed since the draft is
    `DRAFT_STALE`; without (one step) it is `STALE_PARAMETERS`.
    """

    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    codes: tuple[SealedCode, ...]
    ends_at_ms: int | None
    lifetime_ms: int | None
    recovery: RecoveryPolicy
    keep_unused_codes: bool
    weaken_recovery_policy: bool
    draft_id: str
    """Empty for the one-step way."""
    draft_ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueFixedTokencode:
    """
    Make one code live that may be used again and again until its end (I11).

    Of *ends_at_ms* and *lifetime_ms* at most one is given; neither: a week.
    Anything changed since it was drawn is `STALE_PARAMETERS`.
    """

    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    verifier: bytes
    ends_at_ms: int | None
    lifetime_ms: int | None
    recovery: RecoveryPolicy
    weaken_recovery_policy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableEmergencyAccess:
    """Void all live codes of a token; clear its lost mark only if asked (R2)."""

    serial: TokenSerial
    reinstate_token: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterAgent:
    """Let the agent of this certificate identity authenticate users."""

    name: str
    name_key: NameKey
    """Folded by the called node: replicas may know different Unicode tables."""
    identity: AgentIdentity
    protects: Protects
    restricted: bool = False
    """It admits only the users on its allow list, where nobody is yet."""


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
    challenges: bool = False
    """
    The called node can ask for a next step (K3).

    Entries of before there were challenges say no, and are decided as they were.
    """


@dataclass(frozen=True, slots=True)
class PassBarrier:
    """Change nothing; where it is applied, everything committed before is too."""


Command = (
    InitializeCluster
    | OpenSession
    | CloseSession
    | TouchSessions
    | CreateUser
    | UpdateUser
    | DeleteUser
    | UnlockUser
    | EnrollToken
    | AssignToken
    | UnassignToken
    | EnableToken
    | DisableToken
    | UpdateToken
    | DeleteToken
    | ReplaceToken
    | ResynchronizeToken
    | ClearPin
    | SetPin
    | ReinstateToken
    | SaveEmergencyAccess
    | IssueFixedTokencode
    | DisableEmergencyAccess
    | UpdatePolicy
    | RegisterAgent
    | Authenticate
    | ContinueAuthentication
    | PassBarrier
    | AdministratorCommand
    | BulkCommand
    | AgentCommand
    | ClusterCommand
    | EpochCommand
    | BackupCommand
    | ResetAdministrator
    | NoteRefusedCalls
    | ApprovalCommand
    | KeyCommand
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One caller's command as it enters the log: who asked, where, and when."""

    command: Command
    request: RequestKey
    node_id: NodeId
    """The node that was called."""
    session_id: SessionId
    """Of the administrator who asked; empty for agents and nodes."""
    at_ms: int
    """The primary's time, stamped by it alone; 0 until then (T1)."""
