# SPDX-License-Identifier: Apache-2.0
"""What apply decides about passkeys, whatever the called node has checked (P8)."""

from tests.statemachine.world import World

TWO_WITH_PASSKEYS = """
begin
raise-feature-level level=2
update-policy passkey_domain=example.com
create-admin name=ada role=auditor
sign-in as=ada password=temporary session=a0
change-password as=ada name=ada old=temporary new=hers session=a0
sign-in as=ada password=hers session=a1
register-passkey passkey=laptop
register-passkey passkey=phone challenge=c2 as=ada session=a1
"""


def handle(world: World, line: str) -> str:
    directive, *words = line.split()
    return world.handle(directive, dict(word.split("=", 1) for word in words))


def test_the_passkey_of_another_administrator_signs_in_no_one() -> None:
    world = World()
    for line in filter(None, TWO_WITH_PASSKEYS.splitlines()):
        assert "rejected" not in handle(world, line), line
    refused = handle(world, "sign-in session=s2 passkey=phone challenge=c3")
    assert refused.startswith("rejected passkey_wrong")
    world.handle("wait", {"2s": "yes"})
    opened = handle(world, "sign-in session=s2 passkey=laptop challenge=c4")
    assert opened.startswith("opened for root")


def test_a_removed_passkey_ends_the_sessions_that_it_opened() -> None:
    world = World()
    for line in (
        "begin",
        "raise-feature-level level=2",
        "update-policy passkey_domain=example.com",
        "register-passkey passkey=laptop",
        "register-passkey passkey=lost challenge=c2",
        "sign-in session=s2 passkey=lost challenge=c3",
        "create-user name=alice session=s2 request=r1",
        "remove-passkey passkey=lost",
    ):
        assert "rejected" not in handle(world, line), line
    ended = handle(world, "create-user name=bob session=s2 request=r2")
    assert ended.startswith("rejected session_ended")
    assert handle(world, "create-user name=bob request=r3").startswith("applied")
