"""Four concurrent processors on real servers: the same pages twice, late and in any order."""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient
from pymongo.collection import Collection

from etl.cache.client import Wire, open_pool
from etl.cache.cluster import ClusterWire
from etl.model.result import TransformResult
from etl.mongo.reader import MongoReader
from schemas.documents import project
from schemas.ids import id_text
from schemas.operations import Keep, Projection
from schemas.position import FIRST, LAST
from tests.property.test_model import LONG, THOROUGH
from tests.support.assembly import FIELD, NAME, ImmediateRetry, assemble
from tests.support.redis_dump import held
from tests.support.slots import SLOTS, Slot
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.versions import at_ms

WRITERS = 4

contents = [(slot, content) for slot in SLOTS for content in slot.contents if content != "bad"]
versions = st.tuples(st.sampled_from(contents), st.integers(0, 40))
histories = st.lists(versions, min_size=8, max_size=25)

Page = tuple[int, Sequence[TransformResult]]


@pytest.fixture(params=["single", "cluster"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Wire]]:
    """A client of a Redis, and a wire to it."""
    if request.param == "single":
        client, wire = (
            request.getfixturevalue("redis_client"),
            Wire(open_pool(request.getfixturevalue("redis_url"), 5)),
        )
    else:
        client = request.getfixturevalue("cluster_client")
        wire = ClusterWire(request.getfixturevalue("shared_cluster").url, 5)
    with closing(wire):
        yield client, wire


@pytest.mark.slow
@given(first=histories, second=histories, seed=st.integers(0, 2**32))
@settings(
    max_examples=400 if THOROUGH else 30 if LONG else 6,
    deadline=None,
    derandomize=not THOROUGH,
    suppress_health_check=list(HealthCheck),
)
def test_four_concurrent_writers_agree_with_the_documents(
    mongo_client: MongoClient[Document],
    collection: Collection[Document],
    server: tuple[Any, Wire],
    first: list[tuple[tuple[Slot, str], int]],
    second: list[tuple[tuple[Slot, str], int]],
    seed: int,
) -> None:
    """Old and new pages, while documents are changed, moved, evicted and deleted."""
    collection.delete_many({})
    client, wire = server
    client.flushdb()
    random_source = random.Random(seed)
    source = MongoReader(mongo_client, collection.database.name, NAME)
    source.prepare()
    stages = [assemble(source, wire, retry=ImmediateRetry()) for _ in range(WRITERS)]
    pages: list[Page] = []
    dates: set[tuple[str, int]] = set()

    def read() -> None:
        size = random_source.randint(1, 6)
        read_at = stages[0].processor.now()
        results = stages[0].transform(source.page(FIRST, LAST, 1_000).documents)
        pages.extend((read_at, results[start : start + size]) for start in range(0, len(results), size))

    def write(history: list[tuple[tuple[Slot, str], int]]) -> None:
        for number, ((slot, content), ms) in enumerate(history):
            while (
                id_text(slot.id),
                ms,
            ) in dates:  # every write of a document moves its date, forward or back
                ms += 1  # noqa: PLW2901
            dates.add((id_text(slot.id), ms))
            moment = {FIELD: at_ms(1_750_000_000_000 + ms)}
            collection.replace_one({"_id": slot.id}, slot.document(content, number) | moment, upsert=True)
            if random_source.random() < 0.1:
                read()
        read()

    write(first)
    _run_concurrently(_shuffled(stages, pages * 2, random_source))
    write(second)
    deleted = random_source.choice(SLOTS)
    collection.delete_one({"_id": deleted.id})
    _run_concurrently(_shuffled(stages, pages * 2, random_source))

    # Pages do not show a deletion, but a follower does.
    processor = stages[0].processor
    read_at, results = processor.read([id_text(deleted.id)])
    processor.process(results, read_at, remember_from=None, skip_done=False)
    expected, found = truth(collection), held(client)
    for queue in {key for key in {*expected, *found} if key.startswith("queue:")}:
        assert set(expected.pop(queue, [])) <= set(found.pop(queue, [])), queue
    # The content that a document wrote before it became pending may remain.
    for key in _kept(collection):
        expected.pop(key, None)
        found.pop(key, None)
    assert found == expected


def _kept(collection: Collection[Document]) -> set[str]:
    """The keys that documents keep."""
    projections = [project(document, "generacion") for document in collection.find()]
    entries = [entry for one in projections if isinstance(one, Projection) for entry in one.entries]
    return {entry.key for entry in entries if isinstance(entry, Keep)}


def _shuffled(
    stages: Sequence[Any], pages: Sequence[Page], random_source: random.Random
) -> list[Callable[[], Any]]:
    """The same pages for several writers, each in another order: one writes all, the others some."""
    counts = [len(pages), *(random_source.randint(1, len(pages)) for _ in stages[1:])]
    return [
        _writer(one, random_source.sample([*pages], count)) for one, count in zip(stages, counts, strict=True)
    ]


def _writer(stages: Any, pages: Sequence[Page]) -> Callable[[], None]:
    """A function that writes these pages."""

    def run() -> None:
        for read_at, page in pages:
            stages.processor.process(page, read_at, remember_from=None, skip_done=False)

    return run


def _run_concurrently(tasks: Sequence[Callable[[], Any]]) -> None:
    """Run all tasks, started together."""
    barrier = threading.Barrier(len(tasks))

    def begin(task: Callable[[], Any]) -> None:
        barrier.wait(10)
        task()

    with ThreadPoolExecutor(len(tasks)) as executor:
        for done in [executor.submit(begin, task) for task in tasks]:
            done.result(60)
