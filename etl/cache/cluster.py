"""Redis Cluster, and a wire that detects whether its server belongs to one."""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.cluster import RedisCluster

from etl.cache import slots
from etl.cache.client import (
    OLDEST,
    Command,
    SentinelService,
    Wire,
    connection_options,
    micros,
    open_pool,
    replication_ids,
    round_trip,
)
from etl.cache.scripts import SCRIPTS
from etl.errors import ConfigurationError, RedisUnavailable

_REDIRECTED: Final = (
    redis.exceptions.MovedError,
    redis.exceptions.AskError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.ReadOnlyError,
)


class ClusterWire(Wire):
    """Sends each command to the node of its slot, in one pipeline per node of a Redis Cluster."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        super().__init__(open_pool(url, timeout_seconds))
        with super()._translated_errors():
            options = connection_options(urlsplit(url).scheme, timeout_seconds)
            del options["retry"]  # the default of redis-py follows redirections
            self._cluster: Any = RedisCluster.from_url(url, **options)

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """As `Wire.exchange`; SCAN iterates over the primaries one after the other."""
        with self._translated_errors():
            if len(commands) == 1 and commands[0][0] == "SCAN":
                return [self._scan(commands[0])]
            pieces = [*slots.pieces(commands)]
            replies = self._ask([piece.command for piece in pieces], [piece.slot for piece in pieces])
        replies_of: list[list[Any]] = [[] for _ in commands]
        for piece, reply in zip(pieces, replies, strict=True):
            replies_of[piece.number].append(reply)
        return [
            slots.joined(command, parts) if parts else []
            for command, parts in zip(commands, replies_of, strict=True)
        ]

    def now(self) -> int:
        """The earliest clock of all primaries, so that a read which starts now is later on each of them."""
        with self._translated_errors():
            return min(micros(round_trip(pool, [("TIME",)])[0]) for pool in self._pools())

    def primaries(self) -> frozenset[str]:
        """As `Wire.primaries`, of all nodes that are primaries."""
        with self._translated_errors():
            return replication_ids(self._pools())

    def nodes(self) -> list[Wire]:
        """As `Wire.nodes`, in the order of their addresses."""
        nodes = sorted(self._cluster.get_nodes(), key=lambda node: str(node.name))
        return [Wire(self._cluster.get_redis_connection(node).connection_pool) for node in nodes]

    def groups(self, keys: Sequence[str], size: int) -> Iterator[Sequence[int]]:
        """As `Wire.groups`; the keys of a group are in one slot."""
        return slots.groups(keys, size)

    def close(self) -> None:
        """Close all connections."""
        super().close()
        self._cluster.close()

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """As `Wire._translated_errors`; if a node does not answer, the topology of the cluster is loaded again."""
        try:
            with super()._translated_errors():
                yield
        except RedisUnavailable:
            with contextlib.suppress(redis.RedisError, OSError):
                self._cluster.nodes_manager.initialize()
            raise

    def _ask(self, commands: Sequence[Command], command_slots: Sequence[int | None]) -> list[Any]:
        """The reply to each command, sent to the node of its slot; redis-py repeats those redirected or unanswered."""
        by_node: dict[Any, list[int]] = {}
        for place, slot in enumerate(command_slots):
            by_node.setdefault(self._node(slot), []).append(place)
        replies: list[Any] = [None] * len(commands)
        for node, places in by_node.items():
            pool = node.redis_connection.connection_pool
            try:
                answers = round_trip(pool, [commands[place] for place in places])
            except (redis.ConnectionError, redis.TimeoutError) as error:
                answers = [error] * len(places)
            for place, answer in zip(places, answers, strict=True):
                replies[place] = answer
        repeated = (*_REDIRECTED, redis.ConnectionError, redis.TimeoutError)
        for place, reply in enumerate(replies):
            if isinstance(reply, repeated):
                replies[place] = self._repeat(commands[place])
            elif isinstance(reply, redis.RedisError):
                raise reply
        return replies

    def _repeat(self, command: Command) -> Any:
        for node in self._cluster.get_nodes():
            # These convert replies, HGETALL to a dict; without them a reply is the same as in a pipeline.
            self._cluster.get_redis_connection(node).response_callbacks.clear()
        try:
            return self._cluster.execute_command(*command)
        except redis.exceptions.NoScriptError:  # on the node that it was redirected to
            for script in SCRIPTS.values():
                self._cluster.script_load(script.source)
            return self._cluster.execute_command(*command)

    def _pools(self) -> list[redis.ConnectionPool]:
        """The connections of each primary."""
        return [node.redis_connection.connection_pool for node in self._cluster.get_primaries()]

    def _node(self, slot: int | None) -> Any:
        if slot is None:
            return self._cluster.get_primaries()[0]
        return self._cluster.nodes_manager.get_node_from_slot(slot)

    def _scan(self, command: Command) -> list[Any]:
        """One step of a scan; its cursor is `<index of the primary>/<cursor of that primary>`."""
        number, _, cursor = str(command[1]).rpartition("/")
        primaries = sorted(self._cluster.get_primaries(), key=lambda node: str(node.name))
        place = int(number or 0)
        if place >= len(primaries):
            return ["0", []]
        pool = primaries[place].redis_connection.connection_pool
        [reply] = round_trip(pool, [("SCAN", cursor, *command[2:])])
        if isinstance(reply, redis.RedisError):
            raise reply
        cursor, keys = reply
        if cursor == "0":
            place += 1
        return ["0" if place == len(primaries) else f"{place}/{cursor}", keys]


class AutoWire(Wire):
    """A wire that detects at its first use whether the server belongs to a cluster."""

    def __init__(self, url: str, timeout_seconds: float, sentinel: SentinelService | None = None) -> None:
        super().__init__(open_pool(url, timeout_seconds, sentinel))
        self._url = url
        self._timeout = timeout_seconds
        self._wire: Wire | None = None
        self._lock = threading.Lock()

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """As `Wire.exchange`."""
        return self._detected().exchange(commands)

    def now(self) -> int:
        """As `Wire.now`."""
        return self._detected().now()

    def primaries(self) -> frozenset[str]:
        """As `Wire.primaries`."""
        return self._detected().primaries()

    def nodes(self) -> list[Wire]:
        """As `Wire.nodes`."""
        return self._detected().nodes()

    def groups(self, keys: Sequence[str], size: int) -> Iterator[Sequence[int]]:
        """As `Wire.groups`."""
        return self._detected().groups(keys, size)

    def close(self) -> None:
        """Close all connections."""
        super().close()
        if self._wire is not None:
            self._wire.close()

    def _detected(self) -> Wire:
        with self._lock:
            if self._wire is None:
                single = Wire(self._pool)
                try:
                    [info] = single.exchange([("INFO", "server")])
                except ConfigurationError:
                    info = ""  # INFO is denied, as on managed servers: assume a single server
                version = re.search(r"redis_version:(\d+)\.(\d+)", info)
                if version and (int(version[1]), int(version[2])) < OLDEST:
                    wanted = ".".join(map(str, OLDEST))
                    raise ConfigurationError(
                        f"Redis at {self.address} is {version[1]}.{version[2]}: it takes {wanted} or newer"
                    )
                is_cluster = "redis_mode:cluster" in info
                self._wire = ClusterWire(self._url, self._timeout) if is_cluster else single
            return self._wire
