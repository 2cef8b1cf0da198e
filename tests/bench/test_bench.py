"""`python -m bench` from end to end, with so few documents that its figures mean little."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.contenders import BACKFILL_ALL, BACKFILL_ONE, INSERTION, SCAN, SCRIPT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("mongod", "redis_server"),
]  # skipped where there are none


def bench(*options: str) -> Any:
    """What the command prints as JSON."""
    command = [sys.executable, "-m", "bench", "--rounds", "1", "--json", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_speed(tmp_path: Path) -> None:
    """Every contender is measured, and the results are left in a folder too."""
    printed = bench("--only", "speed", "--documents", "400", "--out", str(tmp_path))

    rows = {row["name"]: row for row in printed["speed"]}
    assert rows.keys() >= {INSERTION, SCAN, SCRIPT, BACKFILL_ONE, BACKFILL_ALL}
    assert all(row["documents_per_second"]["min"] > 0 for row in rows.values())
    assert rows[INSERTION]["cpu_seconds"].keys() == {"ours", "mongod", "redis-server"}
    assert rows[BACKFILL_ALL]["own_seconds"][0] < rows[BACKFILL_ALL]["wall_seconds"][0]
    assert json.loads((tmp_path / "bench.json").read_text("utf-8")) == printed
    assert (tmp_path / "bench.svg").read_text("utf-8").startswith("<svg")


def test_delta() -> None:
    """A cycle examines what changed, whatever else there is."""
    printed = bench("--only", "delta", "--size", "200", "--cycles", "1")

    [idle, busy] = printed["delta"][0]["cycles"]
    assert (idle["changed"], busy["changed"]) == (0, 156)
    assert idle["documents_examined"] <= 1
    assert 156 <= busy["documents_examined"] <= 157
    assert idle["commands"] > 0
