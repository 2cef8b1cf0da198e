"""What a verification has found so far, key by key: in memory while it is small, on disk beyond.

The documents come in ascending order, so what is added last about a key is what its newest document says.
"""

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from etl.verify.classify import Name

_CACHE_KIB: Final = 16 * 1024
_KEYS_A_QUESTION: Final = 500


class Finding(NamedTuple):
    """What is known of a key. Without a verdict it must be rechecked."""

    key: str
    verdict: Name | None
    document: str | None = None
    """The `_id`, as canonical Extended JSON, of the newest document that claims it, where one does."""


class Findings:
    """Those of one run. Keys are told apart by their hash, of 64 bits in this process. Close it."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(_place(), isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute(
            "CREATE TABLE keys (hash INTEGER PRIMARY KEY, verdict TEXT, key TEXT, document TEXT)"
        )

    def add(self, findings: Iterable[Finding]) -> None:
        """Keep findings; what was known of their keys before is forgotten."""
        rows = ((hash(finding.key), *_row(finding)) for finding in findings)
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def unknown(self, keys: Sequence[str]) -> list[str]:
        """Those of these keys of which nothing is known."""
        hashes = {hash(key): key for key in keys}
        for start in range(0, len(keys), _KEYS_A_QUESTION):
            some = [*map(hash, keys[start : start + _KEYS_A_QUESTION])]
            question = f"SELECT hash FROM keys WHERE hash IN ({','.join('?' * len(some))})"  # noqa: S608 (question marks)
            for (known,) in self._db.execute(question, some):
                hashes.pop(known, None)
        return [*hashes.values()]

    def count(self, verdict: Name) -> int:
        """How many keys have this verdict."""
        [(number,)] = self._db.execute("SELECT count(*) FROM keys WHERE verdict = ?", (verdict,))
        return int(number)

    def some(self, verdict: Name, limit: int) -> list[str]:
        """The first few keys that have this verdict; none of those that need no explanation."""
        question = "SELECT key FROM keys WHERE verdict = ? AND key IS NOT NULL LIMIT ?"
        return [key for (key,) in self._db.execute(question, (verdict, limit))]

    def unsettled(self, limit: int) -> Iterator[list[Finding]]:
        """The keys without a verdict, up to `limit` at a time; they may be given one meanwhile."""
        last = -(2**63)
        question = (
            "SELECT hash, key, document FROM keys WHERE verdict IS NULL AND hash > ? ORDER BY hash LIMIT ?"
        )
        while rows := self._db.execute(question, (last, limit)).fetchall():
            last = rows[-1][0]
            yield [Finding(key, None, document) for _, key, document in rows]

    def close(self) -> None:
        """Forget it all."""
        with closing(self._db):
            pass


def _place() -> str:
    """The database: one that spills to an unnamed temporary file, or stays in memory where none can be."""
    try:
        with tempfile.TemporaryFile():
            return ""
    except OSError:
        return ":memory:"


def _row(finding: Finding) -> tuple[str | None, str | None, str | None]:
    # A key that is well is never asked for by its name: most are, so that this keeps the database small.
    key, verdict, document = finding
    return verdict, None if verdict in {"matching", "absent"} else key, document
