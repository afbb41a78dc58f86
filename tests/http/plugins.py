# SPDX-License-Identifier: Apache-2.0
"""
Requests of privacyIDEA's plug-ins, byte for byte, as their sources write them.

Each was read in the client's own code, together with its HTTP library: pam_python
2.15 (requests), privacyidea-pam 1.0 (libcurl), java-client 1.4 of the plug-ins for
Keycloak and Shibboleth (OkHttp), php-client 1.0 of those for SimpleSAMLphp and Nextcloud
(curl, a form in parts), the Credential Provider 3 (WinHTTP), the provider for AD FS
(HttpClient) and privacyidea_radius.pm of FreeRADIUS (LWP).
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

from tests.http.door import HOST, Door

BOUNDARY = "------------------------5IlK6MSzq4mZGgh2vCPtQl"
"""Of curl 8: 24 hyphens and 22 characters."""
FORM = "Content-Type: application/x-www-form-urlencoded"

Fields = Mapping[str, str]
Plugin = Callable[[Fields], bytes]


def _request(head: str, body: str | bytes) -> bytes:
    """Return a request. *head* has the client's own order and spelling of headers."""
    octets = body.encode() if isinstance(body, str) else body
    lines = head.format(length=len(octets)).split("\n")
    return "\r\n".join(["POST /validate/check HTTP/1.1", *lines, "", ""]).encode() + (
        octets
    )


def pam_python(fields: Fields) -> bytes:
    """Write what `requests.post(url, data=...)` sends: encoded once."""
    return _request(
        f"Host: {HOST}\nuser-agent: PAM/2.15.0\nAccept-Encoding: gzip, deflate\n"
        f"Accept: */*\nConnection: keep-alive\nContent-Length: {{length}}\n{FORM}",
        urlencode(fields),
    )


def pam(fields: Fields) -> bytes:
    """Write a sorted map, encoded once, as libcurl sends it."""
    body = "&".join(f"{key}={quote(fields[key], safe='~')}" for key in sorted(fields))
    return _request(
        f"Host: {HOST}\nAccept: */*\nUser-Agent: privacyidea-pam/1.0.0\n"
        f"Content-Length: {{length}}\n{FORM}",
        body,
    )


def _java(agent: str) -> Plugin:
    def write(fields: Fields) -> bytes:
        """Encode with `URLEncoder`, then once more for OkHttp's form."""
        once = {key: quote_plus(value, safe="*") for key, value in fields.items()}
        body = "&".join(f"{key}={quote(once[key], safe='*+')}" for key in once)
        return _request(
            f"User-Agent: {agent}\n{FORM}\nContent-Length: {{length}}\nHost: {HOST}\n"
            "Connection: Keep-Alive\nAccept-Encoding: gzip",
            # The form encodes a plus sign, too.
            body.replace("+", "%2B"),
        )

    return write


def _php(agent: str) -> Plugin:
    def write(fields: Fields) -> bytes:
        """Write `CURLOPT_POSTFIELDS` of an array: a form in parts, not encoded."""
        parts = "".join(
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; "
            f'name="{key}"\r\n\r\n{value}\r\n'
            for key, value in fields.items()
        )
        return _request(
            f"Host: {HOST}\nUser-Agent: {agent}\nAccept: */*\n"
            "Content-Length: {length}\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
            f"{parts}--{BOUNDARY}--\r\n",
        )

    return write


def credential_provider(fields: Fields) -> bytes:
    """Encode once: its User-Agent says so."""
    body = "&".join(f"{key}={quote(value, safe='')}" for key, value in fields.items())
    return _request(
        f"Connection: Keep-Alive\n{FORM}\n"
        "User-Agent: privacyidea-cp/3.6.0 Windows/10.0.19045\n"
        f"Content-Length: {{length}}\nHost: {HOST}",
        body,
    )


def adfs(fields: Fields) -> bytes:
    """Write `FormUrlEncodedContent` of .NET: encoded once."""
    return _request(
        f"Host: {HOST}\nUser-Agent: PrivacyIDEA-ADFS/1.2.0\n{FORM}\n"
        "Content-Length: {length}",
        urlencode(fields),
    )


def freeradius(fields: Fields) -> bytes:
    """Encode user and passcode before LWP encodes the form."""
    twice = {
        key: quote(value, safe="!*'();:@&=+$,/?#[]~")
        if key in ("user", "pass")
        else value
        for key, value in fields.items()
    }
    twice["client"] = "192.0.2.9"
    return _request(
        f"TE: deflate,gzip;q=0.3\nConnection: TE\nHost: {HOST}\n"
        f"User-Agent: FreeRADIUS\nContent-Length: {{length}}\n{FORM}",
        urlencode(twice),
    )


PLUGINS: Mapping[str, Plugin] = {
    "pam_python": pam_python,
    "pam": pam,
    "keycloak": _java("privacyIDEA-Keycloak/1.5.1 Keycloak/26.0.0"),
    "shibboleth": _java("privacyIDEA-Shibboleth/1.0.0 ShibbolethIdP/5.1.3"),
    "simplesamlphp": _php("simpleSAMLphp/3.2.1"),
    "nextcloud": _php("privacyidea-nextcloud/1.1.1"),
    "credential provider": credential_provider,
    "adfs": adfs,
    "freeradius": freeradius,
}


async def answer(door: Door, request: bytes, context: ssl.SSLContext) -> dict[str, Any]:
    """Send the bytes of a request, and return the JSON of the answer."""
    reader, writer = await asyncio.open_connection(
        HOST, door.server.port, ssl=context, server_hostname=HOST
    )
    try:
        writer.write(request)
        async with asyncio.timeout(60):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            return dict(json.loads(await reader.readexactly(length)))
    finally:
        writer.close()
