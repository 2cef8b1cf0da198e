"""The application on servers that fail."""

from collections.abc import Mapping
from typing import Any

import pytest

from etl.app import App
from etl.demo import MongoServer
from tests.support.pipeline import NO_SETTINGS, OpenApp


@pytest.fixture
def open_app(open_app: OpenApp, mongod: MongoServer) -> OpenApp:
    """Open an application with short times and small pages."""

    def opened(*, mongo: str = mongod.uri, settings: Mapping[str, Any] = NO_SETTINGS, **more: Any) -> App:
        # A failpoint, unlike a failover, does not wake the driver's monitor: it looks often.
        frequent = f"{mongo}&heartbeatFrequencyMS=500"
        short: dict[str, Any] = {"patience": 10, "timeout": 5, "page_size": 10}
        return open_app(mongo=frequent, settings={"lease": {"seconds": 1}} | {**settings}, **short | more)

    return opened
