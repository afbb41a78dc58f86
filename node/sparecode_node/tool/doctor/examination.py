# SPDX-License-Identifier: Apache-2.0
"""The whole examination, in the order in which its parts depend on each other."""

import datetime as dt

from sparecode_node.config import Config
from sparecode_node.config_section import Address
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.preparation import JOURNAL, STATE
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.offline.inspection import is_in_use
from sparecode_node.rpc.tls import TlsFileError, TlsFiles
from sparecode_node.services.ambient import Clock
from sparecode_node.tool.doctor.ages import look_at_ages
from sparecode_node.tool.doctor.files import look_at_certificates
from sparecode_node.tool.doctor.findings import Finding, ok, warn
from sparecode_node.tool.doctor.machine import (
    look_at_disk,
    look_at_peers,
    look_at_ports,
)
from sparecode_node.tool.doctor.membership import (
    look_at_authority,
    look_at_membership,
    others,
    voters_among,
)
from sparecode_node.tool.doctor.ring import look_at_key_ring
from sparecode_node.tool.doctor.state import look_at_journal, look_at_state


async def examine(config: Config, clock: Clock) -> list[Finding]:
    """Look at everything; a part that fails keeps no other from being looked at."""
    now = dt.datetime.fromtimestamp(clock.now_ms() / 1000, dt.UTC)
    members = ", ".join(config.members)
    found = [ok("configuration", f"{config.path}: node {config.node.id} of {members}")]
    found += look_at_disk(config.node.data_dir)
    running = _is_running(config)
    found.append(look_at_ports(_addresses(config), running=running))
    found += look_at_certificates(config, now)
    ring, findings = look_at_key_ring(config)
    found += findings
    journal, finding = look_at_journal(
        config.node.data_dir / JOURNAL,
        node_id=config.node.id,
        ring=ring,
        running=running,
    )
    found.append(finding)
    found += look_at_membership(journal, NodeId(config.node.id))
    found.append(look_at_authority(config))
    found += look_at_state(
        config.node.data_dir / STATE,
        # While the node runs, the journal was read at another moment.
        journal=None if running else journal,
        ring=ring,
    )
    found += look_at_ages(config.node.data_dir / STATE, now)
    try:
        files = TlsFiles.read(
            certificate=config.peers.certificate,
            key=config.peers.key,
            ca=config.peers.ca,
            now=now,
        )
    except TlsFileError:
        found.append(warn("members", "cannot be asked without a certificate"))
        return found
    tls = PeerTls(certificate=files.certificate, key=files.key, ca=files.ca or b"")
    asked = others(config, journal, ring)
    own = NodeId(config.node.id)
    voters = voters_among({own, *asked}, journal)
    return found + await look_at_peers(
        asked,
        tls,
        clock,
        other_voters=voters - {own},
        votes=own in voters,
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
        "metrics": config.metrics,
    }
    return {name: each.listen for name, each in listeners.items() if each is not None}
