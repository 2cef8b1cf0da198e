"""The source of a checkpoint: a checkpoint of another source is refused, one of a recreated collection discarded."""

import logging
from dataclasses import replace

from etl import logs
from etl.errors import ConfigurationError, CycleFailed
from etl.interfaces import Stages
from etl.model.scan import Origin
from etl.model.state import State

_log = logging.getLogger("etl")


def load_state(stages: Stages, token: str) -> tuple[State, Origin]:
    """Load the state of the collection, without checkpoint if the collection was dropped and created again.

    Raises:
        ConfigurationError: the checkpoint belongs to another database, collection or timestamp field.
        CycleFailed: the collection does not exist any more.
        EtlError: a server does not answer, or refuses.
    """
    state = stages.store.load()
    stages.retry(stages.reader.prepare)
    origin = Origin(stages.source, stages.retry(stages.reader.identity) or "")
    known = state.origin
    if known == origin:
        return state, origin
    _refuse_other(known, origin.source)
    if known is not None and known.uuid:
        if not origin.uuid:
            if stages.retry(stages.reader.count):  # it exists, but the user may not list collections any more
                return state, known
            raise CycleFailed(
                f"{origin.source}: the collection is gone (dropped or renamed); once it exists, a run reads all of it"
            )
        text = "the collection was dropped and created again: everything is read once (a cold start)"
        _log.warning(text, extra=logs.event("recreated"))
        state = replace(state, checkpoint=None)
    if known is None or state.checkpoint is None:
        stages.store.identify(token, origin)
    return state, origin


def refuse_other_source(stages: Stages) -> None:
    """Refuse to work on a collection whose state in Redis belongs to another source.

    Raises:
        ConfigurationError: it belongs to another database, collection or timestamp field.
        EtlError: Redis does not answer, or refuses.
    """
    _refuse_other(stages.store.load().origin, stages.source)


def _refuse_other(known: Origin | None, source: str) -> None:
    if known is not None and known.source != source:
        raise ConfigurationError(
            f"its state in Redis is about {known.source}, not {source}: set `namespace` to keep two sources"
            " apart, or remove that state with etl purge"
        )


def check_origin(stages: Stages, origin: Origin) -> None:
    """Check that the collection is still the one that was read.

    Raises:
        CycleFailed: it was dropped, renamed or created again meanwhile.
    """
    if origin.uuid and stages.retry(stages.reader.identity) != origin.uuid:
        raise CycleFailed(
            f"{origin.source}: the collection was dropped, renamed or created again while it was read;"
            " the next run reads all of it"
        )
