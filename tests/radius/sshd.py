# SPDX-License-Identifier: Apache-2.0
"""A machine with a real sshd, pam_radius and the packaged files, in a mount namespace."""

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
from local_cluster.cluster import HOST, free_ports

from tests.radius.pam import MODULES, ROOT, write_pam

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

NEEDS_SSHD = [
    pytest.mark.skipif(
        not MODULES or SSHD is None or shutil.which("ssh") is None,
        reason="make system-packages (openssh-server, openssh-client, libpam-radius-auth)",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace"),
]

CONFIG = """\
ListenAddress {host}:{port}
HostKey {folder}/host_key
AuthorizedKeysFile none
# The user may not read the folder.
AuthorizedKeysCommand /bin/cat {folder}/key.pub
AuthorizedKeysCommandUser root
PidFile none
PAMServiceName sparecode-sshd
PerSourcePenalties no
Include {root}/deploy/pam/sshd_config
"""
WITHOUT_KEYS = "AuthenticationMethods keyboard-interactive:pam\n"
ASKPASS = """\
#!/bin/sh
# Take the first line of the answers, and tell which prompt it is for.
echo "$1" >> {folder}/prompts
head -n 1 "$ANSWERS"
sed -i 1d "$ANSWERS"
"""


@dataclass
class Machine:
    """A machine with sshd, whose users are root, alice, dave, and bob of `breakglass`."""

    folder: Path
    port: int
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def sign_in(self, user: str, *answers: str, key: bool = False) -> bool:
        """Sign in with answers to the prompts, after a key; return whether it worked."""
        file = self.folder / f"answers-{next(self.numbers)}"
        file.write_text("".join(f"{each}\n" for each in answers))
        methods = "publickey,keyboard-interactive" if key else "keyboard-interactive"
        process = await asyncio.create_subprocess_exec(
            *("ssh", "-F", "none", "-p", str(self.port)),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", f"PreferredAuthentications={methods}"),
            *("-i", str(self.folder / "key"), "-o", "IdentitiesOnly=yes"),
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
        await asyncio.wait_for(process.communicate(), 90)
        return process.returncode == 0

    @property
    def prompts(self) -> str:
        """Every prompt that a user was shown."""
        return (self.folder / "prompts").read_text()

    @property
    def log(self) -> str:
        """What sshd has written."""
        return (self.folder / "log").read_text()


@contextlib.asynccontextmanager
async def running_sshd(
    folder: Path, servers: Path, *, keys: bool = False
) -> AsyncIterator[Machine]:
    """
    Start sshd with files of its own; the host's stay as they are.

    *servers* is the file with the nodes that pam_radius asks. *keys*: users need a key
    first, as in the packaged file.
    """
    port = free_ports(1)[0]
    write_pam(folder, servers, "sparecode-sshd")
    write_files(folder, port, keys=keys)
    mounts = [
        *(
            f"mount --bind {folder}/{name} /etc/{name}"
            for name in ("pam.d", "passwd", "shadow", "group")
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
        await _listening(process, port)
        yield Machine(folder=folder, port=port)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def write_files(folder: Path, port: int, *, keys: bool) -> None:
    """Write the files of sshd and ssh."""
    for name in ("host_key", "key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name],
            check=True,
        )
    text = CONFIG.format(host=HOST, port=port, folder=folder, root=ROOT)
    (folder / "sshd_config").write_text(("" if keys else WITHOUT_KEYS) + text)
    askpass = folder / "askpass"
    askpass.write_text(ASKPASS.format(folder=folder))
    askpass.chmod(0o755)
    (folder / "prompts").touch()


async def _listening(process: asyncio.subprocess.Process, port: int) -> None:
    """Wait until sshd accepts connections."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                return
            assert process.returncode is None, "sshd ended"
            await asyncio.sleep(0.02)
