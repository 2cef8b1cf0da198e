"""Logging: one line per event on stderr; stdout is for the answers of commands.

Each line has an `action`, and the collection, family and cycle it belongs to. These are bound once per run and added
to every line of its thread.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, Literal

from etl.errors import error_location
from etl.text import printable

Form = Literal["text", "json"]

_ATTRIBUTE: Final = "etl_fields"
_IN_TEXT: Final = ("collection", "family", "cycle")
"""The fields shown in text lines; the message contains the others."""

_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default=MappingProxyType({}))


def configure(level: int, form: Form = "text") -> None:
    """Send the log to stderr with UTC times: lines of `etl` from `level` on, and errors of the libraries.

    Debug logs of the libraries stay off: those of a driver contain commands and data.
    """
    handler = logging.StreamHandler(sys.stderr)
    traces = level <= logging.DEBUG
    handler.setFormatter(_Json(traces=traces) if form == "json" else _Text(traces=traces))
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)  # warnings quote values, and are for developers
    logging.getLogger("etl").setLevel(level)


def event(action: str, **fields: object) -> dict[str, Any]:
    """The action and fields of a line, as `extra` of a logging call."""
    return {_ATTRIBUTE: {"action": action, **fields}}


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Add these fields to every line of this thread within the block."""
    before = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(before)


class _Line(logging.Formatter):
    """Base of both formats. Tracebacks may quote values, so they are shown with --verbose only."""

    def __init__(self, *, traces: bool) -> None:
        super().__init__()
        self._traces = traces

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The action, the bound fields, the fields of the line."""
        own = getattr(record, _ATTRIBUTE, {})
        return {"action": own.get("action", "note"), **_bound.get(), **own}

    def time(self, record: logging.LogRecord) -> str:
        """The time of the line, ISO 8601 in UTC with milliseconds."""
        created = datetime.fromtimestamp(record.created, UTC)
        return created.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def failure(self, record: logging.LogRecord) -> str | None:
        """The exception of the line, None without one."""
        if not record.exc_info or record.exc_info[1] is None:
            return None
        if self._traces:
            return self.formatException(record.exc_info)
        return error_location(record.exc_info[1])


class _Text(_Line):
    """`2025-01-15T10:30:00.000Z INFO cycle collection=promptContent cycle=1f3a09c2: 3 processed`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, followed by the traceback if enabled."""
        fields, failure = self.fields(record), self.failure(record)
        about = "".join(f" {name}={printable(str(fields[name]))}" for name in _IN_TEXT if name in fields)
        line = f"{self.time(record)} {record.levelname} {fields['action']}{about}: "
        line += printable(record.getMessage())
        return line if failure is None else f"{line}\n{failure}" if self._traces else f"{line} ({failure})"


class _Json(_Line):
    """One JSON object per line, in ASCII, independent of encodings."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        head = {"time": self.time(record), "level": record.levelname.lower(), "logger": record.name}
        failure = self.failure(record)
        tail = {"message": record.getMessage()} | ({"exception": failure} if failure else {})
        return json.dumps({**head, **self.fields(record), **tail}, default=str)
