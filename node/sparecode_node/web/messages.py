# SPDX-License-Identifier: Apache-2.0
"""
Requests as h11 reads them, without two leniencies.

A proxy in front that reads a request with two lengths, or a bare LF, in another way would
see other requests than the node: one caller's bytes could become another's request.
"""

import re

import h11
from h11._receivebuffer import ReceiveBuffer

END = b"\r\n\r\n"
BARE_LF = re.compile(rb"(?<!\r)\n")


class _Lines(ReceiveBuffer):
    """Lines of headers and trailers that end in CRLF (RFC 9112, 2.2)."""

    def maybe_extract_lines(self) -> list[bytearray] | None:
        """Return the lines up to an empty one; None: it has not arrived."""
        if BARE_LF.search(bytes(self).partition(END)[0]):
            raise h11.RemoteProtocolError("a line ends in a bare LF")
        return super().maybe_extract_lines()


class Messages(h11.Connection):
    """The server's side of a connection that refuses what can be read in two ways."""

    def __init__(self, *, head_bytes_max: int) -> None:
        super().__init__(h11.SERVER, head_bytes_max)
        self._receive_buffer = _Lines()

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """Return the next event; refuse a request with two lengths (RFC 9112, 6.1)."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {name for name, _ in event.headers}
            if b"transfer-encoding" in names and (
                b"content-length" in names or event.http_version < b"1.1"
            ):
                raise h11.RemoteProtocolError("a request with two lengths")
        return event
