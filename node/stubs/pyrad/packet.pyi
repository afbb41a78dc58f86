# SPDX-License-Identifier: Apache-2.0
# The part of pyrad that the RADIUS door uses, without a dictionary of attributes.
from collections import OrderedDict
from typing import Self

AccessRequest: int
AccessAccept: int
AccessReject: int
AccessChallenge: int
StatusServer: int

class PacketError(Exception): ...

class Packet(OrderedDict[int, list[bytes]]):
    code: int
    id: int
    authenticator: bytes
    secret: bytes
    def ReplyPacket(self) -> bytes: ...

class AuthPacket(Packet):
    def __init__(
        self,
        code: int = ...,
        id: int | None = ...,
        secret: bytes = ...,
        authenticator: bytes | None = ...,
        *,
        packet: bytes = ...,
    ) -> None: ...
    def CreateReply(self) -> Self: ...
    def RequestPacket(self) -> bytes: ...
    def PwDecrypt(self, password: bytes) -> str: ...
    def PwCrypt(self, password: str | bytes) -> bytes: ...
