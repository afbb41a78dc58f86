# SPDX-License-Identifier: Apache-2.0
"""Requests that wait for approval, in the words of the page instead of the audit log's."""

import dataclasses

import pytest

from sparecode_node.console.kit import languages
from sparecode_node.console.pages.approval_words import lines_of
from sparecode_node.domain.policy import Policy, changes
from sparecode_node.queries.approvals import ApprovalView


def waiting(action: str, description: str) -> ApprovalView:
    """Return a request as the state describes it."""
    return ApprovalView(
        approval_id=1,
        author="root",
        action=action,
        target="policy",
        description=description,
        serials=(),
        usernames=(),
        asked_at_ms=0,
        ends_at_ms=1,
        approver="",
    )


def of_policy(**values: object) -> ApprovalView:
    """Return a request to change fields of the policy."""
    after = dataclasses.replace(Policy(), **values)
    return waiting("UpdatePolicy", f"version 3: {changes(Policy(), after)}")


def test_changes_of_the_policy_have_the_labels_and_units_of_its_editor():
    request = of_policy(
        set_low_threshold=3,
        lock_ms=90_000,
        session_idle_ms=3_600_000,
        pin_letters=True,
        lifetime_ms_max=86_400_000,
        administrators_second_factor="passkey",
        backup_recipients="age1one age1two",
    )
    assert set(lines_of(request)) == {
        "Report a set as low at this many codes: from 2 to 3",
        "First lock: from 15 minutes to 90 s",
        "End a session that is not used after: from 30 minutes to 1 hour",
        "PINs may contain letters: from no to yes",
        "Longest lifetime: from none to 1 day",
        "Second factor of administrators: from Optional to Passkey",
        "Backup recipients: from none to age1one age1two",
    }


def test_no_field_of_the_policy_is_shown_by_its_internal_name():
    """A new field has a label in the editor, and so in requests."""
    other = {bool: True, str: "x"}
    for field in dataclasses.fields(Policy):
        if field.name == "version":
            continue
        before = getattr(Policy(), field.name)
        after = not before if isinstance(before, bool) else other.get(type(before), 7)
        (line,) = lines_of(of_policy(**{field.name: after}))
        assert "_" not in line.partition(":")[0], field.name


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("help_desk, no user", "Help desk, no user"),
        ("super_admin, user alice", "Super administrator, user alice"),
        ("version 3: no change", "version 3: no change"),
    ],
)
def test_roles_have_their_labels(words: str, shown: str):
    assert lines_of(waiting("CreateAdministrator", words)) == (shown,)


def test_requests_are_in_the_language_of_the_page():
    with languages.using("de"):
        (line,) = lines_of(of_policy(pin_letters=True))
    assert line == "PINs dürfen Buchstaben enthalten: von nein zu ja"


def test_a_request_without_a_description_has_no_line():
    assert lines_of(waiting("RemoveMember", "")) == ()
