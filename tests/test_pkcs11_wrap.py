# SPDX-License-Identifier: Apache-2.0
"""A key ring whose key is in an HSM (PKCS#11), here SoftHSM: P5."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pkcs11
import pytest

from sparecode_node.config_section import ConfigError
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.services.secrets.wrap_command import EXIT_REFUSED, WrapCommand
from sparecode_node.tool.pkcs11_wrap import WrapError, read_settings, unwrap, wrap
from tests.generators import tool

MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    *Path("/usr/lib").glob("*/softhsm/libsofthsm2.so"),
)
PROGRAM = Path(sys.executable).with_name("sparecode-pkcs11-wrap")
PIN, SO_PIN = "8391-4711", "5550-1234"
KEY = bytes(range(32))
SETTINGS = """[pkcs11]
module = "/m"
token = "t"
key = "k"
pin_file = "/etc/x/hsm.pin"
"""


class SoftHsm:
    """A token of SoftHSM, and the settings of the program."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.settings = folder, folder / "pkcs11.toml"
        self.module = next(each for each in MODULES if each.exists())
        (folder / "tokens").mkdir()
        self.conf = folder / "softhsm2.conf"
        self.conf.write_text(
            f"directories.tokendir = {folder}/tokens\nlog.level = ERROR\n"
        )
        self.pin = folder / "pin"
        self.pin.touch(0o600)
        self.pin.write_text(f"{PIN}\n")
        subprocess.run(
            [
                *(
                    tool("softhsm2-util"),
                    "--init-token",
                    "--free",
                    "--label",
                    "sparecode",
                ),
                *("--pin", PIN, "--so-pin", SO_PIN),
            ],
            env={**os.environ, "SOFTHSM2_CONF": str(self.conf)},
            check=True,
            capture_output=True,
        )
        self.write()

    def write(self, *, key: str = "ring-1", label: str = "sparecode") -> None:
        self.settings.write_text(
            f'[pkcs11]\nmodule = "{self.module}"\ntoken = "{label}"\nkey = "{key}"\n'
            f'pin_file = "pin"\nenvironment = {{ SOFTHSM2_CONF = "{self.conf}" }}\n'
        )

    def run(
        self, verb: str, content: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [PROGRAM, self.settings, verb],
            input=content,
            capture_output=True,
            check=False,
            timeout=60,
            env={"PATH": "/usr/bin:/bin"},
        )

    @property
    def command(self) -> WrapCommand:
        return WrapCommand(argv=(str(PROGRAM), str(self.settings)), timeout_s=30)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SoftHsm:
    """Make a token with a key once."""
    tool("softhsm2-util")
    hsm = SoftHsm(tmp_path_factory.mktemp("softhsm"))
    done = hsm.run("create-key")
    assert done.returncode == 0, done.stderr
    assert b"Created AES key ring-1 on token sparecode" in done.stdout
    return hsm


@pytest.fixture
def hsm(made: SoftHsm) -> SoftHsm:
    made.pin.write_text(f"{PIN}\n")
    made.pin.chmod(0o600)
    made.write()
    return made


def refused(hsm: SoftHsm, verb: str, content: bytes = KEY, code: int = 1) -> str:
    done = hsm.run(verb, content)
    assert (done.returncode, done.stdout) == (code, b"")
    [line] = done.stderr.decode().splitlines()
    assert PIN not in line
    return line


def test_node_keeps_its_ring_with_a_key_in_the_hsm(
    hsm: SoftHsm, tmp_path: Path
) -> None:
    file = RingFile(path=tmp_path / "ring.json", command=hsm.command)
    ring = KeyRing.draw(SystemEntropy())
    file.save(ring)
    assert file.load().to_bytes() == ring.to_bytes()
    # Another key in the HSM: an earlier ring still opens, and the next save uses it.
    hsm.write(key="ring-2")
    with pytest.raises(
        KeyRingError, match="no AES key ring-2; create it with create-key"
    ):
        file.save(ring)
    assert hsm.run("create-key").returncode == 0
    assert file.load().to_bytes() == ring.to_bytes()
    file.save(ring)
    # Lose the keys: nothing opens the ring any more.
    hidden = hsm.folder / "tokens.hidden"
    (hsm.folder / "tokens").rename(hidden)
    (hsm.folder / "tokens").mkdir()
    try:
        with pytest.raises(KeyRingError, match="there is no token sparecode") as raised:
            file.load()
    finally:
        (hsm.folder / "tokens").rmdir()
        hidden.rename(hsm.folder / "tokens")
    assert str(raised.value).startswith(f"{file.path}: wrap command {PROGRAM} unwrap: ")


def test_value_is_bound_to_its_key_and_unchanged(hsm: SoftHsm) -> None:
    wrapped = hsm.run("wrap", KEY).stdout
    form = json.loads(wrapped)
    assert form.keys() == {"key", "nonce", "sealed"}
    assert hsm.run("wrap", KEY).stdout != wrapped
    assert hsm.run("unwrap", wrapped).stdout == KEY
    edited = json.dumps({**form, "sealed": "AAAA" + form["sealed"][4:]}).encode()
    assert "does not open this" in refused(hsm, "unwrap", edited, EXIT_REFUSED)
    absent = json.dumps({**form, "key": "gone"}).encode()
    assert "there is no AES key gone" in refused(hsm, "unwrap", absent, EXIT_REFUSED)
    for garbage in (b"", b"garbage", b"[]", b'{"key": 1}', b"[" * 9000):
        with pytest.raises(WrapError, match="not an output of") as raised:
            unwrap(read_settings(hsm.settings), garbage)
        assert raised.value.code == EXIT_REFUSED


def test_key_cannot_be_read_out_of_the_hsm(hsm: SoftHsm) -> None:
    """PKCS#11 refuses its value to the holder of the PIN, too."""
    script = (
        "import pkcs11, sys\n"
        "from pkcs11 import Attribute\n"
        f"token = pkcs11.lib({str(hsm.module)!r}).get_token(token_label='sparecode')\n"
        f"with token.open(user_pin={PIN!r}) as session:\n"
        "    key = session.get_key(label='ring-1')\n"
        "    print(key[Attribute.SENSITIVE], key[Attribute.EXTRACTABLE])\n"
        "    print(key[Attribute.VALUE])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "SOFTHSM2_CONF": str(hsm.conf)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True False\n"
    assert "AttributeSensitive" in done.stderr
    assert "exists; keys are never replaced" in refused(hsm, "create-key", b"")


def test_wrong_settings_are_one_line_and_the_pin_is_kept(hsm: SoftHsm) -> None:
    """No PIN is tried when a mistake could lock the token."""
    hsm.pin.chmod(0o644)
    assert "chmod 600" in refused(hsm, "wrap")
    hsm.pin.chmod(0o600)
    hsm.write(label="another")
    assert "there is no token another" in refused(hsm, "wrap")
    hsm.write()
    hsm.pin.write_text("0000-0000\n")
    assert f"the PIN in {hsm.pin} is wrong" in refused(hsm, "wrap")
    hsm.settings.write_text(
        hsm.settings.read_text().replace(str(hsm.module), "/nowhere/module.so")
    )
    assert "/nowhere/module.so" in refused(hsm, "wrap")


@pytest.mark.parametrize(
    "flag", [pkcs11.TokenFlag.USER_PIN_FINAL_TRY, pkcs11.TokenFlag.USER_PIN_LOCKED]
)
def test_last_try_of_the_pin_is_left_to_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: pkcs11.TokenFlag
) -> None:
    """A node that starts again and again must not lock the token."""

    def open_it(**_: object) -> None:
        pytest.fail("the PIN was tried")

    token = SimpleNamespace(flags=flag, open=open_it)
    monkeypatch.setattr(
        pkcs11, "lib", lambda _: SimpleNamespace(get_token=lambda **_: token)
    )
    (tmp_path / "pkcs11.toml").write_text(SETTINGS.replace("/etc/x/", ""))
    (tmp_path / "hsm.pin").touch(0o600)
    with pytest.raises(WrapError, match="the next mistake would lock it"):
        wrap(read_settings(tmp_path / "pkcs11.toml"), KEY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"\[pkcs11\] module: missing"),
        ("pkcs11 = 5", "expected the section"),
        ("[pkcs11", "not TOML"),
        (f'{SETTINGS}pin = "1"', r"\[pkcs11\] pin: unknown key"),
        (f"{SETTINGS}environment = {{ A = 1 }}", r"\[pkcs11.environment\] A"),
    ],
)  # fmt: skip
def test_invalid_settings_name_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "pkcs11.toml"
    with pytest.raises(ConfigError, match="No such file"):
        read_settings(path)
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_settings(path)


def test_pin_may_be_a_credential_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pkcs11.toml"
    path.write_text(SETTINGS)
    assert read_settings(path).pin_file == Path("/etc/x/hsm.pin")
    (tmp_path / "hsm.pin").touch()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert read_settings(path).pin_file == tmp_path / "hsm.pin"
