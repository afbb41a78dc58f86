# SPDX-License-Identifier: Apache-2.0
"""A real sshd with pam_radius and the packaged files: passcodes, next steps, name sprays."""

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from local_cluster.cluster import HOST, free_ports

from tests.radius.door import Door, failures
from tests.radius.test_pam import MODULES, ROOT, name_nodes
from tests.services.one_node import PIN, SERIAL

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not MODULES or SSHD is None or shutil.which("ssh") is None,
        reason="make system-packages (openssh-server, openssh-client, libpam-radius-auth)",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace"),
]

CONFIG = """\
ListenAddress {host}:{port}
HostKey {folder}/host_key
PidFile none
PAMServiceName sparecode-sshd
PerSourcePenalties no
Include {root}/deploy/pam/sshd_config
"""
PASSCODE = "4711ABCD2345EF"
"""A wrong one; longer than the text of sshd."""
KEYS_ARE_NOT_TESTED = "AuthenticationMethods keyboard-interactive:pam\n"
ASKPASS = """\
#!/bin/sh
# Take the first line of the answers, and tell which prompt it is for.
echo "$1" >> {folder}/prompts
head -n 1 "$ANSWERS"
sed -i 1d "$ANSWERS"
"""


@dataclass
class Machine:
    """A machine with sshd, whose users are root and alice."""

    folder: Path
    port: int
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def sign_in(self, user: str, *answers: str) -> bool:
        """Sign in with answers to the prompts; return whether it worked."""
        file = self.folder / f"answers-{next(self.numbers)}"
        file.write_text("".join(f"{each}\n" for each in answers))
        process = await asyncio.create_subprocess_exec(
            *("ssh", "-F", "none", "-p", str(self.port)),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "PreferredAuthentications=keyboard-interactive"),
            *("-o", "NumberOfPasswordPrompts=1", f"{user}@{HOST}", "true"),
            env={
                **os.environ,
                "SSH_ASKPASS": str(self.folder / "askpass"),
                "SSH_ASKPASS_REQUIRE": "force",
                "ANSWERS": str(file),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        await asyncio.wait_for(process.communicate(), 60)
        return process.returncode == 0

    @property
    def prompts(self) -> str:
        """Every prompt that the user was shown."""
        return (self.folder / "prompts").read_text()


@pytest_asyncio.fixture
async def machine(tmp_path: Path, door: Door) -> AsyncIterator[Machine]:
    """Start sshd in a mount namespace with files of its own; the host's stay."""
    folder, port = tmp_path, free_ports(1)[0]
    folder.chmod(0o755)
    write_files(folder, port, name_nodes(folder, door, wait_s=20))
    mounts = [
        *(
            f"mount --bind {folder}/{name} /etc/{name}"
            for name in ("pam.d", "passwd", "shadow")
        ),
        "mount -t tmpfs tmpfs /run",
        "mkdir -m 755 /run/sshd",
    ]
    script = " && ".join([*mounts, f"exec {SSHD} -D -e -f {folder}/sshd_config"])
    with (folder / "log").open("w") as log:
        process = await asyncio.create_subprocess_exec(
            *("unshare", "-m", "sh", "-c", script), stdout=log, stderr=log
        )
    try:
        await listening(process, port)
        yield Machine(folder=folder, port=port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def write_files(folder: Path, port: int, servers: Path) -> None:
    """Write the files of sshd, PAM and the user database."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"],
        check=True,
    )
    text = CONFIG.format(host=HOST, port=port, folder=folder, root=ROOT)
    (folder / "sshd_config").write_text(KEYS_ARE_NOT_TESTED + text)
    services = folder / "pam.d"
    services.mkdir()
    shipped = (ROOT / "deploy/pam/sparecode").read_text()
    (services / "sparecode").write_text(
        shipped.replace("/etc/sparecode-pam.conf", str(servers))
    )
    (services / "sparecode-sshd").write_text(
        "auth substack sparecode\naccount required pam_permit.so\n"
        "session required pam_permit.so\n"
    )
    for name, line in (
        ("passwd", f"alice:x:4711:4711::{folder}:/bin/sh"),
        ("shadow", "alice:*:20000:0:99999:7:::"),
    ):
        file = folder / name
        file.write_text(f"{Path('/etc', name).read_text()}{line}\n")
        file.chmod(0o644 if name == "passwd" else 0o600)
    askpass = folder / "askpass"
    askpass.write_text(ASKPASS.format(folder=folder))
    askpass.chmod(0o755)
    (folder / "prompts").touch()


async def listening(process: asyncio.subprocess.Process, port: int) -> None:
    """Wait until sshd accepts connections."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return
            assert process.returncode is None, "sshd ended"
            await asyncio.sleep(0.02)


async def test_sshd_asks_for_the_passcode_and_the_next_node(door, machine):
    """(D1, D3) The first node is down; a code signs in once."""
    issued = await door.node.issue()
    passcode = PIN + issued.codes[0].code
    assert await machine.sign_in("alice", passcode), (
        machine.folder / "log"
    ).read_text()
    assert "Passcode:" in machine.prompts
    name_nodes(machine.folder, door, first_is_down=False, wait_s=20)
    assert not await machine.sign_in("alice", passcode)


async def test_sshd_shows_the_next_steps(door, machine):
    """(K2, K3) A user without a PIN chooses one at the same prompt."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial=SERIAL
    )
    name_nodes(machine.folder, door, first_is_down=False, wait_s=20)
    answers = (
        door.node.tokencode(),
        "82649173",
        "82649173",
        door.node.tokencode(step=1),
    )
    assert await machine.sign_in("alice", *answers), (
        machine.folder / "log"
    ).read_text()
    assert "Enter the new PIN again:" in machine.prompts


async def test_a_spray_of_names_over_ssh_charges_no_user(door, machine):
    """
    (D2) Users of Sparecode whom the machine does not know, and root.

    sshd sends a text of the length that was typed, so several lengths are tried.
    """
    name_nodes(machine.folder, door, first_is_down=False, wait_s=20)
    for name in ("carol", "root"):
        await door.node.add_user(name, serial=f"serial-{name}")
    tried = [("carol", ""), ("carol", "1"), ("carol", "47111234"), ("root", PASSCODE)]
    signed_in = await asyncio.gather(*(machine.sign_in(*each) for each in tried))
    assert not any(signed_in)
    assert door.counted("rejected") == len(tried)
    assert failures(door) == 0
    # A user whom it knows is charged.
    assert not await machine.sign_in("alice", PASSCODE)
    assert failures(door) == 1
