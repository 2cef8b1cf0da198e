"""The application on servers that fail."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pymongo.database import Database

from etl.app import App
from etl.demo import MongoServer
from etl.settings import Settings
from tests.support.apps import Apps
from tests.support.replica_set import ReplicaSet, start_replica_set
from tests.support.types import Document


@pytest.fixture
def apps(mongod: MongoServer, database: Database[Document], redis_url: str) -> Iterator[Apps]:
    """Make applications; they are closed when the test ends."""
    with ExitStack() as stack:

        def make(
            *,
            mongo: str = mongod.uri,
            redis: str = redis_url,
            patience: float = 10,
            timeout: float = 5,
            **rules: Any,
        ) -> App:
            settings = {
                # A failpoint, unlike a failover, does not wake the driver's monitor: it looks often.
                "mongo": {
                    "uri": f"{mongo}&heartbeatFrequencyMS=500",
                    "database": database.name,
                    "timeout_seconds": timeout,
                },
                "redis": {"url": redis, "timeout_seconds": timeout},
                "collections": [{"name": "promptContent", "page_size": 10, **rules}],
                "lease": {"seconds": 1},
                "retry": {"seconds": patience},
            }
            return stack.enter_context(App(Settings.model_validate(settings)))

        yield make


@pytest.fixture
def seed() -> int:
    """Of everything random in a test; `CHAOS_SEED` repeats it, as far as the machine's pace allows."""
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns())
    print(f"CHAOS_SEED={seed}")  # noqa: T201 (pytest shows it when the test fails)
    return seed


@pytest.fixture(scope="session")
def _replica_set() -> Iterator[ReplicaSet]:
    with start_replica_set() as replica_set:
        yield replica_set


@pytest.fixture
def replica_set(_replica_set: ReplicaSet) -> ReplicaSet:
    """Three members, shared by the tests that are run alone; those that a test has killed are started again."""
    for member in _replica_set.members:
        if not member.is_running:
            member.start()
    _replica_set.wait_until_healthy()
    return _replica_set
