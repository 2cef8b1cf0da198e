"""Logging: one line per event on stderr, so that stdout stays what a command answers."""

import logging
import sys
import time

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"


def configure(level: int) -> None:
    """Send the log to stderr with UTC times: what `etl` says from `level` on, and the libraries' errors.

    The libraries stay quiet at every level: a driver's debug log may show what it sends.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.ERROR, handlers=[handler], force=True)
    logging.captureWarnings(capture=True)  # they too would quote, and are for developers
    logging.getLogger("etl").setLevel(level)
