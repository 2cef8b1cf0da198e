"""Output on terminals of any width: a cell is whole or wrapped, never cut."""

import io
import re
import sys
import time
from collections.abc import Callable

import pytest

from etl.cli import output
from etl.cli.progress import Bar
from etl.model.report import Report

WIDTHS = (*range(10, 140, 5), 36, 60)

HISTORY = ("began", "status", "mode", "records", "ms", "error")
ROW = ("2025-01-15T10:30:00.000Z", "ok", "delta", 1_234_567, 7_654_321, "")
FAILED = (
    *ROW[:3],
    12,
    1_234_567_890,
    "MongoDB at db-7.internal:27017 does not answer: 1987654321 ms and 4711 tries",
)


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """Return what was written, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


OfWidth = Callable[[int], Terminal]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> OfWidth:
    """Redirect stdout and stderr to a terminal of the given width."""

    def of_width(width: int) -> Terminal:
        written = Terminal()
        monkeypatch.setattr(sys, "stdout", written)
        monkeypatch.setattr(sys, "stderr", written)
        for name, value in (("TERM", "xterm"), ("NO_COLOR", "1"), ("COLUMNS", str(width))):
            monkeypatch.setenv(name, value)
        return written

    return of_width


def numbers(text: str) -> set[str]:
    """The numbers in a text."""
    return set(re.findall(r"\d+", text))


@pytest.mark.parametrize("width", WIDTHS)
def test_table_cuts_no_number(terminal: OfWidth, width: int) -> None:
    """Neither in a column of numbers nor in a text."""
    screen = terminal(width)
    output.table(HISTORY, [ROW, FAILED])
    shown = screen.text()
    for cell in (*ROW, *FAILED):
        assert numbers(str(cell)) <= numbers(shown)
    for word in ("ok", "delta", "2025-01-15T10:30:00.000Z", "db-7.internal:27017"):
        assert word in shown
    assert shown.count("records") == (1 if width >= 90 else 2)


@pytest.mark.parametrize("width", [80, 100])
def test_wide_terminal_gets_a_table(terminal: OfWidth, width: int) -> None:
    """One line for each row, no longer than the terminal is wide."""
    screen = terminal(width)
    output.table(HISTORY, [ROW])
    lines = screen.text().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)


def test_narrow_terminal_gets_a_line_per_cell(terminal: OfWidth) -> None:
    """Each with the name of its column; an empty line separates rows."""
    screen = terminal(30)
    output.table(("collection", "status", "", "processed"), [("a", "ok", "x", 1000), ("b", "failed", "y", 2)])
    assert screen.text().splitlines() == [
        *("collection: a", "status: ok", "x", "processed: 1000", ""),
        *("collection: b", "status: failed", "y", "processed: 2"),
    ]


@pytest.mark.parametrize("width", WIDTHS)
def test_progress_cuts_no_number(terminal: OfWidth, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Columns for which there is no room are left out."""
    screen = terminal(width)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Bar("Backfilling c", 7_654_321) as bar:
        now[0] += 10
        bar.update(Report("c", records_processed=1_234_567, last_timestamp="2025-01-15T10:30:00Z"))
        bar._drawn.bar.refresh()  # type: ignore[union-attr]  # noqa: SLF001 (not when its thread does)
        shown = screen.text()
    whole = {
        "1",
        "234",
        "567",
        "7",
        "654",
        "321",
        "123",
        "457",
        "0",
        "00",
        "52",
        "2025",
        "01",
        "15",
        "10",
        "30",
    }
    assert numbers(shown) <= whole, shown
    if width >= 80:
        assert "1,234,567 of 7,654,321 documents" in shown
