"""The expected content of the cache, computed from MongoDB."""

from pymongo.collection import Collection

from schemas.documents import project
from schemas.operations import Enqueue, Evict, Keep, Projection
from tests.support.redis_dump import Contents, canonical
from tests.support.types import Document


def truth(*collections: Collection[Document]) -> Contents:
    """The content for these collections: the greatest `(updated_at, _id)` decides, each request is queued once."""
    contents: Contents = {}
    for collection in collections:
        for document in collection.find().sort({"updated_at": 1, "_id": 1}):
            _apply(contents, document)
    return {key: canonical(key, value) for key, value in contents.items()}


def _apply(contents: Contents, document: Document) -> None:
    projection = project(document, "generacion")
    assert isinstance(projection, Projection), projection
    for entry in projection.entries:
        if isinstance(entry, Keep):
            continue
        if isinstance(entry, Evict):
            contents.pop(entry.key, None)
        elif isinstance(entry, Enqueue):
            queue = contents.setdefault(entry.key, [])
            assert isinstance(queue, list)
            queue.append(entry.item)
        else:
            contents[entry.key] = entry.read
