"""Which document filled which key, as the cycles record it: for tests that apply documents themselves."""

from collections.abc import Iterable

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from etl.ownership import Ownership
from etl.reading import Reader
from etl.redis_wire import Wire, open_pool
from schemas.position import id_text
from tests.support.pipeline import NAME
from tests.support.types import Document

_RAW = CodecOptions(document_class=RawBSONDocument)

LONGEST_TTL = 10_800
"""In seconds, of the default settings."""


def record_owners(url: str, collection: Collection[Document], name: str = NAME) -> None:
    """Record every document of the collection as applied, the way it is now."""
    raws = collection.with_options(codec_options=_RAW).find().sort({"updated_at": 1, "_id": 1})
    record(url, (bytes(raw.raw) for raw in raws), name)


def record(url: str, documents: Iterable[bytes], name: str = NAME) -> None:
    """Record these documents (BSON, in order) as applied."""
    readings = Reader("generacion", "updated_at")([*documents])
    owners = {key: reading.position.text() for reading in readings for key in reading.claims}
    filled = {id_text(reading.position.id): reading.fills for reading in readings}
    pool = open_pool(url, 5)
    wire = Wire(pool)
    (seconds, _), *_ = wire.exchange([("TIME",)])
    wire.exchange(Ownership(name, LONGEST_TTL).record(owners, filled, int(seconds) * 1000))
    wire.close()
    pool.disconnect()
