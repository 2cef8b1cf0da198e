"""Output: rich on a terminal, aligned text in a pipe, JSON for programs, errors on stderr.

rich is imported only when writing to a terminal, because the import takes 5 % of the start-up time of a command.
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
from etl.text import printable


class _Stdout(io.TextIOWrapper):
    """Stdout that raises `EtlError` when it cannot be written: full disk, closed terminal."""

    def write(self, text: str) -> int:
        """Raises `EtlError`, or `BrokenPipeError` if the reader has closed the pipe."""
        with _translated_errors():
            return super().write(text)

    def flush(self) -> None:
        """Raises as `write` does."""
        with _translated_errors():
            super().flush()


class _Stderr(io.TextIOWrapper):
    """Stderr that drops what it cannot write: a full disk or a closed terminal must not end the work."""

    def write(self, text: str) -> int:
        """All of it, or nothing."""
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Drops what cannot be written."""
        with suppress(OSError):
            super().flush()


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise EtlError(f"cannot write to stdout: {error.strerror}") from None


def open_streams() -> None:
    """Replace Python's standard streams by those of this module."""
    out, err = sys.stdout, sys.stderr
    answer = io.BufferedWriter(io.FileIO(out.fileno(), "w", closefd=False))
    log = io.FileIO(err.fileno(), "w", closefd=False)
    sys.stdout = _Stdout(answer, out.encoding, line_buffering=out.isatty())
    sys.stderr = _Stderr(log, err.encoding, write_through=True)  # without a buffer, as after `python -u`


def end_streams() -> None:
    """Discard the unwritten rest of stdout: Python would try again at exit and change the exit code."""
    try:
        sys.stdout.flush()
    except (OSError, EtlError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def never_fail_to_encode() -> None:
    """Escape characters that the terminal's encoding lacks, such as `ñ`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def document(value: Any) -> None:
    """Print the JSON document of `--json`; in UTF-8 if stdout is UTF-8, else in ASCII."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(value, ensure_ascii=not unicode, indent=2))


def json_line(value: Any) -> None:
    """Print one JSON document of a stream of them, on a line of its own, in ASCII."""
    click.echo(json.dumps(value))


def error(message: str, *, as_json: bool = False) -> None:
    """Print one line on stderr; with `as_json` also a JSON document on stdout."""
    line = printable(message)
    if as_json:
        with suppress(EtlError, BrokenPipeError):  # stdout itself may be what fails
            document({"error": line})
    click.echo(f"error: {line}", err=True)


def say(text: str = "") -> None:
    """Print text, with control characters escaped."""
    click.echo("\n".join(printable(line) for line in text.split("\n")))


def heading(text: str) -> None:
    """Print a title, bold on a terminal."""
    if sys.stdout.isatty():
        from etl.cli import terminal  # noqa: PLC0415 (see above)

        terminal.heading(printable(text))
    else:
        click.echo(printable(text))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns, numbers aligned to the right."""
    texts = [[printable(str(cell)) for cell in row] for row in rows]
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
    """Show a spinner on stderr meanwhile; nothing if stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from etl.cli import terminal  # noqa: PLC0415 (see above)

    with terminal.spinner(printable(what)):
        yield
