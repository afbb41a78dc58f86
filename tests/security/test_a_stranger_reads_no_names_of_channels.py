# SPDX-License-Identifier: Apache-2.0
"""The metrics name channels only to callers with a token or a client certificate."""

import dataclasses
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from sparecode_node.daemon.metrics.access import OPEN, MetricsAccess
from sparecode_node.daemon.metrics.census import Census
from sparecode_node.daemon.metrics.collector import Sources
from sparecode_node.daemon.metrics.events import EventCounts
from sparecode_node.daemon.metrics.measures import Measures
from sparecode_node.daemon.metrics.observation import Observation
from sparecode_node.domain.notices import ChannelKind
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.services.access.security_log import SecurityLog
from sparecode_node.services.load.condition import Condition
from tests.services.one_node import OneNode, one_node

NAMES = ("siem-of-example", "warnings-of-example")


async def add_channels(node: OneNode) -> None:
    for name in NAMES:
        await node.channels.create(
            node.admin("NoticeService/CreateChannel"),
            name=name,
            kind=ChannelKind.SYSLOG,
            address="tcp+tls://siem.example",
        )


def scraped(node: OneNode, folder: Path, access: MetricsAccess, token: str) -> str:
    """Return what a scrape of the running listener reads."""
    sources = Sources(
        version="1",
        replica=ReplicaStatus,
        peers=list,
        condition=Condition(
            replicator=node.replicator,
            initialized=lambda: True,
            data_dir=folder,
            certificates=dict,
            clock=node.clock,
        ),
        kdf=node.kdf,
        events=EventCounts(folder / "local.db"),
        census=Census(node.replicator, node.clock),
        certificates=dict,
        security=SecurityLog(node.clock),
        radius_packets=dict,
        deliveries=lambda: {(NAMES[0], "delivered"): 3},
    )
    measures = Measures()
    measures.registry = CollectorRegistry()
    observation = Observation(sources, measures, ("127.0.0.1", 0), access)
    listener = observation._listener
    assert listener is not None
    listener.start()
    try:
        request = urllib.request.Request(
            f"http://127.0.0.1:{listener.port}/metrics",
            headers={"Authorization": f"Bearer {token}"} if token else {},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return str(answer.read().decode())
    finally:
        listener.stop()


@pytest.mark.asyncio
async def test_names_of_channels_need_a_token(tmp_path: Path) -> None:
    """Without one the channels have numbers, so that alerts still tell them apart."""
    (tmp_path / "token").write_text("secret\n")
    restricted = dataclasses.replace(OPEN, token_file=tmp_path / "token")
    async with one_node(tmp_path) as node:
        await add_channels(node)
        read = scraped(node, tmp_path, OPEN, "")
        assert not any(name in read for name in NAMES)
        for line in (
            'sparecode_notices_waiting{channel="1"}',
            'sparecode_notices_waiting{channel="2"}',
            'sparecode_notice_deliveries_total{channel="1",outcome="delivered"} 3.0',
        ):
            assert line in read
        told = scraped(node, tmp_path, restricted, "secret")
    for name in NAMES:
        assert f'sparecode_notices_oldest_timestamp_seconds{{channel="{name}"}}' in told
