"""Waiting for what happens in another process or thread."""

import time
from collections.abc import Callable


def eventually(fact: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether `fact` comes true within so many seconds; returns as soon as it is."""
    deadline = time.monotonic() + seconds
    while not fact() and time.monotonic() < deadline:
        time.sleep(0.005)
    return fact()
