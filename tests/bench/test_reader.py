"""The latency of a reader, the slow log, and the priority of Redis."""

import os
import threading

import pytest

from bench.reader import RATE, read, summary
from bench.servers import Bench, prioritise


def test_pause_of_redis_delays_every_read_that_was_due(bench: Bench) -> None:
    """Not only the one that had been sent."""
    done = threading.Event()
    threading.Timer(0.3, lambda: bench.redis.client_pause(400)).start()
    threading.Timer(1.5, done.set).start()

    taken = read(bench.redis, ["ai:campaign_messages:a:b", "ai:generation:meta:a:b"], done)

    assert summary(taken)["read_max_ms"] > 350
    assert sum(ms > 100 for ms in taken) > 0.2 * RATE
    assert summary(taken)["read_p50_ms"] <= summary(taken)["read_p99_ms"] <= summary(taken)["read_max_ms"]


def test_slow_log_has_the_commands_since_the_last_flush(bench: Bench) -> None:
    """In milliseconds."""
    bench.redis.config_set("slowlog-log-slower-than", 10_000)
    bench.redis.eval("local n = 0 for i = 1, 2e7 do n = n + i end return 1", 0)

    assert max(bench.slow_log()) > 10
    bench.flush()
    assert max(bench.slow_log(), default=0) < 10


def test_redis_has_priority_during_the_block_if_permitted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards it has normal priority. Without permission the context manager returns False."""
    with bench.prioritised() as allowed:
        assert os.sched_getscheduler(bench.server.pid) == (os.SCHED_RR if allowed else os.SCHED_OTHER)
    assert os.sched_getscheduler(bench.server.pid) == os.SCHED_OTHER

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert not prioritise(bench.server.pid)
    with bench.prioritised() as allowed:
        assert not allowed
