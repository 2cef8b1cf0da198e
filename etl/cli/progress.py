"""Progress of long commands on stderr: a bar on a terminal, a line every few seconds in a pipe."""

import sys
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import click

from etl.model.report import Report
from etl.text import counted, printable

if TYPE_CHECKING:
    from etl.cli.terminal import Drawn

DELAY_SECONDS: Final = 2.0
"""Commands that end within this time show no progress."""

_LINE_SECONDS: Final = 5.0

Show = Callable[[int, int | None, Sequence[str]], None]
"""Shows the number done, the total, and facts as text, the most important first."""


class Bar:
    """Documents, documents per second, remaining time; for runs also pages and dead letters.

    `total` is None if it is unknown, or given with `count`.
    """

    def __init__(self, what: str, total: int | None = None) -> None:
        self._drawn = _drawn(printable(what)) if sys.stderr.isatty() else None
        self._show: Show = self._drawn.show if self._drawn else _Lines(printable(what)).show
        self._total = total
        self._began = time.monotonic()
        self._pages = 0
        self._reports: dict[str, Report] = {}

    def __enter__(self) -> Self:
        if self._drawn:
            self._drawn.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._drawn.bar.stop()

    def count(self, done: int, total: int) -> None:
        """Show the documents done and the approximate total."""
        self._update(done, max(done, total), ())

    def update(self, report: Report) -> None:
        """Show a run after another page; earlier runs of the command are added."""
        self._pages += 1
        self._reports[report.collection] = report
        dead = sum(one.dead_lettered for one in self._reports.values())
        done = sum(one.records_processed for one in self._reports.values()) + dead
        before = sum(one.before for one in self._reports.values())
        notes = [counted(self._pages, "page"), counted(dead, "dead letter")]
        if report.last_timestamp:
            notes.append(f"up to {report.last_timestamp}")
        self._update(done, self._total, notes, before)

    def _update(self, done: int, total: int | None, notes: Sequence[str], before: int = 0) -> None:
        seconds = time.monotonic() - self._began
        if seconds < DELAY_SECONDS or not done:
            return
        rate, done = done / seconds, before + done
        left = [] if total is None else [f"{timedelta(seconds=round(max(0, total - done) / rate))} left"]
        read = counted(done, "document") if total is None else f"{done:,} of {total:,} documents"
        self._show(done, total, [read, f"{rate:,.0f}/s", *left, *notes])


def _drawn(what: str) -> "Drawn":
    from etl.cli.terminal import Drawn  # noqa: PLC0415 (rich loads slowly, and a pipe does not need it)

    return Drawn(what)


class _Lines:
    """A line every few seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._next = 0.0

    def show(self, _done: int, _total: int | None, facts: Sequence[str]) -> None:
        """Print a line if the last one is old enough."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _LINE_SECONDS
            click.echo(f"{self._what}: {', '.join(facts)}", err=True)
