"""Settings files, and the message that refuses them."""

from pathlib import Path
from typing import Protocol

import pytest

from etl.errors import ConfigurationError
from etl.settings import load


class Write(Protocol):
    """What the fixture `write` is."""

    def __call__(self, text: str, name: str = "etl.yaml") -> Path:
        """Write a settings file; its path."""


def refusal(path: Path | None = None, **overrides: object) -> str:
    """The one line that refuses these settings."""
    with pytest.raises(ConfigurationError) as refused:
        load(path, overrides)
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return line
