"""Memory and CPU time include the descendants of a command."""

import os
import sys

import pytest

from bench.meter import Failed, Meter

GRANDCHILD = "import time; memory = bytearray(b'x') * 60_000_000; time.sleep(1.5)"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {GRANDCHILD!r}])"
PARENT = f"""
import json, subprocess, sys
memory = bytearray(b'x') * 90_000_000
subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)
print(json.dumps(dict(done=True)))
"""
BUSY = "import time; end = time.process_time() + 1\nwhile time.process_time() < end: pass"


def test_memory_includes_descendants() -> None:
    """A process with 90 MB and a grandchild with 60 MB."""
    measured = Meter({}).run([sys.executable, "-c", PARENT])

    assert measured.answer == {"done": True}
    assert 150 < measured.pss_mb < 210
    assert 60 < measured.worker_pss_mb < 80
    assert measured.seconds > 1.5


def test_cpu_time_is_measured_by_process() -> None:
    """A busy coordinator, its busy child, an idle server."""
    code = f"{BUSY}\nimport subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}]); print(0)"

    used = Meter({"server": os.getppid()}).run([sys.executable, "-c", code]).cpu_seconds

    assert 1 <= used["coordinator"] < 1.5
    assert 1 <= used["workers"] < 1.5
    assert used["server"] < 0.5


def test_cpu_time_includes_children_that_outlive_the_command() -> None:
    start = f"child = subprocess.Popen([sys.executable, '-c', {BUSY!r}], stdout=subprocess.DEVNULL)"
    code = f"import os, subprocess, sys, time; {start}; time.sleep(1.5); print(0, flush=True); os._exit(0)"

    assert 0.1 < Meter({}).run([sys.executable, "-c", code]).cpu_seconds["workers"] < 1.5


def test_failed_command_is_no_measurement() -> None:
    """The error has its stderr."""
    with pytest.raises(Failed, match=r"ended with 1: .*boom"):
        Meter({}).run([sys.executable, "-c", "raise SystemExit('boom')"])


def test_command_does_not_inherit_the_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the variables of the contender are set."""
    monkeypatch.setenv("ETL_SCHEDULE__CYCLE_SECONDS", "7")
    code = "import json, os; print(json.dumps({n: v for n, v in os.environ.items() if n.startswith('ETL')}))"

    assert Meter({}).run([sys.executable, "-c", code], {"ETL_X": "1"}).answer == {"ETL_X": "1"}
