"""Alert rules and the dashboard: promtool's own tests of them, and every metric that they name is exported by somebody."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from tests.operate.scraping import fetch, sample_names

DOCS = Path(__file__).resolve().parents[2] / "docs"
RULES = DOCS / "prometheus/chatd-alerts.yml"
DASHBOARD = DOCS / "grafana/chatd.json"
_METRIC = re.compile(r"\b((?:chatd|process)_[a-z_]+)\b")
_ALERT = re.compile(r"- alert: (\w+)$", re.MULTILINE)
_EXPR = re.compile(r"expr: (?:\|\n)?(.*(?:\n {10}.*)*)")


def promtool(*words: str) -> str:
    found = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("no promtool: it is in Debian's package prometheus; `make alerts-test` gets it")
    ran = subprocess.run(
        [found, *words], cwd=DOCS / "prometheus", capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def queries() -> list[str]:
    """Of the rules and of the dashboard."""
    found: list[str] = _EXPR.findall(RULES.read_text(encoding="utf-8"))
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        found += [target["expr"] for target in panel.get("targets", [])]
    return found


def test_the_rules_are_valid_and_fire_when_they_should_and_only_then() -> None:
    assert "15 rules found" in promtool("check", "rules", RULES.name)
    promtool("check", "config", "prometheus-example.yml")
    promtool("test", "rules", "chatd-alerts-test.yml")


def test_every_alert_has_a_test_and_a_section_that_says_what_to_do() -> None:
    alerts = _ALERT.findall(RULES.read_text(encoding="utf-8"))
    tests = (DOCS / "prometheus/chatd-alerts-test.yml").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\w+)$", (DOCS / "alerts.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert alerts == sections
    assert [name for name in alerts if f"alertname: {name}\n" not in tests] == []
    runbooks = re.findall(r"runbook: docs/alerts.md#(\w+)", RULES.read_text(encoding="utf-8"))
    assert runbooks == [name.lower() for name in alerts]


def test_every_metric_that_a_rule_or_the_dashboard_names_is_exported(cluster: Cluster, tmp_path: Path) -> None:
    exported = {"up"}
    for daemon in (cluster.nodes[0], cluster.brokers[0]):
        exported |= sample_names(fetch(daemon.http_port, "/metrics").text)
    with_canary = Chatd(tmp_path / "chatd", env={"CHATD_CANARY_EVERY_S": "1"})
    with_canary.start()
    try:
        exported |= sample_names(fetch(with_canary.http_port, "/metrics").text)
    finally:
        with_canary.stop()
    named = {name for query in queries() for name in _METRIC.findall(query)}
    assert len(named) > 25
    assert named - exported == set()


def test_promtool_finds_nothing_wrong_with_what_both_daemons_export(cluster: Cluster) -> None:
    promtool("--version")
    found = shutil.which("promtool") or str(Path(sys.executable).parent / "promtool")
    for daemon in (cluster.nodes[0], cluster.brokers[0]):
        text = fetch(daemon.http_port, "/metrics", "text/plain").text
        ran = subprocess.run(
            [found, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode in (0, 3), ran.stderr  # 3: advice about names
