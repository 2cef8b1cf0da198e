"""How answers look: rich on a terminal, aligned text in a pipe, JSON for programs, errors on stderr.

Only what writes to a terminal loads rich: it would take a twentieth of the start of every command.
"""

import io
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from etl.text import plain


def never_fail_to_encode() -> None:
    """A terminal that has no `ñ` gets an escape for it, not a crash."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def document(value: Any) -> None:
    """The one JSON document that a command answers with `--json`; UTF-8 where stdout is."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(value, ensure_ascii=not unicode, indent=2))


def error(message: str, *, as_json: bool = False) -> None:
    """One line on stderr; with `as_json` the JSON document on stdout says it too."""
    line = plain(message)
    if as_json:
        document({"error": line})
    click.echo(f"error: {line}", err=True)


def say(text: str = "") -> None:
    """Text as it is, but nothing in it can steer the terminal."""
    click.echo("\n".join(plain(line) for line in text.split("\n")))


def heading(text: str) -> None:
    """The title of what follows, bold on a terminal."""
    if sys.stdout.isatty():
        from etl.cli import terminal  # noqa: PLC0415 (see above)

        terminal.heading(plain(text))
    else:
        click.echo(plain(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under their columns; numbers to the right."""
    texts = [[plain(str(cell)) for cell in row] for row in rows]
    numeric = [
        bool(rows) and all(isinstance(row[place], int) for row in rows) for place in range(len(columns))
    ]
    if sys.stdout.isatty():
        from etl.cli import terminal  # noqa: PLC0415 (see above)

        terminal.table(columns, texts, numeric)
    else:
        _plain_table(columns, texts, numeric)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


@contextmanager
def progress(what: str) -> Iterator[None]:
    """A spinner on stderr while something takes its time; nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from etl.cli import terminal  # noqa: PLC0415 (see above)

    with terminal.spinner(plain(what)):
        yield
