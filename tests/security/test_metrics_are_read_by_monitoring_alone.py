# SPDX-License-Identifier: Apache-2.0
"""A stranger on the monitoring network reads no metrics, on the wire either."""

import contextlib
import datetime as dt
import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx
import pytest
from prometheus_client import CollectorRegistry

from sparecode_node.config import Config, MetricsConfig
from sparecode_node.config_section import Address
from sparecode_node.daemon.metrics.access import MetricsAccess
from sparecode_node.daemon.metrics.listener import MetricsListener
from sparecode_node.membership.certificates import Authority
from sparecode_node.services.load.condition import Reason
from sparecode_node.tool.doctor.files import check_certificates
from sparecode_node.tool.doctor.findings import Verdict

TOKEN = "0123456789abcdef"


class Ready:
    """A node that is well."""

    alive = True

    def reason(self) -> Reason | None:
        return None

    def problems(self) -> list[str]:
        return []

    def warnings(self) -> list[str]:
        return []


class Unready(Ready):
    """A node whose certificate has expired, and whose disk is nearly full."""

    def reason(self) -> Reason:
        return Reason.UNHEALTHY

    def problems(self) -> list[str]:
        return ["the certificate of agents has expired"]

    def warnings(self) -> list[str]:
        return ["20 MiB are left on the disk"]


@pytest.fixture
def authority() -> Authority:
    return Authority.create("monitoring", now=dt.datetime.now(dt.UTC))


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Path:
    """Return a folder with the certificates of the listener and of Prometheus."""
    now = dt.datetime.now(dt.UTC)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    for name in ("metrics", "prometheus"):
        issued = authority.issue_member(name, hosts=["127.0.0.1"], now=now)
        (tmp_path / f"{name}.pem").write_bytes(issued.certificate)
        (tmp_path / f"{name}.key").write_bytes(issued.key)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path


@contextmanager
def listening(access: MetricsAccess, condition: Ready | None = None) -> Iterator[str]:
    listener = MetricsListener(
        host="127.0.0.1",
        port=0,
        registry=CollectorRegistry(),
        condition=condition or Ready(),  # type: ignore[arg-type]
        access=access,
    )
    listener.start()
    try:
        yield f"https://127.0.0.1:{listener.port}"
    finally:
        listener.stop()


def monitoring(files: Path, *, certificate: bool = False) -> httpx.Client:
    """Return a client that trusts the listener, with Prometheus' certificate or none."""
    context = ssl.create_default_context(cafile=files / "ca.pem")
    if certificate:
        context.load_cert_chain(files / "prometheus.pem", files / "prometheus.key")
    return httpx.Client(verify=context)


def access_to(files: Path, *, ca: bool = False, token: bool = False) -> MetricsAccess:
    return MetricsAccess(
        certificate=files / "metrics.pem",
        key=files / "metrics.key",
        ca=files / "ca.pem" if ca else None,
        token_file=files / "token" if token else None,
    )


def test_nobody_reads_along(files: Path) -> None:
    """Plain HTTP gets no answer; browsers are told to stay on TLS."""
    with listening(access_to(files)) as url, monitoring(files) as client:
        answer = client.get(f"{url}/metrics")
        assert answer.status_code == 200
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        with pytest.raises(httpx.HTTPError):
            client.get(f"{url}/metrics".replace("https", "http"))


def raw_status(url: str, files: Path, authorization: str) -> int:
    """Send a header as it is, with spaces at its end; return the status."""
    connection = http.client.HTTPSConnection(
        url.removeprefix("https://"),
        context=ssl.create_default_context(cafile=files / "ca.pem"),
        timeout=60,
    )
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers={"authorization": authorization})
        return connection.getresponse().status


def test_the_metrics_need_the_token_and_probes_need_nothing(files: Path) -> None:
    with listening(access_to(files, token=True)) as url, monitoring(files) as client:
        for header in ({}, {"authorization": "Bearer x"}, {"authorization": TOKEN}):
            answer = client.get(f"{url}/metrics", headers=header)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "sparecode_" not in answer.text
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get(f"{url}/metrics", headers=right).status_code == 200
        assert client.get(f"{url}/healthz").status_code == 200
        assert client.get(f"{url}/readyz").status_code == 200
        (files / "token").write_text("another\n")  # Replaced while the node runs.
        assert client.get(f"{url}/metrics", headers=right).status_code == 401
        (files / "token").write_text("\n")
        for header in ("Bearer x", "Bearer", "Bearer ", ""):
            assert raw_status(url, files, header) == 401, header


def test_probes_learn_one_word_and_monitoring_learns_what_is_wrong(
    files: Path,
) -> None:
    with (
        listening(access_to(files, token=True), Unready()) as url,
        monitoring(files) as client,
    ):
        answer = client.get(f"{url}/readyz")
        assert (answer.status_code, answer.json()) == (
            503,
            {"ready": False, "reason": "unhealthy"},
        )
        wrong = {"authorization": "Bearer x"}
        assert client.get(f"{url}/readyz", headers=wrong).json() == answer.json()
        right = {"authorization": f"Bearer {TOKEN}"}
        answer = client.get(f"{url}/readyz", headers=right)
        assert (answer.status_code, answer.json()) == (
            503,
            {
                "ready": False,
                "reason": "unhealthy",
                "problems": Unready().problems(),
                "warnings": Unready().warnings(),
            },
        )
    with listening(access_to(files, token=True)) as url, monitoring(files) as client:
        assert client.get(f"{url}/readyz").json() == {"ready": True}


def test_the_metrics_need_a_certificate_of_the_authority(files: Path) -> None:
    with listening(access_to(files, ca=True)) as url:
        with monitoring(files) as stranger:
            assert stranger.get(f"{url}/metrics").status_code == 401
            assert stranger.get(f"{url}/healthz").status_code == 200
        with monitoring(files, certificate=True) as prometheus:
            assert prometheus.get(f"{url}/metrics").status_code == 200


def test_a_certificate_of_another_authority_reads_nothing(files: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    issued = Authority.create("stranger", now=now).issue_member(
        "prometheus", hosts=["127.0.0.1"], now=now
    )
    (files / "prometheus.pem").write_bytes(issued.certificate)
    (files / "prometheus.key").write_bytes(issued.key)
    with (
        listening(access_to(files, ca=True)) as url,
        monitoring(files, certificate=True) as client,
        pytest.raises(httpx.HTTPError),
    ):
        client.get(f"{url}/metrics")


def test_the_doctor_sees_an_expired_certificate(files: Path) -> None:
    """It shuts monitoring out, and nothing would tell."""
    metrics = MetricsConfig(
        listen=Address("127.0.0.1", 7303),
        certificate=files / "metrics.pem",
        key=files / "metrics.key",
        ca=files / "ca.pem",
    )
    config = SimpleNamespace(
        node=SimpleNamespace(id="n1"), tls_listeners={"metrics": metrics.tls}
    )
    now = dt.datetime.now(dt.UTC)
    for days, verdict in ((0, Verdict.OK), (9_999, Verdict.FAIL)):
        at = now + dt.timedelta(days=days)
        finding, *_ = check_certificates(cast("Config", config), at)
        assert finding.verdict is verdict
        assert "[metrics]" in finding.words
