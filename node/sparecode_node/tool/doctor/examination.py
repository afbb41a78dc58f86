# SPDX-License-Identifier: Apache-2.0
"""Runs all checks, in the order in which they depend on each other."""

import datetime as dt

from sparecode_node.config import Config
from sparecode_node.config_section import Address
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.own_tls import member_tls
from sparecode_node.membership.preparation import JOURNAL, STATE
from sparecode_node.replication.offline.inspection import is_in_use
from sparecode_node.rpc.tls import TlsFileError
from sparecode_node.services.ambient import Clock
from sparecode_node.tool.doctor.ages import check_ages
from sparecode_node.tool.doctor.archive import check_archive, check_copies
from sparecode_node.tool.doctor.files import check_certificates
from sparecode_node.tool.doctor.findings import Finding, Verdict, ok, warn
from sparecode_node.tool.doctor.hashing import check_hashing
from sparecode_node.tool.doctor.machine import (
    check_disk,
    check_peers,
    check_ports,
)
from sparecode_node.tool.doctor.membership import (
    check_authority,
    check_beginning,
    check_bundle,
    check_initialized,
    check_membership,
    check_older_copy,
    is_prepared,
    other_members,
    shown_hello,
    voters_among,
)
from sparecode_node.tool.doctor.notices import check_notices
from sparecode_node.tool.doctor.own_key import check_own_key
from sparecode_node.tool.doctor.radius import check_radius
from sparecode_node.tool.doctor.request_table import check_request_table
from sparecode_node.tool.doctor.ring import check_key_ring
from sparecode_node.tool.doctor.skips import check_stop
from sparecode_node.tool.doctor.state import check_journal, check_state


async def examine(config: Config, clock: Clock) -> list[Finding]:
    """Run every check, even if another one fails."""
    now = dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC)
    members = ", ".join(config.members)
    results = [
        ok("configuration", f"{config.path}: node {config.node.id} of {members}")
    ]
    results += check_disk(config.node.data_dir)
    results.append(check_hashing(config.kdf.threads))
    running = _is_running(config)
    udp = config.radius.listen if config.radius else ()
    results.append(check_ports(_addresses(config), udp=udp, running=running))
    results += check_certificates(config, now)
    ring, findings = check_key_ring(config)
    results += findings
    prepared = is_prepared(config, ring)
    journal, finding = check_journal(
        config.node.data_dir / JOURNAL,
        node_id=config.node.id,
        ring=ring,
        running=running,
        prepared=prepared,
    )
    results.append(finding)
    results += check_own_key(config, journal)
    beginning = list(check_beginning(config, ring))
    results += beginning
    results += check_membership(journal, NodeId(config.node.id))
    results += check_older_copy(config, journal)
    results += check_initialized(config, journal)
    results.append(check_authority(config))
    results.append(check_bundle(config))
    results += check_state(
        config.node.data_dir / STATE,
        # While the node runs, the journal and the state are read at different times.
        journal=None if running else journal,
        ring=ring,
        prepared=prepared,
    )
    results += check_archive(config.node.data_dir / STATE, config.audit_archive)
    results += check_copies(config.node.data_dir / STATE, round(now.timestamp() * 1000))
    results += check_request_table(config.node.data_dir / STATE)
    results += check_radius(config, running=running)
    results += check_stop(config)
    cluster_id = ring.cluster_id if ring is not None else ""
    results += check_ages(config.node.data_dir / STATE, now, cluster_id)
    results += check_notices(
        config.node.data_dir,
        config.node.data_dir / STATE,
        config.node.event_folder,
        now,
        running=running,
    )
    try:
        tls = member_tls(config, now)
    except TlsFileError:
        results.append(
            warn("members", "not checked: calling them needs a valid certificate")
        )
        return results
    others = other_members(config, journal, ring)
    own = NodeId(config.node.id)
    voters = voters_among({own, *others}, journal)
    if any(each.verdict is Verdict.FAIL for each in beginning):
        voters = frozenset()  # A node without data is in no quorum.
    return results + await check_peers(
        others,
        tls,
        clock,
        other_voters=voters - {own},
        votes=own in voters,
        hello=shown_hello(config, journal, ring),
    )


def _is_running(config: Config) -> bool:
    try:
        return is_in_use(config.node.data_dir / JOURNAL)
    except OSError:
        return False


def _addresses(config: Config) -> dict[str, Address]:
    listeners = {
        "agents": config.agents,
        "peers": config.peers,
        "admin": config.admin,
        "console": config.console,
        "radsec": config.radsec,
        "http": config.http,
        "metrics": config.metrics,
    }
    return {name: each.listen for name, each in listeners.items() if each is not None}
