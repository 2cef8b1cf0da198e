"""Logging: one line per event on stderr, so that stdout stays what a command answers.

Each line has an `action`, and the collection, family and cycle it is about. Those are bound once, by
whoever begins something, and are in every line of the same thread until it ends.
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

from etl.errors import whereabouts
from etl.text import plain

Form = Literal["text", "json"]

_ATTRIBUTE: Final = "etl_fields"
_IN_TEXT: Final = ("collection", "family", "cycle")
"""The fields a line of text shows; its message tells the others."""

_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default=MappingProxyType({}))


def configure(level: int, form: Form = "text") -> None:
    """Send the log to stderr with UTC times: what `etl` says from `level` on, and the libraries' errors.

    The libraries stay quiet at every level: a driver's debug log may show what it sends.
    """
    handler = logging.StreamHandler(sys.stderr)
    traces = level <= logging.DEBUG
    handler.setFormatter(_Json(traces=traces) if form == "json" else _Text(traces=traces))
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)  # they too would quote, and are for developers
    logging.getLogger("etl").setLevel(level)


def event(action: str, **fields: object) -> dict[str, Any]:
    """What a line is about, as the `extra` of a call of `logging`."""
    return {_ATTRIBUTE: {"action": action, **fields}}


@contextmanager
def bound(**fields: str) -> Iterator[None]:
    """Every line of this thread has these fields until the block ends."""
    before = _bound.set({**_bound.get(), **fields})
    try:
        yield
    finally:
        _bound.reset(before)


class _Line(logging.Formatter):
    """What both forms share. Tracebacks quote what they please, so only those who ask see them."""

    def __init__(self, *, traces: bool) -> None:
        super().__init__()
        self._traces = traces

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The action first, then what is bound, then what the line itself adds."""
        own = getattr(record, _ATTRIBUTE, {})
        return {"action": own.get("action", "note"), **_bound.get(), **own}

    def moment(self, record: logging.LogRecord) -> str:
        """When it was said, ISO 8601 in UTC with milliseconds."""
        said = datetime.fromtimestamp(record.created, UTC)
        return said.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def failure(self, record: logging.LogRecord) -> str | None:
        """The exception that the line is about, None without one."""
        if not record.exc_info or record.exc_info[1] is None:
            return None
        if self._traces:
            return self.formatException(record.exc_info)
        return whereabouts(record.exc_info[1])


class _Text(_Line):
    """`2025-01-15T10:30:00.000Z INFO cycle collection=promptContent cycle=1f3a09c2: 3 processed`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; under it the traceback, where those are wanted."""
        fields, failure = self.fields(record), self.failure(record)
        about = "".join(f" {name}={plain(str(fields[name]))}" for name in _IN_TEXT if name in fields)
        line = f"{self.moment(record)} {record.levelname} {fields['action']}{about}: "
        line += plain(record.getMessage())
        return line if failure is None else f"{line}\n{failure}" if self._traces else f"{line} ({failure})"


class _Json(_Line):
    """One JSON object per line, in ASCII, so that no terminal or collector can spoil it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, always."""
        head = {"time": self.moment(record), "level": record.levelname.lower(), "logger": record.name}
        failure = self.failure(record)
        tail = {"message": record.getMessage()} | ({"exception": failure} if failure else {})
        return json.dumps({**head, **self.fields(record), **tail}, default=str)
