"""Settings files in an empty folder."""

from pathlib import Path

import pytest

from tests.unit.settings.files import Write


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the variables and files of the developer."""
    for name in ("ETL_CONFIG", "ETL_MONGO__URI", "ETL_REDIS__URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a settings file in the folder of the test."""

    def write_file(text: str, name: str = "etl.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_file
