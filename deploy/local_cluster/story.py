# SPDX-License-Identifier: Apache-2.0
"""
Issue and use emergency codes step by step; print each step and check its result.

Every line names the node that did it. A step with another result than promised
raises `NotAsPromisedError`, and `make demo` fails.
"""

import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from local_cluster.cluster import ADMINISTRATOR, AGENT, LocalCluster, LocalNode
from local_cluster.doors import (
    RADIUS_CLIENT,
    NoAnswerError,
    by_http,
    by_radius,
    write_secret,
)
from local_cluster.people import (
    TOKEN_FILE,
    TOKEN_FILE_PASSWORD,
    Person,
    people,
)
from sparecode_client import (
    Admin,
    Agent,
    IssuedTokencodes,
    PinRule,
    RadiusSettings,
    RecoveryPolicy,
    Refused,
    Session,
    SparecodeError,
    TokencodeState,
)

PATIENCE_S = 30


class NotAsPromisedError(Exception):
    """A step had another result than promised; the message says which."""


def until(condition: Callable[[], bool], what: str, *, poll_s: float = 0.1) -> None:
    """Return once the condition holds; raise if that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise NotAsPromisedError(f"{what}: did not happen within {PATIENCE_S} s")
        time.sleep(poll_s)


class Story:
    """Prints and checks the steps. A context manager that is connected to all nodes."""

    def __init__(self, cluster: LocalCluster, console: Console) -> None:
        self._cluster = cluster
        self._console = console
        self._open = ExitStack()
        self._agents: dict[str, Agent] = {}
        self._admins: dict[str, Admin] = {}
        self._steps = 0

    def __enter__(self) -> Self:
        """Connect to every node, as an agent and as an administrator would."""
        certificates = self._cluster.certificates
        for node in self._cluster.nodes:
            self._agents[node.node_id] = self._open.enter_context(
                Agent(
                    node.agents_address,
                    ca=self._cluster.members_ca,
                    certificate=certificates / f"{AGENT}.pem",
                    key=certificates / f"{AGENT}.key",
                )
            )
            self._admins[node.node_id] = self._open.enter_context(
                Admin(node.admin_address, ca=self._cluster.members_ca)
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self._open.close()

    # --- Printing -------------------------------------------------------------

    @contextmanager
    def _step(self, promise: str) -> Iterator[None]:
        """Print one line for a step: what is promised, and whether it is so."""
        self._steps += 1
        try:
            yield
        except (SparecodeError, NotAsPromisedError, NoAnswerError) as error:
            self._line("[red]NOT[/]", f"{promise}: {error}")
            raise NotAsPromisedError(
                f"step {self._steps}, {promise}: {error}"
            ) from error
        self._line("[green]ok[/]", promise)

    def _line(self, verdict: str, words: str) -> None:
        """Print a step; further lines are indented like the first."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(f"[bold]{self._steps:2}[/]", verdict, Text(words))
        self._console.print(grid)

    def _say(self, words: str) -> None:
        self._console.print(
            Padding(Text(words, style="dim"), (0, 0, 0, 8), expand=False)
        )

    def _part(self, title: str) -> None:
        self._console.print(f"\n[bold]{title}[/]")

    # --- Calling nodes --------------------------------------------------------------

    def _try(
        self, node: LocalNode, person: Person, passcode: str, request_id: str = ""
    ) -> bool:
        agent = self._agents[node.node_id]
        return agent.authenticate(
            person.username, passcode, request_id=request_id or None
        ).accepted

    def _expect(
        self, node: LocalNode, person: Person, passcode: str, *, accepted: bool
    ) -> None:
        if self._try(node, person, passcode) is not accepted:
            wanted = "ACCEPTED" if accepted else "REFUSED"
            raise NotAsPromisedError(f"{node.node_id} did not answer {wanted}")

    def _admin(self, node: LocalNode) -> Admin:
        return self._admins[node.node_id]

    def _roles(self) -> tuple[LocalNode, list[LocalNode]]:
        """Return the primary and the running replicas."""
        running = [node for node in self._cluster.nodes if node.running]
        primary = ""

        def known() -> bool:
            nonlocal primary
            primary = self._admin(running[0]).get_status().primary
            return bool(primary) and self._cluster.node(primary).running

        until(known, "a primary is known")
        leader = self._cluster.node(primary)
        return leader, [node for node in running if node is not leader]

    def _digests_equal(self) -> bool:
        status = self._admin(self._cluster.nodes[0]).get_status(digest=True)
        states = {
            (each.applied_index, each.digest, each.audit_sequence, each.audit_head)
            for each in status.members
        }
        return all(each.reachable for each in status.members) and len(states) == 1

    # --- The story -----------------------------------------------------------

    def tell(self) -> None:
        """Run every step, on a new cluster."""
        alice, carol = people()
        self._part("Setting up")
        self._sign_in()
        self._enroll(alice, carol)
        self._part("An ordinary day")
        self._token_logon(alice)
        self._part("Alice has lost her token")
        issued = self.emergency(alice, RecoveryPolicy.ALLOW_AND_DISABLE)
        self._wrong_pin(alice, issued)
        self._same_request(alice, issued)
        if self._cluster.nodes[0].ports.radius:
            self._part("Alice comes through other doors")
            self._register_radius_client()
            self._doors(alice, issued)
        self._part("Carol uses an authenticator app without a PIN")
        self._app_user(carol)
        self._part("The primary is killed")
        self._failover(alice, issued)
        self._part("Alice finds her token")
        self._recovered(alice, issued)
        self._part("All three nodes hold the same state")
        with self._step(
            "state digests and audit log heads are equal on all nodes, at one index"
        ):
            until(self._digests_equal, "equal digests")

    def tell_again(self) -> None:
        """Issue and use codes once more, on a cluster that continues."""
        alice, _ = people()
        self._part("The cluster continues where it stopped")
        self._sign_in()
        issued = self.emergency(alice, RecoveryPolicy.ALLOW_AND_DISABLE)
        if self._cluster.radius_secret_file.exists():
            self._doors(alice, issued)

    def _sign_in(self) -> None:
        node = self._cluster.nodes[1]
        with self._step(
            f"{node.node_id}: {ADMINISTRATOR} signs in; the session is valid on every node"
        ):
            session = self._log_in(node)
            for each in self._cluster.nodes:
                self._admins[each.node_id] = self._open.enter_context(
                    Admin(
                        each.admin_address,
                        ca=self._cluster.members_ca,
                        session=session.session,
                    )
                )
                self._admin(each).who_am_i()
        primary, replicas = self._roles()
        names = " and ".join(replica.node_id for replica in replicas)
        with self._step(
            f"three nodes are up: {primary.node_id} is the primary, "
            f"{names} are replicas"
        ):
            until(self._digests_equal, "equal digests")

    def _log_in(self, node: LocalNode) -> Session:
        """Sign in, once the new cluster has its first administrator."""
        session: Session | None = None

        def signed_in() -> bool:
            nonlocal session
            try:
                session = self._admin(node).login(ADMINISTRATOR, self._cluster.password)
            except Refused as refused:
                if refused.reason != "NOT_INITIALIZED":
                    raise
            return session is not None

        until(signed_in, "the first administrator can sign in")
        if session is None:
            raise NotAsPromisedError("no session")
        return session

    def _enroll(self, *persons: Person) -> None:
        first, second, *_ = self._cluster.nodes
        with self._step(f"{first.node_id}: agent {AGENT} registered"):
            self._admin(first).register_agent(AGENT, f"sparecode://agent/{AGENT}")
        with self._step(
            f"{second.node_id}: tokens imported from {TOKEN_FILE.name} (RFC 6030, encrypted)"
        ):
            rows = self._admin(second).import_tokens(
                TOKEN_FILE.read_bytes(),
                password=TOKEN_FILE_PASSWORD,
                default_pin_rule=PinRule.NONE,
            )
            for row in rows:
                if not row.imported:
                    raise NotAsPromisedError(f"{row.serial}: {row.problem}")
        self._say(", ".join(row.serial for row in rows))
        for person in persons:
            serial = person.token.serial
            with self._step(
                f"{first.node_id}: user {person.username} created, token {serial} assigned"
                + (", PIN set" if person.pin else "")
            ):
                admin = self._admin(first)
                admin.create_user(person.username, display_name=person.display_name)
                admin.assign_token(serial, person.username)
                if person.pin:
                    admin.set_pin(serial, person.pin)

    def _token_logon(self, person: Person) -> None:
        one, two, *_ = self._cluster.nodes
        passcode = person.pin + person.token.tokencode()
        with self._step(
            f"{one.node_id}: {person.username} signs in with PIN + tokencode"
        ):
            self._expect(one, person, passcode, accepted=True)
        with self._step(f"{two.node_id}: the same tokencode is refused: it was used"):
            self._expect(two, person, passcode, accepted=False)

    def emergency(self, person: Person, policy: RecoveryPolicy) -> IssuedTokencodes:
        """Issue codes on a replica, use one on another node, then try it on every node."""
        primary, (replica, *others) = self._roles()
        other = others[0] if others else primary
        serial = person.token.serial
        with self._step(
            f"{replica.node_id} (a replica): 10 one-time tokencodes issued for {serial}"
        ):
            issued = self._admin(replica).issue_tokencodes(
                serial,
                lifetime=timedelta(days=7),
                recovery_policy=policy,
                weaken_recovery_policy=True,
            )
        first = issued.codes[0].code
        self._say(
            f"committed by a quorum at index {issued.commit.index}; "
            f"the first code is {first}"
        )
        with self._step(f"{other.node_id}: {person.username} signs in with PIN + code"):
            self._expect(other, person, person.pin + first, accepted=True)
        names = ", ".join(node.node_id for node in self._cluster.nodes)
        with self._step(f"{names}: the same code is refused on every node"):
            for node in self._cluster.nodes:
                self._expect(node, person, person.pin + first, accepted=False)
        return issued

    def _wrong_pin(self, person: Person, issued: IssuedTokencodes) -> None:
        primary, (replica, *_) = self._roles()
        code = issued.codes[1]
        with self._step(
            f"{replica.node_id}: the next code with a wrong PIN is refused"
        ):
            self._expect(replica, person, "9999" + code.code, accepted=False)
        with self._step(f"{primary.node_id}: that code is still live"):
            access = self._admin(primary).get_emergency_access(person.token.serial)
            record = next(
                each for each in access.sets[0].codes if each.ordinal == code.ordinal
            )
            if record.state is not TokencodeState.LIVE:
                raise NotAsPromisedError(f"the code is {record.state}")
        until(
            lambda: not self._admin(primary).get_user(person.username).locked,
            "the wait after a wrong PIN ends",
        )
        self._say(
            f"after a wrong PIN, {person.username} waits one second before the next try"
        )

    def _same_request(self, person: Person, issued: IssuedTokencodes) -> None:
        one, two, *_ = self._cluster.nodes
        passcode, request_id = person.pin + issued.codes[1].code, str(uuid.uuid4())
        with self._step(
            f"{one.node_id}, {two.node_id}: a retry with the same request id "
            "gets the same answer"
        ):
            answers = [
                self._try(node, person, passcode, request_id) for node in (one, two)
            ]
            if answers != [True, True]:
                raise NotAsPromisedError(f"accepted: {answers}")

    def _register_radius_client(self) -> None:
        two = self._cluster.nodes[1]
        with self._step(
            f"{two.node_id}: RADIUS client {RADIUS_CLIENT} registered, its secret drawn"
        ):
            new = self._admin(two).register_radius_client(
                RADIUS_CLIENT, RadiusSettings(networks=(two.ports.host,))
            )
            write_secret(self._cluster.radius_secret_file, new.secret)

    def _doors(self, person: Person, issued: IssuedTokencodes) -> None:
        """Use a code by RADIUS and one by HTTP; try each through the other doors."""
        one, two, three = self._cluster.nodes
        first, second = (person.pin + each.code for each in issued.codes[3:5])
        with self._step(
            f"{one.node_id}: {person.username} signs in by RADIUS with PIN + code"
        ):
            self._wants(self._by_radius(one, person, first), accepted=True)
        with self._step(
            f"{two.node_id}, {three.node_id}: the same code is refused by HTTP and gRPC"
        ):
            self._wants(self._by_http(two, person, first), accepted=False)
            self._expect(three, person, first, accepted=False)
        with self._step(
            f"{two.node_id}: {person.username} signs in by HTTP with PIN + code"
        ):
            self._wants(self._by_http(two, person, second), accepted=True)
        with self._step(
            f"{one.node_id}, {three.node_id}: the same code is refused by RADIUS and gRPC"
        ):
            self._wants(self._by_radius(one, person, second), accepted=False)
            self._expect(three, person, second, accepted=False)

    def _by_radius(self, node: LocalNode, person: Person, passcode: str) -> bool:
        secret = self._cluster.radius_secret_file.read_text().strip()
        return by_radius(node, secret, person.username, passcode)

    def _by_http(self, node: LocalNode, person: Person, passcode: str) -> bool:
        """Call with the certificate of the agent."""
        files = ssl.create_default_context(cafile=self._cluster.members_ca)
        pair = self._cluster.certificates / AGENT
        files.load_cert_chain(f"{pair}.pem", f"{pair}.key")
        return by_http(node, files, person.username, passcode)

    @staticmethod
    def _wants(answer: bool, *, accepted: bool) -> None:  # noqa: FBT001
        if answer is not accepted:
            raise NotAsPromisedError("it was accepted" if answer else "it was refused")

    def _app_user(self, person: Person) -> None:
        primary, (replica, *_) = self._roles()
        with self._step(
            f"{primary.node_id}: 5 codes issued for {person.username}'s app"
        ):
            issued = self._admin(primary).issue_tokencodes(
                person.token.serial, count=5, lifetime=timedelta(days=1)
            )
        for warning in issued.saved.warnings:
            self._say(f"the node warns: {warning}")
        with self._step(
            f"{replica.node_id}: {person.username} signs in with a code and no PIN"
        ):
            self._expect(replica, person, issued.codes[0].code, accepted=True)

    def _failover(self, person: Person, issued: IssuedTokencodes) -> None:
        killed, (one, two) = self._roles()
        killed.kill()
        self._say(f"kill -9 {killed.node_id}")
        passcode = person.pin + issued.codes[2].code
        with self._step(
            f"{one.node_id}: {person.username} signs in with the next code"
        ):
            answer = self._agents[one.node_id].authenticate(
                person.username, passcode, within=timedelta(seconds=PATIENCE_S)
            )
            if not answer.accepted:
                raise NotAsPromisedError("it was refused")
        with self._step(f"{two.node_id}: the same code is refused"):
            self._expect(two, person, passcode, accepted=False)
        killed.start()
        self._cluster.wait_ready(killed)
        with self._step(f"{killed.node_id}: restarted, it refuses the code too"):
            self._expect(killed, person, passcode, accepted=False)
        with self._step(
            f"{killed.node_id}: the digest of its state equals that of the other nodes"
        ):
            until(self._digests_equal, "equal digests")

    def _recovered(self, person: Person, issued: IssuedTokencodes) -> None:
        one, two, *_ = self._cluster.nodes
        with self._step(
            f"{one.node_id}: her token is accepted, which voids all her codes"
        ):
            passcode = person.pin + person.token.tokencode()
            self._expect(one, person, passcode, accepted=True)
        with self._step(f"{two.node_id}: an unused code is refused"):
            self._expect(two, person, person.pin + issued.codes[9].code, accepted=False)
