# SPDX-License-Identifier: Apache-2.0
"""What the people of the simulated cluster do: the same on engines and on whole nodes."""

import abc
import random
from collections.abc import Callable
from dataclasses import dataclass

from sparecode_node.domain.challenges import Challenge
from sparecode_node.domain.ids import KeyId
from sparecode_node.statemachine.commands import Command, UnstampedCall
from sparecode_node.statemachine.commands.keys import ActivateKey
from tests.simulation.invariants import Submission
from tests.simulation.machines import Node
from tests.simulation.people import (
    CODES,
    FEW_CODES,
    FOUNDING,
    GUESSED,
    HURRIED,
    KEY,
    NEWCOMER,
    OTHER_AGENT,
    REISSUED,
    SPENDERS,
    TOKEN_USER,
    Answer,
    IssuedSet,
    Try,
    beginning,
    call_of,
    open_session,
)
from tests.simulation.rules import CodeRules
from tests.simulation.sqlite_store import MachineStore

RECENT = 12
"""The number of requests that are retried, and of codes tried at one time."""

ANSWERED = 0.6
NEWEST_CHALLENGES = 3
"""Those that are answered, each again and again."""
STOLEN = 0.4
"""How often another agent than its own answers."""

OLDER_DRAFTS = 0.3
"""How often codes are saved that were drafted under an aging key, if there is one."""


@dataclass(frozen=True)
class ClientRequest:
    """A request that a client may repeat, here or elsewhere."""

    request_id: str
    wanted: Try | Answer


class PeopleAtWork(abc.ABC):
    """Agents and administrators, who ask any node."""

    rng: random.Random
    rules: CodeRules

    def __init__(self) -> None:
        self._client_requests: list[ClientRequest] = []
        self._issued: dict[str, int] = {}
        self._names = self._pins = 0

    @abc.abstractmethod
    def propose(
        self, node: Node, request_id: str, make: Callable[[], UnstampedCall]
    ) -> Submission:
        """Propose a call once, and keep its outcome."""

    def _name(self, what: str) -> str:
        self._names += 1
        return f"{what}{self._names}"

    # --- The beginning

    def beginnings(self) -> list[Callable[[Node], list[Submission]]]:
        """Return what makes cluster, users and codes: each to be done before the next."""
        steps: list[Callable[[Node], list[Submission]]] = [
            lambda node: [self._admin(node, FOUNDING, "founding")],
            lambda node: [
                self._sign_in(node, "open.first"),
                *(
                    self._admin(node, command, f"beginning{k}", "open.first")
                    for k, command in enumerate(beginning())
                ),
            ],
        ]
        sets = [(user, CODES) for user in (*SPENDERS, GUESSED)]
        sets += [(user, FEW_CODES) for user in (REISSUED, HURRIED)]
        return steps + [lambda node, s=each: self._issue(node, *s) for each in sets]

    # --- Everyday work

    def ask_something(self, node: Node) -> None:
        """Do what people do, on a node."""
        acts: list[tuple[float, Callable[[Node], object]]] = [
            (0.50, self._spend),
            (0.22, self._repeat),
            (0.03, self._reuse_id),
            (0.05, self._guess),
            (0.07, self._use_token),
            (0.05, self._reissue),
            (0.10, self._choose_pin),
        ]
        weights = [weight for weight, _ in acts]
        [(_, act)] = self.rng.choices(acts, weights)
        act(node)

    def _request(self, node: Node, request: ClientRequest) -> Submission:
        wanted, store = request.wanted, machine_store(node)
        version = store.auth_version(wanted.user)
        keys = store.keys_for(wanted.user, wanted.set_id or "")
        made = call_of(
            wanted.command(version, keys),
            request.request_id,
            content=f"{wanted.user} {wanted.what}",
        )
        return self.propose(node, request.request_id, lambda: made)

    def untried(self) -> Try | None:
        """Return a code that no one has tried, and that works: its user has no others."""
        tried = {each.wanted.what for each in self._client_requests}
        for user in SPENDERS:
            for ordinal in range(CODES, 0, -1):
                wanted = Try(user, IssuedSet(user, 1, 0).set_id, ordinal)
                if wanted.what not in tried:
                    return wanted
        return None

    def try_once(self, node: Node, wanted: Try | Answer) -> Submission:
        """Try a code under a request id of its own."""
        request = ClientRequest(self._name("try"), wanted)
        self._client_requests.append(request)
        return self._request(node, request)

    def _try(self, node: Node, wanted: Try) -> None:
        self.try_once(node, wanted)

    def _spend(self, node: Node) -> None:
        """Try a code that others try at the same time."""
        user = self.rng.choice([*SPENDERS, *SPENDERS, REISSUED, HURRIED])
        number = self._issued[user]
        if user in SPENDERS:
            place = len(self._client_requests) // 5 + self.rng.randrange(3)
            ordinal = 1 + place % CODES
        else:
            number = max(1, number - self.rng.choice([0, 0, 1]))
            ordinal = self.rng.randint(1, FEW_CODES)
        set_id = IssuedSet(user, number, 0).set_id
        self._try(node, Try(user, set_id, ordinal))

    def _repeat(self, node: Node) -> None:
        """Retry, like a caller that got no answer, or not the wanted one."""
        if self._client_requests:
            self._request(node, self.rng.choice(self._client_requests[-RECENT:]))

    def _reuse_id(self, node: Node) -> None:
        """Ask something else under a request id that is taken."""
        if len(self._client_requests) >= 2:
            one, other = self.rng.sample(self._client_requests[-RECENT:], 2)
            self._request(node, ClientRequest(one.request_id, other.wanted))

    def _guess(self, node: Node) -> None:
        set_id = IssuedSet(GUESSED, 1, 0).set_id
        self._try(node, Try(GUESSED, set_id, 1000 + self.rng.randrange(9)))

    def _use_token(self, node: Node) -> None:
        # The token's clock is a step ahead; some people type what it showed before. So
        # what a node learns of its drift is wrong by the window at most, as for a real
        # token. Nothing here keeps to the window: the search does (`moments_to_try`).
        # And a token has a clock of its own: no clock of a node that jumps moves it.
        shown = int(node.wall_s() - node.clock_s) // 30 + 1
        step = shown - self.rng.choice([0, 1, 1])
        self._try(node, Try(TOKEN_USER, moment=step))

    def _choose_pin(self, node: Node) -> None:
        """Ask to choose a PIN, or answer; the tokencodes are of steps never used."""
        self._pins += 1
        challenges = self.rules.challenges[-NEWEST_CHALLENGES:]
        if challenges and self.rng.random() < ANSWERED:
            self._answer(node, self.rng.choice(challenges))
        else:
            self._try(node, Try(NEWCOMER, moment=10 * self._pins))

    def _answer(self, node: Node, challenge: Challenge) -> None:
        """Answer a challenge: rightly or not, and not always by its own agent."""
        later = self.rng.choice([None, None, 1, 2])
        moment = None if later is None else challenge.moment + later
        agent = OTHER_AGENT if self.rng.random() < STOLEN else challenge.agent
        self.try_once(node, Answer(challenge, moment, agent))

    def _reissue(self, node: Node) -> None:
        self._issue(node, self.rng.choice([REISSUED, HURRIED]), FEW_CODES)

    def _issue(
        self, node: Node, user: str, codes: int, key_id: KeyId | None = None
    ) -> list[Submission]:
        """Issue a set; *key_id*: of its draft, instead of a drawn one."""
        number = self._issued[user] = self._issued.get(user, 0) + 1
        lifetime_ms = self.rng.randint(200, 3000) if user == HURRIED else None
        issued = IssuedSet(user, number, codes, lifetime_ms)
        self.rules.sets[issued.set_id] = issued
        session = self._name("open.")
        signed_in = self._sign_in(node, session)
        if not node.is_up():
            return [signed_in]
        store = machine_store(node)
        key_id = key_id or self._key_of_draft(store)
        command = issued.command(store.auth_version(user), key_id)
        saved = self._admin(node, command, f"save.{issued.set_id}", session)
        return [signed_in, saved]

    def _key_of_draft(self, store: MachineStore) -> KeyId:
        """Return a key for new codes: their draft may be from before a rotation."""
        keys = store.keys()
        if keys.aging and self.rng.random() < OLDER_DRAFTS:
            return self.rng.choice(keys.aging).key_id
        return keys.active or KEY

    def _sign_in(self, node: Node, session: str) -> Submission:
        command = open_session(session, machine_store(node).password_key())
        return self._admin(node, command, f"sign-in.{session}")

    def _admin(
        self, node: Node, command: Command, request: str, session: str = ""
    ) -> Submission:
        made = call_of(command, request, content=request, session=session)
        return self.propose(node, request, lambda: made)

    def activate_key(self, node: Node, command: ActivateKey) -> None:
        """Activate a key, as an administrator who has just signed in."""
        session = self._name("open.")
        self._sign_in(node, session)
        if node.is_up():
            name = f"key {command.fingerprint.decode()}"
            self._admin(node, command, name, session)

    def guess_of(self, node: Node, name: str) -> UnstampedCall:
        """Return a guess: being refused is an answer too."""
        wanted = Try(GUESSED, IssuedSet(GUESSED, 1, 0).set_id, 9999)
        store = machine_store(node)
        keys = store.keys_for(GUESSED, wanted.set_id or "")
        command = wanted.command(store.auth_version(GUESSED), keys)
        return call_of(command, name, content=name)


def machine_store(node: Node) -> MachineStore:
    assert isinstance(node.store, MachineStore)
    return node.store
