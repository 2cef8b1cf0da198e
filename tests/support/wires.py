"""Any connection to Redis, with a way to step in between."""

from collections.abc import Iterator, Sequence
from typing import Any

from etl.cache.client import Command, Wire
from tests.support.clocks import Clocks
from tests.support.meddling import Meddler


class MeddledWire(Wire):
    """Any wire, with a meddler around each exchange."""

    def __init__(self, wire: Wire, meddler: Meddler) -> None:
        self._wire = wire
        self._around = meddler.around

    @property
    def address(self) -> str:
        """As the wire has it."""
        return self._wire.address

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """As the wire does."""
        return self._around(lambda: self._wire.exchange(commands))

    def now(self) -> int:
        """As the wire does."""
        return self._around(self._wire.now)

    def primaries(self) -> frozenset[str]:
        """As the wire does, undisturbed."""
        return self._wire.primaries()

    def together(self, keys: Sequence[str], most: int) -> Iterator[Sequence[int]]:
        """As the wire does."""
        return self._wire.together(keys, most)


class DatedWire(MeddledWire):
    """The same to a real Redis, whose clock a test cannot move: the checkpoint is told another one.

    The scripts that write compare moments of the server's own clock with each other: those stay as they are.
    """

    def __init__(self, wire: Wire, meddler: Meddler, clocks: Clocks) -> None:
        super().__init__(wire, meddler)
        self._clocks = clocks

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """As the wire does, but for TIME among other commands."""
        replies = super().exchange(commands)
        if len(commands) > 1:
            now = [str(self._clocks.redis // 1000), str(self._clocks.redis % 1000 * 1000)]
            replies = [
                now if one == ("TIME",) else reply for one, reply in zip(commands, replies, strict=True)
            ]
        return replies
