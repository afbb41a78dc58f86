# SPDX-License-Identifier: Apache-2.0
"""The program that wraps the ring's key, and what happens when it misbehaves (P5)."""

import base64
import contextlib
import json
import os
import re
import time
from pathlib import Path

import pytest

from sparecode_node.domain.ids import KeyId
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing, KeyRingError
from sparecode_node.services.secrets.ring_file import RingFile
from sparecode_node.services.secrets.wrap_command import OUTPUT_BYTES_MAX, WrapCommand
from tests.services.wrapping_program import program

KEY = bytes(range(32))
FLOOD = f"head -c {OUTPUT_BYTES_MAX + 1} /dev/zero"


def command(folder: Path, script: str, *, timeout_s: float = 10) -> WrapCommand:
    """Return a command that runs a script of the shell."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return WrapCommand(argv=(str(path), "argument"), timeout_s=timeout_s)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing.draw(SystemEntropy())


@pytest.fixture
def file(tmp_path: Path) -> RingFile:
    return RingFile(path=tmp_path / "keys/ring.json", command=program(tmp_path))


def test_ring_is_saved_and_opened_by_the_program(ring: KeyRing, file: RingFile) -> None:
    file.save(ring)
    assert file.is_settled()
    assert file.load().to_bytes() == ring.to_bytes()
    form = json.loads(file.path.read_bytes())
    assert form.keys() == {"wrapped", "ring", "key"}
    assert file.path.stat().st_mode & 0o777 == 0o600
    text = file.path.read_bytes()
    for each in json.loads(ring.to_bytes())["keys"].values():
        assert each.encode() not in text


def test_each_save_draws_another_key_for_the_file(
    ring: KeyRing, file: RingFile
) -> None:
    """A key of an earlier file opens no later one."""
    assert file.command is not None
    file.save(ring)
    earlier = json.loads(file.path.read_bytes())
    file.save(ring)
    later = json.loads(file.path.read_bytes())
    keys = {
        file.command.unwrap(base64.b64decode(each["key"])) for each in (earlier, later)
    }
    assert len(keys) == 2
    file.path.write_text(json.dumps({**later, "key": earlier["key"]}))
    with pytest.raises(KeyRingError, match=r"is damaged, or .* returned another key"):
        file.load()


@pytest.mark.parametrize("before", ["plain", "wrapping key"])
def test_ring_in_another_form_is_read_and_wrapped_by_the_next_save(
    ring: KeyRing, file: RingFile, tmp_path: Path, before: str
) -> None:
    key = tmp_path / "wrapping.key" if before == "wrapping key" else None
    earlier = RingFile(path=file.path, wrapping_key=key)
    earlier.prepare(SystemEntropy())
    earlier.save(ring)
    both = RingFile(path=file.path, wrapping_key=key, command=file.command)
    assert not both.is_settled()
    both.save(both.load())
    assert both.is_settled()
    assert file.load().subkey(KeyId(1), "seed") == ring.subkey(KeyId(1), "seed")


def test_ring_of_a_program_needs_its_command(ring: KeyRing, file: RingFile) -> None:
    file.save(ring)
    with pytest.raises(
        KeyRingError, match=r"name it in node.toml: \[keys\] wrap_command"
    ):
        RingFile(path=file.path).load()


def test_program_gets_the_verb_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    """No secret is in its arguments or its environment, and no file of the node is open."""
    monkeypatch.setenv("SPARECODE_SECRET", "word")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/x")
    told = tmp_path / "told"
    runs = command(
        tmp_path,
        f'{{ echo "$@"; pwd; env; ls /proc/self/fd; cut -d" " -f6 /proc/$$/stat; }} >>{told}; exit 1',
    )
    with pytest.raises(KeyRingError):
        runs.unwrap(KEY)
    lines = told.read_text().split()
    assert lines[:3] == ["argument", "unwrap", "/"]
    environment = {each.partition("=")[0] for each in lines if "=" in each}
    assert environment <= {
        "PATH",
        "LANG",
        "CREDENTIALS_DIRECTORY",
        "PWD",
        "_",
        "SHLVL",
        "OLDPWD",
    }
    assert "CREDENTIALS_DIRECTORY" in environment
    assert {each for each in lines if each.isdecimal()} >= {"0", "1", "2"}
    assert not {each for each in lines if each.isdecimal()} - {
        "0",
        "1",
        "2",
        "3",
        lines[-1],
    }
    assert lines[-1] != str(os.getsid(0))


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo first >&2; echo the PIN is locked >&2; exit 3",
         "wrap: ended with exit code 3: the PIN is locked; repair it.*sparecode-node doctor"),
        ("exit 1", r"exit code 1: \(it printed no reason\)"),
        ("kill -9 $$", "was ended by signal 9"),
        ("true", "printed nothing"),
        (FLOOD, "printed more than 16384 bytes"),
        ("yes >&2", "did not end within 0.5 s"),
        ("sleep 60", "did not end within 0.5 s"),
        ("exec >&- 2>&-; sleep 60", "did not end within 0.5 s"),
        ("cat", "printed the key itself"),
        ("base64", "printed the key itself"),
        ('[ "$2" = wrap ] && echo lost || echo 1234', "unwrap: printed 5 bytes instead of the 32"),
        ('[ "$2" = wrap ] && echo lost || head -c 32 /dev/zero', "does not return the key"),
        (f'[ "$2" = wrap ] && echo lost || {FLOOD}', "unwrap: printed more than"),
        ("printf 'a\\033[31m\\tb' >&2; exit 1", r"1: a \[31m b;"),
        ("printf 'x%.0s' $(seq 300) >&2; exit 1", "1: x{200};"),
    ],
)  # fmt: skip
def test_bad_program_stores_nothing(
    ring: KeyRing, tmp_path: Path, script: str, says: str
) -> None:
    """The earlier file stays as it was."""
    file = RingFile(path=tmp_path / "ring.json", command=program(tmp_path))
    file.save(ring)
    before = file.path.read_bytes()
    timeout_s = 0.5 if "did not end" in says else 30
    bad = RingFile(
        path=file.path, command=command(tmp_path, script, timeout_s=timeout_s)
    )
    with pytest.raises(KeyRingError, match=says) as raised:
        bad.save(KeyRing.draw(SystemEntropy()))
    line = str(raised.value)
    assert "\n" not in line
    assert f"{file.path}: wrap command {tmp_path}/program" in line
    assert "argument" not in line
    assert file.path.read_bytes() == before
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize("shown", ["cat", "base64", "od -An -tx1 -v | tr -d ' \\n'"])
def test_message_that_repeats_the_secret_is_not_shown(
    tmp_path: Path, shown: str
) -> None:
    key = bytes(range(40, 72))
    bad = command(tmp_path, f"{shown} >&2; exit 1")
    with pytest.raises(KeyRingError, match="repeats a secret") as raised:
        bad.wrap(key)
    for each in (key, base64.b64encode(key), key.hex().encode()):
        assert each not in str(raised.value).encode()


def test_children_of_a_hung_program_are_ended(tmp_path: Path) -> None:
    child = tmp_path / "child"
    for timeout_s in (0.3, 5):
        script = f"sleep 1000 & echo $! >{child}; wait"
        bad = command(tmp_path, script, timeout_s=timeout_s)
        with pytest.raises(KeyRingError, match="did not end"):
            bad.unwrap(KEY)
        if child.exists() and child.read_text().strip():
            break
    status = Path(f"/proc/{child.read_text().strip()}/status")
    until = time.monotonic() + 60
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        while "zombie" not in status.read_text():
            assert time.monotonic() < until
            time.sleep(0.01)


def test_helper_that_outlives_the_program_holds_up_nothing(tmp_path: Path) -> None:
    """A daemon that the program starts keeps the pipes, as gpg-agent would."""
    path = tmp_path / "helper"
    good = command(tmp_path, f"sleep 1000 & echo $! >{path}; head -c 32 /dev/zero")
    assert good.unwrap(KEY) == bytes(32)
    os.kill(int(path.read_text()), 9)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "No such file.*install it"),
        (lambda path: path.chmod(0o644), "Permission denied.*install it"),
        (lambda path: path.chmod(0o775), "other users can change it.*chmod go-w"),
        (lambda path: path.write_text("no program"), "Exec format error|ended with"),
    ],
    ids=["missing", "not executable", "open", "no program"],
)
def test_unusable_program_is_refused(tmp_path: Path, spoil, says: str) -> None:
    bad = command(tmp_path, "cat")
    spoil(tmp_path / "program")
    with pytest.raises(KeyRingError, match=says):
        bad.unwrap(KEY)


def test_program_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root and the node's own user may have installed it."""
    bad = command(tmp_path, "head -c 32 /dev/zero")
    assert bad.unwrap(KEY) == bytes(32)
    monkeypatch.setattr(os, "geteuid", lambda: 10002)
    owner = os.getuid()
    if owner == 0:
        owner = 10001
        os.chown(tmp_path / "program", owner, owner)
    with pytest.raises(KeyRingError, match=f"belongs to user {owner}"):
        bad.unwrap(KEY)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("another key", r"is damaged, or .* returned another key: restore"),
        ("no key", "unwrap: ended with exit code 65: the key is lost; restore .*join again"),
        ("file key", "returned another key"),
        ("ring", "is damaged"),
        ("no text", "is damaged"),
    ],
)  # fmt: skip
def test_ring_whose_key_is_lost_does_not_open(
    ring: KeyRing, file: RingFile, tmp_path: Path, spoil: str, says: str
) -> None:
    file.save(ring)
    secret, form = tmp_path / "program.key", json.loads(file.path.read_bytes())
    match spoil:
        case "another key":
            secret.write_text("00" * 32)
        case "no key":
            secret.unlink()
        case "file key":
            form["key"] = base64.b64encode(b"WRAPPED\n" + bytes(32)).decode()
        case "ring":
            form["ring"] = "AAAA" + form["ring"]
        case "no text":
            form["key"] = 5
    file.path.write_text(json.dumps(form))
    with pytest.raises(KeyRingError, match=says) as raised:
        file.load()
    assert re.match(rf"{file.path}: ", str(raised.value))


def test_preparation_tries_the_program_and_draws_no_key(tmp_path: Path) -> None:
    """A node that is set up must be able to store its ring."""
    key = tmp_path / "wrapping.key"
    RingFile(
        path=tmp_path / "ring", wrapping_key=key, command=program(tmp_path)
    ).prepare(SystemEntropy())
    assert not key.exists()
    bad = RingFile(path=tmp_path / "ring", command=command(tmp_path, "exit 1"))
    with pytest.raises(KeyRingError, match="exit code 1"):
        bad.prepare(SystemEntropy())
