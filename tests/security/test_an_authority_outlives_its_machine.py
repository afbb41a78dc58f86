# SPDX-License-Identifier: Apache-2.0
"""
The authorities' keys stay on one machine, and come back from the bundle (P1, P5).

The loss of that machine must not stop the cluster from growing. A bundle of another
cluster, or from before the authority was replaced, must not be taken for the right one.
"""

import datetime as dt
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sparecode_node.__main__ import app
from sparecode_node.config import TESTING, Config, load_config
from sparecode_node.membership.authority import FileAuthority, trusted
from sparecode_node.membership.bundle_record import BundleState, bundle_state
from sparecode_node.membership.certificates import Authority
from sparecode_node.services.files import age_files
from sparecode_node.tool.doctor.findings import Verdict
from sparecode_node.tool.doctor.membership import check_bundle

NOW = dt.datetime.now(dt.UTC)
IDENTITY, PUBLIC = age_files.new_identity()
KEYS = ("members-ca.key", "agents-ca.key")


class Machine:
    """A machine with a `node.toml`, and the commands of `sparecode-node`."""

    def __init__(self, folder: Path, node_id: str) -> None:
        self.folder = folder
        (folder / "tls").mkdir(parents=True)
        listeners = "\n".join(
            f'[{name}]\nlisten = "127.0.0.1:{port}"\ncertificate = "tls/node.pem"\n'
            f'key = "tls/node.key"\n{ca}'
            for name, port, ca in (
                ("agents", 1, 'ca = "tls/agents-ca.pem"\n'),
                ("peers", 2, 'ca = "tls/members-ca.pem"\n'),
                ("admin", 3, ""),
            )
        )
        (folder / "node.toml").write_text(
            f'[node]\nid = "{node_id}"\ndata_dir = "data"\n{listeners}\n'
            f'[cluster.members]\n{node_id} = "{node_id}.example:7301"\n'
            '[keys]\nfile = "ring.json"\n[kdf]\nprofile = "testing"\n'
        )
        self.secret = folder / "secret"
        self.secret.touch(0o600)
        self.secret.write_text("correct horse battery staple\n")
        self.identity = folder / "identity"
        self.identity.touch(0o600)
        self.identity.write_text(IDENTITY)

    @property
    def config(self) -> Config:
        return load_config(self.folder / "node.toml")

    def run(self, *arguments: str | Path) -> Result:
        """Run a command of `sparecode-node`."""
        config = self.folder / "node.toml"
        return CliRunner().invoke(app, ["--config", str(config), *map(str, arguments)])

    def export(self, bundle: Path) -> None:
        done = self.run("bundle", bundle, "--recipient", PUBLIC)
        assert done.exit_code == 0, done.output

    def restore(self, bundle: Path) -> Result:
        return self.run(
            "authority",
            "restore",
            "--bundle",
            bundle,
            "--key",
            self.identity,
        )


def first(folder: Path) -> Machine:
    """Return the first machine of a cluster, which makes the authorities."""
    machine = Machine(folder, "n1")
    made = machine.run(
        "init",
        "--new-authority",
        "--administrator",
        "root",
        "--password-file",
        machine.secret,
    )
    assert made.exit_code == 0, made.output
    return machine


@pytest.fixture(autouse=True)
def cheap_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TESTING, "1")


@pytest.fixture
def n1(tmp_path: Path) -> Machine:
    return first(tmp_path / "n1")


@pytest.fixture
def n2(tmp_path: Path, n1: Machine) -> Machine:
    """Return a member that has joined: it has the ring and no authority's key."""
    machine = Machine(tmp_path / "n2", "n2")
    for name in (
        "ring.json",
        "tls/members-ca.pem",
        "tls/agents-ca.pem",
        "tls/node.pem",
        "tls/node.key",
    ):
        shutil.copy(n1.folder / name, machine.folder / name)
    (machine.folder / "data").mkdir()
    return machine


def test_another_member_gets_the_keys_from_the_bundle(n1: Machine, n2: Machine) -> None:
    """(P5) The machine that had them is gone; now this one signs."""
    bundle = n1.folder / "a.bundle"
    n1.export(bundle)
    assert not FileAuthority(n2.config).can_sign()
    restored = n2.restore(bundle)
    assert restored.exit_code == 0, restored.output
    assert FileAuthority(n2.config).can_sign()
    for name in KEYS:
        ours, theirs = (each.folder / "tls" / name for each in (n2, n1))
        assert ours.read_bytes() == theirs.read_bytes()
        assert ours.stat().st_mode & 0o777 == 0o600
    assert n2.restore(bundle).exit_code == 0


def test_a_member_tells_the_keys_in_its_files(n1: Machine, n2: Machine) -> None:
    """(P6a) The founder has them, and a member on which they were restored."""
    members, agents = (
        (n1.folder / f"tls/{name}-ca.pem").read_bytes()
        for name in ("members", "agents")
    )
    founder, other = FileAuthority(n1.config), FileAuthority(n2.config)
    assert founder.keys() == trusted(members, agents)
    assert len(founder.keys()) == len(KEYS)
    assert other.keys() == ()
    n1.export(n1.folder / "a.bundle")
    n2.restore(n1.folder / "a.bundle")
    assert other.keys() == founder.keys()
    # The key of another authority signs nothing that members trust.
    stray = Authority.create("stray", now=NOW).key_pem
    (n2.folder / "tls/members-ca.key").write_bytes(stray)
    assert other.keys() == founder.keys()[1:]


def test_a_wrong_bundle_changes_nothing(
    n1: Machine, n2: Machine, tmp_path: Path
) -> None:
    """(P5) Of another cluster, without the key, with a key of an older authority."""
    other = first(tmp_path / "other")
    bundles = {name: tmp_path / f"{name}.bundle" for name in ("other", "none", "old")}
    other.export(bundles["other"])
    n2.export(bundles["none"])
    (n1.folder / "tls/members-ca.key").write_bytes(
        Authority.create("older", now=NOW).key_pem
    )
    n1.export(bundles["old"])
    for name, words in (
        ("other", "use the bundle of this cluster"),
        ("none", "has no key that belongs to"),
        ("old", "has no key that belongs to"),
    ):
        refused = n2.restore(bundles[name])
        assert refused.exit_code == 1
        assert words in " ".join(refused.output.split())
        assert not any((n2.folder / "tls" / key).exists() for key in KEYS)


def test_the_doctor_reminds_of_a_bundle(n1: Machine, n2: Machine) -> None:
    """(P5) It was never exported, or is older than the authority."""
    assert bundle_state(n1.config) is BundleState.MISSING
    assert bundle_state(n2.config) is BundleState.NOT_HERE
    assert check_bundle(n1.config).verdict is Verdict.WARN
    n1.export(n1.folder / "a.bundle")
    assert check_bundle(n1.config).verdict is Verdict.OK
    newer = Authority.create("newer", now=NOW)
    (n1.folder / "tls/members-ca.pem").write_bytes(newer.pem)
    (n1.folder / "tls/members-ca.key").write_bytes(newer.key_pem)
    assert bundle_state(n1.config) is BundleState.OUTDATED
    reminder = check_bundle(n1.config)
    assert reminder.verdict is Verdict.WARN
    assert "bundle FILE" in reminder.words
    n1.export(n1.folder / "b.bundle")
    assert bundle_state(n1.config) is BundleState.CURRENT
