# SPDX-License-Identifier: Apache-2.0
"""
Three containers of the image, set up with the commands of docs/deploy.md.

The commands run as printed, in a copy of the checkout; only `make wheel` is left out,
for the wheel is there. The steps of `make demo` then run on the containers.
"""

import re
import resource
import secrets
import shutil
import sys
from pathlib import Path

import yaml
from local_cluster.cluster import LocalCluster, LocalNode, Ports

from tests.packages.engine import Engine, EngineError, debootstrap, run

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/deploy.md"
BASE = "python:3.11-slim-bookworm"
SUITE = "bookworm"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INIT = "docker compose run --rm n1 --config /etc/sparecode/node.toml init"
UNATTENDED = f"{INIT} --administrator admin --password-file /etc/sparecode/administrator.password"


def base_image(engine: Engine, folder: Path) -> str:
    """
    Have the image that the Dockerfile begins with; return where it is from.

    Where its registry is not reached, Debian's own Python stands in for it. The
    authorities of this machine come along: a mirror of PyPI may need them.
    """
    stand_in = f"a stand-in: Debian's Python, made with debootstrap ({SUITE})"
    if engine.has(BASE):
        digests = engine.docker(
            "image", "inspect", "--format", "{{len .RepoDigests}}", BASE
        )
        return stand_in if digests == "0" else "from its registry"
    root = folder / SUITE
    if not (root / "usr/bin/python3").exists():
        debootstrap(root, SUITE, "ca-certificates", "python3", "python3-venv")
    (root / "usr/local/bin/python").unlink(missing_ok=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    shutil.copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
    (root / "etc/pip.conf").write_text(f"[global]\ncert = {AUTHORITIES}\n")
    engine.imported(BASE, root)
    return stand_in


class ContainerNode(LocalNode):
    """A node in a container, which the steps of the demo kill and start."""

    def __init__(self, engine: Engine, folder: Path, number: int) -> None:
        ports = Ports(
            agents=7300 + 10 * number,
            peers=0,
            admin=7304 + 10 * number,
            host="localhost",
        )
        super().__init__(f"n{number}", folder, ports, testing=False)
        self._engine = engine
        self.container = f"sparecode-n{number}-1"

    @property
    def running(self) -> bool:
        """Whether the container runs."""
        state = self._engine.docker(
            "inspect", "--format", "{{.State.Running}}", self.container
        )
        return state == "true"

    def start(self) -> None:
        """Start the container."""
        self._engine.docker("start", self.container)

    def kill(self) -> None:
        """Kill the node, as `kill -9` does."""
        self._engine.docker("kill", "--signal", "KILL", self.container)

    def last_words(self, lines: int = 12) -> str:
        """Return the end of the container's output."""
        return self._engine.docker(
            "logs", "--tail", str(lines), self.container, check=False
        )


class Containers:
    """The containers of compose.yaml, in a copy of the checkout."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._checkout = folder / "checkout"
        self._compose = self._checkout / "deploy/container"
        self.changes = ""
        """What differs from compose.yaml."""
        self._environment = {
            **engine.environment,
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        }

    def set_up(self, dist: Path) -> None:
        """Run the page's commands, up to a cluster that answers."""
        shutil.rmtree(self._checkout, ignore_errors=True)
        shutil.copytree(ROOT / "deploy/container", self._compose)
        shutil.copytree(dist, self._checkout / "dist")
        self._limit_descriptors()
        section = PAGE.read_text().partition("\n## In containers")[2]
        script = "".join(BLOCK.findall(section.partition("\n## ")[0]))
        if INIT not in script:
            raise EngineError(f"{PAGE.name}: no line {INIT!r}")
        password = secrets.token_urlsafe(12)
        # `init` would ask for the name and the password.
        script = script.replace(INIT, UNATTENDED).replace(
            "chown -R",
            f"(umask 077; echo {password} >administrator.password)\n"
            "cp -p administrator.password cluster/n1/\nchown -R",
        )
        run(
            *("bash", "-euo", "pipefail", "-c", f"make() {{ :; }}\n{script}"),
            cwd=self._checkout,
            environment=self._environment,
        )
        (self._compose / "cluster/n1/administrator.password").unlink()

    def _limit_descriptors(self) -> None:
        """Lower the limit of descriptors to this machine's, if root cannot raise that."""
        file = self._compose / "compose.yaml"
        services = yaml.safe_load(file.read_text())["services"]
        wanted = services["n1"]["ulimits"]["nofile"]
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if allowed >= wanted:
            return
        lower = {"ulimits": {"nofile": allowed}}
        override = {"services": dict.fromkeys(services, lower)}
        file.with_name("compose.override.yaml").write_text(yaml.safe_dump(override))
        self.changes = f"; descriptors limited to {allowed}, as on this machine"

    def cluster(self) -> LocalCluster:
        """Return the containers as the nodes of a cluster."""
        nodes: list[LocalNode] = [
            ContainerNode(self._engine, self._compose, number) for number in (1, 2, 3)
        ]
        return LocalCluster(self._compose, nodes, testing=False)

    def confinement(self) -> str:
        """Check that a node can write to its volume only, and has no privilege."""
        for number in (1, 2, 3):
            name = f"sparecode-n{number}-1"
            inspected = self._engine.docker(
                *("inspect", "--format"),
                "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.Config.User}}",
                name,
            )
            if inspected != "true [ALL] 10001:10001":
                raise EngineError(f"{name}: {inspected}")
            script = (
                "for f in /x /etc/sparecode/x /opt/sparecode/x; do "
                "! touch $f 2>/dev/null || exit 1; done; touch /var/lib/sparecode/x; "
                "rm /var/lib/sparecode/x; grep CapEff /proc/1/status; id -u"
            )
            output = self._engine.docker("exec", name, "sh", "-c", script).split()
            if output != ["CapEff:", "0000000000000000", "10001"]:
                raise EngineError(f"{name}: {output}")
        return "root file system read-only, no capabilities, user 10001"

    def health(self) -> str:
        """Return the engine's word for the health of all containers."""
        return ", ".join(
            self._engine.docker(
                "inspect", "--format", "{{.State.Health.Status}}", f"sparecode-n{n}-1"
            )
            for n in (1, 2, 3)
        )

    def down(self) -> None:
        """Remove containers, volumes and network."""
        if self._compose.exists():
            run(
                *("docker", "compose", "down", "--volumes", "--timeout", "5"),
                cwd=self._compose,
                environment=self._environment,
                check=False,
            )


def image_size(engine: Engine, image: str) -> str:
    """Return the size of the image, and the part that is its base."""

    def size(name: str) -> int:
        return int(engine.docker("image", "inspect", "--format", "{{.Size}}", name))

    return (
        f"{size(image) / 1e6:.0f} MB, of which the base has {size(BASE) / 1e6:.0f} MB"
    )
