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


def ticking(start: float, step: float = 0.0) -> Callable[[], float]:
    """A clock that shows `start` and moves by `step` seconds each time it is read."""
    moments = iter(start + number * step for number in range(1000))
    return lambda: next(moments)


def away() -> float:
    """The clock of a server that is away."""
    raise TransientError("Redis at localhost:6379 does not answer")


@pytest.mark.parametrize(
    ("mongo", "redis", "level"), [(0.9, 0.0, "ok"), (1.1, 0.0, "finding"), (0.6, -0.6, "finding")]
)
def test_clocks_that_differ_by_more_than_a_second_are_found(mongo: float, redis: float, level: str) -> None:
    """Each against this machine's and against the other; the line says by how much each is off."""
    readings = {"MongoDB": ticking(1000 + mongo), "Redis": ticking(1000 + redis)}

    [finding] = clocks.examine(readings, ticking(1000))

    assert finding.level == level
    assert f"MongoDB {mongo:+.1f} s, Redis {redis:+.1f} s" in finding.text
    assert (finding.remedy is not None) == (level == "finding")


def test_a_slow_answer_is_no_skew() -> None:
    """What an answer took is doubt, not difference: a server four seconds away may be right."""
    here = ticking(1000, step=4.0)

    [finding] = clocks.examine({"MongoDB": ticking(1000.5)}, here)

    assert finding.level == "ok"


def test_the_clock_of_a_server_that_is_away_is_left_out() -> None:
    """It is a note; the others are compared all the same."""
    left_out, finding = clocks.examine({"MongoDB": ticking(1000), "Redis": away}, ticking(1000))
    assert (left_out.level, left_out.subject) == ("note", "Redis")
    assert "does not answer" in left_out.text
    assert finding.text == "against this machine: MongoDB +0.0 s"
    assert [one.level for one in clocks.examine({"Redis": away}, ticking(1000))] == ["note"]


def life(families: Mapping[str, Any], cycle: int = 660) -> dict[str, Finding]:
    """What is said of each family under these settings."""
    settings = Settings.model_validate({"families": families, "schedule": {"cycle_seconds": cycle}})
    return {finding.subject: finding for finding in ttls.examine(settings)}


def test_the_default_lives_fit_the_default_cycle() -> None:
    """Also 300 seconds, as the daemon refreshes that family every 240."""
    found = life({})
    assert {finding.level for finding in found.values()} == {"ok"}
    assert "every 240 s" in found["mcp:server:status"].text


def test_a_life_shorter_than_the_cycle_is_found_where_nothing_refreshes_it() -> None:
    """The line to type gives it back the interval; settings that have it are well."""
    found = life({"mcp:server:status": {"refresh_seconds": None}})["mcp:server:status"]

    assert found.level == "finding"
    assert "TTL 300 s is less than a cycle of 660 s" in found.text
    assert '"mcp:server:status": {ttl: 300, refresh_seconds: 240}' in str(found.remedy)
    assert (
        life({"mcp:server:status": {"ttl": 300, "refresh_seconds": 240}})["mcp:server:status"].level == "ok"
    )


def test_a_longer_cycle_finds_more() -> None:
    """With two hours from cycle to cycle, whatever lives one hour is missing in between."""
    found = life({}, cycle=7200)
    assert {name for name, finding in found.items() if finding.level == "finding"} == {
        *("config:api", "config:client", "mcp:tool"),
    }


class FakeReader(MongoReader):
    """A MongoDB of a certain version without the collection, or one that fails."""

    index = missing("database.promptContent", "updated_at")

    def __init__(self, version: tuple[int, ...] = (7, 0, 0, 0), fault: Exception | None = None) -> None:
        self._version = version
        self._fault = fault

    def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """`buildInfo` alone has something to say."""
        if self._fault is not None:
            raise self._fault
        if "buildInfo" in command:
            return {"version": ".".join(map(str, self._version[:3])), "versionArray": [*self._version]}
        return {"cursor": {"firstBatch": []}, "isWritablePrimary": True}

    def check_mapping(self) -> None:
        """It has none."""

    def whole(self, ids: object) -> list[bytes]:
        """Nothing."""
        return []

    def prepare(self) -> bool:
        """No index."""
        return False

    def timestamp_types(self) -> Counter[str]:
        """None."""
        return Counter()

    def identity(self) -> str | None:
        """None."""
        return None

    def clock(self) -> int:
        """The epoch."""
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
def test_a_mongodb_older_than_supported_is_found(version: tuple[int, ...], level: str) -> None:
    """`buildInfo` is made up here, as no old server is at hand."""
    reader = FakeReader(version)
    [finding] = [f for f in mongodb.examine(Settings(), {"promptContent": reader}) if f.check == "version"]
    assert finding.level == level
    assert ("4.4.2 or newer" in finding.text) == (level == "finding")


@pytest.mark.parametrize(
    "fault", [TransientError("does not answer"), ConfigurationError("refused the login")]
)
def test_a_mongodb_that_is_away_is_one_finding(fault: Exception) -> None:
    """Nothing is said of what could not be seen."""
    [finding] = mongodb.examine(Settings(), {"promptContent": FakeReader(fault=fault)})
    assert (finding.check, finding.level, finding.text) == ("connection", "finding", str(fault))
    assert "mongo.uri" in str(finding.remedy)


def test_every_key_of_the_etl_has_a_type() -> None:
    """A new companion key is looked at too."""
    assert keys.TYPES.keys() == {*StateKeys._fields}
