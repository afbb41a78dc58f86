# SPDX-License-Identifier: Apache-2.0
"""
Completion by the shell: names and serials, read from the cluster with the session.

What goes wrong, such as an expired session, completes nothing: a shell has no place for
a message.
"""

import contextlib
import io
from collections.abc import Callable, Iterable
from datetime import timedelta

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.output import Output, OutputFormat
from sparecode_client.cli.terminal.settings import Settings, split
from sparecode_client.values.tokens import TokenFilter

WITHIN = timedelta(seconds=2)
"""A shell waits for it."""
SHOWN_MAX = 100

Complete = Callable[[typer.Context, str], list[str]]


def _from_cluster(names: Callable[[Admin, str], Iterable[str]]) -> Complete:
    """Return a completion that reads *names* with the stored session."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        options = ctx.find_root().params
        settings = Settings(
            nodes=tuple(split(options.get("node"))),
            ca=options.get("ca"),
            client_certificate=options.get("client_certificate"),
            client_key=options.get("client_key"),
            output=Output(OutputFormat.TABLE),
            timeout=WITHIN,
            request_id=None,
        )
        with (
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.suppress(Exception),  # Typer.Exit is one of them.
            settings.admin() as admin,
        ):
            return [each for each in names(admin, incomplete) if each][:SHOWN_MAX]
        return []

    return complete


def _serials(admin: Admin, incomplete: str) -> list[str]:
    page = admin.list_tokens(
        TokenFilter(serial_prefix=incomplete), page_size=SHOWN_MAX, stale_ok=True
    )
    return [token.serial for token in page.items]


def _usernames(admin: Admin, incomplete: str) -> list[str]:
    page = admin.list_users(
        username_prefix=incomplete, page_size=SHOWN_MAX, stale_ok=True
    )
    return [user.username for user in page.items]


def _agents(admin: Admin, incomplete: str) -> list[str]:
    page = admin.list_agents(page_size=500, stale_ok=True)
    return [agent.name for agent in page.items if agent.name.startswith(incomplete)]


def _administrators(admin: Admin, incomplete: str) -> list[str]:
    page = admin.list_administrators(page_size=500, stale_ok=True)
    return [each.name for each in page.items if each.name.startswith(incomplete)]


def _members(admin: Admin, incomplete: str) -> list[str]:
    members = admin.list_members(stale_ok=True)
    return [each.node_id for each in members if each.node_id.startswith(incomplete)]


complete_serial = _from_cluster(_serials)
complete_username = _from_cluster(_usernames)
complete_token = _from_cluster(
    lambda admin, incomplete: [
        *_serials(admin, incomplete),
        *_usernames(admin, incomplete),
    ]
)
"""Serials, and the names of users: a command may take either."""
complete_agent = _from_cluster(_agents)
complete_administrator = _from_cluster(_administrators)
complete_member = _from_cluster(_members)
