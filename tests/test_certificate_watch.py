# SPDX-License-Identifier: Apache-2.0
"""Warnings of a node about certificates that expire soon."""

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sparecode_node.config import Config
from sparecode_node.daemon.certificate_watch import Certificates
from sparecode_node.membership.certificates import write_certificates
from sparecode_node.rpc.tls import TlsFileError, TlsFiles

NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
LIVES_DAYS = 60
LISTENERS = ("agents", "peers", "admin", "metrics")


class HandClock:
    """A clock that a test sets; it starts at `NOW`."""

    days: float = 0

    def now_ms(self) -> int:
        return int((NOW + dt.timedelta(days=self.days)).timestamp() * 1000)

    def monotonic_s(self) -> float:
        return self.days * 86_400


def config_of(folder: Path) -> Config:
    """Return the part of a configuration that the test needs."""
    listener = SimpleNamespace(
        certificate=folder / "n1.pem",
        key=folder / "n1.key",
        ca=folder / "members-ca.pem",
    )
    return cast(
        "Config",
        SimpleNamespace(
            node=SimpleNamespace(id="n1", data_dir=folder / "data"),
            peers=listener,
            tls_listeners=dict.fromkeys(LISTENERS, listener),
        ),
    )


async def ignore(_name: str, _files: TlsFiles) -> None:
    """Ignore new certificates."""


def watched(directory: Path, clock: HandClock) -> Certificates:
    """Write certificates that are valid from now, and return their watch."""
    write_certificates(
        directory, members=["n1"], hosts=["127.0.0.1"], now=NOW, days=LIVES_DAYS
    )
    return Certificates(config_of(directory), clock, on_renewed=ignore)


def test_warnings_come_once_each_at_thirty_seven_and_one_days(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    certificates = watched(tmp_path, clock)
    report = {}
    for left in (59, 31, 29.9, 29.8, 8, 6.9, 6.8, 2, 0.9, 0.8, -1):
        clock.days = LIVES_DAYS - left
        caplog.clear()
        certificates._warn()
        report[left] = [record.listener for record in caplog.records]
        assert {record.getMessage() for record in caplog.records} <= {
            "certificate_ends"
        }
    everyone = list(LISTENERS)
    assert {left: names for left, names in report.items() if names} == {
        29.9: everyone,
        6.9: everyone,
        0.9: everyone,
    }


@pytest.mark.asyncio
async def test_new_certificate_is_warned_about_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    certificates = watched(tmp_path, clock)
    clock.days = LIVES_DAYS - 0.5
    certificates._warn()
    write_certificates(
        tmp_path,
        members=["n1"],
        hosts=["127.0.0.1"],
        now=NOW + dt.timedelta(days=clock.days),
        days=20,
        force=True,
    )
    await certificates.check()
    caplog.clear()
    certificates._warn()
    (end,) = {record.ends_at for record in caplog.records}
    assert end.startswith("2026-08-")


def test_expired_certificate_of_the_metrics_stops_no_node(tmp_path: Path) -> None:
    """The others do: they would serve no one."""
    clock = HandClock()
    watched(tmp_path, clock)
    clock.days = LIVES_DAYS + 1
    config = config_of(tmp_path)
    with pytest.raises(TlsFileError, match="expired"):
        Certificates(config, clock, on_renewed=ignore)
    listeners = dict(config.tls_listeners)
    config.tls_listeners = {"metrics": listeners["metrics"]}  # type: ignore[misc]
    ends = Certificates(config, clock, on_renewed=ignore).ends()
    assert ends["metrics"].own == NOW + dt.timedelta(days=LIVES_DAYS)
