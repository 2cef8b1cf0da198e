"""The version of Redis that the tests use, and versions that are refused."""

import os

import pytest
import redis

from etl.app import App
from tests.conftest import REDIS_VERSION


def test_tests_run_on_the_requested_version_of_redis(redis_client: redis.Redis) -> None:
    """Otherwise a run on the other version would show nothing."""
    found = str(redis_client.info("server")["redis_version"])
    asked = os.environ.get(REDIS_VERSION)
    assert found.startswith(f"{asked}.") if asked else tuple(map(int, found.split(".")[:2])) >= (6, 2)


def test_redis_older_than_supported_is_refused(
    app: App, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line with both versions; nothing is written."""
    monkeypatch.setattr("etl.cache.cluster.OLDEST", (99, 0))  # no wheel has an old one
    [report] = app.sync()
    found = str(redis_client.info("server")["redis_version"]).rpartition(".")[0]
    assert report.exit_code == 2
    assert f"is {found}: it takes 99.0 or newer" in str(report.error)
    assert redis_client.dbsize() == 0
