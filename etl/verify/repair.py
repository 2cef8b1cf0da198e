"""The repair of keys that do not match, by the way that every other run writes; and what else is cleared up."""

from collections.abc import Sequence

from etl.cache.inspector import START
from etl.verify.findings import Finding
from etl.verify.recheck import Rechecked, Scope, recheck


def repair(scope: Scope, mismatches: Sequence[Rechecked]) -> list[Rechecked]:
    """Write each key as the documents say that may claim it, and recheck it; one that none claims is removed.

    Raises:
        Interrupted: the command is to stop.
        EtlError: a server stays away, or refuses.
    """
    scope.processor.repair({one.facts.key: one.documents for one in mismatches})
    newest = ((one.facts.key, one.facts.newest) for one in mismatches)
    return recheck(scope, [Finding(key, None, result.id if result else None) for key, result in newest])


def sweep(scope: Scope) -> None:
    """Forget the requests of documents that do not ask for them any more.

    Raises:
        EtlError: a server stays away, or refuses.
    """
    for queue in sorted(scope.stages.store.load().queues):
        cursor = scope.processor.sweep(queue, START)
        while cursor != START:
            cursor = scope.processor.sweep(queue, cursor)
