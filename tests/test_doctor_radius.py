# SPDX-License-Identifier: Apache-2.0
"""The doctor's findings about RADIUS clients and their port (D2)."""

import asyncio
import contextlib
import socket
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sparecode_node.config import Config
from sparecode_node.config_section import Address
from sparecode_node.daemon.local_socket import LocalSocket
from sparecode_node.domain.agents import Agent, Protects
from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.radius import RadiusSettings, radius_identity
from sparecode_node.services.people.resets import Resets
from sparecode_node.statemachine.feature_level import FIRST, RADIUS_CLIENTS
from sparecode_node.statemachine.tables.agents import save_agent
from sparecode_node.statemachine.tables.formats import convert, prepare
from sparecode_node.statemachine.tables.radius import save_settings
from sparecode_node.tool.doctor.findings import Finding, Verdict
from sparecode_node.tool.doctor.machine import check_ports
from sparecode_node.tool.doctor.radius import check_radius

LISTEN = SimpleNamespace(listen=(Address("127.0.0.1", 1812),))


def state(folder: Path, *clients: RadiusSettings, level: int = RADIUS_CLIENTS) -> Path:
    """Write a state with these RADIUS clients: c0, c1 and so on."""
    path = folder / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        prepare(db)
        db.execute("INSERT INTO meta VALUES ('feature_level', ?)", (level,))
        for number, settings in enumerate(clients):
            key = NameKey(f"c{number}")
            agent = Agent(
                name=key,
                identity=radius_identity(key),
                protects=Protects.CLOUD,
                restricted=False,
            )
            save_agent(db, agent, key)
            save_settings(db, agent.identity, settings)
        convert(db, level)
        db.commit()
    return path


def found(path: Path, *, radius: object = LISTEN) -> list[Finding]:
    node = SimpleNamespace(data_dir=path.parent)
    return list(check_radius(cast(Config, SimpleNamespace(radius=radius, node=node))))


def test_a_door_without_clients_is_found(tmp_path: Path) -> None:
    (finding,) = found(state(tmp_path))
    assert finding.verdict is Verdict.WARN
    assert "sparecode agents add --radius" in finding.words


def test_a_door_of_an_older_level_is_found(tmp_path: Path) -> None:
    """A stopped node has the tables of the level, without those of RADIUS."""
    (finding,) = found(state(tmp_path, level=FIRST))
    assert finding.verdict is Verdict.WARN
    assert "before feature level 2" in finding.words


def test_clients_that_need_no_signature_are_found(tmp_path: Path) -> None:
    """(D2) Each by its name, with the way back."""
    signed = RadiusSettings(networks=("192.0.2.1/32",))
    unsigned = RadiusSettings(networks=("192.0.2.2/32",), allow_unsigned=True)
    proxied = RadiusSettings(
        networks=("192.0.2.3/32",), allow_unsigned=True, allow_unsigned_proxied=True
    )
    limited = RadiusSettings(
        networks=("192.0.2.4/32",), allow_unsigned=True, unsigned_until_signed=True
    )
    one, other, third = found(state(tmp_path, signed, unsigned, proxied, limited))
    assert {each.verdict for each in (one, other, third)} == {Verdict.WARN}
    assert "c3 may send requests without Message-Authenticator, until" in third.words
    assert "until" not in one.words
    assert "update-radius c1 --require-signed" in one.words
    assert "Proxy-State" not in one.words
    assert "c2 may send requests without Message-Authenticator, even" in other.words


def test_signed_clients_are_fine(tmp_path: Path) -> None:
    (finding,) = found(state(tmp_path, RadiusSettings(networks=("192.0.2.1/32",))))
    assert (finding.verdict, finding.words) == (
        Verdict.OK,
        "every request is signed; clients: 1",
    )


def test_nothing_is_said_of_a_door_that_is_not_there(tmp_path: Path) -> None:
    path = state(tmp_path)
    assert found(path, radius=None) == []
    assert found(tmp_path / "none" / "state.db") == []


def test_a_taken_udp_port_is_found() -> None:
    """A stopped node could not open its door."""
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", taken.getsockname()[1])
        finding = check_ports({}, running=False, udp=[address])
        assert finding.verdict is Verdict.FAIL
        assert f"radius {address} (UDP)" in finding.words
    assert check_ports({}, running=False, udp=[address]).verdict is Verdict.OK


@pytest.mark.asyncio
async def test_wrong_secrets_are_found_while_the_node_runs(tmp_path: Path) -> None:
    """The node knows them. A client may have another node as its first server."""
    signed = [RadiusSettings(networks=(f"192.0.2.{each}/32",)) for each in range(3)]
    path = state(tmp_path, *signed)
    packets = {
        ("c0", "wrong_secret"): 4,
        ("c0", "unreadable"): 3,
        ("c1", "accepted"): 2,
    }
    listening = LocalSocket(tmp_path, cast(Resets, None), lambda: packets)

    def examined(*, running: bool) -> list[Finding]:
        node = SimpleNamespace(data_dir=path.parent)
        config = cast(Config, SimpleNamespace(radius=LISTEN, node=node))
        return list(check_radius(config, running=running))

    assert len(examined(running=False)) == 1
    await listening.start()
    try:
        _, wrong, silent = await asyncio.to_thread(examined, running=True)
    finally:
        await listening.stop()
    assert wrong.verdict is Verdict.WARN
    assert "c0 has a wrong secret" in wrong.words
    assert "7 packets since the node started" in wrong.words
    assert silent.verdict is Verdict.OK
    assert silent.words.endswith("from: c2")
    (_, unchecked) = examined(running=True)
    assert "packets are not checked" in unchecked.words
