"""The recent past of each collection, as the page shows it: runs, dead letters, lengths of queues."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from etl.cache.client import Wire
from etl.cache.keys import StateKeys
from etl.checkpoint.history import History
from etl.errors import EtlError, whereabouts
from etl.model.state import DeadLetter, dead_letter_from_text
from etl.monitoring.health import Glance

RUNS: Final = 60
"""How many runs of a collection are shown."""

NEWEST: Final = 10
"""How many dead letters are named."""

REASONS: Final = 20
"""How many reasons for dead letters are counted apart."""

SAMPLES: Final = 360
"""How many lengths of a queue are kept, one a minute: six hours."""

SAMPLE_SECONDS: Final = 60.0

_SCAN_COUNT: Final = 500  # of a hash that may have 10,000 fields: no reader of Redis waits for it


@dataclass(frozen=True, slots=True)
class Recent:
    """What was read, or why nothing was."""

    collections: Sequence[Mapping[str, Any]] = ()
    error: str | None = None


def recent(read: Callable[[], Sequence[Mapping[str, Any]]]) -> Recent:
    """What `read` returns; an error is part of the answer, as a monitor must go on."""
    try:
        return Recent(read())
    except EtlError as error:
        return Recent(error=str(error))
    except Exception as error:  # noqa: BLE001 (the last resort: one odd key must not blind a monitor)
        return Recent(error=whereabouts(error))


def read_recent(wire: Wire, collections: Mapping[str, StateKeys]) -> list[dict[str, Any]]:
    """The last runs and the dead letters of each collection.

    Raises:
        EtlError: Redis is away, or refuses.
    """
    return [
        {
            "collection": name,
            # A report names some of its dead letters; here they are named once, for all runs.
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
        texts |= zip(found[::2], found[1::2], strict=True)
        if cursor == "0":
            return [dead_letter_from_text(text) for text in texts.values()]


class QueueLengths:
    """The lengths of all queues, looked at once a minute while the daemon lives."""

    def __init__(self, look: Callable[[], Glance], seconds: float = SAMPLE_SECONDS) -> None:
        self._look = look
        self._seconds = seconds
        self._samples: dict[str, deque[tuple[int, int]]] = {}
        self._stopping = threading.Event()
        # A daemon thread: the process ends without waiting for a server.
        self._thread = threading.Thread(target=self._run, name="queues", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Do not look again."""
        self._stopping.set()

    def add(self, glance: Glance) -> None:
        """Note the lengths in a glance."""
        now = round(time.time())
        for queue, length in {q: n for one in glance.collections for q, n in one.queues.items()}.items():
            self._samples.setdefault(queue, deque(maxlen=SAMPLES)).append((now, length))

    def samples(self) -> dict[str, list[tuple[int, int]]]:
        """Of each queue the moments in seconds since the epoch, and how long it was; the oldest first."""
        return {queue: list(samples) for queue, samples in self._samples.copy().items()}

    def _run(self) -> None:
        while True:
            self.add(self._look())
            if self._stopping.wait(self._seconds):
                return
