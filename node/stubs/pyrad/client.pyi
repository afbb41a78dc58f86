# SPDX-License-Identifier: Apache-2.0
# The part of pyrad that `sparecode agents test` uses.
from pyrad.packet import AuthPacket

class Timeout(Exception): ...

class Client:
    def __init__(
        self,
        server: str,
        authport: int = ...,
        *,
        secret: bytes = ...,
        retries: int = ...,
        timeout: float = ...,
        enforce_ma: bool = ...,
        dict: object = ...,
    ) -> None: ...
    def CreateAuthPacket(self) -> AuthPacket: ...
    def SendPacket(self, pkt: AuthPacket) -> AuthPacket: ...
    def _CloseSocket(self) -> None: ...
