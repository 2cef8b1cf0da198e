"""The alert rules fire when they should, and only then: promtool runs their unit tests."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.tools import program

ROOT = Path(__file__).parents[2]
UNIT_TESTS = ROOT / "tests" / "data" / "alerts_test.yml"


def promtool(*arguments: str | Path, given: str = "") -> str:
    """What promtool answers; it must accept what it is given."""
    command = [program("promtool"), *arguments]
    done = subprocess.run(command, input=given, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_each_rule_fires_when_it_should() -> None:
    """In made-up situations: outages, restarts, quiet spells, several daemons."""
    promtool("test", "rules", UNIT_TESTS)


def test_each_rule_is_seen_firing_and_silent() -> None:
    """No rule is without a unit test, and none of them only says what does not happen."""
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
    """Rules and scrape file."""
    kind, name = arguments
    promtool("check", kind, ROOT / "config" / name)
