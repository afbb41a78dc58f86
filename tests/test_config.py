# SPDX-License-Identifier: Apache-2.0
"""`node.toml`: the sample names every key, and each error is one line."""

import re
from pathlib import Path

import pytest

from sparecode_node.config import KdfProfile, LogFormat, LogLevel, load_config
from sparecode_node.config_section import Address, ConfigError
from sparecode_node.daemon.node import raft_settings, rate_limits
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.services.load.rates import RateLimits

SAMPLE = Path(__file__).parent.parent / "deploy" / "node.toml"
DEFAULT = re.compile(r"^# (\w+ = .*)$", re.MULTILINE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a copy of the sample."""
    path = tmp_path / "node.toml"
    path.write_text(SAMPLE.read_text())
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_sample_is_a_valid_configuration():
    config = load_config(SAMPLE, {})
    assert config.node.id == "n1"
    assert str(config.agents.listen) == "0.0.0.0:7300"
    assert str(config.peers.listen) == "0.0.0.0:7301"
    assert str(config.admin.listen) == "0.0.0.0:7304"
    assert not config.admin.reflection
    assert config.metrics is not None
    assert str(config.metrics.listen) == "127.0.0.1:7303"
    assert config.members["n3"] == Address("n3.example.net", 7301)
    assert config.kdf.profile is KdfProfile.PRODUCTION
    assert (config.log.level, config.log.format) == (LogLevel.INFO, LogFormat.TEXT)


def test_sample_states_the_real_defaults(path):
    before = load_config(path, {})
    text, stated = DEFAULT.subn(r"\1", path.read_text())
    path.write_text(text)
    assert stated == 25
    assert load_config(path, {}) == before


def test_an_archive_is_off_unless_a_folder_is_named(path):
    """(U2)."""
    assert load_config(path, {}).audit_archive is None
    edit(path, '#archive = "/srv', 'archive = "/srv')
    assert load_config(path, {}).audit_archive == Path("/srv/sparecode-archive")


def test_a_key_of_a_member_can_be_accepted(path):
    """(P5a) By this node, for a key that the cluster could not record."""
    assert load_config(path, {}).accept_keys == {}
    edit(path, "#accept_keys", "accept_keys")
    with pytest.raises(ConfigError, match="n2 = 'HEX': expected the SHA-256"):
        load_config(path, {})
    edit(path, '"HEX"', f'"{"AB" * 32}"')
    assert load_config(path, {}).accept_keys == {"n2": "ab" * 32}


def test_engine_and_file_have_the_same_defaults():
    assert raft_settings(load_config(SAMPLE, {})) == RaftSettings()


def test_rate_limits_and_file_have_the_same_values(path):
    """(L7) The defaults are the same in both modules."""
    assert rate_limits(load_config(SAMPLE, {})) == RateLimits()
    edit(path, "# user_per_s = 5", "user_per_s = 7")
    assert rate_limits(load_config(path, {})) == RateLimits(user=7)


def test_log_limits_reach_the_engine(path):
    edit(path, "# log_entries_max = 8192", "log_entries_max = 64")
    edit(path, "# log_entries_kept = 1024", "log_entries_kept = 16")
    edit(path, "# log_bytes_max = 33_554_432", "log_bytes_max = 1_000_000")
    edit(path, "# log_bytes_kept = 4_194_304", "log_bytes_kept = 500_000")
    settings = raft_settings(load_config(path, {}))
    assert (settings.log_entries_max, settings.log_entries_kept) == (64, 16)
    assert (settings.log_bytes_max, settings.log_bytes_kept) == (1_000_000, 500_000)


def test_sample_names_every_key(path):
    """Operators find only the keys that the sample names."""
    path.write_text("")
    named = set(re.findall(r"^(?:# ?)?(\w+) = ", SAMPLE.read_text(), re.MULTILINE))
    known: set[str] = set()
    sample = "\n\n".join(
        re.sub(r"^#(?=\S)", "", block, flags=re.MULTILINE)
        if re.search(r"^#\[", block, re.MULTILINE)
        else block
        for block in SAMPLE.read_text().split("\n\n")
    )
    for section in re.findall(r"^\[?\[(\w+|http\.plugins)\]\]?$", sample, re.MULTILINE):
        text = re.sub(rf"\[{re.escape(section)}\]+\n", r"\g<0>zzz = 1\n", sample)
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(path, {})
        known |= set(str(caught.value).partition("the keys are ")[2].split(", "))
    assert known - {"addresses", "plugins"} | {"n1", "n2", "n3"} == named


def test_console_is_optional(path):
    text = path.read_text()
    config = load_config(path, {})
    assert config.console is not None
    assert str(config.console.listen) == "0.0.0.0:7302"
    assert config.console.addresses["n2"] == "https://n2.example.net:7302"
    start, end = text.index("[console]"), text.index("[cluster.members]")
    path.write_text(text[:start] + text[end:])
    assert load_config(path, {}).console is None
    edit(path, "[cluster.members]", "[console]\nzzz = 1\n[cluster.members]")
    with pytest.raises(ConfigError, match="certificate"):
        load_config(path, {})


def test_http_is_optional(path):
    text = path.read_text()
    config = load_config(path, {})
    assert config.http is not None
    assert str(config.http.listen) == "0.0.0.0:7305"
    start, end = text.index("[http]"), text.index("[cluster.members]")
    path.write_text(text[:start] + text[end:])
    assert load_config(path, {}).http is None
    edit(path, "[cluster.members]", "[http]\nzzz = 1\n[cluster.members]")
    with pytest.raises(ConfigError, match="certificate"):
        load_config(path, {})


PLUGIN = """[[http.plugins]]
agent = "sparecode://agent/keycloak"
networks = ["10.1.0.7", "2001:db8::/64"]
repeats = true
[[http.plugins]]
agent = "sparecode://agent/pam"
"""


def test_plugins_of_privacyidea_are_agents_with_networks(path):
    edit(path, "[cluster.members]", f"{PLUGIN}[cluster.members]")
    first, second = load_config(path, {}).http_plugins
    assert (first.agent, first.repeats) == ("sparecode://agent/keycloak", True)
    assert [str(each) for each in first.networks] == ["10.1.0.7/32", "2001:db8::/64"]
    assert (second.networks, second.repeats) == ((), False)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10.1.0.7", "0.0.0.0/0", "is every address"),
        ("10.1.0.7", "10.1.0.7/8", "no bit set after"),
        ("10.1.0.7", "fe80::1%eth0", "is not an IP address"),
        ('"10.1.0.7"', "7", "is not an IP address"),
        ("sparecode://agent/pam", "sparecode://agent/keycloak", "has another table"),
        ("sparecode://agent/pam", "pam", "is not the identity of an agent"),
        ('agent/pam"', 'agent/pam"\nnetworks = ["10.1.0.7"]', "is also that of"),
        ("repeats", "repeat", "unknown key"),
        ("[[http.plugins]]", "[http.plugins]", "not TOML"),
    ],
)
def test_a_plugin_that_admits_too_much_is_refused(path, old, new, message):
    plugin = PLUGIN.replace(old, new, 1)
    edit(path, "[cluster.members]", f"{plugin}[cluster.members]")
    with pytest.raises(ConfigError, match=message):
        load_config(path, {})


def test_http_has_a_port_of_its_own(path):
    edit(path, '# listen = "0.0.0.0:7305"', 'listen = "0.0.0.0:7300"')
    with pytest.raises(ConfigError, match="every listener needs its own port"):
        load_config(path, {})


def test_metrics_with_tls_are_a_listener_with_a_certificate(path):
    """The doctor and the certificate watch look at these listeners."""
    nodes = ["agents", "peers", "admin", "console", "http"]
    assert list(load_config(path, {}).tls_listeners) == nodes
    for name in ("certificate", "key", "ca"):
        edit(path, f'#{name} = "/etc/sparecode/m', f'{name} = "/etc/sparecode/m')
    config = load_config(path, {})
    assert list(config.tls_listeners) == [*nodes, "metrics"]
    metrics = config.tls_listeners["metrics"]
    assert str(metrics.certificate) == "/etc/sparecode/metrics.pem"
    assert str(metrics.key) == "/etc/sparecode/metrics.key"
    assert str(metrics.ca) == "/etc/sparecode/monitoring-ca.pem"


def test_console_address_is_an_https_origin(path):
    edit(path, "https://n2.example.net:7302", "n2.example.net:7302")
    with pytest.raises(
        ConfigError, match=r"\[console.addresses\] n2: .* is not the address of a node"
    ):
        load_config(path, {})


def test_relative_paths_start_at_the_folder_of_the_file(path):
    edit(path, '"/etc/sparecode/n1.pem"', '"pki/n1.pem"')
    assert load_config(path, {}).agents.certificate == path.parent / "pki/n1.pem"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[raft]",
            "[rafts]",
            "[rafts]: unknown section; the sections are [node], [agents]",
        ),
        (
            "[node]\n",
            "[node]\nname = 1\n",
            "[node] name: unknown key; the keys are id,",
        ),
        ('id = "n1"', "", "[node] id: missing; expected a text"),
        ('id = "n1"', "id = 1", "[node] id: expected a text, got 1"),
        (
            'id = "n1"',
            'id = "N 1"',
            "[node] id: 'N 1' is not an id: 1 to 63 characters",
        ),
        (
            'id = "n1"',
            'id = "n9"',
            (
                "[cluster.members] n9: missing; [node] id must be one of the members, "
                "which are n1, n2, n3"
            ),
        ),
        (
            '# listen = "0.0.0.0:7300"',
            'listen = "7300"',
            "[agents] listen: '7300' is not HOST:PORT",
        ),
        (
            '# listen = "0.0.0.0:7300"',
            'listen = "h:70000"',
            "[agents] listen: 'h:70000' is not HOST:PORT with a port from 1 to 65535",
        ),
        (
            '# listen = "0.0.0.0:7304"',
            'listen = "0.0.0.0:7300"',
            "[admin] listen: port 7300 is also the port of [agents]",
        ),
        (
            '# listen = "0.0.0.0:7300"',
            'listen = "::1:7300"',
            "(write an IPv6 address in brackets)",
        ),
        (
            "# reflection = false",
            'reflection = "no"',
            "[admin] reflection: expected true or false, got 'no'",
        ),
        (
            "# heartbeat_ms = 100",
            "heartbeat_ms = 0.1",
            "[raft] heartbeat_ms: expected a whole number, got 0.1",
        ),
        (
            "# heartbeat_ms = 100",
            "heartbeat_ms = 0",
            "[raft] heartbeat_ms: 0 is not in the range 1 to 60000",
        ),
        (
            "# heartbeat_ms = 100",
            "heartbeat_ms = 400",
            "[raft] election_min_ms: 400 must be more than 3 times heartbeat_ms (400)",
        ),
        (
            "# election_max_ms = 800",
            "election_max_ms = 400",
            "[raft] election_max_ms: 400 must be more than election_min_ms (400)",
        ),
        (
            "# log_entries_max = 8192",
            "log_entries_max = 15",
            "[raft] log_entries_max: 15 is not in the range 16 to 1000000",
        ),
        (
            "# log_entries_kept = 1024",
            "log_entries_kept = 4097",
            "[raft] log_entries_kept: 4097 is more than half of log_entries_max (8192)",
        ),
        (
            "# log_entries_max = 8192",
            "log_entries_max = 2000",
            "[raft] log_entries_kept: 1024 is more than half of log_entries_max (2000)",
        ),
        (
            "# log_bytes_max = 33_554_432",
            "log_bytes_max = 2_000_000_000",
            "[raft] log_bytes_max: 2000000000 is not in the range 65536 to 1073741824",
        ),
        (
            "# log_bytes_kept = 4_194_304",
            "log_bytes_kept = 20_000_000",
            (
                "[raft] log_bytes_kept: 20000000 is more than half of log_bytes_max "
                "(33554432)"
            ),
        ),
        (
            "# log_bytes_kept = 4_194_304",
            "log_bytes_kept = 0",
            "[raft] log_bytes_kept: 0 is not in the range 1 to",
        ),
        (
            '# level = "info"',
            'level = "loud"',
            "[log] level: 'loud' is not one of debug, info, warning, error",
        ),
        (
            '# profile = "production"',
            'profile = "testing"',
            (
                "[kdf] profile: 'testing' makes codes and PINs cheap to guess: use "
                "'production', or set SPARECODE_TESTING=1"
            ),
        ),
        (
            'n2 = "n2.example.net:7301"',
            'n2 = "n1.example.net:7301"',
            "[cluster.members] n2: n1.example.net:7301 is also the address of n1",
        ),
        (
            'n2 = "n2.example.net:7301"',
            "n2 = 7301",
            "[cluster.members] n2: expected a text, got 7301",
        ),
        (
            "[cluster.members]\n",
            "[cluster]\nvoters = 3\n[cluster.members]\n",
            "[cluster] voters: unknown key; the keys are members",
        ),
        (
            '#token_file = "',
            'token_file = "',
            "[metrics] token_file: needs certificate and key",
        ),
        (
            '#certificate = "/etc/sparecode/metrics.pem"',
            'certificate = "m.pem"',
            "[metrics] certificate: set certificate and key, or neither",
        ),
        ("[keys]", "keys = 1 [", "not TOML: "),
    ],
)
def test_error_is_one_line_that_names_its_place(path, old, new, message):
    edit(path, old, new)
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert message in line
    assert "\n" not in line


def test_missing_members_are_an_error(path):
    path.write_text(re.sub(r"\[cluster.members\]\n(n\d.*\n)+", "", path.read_text()))
    with pytest.raises(
        ConfigError, match=r"\[cluster\] members: missing; expected \[cluster.members"
    ):
        load_config(path, {})


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load_config(tmp_path / "absent.toml", {})


def test_testing_profile_needs_the_variable(path):
    edit(path, '# profile = "production"', 'profile = "testing"')
    config = load_config(path, {"SPARECODE_TESTING": "1"})
    assert config.kdf.profile is KdfProfile.TESTING


def test_a_number_of_hashing_threads_may_be_named(path):
    """(I12)."""
    assert load_config(path, {}).kdf.threads is None
    edit(path, "#threads = 2", "threads = 2")
    assert load_config(path, {}).kdf.threads == 2
    edit(path, "threads = 2", "threads = 0")
    with pytest.raises(
        ConfigError, match=r"\[kdf\] threads: 0 is not in the range 1 to 1024"
    ):
        load_config(path, {})


def test_systemd_credential_replaces_the_file_of_its_name(path, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    environment = {"CREDENTIALS_DIRECTORY": str(credentials)}
    named = Path("/var/lib/sparecode-keys/keyring.json")
    assert load_config(path, environment).keys_file == named
    credential = credentials / "keyring.json"
    credential.touch()
    assert load_config(path, environment).keys_file == credential


def test_wrapping_key_is_optional_and_may_be_a_credential(path, tmp_path):
    """(P5)."""
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    config = load_config(path, environment)
    assert config.wrapping_key_file == Path("/etc/sparecode/wrapping.key")
    assert config.given_ring_file is None
    (tmp_path / "wrapping.key").touch()
    assert load_config(path, environment).wrapping_key_file == tmp_path / "wrapping.key"
    edit(
        path,
        'wrapping_key = "/etc/sparecode/wrapping.key"',
        'given = "first.json"',
    )
    config = load_config(path, environment)
    assert config.wrapping_key_file is None
    assert config.given_ring_file == path.parent / "first.json"


def test_wrap_command_is_a_list_with_the_path_of_a_program(path):
    """(P5)."""
    assert load_config(path, {}).wrap_command is None
    sample = re.search(r"^#(wrap_command = .*)$", path.read_text(), re.MULTILINE)
    assert sample is not None
    edit(path, sample[0], f"{sample[1]}\nwrap_timeout_s = 60")
    config = load_config(path, {})
    assert config.wrap_command == (
        "/opt/sparecode/bin/sparecode-pkcs11-wrap",
        "/etc/sparecode/pkcs11.toml",
    )
    assert config.wrap_timeout_s == 60
    edit(path, "wrap_timeout_s = 60", "wrap_timeout_s = 61")
    with pytest.raises(ConfigError, match=r"\[keys\] wrap_timeout_s: 61 is not in"):
        load_config(path, {})


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ('"/usr/bin/program file"', "expected a list of texts"),
        ("[]", "expected a list of texts"),
        ('["/usr/bin/program", 5]', "expected a list of texts"),
        ('["/usr/bin/program", "a\\u0000b"]', "expected a list of texts"),
        ('["program"]', "'program' must be the absolute path of a program"),
        ('[""]', "must be the absolute path of a program"),
    ],
)
def test_wrap_command_that_needs_a_shell_is_refused(path, value, says):
    edit(path, "# wrap_timeout_s", f"wrap_command = {value}\n# wrap_timeout_s")
    with pytest.raises(ConfigError, match=r"\[keys\] wrap_command: ") as raised:
        load_config(path, {})
    assert says in str(raised.value)
