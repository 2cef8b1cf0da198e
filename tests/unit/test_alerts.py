"""Unit tests of the alert rules, run by promtool."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import program

ROOT = Path(__file__).parents[2]
UNIT_TESTS = ROOT / "tests" / "data" / "alerts_test.yml"


def promtool(*arguments: str | Path, given: str = "") -> str:
    """Run promtool, which must succeed, and return its output."""
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, input=given, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_rules_fire_in_outages_only() -> None:
    """Simulated outages, restarts, quiet times, several daemons."""
    promtool("test", "rules", UNIT_TESTS)


def test_each_rule_has_a_test_that_fires_and_one_that_does_not() -> None:
    rules = yaml.safe_load((ROOT / "config" / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    checks: list[dict[str, Any]] = [
        check
        for test in yaml.safe_load(UNIT_TESTS.read_text("utf-8"))["tests"]
        for check in test["alert_rule_test"]
    ]
    for fires in (True, False):
        seen = {check["alertname"] for check in checks if bool(check.get("exp_alerts")) == fires}
        assert seen == {rule["alert"] for rule in rules}


@pytest.mark.parametrize("arguments", [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_prometheus_accepts_the_files(arguments: tuple[str, str]) -> None:
    kind, name = arguments
    promtool("check", kind, ROOT / "config" / name)
