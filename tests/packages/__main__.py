# SPDX-License-Identifier: Apache-2.0
"""
Run the packages, not only validate them: `make packages-test`, as root.

Builds the Debian packages of this checkout and of release 0.1.0, and the image.
Exits with 1 if a step fails, and with 2 if it cannot run here. Parts that passed go to
docs/results/packages.md.
"""

import argparse
import os
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from local_cluster.story import NotAsPromisedError, Story
from release import deb
from rich.console import Console

from sparecode_client import SparecodeError
from tests.compatibility import baseline
from tests.packages import machines, manifests
from tests.packages.cluster import Cluster
from tests.packages.containers import Containers, base_image, image_size
from tests.packages.engine import Engine, EngineError, debootstrap, exit_on_signals
from tests.packages.machines import Machine
from tests.packages.report import Part, Report, keep

ROOT = Path(__file__).parents[2]
WORK = ROOT / "var" / "packages"
LOCK = "deploy/container/requirements.lock"
EARLIER = "0.1.0"
EXPOSURE_MAX = 3.0
PARTS = ("install", "upgrade", "containers", "manifests")


def earlier_package(out: Path) -> Path:
    """Return the package of the earlier release; build it the first time."""
    commit = baseline.BASELINES[EARLIER]
    found = sorted(out.glob("*.deb"))
    if found:
        return found[0]
    baseline.build(commit)
    (wheel,) = (baseline.BUILDS / commit).glob("*.whl")
    lock = WORK / "earlier.lock"
    lock.write_bytes(baseline.file_of(commit, LOCK))
    return deb.build(wheel, lock, out, f"{EARLIER}-1")


def machine_image(engine: Engine) -> None:
    """Make the image of the machines: a small Debian with systemd."""
    if engine.has(machines.IMAGE):
        return
    root = WORK / "machine"
    if not (root / "usr/bin/systemctl").exists():
        debootstrap(
            root,
            deb.run("sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"),
            *machines.PACKAGES,
        )
    engine.imported(machines.IMAGE, root)


def killed(report: Report, cluster: Cluster) -> None:
    """Kill every node, one after the other; systemd starts each again."""
    for machine in cluster.machines:
        with report.step(
            f"{machine.name}: `systemctl kill -s KILL sparecode-node`"
        ) as step:
            before = machine.pid
            machine.sh("systemctl kill -s KILL sparecode-node")
            machine.until(
                f"test $(systemctl show -P MainPID sparecode-node) -gt 0 && "
                f"test $(systemctl show -P MainPID sparecode-node) != {before}"
            )
            machine.wait_ready()
            step.seen = f"started again by systemd; a code is {cluster.use(machine)}"


def try_install(report: Report, engine: Engine, package: Path) -> Part:
    """Install on three machines, and use what came with the package."""
    part = report.part("Three machines with systemd: installation")
    machine_image(engine)
    with report.step("three machines boot") as step:
        three = machines.boot(engine)
        step.seen = three[0].sh("systemctl --version | head -1")
    cluster = Cluster(three)
    for machine in three:
        with report.step(f"{machine.name}: `apt install ./{package.name}`") as step:
            machines.install(machine, package)
            installed(machine)
            step.seen = (
                "user, units, manual pages, completion; the node does not start yet"
            )
    with report.step("the commands of quick-start.md make a cluster") as step:
        step.seen = cluster.follow_quick_start()
    with report.step("`systemd-analyze security`") as step:
        value = machines.exposure(three[0])
        if value > EXPOSURE_MAX:
            raise EngineError(f"exposure {value}")
        step.seen = f"exposure {value}"
    with report.step("`sparecode-node doctor`") as step:
        step.seen = three[1].sh(
            "cd /etc/sparecode; sparecode-node --config node.toml doctor | tail -1"
        )
    cluster.sign_in()
    cluster.issue(10)
    for machine in three:
        with report.step(f"{machine.name}: a code") as step:
            step.seen = cluster.use(machine)
    with report.step("n2: `systemctl reload`, then `restart`") as step:
        three[1].sh("systemctl reload sparecode-node; systemctl restart sparecode-node")
        three[1].wait_ready()
        step.seen = cluster.use(three[1])
    killed(report, cluster)
    with report.step("n3: `apt remove`") as step:
        three[2].sh("apt-get remove -qy sparecode")
        three[2].sh(
            "test -d /var/lib/sparecode; test ! -e /opt/sparecode; test ! -e /usr/bin/sparecode"
        )
        step.seen = "the node has stopped, the software is gone, the data is kept"
    machines.shut_down(engine)
    return part


def installed(machine: Machine) -> None:
    """Check what the package has put in place. Raises `EngineError`."""
    machine.sh(
        "getent passwd sparecode >/dev/null\n"
        "sparecode --version; sparecode-node --version\n"
        "stat -c '%U:%G %a' /etc/sparecode | grep -qx 'root:sparecode 750'\n"
        "man -w sparecode sparecode-node sparecode-tokens >/dev/null\n"
        "for page in /usr/share/man/man1/sparecode*.1.gz; do\n"
        "    lexgrog $page >/dev/null\n"
        '    test -z "$(MANWIDTH=80 man --warnings -l $page 2>&1 >/dev/null)"\n'
        "done\n"
        ". /usr/share/bash-completion/bash_completion; __load_completion sparecode\n"
        "complete -p sparecode >/dev/null\n"
        "systemctl cat sparecode-node sparecode-backup.timer >/dev/null\n"
        "test $(systemctl is-enabled sparecode-node) = disabled || true\n"
        "! systemctl is-active --quiet sparecode-node\n"
        "test -e /usr/share/doc/sparecode/operations.md\n"
        "test -e /usr/share/doc/sparecode/examples/pam/sparecode-pam.conf\n"
    )


def try_upgrade(report: Report, engine: Engine, new: Path) -> Part:
    """Upgrade a cluster of the earlier release, node by node."""
    part = report.part(f"Three machines with systemd: upgrade from {EARLIER}")
    machine_image(engine)
    old = earlier_package(WORK / "earlier")
    three = machines.boot(engine)
    cluster = Cluster(three)
    with report.step(f"a cluster of {EARLIER} is installed and made") as step:
        for machine in three:
            machines.install(machine, old)
        cluster.found()
        step.seen = f"package {three[0].version}"
    with report.step("a user, a token, an agent, and 12 codes"):
        cluster.enroll()
        cluster.issue(12)
    with report.step("a code") as step:
        step.seen = cluster.use(three[1])
    primary = str(cluster.status()["primary"])
    order = sorted(three, key=lambda each: each.name == primary)
    for machine in order:
        words = f"{machine.name}: `apt install ./{new.name}`"
        if machine.name == primary:
            words = f"`sparecode cluster transfer`, then {words}"
        with report.step(words) as step:
            if machine.name == primary:
                cluster.sign_in()
                cluster.operate("sparecode cluster transfer")
            machines.install(machine, new)
            machine.wait_ready()
            step.seen = cluster.use(machine)
    with report.step("the feature level rises when the last node is upgraded") as step:
        cluster.sign_in()
        cluster.wait_level(baseline.current().level)
        step.seen = f"feature level {cluster.status()['feature_level']}"
    killed(report, cluster)
    with report.step("all nodes have the same state") as step:
        cluster.sign_in()
        step.seen = cluster.compare_digests()
    machines.shut_down(engine)
    return part


def try_containers(report: Report, engine: Engine, console: Console) -> Part:
    """Run the steps of the demo on three containers."""
    part = report.part("Three containers by compose")
    (wheel,) = (ROOT / "dist").glob("*.whl")
    version = wheel.name.split("-")[1]
    containers = Containers(engine, WORK)
    try:
        with report.step("the image that the Dockerfile begins with") as step:
            step.seen = base_image(engine, WORK)
        with report.step(
            "the commands of deploy.md build the image and start three containers"
        ) as step:
            containers.set_up(ROOT / "dist")
            step.seen = f"health: {containers.health()}{containers.changes}"
        with report.step("confinement") as step:
            step.seen = containers.confinement()
        cluster = containers.cluster()
        with report.step(
            "the steps of `make demo`, with a kill of the primary's container"
        ) as step:
            with Story(cluster, console) as story:
                story.tell()
            step.seen = "all passed"
        with report.step("size of the image") as step:
            step.seen = image_size(engine, f"sparecode:{version}")
    finally:
        containers.down()
    return part


def try_manifests(report: Report) -> Part:
    """Render the manifests with kubectl, and validate them."""
    part = report.part("Kubernetes manifests")
    folders = {
        "founding": manifests.MANIFESTS / "founding",
        "nodes": manifests.MANIFESTS,
    }
    for name, folder in folders.items():
        with report.step(f"`kubectl kustomize`: {name}") as step:
            step.seen = manifests.check(folder)
    return part


def facts(engine: Engine, package: Path) -> dict[str, str]:
    """Return what a part of the page says of its run."""
    docker = engine.docker("version", "--format", "{{.Server.Version}}")
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "package": f"`{package.name}` ({package.stat().st_size / 1e6:.0f} MB)",
        "on": f"{os.cpu_count()} cores, {platform.system()}, Docker {docker}",
    }


def main() -> int:
    """Run the parts that the arguments name; put those that passed into the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.packages")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    if os.geteuid():
        print("make packages-test needs root", file=sys.stderr)
        return 2
    exit_on_signals()
    console = Console()
    report = Report(console)
    package = max((ROOT / "dist").glob("*.deb"), key=lambda each: each.stat().st_mtime)
    try:
        WORK.mkdir(parents=True, exist_ok=True)
        with Engine(WORK / "engine") as engine:
            parts: dict[str, Callable[[], Part]] = {
                "install": lambda: try_install(report, engine, package),
                "upgrade": lambda: try_upgrade(report, engine, package),
                "containers": lambda: try_containers(report, engine, console),
                "manifests": lambda: try_manifests(report),
            }
            for name in options.parts:
                page = keep(parts[name](), facts(engine, package))
                console.print(f"Written: {page.relative_to(ROOT)}")
    except (EngineError, deb.PackageError, SparecodeError, NotAsPromisedError) as error:
        console.print(f"\n{error}", style="bold red", markup=False, highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
