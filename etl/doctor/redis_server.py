"""Checks of Redis: connection, version, mode, eviction, persistence."""

import re
from collections.abc import Iterator, Mapping

from etl.cache.client import OLDEST, Wire
from etl.doctor.finding import Finding, note, well, wrong
from etl.errors import EtlError


def examine(wire: Wire) -> Iterator[Finding]:
    """Check the server; stop after the connection if it does not answer. A command that is denied is a note."""
    try:
        wire.exchange([("PING",)])
    except EtlError as error:
        remedy = "etl config, and correct redis.url; is the server up?"
        yield wrong("connection", "Redis", str(error), remedy)
        return
    yield well("connection", "Redis", "answers")
    info: Mapping[str, str] = {}
    try:
        info = _fields(wire.exchange([("INFO", "everything")])[0])
        yield _version(info.get("redis_version", ""))
        yield _mode(info)
        yield _eviction(info)
    except EtlError as error:
        yield note("version", "Redis", f"version, mode and eviction not checked: {error}")
    yield _persistence(info, wire)


def clock(wire: Wire) -> float:
    """Seconds since the epoch; raises EtlError."""
    [(seconds, micros)] = wire.exchange([("TIME",)])
    return int(seconds) + int(micros) / 1e6


def _fields(info: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in info.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def _version(text: str) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        return note("version", "Redis", "unknown: INFO does not contain it")
    if (int(found[1]), int(found[2])) >= OLDEST:
        return well("version", "Redis", text)
    wanted = ".".join(map(str, OLDEST))
    return wrong(
        "version",
        "Redis",
        f"{text} is not supported: {wanted} or newer is required",
        "docker compose up --build (it has Redis 7), or upgrade: https://redis.io/docs/latest/operate/",
    )


def _mode(info: Mapping[str, str]) -> Finding:
    if info.get("redis_mode") == "cluster":
        return well("mode", "Redis", "is a cluster")
    if info.get("role") == "slave":
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        return wrong(
            "mode",
            "Redis",
            "is a replica, which accepts no writes",
            f"export ETL_REDIS__URL=redis://{primary}/0",
        )
    return well("mode", "Redis", "accepts writes")


def _eviction(info: Mapping[str, str]) -> Finding:
    policy, limit = info.get("maxmemory_policy", ""), int(info.get("maxmemory", 0))
    if not limit:
        return well("eviction", "Redis", "never evicts: it has no maxmemory")
    if not policy.startswith("allkeys-"):
        return well("eviction", "Redis", f"maxmemory {limit} bytes, {policy}: the checkpoint is safe")
    return wrong(
        "eviction",
        "Redis",
        f"maxmemory {limit} bytes with {policy} may evict the checkpoint and the queues",
        "redis-cli CONFIG SET maxmemory-policy volatile-ttl (or noeviction)",
    )


def _persistence(info: Mapping[str, str], wire: Wire) -> Finding:
    if info.get("aof_enabled") == "1":
        return well("persistence", "Redis", "append-only file")
    try:
        replies = wire.exchange([("CONFIG", "GET", "appendonly"), ("CONFIG", "GET", "save")])
    except EtlError:
        replies = []
    settings = dict(zip(*[iter(word for reply in replies for word in reply)] * 2, strict=True))
    if "save" not in settings:
        text = "CONFIG GET is refused, as on managed servers: check there whether data survives a restart"
        return note("persistence", "Redis", text)
    if settings.get("appendonly") == "yes":
        return well("persistence", "Redis", "append-only file")
    if settings["save"]:
        return well("persistence", "Redis", f"snapshots ({settings['save']})")
    return note("persistence", "Redis", "no data survives a restart: the next cycle is then a cold start")
