# SPDX-License-Identifier: Apache-2.0
"""`sparecode policy`: all settings of the cluster."""

import json
from dataclasses import MISSING, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.options import StaleOk
from sparecode_client.cli.terminal.prompts import content
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import read_time
from sparecode_client.values.policy import Policy

app = typer.Typer(
    no_args_is_help=True,
    help="Show and change the policy, which is the same on every node.",
    short_help="Show and change the policy.",
)

NAMES = [field.name for field in fields(Policy) if field.name != "position"]
_NO_CAP = "none"
_NONE = (
    "lifetime_max",
    "reset_delay",
    "rotate_after_removal",
    "authorities_due_after_removal",
    "replace_authorities_after_removal",
    "pin_blocklist",
    "issued_sets_per_hour",
    "issued_sets_per_day",
    "unlocks_per_day",
    "privileged_session_lifetime",
    "privileged_session_idle",
    "former_code_retention",
    "administrators_second_factor",
    "passkey_domain",
    "silent_notices",
    "manager_notices",
    "codes_by_message",
    "codes_to_manager",
    "alarm_ends_codes",
    "audit_retention",
    "audit_archive_copies",
)
"""Fields that may be None: without a cap, or of an older node."""
INTEGER_MAX = 2**31 - 1
"""Maximum of numbers in the API. The policy's own bounds are far lower."""


@app.command()
def show(context: typer.Context, stale_ok: StaleOk = False) -> None:
    """Show the policy."""
    settings = settings_of(context)
    with settings.admin() as admin:
        policy = admin.get_policy(stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json(policy)
        return
    settings.output.facts((name, show_value(getattr(policy, name))) for name in NAMES)
    settings.output.position(policy.position)


@app.command(
    epilog="""\b
    Examples:
      sparecode policy update --set lifetime_max=30d --set codes_per_set_default=5
      sparecode policy show --output json > policy.json
      sparecode policy update --file policy.json
    """
)
def update(
    context: typer.Context,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Set one value; NAME is as in policy show. May repeat.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the whole policy from the output of policy show --output json "
            "(-: stdin). Refused if the policy has changed since.",
        ),
    ] = None,
) -> None:
    """Change the policy. Only super administrators can."""
    settings = settings_of(context)
    with settings.admin() as admin:
        if bool(changes) == (file is not None):
            raise UsageError("use either --set NAME=VALUE or --file FILE")
        # Report wrong input before calling a node.
        values = dict(assignment(each) for each in changes or ())
        policy = (
            replace(admin.get_policy(), **values)
            if file is None
            else from_json(content(file))
        )
        updated = admin.update_policy(policy, request_id=settings.request_id)
    settings.output.done(
        f"The policy is at version {updated.version}",
        updated.commit,
        version=updated.version,
    )


def show_value(value: object) -> str:
    """Return a value as on the command line."""
    match value:
        case None | "":
            return _NO_CAP
        case bool():
            return "yes" if value else "no"
        case timedelta():
            return show_duration(value) if value else _NO_CAP
        case _:
            return str(value)


def show_duration(value: timedelta) -> str:
    """Return a duration as on the command line, such as `1d12h`."""
    rest, words = int(value.total_seconds()), ""
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, seconds)
        words += f"{count}{unit}" if count else ""
    return words or "0s"


def assignment(text: str) -> tuple[str, Any]:
    """Return the name and value of `NAME=VALUE`. Raise `UsageError` if it is wrong."""
    name, separator, value = text.partition("=")
    name = name.strip()
    if not separator or name not in NAMES or name == "version":
        raise UsageError(f"--set {text}: use NAME=VALUE, with a NAME from policy show")
    try:
        return name, read_value(name, value.strip())
    except ValueError as error:
        raise UsageError(f"--set {name}: {error}") from None


def read_value(name: str, value: str) -> Any:  # noqa: ANN401  As the field has it.
    """Return a value from the command line. Raise `ValueError` if it is wrong."""
    kind = _kind(name)
    if kind is str:
        return "" if value == _NO_CAP else value
    if kind is bool:
        try:
            return {"yes": True, "no": False, "true": True, "false": False}[value]
        except KeyError:
            raise ValueError(f"{value} is neither yes nor no") from None
    if kind is int:
        try:
            return fit(int(value))
        except ValueError:
            raise ValueError(
                f"{value} is not a number from 0 to {INTEGER_MAX}"
            ) from None
    if name == "lifetime_max" and value == _NO_CAP:
        return None
    if name == "audit_retention" and value == _NO_CAP:
        return timedelta()  # None would leave it as it is.
    duration = read_time(value).value
    if not isinstance(duration, timedelta):
        raise ValueError(f"{value} is not a duration, such as 12h")  # noqa: TRY004
    return duration


def _kind(name: str) -> Any:  # noqa: ANN401  A type, or a union of several.
    """Return the type of a field, without the None that an older node leaves."""
    kind = Policy.__annotations__[name]
    return {bool | None: bool, int | None: int, str | None: str}.get(kind, kind)


def fit(number: int) -> int:
    """Return *number* if the API can hold it. Raise `ValueError` otherwise."""
    if not 0 <= number <= INTEGER_MAX:
        raise ValueError(number)
    return number


def from_json(data: bytes) -> Policy:
    """Read the output of `policy show --output json`. Raise `UsageError` on failure."""
    try:
        values = json.loads(data)
        values = {
            field.name: _from_json(field.name, values[field.name])
            for field in fields(Policy)
            if field.name in NAMES
            and (field.name in values or field.default is MISSING)
        }
    except KeyError as error:
        raise UsageError(
            f"the file has no {error}: it must have the whole policy"
        ) from None
    except (ValueError, TypeError, OverflowError):
        raise UsageError(
            "the file is not the output of policy show --output json"
        ) from None
    return Policy(**values)


def _from_json(name: str, value: Any) -> Any:  # noqa: ANN401  JSON has no narrower type.
    kind = _kind(name)
    if value is None and name in _NONE:
        return None
    if kind in (int, bool, str):
        if type(value) is not kind:
            raise ValueError(name)
        return fit(value) if kind is int else value
    return timedelta(seconds=value)
