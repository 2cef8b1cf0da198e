import sqlite3
import tempfile
from contextlib import closing

import pytest

from etl.verify.findings import Finding, Findings


def test_last_finding_about_a_key_counts() -> None:
    with closing(Findings()) as findings:
        findings.add([Finding("a", None, "1"), Finding("b", "matching"), Finding("a", "expired")])
        findings.add([Finding("b", None, "2"), Finding("c", "absent")])
        assert [findings.count(name) for name in ("matching", "expired", "absent")] == [0, 1, 1]
        assert findings.some("expired", 5) == ["a"]
        assert [*findings.unsettled(5)] == [[Finding("b", None, "2")]]
        assert findings.unknown(["a", "b", "c", "d", "e"]) == ["d", "e"]


def test_unsettled_yields_each_key_once() -> None:
    """Although findings about them are added during the iteration."""
    with closing(Findings()) as findings:
        findings.add(Finding(f"k{n}", None, "1") for n in range(2500))
        met: list[str] = []
        for some in findings.unsettled(100):
            met += [finding.key for finding in some]
            findings.add(Finding(finding.key, "different") for finding in some)
        assert (len(met), len(set(met)), findings.count("different")) == (2500, 2500, 2500)
        assert len(findings.unknown([f"k{n}" for n in range(3000)])) == 500


def test_findings_need_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a writable folder, an SQLite database that may spill to disk fails."""

    def refused(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    def connect(name: str, isolation_level: None) -> sqlite3.Connection:
        if not name:
            raise sqlite3.OperationalError("unable to open database file")
        return sqlite3.Connection(name, isolation_level=isolation_level)

    monkeypatch.setattr(tempfile, "TemporaryFile", refused)
    monkeypatch.setattr(sqlite3, "connect", connect)
    with closing(Findings()) as findings:
        findings.add(Finding(f"config:api:{n}", "missing") for n in range(100))
        assert findings.count("missing") == 100
