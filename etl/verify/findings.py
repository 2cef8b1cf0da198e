"""The results of a verification per key, in memory up to a limit, then on disk.

Documents are read in ascending order, so the last finding added for a key is that of its newest document.
"""

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Final, NamedTuple

from etl.verify.classify import Name

_CACHE_KIB: Final = 16 * 1024
_KEYS_PER_QUERY: Final = 500


class Finding(NamedTuple):
    """The result for a key. Without a verdict it must be rechecked."""

    key: str
    verdict: Name | None
    document: str | None = None
    """The `_id`, as canonical Extended JSON, of the newest document that claims it; None if none does."""


class Findings:
    """The findings of one run, by the 64-bit hash of the key. Must be closed."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(_database(), isolation_level=None)
        self._db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._db.execute("PRAGMA journal_mode = OFF")
        self._db.execute(
            "CREATE TABLE keys (hash INTEGER PRIMARY KEY, verdict TEXT, key TEXT, document TEXT)"
        )

    def add(self, findings: Iterable[Finding]) -> None:
        """Add findings; they replace earlier ones of the same keys."""
        rows = ((hash(finding.key), *_row(finding)) for finding in findings)
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def unknown(self, keys: Sequence[str]) -> list[str]:
        """The keys without a finding."""
        hashes = {hash(key): key for key in keys}
        for start in range(0, len(keys), _KEYS_PER_QUERY):
            batch = [*map(hash, keys[start : start + _KEYS_PER_QUERY])]
            query = f"SELECT hash FROM keys WHERE hash IN ({','.join('?' * len(batch))})"  # noqa: S608 (placeholders)
            for (known,) in self._db.execute(query, batch):
                hashes.pop(known, None)
        return [*hashes.values()]

    def count(self, verdict: Name) -> int:
        """The number of keys with this verdict."""
        [(number,)] = self._db.execute("SELECT count(*) FROM keys WHERE verdict = ?", (verdict,))
        return int(number)

    def some(self, verdict: Name, limit: int) -> list[str]:
        """Up to `limit` keys with this verdict; for `matching` and `absent` names are not stored."""
        query = "SELECT key FROM keys WHERE verdict = ? AND key IS NOT NULL LIMIT ?"
        return [key for (key,) in self._db.execute(query, (verdict, limit))]

    def unsettled(self, limit: int) -> Iterator[list[Finding]]:
        """The keys without a verdict, up to `limit` at a time; verdicts may be added during the iteration."""
        last = -(2**63)
        query = (
            "SELECT hash, key, document FROM keys WHERE verdict IS NULL AND hash > ? ORDER BY hash LIMIT ?"
        )
        while rows := self._db.execute(query, (last, limit)).fetchall():
            last = rows[-1][0]
            yield [Finding(key, None, document) for _, key, document in rows]

    def close(self) -> None:
        """Delete everything."""
        with closing(self._db):
            pass


def _database() -> str:
    """The path for SQLite: empty for an unnamed temporary file; memory if no temporary file can be created."""
    try:
        with tempfile.TemporaryFile():
            return ""
    except OSError:
        return ":memory:"


def _row(finding: Finding) -> tuple[str | None, str | None, str | None]:
    # The names of keys that match are not needed. They are the majority, so this keeps the database small.
    key, verdict, document = finding
    return verdict, None if verdict in {"matching", "absent"} else key, document
