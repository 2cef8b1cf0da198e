"""Executors of a backfill: processes of this machine, or a Dask cluster."""

import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import (
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    InvalidStateError,
    ProcessPoolExecutor,
)
from contextlib import closing, contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext, ForkServerProcess
from types import ModuleType
from typing import Any, Final
from weakref import WeakSet

from etl.errors import ConfigurationError, TransientError
from etl.interfaces import Executors

DASK_SECONDS: Final = 10.0
"""Time limit for a Dask cluster to answer and to have a worker."""


# Workers are forked from a server process that has imported these modules, not from this process: a fork would copy
# locks that threads of this process hold.
_LOADED: Final = ["etl.container"]

# A confined program may lack a folder for the socket of the fork server, /dev/shm for the locks of queues, or the right
# to start a process.
_NO_PROCESSES: Final = (OSError, ImportError, NotImplementedError)

_log = logging.getLogger("etl.backfill")

# A page is thousands of objects without cycles: collecting garbage often took a tenth of the time.
_RARELY: Final = (100_000, 20, 20)


def processes(count: int) -> Executors:
    """`count` processes that end with the block or with this process; None if none can be started.

    They do not import the main program, which therefore needs no `if __name__ == "__main__"`.
    """

    @contextmanager
    def start() -> Iterator[tuple[Executor, int] | None]:
        try:
            _start_fork_server()
            executor = _Processes(count, _Context(), _initialize_worker)
        except _NO_PROCESSES as error:
            _log.warning("cannot start worker processes (%s): going on without workers", _line(error))
            yield None
            return
        try:
            yield executor, count
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    return start


def make_ready() -> None:
    """Preload the modules of worker processes in the background."""
    with suppress(*_NO_PROCESSES):  # `processes` reports the error
        _start_fork_server()


def _start_fork_server() -> None:
    forkserver.set_forkserver_preload(_LOADED)
    with _uninterrupted():
        forkserver.ensure_running()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Block SIGINT; a child inherits that until it can ignore the signal, which Ctrl-C sends to the process group."""
    resource_tracker.ensure_running()  # starting it would unblock the signal
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


class _Process(ForkServerProcess):
    """A process that does not import the main program.

    A script without a `__main__` guard would otherwise start a second backfill.
    """

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 (the name that multiprocessing calls)
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType(
            "__main__"
        )  # multiprocessing passes the child the main program found here
        try:
            with _uninterrupted():
                return ForkServerProcess._Popen(process_obj)  # noqa: SLF001 (the overridden method)
        finally:
            sys.modules["__main__"] = program


class _Context(ForkServerContext):
    Process = _Process


class _Processes(ProcessPoolExecutor):
    """A pool that raises `BrokenExecutor` if it cannot start a process: too many processes, or no fork server."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call it in a worker."""
        try:
            return super().submit(fn, *args, **kwargs)
        except (OSError, EOFError) as error:
            raise BrokenExecutor(f"cannot start a worker process: {_line(error)}") from error


def dask(scheduler: str) -> Executors:
    """The workers of a Dask cluster, which need this package; `scheduler` is its address.

    Entering the block raises `ConfigurationError` if the extra is not installed, and `TransientError` if the scheduler
    does not answer.
    """

    @contextmanager
    def start() -> Iterator[tuple[Executor, int] | None]:
        with _client(scheduler) as client:
            workers = sum(client.nthreads().values())
            executor = OnDask(client.get_executor(pure=False, retries=3), _Presence(client))
            with closing(executor):
                yield executor, workers

    return start


@contextmanager
def _client(scheduler: str) -> Iterator[Any]:
    try:
        import dask  # noqa: PLC0415 (an extra, and slow to load)
        from distributed import Client  # noqa: PLC0415
    except ImportError:
        raise ConfigurationError("--executor dask needs a package: pip install distributed") from None
    try:
        client: Any = Client(scheduler, timeout=DASK_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise TransientError(f"no Dask scheduler at {scheduler}: {_line(error)}") from None
    # Large tasks are intended: do not warn.
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"}), client:
        try:
            client.wait_for_workers(1, DASK_SECONDS)
        except TimeoutError:
            raise TransientError(f"the Dask scheduler at {scheduler} has no worker: start some") from None
        yield client


_REPLY_SECONDS: Final = 1.0
"""Time limit for the scheduler to answer when it is asked for its workers."""


class _Presence:
    """Tells whether a cluster is alive; a scheduler without workers has `DASK_SECONDS` to get new ones."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._seen = time.monotonic()

    def __call__(self) -> bool:
        if self._client.status == "closed":
            return False
        if self._has_workers():
            self._seen = time.monotonic()
        return time.monotonic() - self._seen < DASK_SECONDS

    def _has_workers(self) -> bool:
        """Whether there are workers; True for a lost scheduler, to which the client reconnects, or closes.

        A scheduler that does not answer in time counts as alive, so that Ctrl-C exits promptly when Dask hangs.
        """
        with suppress(OSError, TimeoutError):
            return self._client.status != "running" or bool(
                self._client.nthreads(callback_timeout=_REPLY_SECONDS)
            )
        return True


def _line(error: Exception) -> str:
    return str(error).replace("\n", " ") or type(error).__name__


class OnDask(Executor):
    """A Dask executor with the exceptions of `concurrent.futures`.

    Lost tasks (workers that die repeatedly, no workers, no scheduler) raise `BrokenExecutor`; workers without this
    package raise `ConfigurationError`.
    """

    def __init__(self, executor: Executor, is_there: Callable[[], bool]) -> None:
        self._executor = executor
        self._is_there = is_there
        self._gone = False
        self._answers: WeakSet[Future[Any]] = WeakSet()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._fail_when_gone, name="etl-dask", daemon=True)
        self._watch.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call it in a worker."""
        if self._gone:
            raise BrokenExecutor(_GONE)
        try:
            task = self._executor.submit(fn, *args, **kwargs)
        except Exception as error:
            raise BrokenExecutor(_GONE) from error
        answer: Future[Any] = Future()
        self._answers.add(answer)
        task.add_done_callback(lambda done: _complete(answer, done))
        return answer

    def close(self) -> None:
        """Stop watching the cluster."""
        self._done.set()
        self._watch.join()

    def _fail_when_gone(self) -> None:
        """Fail pending futures when scheduler or workers are gone: the client would leave them pending."""
        while not self._done.wait(0.5):
            self._gone = not self._is_there()
            if self._gone:
                for answer in list(self._answers):
                    _fail(answer, BrokenExecutor(_GONE))


_GONE: Final = "the Dask cluster is gone"


def _complete(answer: "Future[Any]", done: "Future[Any]") -> None:
    """Complete `answer` with the result or the translated error of `done`."""
    error = CancelledError() if done.cancelled() else done.exception()
    if error is None:
        with suppress(InvalidStateError):
            answer.set_result(done.result())
    elif isinstance(error, ImportError) or "deserializ" in str(error):
        _fail(answer, ConfigurationError("the Dask workers lack this package: install the same one there"))
    else:
        _fail(answer, BrokenExecutor(f"the Dask cluster has lost a task: {type(error).__name__}"))


def _fail(answer: "Future[Any]", error: Exception) -> None:
    with suppress(InvalidStateError):  # it has been completed
        answer.set_exception(error)


def _initialize_worker() -> None:
    gc.freeze()  # loaded objects live as long as the process
    gc.set_threshold(*_RARELY)
    # Ctrl-C reaches the whole process group; the coordinator decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent exits: a worker holds both ends of its queue, and would wait forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
