# SPDX-License-Identifier: Apache-2.0
"""Certificates are replaced under load, without a restart and without a lost call."""

import asyncio
import dataclasses
import datetime as dt
import json
import os
import shutil
import signal
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from local_cluster.cluster import AGENT, LocalCluster, LocalNode
from local_cluster.setup import set_up
from prometheus_client.parser import text_string_to_metric_families

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_client import (
    AsyncAdmin,
    AsyncAgent,
    AuditFilter,
    NotPermitted,
    Refused,
    Unavailable,
)
from sparecode_client.connection.channels import LOOK_S
from sparecode_client.values.agents import certificate_fingerprint
from sparecode_node.membership.certificates import Authority, Issued
from sparecode_node.services.cluster.joining import fingerprint_of
from tests.system.estate import PATIENCE, PIN, Estate
from tests.system.runbook_operator import Operator

pytestmark = pytest.mark.asyncio

LISTENERS = {"agents", "peers", "admin", "console"}
SHORT = dt.timedelta(seconds=25)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Return a running cluster of which a test may spoil the certificates."""
    cluster = set_up(tmp_path / "cluster", testing=True)
    for node in cluster.nodes:
        text = node.config.read_text()
        node.config.write_text(text.replace('format = "text"', 'format = "json"'))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def authority(cluster: LocalCluster, name: str) -> Authority:
    files = (cluster.certificates / f"{name}.{end}" for end in ("pem", "key"))
    return Authority.from_pem(*(file.read_bytes() for file in files))


def put(path: Path, content: bytes) -> None:
    """Replace a file atomically, like programs that renew certificates."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.replace(path)


def put_issued(cluster: LocalCluster, name: str, issued: Issued) -> None:
    # Not together: the node must not take the one without the other.
    put(cluster.certificates / f"{name}.key", issued.key)
    put(cluster.certificates / f"{name}.pem", issued.certificate)


def renew_members(
    cluster: LocalCluster, signer: Authority, lives: dt.timedelta
) -> None:
    for node in cluster.nodes:
        issued = signer.issue_member(
            node.node_id,
            hosts=[node.ports.host],
            now=now(),
            days=lives / dt.timedelta(days=1),
        )
        put_issued(cluster, node.node_id, issued)


async def never_accepted(agent: AsyncAgent, passcode: str) -> None:
    """Call until a node turns the agent away: before, it may not know of the denial."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            assert not (await agent.authenticate("alice", passcode)).accepted


def hang_up(node: LocalNode) -> None:
    """Let a node read its configuration and certificates again (SIGHUP)."""
    assert node.pid is not None
    os.kill(node.pid, signal.SIGHUP)


def shown(cluster: LocalCluster, port: int) -> int:
    """Return the serial number of the certificate that a listener shows."""
    identity = (
        cluster.certificates / f"{AGENT}.pem",
        cluster.certificates / f"{AGENT}.key",
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(*identity)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def on_disk(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


async def until_shown(cluster: LocalCluster) -> None:
    """Return once every listener of every node shows what is on disk."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        for node in cluster.nodes:
            wanted = on_disk(cluster.certificates / f"{node.node_id}.pem")
            for listener in sorted(LISTENERS):
                port = getattr(node.ports, listener)
                while await asyncio.to_thread(shown, cluster, port) != wanted:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


async def all_shown(cluster: LocalCluster) -> dict[str, int]:
    """Return the serial number that each node shows to agents."""
    return {
        node.node_id: await asyncio.to_thread(shown, cluster, node.ports.agents)
        for node in cluster.nodes
    }


def metric_ends(node: LocalNode) -> set[float]:
    """Return when a node's own certificates end, by its metric."""
    url = f"http://{node.metrics_address}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "sparecode_certificate_not_after_timestamp_seconds"
        and sample.labels["certificate"] == "own"
    }


async def until_metrics_agree(cluster: LocalCluster) -> None:
    """Return once the metric of every node says what is on disk."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        for node in cluster.nodes:
            path = cluster.certificates / f"{node.node_id}.pem"
            ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
            while ends.timestamp() not in await asyncio.to_thread(metric_ends, node):  # noqa: ASYNC110
                await asyncio.sleep(0.1)


def log_lines(node: LocalNode, message: str) -> list[dict[str, str]]:
    lines = map(json.loads, node.log.read_text().splitlines())
    return [line for line in lines if line["message"] == message]


@asynccontextmanager
async def callers(estate: Estate, name: str = "busy"):
    """Let agents sign in without pause; none of their calls may fail."""
    holder = await estate.holder(name, codes=1)
    answered = [0]

    async def call(agent: AsyncAgent) -> None:
        while True:
            await agent.authenticate(name, "0000" + holder.codes[0])
            answered[0] += 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call(agent)) for agent in estate.agents.values()]
        yield answered
        for task in tasks:
            task.cancel()


async def more(answered: list[int], count: int) -> None:
    """Return after a number of further answers."""
    goal = answered[0] + count
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while answered[0] < goal:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_short_lived_certificates_are_replaced_without_a_lost_call(
    cluster: LocalCluster,
) -> None:
    """
    Three generations; the second lives for seconds, and has ended before the last call.

    It is found by itself, the third at SIGHUP. Callers see another certificate each
    time, the metric says when it ends, and the log said that it would.
    """
    signer = authority(cluster, "members-ca")
    generations = [await all_shown(cluster)]
    async with Estate(cluster) as estate, callers(estate) as answered:
        renew_members(cluster, signer, SHORT)
        await until_shown(cluster)
        generations.append(await all_shown(cluster))
        await until_metrics_agree(cluster)
        first_ends = now() + SHORT
        await more(answered, 30)
        renew_members(cluster, signer, dt.timedelta(minutes=5))
        for node in cluster.nodes:
            hang_up(node)
        await until_shown(cluster)
        generations.append(await all_shown(cluster))
        await until_metrics_agree(cluster)
        async with asyncio.timeout((SHORT + PATIENCE).total_seconds()):
            while now() < first_ends:
                await more(answered, 10)
        await more(answered, 60)
        await estate.until_all_reachable()
    for node in cluster.nodes:
        serials = {each[node.node_id] for each in generations}
        assert len(serials) == len(generations) == 3
    for node in cluster.nodes:
        renewed = log_lines(node, "certificate_renewed")
        assert {line["listener"] for line in renewed} == LISTENERS
        ending = log_lines(node, "certificate_ends")
        assert {line["listener"] for line in ending} == LISTENERS


@pytest.mark.timeout(300)
async def test_new_keys_wait_for_a_member_that_lags(cluster: LocalCluster) -> None:
    """
    (P5a) Two nodes get new keys while the third stands still, and it stays a member.

    It was the primary. Without the records it would refuse both, and neither could bring
    it the records.
    """
    signer = authority(cluster, "members-ca")
    async with Estate(cluster) as estate:
        holder = await estate.holder("alice", codes=1)
        await until_keys_recorded(cluster.nodes, 1)
        lagging = await estate.primary()
        changing = [node for node in cluster.nodes if node is not lagging]
        before = await all_shown(cluster)
        assert lagging.pid is not None
        os.kill(lagging.pid, signal.SIGSTOP)
        try:
            renew_members(cluster, signer, dt.timedelta(minutes=5))
            for node in changing:
                hang_up(node)
            await until_keys_recorded(changing, 2)
        finally:
            os.kill(lagging.pid, signal.SIGCONT)
        await until_shown(cluster)
        after = await all_shown(cluster)
        assert not set(before.values()) & set(after.values())
        agent = estate.agents[lagging.node_id]
        answer = await agent.authenticate("alice", PIN + holder.codes[0])
        assert answer.accepted
        await estate.until_all_reachable()


async def until_keys_recorded(nodes: list[LocalNode], count: int) -> None:
    """Return when each node has had this number of its keys recorded."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        for node in nodes:
            while len(log_lines(node, "member_key_recorded")) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_agent_shows_its_new_certificate_without_a_lost_call(
    cluster: LocalCluster,
) -> None:
    """
    Five minutes of it, put beside a running agent; then the old one is denied.

    What is denied accepts nothing, on open connections either: that each node goes
    on accepting shows that every connection is with the new certificate.
    """
    files = [cluster.certificates / f"{AGENT}.{end}" for end in ("pem", "key")]
    old = cluster.directory / "old-agent"
    old.mkdir()
    for path in files:
        shutil.copy(path, old)
    async with Estate(cluster) as estate, callers(estate, "busy-a") as answered:
        holder = await estate.holder("alice", codes=3)
        await more(answered, 30)
        issued = authority(cluster, "agents-ca").issue_agent(
            AGENT, now=now(), days=dt.timedelta(minutes=5) / dt.timedelta(days=1)
        )
        put_issued(cluster, AGENT, issued)
        assert on_disk(files[0]) != on_disk(old / files[0].name)
        put_at = now()
        while now() < put_at + 3 * dt.timedelta(seconds=LOOK_S):
            await more(answered, 10)
        await estate.admin.deny_certificate(
            fingerprint=certificate_fingerprint((old / files[0].name).read_bytes())
        )
        async with AsyncAgent(
            cluster.nodes[0].agents_address,
            ca=cluster.members_ca,
            certificate=old / files[0].name,
            key=old / files[1].name,
            timeout=PATIENCE,
        ) as stale:
            with pytest.raises(NotPermitted, match="deny list"):
                await never_accepted(stale, PIN + holder.codes[0])
        for code, agent in zip(holder.codes, estate.agents.values(), strict=True):
            assert (await agent.authenticate("alice", PIN + code)).accepted
        await more(answered, 60)


def knocks(node: LocalNode, certificate: Path) -> bool:
    """Return whether a certificate gets past the handshake of the peers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with (
        socket.create_connection((node.ports.host, node.ports.peers), 10) as plain,
        context.wrap_socket(plain) as secured,
    ):
        try:
            return secured.recv(1) != b""  # HTTP/2 begins with settings.
        except (ssl.SSLError, ConnectionError):
            return False


class Procedure:
    """The operator of a cluster, who follows the runbook on one node after the other."""

    def __init__(self, cluster: LocalCluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder

    async def everywhere(self, section: str) -> None:
        """Do what a section of the page says, on each node."""
        for node in self._cluster.nodes:
            await self.at(node, section)

    async def at(self, node: LocalNode, section: str) -> None:
        """Do what a section of the page says, on one machine."""
        operator = Operator(self._cluster, node, self._folder)
        await asyncio.to_thread(operator.follow, "new-authority.md", section)


async def until_recorded(admin: AsyncAdmin, node_id: str) -> None:
    """Return when a member has recorded that it has the authorities' keys."""
    wanted = AuditFilter(action="NoteAuthorityKeys", target=node_id)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not (await admin.list_audit_events(wanted)).items:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def until_none_is_due(admin: AsyncAdmin) -> None:
    """Return when no authority is due any more."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (await admin.get_status()).due_authorities:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def only_these_are_retired(admin: AsyncAdmin, old: Path) -> None:
    """Fail unless exactly the authorities in these files were retired, each once."""
    files = {kind: (old / f"{kind}-ca.pem").read_bytes() for kind in AUTHORITIES}
    expected = {
        f"{kind} {fingerprint_of(x509.load_pem_x509_certificate(pem).public_key())}"
        for kind, pem in files.items()
    }
    wanted = AuditFilter(action="RetireAuthority", outcome="applied")
    retired = (await admin.list_audit_events(wanted)).items
    assert sorted(each.target for each in retired) == sorted(expected), [
        (each.sequence, each.time, each.actor, each.target, each.detail)
        for each in retired
    ]


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_authorities_are_replaced_without_a_lost_call(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """
    (P6a) A member that has had their keys is removed; the operator follows the runbook.

    The cluster reminds until the end. Then the certificates of the old authorities, which
    may be in other hands, open no door.
    """
    gone = cluster.nodes[-1]
    rest = LocalCluster(cluster.directory, cluster.nodes[:-1], testing=True)
    old = shutil.copytree(cluster.certificates, cluster.directory / "old")
    procedure = Procedure(rest, tmp_path)
    async with Estate(rest) as estate:
        await until_recorded(estate.admin, gone.node_id)
        # The operator makes the new ones by hand, and no member makes successors.
        policy = await estate.admin.get_policy()
        await estate.admin.update_policy(
            dataclasses.replace(policy, replace_authorities_after_removal=False)
        )
        removal = await estate.admin.remove_member(gone.node_id)
        assert removal.due_authorities == ("members", "agents")
    await asyncio.to_thread(gone.stop)
    await procedure.at(rest.nodes[0], "Make the new authority")
    async with Estate(rest) as estate, callers(estate, "busy-2") as answered:
        await procedure.everywhere("Trust both authorities on every node")
        await _until_renewed(rest, 1)
        await more(answered, 30)
    async with Estate(rest) as estate, callers(estate, "busy-3") as answered:
        # Clients trust both by now. Nodes and agents show the new ones.
        await procedure.everywhere("New certificates on every node")
        await procedure.at(rest.nodes[0], "New certificates of agents")
        await until_shown(rest)
        await more(answered, 30)
        assert all(knocks(node, old / "n2.pem") for node in rest.nodes)
        status = await estate.admin.get_status()
        assert {each.node_id for each in status.due_authorities} == {gone.node_id}
    async with Estate(rest) as estate, callers(estate, "busy-4") as answered:
        await procedure.everywhere("Trust only the new authority on every node")
        await until_none_is_due(estate.admin)
        await more(answered, 30)
        await only_these_are_retired(estate.admin, old)
        await estate.until_all_reachable()
    assert not any(knocks(node, old / "n2.pem") for node in rest.nodes)
    async with AsyncAgent(
        rest.nodes[0].agents_address,
        ca=rest.members_ca,
        certificate=old / f"{AGENT}.pem",
        key=old / f"{AGENT}.key",
        timeout=dt.timedelta(seconds=2),
    ) as stranger:
        with pytest.raises(Unavailable):
            await stranger.authenticate("busy", "123456")


class Clients(LocalCluster):
    """The cluster, as agents and administrators with their own copies see it."""

    @property
    def members_ca(self) -> Path:
        """Their copy of the members' authority."""
        return self.directory / "clients-ca.pem"


async def until_trusted(admin: AsyncAdmin) -> str:
    """Return who has made the successors, once every member trusts them."""
    async with asyncio.timeout(2 * PATIENCE.total_seconds()):
        while True:
            status = await admin.get_status()
            made = {each.fingerprint for each in status.successors}
            if len(made) == len(AUTHORITIES) and all(
                made <= {*each.members_authorities, *each.agents_authorities}
                for each in status.members
            ):
                return status.successors[0].node_id
            await asyncio.sleep(0.2)


@pytest.mark.long
@pytest.mark.timeout(420)
async def test_the_cluster_replaces_its_authorities_without_a_lost_call(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    """
    (P6a) The removal starts it; the operator follows the runbook, under load.

    No node's file of authorities changes: the state says what is trusted, also after a
    restart. The old authorities then open no door.
    """
    gone = cluster.nodes[-1]
    rest = Clients(cluster.directory, cluster.nodes[:-1], testing=True)
    shutil.copy(cluster.members_ca, rest.members_ca)
    old = shutil.copytree(cluster.certificates, cluster.directory / "old")
    files = [cluster.certificates / f"{each}-ca.pem" for each in AUTHORITIES]
    before = [each.read_bytes() for each in files]
    procedure = Procedure(rest, tmp_path)
    async with Estate(rest) as estate, callers(estate, "busy-2") as answered:
        await until_recorded(estate.admin, gone.node_id)
        await estate.admin.remove_member(gone.node_id)
        await asyncio.to_thread(gone.stop)
        for node in rest.nodes:
            await no_certificate_makes_a_member(rest, node, cluster)
        name = await until_trusted(estate.admin)
        maker = next(node for node in rest.nodes if node.node_id == name)
        await more(answered, 30)
        with pytest.raises(Refused, match="shows a certificate"):
            await estate.admin.replace_authorities(gone.node_id, finish=True)
    await procedure.at(maker, "Give the successors to agents and administrators")
    with rest.members_ca.open("ab") as copy:
        copy.write((tmp_path / "new/members-ca.pem").read_bytes())
    async with Estate(rest) as estate, callers(estate, "busy-3") as answered:
        await procedure.everywhere("New certificates of the members")
        await until_shown(rest)
        await more(answered, 30)
        await procedure.at(maker, "New certificates of the agents")
        for end in ("key", "pem"):
            put(
                cluster.certificates / f"{AGENT}.{end}",
                (tmp_path / f"new/{AGENT}.{end}").read_bytes(),
            )
        await more(answered, 30)
        assert all(knocks(node, old / "n2.pem") for node in rest.nodes)
    async with Estate(rest) as estate, callers(estate, "busy-4") as answered:
        await estate.admin.replace_authorities(gone.node_id, finish=True)
        await until_none_is_due(estate.admin)
        await more(answered, 30)
        await only_these_are_retired(estate.admin, old)
    await asyncio.to_thread(rest.nodes[0].stop)
    await asyncio.to_thread(rest.nodes[0].start)
    await asyncio.to_thread(rest.wait_ready, rest.nodes[0])
    assert [each.read_bytes() for each in files] == before
    assert not any(knocks(node, old / "n2.pem") for node in rest.nodes)
    async with Estate(rest) as estate, callers(estate, "busy-5") as answered:
        await more(answered, 30)
        await estate.until_all_reachable()


async def no_certificate_makes_a_member(
    rest: Clients, called: LocalNode, cluster: LocalCluster
) -> None:
    """
    Attack a node as the removed machine does, in the name of another member (P5a).

    It has the authority's key, and so a certificate for any member. It asks for the
    ring's new key, moves the primary, begins a link, and announces its own successor.
    """
    other = next(each for each in rest.nodes if each is not called)
    forged = authority(cluster, "members-ca").issue_member(other.node_id, now=now())
    credentials = grpc.ssl_channel_credentials(
        (cluster.certificates / "members-ca.pem").read_bytes(),
        forged.key,
        forged.certificate,
    )
    name = f"{called.node_id}.members.sparecode"
    options = [("grpc.ssl_target_name_override", name)]
    address = f"{called.ports.host}:{called.ports.peers}"
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        stub = peers_pb2_grpc.PeerServiceStub(channel)
        for call in (
            stub.Link(iter(()), wait_for_ready=True),
            stub.FetchKey(peers_pb2.FetchKeyRequest(key_id=1)),
            stub.TransferPrimary(peers_pb2.TransferPrimaryRequest()),
            stub.Forward(peers_pb2.ForwardRequest()),
        ):
            assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
            assert await call.details() == "another key"


AUTHORITIES = ("members", "agents")


async def _until_renewed(cluster: LocalCluster, times: int) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        for node in cluster.nodes:
            while (  # noqa: ASYNC110
                len(
                    [
                        line
                        for line in log_lines(node, "certificate_renewed")
                        if line["listener"] == "peers"
                    ]
                )
                < times
            ):
                await asyncio.sleep(0.1)


async def test_what_cannot_be_used_is_said_and_the_old_one_stays(
    cluster: LocalCluster,
) -> None:
    """A key without its certificate, a certificate of another node, no PEM at all."""
    node = cluster.nodes[0]
    certificate = cluster.certificates / f"{node.node_id}.pem"
    before, pem = on_disk(certificate), certificate.read_bytes()
    for content, cause in (
        (b"nothing", "not a certificate (PEM)"),
        ((cluster.certificates / "n2.pem").read_bytes(), "not the key of"),
    ):
        put(certificate, content)
        hang_up(node)
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while cause not in str(log_lines(node, "certificate_refused")):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert shown(cluster, node.ports.agents) == before
    put(certificate, pem)


async def test_level_of_the_log_changes_and_the_rest_needs_a_restart(
    cluster: LocalCluster,
) -> None:
    """SIGHUP takes what may change, and names what it did not take."""
    node = cluster.nodes[0]
    text = node.config.read_text()
    changed = text.replace('level = "info"', 'level = "debug"')
    node.config.write_text(changed.replace("[admin]", "[admin]\nreflection = true"))
    hang_up(node)
    async with Estate(cluster) as estate:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while not log_lines(node, "call answered"):
                await estate.agents[node.node_id].authenticate("nobody", "123456")
    assert log_lines(node, "restart_needed")[0]["sections"] == "admin"
    node.config.write_text(text.replace("[node]", "[nodes]"))
    hang_up(node)
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not log_lines(node, "configuration_refused"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert node.running
