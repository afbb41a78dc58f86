# SPDX-License-Identifier: Apache-2.0
"""Every use case of a node, built over one replicator and its state."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.membership import Successor
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.access.authorization import Authorization
from sparecode_node.services.access.packet_counts import PacketCounts
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.access.session_use import SessionUse
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.authentication.decisions import Decisions
from sparecode_node.services.authentication.first_step import Authentication
from sparecode_node.services.authentication.next_step import Continuation
from sparecode_node.services.cluster.activity import Activity
from sparecode_node.services.cluster.approval_checks import ApprovalChecks
from sparecode_node.services.cluster.audit import Audit
from sparecode_node.services.cluster.backups import Backups, BackupSource
from sparecode_node.services.cluster.epoch_review import EpochReview
from sparecode_node.services.cluster.membership_commands import MembershipCommands
from sparecode_node.services.cluster.status import Cluster
from sparecode_node.services.cluster.user_moves import UserMoves
from sparecode_node.services.emergency.bulk_issue import BulkIssue
from sparecode_node.services.emergency.emergency_access import Emergency
from sparecode_node.services.emergency.ended_sets import EndedSets
from sparecode_node.services.emergency.sealed_messages import SealedMessages
from sparecode_node.services.files.file_reader import FileReader
from sparecode_node.services.keys.due_rotation import DueRotation
from sparecode_node.services.keys.key_holder import KeyHolder
from sparecode_node.services.keys.resealing import Resealer
from sparecode_node.services.keys.rotation import Rotation
from sparecode_node.services.load.costly_reads import CostlyReads
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.load.rates import DEFAULT_LIMITS, RateLimits, Rates
from sparecode_node.services.notices.alarms import AlarmLinks, Alarms
from sparecode_node.services.notices.channels import Channels
from sparecode_node.services.notices.delivery import Delivery
from sparecode_node.services.notices.delivery_counts import DeliveryCounts
from sparecode_node.services.notices.previews import NoticePreviews
from sparecode_node.services.people.administrators import Administrators
from sparecode_node.services.people.agent_keys import AgentKeys
from sparecode_node.services.people.agents import Agents
from sparecode_node.services.people.approvals import Approvals
from sparecode_node.services.people.browser_logins import BrowserLogins
from sparecode_node.services.people.device_cookies import DeviceCookies
from sparecode_node.services.people.explanations import Explanations
from sparecode_node.services.people.live_codes import LiveCodeCounts
from sparecode_node.services.people.open_sessions import OpenSessions
from sparecode_node.services.people.passkeys import Passkeys
from sparecode_node.services.people.policy import Policies
from sparecode_node.services.people.radius_clients import RadiusClients
from sparecode_node.services.people.resets import Resets
from sparecode_node.services.people.second_factors import SecondFactors
from sparecode_node.services.people.sessions import Sessions
from sparecode_node.services.people.users import Users
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.reading import FetchSegment, Reader
from sparecode_node.services.secrets.alarm_seals import AlarmSeals
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from sparecode_node.services.secrets.form_seals import FormSeals
from sparecode_node.services.secrets.kdf import Kdf
from sparecode_node.services.secrets.move_seals import MoveSeals
from sparecode_node.services.secrets.passkey_checks import PasskeyChecks
from sparecode_node.services.secrets.radius_seals import RadiusSeals
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.tokens.enrollment import Enrollment
from sparecode_node.services.tokens.token_import import TokenImport
from sparecode_node.services.tokens.tokens import Tokens
from sparecode_node.services.tokens.user_import import UserImport

NO_CONSOLES: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Every use case. gRPC and the Security Console call them."""

    authentication: Authentication
    continuation: Continuation
    sessions: Sessions
    open_sessions: OpenSessions
    browser_logins: BrowserLogins
    users: Users
    explanations: Explanations
    user_import: UserImport
    tokens: Tokens
    token_import: TokenImport
    emergency: Emergency
    sealed_messages: SealedMessages
    live_codes: LiveCodeCounts
    ended_sets: EndedSets
    bulk: BulkIssue
    agents: Agents
    agent_keys: AgentKeys
    radius_clients: RadiusClients
    radius_seals: RadiusSeals
    packet_counts: PacketCounts
    channels: Channels
    alarms: Alarms
    notice_previews: NoticePreviews
    delivery: Delivery
    cluster: Cluster
    membership: MembershipCommands
    user_moves: UserMoves
    rotation: Rotation
    due_rotation: DueRotation
    resealer: Resealer
    epoch_review: EpochReview
    backups: Backups
    resets: Resets
    audit: Audit
    activity: Activity
    policies: Policies
    administrators: Administrators
    approvals: Approvals
    second_factors: SecondFactors
    passkeys: Passkeys
    form_seals: FormSeals
    session_use: SessionUse

    async def close(self) -> None:
        """End what goes on without a caller: a count, and mails that are being sent."""
        await self.live_codes.close()
        await self.sealed_messages.close()


def build_services(  # noqa: PLR0913  The one place that needs them all.
    replicator: Replicator,
    state: LocalState,
    *,
    key_holder: KeyHolder,
    kdf: Kdf,
    clock: Clock,
    entropy: Entropy,
    refusals: Refusals,
    backup_source: BackupSource,
    fetch_segment: FetchSegment | None = None,
    limits: RateLimits = DEFAULT_LIMITS,
    authorities: Callable[[], tuple[bytes, ...]] = tuple,
    successors: Callable[[], tuple[Successor, ...]] = tuple,
    consoles: Mapping[str, str] = NO_CONSOLES,
    packet_counts: PacketCounts | None = None,
    delivery_counts: DeliveryCounts | None = None,
    event_folder: Path | None = None,
) -> Services:
    """
    Build every use case over a replicator and its state.

    *consoles*: addresses of all nodes' consoles, where passkeys work.
    """
    sealing = Sealing(key_holder.ring)
    rates = Rates(limits, clock=clock, entropy=entropy)
    session_use = SessionUse(clock=clock, entropy=entropy)
    authorization = Authorization(
        replicator=replicator,
        state=state,
        refusals=refusals,
        session_use=session_use,
        rates=rates,
        clock=clock,
    )
    proposer = Proposer(
        replicator=replicator,
        authorization=authorization,
        state=state,
        sealing=sealing,
        clock=clock,
    )
    reader = Reader(
        replicator=replicator,
        state=state,
        authorization=authorization,
        clock=clock,
        fetch_segment=fetch_segment,
    )
    passkey_checks = PasskeyChecks(
        sealing=sealing, clock=clock, entropy=entropy, consoles=consoles.values()
    )
    live_codes = LiveCodeCounts(state=state, proposer=proposer)
    device_cookies = DeviceCookies(sealing=sealing, clock=clock, entropy=entropy)
    pace, file_reader = Pace(clock), FileReader()
    packet_counts = packet_counts or PacketCounts()
    radius_seals = RadiusSeals(key_holder.ring)
    channel_seals = ChannelSeals(key_holder.ring)
    alarm_seals = AlarmSeals(key_holder.ring)
    costly_reads = CostlyReads(rates)
    decisions = Decisions(
        replicator=replicator,
        state=state,
        sealing=sealing,
        refusals=refusals,
        clock=clock,
        entropy=entropy,
    )
    rotation = Rotation(
        proposer=proposer,
        replicator=replicator,
        state=state,
        key_holder=key_holder,
        entropy=entropy,
    )
    enrollment = Enrollment(state=state, sealing=sealing)
    messages = SealedMessages(
        replicator=replicator,
        proposer=proposer,
        state=state,
        seals=channel_seals,
        rates=rates,
        clock=clock,
        entropy=entropy,
        consoles=consoles,
    )
    return Services(
        authentication=Authentication(
            decisions=decisions,
            state=state,
            sealing=sealing,
            kdf=kdf,
            rates=rates,
        ),
        continuation=Continuation(
            decisions=decisions,
            state=state,
            sealing=sealing,
            kdf=kdf,
            rates=rates,
            clock=clock,
        ),
        sessions=Sessions(
            proposer=proposer,
            state=state,
            sealing=sealing,
            kdf=kdf,
            rates=rates,
            device_cookies=device_cookies,
            passkey_checks=passkey_checks,
            entropy=entropy,
        ),
        open_sessions=OpenSessions(proposer=proposer, reader=reader, state=state),
        browser_logins=BrowserLogins(
            proposer=proposer,
            state=state,
            sealing=sealing,
            rates=rates,
            device_cookies=device_cookies,
            clock=clock,
            entropy=entropy,
            console=consoles.get(replicator.node_id, next(iter(consoles.values()), "")),
        ),
        users=Users(proposer=proposer, reader=reader, sealing=sealing, entropy=entropy),
        explanations=Explanations(reader=reader),
        user_import=UserImport(
            proposer=proposer,
            state=state,
            file_reader=file_reader,
            sealing=sealing,
            entropy=entropy,
            pace=pace,
        ),
        tokens=Tokens(
            proposer=proposer,
            reader=reader,
            state=state,
            sealing=sealing,
            kdf=kdf,
            enrollment=enrollment,
        ),
        token_import=TokenImport(
            proposer=proposer,
            state=state,
            sealing=sealing,
            file_reader=file_reader,
            enrollment=enrollment,
            clock=clock,
            pace=pace,
        ),
        emergency=Emergency(
            proposer=proposer,
            reader=reader,
            state=state,
            sealing=sealing,
            kdf=kdf,
            rates=rates,
            entropy=entropy,
            messages=messages,
        ),
        sealed_messages=messages,
        live_codes=live_codes,
        ended_sets=EndedSets(
            replicator=replicator, state=state, clock=clock, entropy=entropy
        ),
        bulk=BulkIssue(
            proposer=proposer,
            state=state,
            sealing=sealing,
            kdf=kdf,
            rates=rates,
            entropy=entropy,
            pace=pace,
        ),
        agents=Agents(proposer=proposer, reader=reader, packet_counts=packet_counts),
        agent_keys=AgentKeys(
            proposer=proposer,
            state=state,
            rates=rates,
            clock=clock,
            entropy=entropy,
        ),
        radius_clients=RadiusClients(
            proposer=proposer,
            state=state,
            seals=radius_seals,
            clock=clock,
            entropy=entropy,
        ),
        radius_seals=radius_seals,
        packet_counts=packet_counts,
        notice_previews=NoticePreviews(reader),
        channels=Channels(
            proposer=proposer,
            reader=reader,
            state=state,
            seals=channel_seals,
            tests=CostlyReads(rates),
            clock=clock,
            entropy=entropy,
            folder=event_folder,
        ),
        delivery=Delivery(
            replicator=replicator,
            state=state,
            seals=channel_seals,
            clock=clock,
            entropy=entropy,
            counts=delivery_counts or DeliveryCounts(),
            folder=event_folder,
            alarm_links=AlarmLinks(alarm_seals, consoles, replicator.node_id),
        ),
        alarms=Alarms(
            replicator=replicator,
            proposer=proposer,
            reader=reader,
            state=state,
            seals=alarm_seals,
            rates=rates,
            clock=clock,
            entropy=entropy,
        ),
        cluster=Cluster(
            replicator=replicator,
            state=state,
            authorization=authorization,
            costly_reads=costly_reads,
            clock=clock,
        ),
        epoch_review=EpochReview(proposer=proposer, reader=reader),
        backups=Backups(
            proposer=proposer,
            replicator=replicator,
            state=state,
            sealing=sealing,
            clock=clock,
            entropy=entropy,
            source=backup_source,
        ),
        membership=MembershipCommands(
            proposer=proposer,
            replicator=replicator,
            sealing=sealing,
            state=state,
            rotation=rotation,
            rates=rates,
            authorities=authorities,
            successors=successors,
        ),
        user_moves=UserMoves(
            proposer=proposer,
            reader=reader,
            replicator=replicator,
            state=state,
            seals=MoveSeals(key_holder.ring),
            kdf=kdf,
            pace=pace,
        ),
        resets=Resets(
            replicator=replicator,
            state=state,
            sealing=sealing,
            kdf=kdf,
            rates=rates,
            refusals=refusals,
            entropy=entropy,
        ),
        rotation=rotation,
        due_rotation=DueRotation(
            replicator=replicator,
            state=state,
            key_holder=key_holder,
            clock=clock,
            entropy=entropy,
        ),
        resealer=Resealer(
            replicator=replicator,
            state=state,
            sealing=sealing,
            clock=clock,
            entropy=entropy,
            pace=pace,
        ),
        form_seals=FormSeals(key_holder.ring),
        passkeys=Passkeys(
            proposer=proposer,
            reader=reader,
            state=state,
            checks=passkey_checks,
            rates=rates,
        ),
        second_factors=SecondFactors(
            proposer=proposer,
            reader=reader,
            state=state,
            sealing=sealing,
            rates=rates,
            entropy=entropy,
        ),
        session_use=session_use,
        policies=Policies(proposer=proposer, reader=reader, counts=live_codes),
        approvals=Approvals(
            proposer=proposer,
            reader=reader,
            state=state,
            check=ApprovalChecks(replicator, state, successors).check,
            counts=live_codes,
        ),
        activity=Activity(reader=reader),
        audit=Audit(reader=reader, sealing=sealing, costly_reads=costly_reads),
        administrators=Administrators(
            proposer=proposer,
            reader=reader,
            state=state,
            sealing=sealing,
            kdf=kdf,
            rates=rates,
            device_cookies=device_cookies,
            entropy=entropy,
        ),
    )
