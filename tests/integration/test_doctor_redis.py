"""The findings of `etl doctor` about Redis, on real servers; its remedies are run where possible."""

import shlex
from collections.abc import Callable

import pytest
import redis

from tests.support.diagnosis import HEALTHY, OWN, Doctor
from tests.support.types import StartRedis


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_eviction_policy_that_may_evict_the_checkpoint_is_a_finding(
    start_redis: StartRedis, doctor: Doctor, policy: str
) -> None:
    """The remedy is executed, and works."""
    server = start_redis(args=("--maxmemory", "100mb", "--maxmemory-policy", policy))

    remedy = doctor(redis=server.url).remedy("eviction")

    assert remedy.startswith("redis-cli CONFIG SET maxmemory-policy volatile-ttl")
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*remedy.removeprefix("redis-cli ").split()[:4])
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
def test_eviction_policy_that_cannot_evict_the_checkpoint_passes(
    start_redis: StartRedis, doctor: Doctor, arguments: tuple[str, ...]
) -> None:
    assert doctor(redis=start_redis(args=arguments).url).code == HEALTHY


@pytest.fixture
def confined(start_redis: StartRedis) -> Callable[[str], str]:
    """Start a Redis with a user who may run all commands except the denied ones; returns its URL."""

    def start(denied: str) -> str:
        server = start_redis()
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", "etl", "on", ">pw", "~*", "+@all", *denied.split())
        return f"redis://etl:pw@{server.address}/0"

    return start


@pytest.mark.usefixtures("collection")
def test_denied_info_is_a_note(confined: Callable[[str], str], doctor: Doctor) -> None:
    """The other checks run."""
    diagnosis = doctor(redis=confined("-info"))
    assert diagnosis.code == HEALTHY
    by_check = {one["check"]: one for one in diagnosis.checks if one["subject"] == "Redis"}
    assert (by_check["connection"]["level"], by_check["connection"]["text"]) == ("ok", "answers")
    assert by_check["version"]["level"] == "note"
    assert "version, mode and eviction not checked: Redis at " in by_check["version"]["text"]
    assert "'info'" in by_check["version"]["text"]
    assert diagnosis.said("keys")["level"] == diagnosis.said("clocks")["level"] == "ok"
    assert "no data survives a restart" in by_check["persistence"]["text"]


@pytest.mark.usefixtures("collection")
def test_denied_command_skips_only_its_check(confined: Callable[[str], str], doctor: Doctor) -> None:
    """Each denied command gives one note."""
    diagnosis = doctor(redis=confined("-info -config -time"))
    assert diagnosis.code == HEALTHY
    notes = {(one["check"], one["subject"]) for one in diagnosis.checks if one["level"] == "note"}
    assert notes == {("version", "Redis"), ("persistence", "Redis"), ("clocks", "Redis")}
    clocks = [one["text"] for one in diagnosis.checks if one["check"] == "clocks"]
    assert any("MongoDB" in text for text in clocks)


@pytest.mark.usefixtures("collection")
def test_user_without_any_command_is_a_finding(confined: Callable[[str], str], doctor: Doctor) -> None:
    """The line says that Redis refuses, not that it is unreachable."""
    [finding] = doctor(redis=confined("-@all")).findings
    assert finding["check"] == "connection"
    assert "refuses: " in finding["text"]


@pytest.mark.usefixtures("collection")
def test_missing_config_command_is_a_note(start_redis: StartRedis, doctor: Doctor) -> None:
    """As in a managed Redis. The eviction policy is checked without that command."""
    arguments = (
        "--rename-command",
        "CONFIG",
        "",
        "--maxmemory",
        "100mb",
        "--maxmemory-policy",
        "allkeys-lru",
    )

    diagnosis = doctor(redis=start_redis(args=arguments).url)

    assert diagnosis.remedy("eviction")
    assert diagnosis.said("persistence")["level"] == "note"
    assert "CONFIG GET is refused" in diagnosis.said("persistence")["text"]


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("arguments", [("--appendonly", "yes"), ("--save", "900", "1")], ids=" ".join)
def test_persistent_redis_passes(start_redis: StartRedis, doctor: Doctor, arguments: tuple[str, ...]) -> None:
    assert doctor(redis=start_redis(args=arguments).url).said("persistence")["level"] == "ok"


@pytest.mark.usefixtures("collection")
def test_replica_is_a_finding(start_redis: StartRedis, doctor: Doctor) -> None:
    """The remedy names the primary."""
    server = start_redis(args=("--replicaof", "127.0.0.1", "1"))
    assert doctor(redis=server.url).remedy("mode") == "export ETL_REDIS__URL=redis://127.0.0.1:1/0"


@pytest.mark.usefixtures("collection")
def test_cluster_with_unserved_slots_is_a_finding(start_redis: StartRedis, doctor: Doctor) -> None:
    """As an unreachable server."""
    [finding] = doctor(redis=start_redis(args=("--cluster-enabled", "yes")).url).findings
    assert finding["check"] == "connection"
    assert "slots" in finding["text"]


@pytest.mark.usefixtures("collection")
@pytest.mark.parametrize("key", [OWN.deferred, OWN.published, OWN.queues, OWN.backfill])
def test_state_key_of_the_wrong_type_is_a_finding(
    redis_client: redis.Redis, doctor: Doctor, key: str
) -> None:
    """The remedy is executed; it renames the key."""
    redis_client.set(key, "somebody's")

    remedy = doctor().remedy("keys")

    _, *command = shlex.split(remedy)
    assert command == ["RENAME", key, f"{key}:moved-away"]
    redis_client.rename(*command[1:])
    assert redis_client.get(f"{key}:moved-away") == "somebody's"
    assert doctor().code == HEALTHY


@pytest.mark.usefixtures("collection")
def test_keys_that_may_not_be_read_are_a_note(start_redis: StartRedis, doctor: Doctor) -> None:
    """The other checks run."""
    server = start_redis()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "etl", "on", ">secret", "~*", "+@all", "-type")
    diagnosis = doctor(redis=server.url.replace("redis://", "redis://etl:secret@"))
    assert (diagnosis.code, diagnosis.said("keys")["level"]) == (HEALTHY, "note")
    assert "not checked" in diagnosis.said("keys")["text"]
    assert "clocks" in {check["check"] for check in diagnosis.checks}


@pytest.mark.usefixtures("collection")
def test_queue_of_the_wrong_type_is_a_finding(redis_client: redis.Redis, doctor: Doctor) -> None:
    """The names of the queues are in the state of the collection."""
    redis_client.sadd(OWN.queues, "queue:ai_generation:alta")
    redis_client.set("queue:ai_generation:alta", "somebody's")
    assert "queue:ai_generation:alta" in doctor().remedy("keys")
