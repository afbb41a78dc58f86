# SPDX-License-Identifier: Apache-2.0
"""The packaged files of PAM, for tests in a mount namespace of their own."""

from collections.abc import Iterable
from pathlib import Path

from tests.radius.door import Door

ROOT = Path(__file__).parents[2]
MODULE = "pam_radius_auth.so"
MODULES = [*Path("/usr/lib").glob(f"*/security/{MODULE}")]
CLOSED_PORT = 9
CONF = "/etc/sparecode-pam.conf"
"""Where the packaged files look for the nodes."""


def write_pam(folder: Path, servers: Path, service: str) -> None:
    """Write PAM's files: the packaged one, and a service that includes it; and users."""
    services = folder / "pam.d"
    services.mkdir()
    shipped = (ROOT / "deploy/pam/sparecode").read_text()
    assert CONF in shipped
    (services / "sparecode").write_text(shipped.replace(CONF, str(servers)))
    (services / service).write_text(
        "auth substack sparecode\naccount required pam_permit.so\n"
        "session required pam_permit.so\n"
    )
    for name, lines, mode in (
        (
            "passwd",
            (
                f"alice:x:4711:4711::{folder}:/bin/sh",
                f"bob:x:4712:4712::{folder}:/bin/sh",
                f"dave:x:4714:4714::{folder}:/bin/sh",
            ),
            0o644,
        ),
        (
            "shadow",
            [f"{user}:*:20000:0:99999:7:::" for user in ("alice", "bob", "dave")],
            0o600,
        ),
        ("group", ("breakglass:x:4713:bob",), 0o644),
    ):
        file = folder / name
        added = "".join(f"{line}\n" for line in lines)
        file.write_text(Path("/etc", name).read_text() + added)
        file.chmod(mode)


def write_servers(file: Path, servers: Iterable[tuple[int, int]], secret: str) -> Path:
    """Write the nodes that pam_radius asks: port of this machine, seconds to wait."""
    file.write_text(
        "".join(f"127.0.0.1:{port} {secret} {wait_s}\n" for port, wait_s in servers)
    )
    file.chmod(0o600)
    return file


def name_nodes(
    folder: Path, door: Door, *, wait_s: int, first_is_down: bool = True
) -> Path:
    """Write the nodes that pam_radius asks: one that is down, and the door."""
    down = [(CLOSED_PORT, 1)] if first_is_down else []
    return write_servers(
        folder / "sparecode-pam.conf", [*down, (door.port, wait_s)], door.secret
    )
