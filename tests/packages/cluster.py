# SPDX-License-Identifier: Apache-2.0
"""
A cluster on three machines.

`follow_quick_start` makes it with the commands of docs/quick-start.md, as a reader does
who installs the package. `found` makes it by hand, as docs/deploy.md says: release 0.1.0
has no `sparecode-node setup`.
"""

import json
import re
import time
from typing import Any

from tests.docs.test_quick_start import CODE, PAGE, commands_of
from tests.packages.engine import EngineError
from tests.packages.machines import Machine

SERIAL = "000123456789"
PIN = "4719"
ENROLL = f"""
sparecode-node certificates /etc/sparecode --agent vpn
sparecode users create alice
echo GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ | sparecode tokens enroll {SERIAL} --seed-file -
sparecode tokens assign {SERIAL} alice
echo {PIN} | sparecode tokens set-pin {SERIAL} --pin-file -
sparecode agents register vpn sparecode://agent/vpn
"""
"""Commands that release 0.1.0 has, too."""

NODE = """\
[node]
id = "{name}"
data_dir = "/var/lib/sparecode"

[agents]
certificate = "node.pem"
key = "node.key"
ca = "agents-ca.pem"

[peers]
certificate = "node.pem"
key = "node.key"
ca = "members-ca.pem"

[console]
certificate = "node.pem"
key = "node.key"

[metrics]

[admin]
certificate = "node.pem"
key = "node.key"

[cluster.members]
{name} = "{name}:7301"

[keys]
file = "/var/lib/sparecode-keys/keyring.json"
wrapping_key = "wrapping.key"
"""
OWNERS = """
chown sparecode *.key && chown root wrapping.key
chown -R sparecode: /var/lib/sparecode /var/lib/sparecode-keys
"""
START = "systemctl daemon-reload; systemctl enable --now sparecode-node"
CLIENT = """
export SPARECODE_CA=/etc/sparecode/members-ca.pem
export SPARECODE_NODES=n1,n2,n3
export SPARECODE_AGENT_CERTIFICATE=/etc/sparecode/vpn.pem
export SPARECODE_AGENT_KEY=/etc/sparecode/vpn.key
export XDG_RUNTIME_DIR=/root/run
"""
VOTERS_S = 60
LEVEL_S = 60
JOIN = re.compile(r"^(sparecode cluster ticket (n\d) .*) \| (.* setup --join -)$")
TLS = "n1/tls"
"""The folder of certificates on the page, where the unit is not installed."""


class Cluster:
    """The three machines, operated from the first one."""

    def __init__(self, machines: list[Machine]) -> None:
        self.machines = machines
        self.desk = machines[0]
        self.codes: list[str] = []

    def operate(self, script: str) -> str:
        """Run commands as the operator, who is signed in."""
        return self.desk.sh(CLIENT + script)

    def follow_quick_start(self) -> str:
        """
        Run the page's commands; return how many led to the first accepted code.

        The package takes the place of `make install`, the machines' names that of the
        addresses, and `/etc/sparecode` that of the folder with the certificates.
        """
        self.desk.sh("mkdir -p -m 0700 run")
        _, commands = commands_of(PAGE.read_text())
        names = "".join(f"N{each.name[1:]}={each.name} " for each in self.machines)
        typed, accepted, number = "", 0, 0
        for command in commands:
            if command.startswith("make "):
                number += len(self.machines)  # Each machine has installed the package.
                continue
            number += 1
            line = command.replace(TLS, "/etc/sparecode")
            if join := JOIN.search(line):
                self._join(join[2], f"{CLIENT}{names}\n{join[1]}", join[3])
                continue
            if accepted and "authenticate" in line:  # Another node refuses the code.
                line = f"code=0; {line} || code=$?; test $code = 1"
            output = self.desk.type(f"{CLIENT}{names}\n{line}", typed)
            if issued := CODE.search(output):
                typed = f"{PIN}{issued[1]}\n"
            if "ACCEPTED" in output and not accepted:
                accepted = number
            if " setup " in line:
                self.desk.wait_ready()
        if not accepted:
            raise EngineError(f"{PAGE.name}: no code was accepted")
        self._wait_voters()
        return f"{accepted} commands to the first accepted code"

    def _join(self, name: str, ticket: str, command: str) -> None:
        """Let the pipe of a ticket end on its machine, as `ssh` does."""
        machine = next(each for each in self.machines if each.name == name)
        machine.type(command, self.desk.sh(ticket))
        machine.wait_ready()

    def _wait_voters(self) -> None:
        self.desk.until(
            f"{CLIENT} sparecode cluster members | grep -c ' voter ' | grep -qx 3",
            seconds=VOTERS_S,
        )

    def found(self) -> None:
        """Make the cluster by hand, with the commands of release 0.1.0."""
        for machine in self.machines:
            machine.write("/etc/sparecode/node.toml", NODE.format(name=machine.name))
            machine.sh(
                "cd /etc/sparecode; chgrp sparecode node.toml; chmod 0640 node.toml\n"
                "sparecode-node --config node.toml check-config"
            )
        self.desk.sh(
            "mkdir -p -m 0700 run\n"
            "(umask 077; head -c 15 /dev/urandom | base64 >admin.password)\n"
            "cd /etc/sparecode\n"
            "sparecode-node --config node.toml init --new-authority "
            "--administrator admin --password-file /root/admin.password\n"
            f"{OWNERS}{START}"
        )
        self.desk.wait_ready()
        self.sign_in()
        for machine in self.machines[1:]:
            ticket = self.operate(f"sparecode cluster ticket {machine.name}")
            machine.write("/etc/sparecode/ticket", ticket + "\n")
            machine.sh(
                "cd /etc/sparecode\n"
                "sparecode-node --config node.toml init --join ticket; rm ticket\n"
                f"{OWNERS}{START}"
            )
            machine.wait_ready()
        self._wait_voters()

    def sign_in(self) -> None:
        """Sign in: sessions are short."""
        self.operate("sparecode login admin --password-file admin.password")

    def enroll(self) -> None:
        """Make a certificate for an agent, a user and a token; register the agent."""
        self.operate(ENROLL)

    def issue(self, count: int) -> None:
        """Issue codes for the lost token."""
        answer = json.loads(
            self.operate(
                f"sparecode --output json emergency issue {SERIAL} "
                f"--count {count} --expires 7d"
            )
        )
        self.codes = [each["code"] for each in answer["codes"]]

    def authenticates(self, machine: Machine, code: str) -> bool:
        """Return whether the node of *machine* accepts the code."""
        output = self.operate(
            f"echo {PIN}{code} | sparecode --timeout 30 authenticate alice "
            f"--agents-node {machine.name} --passcode-file - || test $? = 1"
        )
        return "ACCEPTED" in output

    def use(self, machine: Machine) -> str:
        """Spend the next code at one node; every node refuses it after that."""
        code = self.codes.pop(0)
        if not self.authenticates(machine, code):
            raise EngineError(f"{machine.name} refused a code that was not used")
        for other in self.machines:
            if self.authenticates(other, code):
                raise EngineError(f"{other.name} accepted a used code")
        return f"accepted by {machine.name}, then refused by all"

    def status(self) -> dict[str, Any]:
        """Return `sparecode cluster status`."""
        return dict(
            json.loads(self.operate("sparecode --output json cluster status --digest"))
        )

    def wait_level(self, level: int) -> None:
        """Return when the cluster has reached this feature level."""
        deadline = time.monotonic() + LEVEL_S
        while self.status()["feature_level"] != level:
            if time.monotonic() > deadline:
                raise EngineError(f"the feature level did not rise to {level}")
            time.sleep(0.3)

    def compare_digests(self) -> str:
        """Wait for all nodes to have the same state; return its digest."""
        deadline = time.monotonic() + LEVEL_S
        while True:
            members = self.status()["members"]
            states = {(each["applied_index"], each["digest"]) for each in members}
            if len(states) == 1 and len(members) == len(self.machines):
                ((index, digest),) = states
                return f"digest {digest[:16]} at index {index} on every node"
            if time.monotonic() > deadline:
                raise EngineError(f"different states: {states}")
            time.sleep(0.3)
