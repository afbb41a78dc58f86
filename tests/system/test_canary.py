# SPDX-License-Identifier: Apache-2.0
"""Known secrets are driven through everything, and looked for in whatever is left."""

import base64
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from local_cluster.cluster import AGENT, LocalCluster, free_ports
from local_cluster.setup import set_up

from sparecode_client import (
    AdministratorRole,
    AuditExportFormat,
    BulkIssueRow,
    Decision,
    NewToken,
    NotSignedIn,
    PinRule,
    RecoveryPolicy,
    Refused,
    SparecodeError,
    TokenAlgorithm,
    TokenFileFormat,
)
from sparecode_node.domain.ids import Moment
from sparecode_node.domain.pins import unfolded
from sparecode_node.domain.tokencodes import Algorithm, HashName, TokencodeParameters
from sparecode_node.domain.tokencodes import tokencode_at as shown_at
from tests.system.canary_channels import FILE, all_told, serve_files, telling
from tests.system.canary_http import drive_http, serve_http
from tests.system.canary_operators import operate
from tests.system.canary_radius import drive_radius, serve_radius
from tests.system.collector import Collector, collecting
from tests.system.estate import Estate
from tests.written_secrets import forms

pytestmark = pytest.mark.timeout(300)

SEED = b"canary-seed-twenty-b"
OTHER_SEED = b"canary-seed-of-bob-b"
FILE_SEED = b"canary-seed-in-a-csv"
PIA_SEED = b"canary-seed-of-pia-b"
SPARE_SEED = b"canary-seed-spare-on"
DORA_SEED = b"canary-seed-of-dora-"
HANS_SEED = b"canary-seed-of-hans-"
PINS = ("90817263", "90827364", "92847465", "93847561", "95968778")
"""Long ones: fewer digits are found in times and hashes by chance."""
PIN, CHOSEN_PIN, WRONG_PIN, FOLDED_PIN, NAME_TYPED = PINS
PASSWORD = "canary password of an administrator"
WRONG_PASSWORD = "canary password that is wrong"
FILE_PASSWORD = "canary password of a file"
HOTP = TokencodeParameters(
    algorithm=Algorithm.HOTP, hash_name=HashName.SHA1, digits=8, period_s=0
)


KINDS = ("requests to a webhook", "messages by syslog", f"n1: {FILE}.jsonl")
"""Channels that tell every event."""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    """Return what traces are sent to."""
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def ports() -> list[int]:
    """Return the ports of one node for RADIUS over UDP and TLS, and for HTTP."""
    return free_ports(3)


@pytest.fixture(scope="module")
def cluster(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory, ports: list[int]
) -> Iterator[LocalCluster]:
    """Return a running cluster that logs and traces all, and makes snapshots often."""
    cluster = set_up(tmp_path_factory.mktemp("cluster"), testing=True)
    for node in cluster.nodes:
        node.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
        text = node.config.read_text()
        text = text.replace('level = "info"', 'level = "debug"')
        node.config.write_text(
            text.replace("[raft]", "[raft]\nlog_entries_max = 24\nlog_entries_kept = 8")
        )
    serve_files(cluster)
    serve_radius(cluster, ports[:2])
    serve_http(cluster, ports[2])
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@dataclass
class Driven:
    """The secrets sent to or by the cluster, which must show up nowhere."""

    codes: list[str] = field(default_factory=list)
    tokencodes: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    exports: dict[str, bytes] = field(default_factory=dict)


def tokencode(counter: int, seed: bytes = SEED) -> str:
    return shown_at(seed, HOTP, Moment(counter))


def folded(counter: int, pin: str) -> str:
    """Return what a PINpad token shows: the tokencode less the tens' complement."""
    complement = "".join(str(-int(digit) % 10) for digit in pin)
    return unfolded(tokencode(counter, PIA_SEED), complement)


async def add(estate: Estate, name: str, *, rule: PinRule, seed: bytes = SEED) -> None:
    await estate.admin.create_user(name)
    await estate.admin.update_user(name, email=f"{name}@example.com")
    await estate.admin.enroll_token(
        NewToken(
            serial=name,
            seed=seed,
            digits=8,
            algorithm=TokenAlgorithm.HOTP,
            pin_rule=rule,
        )
    )
    await estate.admin.assign_token(name, name)


async def drive(estate: Estate, ports: list[int]) -> Driven:
    """Type every secret into everything that takes one."""
    driven = Driven()
    await drive_tokens(estate, driven)
    await drive_issuing(estate, driven)
    await drive_next_steps(estate, driven)
    await drive_administrators(estate)
    await add(estate, "dora", rule=PinRule.PREPENDED, seed=DORA_SEED)
    await estate.admin.set_pin("dora", PIN)
    driven.shared.append(
        await drive_radius(
            estate,
            ports[:2],
            "dora",
            lambda counter: tokencode(counter, DORA_SEED),
            pin=PIN,
            wrong=[WRONG_PIN],
            chosen=CHOSEN_PIN,
        )
    )
    driven.tokencodes += [tokencode(counter, DORA_SEED) for counter in range(4)]
    await add(estate, "hans", rule=PinRule.PREPENDED, seed=HANS_SEED)
    await estate.admin.set_pin("hans", PIN)
    driven.shared += await drive_http(
        estate,
        ports[2],
        "hans",
        lambda counter: tokencode(counter, HANS_SEED),
        pin=PIN,
        wrong=[WRONG_PIN],
        chosen=CHOSEN_PIN,
    )
    driven.tokencodes += [tokencode(counter, HANS_SEED) for counter in range(4)]
    for form in AuditExportFormat:
        pieces: list[bytes] = []
        await estate.admin.export_audit_events(pieces.append, form=form)
        driven.exports[f"export as {form}"] = b"".join(pieces)
    return driven


async def drive_tokens(estate: Estate, driven: Driven) -> None:
    admin, agent = estate.admin, estate.any_agent
    await add(estate, "alice", rule=PinRule.PREPENDED)
    await admin.set_pin("alice", PIN)
    await add(estate, "pia", rule=PinRule.PINPAD, seed=PIA_SEED)
    await admin.set_pin("pia", FOLDED_PIN)
    with suppress(SparecodeError):
        await admin.set_pin("alice", PIN + "123456789")
    assert (await agent.authenticate("alice", PIN + tokencode(0))).accepted
    assert (await agent.authenticate("pia", folded(0, FOLDED_PIN))).accepted
    assert not (await agent.authenticate("alice", WRONG_PIN + tokencode(1))).accepted
    assert not (await agent.authenticate(NAME_TYPED, PIN + tokencode(1))).accepted
    await admin.resynchronize_token("alice", tokencode(20), tokencode(21))
    await admin.enroll_token(
        NewToken(
            serial="spare",
            seed=SPARE_SEED,
            digits=8,
            algorithm=TokenAlgorithm.HOTP,
            pin_rule=PinRule.PINPAD,
        )
    )
    await admin.replace_token("pia", "spare", keep_pin=True)
    rows = f"serial,seed,seed_format\nfrom-file,{FILE_SEED.hex()},hex\n"
    await admin.import_tokens(
        rows.encode(), form=TokenFileFormat.CSV, password=FILE_PASSWORD
    )
    driven.tokencodes += [tokencode(0), tokencode(1), tokencode(20), tokencode(21)]
    driven.tokencodes.append(folded(0, FOLDED_PIN))


async def drive_issuing(estate: Estate, driven: Driven) -> None:
    admin, agent = estate.admin, estate.any_agent
    issued = await admin.issue_tokencodes(
        "alice", count=3, recovery_policy=RecoveryPolicy.ALLOW_AND_DISABLE
    )
    generated = await admin.generate_tokencodes("alice", count=2)
    await admin.save_emergency_access(
        generated, keep_unused_codes=True, weaken_recovery_policy=True
    )
    driven.codes += [code.code for code in (*issued.codes, *generated.codes)]
    first, second, *_ = driven.codes
    assert (await agent.authenticate("alice", PIN + first)).accepted
    assert not (await agent.authenticate("alice", PIN + first)).accepted
    assert not (await agent.authenticate("alice", WRONG_PIN + second)).accepted
    assert not (await agent.authenticate("alice", PIN, resource=f"{AGENT}")).accepted
    fixed = await admin.issue_fixed_tokencode("alice", weaken_recovery_policy=True)
    driven.codes.append(fixed.code)
    with suppress(Refused, SparecodeError):
        bulk = await admin.bulk_issue_tokencodes([BulkIssueRow(serial="alice")])
        driven.codes += [code.code for row in bulk for code in row.codes]


async def drive_next_steps(estate: Estate, driven: Driven) -> None:
    await add(estate, "carl", rule=PinRule.PREPENDED, seed=OTHER_SEED)
    answer = await estate.any_agent.authenticate("carl", tokencode(0, OTHER_SEED))
    assert answer.decision is Decision.NEW_PIN_REQUIRED
    answer = await estate.any_agent.continue_authentication(
        answer, tokencode(1, OTHER_SEED), new_pin=CHOSEN_PIN
    )
    assert answer.accepted
    driven.tokencodes += [tokencode(0, OTHER_SEED), tokencode(1, OTHER_SEED)]


async def drive_administrators(estate: Estate) -> None:
    admin = estate.admin
    with suppress(SparecodeError):
        await admin.create_administrator(
            "eve", AdministratorRole.HELP_DESK, PASSWORD, username=None
        )
    with suppress(SparecodeError):
        await admin.change_password(PASSWORD, old_password=WRONG_PASSWORD)
    with pytest.raises(NotSignedIn):
        await admin.login("nobody", WRONG_PASSWORD)


def everything_left(cluster: LocalCluster, driven: Driven) -> dict[str, bytes]:
    """Return every file that the nodes have, but their configuration and certificates."""
    left = dict(driven.exports)
    for node in cluster.nodes:
        left[f"{node.node_id}: its log"] = node.log.read_bytes()
        for path in sorted(data_dir(node.config).rglob("*")):
            if path.is_file() and path != node.key_ring:
                left[f"{node.node_id}: {path.name}"] = path.read_bytes()
    return left


def data_dir(config: Path) -> Path:
    for line in config.read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "data_dir":
            return Path(value.strip().strip('"'))
    raise AssertionError("no data_dir")


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_no_secret_is_in_anything_that_is_left(
    cluster: LocalCluster, collector: Collector, tmp_path: Path, ports: list[int]
) -> None:
    """
    (T3, I9, P5) PINs, codes, tokencodes, seeds, passwords, sessions, at level DEBUG.

    And second factors, tickets, keys of the ring before and after a rotation, what opens
    backups and bundles; with the console, too. Not in databases, journals, snapshots,
    logs, traces, exports of the audit log, backups or bundles; not in what channels of
    any kind tell (N3); not as typed, grouped, in lower case, hexadecimal, UTF-16 or
    base64, wherever that begins.
    """
    async with Estate(cluster) as estate, telling(estate, tmp_path) as told:
        driven = await drive(estate, ports)
        operated = await operate(estate, tmp_path)
        await estate.until_equal()
        await all_told(estate, told)
        messages = told.messages()
        bearer = estate.admin._client.session
    cluster.stop()
    left = everything_left(cluster, driven)
    left |= operated.exports | messages
    left["traces"] = b"\n".join(collector.requests)
    assert b"AuthenticationService/Authenticate" in left["traces"]
    assert b"EmergencyAccessService/GenerateTokencodes" in left["traces"]
    assert {"recovery bundle", "backup 1", "backup 2"} <= set(left)
    assert len(operated.secrets) > 20
    assert all(b"SaveEmergencyAccess" in left[name] for name in KINDS)
    assert b"alice@example.com" in left["mails"]
    assert any("snapshot" in name for name in left), sorted(left)
    assert any("journal" in name for name in left), sorted(left)
    assert len(driven.codes) > 5
    secrets: list[str | bytes] = [
        *PINS,
        *driven.tokencodes,
        *driven.shared,
        *driven.codes,
        *(code.replace("-", "") for code in driven.codes),
        *(SEED, OTHER_SEED, FILE_SEED, PIA_SEED, SPARE_SEED, DORA_SEED, HANS_SEED),
        *(PASSWORD, WRONG_PASSWORD, FILE_PASSWORD, cluster.password),
        *([bearer] if bearer else []),
        *operated.secrets,
        *told.secrets,
    ]
    results = [
        f"{form!r} of {secret!r} in {name}"
        for secret in secrets
        for form in set(forms(secret))
        for name, content in left.items()
        if form in content
    ]
    assert results == []


def test_what_is_written_down_would_be_found() -> None:
    """The search itself: each form, in the middle of something else."""
    for secret in (PIN, "K7PM4XQ2", SEED):
        raw = secret if isinstance(secret, bytes) else secret.encode()
        for shift in range(6):
            text = b"x" * shift + raw + b"more of it"
            for written in (text, text.hex().encode(), base64.b64encode(text)):
                assert any(form in written for form in forms(secret)), (secret, written)
