from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from etl.cache.keys import StateKeys
from etl.doctor import Finding, clocks, keys, mongodb, ttls
from etl.errors import ConfigurationError, TransientError
from etl.mongo.indexes import missing
from etl.mongo.reader import MongoReader
from etl.settings import Settings


def fake_clock(start: float, step: float = 0.0) -> Callable[[], float]:
    """A clock that starts at `start` and advances by `step` seconds at each reading."""
    moments = iter(start + number * step for number in range(1000))
    return lambda: next(moments)


def unavailable() -> float:
    """The clock of an unavailable server."""
    raise TransientError("Redis at localhost:6379 does not answer")


@pytest.mark.parametrize(
    ("mongo", "redis", "level"), [(0.9, 0.0, "ok"), (1.1, 0.0, "finding"), (0.6, -0.6, "finding")]
)
def test_clocks_more_than_a_second_apart_are_a_finding(mongo: float, redis: float, level: str) -> None:
    """From this machine or from each other; the line has both differences."""
    readings = {"MongoDB": fake_clock(1000 + mongo), "Redis": fake_clock(1000 + redis)}

    [finding] = clocks.examine(readings, fake_clock(1000))

    assert finding.level == level
    assert f"MongoDB {mongo:+.1f} s, Redis {redis:+.1f} s" in finding.text
    assert (finding.remedy is not None) == (level == "finding")


def test_slow_answer_is_no_clock_skew() -> None:
    """The response time of four seconds is uncertainty, not difference."""
    here = fake_clock(1000, step=4.0)

    [finding] = clocks.examine({"MongoDB": fake_clock(1000.5)}, here)

    assert finding.level == "ok"


def test_clock_of_an_unavailable_server_is_a_note() -> None:
    """The other clocks are still compared."""
    left_out, finding = clocks.examine({"MongoDB": fake_clock(1000), "Redis": unavailable}, fake_clock(1000))
    assert (left_out.level, left_out.subject) == ("note", "Redis")
    assert "does not answer" in left_out.text
    assert finding.text == "against this machine: MongoDB +0.0 s"
    assert [one.level for one in clocks.examine({"Redis": unavailable}, fake_clock(1000))] == ["note"]


def ttl_findings(families: Mapping[str, Any], cycle: int = 660) -> dict[str, Finding]:
    """The findings on TTLs with these settings, by family."""
    settings = Settings.model_validate({"families": families, "schedule": {"cycle_seconds": cycle}})
    return {finding.subject: finding for finding in ttls.examine(settings)}


def test_default_ttls_fit_the_default_cycle() -> None:
    """Also the one of 300 seconds: the daemon refreshes that family every 240."""
    found = ttl_findings({})
    assert {finding.level for finding in found.values()} == {"ok"}
    assert "every 240 s" in found["mcp:server:status"].text


def test_ttl_below_the_cycle_without_refresh_is_a_finding() -> None:
    """The remedy sets the refresh interval."""
    found = ttl_findings({"mcp:server:status": {"refresh_seconds": None}})["mcp:server:status"]

    assert found.level == "finding"
    assert "TTL 300 s is less than a cycle of 660 s" in found.text
    assert '"mcp:server:status": {ttl: 300, refresh_seconds: 240}' in str(found.remedy)
    assert (
        ttl_findings({"mcp:server:status": {"ttl": 300, "refresh_seconds": 240}})["mcp:server:status"].level
        == "ok"
    )


def test_longer_cycle_gives_more_findings() -> None:
    """With a cycle of two hours, keys with a TTL of one hour are missing in between."""
    found = ttl_findings({}, cycle=7200)
    assert {name for name, finding in found.items() if finding.level == "finding"} == {
        *("config:api", "config:client", "mcp:tool"),
    }


class FakeReader(MongoReader):
    """A MongoDB of a given version with an empty collection, or one that raises an error."""

    index = missing("database.promptContent", "updated_at")

    def __init__(self, version: tuple[int, ...] = (7, 0, 0, 0), fault: Exception | None = None) -> None:
        self._version = version
        self._fault = fault

    def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """Answer `buildInfo`; other commands return nothing."""
        if self._fault is not None:
            raise self._fault
        if "buildInfo" in command:
            return {"version": ".".join(map(str, self._version[:3])), "versionArray": [*self._version]}
        return {"cursor": {"firstBatch": []}, "isWritablePrimary": True}

    def check_mapping(self) -> None:
        """Accept any mapping."""

    def whole(self, ids: object) -> list[bytes]:
        return []

    def prepare(self) -> bool:
        return False

    def timestamp_types(self) -> Counter[str]:
        return Counter()

    def identity(self) -> str | None:
        return None

    def clock(self) -> int:
        return 0


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ((4, 2, 24, 0), "finding"),
        ((4, 4, 1, 0), "finding"),
        ((4, 4, 2, 0), "ok"),
        ((6, 0, 5, 0), "ok"),
        ((10, 0, 0, 0), "ok"),
    ],
)
def test_mongodb_older_than_supported_is_a_finding(version: tuple[int, ...], level: str) -> None:
    """`buildInfo` is faked, because no old server is available."""
    reader = FakeReader(version)
    [finding] = [f for f in mongodb.examine(Settings(), {"promptContent": reader}) if f.check == "version"]
    assert finding.level == level
    assert ("4.4.2 or newer" in finding.text) == (level == "finding")


@pytest.mark.parametrize(
    "fault", [TransientError("does not answer"), ConfigurationError("refused the login")]
)
def test_unavailable_mongodb_is_one_finding(fault: Exception) -> None:
    [finding] = mongodb.examine(Settings(), {"promptContent": FakeReader(fault=fault)})
    assert (finding.check, finding.level, finding.text) == ("connection", "finding", str(fault))
    assert "mongo.uri" in str(finding.remedy)


def test_every_state_key_has_a_type() -> None:
    """So that a new state key is checked too."""
    assert keys.TYPES.keys() == {*StateKeys._fields}
