"""Wrappers for any wire to Redis that interrupt its calls."""

from collections.abc import Iterator, Sequence
from typing import Any

from etl.cache.client import Command, Wire
from tests.support.call_hooks import CallHooks
from tests.support.clocks import Clocks


class HookedWire(Wire):
    """Wraps a wire: each exchange may be interrupted."""

    def __init__(self, wire: Wire, hooks: CallHooks) -> None:
        self._wire = wire
        self._around = hooks.around

    @property
    def address(self) -> str:
        return self._wire.address

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        return self._around(lambda: self._wire.exchange(commands))

    def now(self) -> int:
        return self._around(self._wire.now)

    def primaries(self) -> frozenset[str]:
        return self._wire.primaries()

    def groups(self, keys: Sequence[str], most: int) -> Iterator[Sequence[int]]:
        return self._wire.groups(keys, most)


class ClockedWire(HookedWire):
    """The same for a real Redis, whose clock cannot be set: the checkpoint gets the clock of the test.

    The scripts compare times of the clock of the server with each other, and still use it.
    """

    def __init__(self, wire: Wire, hooks: CallHooks, clocks: Clocks) -> None:
        super().__init__(wire, hooks)
        self._clocks = clocks

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        replies = super().exchange(commands)
        if len(commands) > 1:
            now = [str(self._clocks.redis // 1000), str(self._clocks.redis % 1000 * 1000)]
            replies = [
                now if one == ("TIME",) else reply for one, reply in zip(commands, replies, strict=True)
            ]
        return replies
