"""The followers of a daemon: one thread per followed collection."""

import logging
import threading

from etl import logs
from etl.app import FOLLOW_AGAIN_SECONDS, App
from etl.daemon.jobs import JobContext
from etl.errors import ConfigurationError, StreamRefusedError, TransientError, error_location
from etl.sync.follow import Followed

_log = logging.getLogger("etl.daemon")


class FollowerThread:
    """Follows one collection in a thread of its own, until `stop`."""

    def __init__(self, collection: str, context: JobContext) -> None:
        self._collection = collection
        self._metrics = context.metrics
        self.app: App = context.start(context.settings, self._on_retry)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"etl-follow-{collection}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop it; may be called from a signal handler."""
        self._stop.set()
        self.app.stop()

    def close(self) -> None:
        """Wait for the end of the thread, and close its connections."""
        self._thread.join()
        self.app.close()

    def _run(self) -> None:
        problem = ""
        with logs.bound(collection=self._collection):
            while not self._stop.is_set():
                try:
                    self.app.follow(self._collection, self._on_batch)
                except StreamRefusedError as error:
                    _log.warning(
                        "%s; the daemon runs cycles only", error, extra=logs.event("follow", reason="refused")
                    )
                    return
                except ConfigurationError as error:  # it may be corrected while the daemon runs
                    problem = self._pause_after(str(error), problem)
                except Exception as error:  # noqa: BLE001 (last resort: the follower survives and logs the location)
                    _log.debug("unforeseen", exc_info=True)
                    problem = self._pause_after(error_location(error), problem)

    def _pause_after(self, problem: str, last: str) -> str:
        """Log a problem unless it is the same as the last one, and wait; return it."""
        if problem != last:
            _log.warning("%s", problem, extra=logs.event("trouble"))
        self._stop.wait(FOLLOW_AGAIN_SECONDS)
        return problem

    def _on_batch(self, batch: Followed) -> None:
        self._metrics.followed(self._collection, batch)

    def _on_retry(self, error: TransientError) -> None:
        self._metrics.retried(self._collection)
        _log.debug("%s; trying again", error, extra=logs.event("retry"))
