"""The kind of the example package: installed with pip, and used by every command."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from pymongo.collection import Collection

from tests.support.command import Etl, StartEtl
from tests.support.daemons import every, is_ready, url_of
from tests.support.http import get
from tests.support.redis_dump import entries
from tests.support.types import Document
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Variables for a process to find the package, which is installed in a temporary folder."""
    source, target = tmp_path_factory.mktemp("source") / "plantillas", tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "examples" / "plantillas", source, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": os.pathsep.join((str(target), str(ROOT)))}


def template(name: str, **changes: object) -> Document:
    """A document of that kind."""
    return {
        "tipo": "plantilla",
        "nombre": name,
        "texto": "hola",
        "usos": 2.0,
        "updated_at": datetime.now(UTC),
    } | changes


def test_every_command_supports_the_kind_of_an_installed_package(
    etl: Etl, collection: Collection[Document], redis_client: redis.Redis, installed: Mapping[str, str]
) -> None:
    """Without a setting; the TTL of its family can be set."""
    collection.insert_many([template("a b", _id=1), template("c", _id=2), template("d", _id=3, texto=7)])
    settings = {**installed, "ETL_FAMILIES": '{"ai:template": {"ttl": 600, "refresh_seconds": 500}}'}
    assert etl("sync", **settings).code == 0
    entry = {"type": "hash", "ttl": pytest.approx(600, abs=60), "value": {"texto": "hola", "usos": "2"}}
    own = {"ai:template:a%20b": entry, "ai:template:c": entry}
    assert entries(redis_client) == own
    assert etl("show", "ai:template", "a b", "--json", **settings).json["family"] == "ai:template"
    redis_client.delete("ai:template:c")
    refreshed = etl("refresh", "ai:template", "c", "--json", **settings)
    assert refreshed.json["written"] == 1
    verified = etl("verify", "promptContent", "--json", **settings)
    assert (verified.code, verified.json["matching"], verified.json["invalid"]) == (0, 2, 1)
    traced = etl("trace", "promptContent", "3", "--json", **settings)
    assert traced.json["errors"] == [{"field": "texto", "problem": "should be text"}]
    config = etl("config", "--json", **settings).json["settings"]
    assert {"path": "families.ai:template.ttl", "value": 600, "source": "environment ETL_FAMILIES"} in config


def test_kind_is_unknown_without_the_package(
    etl: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The document is a dead letter."""
    collection.insert_one(template("a"))
    assert etl("sync", "--json").json["collections"][0]["dead_lettered"] == 1
    assert not redis_client.exists("ai:template:a")


def test_workers_support_the_kinds_of_the_settings(
    etl: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """A module in the setting `kinds`, without a package."""
    collection.insert_many([template(f"n{n}") for n in range(2500)])
    settings = {
        "ETL_KINDS": '["acme_plantillas"]',
        "PYTHONPATH": os.pathsep.join((str(ROOT / "examples" / "plantillas"), str(ROOT))),
    }
    done = etl("backfill", "promptContent", "--workers", "2", "--json", **settings)
    assert (done.code, done.json["dead_lettered"]) == (0, 0)
    assert "without workers" not in done.err
    assert sum(1 for _ in redis_client.scan_iter("ai:template:*", count=1000)) == 2500


def test_metrics_of_the_daemon_have_the_family_of_the_kind(
    start_etl: StartEtl, collection: Collection[Document], installed: Mapping[str, str]
) -> None:
    """From the start."""
    collection.insert_one(template("a"))
    settings = every(60)
    start_etl("run", **settings, **installed)
    assert eventually(lambda: is_ready(url_of(settings)))
    assert 'family="ai:template"' in get(f"{url_of(settings)}/metrics").text
