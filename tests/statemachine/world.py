# SPDX-License-Identifier: Apache-2.0
"""
The world around a state machine in tests: people, nodes and a clock, as words.

A verifier consists of the words it is made from, so that scripts are readable. Like a
node, the world looks up the versions that a command must carry; a script may set
others.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from sparecode_node.domain.administrators import Administrator, Role
from sparecode_node.domain.agents import CertificateMark, Protects
from sparecode_node.domain.challenges import Challenge
from sparecode_node.domain.emergency_access import (
    EmergencyCodeSet,
    FormerSet,
    RecoveryPolicy,
)
from sparecode_node.domain.ids import (
    AdministratorName,
    AgentIdentity,
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
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind
from sparecode_node.domain.notices import ChannelKind
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.passcodes import (
    CodeCandidate,
    PinCandidate,
    Reading,
    TokencodeMatch,
)
from sparecode_node.domain.passkeys import PasskeyAnswer
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.policy_changes import merged
from sparecode_node.domain.slots import slot_of
from sparecode_node.domain.tokencodes import Algorithm, HashName, step_at
from sparecode_node.domain.tokens import NOTHING_SPENT
from sparecode_node.domain.users import User, fold
from sparecode_node.statemachine.commands import Call, Command, RequestKey
from sparecode_node.statemachine.commands.administrators import (
    ChangePassword,
    CreateAdministrator,
    RemoveAdministrator,
    UpdateAdministrator,
)
from sparecode_node.statemachine.commands.agents import (
    AllowCertificate,
    CreateAgentKey,
    DenyCertificate,
    RegisterAgent,
    RemoveAgent,
    UpdateAgent,
)
from sparecode_node.statemachine.commands.alarms import RaiseAlarm
from sparecode_node.statemachine.commands.approvals import Approve, Reject
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.browser_logins import (
    ApproveBrowserLogin,
    CollectBrowserLogin,
    RefuseBrowserLogin,
    StartBrowserLogin,
)
from sparecode_node.statemachine.commands.cluster import (
    CreateBackup,
    InitializeCluster,
    NoteBackup,
    NoteRefusedCalls,
    NoteSkipStatement,
    PassBarrier,
    RaiseFeatureLevel,
    TransferPrimary,
)
from sparecode_node.statemachine.commands.emergency_access import (
    DisableEmergencyAccess,
    IssueFixedTokencode,
    IssueTokencodesInBulk,
    NoteEndedSets,
    NoteSealedCodes,
    OpenSealedCodes,
    ReinstateToken,
    RequestBulkIssue,
    SaveEmergencyAccess,
    SealedCode,
)
from sparecode_node.statemachine.commands.epochs import BeginEpoch, OpenCluster
from sparecode_node.statemachine.commands.keys import (
    ActivateDueKey,
    ActivateKey,
    ReplacedSeal,
    ReplaceSeals,
    RetireKey,
    SealKind,
)
from sparecode_node.statemachine.commands.membership import (
    AddMember,
    AdmitNode,
    AnnounceAuthority,
    CreateJoinTicket,
    FinishAuthorities,
    KeepAuthorities,
    NoteAuthorityKeys,
    NoteMemberKey,
    RemoveMember,
    RenewCertificate,
    ReplaceAuthorities,
    RetireAuthority,
)
from sparecode_node.statemachine.commands.notices import (
    AcknowledgeNotices,
    FailNotices,
    RemoveChannel,
    SaveChannel,
    SendNoticesAgain,
)
from sparecode_node.statemachine.commands.pending import from_json
from sparecode_node.statemachine.commands.policy import CountedCodes, UpdatePolicy
from sparecode_node.statemachine.commands.radius import (
    RegisterRadiusClient,
    RotateRadiusSecret,
    UpdateRadiusClient,
)
from sparecode_node.statemachine.commands.resets import CancelReset, ResetAdministrator
from sparecode_node.statemachine.commands.second_factors import (
    RegisterPasskey,
    RemovePasskey,
    RemoveSecondFactor,
    SetSecondFactor,
)
from sparecode_node.statemachine.commands.segments import (
    ConfirmArchive,
    DeclareSegmentsLost,
    NoteArchive,
    NoteSegments,
    RemoveSegments,
    WithdrawArchive,
)
from sparecode_node.statemachine.commands.sessions import (
    CloseSession,
    EndSession,
    OpenSession,
    Reauthenticate,
    TouchSessions,
)
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    EnrollToken,
    ReplaceToken,
    ResynchronizeToken,
    SeedFingerprint,
    SetPin,
    UnassignToken,
    UpdateToken,
)
from sparecode_node.statemachine.commands.users import (
    CreateUser,
    DeleteUser,
    UnlockUser,
    UpdateUser,
)
from sparecode_node.statemachine.feature_level import (
    COUNTED_CODES,
    FORMER_CODES,
    FOUND_UNUSED,
    UNIQUE_SEEDS,
)
from sparecode_node.statemachine.handlers.membership import ticket_id_of
from sparecode_node.statemachine.handlers.policy import (
    find_policy,
    values_of,
    weighs_codes,
)
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.results import (
    Applied,
    ApprovalPending,
    Authenticated,
    BarrierPassed,
    EmergencyAccessSaved,
    JoinTicketCreated,
    Result,
    SessionOpened,
)
from sparecode_node.statemachine.skipping import SkippedEntry
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import archives as archive_tables
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import former as former_tables
from sparecode_node.statemachine.tables import keys as key_tables
from sparecode_node.statemachine.tables import moves as move_tables
from sparecode_node.statemachine.tables import notices as notice_tables
from sparecode_node.statemachine.tables import segments as segment_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables
from sparecode_node.statemachine.tables.live_codes import LAST_SET, count_all
from sparecode_node.statemachine.tables.review import REVIEWED, mark_of
from tests.databases import open_database
from tests.statemachine.moves import move_command

SKIPPED_DIGEST = "ab" * 32
START_MS = 1_800_000_000_000
"""When every script begins: 2027-01-15 08:00 UTC, at the beginning of a TOTP step."""

UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
KEY = KeyId(1)
ROOT = AdministratorName("root")
DEFAULT_PERIODS_S = {Algorithm.TOTP: "30", Algorithm.SECURID: "60", Algorithm.HOTP: "0"}

Arguments = dict[str, str]


def span_ms(text: str) -> int:
    """Read a span of time: `7d`, `1h30m`, `-5s`."""
    sign, rest, total, number = 1, text.removeprefix("+"), 0, ""
    if rest.startswith("-"):
        sign, rest = -1, rest[1:]
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789"))
        number, rest = rest[:digits], rest[digits:]
        unit = next(
            unit for unit in ("ms", "d", "h", "m", "s") if rest.startswith(unit)
        )
        total, rest = total + int(number) * UNITS_MS[unit], rest[len(unit) :]
    return sign * total


def span_text(at_ms: int | None) -> str:
    """Return a time as a span since the start: `+7d`."""
    if at_ms is None:
        return "never"
    left, words = at_ms - START_MS, ""
    for unit, size_ms in UNITS_MS.items():
        count, left = divmod(left, size_ms)
        words += f"{count}{unit}" if count else ""
    return f"+{words or '0s'}"


def pin_verifier(user: UserId | str, serial: str, pin: str) -> bytes:
    """Return the verifier of a user's PIN for a token."""
    return f"pin {user} {serial} {pin}".encode()


def code_verifier(set_id: str, code: str) -> bytes:
    """Return the verifier of a code in a set; the codes of set S are S/1, S/2, ..."""
    return f"code {set_id} {code}".encode()


def code_tag(user: str, code: str) -> bytes:
    """Return the stand-in for the tag of a code of a user's former set."""
    return f"<{user} {code}>".encode()


def name_tag(name: str) -> bytes:
    """Return the stand-in for the keyed hash of a name."""
    return f"tag {fold(name)}".encode()


def names(text: str | None) -> tuple[NameKey, ...]:
    """Read names: `alice,bob`."""
    return tuple(fold(name) for name in text.split(",")) if text else ()


def certificate_mark(arguments: Arguments) -> tuple[CertificateMark, str]:
    """Return the mark by which a script names a certificate."""
    if "fingerprint" in arguments:
        return CertificateMark.FINGERPRINT, arguments["fingerprint"]
    return CertificateMark.SERIAL_NUMBER, arguments["serial-number"]


def authority_keys(arguments: Arguments) -> tuple[AuthorityKey, ...]:
    """Return the keys of authorities: `members=aa agents=bb`."""
    return tuple(
        AuthorityKey(authority=kind, fingerprint=arguments[kind])
        for kind in AuthorityKind
        if kind in arguments
    )


def skipped_entry(index: int) -> SkippedEntry:
    """Return the entry at an index, as statements name it."""
    return SkippedEntry(index=index, term=3, digest=SKIPPED_DIGEST, cluster_id="c1")


def folder_of(node_id: str) -> str:
    """Return the id of the folder that is a node's own archive."""
    return hashlib.sha256(node_id.encode()).hexdigest()[:32]


def numbers(arguments: Arguments) -> tuple[int, ...]:
    """Return the numbers of notices; none are named: none."""
    return tuple(map(int, filter(None, arguments.get("numbers", "").split("+"))))


class World:
    """A state machine in memory, and all its callers."""

    def __init__(self) -> None:
        self.db = open_database()
        self.machine = StateMachine(self.db)
        self.index = 0
        self.now_ms = START_MS
        self.requests = 0
        self.told = 0
        self.challenges: dict[str, Challenge] = {}
        """By the name that the script has given to the attempt."""
        self.log: list[tuple[int, tuple[Call, ...]]] = []
        self.skipped: set[int] = set()

    def begin(self) -> None:
        """Initialize the cluster, sign the first administrator in, register an agent."""
        for directive, arguments in (
            ("init", {}),
            ("sign-in", {}),
            ("register-agent", {"name": "vpn"}),
        ):
            result = self.apply(self.call(directive, arguments))
            assert not isinstance(result, Rejected), result

    # --- Applying

    def apply(self, call: Call) -> Result:
        """Apply one call as an entry of its own."""
        (result,) = self.apply_batch([call])
        return result

    def apply_batch(self, calls: Sequence[Call]) -> tuple[Result, ...]:
        """Apply an entry, and keep it for a replay."""
        self.index += 1
        self.log.append((self.index, tuple(calls)))
        return self.machine.apply(self.index, calls)

    def skip(self, *calls: Call) -> tuple[Result, ...]:
        """Skip the next entry, which holds these calls (E3)."""
        self.index += 1
        self.log.append((self.index, calls))
        self.skipped.add(self.index)
        return self.machine.skip(skipped_entry(self.index), calls)

    def replayed(self) -> "World":
        """Return a world whose state was made from this world's log."""
        other = World()
        for index, calls in self.log:
            if index in self.skipped:
                other.machine.skip(skipped_entry(index), calls)
            else:
                other.machine.apply(index, calls)
        return other

    def call(self, directive: str, arguments: Arguments) -> Call:
        """Return the call of a directive."""
        command = self.command(directive, arguments)
        match command:
            case Authenticate() | ContinueAuthentication():
                caller, session = f"agent:{command.agent}", ""
            case (
                InitializeCluster()
                | PassBarrier()
                | NoteRefusedCalls()
                | NoteSkipStatement()
                | TouchSessions()
                | StartBrowserLogin()
                | BeginEpoch()
                | NoteBackup()
                | RenewCertificate()
                | NoteAuthorityKeys()
                | NoteMemberKey()
                | NoteSegments()
                | NoteArchive()
                | RemoveSegments()
                | NoteEndedSets()
                | RetireAuthority()
                | AnnounceAuthority()
                | ResetAdministrator()
                | RaiseFeatureLevel()
                | ActivateDueKey()
                | ReplaceSeals()
                | RetireKey()
            ):
                caller, session = "node:n1", ""
            case AdmitNode():
                caller, session = f"joiner:{command.ticket_id[:8]}", ""
            case OpenSession() | CollectBrowserLogin():
                caller, session = f"administrator:{command.administrator}", ""
            case _:
                session = arguments.get("session", "s1")
                caller = "administrator:" + arguments.get("as", ROOT)
        self.requests += 1
        return Call(
            command=command,
            request=RequestKey(
                caller=caller,
                method=type(command).__name__,
                request_id=RequestId(arguments.get("request", f"r{self.requests}")),
                tag=int(arguments.get("tag", "7")),
            ),
            node_id=NodeId(arguments.get("via", "n1")),
            session_id=SessionId(session),
            at_ms=self.now_ms,
        )

    def command(self, directive: str, arguments: Arguments) -> Command:  # noqa: C901, PLR0911, PLR0912, PLR0915
        """Return the command of a directive."""
        if (move := move_command(directive, arguments)) is not None:
            return move
        match directive:
            case "init":
                return InitializeCluster(
                    cluster_id="c1",
                    administrator=ROOT,
                    password_salt=b"salt",
                    password_verifier=b"right",
                    key_id=KEY,
                )
            case "sign-in":
                return self._open_session(arguments)
            case "reauthenticate":
                name = AdministratorName(arguments.get("as", ROOT))
                row = administrator_tables.find_administrator(self.db, name)
                return Reauthenticate(
                    administrator=name,
                    candidate=arguments.get("password", "right").encode(),
                    administrator_version=row.version if row else 0,
                    key_id=row.key_id if row else KeyId(KEY),
                    second_factor="code" in arguments,
                    moments=moments_in(arguments),
                    passkey=passkey_in(arguments),
                )
            case "start-login":
                return StartBrowserLogin(
                    login_id=arguments["login"],
                    code_tag=arguments.get("code", arguments["login"]).encode(),
                    administrator=AdministratorName(arguments.get("as", ROOT)),
                    device=arguments.get("device", ""),
                    address=arguments.get("from", "192.0.2.7"),
                    client_name=arguments.get("computer", ""),
                )
            case "approve-login":
                return ApproveBrowserLogin(login_id=arguments["login"])
            case "refuse-login":
                return RefuseBrowserLogin(login_id=arguments["login"])
            case "collect-login":
                return CollectBrowserLogin(
                    login_id=arguments["login"],
                    administrator=AdministratorName(arguments.get("as", ROOT)),
                    session_id=SessionId(arguments["session"]),
                    address=arguments.get("from", "192.0.2.7"),
                )
            case "end-session":
                return EndSession(session_id=SessionId(arguments["ended"]))
            case "sign-out":
                return CloseSession(everywhere="everywhere" in arguments)
            case "create-user":
                return self._create_user(arguments)
            case "touch":
                return TouchSessions(
                    session_ids=tuple(map(SessionId, arguments["sessions"].split(",")))
                )
            case "update-user":
                enabled = arguments.get("enabled")
                return UpdateUser(
                    name_key=fold(arguments["name"]),
                    display_name=arguments.get("display"),
                    email=arguments.get("email"),
                    enabled=None if enabled is None else enabled == "yes",
                    join_groups=names(arguments.get("join")),
                    leave_groups=names(arguments.get("leave")),
                    manager_email=arguments.get("manager"),
                )
            case "delete-user":
                return DeleteUser(name_key=fold(arguments["name"]))
            case "unlock-user":
                return UnlockUser(name_key=fold(arguments["name"]))
            case "enroll":
                return self._enroll(arguments)
            case "assign":
                return AssignToken(
                    serial=TokenSerial(arguments["serial"]),
                    name_key=fold(arguments["user"]),
                )
            case "unassign":
                return UnassignToken(serial=TokenSerial(arguments["serial"]))
            case "enable-token":
                return EnableToken(serial=TokenSerial(arguments["serial"]))
            case "disable-token":
                return DisableToken(serial=TokenSerial(arguments["serial"]))
            case "update-token":
                expires = arguments.get("expires")
                return UpdateToken(
                    serial=TokenSerial(arguments["serial"]),
                    expires_at_ms=None
                    if expires is None
                    else START_MS + span_ms(expires),
                    never_expires="never" in arguments,
                )
            case "delete-token":
                return DeleteToken(serial=TokenSerial(arguments["serial"]))
            case "replace":
                return self._replace(arguments)
            case "resynchronize":
                token = token_tables.find_token(
                    self.db, TokenSerial(arguments["serial"])
                )
                return ResynchronizeToken(
                    serial=TokenSerial(arguments["serial"]),
                    moments=tuple(self._moments(arguments, token)) if token else (),
                )
            case "clear-pin":
                return ClearPin(serial=TokenSerial(arguments["serial"]))
            case "set-pin":
                return self._set_pin(arguments)
            case "reinstate":
                return ReinstateToken(serial=TokenSerial(arguments["serial"]))
            case "save":
                return self._save(arguments)
            case "open-codes":
                return OpenSealedCodes(
                    opener=arguments["opener"], page=arguments.get("page", "p1")
                )
            case "alarm":
                user = user_tables.find_user_by_name(self.db, fold(arguments["user"]))
                return RaiseAlarm(
                    user_id=user.user_id if user else UserId("nobody"),
                    notice_id=arguments.get("notice", "c-1-1"),
                    kind=arguments.get("kind", "codes_issued"),
                    told_at_ms=START_MS,
                )
            case "note-codes":
                return NoteSealedCodes(
                    serial=TokenSerial(arguments["serial"]),
                    set_id=SetId(arguments.get("set", "A")),
                    outcome=arguments["outcome"],
                    cause=arguments.get("cause", ""),
                )
            case "note-ended-sets":
                return NoteEndedSets()
            case "issue-fixed":
                return self._issue_fixed(arguments)
            case "request-bulk":
                return RequestBulkIssue(
                    serials=tuple(map(TokenSerial, arguments["serials"].split(",")))
                )
            case "approve":
                return self._approve(int(arguments["number"]))
            case "reject":
                return Reject(approval_id=int(arguments["number"]))
            case "issue-in-bulk":
                return self._issue_in_bulk(arguments)
            case "disable":
                return DisableEmergencyAccess(
                    serial=TokenSerial(arguments["serial"]),
                    reinstate_token="reinstate" in arguments,
                )
            case "create-admin":
                return CreateAdministrator(
                    name=AdministratorName(arguments["name"]),
                    role=Role(arguments.get("role", "super_admin")),
                    user=fold(arguments["user"]) if "user" in arguments else None,
                    password_salt=b"salt",
                    password_verifier=arguments.get("password", "temporary").encode(),
                    key_id=KeyId(int(arguments.get("key", KEY))),
                )
            case "update-admin":
                return UpdateAdministrator(
                    name=AdministratorName(arguments["name"]),
                    role=Role(arguments["role"]) if "role" in arguments else None,
                    enabled=arguments["enabled"] == "yes"
                    if "enabled" in arguments
                    else None,
                    user=fold(arguments["user"]) if "user" in arguments else None,
                    no_user="no-user" in arguments,
                )
            case "remove-admin":
                return RemoveAdministrator(name=AdministratorName(arguments["name"]))
            case "change-password":
                return self._change_password(arguments)
            case "update-policy":
                return self._update_policy(arguments)
            case "register-agent":
                return RegisterAgent(
                    name=arguments["name"],
                    name_key=fold(arguments["name"]),
                    identity=AgentIdentity(
                        arguments.get("identity", arguments["name"])
                    ),
                    protects=Protects(
                        arguments.get("protects", "authentication_manager")
                    ),
                    restricted="restricted" in arguments,
                    filter_id=arguments.get("filter-id", ""),
                )
            case "update-agent":
                return UpdateAgent(
                    name_key=fold(arguments["name"]),
                    protects=Protects(arguments["protects"])
                    if "protects" in arguments
                    else None,
                    enabled=arguments["enabled"] == "yes"
                    if "enabled" in arguments
                    else None,
                    restricted=arguments["restricted"] == "yes"
                    if "restricted" in arguments
                    else None,
                    add_users=names(arguments.get("allow")),
                    remove_users=names(arguments.get("disallow")),
                    add_groups=names(arguments.get("allow-group")),
                    remove_groups=names(arguments.get("disallow-group")),
                    end_keys=True if "end-keys" in arguments else None,
                    filter_id=arguments.get("filter-id"),
                    class_attribute=arguments.get("class"),
                    session_timeout_s=int(arguments["timeout"])
                    if "timeout" in arguments
                    else None,
                )
            case "save-channel":
                secret = arguments.get("secret", "")
                return SaveChannel(
                    channel=fold(arguments["name"]),
                    name=arguments["name"],
                    kind=ChannelKind(arguments.get("kind", "webhook")),
                    version=int(arguments.get("version", "0")),
                    enabled="off" not in arguments,
                    address=arguments.get("address", "https://siem.example/in"),
                    classes=tuple(arguments.get("tells", "").split("+"))
                    if "tells" in arguments
                    else (),
                    allow_private="private" in arguments,
                    authority=arguments.get("authority", ""),
                    sealed_secret=f"sealed {secret}".encode() if secret else None,
                    key_id=KeyId(int(arguments.get("key", KEY))),
                    sender=arguments.get("sender", ""),
                    login=arguments.get("login", ""),
                    contact=arguments.get("contact", ""),
                )
            case "remove-channel":
                return RemoveChannel(channel=fold(arguments["name"]))
            case "acknowledge":
                return AcknowledgeNotices(
                    channel=fold(arguments["name"]),
                    numbers=numbers(arguments),
                    version=self.channel_version(arguments),
                )
            case "fail-notices":
                return FailNotices(
                    channel=fold(arguments["name"]),
                    numbers=numbers(arguments),
                    cause=arguments["cause"],
                    disable="disable" in arguments,
                    version=self.channel_version(arguments),
                )
            case "send-again":
                return SendNoticesAgain(
                    channel=fold(arguments["name"]), numbers=numbers(arguments)
                )
            case "register-radius":
                return RegisterRadiusClient(
                    name=arguments["name"],
                    name_key=fold(arguments["name"]),
                    protects=Protects.AUTHENTICATION_MANAGER,
                    restricted="restricted" in arguments,
                    networks=tuple(arguments["networks"].split("+")),
                    allow_unsigned="unsigned" in arguments,
                    allow_unsigned_proxied="proxied" in arguments,
                    unsigned_until_signed="until-signed" in arguments,
                    repeats_with_new_authenticator=False,
                    prompts_for_passcode="prompts" in arguments,
                    filter_id=arguments.get("filter-id", ""),
                    class_attribute="",
                    session_timeout_s=0,
                    secret_id=arguments.get("secret", f"secret of {arguments['name']}"),
                    sealed_secret=b"sealed secret",
                    key_id=KeyId(int(arguments.get("key", KEY))),
                )
            case "update-radius":
                return UpdateRadiusClient(
                    name_key=fold(arguments["name"]),
                    networks=tuple(
                        filter(None, arguments.get("networks", "").split("+"))
                    ),
                    allow_unsigned=arguments["unsigned"] == "yes"
                    if "unsigned" in arguments
                    else None,
                    allow_unsigned_proxied=arguments["proxied"] == "yes"
                    if "proxied" in arguments
                    else None,
                    unsigned_until_signed=arguments["until-signed"] == "yes"
                    if "until-signed" in arguments
                    else None,
                    repeats_with_new_authenticator=None,
                    prompts_for_passcode=arguments["prompts"] == "yes"
                    if "prompts" in arguments
                    else None,
                )
            case "rotate-secret":
                return RotateRadiusSecret(
                    name_key=fold(arguments["name"]),
                    secret_id=arguments["secret"],
                    sealed_secret=b"another sealed secret",
                    key_id=KeyId(int(arguments.get("key", KEY))),
                    overlap_ms=1000 * int(arguments.get("overlap", "0")),
                )
            case "create-key":
                return CreateAgentKey(
                    name_key=fold(arguments["name"]),
                    bearer_id=arguments["id"],
                    digest=arguments["key"].encode(),
                    networks=tuple(
                        filter(None, arguments.get("networks", "").split("+"))
                    ),
                    overlap_ms=1000 * int(arguments.get("overlap", "0")),
                )
            case "remove-agent":
                return RemoveAgent(name_key=fold(arguments["name"]))
            case "deny-certificate":
                mark, value = certificate_mark(arguments)
                return DenyCertificate(
                    mark=mark, value=value, note=arguments.get("note", "")
                )
            case "allow-certificate":
                mark, value = certificate_mark(arguments)
                return AllowCertificate(mark=mark, value=value)
            case "note-refused":
                return NoteRefusedCalls(
                    method=arguments["method"],
                    reason=arguments["reason"],
                    actor=arguments["actor"],
                    count=int(arguments.get("count", "1")),
                )
            case "note-skip":
                return NoteSkipStatement(
                    index=int(arguments["index"]),
                    digest=arguments["digest"],
                    member=NodeId(arguments["member"]),
                    operator=arguments["operator"],
                    reason=arguments["reason"],
                    signed_at_ms=self.now_ms,
                    statement="{}",
                )
            case "authenticate":
                return self._authenticate(arguments)
            case "continue":
                return self._continue(arguments)
            case "activate-due-key":
                return ActivateDueKey(
                    fingerprint=arguments["fingerprint"].encode(),
                    replaces=KeyId(int(arguments.get("replaces", self.active_key))),
                    node_id=NodeId(arguments["node"]),
                )
            case "activate-key":
                return ActivateKey(
                    fingerprint=arguments["fingerprint"].encode(),
                    replaces=KeyId(int(arguments.get("replaces", self.active_key))),
                    at_once="at-once" in arguments,
                    keep_old_key="keep" in arguments,
                    after_removal=arguments.get("after", ""),
                )
            case "replace-seal":
                return ReplaceSeals(
                    key_id=KeyId(int(arguments.get("key", self.active_key))),
                    seals=(
                        ReplacedSeal(
                            kind=SealKind(arguments["kind"]),
                            row=arguments["row"],
                            old_key_id=KeyId(int(arguments.get("old-key", KEY))),
                            old=seals_in(arguments["old"]),
                            new=seals_in(arguments["new"]),
                        ),
                    ),
                )
            case "retire-key":
                return self._retire_key(KeyId(int(arguments["key"])))
            case "set-second-factor":
                return SetSecondFactor(
                    name=AdministratorName(arguments.get("as", ROOT)),
                    sealed_seed=b"sealed factor",
                    key_id=KEY,
                    draft_ends_at_ms=START_MS + 900_000,
                    moments=moments_in(arguments),
                )
            case "register-passkey":
                return RegisterPasskey(
                    name=AdministratorName(arguments.get("as", ROOT)),
                    label=arguments["passkey"],
                    domain=arguments.get("domain", "example.com"),
                    public_key=b"public key",
                    answer=passkey_in(arguments) or PasskeyAnswer(),
                )
            case "remove-passkey":
                return RemovePasskey(
                    name=AdministratorName(arguments.get("as", ROOT)),
                    credential_id=arguments["passkey"].encode(),
                )
            case "remove-second-factor":
                return RemoveSecondFactor(name=AdministratorName(arguments["name"]))
            case "transfer-primary":
                return TransferPrimary(target=arguments.get("target"))
            case "begin-epoch":
                return BeginEpoch(
                    cluster_id=arguments.get("cluster", "c2"),
                    cause=arguments.get("cause", "restore"),
                    state_index=self.index,
                    state_at_ms=self.machine.now_ms,
                )
            case "create-backup":
                return CreateBackup()
            case "note-backup":
                return NoteBackup(
                    index=self.index, digest="d1", taken_at_ms=self.now_ms
                )
            case "reset-admin":
                return ResetAdministrator(
                    name=AdministratorName(arguments["name"]),
                    password_salt=b"salt",
                    password_verifier=arguments.get("password", "temporary").encode(),
                    key_id=KeyId(int(arguments.get("key", KEY))),
                    uid=0,
                    second_factor=arguments.get("second-factor") == "yes",
                )
            case "cancel-reset":
                return CancelReset(name=AdministratorName(arguments["name"]))
            case "open-cluster":
                return OpenCluster(review=arguments.get("review", self._review()))
            case "raise-feature-level":
                return RaiseFeatureLevel(level=int(arguments["level"]))
            case "ticket":
                return CreateJoinTicket(
                    node_id=NodeId(arguments["node"]),
                    certificate=arguments["certificate"].encode(),
                    address=arguments.get("address"),
                    hosts=(
                        tuple(arguments["hosts"].split(","))
                        if "hosts" in arguments
                        else ()
                    ),
                    with_authority="with-authority" in arguments,
                )
            case "admit":
                return AdmitNode(
                    ticket_id=ticket_id_of(arguments["certificate"].encode()),
                    address=arguments.get("address", "10.0.0.4:7301"),
                    key_fingerprint=arguments.get("key", "k1"),
                    authorities=authority_keys(arguments),
                )
            case "note-key":
                return NoteMemberKey(
                    node_id=NodeId(arguments["node"]), fingerprint=arguments["key"]
                )
            case "note-segments":
                return NoteSegments(
                    node_id=NodeId(arguments["node"]),
                    through=int(arguments["through"]),
                    missing=numbers({"numbers": arguments.get("missing", "")}),
                )
            case "note-archive":
                through = int(arguments["through"])
                return NoteArchive(
                    node_id=NodeId(arguments["node"]),
                    place=arguments.get("place", "/srv/archive"),
                    through=through,
                    missing=numbers({"numbers": arguments.get("missing", "")}),
                    hash_after=self._segment_hashes(arguments, through)[1],
                    folder=arguments.get("folder", folder_of(arguments["node"])),
                    folder_changes=int(
                        arguments.get("changes", archive_tables.folder_changes(self.db))
                    ),
                )
            case "confirm-archive":
                first = int(arguments["first"])
                last = int(arguments.get("last", arguments["first"]))
                return ConfirmArchive(
                    first=first,
                    last=last,
                    hash_before=self._segment_hashes(arguments, first)[0],
                    hash_after=self._segment_hashes(arguments, last)[1],
                    place=arguments.get("place", "tape 7"),
                )
            case "withdraw-archive":
                first = int(arguments.get("first", "0"))
                return WithdrawArchive(
                    administrator=arguments.get("name", "root"),
                    first=first,
                    last=int(arguments.get("last", first)),
                    reason=arguments.get("reason", "tape 7 cannot be read"),
                )
            case "remove-segments":
                through = int(arguments["through"])
                return RemoveSegments(
                    through=through,
                    hash_after=self._segment_hashes(arguments, through)[1],
                )
            case "declare-lost":
                return DeclareSegmentsLost(
                    first=int(arguments["first"]),
                    last=int(arguments.get("last", arguments["first"])),
                    reason=arguments.get("reason", "its disk was destroyed"),
                    destroyed=tuple(
                        map(NodeId, filter(None, [arguments.get("destroyed")]))
                    ),
                )
            case "note-authority":
                return NoteAuthorityKeys(
                    node_id=NodeId(arguments["node"]), keys=authority_keys(arguments)
                )
            case "retire-authority":
                (key,) = authority_keys(arguments)
                return RetireAuthority(
                    authority=key.authority, fingerprint=key.fingerprint
                )
            case "keep-authorities":
                return KeepAuthorities(
                    node_id=NodeId(arguments["node"]), reason=arguments["reason"]
                )
            case "replace-authorities":
                return ReplaceAuthorities(node_id=NodeId(arguments["node"]))
            case "finish-authorities":
                return FinishAuthorities(
                    node_id=NodeId(arguments["node"]),
                    successors=tuple(
                        f"{key.authority} {key.fingerprint} {arguments.get('of', 'n1')}"
                        for key in authority_keys(arguments)
                    ),
                    nodes=tuple(
                        NodeId(each) for each in arguments.get("nodes", "").split()
                    ),
                )
            case "announce-authority":
                (key,) = authority_keys(arguments)
                return AnnounceAuthority(
                    node_id=NodeId(arguments["node"]),
                    authority=key.authority,
                    replaces=arguments["replaces"],
                    fingerprint=key.fingerprint,
                    certificate=arguments.get("certificate", "new").encode(),
                    proof=b"proof",
                )
            case "add-member":
                return AddMember(
                    node_id=NodeId(arguments["node"]), address=arguments["address"]
                )
            case "renew":
                return RenewCertificate(
                    node_id=NodeId(arguments["node"]),
                    key_fingerprint=arguments.get("key", "k1"),
                )
            case "remove-member":
                return RemoveMember(
                    node_id=NodeId(arguments["node"]),
                    member="member" in arguments,
                    rotate_keys="rotate-keys" in arguments,
                    staying=tuple(
                        NodeId(each)
                        for each in arguments.get("staying", "").split("+")
                        if each
                    ),
                    copies=int(arguments.get("copies", "0")),
                )
            case "barrier":
                return PassBarrier()
            case _:
                raise ValueError(directive)

    def _review(self) -> str:
        """Return the mark of a review made just now."""
        return mark_of(self.db.execute(query) for query in REVIEWED)

    @property
    def active_key(self) -> KeyId:
        """The active key of the state."""
        return key_tables.keys_of(self.db).active

    def channel_version(self, arguments: Arguments) -> int:
        """Return the version that a directive names, or the present one."""
        known = notice_tables.find(self.db, fold(arguments["name"]))
        present = known.version if known else 0
        return int(arguments.get("version", present))

    def _open_session(self, arguments: Arguments) -> OpenSession:
        name = AdministratorName(arguments.get("as", ROOT))
        result = administrator_tables.find_administrator(self.db, name)
        return OpenSession(
            administrator=name,
            candidate=arguments.get("password", "right").encode(),
            administrator_version=int(
                arguments.get("version", result.version if result else 0)
            ),
            key_id=KeyId(int(arguments.get("key", KEY))),
            session_id=SessionId(arguments.get("session", "s1")),
            second_factor="code" in arguments,
            moments=moments_in(arguments),
            device=arguments.get("device", ""),
            passkey=passkey_in(arguments),
        )

    def _create_user(self, arguments: Arguments) -> CreateUser:
        name = arguments["name"]
        return CreateUser(
            user_id=UserId(arguments.get("id", f"u-{fold(name)}")),
            username=name,
            name_key=fold(name),
            name_tag=name_tag(arguments.get("tag-of", name)),
            display_name=arguments.get("display", ""),
            email=arguments.get("email", ""),
            manager_email=arguments.get("manager", ""),
            pin_salt=b"pin salt",
            code_salt=b"code salt",
            key_id=self.machine.keys.active,
            join_groups=names(arguments.get("join")),
        )

    def _enroll(self, arguments: Arguments) -> EnrollToken:
        algorithm = Algorithm(arguments.get("algorithm", "totp"))
        expires = arguments.get("expires")
        # Below level 2 nodes send no fingerprints.
        fingerprinted = self.machine.feature_level >= UNIQUE_SEEDS
        seed = arguments.get("seed", arguments["serial"])
        return EnrollToken(
            serial=TokenSerial(arguments["serial"]),
            algorithm=algorithm,
            hash_name=HashName.SHA1,
            digits=int(arguments.get("digits", "6")),
            period_s=int(arguments.get("period", DEFAULT_PERIODS_S[algorithm])),
            counter=int(arguments.get("counter", "0")),
            sealed_seed=b"sealed seed",
            key_id=KEY,
            pin_rule=PinRule(arguments.get("pin-rule", "prepended")),
            expires_at_ms=None if expires is None else START_MS + span_ms(expires),
            fingerprints=tuple(
                SeedFingerprint(
                    key_id=each.key_id, value=f"{each.key_id}/{seed}".encode()
                )
                for each in self.machine.keys.in_use
                if fingerprinted and "no-fingerprints" not in arguments
            ),
        )

    def _owner(self, serial: str) -> User | None:
        token = token_tables.find_token(self.db, TokenSerial(serial))
        if token is None or token.user_id is None:
            return None
        return user_tables.find_user(self.db, token.user_id)

    def _set_pin(self, arguments: Arguments) -> SetPin:
        serial = arguments["serial"]
        owner = self._owner(serial)
        user = UserId(arguments.get("user", owner.user_id if owner else ""))
        return SetPin(
            serial=TokenSerial(serial),
            user_id=user,
            verifier=pin_verifier(user, serial, arguments["pin"]),
            key_id=KeyId(int(arguments.get("key", KEY))),
            policy_version=int(arguments.get("policy-version", self.policy.version)),
            sealed_pin=self._sealed_pin(serial, arguments["pin"]),
            lettered="lettered" in arguments,
        )

    def _sealed_pin(self, serial: str, pin: str) -> bytes:
        """Return what a PINpad token has besides the verifier."""
        token = token_tables.find_token(self.db, TokenSerial(serial))
        pinpad = token is not None and token.pin_rule is PinRule.PINPAD
        return f"sealed {serial} {pin}".encode() if pinpad else b""

    def _replace(self, arguments: Arguments) -> ReplaceToken:
        old, new = arguments["serial"], arguments["by"]
        owner = self._owner(old)
        token = token_tables.find_token(self.db, TokenSerial(old))
        # Like a node that opens the verifier and seals it again: the PIN is its last word.
        pin = token.pin_verifier.decode().split()[-1] if token and token.pin_set else ""
        user = UserId(arguments.get("user", owner.user_id if owner else ""))
        keep = "keep-pin" in arguments
        return ReplaceToken(
            serial=TokenSerial(old),
            replacement=TokenSerial(new),
            keep_pin=keep,
            user_id=user,
            auth_version=int(
                arguments.get("auth-version", owner.auth_version if owner else 0)
            ),
            key_id=KeyId(int(arguments.get("key", KEY))),
            pin_verifier=pin_verifier(user, new, pin) if keep and pin else b"",
            sealed_pin=self._sealed_pin(new, pin)
            if keep and token and token.sealed_pin
            else b"",
        )

    def _save(self, arguments: Arguments) -> SaveEmergencyAccess:
        serial, set_id = arguments["serial"], arguments.get("set", "A")
        owner = self._owner(serial)
        ordinals = range(1, int(arguments.get("count", "3")) + 1)
        ends, lifetime = arguments.get("ends"), arguments.get("lifetime")
        return SaveEmergencyAccess(
            serial=TokenSerial(serial),
            user_id=UserId(arguments.get("user", owner.user_id if owner else "")),
            auth_version=int(
                arguments.get("auth-version", owner.auth_version if owner else 0)
            ),
            policy_version=int(arguments.get("policy-version", self.policy.version)),
            key_id=KeyId(int(arguments.get("key", KEY))),
            set_id=SetId(set_id),
            code_length=int(arguments.get("length", self.policy.code_length)),
            codes=tuple(
                SealedCode(
                    ordinal=int(arguments.get("ordinal", n)),
                    verifier=code_verifier(
                        set_id, arguments.get("code", f"{set_id}/{n}")
                    ),
                )
                for n in ordinals
            ),
            ends_at_ms=None if ends is None else START_MS + span_ms(ends),
            lifetime_ms=None if lifetime is None else span_ms(lifetime),
            recovery=RecoveryPolicy(arguments.get("recovery", "deny")),
            keep_unused_codes="keep" in arguments,
            weaken_recovery_policy="weaken" in arguments,
            draft_id=arguments.get("draft", ""),
            draft_ends_at_ms=START_MS + span_ms(arguments.get("draft-ends", "15m"))
            if "draft" in arguments
            else 0,
            opener=arguments.get("opener", ""),
            sealed_codes=f"sealed {set_id}".encode() if "opener" in arguments else b"",
            recipient=arguments.get("to") or arguments.get("to_manager", ""),
            to_manager="to_manager" in arguments,
        )

    def _segment_hashes(self, arguments: Arguments, number: int) -> tuple[bytes, bytes]:
        """Return the hashes of a segment; *hash* has others."""
        segment = segment_tables.find(self.db, number)
        if "hash" in arguments:
            return (arguments["hash"].encode(),) * 2
        return (segment.hash_before, segment.hash_after) if segment else (b"", b"")

    def _change_password(self, arguments: Arguments) -> ChangePassword:
        name = AdministratorName(arguments["name"])
        result = administrator_tables.find_administrator(self.db, name)
        return ChangePassword(
            name=name,
            candidate=arguments.get("old", "").encode(),
            administrator_version=int(
                arguments.get("version", result.version if result else 0)
            ),
            key_id=KeyId(int(arguments.get("key", KEY))),
            password_salt=b"salt",
            password_verifier=arguments["new"].encode(),
        )

    def _update_policy(self, arguments: Arguments) -> UpdatePolicy:
        values: dict[str, Any] = dict.fromkeys(UpdatePolicy.__slots__)
        for name, value in arguments.items():
            if name not in values:
                continue
            if name in ("administrators_second_factor", "passkey_domain"):
                values[name] = value
            elif name in (
                "code_alphabet",
                "backup_recipients",
                "further_code_lengths",
                "silent_notices",
                "manager_notices",
            ):
                values[name] = value.replace(",", " ")
            elif name in (
                "lock_until_unlocked",
                "second_approver",
                "pin_letters",
                "pin_blocklist",
                "codes_by_message",
                "codes_to_manager",
                "alarm_ends_codes",
                "authorities_due_after_removal",
                "replace_authorities_after_removal",
            ):
                values[name] = value == "yes"
            else:
                values[name] = span_ms(value) if "_ms" in name else int(value)
        values["version"] = int(arguments.get("version", self.policy.version))
        return self._counted(UpdatePolicy(**values))

    def _retire_key(self, key_id: KeyId) -> RetireKey:
        """Look for values that are sealed with the key, as the primary does."""
        found = self.machine.feature_level >= FOUND_UNUSED and not any(
            self.db.execute(query, {"key": key_id}).fetchone()
            for query in key_tables.USERS_OF_KEY
        )
        return RetireKey(key_id=key_id, unused_at=self.index if found else None)

    def _approve(self, approval_id: int) -> Approve:
        row = self.db.execute(
            "SELECT change FROM approvals WHERE approval_id = ? AND kind = 'change'",
            (approval_id,),
        ).fetchone()
        change = from_json(row[0]) if row else None
        counted = (
            self._counted(change).counted if isinstance(change, UpdatePolicy) else None
        )
        return Approve(approval_id=approval_id, counted=counted)

    def _counted(self, change: UpdatePolicy) -> UpdatePolicy:
        """Count live codes as a node does before it proposes a change."""
        level = self.machine.feature_level
        if (
            level < COUNTED_CODES
            or change.version != self.policy.version
            or not weighs_codes(self.policy, values_of(change), level)
        ):
            return change
        (last,) = self.db.execute(LAST_SET).fetchone()
        groups = count_all(self.db, self.machine.now_ms)
        alphabet = self.policy.code_alphabet
        return replace(change, counted=CountedCodes.of(last, merged(groups, alphabet)))

    @property
    def policy(self) -> Policy:
        """The policy that nodes compute with."""
        return find_policy(self.db) or Policy()

    def _issue_fixed(self, arguments: Arguments) -> IssueFixedTokencode:
        draft = self._save({**arguments, "count": "1"})
        return IssueFixedTokencode(
            serial=draft.serial,
            user_id=draft.user_id,
            auth_version=draft.auth_version,
            policy_version=draft.policy_version,
            key_id=draft.key_id,
            set_id=draft.set_id,
            code_length=draft.code_length,
            verifier=draft.codes[0].verifier,
            ends_at_ms=draft.ends_at_ms,
            lifetime_ms=draft.lifetime_ms,
            recovery=draft.recovery,
            weaken_recovery_policy=draft.weaken_recovery_policy,
        )

    def _issue_in_bulk(self, arguments: Arguments) -> IssueTokencodesInBulk:
        draft = self._save(arguments)
        return IssueTokencodesInBulk(
            serial=draft.serial,
            user_id=draft.user_id,
            auth_version=draft.auth_version,
            policy_version=draft.policy_version,
            key_id=draft.key_id,
            set_id=draft.set_id,
            code_length=draft.code_length,
            verifiers=tuple(code.verifier for code in draft.codes),
            ends_at_ms=draft.ends_at_ms,
            lifetime_ms=draft.lifetime_ms,
            recovery=draft.recovery,
            weaken_recovery_policy=draft.weaken_recovery_policy,
        )

    def _authenticate(self, arguments: Arguments) -> Authenticate:
        tag = name_tag(arguments["user"])
        user = user_tables.find_user_by_tag(self.db, tag)
        lettered = "code" in arguments
        return Authenticate(
            authentication_id=f"a{self.requests + 1}",
            agent=AgentIdentity(arguments.get("agent", "vpn")),
            name_tag=tag,
            user_id=UserId(arguments.get("user-id", user.user_id if user else "")),
            auth_version=int(
                arguments.get("auth-version", user.auth_version if user else 0)
            ),
            policy_version=int(arguments.get("policy-version", self.policy.version)),
            key_id=KeyId(int(arguments.get("key", KEY))),
            lettered=lettered,
            readings=tuple(self._readings(arguments, user)),
            client_address=arguments.get("client", ""),
            resource=arguments.get("resource", ""),
            certificate_fingerprint=arguments.get("fingerprint", ""),
            certificate_serial_number=arguments.get("serial-number", ""),
            radius_secret_id=arguments.get("radius-secret", ""),
            radius_signed="signed" in arguments,
            bearer_id=arguments.get("bearer", ""),
            slot=self._slot(arguments["user"]),
        )

    def _slot(self, name: str) -> int:
        return slot_of(fold(name)) + 1 if move_tables.any_move(self.db) else 0

    def _continue(self, arguments: Arguments) -> ContinueAuthentication:
        """Answer a challenge; *step* and *counter* count from its own tokencode."""
        challenge = self.challenges.get(arguments["challenge"])
        user = user_tables.find_user(self.db, challenge.user_id) if challenge else None
        moments = [
            Moment(challenge.moment + int(arguments[ahead]))
            for ahead in ("step", "counter")
            if challenge and ahead in arguments
        ]
        return ContinueAuthentication(
            authentication_id=f"a{self.requests + 1}",
            agent=AgentIdentity(arguments.get("agent", "vpn")),
            user_id=UserId(arguments.get("user-id", user.user_id if user else "")),
            auth_version=int(
                arguments.get("auth-version", user.auth_version if user else 0)
            ),
            policy_version=int(arguments.get("policy-version", self.policy.version)),
            key_id=KeyId(int(arguments.get("key", KEY))),
            challenge=challenge,
            moments=tuple(moments),
            pin_verifier=pin_verifier(
                challenge.user_id, challenge.serial, arguments["new-pin"]
            )
            if challenge and "new-pin" in arguments
            else b"",
            sealed_pin=self._sealed_pin(challenge.serial, arguments["new-pin"])
            if challenge and "new-pin" in arguments
            else b"",
            certificate_fingerprint=arguments.get("fingerprint", ""),
            certificate_serial_number=arguments.get("serial-number", ""),
            client_address=arguments.get("client", ""),
            resource=arguments.get("resource", ""),
            bearer_id=arguments.get("bearer", ""),
        )

    def _readings(self, arguments: Arguments, user: User | None) -> Iterator[Reading]:
        """Read a passcode as a node and the primary would, for every token and set."""
        tokens = token_tables.find_tokens_of(self.db, user.user_id) if user else []
        pin = arguments.get("pin")
        pins = tuple(
            PinCandidate(
                serial=token.serial,
                verifier=pin_verifier(token.user_id or "", token.serial, pin),
                key_id=KeyId(int(arguments.get("candidate-key", 0))),
            )
            for token in tokens
            if pin is not None
        )
        lengths = [(self.policy.code_length, True)] if "code" in arguments else []
        if "code" not in arguments or "either" in arguments:
            lengths += [(6, False), (8, False)]
        if "either" in arguments and "code" not in arguments:
            lengths.append((self.policy.code_length, True))
        for length, emergency in lengths:
            yield Reading(
                length=length,
                emergency=emergency,
                bare=pin is None,
                pins=pins,
                codes=tuple(
                    CodeCandidate(
                        set_id=each.set_id,
                        verifier=code_verifier(each.set_id, arguments["code"]),
                        key_id=KeyId(int(arguments.get("candidate-key", 0))),
                    )
                    for each in self._sets(arguments, user)
                    if emergency
                ),
                code_tags=(code_tag(user.user_id, arguments["code"]),)
                if emergency and user and "code" in arguments and self._tags_codes()
                else (),
                tokencodes=tuple(
                    TokencodeMatch(
                        serial=token.serial,
                        moment=moment,
                        wide="wide" in arguments,
                        folded="folded" in arguments,
                    )
                    for token in tokens
                    if token.parameters.digits == length
                    and token.serial == arguments.get("serial", token.serial)
                    for moment in self._moments(arguments, token)
                ),
            )

    def _sets(
        self, arguments: Arguments, user: User | None
    ) -> Iterator[EmergencyCodeSet | FormerSet]:
        """Return the sets that a node computes the typed code's verifier for."""
        if user is None or "code" not in arguments:
            return
        for token in token_tables.find_tokens_of(self.db, user.user_id):
            yield from code_tables.find_sets(self.db, token.serial)
        yield from former_tables.find_former_sets(
            self.db, user.user_id, tagged=self._tags_codes()
        )

    def _tags_codes(self) -> bool:
        return self.machine.feature_level >= FORMER_CODES

    def _moments(self, arguments: Arguments, token: Any) -> Iterator[Moment]:
        """Return the moments for which the script declares the digits right."""
        if "step" in arguments and token.parameters.by_time:
            yield Moment(
                step_at(self.now_ms, token.parameters) + int(arguments["step"])
            )
        if "counter" in arguments and token.parameters.algorithm is Algorithm.HOTP:
            yield Moment(int(arguments["counter"]))

    # --- Scripts

    def play(self, *steps: tuple[str, Arguments]) -> None:
        """Run directives in order and ignore their output."""
        for directive, arguments in steps:
            self.handle(directive, arguments)

    def handle(self, directive: str, arguments: Arguments) -> str:
        """Run one directive of a script; return its output."""
        match directive:
            case "begin":
                self.begin()
                return "ok"
            case "wait":
                self.now_ms += sum(span_ms(span) for span in arguments)
                return span_text(self.now_ms)
            case "plant-administrator":
                self._plant(arguments)
                return "ok"
            case "show":
                return "\n".join(self._show(arguments)) or "nothing"
            case "skip-entry":
                before = self._last_event()
                (skipped,) = self.skip(self.call("create-user", arguments))
                return "\n".join([result_line(skipped), *self._events_after(before)])
            case "digest":
                return self.machine.digest()[:16]
            case _:
                before = self._last_event()
                result = self.apply(self.call(directive, arguments))
                if isinstance(result, Authenticated) and result.challenge:
                    self.challenges[arguments.get("name", "")] = result.challenge
                return "\n".join([result_line(result), *self._events_after(before)])

    def _plant(self, arguments: Arguments) -> None:
        """Add an administrator, for whom there is no command yet."""
        administrator_tables.save_administrator(
            self.db,
            Administrator(
                name=AdministratorName(arguments["name"]),
                role=Role(arguments.get("role", "super_admin")),
                password_salt=b"salt",
                password_verifier=b"right",
                key_id=KEY,
                enabled=arguments.get("enabled", "yes") == "yes",
            ),
        )

    def _last_event(self) -> int:
        (last,) = self.db.execute("SELECT max(sequence) FROM audit_events").fetchone()
        return last or 0

    def _events_after(self, sequence: int) -> Iterator[str]:
        for action, target, outcome, reason, detail in self.db.execute(
            "SELECT action, target, outcome, reason, detail FROM audit_events "
            "WHERE sequence > ? ORDER BY sequence",
            (sequence,),
        ):
            words = [word for word in (action, target, outcome, reason) if word]
            yield f"  {' '.join(words)}" + (f" ({detail})" if detail else "")

    def _show(self, arguments: Arguments) -> Iterator[str]:
        if "user" in arguments:
            yield from self._show_user(arguments["user"])
        if "token" in arguments:
            token = token_tables.find_token(self.db, TokenSerial(arguments["token"]))
            if token is not None:
                yield (
                    f"user={token.user_id} pin={'set' if token.pin_set else 'none'} "
                    f"spent={token.spent} drift={token.drift} lost={token.lost} "
                    f"recovery={token.recovery}"
                    + ("" if token.enabled else " disabled")
                    + (" out_of_step" if token.out_of_step else "")
                    + (
                        f" maybe_spent={token.maybe_spent}"
                        if token.maybe_spent > NOTHING_SPENT
                        else ""
                    )
                    + (
                        ""
                        if token.expires_at_ms is None
                        else f" until={span_text(token.expires_at_ms)}"
                    )
                )
        if "sets" in arguments:
            yield from self._show_sets(arguments["sets"])
        if "keys" in arguments:
            yield from self._show_keys()
        yield from self._show_member_keys("member-keys" in arguments)
        if "sessions" in arguments:
            for row in self.db.execute(
                "SELECT session_id, used_at_ms FROM sessions ORDER BY session_id"
            ):
                yield f"{row[0]} used at {span_text(row[1])}"
        yield from self._show_notices(arguments)
        yield from self._show_alarms("alarms" in arguments)
        if "table" in arguments:
            (count,) = self.db.execute(
                f"SELECT count(*) FROM {arguments['table']}"  # noqa: S608
            ).fetchone()
            yield f"{count} rows"

    def _show_alarms(self, wanted: bool) -> Iterator[str]:
        if wanted:
            for name, kind, raised in self.db.execute(
                "SELECT username, kind, raised_at_ms FROM alarms "
                "JOIN users USING (user_id) ORDER BY notice_id"
            ):
                yield f"{name} about {kind} at {span_text(raised)}"

    def _show_notices(self, arguments: Arguments) -> Iterator[str]:
        if "channels" in arguments:
            for row in self.db.execute(
                "SELECT channel, version, kept FROM channels ORDER BY channel"
            ):
                yield "{} version={} kept={}".format(*row)
        if "former" in arguments:
            for email, ends_at_ms, of_manager in self.db.execute(
                "SELECT email, ends_at_ms, of_manager FROM former_addresses ORDER BY 2, 1"
            ):
                whose = " of the manager" if of_manager else ""
                yield f"{email}{whose} until {span_text(ends_at_ms)}"
        if "told" in arguments:
            # Since the last look at them.
            rows = self.db.execute(
                "SELECT number, kind, recipient, person, "
                "CASE to_manager WHEN 1 THEN ' (manager)' ELSE '' END, "
                "CASE WHEN notices.target != event.target THEN ' names ' || "
                "notices.target ELSE '' END FROM notices "
                "JOIN audit_events AS event USING (sequence) "
                "WHERE number > ? ORDER BY number",
                (self.told,),
            ).fetchall()
            for number, *words in rows:
                self.told = number
                yield "{} to {} about {}{}{}".format(*words)
        if "notices" in arguments:
            for row in self.db.execute(
                "SELECT number, channel, substr(notice_id, -4), class, action, target, "
                "dead, cause, kind, recipient, person, is_last "
                "FROM notices ORDER BY number"
            ):
                *words, dead, cause, kind, recipient, person, is_last = row
                if kind:
                    words = [row[0], kind, "to", recipient, "about", person]
                    words += ["(last)"] * is_last
                state = f" dead ({cause})" if dead else ""
                yield " ".join(map(str, words)) + state

    def _show_member_keys(self, wanted: bool) -> Iterator[str]:
        for node_id, key in sorted(self.machine.member_keys.items()) if wanted else ():
            former = f" or {key.former}" if key.former else ""
            yield f"{node_id} {key.fingerprint}{former}"

    def _show_keys(self) -> Iterator[str]:
        keys = key_tables.keys_of(self.db)
        yield f"active={keys.active}"
        for key in keys.aging:
            yield f"  {key.key_id} goes at {span_text(key.retire_at_ms)}"
        for gone in keys.retired:
            yield f"  {gone.key_id} retired{', kept' if gone.keep else ''}"

    def _show_user(self, name: str) -> Iterator[str]:
        user = user_tables.find_user_by_name(self.db, fold(name))
        if user is None:
            return
        yield (
            f"username={user.username} display={user.display_name} email={user.email} "
            f"enabled={user.enabled} auth_version={user.auth_version}"
        )
        for factor, lockout in user_tables.find_lockouts(self.db, user.user_id).items():
            until = "off" if lockout.off else span_text(lockout.blocked_until_ms)
            yield (
                f"{factor}: failures={lockout.failures} rung={lockout.rung} "
                f"until={until}"
            )

    def _show_sets(self, serial: str) -> Iterator[str]:
        for each in code_tables.find_sets(self.db, TokenSerial(serial)):
            codes = " ".join(code.state for code in each.codes)
            yield (
                f"{'fixed ' if each.fixed else ''}{each.set_id}: by {each.issuer} on {each.node_id} at "
                f"{span_text(each.issued_at_ms)} until {span_text(each.ends_at_ms)}: {codes}"
            )
            for code in each.codes:
                if code.use is not None:
                    yield (
                        f"  {code.ordinal} used at {span_text(code.use.at_ms)} by "
                        f"{code.use.agent} through {code.use.node_id} at index "
                        f"{code.use.index}"
                    )


def passkey_in(arguments: Arguments) -> PasskeyAnswer | None:
    """Read a checked answer; `passkey=` without a name: the node did not accept it."""
    if "passkey" not in arguments:
        return None
    return PasskeyAnswer(
        credential_id=arguments["passkey"].encode(),
        sign_count=int(arguments.get("count", "0")),
        challenge_id=arguments.get("challenge", "c1"),
        challenge_ends_at_ms=START_MS + span_ms(arguments.get("ends", "2m")),
    )


def moments_in(arguments: Arguments) -> tuple[Moment, ...]:
    """Read the steps that a code is of; none: it is wrong."""
    return tuple(
        map(Moment, map(int, filter(None, arguments.get("code", "").split(","))))
    )


def seals_in(text: str) -> tuple[bytes, ...]:
    """Read seals: words with commas between, or nothing."""
    return tuple(word.encode() for word in text.split(",")) if text else ()


def result_line(result: Result) -> str:
    """Return a result as one line."""
    match result:
        case Applied():
            return "applied"
        case Rejected(reason=reason, detail=detail, field=field):
            return (
                f"rejected {reason}"
                + (f" [{field}]" if field else "")
                + (f": {detail}" if detail else "")
            )
        case Authenticated():
            return result.decision.value
        case EmergencyAccessSaved():
            return (
                f"saved {result.set_id}: codes={result.codes} live={result.live_codes} "
                f"voided={result.voided_codes} ends={span_text(result.ends_at_ms)}"
                + (" warning=pin_missing" if result.pin_missing_warning else "")
            )
        case JoinTicketCreated():
            return f"ticket until {span_text(result.ends_at_ms)}"
        case SessionOpened():
            return (
                f"opened for {result.administrator} as {result.role} until "
                f"{span_text(result.ends_at_ms)}"
            )
        case ApprovalPending():
            return f"approval {result.approval_id} until {span_text(result.ends_at_ms)}"
        case BarrierPassed():
            return f"passed at {span_text(result.at_ms)}"
