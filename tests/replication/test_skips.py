# SPDX-License-Identifier: Apache-2.0
"""A node skips an entry only by the statements of a majority of the voters (E3)."""

import asyncio
import contextlib
import datetime as dt
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from sparecode_node.domain.agents import Certificate
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import MemberKey
from sparecode_node.membership.certificates import Authority
from sparecode_node.replication.codec import encode_entry
from sparecode_node.replication.errors import Fatal, ProposeError
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.log.format import Entry, Identity
from sparecode_node.replication.log.skip_statements import (
    WORDS_MAX,
    SkipStatement,
    StatementError,
    digest_of,
    from_text,
    sign,
    verify,
)
from sparecode_node.replication.log.skips import (
    EARLIER_MS,
    SHOWN_MAX,
    SkipFolder,
    Skips,
    SkipSettings,
    is_of_the_machine,
    may_be_skipped,
)
from sparecode_node.replication.members import Configuration, Member, key_in
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.statemachine.commands.cluster import RaiseFeatureLevel
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.skipping import ENTRY_SKIPPED, SkippedEntry
from tests.replication.cluster import Node, member_tls, running, until
from tests.replication.recording_state import RecordingState, call, proposal


def now_ms() -> int:
    """Return what clocks show."""
    return round(dt.datetime.now(dt.UTC).timestamp() * 1000)


NOW_MS = now_ms()
PATIENCE_S = 90
NOW = dt.datetime.now(dt.UTC)
AUTHORITY = Authority.create("members", now=NOW - dt.timedelta(days=9))
TLS = {member: member_tls(AUTHORITY, member) for member in ("n1", "n2", "n3", "n4")}
CALLS = (call("poison").stamped(NOW_MS),)
ENTRY: Entry = (b"\x00" + encode_entry(CALLS), 2, 1)


class PoisonedState(RecordingState):
    """Raises for one request, as a bug would."""

    def apply(self, index: int, calls: Any) -> tuple[Result, ...]:
        requests = {each.request.request_id for each in calls}
        if "poison" in requests - self.results.keys():
            raise ZeroDivisionError("a message with the password of ada")
        return super().apply(index, calls)

    def skip(self, entry: Any, calls: Any) -> tuple[Result, ...]:
        for each in calls:
            self.results.setdefault(each.request.request_id, ENTRY_SKIPPED)
        self.skipped += (entry,)
        return RecordingState.apply(self, entry.index, calls)


def statement(member: str = "n1", **fields: Any) -> SkipStatement:
    """Return a member's statement about the poison entry."""
    tls: PeerTls = fields.pop("tls", TLS[member])
    command, index, term = ENTRY
    unsigned = SkipStatement(
        cluster_id="test",
        index=index,
        term=term,
        digest=digest_of(command),
        member=member,
        operator="ada",
        reason="bug 7",
        at_ms=NOW_MS,
    )
    return sign(replace(unsigned, **fields), certificate=tls.certificate, key=tls.key)


class Here:
    """The skips of node n1 of three, whose state is before the poison entry."""

    def __init__(self, path: Path) -> None:
        self.folder = SkipFolder(path / "skips")
        self.state = PoisonedState()
        self.state.apply(1, ())
        self.voters = ("n1", "n2", "n3")
        self.authorities = AUTHORITY.pem

    def keep(self, *statements: SkipStatement) -> None:
        self.folder.path.mkdir(exist_ok=True)
        for each in statements:
            self.folder.file_of(each).write_text(each.to_text())

    def apply(self, entry: Entry = ENTRY) -> tuple[Result, ...]:
        return self.skips().apply(entry, CALLS)

    def skips(self) -> Skips:
        configuration = Configuration.of(
            Member(node_id=member, address="") for member in self.voters
        )
        journal: Any = type(
            "Journal",
            (),
            {
                "identity": Identity("test", "n1"),
                "configuration_at": lambda _self, _index: configuration,
                "has": lambda _self, index: index == 2,
                "entry": lambda _self, _index: ENTRY,
            },
        )()
        settings = SkipSettings(
            folder=self.folder, authorities=lambda: self.authorities
        )
        return Skips(settings, journal, self.state)


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path)


# --- What stops, and what goes on


def test_the_node_says_which_entry_stops_it_and_what_to_do(here: Here) -> None:
    """Without the message of the exception: it may be about a user (E3)."""
    with pytest.raises(Fatal) as raised:
        here.apply()
    words, digest = str(raised.value), digest_of(ENTRY[0])
    assert words.startswith(
        "applying entry 2 failed: ZeroDivisionError in test_skips.py"
    )
    assert "term 1 with 1 DeleteUser" in words
    assert f"skip-entry --index 2 --digest {digest} --reason" in words
    assert "password" not in words
    assert "\n" not in words
    stop = here.folder.stop()
    assert stop is not None
    assert stop.words() == words


def test_one_statement_of_three_is_not_enough(here: Here) -> None:
    """Not even this node's own (E3)."""
    here.keep(statement("n1"))
    with pytest.raises(Fatal, match=r"1 of 2 statements .* \(n1\).* n2, n3, .*--add"):
        here.apply()
    assert here.state.applied_index == 1


def test_a_majority_skips_the_entry(here: Here) -> None:
    """Also without this node's own statement (E3)."""
    here.keep(statement("n2"), statement("n3"))
    assert here.apply() == (ENTRY_SKIPPED,)
    assert here.state.applied_index == 2


def test_a_signed_entry_is_not_applied_by_a_release_that_could(here: Here) -> None:
    """The other nodes may have skipped it (E3)."""
    here.state = RecordingState()
    here.state.apply(1, ())
    here.keep(statement("n1"))
    with pytest.raises(Fatal, match="1 of 2 statements"):
        here.apply()


def test_two_of_four_are_no_majority(here: Here) -> None:
    here.voters = ("n1", "n2", "n3", "n4")
    here.keep(statement("n1"), statement("n2"))
    with pytest.raises(Fatal, match="2 of 3 statements"):
        here.apply()


# --- Statements that do not count


def forged(signer: str, **fields: Any) -> SkipStatement:
    """Return a statement that says something else than what was signed."""
    return replace(statement(signer), **fields)


def of_another_authority() -> SkipStatement:
    authority = Authority.create("members", now=dt.datetime.now(dt.UTC))
    return statement("n2", tls=member_tls(authority, "n2"))


def of_an_agent() -> SkipStatement:
    issued = AUTHORITY.issue_agent("vpn", now=dt.datetime.now(dt.UTC))
    return statement(
        "n2", tls=PeerTls(certificate=issued.certificate, key=issued.key, ca=b"")
    )


def before_the_entry() -> SkipStatement:
    """Return one of a time at which its certificate was valid."""
    issued = AUTHORITY.issue_member("n2", now=NOW - dt.timedelta(days=3))
    tls = PeerTls(certificate=issued.certificate, key=issued.key, ca=AUTHORITY.pem)
    at_ms = NOW_MS - EARLIER_MS - 1
    assert verify(statement("n2", tls=tls, at_ms=at_ms), AUTHORITY.pem)
    return statement("n2", tls=tls, at_ms=at_ms)


BAD = {
    "another entry's index": lambda: statement("n2", index=3),
    "another term": lambda: statement("n2", term=2),
    "another digest": lambda: statement("n2", digest="0" * 64),
    "another cluster": lambda: statement("n2", cluster_id="other"),
    "changed after signing": lambda: forged("n2", reason="another"),
    "moved to this entry": lambda: replace(
        statement("n2", digest="0" * 64), digest=digest_of(ENTRY[0])
    ),
    "another member's key": lambda: statement("n2", tls=TLS["n1"]),
    "another member's name": lambda: forged("n1", member="n2"),
    "no voter": lambda: statement("n4"),
    "another authority": of_another_authority,
    "an agent": of_an_agent,
    "before the entry": before_the_entry,
    "an expired certificate": lambda: statement("n2", at_ms=NOW_MS + 10**11),
    "no certificate": lambda: forged("n2", certificate="nonsense"),
    "a time that is none": lambda: statement("n2", at_ms=10**18),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_statement_that_does_not_count(here: Here, bad: Any) -> None:
    """With a good one it is still one too few (E3)."""
    here.state.now_ms = NOW_MS
    here.keep(statement("n1"))
    here.folder.path.joinpath("bad.statement").write_text(bad().to_text())
    with pytest.raises(Fatal, match=r"1 of 2 statements .* \(n1\)"):
        here.apply()


def test_two_statements_of_one_member_count_once(here: Here) -> None:
    here.keep(statement("n1"))
    again = here.folder.path / "again.statement"
    again.write_text(statement("n1", operator="eve").to_text())
    with pytest.raises(Fatal, match="1 of 2 statements"):
        here.apply()


def test_a_denied_certificate_does_not_count(here: Here) -> None:
    """By the deny list before the entry (E3)."""
    second = statement("n2")
    here.state.denied.add(verify(second, AUTHORITY.pem).fingerprint)
    here.keep(statement("n1"), second)
    with pytest.raises(Fatal, match="1 of 2 statements"):
        here.apply()


def test_another_key_than_the_recorded_one_does_not_count(here: Here) -> None:
    """(P5a) Who has the authority's key makes a certificate for each member (E3)."""
    keys = {NodeId(m): key_in(TLS[m].certificate) for m in ("n1", "n2")}
    here.state.member_keys = {m: MemberKey(fingerprint=k) for m, k in keys.items()}
    forged = statement("n2", tls=member_tls(AUTHORITY, "n2"))
    here.keep(statement("n1"), forged)
    with pytest.raises(Fatal, match="1 of 2 statements"):
        here.apply()
    here.keep(statement("n1"), statement("n2"))
    here.apply()


def test_an_authority_counts_while_it_is_trusted(here: Here) -> None:
    """(P6a) It may be replaced while the node runs."""
    here.keep(statement("n1"), statement("n2"))
    skips = here.skips()
    here.authorities = Authority.create("members", now=NOW).pem
    with pytest.raises(Fatal):
        skips.apply(ENTRY, CALLS)
    here.authorities += AUTHORITY.pem
    skips.apply(ENTRY, CALLS)


def test_bad_statements_alone_stop_no_healthy_node(here: Here) -> None:
    """A file that counts for nothing must not keep the node from applying the entry."""
    here.state = RecordingState()
    here.state.apply(1, ())
    here.keep(of_another_authority())
    (here.folder.path / "garbage.statement").write_text("[]")
    assert here.apply() != (ENTRY_SKIPPED,)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        json.dumps({**json.loads(statement().to_text()), "index": "2"}),
        json.dumps({**json.loads(statement().to_text()), "more": 1}),
        statement(reason="x" * (WORDS_MAX + 1)).to_text(),
        statement(reason="\x1b[2J").to_text(),
        statement(operator="\ud800").to_text(),  # Recording it would raise.
    ],
)
def test_a_text_that_is_no_statement_is_refused(text: str) -> None:
    with pytest.raises(StatementError):
        from_text(text)


def test_a_statement_comes_back_from_its_text() -> None:
    one = statement()
    assert from_text(one.to_text()) == one


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_an_authority_of_the_operators_own_may_use_any_common_key(key: Any) -> None:
    """Its certificates need only what TLS between members needs."""
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "own")])
    signer = ec.generate_private_key(ec.SECP256R1())
    begun = (
        x509.CertificateBuilder()
        .issuer_name(name)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
    )
    root = (
        begun.subject_name(name)
        .public_key(signer.public_key())
        .serial_number(1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(signer.public_key()),
            critical=False,
        )
        .add_extension(_may_sign(), critical=True)
        .sign(signer, hashes.SHA256())
    )
    uri = x509.UniformResourceIdentifier("sparecode://member/n2")
    leaf = (
        begun.subject_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(2)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=True)
        .sign(signer, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    tls = PeerTls(
        certificate=leaf.public_bytes(pem),
        key=key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        ca=root.public_bytes(pem),
    )
    certificate = verify(statement("n2", tls=tls), tls.ca)
    assert certificate == Certificate(
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(), serial_number="2"
    )


def _may_sign() -> x509.KeyUsage:
    names = (
        *("digital_signature", "content_commitment", "key_encipherment"),
        *("data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(
        **dict.fromkeys(names, False), key_cert_sign=True, crl_sign=True
    )


# --- What other members show

SHOWN = ((2, digest_of(ENTRY[0])),)


def test_a_member_that_has_applied_a_skipped_entry_is_told_apart(here: Here) -> None:
    """Before and after this node has skipped it (E3)."""
    here.keep(statement("n1"), statement("n2"))
    assert here.skips().skipped() == SHOWN
    for _ in range(2):
        assert here.skips().differ("n3", 2, ())
        assert not here.skips().differ("n3", 1, ())
        assert not here.skips().differ("n3", 2, SHOWN)
        assert here.skips().differ("n3", 2, ((2, "0" * 64),))
        if here.state.applied_index == 1:
            here.apply()


def test_a_node_that_has_applied_what_a_member_skips_is_told_apart(here: Here) -> None:
    """It may have told a caller so: only the majority can say who is right (E3)."""
    here.state = RecordingState()
    here.state.apply(1, ())
    skips = here.skips()
    skips.apply(ENTRY, CALLS)
    assert skips.differ("n2", 1, SHOWN)
    assert not skips.differ("n2", 2, ())


def test_a_node_applies_no_entry_that_a_member_skips(here: Here) -> None:
    """Its release could, and the states would differ (E3)."""
    here.state = RecordingState()
    here.state.apply(1, ())
    skips = here.skips()
    assert not skips.differ("n2", 1, SHOWN)
    with pytest.raises(Fatal, match=r"n2 skips entry 2.*--add"):
        skips.apply(ENTRY, CALLS)
    other = here.skips()
    assert not other.differ("n2", 1, ((2, "0" * 64),))
    other.apply(ENTRY, CALLS)


@pytest.mark.parametrize(
    ("command", "calls"), [(b"\x01", ()), (b"\x00" + encode_entry(()), ())]
)
def test_a_stranger_stops_no_node_at_an_entry_that_can_be_guessed(
    here: Here, command: bytes, calls: tuple[Any, ...]
) -> None:
    """A new primary's first entry is alike in all clusters, and no node skips it (E3)."""
    here.state = RecordingState()
    here.state.apply(1, ())
    skips = here.skips()
    assert not skips.differ("stranger", 0, ((2, digest_of(command)),))
    skips.apply((command, 2, 1), calls)
    assert here.state.applied_index == 2


def test_what_a_node_shows_fills_no_memory(here: Here) -> None:
    """A node with a certificate may open link after link."""
    skips = here.skips()
    for first in range(10, 1000, SHOWN_MAX):
        shown = [(first + k, "0" * 64) for k in range(SHOWN_MAX)]
        assert not skips.differ("stranger", 0, shown)
    assert not skips.differ("n2", 1, SHOWN)
    kept = skips._skipped_elsewhere
    assert {peer: len(shown) for peer, shown in kept.items()} == {
        "stranger": SHOWN_MAX,
        "n2": 1,
    }


def test_old_entries_that_are_not_shown_any_more_do_no_harm(here: Here) -> None:
    here.state.applied_index = 100
    here.state.skipped = tuple(
        SkippedEntry(index=index, term=1, digest=f"{index:064}", cluster_id="test")
        for index in range(1, SHOWN_MAX + 4)
    )
    all_of_them = here.skips().skipped()
    assert not here.skips().differ("n2", 100, all_of_them[-SHOWN_MAX:])
    assert here.skips().differ("n2", 100, all_of_them[-SHOWN_MAX + 1 :])


# --- What is no poison


def disk_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError(f"error {code}")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "is_machine"),
    [
        (OSError(28, "No space left on device"), True),
        (MemoryError(), True),
        (disk_error(sqlite3.SQLITE_FULL), True),
        (disk_error(sqlite3.SQLITE_IOERR | 7 << 8), True),
        (sqlite3.OperationalError("of unknown cause"), True),
        (disk_error(sqlite3.SQLITE_ERROR), False),
        (disk_error(sqlite3.SQLITE_CONSTRAINT), False),
        (OverflowError(), False),
        (KeyError("ada"), False),
    ],
    ids=repr,
)
def test_a_failure_of_the_machine_is_not_the_entrys(
    here: Here, error: Exception, is_machine: bool
) -> None:
    """An operator must not skip an entry because a disk is full (E3)."""

    def fail(_index: int, _calls: object) -> None:
        raise error

    here.state.apply = fail  # type: ignore[assignment,method-assign]
    assert is_of_the_machine(error) == is_machine
    with pytest.raises(type(error) if is_machine else Fatal):
        here.apply()
    assert (here.folder.stop() is None) == is_machine


def test_some_commands_are_never_skipped(here: Here) -> None:
    """The log after them would mean something else (E3)."""
    level = replace(CALLS[0], command=RaiseFeatureLevel(level=2))
    assert may_be_skipped(CALLS)
    assert not may_be_skipped((*CALLS, level))
    assert not may_be_skipped(())


# --- Three nodes, with their network and files


class Cluster:
    """Three nodes in one process, each with a folder for statements."""

    def __init__(self, nodes: list[Node], directory: Path) -> None:
        self.nodes = nodes
        self.folders = [SkipFolder(directory / f"skips-{n.node_id}") for n in nodes]
        for node, folder in zip(nodes, self.folders, strict=True):
            folder.path.mkdir()
            node.config = replace(node.config, skip_folder=folder)

    async def start(self, *numbers: int) -> None:
        """Start nodes; the first is number 0."""
        await asyncio.gather(*(self.nodes[number].start() for number in numbers))

    async def fallen(self, *numbers: int, least: int = 1) -> list[str]:
        """Wait until some of these nodes have stopped themselves; stop all of them."""
        nodes = [self.nodes[number] for number in numbers]
        async with asyncio.timeout(PATIENCE_S):
            await until(lambda: sum(bool(node.fatal) for node in nodes) >= least)
        await asyncio.gather(*(node.stop() for node in nodes))
        words = [each for node in nodes for each in node.fatal]
        for node in nodes:
            node.fatal.clear()
        return words

    async def told(self, number: int, request: str) -> Result:
        """Propose on a node until the outcome is known."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(ProposeError):
                    return await self.nodes[number].replicator.propose(
                        proposal(request, self.nodes[number].node_id),
                        timeout_s=PATIENCE_S,
                    )

    async def poison(self) -> None:
        """Propose the request that stops nodes, and do not wait for its outcome."""
        proposed = asyncio.create_task(self.told(0, "poison"))
        async with asyncio.timeout(PATIENCE_S):
            await until(lambda: any(node.fatal for node in self.nodes))
        proposed.cancel()
        await asyncio.gather(proposed, return_exceptions=True)

    def sign(self, *numbers: int) -> list[SkipStatement]:
        """Return the statements of nodes about the entry that has stopped some."""
        stop = next(each for folder in self.folders if (each := folder.stop()))
        return [
            statement(
                self.nodes[number].node_id,
                tls=self.nodes[number].config.tls,
                index=stop.index,
                term=stop.term,
                digest=stop.digest,
                # The certificates are younger than this module.
                at_ms=now_ms(),
            )
            for number in numbers
        ]

    def give(self, number: int, *statements: SkipStatement) -> None:
        """Put statements into the folder of a node."""
        for each in statements:
            self.folders[number].file_of(each).write_text(each.to_text())

    def ready(self, number: int) -> bool:
        """Return whether a node serves."""
        return self.nodes[number].replicator.ready


@contextlib.asynccontextmanager
async def three(directory: Path, *states: RecordingState) -> AsyncIterator[Cluster]:
    """Run three nodes with these states."""
    async with running(directory) as nodes:
        await asyncio.gather(*(node.stop() for node in nodes))
        for node, state in zip(nodes, states, strict=True):
            state.deserialize(node.state.serialize())
            node.state = state
        cluster = Cluster(nodes, directory)
        await cluster.start(0, 1, 2)
        yield cluster


@pytest.mark.asyncio
async def test_three_nodes_stop_and_go_on_once_two_have_signed(tmp_path: Path) -> None:
    """One statement is not enough; a node without statements stops (E3)."""
    states = PoisonedState(), PoisonedState(), PoisonedState()
    async with three(tmp_path, *states) as cluster:
        await cluster.told(0, "before")
        await cluster.poison()
        await cluster.fallen(0, 1, 2, least=2)
        first, second = cluster.sign(0, 1)

        cluster.give(0, first)
        cluster.give(1, first)
        await cluster.start(0, 1)
        assert "1 of 2 statements" in (await cluster.fallen(0, 1))[0]

        cluster.give(0, second)
        cluster.give(1, second)
        await cluster.start(0, 1)
        assert await cluster.told(1, "poison") == ENTRY_SKIPPED
        await cluster.told(0, "after")

        await cluster.start(2)
        (words,) = await cluster.fallen(2)
        assert "n1 skips entry" in words or "n2 skips entry" in words
        cluster.give(2, first, second)
        await cluster.start(2)
        async with asyncio.timeout(PATIENCE_S):
            await until(lambda: all("after" in state.results for state in states))
        assert len({state.digest() for state in states}) == 1
        assert "entry_skipped" in states[0].digest()


@pytest.mark.asyncio
async def test_a_node_that_has_applied_a_skipped_entry_is_left_out(
    tmp_path: Path,
) -> None:
    """The majority goes on; the node is not ready, and takes part in nothing (E3)."""
    states = PoisonedState(), PoisonedState(), RecordingState()
    async with three(tmp_path, *states) as cluster:
        n3 = cluster.nodes[2].replicator
        await cluster.told(2, "before")
        async with asyncio.timeout(PATIENCE_S):
            while n3.primary != "n3":
                with contextlib.suppress(ProposeError):
                    await n3.transfer_primary(NodeId("n3"), timeout_s=PATIENCE_S)
        await cluster.poison()
        await cluster.fallen(0, 1, least=2)
        assert states[2].results["poison"] != ENTRY_SKIPPED
        statements = cluster.sign(0, 1)
        for number in (0, 1):
            cluster.give(number, *statements)
        await cluster.start(0, 1)
        assert await cluster.told(0, "poison") == ENTRY_SKIPPED
        await cluster.told(1, "after")
        why = {Refusal.OTHER_STATE.value}
        async with asyncio.timeout(PATIENCE_S):
            await until(lambda: set(n3.refusals.values()) == why)
            await until(lambda: not cluster.ready(2) and n3.primary is None)
        assert cluster.ready(0)
        assert cluster.ready(1)
        assert "after" not in states[2].results
