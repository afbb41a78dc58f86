# SPDX-License-Identifier: Apache-2.0
"""Observing real nodes: metrics, probes, and the log as JSON."""

import asyncio
import http.client
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_cluster.cluster import AGENT, LocalCluster, LocalNode
from local_cluster.setup import set_up
from prometheus_client.parser import text_string_to_metric_families

from sparecode_client.values.notices import EventClass, new_webhook_secret
from sparecode_node.config import load_config
from sparecode_node.daemon.logs import SCHEMA
from sparecode_node.daemon.metrics.catalog import (
    CATALOG,
    RADIUS_PACKETS,
    SEGMENTS_UNARCHIVED,
    SNAPSHOT_SECONDS,
    Kind,
)
from sparecode_node.services.ambient import SystemClock
from sparecode_node.tool.doctor.examination import examine
from sparecode_node.tool.doctor.findings import Verdict
from tests.system.estate import PATIENCE, PIN, Estate

pytestmark = pytest.mark.asyncio

USER, SERIAL = "canaryuser", "serial-canaryuser"
RARE_METRICS = (
    RADIUS_PACKETS,
    SEGMENTS_UNARCHIVED,
    SNAPSHOT_SECONDS,
)
"""Shown only if there is a RADIUS client, an archive or a snapshot."""
CHANNEL, NOWHERE = "dead-end", "https://127.0.0.1:9/"
NUMBER = "1"
"""Stands for the name of the channel: the scrapes show no token."""
"""A channel whose receiver does not listen."""
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Return a running cluster that logs everything, as JSON."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True)
    for node in cluster.nodes:
        text = node.config.read_text()
        text = text.replace('level = "info"', 'level = "debug"')
        node.config.write_text(text.replace('format = "text"', 'format = "json"'))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def get(node: LocalNode, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(node.metrics_address, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def scrape(node: LocalNode) -> Samples:
    status, text = get(node, "/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((f"sparecode_{name}", frozenset(labels.items())))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def log_lines(node: LocalNode) -> list[dict[str, str]]:
    return [json.loads(line) for line in node.log.read_text().splitlines()]


async def test_metrics_show_events_and_name_no_user(cluster: LocalCluster) -> None:
    """Every metric of the catalog is there; no user, token or agent is in a label."""
    async with Estate(cluster) as estate:
        await estate.admin.create_channel(
            CHANNEL,
            NOWHERE,
            classes=tuple(EventClass),
            secret=new_webhook_secret(),
            allow_private=True,
        )
        holder = await estate.holder(USER, codes=3)
        first, second, _ = cluster.nodes
        agent = estate.agents[second.node_id]
        assert (await agent.authenticate(USER, PIN + holder.codes[0])).accepted
        assert not (await agent.authenticate(USER, PIN + holder.codes[0])).accepted
        for node, peer in ((first, "n2"), (second, "n1")):  # Each asks for itself.
            await until(lambda node=node, peer=peer: _knows(node, peer))
        await until(lambda: any(_has_tried(node) for node in cluster.nodes))
        await until(lambda: _serves(second))
        samples = scrape(second)
        await until(lambda: sum(_is_primary(node) for node in cluster.nodes) == 1)
    waiting = value(samples, "notices_waiting", channel=NUMBER)
    oldest_s = value(samples, "notices_oldest_timestamp_seconds", channel=NUMBER)
    assert waiting is not None
    assert oldest_s is not None
    assert waiting >= 1
    assert oldest_s > 0
    assert value(samples, "notices_dead", channel=NUMBER) == 0
    assert value(samples, "authentications_total", decision="accepted") == 1
    assert value(samples, "authentications_total", decision="refused") == 1
    called = {"listener": "agents", "method": "AuthenticationService/Authenticate"}
    assert value(samples, "calls_total", code="OK", **called) == 2
    for node in cluster.nodes:  # Every node applies the event, not only the called one.
        await until(
            lambda node=node: (
                value(
                    scrape(node),
                    "events_total",
                    action="Authenticate",
                    outcome="refused",
                    reason="code_not_live",
                )
                == 1
            )
        )
    names = {name for name, _ in samples}
    for metric in CATALOG:
        suffix = "_count" if metric.kind is Kind.HISTOGRAM else ""
        # None was here.
        rare = metric in RARE_METRICS
        assert rare or metric.name + suffix in names, metric.name
    labels = json.dumps([sorted(labels) for _, labels in samples])
    for secret in (USER, SERIAL, AGENT, PIN, *holder.codes, cluster.password):
        assert secret not in labels


def _knows(node: LocalNode, peer: str) -> bool:
    samples = scrape(node)
    return (
        value(samples, "peer_reachable", peer=peer) == 1
        and value(samples, "peer_clock_offset_seconds", peer=peer) is not None
    )


def _has_tried(node: LocalNode) -> bool:
    labels = {"channel": NUMBER, "outcome": "failed"}
    return (value(scrape(node), "notice_deliveries_total", **labels) or 0) > 0


def _serves(node: LocalNode) -> bool:
    samples = scrape(node)
    return value(samples, "ready") == value(samples, "primary_known") == 1


def _is_primary(node: LocalNode) -> bool:
    return value(scrape(node), "is_primary") == 1


async def test_every_line_of_the_log_has_the_schema_and_calls_have_request_ids(
    cluster: LocalCluster,
) -> None:
    """At debug, with a refusal and an accepted code: nothing secret either."""
    async with Estate(cluster) as estate:
        holder = await estate.holder("logged", codes=1)
        for agent in estate.agents.values():
            await agent.authenticate("logged", PIN + holder.codes[0])
    seen = set()
    for node in cluster.nodes:
        for line in log_lines(node):
            assert tuple(line)[: len(SCHEMA)] == SCHEMA
            assert line["node"] == node.node_id
            assert all(isinstance(each, str) for each in line.values())
            if line["message"] == "call answered" and "request_id" in line:
                seen.add(line["request_id"])
        text = node.log.read_text()
        for secret in (*holder.codes, cluster.password):
            assert secret not in text
            assert secret.replace("-", "") not in text
    assert len(seen) > 5


async def test_lost_quorum_is_not_ready_but_alive_and_a_new_primary_is_logged(
    cluster: LocalCluster,
) -> None:
    """Readiness goes with the quorum, liveness does not."""
    await until(lambda: any(_is_primary(node) for node in cluster.nodes))
    primary = next(node for node in cluster.nodes if _is_primary(node))
    one, two = (node for node in cluster.nodes if node is not primary)
    before = value(scrape(one), "primary_changes_total") or 0
    primary.kill()
    await until(lambda: (value(scrape(one), "primary_changes_total") or 0) > before)
    await until(lambda: get(one, "/readyz")[0] == 200)
    changes = [line for line in log_lines(one) if line["message"] == "primary_changed"]
    (first, *_) = (line for line in changes if line.get("before") == primary.node_id)
    assert first["primary"] in {one.node_id, two.node_id}
    two.kill()
    await until(lambda: get(one, "/readyz")[0] == 503)
    status, body = get(one, "/readyz")
    assert (status, json.loads(body)["ready"]) == (503, False)
    assert get(one, "/healthz") == (200, '{"alive": true}\n')
    primary.start()
    two.start()
    await asyncio.to_thread(cluster.wait_ready)
    await until(lambda: get(one, "/readyz")[0] == 200)


async def test_node_that_has_lost_its_disk_is_not_ready_and_says_why(
    cluster: LocalCluster,
) -> None:
    """Under its old id, with key ring and certificate; with its disk it serves again."""
    await until(lambda: any(_is_primary(node) for node in cluster.nodes))
    lost = next(node for node in cluster.nodes if not _is_primary(node))
    lost.stop()
    data = lost.directory / "data"
    kept = data.rename(lost.directory / "kept")
    lost.start()
    await until(lambda: _reason(lost) == "refused")
    problem = json.loads(get(lost, "/readyz")[1])["problems"][0]
    others = [each.node_id for each in cluster.nodes if each is not lost]
    assert any(each in problem for each in others)
    assert "remove this node from the cluster" in problem
    samples = scrape(lost)
    assert value(samples, "ready") == 0
    assert value(samples, "is_primary") == 0
    assert "docs/runbooks/blank-node.md" in await _refusal(lost)
    lost.stop()
    shutil.rmtree(data)
    kept.rename(data)
    lost.start()
    await asyncio.to_thread(cluster.wait_ready, lost)
    await until(lambda: get(lost, "/readyz")[0] == 200)


def _reason(node: LocalNode) -> str:
    """Return why a node is not ready; empty while its probes are not answered yet."""
    try:
        return str(json.loads(get(node, "/readyz")[1]).get("reason", ""))
    except OSError:
        return ""


async def _refusal(node: LocalNode) -> str:
    """Return what doctor says of a node that the others refuse, once one has answered."""
    config = load_config(node.config, node.environment)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            found = await examine(config, SystemClock())
            for each in found:
                if (each.subject, each.verdict) == ("members", Verdict.FAIL):
                    return each.words


async def test_metrics_are_for_this_machine_alone(cluster: LocalCluster) -> None:
    """The key ring's file is named nowhere, and the sample listens on loopback."""
    text = get(cluster.nodes[0], "/metrics")[1]
    assert str(cluster.directory) not in text
    sample = (Path(__file__).parents[2] / "deploy/node.toml").read_text()
    assert '# listen = "127.0.0.1:7303"' in sample
