"""What a verification has found so far, key by key: in memory while it is small, on disk beyond.

The documents come in ascending order, so what is noted last of a key is what its newest document says.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from etl.verify.classify import Name

_CACHE_KIB: Final = 16 * 1024
_KEYS_A_QUESTION: Final = 500


class Suspect(NamedTuple):
    """A key to look at again."""

    key: str
    document: str
    """The `_id`, as canonical Extended JSON, of the newest document that claims it, or of its owner."""


class Note(NamedTuple):
    """What was found of a key. Without a verdict it is suspect, and `document` is given."""

    key: str
    verdict: Name | None
    document: str | None = None


class Ledger:
    """That of one run. Keys are told apart by their hash, of 64 bits in this process. Close it."""

    def __init__(self) -> None:
        # A database without a name is temporary: SQLite keeps it in its cache and spills it to disk.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute(
            "CREATE TABLE keys (hash INTEGER PRIMARY KEY, verdict TEXT, key TEXT, document TEXT)"
        )

    def note(self, notes: Iterable[Note]) -> None:
        """Write down what was found of keys; what was known of them is forgotten."""
        rows = ((hash(key), *_row(key, verdict, document)) for key, verdict, document in notes)
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def unknown(self, keys: Sequence[str]) -> list[str]:
        """Those of these keys of which nothing is noted."""
        hashes = {hash(key): key for key in keys}
        for start in range(0, len(keys), _KEYS_A_QUESTION):
            some = [*map(hash, keys[start : start + _KEYS_A_QUESTION])]
            question = f"SELECT hash FROM keys WHERE hash IN ({','.join('?' * len(some))})"  # noqa: S608 (question marks)
            for (known,) in self._db.execute(question, some):
                hashes.pop(known, None)
        return [*hashes.values()]

    def count(self, verdict: Name) -> int:
        """How many keys were found to be so."""
        [(number,)] = self._db.execute("SELECT count(*) FROM keys WHERE verdict = ?", (verdict,))
        return int(number)

    def some(self, verdict: Name, limit: int) -> list[str]:
        """The first few keys that were found to be so; none of those that need no explanation."""
        question = "SELECT key FROM keys WHERE verdict = ? AND key IS NOT NULL LIMIT ?"
        return [key for (key,) in self._db.execute(question, (verdict, limit))]

    def suspects(self, limit: int) -> Iterator[list[Suspect]]:
        """The keys to look at again, so many at a time."""
        last = -(2**63)
        question = (
            "SELECT hash, key, document FROM keys WHERE verdict IS NULL AND hash > ? ORDER BY hash LIMIT ?"
        )
        while rows := self._db.execute(question, (last, limit)).fetchall():
            last = rows[-1][0]
            yield [Suspect(key, document) for _, key, document in rows]

    def close(self) -> None:
        """Forget it all."""
        with closing(self._db):
            pass


def _row(key: str, verdict: Name | None, document: str | None) -> tuple[str | None, str | None, str | None]:
    # A key that is well is never asked for by its name: most are, so that this keeps the ledger small.
    return verdict, None if verdict in {"matching", "absent"} else key, document
