"""Output on a terminal: bold titles, coloured tables, a spinner, a bar. The only module that imports rich.

Control characters are escaped before text gets here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column, Table
from rich.text import Text

_UNBROKEN: Final = 24  # longer cells are wrapped if the terminal is too narrow
_GAP: Final = 2  # between two columns
_BAR: Final = 20
_MIN_TEXT: Final = 30  # columns for the text beside a bar
_STYLES: Final = {"ok": "green", "failed": "red", "locked": "yellow", "note": "yellow"}


def heading(text: str) -> None:
    """Print a bold title."""
    Console(highlight=False).print(Text(text, style="bold"), soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    """Print rows under their columns, numbers aligned to the right; one line per cell if a cell would be cut."""
    console = Console(highlight=False)
    widths = _widths([columns, *rows], console.width)
    if widths is None:
        _lines(console, columns, rows)
        return
    drawn = Table(box=None, header_style="bold", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column, right, width in zip(columns, numeric, widths, strict=True):
        drawn.add_column(column, justify="right" if right else "left", overflow="fold", width=width)
    for row in rows:
        drawn.add_row(*map(_styled, row))
    console.print(drawn)


def _widths(rows: Sequence[Sequence[str]], total: int) -> list[int] | None:
    """The width of each column; None if the table is too wide even with wrapped cells.

    The remaining width goes to the columns with longer cells, from left to right.
    """
    full = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    widths = [min(width, _UNBROKEN) for width in full]
    spare = total - sum(widths) - _GAP * (len(widths) - 1)
    if spare < 0:
        return None
    for place, width in enumerate(full):
        more = min(spare, width - widths[place])
        widths[place] += more
        spare -= more
    return widths


def _lines(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for number, row in enumerate(rows):
        if number:
            console.print()
        for column, cell in zip(columns, row, strict=True):
            console.print(Text.assemble(f"{column}: " if column else "", _styled(cell)), soft_wrap=True)


def _styled(cell: str) -> Text:
    return Text(cell, style=_STYLES.get(cell, ""))


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show a spinner on stderr meanwhile."""
    with Console(stderr=True).status(Text(what)):
        yield


class Drawn:
    """A bar on stderr with the text beside it, as wide as the terminal."""

    def __init__(self, what: str) -> None:
        console = Console(stderr=True)
        bar = [BarColumn(_BAR)] if console.width >= cell_len(what) + _BAR + _MIN_TEXT else []
        # One character between columns. The last one stays empty, because some terminals wrap when it is written.
        self._room = console.width - cell_len(what) - 2 - (_BAR + 1 if bar else 0)
        text = TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True))
        columns = (TextColumn("{task.description}", markup=False), *bar, text)
        self.bar = Progress(*columns, console=console, transient=True)
        self._task = self.bar.add_task(what, total=None, visible=False, text="")

    def show(self, done: int, total: int | None, facts: Sequence[str]) -> None:
        """Redraw it with as many of the facts as fit: a number is shown whole or not at all."""
        texts = [", ".join(facts[:count]) for count in range(len(facts), -1, -1)]
        text = next(text for text in texts if cell_len(text) <= max(0, self._room))
        self.bar.update(self._task, completed=done, total=total, text=text, visible=True)
