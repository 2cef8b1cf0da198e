import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def loggers_as_they_were() -> Iterator[None]:
    """Put back what a test, or the command line that it runs, has configured."""
    root, level, etl_level = logging.getLogger(), logging.getLogger().level, logging.getLogger("etl").level
    handlers = root.handlers[:]
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("etl").setLevel(etl_level)
    logging.captureWarnings(capture=False)
