# SPDX-License-Identifier: Apache-2.0
"""
Generators that others have written: `stoken` (SecurID) and `oathtool` (OATH).

`make system-packages` installs them. A test that needs one that is missing is
skipped, and says which.
"""

import base64
import shutil
import subprocess
from pathlib import Path

import pytest

HASHES = {"sha1": "totp", "sha256": "totp=sha256", "sha512": "totp=sha512"}

# What `stoken export` fills into a file of ours; it wants no more than that.
TEMPLATE = """<?xml version="1.0"?>
<TKNBatch>
  <TKNHeader>
    <DefDeath>2037/12/31</DefDeath>
    <DefDigits>{digits}</DefDigits>
    <DefInterval>{period_s}</DefInterval>
    <DefAlg>1</DefAlg>
    <DefAddPIN>{add_pin}</DefAddPIN>
    <DefLocalPIN>0</DefLocalPIN>
  </TKNHeader>
  <TKN>
    <SN>{serial}</SN>
    <Seed>={seed}</Seed>
    <UserFirstName>{names[0]}</UserFirstName>
    <UserLastName>{names[1]}</UserLastName>
    <Death>2037/12/30</Death>
    <Digits>{digits}</Digits>
    <Alg>1</Alg>
    <Mode>0</Mode>
    <PinType>0</PinType>
    <Keypad>1</Keypad>
  </TKN>
</TKNBatch>
"""


def tool(name: str) -> str:
    """Return where a program is; skip the test if it is not here."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is missing: make system-packages")
    return path


def output_of(*command: str) -> str:
    """Return what a program prints."""
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout


def sdtid_of(
    folder: Path,
    *,
    serial: str,
    seed: bytes,
    digits: int = 6,
    period_s: int = 60,
    add_pin: bool = False,
    names: tuple[str, str] = ("Alice", "Arden"),
    password: str = "",
) -> Path:
    """Let `stoken` write the token file of one SecurID token."""
    template = folder / "template.sdtid"
    template.write_text(
        TEMPLATE.format(
            serial=serial,
            seed=base64.b64encode(seed).decode(),
            digits=digits,
            period_s=period_s,
            add_pin=int(add_pin),
            names=names,
        )
    )
    command = [tool("stoken"), "export", "--sdtid", "--random"]
    command += [f"--template={template}"]
    if password:
        command += [f"--new-password={password}"]
    file = folder / f"{serial}.sdtid"
    file.write_text(output_of(*command))
    return file


def stoken(file: Path, at_s: int, *, pin: str = "0000", password: str = "") -> str:
    """Return what the token of a file shows at a time, with a PIN folded in."""
    command = [tool("stoken"), "tokencode", f"--file={file}", f"--pin={pin}"]
    if password:
        command += [f"--password={password}"]
    return output_of(*command, f"--use-time={at_s}").strip()


def oathtool_totp(
    seed: bytes, at_s: int, *, hash_name: str, digits: int, period_s: int
) -> str:
    """Return the tokencode of a TOTP token at a time."""
    return output_of(
        tool("oathtool"),
        f"--{HASHES[hash_name]}",
        f"--digits={digits}",
        f"--time-step-size={period_s}s",
        f"--now=@{at_s}",
        seed.hex(),
    ).strip()


def oathtool_hotp(seed: bytes, counter: int, *, digits: int) -> str:
    """Return the tokencode of a HOTP token at a counter."""
    return output_of(
        tool("oathtool"),
        "--hotp",
        f"--digits={digits}",
        f"--counter={counter}",
        seed.hex(),
    ).strip()
