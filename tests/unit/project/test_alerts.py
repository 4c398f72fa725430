"""Every alert fires when it should and not otherwise (promtool), says what to do, and has its runbook."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.e2e.queries import ALERTS, RECORDING, ROOT, Rule, rules, selectors

PROMETHEUS = ROOT / "prometheus"
RUNBOOKS = ROOT / "docs/runbooks"
RUNBOOK_BASE = "https://example.org/bpf-exporter/runbooks/"

each_alert = pytest.mark.parametrize("alert", rules(ALERTS), ids=lambda alert: str(alert.name))


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=PROMETHEUS, capture_output=True, text=True)


def test_promtool_accepts_the_example_configuration_and_its_rules() -> None:
    checked = promtool("check", "config", "prometheus.example.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_promtool_tests_of_the_rules_pass() -> None:
    tested = promtool("test", "rules", "alerts_test.yaml")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@each_alert
def test_alert_is_tested_both_ways(alert: Rule) -> None:
    document = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())
    cases = [
        bool(case["exp_alerts"])
        for test in document["tests"]
        for case in test["alert_rule_test"]
        if case["alertname"] == alert.name
    ]
    assert set(cases) == {True, False}


@each_alert
def test_alert_says_what_it_means(alert: Rule) -> None:
    annotations = alert.source["annotations"]
    assert alert.source["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "$labels.instance" in annotations["summary"]
    assert annotations["summary"].endswith(".")
    assert annotations["description"].endswith(".")


@each_alert
def test_alert_has_its_runbook(alert: Rule) -> None:
    assert alert.source["annotations"]["runbook_url"] == f"{RUNBOOK_BASE}{alert.name}.md"
    text = (RUNBOOKS / f"{alert.name}.md").read_text()
    assert re.findall(r"^#+ .*$", text, re.MULTILINE) == [
        f"# {alert.name}",
        "## Meaning",
        "## Impact",
        "## Diagnosis",
        "## Mitigation",
    ]


def test_no_runbook_without_its_alert() -> None:
    assert {book.stem for book in RUNBOOKS.glob("*.md")} == {alert.name for alert in rules(ALERTS)}


def test_alerts_use_every_recorded_series_and_no_other() -> None:
    recorded = {rule.name for rule in rules(RECORDING)}
    used = {s for alert in rules(ALERTS) for s in selectors(alert.expr) if ":" in s.split("{")[0]}
    assert used == recorded


def test_selectors_are_found_in_every_kind_of_expression() -> None:
    expr = """histogram_quantile(0.9, sum by (job, le) (rate(a_bucket{role="client"}[5m])))
      unless x:y:rate5m <= 4 * quantile_over_time(0.5, x:y:rate5m[1d] offset 1h) and up == 0"""
    assert selectors(expr) == ['a_bucket{role="client"}', "x:y:rate5m", "up"]
