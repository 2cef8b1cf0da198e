from pathlib import Path
from typing import Protocol

import pytest

from etl.errors import ConfigurationError
from etl.settings import load


class Write(Protocol):
    """What the fixture `write` is."""

    def __call__(self, text: str, name: str = "etl.yaml") -> Path:
        """Write a settings file; its path."""


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable and no file but those of the test."""
    for name in ("ETL_CONFIG", "ETL_MONGO__URI", "ETL_REDIS__URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A settings file in the test's own folder."""

    def write_file(text: str, name: str = "etl.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file


def refusal(path: Path | None = None, **overrides: object) -> str:
    """The one line that refuses these settings."""
    with pytest.raises(ConfigurationError) as refused:
        load(path, overrides)
    line = str(refused.value)
    assert "\n" not in line
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return line
