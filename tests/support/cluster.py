"""A Redis Cluster on loopback: three primaries, optionally with a replica each."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Final

import redis
from redis.cluster import RedisCluster

from etl.demo import RedisServer
from tests.support.redis_dump import Contents, held
from tests.support.waiting import eventually

_SLOTS: Final = 16_384
# A replica takes over even if it had no contact to its primary for long, because tests freeze it.
_OPTIONS: Final = (
    *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendonly", "no"),
    *("--cluster-replica-validity-factor", "0"),
)


class Cluster:
    """The nodes: the primaries, then the replicas in the same order."""

    def __init__(self, nodes: Sequence[RedisServer], primaries: int) -> None:
        self.nodes = nodes
        self.primaries = nodes[:primaries]
        self.replicas = nodes[primaries:]

    @property
    def url(self) -> str:
        """The address of one node."""
        return f"redis://{self.nodes[0].address}"

    def client(self) -> Any:
        """A client of the whole cluster, to prepare and to inspect, with decoded replies."""
        return RedisCluster.from_url(self.url, decode_responses=True)

    def migrate(self, slot: int, here: int, there: int) -> int:
        """Move a slot from one primary to another, key by key, as `redis-cli --cluster reshard` does.

        Returns:
            The number of moved keys.
        """
        moved = 0
        with ExitStack() as stack:
            clients: list[Any] = [
                stack.enter_context(redis.Redis.from_url(f"redis://{node.address}", decode_responses=True))
                for node in self.primaries
            ]
            names = [str(client.execute_command("CLUSTER MYID")) for client in clients]
            clients[there].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[here])
            clients[here].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[there])
            host, port = self.primaries[there].address.split(":")
            while keys := clients[here].execute_command("CLUSTER GETKEYSINSLOT", slot, 10):
                for key in keys:
                    moved += clients[here].execute_command("MIGRATE", host, port, key, 0, 5000) is not None
            for client in (clients[there], clients[here], *clients):
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[there])
        return moved

    def held(self) -> Contents:
        """See `redis_dump.held`."""
        with self.client() as client:
            return held(client)


@contextmanager
def start_cluster(
    primaries: int = 3,
    replicas: int = 0,
    in_front_of: Callable[[int], AbstractContextManager[int]] = nullcontext,
) -> Iterator[Cluster]:
    """Start a cluster with evenly distributed slots until the block ends.

    `in_front_of` starts a proxy for a port; the nodes then announce the port of the proxy.
    """
    with ExitStack() as stack:
        count = primaries * (1 + (1 if replicas else 0))
        nodes = [RedisServer() for _ in range(count)]
        for node in nodes:
            announced = str(stack.enter_context(in_front_of(node.port)))
            bus = str(node.port + 10_000)
            node.args = (*_OPTIONS, "--cluster-announce-port", announced, "--cluster-announce-bus-port", bus)
            stack.enter_context(node)
        clients: list[Any] = [
            stack.enter_context(redis.Redis.from_url(f"redis://{node.address}", decode_responses=True))
            for node in nodes
        ]
        for number, client in enumerate(clients[:primaries]):
            first, last = number * _SLOTS // primaries, (number + 1) * _SLOTS // primaries
            client.execute_command("CLUSTER ADDSLOTS", *range(first, last))
        host, port = nodes[0].address.split(":")
        for client in clients[1:]:
            client.execute_command("CLUSTER MEET", host, port)
        known = [str(client.execute_command("CLUSTER MYID")) for client in clients]
        assert eventually(lambda: all(len(_nodes(client)) == count for client in clients))
        for number, client in enumerate(clients[primaries:]):
            client.execute_command("CLUSTER REPLICATE", known[number])
        assert eventually(lambda: all(_is_ok(client) for client in clients))
        # A replica that has not copied its primary yet is never elected.
        assert eventually(lambda: all(_is_linked(client) for client in clients[primaries:]))
        yield Cluster(nodes, primaries)


def _nodes(client: Any) -> Any:
    return client.execute_command("CLUSTER NODES")


def _is_linked(client: Any) -> bool:
    return bool(client.info("replication").get("master_link_status") == "up")


def _is_ok(client: Any) -> bool:
    info: Any = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok")
