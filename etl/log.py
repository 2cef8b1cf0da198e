"""Logging: one line per event on stderr, so that stdout stays what a command answers."""

import logging
import sys
import time

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"


def configure(*, verbose: bool) -> None:
    """Send the log to stderr with UTC times: warnings, and with `verbose` what `etl` does in detail.

    The libraries stay at warnings even then: a driver's debug log may show what it sends.
    """
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter(_FORMAT, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("etl").setLevel(logging.DEBUG if verbose else logging.INFO)
