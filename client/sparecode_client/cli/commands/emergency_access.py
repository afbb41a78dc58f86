# SPDX-License-Identifier: Apache-2.0
"""`sparecode emergency`: emergency codes."""

import enum
from functools import partial
from typing import Annotated

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.exit_codes import ExitCode, UsageError
from sparecode_client.cli.terminal.issued_codes import (
    POLICY_WORDS,
    fixed_json,
    issued_json,
    note_blockers,
    say_fixed,
    say_issued,
    say_sent,
    say_sheet,
    sent_json,
)
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import (
    Limit,
    SerialOrUser,
    StaleOk,
    time_option,
)
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import When, plural, show_time
from sparecode_client.errors import SparecodeError
from sparecode_client.values.emergency_access import (
    EmergencyAccess,
    MailOutcome,
    RecoveryPolicy,
    SentTokencodes,
    TokencodeSet,
    TokencodeState,
)
from sparecode_client.values.tokens import Token
from sparecode_client.values.users import Blocker

app = typer.Typer(
    no_args_is_help=True,
    help="Issue emergency codes, which stand in for a lost token, and show their use.",
    short_help="Issue emergency codes for lost tokens.",
)


CODES_MAX = 100
"""Maximum number of live codes of a token in any policy."""


class IfRecovered(enum.StrEnum):
    """`RecoveryPolicy` on the command line."""

    DENY = "deny"
    ALLOW_AND_DISABLE = "allow-and-disable"
    ALLOW_AFTER_EXPIRY = "allow-after-expiry"


class Recipient(enum.StrEnum):
    """To whom codes go by message."""

    USER = "user"
    MANAGER = "manager"


WeakenRecoveryPolicy = Annotated[
    bool,
    typer.Option(
        "--weaken-recovery-policy",
        help="Allow replacing deny by another recovery policy.",
    ),
]


@app.command(
    epilog="Example: sparecode emergency issue 000123456789 --expires 7d --print",
    short_help="Issue one-time codes and show them once.",
)
def issue(  # noqa: PLR0917 - Typer makes an option of each.
    context: typer.Context,
    serial: SerialOrUser,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=CODES_MAX,
            metavar="NUMBER",
            help="Number of codes. Default: the policy's.",
        ),
    ] = None,
    expires: Annotated[
        When | None,
        time_option(
            "When the codes expire: a time, or a duration. They expire with the token "
            "at the latest.",
        ),
    ] = None,
    if_recovered: Annotated[
        IfRecovered,
        typer.Option(
            metavar="POLICY",
            help="What happens when the token is found: one of the three above.",
        ),
    ] = IfRecovered.DENY,
    keep_unused: Annotated[
        bool,
        typer.Option(
            "--keep-unused",
            help="Keep earlier unused codes, which become void otherwise. Policy limits "
            "the number of live codes.",
        ),
    ] = False,
    weaken_recovery_policy: WeakenRecoveryPolicy = False,
    sheet: Annotated[
        bool,
        typer.Option(
            "--print",
            help="Write a plain sheet to print, with a tick box for every code.",
        ),
    ] = False,
    by_message: Annotated[
        bool,
        typer.Option(
            "--by-message",
            help="Mail the user a link that shows the codes once, within an hour, and "
            "show them to no one else. Policy must allow it.",
        ),
    ] = False,
    to: Annotated[
        Recipient | None,
        typer.Option(
            metavar="PERSON",
            help="With --by-message: mail the link to the user (the default), or to the "
            "manager on file with the user. Policy must allow the manager, too.",
        ),
    ] = None,
) -> None:
    """
    Issue one-time codes for a lost token and show them once.

    Each code stands in for the token once, on any node. The codes cannot be shown again;
    if they are lost, issue new ones. Warnings on stderr tell what would make agents refuse
    them, such as a lock of the user.

    \b
    When the token is found, by --if-recovered:
      deny                it is refused until an administrator reinstates it
      allow-and-disable   it works, and its first use voids the codes
      allow-after-expiry  it works once the codes have expired; needs --expires
    """  # noqa: D301  The backslash b is Click's "do not fill this paragraph".
    settings = settings_of(context)
    output = settings.output
    with settings.admin() as admin:
        if sheet and (output.is_json or by_message):
            raise UsageError(
                "use only one of --print, --by-message and --output json"
                if by_message
                else "use either --print or --output json, not both"
            )
        if to and not by_message:
            raise UsageError("--to is only for --by-message")
        if settings.request_id:
            raise UsageError(
                "--request-id cannot be used here: issue again, which voids codes that were lost"
            )
        serial = settings.serial(admin, serial)
        token = admin.get_token(serial)
        blockers = read_blockers(admin, token)
        send = partial(admin.send_tokencodes, to_manager=to is Recipient.MANAGER)
        call = partial(
            send if by_message else admin.issue_tokencodes,
            serial,
            count=count,
            lifetime=None if expires is None else expires.value,
            recovery_policy=RecoveryPolicy[if_recovered.name],
            keep_unused_codes=keep_unused,
            weaken_recovery_policy=weaken_recovery_policy,
        )
        issued = call()
    if isinstance(issued, SentTokencodes):
        _show_sent(output, token, issued, blockers)
        return
    if output.is_json:
        output.json(issued_json(token, issued, blockers), "codes")
        return
    if sheet:
        say_sheet(output, token, issued)
    else:
        say_issued(output, token, issued, RecoveryPolicy[if_recovered.name])
    note_blockers(output, blockers)


def _show_sent(
    output: Output, token: Token, sent: SentTokencodes, blockers: tuple[Blocker, ...]
) -> None:
    if output.is_json:
        output.json(sent_json(token, sent, blockers))
    else:
        say_sent(output, token, sent)
        note_blockers(output, blockers)
    if sent.outcome is MailOutcome.FAILED:
        raise typer.Exit(ExitCode.REFUSED)


def read_blockers(admin: Admin, token: Token) -> tuple[Blocker, ...]:
    """
    Return what would make agents refuse emergency codes of a token.

    Call it before codes are issued: a failure afterwards could lose them. If the node
    does not tell, such as one of an earlier release, there are none: it is no reason not
    to issue codes.
    """
    if not token.username:
        return ()
    try:
        explanation = admin.explain_user(token.username)
    except SparecodeError:
        return ()
    return tuple(
        each for each in explanation.blockers if each.concerns_codes_of(token.serial)
    )


@app.command(
    epilog="Example: sparecode emergency fixed 000123456789 --expires 3d",
    short_help="Issue one reusable code and show it once.",
)
def fixed(
    context: typer.Context,
    serial: SerialOrUser,
    expires: Annotated[
        When | None,
        time_option("When the code expires: a time, or a duration. Default: 7d."),
    ] = None,
    if_recovered: Annotated[
        IfRecovered,
        typer.Option(
            metavar="POLICY",
            help="What happens when the token is found: see sparecode emergency issue.",
        ),
    ] = IfRecovered.DENY,
    weaken_recovery_policy: WeakenRecoveryPolicy = False,
) -> None:
    """
    Issue a temporary fixed tokencode for a lost token and show it once.

    The code stands in for the token any number of times until it expires. Another person
    who learns the code can use it too, unless the token needs a PIN. One-time codes are
    safer. The token's one-time codes become void.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        if settings.request_id:
            raise UsageError(
                "--request-id cannot be used here: issue again, which voids a code that was lost"
            )
        serial = settings.serial(admin, serial)
        token = admin.get_token(serial)
        blockers = read_blockers(admin, token)
        issued = admin.issue_fixed_tokencode(
            serial,
            lifetime=None if expires is None else expires.value,
            recovery_policy=RecoveryPolicy[if_recovered.name],
            weaken_recovery_policy=weaken_recovery_policy,
        )
    if settings.output.is_json:
        settings.output.json(fixed_json(token, issued, blockers))
        return
    say_fixed(settings.output, token, issued, RecoveryPolicy[if_recovered.name])
    note_blockers(settings.output, blockers)


@app.command(short_help="Show the state of a token's codes.")
def show(
    context: typer.Context, serial: SerialOrUser, stale_ok: StaleOk = False
) -> None:
    """Show a token's emergency access: which codes are live, and where others were used."""
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial, stale_ok=stale_ok)
        access = admin.get_emergency_access(serial, stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json(access)
        return
    policy = access.recovery_policy
    settings.output.facts(
        [
            ("Token", access.serial),
            ("User", access.username or "not assigned"),
            ("Emergency access", _state(access)),
            ("Counts as lost", "yes" if access.lost else "no"),
            ("If recovered", "-" if policy is None else POLICY_WORDS[policy]),
        ]
    )
    for codes in access.sets:
        _say_set(settings.output, codes)
    settings.output.position(access.position)


@app.command("list", short_help="List the tokens in emergency access.")
def list_(
    context: typer.Context,
    live_max: Annotated[
        int,
        typer.Option(
            min=0,
            max=CODES_MAX,
            metavar="NUMBER",
            help="Only tokens with at most this many live codes; 0: all.",
        ),
    ] = 0,
    ends_before: Annotated[
        When | None,
        time_option(
            "Only tokens whose codes all expire by this time or within this duration."
        ),
    ] = None,
    limit: Limit = 100,
    stale_ok: StaleOk = False,
) -> None:
    """List the tokens in emergency access, by serial."""
    settings = settings_of(context)
    end = None if ends_before is None else ends_before.moment()
    with settings.admin() as admin:
        tokens = partial(
            admin.list_emergency_access, live_codes_max=live_max, end_before=end
        )
        page = read_pages(tokens, limit, stale_ok=stale_ok)
    show_list(
        settings.output,
        page,
        lambda access: [
            access.serial,
            access.username,
            str(access.live_codes),
            show_time(access.end_time, never="no end"),
            "-"
            if access.recovery_policy is None
            else IfRecovered[access.recovery_policy.name].value,
        ],
        key="emergency_access",
        columns=["Serial", "User", ">Live codes", "Until", "If recovered"],
        noun="token",
    )


@app.command(
    epilog="Example: sparecode emergency disable 000123456789 --reinstate-token"
)
def disable(
    context: typer.Context,
    serial: SerialOrUser,
    reinstate_token: Annotated[
        bool,
        typer.Option(
            "--reinstate-token",
            help="Also accept the token again, because its user has it. Otherwise a token "
            "that counts as lost stays refused.",
        ),
    ] = False,
) -> None:
    """Void all live codes of a token."""
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        commit = admin.disable_emergency_access(
            serial, reinstate_token=reinstate_token, request_id=settings.request_id
        )
    words = f"Emergency access of token {serial} is off and its codes are void"
    if reinstate_token:
        words += "; the token is accepted again"
    settings.output.done(words, commit, serial=serial)


def _state(access: EmergencyAccess) -> str:
    if not access.enabled:
        return "off"
    live = plural(access.live_codes, "live code")
    if access.end_time is None:
        return f"on, {live}, no end"
    return f"on, {live}, until {show_time(access.end_time)}"


def _say_set(output: Output, codes: TokencodeSet) -> None:
    end = (
        "No end"
        if codes.end_time is None
        else f"{'Ended' if codes.expired else 'Until'} {show_time(codes.end_time)}"
    )
    output.say()
    output.say(
        f"{'Fixed tokencode' if codes.fixed else 'Set'} issued by {codes.issuer} on "
        f"{show_time(codes.issue_time)} (node {codes.node_id}, log index {codes.index})"
    )
    output.say(end)
    shown = [each for each in codes.codes if each.state is not TokencodeState.VOID]
    if void := len(codes.codes) - len(shown):
        output.say(f"{plural(void, 'void code')}, not listed")
    if not shown:
        return
    output.table(
        [">No.", "State", "Used", "Agent", "Node", ">Log index"],
        (
            [
                str(code.ordinal),
                "?" if code.state is None else code.state.value,
                show_time(code.use_time),
                code.agent or "-",
                code.node_id or "-",
                str(code.index or "-"),
            ]
            for code in shown
        ),
    )
