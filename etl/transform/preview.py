"""A document and its effect on the cache, for `etl try`; pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import bson
from bson import json_util

from etl.model.result import MAPPING_ERRORS, TransformResult
from schemas.codec import LENIENT
from schemas.ids import id_from_text, readable_id
from schemas.operations import Put


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a document on one key."""

    key: str
    does: str
    """`fills`, `evicts`, `queues` or `keeps`."""
    ttl: int | None = None
    """The TTL of a filled key in seconds."""
    value: Any = None
    """The hash or list that fills the key, or the request that is queued."""


@dataclass(frozen=True, slots=True)
class Preview:
    """One document, its fields of the contract, and its effects on the cache."""

    id: str
    document: Mapping[str, Any]
    """The document in MongoDB, in relaxed Extended JSON."""
    fields: Mapping[str, Any]
    """The fields of the contract as they are read: mapped."""
    effects: list[Effect] = field(default_factory=list)
    lock: str | None = None
    """The key of the lock that defers it."""
    reason: str | None = None
    """Why the document is invalid; None if it is valid."""
    errors: list[Mapping[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The preview as `etl try --json` prints it."""
        return asdict(self)


def preview(whole: bytes, mapped: bytes, result: TransformResult, ttls: Mapping[str, int | None]) -> Preview:
    """The preview of a document.

    Args:
        whole: the document with all its fields.
        mapped: the document as it is read: fields of the contract, mapped.
        result: the result of its transform.
        ttls: the TTL of each family in seconds.
    """
    puts = (
        Effect(one.key, "fills", ttls[one.family], one.read)
        if isinstance(one, Put)
        else Effect(one.key, "evicts")
        for one in result.writes
    )
    queues = (Effect(one.key, "queues", value=one.item) for one in result.pushes)
    keeps = (Effect(one.key, "keeps") for one in result.keeps)
    reject = result.reject
    fields = {name: value for name, value in _shown(mapped).items() if name != MAPPING_ERRORS}
    return Preview(
        id=readable_id(id_from_text(result.id)),
        document=_shown(whole),
        fields={} if MAPPING_ERRORS in _shown(mapped) else fields,
        effects=[*puts, *queues, *keeps],
        lock=result.lock,
        reason=None if reject is None else reject.reason,
        errors=[] if reject is None else [error._asdict() for error in reject.errors],
    )


def _shown(raw: bytes) -> Mapping[str, Any]:
    """A document in relaxed Extended JSON; empty if it cannot be decoded."""
    try:
        decoded = bson.decode(raw, LENIENT)
    except (bson.errors.BSONError, ValueError, OverflowError):
        return {}
    shown: Mapping[str, Any] = json.loads(
        json_util.dumps(decoded, json_options=json_util.RELAXED_JSON_OPTIONS)
    )
    return shown
