# SPDX-License-Identifier: Apache-2.0
"""`sparecode tokens`: tokens and their PINs."""

import enum
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.completion import complete_username
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import (
    Limit,
    Serial,
    SerialOrUser,
    StaleOk,
    Username,
    time_option,
)
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.seeds import SeedFormat, read_seed
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import NUMBER_MAX, When, plural, show_time
from sparecode_client.values.tokens import (
    NewToken,
    PinRule,
    Token,
    TokenAlgorithm,
    TokenFilter,
    TokenHash,
)

app = typer.Typer(
    no_args_is_help=True, help="Manage tokens: enroll, assign, enable, set PINs."
)


class Digits(enum.StrEnum):
    """Number of digits of a tokencode."""

    SIX = "6"
    EIGHT = "8"


class Period(enum.StrEnum):
    """Seconds of a time step."""

    THIRTY = "30"
    SIXTY = "60"


def kind(token: Token) -> str:
    """Return a short description of a token's algorithm."""
    if token.algorithm is None:
        return "?"
    securid = token.algorithm is TokenAlgorithm.SECURID
    words = ["SecurID" if securid else token.algorithm.name]
    if token.hash is not TokenHash.SHA1 and not securid:
        words.append("?" if token.hash is None else token.hash.name)
    words.append(f"{token.digits} digits")
    return " ".join(words)


def pin(token: Token) -> str:
    """Return the state of a token's PIN."""
    if token.pin_rule is PinRule.NONE:
        return "none needed"
    return "set" if token.pin_set else "NOT SET"


def state(token: Token) -> str:
    """Return the state of a token, with its number of live codes."""
    words = ["enabled" if token.enabled else "disabled"]
    if token.lost:
        words.append("lost")
    if token.live_codes:
        words.append(plural(token.live_codes, "code"))
    return ", ".join(words)


@app.command(
    epilog="Example: sparecode tokens enroll 000123456789 --seed-file seed.txt",
    short_help="Enroll one token, and give it to a user.",
)
def enroll(
    context: typer.Context,
    serial: Annotated[
        str,
        typer.Argument(
            metavar="SERIAL",
            help="Unique serial: 1 to 64 letters, digits and hyphens; SecurID: 12 digits.",
        ),
    ],
    *,
    seed_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the seed from FILE (-: stdin) instead of prompting for it.",
        ),
    ] = None,
    seed_format: Annotated[
        SeedFormat,
        typer.Option(
            help="Encoding of the seed, which has 16 to 64 bytes; SecurID: 16."
        ),
    ] = SeedFormat.BASE32,
    algorithm: Annotated[
        TokenAlgorithm,
        typer.Option(
            help="Algorithm: by time (RFC 6238, SecurID) or by counter (RFC 4226)."
        ),
    ] = TokenAlgorithm.TOTP,
    hash_: Annotated[
        TokenHash, typer.Option("--hash", help="Hash function of the HMAC.")
    ] = TokenHash.SHA1,
    digits: Annotated[
        Digits, typer.Option(help="Number of digits of a tokencode.")
    ] = Digits.SIX,
    period: Annotated[
        Period | None,
        typer.Option(help="Seconds of a time step. Default: TOTP 30, SecurID 60."),
    ] = None,
    counter: Annotated[
        int,
        typer.Option(
            min=0, max=NUMBER_MAX, metavar="NUMBER", help="The next HOTP counter."
        ),
    ] = 0,
    pin_rule: Annotated[
        PinRule,
        typer.Option(
            help="How the PIN is used: before the tokencode, typed into the token (pinpad), "
            "or not at all (none)."
        ),
    ] = PinRule.PREPENDED,
    expires: Annotated[
        When | None, time_option("When the token expires. Default: never.")
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="USER",
            help="Also assign it to this user.",
            autocompletion=complete_username,
        ),
    ] = None,
    pin_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --user: set the PIN in FILE (-: stdin), too."
        ),
    ] = None,
) -> None:
    """
    Enroll one token. Prompts for its seed without echo.

    With --user, several changes follow each other. If one is refused, those before it
    stay: see `sparecode tokens show`.
    """
    settings = settings_of(context)
    if pin_file is not None and user is None:
        raise typer.BadParameter("--pin-file needs --user", ctx=context)
    if settings.request_id and user is not None:
        raise typer.BadParameter(
            "--request-id cannot be used with --user: it names one change", ctx=context
        )
    with settings.admin() as admin:
        token = NewToken(
            serial=serial,
            seed=read_seed(secret("Seed", seed_file), seed_format),
            algorithm=algorithm,
            hash=hash_,
            digits=int(digits),
            period=None if period is None else timedelta(seconds=int(period)),
            counter=counter,
            pin_rule=pin_rule,
            expire_time=None if expires is None else expires.moment(),
        )
        new_pin = None if pin_file is None else secret("PIN", pin_file)
        words = [f"Token {serial} enrolled"]
        commit = admin.enroll_token(token, request_id=settings.request_id)
        if user is not None:
            commit = admin.assign_token(serial, user)
            words.append(f"assigned to {user}")
        if new_pin is not None:
            commit = admin.set_pin(serial, new_pin)
            words.append("PIN set")
    settings.output.done(", ".join(words), commit, serial=serial)


@app.command()
def show(
    context: typer.Context, serial: SerialOrUser, stale_ok: StaleOk = False
) -> None:
    """Show a token."""
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial, stale_ok=stale_ok)
        token = admin.get_token(serial, stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json(token)
        return
    period = token.period
    settings.output.facts(
        [
            ("Serial", token.serial),
            (
                "Type",
                kind(token)
                + (f" every {period.total_seconds():.0f} s" if period else ""),
            ),
            ("User", token.username or "not assigned"),
            ("PIN", pin(token)),
            ("State", state(token)),
            ("Expires", show_time(token.expire_time, never="never")),
        ]
    )
    settings.output.position(token.position)


@app.command("list", short_help="List tokens.")
def list_(  # noqa: PLR0917 - Typer makes an option of each.
    context: typer.Context,
    prefix: Annotated[
        str, typer.Option(metavar="TEXT", help="Only serials that begin with TEXT.")
    ] = "",
    search: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Only tokens with TEXT in the serial, or in the user's names or email.",
        ),
    ] = "",
    user: Annotated[
        str, typer.Option(metavar="USER", help="Only tokens of this user.")
    ] = "",
    algorithm: Annotated[
        TokenAlgorithm | None, typer.Option(help="Only tokens of this algorithm.")
    ] = None,
    enabled: Annotated[
        bool | None,
        typer.Option(
            "--enabled/--disabled", help="Only enabled, or only disabled tokens."
        ),
    ] = None,
    in_emergency_access: Annotated[
        bool | None,
        typer.Option(
            "--in-emergency-access/--not-in-emergency-access",
            help="Only tokens with live emergency codes, or only the others.",
        ),
    ] = None,
    limit: Limit = 100,
    stale_ok: StaleOk = False,
) -> None:
    """List the tokens that match every filter, by serial."""
    settings = settings_of(context)
    token_filter = TokenFilter(
        serial_prefix=prefix,
        search=search,
        username=user,
        algorithm=algorithm,
        enabled=enabled,
        in_emergency_access=in_emergency_access,
    )
    with settings.admin() as admin:
        tokens = partial(admin.list_tokens, token_filter)
        page = read_pages(tokens, limit, stale_ok=stale_ok)
    show_list(
        settings.output,
        page,
        lambda token: [
            token.serial,
            kind(token),
            token.username,
            pin(token),
            state(token),
        ],
        key="tokens",
        columns=["Serial", "Type", "User", "PIN", "State"],
        noun="token",
        hint="see --limit and --prefix",
    )


@app.command(
    epilog="Example: sparecode tokens assign 000123456789 alice",
    short_help="Assign a token to a user.",
)
def assign(context: typer.Context, serial: Serial, username: Username) -> None:
    """Assign a token to a user. The policy limits tokens per user (default 3)."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.assign_token(serial, username, request_id=settings.request_id)
    settings.output.done(
        f"Token {serial} assigned to {username}",
        commit,
        serial=serial,
        username=username,
    )


@app.command(
    epilog="Example: sparecode tokens set-pin 000123456789",
    short_help="Set the PIN of an assigned token.",
)
def set_pin(
    context: typer.Context,
    serial: SerialOrUser,
    pin_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the PIN from FILE (-: stdin) instead of prompting for it.",
        ),
    ] = None,
) -> None:
    """
    Set the PIN of an assigned token.

    Prompts for the PIN without echo: 4 to 8 digits, unless policy differs.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        new_pin = secret("New PIN", pin_file, confirm=True)
        commit = admin.set_pin(serial, new_pin, request_id=settings.request_id)
    settings.output.done(f"PIN of token {serial} set", commit, serial=serial)


@app.command(short_help="Accept a lost token again, and void its codes.")
def reinstate(context: typer.Context, serial: SerialOrUser) -> None:
    """Reinstate a lost token that was found: it works again, and its codes become void."""
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        commit = admin.reinstate_token(serial, request_id=settings.request_id)
    settings.output.done(f"Token {serial} reinstated", commit, serial=serial)


@app.command(short_help="Unassign a token, and void its codes.")
def unassign(context: typer.Context, serial: SerialOrUser) -> None:
    """
    Unassign a token. Its PIN is cleared, and its emergency codes become void.

    A token that counts as lost stays lost until it is reinstated.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        commit = admin.unassign_token(serial, request_id=settings.request_id)
    settings.output.done(f"Token {serial} unassigned", commit, serial=serial)


@app.command()
def enable(context: typer.Context, serial: SerialOrUser) -> None:
    """Enable a token again."""
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        commit = admin.enable_token(serial, request_id=settings.request_id)
    settings.output.done(f"Token {serial} enabled", commit, serial=serial)


@app.command(short_help="Refuse a token, and void its codes.")
def disable(context: typer.Context, serial: SerialOrUser) -> None:
    """Refuse a token from the next attempt on. Its emergency codes become void."""
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        commit = admin.disable_token(serial, request_id=settings.request_id)
    settings.output.done(
        f"Token {serial} disabled and its codes are void", commit, serial=serial
    )


@app.command(
    epilog="Example: sparecode tokens expire 000123456789 --at 2027-12-31",
    short_help="Change when a token expires.",
)
def expire(
    context: typer.Context,
    serial: SerialOrUser,
    at: Annotated[When | None, time_option("When it expires; 0s: now.")] = None,
    never: Annotated[bool, typer.Option("--never", help="It never expires.")] = False,
) -> None:
    """Change when a token expires. Its emergency codes expire with it at the latest."""
    if (at is None) is not never:
        raise typer.BadParameter("use either --at TIME or --never", ctx=context)
    end = None if at is None else at.moment()
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        commit = admin.update_token(
            serial, expire_time=end, request_id=settings.request_id
        )
    words = "never expires" if end is None else f"expires at {show_time(end)}"
    settings.output.done(
        f"Token {serial} {words}", commit, serial=serial, expire_time=end
    )


@app.command(short_help="Delete a token, and void its codes.")
def delete(context: typer.Context, serial: Serial) -> None:
    """Delete a token with its seed and PIN. Its emergency codes become void."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.delete_token(serial, request_id=settings.request_id)
    settings.output.done(f"Token {serial} deleted", commit, serial=serial)


@app.command(
    epilog="Example: sparecode tokens replace 000123456789 000987654321 --keep-pin",
    short_help="Replace a user's token by another one.",
)
def replace(
    context: typer.Context,
    serial: SerialOrUser,
    replacement: Annotated[
        str,
        typer.Argument(
            metavar="NEW", help="Serial of the new token, which must not be assigned."
        ),
    ],
    keep_pin: Annotated[
        bool,
        typer.Option(
            "--keep-pin", help="Move the PIN of the old token to the new one."
        ),
    ] = False,
) -> None:
    """
    Replace a user's token by another one.

    The old token is unassigned and disabled, and its emergency codes become void.
    Without --keep-pin, the new token has no PIN yet: see set-pin.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        commit = admin.replace_token(
            serial, replacement, keep_pin=keep_pin, request_id=settings.request_id
        )
    settings.output.done(
        f"Token {serial} replaced by {replacement}",
        commit,
        serial=serial,
        replacement_serial=replacement,
    )


@app.command(
    epilog="Example: sparecode tokens resynchronize 000123456789",
    short_help="Learn a token's position from two tokencodes.",
)
def resynchronize(context: typer.Context, serial: SerialOrUser) -> None:
    """
    Resynchronize a token whose clock or counter is off.

    Prompts for two consecutive tokencodes. Both are spent: the user signs in with the
    next one.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        first = secret("Tokencode that the token shows", None)
        second = secret("Next tokencode", None)
        commit = admin.resynchronize_token(
            serial, first, second, request_id=settings.request_id
        )
    settings.output.done(f"Token {serial} resynchronized", commit, serial=serial)


@app.command(short_help="Clear the PIN of a token.")
def clear_pin(context: typer.Context, serial: SerialOrUser) -> None:
    """
    Clear the PIN of a token.

    The user chooses a new PIN at the next sign-in, which needs only a tokencode. A lost
    token and emergency codes are refused until you set a PIN.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        serial = settings.serial(admin, serial)
        commit = admin.clear_pin(serial, request_id=settings.request_id)
    settings.output.done(f"PIN of token {serial} cleared", commit, serial=serial)
