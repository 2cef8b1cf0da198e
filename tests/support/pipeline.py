"""The application on the databases of one test, with a clock that the test sets."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Protocol

import pytest

from etl.app import App
from etl.cache.keys import state_keys
from etl.model.report import Report
from etl.mongo.reader import MongoReader
from etl.settings import Settings

NAME = "promptContent"
STATE_PREFIX = state_keys(NAME).checkpoint.removesuffix("checkpoint")
"""The prefix of the state keys."""

NO_SETTINGS: Mapping[str, Any] = MappingProxyType({})
LEASE = state_keys(NAME).lease


class OpenApp(Protocol):
    """Opens an application in this process, which is closed at the end of the test at the latest."""

    def __call__(
        self,
        *,
        mongo: str = ...,
        database: str = ...,
        redis: str = ...,
        patience: float = ...,
        timeout: float = ...,
        settings: Mapping[str, Any] = ...,
        **collection: Any,
    ) -> App:
        """Open an application on the servers and databases of the test, or on others.

        `patience` is the time for retries in seconds, `timeout` that for an answer.
        `settings` are other settings, `collection` those of its one collection.
        """
        ...


class Clock:
    """The clock of MongoDB as the application sees it: the real one with an offset."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._ahead = timedelta()
        real = MongoReader.clock
        patch.setattr(
            MongoReader, "clock", lambda source: real(source) + self._ahead // timedelta(milliseconds=1)
        )

    def forward(self, seconds: float) -> None:
        """Let time pass; negative to set the clock back."""
        self._ahead += timedelta(seconds=seconds)

    def now(self) -> datetime:
        """The present, to the millisecond."""
        return _to_ms(datetime.now(UTC) + self._ahead)

    def ago(self, seconds: float) -> datetime:
        """The time `seconds` ago; negative for the future."""
        return self.now() - timedelta(seconds=seconds)


def _to_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def settings_for(
    mongo: str,
    database: str,
    redis: str,
    patience: float = 5,
    timeout: float = 10,
    settings: Mapping[str, Any] = NO_SETTINGS,
    **collection: Any,
) -> Settings:
    """Settings of one collection on these servers: see `OpenApp`."""
    sections: dict[str, Any] = {
        "mongo": {"uri": mongo, "database": database, "timeout_seconds": timeout},
        "redis": {"url": redis, "timeout_seconds": timeout},
        "collections": [{"name": NAME} | collection],
        "retry": {"seconds": patience},
    }
    return Settings.model_validate(sections | {**settings})


def sync(app: App) -> Report:
    """Run a successful cycle."""
    [report] = app.sync()
    assert (report.status, report.error) == ("ok", None), report.error
    return report


def cycle(app: App) -> Report:
    """Run a cycle of the only collection.

    A disconnected holder may have left its lease behind: then wait until it has expired.
    """
    deadline = time.monotonic() + 5
    while True:
        [report] = app.sync()
        if report.status != "locked" or time.monotonic() > deadline:
            return report
        time.sleep(0.05)
