"""How far a long command is, on stderr: a bar on a terminal, a line now and then in a pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from etl.plain import plain

PATIENCE_SECONDS: Final = 2.0
"""What ends sooner shows no progress."""

_LINE_SECONDS: Final = 5.0

Tell = Callable[[int, int], None]
"""Told how many are done, and how many there are about."""


@contextmanager
def progress(what: str) -> Iterator[Tell]:
    """The progress of something that is counted, with its rate and how long it still takes."""
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console) as bar:
            yield _Bar(bar, plain(what)).tell
    else:
        yield _Lines(what).tell


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        """The speed so far."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s")


def _bar(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


class _Bar:
    """Appears only once the patience of a person is over."""

    def __init__(self, bar: Progress, what: str) -> None:
        self._bar = bar
        self._task = bar.add_task(what, total=None, visible=False)
        self._began = time.monotonic()

    def tell(self, done: int, total: int) -> None:
        """So many are done of about so many."""
        late = time.monotonic() - self._began > PATIENCE_SECONDS
        self._bar.update(self._task, completed=done, total=max(done, total), visible=late)


class _Lines:
    """A line after the patience of a person, and then every few seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._began = time.monotonic()
        self._next = self._began + PATIENCE_SECONDS

    def tell(self, done: int, total: int) -> None:
        """So many are done of about so many."""
        now = time.monotonic()
        if now < self._next or not done:
            return
        self._next = now + _LINE_SECONDS
        rate = done / (now - self._began)
        left = max(0, total - done) / rate
        click.echo(f"{plain(self._what)}: {done} of {total}, {rate:.0f}/s, {left:.0f} s left", err=True)
