"""How the follower of a daemon handles errors, with a fake application."""

from collections.abc import Callable
from typing import cast

import pytest

from etl.app import App
from etl.daemon.followers import FollowerThread
from etl.daemon.jobs import JobContext
from etl.errors import ConfigurationError, StreamRefusedError
from etl.monitoring.metrics import Metrics
from etl.settings import Settings
from etl.sync.follow import Followed

DENIED = ConfigurationError("Redis refused the login")


class FakeApp:
    """Raises the given errors, then follows until it is stopped."""

    def __init__(self, failures: list[Exception]) -> None:
        self.failures = failures
        self.stopped = False

    def follow(self, _: str, on_batch: Callable[[Followed], None]) -> None:
        """Raise the next error, or follow."""
        if self.failures:
            raise self.failures.pop(0)
        on_batch(Followed({"insert": 2}, None))
        self.end()

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Called once it follows; replaced by the test."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Exception]], FakeApp]:
    """Run the follower of a daemon with these errors until it follows or gives up."""
    monkeypatch.setattr("etl.daemon.followers.FOLLOW_AGAIN_SECONDS", 0.0)

    def run(failures: list[Exception]) -> FakeApp:
        app = FakeApp(failures)
        settings = Settings.model_validate({"mongo": {"uri": "mongodb://mongo/campaigns"}})
        context = JobContext(settings, Metrics(settings), lambda *_: None, lambda *_: cast("App", app))
        follower = FollowerThread("promptContent", context)
        app.end = follower.stop  # type: ignore[method-assign]
        follower.start()
        follower.close()
        return app

    return run


def test_refused_login_is_logged_once_and_retried(
    run: Callable[[list[Exception]], FakeApp], caplog: pytest.LogCaptureFixture
) -> None:
    """The login may be corrected while the daemon runs."""
    app = run([DENIED, DENIED, DENIED])
    assert app.stopped
    assert caplog.messages == ["Redis refused the login"]


def test_unexpected_error_does_not_end_the_follower(
    run: Callable[[list[Exception]], FakeApp], caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the place of the error, but not its text, which may be a secret."""
    app = run([ValueError("a secret")])
    assert app.stopped
    [message] = caplog.messages
    assert message.startswith("unforeseen ValueError in test_followers.py:")
    assert "secret" not in message


def test_follower_ends_without_change_streams(
    run: Callable[[list[Exception]], FakeApp], caplog: pytest.LogCaptureFixture
) -> None:
    """The daemon goes on with cycles only."""
    app = run([StreamRefusedError("no change stream")])
    assert not app.stopped
    assert caplog.messages == ["no change stream; the daemon runs cycles only"]
