"""Settings files, and the error message for them."""

from pathlib import Path
from typing import Protocol

import pytest

from etl.errors import ConfigurationError
from etl.settings import load


class Write(Protocol):
    """Type of the fixture `write`."""

    def __call__(self, text: str, name: str = "etl.yaml") -> Path:
        """Write a settings file and return its path."""


def refusal(path: Path | None = None, **overrides: object) -> str:
    """The one-line error for these settings."""
    with pytest.raises(ConfigurationError) as refused:
        load(path, overrides)
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return line
