# SPDX-License-Identifier: Apache-2.0
"""
A ring that a program wraps is useless without that program's key (P5).

A thief has the node's folders, `node.toml` and the program, and not the key in the
HSM, which stands here as a file outside of them. A node that cannot run the program
does not start, joins nothing and writes no ring in clear.
"""

import asyncio
import base64
import datetime as dt
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from local_cluster.cluster import free_ports
from typer.testing import CliRunner, Result

from sparecode_node.__main__ import app
from sparecode_node.config import TESTING, Config, load_config
from sparecode_node.daemon.node import Node
from sparecode_node.domain.ids import KeyId
from sparecode_node.membership.certificates import write_certificates
from sparecode_node.membership.preparation import NEW, WHOLE, StartError, ring_file
from sparecode_node.membership.recovery import RING, move
from sparecode_node.replication.links.key_exchange import CannotHoldError
from sparecode_node.rpc.tickets import PREFIX
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.keys import key_holder
from sparecode_node.services.keys.key_holder import KeyHolder
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.keyring_form import KEY_BYTES
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.ring import check_key_ring
from tests.services.wrapping_program import program

LONG_S = 60
"""A failure, whatever else the machine does."""


class Machine:
    """A machine of one node, whose ring is in `keys/`, and an HSM outside of it."""

    def __init__(self, folder: Path, tls: Path) -> None:
        self.tls, self.ports = tls, free_ports(3)
        self.folder, self.hsm = folder / "n1", folder / "hsm"
        self.hsm.mkdir(parents=True)
        self.folder.mkdir()
        self.command = str(program(self.hsm))
        self.ring = self.folder / "keys/ring.json"
        self.secret = folder / "secret"
        self.secret.touch(0o600)
        self.secret.write_text("correct horse battery staple\n")
        self.write(f'wrap_command = ["{self.command}"]')

    def write(self, keys: str) -> None:
        """Write node.toml."""
        listeners = "\n".join(
            f'[{name}]\nlisten = "127.0.0.1:{port}"\ncertificate = "{self.tls}/n1.pem"\n'
            f'key = "{self.tls}/n1.key"\n{ca}'
            for name, port, ca in (
                ("agents", self.ports[0], f'ca = "{self.tls}/agents-ca.pem"\n'),
                ("peers", self.ports[1], f'ca = "{self.tls}/members-ca.pem"\n'),
                ("admin", self.ports[2], ""),
            )
        )
        (self.folder / "node.toml").write_text(
            f'[node]\nid = "n1"\ndata_dir = "data"\n{listeners}\n'
            f'[cluster.members]\nn1 = "127.0.0.1:{self.ports[1]}"\n'
            f'[keys]\nfile = "keys/ring.json"\n{keys}\n[kdf]\nprofile = "testing"\n'
        )

    @property
    def config(self) -> Config:
        return load_config(self.folder / "node.toml")

    def run(self, *arguments: str | Path) -> Result:
        """Run a command of `sparecode-node`."""
        config = self.folder / "node.toml"
        return CliRunner().invoke(app, ["--config", str(config), *map(str, arguments)])

    def init(self) -> Result:
        return self.run(
            *("init", "--administrator", "root", "--password-file", self.secret)
        )

    def lose_key(self) -> None:
        (self.hsm / "program.key").unlink()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    now = dt.datetime.now(dt.UTC)
    write_certificates(folder, members=["n1"], agents=[], hosts=["127.0.0.1"], now=now)
    return folder


@pytest.fixture
def machine(tmp_path: Path, tls: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return a machine with a ring."""
    monkeypatch.setenv(TESTING, "1")
    machine = Machine(tmp_path, tls)
    ring_file(machine.config).save(KeyRing.draw(SystemEntropy()))
    return machine


def start_refusal(machine: Machine) -> str:
    node = Node(machine.config, clock=SystemClock(), entropy=SystemEntropy())
    with pytest.raises(StartError) as raised:
        asyncio.run(asyncio.wait_for(node.run(), LONG_S))
    return str(raised.value)


def test_nothing_on_the_machine_holds_a_key_of_the_ring(machine: Machine) -> None:
    machine.ring.unlink()
    made = machine.init()
    assert made.exit_code == 0, made.output
    ring = ring_file(machine.config).load()
    secrets = [
        base64.b64decode(each) for each in json.loads(ring.to_bytes())["keys"].values()
    ]
    files = [each for each in machine.folder.rglob("*") if each.is_file()]
    assert machine.ring in files
    for path in files:
        content = path.read_bytes()
        for secret in secrets:
            assert secret not in content, path
            assert base64.b64encode(secret) not in content, path
            assert secret.hex().encode() not in content, path
    # Only the program opens it: without its key, and with another one, nothing does.
    for key in ("00" * 32, ""):
        (machine.hsm / "program.key").write_text(key)
        with pytest.raises(KeyRingError):
            ring_file(machine.config).load()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (Machine.lose_key, "exit code 65: the key is lost; restore the key"),
        (lambda m: Path(m.command).unlink(), "No such file or directory: install it"),
        (lambda m: Path(m.command).write_text("#!/bin/sh\nsleep 60"), "within 1 s"),
        (lambda m: Path(m.command).write_text("#!/bin/sh\necho x"), "printed 2 bytes"),
        (lambda m: Path(m.command).write_text("#!/bin/sh\nyes"), "more than 16384"),
        (lambda m: m.write(""), r"\[keys\] wrap_command"),
    ],
    ids=["key lost", "no program", "hung", "garbage", "flood", "not configured"],
)  # fmt: skip
def test_node_does_not_start_without_it(machine: Machine, spoil, says: str) -> None:
    """It says in one line which file and which program, and what to do."""
    limit_s = 1 if "within" in says else 30
    machine.write(f'wrap_command = ["{machine.command}"]\nwrap_timeout_s = {limit_s}')
    before = machine.ring.read_bytes()
    spoil(machine)
    line = start_refusal(machine)
    assert re.search(says, line), line
    assert line.startswith(f"{machine.ring}: ")
    assert "\n" not in line
    assert machine.ring.read_bytes() == before
    ring, [finding] = check_key_ring(machine.config)
    assert ring is None
    assert (finding.verdict, finding.words) == (Verdict.FAIL, line)


def test_set_up_without_a_working_program_writes_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No ring, and none in clear; a ticket is not used up either."""
    machine.ring.unlink()
    machine.lose_key()
    refused = machine.init()
    assert refused.exit_code == 1
    assert "the key is lost" in refused.output
    assert not machine.ring.exists()
    assert not (machine.folder / "data/bootstrap.json").exists()

    def unexpected(*_: object) -> None:
        pytest.fail("the ticket was read")

    monkeypatch.setattr("sparecode_node.membership.joiner.from_text", unexpected)
    refused = machine.run("init", "--join", f"{PREFIX}x")
    assert "the key is lost" in refused.output


@pytest.mark.asyncio
async def test_no_key_is_rotated_that_the_program_cannot_wrap(
    machine: Machine,
) -> None:
    """The member refuses to hold the key, and its file stays as it was."""
    file = ring_file(machine.config)
    holder, before = KeyHolder(file.load(), file), machine.ring.read_bytes()
    machine.lose_key()
    with pytest.raises(CannotHoldError, match="the key is lost"):
        await holder.hold(bytes(KEY_BYTES), replaces=KeyId(1))
    assert machine.ring.read_bytes() == before


def test_rotated_key_is_only_in_the_wrapped_file(machine: Machine) -> None:
    file, key = ring_file(machine.config), bytes(range(KEY_BYTES))
    asyncio.run(KeyHolder(file.load(), file).hold(key, replaces=KeyId(1)))
    assert [each.key for each in file.load().waiting] == [key]
    assert base64.b64encode(key) not in machine.ring.read_bytes()


def test_restored_ring_is_wrapped_too(machine: Machine) -> None:
    """It waits in the data folder while a restore moves its files to their places."""
    file, data = ring_file(machine.config), machine.config.node.data_dir
    ring, new = file.load(), data / NEW
    new.mkdir(parents=True)
    waiting = file.beside(new / RING)
    waiting.save(ring.for_cluster("another"))
    assert waiting.is_settled()
    (new / WHOLE).touch()
    move(machine.config)
    assert file.is_settled()
    assert file.load().cluster_id == "another"


def test_doctor_names_the_program_and_tries_it(machine: Machine) -> None:
    _, [finding] = check_key_ring(machine.config)
    assert finding.verdict is Verdict.OK
    assert f"{machine.ring}, encrypted by {machine.command}: cluster" in finding.words
    text = Path(machine.command).read_text()
    Path(machine.command).write_text(text.replace("\nwrap) ", "\nwrap) exit 9 ;; w) "))
    _, [_, finding] = check_key_ring(machine.config)
    assert finding.verdict is Verdict.WARN
    assert "keys cannot be rotated: wrap command" in finding.words
    assert "exit code 9" in finding.words


# --- From one form to another


def keys_of(machine: Machine) -> bytes:
    return ring_file(machine.config).load().to_bytes()


def test_stopped_node_moves_to_a_program_and_back(machine: Machine) -> None:
    keys, earlier = keys_of(machine), machine.folder / "earlier.toml"
    for to in ('wrapping_key = "w.key"', f'wrap_command = ["{machine.command}"]', ""):
        earlier.write_bytes((machine.folder / "node.toml").read_bytes())
        machine.write(to)
        if not to:
            assert "wrap_command" in start_refusal(machine)
        done = machine.run("rewrap-ring", "--from", earlier)
        assert done.exit_code == 0, done.output
        assert f"is {ring_file(machine.config).protection()} now" in done.output
        assert ring_file(machine.config).is_settled()
        assert keys_of(machine) == keys
    assert json.loads(machine.ring.read_bytes())["keys"]


def test_failed_move_changes_nothing(machine: Machine) -> None:
    machine.write('wrapping_key = "w.key"')
    before = machine.ring.read_bytes()
    refused = machine.run("rewrap-ring")
    assert refused.exit_code == 1
    assert "[keys] wrap_command" in refused.output
    machine.write(f'wrap_command = ["{machine.command}"]')
    machine.lose_key()
    assert machine.run("rewrap-ring").exit_code == 1
    assert machine.ring.read_bytes() == before


@pytest.mark.asyncio
async def test_running_node_moves_when_it_is_reloaded(
    machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_holder, "RETRY_S", 0.01)
    caplog.set_level(logging.INFO)
    ring = ring_file(machine.config).load()
    holder = KeyHolder(ring, ring_file(machine.config))
    running = asyncio.create_task(holder.run())

    async def logs(event: str) -> None:
        async with asyncio.timeout(LONG_S):
            # No event reports a line of the log.
            while not any(each.msg == event for each in caplog.records):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        caplog.clear()

    try:
        # The program got another key: a reload is enough.
        (machine.hsm / "program.key").write_text("11" * 32)
        holder.rewrap(ring_file(machine.config))
        await logs("key_ring_wrapped")
        assert keys_of(machine) == ring.to_bytes()
        # It fails, so the file stays; as soon as it works, the node goes on.
        before = machine.ring.read_bytes()
        machine.lose_key()
        holder.rewrap(ring_file(machine.config))
        await logs("key_ring_not_saved")
        assert machine.ring.read_bytes() == before
        (machine.hsm / "program.key").write_text("22" * 32)
        await logs("key_ring_wrapped")
        assert keys_of(machine) == ring.to_bytes()
        # Back to a wrapping key.
        machine.write('wrapping_key = "w.key"')
        ring_file(machine.config).prepare(SystemEntropy())
        holder.rewrap(ring_file(machine.config))
        await logs("key_ring_wrapped")
        assert keys_of(machine) == ring.to_bytes()
        assert "key" not in json.loads(machine.ring.read_bytes())
        # A reload that changes nothing here writes nothing.
        holder.rewrap(ring_file(machine.config))
        assert not holder._changed.is_set()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.asyncio
async def test_node_starts_with_a_program_and_leaves_it_at_a_reload(
    machine: Machine,
) -> None:
    """The key of the program is gone by then: the node has the ring in memory."""
    machine.ring.unlink()
    made = await asyncio.to_thread(machine.init)
    assert made.exit_code == 0, made.output
    keys = keys_of(machine)
    node = Node(machine.config, clock=SystemClock(), entropy=SystemEntropy())
    running = asyncio.create_task(node.run())

    async def until(condition: Callable[[], bool]) -> None:
        # No event reports changes of files.
        async with asyncio.timeout(LONG_S):
            while not condition() and not running.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    await until(lambda: not (machine.folder / "data/bootstrap.json").exists())
    machine.lose_key()
    refused = machine.run("rewrap-ring")
    assert "is running and writes its key ring itself: reload it" in refused.output
    machine.write('wrapping_key = "w.key"')
    ring_file(machine.config).prepare(SystemEntropy())
    node.reload(machine.config)
    await until(lambda: "key" not in json.loads(machine.ring.read_bytes()))
    node.stop()
    assert await running == 0
    assert (
        KeyRing.from_bytes(keys_of(machine)).key_ids == KeyRing.from_bytes(keys).key_ids
    )
