"""Checks of Redis: connection, version, mode, eviction, persistence."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from etl.cache.client import OLDEST, Wire
from etl.doctor.finding import Finding, note, ok, problem
from etl.errors import EtlError, RedisUnavailable

SLOTS: Final = 16_384


def examine(wire: Wire) -> Iterator[Finding]:
    """Check the server, or each node of a cluster; stop after the connection if it does not answer.

    A command that is denied is a note.
    """
    try:
        wire.exchange([("PING",)])
    except EtlError as error:
        remedy = "etl config, and correct redis.url; is the server up?"
        yield problem("connection", "Redis", str(error), remedy)
        return
    yield ok("connection", "Redis", "answers")
    nodes = wire.nodes()
    clusters: list[Mapping[str, str]] = []
    for node in nodes:
        subject = "Redis" if len(nodes) == 1 else f"Redis {node.address}"
        info: Mapping[str, str] = {}
        try:
            info = _fields(node.exchange([("INFO", "everything")])[0])
            yield _version(subject, info.get("redis_version", ""))
            if info.get("redis_mode") == "cluster":
                clusters.append(_fields(node.exchange([("CLUSTER", "INFO")])[0]))
            else:
                yield _mode(subject, info)
            yield _eviction(subject, info)
        except EtlError as error:
            yield note("version", subject, f"version, mode and eviction not checked: {error}")
            if isinstance(error, RedisUnavailable):
                continue
        yield _persistence(subject, info, node)
    if clusters:
        yield _slots(clusters, len(nodes))


def _fields(info: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in info.splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in pairs if colon}


def _version(subject: str, text: str) -> Finding:
    found = re.match(r"(\d+)\.(\d+)", text)
    if found is None:
        return note("version", subject, "unknown: INFO does not contain it")
    if (int(found[1]), int(found[2])) >= OLDEST:
        return ok("version", subject, text)
    wanted = ".".join(map(str, OLDEST))
    return problem(
        "version",
        subject,
        f"{text} is not supported: {wanted} or newer is required",
        "docker compose up --build (it has Redis 7), or upgrade: https://redis.io/docs/latest/operate/",
    )


def _mode(subject: str, info: Mapping[str, str]) -> Finding:
    if info.get("role") == "slave":
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        return problem(
            "mode",
            subject,
            "is a replica, which accepts no writes",
            f"export ETL_REDIS__URL=redis://{primary}/0",
        )
    return ok("mode", subject, "accepts writes")


def _slots(reports: Sequence[Mapping[str, str]], nodes: int) -> Finding:
    """Judge by the node that reports the fewest served slots."""
    served = min((int(report.get("cluster_slots_ok", 0)) for report in reports), default=0)
    if served == SLOTS:
        return ok("slots", "Redis", f"a cluster of {nodes} nodes, which serve all {SLOTS} slots")
    text = f"a cluster of {nodes} nodes, which serve {served} of {SLOTS} slots: keys in the others cannot be written"
    return problem("slots", "Redis", text, "redis-cli --cluster fix HOST:PORT")


def _eviction(subject: str, info: Mapping[str, str]) -> Finding:
    policy, limit = info.get("maxmemory_policy", ""), int(info.get("maxmemory", 0))
    if not limit:
        return ok("eviction", subject, "never evicts: it has no maxmemory")
    if not policy.startswith("allkeys-"):
        return ok("eviction", subject, f"maxmemory {limit} bytes, {policy}: the checkpoint is safe")
    return problem(
        "eviction",
        subject,
        f"maxmemory {limit} bytes with {policy} may evict the checkpoint and the queues",
        "redis-cli CONFIG SET maxmemory-policy volatile-ttl (or noeviction)",
    )


def _persistence(subject: str, info: Mapping[str, str], wire: Wire) -> Finding:
    if info.get("aof_enabled") == "1":
        return ok("persistence", subject, "append-only file")
    try:
        replies = wire.exchange([("CONFIG", "GET", "appendonly"), ("CONFIG", "GET", "save")])
    except EtlError:
        replies = []
    settings = dict(zip(*[iter(word for reply in replies for word in reply)] * 2, strict=True))
    if "save" not in settings:
        text = "CONFIG GET is refused, as on managed servers: check there whether data survives a restart"
        return note("persistence", subject, text)
    if settings.get("appendonly") == "yes":
        return ok("persistence", subject, "append-only file")
    if settings["save"]:
        return ok("persistence", subject, f"snapshots ({settings['save']})")
    return note("persistence", subject, "no data survives a restart: the next cycle is then a cold start")
