"""Clocks of both servers, set by a test; also for every fake Redis."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from unittest.mock import patch

from fakeredis import _helpers
from fakeredis._socket import _base
from fakeredis.commands_mixins import server_mixin


@dataclass
class Clocks:
    """The clocks of both servers, in milliseconds since the epoch. They change by calls only.

    But each reading adds a microsecond to the clock of Redis, so that no two of its times are equal.
    """

    mongo: int
    redis: int
    _reads: int = 0

    def advance(self, ms: int) -> None:
        """Let time pass."""
        self.mongo += ms
        self.redis += ms

    def step(self, ms: int) -> None:
        """Set the clock of MongoDB and of the writers forward, or back if `ms` is negative."""
        self.mongo += ms

    def time(self) -> float:
        """The clock of Redis in seconds, like `time.time`."""
        self._reads += 1
        return (self.redis * 1000 + self._reads) / 1_000_000


@contextmanager
def fake_redis_clock(clocks: Clocks) -> Iterator[None]:
    """Use these clocks in every fake Redis: for TIME, also in scripts, and for the expiry of keys."""
    with ExitStack() as stack:
        for module in (_base, _helpers, server_mixin):
            stack.enter_context(patch.object(module, "time", clocks))
        yield
