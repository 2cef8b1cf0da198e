"""docs/architecture.md lists the functions that a document passes in a cycle and in a backfill, in order."""

import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from tests.factories import campaign
from tests.support.pipeline import NAME, Clock, sync
from tests.support.types import Document

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")


def steps(heading: str) -> list[tuple[str, str]]:
    """The file and function of each row below a heading."""
    section = PAGE.split(f"\n## {heading}\n", maxsplit=1)[1].split("\n## ", maxsplit=1)[0]
    return re.findall(r"^\| [^|]*\| `([^`]+)` \| `([^`]+)` \|", section, re.MULTILINE)


def called(run: Callable[[], object]) -> list[tuple[str, str]]:
    """The functions of this project that `run` calls, in the order of their first call."""
    found: dict[tuple[str, str], None] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)):
            found.setdefault((str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname))

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
        threading.setprofile(None)
    return [*found]


@contextmanager
def one_thread() -> Iterator[tuple[Executor, int]]:
    """An executor with one worker in this process."""
    with ThreadPoolExecutor(1) as executor:
        yield executor, 1


@pytest.fixture
def loaded(app: App, collection: Collection[Document], clock: Clock) -> App:
    """An application that has synced a document, which was changed afterwards."""
    collection.insert_one(campaign("camp_1", clock.ago(60)) | {"_id": "d"})
    sync(app)
    collection.update_one({"_id": "d"}, {"$set": {"updated_at": clock.now()}})
    return app


def test_cycle_calls_the_documented_functions(loaded: App) -> None:
    """At most 25 functions in at most 15 files."""
    documented = steps("One document through a cycle")
    assert [step for step in called(lambda: sync(loaded)) if step in documented] == documented
    assert len(documented) <= 25
    assert len({file for file, _ in documented}) <= 15
    assert f"These are {len(documented)} functions in {len({file for file, _ in documented})} files." in PAGE


def test_backfill_calls_the_documented_functions(loaded: App) -> None:
    documented = steps("One document through a backfill")
    order = BackfillOrder(executors=one_thread)
    found = called(lambda: loaded.backfill(NAME, order, lambda _: None))
    assert [step for step in found if step in documented] == documented
