"""What a person at a terminal sees: bold titles, coloured tables, a spinner, a bar. Alone imports rich.

Every text is plain already: nothing in it can steer the terminal.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

_UNBROKEN: Final = 24  # a terminal too narrow for a table breaks longer cells than this first
_STYLES: Final = {"ok": "green", "failed": "red", "locked": "yellow", "note": "yellow"}


def heading(text: str) -> None:
    """The title of what follows, bold."""
    Console(highlight=False).print(Text(text, style="bold"), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    """Rows under their columns; numbers to the right."""
    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for place, (column, right) in enumerate(zip(columns, numeric, strict=True)):
        short = all(len(row[place]) <= _UNBROKEN for row in rows)
        drawn.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=short)
    for row in rows:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(highlight=False).print(drawn)


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """It turns on stderr while something takes its time."""
    with Console(stderr=True).status(Text(what)):
        yield


class Drawn:
    """A bar on stderr with the text beside it, as wide as the terminal."""

    def __init__(self, what: str) -> None:
        text = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True))
        columns = (TextColumn("{task.description}", markup=False), BarColumn(20), text)
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self.bar.add_task(what, total=None, visible=False, text="")

    def show(self, done: int, total: int | None, text: str) -> None:
        """Draw it anew."""
        self.bar.update(self._task, completed=done, total=total, text=text, visible=True)
