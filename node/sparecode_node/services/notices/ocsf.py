# SPDX-License-Identifier: Apache-2.0
"""
Audit events in the schema of OCSF 1.3 (https://schema.ocsf.io), for SIEMs.

Sign-ins are Authentication (3002), everything else is Entity Management (3004). The
event as in the audit log is in `unmapped`: it is complete, the mapping is not.
"""

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.notices import EventClass, class_of

OCSF_VERSION = "1.3.0"
PROFILE = "host"
"""It has `actor`, which Entity Management lacks without it."""
IDENTITY = 3
"""The category Identity & Access Management."""
AUTHENTICATION, ENTITY_MANAGEMENT = 3002, 3004
LOGON, LOGOFF, CREATE, UPDATE, DELETE, OTHER = 1, 2, 1, 3, 4, 99
SUCCESS, FAILURE = 1, 2
INFORMATIONAL, MEDIUM = 1, 3

_SIGN_INS = frozenset({EventClass.AUTHENTICATION, EventClass.SESSIONS})
_VERBS = {
    "Create": CREATE,
    "Register": CREATE,
    "Enroll": CREATE,
    "Add": CREATE,
    "Update": UPDATE,
    "Set": UPDATE,
    "Change": UPDATE,
    "Delete": DELETE,
    "Remove": DELETE,
}
_SUCCESSES = frozenset({"applied", "accepted"})
_ADMINISTRATOR = "administrator:"


def event_uid(cluster_id: str, sequence: int) -> str:
    """Return the id of an event in a stream: its cluster and place in the audit log."""
    return f"{cluster_id}-{sequence}"


def ocsf_event(
    event: AuditEvent, cluster_id: str, *, cut: bool = False
) -> dict[str, object]:
    """Return an audit event as an OCSF event. *cut*: its texts are not whole."""
    event_class = class_of(event.action)
    signs_in = event_class in _SIGN_INS
    class_uid = AUTHENTICATION if signs_in else ENTITY_MANAGEMENT
    activity = _sign_in_activity(event) if signs_in else _change_activity(event)
    refused = event.outcome == "refused"
    subject = event.target or "cluster"
    actor = event.actor
    unmapped: dict[str, object] = {
        "class": event_class.value,
        "actor": event.actor,
        "node": event.node,
        "action": event.action,
        "target": event.target,
        "outcome": event.outcome,
        "reason": event.reason,
        "detail": event.detail,
    }
    content: dict[str, object] = {
        "category_uid": IDENTITY,
        "class_uid": class_uid,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
        "time": event.at_ms,
        "severity_id": MEDIUM if refused else INFORMATIONAL,
        "status_id": FAILURE
        if refused
        else SUCCESS
        if event.outcome in _SUCCESSES
        else OTHER,
        "status": event.outcome,
        "message": event.detail or event.action,
        "metadata": {
            "version": OCSF_VERSION,
            "profiles": [PROFILE],
            "product": {"vendor_name": "Sparecode", "name": "Sparecode"},
            "uid": event_uid(cluster_id, event.sequence),
            "sequence": event.sequence,
            "event_code": event.action,
            "log_name": "audit",
        },
        "actor": {"user": {"name": actor.removeprefix(_ADMINISTRATOR)}}
        if actor.startswith(_ADMINISTRATOR)
        else {"app_name": actor or "sparecode"},
        "unmapped": unmapped,
    }
    if cut:
        content["unmapped"] = {**unmapped, "cut": True}
    if activity == OTHER:
        content["activity_name"] = event.action
    if event.reason:
        content["status_detail"] = event.reason
    if signs_in:
        content |= {"user": {"name": subject}, "service": {"name": "Sparecode"}}
    else:
        content["entity"] = {"name": subject, "type": event_class.value}
    return content


def _sign_in_activity(event: AuditEvent) -> int:
    match event.action:
        case "Authenticate" | "ContinueAuthentication" | "OpenSession":
            return LOGON
        case "CloseSession" | "EndSession":
            return LOGOFF
    return OTHER


def _change_activity(event: AuditEvent) -> int:
    for verb, activity in _VERBS.items():
        if event.action.startswith(verb):
            return activity
    return OTHER
