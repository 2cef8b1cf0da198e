"""Repair of keys that do not match, by the same processor as every other run."""

from collections.abc import Sequence

from etl.cache.inspector import START
from etl.verify.findings import Finding
from etl.verify.recheck import Rechecked, Scope, recheck


def repair_keys(scope: Scope, mismatches: Sequence[Rechecked]) -> list[Rechecked]:
    """Write each key from the documents that may claim it, or remove it if none does, and recheck it.

    Raises:
        Interrupted: the command is to stop.
        EtlError: a server does not answer, or refuses.
    """
    scope.processor.repair({mismatch.facts.key: mismatch.documents for mismatch in mismatches})
    newest = ((mismatch.facts.key, mismatch.facts.newest) for mismatch in mismatches)
    return recheck(scope, [Finding(key, None, result.id if result else None) for key, result in newest])


def sweep_requests(scope: Scope) -> None:
    """Delete the records of queue requests that are not needed any more.

    Raises:
        EtlError: a server does not answer, or refuses.
    """
    for queue in sorted(scope.stages.store.load().queues):
        cursor = scope.processor.sweep(queue, START)
        while cursor != START:
            cursor = scope.processor.sweep(queue, cursor)
