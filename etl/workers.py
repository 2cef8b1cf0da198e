"""Who transforms the pages of a backfill: processes of this machine, or a Dask cluster."""

import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from etl.errors import Misconfigured, Transient
from etl.pipeline import Executors
from etl.transform import Row, Transform


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker does with a page: the transform, in a form that travels."""

    transform: Transform

    def __call__(self, documents: Sequence[bytes]) -> list[Row]:
        """The outcomes of these documents, as rows."""
        return self.transform.rows(documents)


# A page is thousands of objects without cycles: to look through them again and again took a tenth.
_RARELY: Final = (100_000, 20, 20)


@contextmanager
def rarely_collecting() -> Iterator[None]:
    """Look for cycles of garbage less often."""
    before = gc.get_threshold()
    gc.set_threshold(*_RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def processes(count: int) -> Executors:
    """`count` processes, gone when the block ends, or when this process dies."""

    @contextmanager
    def start() -> Iterator[tuple[Executor, int]]:
        # Not forked from here: threads hold locks that a fork would copy as they are.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        executor = ProcessPoolExecutor(count, context, _begin)
        try:
            yield executor, count
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    return start


def dask(scheduler: str) -> Executors:
    """The workers of a Dask cluster, which need this package installed; `scheduler` is its address.

    Entering the block raises `Misconfigured` where the extra is not installed, and `Transient` where
    the scheduler does not answer.
    """

    @contextmanager
    def start() -> Iterator[tuple[Executor, int]]:
        try:
            from distributed import Client  # noqa: PLC0415 (an extra, and slow to load)
        except ImportError:
            raise Misconfigured("--executor dask: pip install 'promptcontent-etl[distributed]'") from None
        try:
            client = Client(scheduler, timeout=10, set_as_default=False)
        except (OSError, ValueError) as error:
            raise Transient(f"no Dask scheduler at {scheduler}: {error}") from None
        with client:
            workers = sum(client.nthreads().values()) or 1
            yield client.get_executor(pure=False, retries=3), workers

    return start


def _begin() -> None:
    gc.freeze()  # what is there already lives as long as the process
    gc.set_threshold(*_RARELY)
    # Ctrl-C reaches the whole group of processes; who started this one decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker holds both ends of its queue: without this it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
