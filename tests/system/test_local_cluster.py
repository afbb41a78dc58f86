# SPDX-License-Identifier: Apache-2.0
"""`make run` and `make demo` leave no process behind and take no port in use."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from local_cluster.cluster import (
    HOST,
    LocalCluster,
    LocalClusterError,
    LocalNode,
    Ports,
    free_ports,
    is_taken,
)

ROOT = Path(__file__).parents[2]


def processes_about(directory: Path) -> list[str]:
    """Return the command lines that name the folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # It has ended meanwhile.
            continue
        if str(directory) in line:
            lines.append(line)
    return lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_whatever_ends_the_demo_ends_its_nodes(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, a kill, a closed terminal; a second Ctrl-C does no harm."""
    demo = subprocess.Popen(
        [sys.executable, "-u", "-m", "local_cluster", "demo"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "deploy"), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with demo:
        assert demo.stdout is not None
        while "ok" not in demo.stdout.readline():
            assert demo.poll() is None
        assert len(processes_about(tmp_path)) == 3
        for _ in range(3):
            demo.send_signal(number)
        text, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in text
    assert "Interrupted" in text
    assert processes_about(tmp_path) == []
    assert list(tmp_path.glob("sparecode-demo-*")) == []


def test_a_cluster_that_runs_is_not_run_again(cluster: LocalCluster) -> None:
    """Its nodes would answer in place of the new ones, which could not listen."""
    twin = LocalCluster.load(cluster.directory)
    with pytest.raises(LocalClusterError, match=r"port \d+ of n1 \(agents\) is taken"):
        twin.start()
    assert not any(node.running for node in twin.nodes)
    cluster.wait_ready()
    cluster.check_ports()  # Its own do not count.


def test_a_taken_port_of_radius_is_told(tmp_path: Path) -> None:
    """It is a port of UDP: the same number of TCP does not count."""
    with (
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        socket.socket(type=socket.SOCK_STREAM) as tcp,
    ):
        for each in (udp, tcp):
            each.bind((HOST, 0))
        tcp.listen()

        def cluster(port: int) -> LocalCluster:
            ports = Ports(agents=0, peers=0, admin=0, radius=port)
            nodes = [LocalNode("n1", tmp_path, ports, testing=True)]
            return LocalCluster(tmp_path, nodes, testing=True)

        port = udp.getsockname()[1]
        told = re.escape(f"port {port} of n1 (radius) is taken.")
        with pytest.raises(LocalClusterError, match=told):
            cluster(port).check_ports()
        if tcp.getsockname()[1] != port:
            cluster(tcp.getsockname()[1]).check_ports()


def test_a_port_is_chosen_once_and_a_server_gets_it() -> None:
    """Another process that looks for a port meanwhile gets another one."""
    [port] = free_ports(1)
    look = f"from local_cluster.cluster import hold; print(hold({port}))"
    done = subprocess.run(
        [sys.executable, "-c", look],
        env={**os.environ, "PYTHONPATH": str(ROOT / "deploy")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
    assert not is_taken(port)
    with socket.create_server((HOST, port)):
        assert is_taken(port)
