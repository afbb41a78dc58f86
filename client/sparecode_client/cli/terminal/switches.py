# SPDX-License-Identifier: Apache-2.0
"""Changes that need nothing but a name: enable, disable and remove."""

from collections.abc import Callable

import typer

from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.values.results import Commit


def set_enabled(
    context: typer.Context,
    kind: str,
    name: str,
    change: Callable[..., Commit],
    *,
    enabled: bool,
) -> None:
    """
    Enable or disable what has a name, by the method *change* of `Admin`.

    *kind*: what it is, in words, such as `Agent`.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = change(admin, name, enabled=enabled, request_id=settings.request_id)
    state = "enabled" if enabled else "disabled"
    settings.output.done(f"{kind} {name} {state}", commit, name=name, enabled=enabled)


def remove_named(
    context: typer.Context, kind: str, name: str, change: Callable[..., Commit]
) -> None:
    """Remove what has a name, by the method *change* of `Admin`."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = change(admin, name, request_id=settings.request_id)
    settings.output.done(f"{kind} {name} removed", commit, name=name)
