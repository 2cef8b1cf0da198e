"""Settings files in an empty folder."""

from pathlib import Path

import pytest

from tests.unit.settings.files import Write


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
