"""The signals that ask a command to end: Ctrl-C, SIGTERM, and SIGHUP of a terminal that was closed."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def heeding(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have `handler` called for these signals, and for those that `etl.__main__` has held back until now.

    A process that was started with SIGHUP ignored, as `nohup` does, goes on ignoring it.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
