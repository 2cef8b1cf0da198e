"""Clocks of both servers that a test sets, also those of every fake Redis."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from fakeredis import _helpers
from fakeredis._socket import _base
from fakeredis.commands_mixins import server_mixin


@dataclass
class Clocks:
    """The clocks of both servers, in milliseconds since the epoch: they move only when told to.

    But for a microsecond each time that Redis looks at its own: two of its moments are never the same.
    """

    mongo: int
    redis: int
    _looks: int = 0

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.mongo += ms
        self.redis += ms

    def step(self, ms: int) -> None:
        """Set MongoDB's clock, and the writers' with it, forward or (negative) back."""
        self.mongo += ms

    def time(self) -> float:
        """The clock of Redis as `time.time` would have it, in seconds."""
        self._looks += 1
        return (self.redis * 1000 + self._looks) / 1_000_000


@contextmanager
def fake_redis_told_by(clocks: Clocks) -> Iterator[None]:
    """Every fake Redis goes by these clocks: its TIME, also within scripts, and when keys expire."""
    with ExitStack() as stack:
        for module in (_base, _helpers, server_mixin):
            stack.enter_context(patch.object(module, "time", clocks))
        yield
