# SPDX-License-Identifier: Apache-2.0
"""Every page of the console with data on it, for screenshots and for axe."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pyotp
import pyrage
from playwright.sync_api import Browser, Page, expect

from sparecode_client import (
    AdministratorRole,
    ApprovalNeeded,
    RadiusSettings,
    RecoveryPolicy,
)
from sparecode_client.values.notices import EventClass, new_webhook_secret
from tests.console.desk import GATE
from tests.console.estate import (
    PASSWORD,
    PATIENCE,
    PIN,
    Estate,
    Holder,
    new_window,
    sign_in,
)

SUPER = "dora"
HELP_DESK = "heidi"
OPERATOR = "otto"
CAREFUL = "fatima"
"""Has a second factor."""

OWN_FACTOR = {
    "account-second-factor": "/account",
    "second-factor-set": "/account/second-factor",
}
"""Pages of an administrator who has a second factor."""

PEOPLE = (
    "alice.ash",
    "bela.nagy",
    "chidi.okafor",
    "deniz.kaya",
    "emma.lind",
    "farid.haddad",
    "grace.mensah",
    "hana.sato",
    "ines.costa",
    "jan.novak",
    "keiko.mori",
    "liam.byrne",
)


@dataclass(frozen=True)
class Exhibit:
    """A page, and the steps to prepare it."""

    name: str
    path: str
    prepare: Callable[[Page], None] | None = None
    needs_former: bool = False
    """Whether it needs what was done on the page before."""


@dataclass(frozen=True)
class Exhibition:
    """Users and tokens on the pages."""

    alice: Holder
    bela: Holder
    carol: Holder
    """Her token is another administrator's: the first one may issue codes for it (I10)."""
    spare: str


def furnish(estate: Estate) -> Exhibition:
    """Create users, codes, a locked user, and a change that waits for approval."""
    holders = [estate.holder(name) for name in PEOPLE]
    alice, bela, chidi, deniz, emma, farid = holders[:6]
    admin = estate.admin
    issued = admin.issue_tokencodes(
        alice.serial,
        count=10,
        lifetime=timedelta(days=7),
        recovery_policy=RecoveryPolicy.ALLOW_AND_DISABLE,
    )
    for node, code in zip(estate.cluster.nodes, issued.codes, strict=False):
        assert estate.accepts(node, alice, PIN + code.code)
    admin.issue_tokencodes(bela.serial, count=2, lifetime=timedelta(days=3))
    admin.issue_fixed_tokencode(deniz.serial, lifetime=timedelta(hours=20))
    admin.update_policy(
        dataclasses.replace(
            admin.get_policy(),
            lock_from_failures=1,
            backup_recipients=str(pyrage.x25519.Identity.generate().to_public()),
        )
    )
    assert not estate.accepts(estate.cluster.nodes[0], chidi, "4719000000")
    admin.disable_token(emma.serial)
    admin.disable_token(farid.serial)
    admin.unassign_token(farid.serial)
    admin.update_agent("vpn", add_usernames=[alice.username, bela.username])
    admin.register_radius_client(
        GATE,
        RadiusSettings(networks=("10.1.0.0/24", "2001:db8::7"), allow_unsigned=True),
    )
    admin.create_channel(
        "siem",
        "https://siem.example.com/in",
        classes=[EventClass.EMERGENCY],
        secret=new_webhook_secret(),
    )
    admin.deny_certificate(serial_number="4f:1a:9c:02:77", note="Laptop stolen")
    estate.administrator(HELP_DESK, AdministratorRole.HELP_DESK)
    estate.administrator(OPERATOR, AdministratorRole.OPERATOR)
    estate.administrator(CAREFUL, AdministratorRole.HELP_DESK)
    # With a second super administrator, sensitive changes need approval.
    estate.administrator(SUPER, AdministratorRole.SUPER_ADMIN)
    estate.registrar = SUPER
    carol = estate.holder("carol.cole", pin=False)
    policy = dataclasses.replace(admin.get_policy(), set_low_threshold=3)
    try:
        admin.update_policy(policy)
    except ApprovalNeeded:
        return Exhibition(alice=alice, bela=bela, carol=carol, spare=farid.serial)
    raise AssertionError("the change needed no approval")


def exhibits(shown: Exhibition) -> Iterator[Exhibit]:
    """Return every page for a super administrator."""
    serial = shown.bela.serial
    yield Exhibit("dashboard", "/")
    yield Exhibit("tokens", "/tokens")
    yield Exhibit("tokens-menu", "/tokens?q=alice", _menu)
    yield Exhibit("tokens-none", "/tokens?q=no-such-name")
    yield Exhibit("token", f"/tokens/{shown.alice.serial}")
    for action in (
        "enable",
        "disable",
        "replace",
        "unassign",
        "set-pin",
        "clear-pin",
        "resynchronize",
        "reinstate",
        "turn-off-codes",
        "expiration",
        "delete",
    ):
        yield Exhibit(f"token-{action}", f"/tokens/{serial}/{action}")
    yield Exhibit("token-assign", f"/tokens/{shown.spare}/assign")
    yield Exhibit("token-refused", f"/tokens/{serial}/set-pin", _set_bad_pin)
    yield from _emergency_exhibits(shown)
    yield from _user_exhibits()
    yield Exhibit("tokens-import", "/import/tokens")
    yield Exhibit("tokens-import-rows", "/import/tokens", _preview_tokens)
    yield Exhibit("users-import", "/import/users")
    yield Exhibit("users-import-rows", "/import/users", _preview_users)
    yield from _agent_exhibits()
    yield Exhibit("administrators", "/administrators")
    yield Exhibit("administrator", f"/administrators/{SUPER}")
    yield Exhibit("administrator-new", "/new/administrator")
    yield Exhibit("approvals", "/approvals")
    yield Exhibit("policy", "/policy")
    yield Exhibit("policy-refused", "/policy", _bad_policy)
    yield Exhibit("find", "/find?q=example")
    yield Exhibit("find-nothing", "/find?q=nothing")
    yield from _channel_exhibits()
    yield Exhibit("cluster", "/cluster")
    yield Exhibit("cluster-ticket", "/cluster/ticket")
    yield Exhibit("cluster-ticket-approval", "/cluster/ticket", _ticket)
    yield Exhibit("cluster-add", "/cluster/add")
    yield Exhibit("cluster-remove", "/cluster/members/n3/remove")
    for step in ("keep", "replace"):
        yield Exhibit(f"cluster-{step}", f"/cluster/authorities/n3/{step}")
    yield Exhibit("cluster-primary", "/cluster/primary")
    yield Exhibit("cluster-lead", "/cluster/members/n2/lead")
    yield Exhibit("backups", "/backups")
    yield Exhibit("backups-taken", "/backups", _take_backup)
    yield Exhibit("keys", "/keys")
    yield Exhibit("keys-replaced", "/keys", _replace_key)
    yield Exhibit("review", "/cluster/review")
    yield Exhibit("account", "/account")
    yield Exhibit("sessions", "/sessions")
    yield Exhibit("password", "/account/password")
    yield Exhibit("confirmation", "/account/password", _wrong_confirmation)
    yield Exhibit("command-line", "/account/command-line")
    yield Exhibit("passkeys", "/account/passkeys")
    yield Exhibit("second-factor", "/account/second-factor")
    yield Exhibit("second-factor-shown", "/account/second-factor", _second_factor)
    yield Exhibit("not-found", "/tokens/404")
    # Last, so that it has the events of all pages before.
    yield Exhibit("audit", "/audit")
    yield Exhibit("audit-verified", "/audit", _verify)


def _preview_users(page: Page) -> None:
    page.get_by_label("Rows").fill(
        "username,display_name,email\nnoor,Noor Ali,noor@example.com\n"
        "alice.ash,,\nx y,,\nomar,Omar Diaz,not-an-address\n"
    )
    page.get_by_role("button", name="Show the rows").click()


def _preview_tokens(page: Page) -> None:
    seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    page.get_by_label("Content of the file").fill(
        f"serial,seed,pin_rule\n900001,{seed},prepended\n900002,{seed},none\n,x,\n"
    )
    page.get_by_role("button", name="Show the rows").click()
    expect(page.get_by_role("status")).to_contain_text("Nothing is imported yet")


def _choose(page: Page, action: str) -> None:
    for name in ("carol.cole", "farid.haddad"):
        page.get_by_label(f"Choose {name}").check()
    page.get_by_role("button", name=action, exact=True).click()


def _disable_chosen(page: Page) -> None:
    _choose(page, "Disable")
    expect(page.get_by_role("heading", level=1)).to_have_text("Disable 2 users")


def _issue(page: Page) -> None:
    _choose(page, "Issue codes")
    expect(page.get_by_role("heading", level=1)).to_have_text("Issue emergency codes")


def _issue_for_chosen(page: Page) -> None:
    _issue(page)
    page.get_by_role("button", name="Issue codes").click()
    expect(page.locator("#problem")).to_contain_text("again after the approval")


def _agent_exhibits() -> Iterator[Exhibit]:
    yield Exhibit("agents", "/agents")
    yield Exhibit("agent", "/agents/vpn")
    yield Exhibit("agent-new", "/new/agent")
    yield Exhibit("radius-client", f"/agents/{GATE}")
    yield Exhibit("radius-client-settings", f"/radius-clients/{GATE}")
    yield Exhibit("radius-client-new", "/new/radius-client")
    yield Exhibit("radius-client-refused", "/new/radius-client", _wrong_network)
    yield Exhibit("radius-secret", f"/radius-secrets/{GATE}")
    yield Exhibit("radius-secret-shown", f"/radius-secrets/{GATE}", _replace_secret)
    yield Exhibit("agent-key", "/agent-keys/vpn")
    yield Exhibit("agent-key-shown", "/agent-keys/vpn", _create_key)
    yield Exhibit("denied-certificates", "/denied-certificates")


def _channel_exhibits() -> Iterator[Exhibit]:
    yield Exhibit("channels", "/channels")
    yield Exhibit("channel", "/channels/siem")
    yield Exhibit("channel-new", "/new/channel")
    yield Exhibit("channel-new-mail", "/new/channel", _mail_channel)
    yield Exhibit("notice-preview", "/notices")
    yield Exhibit("channel-refused", "/new/channel", _bad_channel)


def _user_exhibits() -> Iterator[Exhibit]:
    yield Exhibit("users", "/users")
    yield Exhibit("users-issue", "/users", _issue)
    yield Exhibit("users-issue-approval", "/users", _issue_for_chosen)
    yield Exhibit("users-disable", "/users", _disable_chosen)
    yield Exhibit("user", f"/users/{PEOPLE[2]}")
    yield Exhibit("user-new", "/new/user")


def _emergency_exhibits(shown: Exhibition) -> Iterator[Exhibit]:
    manage = f"/tokens/{shown.alice.serial}/emergency-access"
    carols = f"/tokens/{shown.carol.serial}/emergency-access"
    yield Exhibit("emergency-access", manage)
    yield Exhibit("emergency-generated", manage, _generate)
    yield Exhibit("emergency-replacing", manage, _replace)
    yield Exhibit("emergency-wrong-date", manage, _wrong_date)
    yield Exhibit(
        "emergency-fixed", f"/tokens/{shown.bela.serial}/emergency-access", _fixed
    )
    yield Exhibit("emergency-off", manage, _off)
    yield Exhibit("emergency-approval", manage, _save_for_approval)
    yield Exhibit("emergency-saved", carols, _save)
    yield Exhibit(
        "emergency-fixed-saved",
        carols,
        _save_fixed,
    )
    yield Exhibit("emergency-stranding", carols, _strand, needs_former=True)
    yield Exhibit("emergency-turned-off", carols, _turn_off, needs_former=True)


def in_parts(every: Sequence[Exhibit], count: int) -> list[list[Exhibit]]:
    """Divide pages, in their order, into parts that can be shown without each other."""
    parts: list[list[Exhibit]] = [[] for _ in range(count)]
    chosen = parts[0]
    for place, exhibit in enumerate(every):
        if not exhibit.needs_former:
            chosen = parts[place * count // len(every)]
        chosen.append(exhibit)
    return parts


def refused_sign_in(page: Page, url: str) -> None:
    """Show the sign-in page with a refusal."""
    page.goto(f"{url}/sign-in")
    page.get_by_label("Name").fill("nobody")  # A known name would have to wait.
    page.get_by_label("Password").fill("not the one")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("name or password is wrong")


def with_second_factor(browser: Browser, estate: Estate) -> Page:
    """Return the page of an administrator who has just set a second factor."""
    page = new_window(browser).new_page()
    url = estate.cluster.nodes[0].console_url
    sign_in(page, url, CAREFUL, PASSWORD)
    page.goto(f"{url}/account/second-factor")
    _second_factor(page)
    secret = page.locator("#secret").inner_text().replace(" ", "")
    page.get_by_label("Code that the app shows").fill(pyotp.TOTP(secret).now())
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status")).to_contain_text("Your second factor is set")
    return page


def _wrong_confirmation(page: Page) -> None:
    page.locator("main form").evaluate(
        """form => {
            const field = document.createElement("input");
            field.name = "confirm_password";
            field.value = "not the one";
            form.append(field);
            form.submit();
        }"""
    )
    expect(page.locator("#confirm_password")).to_be_visible()


def _menu(page: Page) -> None:
    page.get_by_role("button", name="Actions for token").first.click()


def _set_bad_pin(page: Page) -> None:
    page.get_by_label("New PIN", exact=True).fill("12")
    page.get_by_label("Repeat the new PIN").fill("12")
    page.get_by_role("button", name="Set PIN").click()
    expect(page.locator("#problem")).to_be_visible()


def _generate(page: Page) -> None:
    page.locator("#generate").click()
    expect(page.locator("#codes .code")).to_have_count(10)


def _wrong_date(page: Page) -> None:
    _generate(page)
    page.get_by_label("Date").fill("2020-02-29")
    page.locator("#save").click()
    expect(page.locator("#problem")).to_be_visible()


def _fixed(page: Page) -> None:
    page.get_by_label("Temporary Fixed Tokencode").check()


def _off(page: Page) -> None:
    page.get_by_label("Enable authentication with online emergency").uncheck()


def _save(page: Page) -> None:
    _generate(page)
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")


def _save_fixed(page: Page) -> None:
    _fixed(page)
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")


def _replace(page: Page) -> None:
    _generate(page)
    page.locator("#generate").click()
    expect(page.locator("#replacing")).to_be_focused()


def _strand(page: Page) -> None:
    _off(page)
    page.locator("#save").click()
    expect(page.locator("#stranding")).to_be_focused()


def _turn_off(page: Page) -> None:
    _strand(page)
    page.get_by_role("button", name="Turn off all the same").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Emergency access is off")


def _save_for_approval(page: Page) -> None:
    _generate(page)
    page.locator("#save").click()
    expect(page.locator("#problem")).to_contain_text("save again after the approval")


def _ticket(page: Page) -> None:
    page.get_by_label("The new node’s id").fill("n4")
    page.get_by_label("Address").fill("n4.example.com:7301")
    page.get_by_role("button", name="Make a ticket").click()
    expect(page.locator("#problem")).to_contain_text("again after the approval")


def _take_backup(page: Page) -> None:
    with page.expect_download() as begun:
        page.get_by_role("button", name="Take and download").click()
    begun.value.path()  # Wait for all of it: an aborted backup is not recorded.
    expect(page.locator("#last")).to_contain_text(
        "just now", timeout=PATIENCE.total_seconds() * 1000
    )


def _wrong_network(page: Page) -> None:
    page.get_by_label("Name").fill("switch")
    page.get_by_label("Networks").fill("10.1.0.7/8")
    page.get_by_role("button", name="Register RADIUS client").click()
    expect(page.locator("#problem")).to_be_visible()


def _mail_channel(page: Page) -> None:
    page.locator("[name=kind][value=mail]").check()
    page.get_by_role("button", name="Continue").click()


def _bad_channel(page: Page) -> None:
    page.get_by_role("button", name="Continue").click()
    page.get_by_label("Name", exact=True).fill("hook")
    page.get_by_label("Address", exact=True).fill("http://hook.example.com/in")
    page.get_by_role("button", name="Create channel").click()
    expect(page.locator("#problem")).to_be_visible()


def _replace_secret(page: Page) -> None:
    page.get_by_role("button", name="Replace the secret").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")


def _create_key(page: Page) -> None:
    page.get_by_role("button", name="Create the key").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")


def _replace_key(page: Page) -> None:
    if "No rotation" in page.locator("#progress").inner_text():
        page.get_by_role("button", name="Replace the key").click()
    expect(page.locator("#progress")).to_contain_text("Everything is sealed with key")


def _second_factor(page: Page) -> None:
    page.get_by_role("button", name="Set up").click()
    expect(page.get_by_label("Code that the app shows")).to_be_visible()


def _bad_policy(page: Page) -> None:
    page.get_by_label("Symbols per code").fill("6")
    expect(page.locator("#odds")).to_contain_text("refused")


def _verify(page: Page) -> None:
    page.get_by_role("button", name="Verify the chain").click()
    expect(page.get_by_role("status")).to_contain_text("Intact")
