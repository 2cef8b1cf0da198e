"""Installed programs that some tests need."""

import os
import shutil

import pytest


def program(*names: str) -> str:
    """The path of the first of these programs that is installed.

    If there is none the test is skipped, but fails in continuous integration: `.ci/run` installs all of them.
    """
    for name in names:
        if found := shutil.which(name):
            return found
    message = f"{names[0]} is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
