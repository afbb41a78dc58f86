# SPDX-License-Identifier: Apache-2.0
"""Codes that `stoken` and `oathtool` generate are accepted (K1)."""

import re
from pathlib import Path

import pytest

from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.services.files.token_files import TokenFile, TokenFileFormat
from tests.generators import oathtool_hotp, oathtool_totp, sdtid_of, stoken
from tests.services.one_node import OneNode

pytestmark = pytest.mark.asyncio

DATA = Path(__file__).parents[1] / "data"
PASSWORD = "for demonstration only"
SERIAL = "000612345678"
SECURID_SEED = bytes(range(1, 17))
OATH_SEED = bytes(range(20))


async def add_alice(
    node: OneNode,
    *,
    algorithm: Algorithm,
    seed: bytes,
    digits: int,
    period_s: int,
    hash_name: HashName = HashName.SHA1,
    pin_rule: PinRule = PinRule.NONE,
) -> None:
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="alice",
        display_name="",
        email="",
    )
    await node.tokens.enroll(
        node.admin("TokenService/EnrollToken"),
        serial=SERIAL,
        algorithm=algorithm,
        hash_name=hash_name,
        digits=digits,
        period_s=period_s,
        counter=0,
        seed=seed,
        pin_rule=pin_rule,
        expires_at_ms=None,
    )
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial=SERIAL, username="alice"
    )


def at_s(node: OneNode) -> int:
    return node.clock.now // 1000


@pytest.mark.parametrize("period_s", [30, 60])
@pytest.mark.parametrize("digits", [6, 8])
async def test_tokencodes_of_stoken_are_accepted_once(
    node: OneNode, tmp_path: Path, digits: int, period_s: int
) -> None:
    """(K1) One step to each side, not two, and never the same one again."""
    file = sdtid_of(
        tmp_path, serial=SERIAL, seed=SECURID_SEED, digits=digits, period_s=period_s
    )
    await add_alice(
        node,
        algorithm=Algorithm.SECURID,
        seed=SECURID_SEED,
        digits=digits,
        period_s=period_s,
    )
    now = at_s(node)
    assert not await node.accepts(stoken(file, now - 2 * period_s))
    node.clock.pass_s(2)
    assert not await node.accepts(stoken(file, now + 2 * period_s))
    node.clock.pass_s(2)
    assert await node.accepts(stoken(file, now - period_s))
    assert await node.accepts(shown := stoken(file, now))
    assert not await node.accepts(shown)
    assert await node.accepts(stoken(file, now + period_s))
    assert node.reasons()[-3:] == ["", "tokencode_spent", ""]


async def test_drift_of_a_securid_token_is_learned(
    node: OneNode, tmp_path: Path
) -> None:
    """(K1) A clock that gains time is followed, step by step."""
    file = sdtid_of(tmp_path, serial=SERIAL, seed=SECURID_SEED)
    await add_alice(
        node, algorithm=Algorithm.SECURID, seed=SECURID_SEED, digits=6, period_s=60
    )
    for ahead in (1, 2, 3, 3):
        node.clock.pass_s(3600)
        assert await node.accepts(stoken(file, at_s(node) + 60 * ahead))
    node.clock.pass_s(3600)
    assert not await node.accepts(stoken(file, at_s(node)))


async def test_securid_token_is_resynchronized(node: OneNode, tmp_path: Path) -> None:
    """(K1) Two tokencodes in a row, half an hour off."""
    file = sdtid_of(tmp_path, serial=SERIAL, seed=SECURID_SEED)
    await add_alice(
        node, algorithm=Algorithm.SECURID, seed=SECURID_SEED, digits=6, period_s=60
    )
    shown_at = at_s(node) - 1800
    await node.tokens.resynchronize(
        node.admin("TokenService/ResynchronizeToken"),
        serial=SERIAL,
        first_tokencode=stoken(file, shown_at),
        second_tokencode=stoken(file, shown_at + 60),
    )
    assert await node.accepts(stoken(file, shown_at + 120))


async def test_imported_batch_agrees_with_stoken(node: OneNode, tmp_path: Path) -> None:
    """(K4) The file with a password in tests/data, which `stoken` reads too."""
    content = (DATA / "hardware.sdtid").read_text()
    begun = await node.token_import.begin(
        node.admin("TokenService/ImportTokenFile"),
        TokenFile(
            format=TokenFileFormat.SDTID,
            content=content.encode(),
            password=PASSWORD,
            default_pin_rule=PinRule.NONE,
        ),
    )
    rows = [row async for row in begun.results]
    assert [row.imported for row in rows] == [True] * 3
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="alice",
        display_name="",
        email="",
    )
    parts = re.findall(r"(?s)  <TKN>.*?</TKN>\n", content)
    for row, part in zip(rows, parts, strict=True):
        await node.tokens.assign(
            node.admin("TokenService/AssignToken"), serial=row.serial, username="alice"
        )
        others = [other for other in parts if other != part]
        file = tmp_path / "one.sdtid"
        file.write_text(content.replace(others[0], "").replace(others[1], ""))
        shown = stoken(file, at_s(node), password=PASSWORD)
        assert await node.accepts(shown)
        assert not await node.accepts(shown)


@pytest.mark.parametrize("hash_name", HashName)
@pytest.mark.parametrize(("digits", "period_s"), [(6, 30), (8, 60)])
async def test_totp_codes_of_oathtool_are_accepted(
    node: OneNode, hash_name: HashName, digits: int, period_s: int
) -> None:
    """(K1) An independent implementation of RFC 6238."""
    await add_alice(
        node,
        algorithm=Algorithm.TOTP,
        hash_name=hash_name,
        seed=OATH_SEED,
        digits=digits,
        period_s=period_s,
    )
    for _ in range(3):
        node.clock.pass_s(86_400)
        shown = oathtool_totp(
            OATH_SEED,
            at_s(node),
            hash_name=hash_name,
            digits=digits,
            period_s=period_s,
        )
        assert await node.accepts(shown)
        assert not await node.accepts(shown)


@pytest.mark.parametrize("digits", [6, 8])
async def test_hotp_codes_of_oathtool_are_accepted(node: OneNode, digits: int) -> None:
    """(K1) An independent implementation of RFC 4226, with skipped counters."""
    await add_alice(
        node, algorithm=Algorithm.HOTP, seed=OATH_SEED, digits=digits, period_s=0
    )
    for counter in (0, 1, 5, 15):
        shown = oathtool_hotp(OATH_SEED, counter, digits=digits)
        assert await node.accepts(shown)
        assert not await node.accepts(shown)
    # Eleven ahead is one too many.
    assert not await node.accepts(oathtool_hotp(OATH_SEED, 26, digits=digits))
