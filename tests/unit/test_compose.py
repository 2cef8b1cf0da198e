"""The compose file holds what the documentation says of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import etl
from tests.support.daemons import entry_point, health_check

COMPOSE = Path(etl.__file__).parents[1] / "docker-compose.yml"


@pytest.fixture
def services() -> dict[str, Any]:
    """The services of `docker-compose.yml` by name."""
    compose: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return compose["services"]


def test_ports_are_published_on_loopback_only(services: dict[str, Any]) -> None:
    """Servers without passwords are not offered to the network."""
    ports = [port for service in services.values() for port in service.get("ports", ())]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_redis_neither_forgets_nor_evicts(services: dict[str, Any]) -> None:
    """The checkpoint survives a restart and a full memory."""
    command = " ".join(services["redis"]["command"])

    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_daemon_starts_when_both_servers_are_healthy(services: dict[str, Any]) -> None:
    """The daemon waits for a primary and for a Redis that answers, and is told where they are."""
    daemon = services["etl"]

    assert {name: needed["condition"] for name, needed in daemon["depends_on"].items()} == {
        "mongo": "service_healthy",
        "redis": "service_healthy",
    }
    assert all("healthcheck" in services[name] for name in daemon["depends_on"])
    assert daemon["command"] == ["run"]
    assert daemon["environment"].keys() == {
        *("ETL_MONGO__URI", "ETL_MONGO__DATABASE", "ETL_REDIS__URL", "ETL_HTTP__HOST"),
    }


def test_the_daemon_is_asked_how_it_is(services: dict[str, Any]) -> None:
    """Its port is published, and the image asks the product itself."""
    assert services["etl"]["ports"] == ["127.0.0.1:8088:8088"]
    assert health_check() == ["etl", "health"]


def test_the_image_runs_the_command_itself_and_not_as_root() -> None:
    """A shell in between would keep the signals to itself."""
    dockerfile = (COMPOSE.parent / "Dockerfile").read_text("utf-8").splitlines()
    assert "USER etl" in dockerfile
    assert entry_point()[-1] == "etl"
    assert entry_point()[0] == "env"
