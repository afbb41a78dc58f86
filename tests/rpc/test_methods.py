# SPDX-License-Identifier: Apache-2.0
"""Every method of the contract: what a use case is asked, and what the caller reads."""

import dataclasses
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from sparecode.v1 import (
    administrators_pb2,
    administrators_pb2_grpc,
    agents_pb2,
    agents_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    authentication_pb2,
    authentication_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    emergency_access_pb2,
    emergency_access_pb2_grpc,
    policy_pb2,
    policy_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
    tokens_pb2,
    tokens_pb2_grpc,
    types_pb2,
    users_pb2,
    users_pb2_grpc,
)
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.agents import Certificate, CertificateMark, Protects
from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.queries.administrators import AdministratorView
from sparecode_node.queries.audit import AuditFilter, AuditRecord
from sparecode_node.queries.cluster import LastBackup
from sparecode_node.queries.review import (
    Review,
    ReviewedAdministrator,
    ReviewedAgent,
    ReviewedCertificate,
)
from sparecode_node.queries.views import (
    AgentView,
    CodeSetView,
    CodeState,
    CodeView,
    DeniedCertificateView,
    EmergencyAccessView,
    Page,
    TokenView,
    UserView,
)
from sparecode_node.rpc.policy import policy_values
from sparecode_node.rpc.tickets import to_text
from sparecode_node.services.cluster.audit import ChainVerdict
from sparecode_node.services.cluster.checkpoints import Checkpoint
from sparecode_node.services.cluster.status import (
    ClusterStatus,
    ListedMember,
    MemberView,
    Standing,
)
from sparecode_node.services.context import (
    AgentCaller,
    Anonymous,
    Read,
    SessionCaller,
)
from sparecode_node.services.deciding import Answer
from sparecode_node.services.emergency.emergency_access import (
    Generated,
    Issued,
    Lifetime,
    ShownCode,
)
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.people.administrators import Link
from sparecode_node.services.people.sessions import SessionView, SignedIn
from sparecode_node.services.secrets.tickets import JoinTicket
from sparecode_node.statemachine.results import (
    Applied,
    Decision,
    EmergencyAccessSaved,
    SessionOpened,
)
from tests.rpc.edge import AGENT, BEARER, failure, running_edge

ID = "6f1c1c9e-2d1f-4b8e-9f55-0d3a3f6e7a10"
APPLIED = Applied(index=7)
COMMIT = types_pb2.Commit(node_id="n1", index=7)
POSITION = types_pb2.ReadPosition(node_id="n1", applied_index=9, stale=True)
END = Timestamp(seconds=1_800_000_000, nanos=250_000_000)
END_MS = 1_800_000_000_250

FILES = (
    administrators_pb2,
    agents_pb2,
    audit_pb2,
    authentication_pb2,
    cluster_pb2,
    emergency_access_pb2,
    policy_pb2,
    sessions_pb2,
    tokens_pb2,
    users_pb2,
)


def read(value: Any) -> Read[Any]:
    return Read(value=value, node_id="n1", applied_index=9, stale=True)


USER_VIEW = UserView(
    username="alice",
    display_name="Alice",
    email="a@example.net",
    enabled=True,
    token_serials=("1", "2"),
    token_failures=3,
    emergency_failures=4,
    locked=True,
)
USER = users_pb2.User(
    username="alice",
    display_name="Alice",
    email="a@example.net",
    enabled=True,
    token_serials=["1", "2"],
    token_failures=3,
    emergency_failures=4,
    locked=True,
)
TOKEN_VIEW = TokenView(
    serial="1",
    algorithm=Algorithm.HOTP,
    hash_name=HashName.SHA256,
    digits=8,
    period_s=0,
    pin_rule=PinRule.NONE,
    pin_set=True,
    username="alice",
    enabled=True,
    expires_at_ms=END_MS,
    lost=True,
    live_codes=5,
)
TOKEN = tokens_pb2.Token(
    serial="1",
    algorithm=types_pb2.TOKEN_ALGORITHM_HOTP,
    hash=types_pb2.TOKEN_HASH_SHA256,
    digits=8,
    pin_rule=types_pb2.PIN_RULE_NONE,
    pin_set=True,
    username="alice",
    enabled=True,
    expire_time=END,
    lost=True,
    live_codes=5,
)
SAVED_RESULT = EmergencyAccessSaved(
    index=7,
    at_ms=END_MS,
    set_id="s",
    codes=2,
    live_codes=3,
    voided_codes=4,
    ends_at_ms=None,
    pin_missing_warning=False,
)
SAVED = emergency_access_pb2.SavedTokencodes(
    set_id="s",
    codes=2,
    live_codes=3,
    voided_codes=4,
    commit_time=END,
    commit=COMMIT,
)
SHOWN = (ShownCode(ordinal=1, code="K7PM-4XQ2"), ShownCode(ordinal=2, code="AAAA-2222"))
CODES = [
    emergency_access_pb2.Tokencode(ordinal=1, code="K7PM-4XQ2"),
    emergency_access_pb2.Tokencode(ordinal=2, code="AAAA-2222"),
]
ACCESS_VIEW = EmergencyAccessView(
    serial="1",
    username="alice",
    enabled=True,
    lost=True,
    recovery=RecoveryPolicy.ALLOW_AND_DISABLE,
    live_codes=1,
    ends_at_ms=END_MS,
    fixed=False,
    sets=(
        CodeSetView(
            set_id="s",
            issuer="admin",
            node_id="n2",
            index=5,
            issued_at_ms=END_MS,
            ends_at_ms=None,
            codes=(
                CodeView(
                    ordinal=1,
                    state=CodeState.USED,
                    used_at_ms=END_MS,
                    agent="vpn",
                    node_id="n3",
                    index=6,
                ),
                CodeView(
                    ordinal=2,
                    state=CodeState.LIVE,
                    used_at_ms=None,
                    agent="",
                    node_id="",
                    index=0,
                ),
            ),
            expired=True,
            fixed=True,
        ),
    ),
)
ACCESS = emergency_access_pb2.EmergencyAccess(
    serial="1",
    username="alice",
    enabled=True,
    lost=True,
    recovery_policy=types_pb2.RECOVERY_POLICY_ALLOW_AND_DISABLE,
    live_codes=1,
    end_time=END,
    sets=[
        emergency_access_pb2.TokencodeSet(
            set_id="s",
            issuer="admin",
            node_id="n2",
            index=5,
            issue_time=END,
            codes=[
                emergency_access_pb2.TokencodeRecord(
                    ordinal=1,
                    state=emergency_access_pb2.TOKENCODE_STATE_USED,
                    use_time=END,
                    agent="vpn",
                    node_id="n3",
                    index=6,
                ),
                emergency_access_pb2.TokencodeRecord(
                    ordinal=2, state=emergency_access_pb2.TOKENCODE_STATE_LIVE
                ),
            ],
            expired=True,
            fixed=True,
        )
    ],
)


AUDIT_RECORD = AuditRecord(
    event=AuditEvent(
        sequence=5,
        at_ms=END_MS,
        actor="administrator:root",
        node="n2",
        action="SetPin",
        target="1",
        outcome="refused",
        reason="role",
        detail="no",
    ),
    previous_hash=b"p" * 32,
    hash=b"h" * 32,
)
AUDIT_EVENT = audit_pb2.AuditEvent(
    sequence=5,
    event_time=END,
    actor="administrator:root",
    node_id="n2",
    action="SetPin",
    target="1",
    outcome="refused",
    reason="role",
    detail="no",
    previous_hash=b"p" * 32,
    hash=b"h" * 32,
)


POLICY = policy_pb2.Policy(
    version=1,
    code_length=8,
    further_code_lengths="",
    code_alphabet="23456789ABCDEFGHJKMNPQRSTUVWXYZ",
    codes_per_set_default=10,
    codes_per_set_max=50,
    lifetime_max=Duration(),
    draft_lifetime=Duration(seconds=900),
    set_low_threshold=2,
    pin_length_min=4,
    pin_length_max=8,
    pin_letters=False,
    totp_window_steps=1,
    hotp_look_ahead=10,
    tokens_per_user_max=3,
    lock_from_failures=5,
    lock=Duration(seconds=900),
    lock_max=Duration(seconds=86_400),
    lock_until_unlocked=False,
    factor_off_at_failures=100,
    session_lifetime=Duration(seconds=43_200),
    session_unused=Duration(seconds=604_800),
    session_idle=Duration(seconds=1_800),
    request_retention=Duration(seconds=600),
    requests_max=200_000,
    resynchronize_window_steps=60,
    resynchronize_look_ahead=100,
    next_tokencode_from_failures=3,
    second_approver=True,
    backup_recipients="",
)


TICKET = JoinTicket(
    secret=b"s" * 16,
    node_id="n4",
    cluster_id="c",
    authorities=(b"ca",),
    members=(("n1", "h:1"),),
    ends_at_ms=END_MS,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A call, what the use case is asked and says, and what the caller reads."""

    method: str
    request: Message
    use_case: str
    arguments: dict[str, Any]
    answer: Any
    response: Message
    asked_of: str = ""
    """If not the use case that is named like the service."""

    @property
    def service(self) -> str:
        """The service of the contract."""
        return self.method.partition("/")[0]


STUBS = {
    "AdministratorService": (
        administrators_pb2_grpc.AdministratorServiceStub,
        "administrators",
    ),
    "AgentService": (agents_pb2_grpc.AgentServiceStub, "agents"),
    "AuditService": (audit_pb2_grpc.AuditServiceStub, "audit"),
    "PolicyService": (policy_pb2_grpc.PolicyServiceStub, "policies"),
    "AuthenticationService": (
        authentication_pb2_grpc.AuthenticationServiceStub,
        "authentication",
    ),
    "ClusterService": (cluster_pb2_grpc.ClusterServiceStub, "cluster"),
    "EmergencyAccessService": (
        emergency_access_pb2_grpc.EmergencyAccessServiceStub,
        "emergency",
    ),
    "SessionService": (sessions_pb2_grpc.SessionServiceStub, "sessions"),
    "TokenService": (tokens_pb2_grpc.TokenServiceStub, "tokens"),
    "UserService": (users_pb2_grpc.UserServiceStub, "users"),
}

PAGE = {"page_size": 2, "page_token": "p", "stale_ok": True}
SETTING = {
    "lifetime": Lifetime(duration_ms=90_500),
    "recovery": RecoveryPolicy.ALLOW_AFTER_EXPIRY,
    "keep_unused_codes": True,
    "weaken_recovery_policy": True,
}
SETTING_PB = {
    "lifetime": emergency_access_pb2.Lifetime(
        duration=Duration(seconds=90, nanos=500_000_000)
    ),
    "recovery_policy": types_pb2.RECOVERY_POLICY_ALLOW_AFTER_EXPIRY,
    "keep_unused_codes": True,
    "weaken_recovery_policy": True,
}

CASES = [
    Case(
        "AuthenticationService/Authenticate",
        authentication_pb2.AuthenticateRequest(
            request_id=ID,
            username="alice",
            passcode="1234K7PM4XQ2",
            client_address="192.0.2.1",
            resource="vpn",
        ),
        "authenticate",
        {
            "username": "alice",
            "passcode": "1234K7PM4XQ2",
            "client_address": "192.0.2.1",
            "resource": "vpn",
        },
        Answer(
            decision=Decision.NEW_PIN_REQUIRED, authentication_id="a", challenge=b"c"
        ),
        authentication_pb2.AuthenticateResponse(
            decision=authentication_pb2.AUTHENTICATION_DECISION_NEW_PIN_REQUIRED,
            authentication_id="a",
            challenge=b"c",
        ),
    ),
    Case(
        "AuthenticationService/ContinueAuthentication",
        authentication_pb2.ContinueAuthenticationRequest(
            request_id=ID, challenge=b"c", next_tokencode="123456", new_pin="4711"
        ),
        "continue_authentication",
        {"challenge": b"c", "next_tokencode": "123456", "new_pin": "4711"},
        Answer(decision=Decision.REFUSED, authentication_id="b"),
        authentication_pb2.ContinueAuthenticationResponse(
            decision=authentication_pb2.AUTHENTICATION_DECISION_REFUSED,
            authentication_id="b",
        ),
    ),
    Case(
        "SessionService/Login",
        sessions_pb2.LoginRequest(request_id=ID, administrator="root", password="pw"),
        "login",
        {"administrator": "root", "password": "pw", "second_factor": ""},
        SignedIn(
            bearer="b",
            opened=SessionOpened(
                index=7, administrator="root", role="SUPER_ADMIN", ends_at_ms=END_MS
            ),
        ),
        sessions_pb2.LoginResponse(session="b", end_time=END, role="SUPER_ADMIN"),
    ),
    Case(
        "SessionService/Logout",
        sessions_pb2.LogoutRequest(request_id=ID),
        "logout",
        {},
        APPLIED,
        sessions_pb2.LogoutResponse(),
    ),
    Case(
        "SessionService/LogoutEverywhere",
        sessions_pb2.LogoutEverywhereRequest(request_id=ID),
        "logout_everywhere",
        {},
        APPLIED,
        sessions_pb2.LogoutEverywhereResponse(),
    ),
    Case(
        "SessionService/WhoAmI",
        sessions_pb2.WhoAmIRequest(),
        "who_am_i",
        {},
        SessionView(
            administrator="root", role="SUPER_ADMIN", ends_at_ms=END_MS, idle_ms=1
        ),
        sessions_pb2.WhoAmIResponse(
            administrator="root", role="SUPER_ADMIN", end_time=END
        ),
    ),
    Case(
        "UserService/CreateUser",
        users_pb2.CreateUserRequest(
            request_id=ID,
            username="alice",
            display_name="Alice",
            email="a@b",
            join_groups=["staff"],
        ),
        "create",
        {
            "username": "alice",
            "display_name": "Alice",
            "email": "a@b",
            "join_groups": ("staff",),
        },
        APPLIED,
        users_pb2.CreateUserResponse(commit=COMMIT),
    ),
    Case(
        "UserService/GetUser",
        users_pb2.GetUserRequest(username="alice", stale_ok=True),
        "get",
        {"": "alice", "stale_ok": True},
        read(USER_VIEW),
        users_pb2.GetUserResponse(user=USER, position=POSITION),
    ),
    Case(
        "UserService/ListUsers",
        users_pb2.ListUsersRequest(
            username_prefix="al", search="ash", locked=False, **PAGE
        ),
        "list",
        {
            "username_prefix": "al",
            "search": "ash",
            "enabled": None,
            "locked": False,
            **PAGE,
        },
        read(Page(items=(USER_VIEW,), next_page_token="n")),
        users_pb2.ListUsersResponse(
            users=[USER], next_page_token="n", position=POSITION
        ),
    ),
    Case(
        "UserService/UpdateUser",
        users_pb2.UpdateUserRequest(
            request_id=ID, username="alice", enabled=False, join_groups=["staff"]
        ),
        "update",
        {
            "username": "alice",
            "display_name": None,
            "email": None,
            "enabled": False,
            "join_groups": ("staff",),
            "leave_groups": (),
        },
        APPLIED,
        users_pb2.UpdateUserResponse(commit=COMMIT),
    ),
    Case(
        "UserService/DeleteUser",
        users_pb2.DeleteUserRequest(request_id=ID, username="alice"),
        "delete",
        {"username": "alice"},
        APPLIED,
        users_pb2.DeleteUserResponse(commit=COMMIT),
    ),
    Case(
        "UserService/UnlockUser",
        users_pb2.UnlockUserRequest(request_id=ID, username="alice"),
        "unlock",
        {"username": "alice"},
        APPLIED,
        users_pb2.UnlockUserResponse(commit=COMMIT),
    ),
    Case(
        "TokenService/EnrollToken",
        tokens_pb2.EnrollTokenRequest(
            request_id=ID,
            serial="1",
            algorithm=types_pb2.TOKEN_ALGORITHM_TOTP,
            digits=6,
            period_seconds=30,
            seed=b"0123456789abcdef",
            pin_rule=types_pb2.PIN_RULE_PREPENDED,
            expire_time=END,
        ),
        "enroll",
        {
            "serial": "1",
            "algorithm": Algorithm.TOTP,
            "hash_name": HashName.SHA1,
            "digits": 6,
            "period_s": 30,
            "counter": 0,
            "seed": b"0123456789abcdef",
            "pin_rule": PinRule.PREPENDED,
            "expires_at_ms": END_MS,
        },
        APPLIED,
        tokens_pb2.EnrollTokenResponse(commit=COMMIT),
    ),
    Case(
        "TokenService/GetToken",
        tokens_pb2.GetTokenRequest(serial="1"),
        "get",
        {"": "1", "stale_ok": False},
        read(TOKEN_VIEW),
        tokens_pb2.GetTokenResponse(token=TOKEN, position=POSITION),
    ),
    Case(
        "TokenService/ListTokens",
        tokens_pb2.ListTokensRequest(
            serial_prefix="0",
            username="alice",
            search="ash",
            algorithm=types_pb2.TOKEN_ALGORITHM_HOTP,
            enabled=False,
            **PAGE,
        ),
        "list",
        {
            "serial_prefix": "0",
            "username": "alice",
            "search": "ash",
            "algorithm": Algorithm.HOTP,
            "enabled": False,
            "in_emergency_access": None,
            **PAGE,
        },
        read(Page(items=(TOKEN_VIEW,), next_page_token="n")),
        tokens_pb2.ListTokensResponse(
            tokens=[TOKEN], next_page_token="n", position=POSITION
        ),
    ),
    Case(
        "TokenService/AssignToken",
        tokens_pb2.AssignTokenRequest(request_id=ID, serial="1", username="alice"),
        "assign",
        {"serial": "1", "username": "alice"},
        APPLIED,
        tokens_pb2.AssignTokenResponse(commit=COMMIT),
    ),
    *(
        Case(
            f"TokenService/{name}",
            getattr(tokens_pb2, f"{name}Request")(request_id=ID, serial="1"),
            use_case,
            {"serial": "1"},
            APPLIED,
            getattr(tokens_pb2, f"{name}Response")(commit=COMMIT),
        )
        for name, use_case in (
            ("UnassignToken", "unassign"),
            ("EnableToken", "enable"),
            ("DisableToken", "disable"),
            ("DeleteToken", "delete"),
            ("ClearPin", "clear_pin"),
        )
    ),
    Case(
        "TokenService/ReplaceToken",
        tokens_pb2.ReplaceTokenRequest(
            request_id=ID, serial="1", replacement_serial="2", keep_pin=True
        ),
        "replace",
        {"serial": "1", "replacement_serial": "2", "keep_pin": True},
        APPLIED,
        tokens_pb2.ReplaceTokenResponse(commit=COMMIT),
    ),
    Case(
        "TokenService/ResynchronizeToken",
        tokens_pb2.ResynchronizeTokenRequest(
            request_id=ID,
            serial="1",
            first_tokencode="123456",
            second_tokencode="654321",
        ),
        "resynchronize",
        {
            "serial": "1",
            "first_tokencode": "123456",
            "second_tokencode": "654321",
        },
        APPLIED,
        tokens_pb2.ResynchronizeTokenResponse(commit=COMMIT),
    ),
    Case(
        "TokenService/UpdateToken",
        tokens_pb2.UpdateTokenRequest(request_id=ID, serial="1", expire_time=END),
        "update",
        {"serial": "1", "expires_at_ms": END_MS, "never_expires": False},
        APPLIED,
        tokens_pb2.UpdateTokenResponse(commit=COMMIT),
    ),
    Case(
        "TokenService/SetPin",
        tokens_pb2.SetPinRequest(request_id=ID, serial="1", pin="2468"),
        "set_pin",
        {"serial": "1", "pin": "2468"},
        APPLIED,
        tokens_pb2.SetPinResponse(commit=COMMIT),
    ),
    Case(
        "TokenService/ReinstateToken",
        tokens_pb2.ReinstateTokenRequest(request_id=ID, serial="1"),
        "reinstate",
        {"serial": "1"},
        APPLIED,
        tokens_pb2.ReinstateTokenResponse(commit=COMMIT),
    ),
    Case(
        "EmergencyAccessService/GenerateTokencodes",
        emergency_access_pb2.GenerateTokencodesRequest(serial="1", count=2),
        "generate",
        {"serial": "1", "count": 2},
        Generated(codes=SHOWN, draft=b"d", draft_ends_at_ms=END_MS),
        emergency_access_pb2.GenerateTokencodesResponse(
            codes=CODES, draft=b"d", draft_end_time=END
        ),
    ),
    Case(
        "EmergencyAccessService/SaveEmergencyAccess",
        emergency_access_pb2.SaveEmergencyAccessRequest(
            request_id=ID, serial="1", draft=b"d", **SETTING_PB
        ),
        "save",
        {"serial": "1", "draft": b"d", **SETTING},
        SAVED_RESULT,
        emergency_access_pb2.SaveEmergencyAccessResponse(saved=SAVED),
    ),
    Case(
        "EmergencyAccessService/IssueTokencodes",
        emergency_access_pb2.IssueTokencodesRequest(
            request_id=ID, serial="1", count=2, **SETTING_PB
        ),
        "issue",
        {"serial": "1", "count": 2, **SETTING},
        Issued(saved=SAVED_RESULT, codes=SHOWN, withheld=False),
        emergency_access_pb2.IssueTokencodesResponse(saved=SAVED, codes=CODES),
    ),
    Case(
        "EmergencyAccessService/IssueFixedTokencode",
        emergency_access_pb2.IssueFixedTokencodeRequest(
            request_id=ID,
            serial="1",
            lifetime=SETTING_PB["lifetime"],
            recovery_policy=types_pb2.RECOVERY_POLICY_ALLOW_AFTER_EXPIRY,
            weaken_recovery_policy=True,
        ),
        "issue_fixed",
        {
            "serial": "1",
            "lifetime": SETTING["lifetime"],
            "recovery": RecoveryPolicy.ALLOW_AFTER_EXPIRY,
            "weaken_recovery_policy": True,
        },
        Issued(saved=SAVED_RESULT, codes=SHOWN[:1], withheld=False),
        emergency_access_pb2.IssueFixedTokencodeResponse(saved=SAVED, code="K7PM-4XQ2"),
    ),
    Case(
        "EmergencyAccessService/GetEmergencyAccess",
        emergency_access_pb2.GetEmergencyAccessRequest(serial="1", stale_ok=True),
        "get",
        {"": "1", "stale_ok": True},
        read(ACCESS_VIEW),
        emergency_access_pb2.GetEmergencyAccessResponse(
            emergency_access=ACCESS, position=POSITION
        ),
    ),
    Case(
        "EmergencyAccessService/ListEmergencyAccess",
        emergency_access_pb2.ListEmergencyAccessRequest(
            live_codes_max=2, end_before=END, **PAGE
        ),
        "list",
        {"live_codes_max": 2, "end_before_ms": END_MS, **PAGE},
        read(Page(items=(ACCESS_VIEW,), next_page_token="n")),
        emergency_access_pb2.ListEmergencyAccessResponse(
            emergency_access=[ACCESS], next_page_token="n", position=POSITION
        ),
    ),
    Case(
        "EmergencyAccessService/DisableEmergencyAccess",
        emergency_access_pb2.DisableEmergencyAccessRequest(
            request_id=ID, serial="1", reinstate_token=True
        ),
        "disable",
        {"serial": "1", "reinstate_token": True},
        APPLIED,
        emergency_access_pb2.DisableEmergencyAccessResponse(commit=COMMIT),
    ),
    Case(
        "AgentService/RegisterAgent",
        agents_pb2.RegisterAgentRequest(
            request_id=ID,
            name="vpn",
            certificate_identity="sparecode://agent/vpn",
            protects=types_pb2.AGENT_PROTECTS_CLOUD,
            restricted=True,
        ),
        "register",
        {
            "name": "vpn",
            "identity": "sparecode://agent/vpn",
            "protects": Protects.CLOUD,
            "restricted": True,
        },
        APPLIED,
        agents_pb2.RegisterAgentResponse(commit=COMMIT),
    ),
    Case(
        "AgentService/GetAgent",
        agents_pb2.GetAgentRequest(name="vpn", stale_ok=True),
        "get",
        {"": "vpn", "stale_ok": True},
        read(
            AgentView(
                name="vpn",
                identity="i",
                protects=Protects.CLOUD,
                enabled=False,
                restricted=True,
                allowed_user_count=1,
                allowed_usernames=("Alice",),
            )
        ),
        agents_pb2.GetAgentResponse(
            agent=agents_pb2.Agent(
                name="vpn",
                certificate_identity="i",
                protects=types_pb2.AGENT_PROTECTS_CLOUD,
                restricted=True,
                allowed_user_count=1,
                allowed_usernames=["Alice"],
            ),
            position=POSITION,
        ),
    ),
    Case(
        "AgentService/UpdateAgent",
        agents_pb2.UpdateAgentRequest(
            request_id=ID,
            name="vpn",
            protects=types_pb2.AGENT_PROTECTS_CLOUD,
            enabled=False,
            add_usernames=["alice"],
            remove_usernames=["bob"],
            add_groups=["staff"],
            remove_groups=["guests"],
        ),
        "update",
        {
            "name": "vpn",
            "protects": Protects.CLOUD,
            "enabled": False,
            "restricted": None,
            "add_usernames": ("alice",),
            "remove_usernames": ("bob",),
            "add_groups": ("staff",),
            "remove_groups": ("guests",),
        },
        APPLIED,
        agents_pb2.UpdateAgentResponse(commit=COMMIT),
    ),
    Case(
        "AgentService/RemoveAgent",
        agents_pb2.RemoveAgentRequest(request_id=ID, name="vpn"),
        "remove",
        {"name": "vpn"},
        APPLIED,
        agents_pb2.RemoveAgentResponse(commit=COMMIT),
    ),
    Case(
        "AgentService/DenyCertificate",
        agents_pb2.DenyCertificateRequest(
            request_id=ID, fingerprint="ab" * 32, note="stolen"
        ),
        "deny",
        {"fingerprint": "ab" * 32, "serial_number": "", "note": "stolen"},
        APPLIED,
        agents_pb2.DenyCertificateResponse(commit=COMMIT),
    ),
    Case(
        "AgentService/AllowCertificate",
        agents_pb2.AllowCertificateRequest(request_id=ID, serial_number="51"),
        "allow",
        {"fingerprint": "", "serial_number": "51"},
        APPLIED,
        agents_pb2.AllowCertificateResponse(commit=COMMIT),
    ),
    Case(
        "AgentService/ListDeniedCertificates",
        agents_pb2.ListDeniedCertificatesRequest(**PAGE),
        "list_denied",
        PAGE,
        read(
            Page(
                items=(
                    DeniedCertificateView(
                        mark=CertificateMark.FINGERPRINT,
                        value="ab",
                        denied_at_ms=END_MS,
                        administrator="root",
                        note="stolen",
                    ),
                    DeniedCertificateView(
                        mark=CertificateMark.SERIAL_NUMBER,
                        value="51",
                        denied_at_ms=END_MS,
                        administrator="root",
                        note="",
                    ),
                ),
                next_page_token="",
            )
        ),
        agents_pb2.ListDeniedCertificatesResponse(
            certificates=[
                agents_pb2.DeniedCertificate(
                    fingerprint="ab",
                    deny_time=END,
                    administrator="root",
                    note="stolen",
                ),
                agents_pb2.DeniedCertificate(
                    serial_number="51", deny_time=END, administrator="root"
                ),
            ],
            position=POSITION,
        ),
    ),
    Case(
        "AgentService/ListAgents",
        agents_pb2.ListAgentsRequest(**PAGE),
        "list",
        PAGE,
        read(
            Page(
                items=(
                    AgentView(
                        name="vpn",
                        identity="i",
                        protects=Protects.AUTHENTICATION_MANAGER,
                        enabled=True,
                    ),
                ),
                next_page_token="",
            )
        ),
        agents_pb2.ListAgentsResponse(
            agents=[
                agents_pb2.Agent(
                    name="vpn",
                    certificate_identity="i",
                    protects=types_pb2.AGENT_PROTECTS_AUTHENTICATION_MANAGER,
                    enabled=True,
                )
            ],
            position=POSITION,
        ),
    ),
    Case(
        "AuditService/ListAuditEvents",
        audit_pb2.ListAuditEventsRequest(
            filter=audit_pb2.AuditFilter(
                start_time=Timestamp(seconds=1),
                end_time=END,
                actor="a",
                action="b",
                target="c",
                outcome="d",
                reason="e",
            ),
            from_sequence=4,
            **PAGE,
        ),
        "list",
        {
            "wanted": AuditFilter(
                start_ms=1000,
                end_ms=END_MS,
                actor="a",
                action="b",
                target="c",
                outcome="d",
                reason="e",
            ),
            "from_sequence": 4,
            **PAGE,
        },
        read(Page(items=(AUDIT_RECORD,), next_page_token="n")),
        audit_pb2.ListAuditEventsResponse(
            events=[AUDIT_EVENT], next_page_token="n", position=POSITION
        ),
    ),
    Case(
        "AdministratorService/CreateAdministrator",
        administrators_pb2.CreateAdministratorRequest(
            request_id=ID,
            name="Dora",
            role=administrators_pb2.ADMINISTRATOR_ROLE_HELP_DESK,
            username="dora",
            password="a temporary one",
        ),
        "create",
        {
            "name": "Dora",
            "role": Role.HELP_DESK,
            "link": Link("dora"),
            "password": "a temporary one",
        },
        APPLIED,
        administrators_pb2.CreateAdministratorResponse(commit=COMMIT),
    ),
    Case(
        "AdministratorService/ListAdministrators",
        administrators_pb2.ListAdministratorsRequest(**PAGE),
        "list",
        PAGE,
        read(
            Page(
                items=(
                    AdministratorView(
                        name="dora",
                        role=Role.AUDITOR,
                        enabled=True,
                        username="Dora",
                        temporary=True,
                    ),
                ),
                next_page_token="n",
            )
        ),
        administrators_pb2.ListAdministratorsResponse(
            administrators=[
                administrators_pb2.Administrator(
                    name="dora",
                    role=administrators_pb2.ADMINISTRATOR_ROLE_AUDITOR,
                    enabled=True,
                    username="Dora",
                    password_temporary=True,
                )
            ],
            next_page_token="n",
            position=POSITION,
        ),
    ),
    Case(
        "AdministratorService/UpdateAdministrator",
        administrators_pb2.UpdateAdministratorRequest(
            request_id=ID,
            name="dora",
            role=administrators_pb2.ADMINISTRATOR_ROLE_OPERATOR,
            enabled=False,
            no_user=True,
        ),
        "update",
        {"name": "dora", "role": Role.OPERATOR, "enabled": False, "link": Link("")},
        APPLIED,
        administrators_pb2.UpdateAdministratorResponse(commit=COMMIT),
    ),
    Case(
        "AdministratorService/RemoveAdministrator",
        administrators_pb2.RemoveAdministratorRequest(request_id=ID, name="dora"),
        "remove",
        {"name": "dora"},
        APPLIED,
        administrators_pb2.RemoveAdministratorResponse(commit=COMMIT),
    ),
    Case(
        "AdministratorService/ChangePassword",
        administrators_pb2.ChangePasswordRequest(
            request_id=ID, name="dora", old_password="o", new_password="twelve or more"
        ),
        "change_password",
        {"name": "dora", "old_password": "o", "new_password": "twelve or more"},
        APPLIED,
        administrators_pb2.ChangePasswordResponse(commit=COMMIT),
    ),
    Case(
        "PolicyService/GetPolicy",
        policy_pb2.GetPolicyRequest(stale_ok=True),
        "get",
        {"stale_ok": True},
        read(Policy()),
        policy_pb2.GetPolicyResponse(policy=POLICY, position=POSITION),
    ),
    Case(
        "PolicyService/UpdatePolicy",
        policy_pb2.UpdatePolicyRequest(
            request_id=ID,
            policy=policy_pb2.Policy(
                version=4,
                lifetime_max=Duration(),
                lock=Duration(seconds=60, nanos=5_000_000),
                lock_until_unlocked=False,
                set_low_threshold=0,
            ),
        ),
        "update",
        {
            "version": 4,
            "values": {
                "lifetime_ms_max": 0,
                "lock_ms": 60_005,
                "lock_until_unlocked": False,
                "set_low_threshold": 0,
            },
        },
        APPLIED,
        policy_pb2.UpdatePolicyResponse(commit=COMMIT, version=5),
    ),
    Case(
        "AuditService/GetCheckpoint",
        audit_pb2.GetCheckpointRequest(stale_ok=True),
        "checkpoint",
        {"stale_ok": True},
        read(
            Checkpoint(
                cluster_id="c",
                sequence=5,
                head=b"h",
                at_ms=END_MS,
                key_id=2,
                public_key=b"p",
                signature=b"s",
            )
        ),
        audit_pb2.GetCheckpointResponse(
            checkpoint=audit_pb2.Checkpoint(
                cluster_id="c",
                sequence=5,
                head=b"h",
                checkpoint_time=END,
                key_id=2,
                public_key=b"p",
                signature=b"s",
            ),
            position=POSITION,
        ),
    ),
    Case(
        "AuditService/VerifyChain",
        audit_pb2.VerifyChainRequest(stale_ok=True),
        "verify_chain",
        {"stale_ok": True},
        read(
            ChainVerdict(verified_sequence=4, head=b"h", broken_sequence=5, problem="x")
        ),
        audit_pb2.VerifyChainResponse(
            verified_sequence=4,
            head=b"h",
            broken_sequence=5,
            problem="x",
            position=POSITION,
        ),
    ),
    Case(
        "ClusterService/TransferPrimary",
        cluster_pb2.TransferPrimaryRequest(request_id=ID, target="n2"),
        "transfer_primary",
        {"target": "n2"},
        "n2",
        cluster_pb2.TransferPrimaryResponse(primary="n2"),
        asked_of="cluster_changes",
    ),
    Case(
        "ClusterService/GetReview",
        cluster_pb2.GetReviewRequest(),
        "review",
        {},
        read(
            Review(
                cluster_id="c",
                open=False,
                epoch=2,
                cause="restore",
                began_at_ms=2_000,
                state_index=7,
                state_at_ms=1_000,
                mark="0123456789abcdef",
                administrators=(
                    ReviewedAdministrator(
                        name="root", role="super_admin", enabled=True
                    ),
                ),
                agents=(
                    ReviewedAgent(
                        name="vpn", identity="vpn.x", enabled=True, restricted=True
                    ),
                ),
                disabled_users=("alice",),
                disabled_users_count=1,
                denied_certificates=(
                    ReviewedCertificate(
                        mark="fingerprint",
                        value="ab",
                        denied_at_ms=500,
                        denied_by="root",
                    ),
                ),
            )
        ),
        cluster_pb2.GetReviewResponse(
            cluster_id="c",
            epoch=2,
            cause="restore",
            begin_time=Timestamp(seconds=2),
            state_index=7,
            state_time=Timestamp(seconds=1),
            review="0123456789abcdef",
            administrators=[
                cluster_pb2.ReviewedAdministrator(
                    name="root", role="super_admin", enabled=True
                )
            ],
            agents=[
                cluster_pb2.ReviewedAgent(
                    name="vpn", identity="vpn.x", enabled=True, restricted=True
                )
            ],
            disabled_users=["alice"],
            disabled_users_count=1,
            denied_certificates=[
                cluster_pb2.ReviewedCertificate(
                    mark="fingerprint",
                    value="ab",
                    denied_time=Timestamp(nanos=500_000_000),
                    denied_by="root",
                )
            ],
            position=POSITION,
        ),
        asked_of="opening",
    ),
    Case(
        "ClusterService/OpenCluster",
        cluster_pb2.OpenClusterRequest(request_id=ID, review="0123456789abcdef"),
        "open",
        {"review": "0123456789abcdef"},
        APPLIED,
        cluster_pb2.OpenClusterResponse(commit=COMMIT),
        asked_of="opening",
    ),
    Case(
        "ClusterService/CreateJoinTicket",
        cluster_pb2.CreateJoinTicketRequest(request_id=ID, node_id="n4"),
        "create_join_ticket",
        {"node_id": "n4"},
        TICKET,
        cluster_pb2.CreateJoinTicketResponse(ticket=to_text(TICKET), end_time=END),
        asked_of="cluster_changes",
    ),
    Case(
        "ClusterService/AddMember",
        cluster_pb2.AddMemberRequest(request_id=ID, node_id="n4", address="h:1"),
        "add_member",
        {"node_id": "n4", "address": "h:1"},
        7,
        cluster_pb2.AddMemberResponse(index=7),
        asked_of="cluster_changes",
    ),
    Case(
        "ClusterService/RemoveMember",
        cluster_pb2.RemoveMemberRequest(request_id=ID, node_id="n4"),
        "remove_member",
        {"node_id": "n4"},
        None,
        cluster_pb2.RemoveMemberResponse(),
        asked_of="cluster_changes",
    ),
    Case(
        "ClusterService/ListMembers",
        cluster_pb2.ListMembersRequest(stale_ok=True),
        "members",
        {"stale_ok": True},
        tuple(
            ListedMember(node_id=f"n{n}", address="h:1", standing=standing)
            for n, standing in enumerate(Standing)
        ),
        cluster_pb2.ListMembersResponse(
            members=[
                cluster_pb2.ListedMember(node_id=f"n{n}", address="h:1", standing=n + 1)
                for n in range(3)
            ]
        ),
    ),
    Case(
        "ClusterService/GetStatus",
        cluster_pb2.GetStatusRequest(digest=True),
        "status",
        {"digest": True},
        ClusterStatus(
            node_id="n1",
            primary="n1",
            quorum=True,
            members=(
                MemberView(
                    node_id="n1",
                    reachable=True,
                    is_primary=True,
                    term=3,
                    commit_index=9,
                    applied_index=8,
                    lag=1,
                    digest="ab",
                    version="1",
                    clock_offset_ms=-1500,
                    audit_sequence=6,
                    audit_head="cd",
                    feature_level=2,
                ),
                MemberView(
                    node_id="n2",
                    reachable=False,
                    is_primary=False,
                    term=0,
                    commit_index=0,
                    applied_index=0,
                    lag=0,
                    digest="",
                    version="",
                    clock_offset_ms=0,
                ),
            ),
            cluster_id="c",
            feature_level=1,
            last_backup=LastBackup(taken_at_ms=END_MS, index=7),
        ),
        cluster_pb2.GetStatusResponse(
            node_id="n1",
            primary="n1",
            quorum=True,
            members=[
                cluster_pb2.Member(
                    node_id="n1",
                    reachable=True,
                    role=cluster_pb2.MEMBER_ROLE_PRIMARY,
                    term=3,
                    commit_index=9,
                    applied_index=8,
                    lag=1,
                    digest="ab",
                    version="1",
                    clock_offset=Duration(seconds=-1, nanos=-500_000_000),
                    audit_sequence=6,
                    audit_head="cd",
                    feature_level=2,
                ),
                cluster_pb2.Member(
                    node_id="n2",
                    role=cluster_pb2.MEMBER_ROLE_UNSPECIFIED,
                    clock_offset=Duration(),
                ),
            ],
            cluster_id="c",
            feature_level=1,
            last_backup_time=END,
            last_backup_index=7,
        ),
    ),
]


def test_every_method_has_a_case():
    contract = {
        f"{service.name}/{method.name}"
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    tested = {case.method for case in CASES}
    streams = {
        "TokenService/ImportTokens",
        "TokenService/ImportTokenFile",
        "UserService/ImportUsers",
        "AuditService/ExportAuditEvents",
        "ClusterService/CreateBackup",
        "EmergencyAccessService/BulkIssueTokencodes",
        "ClusterService/WatchStatus",
        "ClusterService/RotateKeys",
    }
    approvals = {
        "AdministratorService/ListApprovals",
        "AdministratorService/Approve",
        "AdministratorService/Reject",
    }
    second_factors = {
        "AdministratorService/EnrollSecondFactor",
        "AdministratorService/ConfirmSecondFactor",
        "AdministratorService/RemoveSecondFactor",
    }
    assert tested | streams | approvals | second_factors == contract


@pytest.mark.asyncio
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.method)
async def test_method_is_translated_both_ways(case):
    stub_class, attribute = STUBS[case.service]
    async with running_edge() as edge:
        attribute = case.asked_of or attribute
        edge.services[attribute].answer = case.answer
        is_agents = case.service == "AuthenticationService"
        async with edge.agents() if is_agents else edge.admin() as channel:
            method = getattr(stub_class(channel), case.method.partition("/")[2])
            response = await method(case.request, timeout=5, metadata=BEARER)
    (asked,) = edge.services[attribute].asked
    assert response == case.response
    assert (asked.name, asked.arguments) == (case.use_case, case.arguments)
    assert asked.context.method == case.method
    assert asked.context.request_id == getattr(case.request, "request_id", "")
    assert 4 < asked.context.deadline_s < 5
    assert asked.context.peer == "ipv4:127.0.0.1"
    if is_agents:
        expected = AgentCaller(
            identity="sparecode://agent/vpn", certificate=marks_of(AGENT.certificate)
        )
    elif case.method == "SessionService/Login":
        expected = Anonymous()
    else:
        expected = SessionCaller(bearer="s3cret-bearer")
    assert asked.context.caller == expected


def marks_of(pem: bytes) -> Certificate:
    certificate = x509.load_pem_x509_certificate(pem)
    return Certificate(
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        serial_number=f"{certificate.serial_number:x}",
    )


def pieces(*parts: bytes) -> list[tokens_pb2.ImportTokensRequest]:
    header = tokens_pb2.ImportTokensHeader(
        request_id=ID,
        format=tokens_pb2.TOKEN_FILE_FORMAT_PSKC,
        password="pw",
        key=b"k",
        default_pin_rule=types_pb2.PIN_RULE_NONE,
    )
    return [
        tokens_pb2.ImportTokensRequest(header=header),
        *(tokens_pb2.ImportTokensRequest(content=part) for part in parts),
    ]


@pytest.mark.asyncio
async def test_deny_for_a_token_without_pin_is_warned_about_in_words():
    """Whoever finds such codes can use them (R)."""
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["emergency"].answer = dataclasses.replace(
            SAVED_RESULT, pin_missing_warning=True
        )
        stub = emergency_access_pb2_grpc.EmergencyAccessServiceStub(channel)
        request = emergency_access_pb2.SaveEmergencyAccessRequest(serial="1")
        response = await stub.SaveEmergencyAccess(request, metadata=BEARER)
    assert "no PIN" in response.saved.warnings[0]


@pytest.mark.asyncio
async def test_what_is_not_given_has_the_default_of_the_contract():
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["emergency"].answer = SAVED_RESULT
        edge.services["agents"].answer = APPLIED
        emergency = emergency_access_pb2_grpc.EmergencyAccessServiceStub(channel)
        await emergency.SaveEmergencyAccess(
            emergency_access_pb2.SaveEmergencyAccessRequest(), metadata=BEARER
        )
        agents = agents_pb2_grpc.AgentServiceStub(channel)
        await agents.RegisterAgent(agents_pb2.RegisterAgentRequest(), metadata=BEARER)
    (saved,) = edge.services["emergency"].asked
    (registered,) = edge.services["agents"].asked
    assert saved.arguments["recovery"] is RecoveryPolicy.DENY
    assert saved.arguments["lifetime"] == Lifetime()
    assert registered.arguments["protects"] is Protects.AUTHENTICATION_MANAGER


@pytest.mark.asyncio
async def test_counter_and_hash_of_a_token_are_passed_on():
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["tokens"].answer = APPLIED
        await tokens_pb2_grpc.TokenServiceStub(channel).EnrollToken(
            tokens_pb2.EnrollTokenRequest(
                algorithm=types_pb2.TOKEN_ALGORITHM_HOTP,
                hash=types_pb2.TOKEN_HASH_SHA512,
                pin_rule=types_pb2.PIN_RULE_NONE,
                counter=7,
            ),
            metadata=BEARER,
        )
    (asked,) = edge.services["tokens"].asked
    assert asked.arguments["counter"] == 7
    assert asked.arguments["hash_name"] is HashName.SHA512
    assert asked.arguments["expires_at_ms"] is None


def test_less_than_a_millisecond_is_not_taken_for_no_cap():
    """(I7) A lifetime cap of 0 means that there is none."""
    tiny = policy_pb2.Policy(lifetime_max=Duration(nanos=1))
    with pytest.raises(InvalidFieldError, match="less than a millisecond"):
        policy_values(tiny)
    assert policy_values(policy_pb2.Policy(lifetime_max=Duration())) == {
        "lifetime_ms_max": 0
    }


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "request_", "field"),
    [
        ("Create", {"role": 2}, "link"),
        ("Create", {"role": 2, "no_user": False}, "no_user"),
        ("Create", {"role": 2, "username": ""}, "username"),
        ("Create", {"no_user": True}, "role"),
        ("Update", {"role": 99}, "role"),
        ("Update", {"no_user": False}, "no_user"),
    ],
)
async def test_who_an_administrator_is_must_be_said(method, request_, field):
    """(I10) A user, or explicitly none: nobody is forgotten."""
    name = f"{method}Administrator"
    message = getattr(administrators_pb2, f"{name}Request")(request_id=ID, **request_)
    async with running_edge() as edge, edge.admin() as channel:
        stub = administrators_pb2_grpc.AdministratorServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await getattr(stub, name)(message, timeout=5, metadata=BEARER)
        assert not edge.services["administrators"].asked
    assert failure(raised.value).field == field
