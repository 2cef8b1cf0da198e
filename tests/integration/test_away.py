"""Which servers are unreachable."""

from etl.app import App
from tests.support.pipeline import OpenApp


def test_reachable_servers_are_not_reported(app: App) -> None:
    assert app.away() == {}


def test_unreachable_servers_are_reported_with_their_address(open_app: OpenApp) -> None:
    mongo, redis = "mongodb://127.0.0.1:1/?directConnection=true", "redis://127.0.0.1:1/0"
    with open_app(mongo=mongo, redis=redis, timeout=0.2) as app:
        away = app.away()
    assert away.keys() == {"mongodb", "redis"}
    assert all("127.0.0.1:1 does not answer" in problem for problem in away.values())
