"""The application on the databases of one test, with its clock in the test's hands, and documents for it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from etl.app import App
from etl.cache.keys import state_keys
from etl.model.report import Report
from etl.mongo.reader import Source
from etl.settings import Settings

NAME = "promptContent"
STATE_PREFIX = state_keys(NAME).checkpoint.removesuffix("checkpoint")
"""What the names of the ETL's own keys start with."""

OpenApp = Callable[..., App]
"""Opens the application; keyword arguments are settings of its one collection."""


class Clock:
    """MongoDB's clock as the application sees it: the real one, moved."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._ahead = timedelta()
        real = Source.clock
        patch.setattr(Source, "clock", lambda source: real(source) + self._ahead // timedelta(milliseconds=1))

    def forward(self, seconds: float) -> None:
        """Let time pass; negative to set the clock back."""
        self._ahead += timedelta(seconds=seconds)

    def now(self) -> datetime:
        """The present, to the millisecond."""
        return _to_ms(datetime.now(UTC) + self._ahead)

    def ago(self, seconds: float) -> datetime:
        """So long before the present; negative for the future."""
        return self.now() - timedelta(seconds=seconds)


def _to_ms(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def settings_for(uri: str, database: str, url: str, **collection: Any) -> Settings:
    """Settings of one collection on these servers; patience and lease are short, as tests are."""
    return Settings.model_validate(
        {
            "mongo": {"uri": uri, "database": database},
            "redis": {"url": url},
            "collections": [{"name": NAME} | collection],
            "retry": {"seconds": 5},
        }
    )


def sync(app: App) -> Report:
    """One cycle that went well."""
    [report] = app.sync()
    assert (report.status, report.error) == ("ok", None), report.error
    return report
