"""Actions before or after the n-th call to a server."""

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class Killed(BaseException):
    """The process is killed: it does nothing more, not even in a `finally` block."""


class CallHooks:
    """Runs actions before or after the n-th call to a server; they may raise."""

    def __init__(self) -> None:
        self.plan(())

    def plan(self, steps: Iterable[tuple[int, bool, Callable[[], None]]]) -> None:
        """Restart the count, and run each step at its call: before it, or after it if the flag is True."""
        self._steps = {(number, after): step for number, after, step in steps}
        self._calls = 0
        self._dead = False

    def around(self, call: Callable[[], T]) -> T:
        """Run the call with the steps for its number; raising after it loses the answer."""
        number, self._calls = self._calls, self._calls + 1
        self._step(number, after=False)
        result = call()
        self._step(number, after=True)
        return result

    def _step(self, number: int, *, after: bool) -> None:
        step = self._steps.pop((number, after), _nothing)
        try:
            (kill if self._dead else step)()
        except Killed:
            self._dead = True
            raise


def kill() -> None:
    """Kill the process at this point."""
    raise Killed


def _nothing() -> None:
    pass
