"""How far a long run is: a bar on a terminal, a line every few seconds elsewhere; on stderr."""

import time
from types import TracebackType
from typing import Final, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from etl.plain import plain
from etl.report import Report

_QUIET_SECONDS: Final = 2.0
"""What takes no longer needs no progress."""

_BETWEEN_LINES_SECONDS: Final = 5.0


class Bar:
    """Documents, documents a second, what is left, dead letters; `total` is None where nobody knows."""

    def __init__(self, what: str, total: int | None) -> None:
        self._what = plain(what)
        self._total = total
        self._began = time.monotonic()
        self._told = self._began + _QUIET_SECONDS - _BETWEEN_LINES_SECONDS
        self._pages = 0
        self._progress = _progress()
        self._task = self._progress.add_task(self._what, total=total, rate="", pages=0, dead=0)

    def __enter__(self) -> Self:
        if self._progress.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress.console.is_terminal:  # elsewhere it would end a line that nobody began
            self._progress.stop()

    def tell(self, report: Report) -> None:
        """Show how far it is."""
        self._pages += 1
        done = report.records_processed + report.dead_lettered
        rate = done / max(time.monotonic() - self._began, 1e-9)
        self._progress.update(
            self._task, completed=done, rate=f"{rate:,.0f}/s", pages=self._pages, dead=report.dead_lettered
        )
        if not self._progress.console.is_terminal:
            self._line(done, rate, report)

    def _line(self, done: int, rate: float, report: Report) -> None:
        now = time.monotonic()
        if now - self._told < _BETWEEN_LINES_SECONDS:
            return
        self._told = now
        left = f", {max(0, self._total - done) / rate:,.0f} s left" if self._total and rate else ""
        counts = f"{done:,} documents, {rate:,.0f}/s{left}, {report.dead_lettered} dead letters"
        click.echo(f"{self._what}: {counts}, up to {report.last_timestamp}", err=True)


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,} documents, {task.fields[rate]}, {task.fields[pages]} pages,"),
        TextColumn("{task.fields[dead]} dead letters, left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
