"""The documents of the benchmark."""

from collections import Counter
from itertools import pairwise

import bson
import pytest

from bench.documents import LARGE, MEAN_BYTES, PLAIN, SHARED, document, documents
from schemas.codec import DECODING
from schemas.documents import project
from schemas.operations import Projection
from schemas.position import position_in


def test_documents_have_820_bytes_on_average() -> None:
    """Within two per cent; each has three messages."""
    some = list(documents(0, 5_000))

    mean = sum(len(bson.encode(each)) for each in some) / len(some)
    assert abs(mean - MEAN_BYTES) < MEAN_BYTES * 0.02
    assert {len(each["mensajes"]) for each in some} == {3}


def test_number_determines_the_document() -> None:
    """So a collection may be filled in steps."""
    assert [*documents(0, 300), *documents(300, 700)] == list(documents(0, 700))
    assert document(1) != document(2)


def test_plain_documents_are_valid_and_claim_different_keys() -> None:
    """Two keys each, also after the numbers of campaigns have wrapped around."""
    keys = []
    for each in (*documents(0, 3_000), *documents(998_000, 1_000_000)):
        projection = project(bson.decode(bson.encode(each), DECODING), "generacion")
        assert isinstance(projection, Projection), projection
        keys += [entry.key for entry in projection.entries]

    assert len(set(keys)) == len(keys) == 10_000


def test_documents_are_in_order_and_some_share_a_timestamp() -> None:
    """Fifty of each thousand share one."""
    some = list(documents(0, 2_000))

    positions = [position_in(bson.encode(each), "updated_at").order() for each in some]
    assert all(one < other for one, other in pairwise(positions))
    assert len({each["updated_at"] for each in some}) == 2_000 - 2 * 49


def test_large_documents_have_12_kb_outside_the_contract() -> None:
    """Their keys and values are those of plain ones."""
    plain, large = (bson.encode(document(7, shape)) for shape in (PLAIN, LARGE))

    assert len(large) - len(plain) == pytest.approx(12_000, rel=0.02)
    one, other = (project(bson.decode(raw, DECODING), "generacion") for raw in (plain, large))
    assert one == other


def test_shared_shape_has_a_hundred_documents_per_key() -> None:
    """Consecutive documents do not share keys; `newest` gives the last document of a key."""
    newest: dict[str, int] = {}
    claims: Counter[str] = Counter()
    for number, each in enumerate(documents(0, 20_000, SHARED)):
        name = f"{each['campana_id']} {each['segmento']}"
        newest[name] = number
        claims[name] += 1

    assert set(claims.values()) == {100}
    assert len({each["campana_id"] for each in documents(0, 100, SHARED)}) == 100
    names = [f"{each['campana_id']} {each['segmento']}" for each in documents(0, 300, SHARED)]
    assert [SHARED.newest(number, 20_000) for number in range(300)] == [newest[name] for name in names]
