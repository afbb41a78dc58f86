# SPDX-License-Identifier: Apache-2.0
"""`sparecode-node skip-entry`: the way out when an entry stops every node."""

import asyncio
import getpass
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparecode_node.config import Config
from sparecode_node.membership import skipping
from sparecode_node.membership.preparation import StartError
from sparecode_node.membership.skipping import Wish
from sparecode_node.replication.log.skip_statements import WORDS_MAX
from sparecode_node.replication.log.skips import Decision
from sparecode_node.replication.offline.skipping import Trial
from sparecode_node.replication.replicator import MemberStatus
from sparecode_node.services.ambient import SystemClock
from sparecode_node.tool.ownership import give_to_node
from sparecode_node.tool.terminal import EXIT_REFUSED, EXIT_USAGE, fail, loaded, tool

_DIGEST = re.compile("[0-9a-f]{64}")


def skip_entry(
    context: typer.Context,
    index: Annotated[
        int | None,
        typer.Option(help="Index of the entry that stops the node.", metavar="NUMBER"),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option(help="SHA-256 of that entry, 64 digits.", metavar="SHA256"),
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(help="Why, for the audit log.", metavar="TEXT"),
    ] = None,
    operator: Annotated[
        str | None,
        typer.Option(
            help="Who signs, for the audit log. Default: the login name.",
            metavar="NAME",
        ),
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(
            "--add",
            help="Take a statement of another member, once for each.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """
    Skip an entry of the log that stops every node.

    Without options, tries the log on a copy of the state, says which entry stops this
    node, and changes nothing. With --index, --digest and --reason, signs with this
    node's key that the entry is to be skipped. With --add, takes statements that were
    signed on other members. Stop the node first.

    A node skips the entry at its next start, once it has the statements of a majority of
    the voters. The callers of the entry get ENTRY_SKIPPED, and it changes nothing. Until
    then a node that has one statement stops at the entry.

    An entry that a node has applied can never be skipped: a caller may have been told so.
    So ask every member first: run this command without options there.
    """
    # Hide log lines of replication: this command prints what matters itself.
    logging.getLogger("sparecode_node").addHandler(logging.NullHandler())
    config = loaded(context)
    given = (index, digest, reason)
    wanted = all(each is not None for each in given)
    if not wanted and any(each is not None for each in given):
        fail("--index, --digest and --reason belong together", EXIT_USAGE)
    try:
        if add:
            _add(config, add)
        trial = skipping.try_here(config)
        others = asyncio.run(skipping.ask_others(config, trial, SystemClock()))
        if index is not None and digest is not None and reason is not None:
            wish = Wish(
                index=index,
                digest=_checked_digest(digest),
                operator=_text("--operator", operator or _login_name()),
                reason=_text("--reason", reason),
            )
            _sign(config, wish, trial, others)
            trial = skipping.try_here(config)
    except StartError as error:
        fail(str(error))
    finally:
        if config.node.data_dir.exists():
            give_to_node(config)
    _print(config, trial, others)
    if trial.decision is not None and not (add or wanted):
        raise typer.Exit(EXIT_REFUSED)


def _add(config: Config, files: Sequence[Path]) -> None:
    for each in skipping.add(config, files):
        typer.echo(
            f"Took the statement of {each.member} about entry {each.index}: "
            f"{each.operator}, {each.reason}"
        )


def _sign(
    config: Config, wish: Wish, trial: Trial, others: Sequence[MemberStatus]
) -> None:
    if words := skipping.objection(trial, wish, others, config.node.id):
        fail(f"refused: {words}")
    if trial.stop is None:  # `objection` says so.
        return
    _, path = skipping.sign_here(config, wish, trial.stop, SystemClock())
    typer.echo(
        f"Signed in the name of {config.node.id}. From now on this node never applies "
        f"entry {wish.index}. Copy this file to every other member, and add it there:\n"
        f"    {path}\n"
        f"    {tool(config)} skip-entry --add FILE"
    )


def _print(config: Config, trial: Trial, others: Sequence[MemberStatus]) -> None:
    """Print what happens at the next start, and what to do."""
    typer.echo(
        f"The state of {config.node.id} includes entry {trial.log.applied_index}, its log "
        f"ends at entry {trial.log.last_index}."
    )
    stop, decision = trial.stop, trial.decision
    if decision is None:
        typer.echo("The node can apply or skip all of them: start it.")
        return
    if stop is None:
        typer.echo(
            f"Entry {decision.entry.index} does not fail here any more, but there are "
            "statements to skip it."
        )
        _print_decision(decision)
        return
    typer.echo(
        f"It stops at entry {stop.index} of term {stop.term}: {stop.cause}\n"
        f"  SHA-256 {stop.digest}"
    )
    for caller in trial.callers:
        typer.echo(f"  {caller}")
    _print_others(stop.index, others)
    if trial.objection:
        typer.echo(f"The entry cannot be skipped: {trial.objection}")
        return
    _print_decision(decision)
    typer.echo(
        "To sign here that the entry is to be skipped:\n"
        f"    {tool(config)} skip-entry --index {stop.index} \\\n"
        f"        --digest {stop.digest} --reason TEXT"
    )


def _print_others(index: int, others: Sequence[MemberStatus]) -> None:
    for each in others:
        if not each.reachable:
            words = "cannot be reached: run this command there before you sign"
        elif each.applied_index < index:
            words = f"has applied entry {each.applied_index}"
        else:
            words = f"has gone beyond the entry, to {each.applied_index}: do not sign"
        typer.echo(f"  {each.node_id} {words}")


def _print_decision(decision: Decision) -> None:
    signed = ", ".join(sorted(decision.signed)) or "none"
    typer.echo(
        f"Statements here: {len(decision.signed)} of {decision.needed} that are needed "
        f"({signed}); the voters are {', '.join(sorted(decision.voters))}."
    )


def _checked_digest(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        fail(
            "--digest needs all 64 digits (0-9, a-f) of the entry's SHA-256", EXIT_USAGE
        )
    return digest


def _text(option: str, text: str) -> str:
    if not text.strip() or len(text) > WORDS_MAX or not text.isprintable():
        fail(
            f"{option} needs a text of 1 to {WORDS_MAX} printable characters",
            EXIT_USAGE,
        )
    return text.strip()


def _login_name() -> str:
    """Return the name of the person who types, also behind sudo."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
