"""How answers look: rich on a terminal, aligned text in a pipe, JSON for programs, errors on stderr.

Only what writes to a terminal loads rich: it would take a twentieth of the start of every command.
"""

import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click

from etl.errors import EtlError
from etl.text import plain


class _Stdout(io.TextIOWrapper):
    """Says in one line why an answer could not be written: a full disk, a terminal that is gone."""

    def write(self, text: str) -> int:
        """Raises `EtlError`; or `BrokenPipeError` where the reader has gone, who needs no explanation."""
        with _answering():
            return super().write(text)

    def flush(self) -> None:
        """Raises as `write` does."""
        with _answering():
            super().flush()


class _Stderr(io.TextIOWrapper):
    """Loses what it cannot write: a full disk, or a terminal or pipe that is gone, must not end the work."""

    def write(self, text: str) -> int:
        """All of it, or nothing."""
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Nothing is kept back: what failed is lost."""
        with suppress(OSError):
            super().flush()


@contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EtlError(f"cannot write the answer to stdout: {error.strerror}") from None


def open_streams() -> None:
    """Put streams in place of Python's own that fail as a command should."""
    out, err = sys.stdout, sys.stderr
    answer = io.BufferedWriter(io.FileIO(out.fileno(), "w", closefd=False))
    log = io.FileIO(err.fileno(), "w", closefd=False)
    sys.stdout = _Stdout(answer, out.encoding, line_buffering=out.isatty())
    sys.stderr = _Stderr(log, err.encoding, write_through=True)  # without a buffer, as after `python -u`


def end_streams() -> None:
    """Discard what stdout did not take: Python would try again at its end, and change the exit code."""
    try:
        sys.stdout.flush()
    except (OSError, EtlError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
        with suppress(EtlError, BrokenPipeError):  # it may be that very stdout which fails
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
