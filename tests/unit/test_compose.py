"""The compose files agree with the documentation."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import etl
from etl.mongo.indexes import missing
from etl.settings import Settings
from tests.support.daemons import entry_point, health_check

COMPOSE = Path(etl.__file__).parents[1] / "docker-compose.yml"


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of `docker-compose.yml` by name."""
    compose: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return compose["services"]


def test_ports_are_published_on_loopback_only(services: dict[str, Any]) -> None:
    """The servers have no passwords."""
    ports = [port for service in services.values() for port in service.get("ports", ())]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_redis_persists_and_does_not_evict(services: dict[str, Any]) -> None:
    """So the checkpoint survives a restart and full memory."""
    command = " ".join(services["redis"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_daemon_starts_when_both_servers_are_healthy(services: dict[str, Any]) -> None:
    daemon = services["etl"]

    assert {name: needed["condition"] for name, needed in daemon["depends_on"].items()} == {
        "mongo": "service_healthy",
        "redis": "service_healthy",
        "index": "service_completed_successfully",
    }
    assert all("healthcheck" in services[name] for name in ("mongo", "redis"))
    assert daemon["command"] == ["run"]
    assert daemon["environment"].keys() == {
        *("ETL_MONGO__URI", "ETL_MONGO__DATABASE", "ETL_REDIS__URL", "ETL_HTTP__HOST"),
        "ETL_SCHEDULE__CYCLE_SECONDS",
    }


def test_cycle_interval_comes_from_the_environment(services: dict[str, Any]) -> None:
    """So that a new user need not wait 11 minutes. The default is that of the settings."""
    given = services["etl"]["environment"]["ETL_SCHEDULE__CYCLE_SECONDS"]
    assert given == f"${{ETL_SCHEDULE__CYCLE_SECONDS:-{Settings().schedule.cycle_seconds}}}"


def test_index_is_the_one_that_the_daemon_suggests(services: dict[str, Any]) -> None:
    """Word for word; it is created once, when there is a primary."""
    settings = Settings()
    namespace = f"{settings.mongo.database}.{settings.collections[0].name}"
    asked = missing(namespace, settings.collections[0].timestamp_field).remedy
    assert services["index"]["command"][-1] == asked
    for page in ("README.md", "README.es.md", "docs/operations.md", "docs/es/operacion.md"):
        text = " ".join((COMPOSE.parent / page).read_text("utf-8").split())
        assert str(asked) in text, page
    assert services["index"]["depends_on"] == {"mongo": {"condition": "service_healthy"}}
    assert services["index"]["restart"] == "on-failure"


def test_daemon_is_confined_and_limited(services: dict[str, Any]) -> None:
    """Read-only root, no capabilities; limits of memory, CPUs and processes; logs rotate."""
    daemon = services["etl"]
    assert (daemon["read_only"], daemon["tmpfs"], daemon["cap_drop"]) == (True, ["/tmp"], ["ALL"])  # noqa: S108
    assert daemon["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit"} <= daemon.keys()
    for service in services.values():
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_daemon_has_a_health_check(services: dict[str, Any]) -> None:
    """Its port is published, and the image runs `etl health`."""
    assert services["etl"]["ports"] == ["127.0.0.1:8088:8088"]
    assert health_check() == ["etl", "health"]


def test_image_runs_etl_without_shell_and_root() -> None:
    """A shell in between would not forward signals."""
    dockerfile = (COMPOSE.parent / "Dockerfile").read_text("utf-8").splitlines()
    assert "USER 10001" in dockerfile
    assert entry_point()[-1] == "etl"
    assert entry_point()[0] == "env"


class _ComposeLoader(yaml.SafeLoader):
    """Accepts the tags of compose."""


def _mapping(loader: yaml.SafeLoader, node: Any) -> Any:
    return loader.construct_mapping(node, deep=True)


_ComposeLoader.add_constructor("!override", _mapping)


def test_cluster_has_three_primaries_with_a_replica_each() -> None:
    """Every node persists and does not evict; the daemon starts when all slots are served."""
    text = COMPOSE.with_name("docker-compose.cluster.yml").read_text("utf-8")
    services = yaml.load(text, _ComposeLoader)["services"]  # noqa: S506 (a safe loader)
    nodes = {name: one for name, one in services.items() if re.fullmatch(r"redis-\d", name)}
    assert len(nodes) == 6
    for node in nodes.values():
        command = " ".join(node["command"])
        assert "--cluster-enabled yes" in command
        assert "--appendonly yes" in command
        assert "--maxmemory-policy noeviction" in command
        assert "ports" not in node
    # The nodes save each other's addresses: if these changed after `down` and `up`, all slots would stay unserved.
    addresses = {node["networks"]["default"]["ipv4_address"] for node in nodes.values()}
    assert len(addresses) == 6
    created = services["redis-cluster"]
    assert "--cluster-replicas 1" in created["command"][-1]
    assert created["depends_on"].keys() == nodes.keys()
    daemon = services["etl"]
    assert daemon["environment"] == {"ETL_REDIS__URL": "redis://redis-1:6379"}
    assert daemon["depends_on"].keys() == {"mongo", "index", "redis-cluster"}
