"""Which server is away, on real servers."""

from etl.app import App
from etl.settings import Settings


def test_none_is_away(app: App) -> None:
    """Both answer."""
    assert app.away() == {}


def test_both_are_away() -> None:
    """Each is told, with its address."""
    settings = {
        "mongo": {"uri": "mongodb://127.0.0.1:1/?directConnection=true", "timeout_seconds": 0.2},
        "redis": {"url": "redis://127.0.0.1:1/0"},
    }
    with App(Settings.model_validate(settings)) as app:
        away = app.away()
    assert away.keys() == {"mongodb", "redis"}
    assert all("127.0.0.1:1 does not answer" in problem for problem in away.values())
