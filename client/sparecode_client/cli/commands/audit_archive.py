# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit archive`, `confirm-archive` and `withdraw-archive`."""

from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.audit.archive import (
    ArchivedSegment,
    archived_segments,
    without_unfinished,
)
from sparecode_client.audit.checkpoints import (
    AuditFileError,
    read_checkpoint,
    signature_is_right,
)
from sparecode_client.audit.verification import AuditVerdict, place_of, verify_files
from sparecode_client.cli.terminal.cluster_status import (
    archive_warnings,
    retention_rules,
    short_name,
)
from sparecode_client.cli.terminal.exit_codes import ExitCode, fail
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plural, show_second
from sparecode_client.values.cluster import AuditRetention
from sparecode_client.values.segments import (
    ArchivedRange,
    SegmentState,
    archived_ranges,
)

NO_ARCHIVES = AuditRetention(
    archives=(),
    unarchived_segments="",
    archives_wanted=0,
    removed_segments="",
    removed=None,
    retention=None,
    removal_begin_time=None,
)
CONFIRMED_MAX = 1_000
"""Segments that the cluster takes in one confirmation."""


def archive(context: typer.Context) -> None:
    """
    Show which archives have which segments of the audit log.

    Segments that the same archives have are one row. A segment that was just sealed
    waits for some seconds. Retention removes only segments that as many archives have
    as the policy wants (audit_archive_copies). Without a retention, one archive is enough.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        status = admin.get_status()
    told = status.audit_retention
    if told is None:
        settings.output.note(
            f"{status.node_id} is of a release that knows no archives: upgrade it."
        )
        told = NO_ARCHIVES
    ranges = archived_ranges(status, told)
    if settings.output.is_json:
        settings.output.json(
            {
                "segments": [
                    {
                        "first": each.first,
                        "last": each.last,
                        "state": each.state,
                        "copies": each.copies,
                        "missing_copies": each.missing,
                        "archivers": each.archivers,
                        "silent_archivers": each.silent,
                    }
                    for each in ranges
                ],
                "archives_wanted": told.archives_wanted,
                "archives": told.archives,
                "removed": told.removed,
                "retention": told.retention,
                "removal_begin_time": told.removal_begin_time,
            },
            "segments",
        )
        return
    say = settings.output.say
    if ranges:
        settings.output.table(
            ("Segments", ">Copies", "Archived by", "State"), map(_row, ranges)
        )
        say()
    else:
        say("No segment of the audit log is sealed yet.")
    for each in told.archives:
        silent = "" if each.counts else "; does not count: the node is silent"
        say(
            f"{each.archiver}: {each.place}, "
            + (
                f"confirmed {show_second(each.confirm_time)}{silent}"
                if each.confirm_time
                else "nothing confirmed yet"
            )
        )
    if not told.archives:
        say(
            "No archive is known to the cluster. Name one in node.toml ([audit] archive), "
            "or confirm a copy: sparecode audit confirm-archive."
        )
    for line in (*archive_warnings(told), *retention_rules(told)):
        say(line)


def _row(each: ArchivedRange) -> tuple[str, str, str, str]:
    numbers = str(each.first) + ("" if each.first == each.last else f" to {each.last}")
    if each.state is SegmentState.REMOVED:
        return numbers, "-", "-", "removed from the nodes"
    names = [short_name(archiver) for archiver in each.archivers]
    names += [f"{short_name(archiver)} (silent)" for archiver in each.silent]
    match each.state:
        case SegmentState.ARCHIVED:
            state = "archived"
        case SegmentState.LOST:
            state = "declared lost"
        case _:
            state = (
                f"needs {plural(each.missing, 'more copy', 'more copies')}"
                if each.wanted
                else "in no archive"
            )
    copies = f"{each.copies} of {each.wanted}" if each.wanted else str(each.copies)
    return numbers, copies, ", ".join(names) or "-", state


def confirm_archive(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="The copy: files as nodes write them to an archive."
        ),
    ],
    first: Annotated[
        int | None,
        typer.Argument(
            metavar="[FIRST]",
            min=1,
            help="Number of the first segment; default: the first in DIR.",
            show_default=False,
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Argument(
            metavar="[LAST]",
            min=1,
            help="Number of the last one; default: the last in DIR.",
            show_default=False,
        ),
    ] = None,
    *,
    place: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Where the copy is, for others: 'tape 12, vault'."
        ),
    ],
) -> None:
    """
    Confirm that you have a copy of segments of the audit log that stays.

    Reads the whole copy, and compares it with the cluster's hashes. It then counts as
    one of the archives that the policy wants before retention removes segments
    (audit_archive_copies), and does not expire. If the copy is damaged or lost, withdraw
    it (sparecode audit withdraw-archive). Another super administrator must approve the
    confirmation, if there is one. At most 1000 segments at once.
    """
    settings = settings_of(context)
    try:
        copied, _ = without_unfinished(archived_segments(folder))
        chosen = _chosen(folder, copied, first, last)
        verdict = _proved(chosen)
    except AuditFileError as error:
        raise fail(ExitCode.USAGE, str(error)) from None
    begin, end = chosen[0].number, chosen[-1].number
    with settings.admin() as admin:
        commit = admin.confirm_archive(
            begin,
            end,
            hash_before=verdict.hash_before,
            hash_after=verdict.hash_after,
            place=place,
            request_id=settings.request_id,
        )
    settings.output.done(
        f"Your copy of segments {begin} to {end} (events {verdict.first} to "
        f"{verdict.last}) is confirmed",
        commit,
        first=begin,
        last=end,
        first_sequence=verdict.first,
        last_sequence=verdict.last,
    )


def withdraw_archive(
    context: typer.Context,
    administrator: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="The administrator who has confirmed the copy."
        ),
    ],
    first: Annotated[
        int | None,
        typer.Argument(
            metavar="[FIRST]",
            min=1,
            help="Number of the first segment; default: all that NAME has confirmed.",
            show_default=False,
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Argument(
            metavar="[LAST]",
            min=1,
            help="Number of the last one; default: FIRST.",
            show_default=False,
        ),
    ] = None,
    *,
    reason: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Why it does not count: 'tape 12 cannot be read'."
        ),
    ],
) -> None:
    """
    Withdraw a copy of the audit log that is damaged or lost.

    It does not count any longer, so retention keeps the segments until enough other
    archives have them. Segments that were removed before do not come back: keep the
    other archives that have them. No approval is needed. The archives of nodes need no
    withdrawal: a node reads its archive again and again, and says what it lacks.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        told = admin.get_status().audit_retention or NO_ARCHIVES
        commit = admin.withdraw_archive(
            administrator,
            reason,
            first=first or 0,
            last=last or first or 0,
            request_id=settings.request_id,
        )
    which = "All copies" if first is None else "The copy"
    gone = ""
    if told.removed_segments:
        gone = (
            f". Segments {told.removed_segments} were removed from the nodes before, "
            "and do not come back: keep the other archives that have them"
        )
    settings.output.done(
        f"{which} of {administrator} {'do' if first is None else 'does'} not count any "
        f"longer{gone}",
        commit,
        administrator=administrator,
        first=first,
        last=last or first,
        removed_segments=told.removed_segments,
    )


def _chosen(
    folder: Path,
    copied: tuple[ArchivedSegment, ...],
    first: int | None,
    last: int | None,
) -> tuple[ArchivedSegment, ...]:
    """Return the segments to confirm. Raises `AuditFileError` if one of them is missing."""
    there = {each.number: each for each in copied}
    begin, end = first or min(there), last or max(there)
    if begin > end or end - begin >= CONFIRMED_MAX:
        raise AuditFileError(
            f"segments {begin} to {end}: give FIRST and LAST, at most {CONFIRMED_MAX} "
            "segments at once"
        )
    for number in range(begin, end + 1):
        if number not in there:
            raise AuditFileError(
                f"{folder}: segment {number} is missing; confirm those before and after "
                "it apart, with FIRST and LAST"
            )
    return tuple(there[number] for number in range(begin, end + 1))


def _proved(chosen: tuple[ArchivedSegment, ...]) -> AuditVerdict:
    """
    Read a copy, and return what it has; exit if it is damaged.

    The cluster compares the hashes with its own, so no public key is needed.
    """
    checkpoints = [read_checkpoint(each.checkpoint) for each in chosen]
    for each, segment in zip(checkpoints, chosen, strict=True):
        if not signature_is_right(each):
            raise fail(
                ExitCode.REFUSED,
                f"{segment.checkpoint}: the signature is wrong: the checkpoint was "
                "changed or forged",
            )
    paths = [each.events for each in chosen]
    verdict = verify_files(paths, checkpoints)
    if verdict.problem is not None:
        path, line = place_of(paths, verdict.problem.line)
        raise fail(ExitCode.REFUSED, f"{path}, line {line}: {verdict.problem.words}")
    if verdict.lost and any(each.first > verdict.first for each in verdict.lost):
        raise fail(
            ExitCode.REFUSED,
            "the copy lacks events that were declared lost: confirm the segments before "
            "and after them apart, with FIRST and LAST",
        )
    return verdict
