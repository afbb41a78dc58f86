# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit export`, `checkpoint`, `check` and `verify`."""

import base64
import contextlib
import enum
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.audit.archive import archived_segments, without_unfinished
from sparecode_client.audit.checkpoints import (
    AuditFileError,
    checkpoint_text,
    read_checkpoint,
    read_public_keys,
    signature_is_right,
)
from sparecode_client.audit.verification import AuditVerdict, place_of, verify_files
from sparecode_client.cli.terminal.exit_codes import (
    ExitCode,
    fail,
    report_errors,
)
from sparecode_client.cli.terminal.new_file import new_file
from sparecode_client.cli.terminal.options import StaleOk
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.settings import Settings, settings_of
from sparecode_client.cli.terminal.words import plural, show_second
from sparecode_client.values.audit import (
    AuditExport,
    AuditExportFormat,
    AuditFilter,
    Checkpoint,
    RemovedEvents,
)

ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
"""DER prefix of the 32 bytes of a public key (RFC 8410, 4)."""


class ExportForm(enum.StrEnum):
    """`AuditExportFormat` on the command line."""

    JSON_LINES = "json-lines"
    CSV = "csv"


NewFile = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="File to write, which must not exist; `-`: standard output.",
    ),
]


def export(
    settings: Settings,
    path: Path,
    event_filter: AuditFilter,
    *,
    form: ExportForm,
    after_sequence: int,
    stale_ok: bool,
) -> None:
    """Export the log to a file and report the number of events."""
    with settings.admin() as admin, _writer(path) as write:
        result = admin.export_audit_events(
            write,
            event_filter,
            form=AuditExportFormat[form.name],
            after_sequence=after_sequence,
            stale_ok=stale_ok,
        )
    if path != Path("-") and settings.output.is_json:
        settings.output.json({"file": str(path), **_facts(result)})
        return
    if path != Path("-"):
        settings.output.say(f"{plural(result.events, 'event')} written to {path}.")
    note_removed(settings.output, result.removed)


def note_removed(output: Output, removed: RemovedEvents | None) -> None:
    """Note on stderr which events retention has removed, and who has an archive."""
    if removed is None:
        return
    output.note(
        f"Events 1 to {removed.last_sequence} (up to {show_second(removed.last_time)}) "
        f"were removed by retention on {show_second(removed.remove_time)}. They are "
        f"archived by {removed.archives or 'nobody, since they were lost'}."
    )


def _facts(result: AuditExport) -> dict[str, object]:
    return {
        "events": result.events,
        "last_sequence": result.last_sequence,
        "removed": result.removed,
    }


@contextlib.contextmanager
def _writer(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Yield a writer for *path*: a new file, or for `-` the standard output."""
    if path == Path("-"):
        yield sys.stdout.buffer.write
        return
    with new_file(path) as file:
        yield file.write


def checkpoint(
    context: typer.Context,
    path: NewFile = Path("-"),
    *,
    stale_ok: StaleOk = False,
) -> None:
    """
    Get a checkpoint: the current state of the audit log, signed by the cluster.

    Keep the file where the operators of the cluster cannot change it. If you verify a
    later export with it, no event before the checkpoint was changed or removed.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        current = admin.get_checkpoint(stale_ok=stale_ok)
    with report_errors(), _writer(path) as write:
        write(checkpoint_text(current).encode())
    if path == Path("-"):
        return
    if settings.output.is_json:
        settings.output.json({"file": str(path), "sequence": current.sequence})
        return
    settings.output.say(
        f"Checkpoint of {plural(current.sequence, 'event')}, "
        f"{show_second(current.time)}, written to {path}."
    )
    settings.output.say(f"Signed with key {current.key_id}: {show_key(current)}")


def check(context: typer.Context, *, stale_ok: StaleOk = False) -> None:
    """
    Make one node recompute the hashes of its own audit log.

    The exit code is 1 if a hash is wrong: the node's state is damaged, or its database
    was changed. A long log takes time: see --timeout.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        verdict = admin.verify_chain(stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json(verdict)
    else:
        settings.output.say(
            f"Node {verdict.position.node_id}: the hashes of "
            f"{plural(verdict.verified_sequence, 'event')} are right."
        )
        settings.output.say(f"Head {verdict.head}")
        if verdict.problem and not verdict.broken_sequence:
            settings.output.say(f"Passed over: {verdict.problem}.")
        settings.output.position(verdict.position)
    if verdict.broken_sequence:
        raise fail(
            ExitCode.REFUSED,
            f"event {verdict.broken_sequence} is BROKEN: {verdict.problem}",
        )


def verify_file(
    context: typer.Context,
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="An export as JSON Lines: a complete one, or one that begins after the "
            "archive.",
        ),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="A file written by `sparecode audit checkpoint`. May repeat.",
        ),
    ] = None,
    *,
    archive: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that nodes have archived the log to: its checkpoints count, too.",
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Output of `sparecode-node audit-keys`. Without it, compare the printed "
            "key yourself: a forger can sign with a key of their own.",
        ),
    ] = None,
) -> None:
    """
    Verify that an exported or archived audit log is complete and unchanged.

    It needs no node. With --archive and a FILE, both together are one log: FILE is an
    export after the last archived event (`sparecode audit export --from`).

    Prints the last event up to which the log is proved, and the first event that was
    changed, is missing or is out of order. Events that a proved event declares lost
    (`sparecode cluster declare-lost`) are named, and are no problem. The exit code is 1
    if there is a problem or nothing is proved.
    """
    settings = settings_of(context)
    try:
        segments, unfinished = without_unfinished(
            () if archive is None else archived_segments(archive)
        )
        paths = [each.events for each in segments] + ([] if path is None else [path])
        files = [*(each.checkpoint for each in segments), *(checkpoint or ())]
        if not paths or not files:
            raise fail(ExitCode.USAGE, "give --archive, or a FILE and --checkpoint")
        trusted = None if public_key is None else read_public_keys(public_key)
        checkpoints = _trusted(files, trusted)
        # An archive goes on after a restore, in the name of the new cluster.
        if not segments and len({each.cluster_id for each in checkpoints}) > 1:
            raise fail(ExitCode.USAGE, "the checkpoints belong to several clusters")
        verdict = verify_files(paths, checkpoints)
    except AuditFileError as error:
        raise fail(ExitCode.USAGE, str(error)) from None
    if settings.output.is_json:
        settings.output.json(
            {
                "first": verdict.first,
                "last": verdict.last,
                "proved_up_to": verdict.proved_up_to,
                "public_key_given": trusted is not None,
                "lost": verdict.lost,
                "removed": verdict.removed,
                "unfinished_segment": unfinished,
                "problem": verdict.problem,
            }
        )
    else:
        _say_verdict(settings, verdict)
        if unfinished is not None:
            settings.output.say(
                f"Segment {unfinished} has no checkpoint yet, and was left out."
            )
        if segments and verdict.first > 1 and verdict.removed is None:
            settings.output.say(
                f"The archive begins with event {verdict.first}: nothing is said of "
                "earlier ones."
            )
        if trusted is None:
            _say_keys(settings, checkpoints)
    if verdict.problem is not None:
        place, line = place_of(paths, verdict.problem.line)
        raise fail(ExitCode.REFUSED, f"{place}, line {line}: {verdict.problem.words}")
    if not verdict.proved_up_to:
        raise fail(
            ExitCode.REFUSED,
            "nothing is proved: no checkpoint covers events of this file",
        )


def _trusted(
    files: Sequence[Path], trusted: Sequence[bytes] | None
) -> list[Checkpoint]:
    """Return the checkpoints in files. Raises `AuditFileError`, and exits if one is forged."""
    checkpoints = [read_checkpoint(each) for each in files]
    for each, file in zip(checkpoints, files, strict=True):
        if problem := _distrusted(each, trusted):
            raise fail(ExitCode.REFUSED, f"{file}: {problem}")
    return checkpoints


def _distrusted(checkpoint: Checkpoint, trusted: Sequence[bytes] | None) -> str:
    """Return why a checkpoint cannot be trusted; empty if it can."""
    if not signature_is_right(checkpoint):
        return "the signature is wrong: the checkpoint was changed or forged"
    if trusted is not None and checkpoint.public_key not in trusted:
        return f"signed with a key that is not in --public-key: {show_key(checkpoint)}"
    return ""


def _say_verdict(settings: Settings, verdict: AuditVerdict) -> None:
    say = settings.output.say
    if verdict.proved_up_to:
        first = verdict.first or 1
        say(
            f"Proved: events {first} to {verdict.proved_up_to} are complete and unchanged."
        )
    else:
        say("No event is proved.")
    if (gone := verdict.removed) is not None:
        say(
            f"Events 1 to {gone.last} (segments up to {gone.segments}) were removed by "
            f"retention on {show_second(gone.time)}: event {gone.removed_by} says that "
            + (
                f"at least {plural(gone.copies, 'archive')} had them ({gone.archives}). To "
                "verify them, give one with --archive."
                if gone.copies
                else "they were declared lost."
            )
        )
    for each in verdict.lost:
        say(
            f"Events {each.first} to {each.last} were declared lost: event "
            f"{each.declared_by} says by whom and why, and the hashes around them match."
        )
    after = verdict.last - verdict.proved_up_to
    if verdict.proved_up_to and after > 0:
        say(
            f"{plural(after, 'later event')}: consistent, but not covered by a checkpoint."
        )


def _say_keys(settings: Settings, checkpoints: Sequence[Checkpoint]) -> None:
    settings.output.say(
        "This holds only if your cluster has this key (sparecode-node audit-keys):"
    )
    for key in dict.fromkeys(show_key(each) for each in checkpoints):
        settings.output.say(f"  {key}")


def show_key(checkpoint: Checkpoint) -> str:
    """Return the public key as in its PEM file."""
    return base64.b64encode(ED25519_PREFIX + checkpoint.public_key).decode()
