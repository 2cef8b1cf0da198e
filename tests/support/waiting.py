"""Waiting for another process or thread."""

import time
from collections.abc import Callable


def eventually(condition: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether `condition` becomes true within `seconds`, by default longer than a busy machine needs.

    Returns as soon as it does.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
