# SPDX-License-Identifier: Apache-2.0
"""
Makes the token files of the demonstration and of the tests.

    python tests/data/make_tokens.py

* `tokens.pskcxml`: an RFC 6030 container as a token vendor delivers it, seeds
  encrypted under a password (PBKDF2), each with a MAC.
* `hardware.sdtid`: a batch of SecurID hardware tokens, made by the library
  `securid`; serials without their leading zeros, as such files have them.
* `software.sdtid`: a SecurID software token whose PIN is folded into the code,
  written by `stoken` (Debian).

The seeds are for demonstration only; they are derived from the serials, so that
the files can be made again.
"""

import base64
import hashlib
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pskc
from pskc.policy import Policy
from securid.sdtid import (
    BATCH_MAC_IV,
    TOKEN_ENC_IV,
    TOKEN_MAC_IV,
    SdtidFile,
    SessionHash,
)

FILE = Path(__file__).with_name("tokens.pskcxml")
HARDWARE = FILE.with_name("hardware.sdtid")
SOFTWARE = FILE.with_name("software.sdtid")
PASSWORD = "for demonstration only"


class Key(NamedTuple):
    """What the file says of one token."""

    serial: str
    algorithm: str
    suite: str
    digits: int
    interval_s: int | None
    pin_usage: str | None


KEYS = (
    Key("000131415926", "totp", "SHA1", 6, 30, Policy.PIN_USE_PREPEND),
    Key("000227182818", "totp", "SHA1", 6, 60, Policy.PIN_USE_PREPEND),
    Key("000314142135", "totp", "SHA256", 8, 30, None),
    Key("000457721566", "hotp", "SHA1", 6, None, Policy.PIN_USE_PREPEND),
    Key("000516180339", "totp", "SHA512", 8, 60, Policy.PIN_USE_PREPEND),
)


def seed_of(serial: str) -> bytes:
    """Return the demonstration seed of a token: 20 bytes, as RFC 4226 recommends."""
    return hashlib.sha256(f"sparecode demonstration {serial}".encode()).digest()[:20]


def make(path: Path) -> None:
    """Write the container."""
    container = pskc.PSKC()
    for key in KEYS:
        added = container.add_key(
            id=key.serial,
            serial=key.serial,
            manufacturer="Sparecode demonstration",
            issuer="Sparecode demonstration",
            algorithm=f"urn:ietf:params:xml:ns:keyprov:pskc:{key.algorithm}",
            algorithm_suite=key.suite,
            response_encoding="DECIMAL",
            response_length=key.digits,
            secret=seed_of(key.serial),
        )
        if key.interval_s is None:
            added.counter = 0
        else:
            added.time_interval = key.interval_s
            added.time_offset = 0
        if key.pin_usage:
            added.policy.pin_usage = key.pin_usage
    container.encryption.setup_pbkdf2(PASSWORD, iterations=100_000)
    container.write(str(path))


BATCH = {
    "Version": "0",
    "Origin": "Sparecode demonstration",
    "Dest": "Example",
    "Name": "Hardware tokens",
    "FirstToken": "612345678",
    "LastToken": "612345680",
    "NumTokens": "3",
    "Secret": base64.b64encode(b"sixteen bytes...").decode(),
    "DefBirth": "2020/01/01",
    "DefDeath": "2037/12/31",
    "DefDigits": "6",
    "DefInterval": "60",
    "DefAlg": "1",
    "DefMode": "0",
    "DefAddPIN": "0",
    "DefLocalPIN": "0",
}
HARDWARE_TOKENS = (
    {"SN": "612345678"},
    {"SN": "612345679", "Death": "2031/06/30", "Digits": "8", "Interval": "30"},
    {"SN": "612345680", "LocalPIN": "1", "UserLogin": "alice"},
)


def securid_seed_of(serial: str) -> bytes:
    """Return the demonstration seed of a SecurID token, by its 12 digits."""
    return seed_of(serial)[:16]


def section(name: str, fields: dict[str, str]) -> str:
    """Return a section of a batch."""
    lines = "".join(f"    <{key}>{value}</{key}>\n" for key, value in fields.items())
    return f"  <{name}>\n{lines}  </{name}>\n"


def with_mac(
    name: str, fields: dict[str, str], mac: str, key: bytes, iv: bytes
) -> dict[str, str]:
    """Return the fields of a section with their MAC."""
    hashed = SessionHash()
    hashed.recursive_hash(name, fields)
    value = base64.b64encode(hashed.compute_hash(key, iv)).decode()
    return {**fields, mac: value}


def hardware(header_changes: dict[str, str], tokens: Iterable[dict[str, str]]) -> str:
    """Return a batch; *header_changes* replace fields of its header."""
    batch = BATCH | header_changes
    name = batch["Name"]
    password_key = SdtidFile.hash_password(PASSWORD, batch["Dest"], name)
    sealed = base64.b64decode(batch["Secret"])
    secret = SdtidFile.decrypt_secret(sealed, name, password_key)

    def key(purpose: str, of: str, iv: bytes) -> bytes:
        return SdtidFile.calc_key(purpose, of, secret, iv)

    mac_key = key("BatchMAC", name, BATCH_MAC_IV)
    header = with_mac("TKNHeader", batch, "HeaderMAC", mac_key, BATCH_MAC_IV)
    text = section("TKNHeader", header)
    for token in tokens:
        serial = token["SN"]
        seed = SdtidFile.decrypt_enc_seed(
            securid_seed_of(serial.zfill(12)),
            serial,
            key("TokenEncrypt", serial, TOKEN_ENC_IV),
        )
        fields = {"SN": serial, "Seed": "=" + base64.b64encode(seed).decode()} | token
        mac_key = key("TokenMAC", serial, TOKEN_MAC_IV)
        fields = with_mac("TKN", fields, "TokenMAC", mac_key, TOKEN_MAC_IV)
        text += section("TKN", fields)
    text += section("TKNTrailer", {"BatchSignature": " ", "BatchCertificate": " "})
    return f'<?xml version="1.0"?>\n<TKNBatch>\n{text}</TKNBatch>\n'


SOFTWARE_SERIAL = "000698765432"
SOFTWARE_TEMPLATE = """<?xml version="1.0"?>
<TKNBatch>
  <TKNHeader>
    <Origin>Sparecode demonstration</Origin>
    <Dest>Example</Dest>
    <Name>Software tokens</Name>
    <NumTokens>1</NumTokens>
    <DefBirth>2020/01/01</DefBirth>
    <DefDeath>2037/12/31</DefDeath>
    <DefDigits>8</DefDigits>
    <DefInterval>60</DefInterval>
    <DefAlg>1</DefAlg>
    <DefAddPIN>1</DefAddPIN>
    <DefLocalPIN>0</DefLocalPIN>
  </TKNHeader>
  <TKN>
    <SN>{serial}</SN>
    <Seed>={seed}</Seed>
    <UserFirstName>Zoë</UserFirstName>
    <UserLastName>Müller</UserLastName>
  </TKN>
</TKNBatch>
"""


def make_software(path: Path) -> None:
    """Let `stoken` write the file."""
    seed = base64.b64encode(securid_seed_of(SOFTWARE_SERIAL)).decode()
    template = path.with_suffix(".template")
    template.write_text(SOFTWARE_TEMPLATE.format(serial=SOFTWARE_SERIAL, seed=seed))
    command = ["stoken", "export", "--sdtid", "--random"]
    command += [f"--template={template}", f"--new-password={PASSWORD}"]
    done = subprocess.run(command, check=True, capture_output=True)
    template.unlink()
    path.write_bytes(done.stdout)


if __name__ == "__main__":
    make(FILE)
    HARDWARE.write_text(hardware({}, HARDWARE_TOKENS))
    make_software(SOFTWARE)
