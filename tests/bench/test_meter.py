"""What is said of memory and time is what a command and its descendants took."""

import os
import sys

import pytest

from bench.meter import OURS, Failed, Meter

CHILD = "import time; memory = bytearray(b'x') * 60_000_000; time.sleep(1.2)"
PARENT = f"""
import json, subprocess, sys
memory = bytearray(b'x') * 60_000_000
subprocess.run([sys.executable, '-c', {CHILD!r}], check=True)
print(json.dumps(dict(done=True)))
"""
BUSY = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def test_memory_is_that_of_all_processes_together() -> None:
    """A parent and its child with 60 MB each are more than 120 MB, and two processes."""
    measured = Meter({}).run([sys.executable, "-c", PARENT])

    assert measured.answer == {"done": True}
    assert measured.memory.processes == 2
    assert 120 < measured.memory.pss_mb <= measured.memory.rss_mb < 180
    assert 1.2 < measured.wall_seconds < 10


def test_time_is_that_of_descendants_too() -> None:
    """What a child used is in the time of the command; a server that did nothing has used nothing."""
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}]); print(0)"

    used = Meter({"server": os.getppid()}).run([sys.executable, "-c", code]).cpu_seconds

    assert 0.3 < used[OURS] < 3
    assert used["server"] < 0.3


def test_time_is_that_of_children_nobody_waits_for_too() -> None:
    """A process that is forked and outlives its parent by a moment has used what it was seen to use."""
    busy = BUSY.replace("0.3", "1.5")
    start = f"child = subprocess.Popen([sys.executable, '-c', {busy!r}], stdout=subprocess.DEVNULL)"
    code = f"import os, subprocess, sys, time; {start}; time.sleep(1.5); print(0, flush=True); os._exit(0)"

    assert 0.5 < Meter({}).run([sys.executable, "-c", code]).cpu_seconds[OURS] < 5


def test_a_command_that_fails_is_no_measurement() -> None:
    """Its last words are in the error."""
    with pytest.raises(Failed, match=r"ended with 1: .*boom"):
        Meter({}).run([sys.executable, "-c", "raise SystemExit('boom')"])


def test_the_settings_of_the_developer_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the variables that are given."""
    monkeypatch.setenv("ETL_SCHEDULE__CYCLE_SECONDS", "7")
    code = "import json, os; print(json.dumps({n: v for n, v in os.environ.items() if n.startswith('ETL')}))"

    assert Meter({}).run([sys.executable, "-c", code], {"ETL_X": "1"}).answer == {"ETL_X": "1"}
