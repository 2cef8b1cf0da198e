"""A backfill into a single Redis server and into a cluster of three primaries, in turn."""

from typing import Final

from bench.contenders import TWO, Contender, Rounds, Run, backfill, figures_of, once
from bench.meter import Meter
from bench.servers import Bench, Source, Wrong
from tests.support.cluster import Cluster, start_cluster

SINGLE: Final = "single server"
CLUSTER: Final = "cluster of three primaries"


def rounds(bench: Bench, source: Source, count: int) -> Rounds:
    """Measure both `count` times; the CPU time of Redis is that of all primaries together.

    Raises:
        Failed: a command ended with an error.
        Wrong: Redis does not hold the expected number of keys after a run.
    """
    single = backfill(bench, source, TWO)
    found: Rounds = {SINGLE: [], CLUSTER: []}
    with start_cluster() as cluster:
        of_cluster = single._replace(variables={**single.variables, "ETL_REDIS__URL": cluster.url})
        for _ in range(count):
            bench.flush()
            run = _run(Meter(bench.pids), single, source)
            bench.check(source)
            found[SINGLE].append(run)
            found[CLUSTER].append(_run_on(cluster, bench, of_cluster, source))
    return found


def _run_on(cluster: Cluster, bench: Bench, contender: Contender, source: Source) -> Run:
    client = cluster.client()
    client.flushall(target_nodes="primaries")
    pids = {f"redis {number}": node.pid for number, node in enumerate(cluster.primaries)}
    run = _run(Meter({"mongodb": bench.pids["mongodb"], **pids}), contender, source)
    keys = sum(1 for _ in client.scan_iter("ai:*", count=10_000, target_nodes="primaries"))
    client.close()
    if keys != 2 * source.documents:
        raise Wrong(f"{keys} keys of the contract in the cluster, not {2 * source.documents}")
    run["cpu_redis"] = sum(run.pop(f"cpu_{name}") for name in pids)
    return run


def _run(meter: Meter, contender: Contender, source: Source) -> Run:
    return figures_of(source.documents, once(meter, contender), None)
