# SPDX-License-Identifier: Apache-2.0
"""
`sparecode-node setup`: what it writes, asks and starts.

tests/docs/test_quick_start.py sets up three nodes with it, one by one with tickets.
"""

import os
import pwd
import select
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparecode_client import Admin
from sparecode_node.__main__ import app
from sparecode_node.config import load_config
from sparecode_node.config_section import Address
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.node_file import (
    SYSTEM,
    Places,
    listening_host,
    node_settings,
    node_toml,
    places_in,
)
from sparecode_node.membership.preparation import StartError
from sparecode_node.rpc.tickets import from_text, to_text
from sparecode_node.services.secrets.tickets import JoinTicket
from sparecode_node.tool import new_node
from sparecode_node.tool.new_node import read_address
from tests.system.machines import PASSWORD, PATIENCE_S, until
from tests.system.runbook_operator import new_machine

EVERYWHERE = "0.0.0.0"  # noqa: S104
TICKET = JoinTicket(
    secret=b"0123456789abcdef",
    node_id=NodeId("n2"),
    cluster_id="c",
    authorities=(b"not an authority",),
    members=((NodeId("n1"), "127.0.0.11:7301"),),
    ends_at_ms=1,
    address="127.0.0.12:7311",
    hosts=("auth.example.net",),
)
FOUND = ("n1", "127.0.0.11", "--administrator=admin", "--password-file=password")


def setup(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["setup", *arguments])


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter an empty folder, on a machine without the systemd unit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new_node, "UNIT_FOLDERS", (tmp_path / "units",))


def test_the_first_node_is_ready_to_start(tmp_path: Path):
    """(P4) With authorities, a drawn password, and a certificate for an agent."""
    done = setup(*FOUND, "--agent=vpn", "--host=auth.example.net")

    assert done.exit_code == 0, done.output
    assert "Start it:\nsparecode-node --config n1/node.toml\n" in done.stdout
    config = load_config(tmp_path / "n1/node.toml")
    assert str(config.members["n1"]) == "127.0.0.11:7301"
    assert str(config.admin.listen) == "127.0.0.11:7304"
    assert config.metrics is not None
    assert str(config.metrics.listen) == "127.0.0.11:7303"
    assert (config.node.data_dir / "bootstrap.json").exists()
    for name in ("members-ca.key", "node.key", "vpn.key"):
        assert (tmp_path / "n1/tls" / name).stat().st_mode & 0o777 == 0o600
    password = tmp_path / "password"
    assert password.stat().st_mode & 0o777 == 0o600
    assert len(password.read_text()) == 21
    assert password.read_text().strip() not in done.output
    again = setup(*FOUND)
    assert again.exit_code == 1
    assert "belongs to a cluster already" in " ".join(again.stderr.split())


def test_files_of_another_node_are_kept(tmp_path: Path):
    """The same command may be repeated; another one does not overwrite."""
    (tmp_path / "n1").mkdir()
    config = tmp_path / "n1/node.toml"
    config.write_text("[node]\n")

    done = setup(*FOUND)

    assert done.exit_code == 1
    assert "exists with other settings" in " ".join(done.stderr.split())
    assert config.read_text() == "[node]\n"


def test_an_interrupted_setup_goes_on(tmp_path: Path):
    """Authorities that are in place, the operator's or its own, are used."""
    places = places_in(Path("n1"))
    (tmp_path / "n1").mkdir()
    address = Address("127.0.0.11", 7301)
    settings = node_settings(places, "n1", address, "127.0.0.11")
    (tmp_path / "n1/node.toml").write_text(node_toml(settings))
    authority = tmp_path / "n1/tls/members-ca.pem"
    authority.parent.mkdir()
    authority.write_text("the operator's")

    done = setup(*FOUND)

    assert done.exit_code == 0, done.output
    assert "Wrote" not in done.stdout.partition("\n")[0]
    assert authority.read_text() == "the operator's"


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ((), "set NODE"),
        (("n1",), "set HOST[:PORT]"),
        (("n1", "127.0.0.11"), "set --administrator NAME"),
        (("n1", "127.0.0.11", "--administrator=admin"), "set --password-file FILE"),
    ],
)
def test_without_a_terminal_the_missing_option_is_named(
    arguments: tuple[str, ...], option: str
):
    done = setup(*arguments)

    assert done.exit_code == 2
    assert f"cannot prompt without a terminal: {option}" in done.stderr


class Terminal:
    """A terminal with `sparecode-node` on it, and a person who reads and types."""

    def __init__(self, *arguments: str) -> None:
        self._person, program = os.openpty()
        self._shown = b""
        self._process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, "-m", "sparecode_node", *arguments],
            stdin=program,
            stdout=program,
            stderr=program,
        )
        os.close(program)

    def answer(self, question: str, words: str, *, hidden: bool = False) -> None:
        """Wait for a question, and type the answer."""
        begin = len(self._shown)
        while question not in self._shown[begin:].decode():
            assert self._read(), self._shown.decode()
        # What is typed before the echo is off would be shown, or lost.
        until(lambda: self._echoes() is not hidden)
        os.write(self._person, f"{words}\n".encode())

    def close(self) -> tuple[int, str]:
        """Wait for the end; return the exit code, and what the terminal has shown."""
        try:
            while self._read():
                pass
            code = self._process.wait(PATIENCE_S)
        finally:
            self.kill()
        return code, self._shown.decode()

    def kill(self) -> None:
        """End the program, also in the middle of a question."""
        self._process.kill()
        self._process.wait()
        if self._person >= 0:
            os.close(self._person)
            self._person = -1

    def _echoes(self) -> bool:
        return bool(termios.tcgetattr(self._person)[3] & termios.ECHO)

    def _read(self) -> bool:
        """Read what comes next; return whether there was any."""
        ready, _, _ = select.select([self._person], [], [], PATIENCE_S)
        assert ready, self._shown.decode()
        try:
            chunk = os.read(self._person, 4096)
        except OSError:  # The program has ended.
            return False
        self._shown += chunk
        return bool(chunk)


def test_a_terminal_is_asked_for_everything(tmp_path: Path):
    """(P4) The password is not shown and typed twice, and the administrator signs in."""
    node = new_machine("n7", tmp_path)
    terminal = Terminal("setup", "--folder", "n7")
    try:
        terminal.answer("Id of this node", "n7")
        terminal.answer("Where the other nodes reach it", node.ports.host)
        terminal.answer("Name of the first administrator", "olga")
        terminal.answer("Password", PASSWORD, hidden=True)
        terminal.answer("Repeat", f"{PASSWORD}, mistyped", hidden=True)
        terminal.answer("do not match", PASSWORD, hidden=True)
        terminal.answer("Repeat", PASSWORD, hidden=True)
        code, shown = terminal.close()
    finally:
        terminal.kill()

    assert code == 0, shown
    assert PASSWORD not in shown
    assert "Start it:\r\nsparecode-node --config n7/node.toml\r\n" in shown
    config = load_config(node.config)
    assert str(config.members["n7"]) == f"{node.ports.host}:7301"
    founding = config.node.data_dir / "bootstrap.json"
    assert founding.exists()
    node.start()
    try:
        until(lambda: not founding.exists())
        with Admin(node.admin_address, ca=config.peers.ca) as admin:
            admin.login("olga", PASSWORD)
            assert [each.name for each in admin.list_administrators().items] == ["olga"]
    finally:
        node.kill()


def test_a_ticket_says_what_the_node_is(tmp_path: Path):
    """(P5) Its id, its address and its host names: nothing else is asked."""
    assert from_text(to_text(TICKET)) == TICKET
    (tmp_path / "ticket").write_text(to_text(TICKET))

    done = setup("--join", "ticket")

    config = load_config(tmp_path / "n2/node.toml")
    assert str(config.members["n2"]) == "127.0.0.12:7311"
    assert str(config.peers.listen) == "127.0.0.12:7311"
    assert done.exit_code == 1  # No member answers.
    assert not (tmp_path / "n2/keys/keyring.json").exists()


def test_a_ticket_of_an_earlier_release_has_no_address():
    old = JoinTicket(
        secret=TICKET.secret,
        node_id=TICKET.node_id,
        cluster_id="c",
        authorities=TICKET.authorities,
        members=TICKET.members,
        ends_at_ms=1,
    )

    done = setup("--join", to_text(old))

    assert done.exit_code == 2
    assert "set HOST[:PORT]" in done.stderr


@pytest.mark.parametrize("node_id", ["../n1", "N1", "a" * 64])
def test_a_folder_is_named_by_a_valid_id_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, node_id: str
):
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")

    assert setup(node_id, *FOUND[1:]).exit_code == 1
    assert not list(tmp_path.rglob("node.toml"))


@pytest.mark.parametrize(
    "option", ["--administrator=a", "--password-file=p", "--agent=vpn", "--host=h"]
)
def test_a_joining_node_brings_nothing_of_its_own(option: str):
    done = setup("--join", to_text(TICKET), option)

    assert done.exit_code == 2
    assert "--join excludes" in done.stderr


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of a machine with the systemd unit, on which systemd runs."""
    etc, var = tmp_path / "etc/sparecode", tmp_path / "var"
    places = Places(
        config=etc / "node.toml",
        tls=etc,
        data=var / "sparecode",
        key_ring=var / "sparecode-keys/keyring.json",
        wrapping_key=etc / "wrapping.key",
    )
    units, booted = tmp_path / "units", tmp_path / "booted"
    for folder in (units, booted, tmp_path / "bin"):
        folder.mkdir()
    (units / new_node.UNIT).touch()
    systemctl = tmp_path / "bin/systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\n')
    systemctl.chmod(0o755)
    monkeypatch.setattr(new_node, "SYSTEM", places)
    monkeypatch.setattr(new_node, "BOOTED", booted)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    own = pwd.getpwuid(os.getuid())
    monkeypatch.setattr(pwd, "getpwnam", lambda name: own)
    return tmp_path


def test_the_unit_is_started_where_systemd_runs(
    machine: Path, monkeypatch: pytest.MonkeyPatch
):
    given = []
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.append(path))

    done = setup(*FOUND)

    assert done.exit_code == 0, done.output
    assert (machine / "called").read_text() == "enable --now sparecode-node.service\n"
    assert "Started sparecode-node.service" in done.stdout
    etc, var = machine / "etc/sparecode", machine / "var"
    assert etc.stat().st_mode & 0o777 == 0o750
    # What the node reads and writes is its user's; the wrapping key stays root's.
    assert {etc / "node.key", etc / "members-ca.key", etc / "agents-ca.key"} <= set(
        given
    )
    assert {var / "sparecode", var / "sparecode-keys/keyring.json"} <= set(given)
    assert etc / "wrapping.key" not in given


def test_the_command_is_told_where_systemd_does_not_run(machine: Path):
    (machine / "booted").rmdir()

    done = setup(*FOUND)

    assert done.exit_code == 0, done.output
    assert "systemctl enable --now sparecode-node.service\n" in done.stdout
    assert not (machine / "called").exists()


def test_a_failed_start_is_an_error(machine: Path):
    (machine / "bin/systemctl").write_text("#!/bin/sh\nexit 1\n")

    done = setup(*FOUND)

    assert done.exit_code == 1
    assert "journalctl -u sparecode-node.service tells why" in done.stderr


def test_the_files_of_the_unit_need_root(
    machine: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert "run this command as root" in " ".join(setup(*FOUND).stderr.split())


def test_the_unit_finds_the_files_where_setup_puts_them():
    unit = (
        Path(__file__).parents[1] / "deploy/systemd/sparecode-node.service"
    ).read_text()

    assert f"--config {SYSTEM.config}\n" in unit
    assert f"LoadCredential=wrapping.key:{SYSTEM.wrapping_key}\n" in unit
    assert f"StateDirectory={SYSTEM.data.name} {SYSTEM.key_ring.parent.name}\n" in unit


def test_a_node_listens_on_its_own_address_or_on_all():
    """A name, or an address of a router, cannot be listened on."""
    assert listening_host("127.0.0.12") == "127.0.0.12"
    assert listening_host("n1.example.net") == EVERYWHERE
    assert listening_host("192.0.2.1") == EVERYWHERE


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("n1.example.net", "n1.example.net:7301"),
        ("127.0.0.1:7311", "127.0.0.1:7311"),
        ("[2001:db8::1]", "[2001:db8::1]:7301"),
        ("[2001:db8::1]:7311", "[2001:db8::1]:7311"),
    ],
)
def test_an_address_has_a_default_port(text: str, address: str):
    assert str(read_address(text)) == address


@pytest.mark.parametrize("text", ["", "n1:", "2001:db8::1", "n1:70000", 'n1"\n[x]'])
def test_an_address_of_another_form_is_refused(text: str):
    with pytest.raises(StartError, match=r"is not HOST or HOST:PORT"):
        read_address(text)


def test_paths_with_quotes_stay_whole(tmp_path: Path):
    folder = tmp_path / 'a "quoted" \\ folder'
    folder.mkdir()
    places = places_in(folder)
    places = Places(
        config=places.config,
        tls=folder,
        data=folder / "data",
        key_ring=places.key_ring,
        wrapping_key=places.wrapping_key,
    )
    address = Address("n1.example.net", 7301)
    settings = node_settings(places, "n1", address, EVERYWHERE)
    places.config.write_text(node_toml(settings))

    config = load_config(places.config)

    assert config.node.data_dir == folder / "data"
    assert config.metrics is not None
    assert str(config.metrics.listen) == "127.0.0.1:7303"
