"""The findings of `etl doctor` about Redis, on real servers; its remedies are run where possible."""

import shlex
from collections.abc import Callable

import pytest
import redis

from tests.support.diagnosis import HEALTHY, OWN, Doctor
from tests.support.types import StartRedis


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_an_eviction_policy_that_may_drop_the_checkpoint_is_found(
    start_redis: StartRedis, doctor: Doctor, policy: str
) -> None:
    """What it says to type is typed here, and mends it."""
    server = start_redis(args=("--maxmemory", "100mb", "--maxmemory-policy", policy))

    typed = doctor(redis=server.url).remedy("eviction")

    assert typed.startswith("redis-cli CONFIG SET maxmemory-policy volatile-ttl")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*typed.removeprefix("redis-cli ").split()[:4])
    assert doctor(redis=server.url).code == HEALTHY


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--maxmemory", "0", "--maxmemory-policy", "allkeys-lru"),
        ("--maxmemory", "100mb", "--maxmemory-policy", "noeviction"),
        ("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"),
    ],
    ids=" ".join,
)
def test_an_eviction_policy_that_cannot_drop_the_checkpoint_passes(
    start_redis: StartRedis, doctor: Doctor, arguments: tuple[str, ...]
) -> None:
    assert doctor(redis=start_redis(args=arguments).url).code == HEALTHY


@pytest.fixture
def confined(start_redis: StartRedis) -> Callable[[str], str]:
    """The address of a Redis, for a user who may do all but these."""

    def start(denied: str) -> str:
        server = start_redis()
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "etl", "on", ">pw", "~*", "+@all", *denied.split())
        return f"redis://etl:pw@{server.address}/0"

    return start


@pytest.mark.usefixtures("collection")
def test_a_redis_that_denies_info_is_a_note(confined: Callable[[str], str], doctor: Doctor) -> None:
    """The other checks run."""
    seen = doctor(redis=confined("-info"))
    assert seen.code == HEALTHY
    by_check = {one["check"]: one for one in seen.checks if one["subject"] == "Redis"}
    assert (by_check["connection"]["level"], by_check["connection"]["text"]) == ("ok", "answers")
    assert by_check["version"]["level"] == "note"
    assert "version, mode and eviction not checked: Redis at " in by_check["version"]["text"]
    assert "'info'" in by_check["version"]["text"]
    assert seen.said("keys")["level"] == seen.said("clocks")["level"] == "ok"
    assert "no data survives a restart" in by_check["persistence"]["text"]


@pytest.mark.usefixtures("collection")
def test_a_denied_command_skips_only_its_check(confined: Callable[[str], str], doctor: Doctor) -> None:
    """A user who may not ask for the time, the settings or the state is told so three times."""
    seen = doctor(redis=confined("-info -config -time"))
    assert seen.code == HEALTHY
    notes = {(one["check"], one["subject"]) for one in seen.checks if one["level"] == "note"}
    assert notes == {("version", "Redis"), ("persistence", "Redis"), ("clocks", "Redis")}
    clocks = [one["text"] for one in seen.checks if one["check"] == "clocks"]
    assert any("MongoDB" in text for text in clocks)


@pytest.mark.usefixtures("collection")
def test_a_redis_that_denies_every_command_is_found(confined: Callable[[str], str], doctor: Doctor) -> None:
    """Not even PING: the line says that it refuses, not that it is away."""
    [finding] = doctor(redis=confined("-@all")).findings
    assert finding["check"] == "connection"
    assert "refuses: " in finding["text"]


@pytest.mark.usefixtures("collection")
def test_a_managed_redis_that_refuses_config_is_a_note(start_redis: StartRedis, doctor: Doctor) -> None:
    """A note says what could not be seen; the eviction policy can, without that command."""
    arguments = (
        "--rename-command",
        "CONFIG",
        "",
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
    )

    seen = doctor(redis=start_redis(args=arguments).url)

    assert seen.remedy("eviction")
    assert seen.said("persistence")["level"] == "note"
    assert "CONFIG GET is refused" in seen.said("persistence")["text"]


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("arguments", [("--appendonly", "yes"), ("--save", "900", "1")], ids=" ".join)
def test_a_persistent_redis_passes(
    start_redis: StartRedis, doctor: Doctor, arguments: tuple[str, ...]
) -> None:
    assert doctor(redis=start_redis(args=arguments).url).said("persistence")["level"] == "ok"


@pytest.mark.usefixtures("collection")
def test_a_replica_is_found(start_redis: StartRedis, doctor: Doctor) -> None:
    """The remedy names the primary."""
    server = start_redis(args=("--replicaof", "127.0.0.1", "1"))
    assert doctor(redis=server.url).remedy("mode") == "export ETL_REDIS__URL=redis://127.0.0.1:1/0"


@pytest.mark.usefixtures("collection")
def test_a_cluster_that_does_not_serve_all_slots_is_found(start_redis: StartRedis, doctor: Doctor) -> None:
    """As one that is away."""
    [finding] = doctor(redis=start_redis(args=("--cluster-enabled", "yes")).url).findings
    assert finding["check"] == "connection"
    assert "slots" in finding["text"]


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("key", [OWN.deferred, OWN.published, OWN.queues, OWN.backfill])
def test_a_key_of_the_wrong_type_is_found(redis_client: redis.Redis, doctor: Doctor, key: str) -> None:
    """What it says to type is typed here, mends it, and loses nothing."""
    redis_client.set(key, "somebody's")

    typed = doctor().remedy("keys")

    _, *command = shlex.split(typed)
    assert command == ["RENAME", key, f"{key}:moved-away"]
    redis_client.rename(*command[1:])
    assert redis_client.get(f"{key}:moved-away") == "somebody's"
    assert doctor().code == HEALTHY


@pytest.mark.usefixtures("collection")
def test_keys_that_may_not_be_read_are_a_note(start_redis: StartRedis, doctor: Doctor) -> None:
    """It names what is missing, and the other checks are made."""
    server = start_redis()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "etl", "on", ">secret", "~*", "+@all", "-type")
    seen = doctor(redis=server.url.replace("redis://", "redis://etl:secret@"))
    assert (seen.code, seen.said("keys")["level"]) == (HEALTHY, "note")
    assert "not checked" in seen.said("keys")["text"]
    assert "clocks" in {check["check"] for check in seen.checks}


@pytest.mark.usefixtures("collection")
def test_a_queue_of_the_wrong_type_is_found(redis_client: redis.Redis, doctor: Doctor) -> None:
    """The queues are known from the collection that feeds them."""
    redis_client.sadd(OWN.queues, "queue:ai_generation:alta")
    redis_client.set("queue:ai_generation:alta", "somebody's")
    assert "queue:ai_generation:alta" in doctor().remedy("keys")
