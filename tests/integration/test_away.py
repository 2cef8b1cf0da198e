"""Which server is away, on real servers."""

from etl.app import App
from tests.support.pipeline import OpenApp


def test_servers_that_answer_are_not_reported(app: App) -> None:
    """Both answer."""
    assert app.away() == {}


def test_servers_that_do_not_answer_are_reported(open_app: OpenApp) -> None:
    """Each is told, with its address."""
    mongo, redis = "mongodb://127.0.0.1:1/?directConnection=true", "redis://127.0.0.1:1/0"
    with open_app(mongo=mongo, redis=redis, timeout=0.2) as app:
        away = app.away()
    assert away.keys() == {"mongodb", "redis"}
    assert all("127.0.0.1:1 does not answer" in problem for problem in away.values())
