# SPDX-License-Identifier: Apache-2.0
"""Bodies of syslog messages are valid by the published schema of OCSF (N2)."""

from typing import Any

import jsonschema
import pytest
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.notices import CLASSES
from sparecode_node.services.notices.ocsf import (
    AUTHENTICATION,
    ENTITY_MANAGEMENT,
    OCSF_VERSION,
    PROFILE,
    ocsf_event,
)

ACTORS = ("administrator:ann", "agent:vpn", "node:n1", "operators", "")
OUTCOMES = ("applied", "accepted", "refused", "pending", "noted")


@pytest.fixture(scope="module")
def validators() -> dict[int, Any]:
    """Return a validator of each class that we use. It knows each attribute."""
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=OCSF_VERSION))
    return {
        uid: jsonschema.Draft202012Validator(
            schema.get_class_schema(
                class_name=schema.lookup_class_name_from_uid(class_uid=uid),
                profiles=[PROFILE],
            )
        )
        for uid in (AUTHENTICATION, ENTITY_MANAGEMENT)
    }


def body_of(action: str, actor: str, outcome: str, **more: Any) -> dict[str, Any]:
    event = AuditEvent(
        sequence=7,
        at_ms=1_700_000_000_123,
        actor=actor,
        node="n1",
        action=action,
        target="" if action.isupper() else "alice",
        outcome=outcome,
        reason="role" if outcome == "refused" else "",
        detail="" if outcome == "noted" else "a detail",
    )
    return ocsf_event(event, "c1", **more)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_event_is_valid(outcome: str, validators: dict[int, Any]) -> None:
    """(N2) A receiver that checks the schema takes all of them."""
    for action in (*CLASSES, "AnActionOfANewerRelease"):
        for actor in ACTORS:
            body = body_of(action, actor, outcome, cut=not actor)
            errors = [
                error.message
                for error in validators[body["class_uid"]].iter_errors(body)
            ]
            assert errors == [], f"{action} by {actor!r}"


def test_an_attribute_that_the_schema_lacks_is_seen(
    validators: dict[int, Any],
) -> None:
    body = body_of("CreateUser", "administrator:ann", "applied")
    validator = validators[ENTITY_MANAGEMENT]
    assert validator.is_valid(body)
    assert not validator.is_valid({**body, "weather": "fine"})
    assert not validator.is_valid({**body, "activity_id": 42})
    del body["entity"]
    assert not validator.is_valid(body)
