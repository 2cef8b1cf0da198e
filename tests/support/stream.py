"""A change stream without a server."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from etl.model.events import Events
from tests.support.call_hooks import CallHooks

_BATCH_SIZE: Final = 3


class FakeChangeStream:
    """A change stream over a list of changes; it stops the follower at the end of the list."""

    def __init__(self, changes: Sequence[str], hooks: CallHooks, stop: threading.Event) -> None:
        self._changes = changes
        self._hooks = hooks
        self._stop = stop
        self._next = 0

    def open(self, token: Mapping[str, Any] | None) -> Events:
        self._next = len(self._changes) if token is None else token["next"]
        return self._hooks.around(self._read)

    def next(self, _: float) -> Events:
        events = self._hooks.around(self._read)
        if not events.ids:
            self._stop.set()
        return events

    def close(self) -> None:
        """Do nothing."""

    def _read(self) -> Events:
        some = self._changes[self._next : self._next + _BATCH_SIZE]
        self._next += len(some)
        operations = {"update": len(some)} if some else {}
        return Events([*dict.fromkeys(some)], operations, {"next": self._next}, 0.0 if some else None)
