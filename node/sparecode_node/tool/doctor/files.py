# SPDX-License-Identifier: Apache-2.0
"""Checks of the certificates of a node's listeners."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from sparecode_node.config import Config, ListenerConfig
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKind
from sparecode_node.membership.files import EVERYWHERE
from sparecode_node.membership.successors import trusted_pem
from sparecode_node.replication.links.tls import NAME_SUFFIX, target_name
from sparecode_node.replication.members import MEMBER_URI
from sparecode_node.rpc.tls import TlsFileError, TlsFiles
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

WARN_DAYS = 30


def check_certificates(config: Config, now: dt.datetime) -> Iterator[Finding]:
    """Check the certificate, key and authorities of every listener."""
    for name, listener in config.tls_listeners.items():
        yield from _check_listener(name, listener, config, now)


def _check_listener(
    name: str, listener: ListenerConfig, config: Config, now: dt.datetime
) -> Iterator[Finding]:
    try:
        files = TlsFiles.read(
            certificate=listener.certificate,
            key=listener.key,
            ca=getattr(listener, "ca", None),
            now=now,
        )
    except TlsFileError as error:
        yield fail("certificate", f"[{name}] {error}")
        return
    ends = files.ends()
    ends_at = min(at for at in (ends.own, ends.ca) if at is not None)
    days = (ends_at - now).days
    words = f"[{name}] valid until {ends_at:%Y-%m-%d} ({days} days)"
    if days < WARN_DAYS:
        yield warn("certificate", f"{words}: renew it")
    else:
        yield ok("certificate", words)
    if (mode := listener.key.stat().st_mode) & 0o077:
        yield warn(
            "certificate",
            f"{listener.key}: other users can read it (mode {mode & 0o777:04o}); "
            f"restrict it with: chmod 600 {listener.key}",
        )
    if name == "peers":
        try:
            ca = trusted_pem(config, AuthorityKind.MEMBERS, files.ca or b"")
        except (OSError, ValueError) as error:
            yield warn("certificate", f"{words}; its authority is not checked: {error}")
            return
        files = replace(files, ca=ca)
        yield from _check_names(files, listener.certificate, config.node.id)
    else:
        yield from _check_address(name, listener, files)


def _check_address(
    name: str, listener: ListenerConfig, files: TlsFiles
) -> Iterator[Finding]:
    """
    Check that a certificate that names addresses alone names that of its listener.

    Callers that use a host name do not care about the address.
    """
    names = _names_in(files)
    host = listener.listen.host.strip("[]")
    addresses = {str(each) for each in names.get_values_for_type(x509.IPAddress)}
    callable_names = {
        each
        for each in names.get_values_for_type(x509.DNSName)
        if each != "localhost" and not each.endswith(NAME_SUFFIX)
    }
    if host in (*EVERYWHERE, *addresses) or callable_names or not addresses:
        return
    yield warn(
        "certificate",
        f"[{name}] listens on {host}, but its certificate is for "
        f"{', '.join(sorted(addresses))}: callers that use {host} will refuse it; have "
        f"a new one signed, or join with a ticket that names it (--host {host})",
    )


def _names_in(files: TlsFiles) -> x509.SubjectAlternativeName:
    """Return the subject names of a listener's certificate."""
    certificate = x509.load_pem_x509_certificates(files.certificate)[0]
    try:
        return certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _check_names(files: TlsFiles, certificate: Path, node_id: str) -> Iterator[Finding]:
    """Check what the other members check: the names and the signature."""
    chain = x509.load_pem_x509_certificates(files.certificate)
    names = _names_in(files)
    named = {
        *names.get_values_for_type(x509.DNSName),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
    }
    wanted = {f"{MEMBER_URI}{node_id}", target_name(NodeId(node_id))}
    if wanted - named:
        yield fail(
            "certificate",
            f"{certificate} lacks the subject names "
            f"{', '.join(sorted(wanted - named))}: the other members will refuse it; "
            "have a new one signed",
        )
    authorities = x509.load_pem_x509_certificates(files.ca or b"")
    if not any(_signed(chain[-1], authority) for authority in authorities):
        yield fail(
            "certificate",
            f"{certificate} is not signed by any of the authorities in [peers] ca: "
            "the other members will refuse it; have a new one signed",
        )


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
