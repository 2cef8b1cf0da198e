"""The application on servers that fail."""

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from etl.app import App
from etl.demo import MongoServer
from tests.support.pipeline import NO_SETTINGS, OpenApp
from tests.support.replica_set import ReplicaSet, start_replica_set


@pytest.fixture
def open_app(open_app: OpenApp, mongod: MongoServer) -> OpenApp:
    """Open an application with short timeouts and small pages."""

    def opened(*, mongo: str = mongod.uri, settings: Mapping[str, Any] = NO_SETTINGS, **more: Any) -> App:
        # A failpoint, unlike a failover, does not wake the monitor of the driver, so it checks often.
        frequent = f"{mongo}&heartbeatFrequencyMS=500"
        short: dict[str, Any] = {"patience": 10, "timeout": 5, "page_size": 10}
        return open_app(mongo=frequent, settings={"lease": {"seconds": 1}} | {**settings}, **short | more)

    return opened


@pytest.fixture
def seed() -> int:
    """The seed of a test; `CHAOS_SEED` repeats a run, as far as timing allows."""
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns())
    print(f"CHAOS_SEED={seed}")  # noqa: T201 (pytest shows it when the test fails)
    return seed


@pytest.fixture(scope="session")
def _replica_set() -> Iterator[ReplicaSet]:
    with start_replica_set() as replica_set:
        yield replica_set


@pytest.fixture
def replica_set(_replica_set: ReplicaSet) -> ReplicaSet:
    """Three members, shared by tests that run alone; killed members are started again."""
    for member in _replica_set.members:
        if not member.is_running:
            member.start()
    _replica_set.wait_until_healthy()
    return _replica_set
