"""Backfills of old documents, page by page."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from etl.app import App, BackfillOrder
from etl.model.report import Report
from tests.factories import api
from tests.support.pipeline import NAME
from tests.support.types import Document

LONG_AGO = datetime(2025, 1, 15, tzinfo=UTC)

Step = Callable[[], object]


def run(
    app: App, order: BackfillOrder | None = None, on_progress: Callable[[Report], None] = lambda _: None
) -> Report:
    """Run a backfill and return its report."""
    return app.backfill(NAME, order or BackfillOrder(), on_progress)


def backfill(app: App, **order: Any) -> Report:
    """Run a successful backfill."""
    report = run(app, BackfillOrder(**order))
    assert (report.status, report.error) == ("ok", None)
    return report


def on_page(number: int, step: Step) -> Callable[[Report], None]:
    """A progress callback that calls `step` once `number` pages have been applied."""
    pages = iter([lambda: None] * (number - 1) + [step])

    def on_progress(_: Report) -> None:
        next(pages, lambda: None)()

    return on_progress


def dated(count: int, moment: datetime = LONG_AGO) -> list[Document]:
    """Providers a second apart, the first at `moment`."""
    return [api(f"p{n}", moment + timedelta(seconds=n), _id=n) for n in range(count)]
