# SPDX-License-Identifier: Apache-2.0
"""
Alert rules: each fires on its fault and stays quiet otherwise.

`promtool` evaluates the series of an invented cluster of three. A rule that names real
metrics may still never fire: these tests show that each does.
"""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.metrics.test_deployment import ALERTS, DASHBOARD, dashboard_expressions

pytestmark = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: make system-packages"
)

DAY_S = 86_400
MINUTE, HOUR = "1m", "1h"


def on(metric: str, *values: str, **labels: str) -> dict[str, str]:
    """
    Return the series of a metric on n1, n2, ..., each with its values.

    Values are promtool's: `0x9` is ten zeros, `0+5x9` grows by five each time.
    """
    named = "".join(f',{name}="{value}"' for name, value in labels.items())
    return {
        f'{metric}{{job="sparecode",instance="n{number}"{named}}}': each
        for number, each in enumerate(values, start=1)
    }


@dataclass(frozen=True)
class Case:
    """Series that make an alert fire, and series that must not."""

    fires: dict[str, str]
    quiet: dict[str, str]
    at: str = "30m"
    """The time at which the alert is evaluated."""
    every: str = MINUTE
    """The interval between values."""


def slow(share: int) -> dict[str, str]:
    """Return syncs of which *share* in 100 take at most 100 ms."""
    name = "sparecode_journal_sync_seconds_bucket"
    return {
        **on(name, f"0+{100 - share}x40", le="0.1"),
        **on(name, "0+100x40", le="0.5"),
        **on(name, "0+100x40", le="+Inf"),
    }


def certificate(days: float) -> dict[str, str]:
    """Return series in which one of three certificates expires in *days*."""
    first, far = 30 * 60 + days * DAY_S, 300 * DAY_S
    name = "sparecode_certificate_not_after_timestamp_seconds"
    values = (f"{far}x40", f"{first:.0f}x40", f"{far}x40")
    return on(name, *values, listener="agents", certificate="own")


def refused(reason: str, each: int) -> dict[str, str]:
    """Return series in which every node applies refusals each minute."""
    values = [f"0+{each}x40"] * 3
    labels = {"action": "Authenticate", "outcome": "refused", "reason": reason}
    return on("sparecode_events_total", *values, **labels)


def digests(*compared: str) -> dict[str, str]:
    """Return series of the time of each node's last comparison, and of its peers."""
    name = "sparecode_state_digest_compared_timestamp_seconds"
    return {
        **on(name, *compared),
        **on("sparecode_peer_reachable", "1x40", peer="n2"),
    }


def channel(*, failed: int, delivered: int, waiting: int) -> dict[str, str]:
    """Return series of a channel: attempts of the primary for each sample, and its queue."""
    name = "sparecode_notice_deliveries_total"
    series = on("sparecode_notices_waiting", *[f"{waiting}x40"] * 3, channel="siem")
    for outcome, each in (("failed", failed), ("delivered", delivered)):
        values = (f"0+{each}x40", "0x40", "0x40")
        series |= on(name, *values, channel="siem", outcome=outcome)
    return series


def file_channel(*, failed: int, delivered: int) -> dict[str, str]:
    """Return series of a file: n2 writes well, and n1 as told; nothing waits for it."""
    name = "sparecode_notice_deliveries_total"
    return {
        **on(name, f"0+{failed}x40", "0x40", channel="log", outcome="failed"),
        **on(name, f"0+{delivered}x40", "0+9x40", channel="log", outcome="delivered"),
    }


def dropped(values: str) -> dict[str, str]:
    """Return series of dropped notices, which every node counts."""
    labels = {"action": "NOTICES_DROPPED", "outcome": "noted"}
    return on("sparecode_events_total", *[values] * 3, **labels)


WELL = "1x40"
CASES = {
    "SparecodeNodeDown": Case(
        fires=on("up", WELL, "0x40", WELL), quiet=on("up", WELL, WELL, WELL)
    ),
    "SparecodeNoPrimary": Case(
        fires=on("sparecode_primary_known", "0x40", "0x40"),
        quiet=on("sparecode_primary_known", "0x40", WELL, WELL),
    ),
    "SparecodeNodeNotReady": Case(
        fires=on("sparecode_ready", WELL, "0x40"),
        quiet=on("sparecode_ready", WELL, "1x29 0 1x9"),
    ),
    "SparecodeReplicaBroken": Case(
        fires={
            **on("sparecode_audit_head_mismatch", "0x40", "0x40"),
            **on("sparecode_state_digest_mismatch", "0x40", WELL),
        },
        quiet={
            **on("sparecode_audit_head_mismatch", "0x40", "0x40"),
            **on("sparecode_state_digest_mismatch", "0x40", "0x40"),
        },
    ),
    "SparecodeNodeRestored": Case(
        fires={
            **on("sparecode_refused_as_older_copy", "0x40", "0x40"),
            **on("sparecode_older_copies", "0x40", "1x40"),
        },
        quiet={
            **on("sparecode_refused_as_older_copy", "0x40", "0x40"),
            **on("sparecode_older_copies", "0x40", "1x29 0x10"),
        },
    ),
    "SparecodeEntrySkipped": Case(
        fires=on("sparecode_entry_skipped_timestamp_seconds", "0x40", "1200x40"),
        quiet=on("sparecode_entry_skipped_timestamp_seconds", "0x40", "0x40"),
    ),
    "SparecodeAuthorityDue": Case(
        fires=on("sparecode_authorities_due", "0x40", "2x40"),
        quiet=on("sparecode_authorities_due", "0x40", "0x40"),
    ),
    "SparecodeAuditSegmentsMissing": Case(
        fires=on("sparecode_audit_segments_missing", "0x10 1x90"),
        quiet=on(
            "sparecode_audit_segments_missing",
            *("0x10 1x29 0x70", "0x10 2000-20x99"),  # One that has joined fetches.
        ),
        at="100m",
    ),
    "SparecodeAuditSegmentsInState": Case(
        fires=on("sparecode_audit_segments_in_state", "1x10 3x40 4x60", "1x110"),
        quiet=on(
            "sparecode_audit_segments_in_state",
            *("1x10 2x100", "1x10 3x29 1x70", "2000-10x110"),  # An upgrade seals years.
        ),
        at="100m",
    ),
    "SparecodeAuditSegmentsUnarchived": Case(
        fires=on("sparecode_audit_segments_unarchived", "0x10 1x160"),
        quiet=on("sparecode_audit_segments_unarchived", "0x10 1x89 0x70"),
        at="160m",
    ),
    "SparecodeAuditSegmentsShort": Case(
        fires=on("sparecode_audit_segments_short", "0x10 2x400", "0x10 2x400"),
        quiet=on("sparecode_audit_segments_short", "0x10 2x340 0x60"),
        at="400m",
    ),
    "SparecodeStatesNotCompared": Case(
        fires=digests("0x40", "7200x40", "0x40"),
        quiet=digests("0x40", "7200x5 72000x34", "0x40"),
        at="24h",
        every=HOUR,
    ),
    "SparecodePrimaryUnsteady": Case(
        fires=on("sparecode_primary_changes_total", "0+1x40"),
        quiet=on("sparecode_primary_changes_total", "0x20 1x20"),
    ),
    "SparecodeReplicaLags": Case(
        fires=on("sparecode_apply_lag_entries", "0x40", "101x40"),
        quiet=on("sparecode_apply_lag_entries", "0x40", "0x28 500 0x10"),
    ),
    "SparecodeJournalSyncSlow": Case(fires=slow(share=5), quiet=slow(share=0)),
    "SparecodeSnapshotsFail": Case(
        fires=on("sparecode_snapshot_failures_total", "0+1x40"),
        quiet=on("sparecode_snapshot_failures_total", "0x20 1x20"),
    ),
    "SparecodeMemberCatchesUpSlowly": Case(
        fires=on("sparecode_log_kept_ratio", "0x40", "0.51x40"),
        quiet=on("sparecode_log_kept_ratio", "0x40", "0.49x40"),
    ),
    "SparecodeMemberNotCaughtUp": Case(
        fires={
            **on("sparecode_log_given_up_total", "0x40", "0x40"),
            **on("sparecode_snapshots_outdated_total", "0x40", "0x9 1x30"),
        },
        quiet={
            **on("sparecode_log_given_up_total", "0x40", "1x40"),
            **on("sparecode_snapshots_outdated_total", "0x40", "1x40"),
        },
    ),
    "SparecodeDiskFull": Case(
        fires={
            **on("sparecode_disk_free_bytes", "99x40"),
            **on("sparecode_disk_size_bytes", "1000x40"),
        },
        quiet={
            **on("sparecode_disk_free_bytes", "101x40"),
            **on("sparecode_disk_size_bytes", "1000x40"),
        },
    ),
    "SparecodeClockOff": Case(
        fires=on("sparecode_peer_clock_offset_seconds", "-1.5x40", peer="n2"),
        quiet=on("sparecode_peer_clock_offset_seconds", "-0.5x40", peer="n2"),
    ),
    "SparecodeCertificateEnds": Case(fires=certificate(29), quiet=certificate(31)),
    "SparecodeCertificateEndsSoon": Case(
        fires=certificate(0.9), quiet=certificate(1.1)
    ),
    "SparecodeShedsLoad": Case(
        fires=on("sparecode_kdf_shed_total", "0+9x40", lane="authenticating"),
        quiet=on("sparecode_kdf_shed_total", "0+9x40", lane="issuing"),
    ),
    "SparecodeOutcomesUnknown": Case(
        fires=on("sparecode_proposal_seconds_count", "0+2x40", outcome="unknown"),
        quiet=on("sparecode_proposal_seconds_count", "0+9x40", outcome="applied"),
    ),
    "SparecodeGuessing": Case(
        # Three kinds of refusal, none of them frequent alone.
        fires={
            **refused("wrong_pin", 8),
            **refused("wrong_passcode", 8),
            **refused("locked", 8),
        },
        quiet=refused("wrong_pin", 8),
    ),
    "SparecodeBackupOld": Case(
        fires=on("sparecode_last_backup_timestamp_seconds", "0x40", "0x40"),
        quiet=on("sparecode_last_backup_timestamp_seconds", "0x40", "10800x40"),
        at="28h",
        every=HOUR,
    ),
    "SparecodeNotOpen": Case(
        fires=on("sparecode_open", WELL, "0x40"), quiet=on("sparecode_open", WELL, WELL)
    ),
    "SparecodeAdministratorReset": Case(
        fires=on("sparecode_administrator_resets_pending", "0x40", "1x40"),
        quiet=on("sparecode_administrator_resets_pending", "0x40", "0x40"),
    ),
    "SparecodeNoticesWait": Case(
        fires=on(
            "sparecode_notices_oldest_timestamp_seconds", "1x40", "1x40", channel="siem"
        ),
        quiet=on(
            "sparecode_notices_oldest_timestamp_seconds", "0x40", "1300x40", channel="s"
        ),
    ),
    "SparecodeNoticesGivenUp": Case(
        fires=on("sparecode_notices_dead", "0x40", "1x40", channel="siem"),
        quiet=on("sparecode_notices_dead", "0x40", "0x40", channel="siem"),
    ),
    "SparecodeChannelFails": Case(
        fires=channel(failed=1, delivered=0, waiting=4),
        # A channel that delivers in between.
        quiet=channel(failed=1, delivered=1, waiting=4),
        at="5h",
        every="10m",
    ),
    "SparecodeFileChannelFails": Case(
        fires=file_channel(failed=1, delivered=0),
        quiet={
            **file_channel(failed=1, delivered=1),
            **channel(failed=1, delivered=0, waiting=4),
        },
        at="2h",
        every="10m",
    ),
    "SparecodeNoticesDropped": Case(
        fires=dropped("_x33 1x7"),
        quiet=dropped("1x40"),
        at="6h",
        every="10m",
    ),
    "SparecodeUpgradeUnfinished": Case(
        fires={
            **on("sparecode_feature_level_known", "2x40", "1x40"),
            **on("sparecode_feature_level", "1x40", "1x40"),
        },
        quiet={
            **on("sparecode_feature_level_known", "2x40", "2x40"),
            **on("sparecode_feature_level", "2x40", "2x40"),
        },
        at="26h",
        every=HOUR,
    ),
}


def check_expressions(
    folder: Path,
    series: dict[str, str],
    expressions: dict[str, float],
    *,
    at: str = "30m",
    every: str = MINUTE,
) -> None:
    """Evaluate expressions over series with promtool, and compare the values."""
    calls = [
        {
            "expr": expression,
            "eval_time": at,
            "exp_samples": [{"labels": "{}", "value": value}],
        }
        for expression, value in expressions.items()
    ]
    input_series = [{"series": name, "values": each} for name, each in series.items()]
    file = folder / "case.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(ALERTS)],
                "evaluation_interval": every,
                "tests": [
                    {
                        "interval": every,
                        "input_series": input_series,
                        "promql_expr_test": calls,
                    }
                ],
            }
        )
    )
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def firing(alert: str) -> str:
    """Return 1 if the alert fires, else 0, as PromQL."""
    fires = f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})'
    return f"clamp_max({fires} or vector(0), 1)"


def test_every_alert_has_a_case():
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    assert sorted(CASES) == sorted(rule["alert"] for g in groups for rule in g["rules"])


@pytest.mark.parametrize("alert", CASES)
def test_alert_fires_on_its_condition_only(alert, tmp_path):
    case = CASES[alert]
    for series, expected in ((case.fires, 1), (case.quiet, 0)):
        check_expressions(
            tmp_path, series, {firing(alert): expected}, at=case.at, every=case.every
        )


def test_missing_values_of_all_nodes_mean_no_primary(tmp_path):
    """If all are down or cut off from monitoring, missing values fire the alert."""
    down = on("up", "0x40", "0x40", "0x40")
    check_expressions(tmp_path, down, {firing("SparecodeNoPrimary"): 1})


def test_dashboard_shows_both_kinds_of_broken_replica(tmp_path):
    panels = json.loads(DASHBOARD.read_text())["panels"]
    (panel,) = (each for each in panels if each["title"] == "Replica broken")
    (target,) = panel["targets"]
    audit, state = "sparecode_audit_head_mismatch", "sparecode_state_digest_mismatch"
    for audit_is, state_is, shown in ((0, 0, 0), (0, 1, 1), (1, 0, 1)):
        series = {
            **on(audit, "0x40", f"{audit_is}x40"),
            **on(state, "0x40", f"{state_is}x40"),
        }
        check_expressions(tmp_path, series, {target["expr"]: shown})


def test_dashboard_queries_are_valid_promql(tmp_path):
    """The test writes them as rules, because promtool does not read dashboards."""
    rules = [
        {"record": f"panel:{number}", "expr": each}
        for number, each in enumerate(dashboard_expressions())
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
