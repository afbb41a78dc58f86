# SPDX-License-Identifier: Apache-2.0
"""`sparecode tokens`: the authenticators."""

import base64
import binascii
import enum
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.options import (
    Limit,
    Serial,
    StaleOk,
    Username,
    pages,
    time_option,
)
from sparecode_client.cli.terminal.prompts import secret
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

app = typer.Typer(no_args_is_help=True, help="Manage tokens, their PINs and owners.")


class SeedFormat(enum.StrEnum):
    """How a seed is written."""

    BASE32 = "base32"
    HEX = "hex"


class Digits(enum.StrEnum):
    """How long a tokencode is."""

    SIX = "6"
    EIGHT = "8"


class Period(enum.StrEnum):
    """How many seconds a time step lasts."""

    THIRTY = "30"
    SIXTY = "60"


def read_seed(text: str, form: SeedFormat) -> bytes:
    """
    Return the bytes of a seed as it is handed out, in groups or not.

    Raises:
        UsageError: It is not of this form. The seed is not repeated.
    """
    text = "".join(text.split()).replace("-", "").upper()
    try:
        if form is SeedFormat.HEX:
            return bytes.fromhex(text)
        text = text.rstrip("=")
        return base64.b32decode(text + "=" * (-len(text) % 8))
    except (binascii.Error, ValueError) as error:
        raise UsageError(f"the seed is not {form.value}: see --seed-format") from error


def kind(token: Token) -> str:
    """Return how a token makes its tokencodes, in short."""
    if token.algorithm is None:
        return "?"
    securid = token.algorithm is TokenAlgorithm.SECURID
    words = ["SecurID" if securid else token.algorithm.name]
    if token.hash is not TokenHash.SHA1 and not securid:
        words.append("?" if token.hash is None else token.hash.name)
    words.append(f"{token.digits} digits")
    return " ".join(words)


def pin(token: Token) -> str:
    """Return what there is to say of a token's PIN."""
    if token.pin_rule is PinRule.NONE:
        return "none needed"
    return "set" if token.pin_set else "NOT SET"


def state(token: Token) -> str:
    """Return whether a token works, and whether codes stand in for it."""
    words = ["enabled" if token.enabled else "disabled"]
    if token.lost:
        words.append("lost")
    if token.live_codes:
        words.append(plural(token.live_codes, "code"))
    return ", ".join(words)


@app.command(
    epilog="Example: sparecode tokens enroll 000123456789 --seed-file seed.txt"
)
def enroll(
    context: typer.Context,
    serial: Annotated[
        str,
        typer.Argument(
            metavar="SERIAL",
            help="Unique; 1 to 64 letters, digits and hyphens; SecurID: 12 digits.",
        ),
    ],
    *,
    seed_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read the seed from FILE (-: stdin) instead of asking."
        ),
    ] = None,
    seed_format: Annotated[
        SeedFormat,
        typer.Option(help="How the seed is written: 16 to 64 bytes; SecurID: 16."),
    ] = SeedFormat.BASE32,
    algorithm: Annotated[
        TokenAlgorithm,
        typer.Option(help="By time (RFC 6238; SecurID) or counter (RFC 4226)."),
    ] = TokenAlgorithm.TOTP,
    hash_: Annotated[
        TokenHash, typer.Option("--hash", help="The hash under the HMAC.")
    ] = TokenHash.SHA1,
    digits: Annotated[Digits, typer.Option(help="Digits of a tokencode.")] = Digits.SIX,
    period: Annotated[
        Period | None,
        typer.Option(help="Seconds of a time step (default: TOTP 30, SecurID 60)."),
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
            help="PIN before the tokencode, folded into it by the token, or none."
        ),
    ] = PinRule.PREPENDED,
    expires: Annotated[
        When | None, time_option("Refuse the token from then on; never if not given.")
    ] = None,
) -> None:
    """Add one token. Its seed is asked for without echo."""
    settings = settings_of(context)
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
        commit = admin.enroll_token(token, request_id=settings.request_id)
    settings.output.done(f"Token {serial} enrolled", commit, serial=serial)


@app.command()
def show(context: typer.Context, serial: Serial, stale_ok: StaleOk = False) -> None:
    """Show one token."""
    settings = settings_of(context)
    with settings.admin() as admin:
        token = admin.get_token(serial, stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json(token)
        return
    period = token.period
    settings.output.facts(
        [
            ("Serial", token.serial),
            (
                "Kind",
                kind(token)
                + (f" every {period.total_seconds():.0f} s" if period else ""),
            ),
            ("User", token.username or "nobody"),
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
        str, typer.Option(metavar="TEXT", help="Only serials that begin so, as 0001.")
    ] = "",
    search: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Only with this in the serial, or in the user's names or e-mail.",
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
        typer.Option("--enabled/--disabled", help="Only enabled or disabled ones."),
    ] = None,
    in_emergency_access: Annotated[
        bool | None,
        typer.Option(
            "--in-emergency-access/--not-in-emergency-access",
            help="Only those for which codes stand in, or only the others.",
        ),
    ] = None,
    limit: Limit = 100,
    stale_ok: StaleOk = False,
) -> None:
    """List tokens, in the order of serials. Filters that are given must all hold."""
    settings = settings_of(context)
    wanted = TokenFilter(
        serial_prefix=prefix,
        search=search,
        username=user,
        algorithm=algorithm,
        enabled=enabled,
        in_emergency_access=in_emergency_access,
    )
    with settings.admin() as admin:
        page, complete = pages(
            lambda size, token: admin.list_tokens(
                wanted, page_size=size, page_token=token, stale_ok=stale_ok
            ),
            limit,
        )
    if settings.output.is_json:
        settings.output.json(
            {"tokens": page.items, "complete": complete, "position": page.position}
        )
        return
    settings.output.table(
        ["Serial", "Kind", "User", "PIN", "State"],
        (
            [token.serial, kind(token), token.username, pin(token), state(token)]
            for token in page.items
        ),
    )
    if not complete:
        settings.output.note(
            f"There are more than {plural(limit, 'token')}: see --limit and --prefix."
        )
    settings.output.position(page.position)


@app.command(epilog="Example: sparecode tokens assign 000123456789 alice")
def assign(context: typer.Context, serial: Serial, username: Username) -> None:
    """Give a token to a user, who may have up to three."""
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
    serial: Serial,
    pin_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Read the PIN from FILE (-: stdin) instead of asking."
        ),
    ] = None,
) -> None:
    """Set the PIN of an assigned token: 4 to 8 digits, asked for without echo."""
    settings = settings_of(context)
    with settings.admin() as admin:
        new_pin = secret("New PIN", pin_file, confirm=True)
        commit = admin.set_pin(serial, new_pin, request_id=settings.request_id)
    settings.output.done(f"PIN of token {serial} set", commit, serial=serial)


@app.command(short_help="Accept a lost token again; its codes are void.")
def reinstate(context: typer.Context, serial: Serial) -> None:
    """Say that a lost token is its owner's again: it works, and its codes are void."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.reinstate_token(serial, request_id=settings.request_id)
    settings.output.done(f"Token {serial} reinstated", commit, serial=serial)
