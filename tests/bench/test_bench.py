"""`python -m bench --quick` from end to end.

With LONG_RUNS=1 also what differs only in documents and clients, and a second size: `make soak`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.contenders import BEFORE, INSERTION, ONE, SCRIPT, TWO
from bench.documents import LARGE, MAPPED, PLAIN, SHARED
from bench.follow import FOLLOW, RATES, WATCH
from bench.main import QUICK
from bench.topology import CLUSTER, SINGLE

LONG = bool(os.environ.get("LONG_RUNS"))
PARTS = () if LONG else ("speed", "topology", "sizes", "follow")
SIZES = QUICK.sizes if LONG else QUICK.sizes[:1]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("mongod", "redis_server"),
]  # skipped where there are none


def check_speed(figures: Any) -> None:
    """Every contender, and the previous version if its commit is available."""
    speed = {name: found["median"] for name, found in figures["speed"].items()}

    assert [name for name in speed if name != BEFORE] == [INSERTION, SCRIPT, ONE, TWO]
    assert speed[INSERTION]["documents_per_second"] > speed[TWO]["documents_per_second"] > 0
    assert all(run["cpu_redis"] > 0 and run["pss_mb"] > 10 for run in speed.values())
    assert speed[TWO]["own_documents_per_second"] > speed[TWO]["documents_per_second"]
    assert 0 < speed[TWO]["worker_pss_mb"] < speed[TWO]["pss_mb"] / 2
    assert speed[SCRIPT]["worker_pss_mb"] == speed[SCRIPT]["cpu_workers"] == 0
    assert speed[ONE]["start_seconds"] > 0


def check_readers(figures: Any) -> None:
    """Latencies of a reader, and the slow log of Redis."""
    readers = {name: found["median"] for name, found in figures["readers"].items()}

    assert [name for name in readers if name != BEFORE] == [INSERTION, SCRIPT, TWO]
    assert all(0 < run["read_p50_ms"] < run["read_p99_ms"] <= run["read_max_ms"] for run in readers.values())
    assert readers[TWO]["slowest_ms"] > 0.2


def check_shapes(figures: Any) -> None:
    """Plain, large, shared and mapped."""
    names = {PLAIN.name, LARGE.name, SHARED.name, MAPPED.name}
    assert names <= figures["shapes"].keys()
    assert all(figures["shapes"][name]["median"]["documents_per_second"] > 0 for name in names)


def check_topology(figures: Any) -> None:
    """A single server and a cluster, whose primaries are added up."""
    assert [*figures["topology"]] == [SINGLE, CLUSTER]
    assert all(found["median"]["cpu_redis"] > 0 for found in figures["topology"].values())


def check_sizes(figures: Any) -> None:
    """A cycle examines changed documents only."""
    for size in figures["sizes"]:
        [idle, busy] = size["cycles"]
        assert (idle["changed"], busy["changed"]) == (0, 156)
        assert idle["documents_examined"] <= 2
        assert 156 <= busy["documents_examined"] <= 158
        assert 0 < busy["commands"] < 10
    assert [size["documents"] for size in figures["sizes"]] == [*SIZES]


def check_follow(figures: Any) -> None:
    """A follower and a bare watch loop, at each rate."""
    for run in (found["median"] for found in figures["follow"].values()):
        for what in (*RATES, "deletes"):
            assert 0 <= run[f"{what}_p50_ms"] <= run[f"{what}_p99_ms"] <= run[f"{what}_max_ms"]
    assert [*figures["follow"]] == [WATCH, FOLLOW]


def test_quick_run_measures_each_part(tmp_path: Path) -> None:
    """One test, so that the benchmark runs once."""
    chosen = [*(("--only", part) for part in PARTS), *(("--size", str(size)) for size in SIZES)]
    options = (word for option in chosen for word in option)
    command = [sys.executable, "-m", "bench", "--quick", *options, "--out", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert ended.returncode == 0, ended.stderr
    assert "Targets" in ended.stdout
    figures = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    check_speed(figures)
    if LONG:
        check_readers(figures)
        check_shapes(figures)
    check_topology(figures)
    check_sizes(figures)
    check_follow(figures)
    assert "<svg" in (tmp_path / "bench.svg").read_text("utf-8")
