# SPDX-License-Identifier: Apache-2.0
"""`sparecode tokens`, continued: what happens to a token that is there."""

from typing import Annotated

import typer

from sparecode_client.cli.terminal.options import Serial, time_option
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import When, show_time

app = typer.Typer()


@app.command(short_help="Take a token from its user; its codes are void.")
def unassign(context: typer.Context, serial: Serial) -> None:
    """
    Take a token from its user. Its PIN is gone, and its emergency codes are void.

    A token that counts as lost stays so until it is reinstated.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.unassign_token(serial, request_id=settings.request_id)
    settings.output.done(f"Token {serial} unassigned", commit, serial=serial)


@app.command()
def enable(context: typer.Context, serial: Serial) -> None:
    """Let a token be used again."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.enable_token(serial, request_id=settings.request_id)
    settings.output.done(f"Token {serial} enabled", commit, serial=serial)


@app.command(short_help="Refuse a token; its codes are void.")
def disable(context: typer.Context, serial: Serial) -> None:
    """Refuse a token from the next attempt on; its emergency codes are void."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.disable_token(serial, request_id=settings.request_id)
    settings.output.done(
        f"Token {serial} disabled, its codes are void", commit, serial=serial
    )


@app.command(
    epilog="Example: sparecode tokens expire 000123456789 --at 2027-12-31",
    short_help="Change when a token expires.",
)
def expire(
    context: typer.Context,
    serial: Serial,
    at: Annotated[When | None, time_option("From then on; 0s: from now on.")] = None,
    never: Annotated[bool, typer.Option("--never", help="It has no end.")] = False,
) -> None:
    """Refuse a token, and its emergency codes, from a time on."""
    if (at is None) is not never:
        raise typer.BadParameter("give --at TIME or --never", ctx=context)
    end = None if at is None else at.moment()
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.update_token(
            serial, expire_time=end, request_id=settings.request_id
        )
    words = "never expires" if end is None else f"expires at {show_time(end)}"
    settings.output.done(
        f"Token {serial} {words}", commit, serial=serial, expire_time=end
    )


@app.command(short_help="Delete a token; its codes are void.")
def delete(context: typer.Context, serial: Serial) -> None:
    """Delete a token with its seed and its PIN; its emergency codes are void."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.delete_token(serial, request_id=settings.request_id)
    settings.output.done(f"Token {serial} deleted", commit, serial=serial)


@app.command(
    epilog="Example: sparecode tokens replace 000123456789 000987654321 --keep-pin",
    short_help="Give a user another token in the place of one.",
)
def replace(
    context: typer.Context,
    serial: Serial,
    replacement: Annotated[
        str, typer.Argument(metavar="NEW", help="The new token, nobody's until now.")
    ],
    keep_pin: Annotated[
        bool,
        typer.Option("--keep-pin", help="The new token has the PIN of the old one."),
    ] = False,
) -> None:
    """
    Give the user of a token another one in its place.

    The old token is unassigned and disabled, and its emergency codes are void.
    Without --keep-pin the new one has no PIN yet: see set-pin.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
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
    short_help="Learn where a token is from two tokencodes.",
)
def resynchronize(context: typer.Context, serial: Serial) -> None:
    """
    Learn where a token is, whose clock or counter has run away.

    Two tokencodes are asked for, which it shows one after the other. Both are used
    up: its owner signs in with the next one.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        first = secret("Tokencode that it shows", None)
        second = secret("Tokencode that it shows next", None)
        commit = admin.resynchronize_token(
            serial, first, second, request_id=settings.request_id
        )
    settings.output.done(f"Token {serial} resynchronized", commit, serial=serial)


@app.command(short_help="Clear the PIN of a token.")
def clear_pin(context: typer.Context, serial: Serial) -> None:
    """
    Clear the PIN of a token.

    The user chooses another one at the next sign-in, by the tokencode alone; of a
    lost token, and with an emergency code, nothing is accepted until you set one.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.clear_pin(serial, request_id=settings.request_id)
    settings.output.done(f"PIN of token {serial} cleared", commit, serial=serial)
