# SPDX-License-Identifier: Apache-2.0
"""Three machines with systemd as their first process, each in a container."""

import dataclasses
import re
import time
from pathlib import Path

from tests.packages.engine import LABEL, Engine, EngineError

IMAGE = "sparecode-machine"
PACKAGES = (
    *("ca-certificates", "curl", "dbus", "iproute2", "man-db", "procps"),
    *("bash-completion", "python3", "systemd", "systemd-sysv"),
)
NETWORK = "sparecode-machines"
NAMES = ("n1", "n2", "n3")
BOOT_S = 120
READY_S = 120

LEGACY = "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"
"""For hosts whose control groups are of version 1: systemd boots there only if told."""

FIRST_PROCESS = "mount --make-rshared / && exec /lib/systemd/systemd"
"""
systemd shares its mounts with the services only if its own are shared, as they are
outside containers. Otherwise credentials (`LoadCredential`) do not arrive.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """One machine, by the name of its container, which is its host name too."""

    engine: Engine
    name: str

    def sh(self, script: str, *, check: bool = True) -> str:
        """Run a script as root, in a shell as after signing in; return its output."""
        return self.engine.docker(
            *("exec", "--interactive", "--workdir", "/root", self.name),
            *("bash", "-euo", "pipefail", "-l"),
            given=script,
            check=check,
        )

    def type(self, command: str, typed: str) -> str:
        """Run a command that reads *typed* at its prompts; return its output."""
        return self.engine.docker(
            *("exec", "--interactive", "--workdir", "/root", self.name),
            *("bash", "-euo", "pipefail", "-l", "-c", command),
            given=typed,
        )

    def put(self, path: Path, target: str) -> None:
        """Copy a file onto the machine."""
        self.engine.docker("cp", path, f"{self.name}:{target}")

    def write(self, target: str, text: str) -> None:
        """Write a file that only root can read."""
        self.engine.docker(
            *("exec", "--interactive", self.name),
            *("sh", "-c", f"umask 077; cat >{target}"),
            given=text,
        )

    def until(self, script: str, *, seconds: float = READY_S) -> str:
        """Run a script until it succeeds; return its output. Raises `EngineError`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.sh(script)
            except EngineError as error:
                if time.monotonic() > deadline:
                    words = self.sh(
                        "journalctl --no-pager -u sparecode-node -n 30", check=False
                    )
                    raise EngineError(f"{self.name}: {error}\n{words}") from error
            time.sleep(0.3)

    def wait_ready(self) -> None:
        """Return when the node serves."""
        self.until("curl -sfo /dev/null http://localhost:7303/readyz")

    @property
    def pid(self) -> int:
        """The process id of the node; 0 if it does not run."""
        return int(self.sh("systemctl show -P MainPID sparecode-node"))

    @property
    def version(self) -> str:
        """The version of the installed package."""
        return self.sh("dpkg-query -W -f '${Version}' sparecode")


def boot(engine: Engine) -> list[Machine]:
    """Start the machines; return them when systemd has started its services."""
    engine.docker("network", "create", "--label", LABEL, NETWORK)
    old = "/sys/fs/cgroup/cgroup.controllers"
    told = () if Path(old).exists() else ("--env", f"SYSTEMD_PROC_CMDLINE={LEGACY}")
    for name in NAMES:
        engine.docker(
            *("run", "--detach", "--label", LABEL, "--name", name, "--hostname", name),
            *("--network", NETWORK, "--privileged", "--env", "container=docker"),
            *told,
            *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"),  # noqa: S108
            *(IMAGE, "sh", "-c", FIRST_PROCESS),
        )
    machines = [Machine(engine, name) for name in NAMES]
    for machine in machines:
        machine.until(
            "(systemctl is-system-running || true) | grep -Ex 'running|degraded'",
            seconds=BOOT_S,
        )
    return machines


def shut_down(engine: Engine) -> None:
    """Remove the machines with all that is on them."""
    engine.remove_all()


def install(machine: Machine, package: Path) -> str:
    """Install or upgrade the package, as its page says; return what apt printed."""
    machine.put(package, f"/root/{package.name}")
    return machine.sh(
        "export DEBIAN_FRONTEND=noninteractive\n"
        f"apt-get install -qy --no-install-recommends --allow-downgrades ./{package.name}"
    )


def exposure(machine: Machine) -> float:
    """Return what systemd says of the unit's exposure."""
    text = machine.sh("systemd-analyze --no-pager security sparecode-node | tail -1")
    found = re.search(r"([0-9]+\.[0-9]+)", text)
    if found is None:
        raise EngineError(f"no exposure in {text!r}")
    return float(found[1])
