# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster`: status of the cluster, and its primary."""

from typing import Annotated

import typer

from sparecode_client.cli.commands import (
    export_users,
    import_users,
    lost_segments,
    membership,
    review,
)
from sparecode_client.cli.commands.backups import backup
from sparecode_client.cli.terminal.cluster_status import (
    COLUMNS,
    authority_warnings,
    bundle_warnings,
    health,
    last_backup,
    reset_warnings,
    retention_lines,
    rotation_warnings,
    row,
    segment_warnings,
    summary,
)
from sparecode_client.cli.terminal.completion import complete_member
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.values.cluster import ClusterStatus

app = typer.Typer(
    no_args_is_help=True, help="Operate the cluster: status, members, backups and keys."
)
app.add_typer(review.app)
app.command("backup")(backup)
app.add_typer(membership.app)
app.add_typer(lost_segments.app)
app.add_typer(export_users.app, name="export-users")
app.add_typer(import_users.app, name="import-users")
app.command("moves")(export_users.moves)

_DIGEST_SHOWN = 16


@app.command()
def status(
    context: typer.Context,
    digest: Annotated[
        bool,
        typer.Option(
            "--digest",
            help="Also compare the states of all members. Each member reads its whole state.",
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="For monitoring: print one line, and exit with 0 if the cluster survives "
            "a further loss, 1 if it survives none, 3 if there is no quorum.",
        ),
    ] = False,
) -> None:
    """
    Show every member as the called node sees it.

    Works without a quorum; then the exit code is 3.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        cluster = admin.get_status(digest=digest)
    state = health(cluster)
    if settings.output.is_json:
        settings.output.json(cluster, "members")
    elif check:
        settings.output.say(state.words, state.style)
    else:
        settings.output.say(summary(cluster))
        settings.output.say(state.words, state.style)
        for warning in (
            *reset_warnings(cluster),
            *rotation_warnings(cluster),
            *authority_warnings(cluster),
            *segment_warnings(cluster),
            *retention_lines(cluster),
            *bundle_warnings(cluster),
        ):
            settings.output.say(warning)
        settings.output.say()
        settings.output.table(COLUMNS, (row(member) for member in cluster.members))
        settings.output.say()
        settings.output.say(compare_audit_heads(cluster))
        settings.output.say(last_backup(cluster))
        if waiting := upgrade_hint(cluster):
            settings.output.say(waiting)
        if digest:
            settings.output.say()
            settings.output.table(
                ["Node", ">Applied", "Digest"],
                (
                    [
                        member.node_id,
                        str(member.applied_index),
                        member.digest[:_DIGEST_SHOWN] or "-",
                    ]
                    for member in cluster.members
                ),
            )
            settings.output.say(compare_digests(cluster))
    if check or not cluster.quorum:
        raise typer.Exit(state.exit_code)


@app.command()
def transfer(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            help="New primary. Default: the member with most of the log.",
            metavar="[NODE]",
            autocompletion=complete_member,
            show_default=False,
        ),
    ] = "",
) -> None:
    """
    Make another node the primary.

    Use it before maintenance of the primary's machine, for example. Calls in progress
    wait for the new primary: none is lost or refused.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        primary = admin.transfer_primary(target)
    if settings.output.is_json:
        settings.output.json({"primary": primary})
    else:
        settings.output.say(f"{primary} is the primary.")


def upgrade_hint(cluster: ClusterStatus) -> str:
    """Return a line about members that hold back the feature level; empty if none."""
    newest = max((member.feature_level for member in cluster.members), default=0)
    if not newest > cluster.feature_level > 0:
        return ""
    older = [
        member.node_id for member in cluster.members if member.feature_level < newest
    ]
    levels = f"Feature level {cluster.feature_level}; level {newest} is available"
    if not older:
        return f"{levels} and waits for the primary."
    return f"{levels} once these members are upgraded: {', '.join(older)}."


def compare_audit_heads(cluster: ClusterStatus) -> str:
    """Compare the heads of audit logs with equally many events; return the result."""
    by_sequence: dict[int, set[str]] = {}
    for member in cluster.members:
        if member.audit_head:
            by_sequence.setdefault(member.audit_sequence, set()).add(member.audit_head)
    for sequence, heads in sorted(by_sequence.items()):
        if len(heads) > 1:
            return (
                f"The audit logs DIFFER at event {sequence}. Run: sparecode audit check"
            )
    if not by_sequence:
        return "Audit log: no member has reported its head."
    newest = max(by_sequence)
    (head,) = by_sequence[newest]
    counted = sum(
        member.audit_sequence == newest and bool(member.audit_head)
        for member in cluster.members
    )
    return (
        f"Audit log: event {newest}, head {head[:_DIGEST_SHOWN]}, "
        f"identical on {counted} of {len(cluster.members)} members."
    )


def compare_digests(cluster: ClusterStatus) -> str:
    """Compare the digests at the same index; return the result."""
    by_index: dict[int, set[str]] = {}
    for member in cluster.members:
        if member.digest:
            by_index.setdefault(member.applied_index, set()).add(member.digest)
    if any(len(digests) > 1 for digests in by_index.values()):
        return "The states DIFFER at the same index: the state of a node is damaged."
    counted = sum(bool(member.digest) for member in cluster.members)
    if len(by_index) == 1 and counted == len(cluster.members):
        return f"All {counted} members have the same state."
    return (
        "Not all members could be compared at the same index. "
        "Those that could be compared have the same state."
    )
