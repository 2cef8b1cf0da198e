"""Verification: is the cache what MongoDB says it should be, key by key; and mending what is not.

One pass over the documents in the order of cycles, a page at a time: what a page claims is compared
with what Redis holds. One pass over the keys that have an owner finds those that no document claims.
Whatever is not as it should be is only suspect, and looked at again before it is accused.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, get_args

from etl.verify.classify import Name, glance
from etl.verify.findings import Ledger, Note
from etl.verify.inspection import members_of
from etl.verify.reading import Reading
from etl.verify.recheck import SecondLook, Subject
from etl.verify.report import SHOWN, VerifyReport
from schemas.ids import id_text
from schemas.position import FIRST, id_in

Tell = Callable[[int, int], None]
"""Told of progress: documents read, and how many there are about."""

_AT_A_TIME: Final = 500  # suspects


class Verify:
    """One verification. Used once."""

    def __init__(self, subject: Subject, report: VerifyReport, tell: Tell) -> None:
        self._subject = subject
        self._report = report
        self._tell = tell
        self._began = subject.clock()
        self._second = SecondLook(subject, self._began)
        self._ledger: Ledger

    def run(self, sample: int | None, *, repair: bool) -> VerifyReport:
        """Compare all keys, or those of about `sample` documents and as many that have an owner.

        Raises:
            EtlError: a server stays away, or refuses.
        """
        began = time.monotonic()
        with closing(Ledger()) as self._ledger:
            self._subject.retry(self._subject.source.prepare)
            if sample is None:
                self._read_all()
            else:
                self._read_some(sample)
                self._recall()
            self._accuse(repair=repair)
            self._count()
        self._report.repaired = self._second.mended
        self._report.duration_ms = round((time.monotonic() - began) * 1000)
        return self._report

    def _read_all(self) -> None:
        total = self._subject.retry(self._subject.source.count)
        for readings in self._subject.readings(FIRST):
            self._compare(readings, total)
        for owned in self._subject.inspection.owned():
            self._suspect(owned)

    def _read_some(self, sample: int) -> None:
        self._report.sampled = True
        size, ids = self._subject.page_size, self._sampled(sample)
        for start in range(0, len(ids), size):
            self._compare(self._subject.fetch(ids[start : start + size]), len(ids))
        for owned in self._subject.inspection.owned():
            self._suspect(dict([*owned.items()][:sample]))
            sample -= len(owned)
            if sample <= 0:
                return

    def _sampled(self, sample: int) -> list[Any]:
        """The `_id`s of about so many documents, each once."""
        stages = [{"$sample": {"size": sample}}, {"$project": {"_id": 1}}]
        cursor = {"cursor": {"batchSize": sample}}
        found = self._ask({"aggregate": self._subject.collection, "pipeline": stages} | cursor)
        return [*{id_text(one["_id"]): one["_id"] for one in found["cursor"]["firstBatch"]}.values()]

    def _ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._subject.retry(lambda: self._subject.source.ask(command))

    def _compare(self, readings: Sequence[Reading], total: int) -> None:
        """What a page of documents claims against what Redis holds."""
        claims: dict[str, Reading] = {}
        for reading in readings:
            claims.update(dict.fromkeys(reading.claims, reading))
        if claims:
            self._ledger.note(self._glances(claims))
        self._report.documents += len(readings)
        self._report.invalid += sum(reading.reject is not None for reading in readings)
        self._tell(self._report.documents, total)

    def _glances(self, claims: Mapping[str, Reading]) -> Iterator[Note]:
        keys = {key: members_of(reading.claims[key]) for key, reading in claims.items()}
        looked = self._subject.retry(lambda: self._subject.inspection.look(keys))
        for key, reading in claims.items():
            entry = reading.claims[key]
            verdict = glance(entry, reading.ms, looked.get(key), self._subject.rules, self._began)
            yield Note(key, verdict, None if verdict else reading.id)

    def _suspect(self, owned: Mapping[str, str]) -> None:
        """Keys that have an owner, are there, and that no document has claimed so far."""
        unknown = dict.fromkeys(self._ledger.unknown([*owned]), 0)
        looked = self._subject.retry(lambda: self._subject.inspection.look(unknown)) if unknown else {}
        self._ledger.note(Note(key, None, id_in(owned[key])) for key in looked)

    def _recall(self) -> None:
        """Of a key that is wrong, find the newest claim among all documents: a sample may hold an older."""
        wrong: dict[str, str] = {}
        for suspects in self._ledger.suspects(_AT_A_TIME):
            accused = {one.case.key for one in self._second.settle(suspects, repair=False) if one.accused}
            wrong |= {key: document for key, document in suspects if key in accused}
        for readings in self._subject.readings(FIRST) if wrong else ():
            for reading in readings:
                wrong.update(dict.fromkeys(reading.claims.keys() & wrong.keys(), reading.id))
        self._ledger.note(Note(key, None, document) for key, document in wrong.items())

    def _accuse(self, *, repair: bool) -> None:
        """Look at every suspect again, and say what each is."""
        for suspects in self._ledger.suspects(_AT_A_TIME):
            judged = self._second.settle(suspects, repair=repair)
            self._ledger.note(Note(case.key, verdict.name) for case, verdict in judged)
            for case, verdict in judged:
                if verdict.why:
                    self._report.example(verdict.name, case.key, verdict.why)

    def _count(self) -> None:
        for name in get_args(Name):
            if name != "absent":
                self._report.count(name, self._ledger.count(name))
        for key in self._ledger.some("expired", SHOWN):
            self._report.example("expired", key, "its document changed longer ago than it lives")
