# SPDX-License-Identifier: Apache-2.0
"""`sparecode login --browser`: sign in, and approve it in the Security Console."""

import platform
import webbrowser
from time import monotonic, sleep

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.exit_codes import INTERRUPTED
from sparecode_client.cli.terminal.settings import Settings
from sparecode_client.cli.terminal.words import show_time
from sparecode_client.errors import (
    OutcomeUnknown,
    Overloaded,
    SparecodeError,
    Unavailable,
)
from sparecode_client.values.sessions import BrowserLogin, Session

CLIENT_NAME_MAX = 64
SLOWER_S = 5.0
"""Added to the interval when a node says that polls come too fast (RFC 8628, 3.5)."""
PATIENCE_S = 600.0
"""Stop polling after this time even if no node answers."""
WHERE = "Your account > Command line"


def sign_in_through_browser(
    settings: Settings, admin: Admin, administrator: str, *, open_page: bool
) -> Session:
    """Ask to sign in, tell the user where to approve it, and wait for the session."""
    try:
        login = admin.start_browser_login(
            administrator,
            client_name=_computer(),
            device_cookie=settings.device_cookie(administrator),
        )
        _show(settings, login)
        if open_page and not (login.page and webbrowser.open(login.page)):
            settings.output.note("No browser could be opened here.")
        return _wait(admin, login)
    except KeyboardInterrupt:
        settings.output.note("Not signed in: approving the code does nothing now.")
        raise typer.Exit(INTERRUPTED) from None


def _wait(admin: Admin, login: BrowserLogin) -> Session:
    began_s, interval_s = monotonic(), login.interval.total_seconds()
    while True:
        sleep(interval_s)
        try:
            session = admin.collect_browser_login(login)
        except (Overloaded, Unavailable, OutcomeUnknown) as error:
            _give_up_late(began_s, error)
            interval_s += SLOWER_S
            continue
        if session is not None:
            return session


def _give_up_late(began_s: float, error: SparecodeError) -> None:
    if monotonic() - began_s >= PATIENCE_S:
        raise error


def _show(settings: Settings, login: BrowserLogin) -> None:
    """Show the code and where to type it. Programs get it on stderr, as a line of JSON."""
    output = settings.output
    if output.is_json:
        output.announce(login)
        return
    output.say("Open this page in a browser, and sign in there if you are not:")
    output.say()
    output.say(f"  {login.page or f'the Security Console, {WHERE}'}")
    output.say()
    output.say(f"and type this code:  {login.user_code}")
    output.say()
    output.note(
        f"Waiting until {show_time(login.end_time, never='it is approved')}. "
        "Press Ctrl-C to stop."
    )


def _computer() -> str:
    """Return the name of this computer, as the console may show it."""
    name = "".join(each for each in platform.node() if each.isprintable())
    return name[:CLIENT_NAME_MAX]
