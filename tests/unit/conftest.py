import logging

import pytest


@pytest.fixture(autouse=True)
def unconfigured_log() -> None:
    """What a command of an earlier test made of the log does not hide what this one says."""
    logging.getLogger("etl").setLevel(logging.DEBUG)
