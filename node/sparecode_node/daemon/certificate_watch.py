# SPDX-License-Identifier: Apache-2.0
"""
The certificates of a node's listeners: read at the start, and whenever they change.

The files are checked every few seconds, and at once when the node reloads its
configuration. If a certificate is unusable, the node logs the reason and keeps the old
one: a certificate and its key are two files, and may be copied one after the other.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

from sparecode_node.config import (
    AdminListenerConfig,
    Config,
    ListenerConfig,
    LogConfig,
    LogFormat,
    LogLevel,
    MutualListenerConfig,
)
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind
from sparecode_node.fault_points import Point, reach
from sparecode_node.membership.authority import signers, trusted
from sparecode_node.membership.successors import trusted_pem
from sparecode_node.replication.members import MEMBER_URI
from sparecode_node.rpc.tls import CertificateEnds, TlsFileError, TlsFiles
from sparecode_node.services.ambient import Clock

log = logging.getLogger(__name__)

ListenerT = TypeVar("ListenerT", bound=ListenerConfig)

CHECK_S = 5.0
KINDS = {"peers": AuthorityKind.MEMBERS, "agents": AuthorityKind.AGENTS}
"""The listeners whose authorities may have successors (P6a)."""

WARN_DAYS = (30, 7, 1)
"""A warning is logged when fewer than this many days are left, once for each."""


async def _allow(name: str, files: TlsFiles) -> None:
    """Use all new files."""


class Certificates:
    """The certificates that each listener presents and trusts. `run` it in the loop."""

    def __init__(
        self,
        config: Config,
        clock: Clock,
        *,
        on_renewed: Callable[[str, TlsFiles], Awaitable[None]],
        on_changing: Callable[[str, TlsFiles], Awaitable[None]] = _allow,
    ) -> None:
        """
        Read the files. Raises `TlsFileError`.

        *on_changing* is called with the same before they are used, and may refuse them
        for now: it raises `TlsFileError`.

        *on_renewed* is called with a listener's name and its new files.
        """
        self._config = config
        self._clock = clock
        self._on_renewed = on_renewed
        self._on_changing = on_changing
        self._reload = asyncio.Event()
        self._refused: dict[str, str] = {}
        self._warned: dict[str, int] = {}
        self._files = {name: self._read(name) for name in config.tls_listeners}

    def __getitem__(self, name: str) -> TlsFiles:
        """Return the files of a listener. Thread-safe."""
        return self._files[name]

    def authorities(self) -> tuple[AuthorityKey, ...]:
        """Return the members' and agents' authorities that this node trusts now."""
        return trusted(self["peers"].ca or b"", self["agents"].ca or b"")

    def shown_authorities(self) -> tuple[str, ...]:
        """Return the fingerprints of the members' authorities that signed what it shows."""
        shown = frozenset(files.certificate for files in self._files.values())
        return signers(shown, self["peers"].ca or b"")

    def ends(self) -> Mapping[str, CertificateEnds]:
        """Return when the certificates expire, by listener. Thread-safe."""
        return {name: files.ends() for name, files in self._files.items()}

    def configure(self, config: Config) -> None:
        """
        Use the files that this configuration names; `run` reads them at once.

        Until the node is started again, the metrics listener keeps its files, and the
        administrators' listener demands certificates or does not, as before.
        """
        admin, before = config.admin, self._config.admin
        if (admin.ca is None) != (before.ca is None):
            admin = dataclasses.replace(admin, ca=before.ca)
        self._config = dataclasses.replace(
            config, metrics=self._config.metrics, admin=admin
        )
        self._reload.set()

    async def run(self) -> None:
        """Check the files until cancelled."""
        while True:
            self._warn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._reload.wait()
            self._reload.clear()
            try:
                await self.check()
            except Exception:
                # The old certificates stay in use, and are valid for a while.
                log.exception("certificates_not_renewed")

    async def check(self) -> None:
        """Read all files, and use those that changed."""
        for name in self._files:
            try:
                files = await asyncio.to_thread(self._read, name)
                if files != self._files[name]:
                    await self._on_changing(name, files)
                    reach(Point.CERTIFICATE_RECORDED)
            except TlsFileError as error:
                if self._refused.get(name) != str(error):
                    log.error(  # noqa: TRY400 - the message is enough.
                        "certificate_refused",
                        extra={"listener": name, "cause": str(error)},
                    )
                self._refused[name] = str(error)
                continue
            self._refused.pop(name, None)
            if files != self._files[name]:
                self._files[name] = files
                self._warned.pop(name, None)
                ends_at = files.ends().own
                log.info(
                    "certificate_renewed",
                    extra={"listener": name, "ends_at": ends_at.isoformat()},
                )
                reach(Point.CERTIFICATE_SHOWN)
                await self._on_renewed(name, files)

    def _read(self, name: str) -> TlsFiles:
        listener = self._config.tls_listeners[name]
        files = TlsFiles.read(
            certificate=listener.certificate,
            key=listener.key,
            ca=getattr(listener, "ca", None),
            # An expired one for monitoring must not keep the node from starting.
            now=None if name == "metrics" else self._now(),
        )
        if name == "peers":
            _check_name(self._config, files)
        if name in KINDS and files.ca is not None:
            # Successors are trusted beside the authorities in the file.
            try:
                ca = trusted_pem(self._config, KINDS[name], files.ca)
            except OSError as error:
                raise TlsFileError(f"{error.filename}: {error.strerror}") from error
            except ValueError as error:
                raise TlsFileError(f"[{name}] its authorities: {error}") from error
            files = dataclasses.replace(files, ca=ca)
        return files

    def _warn(self) -> None:
        """Log which certificates expire soon, once for each of `WARN_DAYS`."""
        for name, ends in self.ends().items():
            first = min(at for at in (ends.own, ends.ca) if at is not None)
            days_left = (first - self._now()) / dt.timedelta(days=1)
            due = [days for days in WARN_DAYS if days_left < days]
            if due and self._warned.get(name, WARN_DAYS[0] + 1) > due[-1]:
                self._warned[name] = due[-1]
                log.warning(
                    "certificate_ends",
                    extra={"listener": name, "ends_at": first.isoformat()},
                )

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)


def changed_sections(before: Config, after: Config) -> list[str]:
    """Return the sections that differ and take effect only after a restart."""
    left, right = _fixed(before), _fixed(after)
    return [
        field.name
        for field in dataclasses.fields(Config)
        if getattr(left, field.name) != getattr(right, field.name)
    ]


def _fixed(config: Config) -> Config:
    """Return the configuration without the values that may change at run time."""
    nothing = Path()

    def bare(listener: ListenerT) -> ListenerT:
        listener = dataclasses.replace(listener, certificate=nothing, key=nothing)
        if isinstance(listener, MutualListenerConfig):
            listener = dataclasses.replace(listener, ca=nothing)
        if isinstance(listener, AdminListenerConfig) and listener.ca is not None:
            listener = dataclasses.replace(listener, ca=nothing)
        return listener

    return dataclasses.replace(
        config,
        wrapping_key_file=None,
        wrap_command=None,
        wrap_timeout_s=0,
        log=LogConfig(level=LogLevel.INFO, format=LogFormat.TEXT),
        agents=bare(config.agents),
        peers=bare(config.peers),
        admin=bare(config.admin),
        console=None if config.console is None else bare(config.console),
        http=None if config.http is None else bare(config.http),
        radsec=None if config.radsec is None else bare(config.radsec),
    )


def _check_name(config: Config, files: TlsFiles) -> None:
    """Refuse a certificate that other members would not accept from this node."""
    name = f"{MEMBER_URI}{config.node.id}"
    if name not in files.uris():
        raise TlsFileError(
            f"{config.peers.certificate}: the certificate of node {config.node.id} must "
            f"have the subject name {name}; it has {', '.join(files.uris()) or 'no URI'}"
        )
