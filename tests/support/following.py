"""A follower in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from etl.app import App
from etl.sync.follow import Followed
from tests.support.pipeline import NAME


@contextmanager
def following(app: App, batches: list[Followed] | None = None) -> Iterator[threading.Thread]:
    """Follow in a thread until the block ends."""
    noted: list[Followed] = [] if batches is None else batches
    thread = threading.Thread(target=app.follow, args=(NAME, noted.append))
    thread.start()
    try:
        yield thread
    finally:
        app.stop()
        thread.join(30)
        assert not thread.is_alive()
