"""The application on servers that fail."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from pymongo.database import Database

from etl.app import App
from etl.demo import MongoServer
from etl.settings import Settings
from tests.support.apps import Apps
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
