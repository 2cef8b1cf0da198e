"""The recent history of each collection for the page: runs, dead letters, queue lengths."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from etl.cache.client import Wire, mapping
from etl.cache.keys import StateKeys
from etl.checkpoint.history import History
from etl.errors import EtlError, error_location
from etl.model.state import DeadLetter, dead_letter_from_text
from etl.monitoring.health import HealthSnapshot

RUNS: Final = 60
"""Number of runs per collection."""

NEWEST: Final = 10
"""Number of dead letters listed."""

REASONS: Final = 20
"""Number of distinct reasons counted."""

SAMPLES: Final = 360
"""Number of samples per queue, one per minute: six hours."""

SAMPLE_SECONDS: Final = 60.0

_SCAN_COUNT: Final = 500  # of a hash that may have 10,000 fields: no reader of Redis waits for it


@dataclass(frozen=True, slots=True)
class Recent:
    """The history, or why it could not be read."""

    collections: Sequence[Mapping[str, Any]] = ()
    error: str | None = None


def recent(read: Callable[[], Sequence[Mapping[str, Any]]]) -> Recent:
    """The result of `read`, or its error."""
    try:
        return Recent(read())
    except EtlError as error:
        return Recent(error=str(error))
    except Exception as error:  # noqa: BLE001 (last resort: one unexpected key must not hide everything)
        return Recent(error=error_location(error))


def read_recent(wire: Wire, collections: Mapping[str, StateKeys]) -> list[dict[str, Any]]:
    """The last runs and the dead letters of each collection.

    Raises:
        EtlError: Redis does not answer, or refuses.
    """
    return [
        {
            "collection": name,
            # Dead letters are listed once for all runs, not per report.
            "runs": [
                {field: value for field, value in run.items() if field != "dead_letters"}
                for run in History(wire, keys).newest(RUNS)
            ],
            "dead_letters": _dead_letters(wire, keys),
        }
        for name, keys in collections.items()
    ]


def _dead_letters(wire: Wire, keys: StateKeys) -> dict[str, Any]:
    letters = _read_dead_letters(wire, keys)
    reasons = Counter((letter.reason, tuple(sorted({e.field for e in letter.errors}))) for letter in letters)
    newest = sorted(letters, key=lambda letter: (letter.first_seen, letter.id), reverse=True)[:NEWEST]
    return {
        "count": len(letters),
        "reasons": [
            {"reason": reason, "fields": fields, "count": count}
            for (reason, fields), count in reasons.most_common(REASONS)
        ],
        "newest": [letter.as_dict() for letter in newest],
    }


def _read_dead_letters(wire: Wire, keys: StateKeys) -> list[DeadLetter]:
    key, cursor, texts = keys.dead_letters, "0", dict[str, str]()
    while True:
        [(cursor, found)] = wire.exchange([("HSCAN", key, cursor, "COUNT", _SCAN_COUNT)])
        texts |= mapping(found)
        if cursor == "0":
            return [dead_letter_from_text(text) for text in texts.values()]


class QueueLengths:
    """The lengths of all queues, sampled once a minute."""

    def __init__(self, read: Callable[[], HealthSnapshot], seconds: float = SAMPLE_SECONDS) -> None:
        self._read = read
        self._seconds = seconds
        self._samples: dict[str, deque[tuple[int, int]]] = {}
        self._stopping = threading.Event()
        # A daemon thread: the process ends without waiting for a server.
        self._thread = threading.Thread(target=self._run, name="queues", daemon=True)

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._stopping.set()

    def add(self, snapshot: HealthSnapshot) -> None:
        """Add a sample."""
        now = round(time.time())
        for queue, length in {q: n for one in snapshot.collections for q, n in one.queues.items()}.items():
            self._samples.setdefault(queue, deque(maxlen=SAMPLES)).append((now, length))

    def samples(self) -> dict[str, list[tuple[int, int]]]:
        """Per queue the samples: seconds since the epoch and length, the oldest first."""
        return {queue: list(samples) for queue, samples in self._samples.copy().items()}

    def _run(self) -> None:
        while True:
            self.add(self._read())
            if self._stopping.wait(self._seconds):
                return
