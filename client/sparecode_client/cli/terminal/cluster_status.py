# SPDX-License-Identifier: Apache-2.0
"""Lines and table rows about the cluster, for `status` and `watch`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sparecode_client.cli.terminal.exit_codes import ExitCode
from sparecode_client.cli.terminal.words import plural, show_second, show_time
from sparecode_client.values.cluster import (
    AuditArchive,
    AuditRetention,
    AuthoritySuccessor,
    ClusterStatus,
    DueAuthority,
    Member,
)

COLUMNS = ("Node", "Role", ">Term", ">Commit", ">Applied", ">Lag", ">Clock", "Version")
"""Columns about a member."""


def summary(status: ClusterStatus) -> str:
    """Return a one-line summary of the cluster."""
    cluster = status.cluster_id or "not initialized yet"
    primary = f"primary {status.primary}" if status.primary else "no primary known"
    quorum = "quorum reached" if status.quorum else "NO QUORUM"
    return f"Cluster {cluster}, seen from {status.node_id}: {primary}, {quorum}."


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the cluster survives the loss of a further member."""

    words: str
    style: str
    """How a terminal shows it, for `Output.say`."""
    exit_code: ExitCode


def health(status: ClusterStatus) -> Health:
    """Return how many further losses the cluster survives."""
    answering = f"{status.reachable_voters} of {plural(status.voters, 'voter')}"
    losses = status.survivable_losses
    if not status.quorum:
        return Health(
            f"{answering} can be reached, which is not a quorum: nothing can be changed.",
            "bold red",
            ExitCode.UNAVAILABLE,
        )
    if not losses:
        return Health(
            f"{answering} can be reached: the cluster survives no further loss.",
            "bold yellow",
            ExitCode.REFUSED,
        )
    return Health(
        f"{answering} can be reached: the cluster survives "
        f"{plural(losses, 'further loss', 'further losses')}.",
        "green",
        ExitCode.OK,
    )


def last_backup(status: ClusterStatus) -> str:
    """Return a line about the last backup."""
    if status.last_backup_time is None:
        return f"Last backup: none known to {status.node_id}."
    return (
        f"Last backup: {show_time(status.last_backup_time)}, with everything up to log "
        f"index {status.last_backup_index}."
    )


def reset_warnings(status: ClusterStatus) -> list[str]:
    """Return a warning about each requested reset of an administrator."""
    return [
        f"WARNING: root on {each.node_id} (user id {each.uid}) has requested a reset of "
        f"administrator {each.administrator}"
        f"{', with the second factor' if each.second_factor else ''}"
        f"{', who is disabled and becomes enabled' if each.enables else ''}. It takes effect "
        f"at {show_time(each.due_time)}. To cancel it, a super administrator signs in, "
        f"or runs: sparecode admins cancel-reset {each.administrator}"
        for each in status.pending_resets
    ]


def rotation_warnings(status: ClusterStatus) -> list[str]:
    """Return a warning if a removed member has had the active key."""
    if not status.rotation_due:
        return []
    words = (
        f"WARNING: {status.rotation_due} was removed and has had the ring's key. The "
        "primary replaces it as soon as every other member can be reached. To replace "
        "it now: sparecode cluster rotate-keys --at-once"
    )
    return [words]


def authority_warnings(status: ClusterStatus) -> list[str]:
    """Return a warning about each removed member whose authorities are due."""
    since = {each.node_id: each.since_time for each in status.due_authorities}
    return [
        f"WARNING: {node_id} was removed on {show_time(time)} and has had the keys of "
        f"the authorities for {due_kinds(status, node_id)}. {_next_step(status, node_id)} "
        "See docs/runbooks/new-authority.md. To record why they stay: sparecode cluster "
        f"keep-authorities {node_id} --reason REASON. {_trusting(status, node_id)}"
        for node_id, time in since.items()
    ]


_FETCHES = (
    "It fetches them from the other members: do not remove those meanwhile. If this "
    "stays, see its log for segment_not_stored, and run sparecode-node doctor on it."
)
_DOES_NOT_STORE = (
    "It does not answer. As long as it votes, the other members keep in their states what "
    "it has not stored, and grow: start it, or remove it."
)


def segment_warnings(status: ClusterStatus) -> list[str]:
    """Return a warning about each member that lacks older audit events, and about losses."""
    lines = [
        f"WARNING: {each.node_id} lacks segments {each.missing_segments} of the audit log. "
        + (_FETCHES if each.reachable else _DOES_NOT_STORE)
        for each in status.members
        if each.missing_segments
    ]
    if status.lost_segments:
        lines.append(
            f"Segments {status.lost_segments} of {status.sealed_segments} of the audit log "
            "were declared lost."
        )
    if status.found_segments:
        lines.append(
            f"A member has segments {status.found_segments} after all; the other members "
            "fetch them."
        )
    return lines


def retention_lines(status: ClusterStatus) -> list[str]:
    """Return what the archives of the audit log have, what they lack, and what is removed."""
    told = status.audit_retention
    if told is None:
        return []
    lines = [
        f"Audit archive of {each.archiver}: segments {each.segments or 'none'} in "
        f"{each.place}, since {show_second(each.confirm_time)}"
        + ("." if each.counts else "; it does not count: its node is silent.")
        for each in told.archives
        if each.confirm_time is not None
    ]
    lines += archive_warnings(told)
    if told.unarchived_segments:
        lines.append(
            f"Segments {told.unarchived_segments} of the audit log are not in "
            f"{plural(told.archives_wanted, 'archive')} yet, as the policy wants before "
            "it removes them."
        )
    return lines + retention_rules(told)


def archive_warnings(told: AuditRetention) -> list[str]:
    """Return a warning about each archive of a node that lags, fails or shares a folder."""
    nodes: dict[str, list[str]] = {}
    for each in told.archives:
        if each.folder:
            nodes.setdefault(each.folder, []).append(short_name(each.archiver))
    shared = [
        f"{_listed(names)} archive to one folder, which counts as one archive: give one of "
        "them another folder."
        for names in nodes.values()
        if len(names) > 1
    ]
    return shared + [
        f"WARNING: {_stalled(each)} See docs/audit-archive.md (Archiving has stopped)."
        for each in told.archives
        if each.late_segments or each.problem
    ]


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def short_name(archiver: str) -> str:
    """Return a node's id for a node, and all of its name for another archiver."""
    return archiver.removeprefix("node:")


def _stalled(archive: AuditArchive) -> str:
    node_id = short_name(archive.archiver)
    if not archive.late_segments:
        return (
            f"the archive of {node_id} in {archive.place} does not work: "
            f"{archive.problem}."
        )
    lacks = (
        f"{node_id} has not archived segments {archive.late_segments} of the audit log in "
        f"{archive.place}"
    )
    if archive.problem:
        return f"{lacks}: {archive.problem}."
    return f"{lacks}, though they were sealed more than two hours ago."


def retention_rules(told: AuditRetention) -> list[str]:
    """Return after what time segments are removed, and what was removed."""
    lines = []
    if told.retention is not None:
        words = f"{told.retention.days} days"
        begin = told.removal_begin_time
        later = begin is not None and begin > datetime.now(UTC)
        lines.append(
            f"Archived audit events are removed after {words}"
            + (f", and none before {show_second(begin)}." if later else ".")
        )
    if told.removed is not None:
        lines.append(
            f"Segments {told.removed_segments} of the audit log, events 1 to "
            f"{told.removed.last_sequence}, were removed by retention; archived by "
            f"{told.removed.archives or 'nobody, since they were lost'}."
        )
    return lines


def _next_step(status: ClusterStatus, node_id: str) -> str:
    """Return which step of the replacement is next (runbook new-authority.md)."""
    due = [each for each in status.due_authorities if each.node_id == node_id]
    if not all(each.started for each in due):
        return f"Next: sparecode cluster replace-authorities {node_id}."
    makers: dict[str, str] = {}
    for each in due:
        made = _trusted_successor(status, each)
        if made is None:
            return _waiting(status, each)
        makers[each.authority] = made.node_id
        if made.sole:
            return "Every member drops them within seconds."
    old = {each.fingerprint for each in due if each.authority == "members"}
    behind = [
        member.node_id
        for member in status.members
        if not member.shown_authorities or old & set(member.shown_authorities)
    ]
    where = " and ".join(
        f"{kind} on {maker}" for kind, maker in sorted(makers.items(), reverse=True)
    )
    if old and behind:
        return (
            f"Every member trusts their successors (keys: {where}). Next: give the new "
            "members' authority to agents and administrators. Then run on each of "
            f"{', '.join(behind)}: sparecode-node renew-certificate --new-authority."
        )
    return (
        f"Every member uses their successors (keys: {where}). Next: new certificates for "
        f"agents, then: sparecode cluster replace-authorities {node_id} --finish."
    )


def _trusted_successor(
    status: ClusterStatus, due: DueAuthority
) -> AuthoritySuccessor | None:
    """Return the successor of an authority that every member trusts."""
    members = {member.node_id for member in status.members}
    for each in status.successors:
        if (each.authority, each.replaces) != (due.authority, due.fingerprint):
            continue
        if each.node_id not in members:
            continue  # Its maker was removed, too: another member makes one.
        if all(
            each.fingerprint
            in (*member.members_authorities, *member.agents_authorities)
            for member in status.members
        ):
            return each
    return None


def _waiting(status: ClusterStatus, due: DueAuthority) -> str:
    announced = any(
        (each.authority, each.replaces) == (due.authority, due.fingerprint)
        for each in status.successors
    )
    if announced:
        return "A successor was announced, and not every member trusts it yet."
    return (
        f"A member that has the key of the authority for {due.authority} makes a successor "
        "within a minute. If no member has it, make new authorities yourself."
    )


def due_kinds(status: ClusterStatus, node_id: str) -> str:
    """Return the authorities that are due because of a member: `members and agents`."""
    kinds = (
        each.authority for each in status.due_authorities if each.node_id == node_id
    )
    return " and ".join(dict.fromkeys(kinds))


def _trusting(status: ClusterStatus, node_id: str) -> str:
    """Return which members still trust the authorities that are due."""
    due = {
        (each.authority, each.fingerprint)
        for each in status.due_authorities
        if each.node_id == node_id
    }
    trusting, silent = [], []
    for member in status.members:
        if not member.reachable or not member.members_authorities:
            silent.append(member.node_id)
        trusted = {("members", each) for each in member.members_authorities}
        trusted |= {("agents", each) for each in member.agents_authorities}
        if due & trusted:
            trusting.append(member.node_id)
    words = f"Still trusted by: {', '.join(trusting) or 'none that can be reached'}."
    return words + (f" Not known of: {', '.join(silent)}." if silent else "")


def bundle_warnings(status: ClusterStatus) -> list[str]:
    """
    Return a warning if no recovery bundle has the current keys.

    One current bundle is enough: the members with authorities' keys have the same ones.
    """
    states = {member.recovery_bundle for member in status.members}
    if "current" in states:
        return []
    export = (
        "On a node with the authorities' keys, run: sparecode-node bundle FILE, and keep "
        "the file offline"
    )
    words = ""
    if "outdated" in states:
        words = (
            "the recovery bundle is outdated. An authority or the ring's key was replaced "
            "after the last one was exported."
        )
    elif "missing" in states:
        words = (
            "there is no recovery bundle. Without one, the authorities' keys are lost with "
            "the machine that has them, and no backup can be restored."
        )
    return [f"WARNING: {words} {export}"] if words else []


def row(member: Member) -> list[str]:
    """Return a member's row of the table with `COLUMNS`."""
    if not member.reachable:
        return [member.node_id, "unreachable", *["-"] * 6]
    return [
        member.node_id,
        "?" if member.role is None else member.role.value,
        str(member.term),
        str(member.commit_index),
        str(member.applied_index),
        str(member.lag),
        "-" if member.clock_offset is None else _offset(member.clock_offset),
        member.version,
    ]


def _offset(offset: timedelta) -> str:
    return f"{offset / timedelta(milliseconds=1):+.0f} ms"
