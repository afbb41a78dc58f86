# SPDX-License-Identifier: Apache-2.0
"""The global options, and connections made with them."""

import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import typer

from sparecode_client.blocking import Admin, Agent
from sparecode_client.cli.terminal.device_file import (
    device_path,
    load_device_cookie,
    store_device_cookie,
)
from sparecode_client.cli.terminal.exit_codes import UsageError, report_errors
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.session_file import (
    StoredSession,
    fingerprint,
    load_session,
    session_path,
    store_session,
)
from sparecode_client.connection.channels import ADMIN_PORT, address
from sparecode_client.errors import (
    NotFound,
    NotPermitted,
    NotSignedIn,
    SparecodeError,
)

SERIAL = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)
"""The form of a serial. Many user names have another one: `first.last`."""
NEAR_PREFIX = 2
"""Letters at the beginning of a mistyped name that are taken to be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The global options of `sparecode`."""

    nodes: tuple[str, ...]
    ca: Path | None
    output: Output
    timeout: timedelta
    client_certificate: Path | None = None
    """Shown to nodes that demand one, with the key."""
    client_key: Path | None = None
    request_id: str | None
    """The id of an earlier command whose outcome is unknown."""

    @contextmanager
    def visitor(self) -> Iterator[Admin]:
        """Connect without a session, to sign in."""
        with report_errors():
            stored = self._stored(needed=False)
            nodes, ca = self._cluster(stored)
            with self._connected(nodes, ca, stored, session="") as admin:
                yield admin

    @contextmanager
    def admin(self) -> Iterator[Admin]:
        """Connect as the signed-in administrator."""
        with report_errors():
            stored = self._stored(needed=True)
            nodes, ca = self._cluster(stored)
            if stored is None or stored.ca_sha256 != _fingerprint(ca):
                raise NotSignedIn(
                    "SESSION_ENDED",
                    "you are signed in to another cluster, not to this one",
                )
            session = stored.session
            with self._connected(nodes, ca, stored, session=session) as admin:
                if _at_terminal():
                    admin.confirm_with(_ask_to_confirm)
                yield admin

    @contextmanager
    def agent(
        self, *, nodes: tuple[str, ...], ca: Path | None, certificate: Path, key: Path
    ) -> Iterator[Agent]:
        """Connect as the agent that the certificate identifies."""
        with report_errors():
            stored = self._stored(needed=False)
            ca = ca or self.ca or (Path(stored.ca) if stored else None)
            if not (nodes or self.nodes) or ca is None:
                raise UsageError(
                    "no node or no CA: use --agents-node HOST:PORT and --agents-ca FILE"
                )
            with _report_usage():
                agent = Agent(
                    nodes or self.nodes,
                    ca=ca,
                    certificate=certificate,
                    key=key,
                    timeout=self.timeout,
                )
            with agent:
                yield agent

    def agents_ca(self, ca: Path | None) -> Path:
        """Return the CA of the nodes' certificates for agents. Raises `UsageError`."""
        stored = self._stored(needed=False)
        ca = ca or self.ca or (Path(stored.ca) if stored else None)
        if ca is None:
            raise UsageError("no CA: use --agents-ca FILE")
        return ca

    def serial(self, admin: Admin, name: str, *, stale_ok: bool = False) -> str:
        """
        Return *name* if it is a serial, or the serial of the only token of that user.

        A name of digits and hyphens is always a serial.

        Raises:
            UsageError: The user has no token, or several.
            NotFound: There is neither such a token nor such a user.
        """
        if not name.strip("0123456789-"):
            return name
        if SERIAL.fullmatch(name):
            try:
                return admin.get_token(name, stale_ok=stale_ok).serial
            except NotFound:
                pass
        try:
            serials = admin.get_user(name, stale_ok=stale_ok).token_serials
        except NotPermitted:
            return name  # The command reports that there is no such token.
        except NotFound as error:
            raise NotFound(
                error.reason,
                f"there is no token and no user {name}{_near(admin, name)}",
            ) from None
        if not serials:
            raise UsageError(
                f"user {name} has no token: sparecode tokens assign SERIAL {name}"
            )
        if len(serials) > 1:
            raise UsageError(
                f"user {name} has {len(serials)} tokens; name one by its serial: "
                f"{', '.join(serials)}"
            )
        return serials[0]

    def remember(self, administrator: str, session: str) -> Path:
        """Store *session* for later commands, and return the path of the file."""
        earlier = self._stored(needed=False)
        nodes, ca = self._cluster(earlier)
        certificate, key = self._client_files(earlier)
        path = session_path()
        store_session(
            path,
            StoredSession(
                administrator=administrator,
                session=session,
                nodes=nodes,
                ca=str(ca.absolute()),
                ca_sha256=_fingerprint(ca),
                client_certificate=str(certificate.absolute()) if certificate else "",
                client_key=str(key.absolute()) if key else "",
            ),
        )
        return path

    def device_cookie(self, administrator: str) -> str:
        """Return the stored device cookie of an administrator; empty if there is none."""
        _, ca = self._cluster(self._stored(needed=False))
        return load_device_cookie(
            device_path(session_path()), _fingerprint(ca), administrator
        )

    def remember_device(self, administrator: str, cookie: str) -> None:
        """Store a device cookie for later sign-ins, unless it is empty."""
        if cookie:
            _, ca = self._cluster(self._stored(needed=False))
            store_device_cookie(
                device_path(session_path()), _fingerprint(ca), administrator, cookie
            )

    def remember_own_device(self, cookie: str) -> None:
        """Store a device cookie of the signed-in administrator, unless it is empty."""
        stored = self._stored(needed=True)
        if stored is not None:
            self.remember_device(stored.administrator, cookie)

    @contextmanager
    def _connected(
        self,
        nodes: tuple[str, ...],
        ca: Path,
        stored: StoredSession | None,
        *,
        session: str,
    ) -> Iterator[Admin]:
        certificate, key = self._client_files(stored)
        with _report_usage():
            admin = Admin(
                nodes,
                ca=ca,
                session=session,
                certificate=certificate,
                key=key,
                timeout=self.timeout,
            )
        with admin:
            try:
                yield admin
            finally:
                self._forget(admin.removed_nodes)

    def _forget(self, removed: frozenset[str]) -> None:
        """Take nodes that were removed from the cluster off the stored list."""
        stored = load_session(session_path()) if removed else None
        if stored is None:
            return
        kept = [
            each for each in stored.nodes if address(each, ADMIN_PORT) not in removed
        ]
        if kept and len(kept) < len(stored.nodes):
            store_session(session_path(), replace(stored, nodes=tuple(kept)))
            gone = ", ".join(each for each in stored.nodes if each not in kept)
            self.output.note(
                f"{gone} was removed from the cluster: later commands do not call it."
            )

    def _client_files(
        self, stored: StoredSession | None
    ) -> tuple[Path, Path] | tuple[None, None]:
        """Return the client's certificate and key, from the options or as stored."""
        given = self.client_certificate, self.client_key
        if given != (None, None):
            certificate, key = given
            if certificate is None or key is None:
                raise UsageError("use --client-certificate and --client-key together")
            return certificate, key
        if stored is None or not stored.client_certificate:
            return None, None
        return Path(stored.client_certificate), Path(stored.client_key)

    def _stored(self, *, needed: bool) -> StoredSession | None:
        stored = load_session(session_path())
        if stored is None and needed:
            raise NotSignedIn("SESSION_ENDED", "you are not signed in")
        return stored

    def _cluster(self, stored: StoredSession | None) -> tuple[tuple[str, ...], Path]:
        nodes = self.nodes or (stored.nodes if stored else ())
        ca = self.ca or (Path(stored.ca) if stored else None)
        if not nodes:
            raise UsageError("no node: use --node HOST:PORT or SPARECODE_NODES")
        if ca is None:
            raise UsageError("no CA: use --ca FILE or SPARECODE_CA")
        return nodes, ca


def split(values: Iterable[str] | None) -> list[str]:
    """Split each of *values* at commas, and return all parts."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return [part for part in parts if part]


def _at_terminal() -> bool:
    """Return whether a person can be asked: stdin may hold the input of a command."""
    return sys.stdin.isatty()


def _ask_to_confirm(code: bool) -> str:
    """Ask for the password, or for the code, that a change of power needs."""
    if code:
        return secret("Code of the second factor", None)
    return secret("This change needs your password. Password", None)


def settings_of(context: typer.Context) -> Settings:
    """Return the settings of the running command."""
    settings = context.find_object(Settings)
    assert settings is not None  # noqa: S101  The callback of the app has made it.
    return settings


@contextmanager
def _report_usage() -> Iterator[None]:
    """Report a wrong address or file as wrong usage."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error


def _fingerprint(ca: Path) -> str:
    with _report_usage():
        return fingerprint(ca)


def _near(admin: Admin, name: str) -> str:
    """Return user names that are spelled like *name*, in words; empty: none is known."""
    names: list[str] = []
    # The question is only a courtesy: its error would hide the one that counts.
    with suppress(SparecodeError):
        page = admin.list_users(username_prefix=name[:NEAR_PREFIX], stale_ok=True)
        names = difflib.get_close_matches(name, [each.username for each in page.items])
    return f": did you mean {' or '.join(names)}?" if names else ""
