"""The command line over a fake application."""

import os
from pathlib import Path
from typing import cast

import pytest

from etl.app import App
from etl.cli import run
from etl.settings import Settings
from tests.support.command import Etl, Result
from tests.unit.cli.fake_app import FakeApp


@pytest.fixture
def etl(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    restore_loggers: None,  # noqa: ARG001 (what a command configures ends with its test)
) -> Etl:
    """Runs one command line in an empty folder, without variables, on the application it is given."""
    for name in [name for name in os.environ if name.startswith("ETL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: str, app: FakeApp | None = None) -> Result:
        chosen = app or FakeApp()

        def start(settings: Settings) -> App:
            chosen.settings = settings
            return cast("App", chosen)

        code = run(arguments, start)
        return Result(code, *capsys.readouterr())

    return run_command
