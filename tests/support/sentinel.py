"""A primary, its replica and three Sentinels on loopback, with passwords."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Final

import redis

from etl.demo import RedisServer
from etl.demo.process import HOST
from tests.support.waiting import eventually

SERVICE: Final = "mymaster"
PASSWORD: Final = "secret of the data"
SENTINEL_PASSWORD: Final = "secret of the Sentinels"
DOWN_SECONDS: Final = 1
"""Seconds without the primary after which the Sentinels elect another one."""


class SentinelServer(RedisServer):
    """A `redis-server --sentinel`; it stores its state in its configuration file."""

    def __init__(self, primary: int) -> None:
        super().__init__()
        self._watched = primary

    def _options(self) -> list[str]:
        path = self.folder / "sentinel.conf"
        if not path.exists():
            lines = [
                *(f"port {self.port}", f"bind {HOST}", f'dir "{self.folder}"'),
                f"sentinel monitor {SERVICE} {HOST} {self._watched} 2",
                f'sentinel auth-pass {SERVICE} "{PASSWORD}"',
                f"sentinel down-after-milliseconds {SERVICE} {DOWN_SECONDS * 1000}",
                f"sentinel failover-timeout {SERVICE} 3000",
                f'requirepass "{SENTINEL_PASSWORD}"',
                f'sentinel sentinel-pass "{SENTINEL_PASSWORD}"',
            ]
            path.write_text("\n".join(lines) + "\n")
        return [str(path), "--sentinel"]


class Watched:
    """The servers; the primary changes."""

    def __init__(self, servers: Mapping[int, RedisServer], sentinels: list[SentinelServer]) -> None:
        self._servers = servers  # by the port that the Sentinels know
        self.servers = list(servers.values())
        self.sentinels = sentinels

    def settings(self) -> dict[str, Any]:
        """The section `redis` of the settings."""
        return {
            "url": f"redis://:{PASSWORD.replace(' ', '%20')}@ignored:1/0",
            "sentinel": {
                "service": SERVICE,
                "nodes": [one.address for one in self.sentinels],
                "password": SENTINEL_PASSWORD,
            },
        }

    def primary(self) -> RedisServer:
        """The server that most of the answering Sentinels report."""
        named = [_named(one) for one in self.sentinels]
        return self._servers[max(set(named), key=named.count)]

    def cut_off(self) -> RedisServer:
        """Stop replication: the replica does not get later writes; returns the replica."""
        primary = self.primary()
        [replica] = [one for one in self.servers if one is not primary]
        with redis.Redis.from_url(replica.url) as client:
            client.config_set("masterauth", "wrong")
        with self.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        return replica

    def client(self) -> redis.Redis:
        """A client of the current primary, to prepare and to inspect, with decoded replies; close it."""
        return redis.Redis.from_url(self.primary().url, decode_responses=True)


@contextmanager
def start_sentinel(
    in_front_of: Callable[[int], AbstractContextManager[int]] = nullcontext,
) -> Iterator[Watched]:
    """Start a primary, a synchronised replica, and Sentinels that know one another, until the block ends.

    `in_front_of` starts a proxy for a port; the Sentinels then report the port of the proxy.
    """
    with ExitStack() as stack:
        options = ("--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0", "--repl-diskless-sync", "yes")
        primary, replica = RedisServer(password=PASSWORD), RedisServer(password=PASSWORD)
        servers = {stack.enter_context(in_front_of(one.port)): one for one in (primary, replica)}
        for port, one in servers.items():
            one.args = (*options, "--replica-announce-port", str(port))
        known = next(iter(servers))
        stack.enter_context(primary)
        replica.args += ("--replicaof", HOST, str(known))
        stack.enter_context(replica)
        client = stack.enter_context(redis.Redis.from_url(replica.url))
        assert eventually(lambda: client.info("replication").get("master_link_status") == "up")
        sentinels = [stack.enter_context(SentinelServer(known)) for _ in range(3)]
        assert eventually(lambda: all(_knows_all(one) for one in sentinels))
        yield Watched(servers, sentinels)


def _named(sentinel: SentinelServer) -> int:
    with _client(sentinel) as client:
        found: Any = client.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)
        return int(found[1])


def _knows_all(sentinel: SentinelServer) -> bool:
    with _client(sentinel) as client:
        state: Any = client.execute_command("SENTINEL MASTER", SERVICE)
    return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)


def _client(sentinel: SentinelServer) -> redis.Redis:
    return redis.Redis.from_url(
        f"redis://:{SENTINEL_PASSWORD.replace(' ', '%20')}@{sentinel.address}", decode_responses=True
    )
